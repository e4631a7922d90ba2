//! Two logics side by side through one log: the first output that differs (`RP2`).

use std::fmt;
use std::path::Path;

use lockstep_journaler::Position;
use lockstep_journaler::schema::Kind;

use super::{Range, Replay, disk};
use crate::error::Result;
use crate::event::{Kinds, Slot};
use crate::logic::{EventOf, Logic, OutputOf};

/// What [`compare`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every output is the same.
    Same {
        /// Events that both went through.
        events: u64,
        /// Outputs that were compared.
        outputs: u64,
        /// Whether the states of the logics hash alike; they need not, where the layout changed.
        states_agree: bool,
    },
    /// An output differs.
    Different(Box<Difference>),
    /// One of the two could not go on.
    CannotTell {
        /// The position that it could not go beyond.
        position: Position,
        /// Which, and why.
        why: String,
    },
}

/// The first output that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The event that caused it.
    pub position: Position,
    /// Which of the event's outputs.
    pub index: u32,
    /// The name of its kind, in the old logic; `none` where that emitted nothing more.
    pub old_kind: String,
    /// The same in the new logic.
    pub new_kind: String,
    /// What differs, field by field, where both are of one kind.
    pub fields: Vec<FieldDifference>,
}

/// One field of two outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// Its name in the schema.
    pub name: String,
    /// The old logic's value.
    pub old: String,
    /// The new logic's value.
    pub new: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Same {
                events,
                outputs,
                states_agree,
            } => {
                let states = if *states_agree {
                    "the states agree"
                } else {
                    "the states differ"
                };
                write!(f, "same: {outputs} outputs of {events} events, {states}")
            }
            Verdict::Different(difference) => difference.fmt(f),
            Verdict::CannotTell { position, why } => {
                write!(f, "cannot tell beyond position {position}: {why}")
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            position,
            index,
            old_kind,
            new_kind,
            fields,
        } = self;
        write!(f, "different at position {position}, output {index}: ")?;
        if old_kind != new_kind {
            return write!(f, "{old_kind} became {new_kind}");
        }
        write!(f, "{old_kind}")?;
        fields
            .iter()
            .try_for_each(|field| write!(f, " {} {} -> {}", field.name, field.old, field.new))
    }
}

/// Runs two logics through one log and names the first output that differs (`RP2`). Both start
/// from the newest snapshot before `from` that both can load, or from the beginning.
///
/// # Errors
///
/// The log cannot be read, or one of the two cannot start.
pub fn compare<A: Logic, B: Logic>(
    directory: impl AsRef<Path>,
    old: impl Fn() -> A + Send + Sync + 'static,
    new: impl Fn() -> B + Send + Sync + 'static,
    range: Range,
) -> Result<Verdict>
where
    B::In: Kinds<Slot = EventOf<A>>,
    B::Out: Kinds<Slot = OutputOf<A>>,
{
    let storage = disk(directory)?;
    let mut old = Replay::open_on(storage.clone(), old, range)?;
    let mut new = Replay::open_on(storage, new, range)?.without_beacons();
    let (mut events, mut outputs) = (0, 0);
    // Ends: with the log, or at the first difference.
    loop {
        let position = old.core().position().max(range.from);
        let (one, other) = match (old.step(), new.step()) {
            (Ok(Some(one)), Ok(Some(other))) => (one, other),
            (Ok(_), Ok(_)) => break,
            (Err(error), _) => {
                return Ok(Verdict::CannotTell {
                    position,
                    why: format!("the old logic: {error}"),
                });
            }
            (_, Err(error)) => {
                return Ok(Verdict::CannotTell {
                    position,
                    why: format!("the new logic: {error}"),
                });
            }
        };
        if one.position != other.position {
            let why = format!(
                "the new logic begins at position {}: choose a later `from`",
                other.position
            );
            return Ok(Verdict::CannotTell { position, why });
        }
        if let Some(difference) = first_difference::<A>(one.position, one.outputs, other.outputs) {
            return Ok(Verdict::Different(Box::new(difference)));
        }
        events += 1;
        outputs += one.outputs.len() as u64;
    }
    let states_agree = old.logic().state_hash() == new.logic().state_hash();
    Ok(Verdict::Same {
        events,
        outputs,
        states_agree,
    })
}

fn first_difference<A: Logic>(
    position: Position,
    old: &[OutputOf<A>],
    new: &[OutputOf<A>],
) -> Option<Difference> {
    let at = (0..old.len().max(new.len()))
        .find(|&at| old.get(at).map(bytemuck::bytes_of) != new.get(at).map(bytemuck::bytes_of))?;
    let schema = A::Out::schema();
    let mut kinds = schema.kinds.to_vec();
    kinds.extend(crate::system::output_kinds::<OutputOf<A>>());
    let (old, new) = (old.get(at), new.get(at));
    let (old_kind, new_kind) = (name_of(&kinds, old), name_of(&kinds, new));
    let fields = match (old, new) {
        (Some(old), Some(new)) if old_kind == new_kind => fields_of(&kinds, old, new),
        _ => Vec::new(),
    };
    Some(Difference {
        position,
        index: u32::try_from(at).unwrap_or(u32::MAX),
        old_kind,
        new_kind,
        fields,
    })
}

fn kind_of<'k, O: Slot>(kinds: &'k [Kind], output: &O) -> Option<&'k Kind> {
    kinds
        .iter()
        .find(|kind| kind.number == u32::from(output.output().kind))
}

fn name_of<O: Slot>(kinds: &[Kind], output: Option<&O>) -> String {
    let Some(output) = output else {
        return "none".to_owned();
    };
    let unknown = || format!("kind {}", output.output().kind);
    kind_of(kinds, output).map_or_else(unknown, |kind| kind.name.to_string())
}

fn fields_of<O: Slot>(kinds: &[Kind], old: &O, new: &O) -> Vec<FieldDifference> {
    let (old_header, new_header) = (old.output(), new.output());
    let mut fields = Vec::new();
    for (name, one, other) in [
        ("time", old_header.time, new_header.time),
        (
            "version",
            old_header.version.into(),
            new_header.version.into(),
        ),
        ("flags", old_header.flags.into(), new_header.flags.into()),
    ] {
        if one != other {
            fields.push(FieldDifference {
                name: name.to_owned(),
                old: one.to_string(),
                new: other.to_string(),
            });
        }
    }
    let own = kind_of(kinds, old).map_or(&[][..], |kind| &kind.fields);
    let (old, new) = (bytemuck::bytes_of(old), bytemuck::bytes_of(new));
    for field in own {
        let (one, other) = (field.value(old), field.value(new));
        if one != other {
            let show = |value: Option<_>| {
                value.map_or_else(
                    String::new,
                    |value: lockstep_journaler::schema::Value<'_>| value.to_string(),
                )
            };
            fields.push(FieldDifference {
                name: field.name.to_string(),
                old: show(one),
                new: show(other),
            });
        }
    }
    fields
}

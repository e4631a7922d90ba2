//! Events of older versions, brought up to date at reading, one version at a time.
//!
//! The journal keeps what was written. A chain of upcasters leads from each layout that was
//! ever written to the one that the logic knows; a step that is missing is named.
//!
//! # Invariants
//!
//! * `UC1` The header's time, session and request survive every step.
//! * `UC2` A chain ends: each step leads to another kind or a higher version, and it is
//!   followed for at most as many steps as there are.

use std::fmt;

use thiserror::Error;

use crate::event::{Body, Kinds, SYSTEM_KINDS, Slot};

/// One step: from a body of one kind and version to another.
struct Step<S> {
    from: (u16, u16),
    name: &'static str,
    cast: Box<dyn Fn(&mut S) + Send + Sync>,
}

/// Chains of upcasters.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// bodies! {
///     DepositV1, kind 1, version 1: { account: u32, dollars: u32 }
///     DepositV2, kind 1, version 2: { account: u64, dollars: i64 }
///     Deposit, kind 1, version 3: { account: u64, cents: i64 }
/// }
/// let upcasters = Upcasters::<Event64>::new()
///     .step(|old: &DepositV1| DepositV2 { account: old.account.into(), dollars: old.dollars.into() })
///     .step(|old: &DepositV2| Deposit { account: old.account, cents: old.dollars * 100 });
///
/// let mut event = Event64::event(&DepositV1 { account: 7, dollars: 3 });
/// upcasters.bring_up::<Deposit>(&mut event)?;
/// assert_eq!(Deposit::view(&event), Some(&Deposit { account: 7, cents: 300 }));
/// # Ok::<(), lockstep_engine::upcast::UnknownVersion>(())
/// ```
pub struct Upcasters<S> {
    steps: Vec<Step<S>>,
}

impl<S> fmt::Debug for Upcasters<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.steps.iter().map(|step| (step.name, step.from));
        f.debug_list().entries(names).finish()
    }
}

impl<S> Default for Upcasters<S> {
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

/// An event that nobody here can read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "an event of {name} (kind {kind}{}) has version {found}, this {} knows {known}: {}",
    if *.kind < SYSTEM_KINDS { "" } else { ", one of the engine's own" },
    if *.kind < SYSTEM_KINDS { "logic" } else { "program" },
    advice(*.kind, *.found, *.known)
)]
pub struct UnknownVersion {
    /// The kind's name, as the schema has it.
    pub name: String,
    /// The kind.
    pub kind: u16,
    /// The version in the event.
    pub found: u16,
    /// The logic's version; 0 if it does not know the kind.
    pub known: u16,
}

fn advice(kind: u16, found: u16, known: u16) -> &'static str {
    if kind >= SYSTEM_KINDS {
        "a newer program wrote it; use that program"
    } else if known == 0 {
        "another application wrote it; open its journal with that application"
    } else if found > known {
        "a newer program wrote it; use that program"
    } else {
        "add the missing step to Logic::upcasters"
    }
}

impl<S: Slot> Upcasters<S> {
    /// None: every event has to be of the newest version.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step from one body to the next.
    #[must_use]
    pub fn step<Old: Body, New: Body>(
        mut self,
        cast: impl Fn(&Old) -> New + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step {
            from: (Old::KIND, Old::VERSION),
            name: Old::NAME,
            cast: Box::new(move |slot: &mut S| {
                let new = cast(slot.body_as::<Old>());
                slot.set_body(&new);
                slot.header_mut().kind = New::KIND;
                slot.header_mut().version = New::VERSION;
            }),
        });
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Brings an event to the newest version of its kind, if it is not there.
    ///
    /// # Errors
    ///
    /// The kind by name, and the version from which no step leads on.
    pub fn bring_up<K: Kinds<Slot = S>>(&self, event: &mut S) -> Result<(), UnknownVersion> {
        for _ in 0..=self.steps.len() {
            let (kind, version) = (event.header().kind, event.header().version);
            if K::version_of(kind) == Some(version) {
                return Ok(());
            }
            match self.steps.iter().find(|step| step.from == (kind, version)) {
                Some(step) => (step.cast)(event),
                None => break,
            }
        }
        let header = event.header();
        Err(UnknownVersion {
            name: self.name_of::<K>(header.kind),
            kind: header.kind,
            found: header.version,
            known: K::version_of(header.kind).unwrap_or(0),
        })
    }

    fn name_of<K: Kinds<Slot = S>>(&self, kind: u16) -> String {
        let schema = K::schema();
        let known = schema
            .kind(u32::from(kind))
            .map(|kind| kind.name.to_string());
        let older = || {
            self.steps
                .iter()
                .find(|step| step.from.0 == kind)
                .map(|step| step.name)
        };
        known
            .or_else(|| older().map(str::to_owned))
            .unwrap_or_else(|| "an unknown kind".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event64;

    crate::bodies! {
        Old, kind 5, version 1: { value: u32 }
        Middle, kind 5, version 2: { value: u64 }
        New, kind 6, version 1: { value: u64, doubled: u64 }
    }

    fn chain() -> Upcasters<Event64> {
        Upcasters::new()
            .step(|old: &Old| Middle {
                value: old.value.into(),
            })
            .step(|old: &Middle| New {
                value: old.value,
                doubled: old.value * 2,
            })
    }

    #[test]
    fn uc1_a_chain_keeps_the_header_and_may_change_the_kind() {
        let mut event = Event64::event(&Old { value: 21 });
        event.header_mut().time = 9;
        event.header_mut().session = 8;
        event.header_mut().request = 7;
        chain().bring_up::<New>(&mut event).unwrap();
        assert_eq!(
            New::view(&event),
            Some(&New {
                value: 21,
                doubled: 42
            })
        );
        assert_eq!(
            (
                event.header().time,
                event.header().session,
                event.header().request
            ),
            (9, 8, 7)
        );
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut newer = Event64::event(&Middle { value: 1 });
        newer.header_mut().version = 9;
        let error = Upcasters::new().bring_up::<Middle>(&mut newer).unwrap_err();
        assert_eq!(
            (error.name.as_str(), error.kind, error.found, error.known),
            ("Middle", 5, 9, 2)
        );
        assert!(error.to_string().contains("newer program"), "{error}");
        let mut older = Event64::event(&Old { value: 1 });
        let error = Upcasters::new().bring_up::<Middle>(&mut older).unwrap_err();
        assert!(error.to_string().contains("Logic::upcasters"), "{error}");
    }

    #[test]
    fn uc2_a_chain_in_a_circle_ends() {
        let circle = Upcasters::<Event64>::new()
            .step(|old: &Old| Middle {
                value: old.value.into(),
            })
            .step(|old: &Middle| Old {
                value: u32::try_from(old.value).unwrap_or(0),
            });
        assert!(
            circle
                .bring_up::<New>(&mut Event64::event(&Old { value: 1 }))
                .is_err()
        );
    }
}

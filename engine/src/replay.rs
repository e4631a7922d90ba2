//! Going through a log again: as fast as possible or in its own time, event by event, up to
//! a position, and with two logics side by side.
//!
//! A replay reads what is durable, takes no lock and changes nothing, so it runs beside the
//! engine that writes. It begins with the newest good snapshot at or before where it is asked
//! to, and passes over what is in quarantine. `until` a position is also the answer to "what
//! was the state then".
//!
//! # Invariants
//!
//! * `RP1` The same log and logic give the same outputs and the same hash, at every speed.
//! * `RP2` [`compare`] names the first output that differs; what it cannot judge it says so.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstep_journaler::directory::{MetaFound, read_meta};
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_journaler::{From, Position, Reached, Reader, Tail};

use crate::config::{Config, OnValidatePanic};
use crate::core::{Core, Outcome, Scratch};
use crate::error::{Error, Result};
use crate::event::{Kinds, Slot};
use crate::log::{Broken, events_of, replay, replay_frame};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::node::recovery::{Factory, Source, Unmarked};
use crate::runtime::clock::Stopwatch;

mod comparing;

pub use comparing::{Difference, FieldDifference, Verdict, compare};

/// How fast a replay goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it can.
    #[default]
    Max,
    /// In the log's own time, so many times faster, in percent: 100 keeps its gaps.
    Percent(u32),
}

/// What a replay goes through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    /// The first event whose outputs are wanted; from the beginning unless told. The state in
    /// front of it comes from the newest snapshot there. Where retention has taken the beginning, a
    /// replay begins with the oldest snapshot, and says so in its [`Summary`].
    pub from: Position,
    /// Ends in front of this event; at the durable end unless told.
    pub until: Option<Position>,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The snapshot that it began with.
    pub snapshot: Option<Position>,
    /// Events applied, refused or passed over, those before `from` among them.
    pub events: u64,
    /// Outputs from `from` on.
    pub outputs: u64,
    /// Where the state is.
    pub position: Position,
    /// The log's time there.
    pub time_ns: u64,
    /// The hash of the whole state.
    pub state_hash: u64,
    /// The hash of the logic's state alone.
    pub logic_hash: u64,
    /// How long it took.
    pub took: Duration,
}

/// One event of a replay, done.
#[derive(Debug)]
pub struct Stepped<'r, L: Logic> {
    /// Its position.
    pub position: Position,
    /// The event as it was written.
    pub event: EventOf<L>,
    /// What came of it.
    pub outcome: Outcome,
    /// What came out.
    pub outputs: &'r [OutputOf<L>],
}

/// A replay of one logic.
///
/// ```no_run
/// # use lockstep_engine::prelude::*;
/// # use lockstep_engine::replay::{Range, Replay};
/// # fn show<Bank: Logic + Default>() -> lockstep_engine::Result<()> {
/// let range = Range { until: Some(Position(1_000)), ..Range::default() };
/// let mut replay = Replay::<Bank>::open("./bank", Bank::default, range)?;
/// let summary = replay.run(|output| println!("{output:?}"))?;
/// println!("at {} the state was {:016x}", summary.position, summary.state_hash);
/// let bank: &Bank = replay.logic(); // as of position 1 000
/// # let _ = bank;
/// # Ok(())
/// # }
/// ```
pub struct Replay<L: Logic, S: Storage = Disk> {
    reader: Reader<S>,
    core: Core<L>,
    scratch: Scratch<L::Out>,
    range: Range,
    snapshot: Option<Position>,
    refuses_panics: bool,
    /// Events of the present frame that were not stepped over yet.
    waiting: VecDeque<EventOf<L>>,
    outputs: Vec<OutputOf<L>>,
    started_at: Position,
}

impl<L: Logic, S: Storage> fmt::Debug for Replay<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("position", &self.core.position())
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl<L: Logic> Replay<L> {
    /// A replay of the log in this directory, which may be in use.
    ///
    /// # Errors
    ///
    /// There is no log, its events are not the logic's, or no state can be had at `from`.
    pub fn open(
        directory: impl AsRef<Path>,
        fresh: impl Fn() -> L + Send + Sync + 'static,
        range: Range,
    ) -> Result<Self> {
        Self::open_on(disk(directory)?, fresh, range)
    }
}

fn disk(directory: impl AsRef<Path>) -> Result<Disk> {
    let directory = directory.as_ref();
    Disk::at(directory).map_err(|source| Error::Directory {
        directory: directory.display().to_string(),
        source,
    })
}

impl<L: Logic, S: Storage> Replay<L, S> {
    /// The same on any storage.
    ///
    /// # Errors
    ///
    /// As [`open`](Replay::open).
    pub fn open_on(
        storage: S,
        fresh: impl Fn() -> L + Send + Sync + 'static,
        range: Range,
    ) -> Result<Self> {
        let factory: Factory<L> = Arc::new(fresh);
        let (mut reader, log, oldest) = open_log::<L::In, S>(&storage)?;
        let config = Config::default();
        let mut source = Source {
            storage: &storage,
            reader: &mut reader,
            factory: &factory,
            log,
            // The end moves while the engine writes: chains are looked up in the log alone.
            end: Tail {
                reached: Reached {
                    position: Position(u64::MAX),
                    frames: 0,
                },
                ..Tail::default()
            },
            oldest,
            config: &config,
            unmarked: Unmarked::ByPolicy,
        };
        let newest = range.from.min(range.until.unwrap_or(Position(u64::MAX)));
        let (mut core, plan) = if newest < oldest {
            source.start_earliest(range.until.unwrap_or(Position(u64::MAX)))?
        } else {
            source.start(newest, newest)?
        };
        let mut skip = BTreeSet::new();
        source.marks(core.position(), Position(u64::MAX), &mut skip)?;
        core.skip(&skip);
        reader.seek(From::Position(core.position()))?;
        let started_at = core.position();
        Ok(Self {
            reader,
            core,
            scratch: Scratch::default(),
            range,
            snapshot: plan.snapshot,
            refuses_panics: false,
            waiting: VecDeque::new(),
            outputs: Vec::new(),
            started_at,
        })
    }

    /// Refuses events on which `validate` panics, as the engine did that wrote the log with
    /// `on_validate_panic = refuse`.
    #[must_use]
    pub fn on_validate_panic(self, policy: OnValidatePanic) -> Self {
        Self {
            refuses_panics: policy == OnValidatePanic::Refuse,
            ..self
        }
    }

    /// Beacons of the log do not count: for another version of the logic.
    #[must_use]
    pub fn without_beacons(self) -> Self {
        Self {
            core: self.core.without_beacons(),
            ..self
        }
    }

    /// Goes through to the end, as fast as it can; outputs from `from` on go to `on_output`.
    ///
    /// # Errors
    ///
    /// The log is damaged, differs from the state, or makes the logic panic: each with its position.
    pub fn run(&mut self, mut on_output: impl FnMut(&OutputOf<L>)) -> Result<Summary> {
        let watch = Stopwatch::start();
        let (mut outputs, from) = (0, self.range.from.0);
        let mut count = |output: &OutputOf<L>| {
            if output.output().position >= from {
                outputs += 1;
                on_output(output);
            }
        };
        while let Some(event) = self.waiting.pop_front() {
            let mut out = self.scratch.outputs();
            self.core.step(&event, &mut out)?;
            out.written().for_each(&mut count);
        }
        let until = self.range.until.unwrap_or(Position(u64::MAX));
        let ran = replay(
            &mut self.reader,
            &mut self.core,
            &mut self.scratch,
            until,
            self.refuses_panics,
            &mut count,
        );
        ran.map_err(|broken| error_of(broken, self.core.position()))?;
        Ok(self.summary(outputs, watch.elapsed()))
    }

    /// The same at a speed: events come as far apart as the log says.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_at(
        &mut self,
        speed: Speed,
        mut on_step: impl FnMut(&Stepped<'_, L>),
    ) -> Result<Summary> {
        let watch = Stopwatch::start();
        let mut outputs = 0;
        let mut first_ns = None;
        while let Some(stepped) = self.step()? {
            // An event of the engine's own has no time where events bring theirs.
            if let (Speed::Percent(percent), time_ns @ 1..) = (speed, stepped.event.header().time) {
                let since_ns = time_ns.saturating_sub(*first_ns.get_or_insert(time_ns));
                pause_until(
                    &watch,
                    since_ns.saturating_mul(100) / u64::from(percent.max(1)),
                );
            }
            outputs += stepped.outputs.len() as u64;
            on_step(&stepped);
        }
        Ok(self.summary(outputs, watch.elapsed()))
    }

    /// Steps over the next event from `from` on; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn step(&mut self) -> Result<Option<Stepped<'_, L>>> {
        if self.core.position() < self.range.from {
            self.catch_up()?;
        }
        let is_over = self
            .range
            .until
            .is_some_and(|until| self.core.position() >= until);
        if is_over || (self.waiting.is_empty() && !self.next_frame()?) {
            return Ok(None);
        }
        let Some(event) = self.waiting.pop_front() else {
            return Ok(None);
        };
        let position = self.core.position();
        let mut out = self.scratch.outputs();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.core.step(&event, &mut out)
        }));
        let outcome = match ran {
            Ok(outcome) => outcome?,
            Err(_) if self.core.was_validating() && self.refuses_panics => {
                out.take_back();
                self.core.step_refused(&event, &mut out)?
            }
            Err(panic) => {
                let broken = Broken::Panicked {
                    is_validating: self.core.was_validating(),
                    kind: event.header().kind,
                    text: crate::error::panic_text(panic.as_ref()),
                };
                return Err(error_of(broken, position));
            }
        };
        self.outputs.clear();
        self.outputs.extend(out.written().copied());
        Ok(Some(Stepped {
            position,
            event,
            outcome,
            outputs: &self.outputs,
        }))
    }

    /// To `from`, in silence.
    fn catch_up(&mut self) -> Result<()> {
        let from = self.range.from;
        // Ends: at `from`, or at the log's end.
        while self.core.position() < from {
            let Some(frame) = self.reader.next_frame()? else {
                return Ok(());
            };
            let ran = replay_frame(
                &frame,
                &mut self.core,
                &mut self.scratch,
                from,
                self.refuses_panics,
                &mut |_| (),
            );
            ran.map_err(|broken| error_of(broken, self.core.position()))?;
            let done = self
                .core
                .position()
                .0
                .saturating_sub(frame.header().first_position);
            let done = usize::try_from(done).unwrap_or(usize::MAX);
            self.waiting
                .extend(events_of::<EventOf<L>>(&frame)?.iter().skip(done));
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<bool> {
        // Ends: by a frame with events, or at the log's end.
        while self.waiting.is_empty() {
            let Some(frame) = self.reader.next_frame()? else {
                return Ok(false);
            };
            let known = self
                .core
                .position()
                .0
                .saturating_sub(frame.header().first_position);
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            self.waiting
                .extend(events_of::<EventOf<L>>(&frame)?.iter().skip(known));
        }
        Ok(true)
    }

    fn summary(&self, outputs: u64, took: Duration) -> Summary {
        Summary {
            snapshot: self.snapshot,
            events: self.core.position().0 - self.started_at.0,
            outputs,
            position: self.core.position(),
            time_ns: self.core.time_ns(),
            state_hash: self.core.state_hash(),
            logic_hash: self.core.logic().state_hash(),
            took,
        }
    }

    /// The snapshot that it began with.
    #[must_use]
    pub fn snapshot(&self) -> Option<Position> {
        self.snapshot
    }

    /// The logic as it is where the replay stands.
    #[must_use]
    pub fn logic(&self) -> &L {
        self.core.logic()
    }

    /// The whole state there.
    #[must_use]
    pub fn core(&self) -> &Core<L> {
        &self.core
    }
}

/// Where the log was at a time: the position of the first event that is later than `time_ns`, or its
/// end. A replay [`until`](Range::until) there has the state as of then.
///
/// # Errors
///
/// There is no log, it is damaged, or its events are not the logic's.
pub fn position_as_of<L: Logic>(directory: impl AsRef<Path>, time_ns: u64) -> Result<Position> {
    let (mut reader, _, oldest) = open_log::<L::In, _>(&disk(directory)?)?;
    reader.seek(From::Oldest)?;
    let mut end = oldest;
    while let Some(frame) = reader.next_frame()? {
        let events = events_of::<EventOf<L>>(&frame)?;
        let first = frame.first_position().0;
        if let Some(at) = events
            .iter()
            .position(|event| event.header().time > time_ns)
        {
            return Ok(Position(first + at as u64));
        }
        end = Position(first + events.len() as u64);
    }
    Ok(end)
}

/// A reader of the log, the log's number, and its first position. The log is of events of this name;
/// which versions of them can be read, each event shows.
fn open_log<K: Kinds, S: Storage>(storage: &S) -> Result<(Reader<S>, [u8; 16], Position)> {
    let mut reader = Reader::open(storage.clone(), From::Oldest)?;
    let log = match read_meta(storage).map_err(lockstep_journaler::ReadError::from)? {
        MetaFound::Slot(slot) => slot.log_id,
        MetaFound::Missing | MetaFound::Damaged | MetaFound::Future(_) => [0; 16],
    };
    let first = reader
        .next_frame()?
        .map(|frame| frame.header().first_position);
    let Some(first) = first else {
        return Ok((reader, log, Position(0)));
    };
    let (found, expected) = (reader.schema()?.name, K::schema().name);
    if found != expected {
        return Err(Error::OtherSchema {
            expected: expected.into_owned(),
            found: found.into_owned(),
        });
    }
    Ok((reader, log, Position(first)))
}

fn error_of(broken: Broken, position: Position) -> Error {
    match broken {
        Broken::Failed(error) => error,
        Broken::Panicked {
            is_validating,
            kind,
            text,
        } => {
            let what = if is_validating { "validate" } else { "apply" };
            Error::Panicked {
                what,
                position,
                kind,
                text,
            }
        }
    }
}

fn pause_until(watch: &Stopwatch, at_ns: u64) {
    let at = Duration::from_nanos(at_ns);
    // Ends: time passes.
    while let Some(left) = at
        .checked_sub(watch.elapsed())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

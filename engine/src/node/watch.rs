//! The cold thread: counters, ticks, and the end of an engine that stopped by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_ringbuffer::{ClaimError, MultiProducer, Positions, Probe};

use crate::counters::{Counter, CounterFile};
use crate::error::of_fault;
use crate::event::Slot;
use crate::ledger::Ledger;
use crate::runtime::clock::{Clock, Stopwatch};
use crate::shared::{Mark, Shared};
use crate::system::Tick;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks between two writings of the counters.
const LOOKS_PER_WRITE: u32 = 5;

/// See the module.
pub(crate) struct Watch<E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) probe: Probe,
    pub(crate) ledger: Ledger,
    pub(crate) door: MultiProducer<E>,
    pub(crate) rows: Rows,
    pub(crate) file: Option<CounterFile>,
    pub(crate) tick: Option<Duration>,
    pub(crate) is_over: Arc<AtomicBool>,
}

impl<E: Slot> Watch<E> {
    pub(crate) fn run(mut self) {
        let mut since_tick = Stopwatch::start();
        let mut looks = 0;
        // ORDERING: Acquire, pairs with the Release of who closes. Ends: by this flag.
        while !self.is_over.load(Ordering::Acquire) {
            self.look_for_faults();
            if self.tick.is_some_and(|tick| since_tick.elapsed() >= tick) {
                since_tick = Stopwatch::start();
                // A full ring has no need of a tick: its events carry the time.
                let _full = self
                    .door
                    .try_publish(|slot| *slot = E::event(&Tick::default()));
            }
            if looks % LOOKS_PER_WRITE == 0 {
                self.write();
            }
            looks += 1;
            std::thread::park_timeout(self.tick.unwrap_or(LOOK).min(LOOK));
        }
        self.write();
        if let Some(file) = &mut self.file {
            file.end();
        }
    }

    /// A stage that failed says so to everybody.
    fn look_for_faults(&self) {
        if let Err(ClaimError::Poisoned { fault }) = self.door.check()
            && self.shared.fault().is_none()
        {
            self.shared.fail(of_fault(&fault, self.ledger));
        }
    }

    fn write(&mut self) {
        if let Some(file) = &mut self.file {
            let now_ns = Clock::System.now_ns().unwrap_or(0);
            file.write(
                now_ns,
                self.rows.look(&self.probe, self.ledger, &self.shared),
            );
        }
    }
}

/// Everyone's counters: their names, and where each number comes from.
#[derive(Debug)]
pub(crate) struct Rows {
    names: Vec<String>,
    sources: Vec<Source>,
    numbers: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Published,
    FreeSlots,
    Slots,
    GatedBy(usize),
    Released(usize),
    Taken(usize),
    Follows,
    Mark(OfShared),
    HasFailed,
}

/// Picks a mark.
type OfShared = fn(&Shared) -> &Mark;

/// What the stages and the cold threads count.
const MARKS: [(&str, OfShared); 18] = [
    ("journal.durable", |shared| &shared.durable),
    ("journal.syncs", |shared| &shared.syncs),
    ("journal.last_sync_ns", |shared| &shared.last_sync_ns),
    ("journal.waits_for_room", |shared| &shared.waits_for_room),
    ("logic.applied", |shared| &shared.applied),
    ("logic.refused", |shared| &shared.refused),
    ("logic.repeated", |shared| &shared.repeated),
    ("logic.quarantined", |shared| &shared.quarantined),
    ("outputs.emitted", |shared| &shared.outputs),
    ("outputs.spilled", |shared| &shared.spilled),
    ("outputs.cut_consumers", |shared| &shared.cut_consumers),
    ("egress.answered", |shared| &shared.answered),
    ("shadow.position", |shared| &shared.shadow),
    ("snapshot.position", |shared| &shared.snapshot),
    ("retention.position", |shared| &shared.kept),
    ("retention.oldest", |shared| &shared.oldest),
    ("retention.freed_bytes", |shared| &shared.freed_bytes),
    ("retention.faults", |shared| &shared.retention_faults),
];

impl Rows {
    /// The rows of this pipeline, for all of its life.
    pub(crate) fn of(probe: &Probe) -> Self {
        let mut rows = vec![
            ("ring.published".to_owned(), Source::Published),
            ("ring.free_slots".to_owned(), Source::FreeSlots),
            ("ring.slots".to_owned(), Source::Slots),
        ];
        for (at, stage) in probe.look().stages.iter().enumerate() {
            let name = &stage.name;
            rows.push((format!("stage.{name}.released"), Source::Released(at)));
            rows.push((format!("stage.{name}.taken"), Source::Taken(at)));
            let follows = |other| (format!("stage.{name}.after.{other}"), Source::Follows);
            rows.extend(stage.after.iter().map(follows));
            rows.push((format!("ring.gated_by.{name}"), Source::GatedBy(at)));
        }
        rows.extend(MARKS.map(|(name, mark)| (name.to_owned(), Source::Mark(mark))));
        rows.push(("engine.has_failed".to_owned(), Source::HasFailed));
        let numbers = vec![0; rows.len()];
        let (names, sources) = rows.into_iter().unzip();
        Self {
            names,
            sources,
            numbers,
        }
    }

    /// The rows of a node that has no ring: what does not come from one.
    pub(crate) fn without_ring() -> Self {
        let rows = MARKS.map(|(name, mark)| (name.to_owned(), Source::Mark(mark)));
        let failed = ("engine.has_failed".to_owned(), Source::HasFailed);
        let (names, sources): (Vec<_>, Vec<_>) = rows.into_iter().chain([failed]).unzip();
        Self {
            numbers: vec![0; names.len()],
            names,
            sources,
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// As [`look`](Self::look), [without a ring](Self::without_ring).
    pub(crate) fn look_without_ring(&mut self, shared: &Shared) -> &[u64] {
        for (number, source) in self.numbers.iter_mut().zip(&self.sources) {
            *number = source.of_shared(shared).unwrap_or_default();
        }
        &self.numbers
    }

    /// All numbers, in the order of the names.
    pub(crate) fn look(&mut self, probe: &Probe, ledger: Ledger, shared: &Shared) -> &[u64] {
        let look = probe.look();
        for (number, source) in self.numbers.iter_mut().zip(&self.sources) {
            *number = source.number(&look, ledger, shared);
        }
        &self.numbers
    }

    /// Names and numbers.
    pub(crate) fn now(&mut self, probe: &Probe, ledger: Ledger, shared: &Shared) -> Vec<Counter> {
        self.look(probe, ledger, shared);
        let rows = self.names.iter().zip(&self.numbers);
        rows.map(|(name, value)| Counter {
            name: name.clone(),
            value: *value,
        })
        .collect()
    }
}

impl Source {
    fn number(self, look: &Positions, ledger: Ledger, shared: &Shared) -> u64 {
        let stage = |at: usize| &look.stages[at];
        match self {
            Source::Published => ledger.position(look.published).0,
            Source::FreeSlots => look.remaining,
            Source::Slots => look.capacity,
            Source::GatedBy(at) => u64::from(look.gated_by.as_ref() == Some(&stage(at).name)),
            Source::Released(at) => ledger.position(stage(at).released).0,
            Source::Taken(at) => ledger.position(stage(at).taken).0,
            Source::Follows => 1,
            Source::Mark(_) | Source::HasFailed => self.of_shared(shared).unwrap_or_default(),
        }
    }

    /// The number, if it does not come from the ring.
    fn of_shared(self, shared: &Shared) -> Option<u64> {
        match self {
            Source::Mark(mark) => Some(mark(shared).get()),
            Source::HasFailed => Some(u64::from(shared.fault().is_some())),
            _ => None,
        }
    }
}

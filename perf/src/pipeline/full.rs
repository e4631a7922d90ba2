//! The engine itself: order, journal, a small logic, outputs; with a real journal.
//!
//! ```text
//!   generator ─► door ─► order ─► journal ─► logic ─► egress ─► recorder
//!   sent             ordered      durable     applied            done
//! ```
//!
//! An event counts as done when its output leaves: durable as the mode says, applied, and
//! behind the gate. The journal's disk is timed from outside; without `--stages` nothing in
//! the way of an event is there that an application would not have.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use lockstep_engine::prelude::*;
use lockstep_engine::{Builder, Config, JournalMode};
use lockstep_journaler::storage::{Disk, Storage as _};

use super::latency::Measured;
use super::order::{Order, for_order_size};
use super::throughput::{LOOK_EVERY, Throughput};
use super::toil::Toil;
use super::watched::{Times, Watched};
use crate::args::plan::Plan;
use crate::args::quantity::nanos;
use crate::machine::clock::{Clock, Ticks as _, ratio};
use crate::machine::pin::{ThreadSeen, threads};
use crate::machine::usage::{Steal, cpu_seconds};
use crate::measure::generator::Target;
use crate::measure::harness::{Harness, HarnessError, Recorder, Session};
use crate::measure::recorder::Ticket;
use crate::measure::tail::Spans;
use crate::report::result::Work;

/// Parts of the way of an event, with `--stages`.
const PARTS: [&str; 4] = ["order", "journal and gate", "logic", "egress"];

/// Bytes of a segment: small enough for the room that a container gives.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Segments that lie prepared beside what is written.
const SEGMENTS_AHEAD: u64 = 3;

/// An event's share of its frame's header and mark in the journal.
const FRAME_SHARE: u64 = 16;

lockstep_engine::bodies! {
    Filled, kind 101, version 1: {
        /// Of the order.
        intended: u64,
        /// Of the order.
        sent: u64,
        /// When it had its position, in nanoseconds behind `sent`.
        ordered_ns: u64,
        /// When the logic began with it, in ticks.
        begun: u64,
        /// When the logic was done with it, in ticks.
        applied: u64
    }
}

/// A logic that reads every byte of an order, works for a while and answers.
#[derive(Debug, Clone, Copy)]
struct Relay<O> {
    sum: u64,
    toil: Toil,
    /// Reads the clock where the way is split.
    split: Option<Clock>,
    orders: PhantomData<O>,
}

impl<O> Relay<O> {
    fn new(toil: Toil, split: Option<Clock>) -> Self {
        Self {
            sum: 0,
            toil,
            split,
            orders: PhantomData,
        }
    }
}

impl<O: Order> State for Relay<O> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.sum.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let sum = u64::load(from)?;
        Ok(Self {
            sum,
            ..Self::new(Toil::default(), None)
        })
    }
}

impl<O: Order> Logic for Relay<O> {
    type In = O;
    type Out = Filled;

    fn apply(&mut self, order: O::View<'_>, context: &Context, out: &mut Outputs<'_, Filled>) {
        let begun = self.split.map_or(0, |clock| clock.ordered());
        let order = O::seen(order);
        self.sum ^= order.sum();
        self.toil.work();
        let ticket = order.ticket();
        out.emit(Filled {
            intended: ticket.intended,
            sent: ticket.sent,
            ordered_ns: context.time().saturating_sub(order.sent_unix_ns()),
            begun,
            applied: self.split.map_or(0, |clock| clock.ordered()),
        });
    }
}

/// A directory of one run, removed at its end.
#[derive(Debug)]
struct Home(PathBuf);

impl Home {
    fn create(below: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(below)?;
        // Ends: with a number that nobody has used.
        loop {
            // ORDERING: Relaxed, the number only has to be unique.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = below.join(format!("lockstep-run-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What cannot be removed has a name that says whose it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the journal of a plan is kept.
#[must_use]
pub fn below(plan: &Plan) -> PathBuf {
    let own = plan.log.directory.clone();
    own.unwrap_or_else(std::env::temp_dir)
}

/// What the plan's journal lies on, as `ext4 below /tmp`; whether that survives a power cut.
///
/// # Errors
///
/// When the directory cannot be created.
pub fn medium(plan: &Plan) -> anyhow::Result<(String, bool)> {
    let below = below(plan);
    let disk = Disk::create(&below)
        .with_context(|| format!("--journal-dir {}: cannot be used", below.display()))?;
    let medium = disk
        .medium()
        .context("the file system does not tell what it is")?;
    let name = format!("{} below {}", medium.name, below.display());
    Ok((name, medium.is_durable))
}

/// Starts and ends an engine with the plan's journal: whether it can be written there.
///
/// # Errors
///
/// Why it cannot.
pub fn try_out(plan: &Plan) -> anyhow::Result<()> {
    for_order_size!(plan.event_size, try_out_with(plan))
}

fn try_out_with<O: Order>(plan: &Plan) -> anyhow::Result<()> {
    let below = below(plan);
    let home =
        Home::create(&below).with_context(|| format!("cannot write below {}", below.display()))?;
    let times = Times {
        clock: Clock::monotonic(),
        writes: Spans::default(),
        syncs: Spans::default(),
    };
    let relay = Relay::<O>::new(Toil::default(), None);
    let engine = builder(plan, &home, times, relay)?.start()?;
    engine.close()?;
    Ok(())
}

/// Bytes that a run of so many events wants on the disk at the same time.
#[must_use]
pub fn bytes_wanted(plan: &Plan, events: u64) -> u64 {
    if plan.log.mode == JournalMode::None {
        return 0;
    }
    events * (plan.event_size as u64 + FRAME_SHARE) + SEGMENTS_AHEAD * SEGMENT_BYTES
}

/// The engine's configuration that a plan stands for: what a file for the engine says.
#[must_use]
pub fn configuration(plan: &Plan) -> Config {
    let pin: Option<Vec<usize>> = plan
        .threads
        .iter()
        .map(|thread| thread.cpu.map(|cpu| cpu as usize))
        .collect();
    let waits: Vec<Wait> = plan.threads.iter().map(|thread| thread.wait).collect();
    let is_one = waits.iter().all(|wait| *wait == waits[0]);
    Config {
        slots: plan.ring,
        output_slots: plan.ring,
        batch: plan.batch,
        huge_pages: plan.memory.huge_pages,
        lock_memory: plan.memory.lock,
        journal: plan.log.mode,
        journal_thread: plan.log.thread,
        gate: plan.log.gate,
        place: plan.place(),
        pin: pin.unwrap_or_default(),
        wait: match waits.first() {
            Some(wait) if is_one => *wait,
            _ => Wait::Auto,
        },
        waits: if is_one { Vec::new() } else { waits },
        ..Config::default()
    }
}

fn builder<O: Order>(
    plan: &Plan,
    home: &Home,
    times: Times,
    relay: Relay<O>,
) -> anyhow::Result<Builder<Relay<O>, Watched<Disk>>> {
    let storage = Watched {
        storage: Disk::create(&home.0)
            .with_context(|| format!("cannot use {}", home.0.display()))?,
        times,
    };
    let config = Config {
        // What is measured is kept for as long as it is measured; the result says on what.
        allow_volatile: true,
        segment_bytes: SEGMENT_BYTES,
        snapshot_every: 0,
        shadow: false,
        beacon_every: 0,
        counters: false,
        ..configuration(plan)
    };
    Ok(Engine::open_on(storage, move || relay).config(config))
}

/// What became of a run's engine.
#[derive(Debug, Default)]
struct Ended {
    seen: Vec<ThreadSeen>,
    fault: Option<String>,
}

type Shared = Arc<Mutex<Ended>>;

/// Measures the engine with the harness's load.
pub(super) fn latency(harness: &Harness, plan: &Plan) -> Result<Measured, HarnessError> {
    for_order_size!(plan.event_size, latency_with(harness, plan))
}

fn latency_with<O: Order>(harness: &Harness, plan: &Plan) -> Result<Measured, HarnessError> {
    let harness = harness
        .clone()
        .generator_cpus(&plan.generator_cpus())
        .floor_cpus(&plan.pinned_cpus());
    let ended = Shared::default();
    let mut toil = None;
    let report = harness.run(|session| {
        let toil = *toil.get_or_insert_with(|| Toil::of(&session.clock(), plan.work));
        Ok(vec![EngineTarget::<O>::start(plan, toil, session, &ended)?])
    });
    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cause) = ended.fault.take() {
        return Err(HarnessError::Failed(cause));
    }
    Ok(Measured {
        report: report?,
        batches: Vec::new(),
        seen: std::mem::take(&mut ended.seen),
    })
}

/// The generator's end of an engine, and the engine: closed when it is dropped.
struct EngineTarget<O: Order> {
    producer: Producer<Relay<O>>,
    engine: Option<Engine<Relay<O>>>,
    /// Claimed and not yet published.
    pending: Vec<O::Slot>,
    claim: usize,
    yields: bool,
    split: bool,
    ended: Shared,
    _home: Home,
}

impl<O: Order> EngineTarget<O> {
    fn start(
        plan: &Plan,
        toil: Toil,
        session: &mut Session,
        ended: &Shared,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let home = Home::create(&below(plan))?;
        let clock = session.clock();
        let times = Times {
            clock,
            writes: session.spans("journal write"),
            syncs: session.spans("journal sync"),
        };
        if plan.stages {
            session.split(&PARTS.map(str::to_owned));
        }
        let relay = Relay::<O>::new(toil, plan.stages.then_some(clock));
        let recorder = session.recorder();
        let builder = builder(plan, &home, times, relay)?;
        let engine = builder
            .on_output(sink(recorder, clock, plan.stages))
            .start()?;
        Ok(Self {
            producer: engine.producer(),
            engine: Some(engine),
            pending: Vec::with_capacity(plan.claim),
            claim: plan.claim,
            yields: plan.producers_yield,
            split: plan.stages,
            ended: Arc::clone(ended),
            _home: home,
        })
    }

    fn order(&self, ticket: Ticket) -> O {
        O::of(ticket, if self.split { unix_ns() } else { 0 })
    }

    /// What is pending goes out, and room for it is waited for.
    fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Err(error) = self.producer.publish_events(&self.pending) {
            self.note(&error.to_string());
        }
        self.pending.clear();
    }

    #[cold]
    fn note(&self, fault: &str) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.fault.get_or_insert_with(|| fault.to_owned());
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, nanos)
}

/// Takes outputs on the thread of *egress*.
fn sink(
    mut recorder: Recorder,
    clock: Clock,
    split: bool,
) -> impl FnMut(Position, &Filled) + Send + 'static {
    move |_, filled| {
        let ticket = Ticket {
            intended: filled.intended,
            sent: filled.sent,
        };
        if split {
            recorder.done_by_parts(ticket, |now| {
                let ordered = filled.sent + clock.to_ticks(filled.ordered_ns);
                [
                    ordered.saturating_sub(filled.sent),
                    filled.begun.saturating_sub(ordered),
                    filled.applied.saturating_sub(filled.begun),
                    now.saturating_sub(filled.applied),
                ]
            });
        } else {
            recorder.done(ticket);
        }
        recorder.turn();
    }
}

impl<O: Order> Target for EngineTarget<O> {
    #[inline]
    fn offer(&mut self, ticket: Ticket) -> bool {
        let order = self.order(ticket);
        if self.claim > 1 {
            self.pending.push(O::Slot::event(&order));
            if self.pending.len() == self.claim {
                self.publish();
            }
            return true;
        }
        match self
            .producer
            .try_publish_as(0, 0, |slot: &mut O| *slot = order)
        {
            Ok(_) => true,
            Err(lockstep_engine::Error::Busy) => false,
            Err(error) => {
                self.note(&error.to_string());
                false
            }
        }
    }

    #[inline]
    fn idle(&mut self) {
        if self.yields {
            std::thread::yield_now();
        }
    }

    fn flush(&mut self) {
        self.publish();
    }
}

impl<O: Order> Drop for EngineTarget<O> {
    fn drop(&mut self) {
        let seen = threads();
        let closed = self.engine.take().map(Engine::close);
        if let Some(Err(error)) = closed {
            self.note(&error.to_string());
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.seen = seen;
    }
}

/// Pushes as fast as the engine takes it.
pub(super) fn throughput(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    for_order_size!(
        plan.event_size,
        throughput_with(clock, plan, duration, stop)
    )
}

fn throughput_with<O: Order>(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    let home = Home::create(&below(plan))
        .with_context(|| format!("cannot write below {}", below(plan).display()))?;
    let times = Times {
        clock: *clock,
        writes: Spans::default(),
        syncs: Spans::default(),
    };
    let relay = Relay::<O>::new(Toil::of(clock, plan.work), None);
    let engine = builder(plan, &home, times.clone(), relay)?.start()?;
    let outcome = push(&engine, clock, plan, duration, stop);
    let seen = threads();
    let kinds = [
        ("journal sync", &times.syncs),
        ("journal write", &times.writes),
    ];
    let work = kinds.map(|(name, spans)| (name, spans.take()));
    let closed = engine.close();
    let run = outcome?;
    closed?;
    let done = work.into_iter().filter(|(_, spans)| !spans.is_empty());
    let work = done.map(|(name, spans)| {
        let busy_ns = spans.iter().map(|span| span.ns).sum();
        let share = ratio(busy_ns, run.span_ns).min(1.0);
        let count = spans.len() as u64;
        (name.to_owned(), Work { count, share })
    });
    Ok(Throughput {
        seen,
        work: work.collect(),
        ..run
    })
}

fn push<O: Order>(
    engine: &Engine<Relay<O>>,
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    let mut producer = engine.producer();
    let (cpu_before, steal) = (cpu_seconds(), Steal::watch());
    let start = clock.ordered();
    let end = start + clock.to_ticks(nanos(duration));
    let (mut events, mut blocked) = (0_u64, 0_u64);
    let numbered = |number: u64| O::of(numbered_ticket(number), 0);
    let mut batch = vec![O::Slot::event(&numbered(0)); plan.claim];
    let mut last = Position(0);
    // ORDERING: Relaxed, the flag carries nothing but itself.
    while clock.early() < end && !stop.load(Ordering::Relaxed) {
        for _ in 0..LOOK_EVERY {
            if plan.claim > 1 {
                for event in &mut batch {
                    *event = O::Slot::event(&numbered(events));
                    events += 1;
                }
                last = producer.publish_events(&batch)?.end;
                continue;
            }
            let fill = |order: &mut O| *order = numbered(events);
            let ack = match producer.try_publish_as(0, 0, fill) {
                Err(lockstep_engine::Error::Busy) => {
                    blocked += 1;
                    producer.publish(fill)?
                }
                other => other?,
            };
            events += 1;
            last = Position(ack.position().0 + 1);
        }
    }
    producer.wait_until(last)?;
    Ok(Throughput {
        events,
        span_ns: clock.to_ns(clock.ordered() - start),
        blocked,
        cpu_s: cpu_seconds() - cpu_before,
        stolen: steal.share(),
        batches: Vec::new(),
        work: BTreeMap::new(),
        seen: Vec::new(),
        // ORDERING: Relaxed, the flag carries nothing but itself.
        interrupted: stop.load(Ordering::Relaxed),
    })
}

/// What stands in the place of times where nobody measures any.
fn numbered_ticket(number: u64) -> Ticket {
    Ticket {
        intended: number,
        sent: !number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::plan::{ENGINE_EVENT_SIZES, Wishes};
    use crate::args::shape::Shape;
    use crate::machine::cpus::Machine;

    fn wishes(mode: JournalMode, gate: GateAt, stages: bool) -> Wishes {
        let mut wishes = Wishes::new(Shape::Full);
        wishes.ring = 1 << 10;
        wishes.stages = stages;
        wishes.log.mode = mode;
        wishes.log.gate = gate;
        wishes
    }

    fn measured(wishes: &Wishes) -> Measured {
        let plan = Plan::resolve(wishes, &Machine::here()).unwrap();
        let harness = Harness::new("full")
            .clock(Clock::monotonic())
            .rate(2_000)
            .warmup(Duration::from_millis(5))
            .duration(Duration::from_millis(60))
            .floor(Duration::ZERO)
            .drain(Duration::from_secs(60))
            .runs(2);
        latency(&harness, &plan).unwrap()
    }

    #[test]
    fn every_journal_and_gate_lets_every_event_through() {
        for mode in [JournalMode::None, JournalMode::Async, JournalMode::Sync] {
            for gate in [GateAt::Logic, GateAt::Output] {
                let measured = measured(&wishes(mode, gate, false));
                for run in &measured.report.runs {
                    assert_eq!((run.lost, run.negative), (0, 0), "{mode:?} {gate:?}");
                    assert!(run.received > 0);
                    let syncs = run.spans.iter().find(|(name, _)| name == "journal sync");
                    let syncs = syncs.unwrap().1.len();
                    if mode == JournalMode::Sync {
                        assert!(syncs > 0);
                    }
                }
            }
        }
    }

    #[test]
    fn the_parts_of_the_way_are_the_way() {
        let measured = measured(&wishes(JournalMode::Sync, GateAt::Logic, true));
        let run = &measured.report.runs[0];
        let names: Vec<&str> = run.parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PARTS);
        let total: f64 = run
            .parts
            .iter()
            .map(|(_, part)| part.mean() * part.len() as f64)
            .sum();
        let service = run.service.mean() * run.service.len() as f64;
        // The part before the logic is told by two clocks, and histograms round.
        assert!((total / service - 1.0).abs() < 0.1, "{total} of {service}");
    }

    #[test]
    fn nothing_is_left_behind() {
        let below = std::env::temp_dir().join(format!("lockstep-full-{}", std::process::id()));
        let mut wishes = wishes(JournalMode::Sync, GateAt::Logic, false);
        wishes.log.directory = Some(below.clone());
        measured(&wishes);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
        fs::remove_dir(&below).unwrap();
    }

    #[test]
    fn the_engine_carries_what_is_pushed() {
        for claim in [1, 16] {
            let mut wishes = wishes(JournalMode::Async, GateAt::Logic, false);
            wishes.claim = claim;
            let plan = Plan::resolve(&wishes, &Machine::here()).unwrap();
            let stop = AtomicBool::new(false);
            let clock = Clock::monotonic();
            let run = throughput(&clock, &plan, Duration::from_millis(20), &stop).unwrap();
            assert!(run.events > 0 && run.span_ns > 0);
            let writes = &run.work["journal write"];
            assert!(writes.count > 0 && writes.share > 0.0 && writes.share <= 1.0);
        }
    }

    #[test]
    fn events_of_every_size_come_through_whole() {
        for size in ENGINE_EVENT_SIZES {
            let mut wishes = wishes(JournalMode::Async, GateAt::Logic, false);
            (wishes.ring, wishes.event_size) = (64, size);
            for run in &measured(&wishes).report.runs {
                assert!(run.received > 0, "{size}");
                assert_eq!((run.lost, run.negative), (0, 0), "{size}");
            }
        }
    }
}

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

mod flood;
mod home;
mod relay;
mod target;

use std::path::PathBuf;
use std::sync::PoisonError;

use anyhow::Context as _;
use lockstep_engine::prelude::*;
use lockstep_engine::{Builder, Config, JournalMode};
use lockstep_journaler::storage::{Disk, Storage as _};

pub(super) use self::flood::throughput;
use self::home::Home;
use self::relay::Relay;
use self::target::{EngineTarget, Shared};
use super::latency::Measured;
use super::order::{Order, for_order_size};
use super::toil::Toil;
use super::watched::{Times, Watched};
use crate::args::plan::Plan;
use crate::machine::clock::Clock;
use crate::measure::harness::{Harness, HarnessError};
use crate::measure::tail::Spans;

/// Bytes of a segment: small enough for the room that a container gives.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Segments that lie prepared beside what is written.
const SEGMENTS_AHEAD: u64 = 3;

/// An event's share of its frame's header and mark in the journal.
const FRAME_SHARE: u64 = 16;

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::target::PARTS;
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

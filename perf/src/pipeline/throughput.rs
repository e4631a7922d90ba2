//! How many events a second a topology carries, as fast as the generators can.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use lockstep_ringbuffer::Turn;

use super::event::for_event_size;
use super::parts::{BatchBook, Port, build};
use crate::args::plan::Plan;
use crate::args::quantity::nanos;
use crate::args::shape::Shape;
use crate::machine::clock::{Clock, Ticks, ratio};
use crate::machine::pin::{ThreadSeen, pin, threads};
use crate::machine::usage::{Steal, cpu_seconds};
use crate::measure::recorder::Ticket;
use crate::report::result::{Batches, Work};

/// Publications between two looks at the clock.
pub(super) const LOOK_EVERY: u32 = 256;

/// One run.
#[derive(Debug, Clone)]
pub struct Throughput {
    /// Events that went through all stages.
    pub events: u64,
    /// From the first publication until the last stage had released the last event.
    pub span_ns: u64,
    /// Publications that found the ring full at first.
    pub blocked: u64,
    /// CPU seconds used meanwhile.
    pub cpu_s: f64,
    /// The share of all CPUs' time that the hypervisor gave to others meanwhile.
    pub stolen: f64,
    /// Each stage with its batches.
    pub batches: Vec<(String, Batches)>,
    /// What the journal did, by name: `journal sync`, `journal write`.
    pub work: BTreeMap<String, Work>,
    /// The threads of this process, near the end.
    pub seen: Vec<ThreadSeen>,
    /// Whether it was ended early.
    pub interrupted: bool,
}

impl Throughput {
    /// By name of a thread, the share of the time in which it could have run and another task
    /// did: of several threads of one name that of the worst.
    #[must_use]
    pub fn preempted(&self) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for thread in &self.seen {
            let share = ratio(thread.delayed_ns.unwrap_or(0), self.span_ns.max(1));
            let worst: &mut f64 = all.entry(thread.name.clone()).or_default();
            *worst = worst.max(share);
        }
        all
    }

    /// Events a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        ratio(self.events, self.span_ns) * 1e9
    }
}

/// One run of the plan's topology.
///
/// # Errors
///
/// When the ring cannot be built or a thread not be pinned.
pub fn measure(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    if plan.shape == Shape::Full {
        return super::full::throughput(clock, plan, duration, stop);
    }
    for_event_size!(plan.event_size, run(clock, plan, duration, stop))
}

fn run<const WORDS: usize>(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    let book = BatchBook::default();
    let (ports, mut pipeline) = build::<WORDS>(plan, clock, &book, None, || None)?;
    let ticks = clock.to_ticks(nanos(duration));
    let (cpu_before, steal) = (cpu_seconds(), Steal::watch());
    let mut seen = Vec::new();
    let (pushed, start) = if plan.threads.is_empty() {
        let start = clock.ordered();
        let mut pushed = Pushed::default();
        for mut port in ports {
            let mut turns = || {
                pipeline.turn();
            };
            pushed.push(
                clock,
                &mut port,
                plan.claim,
                start + ticks,
                stop,
                &mut turns,
            );
        }
        // Ends: without producers the stages finish what is published.
        while pipeline.turn() == Turn::Worked {}
        drop(pipeline);
        (pushed, start)
    } else {
        let running = pipeline.start().context("the stages cannot be started")?;
        let outcome = push_from_threads(clock, plan, ports, ticks, stop);
        seen = threads();
        running.join();
        outcome?
    };
    let span_ns = clock.to_ns(clock.ordered() - start);
    Ok(Throughput {
        events: pushed.events,
        span_ns,
        blocked: pushed.blocked,
        cpu_s: cpu_seconds() - cpu_before,
        stolen: steal.share(),
        batches: book.take(),
        work: BTreeMap::new(),
        seen,
        // ORDERING: Relaxed, the flag carries nothing but itself.
        interrupted: stop.load(Ordering::Relaxed),
    })
}

/// Each port on a pinned thread of its own; they start together.
fn push_from_threads<const WORDS: usize>(
    clock: &Clock,
    plan: &Plan,
    ports: Vec<Port<WORDS>>,
    ticks: u64,
    stop: &AtomicBool,
) -> anyhow::Result<(Pushed, u64)> {
    let ready = Barrier::new(ports.len());
    let yields = plan.producers_yield;
    thread::scope(|scope| {
        let threads: Vec<_> = ports
            .into_iter()
            .zip(&plan.producers)
            .map(|(mut port, &cpu)| {
                let ready = &ready;
                scope.spawn(move || {
                    let pinned = cpu.map(pin).transpose();
                    ready.wait();
                    pinned.with_context(|| format!("cannot pin a producer to CPU {cpu:?}"))?;
                    let start = clock.ordered();
                    let mut idle = || {
                        if yields {
                            thread::yield_now();
                        } else {
                            std::hint::spin_loop();
                        }
                    };
                    let mut pushed = Pushed::default();
                    pushed.push(clock, &mut port, plan.claim, start + ticks, stop, &mut idle);
                    anyhow::Ok((pushed, start))
                })
            })
            .collect();
        let mut sum = Pushed::default();
        let mut first = u64::MAX;
        for thread in threads {
            let joined = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a producer panicked"))?;
            let (pushed, start) = joined?;
            sum.events += pushed.events;
            sum.blocked += pushed.blocked;
            first = first.min(start);
        }
        Ok((sum, first))
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Pushed {
    events: u64,
    blocked: u64,
}

impl Pushed {
    fn push<const WORDS: usize>(
        &mut self,
        clock: &Clock,
        port: &mut Port<WORDS>,
        claim: usize,
        end: u64,
        stop: &AtomicBool,
        idle: &mut impl FnMut(),
    ) {
        let mut tickets = vec![Ticket::default(); claim];
        // Ends: the clock passes `end`, or it is told to stop.
        loop {
            for _ in 0..LOOK_EVERY {
                for (number, ticket) in tickets.iter_mut().enumerate() {
                    ticket.intended = self.events + number as u64;
                }
                if !port.try_publish(&tickets) {
                    self.blocked += 1;
                    // Ends: the stages release; what stops them ends the process's patience
                    // below, by the clock.
                    while !port.try_publish(&tickets) {
                        idle();
                        if is_over(clock, end, stop) {
                            return;
                        }
                    }
                }
                self.events += claim as u64;
            }
            if is_over(clock, end, stop) {
                return;
            }
            // An inline pipeline must not wait until the ring is full.
            idle();
        }
    }
}

#[inline]
fn is_over(clock: &Clock, end: u64, stop: &AtomicBool) -> bool {
    // ORDERING: Relaxed, the flag carries nothing but itself.
    clock.early() >= end || stop.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::plan::Wishes;
    use crate::machine::cpus::Machine;

    #[test]
    fn every_topology_carries_events_to_the_end() {
        for text in ["spsc", "pipeline:2", "diamond", "fanout:2", "mpsc:2"] {
            let shape: Shape = text.parse().unwrap();
            for claim in [1, 16] {
                let wishes = Wishes {
                    ring: 1 << 8,
                    claim,
                    ..Wishes::new(shape)
                };
                let plan = Plan::resolve(&wishes, &Machine::here()).unwrap();
                let stop = AtomicBool::new(false);
                let clock = Clock::monotonic();
                let run = measure(&clock, &plan, Duration::from_millis(20), &stop).unwrap();
                assert!(run.events > 0, "{text}");
                for (name, batches) in &run.batches {
                    let seen = batches.mean * ratio(batches.turns, 1);
                    assert!(
                        (seen - ratio(run.events, 1)).abs() < 0.5,
                        "{text} {name}: {seen}"
                    );
                }
            }
        }
    }
}

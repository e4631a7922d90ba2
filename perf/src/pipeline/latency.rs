//! Latency of a topology at a fixed rate.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_ringbuffer::{Pipeline, Running, Turn};

use super::event::{Event, for_event_size};
use super::parts::{BatchBook, Port, Stamps, build};
use crate::args::plan::Plan;
use crate::args::shape::Shape;
use crate::machine::pin::{ThreadSeen, threads};
use crate::measure::generator::Target;
use crate::measure::harness::{Harness, HarnessError, Report, Session};
use crate::measure::recorder::Ticket;
use crate::report::result::Batches;

/// A report, and the batches of each run's stages.
#[derive(Debug)]
pub struct Measured {
    /// The runs.
    pub report: Report,
    /// For each run, each stage with its batches.
    pub batches: Vec<Vec<(String, Batches)>>,
    /// The threads of this process near the end of the last run.
    pub seen: Vec<ThreadSeen>,
}

/// Measures the plan's topology with the harness's load.
///
/// # Errors
///
/// As [`Harness::run`].
pub fn measure(harness: &Harness, plan: &Plan) -> Result<Measured, HarnessError> {
    if plan.shape == Shape::Full {
        return super::full::latency(harness, plan);
    }
    for_event_size!(plan.event_size, run(harness, plan))
}

fn run<const WORDS: usize>(harness: &Harness, plan: &Plan) -> Result<Measured, HarnessError> {
    let harness = harness
        .clone()
        .generator_cpus(&plan.generator_cpus())
        .floor_cpus(&plan.pinned_cpus());
    let mut batches = Vec::new();
    let mut last: Option<(Option<Running>, BatchBook)> = None;
    let seen = Seen::default();
    let report = harness.run(|session| {
        close(last.take(), &mut batches);
        let book = BatchBook::default();
        let (targets, running) = targets::<WORDS>(plan, &book, session, &seen)?;
        last = Some((running, book));
        Ok(targets)
    });
    close(last.take(), &mut batches);
    Ok(Measured {
        report: report?,
        batches,
        seen: std::mem::take(&mut seen.lock().unwrap_or_else(PoisonError::into_inner)),
    })
}

/// Where a target leaves what it saw of the threads.
type Seen = Arc<Mutex<Vec<ThreadSeen>>>;

/// Waits for the threads of the run before and takes its batches: the generators are gone.
fn close(last: Option<(Option<Running>, BatchBook)>, batches: &mut Vec<Vec<(String, Batches)>>) {
    if let Some((running, book)) = last {
        if let Some(running) = running {
            running.join();
        }
        batches.push(book.take());
    }
}

type Built<const WORDS: usize> = (Vec<RingTarget<WORDS>>, Option<Running>);

fn targets<const WORDS: usize>(
    plan: &Plan,
    book: &BatchBook,
    session: &mut Session,
    seen: &Seen,
) -> Result<Built<WORDS>, Box<dyn Error + Send + Sync>> {
    let stamps = Stamps::of(plan);
    if stamps.is_some() {
        let names: Vec<String> = (0..plan.shape.stages())
            .map(|index| plan.shape.stage_name(index))
            .collect();
        session.split(&names);
    }
    let clock = session.clock();
    let (ports, pipeline) = build::<WORDS>(plan, &clock, book, stamps.as_ref(), || {
        Some(session.recorder())
    })?;
    let (inline, running) = if plan.threads.is_empty() {
        (Some(pipeline), None)
    } else {
        (None, Some(pipeline.start()?))
    };
    let mut inline = inline;
    let targets = ports
        .into_iter()
        .map(|port| RingTarget {
            port: Some(port),
            pending: Vec::with_capacity(plan.claim),
            claim: plan.claim,
            yields: plan.producers_yield,
            inline: inline.take(),
            seen: Arc::clone(seen),
        })
        .collect();
    Ok((targets, running))
}

/// One generator's end of the ring.
struct RingTarget<const WORDS: usize> {
    /// Always there until it is dropped: before the stages, so that they end.
    port: Option<Port<WORDS>>,
    /// Claimed and not yet published.
    pending: Vec<Ticket>,
    claim: usize,
    yields: bool,
    /// The stages, where the generator gives them their turns.
    inline: Option<Pipeline<Event<WORDS>>>,
    seen: Seen,
}

impl<const WORDS: usize> RingTarget<WORDS> {
    #[inline]
    fn publish(&mut self) -> bool {
        let Some(port) = &mut self.port else {
            return false;
        };
        let published = port.try_publish(&self.pending);
        if published {
            self.pending.clear();
        }
        published
    }
}

impl<const WORDS: usize> Target for RingTarget<WORDS> {
    #[inline]
    fn offer(&mut self, ticket: Ticket) -> bool {
        self.pending.push(ticket);
        if self.pending.len() < self.claim || self.publish() {
            return true;
        }
        self.pending.pop();
        false
    }

    #[inline]
    fn idle(&mut self) {
        if let Some(pipeline) = &mut self.inline {
            pipeline.turn();
        } else if self.yields {
            std::thread::yield_now();
        }
    }

    fn flush(&mut self) {
        // Ends: the stages release, or have failed, and then the harness reports what is lost.
        let mut tries = 0_u32;
        while !self.pending.is_empty() && !self.publish() && tries < 10_000_000 {
            tries += 1;
            self.idle();
        }
    }
}

impl<const WORDS: usize> Drop for RingTarget<WORDS> {
    fn drop(&mut self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = threads();
        self.port = None;
        if let Some(pipeline) = &mut self.inline {
            // Ends: without producers the stages finish what is published.
            while pipeline.turn() == Turn::Worked {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::plan::{Plan, Wishes};
    use crate::args::shape::Shape;
    use crate::machine::clock::Clock;
    use crate::machine::cpus::Machine;
    use std::time::Duration;

    fn measure_briefly(wishes: &Wishes) -> Measured {
        let plan = Plan::resolve(wishes, &Machine::here()).unwrap();
        let harness = Harness::new("test")
            .clock(Clock::monotonic())
            .rate(2_000)
            .warmup(Duration::from_millis(5))
            .duration(Duration::from_millis(50))
            .floor(Duration::ZERO)
            .drain(Duration::from_secs(30))
            .runs(2);
        measure(&harness, &plan).unwrap()
    }

    #[test]
    fn every_topology_gives_back_every_event() {
        for text in ["spsc", "pipeline:3", "diamond", "fanout:2", "mpsc:2"] {
            let shape: Shape = text.parse().unwrap();
            let measured = measure_briefly(&Wishes {
                ring: 1 << 10,
                ..Wishes::new(shape)
            });
            for run in &measured.report.runs {
                assert_eq!(run.lost, 0, "{text}");
                assert_eq!(run.unsent, 0, "{text}");
                let receivers = if matches!(shape, Shape::Fanout(_)) {
                    2
                } else {
                    1
                };
                assert_eq!(run.received, run.sent * receivers, "{text}");
                assert!(run.sent.abs_diff(100) <= 2, "{text}: {}", run.sent);
            }
            assert_eq!(measured.batches.len(), 2, "{text}");
            assert_eq!(measured.batches[0].len(), shape.stages(), "{text}");
        }
    }

    #[test]
    fn claims_larger_than_one_lose_nothing_at_the_end() {
        let measured = measure_briefly(&Wishes {
            claim: 7,
            ring: 64,
            ..Wishes::new(Shape::Spsc)
        });
        assert!(measured.report.runs.iter().all(|run| run.lost == 0));
    }

    #[test]
    fn the_generator_can_do_all_the_work() {
        let mut plan = Plan::resolve(&Wishes::new(Shape::Diamond), &Machine::here()).unwrap();
        plan.threads.clear();
        let harness = Harness::new("inline")
            .clock(Clock::monotonic())
            .rate(2_000)
            .warmup(Duration::from_millis(5))
            .duration(Duration::from_millis(50))
            .floor(Duration::ZERO)
            .drain(Duration::from_secs(30))
            .runs(1);
        let measured = measure(&harness, &plan).unwrap();
        assert_eq!(measured.report.runs[0].lost, 0);
        assert!(measured.report.runs[0].received > 0);
    }
}

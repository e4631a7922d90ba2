//! Stages, ports and graphs that latency and throughput share.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use lockstep_ringbuffer::{
    Batch, BuildError, Graph, MultiProducer, Pipeline, Producer, Progress, Stage, StageId,
};

use super::event::Event;
use crate::args::plan::Plan;
use crate::args::quantity::nanos;
use crate::args::shape::Shape;
use crate::machine::clock::{Clock, Ticks, ratio};
use crate::measure::harness::Recorder;
use crate::measure::recorder::Ticket;
use crate::report::result::Batches;

/// How a stage's batches were, kept when it ends.
#[derive(Debug, Clone, Default)]
pub(super) struct BatchBook(Arc<Mutex<Vec<(String, Batches)>>>);

impl BatchBook {
    fn write(&self, name: String, counts: Counts) {
        let batches = Batches {
            turns: counts.turns,
            mean: ratio(counts.events, counts.turns),
            max: counts.max,
        };
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.push((name, batches));
    }

    /// What has been kept since the last call.
    pub(super) fn take(&self) -> Vec<(String, Batches)> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.sort_by(|a, b| a.0.cmp(&b.0));
        std::mem::take(&mut book)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    turns: u64,
    events: u64,
    max: u64,
}

/// A stage that reads every byte, counts its batches, and records if it is the last.
pub(super) struct Work {
    name: String,
    sum: u64,
    counts: Counts,
    recorder: Option<Recorder>,
    /// The clock, and how long an event is worked on, in its ticks.
    work: Option<(Clock, u64)>,
    book: BatchBook,
}

impl Work {
    /// Spins as long as logic would take.
    #[inline]
    fn toil(work: Option<(Clock, u64)>) {
        if let Some((clock, ticks)) = work {
            let end = clock.early() + ticks;
            // Ends: the clock passes `end`.
            while clock.early() < end {}
        }
    }
}

impl<const WORDS: usize> Stage<Event<WORDS>> for Work {
    #[inline]
    fn on_batch(&mut self, batch: Batch<'_, Event<WORDS>>) -> Progress {
        let count = batch.events().len() as u64;
        self.counts.turns += 1;
        self.counts.events += count;
        self.counts.max = self.counts.max.max(count);
        match &mut self.recorder {
            None => {
                for event in batch.events() {
                    self.sum ^= event.sum();
                    Self::toil(self.work);
                }
            }
            Some(recorder) => {
                recorder.turn();
                for event in batch.events() {
                    self.sum ^= event.sum();
                    Self::toil(self.work);
                    recorder.done(event.ticket);
                }
            }
        }
        Progress::All
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What was read must count, or the reading could be left out.
        std::hint::black_box(self.sum);
        self.book.write(std::mem::take(&mut self.name), self.counts);
    }
}

/// Where a generator publishes.
pub(super) enum Port<const WORDS: usize> {
    One(Producer<Event<WORDS>>),
    Many(MultiProducer<Event<WORDS>>),
}

impl<const WORDS: usize> Port<WORDS> {
    /// Publishes these tickets in one store, all or none.
    #[inline]
    pub(super) fn try_publish(&mut self, tickets: &[Ticket]) -> bool {
        if let [ticket] = tickets {
            let fill = |event: &mut Event<WORDS>| event.fill(*ticket);
            return match self {
                Self::One(port) => port.try_publish(fill).is_ok(),
                Self::Many(port) => port.try_publish(fill).is_ok(),
            };
        }
        match self {
            Self::One(port) => port.try_claim(tickets.len()).is_ok_and(|mut claim| {
                for ((_, event), ticket) in claim.slots().iter_mut().zip(tickets) {
                    event.fill(*ticket);
                }
                claim.commit();
                true
            }),
            Self::Many(port) => port.try_claim(tickets.len()).is_ok_and(|mut claim| {
                for ((_, event), ticket) in claim.slots().iter_mut().zip(tickets) {
                    event.fill(*ticket);
                }
                claim.commit();
                true
            }),
        }
    }
}

/// The plan's graph: a port for each generator, and the stages. `recorder` makes the
/// recorder of each last stage.
pub(super) fn build<const WORDS: usize>(
    plan: &Plan,
    clock: &Clock,
    book: &BatchBook,
    mut recorder: impl FnMut() -> Option<Recorder>,
) -> anyhow::Result<(Vec<Port<WORDS>>, Pipeline<Event<WORDS>>)> {
    let mut graph = Graph::new(plan.ring, Event::<WORDS>::empty)?;
    let mut ids: Vec<StageId> = Vec::new();
    for index in 0..plan.shape.stages() {
        let after: Vec<StageId> = plan
            .shape
            .follows(index)
            .into_iter()
            .map(|i| ids[i])
            .collect();
        let name = Shape::stage_name(index);
        let work = Work {
            name: name.clone(),
            sum: 0,
            counts: Counts::default(),
            recorder: if plan.shape.is_last(index) {
                recorder()
            } else {
                None
            },
            work: (plan.shape.is_last(index) && !plan.work.is_zero())
                .then(|| (*clock, clock.to_ticks(nanos(plan.work)))),
            book: book.clone(),
        };
        let id = graph.stage(&name, &after, work);
        graph.max_batch(id, plan.batch);
        ids.push(id);
    }
    for thread in &plan.threads {
        let stages: Vec<StageId> = thread.stages.iter().map(|&index| ids[index]).collect();
        let placement = graph.together(&stages).wait(thread.wait);
        if let Some(cpu) = thread.cpu {
            placement.pin(cpu as usize);
        }
    }
    finish(graph, plan).context("the ring cannot be built")
}

fn finish<const WORDS: usize>(
    graph: Graph<Event<WORDS>>,
    plan: &Plan,
) -> Result<(Vec<Port<WORDS>>, Pipeline<Event<WORDS>>), BuildError> {
    if plan.producers.len() == 1 {
        let (producer, pipeline) = graph.build()?;
        return Ok((vec![Port::One(producer)], pipeline));
    }
    let (producer, pipeline) = graph.build_multi(|event| event.fill(Ticket::default()))?;
    let mut ports: Vec<Port<WORDS>> = (1..plan.producers.len())
        .map(|_| Port::Many(producer.clone()))
        .collect();
    ports.push(Port::Many(producer));
    Ok((ports, pipeline))
}

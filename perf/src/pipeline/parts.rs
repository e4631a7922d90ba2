//! Stages, ports and graphs that latency and throughput share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use lockstep_ringbuffer::{
    Batch, BuildError, Graph, MultiProducer, Pipeline, Producer, Progress, Stage, StageId,
};

use super::event::Event;
use super::toil::Toil;
use crate::args::plan::Plan;
use crate::args::shape::{STAGES_MAX, Shape};
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

/// When each event left each stage but the last, where the way is split. A cell is written
/// by its stage before it releases the event, read by the last stage, and written again only
/// when the event's slot is, and so behind that stage.
#[derive(Debug, Clone)]
pub(super) struct Stamps(Arc<[Stamped]>);

/// One stage's cells, and whom it follows.
#[derive(Debug)]
struct Stamped {
    cells: Box<[AtomicU64]>,
    after: Vec<usize>,
    is_last: bool,
}

impl Stamps {
    /// Of a plan whose way is split. The stages of a fan-out are all the last.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        if !plan.stages || matches!(plan.shape, Shape::Fanout(_)) {
            return None;
        }
        let stamped = |index| Stamped {
            cells: (0..plan.ring).map(|_| AtomicU64::new(0)).collect(),
            after: plan.shape.follows(index),
            is_last: plan.shape.is_last(index),
        };
        Some(Self((0..plan.shape.stages()).map(stamped).collect()))
    }

    #[inline]
    fn cell(&self, stage: usize, sequence: u64) -> &AtomicU64 {
        let cells = &self.0[stage].cells;
        // The ring's size is a power of two, so the remainder fits.
        #[expect(clippy::cast_possible_truncation, reason = "the mask is an index")]
        let index = (sequence & (cells.len() as u64 - 1)) as usize;
        &cells[index]
    }

    #[inline]
    fn left(&self, stage: usize, sequence: u64, now: u64) {
        // ORDERING: Relaxed, the ring's release of the event comes behind it.
        self.cell(stage, sequence).store(now, Ordering::Relaxed);
    }

    /// How long the event was in each stage and on the way to it, in ticks.
    #[inline]
    fn parts(&self, sequence: u64, sent: u64, now: u64) -> [u64; STAGES_MAX] {
        let mut left = [0; STAGES_MAX];
        let mut parts = [0; STAGES_MAX];
        for (index, stage) in self.0.iter().enumerate() {
            left[index] = if stage.is_last {
                now
            } else {
                // ORDERING: Relaxed, the ring's release of the event came before it.
                self.cell(index, sequence).load(Ordering::Relaxed)
            };
            let before = stage.after.iter().map(|&other| left[other]);
            parts[index] = left[index].saturating_sub(before.max().unwrap_or(sent));
        }
        parts
    }
}

/// A stage that reads every byte, counts its batches, and records if it is the last.
pub(super) struct Work {
    name: String,
    index: usize,
    sum: u64,
    counts: Counts,
    recorder: Option<Recorder>,
    clock: Clock,
    stamps: Option<Stamps>,
    toil: Toil,
    book: BatchBook,
}

impl<const WORDS: usize> Stage<Event<WORDS>> for Work {
    #[inline]
    fn on_batch(&mut self, batch: Batch<'_, Event<WORDS>>) -> Progress {
        let count = batch.events().len() as u64;
        self.counts.turns += 1;
        self.counts.events += count;
        self.counts.max = self.counts.max.max(count);
        match (&mut self.recorder, &self.stamps) {
            (None, None) => {
                for event in batch.events() {
                    self.sum ^= event.sum();
                    self.toil.work();
                }
            }
            (None, Some(stamps)) => {
                for (sequence, event) in batch.iter() {
                    self.sum ^= event.sum();
                    self.toil.work();
                    stamps.left(self.index, sequence.0, self.clock.ordered());
                }
            }
            (Some(recorder), None) => {
                for event in batch.events() {
                    self.sum ^= event.sum();
                    self.toil.work();
                    recorder.done(event.ticket);
                }
                recorder.turn();
            }
            (Some(recorder), Some(stamps)) => {
                for (sequence, event) in batch.iter() {
                    self.sum ^= event.sum();
                    self.toil.work();
                    recorder.done_by_parts(event.ticket, |now| {
                        stamps.parts(sequence.0, event.ticket.sent, now)
                    });
                }
                recorder.turn();
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
    stamps: Option<&Stamps>,
    mut recorder: impl FnMut() -> Option<Recorder>,
) -> anyhow::Result<(Vec<Port<WORDS>>, Pipeline<Event<WORDS>>)> {
    let mut graph = Graph::with_memory(plan.ring, plan.memory, Event::<WORDS>::empty)?;
    let mut ids: Vec<StageId> = Vec::new();
    let toil = Toil::of(clock, plan.work);
    for index in 0..plan.shape.stages() {
        let after: Vec<StageId> = plan
            .shape
            .follows(index)
            .into_iter()
            .map(|i| ids[i])
            .collect();
        let name = plan.shape.stage_name(index);
        let is_last = plan.shape.is_last(index);
        let work = Work {
            name: name.clone(),
            index,
            sum: 0,
            counts: Counts::default(),
            recorder: if is_last { recorder() } else { None },
            clock: *clock,
            stamps: stamps.cloned(),
            toil: if is_last { toil } else { Toil::default() },
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

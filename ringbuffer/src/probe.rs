//! How far everybody is: the table of cursors, read by whoever wants to know.
//!
//! A probe does relaxed loads and costs the hot path nothing. A stage that nobody on
//! another thread follows shows its number when it is idle and every 256 turns.

use crate::cursor::{CursorRef, NOWHERE, Sequence};
use crate::sync::Arc;

/// Reads positions and lags of a pipeline, from any thread, while it runs and afterwards.
///
/// ```
/// # use lockstep_ringbuffer::{Graph, each};
/// let mut graph = Graph::new(8, || 0_u64)?;
/// let first = graph.stage("first", &[], each(|_: &u64, _| ()));
/// graph.stage("second", &[first], each(|_: &u64, _| ()));
/// let (mut producer, mut pipeline) = graph.build()?;
/// let probe = pipeline.probe();
/// producer.publish(|event| *event = 42)?;
/// assert_eq!(probe.look().stages[1].lag, 1);
/// while pipeline.turn() != lockstep_ringbuffer::Turn::Idle {}
/// assert_eq!(probe.look().stages[1].lag, 0);
/// println!("{}", probe.look());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Probe {
    pub(crate) published: CursorRef,
    pub(crate) capacity: u64,
    pub(crate) stages: Arc<[Probed]>,
}

/// A stage as the probe finds it.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) name: Arc<str>,
    pub(crate) released: CursorRef,
    pub(crate) taken: Option<CursorRef>,
    pub(crate) after: Vec<usize>,
    pub(crate) gates_producer: bool,
}

/// What a look found. The numbers are of one moment each, not all of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// How far the ring is published; with many producers: claimed.
    pub published: Sequence,
    /// How many slots are free.
    pub remaining: u64,
    /// How many slots there are.
    pub capacity: u64,
    /// Whom the producer would wait for now: the slowest of those it looks at.
    pub gated_by: Option<Arc<str>>,
    /// The stages, in the order of their making.
    pub stages: Vec<StagePosition>,
}

/// How far a stage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePosition {
    /// Its name.
    pub name: Arc<str>,
    /// What it follows.
    pub after: Vec<Arc<str>>,
    /// How far it has promised.
    pub released: Sequence,
    /// How far it has read; only late stages read ahead of their promise.
    pub taken: Sequence,
    /// How many published events it has not released.
    pub lag: u64,
    /// A poller that left, or a hold that was dropped: it holds nobody back.
    pub is_gone: bool,
}

impl Probe {
    /// Looks once.
    #[must_use]
    pub fn look(&self) -> Positions {
        // The stages first: a number read later is no smaller, so no lag is negative.
        let mut released: Vec<u64> = self.stages.iter().map(|s| s.released.peek()).collect();
        self.lift(&mut released);
        let published = self.published.peek();
        let gating = (0..self.stages.len())
            .filter(|&stage| self.stages[stage].gates_producer && released[stage] != NOWHERE)
            .min_by_key(|&stage| released[stage]);
        let oldest = gating.map_or(published, |stage| released[stage]);
        Positions {
            published: Sequence(published),
            remaining: self
                .capacity
                .saturating_sub(published.saturating_sub(oldest)),
            capacity: self.capacity,
            gated_by: gating.map(|stage| Arc::clone(&self.stages[stage].name)),
            stages: self
                .stages
                .iter()
                .zip(released)
                .map(|(stage, released)| self.position(stage, released, published))
                .collect(),
        }
    }

    /// A stage that shows its number seldom is at least where whoever follows it is.
    fn lift(&self, released: &mut [u64]) {
        // From the last one made to the first: who follows was made later.
        for stage in (0..released.len()).rev() {
            let at = released[stage];
            for &before in &self.stages[stage].after {
                if at != NOWHERE && released[before] != NOWHERE {
                    released[before] = released[before].max(at);
                }
            }
        }
    }

    fn position(&self, stage: &Probed, released: u64, published: u64) -> StagePosition {
        let is_gone = released == NOWHERE;
        let released = if is_gone { published } else { released };
        let taken = stage.taken.as_ref().map_or(released, |taken| taken.peek());
        StagePosition {
            name: Arc::clone(&stage.name),
            after: stage
                .after
                .iter()
                .map(|&before| Arc::clone(&self.stages[before].name))
                .collect(),
            released: Sequence(released),
            taken: Sequence(taken.max(released)),
            lag: published.saturating_sub(released),
            is_gone,
        }
    }
}

impl std::fmt::Display for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "published {}, {} of {} slots free, held back by {}",
            self.published,
            self.remaining,
            self.capacity,
            self.gated_by.as_deref().unwrap_or("nobody")
        )?;
        for stage in &self.stages {
            writeln!(
                f,
                "{:>16}  released {:>12}  taken {:>12}  lag {:>8}  behind {}",
                stage.name,
                stage.released,
                stage.taken,
                stage.lag,
                if stage.after.is_empty() {
                    "the producer".to_owned()
                } else {
                    stage.after.join(", ")
                }
            )?;
        }
        Ok(())
    }
}

//! A column beside the events: what one stage leaves for those behind it.
//!
//! Stages that run in parallel may not write the event. Each may own a lane instead: one
//! value for each slot, in memory of its own, so that two stages never write the same
//! line. A lane is reached through a batch only, which knows who asks.
//!
//! # Invariants
//!
//! * `N1` A lane has exactly one owner, and its graph says which (`build` checks it).

use std::fmt;

use std::sync::OnceLock;

use crate::batch::StageCard;
use crate::column::ColumnRef;
use crate::sync::Arc;

/// What a stage wants of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneUse {
    Read,
    Write,
}

/// One value of `T` for each slot, written by the stage that owns it.
///
/// ```
/// use lockstep_ringbuffer::{Batch, Graph, Progress};
///
/// let mut graph = Graph::new(8, || 0_u64)?;
/// let squares = graph.lane(|| 0_u64)?;
/// let write = squares.clone();
/// let square = graph.stage("square", &[], move |mut batch: Batch<'_, u64>| {
///     for index in 0..batch.len() {
///         let event = batch.events()[index];
///         batch.lane_mut(&write)[index] = event * event;
///     }
///     Progress::All
/// });
/// graph.lane_owner(square, &squares);
/// graph.stage("print", &[square], move |batch: Batch<'_, u64>| {
///     println!("{:?} -> {:?}", batch.events(), batch.lane(&squares));
///     Progress::All
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lane<T> {
    column: ColumnRef<T>,
    graph: u64,
    owner: Arc<OnceLock<usize>>,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            column: self.column.clone(),
            graph: self.graph,
            owner: Arc::clone(&self.owner),
        }
    }
}

impl<T> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("type", &std::any::type_name::<T>())
            .field("owner", &self.owner.get())
            .finish_non_exhaustive()
    }
}

impl<T> Lane<T> {
    pub(crate) fn new(column: ColumnRef<T>, graph: u64) -> Self {
        Self {
            column,
            graph,
            owner: Arc::default(),
        }
    }

    pub(crate) fn owner_cell(&self) -> Arc<OnceLock<usize>> {
        Arc::clone(&self.owner)
    }

    pub(crate) fn graph(&self) -> u64 {
        self.graph
    }

    pub(crate) fn column(&self) -> &ColumnRef<T> {
        &self.column
    }

    /// Whether the stage of `card` may use this lane as it asks.
    pub(crate) fn check(&self, card: &StageCard, wanted: LaneUse) {
        let owner = self.owner.get().copied();
        let allowed = card.graph == self.graph
            && owner.is_some_and(|owner| match wanted {
                LaneUse::Write => owner == card.index,
                LaneUse::Read => owner == card.index || card.ancestors & (1 << owner) != 0,
            });
        assert!(
            allowed,
            "N1: a lane of {} is written by its owner and read by the stages behind it, \
             and this stage is not one of them",
            std::any::type_name::<T>()
        );
    }
}

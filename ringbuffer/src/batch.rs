//! What a stage sees of the ring in one turn, and how it answers.
//!
//! ```text
//!        released = first         end       bound
//!   ────────┼──────────────────────┼──────────┼────────
//!    done   │       batch          │ backlog  │ not yet released upstream
//! ```
//!
//! A batch is one contiguous run of slots: it ends at the bound, at the largest batch or
//! at the end of the ring, whichever comes first, and it is never empty.
//!
//! # Invariants
//!
//! * `B1` Every slot of a batch is released by all that the stage follows (R1), and not
//!   yet by the stage itself, so that nobody writes it (R2), but for a stage that writes,
//!   which is ordered against all others (G2).
//! * `B2` What is released early leaves the batch: no slice of it can be had afterwards.

#![expect(
    unsafe_code,
    reason = "borrows slots that the cursors have given to this stage"
)]

use std::fmt;
use std::ops::Deref;

use crate::column::{ColumnRef, Watch};
use crate::cursor::{CursorRef, Sequence};
use crate::error::Cause;
use crate::lane::{Lane, LaneUse};
use crate::wake::WakeList;

/// What a stage answers to a batch.
#[derive(Debug)]
pub enum Progress {
    /// Everything in the batch is done.
    All,
    /// Everything before this sequence is done; the rest is delivered again. It lies in
    /// the batch, or is its end.
    To(Sequence),
    /// Nothing more than what was released early is done; the rest is delivered again.
    Retry,
    /// The same, and the pipeline halts: every runner ends after its turn.
    Halt,
    /// The stage cannot go on; its [`OnFault`](crate::OnFault) decides.
    Fail(Cause),
}

impl Progress {
    /// [`Progress::Fail`] with anything that reads as an error.
    pub fn fail(cause: impl Into<Cause>) -> Self {
        Self::Fail(cause.into())
    }
}

/// What a handler of single events may return: nothing, or a result.
pub trait Outcome {
    /// As a result.
    ///
    /// # Errors
    ///
    /// What the handler failed of.
    fn into_result(self) -> Result<(), Cause>;
}

impl Outcome for () {
    #[inline(always)]
    fn into_result(self) -> Result<(), Cause> {
        Ok(())
    }
}

impl<C: Into<Cause>> Outcome for Result<(), C> {
    #[inline(always)]
    fn into_result(self) -> Result<(), Cause> {
        self.map_err(Into::into)
    }
}

/// Who a stage is, for those it shows its batches.
#[derive(Debug, Clone)]
pub(crate) struct StageCard {
    pub(crate) graph: u64,
    pub(crate) index: usize,
    /// One bit for each stage before this one.
    pub(crate) ancestors: u64,
}

/// How a stage tells others how far it has come.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// `[0, released)` is promised; for a late stage: taken.
    pub(crate) released: u64,
    /// Where it is stored, if anybody on another thread reads it.
    pub(crate) cursor: CursorRef,
    pub(crate) is_followed: bool,
    pub(crate) wake: WakeList,
    /// Where a stage that goes event by event stopped, if it did.
    pub(crate) reached: u64,
}

impl Outlet {
    #[inline(always)]
    pub(crate) fn release(&mut self, to: u64) {
        self.released = to;
        if self.is_followed {
            self.cursor.advance(to);
            self.wake.signal();
        }
    }
}

/// A run of slots that a stage may use, before it is known how.
#[derive(Debug)]
pub(crate) struct Span<'b, E> {
    pub(crate) slots: &'b ColumnRef<E>,
    pub(crate) card: &'b StageCard,
    pub(crate) first: u64,
    pub(crate) count: usize,
    pub(crate) backlog: u64,
}

impl<'b, E: Send + Sync> Span<'b, E> {
    pub(crate) fn into_view(self) -> View<'b, E> {
        let watch = self.slots.watch_read(self.first, self.count);
        View {
            span: self,
            watch: Some(watch),
        }
    }

    pub(crate) fn into_view_to_write(self) -> View<'b, E> {
        let watch = self.slots.watch_write(self.first, self.count);
        View {
            span: self,
            watch: Some(watch),
        }
    }
}

/// A contiguous run of events, to be read.
pub struct View<'b, E> {
    span: Span<'b, E>,
    watch: Option<Watch>,
}

impl<E> fmt::Debug for View<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("first", &self.span.first)
            .field("len", &self.span.count)
            .field("backlog", &self.span.backlog)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> View<'_, E> {
    /// The events, oldest first.
    #[inline]
    #[must_use]
    pub fn events(&self) -> &[E] {
        // SAFETY: `run` wants (1) no writer: B1; a writing stage has no other borrow, since
        // its own is `&mut`; (2) no wrap: a batch ends there.
        unsafe { self.span.slots.run(self.span.first, self.span.count) }
    }

    /// Every event with its sequence.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, &E)> {
        (self.span.first..).map(Sequence).zip(self.events())
    }

    /// The events as bytes, as they lie in the ring.
    #[must_use]
    pub fn bytes(&self) -> &[u8]
    where
        E: bytemuck::NoUninit,
    {
        bytemuck::cast_slice(self.events())
    }

    /// The sequence of the first event.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Sequence {
        Sequence(self.span.first)
    }

    /// The sequence behind the last event.
    #[inline]
    #[must_use]
    pub fn end(&self) -> Sequence {
        Sequence(self.span.first + self.span.count as u64)
    }

    /// How many events there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.span.count
    }

    /// Whether everything was released early; a fresh batch is never empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.span.count == 0
    }

    /// How many events could be taken when this batch was cut, itself included: the depth
    /// of the queue. With many producers it is counted up to the largest batch and one.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.span.backlog
    }

    /// Whether nothing was waiting behind this batch when it was cut: the time to flush.
    #[must_use]
    pub fn ends_backlog(&self) -> bool {
        self.span.backlog <= self.span.count as u64
    }

    /// What another stage left for these events in its lane.
    ///
    /// # Panics
    ///
    /// If this stage is not behind the lane's owner, or the lane is another graph's.
    #[must_use]
    pub fn lane<T: Send + Sync>(&self, lane: &Lane<T>) -> &[T] {
        lane.check(self.span.card, LaneUse::Read);
        lane.column()
            .watch_read(self.span.first, self.span.count)
            .end();
        // SAFETY: `run` wants (1) no writer: the owner has released these events, since this
        // stage is behind it, and gets them again a lap later, when this stage has released
        // them (R2); the owner itself borrows through `&mut`; (2) no wrap: the lane is as
        // long as the ring.
        unsafe { lane.column().run(self.span.first, self.span.count) }
    }

    /// This stage's own lane, for the events of this batch.
    ///
    /// # Panics
    ///
    /// If the lane is owned by another stage, or is another graph's.
    pub fn lane_mut<T: Send + Sync>(&mut self, lane: &Lane<T>) -> &mut [T] {
        lane.check(self.span.card, LaneUse::Write);
        lane.column()
            .watch_write(self.span.first, self.span.count)
            .end();
        // SAFETY: `run_mut` wants (1) us alone: the lane has one owner, this stage, whose
        // only borrow is this `&mut`; stages behind it stop at what it released; (2) no
        // wrap: the lane is as long as the ring.
        unsafe { lane.column().run_mut(self.span.first, self.span.count) }
    }

    /// B2: the first `count` events leave the view.
    fn forget_first(&mut self, count: usize) {
        self.watch = None;
        self.span.first += count as u64;
        self.span.count -= count;
        self.span.backlog -= count as u64;
    }
}

/// A batch for a stage that reads.
#[derive(Debug)]
pub struct Batch<'b, E: Send + Sync> {
    view: View<'b, E>,
    outlet: &'b mut Outlet,
}

impl<'b, E: Send + Sync> Batch<'b, E> {
    pub(crate) fn new(view: View<'b, E>, outlet: &'b mut Outlet) -> Self {
        Self { view, outlet }
    }

    /// Promises the first `count` events before the batch ends: those who wait for them
    /// may go on. They leave the batch.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    ///
    /// No reference to them can be kept:
    ///
    /// ```compile_fail
    /// # use lockstep_ringbuffer::{Batch, Progress};
    /// fn on_batch(mut batch: Batch<'_, u64>) -> Progress {
    ///     let first = &batch.events()[0];
    ///     batch.release_first(1);
    ///     println!("{first}"); // the producer may be writing this slot by now
    ///     Progress::All
    /// }
    /// ```
    pub fn release_first(&mut self, count: usize) {
        release_first(&mut self.view, self.outlet, count, false);
    }

    /// Goes through the batch event by event and stops at the first failure. If the
    /// handler fails or panics, the pipeline knows at which event.
    #[inline]
    pub fn for_each<R: Outcome>(self, mut handle: impl FnMut(&E, Sequence) -> R) -> Progress {
        let first = self.view.span.first;
        let mut mark = Mark {
            at: first,
            reached: &mut self.outlet.reached,
        };
        for event in self.view.events() {
            if let Err(cause) = handle(event, Sequence(mark.at)).into_result() {
                return Progress::Fail(cause);
            }
            mark.at += 1;
        }
        Progress::All
    }

    /// This stage's own lane, for the events of this batch.
    ///
    /// # Panics
    ///
    /// If the lane is owned by another stage, or is another graph's.
    pub fn lane_mut<T: Send + Sync>(&mut self, lane: &Lane<T>) -> &mut [T] {
        self.view.lane_mut(lane)
    }
}

impl<'b, E: Send + Sync> Deref for Batch<'b, E> {
    type Target = View<'b, E>;

    fn deref(&self) -> &View<'b, E> {
        &self.view
    }
}

/// A batch for a stage that writes.
#[derive(Debug)]
pub struct BatchMut<'b, E: Send + Sync> {
    view: View<'b, E>,
    outlet: &'b mut Outlet,
}

impl<'b, E: Send + Sync> BatchMut<'b, E> {
    pub(crate) fn new(view: View<'b, E>, outlet: &'b mut Outlet) -> Self {
        Self { view, outlet }
    }

    /// The events, to be written in place.
    #[inline]
    pub fn events_mut(&mut self) -> &mut [E] {
        let span = &self.view.span;
        // SAFETY: `run_mut` wants (1) us alone: no stage is parallel to one that writes
        // (G2), those before it have released these events and those behind it have not
        // got them (B1), and this borrow is `&mut`; (2) no wrap: a batch ends there.
        unsafe { span.slots.run_mut(span.first, span.count) }
    }

    /// As [`Batch::release_first`].
    ///
    /// # Panics
    ///
    /// If there are fewer.
    ///
    /// ```compile_fail
    /// # use lockstep_ringbuffer::{BatchMut, Progress};
    /// fn on_batch(mut batch: BatchMut<'_, u64>) -> Progress {
    ///     let first = &mut batch.events_mut()[0];
    ///     batch.release_first(1);
    ///     *first = 7; // others may be reading it by now
    ///     Progress::All
    /// }
    /// ```
    pub fn release_first(&mut self, count: usize) {
        release_first(&mut self.view, self.outlet, count, true);
    }

    /// As [`Batch::for_each`].
    #[inline]
    pub fn for_each<R: Outcome>(self, mut handle: impl FnMut(&mut E, Sequence) -> R) -> Progress {
        let Span {
            slots,
            first,
            count,
            ..
        } = self.view.span;
        let mut mark = Mark {
            at: first,
            reached: &mut self.outlet.reached,
        };
        // SAFETY: as in `events_mut`; `self` is consumed, so this is the only borrow, and it
        // ends with this function.
        for event in unsafe { slots.run_mut(first, count) } {
            if let Err(cause) = handle(event, Sequence(mark.at)).into_result() {
                return Progress::Fail(cause);
            }
            mark.at += 1;
        }
        Progress::All
    }

    /// This stage's own lane, for the events of this batch.
    ///
    /// # Panics
    ///
    /// If the lane is owned by another stage, or is another graph's.
    pub fn lane_mut<T: Send + Sync>(&mut self, lane: &Lane<T>) -> &mut [T] {
        self.view.lane_mut(lane)
    }
}

impl<'b, E: Send + Sync> Deref for BatchMut<'b, E> {
    type Target = View<'b, E>;

    fn deref(&self) -> &View<'b, E> {
        &self.view
    }
}

fn release_first<E: Send + Sync>(
    view: &mut View<'_, E>,
    outlet: &mut Outlet,
    count: usize,
    writes: bool,
) {
    assert!(
        count <= view.span.count,
        "release_first: {count} of {} events",
        view.span.count
    );
    view.forget_first(count);
    outlet.release(view.span.first);
    let Span { first, count, .. } = view.span;
    view.watch = Some(if writes {
        view.span.slots.watch_write(first, count)
    } else {
        view.span.slots.watch_read(first, count)
    });
}

/// Tells the outlet where a loop over events ended, also when it ended by a panic.
struct Mark<'o> {
    at: u64,
    reached: &'o mut u64,
}

impl Drop for Mark<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.reached = self.at;
    }
}

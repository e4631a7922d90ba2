//! A promise moved apart from reading.
//!
//! A late stage takes events and promises them later: when a disk has them, when peers
//! have acknowledged them. Its [`Gate`] moves the promise, and it alone lends the window of
//! what was taken and not released, which is how a disk thread writes straight from the
//! slots while the stage has gone on. Where the two rights must part, there is a
//! [`Promise`], moved by whoever learns of it first, and a [`Hold`], which keeps events in the
//! ring for its own purposes.
//!
//! ```text
//!            kept            released               taken
//!   ───────────┼─────────────────┼─────────────────────┼──────
//!              │      Hold lends [kept, taken)         │
//!                                │  Gate lends         │
//! ```
//!
//! # Invariants
//!
//! * `K1` `kept, released ≤ taken`: what moves them is clamped, so safe code cannot expose
//!   an event that its stage has not taken.
//! * `K2` A window is borrowed through `&self` and what ends it through `&mut self`.

#![expect(
    unsafe_code,
    reason = "borrows slots that the cursors have given to this stage"
)]

use std::fmt;
use std::sync::OnceLock;

use crate::column::{ColumnRef, Watch, index};
use crate::cursor::{CursorRef, NOWHERE, Sequence};
use crate::error::{Cause, FaultKind};
use crate::orderings::finished_set;
use crate::state::State;
use crate::sync::{Arc, AtomicBool};
use crate::wake::WakeList;

/// What a stage, its gate, its promise and its hold share.
#[derive(Debug)]
pub(crate) struct Late {
    /// How far the stage has read; the stage advances it.
    pub(crate) taken: CursorRef,
    /// The promise; the gate or the promise advances it.
    pub(crate) released: CursorRef,
    /// Whom to wake when it moves; known once the graph is built.
    pub(crate) wake: OnceLock<WakeList>,
    /// Nobody is left who could release.
    pub(crate) is_abandoned: AtomicBool,
    pub(crate) stage: usize,
    pub(crate) state: Arc<State>,
}

impl Late {
    /// Releases up to `to` or to what was taken; what is released then.
    fn release_to(&self, to: u64) -> u64 {
        let released = self.released.peek();
        let to = to.min(self.taken.get()).max(released);
        if to != released {
            self.released.advance(to);
            if let Some(wake) = self.wake.get() {
                wake.signal();
            }
        }
        to
    }

    fn fail(&self, kind: FaultKind, text: String) {
        let at = self.released.peek();
        self.state.poison(self.stage, at, kind, text);
    }

    /// Nobody will release any more: a fault, if there is anything to release.
    fn abandon(&self) {
        // The stage looks at the flag in every turn, and is woken for one: what it takes
        // while this runs is found there, if not below.
        self.is_abandoned.store(true, finished_set());
        self.state.wake_everybody();
        if self.taken.get() != self.released.peek() && self.state.is_live() {
            self.fail(
                FaultKind::Gate,
                "its gate was dropped with events in flight".to_owned(),
            );
        }
    }
}

/// The slots of a late stage that are taken and not yet given up: a pair of slices at the
/// wrap, the second empty otherwise.
#[derive(Debug)]
pub struct Held<'g, E> {
    /// The sequence of the first event.
    pub first: Sequence,
    /// The events up to the end of the ring.
    pub head: &'g [E],
    /// The events from the start of the ring.
    pub tail: &'g [E],
    _watch: (Watch, Watch),
}

impl<'g, E: Send + Sync> Held<'g, E> {
    fn new(slots: &'g ColumnRef<E>, from: u64, to: u64) -> Self {
        let head = (to - from).min(slots.until_wrap(from));
        let tail = to - from - head;
        Self {
            first: Sequence(from),
            // SAFETY: `run` wants (1) no writer: what is not released or kept is not
            // written again (R2), and no writing stage is parallel to this one (G2);
            // (2) no wrap: `head` stops there.
            head: unsafe { slots.run(from, index(head)) },
            // SAFETY: the same; `tail` starts at the wrap and is shorter than the ring.
            tail: unsafe { slots.run(from + head, index(tail)) },
            _watch: (
                slots.watch_read(from, index(head)),
                slots.watch_read(from + head, index(tail)),
            ),
        }
    }

    /// How many events are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sequence behind the last event.
    #[must_use]
    pub fn end(&self) -> Sequence {
        self.first + self.len() as u64
    }

    /// The events as bytes, as they lie in the ring: what a vectored write wants.
    #[must_use]
    pub fn bytes(&self) -> (&[u8], &[u8])
    where
        E: bytemuck::NoUninit,
    {
        (
            bytemuck::cast_slice(self.head),
            bytemuck::cast_slice(self.tail),
        )
    }
}

/// Moves the promise of a late stage and lends what it has taken. `Send`: it lives in its
/// stage or on any other thread.
///
/// Dropped while events are taken and not released, it poisons the pipeline there.
///
/// ```compile_fail
/// # use lockstep_ringbuffer::{Gate, Sequence};
/// fn write(gate: &mut Gate<u64>) {
///     let held = gate.held();
///     let end = held.end();
///     gate.release_to(end);
///     println!("{:?}", held.head); // the producer may be writing these slots by now
/// }
/// ```
pub struct Gate<E> {
    late: Arc<Late>,
    slots: ColumnRef<E>,
}

impl<E> fmt::Debug for Gate<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "Gate", &self.late)
    }
}

impl<E: Send + Sync> Gate<E> {
    pub(crate) fn new(late: Arc<Late>, slots: ColumnRef<E>) -> Self {
        Self { late, slots }
    }

    /// What is taken and not yet released.
    #[must_use]
    pub fn held(&self) -> Held<'_, E> {
        Held::new(
            &self.slots,
            self.late.released.peek(),
            self.late.taken.get(),
        )
    }

    /// Promises everything before `to`, but not more than was taken; returns what is
    /// released then. An earlier `to` changes nothing.
    pub fn release_to(&mut self, to: Sequence) -> Sequence {
        Sequence(self.late.release_to(to.0))
    }

    /// Wakes the threads that sleep behind this gate though nothing moved: their stages have something else to
    /// look at, in `on_turn`, and what was written before this is seen in the next one (`W2`).
    pub fn wake(&self) {
        if let Some(wake) = self.late.wake.get() {
            wake.signal();
        }
    }

    /// How far the stage has read.
    #[must_use]
    pub fn taken(&self) -> Sequence {
        Sequence(self.late.taken.get())
    }

    /// How far it has promised.
    #[must_use]
    pub fn released(&self) -> Sequence {
        Sequence(self.late.released.peek())
    }

    /// The promise cannot be kept: poisons the pipeline at what is released.
    pub fn fail(self, cause: impl Into<Cause>) {
        self.late.fail(FaultKind::Gate, cause.into().to_string());
    }
}

impl<E> Drop for Gate<E> {
    fn drop(&mut self) {
        self.late.abandon();
    }
}

/// Moves the promise of a late stage whose events somebody else holds.
///
/// Dropped while events are taken and not released, it poisons the pipeline there.
pub struct Promise {
    late: Arc<Late>,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "Promise", &self.late)
    }
}

impl Promise {
    pub(crate) fn new(late: Arc<Late>) -> Self {
        Self { late }
    }

    /// As [`Gate::release_to`].
    pub fn release_to(&mut self, to: Sequence) -> Sequence {
        Sequence(self.late.release_to(to.0))
    }

    /// As [`Gate::taken`].
    #[must_use]
    pub fn taken(&self) -> Sequence {
        Sequence(self.late.taken.get())
    }

    /// As [`Gate::released`].
    #[must_use]
    pub fn released(&self) -> Sequence {
        Sequence(self.late.released.peek())
    }

    /// As [`Gate::fail`].
    pub fn fail(self, cause: impl Into<Cause>) {
        self.late.fail(FaultKind::Gate, cause.into().to_string());
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.late.abandon();
    }
}

/// Keeps events of a late stage in the ring, whatever its promise is: for a peer that may
/// ask again. It gates the producer; dropped, it lets go.
pub struct Hold<E> {
    late: Arc<Late>,
    kept: CursorRef,
    slots: ColumnRef<E>,
    /// Whom to wake when it moves; known once the graph is built.
    wake: Arc<OnceLock<WakeList>>,
}

impl<E> fmt::Debug for Hold<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("kept", &self.kept.peek())
            .field("taken", &self.late.taken.peek())
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> Hold<E> {
    pub(crate) fn new(
        late: Arc<Late>,
        kept: CursorRef,
        slots: ColumnRef<E>,
        wake: Arc<OnceLock<WakeList>>,
    ) -> Self {
        Self {
            late,
            kept,
            slots,
            wake,
        }
    }

    /// What is taken and kept.
    #[must_use]
    pub fn held(&self) -> Held<'_, E> {
        Held::new(&self.slots, self.kept.peek(), self.late.taken.get())
    }

    /// Lets go of everything before `to`, but not of more than was taken.
    pub fn keep_from(&mut self, to: Sequence) {
        let kept = self.kept.peek();
        let to = to.0.min(self.late.taken.get()).max(kept);
        if to != kept {
            self.kept.advance(to);
            self.wake();
        }
    }
}

impl<E> Hold<E> {
    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.signal();
        }
    }
}

impl<E> Drop for Hold<E> {
    fn drop(&mut self) {
        self.kept.advance(NOWHERE);
        self.wake();
    }
}

fn show(f: &mut fmt::Formatter<'_>, name: &str, late: &Late) -> fmt::Result {
    f.debug_struct(name)
        .field("released", &late.released.peek())
        .field("taken", &late.taken.peek())
        .finish_non_exhaustive()
}

//! One producing thread: claims by comparing two of its own numbers, publishes by one store.
//!
//! ```text
//!    published = next            free_until
//!        ▼                           ▼
//!   ─────┼───────────────────────────┼─────────
//!   read │  may be claimed at once   │  ask the sinks (slow path)
//! ```
//!
//! # Invariants
//!
//! * `L1` `published = next ≤ free_until`, all of them this handle's alone.
//! * `L2` Between claim and publish nobody else uses `[next, free_until)`: readers stop at
//!   `published` (R1), and whoever read the slots a lap before has released them (R2).

#![expect(
    unsafe_code,
    reason = "borrows slots that the cursors have given to this producer"
)]

use std::fmt;

use crate::column::{ColumnRef, Watch, index};
use crate::cursor::{CursorRef, Sequence};
use crate::error::ClaimError;
use crate::room::{Patience, Room};
use crate::wake::WakeList;

/// The writing end of a ring with one producing thread.
///
/// It is `Send` and not `Clone`: one writer, by ownership. Two threads that want to
/// publish need [`MultiProducer`](crate::MultiProducer), or a ring each.
///
/// ```compile_fail
/// # use lockstep_ringbuffer::{Graph, each};
/// let mut graph = Graph::new(8, || 0_u64)?;
/// graph.stage("print", &[], each(|event: &u64, _at| println!("{event}")));
/// let (producer, _pipeline) = graph.build()?;
/// let second = producer.clone(); // one writer, by ownership
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping it says that nothing more will come: the stages finish what was published.
pub struct Producer<E> {
    slots: ColumnRef<E>,
    published: CursorRef,
    next: u64,
    free_until: u64,
    wake: WakeList,
    room: Room,
}

impl<E> fmt::Debug for Producer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("next", &self.next)
            .field("free_until", &self.free_until)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> Producer<E> {
    pub(crate) fn new(
        slots: ColumnRef<E>,
        published: CursorRef,
        wake: WakeList,
        room: Room,
    ) -> Self {
        let next = published.get();
        Self {
            slots,
            published,
            next,
            free_until: next + room.capacity(),
            wake,
            room,
        }
    }

    /// Claims one slot, lets `fill` write it in place, and publishes it.
    ///
    /// A slot keeps its last event from a lap before: `fill` sets every field that
    /// matters. If `fill` panics nothing is published and the slot is used again.
    ///
    /// # Errors
    ///
    /// When the ring is full, as its [`OnFull`](crate::OnFull) says; when a stage failed; when
    /// the pipeline was halted. Failure is noticed when the room that is known to be free is
    /// used up, so some publications after it may still succeed; no stage will see them.
    ///
    /// ```
    /// # use lockstep_ringbuffer::{Graph, each};
    /// # let mut graph = Graph::new(8, || 0_u64)?;
    /// # graph.stage("sum", &[], each(|_: &u64, _| ()));
    /// # let (mut producer, _pipeline) = graph.build()?;
    /// let at = producer.publish(|event| *event = 42)?;
    /// assert_eq!(at.0, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, ClaimError> {
        self.publish_with(fill, Patience::Policy)
    }

    /// The same without ever waiting.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Full`] if there is no room now; else as [`publish`](Self::publish).
    #[inline]
    pub fn try_publish(&mut self, fill: impl FnOnce(&mut E)) -> Result<Sequence, ClaimError> {
        self.publish_with(fill, Patience::Try)
    }

    #[inline(always)]
    fn publish_with(
        &mut self,
        fill: impl FnOnce(&mut E),
        patience: Patience,
    ) -> Result<Sequence, ClaimError> {
        let at = self.next;
        if at == self.free_until {
            self.free_until = self.room.make(at, 1, patience)?;
        }
        {
            let _watch = self.slots.watch_write(at, 1);
            // SAFETY: `cell_mut` wants us alone in the slot: `at < free_until` (L2).
            fill(unsafe { self.slots.cell_mut(at) });
        }
        self.advance(at + 1);
        Ok(Sequence(at))
    }

    /// Claims `count` slots, lets `fill` write them as a pair of slices (the second is
    /// empty unless the claim wraps), and publishes them in one store. What `fill` returns
    /// comes back with the first sequence.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    ///
    /// A slot cannot be kept beyond its publication:
    ///
    /// ```compile_fail
    /// # use lockstep_ringbuffer::{Graph, each};
    /// # let mut graph = Graph::new(8, || 0_u64)?;
    /// # graph.stage("sum", &[], each(|_: &u64, _| ()));
    /// # let (mut producer, _pipeline) = graph.build()?;
    /// let mut kept = None;
    /// producer.publish_batch(2, |slots| kept = Some(slots.head))?; // the closure is higher-ranked
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn publish_batch<R>(
        &mut self,
        count: usize,
        fill: impl for<'c> FnOnce(Slots<'c, E>) -> R,
    ) -> Result<(Sequence, R), ClaimError> {
        let mut claim = self.claim(count)?;
        let returned = fill(claim.slots());
        Ok((claim.commit(), returned))
    }

    /// Publishes a copy of `events`, in parts as large as the ring allows.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim), [`ClaimError::TooLarge`] excepted. Parts already published
    /// stay so: the error comes with how many events they held.
    pub fn publish_slice(&mut self, events: &[E]) -> Result<Sequence, (usize, ClaimError)>
    where
        E: Copy,
    {
        let first = Sequence(self.next);
        let part = index(self.room.capacity()).div_ceil(2);
        for (done, part) in events.chunks(part).enumerate().map(|(n, p)| (n * part, p)) {
            let mut claim = self.claim(part.len()).map_err(|error| (done, error))?;
            claim.slots().copy_from(part);
            claim.commit();
        }
        Ok(first)
    }

    /// Claims `count` slots, to be written and then committed; waits as the policy of the
    /// ring says.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Nothing`] for 0, [`ClaimError::TooLarge`] for more than the capacity;
    /// else as [`publish`](Self::publish). Nothing is claimed then.
    #[inline]
    pub fn claim(&mut self, count: usize) -> Result<Claim<'_, E>, ClaimError> {
        self.claim_with(count, Patience::Policy)
    }

    /// The same without ever waiting.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Full`] if there is no room now; else as [`claim`](Self::claim).
    #[inline]
    pub fn try_claim(&mut self, count: usize) -> Result<Claim<'_, E>, ClaimError> {
        self.claim_with(count, Patience::Try)
    }

    /// Claims as many slots as are free now, at least one and at most `count`.
    ///
    /// # Errors
    ///
    /// As [`try_claim`](Self::try_claim) of one.
    pub fn try_claim_up_to(&mut self, count: usize) -> Result<Claim<'_, E>, ClaimError> {
        if count == 0 {
            return Err(ClaimError::Nothing);
        }
        if self.free_until - self.next < count as u64 {
            self.free_until = self.room.make(self.next, 1, Patience::Try)?;
        }
        let free = index((self.free_until - self.next).min(self.room.capacity()));
        self.claim_with(count.min(free), Patience::Try)
    }

    #[inline(always)]
    fn claim_with(&mut self, count: usize, patience: Patience) -> Result<Claim<'_, E>, ClaimError> {
        let want = self.room.check(count)?;
        if self.free_until - self.next < want {
            self.free_until = self.room.make(self.next, want, patience)?;
        }
        let watch = self.slots.watch_write(self.next, count);
        Ok(Claim {
            count: want,
            producer: self,
            _watch: watch,
        })
    }

    #[inline(always)]
    fn advance(&mut self, to: u64) {
        self.next = to;
        self.published.advance(to);
        self.wake.signal();
    }

    /// How many slots are free now: at least so many events can be claimed at once.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let free = self.room.free_until() - self.next;
        index(free.min(self.room.capacity()))
    }

    /// The sequence that the next event will have.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.next)
    }

    /// How many slots the ring has.
    #[must_use]
    pub fn capacity(&self) -> usize {
        index(self.room.capacity())
    }

    /// Whether publishing can still succeed; else why it cannot.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Poisoned`] or [`ClaimError::Halted`].
    pub fn check(&self) -> Result<(), ClaimError> {
        self.room.state().refusal().map_or(Ok(()), Err)
    }
}

impl<E> Drop for Producer<E> {
    fn drop(&mut self) {
        self.published.finish();
        self.room.state().close();
    }
}

/// Claimed slots: a pair of slices at the wrap, the second empty otherwise.
#[derive(Debug)]
pub struct Slots<'c, E> {
    /// The sequence of the first slot.
    pub first: Sequence,
    /// The slots up to the end of the ring.
    pub head: &'c mut [E],
    /// The slots from the start of the ring.
    pub tail: &'c mut [E],
}

impl<E> Slots<'_, E> {
    /// How many slots were claimed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Never: a claim holds at least one slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every slot in order, with its sequence.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Sequence, &mut E)> {
        let first = self.first;
        let slots = self.head.iter_mut().chain(self.tail.iter_mut());
        (0..).map(move |offset| first + offset).zip(slots)
    }

    /// Copies `events` into the slots, across the wrap.
    ///
    /// # Panics
    ///
    /// If there are not exactly as many events as slots.
    pub fn copy_from(&mut self, events: &[E])
    where
        E: Copy,
    {
        assert_eq!(events.len(), self.len(), "one event for each claimed slot");
        let (head, tail) = events.split_at(self.head.len());
        self.head.copy_from_slice(head);
        self.tail.copy_from_slice(tail);
    }

    /// The same slots as bytes, to read a socket or a file into.
    #[must_use]
    pub fn bytes_mut(&mut self) -> (&mut [u8], &mut [u8])
    where
        E: bytemuck::Pod,
    {
        (
            bytemuck::cast_slice_mut(self.head),
            bytemuck::cast_slice_mut(self.tail),
        )
    }
}

/// Slots that were claimed and are not yet published. Dropped without a commit, and on a
/// panic too, nothing is published and the slots are used again.
#[derive(Debug)]
pub struct Claim<'p, E: Send + Sync> {
    producer: &'p mut Producer<E>,
    count: u64,
    _watch: Watch,
}

impl<E: Send + Sync> Claim<'_, E> {
    /// The slots, to be written.
    #[inline]
    pub fn slots(&mut self) -> Slots<'_, E> {
        let first = self.producer.next;
        let slots = &self.producer.slots;
        let head = self.count.min(slots.until_wrap(first));
        let tail = self.count - head;
        Slots {
            first: Sequence(first),
            // SAFETY: `run_mut` wants (1) us alone in the slots: they are below
            // `free_until` (L2), and `&mut self` borrows the claim; (2) no wrap: `head` stops there.
            head: unsafe { slots.run_mut(first, index(head)) },
            // SAFETY: the same; the two runs do not overlap, since the claim is no larger
            // than the ring.
            tail: unsafe { slots.run_mut(first + head, index(tail)) },
        }
    }

    /// How many slots were claimed.
    #[must_use]
    pub fn len(&self) -> usize {
        index(self.count)
    }

    /// Never: a claim holds at least one slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Publishes all of them; the sequence of the first.
    #[inline]
    pub fn commit(self) -> Sequence {
        let count = self.len();
        self.commit_first(count)
    }

    /// Publishes the first `count` of them, none for 0; the others are used again.
    ///
    /// # Panics
    ///
    /// If `count` is more than was claimed. Nothing is published then.
    #[inline]
    pub fn commit_first(self, count: usize) -> Sequence {
        assert!(
            count as u64 <= self.count,
            "commit_first: {count} of {} claimed slots",
            self.count
        );
        let Self {
            producer,
            _watch: watch,
            ..
        } = self;
        watch.end();
        let first = producer.next;
        if count != 0 {
            producer.advance(first + count as u64);
        }
        Sequence(first)
    }
}

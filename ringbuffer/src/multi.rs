//! Many producing threads: claims by compare-and-swap, publishes by one stamp a slot.
//!
//! One locked operation for each claim, none for publishing. A claim never reaches beyond
//! what is free, so the cursor of the claims is truthful: nobody holds slots hostage while
//! it waits for room.
//!
//! # Invariants
//!
//! * `M1` Between claim and stamp the claiming handle alone uses its slots: the
//!   compare-and-swap gave them to nobody else, readers stop at the first slot without
//!   its stamp (R1), and whoever read them a lap before has released them (R2).
//! * `M2` Every claimed slot gets its stamp, also when its writer panics: it is then filled
//!   with the ring's void value. Sequences stay dense and no reader tests a skip bit.
//!
//! The one stall left is a claim that is leaked (`std::mem::forget`): readers wait for its
//! stamp for ever. [`Probe`](crate::Probe) shows it as `claimed` running away from `released`.

#![expect(
    unsafe_code,
    reason = "borrows slots that the claim has given to this producer"
)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::breath::GiveWay;
use crate::column::{ColumnRef, Watch, index};
use crate::cursor::{CursorRef, Sequence};
use crate::error::{ClaimError, FaultKind};
use crate::producer::Slots;
use crate::room::{Patience, Room, RoomPlan};
use crate::stamps::Stamps;
use crate::state::panic_text;
use crate::sync::Arc;
use crate::wait::{Idler, Wait};
use crate::wake::{WakeList, WakeSlot};

/// Makes an event that means nothing, for slots whose writer gave up.
type VoidFill<E> = dyn Fn(&mut E) + Send + Sync;

/// What all producers of one ring share.
pub(crate) struct Claims<E> {
    pub(crate) claimed: CursorRef,
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) void: Box<VoidFill<E>>,
    pub(crate) room: RoomPlan,
    pub(crate) wake: WakeList,
    pub(crate) wait: Wait,
    pub(crate) crowded: bool,
    /// Where producers sleep while the ring is full.
    pub(crate) sleep: Arc<WakeSlot>,
}

impl<E> Drop for Claims<E> {
    /// The last handle is gone: nothing more will be claimed.
    fn drop(&mut self) {
        self.claimed.finish();
        self.room.state.close();
    }
}

/// The writing end of a ring with many producing threads: a clone for each.
///
/// Prefer one thread that takes requests in, or a ring for each gateway: one producer
/// publishes for the price of a store, many pay for a locked operation each and share two
/// lines. When the last clone is dropped the stages finish what was published.
pub struct MultiProducer<E> {
    slots: ColumnRef<E>,
    claims: Arc<Claims<E>>,
    free_until: u64,
    room: Room,
    give_way: GiveWay,
}

impl<E> fmt::Debug for MultiProducer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiProducer")
            .field("claimed", &self.claims.claimed.peek())
            .field("free_until", &self.free_until)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> Clone for MultiProducer<E> {
    fn clone(&self) -> Self {
        Self::new(self.slots.clone(), Arc::clone(&self.claims))
    }
}

impl<E: Send + Sync> MultiProducer<E> {
    pub(crate) fn new(slots: ColumnRef<E>, claims: Arc<Claims<E>>) -> Self {
        let idler = Idler::new(claims.wait, claims.crowded, Arc::clone(&claims.sleep));
        let room = Room::new(claims.room.clone(), idler);
        Self {
            slots,
            free_until: room.free_until(),
            claims,
            room,
            give_way: GiveWay::default(),
        }
    }

    /// Claims one slot, lets `fill` write it in place, and publishes it.
    ///
    /// If `fill` panics the slot is published with the ring's void value.
    ///
    /// # Errors
    ///
    /// As [`Producer::publish`](crate::Producer::publish).
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
        let mut claim = self.claim_with(1, patience)?;
        fill(claim.slot());
        Ok(claim.commit())
    }

    /// Claims `count` slots, lets `fill` write them as a pair of slices, and publishes
    /// them. What `fill` returns comes back with the first sequence.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
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

    /// Publishes a copy of `events`, all of them one behind the other.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim). Nothing is published then: more events than slots would
    /// have those of others between them.
    pub fn publish_slice(&mut self, events: &[E]) -> Result<Sequence, ClaimError>
    where
        E: Copy,
    {
        let mut claim = self.claim(events.len())?;
        claim.slots().copy_from(events);
        Ok(claim.commit())
    }

    /// Claims `count` slots, to be written and then committed; waits as the policy of the
    /// ring says.
    ///
    /// # Errors
    ///
    /// As [`Producer::claim`](crate::Producer::claim).
    #[inline]
    pub fn claim(&mut self, count: usize) -> Result<MultiClaim<'_, E>, ClaimError> {
        self.claim_with(count, Patience::Policy)
    }

    /// The same without ever waiting.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Full`] if there is no room now; else as [`claim`](Self::claim).
    #[inline]
    pub fn try_claim(&mut self, count: usize) -> Result<MultiClaim<'_, E>, ClaimError> {
        self.claim_with(count, Patience::Try)
    }

    #[inline(always)]
    fn claim_with(
        &mut self,
        count: usize,
        patience: Patience,
    ) -> Result<MultiClaim<'_, E>, ClaimError> {
        let want = self.room.check(count)?;
        let first = self.claim_range(want, patience)?;
        let watch = self.slots.watch_write(first, count);
        Ok(MultiClaim {
            first,
            count: want,
            producer: self,
            _watch: Some(watch),
        })
    }

    /// Ends by a claim or by an error: a lost race means that another claim succeeded.
    #[inline(always)]
    fn claim_range(&mut self, want: u64, patience: Patience) -> Result<u64, ClaimError> {
        let mut next = self.claims.claimed.peek();
        loop {
            if next + want > self.free_until {
                self.free_until = self.room.make(next, want, patience)?;
                next = self.claims.claimed.peek();
                continue;
            }
            match self.claims.claimed.claim(next, next + want) {
                Ok(()) => {
                    self.give_way.won();
                    return Ok(next);
                }
                Err(_) => {
                    self.give_way.lost();
                    next = self.claims.claimed.peek();
                }
            }
        }
    }

    /// How many slots are free now; other producers may take them at any time.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let free_until = self.room.free_until();
        let free = free_until.saturating_sub(self.claims.claimed.peek());
        index(free.min(self.room.capacity()))
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

/// Slots that one of many producers has claimed. Dropped without a commit, and on a panic
/// too, they are published with the ring's void value (M2).
#[derive(Debug)]
pub struct MultiClaim<'p, E: Send + Sync> {
    producer: &'p mut MultiProducer<E>,
    first: u64,
    /// 0 once it is settled.
    count: u64,
    _watch: Option<Watch>,
}

impl<E: Send + Sync> MultiClaim<'_, E> {
    #[inline(always)]
    fn slot(&mut self) -> &mut E {
        // SAFETY: `cell_mut` wants us alone in the slot: claimed and not stamped (M1);
        // `&mut self` borrows the claim.
        unsafe { self.producer.slots.cell_mut(self.first) }
    }

    /// The slots, to be written.
    #[inline]
    pub fn slots(&mut self) -> Slots<'_, E> {
        let slots = &self.producer.slots;
        let head = self.count.min(slots.until_wrap(self.first));
        let tail = self.count - head;
        Slots {
            first: Sequence(self.first),
            // SAFETY: `run_mut` wants (1) us alone in the slots: claimed and not stamped
            // (M1), and `&mut self` borrows the claim; (2) no wrap: `head` stops there.
            head: unsafe { slots.run_mut(self.first, index(head)) },
            // SAFETY: the same; the two runs do not overlap, since the claim is no larger
            // than the ring.
            tail: unsafe { slots.run_mut(self.first + head, index(tail)) },
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
    pub fn commit(mut self) -> Sequence {
        let first = self.first;
        self.settle(self.count);
        Sequence(first)
    }

    /// Publishes the first `count` as they are and the others with the void value: others
    /// may have claimed behind them, so they cannot be given back.
    ///
    /// # Panics
    ///
    /// If `count` is more than was claimed. All of them are void then.
    pub fn commit_first(mut self, count: usize) -> Sequence {
        assert!(
            count as u64 <= self.count,
            "commit_first: {count} of {} claimed slots",
            self.count
        );
        let first = self.first;
        self.settle(count as u64);
        Sequence(first)
    }

    /// Stamps the first `written` slots; the claim shrinks to the others.
    #[inline(always)]
    fn settle(&mut self, written: u64) {
        if written == self.count {
            self._watch = None;
        }
        let stamps = &self.producer.claims.stamps;
        for sequence in self.first..self.first + written {
            stamps.publish(sequence);
        }
        self.first += written;
        self.count -= written;
        self.producer.claims.wake.signal();
    }

    #[cold]
    fn fill_with_void(&mut self) {
        let void = &self.producer.claims.void;
        for sequence in self.first..self.first + self.count {
            // SAFETY: `cell_mut` wants us alone in the slot: claimed and not stamped (M1).
            let slot = unsafe { self.producer.slots.cell_mut(sequence) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| void(slot))) {
                let text = panic_text(panic.as_ref());
                let state = self.producer.room.state();
                state.poison(0, sequence, FaultKind::Void, text);
                return;
            }
        }
        self.settle(self.count);
    }
}

impl<E: Send + Sync> Drop for MultiClaim<'_, E> {
    #[inline]
    fn drop(&mut self) {
        if self.count != 0 {
            self.fill_with_void();
        }
    }
}

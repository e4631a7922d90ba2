//! How far producers may go: the wrap rule, told once, and what to do at its end.
//!
//! A slot is free again when everybody who may read it has released it. Since a stage's
//! promise carries those of the stages before it, the *sinks* suffice; readers that come
//! and go sit on seats beside them.
//!
//! # Invariants
//!
//! * `R2` `free_until ≤ min(gating cursors) + capacity`: a slot is written again only when
//!   all who may read it have released it.
//! * `R7` A reader that joins starts at or behind every claim that was made without
//!   looking at its seat (the argument is in `readers`).

use std::time::{Duration, Instant};

use crate::cursor::CursorRef;
use crate::error::ClaimError;
use crate::orderings::full_fence;
use crate::state::State;
use crate::sync::{Arc, spin_loop};
use crate::wait::Idler;

/// What a producer does when the ring is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Wait, as the producer's [`Wait`](crate::Wait) says, until there is room.
    #[default]
    Wait,
    /// Wait for so long at most, then [`ClaimError::TimedOut`].
    WaitFor(Duration),
    /// Answer [`ClaimError::Full`] at once.
    Reject,
    /// Answer [`ClaimError::Full`] at once, and go on refusing until so many slots are
    /// free: load is shed in runs, and not event by event at the brink.
    Shed {
        /// Free slots at which events are accepted again.
        resume_at_free: usize,
    },
}

/// Whether a claim may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As the policy of the ring says.
    Policy,
    /// Not at all, whatever the policy.
    Try,
}

/// While a waiting producer finds room for what it needs but for less than an eighth of
/// the ring, it looks this often for more: one line bounced for many events and not for
/// each (bench `one_to_one`).
const LOOKS_FOR_MORE: u32 = 64;

/// The producer's view of those who hold it back.
#[derive(Debug)]
pub(crate) struct Room {
    capacity: u64,
    /// Sinks, and whoever may leave together with what it follows.
    gating: Box<[CursorRef]>,
    /// Readers that come and go; empty on rings not built for them.
    seats: Box<[CursorRef]>,
    state: Arc<State>,
    on_full: OnFull,
    idler: Idler,
    shedding: bool,
}

/// What a graph knows of its producers' room, to make one for each of them.
#[derive(Debug, Clone)]
pub(crate) struct RoomPlan {
    pub(crate) capacity: u64,
    pub(crate) gating: Box<[CursorRef]>,
    pub(crate) seats: Box<[CursorRef]>,
    pub(crate) state: Arc<State>,
    pub(crate) on_full: OnFull,
}

impl Room {
    pub(crate) fn new(plan: RoomPlan, idler: Idler) -> Self {
        Self {
            capacity: plan.capacity,
            gating: plan.gating,
            seats: plan.seats,
            state: plan.state,
            on_full: plan.on_full,
            idler,
            shedding: false,
        }
    }

    /// Claims below the returned number overwrite nothing that anybody may still read (R2).
    pub(crate) fn free_until(&self) -> u64 {
        let mut least = u64::MAX;
        for cursor in &self.gating {
            least = least.min(cursor.get());
        }
        if !self.seats.is_empty() {
            // R7: the sinks before the fence, the seats after it.
            full_fence("join_producer_fence");
            for seat in &self.seats {
                least = least.min(seat.get());
            }
        }
        least.saturating_add(self.capacity)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Checks the size of a claim.
    #[inline(always)]
    pub(crate) fn check(&self, count: usize) -> Result<u64, ClaimError> {
        let wanted = count as u64;
        if wanted.wrapping_sub(1) < self.capacity {
            return Ok(wanted);
        }
        Err(self.refuse_size(count))
    }

    #[cold]
    fn refuse_size(&self, count: usize) -> ClaimError {
        match usize::try_from(self.capacity) {
            Ok(capacity) if count != 0 => ClaimError::TooLarge {
                asked: count,
                capacity,
            },
            _ => ClaimError::Nothing,
        }
    }

    /// Room for `[next, next + want)`, or as much of the ring as is worth waiting for:
    /// the new `free_until`, at least `next + want`.
    #[cold]
    #[inline(never)]
    pub(crate) fn make(
        &mut self,
        next: u64,
        want: u64,
        patience: Patience,
    ) -> Result<u64, ClaimError> {
        if let Some(refusal) = self.state.refusal() {
            return Err(refusal);
        }
        let free_until = self.free_until();
        let need = next + want;
        if self.accepts(free_until, next, want) {
            return Ok(free_until);
        }
        let missing = need.saturating_sub(free_until);
        match (patience, self.on_full) {
            (Patience::Try, _) | (_, OnFull::Reject) => Err(ClaimError::Full { missing }),
            (_, OnFull::Shed { .. }) => {
                self.shedding = true;
                Err(ClaimError::Full { missing })
            }
            (_, OnFull::Wait) => self.wait(next, want, None),
            (_, OnFull::WaitFor(limit)) => self.wait(next, want, Instant::now().checked_add(limit)),
        }
    }

    /// Whether there is room, and enough of it where the ring is shedding load.
    fn accepts(&mut self, free_until: u64, next: u64, want: u64) -> bool {
        let enough = match self.on_full {
            OnFull::Shed { resume_at_free } if self.shedding => {
                want.max((resume_at_free as u64).min(self.capacity))
            }
            _ => want,
        };
        let accepts = free_until >= next + enough;
        self.shedding &= !accepts;
        accepts
    }

    /// Ends by room, by halt or poison, or at the deadline.
    fn wait(&mut self, next: u64, want: u64, deadline: Option<Instant>) -> Result<u64, ClaimError> {
        let need = next + want;
        let comfortable = next + want.max(self.capacity / 8);
        let mut looks = LOOKS_FOR_MORE;
        let outcome = loop {
            let free_until = self.free_until();
            if free_until >= comfortable || (free_until >= need && looks == 0) {
                break Ok(free_until);
            }
            if let Some(refusal) = self.state.refusal() {
                break Err(refusal);
            }
            if free_until >= need {
                looks -= 1;
                spin_loop();
                continue;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(ClaimError::TimedOut {
                    missing: need - free_until,
                });
            }
            self.idler.idle(deadline);
        };
        self.idler.reset();
        outcome
    }
}

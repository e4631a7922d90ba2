//! How far the engine is and what came of each event: what the stages tell everybody else.
//!
//! | field | who writes | who reads |
//! |---|---|---|
//! | `durable` | *journal*, or its worker | *egress* under `gate = output`, the shadow, anyone |
//! | `promised` | *journal*, or the thread of a node in a cluster | *logic* and *egress* under `gate = output` |
//! | `applied` | *logic*; it goes back where a state is taken back | anyone |
//! | `outcomes` | *logic*, before `applied` | who waits for an answer |
//! | `answered` | *egress*, behind the gate | who waits for an answer |
//! | `fault` | the first who fails | anyone |
//!
//! # Invariants
//!
//! * `SH1` `answered ≤ applied`, and under either gate `answered ≤ durable`.
//! * `SH2` An outcome is found by its position until as many events as the table has cells
//!   have come behind it; then it is gone, and the request table still knows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Outcomes remembered, at least: as many as a ring has slots, and no fewer than these.
const OUTCOMES_MIN: usize = 4096;

/// A waiter that was missed looks again after this time.
const WAIT_BACKSTOP: Duration = Duration::from_millis(1);

/// Looks before a waiter goes to sleep.
const SPINS: u32 = 200;

/// The bits of an outcome's word that hold its position; the others hold its code.
const POSITION_BITS: u32 = 48;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// A number that one thread moves, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Mark(AtomicU64);

impl Mark {
    pub(crate) fn set(&self, to: u64) {
        // ORDERING: Release, pairs with the Acquire in `get`: what was done before the number
        // moved is seen by who sees the number.
        self.0.store(to, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release in `set`.
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, count: u64) {
        // ORDERING: Relaxed, a count for people.
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) durable: Mark,
    /// Everything before it is durable here, and committed in a cluster, and stays. Behind a `replicate` stage of the
    /// application's own nobody knows it: the ring's gates alone do.
    pub(crate) promised: Mark,
    /// In a cluster: how often a state that had run ahead was made anew.
    pub(crate) taken_back: Mark,
    pub(crate) applied: Mark,
    /// Of the logic's rules, as the log says.
    pub(crate) version: Mark,
    pub(crate) answered: Mark,
    pub(crate) refused: Mark,
    pub(crate) repeated: Mark,
    pub(crate) quarantined: Mark,
    pub(crate) outputs: Mark,
    pub(crate) spilled: Mark,
    pub(crate) syncs: Mark,
    pub(crate) last_sync_ns: Mark,
    /// 1 while the disk is full.
    pub(crate) waits_for_room: Mark,
    pub(crate) snapshot: Mark,
    /// The newest snapshot that the keeper has read back, and is done with.
    pub(crate) kept: Mark,
    pub(crate) shadow: Mark,
    /// How often the end of the log was replaced: what was read ahead of `answered` may be gone.
    pub(crate) cuts: Mark,
    pub(crate) cut_consumers: Mark,
    pub(crate) oldest: Mark,
    /// In a cluster: before this the keeper wants to give the log up.
    pub(crate) wanted: Mark,
    /// In a cluster: what ends before this may go, nobody there needs it.
    pub(crate) compacted: Mark,
    /// In a cluster: the snapshot that another node fetches, and one more; 0 without.
    pub(crate) lent: Mark,
    pub(crate) freed_bytes: Mark,
    pub(crate) retention_faults: Mark,
    outcomes: Box<[AtomicU64]>,
    waiters: AtomicU64,
    sleep: Mutex<()>,
    wake: Condvar,
    fault: OnceLock<String>,
    is_closed: AtomicBool,
    is_abandoned: AtomicBool,
    alarm: OnceLock<Alarm>,
}

/// Ends the sleep of a thread that waits on its sockets, when something was answered meanwhile.
struct Alarm {
    is_set: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alarm")
            .field("is_set", &self.is_set)
            .finish_non_exhaustive()
    }
}

/// What was found in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The outcome's code.
    Code(u16),
    /// Too many events have come behind it.
    Gone,
}

/// What a wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Reached,
    Stopped,
    TimedOut,
}

impl Shared {
    pub(crate) fn new(position: u64, slots: usize) -> Self {
        let cells = (slots * 4).max(OUTCOMES_MIN).next_power_of_two();
        let shared = Self {
            durable: Mark::default(),
            promised: Mark::default(),
            taken_back: Mark::default(),
            applied: Mark::default(),
            version: Mark::default(),
            answered: Mark::default(),
            refused: Mark::default(),
            repeated: Mark::default(),
            quarantined: Mark::default(),
            outputs: Mark::default(),
            spilled: Mark::default(),
            syncs: Mark::default(),
            last_sync_ns: Mark::default(),
            waits_for_room: Mark::default(),
            snapshot: Mark::default(),
            kept: Mark::default(),
            shadow: Mark::default(),
            cuts: Mark::default(),
            cut_consumers: Mark::default(),
            oldest: Mark::default(),
            wanted: Mark::default(),
            compacted: Mark::default(),
            lent: Mark::default(),
            freed_bytes: Mark::default(),
            retention_faults: Mark::default(),
            outcomes: (0..cells).map(|_| AtomicU64::new(u64::MAX)).collect(),
            waiters: AtomicU64::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            fault: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            alarm: OnceLock::new(),
        };
        for mark in [
            &shared.durable,
            &shared.promised,
            &shared.applied,
            &shared.answered,
        ] {
            mark.set(position);
        }
        shared
    }

    /// Remembers what came of an event; `applied` moves behind it.
    #[inline]
    pub(crate) fn remember(&self, position: u64, code: u16) {
        let word = (position & POSITION_MASK) | (u64::from(code) << POSITION_BITS);
        // ORDERING: Relaxed, the Release of `applied` and `answered` comes behind it.
        self.cell(position).store(word, Ordering::Relaxed);
    }

    /// What came of an event that was answered (`SH2`).
    pub(crate) fn outcome(&self, position: u64) -> Found {
        // ORDERING: Relaxed, the Acquire of `answered` came before it.
        let word = self.cell(position).load(Ordering::Relaxed);
        if (word ^ position) & POSITION_MASK == 0 {
            let [.., low, high] = word.to_le_bytes();
            Found::Code(u16::from_le_bytes([low, high]))
        } else {
            Found::Gone
        }
    }

    #[inline]
    fn cell(&self, position: u64) -> &AtomicU64 {
        let mask = self.outcomes.len() as u64 - 1;
        &self.outcomes[usize::try_from(position & mask).unwrap_or(0)]
    }

    /// *egress* has let out everything before `to`.
    pub(crate) fn answer(&self, to: u64) {
        self.answered.set(to);
        // ORDERING: Relaxed; a waiter that comes at this moment is missed and looks again by
        // itself (`WAIT_BACKSTOP`).
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
        self.ring_alarm();
    }

    /// Who sleeps on sockets is woken by this.
    pub(crate) fn on_answer(&self, ring: impl Fn() + Send + Sync + 'static) {
        let alarm = Alarm {
            is_set: AtomicBool::new(false),
            ring: Box::new(ring),
        };
        // One thread sleeps, and says so once.
        let _first = self.alarm.set(alarm);
    }

    /// About to sleep, with answers up to `seen` taken; whether there are more, and no sleep is due.
    pub(crate) fn set_alarm(&self, seen: u64) -> bool {
        if let Some(alarm) = self.alarm.get() {
            // ORDERING: AcqRel, with the swap in `ring_alarm`: whichever comes second in the order of
            // this one cell sees what the other did before it, the answer or the alarm.
            alarm.is_set.swap(true, Ordering::AcqRel);
        }
        self.answered.get() > seen
    }

    #[inline]
    fn ring_alarm(&self) {
        if let Some(alarm) = self.alarm.get() {
            // ORDERING: AcqRel, pairs with the swap in `set_alarm`.
            if alarm.is_set.swap(false, Ordering::AcqRel) {
                (alarm.ring)();
            }
        }
    }

    fn wake_all(&self) {
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Waits until `mark` has reached `position`, the engine has stopped, or so long.
    pub(crate) fn wait(&self, mark: &Mark, position: u64, within: Option<Duration>) -> Waited {
        for _ in 0..SPINS {
            if mark.get() >= position {
                return Waited::Reached;
            }
            std::hint::spin_loop();
        }
        let watch = crate::runtime::clock::Stopwatch::start();
        // ORDERING: Relaxed, as in `answer`.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends: reached, stopped, or out of time; it looks every millisecond.
        let waited = loop {
            if mark.get() >= position {
                break Waited::Reached;
            }
            if self.is_over() {
                break if mark.get() >= position {
                    Waited::Reached
                } else {
                    Waited::Stopped
                };
            }
            if within.is_some_and(|within| watch.elapsed() >= within) {
                break Waited::TimedOut;
            }
            let waited = self.wake.wait_timeout(guard, WAIT_BACKSTOP);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(guard);
        // ORDERING: Relaxed, as in `answer`.
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        waited
    }

    /// The engine stops, for this reason; the first one counts.
    pub(crate) fn fail(&self, why: String) {
        if self.fault.set(why).is_ok() {
            tracing::error!(cause = %self.fault.get().map_or("", String::as_str), "engine stopped");
        }
        self.wake_all();
        self.ring_alarm();
    }

    /// Why the engine stopped.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Nothing will move any more.
    pub(crate) fn close(&self) {
        // ORDERING: Release, pairs with the Acquire in `is_over`: what moved last is seen.
        self.is_closed.store(true, Ordering::Release);
        self.wake_all();
    }

    /// The engine ends as a process that is killed does: nothing is closed in order.
    pub(crate) fn abandon(&self) {
        // ORDERING: Relaxed, read by the same thread, behind this in program order.
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        // ORDERING: Relaxed, as in `abandon`.
        self.is_abandoned.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `close`.
        self.fault.get().is_some() || self.is_closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sh2_an_outcome_is_found_until_the_table_has_gone_round() {
        let shared = Shared::new(10, 16);
        shared.remember(10, 0);
        shared.remember(11, 0xff02);
        assert_eq!(shared.outcome(10), Found::Code(0));
        assert_eq!(shared.outcome(11), Found::Code(0xff02));
        assert_eq!(shared.outcome(12), Found::Gone);
        shared.remember(10 + OUTCOMES_MIN as u64, 7);
        assert_eq!(shared.outcome(10), Found::Gone);
    }

    #[test]
    fn a_wait_ends_when_the_engine_does() {
        let shared = Shared::new(5, 16);
        assert_eq!(shared.wait(&shared.answered, 5, None), Waited::Reached);
        let within = Some(Duration::from_millis(2));
        assert_eq!(shared.wait(&shared.answered, 6, within), Waited::TimedOut);
        shared.fail("a reason".to_owned());
        assert_eq!(shared.wait(&shared.answered, 6, None), Waited::Stopped);
        assert_eq!(shared.fault(), Some("a reason"));
    }
}

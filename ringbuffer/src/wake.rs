//! Parking without a lost wake-up.
//!
//! A thread that is about to park and a thread that publishes race: one stores "I sleep"
//! and loads the cursor, the other stores the cursor and loads "who sleeps". With a full
//! fence between store and load on both sides, at least one sees the other:
//!
//! ```text
//!   sleeper                              publisher
//!   announce: sleepers = 1               cursor.advance(n)
//!   ── full fence ──                     ── full fence ──
//!   looks once more for work             sleepers != 0 ?  unpark : go on
//!   park
//! ```
//!
//! Where Linux offers `membarrier`, the sleeper executes the fence of both sides, and the
//! publisher needs one plain load. A backstop ends every park after a while all the same:
//! a bug here shows as a delay and not as a hang.
//!
//! # Invariants
//!
//! * `W1` `sleepers` is the length of `threads`, and changes under its lock only.
//! * `W2` Who has announced itself and then found no work is unparked by whoever
//!   publishes work afterwards.

#![cfg_attr(
    all(target_os = "linux", not(any(miri, loom))),
    expect(
        unsafe_code,
        reason = "one system call has no safe wrapper: membarrier"
    )
)]

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::orderings::{OWN, full_fence};
use crate::sync::{Arc, AtomicU32, Mutex, lock, thread};

/// How long a park lasts at most. Long enough that a parked stage costs nothing (ten
/// wake-ups a second), short enough that hooks on idle turns still run.
pub(crate) const PARK_BACKSTOP: Duration = Duration::from_millis(100);

/// The threads that sleep until something moves.
#[derive(Debug, Default)]
pub(crate) struct WakeSlot {
    sleepers: CachePadded<AtomicU32>,
    threads: Mutex<Vec<thread::Thread>>,
}

impl WakeSlot {
    /// Says that the current thread is about to park. It must look for work once more
    /// before it does.
    pub(crate) fn announce(&self) {
        {
            let mut threads = lock(&self.threads);
            threads.push(thread::current());
            self.count(threads.len());
        }
        heavy_fence();
    }

    /// Says that the current thread does not sleep (any more).
    pub(crate) fn retract(&self) {
        let me = thread::current().id();
        let mut threads = lock(&self.threads);
        threads.retain(|thread| thread.id() != me);
        self.count(threads.len());
    }

    /// W1. The lock is held.
    fn count(&self, sleepers: usize) {
        let sleepers = u32::try_from(sleepers).unwrap_or(u32::MAX);
        // ORDERING: Relaxed, the full fences of both sides order it (W2).
        self.sleepers.store(sleepers, OWN);
    }

    #[inline(always)]
    fn has_sleepers(&self) -> bool {
        // ORDERING: Relaxed, the full fences of both sides order it (W2).
        self.sleepers.load(OWN) != 0
    }

    #[cold]
    #[inline(never)]
    fn unpark_all(&self) {
        let sleepers = {
            let mut threads = lock(&self.threads);
            self.count(0);
            std::mem::take(&mut *threads)
        };
        for sleeper in sleepers {
            sleeper.unpark();
        }
    }
}

/// Whom a thread has to wake when it has moved a cursor: the slots of those behind it
/// that may park, found when the graph is built. Empty where nobody does.
#[derive(Debug, Clone, Default)]
pub(crate) struct WakeList {
    slots: Box<[Arc<WakeSlot>]>,
    /// Whether sleepers execute the fence for us.
    asymmetric: bool,
}

impl WakeList {
    pub(crate) fn new(slots: Vec<Arc<WakeSlot>>) -> Self {
        Self {
            asymmetric: !slots.is_empty() && membarrier::is_available(),
            slots: slots.into_boxed_slice(),
        }
    }

    /// Wakes whoever sleeps behind what was just published.
    #[inline(always)]
    pub(crate) fn signal(&self) {
        if !self.slots.is_empty() {
            self.signal_sleepers();
        }
    }

    #[inline]
    fn signal_sleepers(&self) {
        if self.asymmetric {
            // The compiler must not move the load before the store; the sleeper's
            // membarrier keeps the processor from it.
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            full_fence("wake_publisher_fence");
        }
        for slot in &self.slots {
            if slot.has_sleepers() {
                slot.unpark_all();
            }
        }
    }

    /// The same for a change that comes seldom, with a fence of its own.
    pub(crate) fn signal_seldom(slots: &[Arc<WakeSlot>]) {
        full_fence("wake_publisher_fence");
        for slot in slots {
            if slot.has_sleepers() {
                slot.unpark_all();
            }
        }
    }
}

/// The sleeper's side: a fence for itself and, where possible, for everybody else.
fn heavy_fence() {
    full_fence("wake_sleeper_fence");
    membarrier::execute();
}

/// Linux: makes every running thread of the process execute a full fence.
#[cfg(all(target_os = "linux", not(any(miri, loom))))]
mod membarrier {
    use std::sync::OnceLock;

    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn call(command: libc::c_int) -> bool {
        // SAFETY: `membarrier` takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
        result == 0
    }

    /// Whether this process is registered for it. Decided once: a publisher that relies
    /// on sleepers and a sleeper that does not know would lose wake-ups.
    pub(super) fn is_available() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| call(REGISTER_PRIVATE_EXPEDITED))
    }

    pub(super) fn execute() {
        if is_available() {
            let executed = call(PRIVATE_EXPEDITED);
            assert!(executed, "W2: a registered process may execute membarrier");
        }
    }
}

/// Elsewhere both sides execute their own fence.
#[cfg(not(all(target_os = "linux", not(any(miri, loom)))))]
mod membarrier {
    pub(super) fn is_available() -> bool {
        false
    }

    pub(super) fn execute() {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A lost wake-up hangs this test, since its parks have no backstop. Each side
    /// answers the other, so every round parks or comes close to it.
    #[test]
    fn no_wake_up_is_lost_in_many_rounds() {
        let rounds: u64 = if cfg!(miri) { 50 } else { 100_000 };
        let slots = [Arc::new(WakeSlot::default()), Arc::new(WakeSlot::default())];
        let turn = Arc::new(AtomicU64::new(0));
        let play = |me: u64, slots: [Arc<WakeSlot>; 2], turn: Arc<AtomicU64>| {
            let other = WakeList::new(vec![Arc::clone(&slots[usize::from(me == 0)])]);
            let mine = &slots[usize::from(me == 1)];
            for round in 0..rounds {
                let due = 2 * round + me;
                while turn.load(Ordering::Acquire) != due {
                    mine.announce();
                    if turn.load(Ordering::Acquire) != due {
                        thread::park(None);
                    }
                    mine.retract();
                }
                turn.store(due + 1, Ordering::Release);
                other.signal();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(0, slots.clone(), Arc::clone(&turn)));
            scope.spawn(|| play(1, slots.clone(), Arc::clone(&turn)));
        });
        assert_eq!(turn.load(Ordering::Relaxed), 2 * rounds);
    }
}

//! The only door to atomics, fences, locks and thread parking: `std`, or loom's
//! models of them under `--cfg loom`.
//!
//! Everything that two threads of this crate share goes through here, so that
//! loom sees all of it. The orderings themselves are named in `orderings`.

#[cfg(loom)]
pub(crate) use loom::sync::Mutex;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::Mutex;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::Ordering;

/// Takes a lock whether or not a holder panicked: what this crate guards is
/// replaced in one assignment and never left half-written.
#[cfg(not(loom))]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// See above; loom's guard has a type of its own.
#[cfg(loom)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Threads as far as waiting needs them.
pub(crate) mod thread {
    #[cfg(loom)]
    pub(crate) use loom::thread::{Thread, current, yield_now};
    #[cfg(not(loom))]
    pub(crate) use std::thread::{Thread, current, yield_now};

    /// Sleeps until unparked, or for `limit` at most; may wake for no reason.
    #[cfg(not(loom))]
    pub(crate) fn park(limit: Option<std::time::Duration>) {
        match limit {
            Some(limit) => std::thread::park_timeout(limit),
            None => std::thread::park(),
        }
    }

    /// loom knows no time: a park without its backstop, so that a lost wake-up
    /// is a deadlock that the model reports.
    #[cfg(loom)]
    pub(crate) fn park(_limit: Option<std::time::Duration>) {
        loom::thread::park();
    }
}

/// One step of a spinning loop: PAUSE on x86, a scheduling point under loom.
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

//! Cold threads give way: on a machine with few CPUs a snapshot takes what the stages leave.
//!
//! A lower priority alone is not enough: who has begun its slice of milliseconds is not interrupted
//! for everybody who wakes. So long work of a cold thread pauses by itself, again and again, and asks for
//! a slightly longer slice than others have: Linux (since 6.12) interrupts it at once for who wakes with a
//! shorter one.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "priorities and slices are system calls")
)]

use std::cell::Cell;
use std::time::Duration;

use crate::runtime::clock::Stopwatch;

/// How far the calling thread gives way to those of the pipeline.
const NICE: i32 = 10;

/// So much longer than others' is the slice that a cold thread asks for.
#[cfg(target_os = "linux")]
const SLICE_MORE_NS: u64 = 10_000;

/// So long a cold thread works before it pauses.
const WORK: Duration = Duration::from_micros(500);
/// It pauses for half as long as it worked or waited for the disk, and no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The same where nobody waits for the work.
const SLOW_WORK: Duration = Duration::from_micros(100);
const SLOW_PAUSE_MAX: Duration = Duration::from_millis(10);

thread_local! {
    /// Since when the thread works; `None` on a thread that gives way to nobody.
    static AT_WORK: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

/// Between two pieces of long work: a thread that gives way pauses, if it is time, and says so; the others
/// go on.
#[inline]
pub(crate) fn breathe() -> bool {
    breathe_after(WORK, |worked| (worked / 2).min(PAUSE_MAX))
}

/// The same in work that nobody waits for: it pauses sooner, and so many times as long as it worked.
#[inline]
pub(crate) fn breathe_slowly(times: u32) -> bool {
    breathe_after(SLOW_WORK, |worked| (worked * times).min(SLOW_PAUSE_MAX))
}

#[inline]
fn breathe_after(work: Duration, pause: impl FnOnce(Duration) -> Duration) -> bool {
    let worked = AT_WORK.get().map(|since| since.elapsed());
    let Some(worked) = worked.filter(|worked| *worked >= work) else {
        return false;
    };
    std::thread::sleep(pause(worked));
    rested();
    true
}

/// Behind a rest of another kind, too, the work begins anew.
pub(crate) fn rested() {
    if AT_WORK.get().is_some() {
        AT_WORK.set(Some(Stopwatch::start()));
    }
}

/// The calling thread runs when the others leave it a CPU. On Linux a priority is a thread's own;
/// elsewhere, and where the system says no, nothing changes.
pub(crate) fn give_way() {
    AT_WORK.set(Some(Stopwatch::start()));
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `setpriority` takes numbers only; 0 is the calling thread.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a cold thread does not give way");
        }
        ask_for_slice();
    }
    #[cfg(not(target_os = "linux"))]
    let _ = NICE;
}

/// Longer than others' by as little as can be, since who has a long one also waits longer for it. A system
/// that knows no slices leaves all as it is.
#[cfg(target_os = "linux")]
fn ask_for_slice() {
    let Some(mut wanted) = own_attributes().filter(|own| own.sched_runtime != 0) else {
        return;
    };
    wanted.sched_runtime += SLICE_MORE_NS;
    // SAFETY: `sched_setattr` wants (1) a thread: 0 is the calling one; (2) a `sched_attr` that says its
    // size: the kernel filled `wanted`, and it lives on; (3) flags, of which there are none.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut wanted, 0) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "a cold thread has a slice like the others");
    }
}

/// How the calling thread is scheduled.
#[cfg(target_os = "linux")]
fn own_attributes() -> Option<libc::sched_attr> {
    // SAFETY: all of `sched_attr` is integers, and zero is a value of each.
    let mut found: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&found);
    // SAFETY: `sched_getattr` wants (1) a thread: 0 is the calling one; (2) room of the size that it is told:
    // `found` has it, and is ours alone; (3) flags, of which there are none.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0) };
    (result == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works until it is time to pause; how long that took.
    fn pause_of(breathe: fn() -> bool) -> Duration {
        // Ends: time passes.
        loop {
            let before = Stopwatch::start();
            if breathe() {
                return before.elapsed();
            }
        }
    }

    #[test]
    fn a_cold_thread_pauses_and_the_others_do_not() {
        let cold = std::thread::spawn(|| {
            give_way();
            let short = pause_of(breathe);
            let long = pause_of(|| breathe_slowly(8));
            (short, long)
        });
        let (short, long) = cold.join().unwrap();
        assert!(short >= WORK / 2, "{short:?}");
        assert!(long >= SLOW_WORK * 8, "{long:?}");

        let hot = std::thread::spawn(|| {
            rested();
            let watch = Stopwatch::start();
            let mut paused = false;
            // Ends: time passes.
            while watch.elapsed() < 4 * WORK {
                paused |= breathe() | breathe_slowly(8);
            }
            paused
        });
        assert!(!hot.join().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_cold_thread_has_a_lower_priority_and_a_longer_slice() {
        // A thread of its own: what it asks for it keeps.
        let cold = std::thread::spawn(|| {
            let before = own_attributes().unwrap();
            give_way();
            (before, own_attributes().unwrap())
        });
        let (before, after) = cold.join().unwrap();
        assert!(after.sched_nice >= NICE);
        assert_eq!(after.sched_policy, before.sched_policy);
        // A system that tells of slices gives them.
        let more = SLICE_MORE_NS * u64::from(before.sched_runtime != 0);
        assert_eq!(after.sched_runtime, before.sched_runtime + more);
    }
}

//! Cold threads give way: on a machine with few CPUs a snapshot takes what the stages leave.
//!
//! A lower priority alone is not enough: who has begun its slice of milliseconds is not interrupted
//! for everybody who wakes. So long work of a cold thread pauses by itself, again and again.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "setpriority is a system call")
)]

use std::cell::Cell;
use std::time::Duration;

use crate::runtime::clock::Stopwatch;

/// How far the calling thread gives way to those of the pipeline.
const NICE: i32 = 10;

/// So long a cold thread works before it pauses.
const WORK: Duration = Duration::from_micros(500);
/// It pauses for half as long as it worked or waited for the disk, and no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(1);

thread_local! {
    /// Since when the thread works; `None` on a thread that gives way to nobody.
    static AT_WORK: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

/// Between two pieces of long work: a thread that gives way pauses, if it is time; the others go on.
#[inline]
pub(crate) fn breathe() {
    let Some(worked) = AT_WORK.get().map(|since| since.elapsed()) else {
        return;
    };
    if worked >= WORK {
        std::thread::sleep((worked / 2).min(PAUSE_MAX));
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
    }
    #[cfg(not(target_os = "linux"))]
    let _ = NICE;
}

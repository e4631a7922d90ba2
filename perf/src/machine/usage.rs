//! What the process has used of the machine.
#![cfg_attr(unix, expect(unsafe_code, reason = "getrusage is a C call"))]

/// CPU seconds of all threads so far, user and system; 0 where the system does not tell.
#[cfg(unix)]
#[must_use]
pub fn cpu_seconds() -> f64 {
    // SAFETY: an all-zero rusage is a valid one: it is integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call wants a writable rusage: `usage` is one, alive until after it.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    if result != 0 {
        return 0.0;
    }
    let seconds = |time: libc::timeval| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds and microseconds are small"
        )]
        let seconds = time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        seconds
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Not known here.
#[cfg(not(unix))]
#[must_use]
pub fn cpu_seconds() -> f64 {
    0.0
}

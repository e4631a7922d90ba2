//! SIGTERM, SIGINT and SIGHUP as a flag, for programs that drain before they end.
//!
//! The handler stores a flag and nothing else; whoever runs the engine looks at it.

#![expect(unsafe_code, reason = "sigaction is a system call")]

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Watches for SIGTERM and SIGINT from here on, and for SIGHUP (the terminal went away), unless whoever started
/// this process has it ignored, as `nohup` does.
///
/// # Errors
///
/// What the system said.
#[cfg(unix)]
pub fn watch() -> std::io::Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        if signal == libc::SIGHUP && is_ignored(signal) {
            continue;
        }
        // SAFETY: all fields of `sigaction` may be zero: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `sigaction` wants a valid signal, a valid action, and a handler that is
        // async-signal-safe: `note` stores to an atomic.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all fields of `sigaction` may be zero.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `sigaction` wants a valid signal, and room for the action that is; it changes none.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
    result == 0 && now.sa_sigaction == libc::SIG_IGN
}

#[cfg(unix)]
extern "C" fn note(_: libc::c_int) {
    // ORDERING: Relaxed, nothing is read by way of the flag.
    IS_ASKED_TO_END.store(true, Ordering::Relaxed);
}

/// Whether a signal has asked this process to end.
#[must_use]
pub fn is_asked_to_end() -> bool {
    // ORDERING: Relaxed, as in `note`.
    IS_ASKED_TO_END.load(Ordering::Relaxed)
}

//! Ctrl-C: the first asks the running verb to end and keep what it has, the second kills.
#![cfg_attr(
    unix,
    expect(unsafe_code, reason = "installing a signal handler is a C call")
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What the handler sets. Filled before the handler is installed.
static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that is set by Ctrl-C, SIGTERM, or SIGHUP where nobody has it ignored (`nohup`). The second signal ends
/// the process as usual.
#[must_use]
pub fn flag() -> Arc<AtomicBool> {
    let flag = FLAG.get_or_init(Arc::default);
    install();
    Arc::clone(flag)
}

/// Whether the flag is set.
#[must_use]
pub fn is_set() -> bool {
    // ORDERING: Relaxed, the flag carries nothing but itself.
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

#[cfg(unix)]
extern "C" fn handler(_: libc::c_int) {
    if let Some(flag) = FLAG.get() {
        // ORDERING: Relaxed, the flag carries nothing but itself.
        flag.store(true, Ordering::Relaxed);
    }
}

#[cfg(unix)]
fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is a valid one.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only asks which action there is; `now` outlives the call.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
        let is_ignored = asked == 0 && now.sa_sigaction == libc::SIG_IGN;
        if signal == libc::SIGHUP && is_ignored {
            continue;
        }
        // SAFETY: an all-zero sigaction is a valid one (no flags, an empty mask).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // The second signal finds the default action again.
        action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
        // SAFETY: `action` is initialised and outlives the call; the handler only stores to an
        // atomic, which is allowed in a signal handler.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        debug_assert_eq!(result, 0, "these signals may be caught");
    }
}

#[cfg(not(unix))]
fn install() {}

//! The cheapest clock there is: the time-stamp counter where it is steady, else `Instant`.

#![expect(unsafe_code, reason = "reads the time-stamp counter")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Ticks now; other instructions may overtake it. Good for waiting until a time.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_steady() {
        // SAFETY: `_rdtsc` wants an x86 with the counter, which every x86-64 has.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    instant_ticks()
}

/// Ticks after everything that was read before: what a receiver stamps an event with.
#[inline(always)]
pub(crate) fn ticks_after_reads() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `_mm_lfence` wants SSE2, which every x86-64 has.
    unsafe {
        core::arch::x86_64::_mm_lfence();
    }
    ticks()
}

/// How many nanoseconds a tick lasts.
pub(crate) fn ns_per_tick() -> f64 {
    static NS: OnceLock<f64> = OnceLock::new();
    *NS.get_or_init(calibrate)
}

/// What the clock is, for the description of the machine.
pub(crate) fn describe() -> String {
    #[cfg(target_arch = "x86_64")]
    if is_steady() {
        return format!("rdtsc, {:.3} ns a tick", ns_per_tick());
    }
    "Instant".to_owned()
}

fn calibrate() -> f64 {
    let (started, from) = (Instant::now(), ticks());
    while started.elapsed() < Duration::from_millis(30) {}
    let to = ticks();
    as_f64(started.elapsed().as_nanos()) / as_f64(u128::from(to - from))
}

fn instant_ticks() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let ns = ORIGIN.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Whether the counter runs at one rate on all CPUs, whatever they do.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn is_steady() -> bool {
    static STEADY: OnceLock<bool> = OnceLock::new();
    *STEADY.get_or_init(|| {
        std::fs::read_to_string("/proc/cpuinfo")
            .is_ok_and(|text| text.contains("constant_tsc") && text.contains("nonstop_tsc"))
    })
}

#[expect(clippy::cast_precision_loss, reason = "figures of some seconds in ns")]
fn as_f64(number: u128) -> f64 {
    number as f64
}

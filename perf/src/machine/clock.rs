//! The clock of the harness: ticks, what a tick is worth, and how well that is known.
//!
//! Where the CPU has an invariant time-stamp counter it is read directly. The read at the
//! receiving end is *ordered*: a bare `rdtsc` may be executed before the load that shows the
//! event, which makes an event arrive before it was sent (388 of 3 million at 1 M/s on the
//! machine where this was found; none with `rdtscp`). Elsewhere the system's monotonic clock
//! is the counter and a tick is a nanosecond.
//!
//! # Invariants
//!
//! * `C1` Ticks of one clock never run backwards on one thread.
//! * `C2` `to_ns` and `to_ticks` are inverse to within one part in 2³².
#![cfg_attr(
    any(target_arch = "x86_64", target_os = "linux"),
    expect(
        unsafe_code,
        reason = "the counter's instruction and clock_gettime are unsafe to call"
    )
)]

use std::time::{Duration, Instant};

use crate::args::quantity::whole;

/// A source of ticks. The simulated ones of the tests are the reason for a trait.
pub trait Ticks {
    /// The time, not before everything that this thread has loaded so far.
    fn ordered(&self) -> u64;

    /// The time, perhaps a few instructions early; cheaper.
    fn early(&self) -> u64;

    /// Ticks in nanoseconds.
    fn to_ns(&self, ticks: u64) -> u64;

    /// Nanoseconds in ticks.
    fn to_ticks(&self, ns: u64) -> u64;
}

/// What the ticks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The invariant time-stamp counter of x86.
    Tsc,
    /// The virtual counter of arm64.
    Cntvct,
    /// The monotonic clock of the system, in nanoseconds.
    Monotonic,
}

impl Source {
    /// As it is written in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tsc => "tsc",
            Self::Cntvct => "cntvct",
            Self::Monotonic => "monotonic",
        }
    }
}

/// A calibrated clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
    origin: Instant,
    ns_per_tick: Fixed,
    ticks_per_ns: Fixed,
    hz: f64,
    error_ppm: f64,
}

/// A positive number with 32 binary places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fixed(u64);

impl Fixed {
    fn new(number: f64) -> Self {
        Self(whole(number * f64::from(u32::MAX) + number))
    }

    fn times(self, number: u64) -> u64 {
        let product = u128::from(self.0) * u128::from(number);
        u64::try_from(product >> 32).unwrap_or(u64::MAX)
    }
}

/// Windows of a calibration, and how long each is.
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_millis(50);

/// A calibration whose windows differ by more is not believed.
const ERROR_PPM_MAX: f64 = 50.0;

impl Clock {
    /// The best clock of this machine, calibrated for some 150 ms against the system's.
    #[must_use]
    pub fn calibrated() -> Self {
        Self::with_window(WINDOW)
    }

    /// As [`Clock::calibrated`], with windows of another length.
    #[must_use]
    pub fn with_window(window: Duration) -> Self {
        let Some(source) = counter() else {
            return Self::monotonic();
        };
        let mut rates: Vec<f64> = (0..WINDOWS).map(|_| ticks_per_second(window)).collect();
        rates.sort_by(f64::total_cmp);
        let hz = rates[WINDOWS / 2];
        let error_ppm = (rates[WINDOWS - 1] - rates[0]) / hz * 1e6;
        if error_ppm.is_nan() || error_ppm > ERROR_PPM_MAX {
            return Self::monotonic();
        }
        Self::new(source, hz, error_ppm)
    }

    /// The system's monotonic clock; 1 tick is 1 ns.
    #[must_use]
    pub fn monotonic() -> Self {
        Self::new(Source::Monotonic, 1e9, 0.0)
    }

    fn new(source: Source, hz: f64, error_ppm: f64) -> Self {
        Self {
            source,
            origin: Instant::now(),
            ns_per_tick: Fixed::new(1e9 / hz),
            ticks_per_ns: Fixed::new(hz / 1e9),
            hz,
            error_ppm,
        }
    }

    /// What the ticks come from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Ticks a second.
    #[must_use]
    pub fn hz(&self) -> f64 {
        self.hz
    }

    /// How far the calibration's windows disagree, in parts per million.
    #[must_use]
    pub fn error_ppm(&self) -> f64 {
        self.error_ppm
    }

    /// What one ordered read costs, in nanoseconds: the best of several rounds.
    #[must_use]
    pub fn read_cost_ns(&self) -> f64 {
        const READS: u32 = 2_000;
        let round = || {
            let start = self.ordered();
            for _ in 0..READS {
                std::hint::black_box(self.ordered());
            }
            self.ordered() - start
        };
        let best = (0..9).map(|_| round()).min().unwrap_or(0);
        ratio(best, u64::from(READS)) * 1e9 / self.hz
    }

    fn monotonic_ns(&self) -> u64 {
        let ns = self.origin.elapsed().as_nanos();
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// `a / b` as a floating-point number.
#[must_use]
pub fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and nanoseconds stay far below 2^53"
    )]
    let quotient = a as f64 / b as f64;
    quotient
}

impl Ticks for Clock {
    #[inline]
    fn ordered(&self) -> u64 {
        match self.source {
            Source::Monotonic => self.monotonic_ns(),
            _ => ordered_counter(),
        }
    }

    #[inline]
    fn early(&self) -> u64 {
        match self.source {
            Source::Monotonic => self.monotonic_ns(),
            _ => early_counter(),
        }
    }

    #[inline]
    fn to_ns(&self, ticks: u64) -> u64 {
        self.ns_per_tick.times(ticks)
    }

    #[inline]
    fn to_ticks(&self, ns: u64) -> u64 {
        self.ticks_per_ns.times(ns)
    }
}

/// Ticks in one second, from one window.
fn ticks_per_second(window: Duration) -> f64 {
    let (ticks_0, ns_0) = pair();
    std::thread::sleep(window);
    let (ticks_1, ns_1) = pair();
    ratio(ticks_1.wrapping_sub(ticks_0), ns_1.saturating_sub(ns_0)) * 1e9
}

/// Counter and system clock read at the same moment: of several tries the one in which the
/// two counter reads around the clock are nearest.
fn pair() -> (u64, u64) {
    let tries = (0..16).map(|_| {
        let before = ordered_counter();
        let ns = raw_ns();
        let after = ordered_counter();
        (after.wrapping_sub(before), before, ns)
    });
    let best = tries.min_by_key(|(width, _, _)| *width);
    best.map_or((0, 0), |(width, before, ns)| (before + width / 2, ns))
}

/// The system's clock as no time service bends it.
#[cfg(target_os = "linux")]
fn raw_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call wants a writable timespec: `time` is one, alive until after it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    debug_assert_eq!(result, 0, "CLOCK_MONOTONIC_RAW exists since Linux 2.6.28");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn raw_ns() -> u64 {
    use std::sync::OnceLock;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = ORIGIN.get_or_init(Instant::now);
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The counter to use, if the CPU promises that it ticks evenly on all CPUs.
#[cfg(target_arch = "x86_64")]
fn counter() -> Option<Source> {
    use std::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    const FEATURES: u32 = 0x8000_0001;
    let leaf = |number: u32| {
        // SAFETY: every x86-64 CPU has the instruction; unknown leaves read as others.
        #[allow(unused_unsafe, reason = "safe to call in newer compilers")]
        unsafe {
            __cpuid(number)
        }
    };
    let has = |number: u32| leaf(EXTENDED).eax >= number;
    let invariant = has(POWER) && leaf(POWER).edx >> 8 & 1 == 1;
    let ordered = has(FEATURES) && leaf(FEATURES).edx >> 27 & 1 == 1;
    (invariant && ordered).then_some(Source::Tsc)
}

#[cfg(target_arch = "aarch64")]
fn counter() -> Option<Source> {
    Some(Source::Cntvct)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn counter() -> Option<Source> {
    None
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ordered_counter() -> u64 {
    let mut cpu = 0;
    // SAFETY: `counter` has seen that the CPU has RDTSCP; the pointer is to a local.
    unsafe { std::arch::x86_64::__rdtscp(&raw mut cpu) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn early_counter() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[expect(unsafe_code, reason = "the counter is read by an instruction")]
fn ordered_counter() -> u64 {
    let ticks: u64;
    // SAFETY: user code may read CNTVCT_EL0 on every system that we run on; the instructions
    // touch no memory.
    unsafe {
        std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack));
    }
    ticks
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[expect(unsafe_code, reason = "the counter is read by an instruction")]
fn early_counter() -> u64 {
    let ticks: u64;
    // SAFETY: as in `ordered_counter`.
    unsafe {
        std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, nomem));
    }
    ticks
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn ordered_counter() -> u64 {
    raw_ns()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn early_counter() -> u64 {
    raw_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_ticks_never_run_backwards() {
        for clock in [
            Clock::with_window(Duration::from_millis(2)),
            Clock::monotonic(),
        ] {
            let mut last = clock.ordered();
            for _ in 0..10_000 {
                let now = clock.ordered();
                assert!(now >= last, "{clock:?}: {now} after {last}");
                last = now;
            }
        }
    }

    #[test]
    fn c2_nanoseconds_survive_the_way_through_ticks() {
        let clock = Clock::new(Source::Tsc, 2_445_425_887.0, 0.0);
        for ns in [0, 1, 100, 1_000_000, 60_000_000_000] {
            let back = clock.to_ns(clock.to_ticks(ns));
            assert!(back.abs_diff(ns) <= 1 + (ns >> 30), "{ns} became {back}");
        }
        assert!(clock.to_ns(2_445_425_887).abs_diff(1_000_000_000) <= 1);
    }

    #[test]
    fn a_calibration_agrees_with_the_system_or_is_not_used() {
        let clock = Clock::with_window(Duration::from_millis(5));
        assert!(clock.hz() >= 1e6, "{clock:?}");
        assert!(clock.error_ppm() <= ERROR_PPM_MAX, "{clock:?}");
    }
}

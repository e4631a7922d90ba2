//! What the process has used of the machine.
#![cfg_attr(unix, expect(unsafe_code, reason = "getrusage is a C call"))]

use std::time::Instant;

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

/// Watches what the hypervisor gives to others while our CPUs have work.
#[derive(Debug, Clone, Copy)]
pub struct Steal {
    ticks: f64,
    since: Instant,
}

/// `USER_HZ`: fixed for programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Steal {
    /// From now on.
    #[must_use]
    pub fn watch() -> Self {
        Self {
            ticks: stolen(&stat()).0,
            since: Instant::now(),
        }
    }

    /// The share of the time of all CPUs since then, 0 to 1; 0 where nobody tells. It comes in
    /// steps of 10 ms of one CPU.
    #[must_use]
    pub fn share(&self) -> f64 {
        let (ticks, cpus) = stolen(&stat());
        let all = self.since.elapsed().as_secs_f64() * cpus * TICKS_PER_SECOND;
        if all > 0.0 {
            ((ticks - self.ticks) / all).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

fn stat() -> String {
    std::fs::read_to_string("/proc/stat").unwrap_or_default()
}

/// Ticks of all CPUs together, and how many CPUs there are.
fn stolen(stat: &str) -> (f64, f64) {
    let all = stat.lines().find(|line| line.starts_with("cpu "));
    let steal = all.and_then(|line| line.split_whitespace().nth(8));
    let ticks = steal.and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0);
    let lines = stat.lines().filter(|line| line.starts_with("cpu")).count() as u64;
    (ticks, super::clock::ratio(lines.saturating_sub(1), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_of_all_cpus() {
        let text = "cpu  15 10 31 97 30 0 36 2378 0 0\ncpu0 7 7 7 7 7 7 7 7 7\nintr 5\n";
        assert_eq!(stolen(text), (2378.0, 1.0));
        assert_eq!(stolen(""), (0.0, 0.0));
        assert!((0.0..=1.0).contains(&Steal::watch().share()));
    }
}

//! Which CPUs this process may use, and how a thread is put on one.

use crate::error::PinError;

/// The CPUs that the current thread may use, in ascending order. Never empty where the
/// system tells; empty where it does not.
pub(crate) fn allowed() -> Vec<usize> {
    platform::allowed()
}

/// How many threads can run at the same time, at least 1: CPUs that are allowed, and no
/// more than a quota of the process's group pays for.
pub(crate) fn usable_count() -> usize {
    std::thread::available_parallelism().map_or_else(|_| allowed().len().max(1), usize::from)
}

/// Whether `cpu` may be used; the error names what may.
pub(crate) fn check(runner: &str, cpu: usize) -> Result<(), PinError> {
    let allowed = allowed();
    if allowed.is_empty() || allowed.contains(&cpu) {
        return Ok(());
    }
    let source = std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        "it does not exist or is not allowed",
    );
    Err(refusal(runner, cpu, source))
}

/// Puts the current thread on `cpu`.
pub(crate) fn pin(runner: &str, cpu: usize) -> Result<(), PinError> {
    platform::pin(cpu).map_err(|source| refusal(runner, cpu, source))
}

fn refusal(runner: &str, cpu: usize, source: std::io::Error) -> PinError {
    PinError {
        runner: runner.to_owned(),
        cpu,
        allowed: ranges(&allowed()),
        source,
    }
}

/// CPUs as `taskset` writes them: `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = (0..).zip(rest).take_while(|&(n, &cpu)| cpu == first + n);
        let count = run.count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if count > 1 {
            text.push_str(&format!("-{}", first + count - 1));
        }
        rest = &rest[count..];
    }
    text
}

#[cfg(all(target_os = "linux", not(miri)))]
#[expect(unsafe_code, reason = "two system calls have no safe wrapper")]
mod platform {
    use std::io;

    /// As many bits as the kernel may have CPUs (`CONFIG_NR_CPUS` goes to 8192).
    const MASK_WORDS: usize = 8192 / 64;

    pub(super) fn allowed() -> Vec<usize> {
        let mut mask = [0_u64; MASK_WORDS];
        // SAFETY: `sched_getaffinity` wants a buffer of the size it is told, which `mask`
        // is; it writes no more, and any bits are valid.
        let failed =
            unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
        if failed != 0 {
            return Vec::new();
        }
        (0..MASK_WORDS * 64)
            .filter(|cpu| mask[cpu / 64] & (1 << (cpu % 64)) != 0)
            .collect()
    }

    pub(super) fn pin(cpu: usize) -> io::Result<()> {
        let mut mask = [0_u64; MASK_WORDS];
        let Some(word) = mask.get_mut(cpu / 64) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        *word = 1 << (cpu % 64);
        // SAFETY: `sched_setaffinity` wants a mask of the size it is told, which it reads.
        let failed =
            unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io;

    pub(super) fn allowed() -> Vec<usize> {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        ids.into_iter().map(|core| core.id).collect()
    }

    pub(super) fn pin(cpu: usize) -> io::Result<()> {
        if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
            return Ok(());
        }
        Err(io::Error::other("the system refused"))
    }
}

/// Miri knows no CPUs.
#[cfg(all(target_os = "linux", miri))]
mod platform {
    use std::io;

    pub(super) fn allowed() -> Vec<usize> {
        vec![0, 1]
    }

    pub(super) fn pin(_cpu: usize) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_told_as_taskset_writes_them() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[0]), "0");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused_with_those_that_do() {
        let error = check("logic", 1_000_000).unwrap_err().to_string();
        assert!(
            error.contains("\"logic\"") && error.contains("1000000"),
            "{error}"
        );
        assert!(error.contains(&ranges(&allowed())), "{error}");
        // Miri has no scheduler that could refuse.
        assert!(cfg!(miri) || pin("logic", 1_000_000).is_err());
    }

    #[test]
    fn an_allowed_cpu_is_accepted() {
        let first = allowed()[0];
        assert!(check("logic", first).is_ok());
        std::thread::scope(|scope| {
            let pinned = scope.spawn(|| pin("logic", first).map(|()| allowed()));
            let after = pinned.join().unwrap().unwrap();
            assert!(cfg!(miri) || after == [first]);
        });
    }
}

//! Which CPUs this thread may use, and putting it on one with proof.
//!
//! On Linux straight through the kernel's calls: a list of CPUs from a library is filtered
//! by where this thread happens to be pinned, loses the reason of a failure, and does not
//! show isolated CPUs. Elsewhere `core_affinity` does what it can, and nothing is proved.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "sched_setaffinity and its relatives are C calls"
    )
)]

use std::io;

/// What is known about a thread after it was put on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Where it was to run.
    pub cpu: u32,
    /// Where it was seen to run, if this system tells.
    pub seen_on: Option<u32>,
}

impl Proof {
    /// Whether the thread was seen where it should be.
    #[must_use]
    pub fn holds(self) -> bool {
        self.seen_on == Some(self.cpu)
    }
}

/// A thread of this process, as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadSeen {
    /// Its name; the kernel keeps [`NAME_KEPT`] bytes of it.
    pub name: String,
    /// The CPUs that it may run on.
    pub allowed: Vec<u32>,
    /// The CPU that it ran on last.
    pub cpu: u32,
    /// Nanoseconds in which it could have run and another task did, so far; where the kernel
    /// tells.
    pub delayed_ns: Option<u64>,
}

/// Bytes of a thread's name that the kernel keeps.
pub const NAME_KEPT: usize = 15;

impl ThreadSeen {
    /// Whether it is the thread of this name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.as_bytes() == &name.as_bytes()[..name.len().min(NAME_KEPT)]
    }

    /// Whether it is confined to `cpu` and was seen there.
    #[must_use]
    pub fn is_on(&self, cpu: u32) -> bool {
        self.allowed == [cpu] && self.cpu == cpu
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{Proof, ThreadSeen, io};
    use crate::machine::cpu_list;

    /// All threads of this process; those that end meanwhile are left out.
    #[must_use]
    pub fn threads() -> Vec<ThreadSeen> {
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            return Vec::new();
        };
        tasks
            .flatten()
            .filter_map(|task| seen(&task.path()))
            .collect()
    }

    fn seen(task: &std::path::Path) -> Option<ThreadSeen> {
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        // Behind the name, which may hold anything, the processor is the 37th field.
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        Some(ThreadSeen {
            name: field("Name:")?,
            allowed: cpu_list::from_kernel(&field("Cpus_allowed_list:")?),
            cpu: fields.split_whitespace().nth(36)?.parse().ok()?,
            delayed_ns: std::fs::read_to_string(task.join("schedstat"))
                .ok()
                .and_then(|text| text.split_whitespace().nth(1)?.parse().ok()),
        })
    }

    /// CPUs that a mask of the kernel can name at most: 64 Ki, eight times what Linux is
    /// built for.
    const WORDS: usize = 1024;
    const WORD_BITS: usize = 64;

    /// The CPUs that the calling thread may use.
    ///
    /// # Errors
    ///
    /// The kernel's, of `sched_getaffinity`.
    pub fn allowed() -> io::Result<Vec<u32>> {
        let mut mask = vec![0_u64; WORDS];
        // SAFETY: the call wants a writable buffer of the length that is passed: `mask` is
        // one, alive until after the call. The kernel writes at most that many bytes.
        let written = unsafe {
            libc::sched_getaffinity(0, size_of_val(mask.as_slice()), mask.as_mut_ptr().cast())
        };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
        let numbers = (0..u32::MAX).zip(
            mask.iter()
                .flat_map(|word| (0..WORD_BITS).map(move |bit| word >> bit & 1 == 1)),
        );
        Ok(numbers
            .filter(|(_, set)| *set)
            .map(|(cpu, _)| cpu)
            .collect())
    }

    /// Lets the calling thread run on these CPUs only.
    ///
    /// # Errors
    ///
    /// The kernel's, of `sched_setaffinity`: `EINVAL` where none of them may be used.
    pub fn allow(cpus: &[u32]) -> io::Result<()> {
        let mut mask = vec![0_u64; WORDS];
        for &cpu in cpus {
            let word = mask
                .get_mut(cpu as usize / WORD_BITS)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            *word |= 1 << (cpu as usize % WORD_BITS);
        }
        // SAFETY: the call wants a readable buffer of the length that is passed: `mask` is
        // one, alive until after the call.
        let result = unsafe {
            libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast())
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The CPU that the calling thread is on, where the system tells.
    #[must_use]
    pub fn current() -> Option<u32> {
        // SAFETY: the call takes nothing and touches no memory of ours.
        u32::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    /// Puts the calling thread on `cpu` and looks whether it is there.
    ///
    /// # Errors
    ///
    /// The kernel's, when it refuses; and when the mask that it then reports is another.
    pub fn pin(cpu: u32) -> io::Result<Proof> {
        allow(&[cpu])?;
        if allowed()? != [cpu] {
            return Err(io::Error::other(
                "the kernel took the mask and kept another",
            ));
        }
        Ok(Proof {
            cpu,
            seen_on: current(),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Proof, ThreadSeen, io};

    /// Not known here.
    #[must_use]
    pub fn threads() -> Vec<ThreadSeen> {
        Vec::new()
    }

    /// The CPUs that `core_affinity` lists.
    ///
    /// # Errors
    ///
    /// When it lists none.
    pub fn allowed() -> io::Result<Vec<u32>> {
        let ids = core_affinity::get_core_ids()
            .ok_or_else(|| io::Error::other("this system does not list its CPUs"))?;
        Ok(ids
            .into_iter()
            .filter_map(|core| u32::try_from(core.id).ok())
            .collect())
    }

    /// Widening a mask again is not possible everywhere.
    ///
    /// # Errors
    ///
    /// Always, for more than one CPU.
    pub fn allow(cpus: &[u32]) -> io::Result<()> {
        match cpus {
            [cpu] => pin(*cpu).map(|_| ()),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Not known here.
    #[must_use]
    pub fn current() -> Option<u32> {
        None
    }

    /// Asks for `cpu`; whether it was granted cannot be seen.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn pin(cpu: u32) -> io::Result<Proof> {
        if core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize }) {
            Ok(Proof { cpu, seen_on: None })
        } else {
            Err(io::Error::other("this system refused to place the thread"))
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{allow, allowed, current, pin, threads};
#[cfg(target_os = "linux")]
pub use linux::{allow, allowed, current, pin, threads};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_seen_where_it_was_put() {
        let cpus = allowed().unwrap();
        let last = *cpus.last().unwrap();
        let proof = std::thread::spawn(move || pin(last).unwrap())
            .join()
            .unwrap();
        assert!(proof.holds(), "{proof:?}");
        assert_eq!(
            allowed().unwrap(),
            cpus,
            "the other thread's mask is its own"
        );
    }

    #[test]
    fn a_thread_is_seen_by_its_name_and_on_its_cpu() {
        let last = *allowed().unwrap().last().unwrap();
        let name = "a-thread-with-a-long-name";
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                pin(last).unwrap();
                ready.send(()).unwrap();
                // Ends: the other end is dropped.
                ended.recv().unwrap_err();
            });
        is_ready.recv().unwrap();
        let all = threads();
        let seen = all.iter().find(|thread| thread.is(name)).unwrap();
        assert!(seen.is_on(last), "{seen:?}");
        drop(end);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused_with_the_kernels_reason() {
        let error = std::thread::spawn(|| pin(60_000).unwrap_err())
            .join()
            .unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let error = std::thread::spawn(|| pin(70_000).unwrap_err())
            .join()
            .unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}

//! Which CPUs there are, who sits where, and what to say about them next to a figure.

#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "pins threads"))]

use std::fs;
use std::process::Command;

use crate::clock;

/// The CPUs that this process may use, in the order in which threads are seated.
#[derive(Debug)]
pub(crate) struct Machine {
    cpus: Vec<usize>,
}

/// Where a thread belongs: a CPU of its own, or anywhere when there are more threads than CPUs.
pub(crate) type Seat = Option<usize>;

impl Machine {
    pub(crate) fn discover() -> Self {
        Self {
            cpus: allowed_cpus(),
        }
    }

    pub(crate) fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// The seat of thread `index` of `threads`.
    pub(crate) fn seat(&self, index: usize, threads: usize) -> Seat {
        (threads <= self.cpus.len()).then(|| self.cpus[index])
    }

    /// The two CPUs between which lines are bounced.
    pub(crate) fn pair(&self) -> Option<(usize, usize)> {
        match self.cpus[..] {
            [first, second, ..] => Some((first, second)),
            _ => None,
        }
    }

    /// Puts the calling thread on its seat. Threads inherit the place of whoever spawns
    /// them, so every thread sits down itself.
    pub(crate) fn sit(&self, seat: Seat) {
        match seat {
            Some(cpu) => pin(&[cpu]),
            None => pin(&self.cpus),
        }
    }

    /// Runs `body` on a seat and lets the thread go again.
    pub(crate) fn seated<R>(&self, seat: Seat, body: impl FnOnce() -> R) -> R {
        self.sit(seat);
        let result = body();
        self.sit(None);
        result
    }

    /// Name and value of what a reader of the figures wants to know.
    pub(crate) fn description(&self) -> Vec<(&'static str, String)> {
        vec![
            ("cpu", cpu_model()),
            ("cpus_allowed", format!("{:?}", self.cpus)),
            ("siblings_of_first", siblings(self.cpus[0])),
            ("os", os()),
            ("compiler", env_or_run("rustc", &["--version"])),
            (
                "commit",
                env_or_run("git", &["describe", "--always", "--dirty"]),
            ),
            ("clock", clock::describe()),
            (
                "pinning",
                if cfg!(target_os = "linux") {
                    "a CPU a thread where there are enough, else free".to_owned()
                } else {
                    "none on this system".to_owned()
                },
            ),
        ]
    }
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    match (field("model name"), field("cpu family"), field("model\t")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name}, family {family} model {model}")
        }
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_owned(),
    }
}

fn siblings(cpu: usize) -> String {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |list| list.trim().to_owned())
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim())
}

fn env_or_run(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

#[cfg(target_os = "linux")]
fn allowed_cpus() -> Vec<usize> {
    let mut set = no_cpus();
    // SAFETY: `sched_getaffinity` writes at most the given size into the set; 0 is the caller.
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    assert!(
        rc == 0,
        "sched_getaffinity: {}",
        std::io::Error::last_os_error()
    );
    (0..8 * size_of::<libc::cpu_set_t>())
        // SAFETY: `CPU_ISSET` wants an index below the number of bits: the range says so.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

#[cfg(target_os = "linux")]
fn pin(cpus: &[usize]) {
    let mut set = no_cpus();
    for &cpu in cpus {
        // SAFETY: `CPU_SET` wants an index below the number of bits: it came from the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `sched_setaffinity` reads the given size of the set; 0 is the caller.
    let rc = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert!(
        rc == 0,
        "pinning to {cpus:?}: {}",
        std::io::Error::last_os_error()
    );
}

#[cfg(target_os = "linux")]
fn no_cpus() -> libc::cpu_set_t {
    // SAFETY: the set is an array of integers, for which all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

#[cfg(not(target_os = "linux"))]
fn allowed_cpus() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

#[cfg(not(target_os = "linux"))]
fn pin(_cpus: &[usize]) {}

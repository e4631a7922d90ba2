//! `--rt`: threads that go before all ordinary ones.
//!
//! What is asked for the main thread before others are started, they inherit: generators, stages,
//! and what works beside them. It helps where other tasks are in the way, and makes the tail longer
//! where they never let go: then the kernel gives them up to 50 ms of each second, at once.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "sched_setscheduler is a C call")
)]

use std::fmt;
use std::str::FromStr;

use crate::exit::Refusal;

/// How threads stand among those of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Realtime {
    /// As all others.
    #[default]
    None,
    /// Before them, until they wait.
    Fifo(u8),
    /// The same, in turns among themselves.
    Rr(u8),
}

impl FromStr for Realtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no class: none, fifo:PRIO, rr:PRIO, with PRIO 1 to 99");
        let Some((class, priority)) = text.split_once(':') else {
            return if text == "none" {
                Ok(Self::None)
            } else {
                Err(bad())
            };
        };
        let priority = priority.parse().ok().filter(|p| (1..=99).contains(p));
        match (class, priority) {
            ("fifo", Some(priority)) => Ok(Self::Fifo(priority)),
            ("rr", Some(priority)) => Ok(Self::Rr(priority)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Realtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fifo(priority) => write!(f, "fifo:{priority}"),
            Self::Rr(priority) => write!(f, "rr:{priority}"),
        }
    }
}

impl Realtime {
    /// Takes it, for this thread and those that it starts from now on.
    ///
    /// # Errors
    ///
    /// That the system does not allow it, or does not know it.
    pub fn take(self) -> Result<(), Refusal> {
        set(self).map_err(|error| {
            Refusal::environment(
                format!("--rt {self}: {error}"),
                "as root, with CAP_SYS_NICE or a limit (ulimit -r), or leave it out",
            )
        })
    }
}

#[cfg(target_os = "linux")]
fn set(class: Realtime) -> std::io::Result<()> {
    let (policy, priority) = match class {
        Realtime::None => return Ok(()),
        Realtime::Fifo(priority) => (libc::SCHED_FIFO, priority),
        Realtime::Rr(priority) => (libc::SCHED_RR, priority),
    };
    let parameters = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: the call wants a readable `sched_param`: `parameters` is one, alive until after it;
    // 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn set(class: Realtime) -> std::io::Result<()> {
    match class {
        Realtime::None => Ok(()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::Unsupported)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_and_written() {
        for text in ["none", "fifo:50", "rr:1"] {
            assert_eq!(text.parse::<Realtime>().unwrap().to_string(), text);
        }
        for text in ["", "fifo", "fifo:0", "rr:100", "idle:1"] {
            assert!(text.parse::<Realtime>().is_err(), "{text}");
        }
        Realtime::None.take().unwrap();
    }
}

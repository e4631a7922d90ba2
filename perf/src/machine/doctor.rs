//! What about this machine speaks for or against measuring on it: evidence, effect, fix.
//!
//! The doctor reads and never changes anything. What it cannot see it calls unknown.

mod memory;
mod processor;
mod system;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::memory::memory_checks;
use self::processor::cpu_checks;
use self::system::{build_check, clock_checks, kernel_checks};
use super::clock::Clock;
use super::cpus::{Files, Machine};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// Does not exist here.
    #[serde(rename = "n/a")]
    Absent,
    /// This system does not tell.
    Unknown,
    /// Costs something, or may.
    Warn,
    /// Tails measured here are not the pipeline's.
    Bad,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Absent => "n/a",
            Self::Unknown => "unk",
            Self::Warn => "warn",
            Self::Bad => "bad",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, for scripts.
    pub id: String,
    /// How it came out.
    pub state: State,
    /// What was seen, and where.
    pub evidence: String,
    /// What it does to measurements; empty if nothing.
    pub effect: String,
    /// What to do about it; empty if nothing.
    pub fix: String,
}

impl Check {
    fn new(id: &str, state: State, evidence: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            state,
            evidence: evidence.into(),
            effect: String::new(),
            fix: String::new(),
        }
    }

    fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// What a machine is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fitness {
    /// Also for the tail.
    Tail,
    /// For throughput and medians, compared in turns.
    Relative,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The checks, in the order of the list below.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Examines `machine` by the files below `files`' root.
    #[must_use]
    pub fn of(machine: &Machine, clock: &Clock, files: &Files<'_>) -> Self {
        let mut checks = cpu_checks(machine, files);
        checks.extend(clock_checks(clock, files));
        checks.extend(memory_checks(files));
        checks.extend(kernel_checks(machine, files));
        checks.push(build_check());
        Self { checks }
    }

    /// What the machine is good for: one bad check spoils the tail.
    #[must_use]
    pub fn fitness(&self) -> Fitness {
        if self.checks.iter().any(|check| check.state == State::Bad) {
            Fitness::Relative
        } else {
            Fitness::Tail
        }
    }

    /// The verdict in words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.fitness() {
            Fitness::Tail => "fit for tail latency",
            Fitness::Relative => {
                "unfit for tails (p99+); fit for throughput and relative p50, --runs 5"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpus::tests::{Captured, tree};
    use super::*;

    fn diagnose(name: &str, extra: &[(&str, &str)]) -> Diagnosis {
        let mut files = tree(1, 8, true, 8);
        files.retain(|(path, _)| !extra.iter().any(|(other, _)| other == path));
        files.extend(
            extra
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned())),
        );
        let captured = Captured::new(name, &files);
        let machine = Machine::read(captured.root(), None);
        Diagnosis::of(&machine, &Clock::monotonic(), &Files(captured.root()))
    }

    fn state(diagnosis: &Diagnosis, id: &str) -> State {
        let check = diagnosis.checks.iter().find(|check| check.id == id);
        check.unwrap_or_else(|| panic!("no check {id}")).state
    }

    #[test]
    fn a_busy_machine_without_isolation_is_unfit_for_tails() {
        let diagnosis = diagnose(
            "busy",
            &[
                ("proc/loadavg", "10.4 9 8 11/300 1234"),
                (
                    "proc/pressure/cpu",
                    "some avg10=63.00 avg60=1 avg300=1 total=1\n",
                ),
                (
                    "sys/kernel/mm/transparent_hugepage/enabled",
                    "always madvise [never]",
                ),
                ("proc/swaps", "Filename\n/swap file\n"),
                ("proc/stat", "cpu  100 0 100 700 0 0 0 100 0 0\n"),
            ],
        );
        for id in ["load", "pressure", "isolation", "steal"] {
            assert_eq!(state(&diagnosis, id), State::Bad, "{id}");
        }
        for id in ["thp", "swap", "smt"] {
            assert_eq!(state(&diagnosis, id), State::Warn, "{id}");
        }
        assert_eq!(diagnosis.fitness(), Fitness::Relative);
    }

    #[test]
    fn a_quiet_isolated_machine_has_no_bad_check_of_its_own() {
        let diagnosis = diagnose(
            "quiet",
            &[
                ("sys/devices/system/cpu/isolated", "4-7\n"),
                ("sys/devices/system/cpu/nohz_full", "4-7\n"),
                ("proc/loadavg", "0.01 0 0 1/300 1234"),
                (
                    "proc/pressure/cpu",
                    "some avg10=0.00 avg60=1 avg300=1 total=1\n",
                ),
                ("proc/stat", "cpu  100 0 100 70000 0 0 0 1 0 0\n"),
            ],
        );
        let bad: Vec<&Check> = diagnosis
            .checks
            .iter()
            .filter(|check| check.state == State::Bad && check.id != "build")
            .collect();
        assert_eq!(bad, Vec::<&Check>::new());
    }

    #[test]
    fn every_warning_has_an_effect_and_what_a_kernel_hides_is_unknown() {
        let diagnosis = diagnose("hidden", &[]);
        for check in &diagnosis.checks {
            if matches!(check.state, State::Warn | State::Bad) {
                assert!(!check.effect.is_empty(), "{check:?}");
            }
        }
        for id in ["load", "pressure", "irq", "memlock", "clocksource"] {
            assert_eq!(state(&diagnosis, id), State::Unknown, "{id}");
        }
    }
}

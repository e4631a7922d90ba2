//! What a result was measured on: enough to decide whether two results may be compared.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::clock::Clock;
use crate::machine::cpu_list;
use crate::machine::cpus::{Files, Machine};
use crate::machine::doctor::{Check, Diagnosis};
use crate::measure::recorder;

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `lockstep`.
    pub name: String,
    /// Of the package.
    pub version: String,
    /// Commit, if it was built in a repository.
    pub git: String,
    /// Whether the sources differed from that commit.
    pub dirty: bool,
    /// `release` or `debug`.
    pub profile: String,
    /// For which machines it was compiled.
    pub target: String,
}

impl Tool {
    /// This program.
    #[must_use]
    pub fn this() -> Self {
        Self {
            name: "lockstep".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: env!("LOCKSTEP_GIT").to_owned(),
            dirty: env!("LOCKSTEP_DIRTY") == "true",
            profile: env!("LOCKSTEP_PROFILE").to_owned(),
            target: env!("LOCKSTEP_TARGET").to_owned(),
        }
    }
}

/// The machine and its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Equal on machines whose results may be compared: of CPU model, hypervisor, kernel,
    /// governor, isolation, number of usable CPUs, clock. Not of the host's name.
    pub fingerprint: String,
    /// The machine in a line.
    pub summary: String,
    /// CPU model.
    pub cpu: String,
    /// Who runs us, if we are a guest.
    pub hypervisor: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// CPUs that the process may use.
    pub cpus_allowed: String,
    /// CPU time that the container may use, in CPUs.
    pub cpu_quota: Option<f64>,
    /// CPUs taken from the scheduler.
    pub isolated: String,
    /// Frequency governor, where there is one.
    pub governor: Option<String>,
    /// What ticks are counted by.
    pub clocksource: String,
    /// Ticks a second.
    pub tsc_hz: f64,
    /// How far the windows of the calibration disagree.
    pub tsc_ppm_err: f64,
    /// What an ordered read of the clock costs, in nanoseconds.
    pub clock_read_ns: f64,
    /// What it costs to record an event, that read included.
    #[serde(default)]
    pub record_ns: f64,
    /// What the doctor found.
    pub checks: Vec<Check>,
}

impl Environment {
    /// This machine, now.
    #[must_use]
    pub fn here(machine: &Machine, clock: &Clock) -> Self {
        let files = Files(Path::new("/"));
        let governor = files.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let isolated = cpu_list::show(&machine.isolated());
        let fingerprint = fingerprint(&[
            &machine.model,
            machine.hypervisor.as_deref().unwrap_or(""),
            &machine.kernel,
            governor.as_deref().unwrap_or(""),
            &isolated,
            &machine.spinners_max().to_string(),
            clock.source().name(),
        ]);
        Self {
            fingerprint,
            summary: machine.summary(),
            cpu: machine.model.clone(),
            hypervisor: machine.hypervisor.clone(),
            kernel: machine.kernel.clone(),
            cpus_allowed: cpu_list::show(&machine.allowed),
            cpu_quota: machine.quota,
            isolated,
            governor,
            clocksource: clock.source().name().to_owned(),
            tsc_hz: clock.hz(),
            tsc_ppm_err: clock.error_ppm(),
            clock_read_ns: clock.read_cost_ns(),
            record_ns: recorder::cost_ns(clock),
            checks: Diagnosis::of(machine, clock, &files).checks,
        }
    }
}

/// FNV-1a over the parts; a name for a kind of machine, no secret.
fn fingerprint(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_changes_with_any_part() {
        let base = fingerprint(&["a", "b"]);
        assert_eq!(base, fingerprint(&["a", "b"]));
        assert_ne!(base, fingerprint(&["ab", ""]));
        assert_ne!(base, fingerprint(&["a", "c"]));
        assert_eq!(base.len(), 16);
    }
}

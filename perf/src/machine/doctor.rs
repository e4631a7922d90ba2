//! What about this machine speaks for or against measuring on it: evidence, effect, fix.
//!
//! The doctor reads and never changes anything. What it cannot see it calls unknown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, Source};
use super::cpu_list;
use super::cpus::{Files, Machine};
use crate::args::quantity::{show_bytes, show_count};

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

fn cpu_checks(machine: &Machine, files: &Files<'_>) -> Vec<Check> {
    vec![
        cpus(machine),
        isolation(machine),
        nohz(machine),
        smt(machine),
        governor(files),
        idle_states(files),
        load(machine, files),
        pressure(files),
        steal(machine, files),
        interrupts(files),
    ]
}

fn cpus(machine: &Machine) -> Check {
    let spinners = machine.spinners_max();
    let list = cpu_list::show(&machine.allowed);
    let quota = machine
        .quota
        .map(|cpus| format!(", the container's quota pays for {cpus:.2}"))
        .unwrap_or_default();
    let evidence = format!("{} usable CPUs ({list}){quota}", machine.allowed.len());
    if spinners >= 4 {
        return Check::new("cpus", State::Ok, evidence);
    }
    let check = Check::new("cpus", State::Warn, evidence).effect(match spinners {
        1 => "one thread does everything; no stage runs beside another",
        _ => "stages share threads; more spinning threads would take turns",
    });
    if machine.quota.is_some() {
        check.fix("start the container with more CPUs: --cpus, or without a quota")
    } else {
        check
    }
}

fn isolation(machine: &Machine) -> Check {
    let isolated = machine.isolated();
    if isolated.is_empty() {
        let last = machine.allowed.last().copied().unwrap_or(0);
        return Check::new(
            "isolation",
            if machine.allowed.len() > 1 {
                State::Bad
            } else {
                State::Absent
            },
            "/sys/devices/system/cpu/isolated is empty",
        )
        .effect("other tasks may run on measured CPUs: pauses of whole time slices")
        .fix(format!(
            "kernel command line: isolcpus={last} nohz_full={last} rcu_nocbs={last} (reboot)"
        ));
    }
    Check::new(
        "isolation",
        State::Ok,
        format!("isolated CPUs: {}", cpu_list::show(&isolated)),
    )
}

fn nohz(machine: &Machine) -> Check {
    if machine.nohz_full.is_empty() {
        return Check::new(
            "nohz_full",
            State::Warn,
            "no CPU is free of the scheduler's tick",
        )
        .effect("a few µs, 100 to 1000 times a second")
        .fix("kernel command line: nohz_full= with the isolated CPUs (reboot)");
    }
    let list = cpu_list::show(&machine.nohz_full);
    Check::new("nohz_full", State::Ok, format!("without tick: {list}"))
}

fn smt(machine: &Machine) -> Check {
    let paired: Vec<u32> = machine
        .cpus
        .iter()
        .filter(|cpu| cpu.siblings.len() > 1)
        .map(|cpu| cpu.id)
        .collect();
    if paired.is_empty() {
        return Check::new(
            "smt",
            State::Ok,
            "one hardware thread a core, as far as the kernel tells",
        );
    }
    Check::new(
        "smt",
        State::Warn,
        format!("CPUs that share cores: {}", cpu_list::show(&paired)),
    )
    .effect("a busy sibling takes about half of the core")
    .fix("--pin auto avoids siblings; or echo off > /sys/devices/system/cpu/smt/control")
}

fn governor(files: &Files<'_>) -> Check {
    let path = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    match files.text(path) {
        None => Check::new("governor", State::Absent, "no cpufreq here"),
        Some(name) if name == "performance" => Check::new("governor", State::Ok, name),
        Some(name) => Check::new("governor", State::Warn, format!("/{path} = {name}"))
            .effect("the clock frequency follows the load: the first microseconds are slow")
            .fix("cpupower frequency-set -g performance"),
    }
}

fn idle_states(files: &Files<'_>) -> Check {
    match files.text("sys/devices/system/cpu/cpuidle/current_driver") {
        Some(driver) if driver != "none" => Check::new(
            "cstates",
            State::Warn,
            format!("cpuidle driver {driver}"),
        )
        .effect("a CPU that sleeps deeply takes up to 100 µs to wake; spinning CPUs do not sleep")
        .fix("hold /dev/cpu_dma_latency at 0, or cpupower idle-set -D 0"),
        Some(_) => Check::new("cstates", State::Ok, "no cpuidle driver"),
        None => Check::new("cstates", State::Absent, "no cpuidle here"),
    }
}

fn load(machine: &Machine, files: &Files<'_>) -> Check {
    let Some(text) = files.text("proc/loadavg") else {
        return Check::new("load", State::Unknown, "no /proc/loadavg");
    };
    let load: f64 = text
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    let cpus = crate::machine::clock::ratio(machine.cpus.len() as u64, 1);
    let evidence = format!("load average {load:.1} on {} CPUs", machine.cpus.len());
    if load > cpus * 0.5 {
        Check::new("load", State::Bad, evidence)
            .effect("spinning threads are preempted by other tasks")
            .fix("stop the other work, or: --wait yield")
    } else if load > cpus * 0.1 {
        Check::new("load", State::Warn, evidence).effect("other tasks are about")
    } else {
        Check::new("load", State::Ok, evidence)
    }
}

fn pressure(files: &Files<'_>) -> Check {
    let Some(text) = files.text("proc/pressure/cpu") else {
        return Check::new("pressure", State::Unknown, "no /proc/pressure/cpu");
    };
    let some = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))
        .and_then(|number| number.parse::<f64>().ok())
        .unwrap_or(0.0);
    let evidence = format!("PSI: some task waited for a CPU {some:.0}% of the last 10 s");
    if some >= 5.0 {
        Check::new("pressure", State::Bad, evidence)
            .effect("threads wait for CPUs that others use")
            .fix("stop the other work, or: --wait yield")
    } else {
        Check::new("pressure", State::Ok, evidence)
    }
}

fn steal(machine: &Machine, files: &Files<'_>) -> Check {
    if machine.hypervisor.is_none() {
        return Check::new("steal", State::Absent, "no hypervisor");
    }
    let share = files.text("proc/stat").and_then(|text| {
        let numbers: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok())
            .collect();
        let steal = *numbers.get(7)?;
        Some(super::clock::ratio(steal, numbers.iter().take(8).sum()))
    });
    match share {
        None => Check::new("steal", State::Unknown, "no steal in /proc/stat"),
        Some(share) if share > 0.01 => Check::new(
            "steal",
            State::Bad,
            format!(
                "{:.1}% of all CPU time since boot was stolen",
                share * 100.0
            ),
        )
        .effect("the host runs others on these CPUs: pauses nobody here can see coming")
        .fix("a dedicated host, or CPUs pinned by the hypervisor"),
        Some(share) => Check::new(
            "steal",
            State::Ok,
            format!(
                "{:.2}% of all CPU time since boot was stolen",
                share * 100.0
            ),
        ),
    }
}

/// Where the interrupts of devices are allowed to go.
fn interrupts(files: &Files<'_>) -> Check {
    let Some(text) = files.text("proc/interrupts") else {
        return Check::new("irq", State::Unknown, "no /proc/interrupts");
    };
    let mut busiest: Option<(u64, usize, String, String)> = None;
    for line in text.lines().skip(1) {
        let Some((irq, rest)) = line.split_once(':') else {
            continue;
        };
        if irq.trim().parse::<u32>().is_err() {
            continue;
        }
        let counts: Vec<u64> = rest
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        let name = rest.split_whitespace().last().unwrap_or("?");
        for (cpu, &count) in counts.iter().enumerate() {
            if busiest.as_ref().is_none_or(|(most, ..)| count > *most) {
                busiest = Some((count, cpu, irq.trim().to_owned(), name.to_owned()));
            }
        }
    }
    match busiest {
        Some((count, cpu, irq, name)) if count > 10_000 => Check::new(
            "irq",
            State::Warn,
            format!(
                "{name} (irq {irq}) has fired {} times on cpu{cpu}",
                show_count(count)
            ),
        )
        .effect("a few µs each")
        .fix(format!(
            "echo another CPU's mask > /proc/irq/{irq}/smp_affinity"
        )),
        _ => Check::new("irq", State::Ok, "no device interrupts to speak of"),
    }
}

fn clock_checks(clock: &Clock, files: &Files<'_>) -> Vec<Check> {
    let source = match clock.source() {
        Source::Monotonic => Check::new(
            "counter",
            State::Warn,
            "no invariant counter: clock_gettime",
        )
        .effect("a read costs 20-60 ns and cannot be ordered"),
        source => Check::new(
            "counter",
            State::Ok,
            format!(
                "{} at {:.3} MHz, calibrated to ±{:.2} ppm",
                source.name(),
                clock.hz() / 1e6,
                clock.error_ppm()
            ),
        ),
    };
    let system = match files.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    {
        None => Check::new(
            "clocksource",
            State::Unknown,
            "the kernel does not name one",
        ),
        Some(name) if matches!(name.as_str(), "tsc" | "arch_sys_counter" | "kvm-clock") => {
            Check::new("clocksource", State::Ok, name)
        }
        Some(name) => Check::new("clocksource", State::Warn, name)
            .effect("Instant::now is a slow call here")
            .fix("kernel command line: tsc=reliable clocksource=tsc, if the TSC is invariant"),
    };
    vec![source, system]
}

fn memory_checks(files: &Files<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let thp = files.text("sys/kernel/mm/transparent_hugepage/enabled");
    checks.push(match thp.as_deref().and_then(bracketed) {
        None => Check::new(
            "thp",
            State::Unknown,
            "no transparent huge pages to be seen",
        ),
        Some("never") => Check::new("thp", State::Warn, "never")
            .effect(
                "a ring above 2 MiB misses the TLB; --mem thp and huge_pages = true get nothing",
            )
            .fix("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        Some(mode) => Check::new(
            "thp",
            State::Ok,
            format!("{mode}: --mem thp, and huge_pages = true of an engine, ask for them"),
        ),
    });
    checks.push(match files.number("proc/sys/vm/nr_hugepages") {
        None => Check::new(
            "hugepages",
            State::Unknown,
            "vm.nr_hugepages cannot be read",
        ),
        Some(0) => Check::new("hugepages", State::Warn, "vm.nr_hugepages = 0")
            .effect("no reserved huge pages: transparent ones, or 4 KiB")
            .fix("sysctl vm.nr_hugepages=64"),
        Some(pages) => Check::new("hugepages", State::Ok, format!("{pages} reserved")),
    });
    checks.push(memlock(files));
    checks.push(match files.number("proc/sys/kernel/numa_balancing") {
        None => Check::new(
            "numa_balancing",
            State::Absent,
            "not built into this kernel",
        ),
        Some(0) => Check::new("numa_balancing", State::Ok, "off"),
        Some(_) => Check::new("numa_balancing", State::Warn, "kernel.numa_balancing is on")
            .effect("pages are unmapped now and then to see who uses them: faults of some µs")
            .fix("sysctl kernel.numa_balancing=0"),
    });
    let swaps = files.text("proc/swaps").unwrap_or_default().lines().count();
    checks.push(if swaps > 1 {
        Check::new("swap", State::Warn, format!("{} swap areas", swaps - 1))
            .effect("a ring that is not locked may be paged out")
            .fix("swapoff -a, or --mlock, and lock_memory = true of an engine")
    } else {
        Check::new("swap", State::Ok, "none")
    });
    checks.push(match files.number("sys/kernel/mm/ksm/run") {
        Some(1) => Check::new("ksm", State::Warn, "KSM merges pages")
            .effect("a write to a merged page faults")
            .fix("echo 2 > /sys/kernel/mm/ksm/run"),
        _ => Check::new("ksm", State::Ok, "off"),
    });
    checks
}

fn memlock(files: &Files<'_>) -> Check {
    let limits = files.text("proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let Some(soft) = line.and_then(|line| line.split_whitespace().nth(3)) else {
        return Check::new("memlock", State::Unknown, "no limit to be seen");
    };
    match soft.parse::<u64>() {
        Err(_) => Check::new("memlock", State::Ok, soft),
        Ok(bytes) if bytes >= 64 << 20 => Check::new("memlock", State::Ok, show_bytes(bytes)),
        Ok(bytes) => Check::new(
            "memlock",
            State::Warn,
            format!("{} may be locked", show_bytes(bytes)),
        )
        .effect("rings larger than that refuse --mlock, and lock_memory = true of an engine")
        .fix("ulimit -l unlimited, or LimitMEMLOCK=infinity"),
    }
}

/// The chosen one of `always [madvise] never`.
fn bracketed(text: &str) -> Option<&str> {
    text.split('[').nth(1)?.split(']').next()
}

fn kernel_checks(machine: &Machine, files: &Files<'_>) -> Vec<Check> {
    let version = files.text("proc/version").unwrap_or_default();
    let preemption = if version.contains("PREEMPT_RT") {
        "PREEMPT_RT"
    } else if version.contains("PREEMPT_DYNAMIC") {
        "PREEMPT_DYNAMIC"
    } else if version.contains("PREEMPT") {
        "PREEMPT"
    } else {
        "no preemption named"
    };
    vec![
        Check::new(
            "kernel",
            State::Ok,
            format!("{}, {preemption}", machine.kernel),
        ),
        mitigations(files),
        realtime(machine, files),
        match files.number("proc/sys/kernel/nmi_watchdog") {
            Some(1) => Check::new("watchdog", State::Warn, "kernel.nmi_watchdog = 1")
                .effect("takes a hardware counter and an interrupt every few seconds")
                .fix("sysctl kernel.nmi_watchdog=0"),
            Some(_) => Check::new("watchdog", State::Ok, "off"),
            None => Check::new(
                "watchdog",
                State::Unknown,
                "kernel.nmi_watchdog cannot be read",
            ),
        },
    ]
}

fn mitigations(files: &Files<'_>) -> Check {
    let command_line = files.text("proc/cmdline").unwrap_or_default();
    if command_line
        .split(' ')
        .any(|word| word == "mitigations=off")
    {
        return Check::new("mitigations", State::Ok, "off by the kernel command line");
    }
    let names = [
        "spectre_v2",
        "retbleed",
        "mds",
        "meltdown",
        "spec_rstack_overflow",
    ];
    let active: Vec<&str> = names
        .into_iter()
        .filter(|name| {
            let path = format!("sys/devices/system/cpu/vulnerabilities/{name}");
            files
                .text(&path)
                .is_some_and(|text| text.starts_with("Mitigation"))
        })
        .collect();
    let check = Check::new("mitigations", State::Ok, "none that matter");
    if active.is_empty() {
        return check;
    }
    Check {
        evidence: format!("on: {}", active.join(", ")),
        effect: "system calls (parking, syncs, sockets) cost more; spinning does not".to_owned(),
        ..check
    }
}

/// Since 6.12 other tasks get 50 ms of every second whatever a real-time thread does.
fn realtime(machine: &Machine, files: &Files<'_>) -> Check {
    let mut numbers = machine
        .kernel
        .split('.')
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 12) {
        return Check::new(
            "fairserver",
            State::Warn,
            format!("kernel {}", machine.kernel),
        )
        .effect(
            "SCHED_FIFO threads lose up to 50 ms of each second if anything else wants their CPU",
        )
        .fix("isolate the CPU instead; or /sys/kernel/debug/sched/fair_server/cpuN/runtime = 0");
    }
    match files.text("proc/sys/kernel/sched_rt_runtime_us").as_deref() {
        Some("-1") => Check::new(
            "fairserver",
            State::Ok,
            "no throttling of real-time threads",
        ),
        Some(runtime) => Check::new(
            "fairserver",
            State::Warn,
            format!("sched_rt_runtime_us = {runtime}"),
        )
        .effect("SCHED_FIFO threads that spin are stopped for 50 ms of each second")
        .fix("sysctl kernel.sched_rt_runtime_us=-1"),
        None => Check::new("fairserver", State::Unknown, "no sched_rt_runtime_us"),
    }
}

fn build_check() -> Check {
    if cfg!(debug_assertions) {
        Check::new("build", State::Bad, "debug build")
            .effect("latencies are 10-50x too high")
            .fix("cargo run --release")
    } else {
        Check::new(
            "build",
            State::Ok,
            format!("release, {}", std::env::consts::ARCH),
        )
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

//! What of the clock, the kernel and this build speaks against measuring.

use super::{Check, State};
use crate::machine::clock::{Clock, Source};
use crate::machine::cpus::{Files, Machine};

pub(super) fn clock_checks(clock: &Clock, files: &Files<'_>) -> Vec<Check> {
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

pub(super) fn kernel_checks(machine: &Machine, files: &Files<'_>) -> Vec<Check> {
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

pub(super) fn build_check() -> Check {
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

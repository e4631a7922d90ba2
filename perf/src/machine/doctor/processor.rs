//! What of the CPUs speaks against measuring: how many there are, whose, and who else is on them.

use super::{Check, State};
use crate::args::quantity::show_count;
use crate::machine::cpu_list;
use crate::machine::cpus::{Files, Machine};

pub(super) fn cpu_checks(machine: &Machine, files: &Files<'_>) -> Vec<Check> {
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
        Some(crate::machine::clock::ratio(
            steal,
            numbers.iter().take(8).sum(),
        ))
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

//! What of the memory speaks against measuring: pages, limits, and who moves them.

use super::{Check, State};
use crate::args::quantity::show_bytes;
use crate::machine::cpus::Files;

pub(super) fn memory_checks(files: &Files<'_>) -> Vec<Check> {
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
pub(super) fn bracketed(text: &str) -> Option<&str> {
    text.split('[').nth(1)?.split(']').next()
}

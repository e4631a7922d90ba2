//! What to say about the machine next to a figure.

use std::fs;
use std::process::Command;

use crate::place::Place;

/// Name and value of what a reader of the figures wants to know.
pub(crate) fn description(place: &Place) -> Vec<(&'static str, String)> {
    vec![
        ("cpu", cpu()),
        ("os", os()),
        ("file system", place.medium.clone()),
        ("compiler", run("rustc", &["--version"])),
        ("commit", run("git", &["describe", "--always", "--dirty"])),
    ]
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{count} CPUs, {model}")
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim())
}

fn run(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

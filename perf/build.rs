//! Tells the program what it was built from, for its results.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("--no-optional-locks")
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_default();
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    println!("cargo:rustc-env=LOCKSTEP_GIT={commit}");
    println!("cargo:rustc-env=LOCKSTEP_DIRTY={}", !changed.is_empty());
    for (name, variable) in [("PROFILE", "PROFILE"), ("TARGET", "TARGET")] {
        let value = std::env::var(variable).unwrap_or_default();
        println!("cargo:rustc-env=LOCKSTEP_{name}={value}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    // Without a repository there is nothing to watch, and a missing path would mean: always.
    let log = "../.git/logs/HEAD";
    if Path::new(log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
}

//! Runs the program and keeps what it said.

use std::process::Command;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it with these arguments, split at spaces, in a directory of its own.
pub(crate) fn lockstep(arguments: &str) -> Ran {
    lockstep_args(&arguments.split_whitespace().collect::<Vec<_>>())
}

/// Runs it with these arguments.
pub(crate) fn lockstep_args(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

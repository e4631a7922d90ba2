//! The program `lockstep`: run, measure, tune and examine.
//!
//! `main` is the story: read the command line, hand it to the verb, turn what came back into
//! an exit code. Each verb is a file in [`verb`].

mod verb;

use std::io::Write as _;
use std::process::ExitCode;

use lockstep_perf::exit::{Exit, Refusal, one_line};

fn main() -> ExitCode {
    let cli = match verb::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            return match error.downcast_ref::<clap::Error>() {
                Some(error) => usage(error),
                None => explain(&error).into(),
            };
        }
    };
    match verb::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => explain(&error).into(),
    }
}

/// Lets clap print its message or its help, and keeps the exit codes ours.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr must not turn into a second error.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

/// Prints what went wrong to stderr and says which exit code it means.
fn explain(error: &anyhow::Error) -> Exit {
    if verb::is_closed_pipe(error) {
        return Exit::Done;
    }
    let mut stderr = std::io::stderr().lock();
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let _ = writeln!(stderr, "error: {refusal}");
        return refusal.exit;
    }
    let _ = writeln!(stderr, "error: {}", one_line(error));
    Exit::Failed
}

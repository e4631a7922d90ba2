//! `lockstep completions`: what a shell needs to complete our command line.

use std::io::{self, Write as _};

use clap_complete::Shell;
use lockstep_perf::exit::Exit;

use super::Global;

/// Arguments of `lockstep completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lockstep completions bash > ~/.local/share/bash-completion/completions/lockstep\n\n\
                  Exit codes: 0 done · 2 no such shell"
)]
pub(crate) struct Args {
    /// Whose completions
    shell: Shell,
}

/// Prints them.
pub(crate) fn run(args: &Args, _: &Global) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "lockstep", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

//! `lockstep man`: the man pages, made from the same definition as `--help`.

use std::io::{self, Write as _};

use lockstep_perf::exit::{Exit, Refusal};

use super::Global;

/// Arguments of `lockstep man`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep man | man -l -\n  lockstep man latency > lockstep-latency.1\n\n\
                        Exit codes: 0 done · 2 no such verb"
)]
pub(crate) struct Args {
    /// The page of one verb; without it, the program's
    verb: Option<String>,
}

/// Prints a page.
pub(crate) fn run(args: &Args, _: &Global) -> anyhow::Result<Exit> {
    let mut command = super::command();
    command.build();
    let page = match &args.verb {
        None => command,
        Some(name) => match command.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                return Err(Refusal::usage(
                    format!("there is no verb {name:?}"),
                    "lockstep --help lists them",
                )
                .into());
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    io::stdout().write_all(&text)?;
    Ok(Exit::Done)
}

//! The verbs: one file each, with its arguments, its help and its `run`.
//!
//! To add one: a file here with a `#[derive(clap::Args)] struct Args` and a
//! `fn run(args: &Args, global: &Global) -> anyhow::Result<Exit>`, one line in [`Verb`] and
//! one in [`run`].

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "clap prints these comments as they stand: `[:N]` is an option there, and no link"
)]

mod bench;
mod beside;
mod browser;
mod c2c;
mod client;
mod cluster;
mod compare;
mod completions;
mod config;
mod doctor;
mod drill;
mod ear;
mod export;
mod flags;
mod hiccup;
mod journal;
mod latency;
mod man;
mod node;
mod paint;
mod plot;
mod quick;
mod replay;
mod run;
mod throughput;
mod top;
mod tune;

use std::ffi::OsString;
use std::io;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use lockstep_perf::args::quantity::Units;
use lockstep_perf::exit::Exit;

use paint::When;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "lockstep",
    version,
    about = "Run, measure, tune and examine event-sourced pipelines",
    after_help = "Exit codes: 0 done · 1 failed · 2 bad command line · 3 result cannot carry the claim · \
                  4 claim tested and missed · 5 data corrupt · 6 environment refuses · 130 interrupted",
    max_term_width = 80
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What every verb understands.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global")]
pub(crate) struct Global {
    /// json: the result document on stdout and nothing else
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Print no result, as --format quiet does: the exit code is the answer
    #[arg(short, long, global = true, conflicts_with = "format")]
    pub(crate) quiet: bool,
    /// Colour of verdicts; NO_COLOR is heeded
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub(crate) color: When,
    /// Unit of latencies in text
    #[arg(long, global = true, value_enum, default_value_t = UnitsFlag::Auto)]
    pub(crate) units: UnitsFlag,
    /// Defaults from a TOML file, as tune writes; flags and LOCKSTEP_<FLAG> win
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// What was typed of verbs: `journal verify`.
    #[arg(skip)]
    pub(crate) verb: String,
}

/// Units of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnitsFlag {
    /// Whichever suits.
    Auto,
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
}

impl From<UnitsFlag> for Units {
    fn from(flag: UnitsFlag) -> Self {
        match flag {
            UnitsFlag::Auto => Self::Auto,
            UnitsFlag::Ns => Self::Nanoseconds,
            UnitsFlag::Us => Self::Microseconds,
            UnitsFlag::Ms => Self::Milliseconds,
        }
    }
}

#[cfg(test)]
impl Global {
    /// What a test of a verb has that prints nothing.
    pub(crate) fn silent() -> Self {
        Self {
            format: Format::Quiet,
            quiet: true,
            color: When::Never,
            units: UnitsFlag::Auto,
            config: None,
            verb: String::new(),
        }
    }
}

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// Nothing; the exit code is the answer.
    Quiet,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the exchange on order flow: a file or a generator, journaled and gated
    Run(run::Args),
    /// Go through a log again: to a position or a time, at its own pace, beside another version
    Replay(replay::Args),
    /// Where a running engine is: positions, who waits for whom, syncs
    Top(top::Args),
    /// Doctor, floor and latency at three rates: what happens without a verb, about 15 s
    Quick(quick::Args),
    /// Response of a pipeline at a fixed rate, from the intended send times
    Latency(latency::Args),
    /// Events a second, as many as go; with --search, as many as keep an objective
    Throughput(throughput::Args),
    /// Try configurations on this machine; recommend one or say that it cannot tell
    Tune(tune::Args),
    /// Are two results different, or is it this machine? Exit code 4 on a regression
    Compare(compare::Args),
    /// The platform's pauses, as spinning threads see them
    Hiccup(hiccup::Args),
    /// What a message costs from each CPU to each other
    C2c(c2c::Args),
    /// What about this machine speaks against measuring on it; changes nothing
    Doctor(doctor::Args),
    /// Results as a page, as SVG, or in the terminal
    Plot(plot::Args),
    /// Results as hgrm, hlog or CSV
    Export(export::Args),
    /// Examine, prove, mend and move what a journal wrote
    Journal(journal::Args),
    /// Three processes under load, and what happens to the one that leads: is anything lost?
    Drill(drill::Args),
    /// Trade with a cluster over TCP: every order answered exactly once, and how long it took
    Client(client::Args),
    /// What a cluster is, and changes of it
    Cluster(cluster::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
    /// Print the man page
    Man(man::Args),
}

/// Reads a command line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Cli> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = config::with_file(command(), &arguments)?;
    let command = command.color(colour_of(&arguments).into());
    let matches = command.try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.global.verb = verbs_of(&matches);
    if cli.global.quiet {
        cli.global.format = Format::Quiet;
    }
    Ok(cli)
}

/// The verbs that were typed, one behind the other.
fn verbs_of(matches: &clap::ArgMatches) -> String {
    let mut verbs: Vec<&str> = Vec::new();
    let mut at = matches;
    // Ends: each turn goes one verb down.
    while let Some((verb, below)) = at.subcommand() {
        verbs.push(verb);
        at = below;
    }
    verbs.join(" ")
}

/// What `--color` says, before the command line is read: errors of reading it have colours too.
fn colour_of(arguments: &[OsString]) -> When {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let apart = words
        .windows(2)
        .filter(|pair| pair[0] == "--color")
        .map(|pair| pair[1]);
    let joined = words
        .iter()
        .filter_map(|word| word.strip_prefix("--color="));
    let said = apart.chain(joined).last().map(str::to_owned);
    let said = said.or_else(|| std::env::var("LOCKSTEP_COLOR").ok());
    said.and_then(|word| When::from_str(&word, true).ok())
        .unwrap_or(When::Auto)
}

/// The command line's definition, from which help, completions and man page come.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    with_environment(command.mut_subcommand("tune", tune::resumed_as_it_was))
}

/// Gives every flag its `LOCKSTEP_<FLAG>`.
fn with_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_long() {
            Some(long) if !matches!(long, "help" | "version") => {
                let name = format!("LOCKSTEP_{}", long.to_uppercase().replace('-', "_"));
                argument.env(name).hide_env(true)
            }
            _ => argument,
        })
        .mut_subcommands(with_environment)
}

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.verb {
        None => quick::run(&quick::Args::default(), &cli.global),
        Some(Verb::Run(args)) => run::run(&args, &cli.global),
        Some(Verb::Replay(args)) => replay::run(&args, &cli.global),
        Some(Verb::Top(args)) => top::run(&args, &cli.global),
        Some(Verb::Quick(args)) => quick::run(&args, &cli.global),
        Some(Verb::Latency(args)) => latency::run(&args, &cli.global),
        Some(Verb::Throughput(args)) => throughput::run(&args, &cli.global),
        Some(Verb::Tune(args)) => tune::run(&args, &cli.global),
        Some(Verb::Compare(args)) => compare::run(&args, &cli.global),
        Some(Verb::Hiccup(args)) => hiccup::run(&args, &cli.global),
        Some(Verb::C2c(args)) => c2c::run(&args, &cli.global),
        Some(Verb::Doctor(args)) => doctor::run(&args, &cli.global),
        Some(Verb::Plot(args)) => plot::run(&args, &cli.global),
        Some(Verb::Export(args)) => export::run(&args, &cli.global),
        Some(Verb::Drill(args)) => drill::run(&args, &cli.global),
        Some(Verb::Client(args)) => client::run(&args, &cli.global),
        Some(Verb::Cluster(args)) => cluster::run(&args, &cli.global),
        Some(Verb::Completions(args)) => completions::run(&args, &cli.global),
        Some(Verb::Man(args)) => man::run(&args, &cli.global),
        Some(Verb::Journal(args)) => journal::run(&args, &cli.global),
    }
}

/// Whether the reader of our stdout has gone away, as in `lockstep … | head`.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_that_were_typed_are_known() {
        let typed = ["lockstep", "journal", "verify", "./x"].map(OsString::from);
        assert_eq!(parse(typed).unwrap().global.verb, "journal verify");
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        command().debug_assert();
    }
}

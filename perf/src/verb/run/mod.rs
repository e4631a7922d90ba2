//! `lockstep run`: the exchange on an engine, fed with order flow from a file or a generator.
//!
//! ```text
//!   file ─► loader ─► producer ─► order ─► journal ─► logic ─► egress ─► outputs, counts, times
//!                       └ paced (--rate), or as fast as it goes
//! ```
//!
//! A load that ended early (a signal, a crash, `kill -9`) is gone on with by the same command:
//! the last event in the log is found in the file, and what follows it is loaded.

pub(super) mod engine;
pub(super) mod held;
mod load;
pub(super) mod outputs;
mod sink;
mod source;
mod summary;
pub(super) mod tally;

use std::path::PathBuf;

use lockstep_engine::{GateAt, JournalMode};
use lockstep_perf::args::quantity::rate;
use lockstep_perf::exit::{Exit, Refusal};

use super::Global;
use super::ear::Loud;
use super::flags::{Pages, check_directory};
pub(super) use source::day;
use source::{FormatFlag, Load, OnBadFlag};

/// Arguments of `lockstep run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        lockstep run --load generator:seed=7,count=1M --dir ./x\n  \
        lockstep run --load AAPL_message_10.csv --dir ./x --outputs ./x.jsonl\n  \
        lockstep run --load 01302019.NASDAQ_ITCH50.gz --dir ./x --bounds orders=4Mi,instruments=16Ki\n  \
        lockstep run --load orders.csv.xz --dir ./x --rate 100k --format json\n  \
        lockstep run --node node1.toml --log warn\n\n\
        The same command again goes on behind what is in the log. lockstep replay DIR goes through it \
        again, lockstep journal examines it, lockstep top DIR watches a run.\n\n\
        Exit codes: 0 loaded · 1 failed, or a bad row with --on-bad stop · 2 bad command line or \
        configuration, another load's journal · 5 journal corrupt · 6 in use · 130 interrupted: drained, \
        the summary is of what was loaded")]
pub(crate) struct Args {
    /// FILE (LOBSTER, ITCH 5.0, DBN or Bitstamp L3; gz, xz, zst), or
    /// generator[:seed=N,count=N,instruments=N,rate=N,resting=N]
    #[arg(long, value_name = "SOURCE", required_unless_present = "node")]
    load: Option<Load>,
    /// Where the journal is, or will be
    #[arg(long, value_name = "DIR", required_unless_present_any = ["journal", "node"])]
    dir: Option<PathBuf>,
    /// One node of a cluster, as this TOML file says it, until SIGTERM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["load", "dir"])]
    node: Option<PathBuf>,
    /// How much of what the engine has to say goes to stderr
    #[arg(long, value_enum, default_value_t = Loud::Info, value_name = "LEVEL")]
    log: Loud,
    #[command(flatten)]
    load_flags: LoadFlags,
    #[command(flatten)]
    engine_flags: EngineFlags,
}

impl Args {
    fn load(&self) -> &Load {
        let load = self.load.as_ref();
        load.expect("clap asks for --load where --node is not there")
    }
}

/// How the load is read and sent.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadFlags {
    /// The file's format; by its name unless told
    #[arg(long, value_enum, value_name = "FORMAT")]
    load_format: Option<FormatFlag>,
    /// What happens at a row that cannot be read
    #[arg(long, value_enum, default_value_t = OnBadFlag::Skip)]
    on_bad: OnBadFlag,
    /// Over how many accounts orders are spread
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    accounts: u32,
    /// The day of a file that counts from midnight: YYYY-MM-DD
    #[arg(long, value_parser = day, value_name = "DAY")]
    day: Option<u64>,
    /// Events a second, by a fixed schedule; latencies count from it. Unless told: as fast as
    /// it goes
    #[arg(long, value_parser = rate, value_name = "N")]
    rate: Option<u64>,
    /// Load behind what another load left in the directory
    #[arg(long)]
    append: bool,
    /// What comes out, into a file: .bin as it is, else a line of JSON each
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
}

/// What the engine and the exchange are started with.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineFlags {
    /// What is promised before an event counts
    #[arg(long, value_enum, value_name = "MODE")]
    journal: Option<JournalFlag>,
    /// What waits for that promise
    #[arg(long, value_enum, value_name = "STAGE")]
    gate: Option<GateFlag>,
    /// What the exchange of a new directory holds: orders=1Mi,accounts=64Ki,instruments=4Ki,
    /// holdings=1Mi,sessions=16Ki
    #[arg(long, value_name = "LIST")]
    bounds: Option<held::BoundsFlag>,
    /// Sync on a file system that forgets at a power cut
    #[arg(long)]
    allow_volatile: bool,
    /// What lies below the rings; unless told as the configuration says, else pages of the usual
    /// size
    #[arg(long, value_enum, value_name = "PAGES")]
    mem: Option<Pages>,
    /// Keep the rings in memory; refused where they cannot be locked
    #[arg(long)]
    mlock: bool,
}

/// `--journal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum JournalFlag {
    /// Durable by fdatasync before the logic sees it
    Sync,
    /// The same past the page cache
    Direct,
    /// Written; synced within 100 ms or 16 MiB
    Async,
    /// No journal: nothing is kept, --dir is not needed
    None,
}

impl From<JournalFlag> for JournalMode {
    fn from(flag: JournalFlag) -> Self {
        match flag {
            JournalFlag::Sync => Self::Sync,
            JournalFlag::Direct => Self::Direct,
            JournalFlag::Async => Self::Async,
            JournalFlag::None => Self::None,
        }
    }
}

/// `--gate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GateFlag {
    /// The logic
    Logic,
    /// Outputs only; the logic runs ahead
    Output,
}

impl From<GateFlag> for GateAt {
    fn from(flag: GateFlag) -> Self {
        match flag {
            GateFlag::Logic => Self::Logic,
            GateFlag::Output => Self::Output,
        }
    }
}

/// Loads, and says what came of it.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    if let Some(file) = &args.node {
        return super::node::run(file, args.log, global);
    }
    let config = engine::config(&args.engine_flags, global)?;
    let directory = match (&args.dir, config.journal) {
        (Some(dir), JournalMode::None) => {
            return Err(Refusal::usage(
                format!(
                    "--journal none keeps nothing, and --dir {} asks for it",
                    dir.display()
                ),
                "leave one of them out",
            )
            .into());
        }
        (None, JournalMode::None) => None,
        (None, _) => {
            return Err(Refusal::usage(
                "--dir is missing: where the journal is to be",
                "--dir ./x, or --journal none to keep nothing",
            )
            .into());
        }
        (Some(dir), _) => {
            check_directory("--dir", dir)?;
            Some(dir.as_path())
        }
    };
    load::run(args, global, config, directory)
}

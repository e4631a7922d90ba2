//! The flags that the measuring verbs share, as they were typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_engine::{GateAt, JournalMode, JournalThread};
use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::{count, duration, show_bytes, span};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::wish::{Log, Pin, Place, Policy, Waits};
use lockstep_perf::exit::Refusal;
use lockstep_perf::machine::cpus::Machine;
use lockstep_perf::machine::realtime::Realtime;
use lockstep_perf::pipeline::memory;
use lockstep_perf::report::result::Document;
use lockstep_perf::report::store;
use lockstep_ringbuffer::Memory;

use super::browser;

/// A [`count`] that fits an index.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    usize::try_from(count(text)?).map_err(|_| format!("{text:?} is too large"))
}

/// `5%`, as 0.05.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(number) if (0.0..=1000.0).contains(&number) => Ok(number / 100.0),
        _ => Err(format!("{text:?} is no share, as in 5%")),
    }
}

/// The nearest of the paths above that is there: where a new directory would lie.
pub(crate) fn existing(path: &Path) -> PathBuf {
    let mut above = path.ancestors().filter(|path| path.exists());
    above
        .next()
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Refuses a file where a directory is wanted, or below one.
pub(crate) fn check_directory(flag: &str, path: &Path) -> Result<(), Refusal> {
    let found = existing(path);
    if found.is_dir() {
        return Ok(());
    }
    Err(Refusal::usage(
        format!(
            "{flag} {}: {} is a file, and a directory is wanted",
            path.display(),
            found.display()
        ),
        format!("{flag} DIR; it is made if it is not there"),
    ))
}

/// `--mem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pages {
    /// Pages of the usual size
    #[value(name = "4k")]
    Small,
    /// Transparent huge pages, where the kernel grants them
    #[value(name = "thp")]
    Huge,
}

/// What runs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pipeline")]
pub(crate) struct PipelineFlags {
    /// full (the engine: order, journal, logic, egress) | plain rings: spsc | pipeline:N |
    /// diamond | fanout:N | mpsc:N
    #[arg(long, default_value = "full", value_name = "NAME")]
    pub(crate) topology: Shape,
    /// What the engine's journal promises: none | async | sync | direct
    #[arg(long, default_value = "sync", value_parser = Log::mode, value_name = "MODE")]
    pub(crate) journal: JournalMode,
    /// Where the journal is kept while it is measured; the system's temporary directory
    /// unless told
    #[arg(long, value_name = "DIR")]
    pub(crate) journal_dir: Option<PathBuf>,
    /// Where a sync blocks: inline, on the thread of journal; worker, a thread of its own; auto,
    /// as the engine does: on its own where there is more than one CPU
    #[arg(long, default_value = "auto", value_parser = Log::thread, value_name = "WHERE")]
    pub(crate) journal_thread: JournalThread,
    /// Who waits for the journal's promise: logic | output
    #[arg(long, default_value = "logic", value_parser = Log::gate, value_name = "STAGE")]
    pub(crate) gate: GateAt,
    /// Split the way of an event by stages; what that costs is printed
    #[arg(long)]
    pub(crate) stages: bool,
    /// Slots, a power of two
    #[arg(long, default_value = "64Ki", value_parser = size, value_name = "N")]
    pub(crate) ring: usize,
    /// Bytes of an event: 64, 128, 256, 512, 1024 or 4096; in plain rings 16 and 32 too
    #[arg(long, default_value = "64", value_parser = size, value_name = "BYTES")]
    pub(crate) event_size: usize,
    /// Most events that a stage takes in one turn; unless told 256, and with the engine a quarter
    /// of its ring
    #[arg(long, value_parser = size, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// What lies below the rings: pages of the usual size, or transparent huge ones
    #[arg(long, value_enum, default_value_t = Pages::Small, value_name = "PAGES")]
    pub(crate) mem: Pages,
    /// Keep the rings in memory; refused where they cannot be locked
    #[arg(long)]
    pub(crate) mlock: bool,
    /// Events published at once
    #[arg(long, default_value = "1", value_parser = size, value_name = "N")]
    pub(crate) claim: usize,
    /// Let the last stage work so long on each event, as logic would
    #[arg(long, default_value = "0", value_parser = duration, value_name = "DUR")]
    pub(crate) work: Duration,
    /// spin | spin-pause[:N] | yield[:SPINS] | backoff[:S,Y,NS] | park | auto; by role:
    /// stage0=spin,producer=yield
    #[arg(long, default_value = "auto", value_name = "SPEC")]
    pub(crate) wait: Waits,
    /// Which stages share a thread: auto | 'stage0+stage1,stage2'
    #[arg(long, default_value = "auto", value_name = "SPEC")]
    pub(crate) place: Place,
    /// Where threads run: auto | none | LIST (as taskset: 0,2-5,8-15:2, !0 leaves out) |
    /// role=LIST,... with the roles producer0, order, journal, logic, egress; stage0, ...
    #[arg(long, default_value = "auto", value_name = "SPEC")]
    pub(crate) pin: String,
    /// Which CPUs --pin auto takes: near | far | smt | l3 | node:N
    #[arg(long, default_value = "near", value_name = "POLICY")]
    pub(crate) pin_policy: Policy,
    /// Let threads that spin share a core
    #[arg(long)]
    pub(crate) allow_smt: bool,
    /// Run before the tasks of others: none | fifo:PRIO | rr:PRIO; where a CPU is shared the kernel
    /// still gives them up to 50 ms of each second, at once
    #[arg(long, default_value = "none", value_name = "CLASS")]
    pub(crate) rt: Realtime,
    /// A CPU that may not be used is left out with a warning
    #[arg(long)]
    pub(crate) pin_best_effort: bool,
    /// Go on with more spinning threads than CPUs
    #[arg(long)]
    pub(crate) insist: bool,
    /// Go on in a debug build
    #[arg(long)]
    pub(crate) allow_debug: bool,
}

impl PipelineFlags {
    pub(crate) fn wishes(&self, machine: &Machine) -> Result<Wishes, Refusal> {
        Ok(Wishes {
            shape: self.topology,
            ring: self.ring,
            event_size: self.event_size,
            batch: self.batch,
            claim: self.claim,
            work: self.work,
            waits: self.wait.clone(),
            place: self.place.clone(),
            pin: Pin::parse(&self.pin, &machine.allowed)?,
            policy: self.pin_policy,
            allow_smt: self.allow_smt,
            pin_best_effort: self.pin_best_effort,
            memory: Memory {
                huge_pages: self.mem == Pages::Huge,
                lock: self.mlock,
            },
            log: Log {
                mode: self.journal,
                gate: self.gate,
                thread: self.journal_thread,
                directory: self.journal_dir.clone(),
            },
            stages: self.stages,
            insist: self.insist,
        })
    }

    /// What was granted of `--mem` and `--mlock`, said and kept in the result; refused where rings
    /// that are to stay in memory cannot.
    pub(crate) fn take_memory(
        &self,
        plan: &Plan,
        document: &mut Document,
    ) -> Result<String, Refusal> {
        if plan.memory == Memory::default() {
            return Ok(String::new());
        }
        let report = memory::granted(plan).map_err(|error| {
            Refusal::environment(
                format!("--mlock: {error}"),
                "lockstep doctor shows the limit; a smaller --ring wants less",
            )
        })?;
        let pages = match (plan.memory.huge_pages, report.huge_pages) {
            (true, true) => ", huge pages granted",
            (true, false) => ", huge pages refused by the kernel",
            (false, _) => "",
        };
        let locked = if report.locked { ", locked" } else { "" };
        let granted = format!("{} a ring{pages}{locked}", show_bytes(report.bytes as u64));
        let line = format!("memory   {granted}\n");
        document.config.insert("memory".to_owned(), granted.into());
        Ok(line)
    }

    /// Takes the class of `--rt`, says so, and keeps it in the result.
    pub(crate) fn go_before_others(&self, document: &mut Document) -> Result<String, Refusal> {
        if self.rt == Realtime::None {
            return Ok(String::new());
        }
        self.rt.take()?;
        document
            .config
            .insert("rt".to_owned(), self.rt.to_string().into());
        Ok(format!(
            "rt       {}: a shared CPU still goes to others for up to 50 ms of a second\n",
            self.rt
        ))
    }

    pub(crate) fn plan(&self, machine: &Machine) -> Result<Plan, Refusal> {
        Plan::resolve(&self.wishes(machine)?, machine)
    }
}

/// How long and how often.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Phases")]
pub(crate) struct PhaseFlags {
    /// At the measured rate, discarded
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "DUR")]
    pub(crate) warmup: Duration,
    /// Measured time of each run
    #[arg(long, default_value = "10s", value_parser = span, value_name = "DUR")]
    pub(crate) duration: Duration,
    /// Runs, each with fresh threads and a fresh ring
    #[arg(long, default_value = "3", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// The platform's floor on the same CPUs, before and after; 0 leaves it out
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DUR")]
    pub(crate) floor: Duration,
    /// Slice of the time series
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DUR")]
    pub(crate) interval: Duration,
    /// Wait for events in flight at the end
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "DUR")]
    pub(crate) drain: Duration,
}

/// What becomes of the result.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Result")]
pub(crate) struct ResultFlags {
    /// A name to find it by
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) label: String,
    /// Where results are kept
    #[arg(long, default_value = store::DIRECTORY, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Keep nothing
    #[arg(long)]
    pub(crate) no_save: bool,
    /// Show the page of the result in a browser: the system's, or what BROWSER names
    #[arg(long, conflicts_with = "no_save")]
    pub(crate) open: bool,
    /// A noisy verdict is exit code 3
    #[arg(long)]
    pub(crate) strict: bool,
}

impl ResultFlags {
    /// Whether the result can be kept; to be asked before it is measured.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.keep().map_or(Ok(()), store::check)
    }

    /// Shows the page of a result that is kept there, if it is to be shown.
    pub(crate) fn show(&self, home: &Path) -> Result<(), Refusal> {
        if self.open {
            browser::open(&home.join("report.html"))?;
        }
        Ok(())
    }

    pub(crate) fn keep(&self) -> Option<&std::path::Path> {
        (!self.no_save).then_some(self.out.as_path())
    }
}

//! The flags that the measuring verbs share, as they were typed.

use std::path::PathBuf;
use std::time::Duration;

use lockstep_engine::{GateAt, JournalMode, JournalThread};
use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::{count, duration, span};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::wish::{Log, Pin, Place, Policy, Waits};
use lockstep_perf::exit::Refusal;
use lockstep_perf::machine::cpus::Machine;
use lockstep_perf::machine::realtime::Realtime;
use lockstep_perf::report::result::Document;
use lockstep_perf::report::store;

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
    /// A noisy verdict is exit code 3
    #[arg(long)]
    pub(crate) strict: bool,
}

impl ResultFlags {
    /// Whether the result can be kept; to be asked before it is measured.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.keep().map_or(Ok(()), store::check)
    }

    pub(crate) fn keep(&self) -> Option<&std::path::Path> {
        (!self.no_save).then_some(self.out.as_path())
    }
}

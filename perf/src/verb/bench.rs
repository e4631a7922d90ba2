//! What the measuring verbs share: the machine, the clock, Ctrl-C, and where results go.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lockstep_perf::args::plan::Plan;
use lockstep_perf::args::quantity::{Units, show_count};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::c2c;
use lockstep_perf::machine::clock::Clock;
use lockstep_perf::machine::cpus::Machine;
use lockstep_perf::machine::interrupt;
use lockstep_perf::measure::validity::Grade;
use lockstep_perf::report::environment::Environment;
use lockstep_perf::report::html;
use lockstep_perf::report::result::Document;
use lockstep_perf::report::store;
use lockstep_perf::{Harness, Status};

use super::{Format, Global, paint};

/// Messages of a probe: some tens of microseconds of them.
const LINE_SAMPLES: usize = 60;

/// The machine before anything is pinned, a calibrated clock, and a flag for Ctrl-C.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) clock: Clock,
    pub(crate) stop: Arc<AtomicBool>,
    global: Global,
}

impl Bench {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            machine: Machine::here(),
            clock: Clock::calibrated(),
            stop: interrupt::flag(),
            global: global.clone(),
        }
    }

    pub(crate) fn units(&self) -> Units {
        self.global.units.into()
    }

    /// An empty result of this machine.
    pub(crate) fn document(&self, verb: &str, label: &str) -> Document {
        Document::new(verb, label, Environment::here(&self.machine, &self.clock))
    }

    /// A harness on this clock that ends at Ctrl-C and shows how far it is, if somebody looks
    /// and a CPU is left to show it with.
    pub(crate) fn harness(&self, name: &str, threads: usize) -> Harness {
        let harness = Harness::new(name)
            .clock(self.clock)
            .stop_on(Arc::clone(&self.stop));
        let has_spare_cpu = threads < self.machine.spinners_max();
        if has_spare_cpu && self.is_text() && io::stderr().is_terminal() {
            harness.on_status(show_status)
        } else {
            harness
        }
    }

    /// What a message between the first two CPUs of a plan takes one way, where it has two.
    pub(crate) fn line_ns(&self, plan: &Plan) -> Option<f64> {
        let cpus = plan.pinned_cpus();
        let [first, second, ..] = cpus.as_slice() else {
            return None;
        };
        let pair = c2c::measure(&self.clock, *first, *second, LINE_SAMPLES);
        pair.ok().map(|pair| pair.median_ns())
    }

    pub(crate) fn is_text(&self) -> bool {
        self.global.format == Format::Text
    }

    pub(crate) fn is_json(&self) -> bool {
        self.global.format == Format::Json
    }

    /// For people only: to stdout.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        if self.is_text() {
            let mut stdout = io::stdout().lock();
            if paint::is_wanted(self.global.color) {
                stdout.write_all(paint::verdicts(text).as_bytes())?;
            } else {
                stdout.write_all(text.as_bytes())?;
            }
            stdout.flush()?;
        }
        Ok(())
    }

    /// Prints the document if programs read, and saves it with its page if it is to be kept.
    pub(crate) fn finish(
        &self,
        document: &Document,
        keep: Option<&Path>,
    ) -> anyhow::Result<Option<PathBuf>> {
        self.print(document)?;
        let Some(directory) = keep else {
            return Ok(None);
        };
        let home = store::home(directory, document);
        self.save(document, &home)?;
        Ok(Some(home))
    }

    /// For programs: the document on stdout.
    pub(crate) fn print(&self, document: &Document) -> anyhow::Result<()> {
        if self.is_json() {
            io::stdout().write_all(document.to_json()?.as_bytes())?;
        }
        Ok(())
    }

    /// The document and its page, in a directory of their own.
    pub(crate) fn save(&self, document: &Document, home: &Path) -> anyhow::Result<()> {
        store::save(home, document)?;
        store::write(&home.join("report.html"), &html::page(document)?)
    }
}

fn show_status(status: Status) {
    let mut stderr = io::stderr().lock();
    // Nobody is hurt if the terminal is gone.
    let _ = write!(
        stderr,
        "\rrun {} of {}: {} of {} events \x1b[K",
        status.run,
        status.runs,
        show_count(status.done),
        show_count(status.planned)
    );
    if status.done >= status.planned {
        let _ = write!(stderr, "\r\x1b[K");
    }
}

/// Ends a status line.
pub(crate) fn clear_status() {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K");
    }
}

/// What a measured document means for the exit code.
pub(crate) fn exit_of(document: &Document, strict: bool) -> Exit {
    if document.interrupted {
        return Exit::Interrupted;
    }
    match document.summary.verdict.grade {
        Grade::Invalid => Exit::Undecided,
        Grade::Noisy if strict => Exit::Undecided,
        _ => Exit::Done,
    }
}

/// Refuses to measure what the optimiser has not seen.
pub(crate) fn refuse_debug_build(allowed: bool) -> Result<(), Refusal> {
    if cfg!(debug_assertions) && !allowed {
        return Err(Refusal::usage(
            "this is a debug build: latencies would be 10-50x too high",
            "cargo run --release   (--allow-debug to go on)",
        ));
    }
    Ok(())
}

/// Sleeps without being measured, in steps that Ctrl-C ends.
pub(crate) fn is_interrupted() -> bool {
    interrupt::is_set()
}

/// `1s` as a number of seconds with one place.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

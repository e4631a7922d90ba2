//! The harness: runs a load against what you give it and says what came out.
//!
//! ```
//! use std::time::Duration;
//! use lockstep_perf::{Harness, Recorder, Target, Ticket};
//!
//! /// Logic under test: works on the generator's own thread.
//! struct Sum {
//!     total: u64,
//!     recorder: Recorder,
//! }
//!
//! impl Target for Sum {
//!     fn offer(&mut self, ticket: Ticket) -> bool {
//!         self.total = self.total.wrapping_add(ticket.intended);
//!         self.recorder.done(ticket);
//!         true
//!     }
//! }
//!
//! let report = Harness::new("sum")
//!     .rate(50_000)
//!     .warmup(Duration::from_millis(5))
//!     .duration(Duration::from_millis(20))
//!     .floor(Duration::from_millis(1))
//!     .runs(1)
//!     .run(|session| Ok(vec![Sum { total: 0, recorder: session.recorder() }]))?;
//! assert_eq!(report.runs[0].lost, 0);
//! println!("{}", report.verdict());
//! # Ok::<(), lockstep_perf::HarnessError>(())
//! ```

mod drain;
mod error;
mod report;
mod run;
mod session;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use self::drain::{AtomicExpected, DrainLimit};
pub use self::error::HarnessError;
pub use self::report::Report;
pub use self::run::{Paused, Run};
pub use self::session::Session;
use super::arrivals::Arrivals;
use super::generator::{Load, Sent, Target, drive};
use super::recorder::{self, Phase, Recorded};
use crate::args::quantity::nanos;
use crate::machine::clock::{Clock, Ticks as _, ratio};
use crate::machine::floor::{Floor, Gap, Watch};
use crate::machine::pin::{Proof, pin};
use crate::machine::usage::{Steal, cpu_seconds};

/// Slices of the time series at most.
const SLICES_MAX: u64 = 240;

/// How long before the first intended time the generator is ready.
const LEAD_NS: u64 = 200_000;

/// How often somebody who asked is told how far a run is.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A recorder on the machine's own clock.
pub type Recorder = recorder::Recorder<Clock>;

/// How far a run is, for a status line.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// Which run, from 1.
    pub run: usize,
    /// Of how many.
    pub runs: usize,
    /// Events done so far.
    pub done: u64,
    /// Events planned.
    pub planned: u64,
}

/// Load, phases and placement of a measurement. See the [module](self) for an example.
#[derive(Clone)]
pub struct Harness {
    name: String,
    rate: u64,
    arrivals: Arrivals,
    warmup: Duration,
    duration: Duration,
    interval: Duration,
    drain: Duration,
    floor: Duration,
    runs: usize,
    generator_cpus: Vec<u32>,
    floor_cpus: Vec<u32>,
    clock: Option<Clock>,
    stop: Arc<AtomicBool>,
    status: Option<fn(Status)>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("name", &self.name)
            .field("rate", &self.rate)
            .field("arrivals", &self.arrivals)
            .field("duration", &self.duration)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// A measurement of 3 runs of 10 s at 100,000 events a second, evenly spread.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            rate: 100_000,
            arrivals: Arrivals::Even,
            warmup: Duration::from_secs(3),
            duration: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            drain: Duration::from_secs(3),
            floor: Duration::from_secs(1),
            runs: 3,
            generator_cpus: Vec::new(),
            floor_cpus: Vec::new(),
            clock: None,
            stop: Arc::default(),
            status: None,
        }
    }

    /// Events a second, over all generators together.
    #[must_use]
    pub fn rate(mut self, per_second: u64) -> Self {
        self.rate = per_second.max(1);
        self
    }

    /// How they are spread over time.
    #[must_use]
    pub fn arrivals(mut self, arrivals: Arrivals) -> Self {
        self.arrivals = arrivals;
        self
    }

    /// Time at the measured rate that is discarded.
    #[must_use]
    pub fn warmup(mut self, warmup: Duration) -> Self {
        self.warmup = warmup;
        self
    }

    /// Measured time of each run.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// A slice of the time series.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long to wait for events in flight after the last one was due.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// How long the platform's floor is watched before and after; zero leaves it out.
    #[must_use]
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// Runs, each with a target built afresh.
    #[must_use]
    pub fn runs(mut self, runs: usize) -> Self {
        self.runs = runs.max(1);
        self
    }

    /// Where the generators are pinned, one CPU each; none: they are not.
    #[must_use]
    pub fn generator_cpus(mut self, cpus: &[u32]) -> Self {
        self.generator_cpus = cpus.to_vec();
        self
    }

    /// The CPUs whose floor is watched; none: one thread that is not pinned.
    #[must_use]
    pub fn floor_cpus(mut self, cpus: &[u32]) -> Self {
        self.floor_cpus = cpus.to_vec();
        self
    }

    /// A clock that is calibrated already.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// A flag that ends the measurement early; what there is by then is kept and marked.
    #[must_use]
    pub fn stop_on(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Called about once a second during a run, on a thread that is not measured.
    #[must_use]
    pub fn on_status(mut self, status: fn(Status)) -> Self {
        self.status = Some(status);
        self
    }

    /// Measures. `build` makes the targets of one run: one for each generator, which share
    /// the rate. Every recorder is expected to see every event.
    ///
    /// # Errors
    ///
    /// A pin that the system refuses, a target that cannot be built, a recorder that is
    /// never dropped. A bad result is no error: it is in the report, with reasons.
    pub fn run<T, B>(&self, mut build: B) -> Result<Report, HarnessError>
    where
        T: Target + Send,
        B: FnMut(&mut Session) -> Result<Vec<T>, Box<dyn Error + Send + Sync>>,
    {
        let clock = self.clock.unwrap_or_else(Clock::calibrated);
        let floor_before = self.watch_floor(&clock)?;
        let mut runs = Vec::with_capacity(self.runs);
        for number in 1..=self.runs {
            let mut session = Session::new(clock, self.slices());
            let targets = build(&mut session).map_err(HarnessError::Build)?;
            runs.push(self.one_run(number, session, targets)?);
            if self.is_stopped() {
                break;
            }
        }
        let floor_after = if self.is_stopped() {
            Vec::new()
        } else {
            self.watch_floor(&clock)?
        };
        let mut report = Report {
            name: self.name.clone(),
            rate: self.rate,
            clock,
            runs,
            floor_before,
            floor_after,
            interrupted: self.is_stopped(),
        };
        report.judge(self.rate);
        Ok(report)
    }

    fn is_stopped(&self) -> bool {
        // ORDERING: Relaxed, the flag carries nothing but itself.
        self.stop.load(Ordering::Relaxed)
    }

    fn slices(&self) -> usize {
        let interval = nanos(self.interval).max(1);
        let slices = nanos(self.duration).div_ceil(interval);
        usize::try_from(slices.clamp(1, SLICES_MAX)).unwrap_or(1)
    }

    /// All floor CPUs at the same time, as the run will use them.
    fn watch_floor(&self, clock: &Clock) -> Result<Vec<Floor>, HarnessError> {
        if self.floor.is_zero() || self.is_stopped() {
            return Ok(Vec::new());
        }
        let watch = Watch {
            duration: self.floor,
            ..Watch::default()
        };
        watch_together(clock, &self.floor_cpus, watch)
    }

    fn one_run<T: Target + Send>(
        &self,
        number: usize,
        session: Session,
        targets: Vec<T>,
    ) -> Result<Run, HarnessError> {
        let Session {
            clock,
            slices,
            phase,
            progress,
            back,
            results,
            parts,
            spans,
        } = session;
        drop(back);
        let generators = targets.len().max(1) as u64;
        let load = self.load(&clock, slices, generators);
        // The first to set it is the only one: the session is this run's alone.
        let _ = phase.set(load.phase);
        let drained = DrainLimit {
            progress: &progress,
            expected: AtomicExpected::default(),
            limit: clock.to_ticks(nanos(self.drain)),
        };
        let (cpu_before, steal) = (cpu_seconds(), Steal::watch());
        let outcomes = self.drive_all(number, &clock, load, targets, &drained)?;
        let cpu_s = cpu_seconds() - cpu_before;
        let recorded = collect(&results, progress.len(), self.drain)?;
        let spans: Vec<(String, Vec<Gap>)> = spans
            .into_iter()
            .map(|(name, spans)| (name, spans.take()))
            .collect();
        let mut run = Run::assemble(self, number, &clock, load, outcomes, recorded, &spans);
        run.parts = parts
            .into_iter()
            .zip(std::mem::take(&mut run.part_times))
            .collect();
        run.cpu_s = cpu_s;
        run.stolen = steal.share();
        Ok(run)
    }

    fn load(&self, clock: &Clock, slices: usize, generators: u64) -> Load {
        let start = clock.ordered() + clock.to_ticks(LEAD_NS);
        let from = start + clock.to_ticks(nanos(self.warmup));
        let until = from + clock.to_ticks(nanos(self.duration));
        Load {
            rate: (self.rate / generators).max(1),
            arrivals: self.arrivals,
            start,
            phase: Phase {
                from,
                until,
                slices,
            },
            give_up: until + clock.to_ticks(nanos(self.drain)),
        }
    }

    /// Each target on a thread of its own, so that no pin outlives the run.
    fn drive_all<T: Target + Send>(
        &self,
        number: usize,
        clock: &Clock,
        load: Load,
        targets: Vec<T>,
        drained: &DrainLimit<'_>,
    ) -> Result<Vec<Outcome>, HarnessError> {
        let all = targets.len() as u64;
        let period = clock.to_ticks(1_000_000_000 / self.rate.max(1));
        thread::scope(|scope| {
            let (announce, ends) = channel();
            let threads: Vec<_> = targets
                .into_iter()
                .enumerate()
                .map(|(index, mut target)| {
                    let cpu = self.generator_cpus.get(index).copied();
                    let mut load = load;
                    // Several generators take turns within one period.
                    load.start += period * index as u64;
                    let announce = announce.clone();
                    let stop = Arc::clone(&self.stop);
                    thread::Builder::new()
                        .name(format!("generator-{index}"))
                        .spawn_scoped(scope, move || {
                            let _announce = announce;
                            let proof = pin_generator(index, cpu)?;
                            let sent = drive(clock, load, &mut target, &stop);
                            drained.wait(clock, sent.sent, all, &mut target, &stop);
                            Ok(Outcome { sent, proof })
                        })
                        .map_err(|source| HarnessError::Build(Box::new(source)))
                })
                .collect();
            drop(announce);
            self.report_status(number, &ends, drained, load);
            threads
                .into_iter()
                .map(|thread| thread?.join().map_err(|_| HarnessError::Panicked)?)
                .collect::<Result<Vec<_>, _>>()
        })
    }

    /// Sleeps until all generators have ended, and tells those who asked how far they are.
    fn report_status(&self, run: usize, ends: &Receiver<()>, drained: &DrainLimit<'_>, load: Load) {
        let seconds = ratio(nanos(self.warmup + self.duration), 1_000_000_000);
        let planned = seconds * ratio(load.rate, 1);
        // Ends: the last generator drops its end of the channel.
        while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(STATUS_EVERY) {
            if let Some(status) = self.status {
                status(Status {
                    run,
                    runs: self.runs,
                    done: drained.done(),
                    planned: crate::args::quantity::whole(planned),
                });
            }
        }
    }
}

fn pin_generator(index: usize, cpu: Option<u32>) -> Result<Option<Proof>, HarnessError> {
    let Some(cpu) = cpu else { return Ok(None) };
    match pin(cpu) {
        Ok(proof) => Ok(Some(proof)),
        Err(source) => Err(HarnessError::Pin {
            thread: format!("generator {index}"),
            cpu,
            source,
        }),
    }
}

/// Watches the floor of several CPUs at the same time, one pinned thread each; without CPUs,
/// one thread wherever it runs.
///
/// # Errors
///
/// A CPU that this process may not use.
pub fn watch_together(
    clock: &Clock,
    cpus: &[u32],
    watch: Watch,
) -> Result<Vec<Floor>, HarnessError> {
    let places: Vec<Option<u32>> = if cpus.is_empty() {
        vec![None]
    } else {
        cpus.iter().copied().map(Some).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = places
            .into_iter()
            .map(|cpu| {
                scope.spawn(move || {
                    if let Some(cpu) = cpu {
                        pin(cpu).map_err(|source| HarnessError::Pin {
                            thread: "the floor's watch".to_owned(),
                            cpu,
                            source,
                        })?;
                    }
                    Ok(Floor::watch(clock, cpu, watch))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| HarnessError::Panicked)?)
            .collect()
    })
}

/// What one generator did.
#[derive(Debug)]
struct Outcome {
    sent: Sent,
    proof: Option<Proof>,
}

fn collect(
    results: &Receiver<Recorded>,
    recorders: usize,
    limit: Duration,
) -> Result<Vec<Recorded>, HarnessError> {
    let waited = limit.max(Duration::from_secs(5));
    (0..recorders)
        .map(|_| {
            results
                .recv_timeout(waited)
                .map_err(|_| HarnessError::RecorderLost { waited })
        })
        .collect()
}

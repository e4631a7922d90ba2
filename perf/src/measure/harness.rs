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

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::arrivals::Arrivals;
use super::generator::{Load, Sent, Target, drive};
use super::recorder::{self, Phase, Progress, Recorded};
use super::tail::{Cause, Spans, ThreadGaps, attribute};
use super::validity::{Verdict, judge, judge_all};
use crate::args::quantity::nanos;
use crate::machine::clock::{Clock, Ticks, ratio};
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

/// What can go wrong besides a bad result.
#[derive(Debug)]
#[non_exhaustive]
pub enum HarnessError {
    /// A thread could not be put on its CPU.
    Pin {
        /// Which thread.
        thread: String,
        /// Where it should run.
        cpu: u32,
        /// The system's reason.
        source: io::Error,
    },
    /// What is measured could not be built.
    Build(Box<dyn Error + Send + Sync>),
    /// A recorder was neither dropped nor had it seen all events when the limit was over.
    RecorderLost {
        /// How long was waited.
        waited: Duration,
    },
    /// What was measured stopped by itself.
    Failed(String),
    /// A thread of the generator panicked.
    Panicked,
}

impl fmt::Display for HarnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin {
                thread,
                cpu,
                source,
            } => write!(f, "cannot pin {thread} to CPU {cpu}: {source}"),
            Self::Build(source) => write!(f, "cannot build what is to be measured: {source}"),
            Self::RecorderLost { waited } => write!(
                f,
                "a recorder did not come back within {waited:?} after the run: the thread that owns it \
                 hangs or was leaked; drop it when its input ends"
            ),
            Self::Failed(cause) => write!(f, "what is measured stopped: {cause}"),
            Self::Panicked => f.write_str("a thread of the generator panicked"),
        }
    }
}

impl Error for HarnessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pin { source, .. } => Some(source),
            Self::Build(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}

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

/// How many events all generators together have sent, known when the last one is done.
#[derive(Debug, Default)]
struct AtomicExpected {
    sent: std::sync::atomic::AtomicU64,
    finished: std::sync::atomic::AtomicU64,
}

/// Waits until every recorder has seen every event, or the limit is over.
#[derive(Debug)]
struct DrainLimit<'a> {
    progress: &'a [Arc<Progress>],
    expected: AtomicExpected,
    limit: u64,
}

impl DrainLimit<'_> {
    fn done(&self) -> u64 {
        let seen = self.progress.iter().map(|progress| progress.get());
        seen.min().unwrap_or(0)
    }

    /// Keeps an inline pipeline moving until everything that all generators sent is done.
    fn wait(
        &self,
        clock: &Clock,
        sent: u64,
        all: u64,
        target: &mut impl Target,
        stop: &AtomicBool,
    ) {
        // ORDERING: AcqRel, pairs with the Acquire below: who sees that all have finished
        // sees what they have added to `sent`.
        self.expected.sent.fetch_add(sent, Ordering::AcqRel);
        // ORDERING: AcqRel, as above.
        self.expected.finished.fetch_add(1, Ordering::AcqRel);
        let end = clock.early() + self.limit;
        // Ends: all is done, or the clock passes `end`.
        loop {
            target.idle();
            // ORDERING: Acquire, pairs with the additions above.
            let all_sent = self.expected.finished.load(Ordering::Acquire) == all;
            // ORDERING: Acquire, as above.
            let sent = self.expected.sent.load(Ordering::Acquire);
            if all_sent && self.done() >= sent || clock.early() >= end {
                return;
            }
            // ORDERING: Relaxed, the flag carries nothing but itself.
            if stop.load(Ordering::Relaxed) && all_sent && self.done() >= sent {
                return;
            }
            thread::yield_now();
        }
    }
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

/// What `build` gets to make the targets of one run with.
#[derive(Debug)]
pub struct Session {
    clock: Clock,
    slices: usize,
    phase: Arc<OnceLock<Phase>>,
    progress: Vec<Arc<Progress>>,
    back: Sender<Recorded>,
    results: Receiver<Recorded>,
    parts: Vec<String>,
    spans: Vec<(String, Spans)>,
}

impl Session {
    fn new(clock: Clock, slices: usize) -> Self {
        let (back, results) = channel();
        Self {
            clock,
            slices,
            phase: Arc::default(),
            progress: Vec::new(),
            back,
            results,
            parts: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Splits the way of an event into these parts, whose times recorders made from now on
    /// take with [`Recorder::done_by_parts`](recorder::Recorder::done_by_parts).
    pub fn split(&mut self, parts: &[String]) {
        self.parts = parts.to_vec();
    }

    /// Where a thread notes the spans of a kind of work that events wait for, as
    /// `journal sync`. They explain slow events, and their lengths are in the run.
    pub fn spans(&mut self, name: &str) -> Spans {
        let spans = Spans::default();
        self.spans.push((name.to_owned(), spans.clone()));
        spans
    }

    /// A recorder for a thread that sees every event. Drop it when its input ends.
    pub fn recorder(&mut self) -> Recorder {
        let progress = Arc::new(Progress::default());
        self.progress.push(Arc::clone(&progress));
        Recorder::new(
            self.clock,
            Arc::clone(&self.phase),
            self.slices,
            self.parts.len(),
            progress,
            self.back.clone(),
        )
    }

    /// The clock that tickets are stamped with.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// One run's figures.
#[derive(Debug, Clone)]
pub struct Run {
    /// From 1.
    pub number: usize,
    /// Events of the measured phase that were sent.
    pub sent: u64,
    /// Events of the measured phase whose end was seen, once for each recorder.
    pub received: u64,
    /// Events that were sent and whose end nobody saw.
    pub lost: u64,
    /// Events that were due and not sent before the deadline.
    pub unsent: u64,
    /// Events that found no room at first.
    pub blocked: u64,
    /// Events done before they were sent: broken clocks.
    pub negative: u64,
    /// Sent events a second, over the measured phase.
    pub achieved_rate: f64,
    /// From the intended time, in nanoseconds; the unsent ones are in it with what they had
    /// waited.
    pub response: Histogram<u64>,
    /// From the real send.
    pub service: Histogram<u64>,
    /// Real send minus intended time.
    pub lateness: Histogram<u64>,
    /// Response by time, one histogram a slice.
    pub slices: Vec<Histogram<u64>>,
    /// Length of a slice in nanoseconds.
    pub slice_ns: u64,
    /// The time in each part of the way, where it was split.
    pub parts: Vec<(String, Histogram<u64>)>,
    part_times: Vec<Histogram<u64>>,
    /// The lengths of what was noted as [`Session::spans`], from the measured phase on.
    pub spans: Vec<(String, Histogram<u64>)>,
    /// From which response on an event belongs to the tail.
    pub tail_from_ns: u64,
    /// What the tail waited for.
    pub tail: Vec<Cause>,
    /// Time that each thread was paused, as a share of the measured phase.
    pub paused: Vec<Paused>,
    /// Where the generators were seen to run.
    pub generators: Vec<Proof>,
    /// CPU seconds that the process used from the first intended time to the last end, the
    /// warm-up included.
    pub cpu_s: f64,
    /// The share of all CPUs' time that the hypervisor gave to others meanwhile.
    pub stolen: f64,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// What to think of it.
    pub verdict: Verdict,
}

/// How much of its time a thread lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Paused {
    /// The thread's name.
    pub thread: String,
    /// The share in which another task ran.
    pub preempted: f64,
    /// The share of other pauses above 20 µs; only a spinning thread sees them.
    pub interrupted: f64,
}

impl Paused {
    fn of(thread: String, gaps: &[Gap], span_ns: u64) -> Self {
        let sum = |wanted: bool| {
            let kind = gaps
                .iter()
                .filter(|gap| (gap.preempted == Some(true)) == wanted);
            kind.map(|gap| gap.ns).sum::<u64>()
        };
        Self {
            thread,
            // A pause that began before the span is counted whole.
            preempted: ratio(sum(true), span_ns).min(1.0),
            interrupted: ratio(sum(false), span_ns).min(1.0),
        }
    }
}

impl Run {
    fn assemble(
        harness: &Harness,
        number: usize,
        clock: &Clock,
        load: Load,
        outcomes: Vec<Outcome>,
        recorded: Vec<Recorded>,
        spans: &[(String, Vec<Gap>)],
    ) -> Self {
        let recorders = recorded.len().max(1) as u64;
        let (sent, proofs) = merge_sent(outcomes);
        let seen: u64 = recorded.iter().map(|r| r.done).sum();
        let gaps: Vec<(String, Vec<Gap>)> = std::iter::once(("generator".to_owned(), sent.gaps))
            .chain(recorded.iter().enumerate().map(|(index, one)| {
                let name = match recorders {
                    1 => "receiver".to_owned(),
                    _ => format!("receiver {index}"),
                };
                (name, one.gaps.clone())
            }))
            .collect();
        let merged = merge_recorded(recorded, load.phase.slices);
        let mut response = merged.response;
        let received = response.len();
        add(&mut response, &sent.unsent_waits);
        let tail_from_ns = response.value_at_percentile(99.9);
        let phase_ns = clock.to_ns(load.phase.until - load.phase.from);
        let threads = [named(&gaps, false), named(spans, true)].concat();
        let tail = attribute(&merged.tail, tail_from_ns, &threads);
        let paused = gaps
            .iter()
            .map(|(thread, gaps)| {
                let inside: Vec<Gap> = gaps
                    .iter()
                    .copied()
                    .filter(|gap| gap.to > load.phase.from && gap.from < load.phase.until)
                    .collect();
                Paused::of(thread.clone(), &inside, phase_ns)
            })
            .collect();
        let mut run = Self {
            number,
            sent: sent.measured,
            received,
            lost: (sent.sent * recorders).saturating_sub(seen),
            unsent: sent.unsent,
            blocked: sent.blocked,
            negative: merged.negative,
            achieved_rate: ratio(sent.measured, sent.span_ns.max(1)) * 1e9,
            response,
            service: merged.service,
            lateness: sent.lateness,
            slices: merged.slices,
            slice_ns: phase_ns / load.phase.slices.max(1) as u64,
            parts: Vec::new(),
            part_times: merged.parts,
            spans: spans
                .iter()
                .map(|(name, spans)| (name.clone(), lengths(spans, load.phase)))
                .collect(),
            tail_from_ns,
            tail,
            paused,
            generators: proofs,
            cpu_s: 0.0,
            stolen: 0.0,
            interrupted: sent.interrupted,
            verdict: Verdict::default(),
        };
        run.verdict = judge(&run, harness.rate);
        run
    }
}

fn named(all: &[(String, Vec<Gap>)], is_work: bool) -> Vec<ThreadGaps<'_>> {
    let each = all.iter().map(|(thread, gaps)| ThreadGaps {
        thread,
        gaps,
        is_work,
    });
    each.collect()
}

/// How long the spans were from the measured phase on: what its events waited for may come
/// behind it.
fn lengths(spans: &[Gap], phase: Phase) -> Histogram<u64> {
    let mut histogram = recorder::histogram();
    for span in spans {
        if span.to > phase.from {
            histogram.saturating_record(span.ns);
        }
    }
    histogram
}

fn merge_sent(outcomes: Vec<Outcome>) -> (Sent, Vec<Proof>) {
    let proofs = outcomes
        .iter()
        .filter_map(|outcome| outcome.proof)
        .collect();
    let mut all = outcomes.into_iter().map(|outcome| outcome.sent);
    let Some(mut sum) = all.next() else {
        return (Sent::nothing(), proofs);
    };
    for one in all {
        sum.sent += one.sent;
        sum.measured += one.measured;
        sum.unsent += one.unsent;
        sum.blocked += one.blocked;
        sum.span_ns = sum.span_ns.max(one.span_ns);
        sum.interrupted |= one.interrupted;
        add(&mut sum.lateness, &one.lateness);
        add(&mut sum.unsent_waits, &one.unsent_waits);
    }
    (sum, proofs)
}

fn merge_recorded(recorded: Vec<Recorded>, slices: usize) -> Recorded {
    let mut all = recorded.into_iter();
    let Some(mut sum) = all.next() else {
        return Recorded::empty(slices, 0);
    };
    for one in all {
        sum.negative += one.negative;
        sum.done += one.done;
        sum.tail.extend(one.tail);
        add(&mut sum.response, &one.response);
        add(&mut sum.service, &one.service);
        for (into, from) in sum.parts.iter_mut().zip(&one.parts) {
            add(into, from);
        }
        for (into, from) in sum.slices.iter_mut().zip(&one.slices) {
            add(into, from);
        }
    }
    sum
}

/// Adds histograms of the same bounds.
fn add(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("both have the recorder's bounds");
}

/// All runs of one measurement.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was measured.
    pub name: String,
    /// Events a second that were asked for.
    pub rate: u64,
    /// The clock that measured.
    pub clock: Clock,
    /// The runs.
    pub runs: Vec<Run>,
    /// The platform's floor before the first run, one for each CPU.
    pub floor_before: Vec<Floor>,
    /// And after the last.
    pub floor_after: Vec<Floor>,
    /// Whether it was ended early.
    pub interrupted: bool,
}

impl Report {
    fn judge(&mut self, rate: u64) {
        let reasons = super::validity::floor_reasons(&self.floor_before, &self.floor_after, rate);
        for run in &mut self.runs {
            run.verdict.add_noise(&reasons);
        }
    }

    /// What to think of all runs together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        judge_all(self)
    }

    /// All runs' response in one histogram.
    #[must_use]
    pub fn response(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.response))
    }

    /// All runs' service in one histogram.
    #[must_use]
    pub fn service(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.service))
    }

    /// All runs' lateness in one histogram.
    #[must_use]
    pub fn lateness(&self) -> Histogram<u64> {
        sum(self.runs.iter().map(|run| &run.lateness))
    }
}

fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut total = recorder::histogram();
    for histogram in histograms {
        add(&mut total, histogram);
    }
    total
}

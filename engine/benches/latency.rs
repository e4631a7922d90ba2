//! Response times, open loop: every event has a time at which it should have been published,
//! whatever the one before did, and its output is late from that time on.
//!
//! ```text
//! cargo bench -p lockstep-engine --bench latency -- [--rate 100000] [--seconds 2] [--rounds 5] [--only WORD]
//! ```
//!
//! Contenders take turns within each round. `plain ring` is one producer and one stage that reads;
//! it is what the pipeline is compared with where there is no journal. A line is the median of the
//! rounds for each percentile, with the least and the most of the median; `late` is the share of
//! events that were published more than ten intervals after their time, which says that a load was
//! not kept. `LOCKSTEP_BENCH_DIR` says on which disk.

#![expect(clippy::print_stdout, reason = "a bench talks to a person")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_engine::prelude::*;
use lockstep_engine::{JournalMode, JournalThread};
use lockstep_ringbuffer::{Graph, each};

bodies! {
    Ask, kind 1, version 1: { due_ns: u64, amount: u64 }
    Reply, kind 101, version 1: { due_ns: u64, total: u64 }
}

#[derive(Default)]
struct Adder {
    total: u64,
}
snapshot!(Adder { total });

impl Logic for Adder {
    type In = Ask;
    type Out = Reply;

    fn apply(&mut self, ask: &Ask, _: &Context, out: &mut Outputs<'_, Reply>) {
        self.total = self.total.wrapping_add(ask.amount);
        out.emit(Reply {
            due_ns: ask.due_ns,
            total: self.total,
        });
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What one run gave.
struct Run {
    times: Histogram<u64>,
    late: f64,
}

/// A load: so many events a second for so long.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    seconds: f64,
}

type Contender = (&'static str, fn(&Path, Load) -> Outcome<Run>);

const CONTENDERS: [Contender; 7] = [
    ("plain ring", plain_ring),
    ("engine, no journal, one thread", |dir, load| {
        let builder = builder(dir).journal(JournalMode::None);
        engine(builder.place("order+logic+egress"), load)
    }),
    ("engine, no journal, two threads", |dir, load| {
        engine(builder(dir).journal(JournalMode::None), load)
    }),
    ("sync, inline, two threads", |dir, load| {
        engine(builder(dir).journal_thread(JournalThread::Inline), load)
    }),
    ("sync, worker, two threads", |dir, load| {
        engine(builder(dir).journal_thread(JournalThread::Worker), load)
    }),
    ("sync, worker, one thread", |dir, load| {
        let builder = builder(dir).journal_thread(JournalThread::Worker);
        engine(builder.place("order+journal+logic+egress"), load)
    }),
    ("sync, gate output, two threads", |dir, load| {
        engine(builder(dir).gate(GateAt::Output), load)
    }),
];

fn main() -> Outcome<()> {
    let rates = match argument("--rate") {
        Some(rate) => vec![rate.parse()?],
        None => vec![100_000, 1_000_000],
    };
    let seconds: f64 = argument("--seconds").as_deref().unwrap_or("2").parse()?;
    let rounds: usize = argument("--rounds").as_deref().unwrap_or("5").parse()?;
    let only = argument("--only").unwrap_or_default();
    for rate in rates {
        let load = Load { rate, seconds };
        println!("{rate} events a second, {seconds} s, {rounds} rounds; microseconds");
        let contenders: Vec<&Contender> = CONTENDERS
            .iter()
            .filter(|(name, _)| name.contains(&only) || *name == "plain ring")
            .collect();
        let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((_, run), runs) in contenders.iter().zip(&mut runs) {
                let directory = fresh_directory()?;
                runs.push(run(directory.path(), load)?);
            }
        }
        let ring = median(&runs[0], 0.5);
        println!(
            "{:<34} {:>22} {:>8} {:>8} {:>8} {:>9} {:>6} {:>6}",
            "", "p50 (least-most)", "p90", "p99", "p99.9", "max", "late", "p50/r"
        );
        for ((name, _), runs) in contenders.iter().zip(&runs) {
            report(name, runs, ring);
        }
    }
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|own| own != name);
    arguments.next()?;
    arguments.next()
}

fn report(name: &str, runs: &[Run], ring: f64) {
    let mut medians: Vec<f64> = runs.iter().map(|run| at(run, 0.5)).collect();
    medians.sort_by(f64::total_cmp);
    let late = runs.iter().map(|run| run.late).fold(0.0, f64::max);
    let max = runs.iter().map(|run| run.times.max()).max().unwrap_or(0);
    let spread = format!(
        "{:.2} ({:.2}-{:.2})",
        median(runs, 0.5),
        medians[0],
        medians[medians.len() - 1]
    );
    println!(
        "{name:<34} {spread:>22} {:>8.2} {:>8.2} {:>8.2} {:>9.0} {:>5.1}% {:>6.2}",
        median(runs, 0.9),
        median(runs, 0.99),
        median(runs, 0.999),
        micros(max),
        late * 100.0,
        median(runs, 0.5) / ring
    );
}

fn at(run: &Run, quantile: f64) -> f64 {
    micros(run.times.value_at_quantile(quantile))
}

fn median(runs: &[Run], quantile: f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(|run| at(run, quantile)).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn fresh_directory() -> std::io::Result<tempfile::TempDir> {
    match std::env::var_os("LOCKSTEP_BENCH_DIR") {
        Some(root) => tempfile::tempdir_in(PathBuf::from(root)),
        None => tempfile::tempdir(),
    }
}

fn builder(directory: &Path) -> lockstep_engine::Builder<Adder> {
    Engine::<Adder>::open(directory)
        .allow_volatile(true)
        .shadow(false)
        .counters(false)
        .beacon_every(0)
}

fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Publishes at the times of the load; the share that was late.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of events"
)]
fn offer(start: Instant, load: Load, mut publish: impl FnMut(u64) -> Outcome<()>) -> Outcome<f64> {
    let events = (load.rate as f64 * load.seconds) as u64;
    let interval_ns = 1_000_000_000 / load.rate;
    let mut late = 0_u64;
    for event in 0..events {
        let due_ns = event * interval_ns;
        let mut now_ns = nanos(start.elapsed());
        // Ends: time passes.
        while now_ns < due_ns {
            std::hint::spin_loop();
            now_ns = nanos(start.elapsed());
        }
        late += u64::from(now_ns > due_ns + 10 * interval_ns);
        publish(due_ns)?;
    }
    Ok(late as f64 / events as f64)
}

/// The first tenth warms up and is not counted.
fn warm_ns(load: Load) -> u64 {
    nanos(Duration::from_secs_f64(load.seconds / 10.0))
}

fn plain_ring(_: &Path, load: Load) -> Outcome<Run> {
    let start = Instant::now();
    let mut times = histogram()?;
    let warm = warm_ns(load);
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut graph = Graph::new(65_536, Event64::default)?;
    let mut left = None;
    graph.stage(
        "reader",
        &[],
        each(move |event: &Event64, _| {
            let due_ns = event.body_as::<Ask>().due_ns;
            if due_ns == u64::MAX {
                let _ = left
                    .get_or_insert_with(|| sender.clone())
                    .send(times.clone());
                return;
            }
            let late = nanos(start.elapsed()).saturating_sub(due_ns);
            if due_ns >= warm {
                let _ = times.record(late.max(1));
            }
        }),
    );
    let (mut producer, pipeline) = graph.build()?;
    let running = pipeline.start()?;
    let late = offer(start, load, |due_ns| {
        let ask = Ask { due_ns, amount: 1 };
        producer.publish(|slot| *slot = Event64::event(&ask))?;
        Ok(())
    })?;
    let end = Ask {
        due_ns: u64::MAX,
        amount: 0,
    };
    producer.publish(|slot| *slot = Event64::event(&end))?;
    let times = receiver.recv()?;
    drop(producer);
    drop(running.drain(Duration::from_secs(10)));
    Ok(Run { times, late })
}

fn engine(builder: lockstep_engine::Builder<Adder>, load: Load) -> Outcome<Run> {
    let start = Instant::now();
    let mut times = histogram()?;
    let warm = warm_ns(load);
    let (sender, receiver) = std::sync::mpsc::channel();
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let engine = builder
        .on_output(move |_, reply: &Reply| {
            if reply.due_ns == u64::MAX {
                let _ = sender.send(times.clone());
                return;
            }
            let late = nanos(start.elapsed()).saturating_sub(reply.due_ns);
            // ORDERING: Relaxed, a flag that was set before the first event.
            if reply.due_ns >= warm && opened.load(Ordering::Relaxed) {
                let _ = times.record(late.max(1));
            }
        })
        .start()?;
    // ORDERING: Relaxed, as above.
    is_open.store(true, Ordering::Relaxed);
    let mut producer = engine.producer();
    // Opening took its time: the load begins now, and its times are of the same clock.
    let begin_ns = nanos(start.elapsed());
    let late = offer(start + Duration::from_nanos(begin_ns), load, |due_ns| {
        let _answered_by_its_output = producer.publish(|ask: &mut Ask| {
            (ask.due_ns, ask.amount) = (due_ns + begin_ns, 1);
        })?;
        Ok(())
    })?;
    let last = producer.publish(|ask: &mut Ask| ask.due_ns = u64::MAX)?;
    last.wait()?;
    let times = receiver.recv()?;
    engine.close()?;
    Ok(Run { times, late })
}

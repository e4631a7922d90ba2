//! Snapshots of a large state under load: the response times of the primary while the shadow
//! takes one, beside those while it does not, in turns within one run.
//!
//! ```text
//! cargo bench -p lockstep-engine --bench snapshot -- [--mib 1024] [--rate 100000] [--phases 5] [--place …]
//! cargo bench -p lockstep-engine --bench snapshot -- --floor 1 [--mib 1024] [--phases 5]
//! ```
//!
//! `--floor 1` asks the disk alone, without an engine (`floor.rs`).
//!
//! The state is a table of `--mib` MiB of numbers that hardly compress, and there are two of it, the
//! primary's and the shadow's. In each round one phase is as long as a snapshot takes, and the
//! other one is as long, with none. The ratio is that of the phases' p99, the median of the rounds.

#![expect(clippy::print_stdout, reason = "a bench talks to a person")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_engine::prelude::*;

bodies! {
    Fill, kind 1, version 1: { words: u64 }
    Ask, kind 2, version 1: { due_ns: u64, at: u64 }
    Reply, kind 101, version 1: { due_ns: u64, word: u64 }
}
kinds! { enum In: "bench.table" version 1 { Fill, Ask } }

#[derive(Default)]
struct Table {
    words: Vec<u64>,
}
snapshot!(Table { words });

impl Logic for Table {
    type In = In<'static>;
    type Out = Reply;

    fn apply(&mut self, event: In<'_>, _: &Context, out: &mut Outputs<'_, Reply>) {
        match event {
            In::Fill(fill) => {
                let mixed = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ at;
                self.words = (0..fill.words).map(mixed).collect();
            }
            In::Ask(ask) => {
                let at = usize::try_from(ask.at).unwrap_or(0) % self.words.len();
                self.words[at] = self.words[at].wrapping_add(ask.at);
                out.emit(Reply {
                    due_ns: ask.due_ns,
                    word: self.words[at],
                });
            }
        }
    }

    /// The beacon is off; a snapshot hashes all of it.
    fn check(&self) -> Result<(), std::borrow::Cow<'static, str>> {
        Ok(())
    }
}

mod floor;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn argument<T>(name: &str, otherwise: T) -> Outcome<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + 'static,
{
    let mut arguments = std::env::args().skip_while(|own| own != name);
    arguments.next();
    Ok(arguments
        .next()
        .map_or(Ok(otherwise), |text| text.parse())?)
}

/// The histogram of the present phase.
type Times = Arc<Mutex<Histogram<u64>>>;

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn main() -> Outcome<()> {
    let (mib, rate) = (argument("--mib", 1024)?, argument("--rate", 100_000)?);
    let phases = argument("--phases", 5)?;
    let place: String = argument("--place", String::new())?;
    let directory = match std::env::var_os("LOCKSTEP_BENCH_DIR") {
        Some(root) => tempfile::tempdir_in(PathBuf::from(root))?,
        None => tempfile::tempdir()?,
    };
    if argument("--floor", 0)? != 0 {
        return floor::run(directory.path(), mib, phases);
    }
    let start = Instant::now();
    let times: Times = Arc::new(Mutex::new(Histogram::new_with_bounds(
        1,
        60_000_000_000,
        3,
    )?));
    let taken = Arc::clone(&times);
    let engine = Engine::<Table>::open(directory.path())
        .allow_volatile(true)
        .counters(false)
        .beacon_every(0)
        .snapshot_every(0)
        .place(&place)
        .on_output(move |_, reply: &Reply| {
            let late = nanos(start.elapsed()).saturating_sub(reply.due_ns);
            if let Ok(mut times) = taken.lock() {
                let _ = times.record(late.max(1));
            }
        })
        .start()?;
    let mut producer = engine.producer();
    let words = mib * (1 << 20) / 8;
    producer
        .publish(|fill: &mut Fill| fill.words = words)?
        .wait()?;
    // The shadow has it, too.
    engine.read(|table| table.words.len())?;
    println!("{mib} MiB of state, {rate} events a second, {phases} rounds");

    let until = Arc::new(AtomicU64::new(u64::MAX));
    let end = Arc::clone(&until);
    let load = std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let interval_ns = 1_000_000_000 / rate;
            let mut due_ns = nanos(start.elapsed());
            let mut at = 0_u64;
            // ORDERING: Relaxed, only the number counts. Ends: when the phases are over.
            while due_ns < end.load(Ordering::Relaxed) {
                // Ends: time passes.
                while nanos(start.elapsed()) < due_ns {
                    std::hint::spin_loop();
                }
                at = at.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let published = producer.publish(|ask: &mut Ask| {
                    (ask.due_ns, ask.at) = (due_ns, at >> 16);
                });
                if published.is_err() {
                    return;
                }
                due_ns += interval_ns;
            }
        })?;
    let phase = |run: &mut dyn FnMut()| -> Outcome<Histogram<u64>> {
        times
            .lock()
            .map_err(|_| "the engine's thread panicked")?
            .reset();
        run();
        let times = times.lock().map_err(|_| "the engine's thread panicked")?;
        Ok(times.clone())
    };
    let pause = |length: Duration| {
        let until = Instant::now() + length;
        // Ends: time passes.
        while Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    };
    pause(Duration::from_secs(1));
    let mut ratios = Vec::new();
    for round in 0..phases {
        let before = engine.newest_snapshot();
        let began = Instant::now();
        let with = phase(&mut || {
            engine.snapshot_now();
            // Ends: the snapshot is there, or the engine has stopped.
            while engine.newest_snapshot() == before && engine.fault().is_none() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        })?;
        let took = began.elapsed();
        pause(Duration::from_millis(500));
        let without = phase(&mut || pause(took))?;
        let ratio = ratio(&with, &without, 0.99);
        ratios.push(ratio);
        println!(
            "round {round}: snapshot took {took:.1?}; p50 {} with, {} without; p99 {} with, {} without: {ratio:.2}",
            shown(&with, 0.5),
            shown(&without, 0.5),
            shown(&with, 0.99),
            shown(&without, 0.99),
        );
        pause(Duration::from_millis(500));
    }
    // ORDERING: Relaxed, as above.
    until.store(0, Ordering::Relaxed);
    load.join().map_err(|_| "the load's thread panicked")?;
    engine.close()?;
    ratios.sort_by(f64::total_cmp);
    println!(
        "p99 with a snapshot, in p99 without: {:.2} ({:.2}-{:.2}), the goal is 1.1",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    Ok(())
}

fn shown(times: &Histogram<u64>, quantile: f64) -> String {
    let at = times.value_at_quantile(quantile);
    format!("{:.1?}", Duration::from_nanos(at))
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
fn ratio(one: &Histogram<u64>, other: &Histogram<u64>, quantile: f64) -> f64 {
    one.value_at_quantile(quantile) as f64 / other.value_at_quantile(quantile) as f64
}

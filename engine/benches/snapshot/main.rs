//! Snapshots of a large state under load: the response times of the primary from the asking for one until
//! the engine is done with it, beside those while nothing but the load goes on, in turns within one run.
//!
//! ```text
//! cargo bench -p lockstep-engine --bench snapshot -- [--mib 1024] [--rate 100000] [--phases 5] [--window 10]
//!     [--place …]
//! cargo bench -p lockstep-engine --bench snapshot -- --floor 1 [--mib 1024] [--phases 5]
//! ```
//!
//! `--floor 1` asks the disk alone, without an engine (`floor.rs`).
//!
//! The state is a table of `--mib` MiB of numbers that hardly compress, and there are two of it, the
//! primary's and the shadow's.
//!
//! ```text
//!  none │ taking · keeping │ none │ taking · keeping │ none …
//!       └ asked   └ it is there   └ it was read back, and the oldest is removed (from the third on)
//! ```
//!
//! A window with none is `--window` seconds long, and the first comes before the first snapshot. A round's
//! ratio is the p99 of all of taking and keeping in the median p99 of the windows with none; what these
//! differ among themselves is printed beside it.

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
    let window = Duration::from_secs(argument("--window", 10)?);
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
    let times_of = |run: &mut dyn FnMut()| -> Outcome<Histogram<u64>> {
        let of_engine = || times.lock().map_err(|_| "the engine's thread panicked");
        of_engine()?.reset();
        run();
        let times = of_engine()?;
        Ok(times.clone())
    };
    let wait_while = |is_so: &dyn Fn() -> bool| {
        // Ends: it is so no more, or the engine has stopped.
        while is_so() && engine.fault().is_none() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    };
    let none = || {
        let until = Instant::now() + window;
        times_of(&mut || wait_while(&|| Instant::now() < until))
    };
    pause(Duration::from_secs(1));
    let mut windows = vec![none()?];
    let mut rounds = Vec::new();
    for _ in 0..phases {
        let before = engine.newest_snapshot();
        let began = Instant::now();
        engine.snapshot_now();
        let taking = times_of(&mut || wait_while(&|| engine.newest_snapshot() == before))?;
        let taken = began.elapsed();
        let newest = engine.newest_snapshot();
        let keeping = times_of(&mut || wait_while(&|| engine.kept_snapshot() < newest))?;
        rounds.push(Round::new(taken, taking, began.elapsed() - taken, keeping)?);
        windows.push(none()?);
        rounds[rounds.len() - 1].print(rounds.len(), &windows);
    }
    // ORDERING: Relaxed, as above.
    until.store(0, Ordering::Relaxed);
    load.join().map_err(|_| "the load's thread panicked")?;
    if let Some(fault) = engine.fault() {
        return Err(fault.into());
    }
    engine.close()?;
    sum_up(&rounds, &windows);
    Ok(())
}

/// One snapshot, from the asking until nothing is left to do about it.
struct Round {
    taken: Duration,
    taking: Histogram<u64>,
    kept: Duration,
    keeping: Histogram<u64>,
    whole: Histogram<u64>,
}

impl Round {
    fn new(
        taken: Duration,
        taking: Histogram<u64>,
        kept: Duration,
        keeping: Histogram<u64>,
    ) -> Outcome<Self> {
        let mut whole = taking.clone();
        whole.add(&keeping)?;
        Ok(Round {
            taken,
            taking,
            kept,
            keeping,
            whole,
        })
    }

    fn print(&self, number: usize, windows: &[Histogram<u64>]) {
        let [before, after] = [2, 1].map(|back| &windows[windows.len() - back]);
        println!(
            "round {number}: p50 {} · p99 {} with ({} for {:.1?} taking, {} for {:.1?} keeping); none before p50 {} · p99 \
             {}, behind p50 {} · p99 {}",
            shown(&self.whole, 0.5),
            shown(&self.whole, 0.99),
            shown(&self.taking, 0.99),
            self.taken,
            shown(&self.keeping, 0.99),
            self.kept,
            shown(before, 0.5),
            shown(before, 0.99),
            shown(after, 0.5),
            shown(after, 0.99),
        );
    }
}

fn sum_up(rounds: &[Round], windows: &[Histogram<u64>]) {
    let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99);
    let Some(none) = spread(windows.iter().map(p99)).map(|(none, ..)| none) else {
        return;
    };
    let say = |what: &str, all: &mut dyn Iterator<Item = u64>| {
        let Some((middle, least, most)) = spread(all) else {
            return;
        };
        let [middle, least, most] = [middle, least, most].map(|own| in_parts(own, none));
        println!("{what:<8} {middle:.2} ({least:.2}-{most:.2})");
    };
    let shown = Duration::from_nanos(none);
    println!("p99 in the median of the windows with none, {shown:.1?}: median (least-most)");
    say("none", &mut windows.iter().map(p99));
    say("taking", &mut rounds.iter().map(|round| p99(&round.taking)));
    say(
        "keeping",
        &mut rounds.iter().map(|round| p99(&round.keeping)),
    );
    say("with", &mut rounds.iter().map(|round| p99(&round.whole)));
    println!("the goal is 1.1 for the last line");
}

/// Median, least and most.
fn spread(all: impl Iterator<Item = u64>) -> Option<(u64, u64, u64)> {
    let mut all: Vec<u64> = all.collect();
    all.sort_unstable();
    Some((*all.get(all.len() / 2)?, *all.first()?, *all.last()?))
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
fn in_parts(one: u64, of: u64) -> f64 {
    one as f64 / of as f64
}

fn pause(length: Duration) {
    let until = Instant::now() + length;
    // Ends: time passes.
    while Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn shown(times: &Histogram<u64>, quantile: f64) -> String {
    let at = times.value_at_quantile(quantile);
    format!("{:.1?}", Duration::from_nanos(at))
}

//! The whole pipeline in process: door → order → journal → logic → egress, with a logic that
//! does next to nothing, so that what is measured is the way and not the goal.
//!
//! ```text
//! cargo bench -p lockstep-engine --bench pipeline -- [events] [rounds] [slots]
//! ```
//!
//! Saturation only, the contenders in turns within each round; each line is the median of the
//! rounds, with the least and the most. `journal alone` is the same bytes through the journal
//! with frames of its largest size, which is the limit of anything that journals here.
//! `LOCKSTEP_BENCH_DIR` says on which disk; a temporary directory unless told.

#![expect(clippy::print_stdout, reason = "a bench talks to a person")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_engine::prelude::*;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::{JournalMode, JournalThread};
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Frame, Journal, Options};

bodies! {
    Add, kind 1, version 1: { amount: u64, spare: [u64; 4] }
    Sum, kind 101, version 1: { total: u64 }
}

#[derive(Default)]
struct Adder {
    total: u64,
}
snapshot!(Adder { total });

impl Logic for Adder {
    type In = Add;
    type Out = Sum;

    fn apply(&mut self, add: &Add, _: &Context, out: &mut Outputs<'_, Sum>) {
        self.total = self.total.wrapping_add(add.amount);
        out.emit(Sum { total: self.total });
    }
}

type Outcome = Result<f64, Box<dyn std::error::Error>>;

/// What is measured: a name, and events per second on a fresh directory.
type Contender = (&'static str, fn(&Path, u64) -> Outcome);

/// Every stage on one thread: order, journal, logic, egress.
const ONE_THREAD: &str = "order+journal+logic+egress";

/// A quarter of it, which a stage takes in one turn, is the journal's largest group.
const LARGE: usize = 262_144;

const CONTENDERS: [Contender; 8] = [
    ("journal alone (sync)", journal_alone),
    ("sync, gate logic (default)", |dir, events| {
        pipeline(builder(dir), events)
    }),
    ("sync, gate logic, 256 Ki slots", |dir, events| {
        let builder = builder(dir).slots(LARGE).output_slots(LARGE);
        pipeline(builder, events)
    }),
    ("sync, gate logic, worker", |dir, events| {
        pipeline(builder(dir).journal_thread(JournalThread::Worker), events)
    }),
    ("sync, gate logic, one thread", |dir, events| {
        pipeline(builder(dir).place(ONE_THREAD), events)
    }),
    ("sync, gate output", |dir, events| {
        pipeline(builder(dir).gate(GateAt::Output), events)
    }),
    ("pipeline, journal none", |dir, events| {
        pipeline(builder(dir).journal(JournalMode::None), events)
    }),
    ("replay", replay),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = numbers();
    let events = numbers.first().copied().unwrap_or(2_000_000);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    println!("{events} events of 64 bytes, {rounds} rounds");
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); CONTENDERS.len()];
    for _ in 0..rounds {
        for ((_, run), rates) in CONTENDERS.iter().zip(&mut rates) {
            let directory = fresh_directory()?;
            rates.push(run(directory.path(), events)?);
        }
    }
    for ((name, _), rates) in CONTENDERS.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        let median = rates[rates.len() / 2];
        println!(
            "{name:<40} {:>7.2} M/s  ({:.2} to {:.2})",
            median / 1e6,
            least / 1e6,
            most / 1e6
        );
    }
    Ok(())
}

fn numbers() -> Vec<u64> {
    let arguments = std::env::args();
    arguments.filter_map(|text| text.parse().ok()).collect()
}

fn fresh_directory() -> std::io::Result<tempfile::TempDir> {
    match std::env::var_os("LOCKSTEP_BENCH_DIR") {
        Some(root) => tempfile::tempdir_in(PathBuf::from(root)),
        None => tempfile::tempdir(),
    }
}

fn builder(directory: &Path) -> lockstep_engine::Builder<Adder> {
    let builder = match numbers().get(2) {
        Some(&slots) => {
            let slots = usize::try_from(slots).unwrap_or(0);
            let builder = Engine::<Adder>::open(directory).slots(slots);
            builder.output_slots(slots)
        }
        None => Engine::<Adder>::open(directory),
    };
    builder
        .allow_volatile(true)
        .shadow(false)
        .counters(false)
        .beacon_every(0)
}

fn batch() -> Vec<Event64> {
    (0..256)
        .map(|amount| {
            Event64::event(&Add {
                amount,
                ..Add::default()
            })
        })
        .collect()
}

fn pipeline(builder: lockstep_engine::Builder<Adder>, events: u64) -> Outcome {
    let engine = builder.start()?;
    let mut producer = engine.producer();
    let batch = batch();
    let start = Instant::now();
    for _ in 0..events / 256 {
        producer.publish_events(&batch)?;
    }
    let end = producer.publish_events(&batch)?.end;
    producer.wait_until(end)?;
    let rate = rate(events / 256 * 256 + 256, start);
    engine.close()?;
    Ok(rate)
}

fn journal_alone(directory: &Path, events: u64) -> Outcome {
    let mut options = Options::new(&Add::schema());
    options.allow_volatile_medium = true;
    let (mut journal, _) = Journal::open(Disk::create(directory)?, &options)?;
    let mut cutter = journal.cutter();
    let frame = vec![Event64::event(&Add::default()); 32_768];
    let start = Instant::now();
    let frames = events.div_ceil(32_768);
    for _ in 0..frames {
        let body: [&[u8]; 2] = [lockstep_engine::bytemuck::cast_slice(&frame), &[]];
        let header = cutter.cut(body, 1);
        journal.write(&[Frame {
            header: &header,
            body,
        }])?;
        journal.sync()?;
    }
    let rate = rate(frames * 32_768, start);
    journal.close()?;
    Ok(rate)
}

fn replay(directory: &Path, events: u64) -> Outcome {
    pipeline(builder(directory), events)?;
    let mut replay = Replay::<Adder>::open(directory, Adder::default, Range::default())?;
    let start = Instant::now();
    let summary = replay.run(|_| ())?;
    Ok(rate(summary.events, start))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
fn rate(events: u64, start: Instant) -> f64 {
    events as f64 / start.elapsed().as_secs_f64()
}

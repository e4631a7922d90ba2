//! How fast is the whole pipeline with the exchange as its logic, and how long does an event
//! take through it?
//!
//! ```text
//! cargo bench -p lockstep-exchange --bench pipeline -- [--events N] [--rounds N] [--seconds N]
//!     [--only saturation|response] [--json FILE]
//! ```
//!
//! *Saturation*: events of 64 bytes a second, as fast as they go, from memory.
//! *Response*: by a fixed schedule, from the intended time of each event to its first output;
//! a schedule is never moved, so a stall is seen by every event that it delays.
//!
//! The flow is made up from a seed before the clock starts (see `load::generator`), equal for
//! all. The contenders of a table take turns within each round; before each run a probe
//! bounces one cache line between two threads, since the CPUs of a virtual machine are near
//! each other at times and far at others: compare runs of like probes. Each line is the median
//! of its rounds, with the least and the most.
//!
//! | name | what |
//! |---|---|
//! | `journal alone` | the same bytes by the journal, frames of its largest size, sync: the limit |
//! | `engine, trivial` | order → journal (sync) → a logic that counts → egress |
//! | `engine, exchange` | the same with the exchange |
//! | `… gate output`, `… one thread` | the gate behind the logic; all stages on one thread |
//! | `… journal none` | no journal |
//! | `disruptor` | the crate `disruptor`: a journal that does nothing → the exchange; yields when idle |
//! | `ring 1→1` | producer → one stage that does nothing |
//! | `exchange alone` | no ring, no thread: validate and apply in a loop |
//! | `replay` | what `engine, exchange` wrote, through the exchange again |
//!
//! `LOCKSTEP_BENCH_DIR` says on which disk; a temporary directory unless told.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(
    clippy::unwrap_used,
    reason = "a bench may stop where something is wrong"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use disruptor::wait_strategies::WaitStrategy;
use disruptor::{Producer as _, build_single_producer};
use hdrhistogram::Histogram;
use lockstep_engine::prelude::*;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::{Builder, Clock, JournalMode, Kinds};
use lockstep_exchange::event::Event;
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::load::generator::{Flow, Generator};
use lockstep_exchange::load::{Loader, Options};
use lockstep_exchange::logic::{Events, Reports};
use lockstep_exchange::output::{Discard, Output};
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Frame, Journal};
use lockstep_ringbuffer::{Graph, OnFull, each};
use serde_json::{Value, json};

const BATCH: usize = 256;
const SLOTS: usize = 65_536;

/// The flow's events, and the exchange for them.
fn flow(messages: u64) -> Vec<Event> {
    let flow = Flow {
        messages,
        ..Flow::default()
    };
    let loader = Loader::new(Generator::new(flow), Options::default());
    loader.collect::<Result<_, _>>().unwrap()
}

fn fresh() -> Exchange {
    Exchange::new(Bounds {
        orders: 1 << 17,
        accounts: 64,
        instruments: 16,
        holdings: 1_024,
        sessions: 16,
    })
}

/// A logic that does next to nothing, over the same slots.
#[derive(Default)]
struct Trivial {
    sum: u64,
}
lockstep_engine::snapshot!(Trivial { sum });

impl Logic for Trivial {
    type In = Events;
    type Out = Reports;

    fn apply(&mut self, event: &Event, context: &Context, out: &mut Outputs<'_, Reports>) {
        self.sum = self.sum.wrapping_add(event.body[0]);
        let slot = out.next_slot();
        slot.header.position = context.position().0;
        slot.body[0] = self.sum;
    }
}

/// Nanoseconds of one run of the program.
#[derive(Clone, Copy)]
struct Watch(Instant);

impl Watch {
    fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

/// How a run goes: as fast as possible, or by a schedule with times taken.
#[derive(Clone)]
struct Plan {
    watch: Watch,
    rate: Option<u64>,
    /// When each event was due, by its number.
    due: Arc<[AtomicU64]>,
    latency: Arc<Mutex<Histogram<u64>>>,
}

impl Plan {
    fn new(events: usize, rate: Option<u64>) -> Self {
        let cells = if rate.is_some() { events + 64 } else { 0 };
        Self {
            watch: Watch(Instant::now()),
            rate,
            due: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            latency: Arc::new(Mutex::new(histogram())),
        }
    }

    /// What the receiving end calls with the number of an event that is done.
    fn ear(&self) -> impl FnMut(u64) + Send + use<> {
        let plan = self.clone();
        // Locked once for all: the receiving thread is the only one until the end.
        let mut own = Recording {
            latency: histogram(),
            whole: Arc::clone(&self.latency),
        };
        move |number| {
            if plan.rate.is_some() {
                // ORDERING: Relaxed, the event came behind it.
                let due = plan.due[usize::try_from(number).unwrap()].load(Ordering::Relaxed);
                let took = plan.watch.now().saturating_sub(due).max(1);
                own.latency.saturating_record(took);
            }
        }
    }

    /// Sends all events; `send` gets batches. Events a second.
    fn send(&self, events: &[Event], mut send: impl FnMut(&[Event])) -> u64 {
        let begun = self.watch.now();
        let Some(rate) = self.rate else {
            events.chunks(BATCH).for_each(send);
            return begun;
        };
        let begun = begun + 1_000_000;
        let due = |at: usize| begun + at as u64 * 1_000_000_000 / rate;
        let mut at = 0;
        while at < events.len() {
            let now = self.watch.now();
            if due(at) > now {
                std::hint::spin_loop();
                std::thread::yield_now();
                continue;
            }
            let mut end = at;
            while end < events.len() && end - at < BATCH && due(end) <= now {
                // ORDERING: Relaxed, the event goes behind it.
                self.due[end].store(due(end), Ordering::Relaxed);
                end += 1;
            }
            send(&events[at..end]);
            at = end;
        }
        begun
    }
}

/// A nanosecond to an hour, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap()
}

/// A histogram that is added to the whole when its thread lets it go.
struct Recording {
    latency: Histogram<u64>,
    whole: Arc<Mutex<Histogram<u64>>>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.whole.lock().unwrap().add(&self.latency).unwrap();
    }
}

/// Runs on a fresh directory; how long it took, in nanoseconds.
type Contender = (&'static str, fn(&Path, &[Event], &Plan) -> u64);

fn engine<L: Logic<In = Events, Out = Reports>>(
    builder: Builder<L>,
    events: &[Event],
    plan: &Plan,
) -> u64 {
    let base = Arc::new(AtomicU64::new(u64::MAX));
    let (first, mut ear) = (Arc::clone(&base), plan.ear());
    let engine = builder
        .slots(SLOTS)
        .output_slots(SLOTS)
        .allow_volatile(true)
        .shadow(false)
        .counters(false)
        .beacon_every(0)
        .sessions_max(0)
        .clock(Clock::OfEvents)
        .on_outputs(move |output: &Output| {
            if output.header.index == 0 {
                // ORDERING: Relaxed, set before the first event is published.
                ear(output.header.position - first.load(Ordering::Relaxed));
            }
        })
        .start()
        .unwrap();
    // ORDERING: Relaxed, as above.
    base.store(engine.position().0, Ordering::Relaxed);
    let mut producer = engine.producer();
    let mut end = Position(0);
    let begun = plan.send(events, |batch| {
        end = producer.publish_events(batch).unwrap().end
    });
    producer.wait_until(end).unwrap();
    let took = plan.watch.now() - begun;
    engine.close().unwrap();
    took
}

fn exchange(directory: &Path) -> Builder<Exchange> {
    Engine::open_with(directory, fresh)
}

fn journal_alone(directory: &Path, events: &[Event], plan: &Plan) -> u64 {
    let mut options = lockstep_journaler::Options::new(&Events::schema());
    options.allow_volatile_medium = true;
    let (mut journal, _) = Journal::open(Disk::create(directory).unwrap(), &options).unwrap();
    let mut cutter = journal.cutter();
    let begun = plan.watch.now();
    for part in events.chunks(32_768) {
        let body: [&[u8]; 2] = [bytemuck::cast_slice(part), &[]];
        let header = cutter.cut(body, 1);
        let frame = Frame {
            header: &header,
            body,
        };
        journal.write(&[frame]).unwrap();
        journal.sync().unwrap();
    }
    let took = plan.watch.now() - begun;
    journal.close().unwrap();
    took
}

/// As our own threads under `auto`: gives the CPU away while there is nothing to do.
#[derive(Clone, Copy)]
struct Yielding;

impl WaitStrategy for Yielding {
    fn wait_for(&self, _: disruptor::Sequence) {
        std::thread::yield_now();
    }
}

fn peer(_: &Path, events: &[Event], plan: &Plan) -> u64 {
    let (mut exchange, mut out, mut ear) = (fresh(), Discard::default(), plan.ear());
    let done = Arc::new(AtomicU64::new(0));
    let tell = Arc::clone(&done);
    let journal = |_: &Event, _: disruptor::Sequence, _: bool| ();
    let logic = move |event: &Event, sequence: disruptor::Sequence, is_last: bool| {
        let number = u64::try_from(sequence).unwrap();
        let _refused = exchange.handle(event, number, &mut out);
        ear(number);
        if is_last {
            // ORDERING: Release, who waits for the end sees it done.
            tell.store(number + 1, Ordering::Release);
        }
    };
    let mut producer = build_single_producer(SLOTS, Event::default, Yielding)
        .handle_events_with(journal)
        .and_then()
        .handle_events_with(logic)
        .build();
    let begun = plan.send(events, |batch| {
        let mut left = batch.iter();
        while producer
            .try_batch_publish(batch.len(), |slots| {
                slots.for_each(|slot| *slot = *left.next().unwrap());
            })
            .is_err()
        {
            std::thread::yield_now();
        }
    });
    // ORDERING: Acquire, as above.
    while done.load(Ordering::Acquire) < events.len() as u64 {
        std::thread::yield_now();
    }
    let took = plan.watch.now() - begun;
    drop(producer);
    took
}

fn plain_ring(_: &Path, events: &[Event], plan: &Plan) -> u64 {
    let mut graph = Graph::new(SLOTS, Event::default).unwrap();
    let mut ear = plan.ear();
    graph.on_full(OnFull::Wait).wait(Wait::Auto);
    graph.stage(
        "end",
        &[],
        each(move |_: &Event, at: lockstep_ringbuffer::Sequence| ear(at.0)),
    );
    let (mut producer, pipeline) = graph.build().unwrap();
    let running = pipeline.start().unwrap();
    let begun = plan.send(events, |batch| {
        producer
            .publish_batch(batch.len(), |mut slots| slots.copy_from(batch))
            .unwrap();
    });
    drop(producer);
    running.join();
    plan.watch.now() - begun
}

fn alone(_: &Path, events: &[Event], plan: &Plan) -> u64 {
    let (mut exchange, mut out) = (fresh(), Discard::default());
    let begun = plan.watch.now();
    for (position, event) in (0..).zip(events) {
        let _refused = exchange.handle(event, position, &mut out);
    }
    plan.watch.now() - begun
}

fn replay(directory: &Path, events: &[Event], plan: &Plan) -> u64 {
    engine(exchange(directory), events, plan);
    let mut replay = Replay::open(directory, fresh, Range::default()).unwrap();
    let begun = plan.watch.now();
    let summary = replay.run(|_| ()).unwrap();
    assert!(summary.events >= events.len() as u64);
    plan.watch.now() - begun
}

const ONE_THREAD: &str = "order+journal+logic+egress";

const SATURATION: [Contender; 10] = [
    ("journal alone, sync", journal_alone),
    ("engine, trivial, sync", |dir, events, plan| {
        engine(Engine::<Trivial>::open(dir), events, plan)
    }),
    ("engine, exchange, sync", |dir, events, plan| {
        engine(exchange(dir), events, plan)
    }),
    (
        "engine, exchange, sync, gate output",
        |dir, events, plan| engine(exchange(dir).gate(GateAt::Output), events, plan),
    ),
    ("engine, exchange, sync, one thread", |dir, events, plan| {
        engine(exchange(dir).place(ONE_THREAD), events, plan)
    }),
    ("engine, exchange, journal none", |dir, events, plan| {
        engine(exchange(dir).journal(JournalMode::None), events, plan)
    }),
    ("disruptor, exchange, no journal", peer),
    ("ring 1→1", plain_ring),
    ("exchange alone", alone),
    ("replay", replay),
];

const RESPONSE: [Contender; 6] = [
    ("engine, exchange, sync", |dir, events, plan| {
        engine(exchange(dir), events, plan)
    }),
    (
        "engine, exchange, sync, gate output",
        |dir, events, plan| engine(exchange(dir).gate(GateAt::Output), events, plan),
    ),
    ("engine, exchange, journal none", |dir, events, plan| {
        engine(exchange(dir).journal(JournalMode::None), events, plan)
    }),
    ("engine, none, one thread", |dir, events, plan| {
        let builder = exchange(dir).journal(JournalMode::None).place(ONE_THREAD);
        engine(builder, events, plan)
    }),
    ("disruptor, exchange, no journal", peer),
    ("ring 1→1", plain_ring),
];

/// A cache line there and back between two threads, in nanoseconds: the median block.
fn probe() -> u64 {
    const TRIPS: u64 = 200;
    let line = Arc::new((AtomicU64::new(0), AtomicBool::new(false)));
    let other = Arc::clone(&line);
    let thread = std::thread::spawn(move || {
        // ORDERING: Acquire and Release pass the ball to and fro; here and below.
        while !other.1.load(Ordering::Acquire) {
            let at = other.0.load(Ordering::Acquire);
            if at % 2 == 1 {
                // ORDERING: as above.
                other.0.store(at + 1, Ordering::Release);
            }
            std::hint::spin_loop();
        }
    });
    let mut blocks: Vec<u64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..TRIPS {
                // ORDERING: as above.
                let at = line.0.load(Ordering::Relaxed);
                line.0.store(at + 1, Ordering::Release);
                while line.0.load(Ordering::Acquire) == at + 1 {
                    std::hint::spin_loop();
                }
            }
            u64::try_from(begun.elapsed().as_nanos()).unwrap() / TRIPS
        })
        .collect();
    // ORDERING: as above.
    line.1.store(true, Ordering::Release);
    thread.join().unwrap();
    blocks.sort_unstable();
    blocks[4]
}

fn directory() -> tempfile::TempDir {
    match std::env::var_os("LOCKSTEP_BENCH_DIR") {
        Some(root) => tempfile::tempdir_in(root).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for a person")]
fn million_per_second(events: usize, took_ns: u64) -> f64 {
    events as f64 * 1e3 / took_ns as f64
}

fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

fn saturation(events: &[Event], rounds: usize) -> Vec<Value> {
    println!(
        "\nsaturation, {} events of 64 bytes, {rounds} rounds",
        events.len()
    );
    let mut rates = vec![Vec::new(); SATURATION.len()];
    let mut probes = vec![Vec::new(); SATURATION.len()];
    for _ in 0..rounds {
        for (at, (_, run)) in SATURATION.iter().enumerate() {
            let directory = directory();
            probes[at].push(probe());
            let took = run(directory.path(), events, &Plan::new(events.len(), None));
            rates[at].push(million_per_second(events.len(), took));
        }
    }
    let mut rows = Vec::new();
    for (at, (name, _)) in SATURATION.iter().enumerate() {
        let (median, least, most) = spread(&mut rates[at]);
        println!(
            "{name:<38} {median:>7.2} M/s  ({least:.2} to {most:.2})  probe ns {:?}",
            probes[at]
        );
        rows.push(json!({
            "name": name, "million_per_second": median, "least": least, "most": most,
            "rounds": rates[at], "probe_ns": probes[at],
        }));
    }
    let of = |name: &str| {
        rows.iter().find(|row| row["name"] == name).unwrap()["million_per_second"]
            .as_f64()
            .unwrap()
    };
    let trivial = of("engine, trivial, sync");
    let alone = of("journal alone, sync");
    println!(
        "trivial logic reaches {:.0} % of the journal alone; the exchange {:.0} % of trivial logic",
        100.0 * trivial / alone,
        100.0 * of("engine, exchange, sync") / trivial
    );
    rows
}

fn response(events: &[Event], rate: u64, rounds: usize) -> Vec<Value> {
    println!(
        "\nresponse at {rate}/s, {} events, {rounds} rounds: median (least to most), us",
        events.len()
    );
    const AT: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
    let mut found = vec![Vec::new(); RESPONSE.len()];
    let mut probes = vec![Vec::new(); RESPONSE.len()];
    for _ in 0..rounds {
        for (at, (_, run)) in RESPONSE.iter().enumerate() {
            let directory = directory();
            probes[at].push(probe());
            let plan = Plan::new(events.len(), Some(rate));
            run(directory.path(), events, &plan);
            let latency = plan.latency.lock().unwrap();
            assert_eq!(
                latency.len(),
                events.len() as u64,
                "every event was heard once"
            );
            found[at].push(latency.clone());
        }
    }
    let mut rows = Vec::new();
    for (at, (name, _)) in RESPONSE.iter().enumerate() {
        print!("{name:<38}");
        let mut row =
            json!({ "name": name, "rate": rate, "samples": events.len(), "probe_ns": probes[at] });
        for percentile in AT {
            #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
            let mut values: Vec<f64> = found[at]
                .iter()
                .map(|latency| latency.value_at_quantile(percentile / 100.0) as f64 / 1e3)
                .collect();
            let (median, least, most) = spread(&mut values);
            print!("  p{percentile} {median:.2} ({least:.2}-{most:.2})");
            row[format!("p{percentile}_us")] =
                json!({ "median": median, "least": least, "most": most });
        }
        println!("  probe ns {:?}", probes[at]);
        rows.push(row);
    }
    rows
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let number =
        |name: &str, default: u64| value(name).map_or(default, |text| text.parse().unwrap());
    let count = number("--events", 2_000_000);
    let rounds = usize::try_from(number("--rounds", 5)).unwrap();
    let seconds = number("--seconds", 2);
    let all = flow(count.max(1_000_000 * seconds));
    let events = |wanted: u64| &all[..usize::try_from(wanted).unwrap().min(all.len())];
    let only = value("--only").map(String::as_str);
    let mut document = json!({});
    if only != Some("response") {
        document["saturation"] = saturation(events(count), rounds).into();
    }
    for rate in [100_000, 1_000_000] {
        if only == Some("saturation") {
            break;
        }
        document[format!("response_at_{rate}")] =
            response(events(rate * seconds), rate, rounds).into();
    }
    if let Some(path) = value("--json") {
        std::fs::write(path, format!("{document:#}\n")).unwrap();
    }
}

//! The exchange as the logic of an engine: journaled, recovered, replayed, compared.

use std::path::Path;
use std::sync::mpsc;

use lockstep_engine::replay::{Range, Replay, Verdict, compare};
use lockstep_engine::{Builder, Clock, Engine, Position, Wait};
use lockstep_exchange::event::Event;
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::load::generator::{Flow, Generator};
use lockstep_exchange::load::{Loader, Options};
use lockstep_exchange::logic::FaultyTick;
use lockstep_exchange::output::Output;

const BOUNDS: Bounds = Bounds {
    orders: 4_096,
    accounts: 64,
    instruments: 16,
    holdings: 1_024,
    sessions: 16,
};

fn fresh() -> Exchange {
    Exchange::new(BOUNDS)
}

fn flow(seed: u64, messages: u64) -> Vec<Event> {
    let flow = Flow {
        seed,
        messages,
        resting: 500,
        ..Flow::default()
    };
    let loader = Loader::new(Generator::new(flow), Options::default());
    loader.collect::<Result<_, _>>().unwrap()
}

fn opened(directory: &Path) -> Builder<Exchange> {
    Engine::open_with(directory, fresh)
        .allow_volatile(true)
        .slots(1_024)
        .output_slots(1_024)
        .segment_bytes(1 << 20)
        .wait(Wait::Yield { spins: 10 })
        .sessions_max(0)
        .snapshot_every(0)
        .beacon_every(1_000)
        .clock(Clock::OfEvents)
}

/// The same events without an engine.
fn alone(events: &[Event]) -> (Exchange, Vec<Output>) {
    let mut exchange = fresh();
    let mut out = Vec::new();
    for (position, event) in (0..).zip(events) {
        let _refused = exchange.handle(event, position, &mut out);
    }
    (exchange, out)
}

/// What an output says, but for the position: the engine has events of its own between.
fn said(outputs: &[Output]) -> Vec<Output> {
    let mut said = outputs.to_vec();
    for output in &mut said {
        output.header.position = 0;
    }
    said
}

#[test]
fn live_is_replayed_is_the_exchange_alone() {
    let directory = tempfile::tempdir().unwrap();
    let events = flow(1, 20_000);
    let (tell, told) = mpsc::channel();
    let engine = opened(directory.path())
        .on_outputs(move |output| {
            let _ = tell.send(*output);
        })
        .start()
        .unwrap();
    let mut producer = engine.producer();
    let end = producer.publish_events(&events).unwrap().end;
    producer.wait_until(end).unwrap();
    let (_, live) = engine.read(Exchange::state_hash).unwrap();
    engine.close().unwrap();
    let live_outputs: Vec<Output> = told.iter().collect();

    let (exchange, outputs) = alone(&events);
    assert!(exchange.trades() > 100, "{}", exchange.trades());
    assert_eq!(live, exchange.state_hash());
    assert_eq!(said(&live_outputs), said(&outputs));

    let mut replay = Replay::open(directory.path(), fresh, Range::default()).unwrap();
    let mut again = Vec::new();
    let summary = replay.run(|output| again.push(*output)).unwrap();
    assert_eq!(summary.logic_hash, live);
    assert_eq!(again, live_outputs);
}

#[test]
fn a_load_goes_on_over_restarts_with_and_without_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let events = flow(2, 9_000);
    let (exchange, _) = alone(&events);
    for part in events.chunks(2_500) {
        let engine = opened(directory.path()).start().unwrap();
        let mut producer = engine.producer();
        let end = producer.publish_events(part).unwrap().end;
        producer.wait_until(end).unwrap();
        if part.len() == 2_500 {
            let before = engine.newest_snapshot();
            engine.snapshot_now();
            // Ends: the shadow takes it, or the test is killed.
            while engine.newest_snapshot() == before {
                std::thread::yield_now();
            }
        }
        engine.close().unwrap();
    }
    let engine = opened(directory.path()).start().unwrap();
    assert!(engine.recovery().plan.snapshot.is_some());
    let (_, hash) = engine.read(Exchange::state_hash).unwrap();
    assert_eq!(hash, exchange.state_hash());
    engine.close().unwrap();
}

#[test]
fn compare_names_the_first_trade_of_a_version_that_is_one_tick_off() {
    let directory = tempfile::tempdir().unwrap();
    let events = flow(3, 3_000);
    let engine = opened(directory.path()).start().unwrap();
    let mut producer = engine.producer();
    let end = producer.publish_events(&events).unwrap().end;
    producer.wait_until(end).unwrap();
    engine.close().unwrap();

    let same = compare(directory.path(), fresh, fresh, Range::default()).unwrap();
    assert!(
        matches!(
            same,
            Verdict::Same {
                states_agree: true,
                ..
            }
        ),
        "{same}"
    );
    let faulty = || FaultyTick::from(fresh());
    let found = compare(directory.path(), fresh, faulty, Range::default()).unwrap();
    let Verdict::Different(difference) = found else {
        panic!("{found}")
    };
    assert_eq!(difference.old_kind, "Executed");
    assert_eq!(difference.fields.len(), 1, "{difference}");
    let field = &difference.fields[0];
    assert_eq!(field.name, "price");
    let (old, new): (i64, i64) = (field.old.parse().unwrap(), field.new.parse().unwrap());
    assert_eq!(old - new, 1);

    // Behind the first trade, from a state that both have in common.
    let later = Range {
        from: Position(difference.position.0 + 1),
        until: None,
    };
    let found = compare(directory.path(), fresh, faulty, later).unwrap();
    assert!(matches!(found, Verdict::Different(_)), "{found}");
}

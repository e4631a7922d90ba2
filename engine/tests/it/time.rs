//! Ticks and timers: time is what the log says, live and in every replay.

use std::sync::{Arc, Mutex};

use lockstep_engine::prelude::*;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::{Clock, Error};

use crate::recovery::wait_for;

bodies! {
    pub(crate) Remind, kind 1, version 1: { at_ns: u64, what: u64 }
    pub(crate) Rang, kind 101, version 1: { at_ns: u64, what: u64 }
}

/// Rings when the log's time comes to it, whatever brings it there.
#[derive(Default)]
struct Clocks {
    timers: Timers<u64>,
    ticks: u64,
}
snapshot!(Clocks { timers, ticks });

impl Clocks {
    fn ring(&mut self, context: &Context, out: &mut Outputs<'_, Rang>) {
        while let Some(what) = self.timers.due(context.time()) {
            out.emit(Rang {
                at_ns: context.time(),
                what,
            });
        }
    }
}

impl Logic for Clocks {
    type In = Remind;
    type Out = Rang;

    fn apply(&mut self, remind: &Remind, context: &Context, out: &mut Outputs<'_, Rang>) {
        self.timers.set(remind.at_ns, remind.what);
        self.ring(context, out);
    }

    fn tick(&mut self, context: &Context, out: &mut Outputs<'_, Rang>) {
        self.ticks += 1;
        self.ring(context, out);
    }
}

fn open(directory: &std::path::Path, clock: &Clock) -> lockstep_engine::Builder<Clocks> {
    Engine::<Clocks>::open(directory)
        .allow_volatile(true)
        .segment_bytes(1 << 20)
        .beacon_every(64)
        .clock(clock.clone())
}

type Heard = Arc<Mutex<Vec<(u64, Rang)>>>;

fn hearing(
    builder: lockstep_engine::Builder<Clocks>,
    heard: &Heard,
) -> lockstep_engine::Builder<Clocks> {
    let heard = Arc::clone(heard);
    builder.on_output(move |position, rang: &Rang| {
        heard.lock().unwrap().push((position.0, *rang));
    })
}

fn ticks(engine: &Engine<Clocks>) -> u64 {
    engine.read(|clocks| clocks.ticks).unwrap().1
}

#[test]
fn timers_ring_by_the_time_of_the_log_live_replayed_and_behind_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let heard = Heard::default();
    let engine = hearing(open(directory.path(), &clock).tick_ms(1), &heard)
        .start()
        .unwrap();
    let mut producer = engine.producer();
    for (at_ns, what) in [(5_000, 1), (4_000, 2), (4_000, 3), (9_000, 4)] {
        let ack = producer.publish(|slot: &mut Remind| (slot.at_ns, slot.what) = (at_ns, what));
        ack.unwrap().wait().unwrap();
    }
    // Ticks come, and the log's time stands still: nothing rings.
    let before = ticks(&engine);
    wait_for(|| ticks(&engine) > before + 3);
    assert_eq!(heard.lock().unwrap().len(), 0);
    clock.set(4_500);
    wait_for(|| heard.lock().unwrap().len() == 2);
    engine.snapshot_now();
    wait_for(|| engine.newest_snapshot().0 > 0);
    clock.set(5_000);
    wait_for(|| heard.lock().unwrap().len() == 3);
    // The clock goes back; the log's time does not, and nothing rings twice.
    clock.set(10);
    let before = ticks(&engine);
    wait_for(|| ticks(&engine) > before + 3);
    engine.close().unwrap();
    let live = heard.lock().unwrap().clone();
    let rung: Vec<u64> = live.iter().map(|(_, rang)| rang.what).collect();
    assert_eq!(rung, [2, 3, 1]);
    assert!(
        live.iter()
            .all(|(_, rang)| [4_500, 5_000].contains(&rang.at_ns))
    );

    // A replay has no clock and no ticks of its own: the log has both.
    let mut replayed = Vec::new();
    let mut replay =
        Replay::<Clocks>::open(directory.path(), Clocks::default, Range::default()).unwrap();
    let whole = replay
        .run(|output| {
            if let Some(rang) = Rang::view(output) {
                replayed.push((output.output().position, *rang));
            }
        })
        .unwrap();
    assert_eq!((replayed, whole.snapshot), (live, None));

    // And an engine that starts again goes on with what was set, from a snapshot.
    let heard = Heard::default();
    let engine = hearing(open(directory.path(), &clock), &heard)
        .start()
        .unwrap();
    assert!(engine.recovery().plan.snapshot.is_some());
    assert_eq!(engine.recovery().state_hash, whole.state_hash);
    clock.set(9_000);
    let ack = engine
        .producer()
        .publish(|slot: &mut Remind| slot.at_ns = u64::MAX);
    ack.unwrap().wait().unwrap();
    let rung: Vec<u64> = heard
        .lock()
        .unwrap()
        .iter()
        .map(|(_, rang)| rang.what)
        .collect();
    assert_eq!(rung, [4]);
    engine.close().unwrap();
}

/// Recorded flow brings its own time, which may not go back within the log.
#[test]
fn events_may_bring_their_own_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), &Clock::OfEvents).start().unwrap();
    let mut producer = engine.producer();
    let at = |time, at_ns| {
        let mut event = Event64::event(&Remind { at_ns, what: time });
        event.header_mut().time = time;
        event
    };
    let mut outputs = engine.subscribe("rings", Slow::Wait, 64).unwrap();
    let events = [at(100, 150), at(120, 0), at(90, 0), at(200, 0)];
    let end = producer.publish_events(&events).unwrap().end;
    producer.wait_until(end).unwrap();
    engine.close().unwrap();
    let mut rung = Vec::new();
    outputs.drain(|batch| {
        let rings = batch.iter().filter_map(Rang::view);
        rung.extend(rings.map(|rang| (rang.at_ns, rang.what)));
    });
    assert_eq!(rung, [(120, 120), (120, 90), (200, 200), (200, 100)]);
}

#[test]
fn a_wait_has_a_limit_and_says_what_it_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), &Clock::manual(1)).start().unwrap();
    let mut outputs = engine.subscribe("slow", Slow::Wait, 16).unwrap();
    let mut producer = engine.producer();
    let mut event = Event64::event(&Remind { at_ns: 0, what: 1 });
    event.header_mut().session = 0;
    let end = producer.publish_events(&[event; 40]).unwrap().end;
    let last = producer.ack_of(Position(end.0 - 1));
    let error = last
        .wait_for(std::time::Duration::from_millis(20))
        .unwrap_err();
    assert!(
        matches!(error, Error::TimedOut { position } if position.0 == end.0 - 1),
        "{error:?}"
    );
    let mut seen = 0;
    wait_for(|| {
        seen += outputs.drain(|_| ());
        seen == 40
    });
    last.wait().unwrap();
    engine.close().unwrap();
}

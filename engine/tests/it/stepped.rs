//! The whole engine in one thread, over a simulated disk and a clock of the test's own.

use lockstep_engine::prelude::*;
use lockstep_engine::{Clock, Error, Stepped};
use lockstep_journaler::storage::{Fault, Simulated};

use crate::bank::{Balance, Bank, Deposit};

type Bench = Stepped<Bank, Simulated>;

fn open(disk: &Simulated, clock: &Clock) -> Result<Bench, Error> {
    Engine::<Bank>::open_on(disk.clone(), Bank::default)
        .clock(clock.clone())
        .slots(64)
        .output_slots(64)
        .segment_bytes(1 << 20)
        .snapshot_every(200)
        .beacon_every(64)
        .tick_ms(5)
        .start_stepped()
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn total(engine: &mut Bench) -> (u64, i64) {
    let (position, total) = engine.read(|bank| bank.total).unwrap();
    (position.0, total)
}

#[test]
fn st1_nothing_moves_but_in_a_turn() {
    let (disk, clock) = (Simulated::new(1), Clock::manual(1_000));
    let mut engine = open(&disk, &clock).unwrap();
    engine.settle();
    let before = (engine.applied(), disk.change_count());
    let mut producer = engine.producer();
    let ack = producer
        .publish(|slot: &mut Deposit| slot.cents = 5)
        .unwrap();
    assert_eq!((engine.applied(), disk.change_count()), before);
    assert_eq!(ack.poll(), None);
    engine.settle();
    assert_eq!(
        ack.poll(),
        Some(Answer::Accepted {
            position: ack.position()
        })
    );
    let mut outputs = engine.subscribe("outputs", Slow::Wait, 16).unwrap();
    clock.set(7_000_000);
    let second = producer
        .publish(|slot: &mut Deposit| slot.cents = 6)
        .unwrap();
    engine.settle();
    assert!(second.poll().is_some());
    let mut heard = Vec::new();
    outputs.drain(|batch| heard.extend(batch.iter().map(|output| *output.body_as::<Balance>())));
    assert_eq!(
        heard,
        [Balance {
            account: 0,
            cents: 11
        }]
    );
    engine.close().unwrap();
    let mut engine = open(&disk, &clock).unwrap();
    assert_eq!(engine.recovery().journal, "closed in order");
    assert_eq!(total(&mut engine).1, 11);
}

#[test]
fn a_full_ring_is_busy_and_never_a_wait() {
    let (disk, clock) = (Simulated::new(2), Clock::manual(0));
    let mut engine = open(&disk, &clock).unwrap();
    engine.settle();
    let mut producer = engine.producer();
    let accepted = (0..100)
        .take_while(|_| {
            producer
                .publish(|slot: &mut Deposit| slot.cents = 1)
                .is_ok()
        })
        .count();
    assert_eq!(accepted, 64);
    assert!(matches!(
        producer.publish(|slot: &mut Deposit| slot.cents = 1),
        Err(Error::Busy)
    ));
    engine.settle();
    assert_eq!(total(&mut engine).1, 64);
}

/// Deposits of 1 from one run to the next, each run ended by a crash of the disk at any moment;
/// what was answered is there, what is there was asked for, and the states agree.
fn crashes(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (disk, clock) = (Simulated::new(seed), Clock::manual(1));
    let (mut asked, mut answered) = (0_i64, 0_i64);
    let mut now = 1;
    for _ in 0..8 {
        let mut engine = match open(&disk, &clock) {
            Ok(engine) => engine,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let (_, found) = total(&mut engine);
        assert!(
            answered <= found && found <= asked,
            "seed {seed}: {answered} answered, {found} found, {asked} asked"
        );
        (asked, answered) = (found, found);
        disk.cut_power_after(1 + random.below(60));
        let mut open_acks = Vec::new();
        let mut producer = engine.producer();
        for _ in 0..400 {
            if random.below(2) == 0
                && producer
                    .publish(|slot: &mut Deposit| slot.cents = 1)
                    .map(|ack| open_acks.push(ack))
                    .is_ok()
            {
                asked += 1;
            }
            now += random.below(3_000_000);
            clock.set(now);
            if random.below(3) == 0 {
                engine.turn();
            }
            open_acks.retain(|ack| match ack.poll() {
                Some(Answer::Accepted { .. }) => {
                    answered += 1;
                    false
                }
                Some(other) => panic!("seed {seed}: {other:?}"),
                None => true,
            });
        }
        disk.crash();
        drop(engine);
    }
    let mut engine = open(&disk, &clock).unwrap();
    let expected = engine.state_hash().unwrap();
    drop(engine);
    assert_eq!(open(&disk, &clock).unwrap().state_hash().unwrap(), expected);
}

#[test]
fn what_was_answered_survives_any_crash() {
    (1..=40).for_each(crashes);
}

#[test]
fn a_failed_sync_stops_the_engine_and_says_so() {
    let (disk, clock) = (Simulated::new(3), Clock::manual(0));
    let mut engine = open(&disk, &clock).unwrap();
    engine.settle();
    disk.inject(Fault::SyncError, ".seg", 0);
    let mut producer = engine.producer();
    let ack = producer
        .publish(|slot: &mut Deposit| slot.cents = 1)
        .unwrap();
    engine.settle();
    assert_eq!(ack.poll(), None);
    let fault = engine.fault().unwrap();
    assert!(fault.starts_with("journal: "), "{fault}");
    assert!(engine.close().unwrap_err().to_string().contains(&fault));
}

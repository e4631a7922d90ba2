//! The version of the logic's rules is in the log: live, behind a snapshot, and by the log alone.

use std::ops::RangeInclusive;

use lockstep_engine::prelude::*;

use crate::bank::{Balance, Deposit};
use crate::recovery::wait_for;

/// Adds; from version 2 on it adds twice. This build runs the versions from `OLDEST` to `NEWEST`.
#[derive(Default)]
struct Sum<const OLDEST: u32, const NEWEST: u32> {
    cents: i64,
}
impl<const OLDEST: u32, const NEWEST: u32> State for Sum<OLDEST, NEWEST> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.cents.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let cents = State::load(from)?;
        Ok(Self { cents })
    }
}

impl<const OLDEST: u32, const NEWEST: u32> Logic for Sum<OLDEST, NEWEST> {
    type In = Deposit;
    type Out = Balance;
    const VERSIONS: RangeInclusive<u32> = OLDEST..=NEWEST;

    fn apply(&mut self, deposit: &Deposit, context: &Context, _: &mut Outputs<'_, Balance>) {
        assert!(
            Self::VERSIONS.contains(&context.version()),
            "never under other rules"
        );
        self.cents += deposit.cents * i64::from(context.version().min(2));
    }
}

fn open<const OLDEST: u32, const NEWEST: u32>(
    directory: &std::path::Path,
) -> lockstep_engine::Builder<Sum<OLDEST, NEWEST>> {
    Engine::open(directory)
        .allow_volatile(true)
        .slots(256)
        .segment_bytes(1 << 20)
        .snapshot_every(0)
        .beacon_every(64)
}

fn pay<L: Logic<In = Deposit>>(engine: &Engine<L>, times: usize) {
    let mut producer = engine.producer();
    for _ in 0..times {
        let ack = producer
            .publish(|slot: &mut Deposit| slot.cents = 1)
            .unwrap();
        ack.wait().unwrap();
    }
}

#[test]
fn a_log_goes_to_a_version_and_stays_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open::<1, 2>(directory.path())
        .snapshot_every(100)
        .start()
        .unwrap();
    pay(&engine, 70);
    let beyond = engine.switch_version(3).unwrap_err().to_string();
    assert!(beyond.contains("version = 3"), "{beyond}");
    engine.switch_version(2).unwrap();
    assert_eq!(engine.version().unwrap(), 2);
    pay(&engine, 70);
    let back = engine.switch_version(1).unwrap();
    assert!(
        matches!(back, Answer::Rejected { code, .. } if code == lockstep_engine::system::code::VERSION_BACK)
    );
    wait_for(|| engine.newest_snapshot().0 >= 100);
    assert_eq!(engine.read(|sum| sum.cents).unwrap().1, 70 + 140);
    engine.close().unwrap();
    // Behind a snapshot that has the version, and by the log alone.
    let engine = open::<1, 2>(directory.path()).start().unwrap();
    assert!(engine.recovery().plan.snapshot.is_some());
    let hash = engine.recovery().state_hash;
    pay(&engine, 1);
    assert_eq!(engine.read(|sum| sum.cents).unwrap().1, 212);
    engine.close().unwrap();
    std::fs::remove_dir_all(directory.path().join("snap")).unwrap();
    let engine = open::<1, 3>(directory.path()).start().unwrap();
    assert_ne!(engine.recovery().state_hash, hash);
    assert_eq!(engine.read(|sum| sum.cents).unwrap().1, 212);
    engine.close().unwrap();
    // Builds that lack what the log needs say where.
    let old = open::<1, 1>(directory.path())
        .start()
        .unwrap_err()
        .to_string();
    assert!(
        old.contains("version 2") && old.contains("this build runs 1 to 1"),
        "{old}"
    );
    let new = open::<2, 3>(directory.path())
        .start()
        .unwrap_err()
        .to_string();
    assert!(
        new.contains("version 1") && new.contains("this build runs 2 to 3"),
        "{new}"
    );
}

#[test]
fn a_log_begins_in_the_oldest_version_of_its_build() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open::<2, 3>(directory.path()).start().unwrap();
    assert_eq!(engine.version().unwrap(), 2);
    pay(&engine, 5);
    assert_eq!(engine.read(|sum| sum.cents).unwrap().1, 10);
    engine.close().unwrap();
}

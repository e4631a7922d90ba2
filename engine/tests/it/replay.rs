//! The same log again: every speed, every stretch, two logics.

use lockstep_engine::prelude::*;
use lockstep_engine::replay::{
    FieldDifference, Range, Replay, Speed, Verdict, compare, position_as_of,
};
use lockstep_engine::state::state_hash;

use crate::bank::{Balance, Bank, BankIn, BankOut, bank, deposit};
use crate::recovery::wait_for;

fn written(directory: &std::path::Path) -> u64 {
    let clock = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_000));
    let manual = lockstep_engine::Clock::Manual(std::sync::Arc::clone(&clock));
    let engine = bank(directory).clock(manual).start().unwrap();
    let mut producer = engine.producer();
    for n in 0..300 {
        clock.fetch_add(10_000, std::sync::atomic::Ordering::Relaxed);
        let event = deposit(n % 7, n as i64 % 3);
        let end = producer.publish_events(&[event]).unwrap().end;
        producer.wait_until(end).unwrap();
        if n == 100 || n == 200 {
            let before = engine.newest_snapshot();
            engine.snapshot_now();
            wait_for(|| engine.newest_snapshot() != before);
        }
    }
    let hash = engine.read(state_hash).unwrap().1;
    engine.close().unwrap();
    hash
}

#[test]
fn rp1_every_speed_and_every_start_gives_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let hash = written(directory.path());
    let open = |range| Replay::<Bank>::open(directory.path(), Bank::default, range).unwrap();
    let mut all = Vec::new();
    let whole = open(Range::default())
        .run(|output| all.push(*output))
        .unwrap();
    assert_eq!((whole.logic_hash, whole.snapshot), (hash, None));
    let mut stepped = Vec::new();
    let slow = open(Range::default())
        .run_at(Speed::Percent(100), |step| {
            stepped.extend_from_slice(step.outputs)
        })
        .unwrap();
    assert_eq!((slow.state_hash, &stepped), (whole.state_hash, &all));
    assert!(slow.took.as_nanos() >= 299 * 10_000, "{:?}", slow.took);
    let from = Position(250);
    let mut late = Vec::new();
    let part = open(Range { from, until: None })
        .run(|output| late.push(*output))
        .unwrap();
    assert!(part.snapshot.is_some_and(|at| at.0 > 100), "{part:?}");
    assert_eq!(part.state_hash, whole.state_hash);
    let expected: Vec<_> = all
        .iter()
        .filter(|output| output.output().position >= from.0)
        .copied()
        .collect();
    assert_eq!(late, expected);
}

#[test]
fn d20_as_of_a_position_is_the_state_then() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path());
    let mut sums = Vec::new();
    let mut replay =
        Replay::<Bank>::open(directory.path(), Bank::default, Range::default()).unwrap();
    while let Some(step) = replay.step().unwrap() {
        let position = step.position;
        sums.push((position, replay.logic().total));
    }
    for &(position, total) in sums.iter().step_by(37) {
        let range = Range {
            from: position,
            until: Some(Position(position.0 + 1)),
        };
        let mut replay = Replay::<Bank>::open(directory.path(), Bank::default, range).unwrap();
        replay.run(|_| ()).unwrap();
        assert_eq!(replay.logic().total, total, "as of {position}");
    }
    let mut replay =
        Replay::<Bank>::open(directory.path(), Bank::default, Range::default()).unwrap();
    let mut before_ns = 0;
    while let Some(step) = replay.step().unwrap() {
        let (position, time_ns) = (step.position, step.event.header().time);
        if position.0 % 37 == 5 && time_ns > before_ns {
            let as_of = |time_ns| position_as_of::<Bank>(directory.path(), time_ns).unwrap();
            assert_eq!(as_of(time_ns - 1), position, "what is later than before it");
            assert!(as_of(time_ns) > position);
        }
        before_ns = before_ns.max(time_ns);
    }
    let end = replay.core().position();
    assert_eq!(
        position_as_of::<Bank>(directory.path(), u64::MAX).unwrap(),
        end
    );
}

/// The bank with a fault planted: one account gets one cent more, from some event on.
#[derive(Default)]
struct Faulty {
    bank: Bank,
}
impl State for Faulty {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.bank.save(out);
    }
    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            bank: Bank::load(from)?,
        })
    }
}
impl Logic for Faulty {
    type In = BankIn<'static>;
    type Out = BankOut<'static>;
    fn validate(&self, event: BankIn<'_>, context: &Context) -> Result<(), Reject> {
        self.bank.validate(event, context)
    }
    fn apply(&mut self, event: BankIn<'_>, context: &Context, out: &mut Outputs<'_, Self::Out>) {
        match event {
            BankIn::Deposit(deposit) if context.position().0 >= 200 && deposit.account == 3 => {
                let balance = self.bank.balances.entry(3);
                *balance += deposit.cents + 1;
                self.bank.total += deposit.cents + 1;
                out.emit(Balance {
                    account: 3,
                    cents: *balance,
                });
            }
            other => self.bank.apply(other, context, out),
        }
    }
}

#[test]
fn rp2_d64_a_planted_fault_is_named_by_position_and_field() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path());
    let same = compare(
        directory.path(),
        Bank::default,
        Bank::default,
        Range::default(),
    )
    .unwrap();
    assert!(
        matches!(
            same,
            Verdict::Same {
                states_agree: true,
                outputs: 300,
                ..
            }
        ),
        "{same}"
    );
    let Verdict::Different(difference) = compare(
        directory.path(),
        Bank::default,
        Faulty::default,
        Range::default(),
    )
    .unwrap() else {
        panic!("the fault was not found")
    };
    assert!(difference.position.0 >= 200 && difference.index == 0);
    assert_eq!(
        (difference.old_kind.as_str(), difference.new_kind.as_str()),
        ("Balance", "Balance")
    );
    let [FieldDifference { name, old, new }] = &difference.fields[..] else {
        panic!("{difference}")
    };
    assert_eq!(name, "cents");
    assert_eq!(new.parse::<i64>().unwrap(), old.parse::<i64>().unwrap() + 1);
}

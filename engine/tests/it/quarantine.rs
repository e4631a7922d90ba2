//! An event on which the logic panics: the state is as before it, live and in every replay.

use lockstep_engine::prelude::*;
use lockstep_engine::system::code;
use lockstep_engine::{OnApplyPanic, OnValidatePanic};

use crate::bank::{Bank, Bomb, Deposit, bank};
use crate::recovery::wait_for;

fn pay(engine: &Engine<Bank>) -> Answer {
    let mut producer = engine.producer();
    producer
        .publish(|slot: &mut Deposit| (slot.account, slot.cents) = (7, 10))
        .unwrap()
        .wait()
        .unwrap()
}

fn bomb(engine: &Engine<Bank>, in_validate: u64) -> lockstep_engine::Result<Answer> {
    let mut producer = engine.producer();
    producer
        .publish(|slot: &mut Bomb| (slot.account, slot.is_armed_in_validate) = (7, in_validate))?
        .wait()
}

/// Panics are part of these tests: their messages would only frighten.
pub(crate) fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic
                .payload()
                .downcast_ref::<&str>()
                .copied()
                .unwrap_or_default();
            if !text.starts_with("a bomb") {
                usual(panic);
            }
        }));
    });
}

#[test]
fn d62_the_state_is_as_before_and_everybody_agrees() {
    quietly();
    let directory = tempfile::tempdir().unwrap();
    let quarantining = || bank(directory.path()).on_apply_panic(OnApplyPanic::Quarantine);
    let engine = quarantining().snapshot_every(100).start().unwrap();
    for _ in 0..50 {
        pay(&engine);
    }
    let Answer::Rejected {
        position,
        code: code::QUARANTINED,
    } = bomb(&engine, 0).unwrap()
    else {
        panic!("the bomb was taken")
    };
    assert!(matches!(pay(&engine), Answer::Accepted { .. }));
    assert_eq!(
        engine
            .read(|bank| bank.balances.get(&7).copied())
            .unwrap()
            .1,
        Some(510)
    );
    assert_eq!(engine.quarantined().unwrap(), [position]);
    for _ in 0..100 {
        pay(&engine);
    }
    wait_for(|| engine.newest_snapshot().0 >= 100);
    let total = engine.read(|bank| bank.total).unwrap().1;
    engine.close().unwrap();
    // Behind a snapshot, and by the whole log; the mark counts, whatever the policy is by now.
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, total);
    assert_eq!(engine.recovery().quarantined, [position]);
    let hash = engine.recovery().state_hash;
    engine.close().unwrap();
    std::fs::remove_dir_all(directory.path().join("snap")).unwrap();
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.recovery().plan.snapshot, None);
    assert_eq!(engine.recovery().state_hash, hash);
    engine.close().unwrap();
}

#[test]
fn the_default_is_to_halt_and_to_say_where() {
    quietly();
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    pay(&engine);
    let error = bomb(&engine, 0).unwrap_err().to_string();
    assert!(
        error.contains("apply") && error.contains("on_apply_panic"),
        "{error}"
    );
    engine.close().unwrap_err();
    // It is in the log, so opening meets it again: by choice it goes into quarantine then.
    let error = bank(directory.path()).start().unwrap_err().to_string();
    assert!(error.contains("a bomb in apply"), "{error}");
    let engine = bank(directory.path())
        .on_apply_panic(OnApplyPanic::Quarantine)
        .start()
        .unwrap();
    assert_eq!(engine.recovery().quarantined.len(), 1);
    assert!(matches!(pay(&engine), Answer::Accepted { .. }));
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 20);
    engine.close().unwrap();
    // And from then on the mark is in the log.
    let engine = bank(directory.path()).start().unwrap();
    assert_eq!(engine.recovery().quarantined.len(), 1);
    engine.close().unwrap();
}

#[test]
fn a_panic_in_validate_is_refused_by_choice_and_the_state_is_untouched() {
    quietly();
    let directory = tempfile::tempdir().unwrap();
    let refusing = || bank(directory.path()).on_validate_panic(OnValidatePanic::Refuse);
    let engine = refusing().start().unwrap();
    pay(&engine);
    let answer = bomb(&engine, 1).unwrap();
    assert!(
        matches!(
            answer,
            Answer::Rejected {
                code: code::VALIDATE_PANICKED,
                ..
            }
        ),
        "{answer:?}"
    );
    pay(&engine);
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 20);
    engine.close().unwrap();
    let engine = refusing().start().unwrap();
    assert_eq!(engine.read(|bank| bank.total).unwrap().1, 20);
    engine.close().unwrap();
}

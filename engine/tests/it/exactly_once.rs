//! A request that comes again gets its first answer and changes nothing.

use lockstep_engine::prelude::*;
use lockstep_engine::system::code;

use crate::bank::{Bank, Deposit, bank};

fn pay(engine: &Engine<Bank>, session: u64, request: u32) -> Answer {
    let mut producer = engine.producer();
    let ack = producer.publish_as(session, request, |slot: &mut Deposit| {
        (slot.account, slot.cents) = (7, 10)
    });
    ack.unwrap().wait().unwrap()
}

fn balance(engine: &Engine<Bank>) -> i64 {
    engine
        .read(|bank| bank.balances.get(&7).copied().unwrap_or(0))
        .unwrap()
        .1
}

#[test]
fn d08_a_retry_is_harmless_also_behind_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let session = engine.producer().open_session(0).unwrap();
    let Answer::Accepted { position: first } = pay(&engine, session, 1) else {
        panic!("refused")
    };
    assert!(matches!(pay(&engine, session, 1), Answer::Repeated { .. }));
    assert!(matches!(pay(&engine, session, 2), Answer::Accepted { .. }));
    assert_eq!(balance(&engine), 20);
    engine.close().unwrap();

    let engine = bank(directory.path()).start().unwrap();
    assert!(matches!(pay(&engine, session, 2), Answer::Repeated { .. }));
    assert!(matches!(pay(&engine, session, 1), Answer::Repeated { .. }));
    assert_eq!(engine.reply(session, 1).unwrap().unwrap().position, first.0);
    assert_eq!(balance(&engine), 20);
    engine.close().unwrap();
}

#[test]
fn a_gap_an_unknown_session_and_too_many_are_refused_by_number() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).sessions_max(2).start().unwrap();
    let mut producer = engine.producer();
    let session = producer.open_session(0).unwrap();
    let code_of = |answer| match answer {
        Answer::Rejected { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code_of(pay(&engine, session, 2)), code::REQUEST_GAP);
    assert_eq!(code_of(pay(&engine, 999, 1)), code::SESSION_UNKNOWN);
    producer.open_session(0).unwrap();
    assert!(
        producer
            .open_session(0)
            .unwrap_err()
            .to_string()
            .contains("sessions")
    );
    producer.close_session(session).unwrap().wait().unwrap();
    assert_eq!(code_of(pay(&engine, session, 1)), code::SESSION_UNKNOWN);
    producer.open_session(0).unwrap();
    assert_eq!(balance(&engine), 0);
    engine.close().unwrap();
}

#[test]
fn a_session_expires_by_the_time_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1));
    let clock = lockstep_engine::Clock::Manual(std::sync::Arc::clone(&now));
    let engine = bank(directory.path())
        .clock(clock)
        .session_expiry_ms(1000)
        .start()
        .unwrap();
    let session = engine.producer().open_session(0).unwrap();
    assert!(matches!(pay(&engine, session, 1), Answer::Accepted { .. }));
    now.store(1_000_000_001, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        pay(&engine, session, 2),
        Answer::Rejected {
            code: code::SESSION_UNKNOWN,
            ..
        }
    ));
    engine.close().unwrap();
}

//! What others see of an engine: the mapped counters, and the same over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use lockstep_engine::counters::{self, Live};
use lockstep_engine::prelude::*;

use crate::bank::{Bank, Deposit, bank};
use crate::recovery::wait_for;

fn pay(engine: &Engine<Bank>, count: u64) {
    let mut producer = engine.producer();
    for _ in 0..count {
        let ack = producer.publish(|slot: &mut Deposit| slot.cents = 1);
        ack.unwrap().wait().unwrap();
    }
}

#[test]
fn counters_are_seen_from_outside_while_it_runs_and_behind_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let live = Live::open(directory.path()).unwrap();
    pay(&engine, 10);
    let position = engine.position().0;
    wait_for(|| live.look().unwrap().get("egress.answered") >= Some(position));
    let first = live.look().unwrap();
    assert_eq!(first.pid, u64::from(std::process::id()));
    assert!(first.is_running && first.updated_ns >= first.started_ns);
    assert_eq!(
        first.stages().collect::<Vec<_>>(),
        ["order", "journal", "logic", "egress"]
    );
    assert_eq!(first.after("logic").collect::<Vec<_>>(), ["journal"]);
    assert_eq!(first.after("order").count(), 0);
    assert_eq!(first.get("ring.slots"), Some(256));
    assert!(first.get("journal.syncs") > Some(0));
    pay(&engine, 10);
    wait_for(|| live.look().unwrap().get("egress.answered") >= Some(position + 10));
    engine.close().unwrap();
    assert!(!live.look().unwrap().is_running);
    let last = counters::read(directory.path()).unwrap();
    assert_eq!(last.get("journal.durable"), last.get("egress.answered"));
    assert_eq!(last.get("engine.has_failed"), Some(0));

    // An engine that starts again makes a file of its own.
    let engine = bank(directory.path()).start().unwrap();
    assert!(counters::read(directory.path()).unwrap().is_running);
    assert!(!live.look().unwrap().is_running);
    engine.close().unwrap();
}

#[test]
fn a_reader_never_sees_a_stage_ahead_of_what_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path()).start().unwrap();
    let live = Live::open(directory.path()).unwrap();
    let paying = std::thread::scope(|scope| {
        let paying = scope.spawn(|| pay(&engine, 500));
        // Ends: with the deposits.
        while !paying.is_finished() {
            let look = live.look().unwrap();
            let released = |stage: &str| look.get(&format!("stage.{stage}.released")).unwrap();
            for stage in look.stages() {
                assert!(released(stage) <= look.get("ring.published").unwrap());
            }
            std::thread::yield_now();
        }
        paying.join()
    });
    paying.unwrap();
    engine.close().unwrap();
}

/// One exchange over a connection of its own: what was sent, what came back.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// The number of a metric; the text is taken apart as Prometheus does.
fn metric(address: SocketAddr, name: &str) -> u64 {
    let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"));
    let length = format!("Content-Length: {}", body.len());
    assert!(head.contains(&length), "{head}, the body has {length}");
    let mut found = None;
    for lines in body.lines().collect::<Vec<_>>().chunks(2) {
        let [kind, sample] = lines else {
            panic!("{lines:?}")
        };
        let (own, value) = sample.split_once(' ').unwrap();
        assert_eq!(*kind, format!("# TYPE {own} gauge"));
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        assert!(own.chars().all(is_name), "{own}");
        let value: u64 = value.parse().unwrap();
        if own == name {
            found = Some(value);
        }
    }
    found.unwrap_or_else(|| panic!("no {name} in {body}"))
}

#[test]
fn prometheus_gets_numbers_that_move_and_nonsense_hurts_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let engine = bank(directory.path())
        .prometheus("127.0.0.1:0")
        .start()
        .unwrap();
    let address = engine.metrics_address().unwrap();
    let before = metric(address, "lockstep_egress_answered");
    pay(&engine, 7);
    assert_eq!(metric(address, "lockstep_egress_answered"), before + 7);
    assert_eq!(metric(address, "lockstep_stage_egress_after_logic"), 1);

    // Somebody who says nothing holds up neither the engine nor, for long, those behind them.
    let silent = TcpStream::connect(address).unwrap();
    let endless = vec![b'a'; 64 << 10];
    for (nonsense, status) in [
        (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], "405"),
        (b"GET /secrets HTTP/1.1\r\n\r\n", "404"),
        (b"\r\n\r\n", "400"),
        (b"\xff\xfe\x00\x01\r\n\r\n", "400"),
        (b"GET", "400"),
        (b"", "400"),
        (&endless, "431"),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        let _cut_short = stream.write_all(nonsense);
        let _cut_short = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        // A request of which not all is read may be answered by a reset: that is an answer too.
        if stream.read_to_string(&mut answer).is_ok() {
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }
    drop(silent);
    pay(&engine, 1);
    assert_eq!(metric(address, "lockstep_egress_answered"), before + 8);

    // A port that is taken is said at the start, and nothing runs then.
    let other = tempfile::tempdir().unwrap();
    let error = bank(other.path())
        .prometheus(&address.to_string())
        .start()
        .unwrap_err()
        .to_string();
    assert!(error.contains("prometheus address"), "{error}");
    engine.close().unwrap();
    assert!(
        TcpStream::connect(address).is_err(),
        "it is gone with the engine"
    );
}

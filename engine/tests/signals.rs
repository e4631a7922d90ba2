//! A process that is asked to end: it drains, closes the journal in order, and ends with 0; one
//! whose engine stopped by itself ends with another code.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use lockstep_engine::prelude::*;

bodies! {
    Deposit, kind 1, version 1: { account: u64, cents: u64 }
}

#[derive(Default)]
struct Bank {
    total: u64,
}
snapshot!(Bank { total });

impl Logic for Bank {
    type In = Deposit;
    type Out = Deposit;

    fn apply(&mut self, deposit: &Deposit, _: &Context, _: &mut Outputs<'_, Deposit>) {
        assert!(deposit.cents != 666, "a bad deposit");
        self.total += deposit.cents;
    }
}

const DIRECTORY: &str = "LOCKSTEP_SIGNALS_DIRECTORY";
const BAD_AT: &str = "LOCKSTEP_SIGNALS_BAD_AT";

fn open(directory: &str) -> lockstep_engine::Builder<Bank> {
    Engine::<Bank>::open(directory)
        .allow_volatile(true)
        .segment_bytes(1 << 20)
        .slots(1024)
}

/// The child: publishes as fast as it can until the engine is closed under it.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let bad_at: u64 = std::env::var(BAD_AT).unwrap().parse().unwrap();
    let engine = open(&directory).start().unwrap();
    let mut producer = engine.producer();
    let publisher = std::thread::Builder::new().spawn(move || {
        let mut acks = Vec::new();
        // Ends: with the engine.
        let error = loop {
            let cents = if acks.len() as u64 == bad_at { 666 } else { 1 };
            match producer.publish(|slot: &mut Deposit| slot.cents = cents) {
                Ok(ack) => acks.push(ack),
                Err(error) => break error,
            }
            if acks.len() == 2_000 {
                writeln!(std::io::stdout(), "\nunder load").unwrap();
            }
        };
        let answered = acks.iter().filter(|ack| ack.poll().is_some()).count();
        let published = acks.len();
        writeln!(std::io::stdout(), "\nended {answered} {published} {error}").unwrap();
    });
    let ended = engine.run_until_signal();
    publisher.unwrap().join().unwrap();
    let code = match ended {
        Ok(()) => 0,
        Err(error) => {
            writeln!(std::io::stdout(), "\nended by {error}").unwrap();
            3
        }
    };
    std::process::exit(code);
}

fn run(directory: &str, bad_at: u64) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .envs([(DIRECTORY, directory), (BAD_AT, &bad_at.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok))
}

#[test]
fn d40_sigterm_and_sigint_drain_under_load_and_end_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let mut before = 0;
    for signal in ["-TERM", "-INT", "-TERM"] {
        let (mut child, mut lines) = run(path, u64::MAX);
        assert!(lines.any(|line| line == "under load"));
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let last = lines.find(|line| line.starts_with("ended ")).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}: {last}");
        let words: Vec<&str> = last.splitn(4, ' ').collect();
        let [answered, published] = [1, 2].map(|at| words[at].parse::<u64>().unwrap());
        assert!(answered >= 1_000 && words[3].contains("closed"), "{last}");
        // What was answered is there, once; what was published into the end itself may be.
        let engine = open(path).start().unwrap();
        assert_eq!(engine.recovery().journal, "closed in order", "{signal}");
        let total = engine.read(|bank| bank.total).unwrap().1;
        assert!(
            (before + answered..=before + published).contains(&total),
            "{signal}: {total} behind {before} and {last}"
        );
        before = total;
        engine.close().unwrap();
    }
}

#[test]
fn an_engine_that_stops_by_itself_ends_its_process_with_another_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (mut child, lines) = run(path, 500);
    let ended: Vec<String> = lines.filter(|line| line.starts_with("ended by ")).collect();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(ended.len(), 1);
    for word in [
        "panicked in apply at position",
        "a bad deposit",
        "on_apply_panic",
    ] {
        assert!(
            ended[0].contains(word),
            "{word} is missing in: {}",
            ended[0]
        );
    }
    let error = open(path).start().unwrap_err().to_string();
    assert!(error.contains("a bad deposit"), "{error}");
}

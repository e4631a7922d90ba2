//! `kill -9` at any moment under load: nothing acknowledged is lost, nothing is applied twice.
//!
//! A child process runs the bank, with several requests under way, and tells, line by line, what was
//! answered to it; it is killed without warning, and the next child goes on in the same directory,
//! with the same client session, repeating its last requests as a client would that has no
//! answer. Behind each kill the account has what was answered, and of what was under way as much as
//! there was: a request that is applied twice would be one too many in the end.
//!
//! ```text
//! cargo test --release -p lockstep-engine --test kill                          # a slice: 8 kills
//! LOCKSTEP_KILLS=200 cargo test --release -p lockstep-engine --test kill -- --nocapture   # the campaign
//! ```

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use lockstep_engine::prelude::*;

bodies! {
    Deposit, kind 1, version 1: { account: u64, cents: u64 }
    Balance, kind 101, version 1: { account: u64, cents: u64 }
}

#[derive(Default)]
struct Bank {
    balances: DetMap<u64, u64>,
}
snapshot!(Bank { balances });

impl Logic for Bank {
    type In = Deposit;
    type Out = Balance;

    fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
        let balance = self.balances.entry(deposit.account);
        *balance += deposit.cents;
        out.emit(Balance {
            account: deposit.account,
            cents: *balance,
        });
    }
}

/// Requests under way at once: as many as the engine keeps replies of a session.
const WINDOW: u64 = 16;

const DIRECTORY: &str = "LOCKSTEP_KILL_DIRECTORY";
const SESSION: &str = "LOCKSTEP_KILL_SESSION";
const REQUEST: &str = "LOCKSTEP_KILL_REQUEST";

fn open(directory: &str) -> Engine<Bank> {
    let engine = Engine::<Bank>::open(directory)
        .allow_volatile(true)
        .segment_bytes(1 << 20);
    engine.snapshot_every(300).beacon_every(64).start().unwrap()
}

/// The child: goes on behind the request that is named, until it is killed.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (mut session, mut request) = (number(SESSION), u32::try_from(number(REQUEST)).unwrap());
    let engine = open(&directory);
    let mut producer = engine.producer();
    let mut out = std::io::stdout();
    if session == 0 {
        session = producer.open_session(0).unwrap();
        writeln!(out, "\nsession {session}").unwrap();
    }
    let mut sent = request;
    let mut under_way = VecDeque::new();
    loop {
        while u64::from(sent - request) < WINDOW {
            sent += 1;
            let ack = producer.publish_as(session, sent, |deposit: &mut Deposit| {
                (deposit.account, deposit.cents) = (session, 1);
            });
            under_way.push_back(ack.unwrap());
        }
        match under_way.pop_front().unwrap().wait().unwrap() {
            Answer::Accepted { .. } | Answer::Repeated { .. } => request += 1,
            other => panic!("{other:?}"),
        }
        writeln!(out, "\nrequest {request}").unwrap();
    }
}

#[test]
fn d33_whatever_was_answered_survives_and_is_applied_once() {
    let kills: u32 = std::env::var("LOCKSTEP_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (mut session, mut request) = (0_u64, 0_u64);
    for round in 0..kills {
        // Different moments in each round: during the opening, between two answers, in a snapshot.
        let lines = u64::from(round * 37 % 400);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .envs([
                (DIRECTORY, path),
                (SESSION, &session.to_string()),
                (REQUEST, &request.to_string()),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut heard = 0;
        // Ends: by the number of lines, or because the child is gone.
        while heard < lines {
            let Some(line) = reader.next() else { break };
            heard += u64::from(note(&line, &mut session, &mut request));
        }
        child.kill().unwrap();
        // What it had said before it died counts as said.
        reader.for_each(|line| {
            note(&line, &mut session, &mut request);
        });
        child.wait().unwrap();
        check(path, session, request, round);
    }
    println!("{kills} kills: {request} requests answered, none lost, none applied twice");
}

/// Takes in what the child said; whether it was an answer.
fn note(line: &str, session: &mut u64, request: &mut u64) -> bool {
    if let Some(number) = line
        .strip_prefix("session ")
        .and_then(|number| number.parse().ok())
    {
        *session = number;
        return true;
    }
    if let Some(number) = line
        .strip_prefix("request ")
        .and_then(|number| number.parse().ok())
    {
        *request = number;
        return true;
    }
    false
}

/// The account has one cent for each request that was answered, and for some that were under way.
fn check(path: &str, session: u64, request: u64, round: u32) {
    let engine = open(path);
    let (_, cents) = engine
        .read(move |bank| bank.balances.get(&session).copied().unwrap_or(0))
        .unwrap();
    assert!(
        (request..=request + WINDOW).contains(&cents),
        "kill {round}: {request} answered, {cents} in the account"
    );
    engine.close().unwrap();
}

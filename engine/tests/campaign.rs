//! A seeded campaign over the whole engine and a simulated disk: the power goes at any call of the
//! storage, during opening, writing, snapshots and retention; the next engine goes on.
//!
//! ```text
//! cargo test -p lockstep-engine --test campaign                                             # a slice: 60 seeds
//! LOCKSTEP_SEEDS=1000 cargo test --release -p lockstep-engine --test campaign               # the campaign
//! LOCKSTEP_SEED=77 cargo test -p lockstep-engine --test campaign                            # one of them again
//! ```
//!
//! Each seed: ten lives of one bank. A client with a session sends numbered transfers, repeats what
//! has no answer, and may repeat what has one; others send without a session. In every life the
//! power goes after a number of changes that the seed chooses, or the process dies alone, or a
//! call fails. Behind each opening:
//!
//! * what was answered is there (acknowledged ⊆ recovered), and what is there was asked for;
//! * each numbered request was applied once, however often it came;
//! * the state hash is that of a model which went through the journal's events by itself, and that
//!   of an engine that has no snapshots to begin with, while the log reaches back so far;
//! * outputs come out again exactly as they did before the crash.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::BTreeMap;

use lockstep_engine::prelude::*;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::state::state_hash;
use lockstep_engine::{Clock, Error, Retention, Stepped};
use lockstep_journaler::storage::{Fault, Simulated};

bodies! {
    Transfer, kind 1, version 1: { from: u64, to: u64, cents: u64 }
    Moved, kind 101, version 1: { from: u64, to: u64, cents: u64, number: u64 }
}

/// Everybody begins with so much; nobody may owe.
const ALLOWANCE: u64 = 1_000;
const POOR: u16 = 7;

/// More changes than any life makes.
const NEVER: u64 = u64::MAX;

#[derive(Default)]
struct Bank {
    balances: DetMap<u64, u64>,
    number: u64,
}
snapshot!(Bank { balances, number });

impl Bank {
    fn has(&self, account: u64) -> u64 {
        self.balances.get(&account).copied().unwrap_or(ALLOWANCE)
    }
}

impl Logic for Bank {
    type In = Transfer;
    type Out = Moved;

    fn validate(&self, transfer: &Transfer, _: &Context) -> Result<(), Reject> {
        if self.has(transfer.from) < transfer.cents {
            return Err(Reject::new(POOR, "too poor"));
        }
        Ok(())
    }

    fn apply(&mut self, transfer: &Transfer, _: &Context, out: &mut Outputs<'_, Moved>) {
        let Transfer { from, to, cents } = *transfer;
        let left = self.has(from) - cents;
        self.balances.insert(from, left);
        let more = self.has(to) + cents;
        self.balances.insert(to, more);
        self.number += 1;
        let number = self.number;
        out.emit(Moved {
            from,
            to,
            cents,
            number,
        });
    }

    fn check(&self) -> Result<(), std::borrow::Cow<'static, str>> {
        let off = self
            .balances
            .values()
            .map(|own| i128::from(*own) - i128::from(ALLOWANCE));
        match off.sum::<i128>() {
            0 => Ok(()),
            other => Err(format!("{other} cents came from nowhere").into()),
        }
    }
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The world of one seed.
struct Campaign {
    seed: u64,
    random: Random,
    disk: Simulated,
    clock: Clock,
    now: u64,
    retention: Retention,
    gate: GateAt,
    /// Outputs by position and index, as they were heard first.
    heard: BTreeMap<(u64, u32), Moved>,
    client: Client,
    /// Without a session: asked for, and answered.
    asked: u64,
    answered: u64,
}

/// A client that repeats until it has an answer.
#[derive(Default)]
struct Client {
    session: u64,
    opening: Option<Ack>,
    /// The last request that was answered.
    done: u32,
    waiting: Option<Ack>,
}

type Run = Stepped<Bank, Simulated>;

impl Campaign {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let retention = if random.below(2) == 0 {
            Retention::Keep
        } else {
            Retention::Snapshots
        };
        let gate = if random.below(3) == 0 {
            GateAt::Output
        } else {
            GateAt::Logic
        };
        Self {
            seed,
            disk: Simulated::new(seed),
            clock: Clock::manual(1),
            now: 1,
            random,
            retention,
            gate,
            heard: BTreeMap::new(),
            client: Client::default(),
            asked: 0,
            answered: 0,
        }
    }

    fn open(&self) -> Result<Run, Error> {
        Engine::<Bank>::open_on(self.disk.clone(), Bank::default)
            .clock(self.clock.clone())
            .slots(64)
            .output_slots(64)
            .segment_bytes(64 << 10)
            .snapshot_every(150)
            .beacon_every(64)
            .tick_ms(5)
            .retention(self.retention)
            .gate(self.gate)
            .start_stepped()
    }

    /// Opens, although the power may go meanwhile, as often as it takes.
    fn opened(&mut self) -> Run {
        for _ in 0..3 {
            if self.random.below(2) == 0 {
                self.disk.cut_power_after(1 + self.random.below(40));
            }
            match self.open() {
                Ok(run) if !self.disk.is_off() => {
                    self.disk.cut_power_after(NEVER);
                    return run;
                }
                Ok(_) => {}
                Err(error) => {
                    assert!(self.disk.is_off(), "seed {}: {error}", self.seed);
                }
            }
            self.disk.crash();
        }
        self.open()
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    fn life(&mut self) {
        let mut run = self.opened();
        self.check(&mut run);
        let (mut outputs, mut producer) = (
            run.subscribe("all", Slow::Wait, 256).unwrap(),
            run.producer(),
        );
        let mut acks: Vec<Ack> = Vec::new();
        match self.random.below(4) {
            0 => {}
            1 => {
                let skip = self.random.below(60);
                self.disk.inject(Fault::SyncError, ".seg", skip);
            }
            _ => self.disk.cut_power_after(1 + self.random.below(120)),
        }
        for _ in 0..self.random.below(500) {
            if self.random.below(3) == 0 {
                self.now += self.random.below(2_000_000);
                self.clock.set(self.now);
            }
            match self.random.below(4) {
                0 => {
                    let (from, to, cents) = (
                        self.random.below(5),
                        self.random.below(5),
                        self.random.below(300),
                    );
                    let ack = producer.publish(|slot: &mut Transfer| {
                        (slot.from, slot.to, slot.cents) = (from, to, cents);
                    });
                    if let Ok(ack) = ack {
                        self.asked += 1;
                        acks.push(ack);
                    }
                }
                1 => self.ask(&mut producer),
                _ => {
                    run.turn();
                }
            }
            self.hear(&mut outputs);
            let (seed, answered) = (self.seed, &mut self.answered);
            acks.retain(|ack| match ack.poll() {
                None => true,
                Some(Answer::Accepted { .. } | Answer::Rejected { code: POOR, .. }) => {
                    *answered += 1;
                    false
                }
                Some(other) => panic!("seed {seed}: {other:?}"),
            });
            self.listen();
        }
        if self.random.below(5) == 0 && run.fault().is_none() && !self.disk.is_off() {
            run.settle();
            self.hear(&mut outputs);
            let _may_fail = run.close();
        } else {
            drop(run);
        }
        // Or the process died alone, and the system has written everything later.
        if self.random.below(4) != 0 || self.disk.is_off() {
            self.disk.crash();
        }
        self.disk.heal();
        self.disk.cut_power_after(NEVER);
        self.client.waiting = None;
        self.client.opening = None;
    }

    /// The client's next request: new, or once more.
    fn ask(&mut self, producer: &mut lockstep_engine::Producer<Bank>) {
        let client = &mut self.client;
        if client.session == 0 {
            if client.opening.is_none() {
                client.opening = producer.begin_session(0).ok();
            }
            return;
        }
        let is_again = client.done > 0 && self.random.below(3) == 0;
        let number = client.done + u32::from(!is_again);
        let ack = producer.publish_as(client.session, number, |slot: &mut Transfer| {
            // From an account of its own to another: what is there counts the requests.
            (slot.from, slot.to, slot.cents) = (1_000, 2_000, 1);
        });
        if !is_again && let Ok(ack) = ack {
            client.waiting = Some(ack);
        }
    }

    fn listen(&mut self) {
        let client = &mut self.client;
        if let Some(Answer::Accepted { position }) = client.opening.as_ref().and_then(Ack::poll) {
            client.session = position.0 + 1;
            client.opening = None;
        }
        match client.waiting.as_ref().and_then(Ack::poll) {
            None => {}
            Some(
                Answer::Accepted { .. }
                | Answer::Repeated { .. }
                | Answer::Rejected { code: POOR, .. },
            ) => {
                client.done += 1;
                client.waiting = None;
            }
            Some(other) => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn hear(&mut self, outputs: &mut lockstep_engine::Subscription<Event64>) {
        let (seed, heard) = (self.seed, &mut self.heard);
        outputs.drain(|batch| {
            for output in batch {
                let Some(moved) = Moved::view(output) else {
                    continue;
                };
                let id = (output.output().position, output.output().index);
                let before = heard.insert(id, *moved);
                assert!(before.is_none(), "seed {seed}: output {id:?} left twice");
            }
        });
    }

    /// What must hold behind every opening.
    fn check(&mut self, run: &mut Run) {
        let seed = self.seed;
        run.settle();
        let done = u64::from(self.client.done);
        let (position, (paid, number, hash)) = run
            .read(|bank| (ALLOWANCE - bank.has(1_000), bank.number, state_hash(bank)))
            .unwrap();
        let limit = ALLOWANCE.min(done + 1);
        assert!(
            (done.min(ALLOWANCE)..=limit).contains(&paid),
            "seed {seed}: {done} requests were answered, {paid} are in the state"
        );
        if self.client.session != 0 && done > 0 {
            let reply = run.reply(self.client.session, self.client.done).unwrap();
            assert!(
                reply.is_some(),
                "seed {seed}: the reply to {done} is forgotten"
            );
        }
        let most = self.asked + done + 1;
        assert!(
            number <= most,
            "seed {seed}: {number} transfers, {most} were asked for"
        );
        for ((position, _), moved) in self.heard.iter().rev().take(1) {
            assert!(
                moved.number <= number,
                "seed {seed}: output of {position} without its event"
            );
        }
        // By a logic that has never seen a snapshot, as far as the log reaches back.
        let mut model = Replay::open_on(self.disk.clone(), Bank::default, Range::default())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let heard = &self.heard;
        let mut outputs = 0;
        let whole = model
            .run(|output| {
                let Some(moved) = Moved::view(output) else {
                    return;
                };
                let id = (output.output().position, output.output().index);
                outputs += 1;
                let first = heard.get(&id);
                assert!(
                    first.is_none_or(|first| first == moved),
                    "seed {seed}: output {id:?} was {first:?}, and is {moved:?}"
                );
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(whole.position <= position, "seed {seed}");
        if whole.position == position {
            assert_eq!(whole.logic_hash, hash, "seed {seed}: at {position}");
        }
        if whole.snapshot.is_none() {
            assert_eq!(outputs, number, "seed {seed}: an output of each transfer");
        }
    }
}

fn run(seed: u64) {
    let mut campaign = Campaign::new(seed);
    for _ in 0..10 {
        campaign.life();
    }
    // A last one in peace: everything goes on.
    let mut run = campaign
        .open()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    campaign.check(&mut run);
    let before = run.position();
    let ack = run
        .producer()
        .publish(|slot: &mut Transfer| slot.to = 1)
        .unwrap();
    run.settle();
    assert!(
        ack.poll().is_some() && run.position() > before,
        "seed {seed}"
    );
    let expected = run.state_hash().unwrap();
    run.close().unwrap();
    let mut again = campaign
        .open()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(again.state_hash().unwrap(), expected, "seed {seed}");
}

#[test]
fn i1_what_was_answered_survives_a_crash_at_any_call_and_is_applied_once() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    if let Some(seed) = number("LOCKSTEP_SEED") {
        return run(seed);
    }
    (1..=number("LOCKSTEP_SEEDS").unwrap_or(60)).for_each(run);
}

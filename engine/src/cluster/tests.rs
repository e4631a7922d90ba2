//! A member behind an agreement that the test scripts: who leads, what is committed, what is cut.

use std::sync::Arc;

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{
    Background, Cutter, Frame, From, Journal, Options, Position, Reached, Reader, Tail,
};
use lockstep_replicator::NodeId;
use lockstep_ringbuffer::Sequence;

use super::agreement::{Agreement, NotNow, Stand};
use super::answers::{Answers, Asker, Done};
use super::back::{Back, BackThread};
use super::life::Kept;
use super::member::{Member, Parts, Refused};
use crate::config::{Config, GateAt};
use crate::core::Core;
use crate::error::Error;
use crate::event::{Event64, Kinds, Slot};
use crate::graph::build::output_ring;
use crate::ledger::Ledger;
use crate::logic::{Context, Logic};
use crate::mailbox::Mailbox;
use crate::node::rebuild::Ground;
use crate::node::recovery::{Factory, Unmarked};
use crate::outputs::Outputs;
use crate::runtime::clock::Clock;
use crate::shared::Shared;
use crate::stage::egress::{Desk, Egress, Slow};
use crate::stage::logic::{Exceptions, LogicStage, Rebuild};
use crate::system::{Beacon, Quotas};

mod ahead;

crate::bodies! {
    Add, kind 1, version 1: { amount: u64 }
    Sum, kind 101, version 1: { sum: u64 }
}

/// Slots of the output ring.
const OUTPUT_SLOTS: usize = 64;

/// From here on an amount makes more outputs than the ring has slots.
const MANY: u64 = 1 << 32;

/// Adds up, and remembers in which order.
#[derive(Default, Debug)]
struct Adder {
    sum: u64,
    order: u64,
}
crate::snapshot!(Adder { sum, order });

impl Logic for Adder {
    type In = Add;
    type Out = Sum;

    fn apply(&mut self, add: &Add, _: &Context, out: &mut Outputs<'_, Sum>) {
        assert_ne!(add.amount, u64::MAX, "a number that this logic cannot bear");
        self.sum += add.amount;
        self.order = self.order.wrapping_mul(31).wrapping_add(add.amount);
        let outputs = if add.amount >= MANY {
            OUTPUT_SLOTS + 9
        } else {
            1
        };
        (0..outputs).for_each(|_| out.emit(Sum { sum: self.sum }));
    }
}

/// The log of one node, with a quorum that the test plays.
struct Scripted {
    disk: Simulated,
    journal: Journal<Simulated>,
    cutter: Cutter,
    stand: Stand,
    cuts: u64,
    /// Frames that are offered are written and synced at once, if the disk is quick.
    is_disk_quick: bool,
    durable: Position,
}

impl Scripted {
    fn new(disk: &Simulated) -> Self {
        let options = Options {
            background: Background::Stepped,
            ..Options::new(&Add::schema()).with_segment_bytes(1 << 20)
        };
        let (journal, _) = Journal::open(disk.clone(), &options).unwrap();
        Self {
            disk: disk.clone(),
            cutter: journal.cutter(),
            stand: Stand {
                leading: None,
                leader: None,
                committed: Position(0),
                durable: Position(0),
                cuts: 0,
            },
            cuts: 0,
            is_disk_quick: true,
            durable: Position(0),
            journal,
        }
    }

    fn write(&mut self, body: [&[u8]; 2], time_ns: u64) -> Position {
        let first = self.journal.tail().reached.position;
        let header = self.cutter.cut(body, time_ns);
        let header = &header;
        self.journal.write(&[Frame { header, body }]).unwrap();
        if self.is_disk_quick {
            self.sync();
        }
        first
    }

    fn sync(&mut self) {
        self.durable = self.journal.sync().unwrap().position;
    }

    /// What another leader sends.
    fn receive(&mut self, amounts: &[u64]) {
        let events: Vec<Event64> = amounts.iter().map(|&amount| add(amount)).collect();
        self.write([bytemuck::cast_slice(&events), &[]], 7);
    }

    fn commit(&mut self, to: u64) {
        self.stand.committed = Position(to);
    }

    fn commit_all(&mut self) {
        self.stand.committed = self.journal.tail().reached.position;
    }

    /// What makes a state of this log again.
    fn rebuild(&self, config: &Config) -> Rebuild<Adder> {
        let factory: Factory<Adder> = Arc::new(Adder::default);
        let ground = Ground {
            storage: &self.disk,
            journal: &self.journal,
            factory: &factory,
            config,
            end: *self.journal.tail(),
            oldest: Position(0),
            unmarked: Unmarked::Refused,
        };
        ground.rebuild().unwrap()
    }

    fn cut_back(&mut self, to: Reached) {
        self.journal.cut_back(to).unwrap();
        self.cutter = self.journal.cutter();
        self.durable = to.position;
        self.cuts += 1;
    }
}

impl Agreement for Scripted {
    type Storage = Simulated;

    fn stand(&self) -> Stand {
        Stand {
            durable: self.durable,
            cuts: self.cuts,
            ..self.stand
        }
    }

    fn tail(&self) -> Tail {
        *self.journal.tail()
    }

    fn reader(&self, from: From) -> Result<Reader<Simulated>, Error> {
        Ok(self.journal.reader(from)?)
    }

    fn offer(&mut self, body: [&[u8]; 2], time_ns: u64) -> Result<Position, NotNow> {
        if self.stand.leading.is_none() {
            return Err(NotNow);
        }
        Ok(self.write(body, time_ns))
    }

    fn offer_change(&mut self, event: &[u8], time_ns: u64) -> Result<Position, NotNow> {
        self.offer([event, &[]], time_ns)
    }

    fn agreed_state(&self) -> Option<Beacon> {
        None
    }

    fn agreed_panic(&self) -> Option<Position> {
        None
    }
}

/// What everybody heard.
#[derive(Default)]
struct Heard {
    sums: Vec<(u64, u64)>,
    done: Vec<(u64, Done)>,
    not_led: Vec<u64>,
    unknown: Vec<u64>,
}

impl Asker<Event64> for Heard {
    fn output(&mut self, token: u64, output: &Event64) {
        self.sums.push((token, output.body_as::<Sum>().sum));
    }

    fn done(&mut self, token: u64, done: Done) {
        self.done.push((token, done));
    }

    fn not_led(&mut self, token: u64) {
        self.not_led.push(token);
    }

    fn unknown(&mut self, token: u64) {
        self.unknown.push(token);
    }
}

struct Bench {
    member: Member<Adder, Scripted>,
    mailbox: Arc<Mailbox<Adder>>,
    desk: Arc<Desk<Event64>>,
    log: Scripted,
    heard: Heard,
    shared: Arc<Shared>,
    clock: Clock,
}

fn add(amount: u64) -> Event64 {
    Event64::event(&Add { amount })
}

impl Bench {
    fn new(back: Back) -> Self {
        Self::with(back, Self::config())
    }

    fn config() -> Config {
        Config {
            slots: 64,
            output_slots: OUTPUT_SLOTS,
            // As a fresh state has it: nothing to agree on.
            sessions_max: 0,
            session_replies: 0,
            session_expiry_ms: 0,
            beacon_every: 0,
            ..Config::default()
        }
    }

    fn with(back: Back, config: Config) -> Self {
        let clock = Clock::manual(1000);
        let shared = Arc::new(Shared::new(0, config.slots));
        let (outputs, poller) = output_ring(&config).unwrap();
        let ledger = Ledger::starting_at(Position(0));
        let desk = Arc::new(Desk::default());
        let subscription = desk.subscribe("answers", Slow::Wait, 64).unwrap();
        let log = Scripted::new(&Simulated::new(1));
        let runs_ahead = config.gate == GateAt::Output;
        let exceptions = Exceptions {
            on_validate: config.on_validate_panic,
            on_apply: config.on_apply_panic,
            rebuild: runs_ahead.then(|| log.rebuild(&config)),
            verdicts: None,
        };
        let mailbox = Arc::new(Mailbox::new());
        let mut logic = LogicStage::new(
            Core::new(Adder::default()),
            ledger,
            Arc::clone(&shared),
            Arc::clone(&mailbox),
            outputs,
            exceptions,
            Arc::default(),
            &[],
        );
        if runs_ahead {
            logic.run_ahead();
        }
        let (sinks, outputs_desk) = (Vec::new(), Arc::clone(&desk));
        let egress = Egress::new(poller, sinks, desk, ledger, Arc::clone(&shared), runs_ahead);
        let parts = Parts {
            config,
            clock: clock.clone(),
            frame_bytes_max: 8 * 64,
            kept: Kept { logic, egress },
            back,
            answers: Answers::new(subscription, Arc::clone(&shared)),
            shared: Arc::clone(&shared),
            first_events: Vec::new(),
            quarantining: None,
        };
        Self {
            member: Member::new(parts, &log).unwrap(),
            mailbox,
            desk: outputs_desk,
            log,
            heard: Heard::default(),
            shared,
            clock,
        }
    }

    fn here() -> Self {
        Self::new(Back::Here(None))
    }

    fn turn(&mut self) -> bool {
        let offered = self.member.offer(&mut self.log);
        let followed = self.member.follow(&self.log, &mut self.heard).unwrap();
        offered | followed
    }

    fn settle(&mut self) {
        while self.turn() {}
    }

    fn lead(&mut self, term: u64) {
        self.log.stand.leading = Some(term);
        self.log.stand.leader = Some(NodeId(1));
    }

    fn lose(&mut self) {
        self.log.stand.leading = None;
        self.log.stand.leader = Some(NodeId(2));
    }

    fn ask(&mut self, amount: u64) -> Result<Position, Refused> {
        self.member.let_in(amount, None, &add(amount))
    }

    /// Where the present ring began.
    fn base(&self) -> Position {
        let (_, ledger) = self.member.probe().unwrap();
        ledger.position(Sequence(0))
    }

    fn applied(&self) -> u64 {
        self.shared.applied.get()
    }

    /// Ends everything; the state.
    fn end(mut self) -> (u64, Adder) {
        let kept = self.member.end(&mut self.heard).unwrap();
        let core = kept.logic.core();
        let Adder { sum, order } = *core.logic();
        (core.position().0, Adder { sum, order })
    }
}

fn order_of(amounts: &[u64]) -> u64 {
    amounts.iter().fold(0, |order: u64, amount| {
        order.wrapping_mul(31).wrapping_add(*amount)
    })
}

#[test]
fn mb1_the_logic_waits_for_both_promises() {
    let mut bench = Bench::here();
    bench.lead(1);
    bench.settle();
    assert!(bench.member.is_open());
    bench.log.is_disk_quick = false;
    bench.ask(5).unwrap();
    bench.settle();
    assert_eq!((bench.applied(), bench.heard.done.len()), (0, 0));
    bench.log.commit(1); // the quorum has it, this disk does not
    bench.settle();
    assert_eq!(bench.applied(), 0);
    bench.log.sync();
    bench.settle();
    assert_eq!(bench.applied(), 1);
    bench.ask(6).unwrap();
    bench.settle();
    bench.log.sync(); // this disk has it, the quorum does not
    bench.settle();
    assert_eq!(bench.applied(), 1);
    bench.log.commit_all();
    bench.settle();
    assert_eq!(bench.applied(), 2);
    assert_eq!(bench.heard.sums, [(5, 5), (6, 11)]);
    let positions: Vec<u64> = bench
        .heard
        .done
        .iter()
        .map(|(_, done)| done.position.0)
        .collect();
    assert_eq!(positions, [0, 1]);
}

#[test]
fn a_follower_applies_what_is_committed_and_nothing_behind_it() {
    let mut bench = Bench::here();
    bench.lose();
    bench.log.receive(&[1, 2, 3]);
    bench.log.receive(&[4]);
    bench.settle();
    assert_eq!(bench.applied(), 0);
    bench.log.commit(3);
    bench.settle();
    assert_eq!(bench.applied(), 3);
    assert_eq!(
        bench.ask(9),
        Err(Refused::NotLeading {
            leader: Some(NodeId(2))
        })
    );
    // Another leader has another event there.
    let to = Reached {
        position: Position(3),
        frames: 1,
    };
    bench.log.cut_back(to);
    bench.log.receive(&[40]);
    bench.log.commit_all();
    bench.settle();
    let (position, state) = bench.end();
    assert_eq!((position, state.order), (4, order_of(&[1, 2, 3, 40])));
}

#[test]
fn mb2_from_role_to_role_nothing_is_lost_and_nothing_comes_twice() {
    let mut bench = Bench::here();
    bench.lose();
    bench.log.receive(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    bench.log.commit(10);
    bench.turn();
    bench.log.receive(&[11, 12]);
    bench.settle();
    // Elected with two events behind the commit: the door waits for them.
    bench.lead(2);
    bench.settle();
    assert!(!bench.member.is_open());
    assert_eq!(bench.ask(99), Err(Refused::Busy));
    bench.log.commit_all(); // by the first frame of its own term
    bench.settle();
    assert!(bench.member.is_open());
    bench.ask(13).unwrap();
    bench.settle();
    // Deposed: 13 was offered and is not committed, 14 was never offered.
    bench.ask(14).unwrap();
    bench.lose();
    bench.settle();
    assert_eq!(
        (&bench.heard.unknown[..], &bench.heard.not_led[..]),
        (&[13][..], &[14][..])
    );
    let to = Reached {
        position: Position(12),
        frames: 2,
    };
    bench.log.cut_back(to);
    bench.log.receive(&[130]);
    bench.log.commit_all();
    bench.settle();
    bench.lead(4);
    bench.settle();
    bench.ask(15).unwrap();
    bench.settle();
    bench.log.commit_all();
    bench.settle();
    assert_eq!(bench.heard.done.len(), 1);
    let (position, state) = bench.end();
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 130, 15];
    assert_eq!((position, state.order), (14, order_of(&expected)));
    assert_eq!(state.sum, expected.iter().sum::<u64>());
}

#[test]
fn a_ring_goes_on_from_role_to_role_until_its_door_was_open() {
    let mut bench = Bench::here();
    bench.lose();
    bench.log.receive(&[1, 2, 3]);
    bench.log.commit(2);
    bench.settle();
    // Elected and deposed before the door was open, then elected again: one ring.
    bench.lead(2);
    bench.settle();
    bench.lose();
    bench.settle();
    bench.lead(3);
    bench.log.commit_all();
    bench.settle();
    assert!(bench.member.is_open());
    assert_eq!((bench.base(), bench.applied()), (Position(0), 3));
    bench.ask(4).unwrap();
    bench.settle();
    // Another term of the same node: what its ring holds is of the old one.
    bench.lead(4);
    assert!(!bench.member.is_of(&bench.log.stand()));
    bench.settle();
    assert_eq!(bench.base(), Position(3));
    assert_eq!(bench.heard.unknown, [4]);
}

#[test]
fn who_leads_next_knows_the_parameters_that_another_put_into_the_log() {
    let config = Config {
        sessions_max: 5,
        ..Bench::config()
    };
    let wanted = config.parameters();
    for is_in_log in [true, false] {
        let mut bench = Bench::with(Back::Here(None), config.clone());
        bench.lose();
        if is_in_log {
            let event = Event64::event(&wanted);
            bench.log.write([bytemuck::bytes_of(&event), &[]], 7);
        }
        bench.log.receive(&[1]);
        bench.log.commit_all();
        bench.settle();
        let before = bench.log.tail().reached.position;
        bench.lead(2);
        bench.settle();
        let said = bench.log.tail().reached.position.0 - before.0;
        assert_eq!(said, u64::from(!is_in_log));
    }
}

#[test]
fn who_leads_next_knows_the_quotas_that_another_put_into_the_log() {
    for (in_log, wanted) in [(7, 7), (7, 0), (0, 7), (0, 0)] {
        let config = Config {
            sessions_per_principal: wanted,
            ..Bench::config()
        };
        let mut bench = Bench::with(Back::Here(None), config);
        bench.lose();
        if in_log != 0 {
            let event = Event64::event(&Quotas {
                sessions_per_principal: in_log,
                spare: 0,
            });
            bench.log.write([bytemuck::bytes_of(&event), &[]], 7);
        }
        bench.log.receive(&[1]);
        bench.log.commit_all();
        bench.settle();
        let before = bench.log.tail().reached.position;
        bench.lead(2);
        bench.settle();
        let said = bench.log.tail().reached.position.0 - before.0;
        assert_eq!(said, u64::from(in_log != wanted), "{in_log}, {wanted}");
    }
}

#[test]
fn a_ring_that_the_quorum_leaves_full_says_busy_and_loses_nothing() {
    let mut bench = Bench::here();
    bench.lead(1);
    bench.settle();
    let mut asked = 0;
    while bench.ask(1 + asked).is_ok() {
        asked += 1;
        bench.turn();
    }
    assert_eq!(asked, 64);
    assert_eq!(bench.ask(1), Err(Refused::Busy));
    bench.log.commit_all();
    bench.settle();
    assert_eq!(bench.heard.done.len(), 64);
    bench.ask(100).unwrap();
    bench.settle();
    bench.log.commit_all();
    bench.settle();
    assert_eq!(bench.heard.done.len(), 65);
}

#[test]
fn or2_what_comes_from_the_log_keeps_its_time_and_what_is_new_gets_one() {
    let mut bench = Bench::here();
    bench.lose();
    bench.log.receive(&[1]);
    bench.log.commit_all();
    bench.lead(1);
    bench.clock.set(5000);
    bench.settle();
    bench.ask(2).unwrap();
    bench.settle();
    bench.log.commit_all();
    bench.settle();
    let mut reader = bench.log.journal.reader(From::Oldest).unwrap();
    let first = reader.next_frame().unwrap().unwrap().header().time_ns;
    let second = reader.next_frame().unwrap().unwrap().header().time_ns;
    assert_eq!((first, second), (7, 5000));
}

#[test]
fn a_log_longer_than_the_ring_is_followed_through_it() {
    let mut bench = Bench::here();
    bench.lose();
    for round in 0..50 {
        let amounts: Vec<u64> = (0..8).map(|n| 1 + round * 8 + n).collect();
        bench.log.receive(&amounts);
    }
    bench.log.commit_all();
    bench.settle();
    let expected: Vec<u64> = (1..=400).collect();
    let (position, state) = bench.end();
    assert_eq!((position, state.order), (400, order_of(&expected)));
}

#[test]
fn the_same_with_the_logic_on_a_thread_of_its_own() {
    let mut bench = Bench::new(Back::Thread(BackThread::start(|| ()).unwrap()));
    let mut expected = Vec::new();
    let mut next = 1;
    for term in 1..40 {
        bench.lead(term);
        bench.log.commit_all();
        while !bench.member.is_open() {
            bench.turn();
        }
        let done = bench.heard.done.len();
        for _ in 0..20 {
            if bench.ask(next).is_ok() {
                expected.push(next);
                next += 1;
            }
            bench.turn();
            bench.log.commit_all();
        }
        if term % 2 == 0 {
            // Half of the time the role changes in the middle of it; all of it is committed.
            while bench.member.offer(&mut bench.log) {}
            bench.log.commit_all();
        } else {
            while bench.heard.done.len() < done + 20 {
                bench.turn();
                bench.log.commit_all();
                assert_eq!(bench.shared.fault(), None);
            }
        }
        bench.lose();
        bench.turn();
        assert!(bench.heard.not_led.is_empty());
    }
    let end = expected.len() as u64;
    while bench.applied() < end {
        bench.turn();
    }
    let (position, state) = bench.end();
    assert_eq!((position, state.order), (end, order_of(&expected)));
}

#[test]
fn a_logic_that_panics_ends_the_node_by_name() {
    let mut bench = Bench::here();
    bench.lead(1);
    bench.settle();
    bench.ask(u64::MAX).unwrap();
    bench.settle();
    bench.log.commit_all();
    bench.settle();
    let fault = bench.shared.fault().unwrap();
    assert!(
        fault.starts_with("logic: ") && fault.contains("position 0"),
        "{fault}"
    );
    assert!(bench.heard.done.is_empty());
}

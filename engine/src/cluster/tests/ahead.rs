//! The same with the gates in front of the outputs: what a leader's logic does ahead of both promises.

use lockstep_journaler::Position;

use super::{Adder, Bench, MANY, OUTPUT_SLOTS, Sum, order_of};
use crate::cluster::agreement::Agreement as _;
use crate::cluster::back::{Back, BackThread};
use crate::config::{Config, GateAt};
use crate::core::Core;
use crate::event::Slot;
use crate::stage::egress::{Received, Slow};

fn ahead(back: Back) -> Bench {
    let config = Config {
        gate: GateAt::Output,
        ..Bench::config()
    };
    Bench::with(back, config)
}

#[test]
fn lf4_the_logic_runs_ahead_of_both_promises_and_nothing_leaves_before_them() {
    let mut bench = ahead(Back::Here(None));
    bench.lead(1);
    bench.settle();
    bench.log.is_disk_quick = false;
    bench.ask(5).unwrap();
    bench.ask(MANY).unwrap();
    bench.ask(6).unwrap();
    bench.settle();
    // Of the second the outputs have no room before the first has left.
    assert_eq!((bench.applied(), bench.heard.sums.len()), (2, 0));
    bench.log.commit(1);
    bench.settle();
    assert_eq!(bench.heard.sums, [], "not durable");
    bench.log.sync();
    bench.settle();
    assert_eq!(bench.heard.sums, [(5, 5)]);
    bench.log.commit(2);
    bench.settle();
    assert_eq!(bench.heard.sums.len(), 1 + OUTPUT_SLOTS + 9);
    assert_eq!((bench.applied(), bench.heard.done.len()), (3, 2));
    bench.log.commit_all();
    bench.settle();
    assert_eq!(bench.heard.sums.last(), Some(&(6, 11 + MANY)));
    assert_eq!(bench.heard.done.len(), 3);
    assert_eq!(bench.shared.taken_back.get(), 0);
}

#[test]
fn mb4_a_deposed_leader_takes_back_what_its_gates_had_not_let_through() {
    let mut bench = ahead(Back::Here(None));
    bench.lead(1);
    bench.settle();
    bench.ask(1).unwrap();
    bench.turn();
    let to = bench.log.tail().reached;
    bench.log.commit_all();
    bench.ask(2).unwrap();
    bench.ask(3).unwrap();
    bench.settle();
    assert_eq!((bench.applied(), bench.heard.done.len()), (3, 1));
    // In one turn it leads no more, its tail is cut, and others' events are committed there.
    bench.lose();
    bench.log.cut_back(to);
    bench.log.receive(&[20, 30, 40]);
    bench.log.commit_all();
    bench.turn();
    assert_eq!(bench.base(), Position(1));
    assert_eq!(bench.heard.unknown, [2, 3]);
    bench.settle();
    assert_eq!((bench.applied(), bench.shared.taken_back.get()), (4, 1));
    bench.lead(3);
    bench.settle();
    bench.ask(5).unwrap();
    bench.settle();
    bench.log.commit_all();
    bench.settle();
    // Its own answers: nothing of what was taken back was ever told.
    assert_eq!(bench.heard.sums, [(1, 1), (5, 96)]);
    let (position, state) = bench.end();
    assert_eq!((position, state.order), (5, order_of(&[1, 20, 30, 40, 5])));
}

#[test]
fn eg4_outputs_in_front_of_what_is_taken_back_leave_and_those_behind_it_do_not() {
    let mut bench = ahead(Back::Here(None));
    let mut slow = bench.desk.subscribe("slow", Slow::Wait, 1).unwrap();
    bench.lead(1);
    bench.settle();
    for amount in 1..=4 {
        bench.ask(amount).unwrap();
    }
    bench.settle();
    let to = bench.log.tail().reached;
    bench.log.commit_all();
    bench.turn();
    bench.ask(7).unwrap();
    bench.ask(MANY).unwrap();
    bench.settle();
    assert_eq!(bench.applied(), 6);
    bench.lose();
    bench.log.cut_back(to);
    bench.log.receive(&[10]);
    bench.log.commit_all();
    bench.settle();
    bench.lead(2);
    bench.ask(0).unwrap_err();
    let mut sums = Vec::new();
    for _ in 0..100 {
        if let Received::Output(output) = slow.try_recv() {
            let header = output.output();
            sums.push((header.position, output.body_as::<Sum>().sum));
        }
        bench.settle();
    }
    assert_eq!(sums, [(0, 1), (1, 3), (2, 6), (3, 10), (4, 20)]);
}

#[test]
fn ls4_a_look_waits_for_the_promises_and_the_logic_for_the_look() {
    let mut bench = ahead(Back::Here(None));
    bench.lead(1);
    bench.settle();
    bench.ask(1).unwrap();
    bench.settle();
    assert_eq!(bench.applied(), 1);
    let look = |core: &Core<Adder>| (core.position().0, core.logic().sum);
    let seen = bench.mailbox.send(0, look).unwrap();
    let later = bench.mailbox.send(3, look).unwrap();
    bench.ask(2).unwrap();
    bench.settle();
    assert_eq!(bench.applied(), 1, "it takes nothing while it is looked at");
    assert!(seen.try_recv().is_err());
    bench.log.commit(1);
    bench.settle();
    assert_eq!(seen.try_recv(), Ok((1, 1)));
    assert_eq!(bench.applied(), 2);
    bench.ask(3).unwrap();
    bench.settle();
    assert!(later.try_recv().is_err());
    bench.log.commit_all();
    bench.settle();
    assert_eq!(later.try_recv(), Ok((3, 6)));
}

#[test]
fn ls4_a_panic_counts_when_its_event_is_committed_and_not_if_it_never_is() {
    for is_committed in [true, false] {
        let mut bench = ahead(Back::Here(None));
        bench.lead(1);
        bench.settle();
        bench.ask(1).unwrap();
        bench.settle();
        let to = bench.log.tail().reached;
        bench.log.commit_all();
        bench.settle();
        bench.ask(u64::MAX).unwrap();
        bench.settle();
        assert_eq!((bench.applied(), bench.shared.fault()), (1, None));
        if is_committed {
            bench.log.commit_all();
            bench.turn();
            let fault = bench.shared.fault().unwrap();
            assert!(fault.contains("position 1"), "{fault}");
            continue;
        }
        bench.lose();
        bench.log.cut_back(to);
        bench.log.receive(&[2]);
        bench.log.commit_all();
        bench.settle();
        assert_eq!(bench.shared.fault(), None);
        assert_eq!(bench.shared.taken_back.get(), 1);
        let (position, state) = bench.end();
        assert_eq!((position, state.order), (2, order_of(&[1, 2])));
    }
}

#[test]
fn mb4_the_same_with_the_logic_on_a_thread_of_its_own() {
    let mut bench = ahead(Back::Thread(BackThread::start(|| ()).unwrap()));
    let mut expected = Vec::new();
    let mut next = 1;
    for term in 1..60 {
        bench.lead(term);
        bench.log.commit_all();
        while !bench.member.is_open() {
            bench.turn();
        }
        for _ in 0..10 {
            bench.ask(next).unwrap();
            expected.push(next);
            next += 1;
        }
        while bench.member.offer(&mut bench.log) {}
        // These are committed, and the next ones are not: as far ahead as the thread came by then.
        let to = bench.log.tail().reached;
        bench.log.commit_all();
        if term % 3 == 0 {
            bench.turn();
        }
        for ahead in 0..10 {
            bench.ask(next + ahead).unwrap();
        }
        while bench.member.offer(&mut bench.log) {}
        while term % 2 == 0 && bench.applied() < to.position.0 + 10 {
            std::thread::yield_now();
        }
        bench.lose();
        bench.log.cut_back(to);
        bench.log.receive(&[next]);
        expected.push(next);
        next += 1;
        bench.log.commit_all();
        bench.turn();
        assert_eq!(bench.shared.fault(), None);
        assert!(bench.base() <= to.position, "term {term}");
    }
    let end = expected.len() as u64;
    while bench.applied() < end {
        bench.turn();
    }
    assert!(bench.shared.taken_back.get() >= 29);
    let (position, state) = bench.end();
    assert_eq!((position, state.order), (end, order_of(&expected)));
}

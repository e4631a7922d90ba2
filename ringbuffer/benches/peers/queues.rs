//! Every shape for whatever has a sending and a receiving end that never wait themselves.
//!
//! A queue has one reader of each event, so 1→3 and the pipeline take three queues; the
//! diamond is left to those who can do it with one copy of the event.

use std::thread;

use crate::contenders::{Case, Contender, RunCase};
use crate::event::Event;
use crate::idle::{Idle, for_each_idle};
use crate::machine::Machine;
use crate::run::{Feed, Flat, Lag, Paced, Run, Sum, Take, Trips};
use crate::works::{RING, SMALL_RING, Shape, Work};

/// A bounded queue by its two ends.
pub(crate) trait Queue: 'static {
    type Sender: Send;
    type Receiver: Send;

    fn bounded(size: usize) -> (Self::Sender, Self::Receiver);

    /// Whether the event was taken; not when the queue is full.
    fn try_send(sender: &mut Self::Sender, event: Event) -> bool;

    fn try_receive(receiver: &mut Self::Receiver) -> Option<Event>;
}

/// A queue that many may fill.
pub(crate) trait Shared: Queue {
    fn another(sender: &Self::Sender) -> Self::Sender;
}

#[inline(always)]
pub(crate) fn send<Q: Queue, I: Idle>(sender: &mut Q::Sender, event: Event) {
    while !Q::try_send(sender, event) {
        I::idle();
    }
}

fn receive_all<Q: Queue, I: Idle, T: Take>(receiver: &mut Q::Receiver, take: &mut T) {
    while !take.is_done() {
        match Q::try_receive(receiver) {
            Some(event) => take.take(&event),
            None => I::idle(),
        }
    }
}

fn send_all<Q: Queue, I: Idle, F: Feed>(sender: &mut Q::Sender, mut feed: F) {
    feed.begin();
    for _ in 0..feed.count() {
        send::<Q, I>(sender, Event::of(feed.next()));
    }
    feed.end();
}

fn one_to_one<Q: Queue, I: Idle>(machine: &Machine, feed: impl Feed, mut take: impl Take) {
    let (mut sender, mut receiver) = Q::bounded(RING);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 2));
            receive_all::<Q, I, _>(&mut receiver, &mut take);
        });
        machine.seated(machine.seat(0, 2), || {
            send_all::<Q, I, _>(&mut sender, feed)
        });
    });
}

fn one_to_three<Q: Queue, I: Idle>(machine: &Machine, mut feed: impl Feed, takes: [Sum; 3]) {
    thread::scope(|scope| {
        let mut seat = 0;
        let mut senders = takes.map(|mut take| {
            let (sender, mut receiver) = Q::bounded(RING);
            seat += 1;
            scope.spawn(move || {
                machine.sit(machine.seat(seat, 4));
                receive_all::<Q, I, _>(&mut receiver, &mut take);
            });
            sender
        });
        machine.seated(machine.seat(0, 4), || {
            feed.begin();
            for _ in 0..feed.count() {
                let event = Event::of(feed.next());
                for sender in &mut senders {
                    send::<Q, I>(sender, event);
                }
            }
            feed.end();
        });
    });
}

fn pipeline<Q: Queue, I: Idle>(machine: &Machine, feed: impl Feed, takes: [Sum; 3]) {
    let [mut first, mut second, mut third] = takes;
    let (mut sender, mut to_first) = Q::bounded(RING);
    let (mut from_first, mut to_second) = Q::bounded(RING);
    let (mut from_second, mut to_third) = Q::bounded(RING);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 4));
            hand_on::<Q, I>(&mut to_first, &mut first, &mut from_first);
        });
        scope.spawn(move || {
            machine.sit(machine.seat(2, 4));
            hand_on::<Q, I>(&mut to_second, &mut second, &mut from_second);
        });
        scope.spawn(move || {
            machine.sit(machine.seat(3, 4));
            receive_all::<Q, I, _>(&mut to_third, &mut third);
        });
        machine.seated(machine.seat(0, 4), || {
            send_all::<Q, I, _>(&mut sender, feed)
        });
    });
}

fn hand_on<Q: Queue, I: Idle>(from: &mut Q::Receiver, take: &mut Sum, to: &mut Q::Sender) {
    while !take.is_done() {
        match Q::try_receive(from) {
            Some(event) => {
                take.take(&event);
                send::<Q, I>(to, event);
            }
            None => I::idle(),
        }
    }
}

fn three_to_one<Q: Shared, I: Idle>(machine: &Machine, feeds: [Flat; 3], mut take: Sum) {
    let (sender, mut receiver) = Q::bounded(RING);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(0, 4));
            receive_all::<Q, I, _>(&mut receiver, &mut take);
        });
        for (index, feed) in feeds.into_iter().enumerate() {
            let mut sender = Q::another(&sender);
            scope.spawn(move || {
                machine.sit(machine.seat(1 + index, 4));
                send_all::<Q, I, _>(&mut sender, feed);
            });
        }
    });
}

fn ping_pong<Q: Queue, I: Idle>(machine: &Machine, mut trips: Trips) {
    let (mut ping, mut asked) = Q::bounded(SMALL_RING);
    let (mut pong, mut answered) = Q::bounded(SMALL_RING);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 2));
            loop {
                let event = receive::<Q, I>(&mut asked);
                send::<Q, I>(&mut pong, event);
                if event.value == 0 {
                    return;
                }
            }
        });
        machine.seated(machine.seat(0, 2), || {
            while let Some(trip) = trips.depart() {
                send::<Q, I>(&mut ping, Event::of(trip));
                trips.arrive(receive::<Q, I>(&mut answered).value);
            }
            trips.end();
        });
    });
}

#[inline(always)]
fn receive<Q: Queue, I: Idle>(receiver: &mut Q::Receiver) -> Event {
    loop {
        match Q::try_receive(receiver) {
            Some(event) => return event,
            None => I::idle(),
        }
    }
}

/// What a queue with one sender can do.
pub(crate) fn cases<Q: Queue>(
    name: Contender,
    work: &Work,
    machine: &Machine,
    cases: &mut Vec<Case>,
) {
    // With four threads on fewer CPUs a queue that spins is several times slower than one that
    // yields, and kanal, which spins for a lock, a hundred times.
    let crowded =
        matches!(work.shape, Shape::OneToThree | Shape::Pipeline) && machine.cpu_count() < 4;
    for_each_idle!(machine, I => {
        if let Some(run) = case::<Q, I>(work.shape).filter(|_| I::YIELDS || !crowded) {
            cases.push(Case::new(name, I::NAME, run));
        }
    });
}

/// What only a queue with many senders can.
pub(crate) fn shared_cases<Q: Shared>(
    name: Contender,
    work: &Work,
    machine: &Machine,
    cases: &mut Vec<Case>,
) {
    if work.shape != Shape::ThreeToOne {
        return;
    }
    for_each_idle!(machine, I => {
        cases.push(Case::new(name, I::NAME, Box::new(|machine, events| {
            let run = Run::new();
            let feeds = [(); 3].map(|()| Flat::new(&run, events / 3));
            three_to_one::<Q, I>(machine, feeds, Sum::new(&run, events));
            run.rate(events, 1)
        })));
    });
}

fn case<Q: Queue, I: Idle>(shape: Shape) -> Option<RunCase> {
    Some(match shape {
        Shape::OneToOne { claim: 1 } => Box::new(|machine, events| {
            let run = Run::new();
            one_to_one::<Q, I>(machine, Flat::new(&run, events), Sum::new(&run, events));
            run.rate(events, 1)
        }),
        Shape::OneToThree => Box::new(|machine, events| {
            let run = Run::new();
            let takes = [(); 3].map(|()| Sum::new(&run, events));
            one_to_three::<Q, I>(machine, Flat::new(&run, events), takes);
            run.rate(events, 3)
        }),
        Shape::Pipeline => Box::new(|machine, events| {
            let run = Run::new();
            let takes = [(); 3].map(|()| Sum::new(&run, events));
            pipeline::<Q, I>(machine, Flat::new(&run, events), takes);
            run.rate(events, 3)
        }),
        Shape::PingPong => Box::new(|machine, trips| {
            let run = Run::new();
            ping_pong::<Q, I>(machine, Trips::new(&run, trips));
            run.latency(1)
        }),
        Shape::LagOneToOne { per_second } => Box::new(move |machine, events| {
            let run = Run::new();
            let feed = Paced::<I>::new(&run, events, per_second);
            one_to_one::<Q, I>(machine, feed, Lag::new(&run, events));
            run.latency(1)
        }),
        Shape::OneToOne { .. } | Shape::Diamond | Shape::ThreeToOne | Shape::LagDiamond { .. } => {
            return None;
        }
    })
}

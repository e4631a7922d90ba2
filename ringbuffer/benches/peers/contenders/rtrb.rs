//! `rtrb`: one sender, one receiver; in chunks as well.

use std::thread;

use rtrb::{Consumer, Producer, RingBuffer};

use super::{Case, Contender, RunCase};
use crate::event::Event;
use crate::idle::{Idle, for_each_idle};
use crate::machine::Machine;
use crate::queues::{self, Queue};
use crate::run::{Feed, Flat, Run, Sum, Take};
use crate::works::{RING, Shape, Work};

struct Rtrb;

impl Queue for Rtrb {
    type Sender = Producer<Event>;
    type Receiver = Consumer<Event>;

    fn bounded(size: usize) -> (Self::Sender, Self::Receiver) {
        RingBuffer::new(size)
    }

    #[inline(always)]
    fn try_send(sender: &mut Self::Sender, event: Event) -> bool {
        sender.push(event).is_ok()
    }

    #[inline(always)]
    fn try_receive(receiver: &mut Self::Receiver) -> Option<Event> {
        receiver.pop().ok()
    }
}

pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    queues::cases::<Rtrb>(Contender::Rtrb, work, machine, cases);
    if let Shape::OneToOne { claim } = work.shape {
        for_each_idle!(machine, I => {
            cases.push(Case::new(Contender::Rtrb, format!("chunks, {}", I::NAME), chunked::<I>(claim)));
        });
    }
}

fn chunked<I: Idle>(claim: u64) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        in_chunks::<I>(
            machine,
            claim,
            Flat::new(&run, events),
            Sum::new(&run, events),
        );
        run.rate(events, 1)
    })
}

/// Sent `claim` at a time; received as many at a time as there are.
fn in_chunks<I: Idle>(machine: &Machine, claim: u64, mut feed: Flat, mut take: Sum) {
    let (mut sender, mut receiver) = RingBuffer::new(RING);
    thread::scope(|scope| {
        scope.spawn(move || {
            machine.sit(machine.seat(1, 2));
            while !take.is_done() {
                match receiver.read_chunk(receiver.slots()) {
                    Ok(chunk) if !chunk.is_empty() => {
                        let (head, tail) = chunk.as_slices();
                        head.iter().for_each(|event| take.take(event));
                        tail.iter().for_each(|event| take.take(event));
                        chunk.commit_all();
                    }
                    _ => I::idle(),
                }
            }
        });
        machine.seated(machine.seat(0, 2), || {
            feed.begin();
            for _ in 0..feed.count() / claim {
                if claim == 1 {
                    queues::send::<Rtrb, I>(&mut sender, Event::of(feed.next()));
                } else {
                    send_chunk::<I>(&mut sender, claim, &mut feed);
                }
            }
            feed.end();
        });
    });
}

#[inline(always)]
fn send_chunk<I: Idle>(sender: &mut Producer<Event>, claim: u64, feed: &mut Flat) {
    let count = usize::try_from(claim).expect("a claim is at most 100");
    loop {
        if let Ok(chunk) = sender.write_chunk_uninit(count) {
            chunk.fill_from_iter((0..count).map(|_| Event::of(feed.next())));
            return;
        }
        I::idle();
    }
}

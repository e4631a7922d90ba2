//! The crate `disruptor`: threads of its own, as many as there are handlers.

use std::marker::PhantomData;
use std::thread;

use disruptor::wait_strategies::WaitStrategy;
use disruptor::{
    Polling, ProcessorSettings, Producer, build_multi_producer, build_single_producer,
};

use super::{Case, Contender, RunCase};
use crate::event::Event;
use crate::idle::{Idle, for_each_idle};
use crate::machine::{Machine, Seat};
use crate::run::{Feed, Flat, Lag, Paced, Run, Sum, Take, Trips};
use crate::works::{DIAMOND_RING, RING, SMALL_RING, Shape, Work};

/// Its wait strategies are a trait, so that ours to idle fits: doing nothing is its
/// `BusySpin`, a PAUSE its `BusySpinWithSpinLoopHint`; yielding it does not bring along.
struct Strategy<I>(PhantomData<I>);

impl<I> Clone for Strategy<I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Strategy<I> {}

impl<I: Idle> WaitStrategy for Strategy<I> {
    #[inline(always)]
    fn wait_for(&self, _sequence: disruptor::Sequence) {
        I::idle();
    }
}

fn strategy<I>() -> Strategy<I> {
    Strategy(PhantomData)
}

fn handle<T: Take>(mut take: T) -> impl FnMut(&Event, disruptor::Sequence, bool) + Send + 'static {
    move |event, _sequence, _end_of_batch| take.take(event)
}

/// Pins the next handler, if there are CPUs enough.
fn seated<E, W, B: ProcessorSettings<E, W>>(builder: B, seat: Seat) -> B {
    match seat {
        Some(cpu) => builder.pin_at_core(cpu),
        None => builder,
    }
}

/// Its own `publish` waits without a pause; so we wait ourselves.
#[inline(always)]
fn publish<I: Idle>(producer: &mut impl Producer<Event>, value: u64) {
    while producer
        .try_publish(|slot| *slot = Event::of(value))
        .is_err()
    {
        I::idle();
    }
}

fn publish_all<I: Idle>(producer: &mut impl Producer<Event>, mut feed: impl Feed) {
    feed.begin();
    for _ in 0..feed.count() {
        publish::<I>(producer, feed.next());
    }
    feed.end();
}

fn publish_in_claims<I: Idle>(
    producer: &mut impl Producer<Event>,
    claim: u64,
    mut feed: impl Feed,
) {
    let count = usize::try_from(claim).expect("a claim is at most 100");
    feed.begin();
    for _ in 0..feed.count() / claim {
        while producer
            .try_batch_publish(count, |slots| {
                slots.for_each(|slot| *slot = Event::of(feed.next()))
            })
            .is_err()
        {
            I::idle();
        }
    }
    feed.end();
}

fn one_to_one<I: Idle>(machine: &Machine, claim: u64, feed: impl Feed, take: impl Take) {
    let builder = build_single_producer(RING, Event::default, strategy::<I>());
    let mut producer = seated(builder, machine.seat(1, 2))
        .handle_events_with(handle(take))
        .build();
    machine.seated(machine.seat(0, 2), || match claim {
        1 => publish_all::<I>(&mut producer, feed),
        _ => publish_in_claims::<I>(&mut producer, claim, feed),
    });
}

fn one_to_three<I: Idle>(machine: &Machine, feed: Flat, [a, b, c]: [Sum; 3]) {
    let builder = build_single_producer(RING, Event::default, strategy::<I>());
    let builder = seated(builder, machine.seat(1, 4)).handle_events_with(handle(a));
    let builder = seated(builder, machine.seat(2, 4)).handle_events_with(handle(b));
    let builder = seated(builder, machine.seat(3, 4)).handle_events_with(handle(c));
    let mut producer = builder.build();
    machine.seated(machine.seat(0, 4), || publish_all::<I>(&mut producer, feed));
}

fn pipeline<I: Idle>(machine: &Machine, feed: Flat, [a, b, c]: [Sum; 3]) {
    let builder = build_single_producer(RING, Event::default, strategy::<I>());
    let builder = seated(builder, machine.seat(1, 4))
        .handle_events_with(handle(a))
        .and_then();
    let builder = seated(builder, machine.seat(2, 4))
        .handle_events_with(handle(b))
        .and_then();
    let builder = seated(builder, machine.seat(3, 4)).handle_events_with(handle(c));
    let mut producer = builder.build();
    machine.seated(machine.seat(0, 4), || publish_all::<I>(&mut producer, feed));
}

fn diamond<I: Idle>(machine: &Machine, feed: impl Feed, [a, b]: [Sum; 2], last: impl Take) {
    let builder = build_single_producer(DIAMOND_RING, Event::default, strategy::<I>());
    let builder = seated(builder, machine.seat(1, 4)).handle_events_with(handle(a));
    let builder = seated(builder, machine.seat(2, 4))
        .handle_events_with(handle(b))
        .and_then();
    let builder = seated(builder, machine.seat(3, 4)).handle_events_with(handle(last));
    let mut producer = builder.build();
    machine.seated(machine.seat(0, 4), || publish_all::<I>(&mut producer, feed));
}

fn three_to_one<I: Idle>(machine: &Machine, feeds: [Flat; 3], take: Sum) {
    let builder = build_multi_producer(RING, Event::default, strategy::<I>());
    let producer = seated(builder, machine.seat(0, 4))
        .handle_events_with(handle(take))
        .build();
    thread::scope(|scope| {
        for (index, feed) in feeds.into_iter().enumerate() {
            let mut producer = producer.clone();
            scope.spawn(move || {
                machine.sit(machine.seat(1 + index, 4));
                publish_all::<I>(&mut producer, feed);
            });
        }
    });
}

fn ping_pong<I: Idle>(machine: &Machine, mut trips: Trips) -> Result<(), String> {
    let builder = build_single_producer(SMALL_RING, Event::default, strategy::<I>());
    let (mut answered, builder) = builder.new_event_poller();
    let mut pong = builder.build();
    let builder = build_single_producer(SMALL_RING, Event::default, strategy::<I>());
    let mut ping = seated(builder, machine.seat(1, 2))
        .handle_events_with(move |event: &Event, _, _| publish::<I>(&mut pong, event.value))
        .build();
    machine.seated(machine.seat(0, 2), || {
        while let Some(trip) = trips.depart() {
            publish::<I>(&mut ping, trip);
            let value = loop {
                match answered.poll() {
                    Ok(mut events) => break (&mut events).next().map(|event| event.value),
                    Err(Polling::NoEvents) => I::idle(),
                    Err(Polling::Shutdown) => break None,
                }
            };
            trips.arrive(value.ok_or("the answering ring was shut down")?);
        }
        trips.end();
        Ok(())
    })
}

pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    for_each_idle!(machine, I => {
        cases.push(Case::new(Contender::Disruptor, I::NAME, case::<I>(work.shape)));
    });
}

fn case<I: Idle>(shape: Shape) -> RunCase {
    match shape {
        Shape::OneToOne { claim } => Box::new(move |machine, events| {
            let run = Run::new();
            one_to_one::<I>(
                machine,
                claim,
                Flat::new(&run, events),
                Sum::new(&run, events),
            );
            run.rate(events, 1)
        }),
        Shape::OneToThree => three::<I>(one_to_three::<I>),
        Shape::Pipeline => three::<I>(pipeline::<I>),
        Shape::Diamond => Box::new(|machine, events| {
            let run = Run::new();
            let sides = [(); 2].map(|()| Sum::new(&run, events));
            diamond::<I>(
                machine,
                Flat::new(&run, events),
                sides,
                Sum::new(&run, events),
            );
            run.rate(events, 3)
        }),
        Shape::ThreeToOne => Box::new(|machine, events| {
            let run = Run::new();
            let feeds = [(); 3].map(|()| Flat::new(&run, events / 3));
            three_to_one::<I>(machine, feeds, Sum::new(&run, events));
            run.rate(events, 1)
        }),
        Shape::PingPong => Box::new(|machine, trips| {
            let run = Run::new();
            ping_pong::<I>(machine, Trips::new(&run, trips))?;
            run.latency(1)
        }),
        Shape::LagOneToOne { per_second } => Box::new(move |machine, events| {
            let run = Run::new();
            let feed = Paced::<I>::new(&run, events, per_second);
            one_to_one::<I>(machine, 1, feed, Lag::new(&run, events));
            run.latency(1)
        }),
        Shape::LagDiamond { per_second } => Box::new(move |machine, events| {
            let run = Run::new();
            let sides = [(); 2].map(|()| Sum::new(&run, events));
            let feed = Paced::<I>::new(&run, events, per_second);
            diamond::<I>(machine, feed, sides, Lag::new(&run, events));
            run.latency(3)
        }),
    }
}

fn three<I: Idle>(shape: fn(&Machine, Flat, [Sum; 3])) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let takes = [(); 3].map(|()| Sum::new(&run, events));
        shape(machine, Flat::new(&run, events), takes);
        run.rate(events, 3)
    })
}

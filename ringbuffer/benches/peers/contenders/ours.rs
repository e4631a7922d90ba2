//! `lockstep-ringbuffer`: the stages as the graph places them by itself, all on one thread
//! beside the producer's, and each on a thread of its own.

use std::thread;

use lockstep_ringbuffer::{
    BuildError, Graph, OnDrop, Placement, Polled, Progress, Report, Running, StageId, Wait, each,
};

use super::{Case, Contender, RunCase};
use crate::event::Event;
use crate::idle::{Idle, Spin, Yield};
use crate::machine::{Machine, Seat};
use crate::run::{Feed, Flat, Lag, Paced, Run, Sum, Take, Trips};
use crate::works::{DIAMOND_RING, RING, SMALL_RING, Shape, Work};

/// Where the stages run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Wherever the graph puts them, unpinned.
    Default,
    /// All on one thread, on the CPU beside the producer's.
    Together,
    /// A thread a stage, pinned if there are CPUs for all of them.
    Apart,
}

/// One variant.
#[derive(Debug, Clone, Copy)]
struct How {
    place: Place,
    wait: Wait,
}

type Producer = lockstep_ringbuffer::Producer<Event>;

fn graph(size: usize, how: How) -> Result<Graph<Event>, BuildError> {
    let mut graph = Graph::new(size, Event::default)?;
    graph.wait(how.wait);
    Ok(graph)
}

impl How {
    fn name(self) -> String {
        match self.place {
            Place::Default => format!("default, {}", self.wait),
            Place::Together => format!("one thread, {}", self.wait),
            Place::Apart => format!("a thread a stage, {}", self.wait),
        }
    }

    /// Puts `stages` where this variant has them.
    fn place(self, graph: &mut Graph<Event>, machine: &Machine, stages: &[StageId]) {
        match self.place {
            Place::Default => {}
            Place::Together => {
                pin(graph.together(stages), machine.seat(1, 2));
            }
            Place::Apart => {
                for (index, stage) in stages.iter().enumerate() {
                    pin(
                        graph.together(&[*stage]),
                        machine.seat(1 + index, 1 + stages.len()),
                    );
                }
            }
        }
    }

    /// Where the producer sits.
    fn producer_seat(self, machine: &Machine, stages: usize) -> Seat {
        match self.place {
            Place::Default => None,
            Place::Together => machine.seat(0, 2),
            Place::Apart => machine.seat(0, 1 + stages),
        }
    }
}

fn pin(placement: &mut Placement, seat: Seat) {
    if let Some(cpu) = seat {
        placement.pin(cpu);
    }
}

/// Builds with one producer, lets `produce` publish everything, and waits for the end.
fn publish_all(
    graph: Graph<Event>,
    machine: &Machine,
    seat: Seat,
    produce: impl FnOnce(&mut Producer) -> Result<(), String>,
) -> Result<(), String> {
    let (mut producer, pipeline) = graph.build().map_err(text)?;
    let running = pipeline.start().map_err(text)?;
    machine.seated(seat, || produce(&mut producer))?;
    drop(producer);
    end(running)
}

fn end(running: Running) -> Result<(), String> {
    let report: Report = running.join();
    if report.fault_count == 0 {
        Ok(())
    } else {
        Err(report.to_string())
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

#[inline(always)]
fn publish(producer: &mut Producer, value: u64) -> Result<(), String> {
    match producer.publish(|slot| *slot = Event::of(value)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn one_by_one(producer: &mut Producer, mut feed: impl Feed) -> Result<(), String> {
    feed.begin();
    for _ in 0..feed.count() {
        publish(producer, feed.next())?;
    }
    feed.end();
    Ok(())
}

fn in_claims(producer: &mut Producer, claim: u64, mut feed: impl Feed) -> Result<(), String> {
    let count = usize::try_from(claim).map_err(text)?;
    feed.begin();
    for _ in 0..feed.count() / claim {
        let published = producer.publish_batch(count, |mut slots| {
            slots
                .iter_mut()
                .for_each(|(_, slot)| *slot = Event::of(feed.next()));
        });
        published.map_err(text)?;
    }
    feed.end();
    Ok(())
}

fn one_to_one(
    machine: &Machine,
    how: How,
    claim: u64,
    feed: impl Feed,
    mut take: impl Take,
) -> Result<(), String> {
    let mut graph = graph(RING, how).map_err(text)?;
    let stage = graph.stage("sum", &[], each(move |event: &Event, _| take.take(event)));
    how.place(&mut graph, machine, &[stage]);
    publish_all(
        graph,
        machine,
        how.producer_seat(machine, 1),
        |producer| match claim {
            1 => one_by_one(producer, feed),
            _ => in_claims(producer, claim, feed),
        },
    )
}

const NAMES: [&str; 3] = ["first", "second", "third"];

fn one_to_three(machine: &Machine, how: How, feed: Flat, takes: [Sum; 3]) -> Result<(), String> {
    let mut graph = graph(RING, how).map_err(text)?;
    let mut stages = Vec::new();
    for (name, mut take) in NAMES.into_iter().zip(takes) {
        let sum = each(move |event: &Event, _| take.take(event));
        stages.push(graph.stage(name, &[], sum));
    }
    how.place(&mut graph, machine, &stages);
    publish_all(graph, machine, how.producer_seat(machine, 3), |producer| {
        one_by_one(producer, feed)
    })
}

fn pipeline(machine: &Machine, how: How, feed: Flat, takes: [Sum; 3]) -> Result<(), String> {
    let mut graph = graph(RING, how).map_err(text)?;
    let mut stages = Vec::new();
    for (name, mut take) in NAMES.into_iter().zip(takes) {
        let before = stages.last().copied();
        let sum = each(move |event: &Event, _| take.take(event));
        stages.push(graph.stage(name, before.as_slice(), sum));
    }
    how.place(&mut graph, machine, &stages);
    publish_all(graph, machine, how.producer_seat(machine, 3), |producer| {
        one_by_one(producer, feed)
    })
}

fn diamond(
    machine: &Machine,
    how: How,
    feed: impl Feed,
    [mut left, mut right]: [Sum; 2],
    mut last: impl Take,
) -> Result<(), String> {
    let mut graph = graph(DIAMOND_RING, how).map_err(text)?;
    let a = graph.stage("left", &[], each(move |event: &Event, _| left.take(event)));
    let b = graph.stage(
        "right",
        &[],
        each(move |event: &Event, _| right.take(event)),
    );
    let c = graph.stage(
        "last",
        &[a, b],
        each(move |event: &Event, _| last.take(event)),
    );
    how.place(&mut graph, machine, &[a, b, c]);
    publish_all(graph, machine, how.producer_seat(machine, 3), |producer| {
        one_by_one(producer, feed)
    })
}

fn three_to_one(
    machine: &Machine,
    how: How,
    feeds: [Flat; 3],
    mut take: Sum,
) -> Result<(), String> {
    let mut graph = graph(RING, how).map_err(text)?;
    let stage = graph.stage("sum", &[], each(move |event: &Event, _| take.take(event)));
    if how.place != Place::Default {
        pin(graph.together(&[stage]), machine.seat(0, 4));
    }
    let void = |slot: &mut Event| *slot = Event::default();
    let (producer, pipeline) = graph.build_multi(void).map_err(text)?;
    let running = pipeline.start().map_err(text)?;
    let outcomes = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, mut feed) in feeds.into_iter().enumerate() {
            let mut producer = producer.clone();
            let seat = machine
                .seat(1 + index, 4)
                .filter(|_| how.place != Place::Default);
            threads.push(scope.spawn(move || {
                machine.sit(seat);
                feed.begin();
                for _ in 0..feed.count() {
                    let value = feed.next();
                    producer
                        .publish(|slot| *slot = Event::of(value))
                        .map_err(text)?;
                }
                feed.end();
                Ok(())
            }));
        }
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| "a producer panicked".to_owned())?
            })
            .collect::<Vec<_>>()
    });
    drop(producer);
    outcomes.into_iter().collect::<Result<Vec<()>, String>>()?;
    end(running)
}

fn ping_pong(machine: &Machine, how: How, mut trips: Trips) -> Result<(), String> {
    let mut answers = graph(SMALL_RING, how).map_err(text)?;
    let answered = answers.poller("answered", &[], OnDrop::Halt);
    let (mut pong, mut answers) = answers.build().map_err(text)?;
    let mut answered = answers.poller(answered).map_err(text)?;
    let mut questions = graph(SMALL_RING, how).map_err(text)?;
    let echo = each(move |event: &Event, _| publish(&mut pong, event.value));
    let stage = questions.stage("echo", &[], echo);
    how.place(&mut questions, machine, &[stage]);
    let (mut ping, questions) = questions.build().map_err(text)?;
    let running = questions.start().map_err(text)?;
    machine.seated(how.producer_seat(machine, 1), || {
        while let Some(trip) = trips.depart() {
            publish(&mut ping, trip)?;
            let mut value = 0;
            loop {
                let polled = answered.poll(1, |batch| {
                    value = batch.events()[0].value;
                    Progress::All
                });
                match polled {
                    Polled::Ran(_) => break,
                    Polled::Idle | Polled::Gated => idle(how.wait),
                    other => return Err(format!("{other:?}")),
                }
            }
            trips.arrive(value);
        }
        trips.end();
        Ok(())
    })?;
    drop(ping);
    end(running)
}

/// What a poller's thread does is its user's choice.
#[inline(always)]
fn idle(wait: Wait) {
    match wait {
        Wait::Spin => {}
        Wait::Yield { .. } => thread::yield_now(),
        _ => std::hint::spin_loop(),
    }
}

pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    for how in variants(work.shape, machine) {
        cases.push(Case::new(
            Contender::Ours,
            how.name(),
            case(work.shape, how),
        ));
    }
}

/// What is worth trying: no spinning where threads outnumber the CPUs.
fn variants(shape: Shape, machine: &Machine) -> Vec<How> {
    let stages = match shape {
        Shape::OneToThree | Shape::Pipeline | Shape::Diamond | Shape::LagDiamond { .. } => 3,
        Shape::OneToOne { .. }
        | Shape::LagOneToOne { .. }
        | Shape::PingPong
        | Shape::ThreeToOne => 1,
    };
    let spinning = [Wait::Spin, Wait::SpinPause { pauses: 1 }];
    let yielding = [Wait::Yield { spins: 0 }, Wait::Yield { spins: 100 }];
    let mut variants = vec![How {
        place: Place::Default,
        wait: Wait::Auto,
    }];
    let mut add =
        |place, waits: &[Wait]| variants.extend(waits.iter().map(|&wait| How { place, wait }));
    if machine.cpu_count() > 1 {
        add(Place::Together, &spinning);
    }
    add(Place::Together, &yielding);
    if stages > 1 {
        if machine.cpu_count() > stages {
            add(Place::Apart, &spinning);
        }
        add(Place::Apart, &yielding);
    }
    variants
}

fn case(shape: Shape, how: How) -> RunCase {
    match shape {
        Shape::OneToOne { claim } => Box::new(move |machine, events| {
            let run = Run::new();
            one_to_one(
                machine,
                how,
                claim,
                Flat::new(&run, events),
                Sum::new(&run, events),
            )?;
            run.rate(events, 1)
        }),
        Shape::OneToThree => three(how, one_to_three),
        Shape::Pipeline => three(how, pipeline),
        Shape::Diamond => Box::new(move |machine, events| {
            let run = Run::new();
            let sides = [(); 2].map(|()| Sum::new(&run, events));
            diamond(
                machine,
                how,
                Flat::new(&run, events),
                sides,
                Sum::new(&run, events),
            )?;
            run.rate(events, 3)
        }),
        Shape::ThreeToOne => Box::new(move |machine, events| {
            let run = Run::new();
            let feeds = [(); 3].map(|()| Flat::new(&run, events / 3));
            three_to_one(machine, how, feeds, Sum::new(&run, events))?;
            run.rate(events, 1)
        }),
        Shape::PingPong => Box::new(move |machine, trips| {
            let run = Run::new();
            ping_pong(machine, how, Trips::new(&run, trips))?;
            run.latency(1)
        }),
        Shape::LagOneToOne { .. } | Shape::LagDiamond { .. } => match how.wait {
            Wait::Yield { .. } => late::<Yield>(shape, how),
            _ => late::<Spin>(shape, how),
        },
    }
}

fn late<I: Idle>(shape: Shape, how: How) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let last = Lag::new(&run, events);
        match shape {
            Shape::LagDiamond { per_second } => {
                let sides = [(); 2].map(|()| Sum::new(&run, events));
                let feed = Paced::<I>::new(&run, events, per_second);
                diamond(machine, how, feed, sides, last)?;
                run.latency(3)
            }
            Shape::LagOneToOne { per_second } => {
                let feed = Paced::<I>::new(&run, events, per_second);
                one_to_one(machine, how, 1, feed, last)?;
                run.latency(1)
            }
            other => Err(format!("{other:?} measures no lag")),
        }
    })
}

fn three(how: How, shape: fn(&Machine, How, Flat, [Sum; 3]) -> Result<(), String>) -> RunCase {
    Box::new(move |machine, events| {
        let run = Run::new();
        let takes = [(); 3].map(|()| Sum::new(&run, events));
        shape(machine, how, Flat::new(&run, events), takes)?;
        run.rate(events, 3)
    })
}

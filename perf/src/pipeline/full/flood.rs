//! The engine at full speed: as many events as it takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use lockstep_engine::prelude::*;

use super::home::Home;
use super::relay::Relay;
use super::{below, builder};
use crate::args::plan::Plan;
use crate::args::quantity::nanos;
use crate::machine::clock::{Clock, Ticks as _, ratio};
use crate::machine::pin::threads;
use crate::machine::usage::{Steal, cpu_seconds};
use crate::measure::recorder::Ticket;
use crate::measure::tail::Spans;
use crate::pipeline::order::{Order, for_order_size};
use crate::pipeline::throughput::{LOOK_EVERY, Throughput};
use crate::pipeline::toil::Toil;
use crate::pipeline::watched::Times;
use crate::report::result::Work;

/// Pushes as fast as the engine takes it.
pub(in crate::pipeline) fn throughput(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    for_order_size!(
        plan.event_size,
        throughput_with(clock, plan, duration, stop)
    )
}

fn throughput_with<O: Order>(
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    let home = Home::create(&below(plan))
        .with_context(|| format!("cannot write below {}", below(plan).display()))?;
    let times = Times {
        clock: *clock,
        writes: Spans::default(),
        syncs: Spans::default(),
    };
    let relay = Relay::<O>::new(Toil::of(clock, plan.work), None);
    let engine = builder(plan, &home, times.clone(), relay)?.start()?;
    let outcome = push(&engine, clock, plan, duration, stop);
    let seen = threads();
    let kinds = [
        ("journal sync", &times.syncs),
        ("journal write", &times.writes),
    ];
    let work = kinds.map(|(name, spans)| (name, spans.take()));
    let closed = engine.close();
    let run = outcome?;
    closed?;
    let done = work.into_iter().filter(|(_, spans)| !spans.is_empty());
    let work = done.map(|(name, spans)| {
        let busy_ns = spans.iter().map(|span| span.ns).sum();
        let share = ratio(busy_ns, run.span_ns).min(1.0);
        let count = spans.len() as u64;
        (name.to_owned(), Work { count, share })
    });
    Ok(Throughput {
        seen,
        work: work.collect(),
        ..run
    })
}

fn push<O: Order>(
    engine: &Engine<Relay<O>>,
    clock: &Clock,
    plan: &Plan,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Throughput> {
    let mut producer = engine.producer();
    let (cpu_before, steal) = (cpu_seconds(), Steal::watch());
    let start = clock.ordered();
    let end = start + clock.to_ticks(nanos(duration));
    let (mut events, mut blocked) = (0_u64, 0_u64);
    let numbered = |number: u64| O::of(numbered_ticket(number), 0);
    let mut batch = vec![O::Slot::event(&numbered(0)); plan.claim];
    let mut last = Position(0);
    // ORDERING: Relaxed, the flag carries nothing but itself.
    while clock.early() < end && !stop.load(Ordering::Relaxed) {
        for _ in 0..LOOK_EVERY {
            if plan.claim > 1 {
                for event in &mut batch {
                    *event = O::Slot::event(&numbered(events));
                    events += 1;
                }
                last = producer.publish_events(&batch)?.end;
                continue;
            }
            let fill = |order: &mut O| *order = numbered(events);
            let ack = match producer.try_publish_as(0, 0, fill) {
                Err(lockstep_engine::Error::Busy) => {
                    blocked += 1;
                    producer.publish(fill)?
                }
                other => other?,
            };
            events += 1;
            last = Position(ack.position().0 + 1);
        }
    }
    producer.wait_until(last)?;
    Ok(Throughput {
        events,
        span_ns: clock.to_ns(clock.ordered() - start),
        blocked,
        cpu_s: cpu_seconds() - cpu_before,
        stolen: steal.share(),
        batches: Vec::new(),
        work: BTreeMap::new(),
        seen: Vec::new(),
        // ORDERING: Relaxed, the flag carries nothing but itself.
        interrupted: stop.load(Ordering::Relaxed),
    })
}

/// What stands in the place of times where nobody measures any.
fn numbered_ticket(number: u64) -> Ticket {
    Ticket {
        intended: number,
        sent: !number,
    }
}

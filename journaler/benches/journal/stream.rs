//! An open loop: events come at a fixed rate whatever the disk does; whatever has come is one
//! group. How long from an event's intended time until it is durable.
//!
//! The limit is the same loop over the bare calls. An event comes somewhere within the sync of
//! the group before and waits for its own, so the loop's p50 is one and a half bare syncs of
//! such a group at best, whoever writes: the row `in bare syncs` says how many it is.

use std::hint;
use std::time::Instant;

use crate::ours::{Engine, GROUP_MOST, Ours, group_bytes, still};
use crate::raw::RawFile;
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::statistics::{Reading, Times};

pub(crate) struct Stream;

const RATES: [(u64, &str); 2] = [(100_000, "100 k/s"), (1_000_000, "1 M/s")];

impl Work for Stream {
    fn key(&self) -> &'static str {
        "stream"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        for engine in Engine::BOTH {
            let segment = if setting.args.quick {
                64 << 20
            } else {
                256 << 20
            };
            let directory = setting.place.empty("stream")?;
            let mut ours = Ours::create(&directory, &still(engine, segment))?;
            let mut raw = RawFile::zeroed(&setting.place.file("raw"), segment, engine)?;
            ours.append(1)?;
            for (rate, name) in RATES {
                let wanted = rate * u64::try_from(setting.args.run.as_millis())? / 1000;
                // It fits the one segment, with all headers.
                let count = wanted.min(segment / 64 / 4);
                let mut first = None;
                let mut second = None;
                for is_ours in setting.turns() {
                    if is_ours {
                        first = Some(open_loop(rate, count, |events| ours.append(events))?);
                    } else {
                        let append = |events| Ok(raw.append(group_bytes(events))?);
                        second = Some(open_loop(rate, count, append)?);
                    }
                }
                if let (Some(ours), Some(raw)) = (first, second) {
                    rows(results, engine, name, ours, raw);
                }
            }
            ours.close()?;
        }
        Ok(())
    }
}

/// What one loop gave.
struct Run {
    lags: Times,
    group_ns: Times,
    group_events: Times,
}

fn rows(results: &mut Results, engine: Engine, rate: &str, mut ours: Run, mut raw: Run) {
    let about = |case: String, unit, against, goal| About {
        work: "stream",
        case,
        unit,
        against,
        goal,
    };
    let named = format!("{}, {rate}", engine.name());
    let lag = ours.lags.reading();
    results.add(
        about(
            named.clone(),
            Unit::Ns,
            engine.limit(),
            Goal::RatioAtMost(1.15),
        ),
        lag,
        Some(raw.lags.reading()),
    );
    let (group, bare) = (ours.group_ns.reading(), raw.group_ns.reading());
    results.add(
        about(
            format!("{named}, its groups"),
            Unit::Ns,
            engine.limit(),
            Goal::None,
        ),
        group,
        Some(bare),
    );
    results.add(
        about(
            format!("{named}, in bare syncs"),
            Unit::Ns,
            "one bare sync",
            Goal::None,
        ),
        Reading::plain(lag.value),
        Some(Reading::plain(bare.value)),
    );
    results.add(
        about(
            format!("{named}, events a group"),
            Unit::Count,
            engine.limit(),
            Goal::None,
        ),
        ours.group_events.reading(),
        Some(raw.group_events.reading()),
    );
}

fn open_loop(rate: u64, count: u64, mut append: impl FnMut(usize) -> Outcome<()>) -> Outcome<Run> {
    let period_ns = 1_000_000_000 / rate;
    let mut lags = Times(Vec::with_capacity(usize::try_from(count)?));
    let (mut group_ns, mut group_events) = (Times::default(), Times::default());
    let began = Instant::now();
    let now_ns = || u64::try_from(began.elapsed().as_nanos());
    let mut done = 0;
    // Ends: `done` grows, or time goes on until it does.
    while done < count {
        let before = now_ns()?;
        let here = (before / period_ns + 1).min(count);
        if here == done {
            hint::spin_loop();
            continue;
        }
        let events = usize::try_from(here - done)?.min(GROUP_MOST);
        append(events)?;
        let after = now_ns()?;
        let end = done + events as u64;
        lags.0
            .extend((done..end).map(|event| after - event * period_ns));
        group_ns.0.push(after - before);
        group_events.0.push(events as u64);
        done = end;
    }
    Ok(Run {
        lags,
        group_ns,
        group_events,
    })
}

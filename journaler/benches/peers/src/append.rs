//! One group made durable, by each contender in turns.

use std::path::Path;
use std::time::Instant;

use crate::args::Args;
use crate::contender::{Contender, Who};
use crate::ours::{GROUP_MOST, group_bytes};
use crate::place::Place;
use crate::raw::forget;
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::Outcome;
use crate::statistics::{Reading, Times};

/// Events of a group: one, 4 KiB, 64 KiB, 1 MiB, and as many as we write at most.
const SIZES: [usize; 5] = [1, 64, 1024, 16 * 1024 - 2, GROUP_MOST];
/// Room of a log: five sizes, each at most an eighth of it.
const BYTES: u64 = 512 << 20;

pub(crate) fn round(
    args: &Args,
    place: &Place,
    round: usize,
    results: &mut Results,
) -> Outcome<()> {
    let mut logs = Vec::new();
    for who in Who::ALL {
        if !args.is_wanted(who.name()) {
            continue;
        }
        let directory = place.empty(&who.name().replace(' ', "-"))?;
        let log = who.create(&directory, BYTES)?;
        logs.push((who, log));
        // What it wrote ahead is on the disk, and not in the page cache, as ours is.
        forget_all(&directory)?;
    }
    for events in SIZES {
        let mut times = vec![Times::default(); logs.len()];
        let most = usize::try_from(BYTES)? / 8 / group_bytes(events);
        let began = Instant::now();
        let mut turns = 0;
        // Ends: at `most` turns.
        while turns < most.max(5) && (began.elapsed() < args.run || turns < 5) {
            // Who begins changes with every turn.
            for at in 0..logs.len() {
                let at = (at + turns + round) % logs.len();
                let before = Instant::now();
                logs[at].1.append(events)?;
                let took = u64::try_from(before.elapsed().as_nanos())?;
                times[at].0.push(took);
            }
            turns += 1;
        }
        let of = |times: &mut Times| times.reading();
        let readings: Vec<Reading> = times.iter_mut().map(of).collect();
        rows(events, &logs, &readings, results);
    }
    drop(logs);
    for who in Who::ALL {
        if args.is_wanted(who.name()) {
            place.remove(&who.name().replace(' ', "-"))?;
        }
    }
    Ok(())
}

fn rows(
    events: usize,
    logs: &[(Who, Box<dyn Contender>)],
    readings: &[Reading],
    results: &mut Results,
) {
    let ours = logs.iter().position(|(who, _)| *who == Who::OURS);
    for (at, (who, _)) in logs.iter().enumerate() {
        let is_alone = ours.is_none_or(|ours| ours == at);
        let about = About {
            work: "append",
            case: format!("{events} events"),
            unit: Unit::Ns,
            against: who.name(),
            goal: Goal::None,
        };
        match ours {
            Some(ours) if !is_alone => results.add(about, readings[ours], Some(readings[at])),
            _ if ours.is_none() => results.add(about, readings[at], None),
            _ => {}
        }
    }
}

fn forget_all(directory: &Path) -> Outcome<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_all(&path)?;
        } else {
            forget(&path)?;
        }
    }
    Ok(())
}

//! Reading everything back, from the page cache: the second of two readings.

use std::time::Instant;

use crate::args::Args;
use crate::contender::{Read, Who};
use crate::ours::group_bytes;
use crate::place::Place;
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::Outcome;
use crate::statistics::Reading;

/// Events of a group: what gathers during a sync at 1 M/s.
const IN_GROUP: usize = 256;

pub(crate) fn round(args: &Args, place: &Place, results: &mut Results) -> Outcome<()> {
    let mut rates = Vec::new();
    let mut expected: Option<Read> = None;
    for who in Who::ALL {
        if !args.is_wanted(who.name()) {
            continue;
        }
        let directory = place.empty("scan")?;
        let room = args.scan_bytes as u64 * 5 / 4;
        let Some(mut log) = who.create_to_read(&directory, room)? else {
            continue;
        };
        let groups = args.scan_bytes / group_bytes(IN_GROUP);
        for _ in 1..groups {
            log.write(IN_GROUP)?;
        }
        log.append(IN_GROUP)?;
        drop(log);
        let first = who.read(&directory)?;
        let before = Instant::now();
        let read = who.read(&directory)?;
        let took = u64::try_from(before.elapsed().as_nanos())?;
        let events = (groups * IN_GROUP) as u64;
        if read != first || read.events != events || expected.is_some_and(|other| other != read) {
            return Err(format!("{} read {read:?} of {events} events", who.name()).into());
        }
        expected = Some(read);
        rates.push((who, Reading::rate(events, took)));
    }
    let ours = rates.iter().find(|(who, _)| *who == Who::OURS).copied();
    for (who, rate) in &rates {
        let about = About {
            work: "scan",
            case: format!("groups of {IN_GROUP}"),
            unit: Unit::EventsPerSecond,
            against: who.name(),
            goal: Goal::None,
        };
        match ours {
            Some((of_us, ours)) if of_us != *who => results.add(about, ours, Some(*rate)),
            None => results.add(about, *rate, None),
            Some(_) => {}
        }
    }
    place.remove("scan")
}

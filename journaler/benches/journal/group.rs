//! One group made durable, against one bare write of the same bytes made durable: one by one in
//! turns, in files of the same state.

use std::time::{Duration, Instant};

use crate::ours::{Engine, Ours, group_bytes, still};
use crate::raw::RawFile;
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::statistics::Times;

pub(crate) struct Group;

/// Events of a group: one, 4 KiB of them, 64 KiB, 1 MiB.
const SIZES: [usize; 4] = [1, 64, 1024, 16 * 1024];

impl Work for Group {
    fn key(&self) -> &'static str {
        "group"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        for engine in Engine::BOTH {
            let segment = if setting.args.quick {
                64 << 20
            } else {
                256 << 20
            };
            let directory = setting.place.empty("group")?;
            let mut ours = Ours::create(&directory, &still(engine, segment))?;
            let mut raw = RawFile::zeroed(&setting.place.file("raw"), segment, engine)?;
            ours.append(1)?;
            for events in SIZES {
                // All sizes fit the one segment: a roll is another work's question.
                let most = usize::try_from(segment)? / 8 / group_bytes(events);
                let limits = (setting.args.run / 2, most.max(10));
                let (ours, raw) = in_turns(&mut ours, &mut raw, events, limits)?;
                let about = About {
                    work: "group",
                    case: format!("{}, {events} events", engine.name()),
                    unit: Unit::Ns,
                    against: engine.limit(),
                    goal: Goal::RatioAtMost(1.15),
                };
                let (mut ours, mut raw) = (ours, raw);
                results.add(about, ours.reading(), Some(raw.reading()));
            }
            ours.close()?;
        }
        Ok(())
    }
}

/// Who goes first changes with every pair.
fn in_turns(
    ours: &mut Ours,
    raw: &mut RawFile,
    events: usize,
    (duration, most): (Duration, usize),
) -> Outcome<(Times, Times)> {
    let (mut of_ours, mut of_raw) = (Times::default(), Times::default());
    let began = Instant::now();
    // Ends: at `most` pairs.
    while of_ours.0.len() < most && (began.elapsed() < duration || of_ours.0.len() < 10) {
        let is_ours_first = of_ours.0.len() % 2 == 0;
        for is_ours in [is_ours_first, !is_ours_first] {
            let before = Instant::now();
            if is_ours {
                ours.append(events)?;
            } else {
                raw.append(group_bytes(events))?;
            }
            let took = u64::try_from(before.elapsed().as_nanos())?;
            if is_ours { &mut of_ours } else { &mut of_raw }
                .0
                .push(took);
        }
    }
    Ok((of_ours, of_raw))
}

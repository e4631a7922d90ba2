//! Groups around a change of segments against all others, and against a journal that never
//! changes: 64 KiB every millisecond, so the preparer has to make what is used up.

use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_journaler::Options;

use crate::event::EVENTS;
use crate::ours::{Engine, Ours, group_bytes, still};
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::statistics::Times;

pub(crate) struct Roll;

const GROUP_EVENTS: usize = 1022;
const PERIOD: Duration = Duration::from_millis(1);
const SEGMENT_BYTES: u64 = 16 << 20;
/// So many groups on either side of a roll count as around it.
const AROUND: usize = 8;

impl Work for Roll {
    fn key(&self) -> &'static str {
        "roll"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        let groups = setting.args.run.as_millis() * 5;
        let groups = usize::try_from(groups)?.max(600);
        for engine in Engine::BOTH {
            let rolling = Options::new(&EVENTS)
                .with_mode(engine.mode())
                .with_segment_bytes(SEGMENT_BYTES);
            let whole = (groups * group_bytes(GROUP_EVENTS) * 2) as u64;
            let still = still(engine, whole.next_multiple_of(1 << 20));
            let mut rolled = run(&setting.place.empty("roll")?, &rolling, groups)?;
            let mut quiet = run(&setting.place.empty("roll")?, &still, groups)?;
            rows(engine, &mut rolled, &mut quiet, results);
        }
        setting.place.remove("roll")
    }
}

/// The times of a run's groups, by where they lie.
#[derive(Default)]
struct Run {
    first: Times,
    around: Times,
    others: Times,
    unprepared: u64,
}

fn rows(engine: Engine, rolled: &mut Run, quiet: &mut Run, results: &mut Results) {
    let about = |case: &str, against, goal| About {
        work: "roll",
        case: format!("{}, {case}", engine.name()),
        unit: Unit::Ns,
        against,
        goal,
    };
    let others = rolled.others.reading();
    let around = rolled.around.reading();
    let first = rolled.first.reading();
    results.add(
        about(
            "p99 around a roll",
            "p99 of the others",
            Goal::RatioAtMost(1.25),
        ),
        around.p99(),
        Some(others.p99()),
    );
    results.add(
        about("around a roll", "the others", Goal::None),
        around,
        Some(others),
    );
    results.add(
        about("first of a segment", "the others", Goal::None),
        first,
        Some(others),
    );
    results.add(
        about("others", "no rolls, no preparer", Goal::None),
        others,
        Some(quiet.others.reading()),
    );
    if rolled.unprepared > 0 {
        results.note(format!(
            "roll, {}: {} segments were begun before they were ready",
            engine.name(),
            rolled.unprepared
        ));
    }
}

fn run(directory: &Path, options: &Options, groups: usize) -> Outcome<Run> {
    let mut ours = Ours::create(directory, options)?;
    // Ends: the preparer makes what it was asked for.
    while options.spares > 0 && !ours.is_prepared() {
        std::thread::sleep(PERIOD);
    }
    ours.append(GROUP_EVENTS)?;
    let mut times = Vec::with_capacity(groups);
    let mut rolls = Vec::new();
    let began = Instant::now();
    for group in 0..groups {
        let intended = PERIOD * u32::try_from(group)?;
        std::thread::sleep(intended.saturating_sub(began.elapsed()));
        let before = (Instant::now(), ours.counters().rolls);
        ours.append(GROUP_EVENTS)?;
        times.push(u64::try_from(before.0.elapsed().as_nanos())?);
        if ours.counters().rolls > before.1 {
            rolls.push(group);
        }
    }
    let mut run = Run {
        unprepared: ours.counters().unprepared_rolls,
        ..Run::default()
    };
    for (group, time) in times.into_iter().enumerate() {
        let is_around = rolls.iter().any(|roll| roll.abs_diff(group) <= AROUND);
        if rolls.contains(&group) {
            run.first.0.push(time);
        }
        if is_around {
            run.around.0.push(time);
        } else {
            run.others.0.push(time);
        }
    }
    ours.close()?;
    Ok(run)
}

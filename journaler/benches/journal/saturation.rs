//! As fast as it goes: groups as large as they get, against bare writes of the size that is best
//! here and today. Everybody writes 4 MiB in turn, so all meet the same machine.
//!
//! Segments are ready before, as they are in a burst. What lasts longer than the spares also
//! waits for zeros to be written, which the row `without end` shows with the default options.

use std::time::{Duration, Instant};

use crate::event::EVENTS;
use crate::ours::{Engine, GROUP_MOST, Ours, still};
use crate::raw::{RawFile, forget};
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::statistics::Reading;

#[derive(Default)]
pub(crate) struct Saturation {
    raw: Vec<RawFile>,
}

const TURN_BYTES: usize = 4 << 20;
const RAW_SIZES: [usize; 2] = [1 << 20, 4 << 20];
/// Events of our groups: 1 MiB, and the longest.
const OUR_SIZES: [usize; 2] = [16 * 1024 - 2, GROUP_MOST];

impl Work for Saturation {
    fn key(&self) -> &'static str {
        "saturation"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        let segment = if setting.args.quick {
            128 << 20
        } else {
            1 << 30
        };
        if self.raw.is_empty() {
            for engine in Engine::BOTH {
                let path = setting.place.file(&format!("raw-{}", engine.name()));
                self.raw.push(RawFile::zeroed(&path, segment, engine)?);
            }
        }
        for (engine, raw) in Engine::BOTH.into_iter().zip(&mut self.raw) {
            // As our segment: full of zeros, and none of them in the page cache.
            forget(&setting.place.file(&format!("raw-{}", engine.name())))?;
            raw.begin_again();
            let directory = setting.place.empty("saturation")?;
            let mut ours = Ours::create(&directory, &still(engine, segment))?;
            ours.append(1)?;
            one_engine(engine, &mut ours, raw, segment, setting, results)?;
            ours.close()?;
            setting.place.remove("saturation")?;
        }
        without_end(setting, results)
    }
}

fn one_engine(
    engine: Engine,
    ours: &mut Ours,
    raw: &mut RawFile,
    segment: u64,
    setting: &Setting<'_>,
    results: &mut Results,
) -> Outcome<()> {
    let mut of_raw = [(0u64, Duration::ZERO); RAW_SIZES.len()];
    let mut of_ours = [(0u64, Duration::ZERO); OUR_SIZES.len()];
    let began = Instant::now();
    // Ends: the segment is full at some time.
    while ours.counters().bytes + 3 * (TURN_BYTES as u64) < segment - segment / 16
        && began.elapsed() < setting.args.run * 6
    {
        for (size, (bytes, took)) in RAW_SIZES.into_iter().zip(&mut of_raw) {
            let before = Instant::now();
            for _ in 0..(TURN_BYTES / size).max(1) {
                raw.append(size)?;
                *bytes += size as u64;
            }
            *took += before.elapsed();
        }
        for (events, (count, took)) in OUR_SIZES.into_iter().zip(&mut of_ours) {
            let before = Instant::now();
            for _ in 0..(TURN_BYTES / 64 / events).max(1) {
                ours.append(events)?;
                *count += events as u64;
            }
            *took += before.elapsed();
        }
    }
    let rate = |(count, took): (u64, Duration)| Reading::rate(count, nanos(took));
    let best = of_raw.into_iter().map(rate).map(|reading| reading.value);
    let best = best.fold(0.0, f64::max) / 64.0;
    for (events, of_ours) in OUR_SIZES.into_iter().zip(of_ours) {
        let is_longest = events == GROUP_MOST;
        let about = About {
            work: "saturation",
            case: format!("{}, groups of {events}", engine.name()),
            unit: Unit::EventsPerSecond,
            against: engine.limit(),
            goal: if is_longest {
                Goal::RatioAtLeast(0.85)
            } else {
                Goal::None
            },
        };
        results.add(about, rate(of_ours), Some(Reading::plain(best)));
    }
    Ok(())
}

/// Longer than what is prepared, with everything as it comes.
fn without_end(setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
    let megabytes = if setting.args.quick { 64 } else { 512 };
    for engine in Engine::BOTH {
        let directory = setting.place.empty("saturation")?;
        let mut options = lockstep_journaler::Options::new(&EVENTS)
            .with_mode(engine.mode())
            .with_segment_bytes(if setting.args.quick {
                8 << 20
            } else {
                64 << 20
            });
        options.max_write_bytes = 1 << 20;
        let mut ours = Ours::create(&directory, &options)?;
        let before = Instant::now();
        let mut events = 0;
        while events * 64 < megabytes << 20 {
            ours.append(16 * 1024 - 2)?;
            events += 16 * 1024 - 2;
        }
        let took = before.elapsed();
        let about = About {
            work: "saturation",
            case: format!("{}, without end", engine.name()),
            unit: Unit::EventsPerSecond,
            against: "",
            goal: Goal::None,
        };
        results.add(about, Reading::rate(events, nanos(took)), None);
        ours.close()?;
    }
    setting.place.remove("saturation")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! Opening behind a snapshot near the end, after a crash: a quarter against the whole, in the page
//! cache and out of it, and the most memory that the process has meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Journal, Options, Position, Verify};

use crate::event::EVENTS;
use crate::ours::{Ours, group_bytes};
use crate::raw::forget;
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::scan::quick_to_write;
use crate::statistics::Reading;

#[derive(Default)]
pub(crate) struct Opening {
    journals: Vec<Left>,
}

/// A journal that nobody closed.
struct Left {
    directory: PathBuf,
    bytes: u64,
    events: u64,
}

/// What one opening took.
struct Opened {
    time: Reading,
    most: Reading,
}

const GROUP_EVENTS: usize = 1022;
/// The snapshot is so many events before the end.
const SINCE_SNAPSHOT: u64 = 1 << 20;

impl Work for Opening {
    fn key(&self) -> &'static str {
        "opening"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        if self.journals.is_empty() {
            let whole = setting.args.open_bytes;
            for (name, bytes) in [("quarter", whole / 4), ("whole", whole)] {
                let segment = if setting.args.quick {
                    16 << 20
                } else {
                    256 << 20
                };
                self.journals.push(leave(setting, name, bytes, segment)?);
            }
        }
        for is_cold in [false, true] {
            let quarter = open(&self.journals[0], is_cold)?;
            let whole = open(&self.journals[1], is_cold)?;
            let bytes = self.journals[1].bytes;
            let from = if is_cold { "disk" } else { "page cache" };
            let about = |case: String, unit, goal| About {
                work: "opening",
                case,
                unit,
                against: "a quarter of it",
                goal,
            };
            let size = format!("{} MiB, {from}", bytes >> 20);
            results.add(
                about(size.clone(), Unit::Ns, Goal::AtMost(1e9)),
                whole.time,
                Some(quarter.time),
            );
            results.add(
                about(format!("{size}, process"), Unit::Bytes, Goal::None),
                whole.most,
                Some(quarter.most),
            );
        }
        Ok(())
    }
}

/// Writes a journal and leaves it as a crash would: synced, not closed.
fn leave(setting: &Setting<'_>, name: &str, bytes: u64, segment: u64) -> Outcome<Left> {
    let directory = setting.place.empty(name)?;
    let mut ours = Ours::create(&directory, &quick_to_write(segment))?;
    let groups = bytes / group_bytes(GROUP_EVENTS) as u64;
    for _ in 0..groups {
        ours.write(GROUP_EVENTS)?;
    }
    ours.append(GROUP_EVENTS)?;
    Ok(Left {
        directory,
        bytes,
        events: (groups + 1) * GROUP_EVENTS as u64,
    })
}

fn open(left: &Left, is_cold: bool) -> Outcome<Opened> {
    if is_cold {
        for entry in fs::read_dir(&left.directory)? {
            let path = entry?.path();
            if path.is_file() {
                forget(&path)?;
            }
        }
    }
    let snapshot = Position(left.events.saturating_sub(SINCE_SNAPSHOT));
    let mut options = Options::new(&EVENTS);
    options.verify = Verify::Since(snapshot);
    options.segment_bytes = fs::metadata(left.directory.join("000000000000.seg"))?.len();
    options.max_write_bytes = options.max_write_bytes.min(options.segment_bytes / 8);
    // The most memory from here on, not since the process began.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = Instant::now();
    let (journal, recovered) = Journal::open(Disk::at(&left.directory)?, &options)?;
    let time = nanos(before)?;
    let most = memory("VmHWM")?;
    if recovered.reached.position.0 != left.events {
        let found = recovered.reached.position;
        return Err(format!("wrote {} events, opened with {found}", left.events).into());
    }
    drop(journal);
    Ok(Opened {
        time: Reading::plain(time),
        most: Reading::plain(most),
    })
}

#[expect(clippy::cast_precision_loss, reason = "seconds in ns")]
fn nanos(since: Instant) -> Outcome<f64> {
    Ok(u64::try_from(since.elapsed().as_nanos())? as f64)
}

/// A line of what the system knows of this process, in bytes.
fn memory(name: &str) -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kibibytes.ok_or("no such line")?.parse::<f64>()? * 1024.0)
}

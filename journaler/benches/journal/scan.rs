//! Reading a journal back, every CRC and chain checked and a field of every event added up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lockstep_journaler::schema::Described;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{From, Mode, Options, Reader};

use crate::event::{EVENTS, Event, RING};
use crate::ours::{Ours, group_bytes};
use crate::raw::{Pages, forget, map_and_check, read_through};
use crate::results::{About, Goal, Results, Unit};
use crate::rounds::{Outcome, Setting, Work};
use crate::statistics::Reading;

#[derive(Default)]
pub(crate) struct Scan {
    journals: Vec<Written>,
}

/// A journal to be read.
pub(crate) struct Written {
    pub(crate) directory: PathBuf,
    pub(crate) segments: Vec<PathBuf>,
    pub(crate) events: u64,
    pub(crate) in_frame: usize,
    /// What the values of all events add up to.
    sum: u64,
}

/// Events of a frame: what gathers during a sync at 1 M/s, and at 100 k/s.
const IN_FRAME: [usize; 2] = [256, 24];

impl Work for Scan {
    fn key(&self) -> &'static str {
        "scan"
    }

    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
        if self.journals.is_empty() {
            for in_frame in IN_FRAME {
                let directory = setting.place.empty(&format!("scan-{in_frame}"))?;
                let bytes = setting.args.scan_bytes;
                self.journals.push(write(&directory, bytes, in_frame)?);
            }
        }
        for written in &self.journals {
            hot(written, results)?;
        }
        cold(&self.journals[0], setting, results)
    }
}

/// Four segments, the last one not sealed.
fn write(directory: &Path, bytes: u64, in_frame: usize) -> Outcome<Written> {
    let mut options = quick_to_write((bytes / 4).next_multiple_of(4096));
    options.spares = 2;
    let mut ours = Ours::create(directory, &options)?;
    let group = group_bytes(in_frame) as u64;
    let groups = (bytes - bytes / 16) / group;
    let (mut events, mut sum) = (0u64, 0u64);
    for _ in 0..groups {
        ours.write(in_frame)?;
        let from = events % RING as u64;
        let of_ring = |at: u64| (from + at) % RING as u64;
        sum = (0..in_frame as u64)
            .map(of_ring)
            .fold(sum, u64::wrapping_add);
        events += in_frame as u64;
    }
    ours.close()?;
    let mut segments: Vec<PathBuf> = std::fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    Ok(Written {
        directory: directory.to_owned(),
        segments,
        events,
        in_frame,
        sum,
    })
}

/// Not waiting for the disk, and with a preparer that does not pause: to have something to read.
pub(crate) fn quick_to_write(segment_bytes: u64) -> Options {
    let mut options = Options::new(&EVENTS).with_mode(Mode::Async {
        max_unsynced_bytes: 64 << 20,
        interval: Duration::from_secs(1),
    });
    options.segment_bytes = segment_bytes;
    options.prepare_pause = Duration::ZERO;
    options.prepare_chunk_bytes = 1 << 20;
    options
}

fn about(case: String, unit: Unit, against: &'static str, goal: Goal) -> About {
    About {
        work: "scan",
        case,
        unit,
        against,
        goal,
    }
}

/// From the page cache, after a run that brings it there.
fn hot(written: &Written, results: &mut Results) -> Outcome<()> {
    read(written)?;
    let ours = read(written)?;
    let before = Instant::now();
    let mut bytes = 0;
    let mut check = 0;
    for segment in &written.segments {
        let (length, crc) = map_and_check(segment, written.in_frame * 64)?;
        bytes += length;
        check ^= crc;
    }
    std::hint::black_box(check);
    let limit = rate(bytes / 64, before.elapsed());
    let goal = match written.in_frame {
        256 => Goal::AtLeast(100e6),
        _ => Goal::None,
    };
    let case = format!("page cache, frames of {}", written.in_frame);
    results.add(
        about(case, Unit::EventsPerSecond, "mmap + CRC-32C", goal),
        rate(written.events, ours),
        Some(limit),
    );
    Ok(())
}

/// From the disk: as many bytes, read by us and by `read`.
fn cold(written: &Written, setting: &Setting<'_>, results: &mut Results) -> Outcome<()> {
    let (mut ours, mut limit) = (None, None);
    for is_ours in setting.turns() {
        written.segments.iter().try_for_each(|path| forget(path))?;
        if is_ours {
            let took = read(written)?;
            let bytes =
                written.events / written.in_frame as u64 * group_bytes(written.in_frame) as u64;
            ours = Some(rate(bytes, took));
        } else {
            let mut buffer = Pages::filled(1 << 20, 0);
            let before = Instant::now();
            let mut bytes = 0;
            for segment in &written.segments {
                bytes += read_through(segment, &mut buffer)?;
            }
            limit = Some(rate(bytes, before.elapsed()));
        }
    }
    let case = format!("disk, frames of {}", written.in_frame);
    let about = about(
        case,
        Unit::BytesPerSecond,
        "read, 1 MiB",
        Goal::RatioAtLeast(0.9),
    );
    if let Some(ours) = ours {
        results.add(about, ours, limit);
    }
    Ok(())
}

/// Reads everything once; how long that took.
fn read(written: &Written) -> Outcome<Duration> {
    let hash = Event::schema_hash();
    let before = Instant::now();
    let mut reader = Reader::open(Disk::at(&written.directory)?, From::Oldest)?;
    let (mut events, mut sum) = (0u64, 0u64);
    while let Some(frame) = reader.next_frame()? {
        let found = frame.events_of::<Event>(hash)?;
        sum = found
            .iter()
            .fold(sum, |sum, event| sum.wrapping_add(event.value));
        events += found.len() as u64;
    }
    let took = before.elapsed();
    if (events, sum) == (written.events, written.sum) {
        Ok(took)
    } else {
        Err(format!(
            "wrote {} events, read {events}; the sums differ or not",
            written.events
        )
        .into())
    }
}

fn rate(count: u64, took: Duration) -> Reading {
    Reading::rate(count, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

//! An event, frames of it, and a log to compare with.

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{
    Background, Frame, FrameHeader, From, Journal, OpenError, Options, Reached, ReadError, Reader,
    Recovered, WriteError,
};

/// An event of the tests: 64 bytes that tell their own position and history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Event {
    pub(crate) time_ns: u64,
    pub(crate) position: u64,
    pub(crate) branch: u64,
    pub(crate) kind: u32,
    pub(crate) side: u8,
    pub(crate) symbol: [u8; 3],
    pub(crate) price: i64,
    pub(crate) fill: [u64; 2],
    pub(crate) check: u64,
}

lockstep_journaler::schema! {
    /// What the tests write.
    pub(crate) EVENTS: "test.events" version 1 for Event, kind by kind;
    header { time_ns: time; position: plain; branch: plain; kind: plain; }
    1 = "order" as Event {
        side: enumeration { buy = 1, sell = 2 };
        symbol: chars;
        price: decimal(4);
        fill: plain;
        check: plain;
    }
}

/// The event at a position, in one of several histories.
pub(crate) fn event(position: u64, branch: u64) -> Event {
    let mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ branch.rotate_left(32);
    Event {
        time_ns: 1_000 + position,
        position,
        branch,
        kind: 1,
        side: 1 + (position % 2) as u8,
        symbol: *b"ABC",
        price: (position as i64 - 50) * 12_345,
        fill: [mixed, mixed.rotate_left(17)],
        check: mixed.wrapping_mul(31),
    }
}

/// Options that make everything small, fast and repeatable.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 32 << 10,
        max_write_bytes: 4 << 10,
        prepare_chunk_bytes: 16 << 10,
        background: Background::Stepped,
        log_id: Some([0x11; 16]),
        journal_id: Some([0x22; 16]),
        ..Options::new(&EVENTS)
    }
}

/// A log in memory: what was submitted, frame by frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) frames: Vec<(FrameHeader, Vec<u8>)>,
}

impl Log {
    pub(crate) fn reached(&self) -> Reached {
        let position = self
            .frames
            .last()
            .map_or(lockstep_journaler::Position(0), |(header, _)| {
                header.end().unwrap()
            });
        Reached {
            position,
            frames: self.frames.len() as u64,
        }
    }
}

/// Writes a group with frames of so many events each, and notes it.
pub(crate) fn write_group<S: Storage>(
    journal: &mut Journal<S>,
    log: &mut Log,
    counts: &[u32],
    branch: u64,
) -> Result<Reached, WriteError> {
    let mut cutter = journal.cutter();
    let mut frames: Vec<(FrameHeader, Vec<u8>)> = Vec::new();
    for &count in counts {
        let from = cutter.tail().reached.position.0;
        let events: Vec<Event> = (from..from + u64::from(count))
            .map(|at| event(at, branch))
            .collect();
        let body: Vec<u8> = bytemuck::cast_slice(&events).to_vec();
        let header = cutter.cut([&body, &[]], 1_000 + from);
        frames.push((header, body));
    }
    let group: Vec<Frame<'_>> = frames
        .iter()
        .map(|(header, body)| {
            let half = body.len() / 128 * 64;
            let (first, second) = body.split_at(half);
            Frame {
                header,
                body: [first, second],
            }
        })
        .collect();
    let outcome = journal.write(&group);
    // Also after a failure: the bytes may be on the disk, and only these.
    if !matches!(
        outcome,
        Err(WriteError::Refused(_) | WriteError::Full { .. })
    ) {
        log.frames.extend(frames);
    }
    outcome
}

pub(crate) fn open<S: Storage>(
    storage: &S,
    options: &Options,
) -> Result<(Journal<S>, Recovered), OpenError> {
    Journal::open(storage.clone(), options)
}

/// Everything that a reader gives, to the durable end.
pub(crate) fn read_all<S: Storage>(mut reader: Reader<S>) -> Result<Log, ReadError> {
    let mut log = Log::default();
    while let Some(frame) = reader.next_frame()? {
        log.frames.push((*frame.header(), frame.body().to_vec()));
    }
    Ok(log)
}

pub(crate) fn read_journal<S: Storage>(journal: &Journal<S>) -> Result<Log, ReadError> {
    read_all(journal.reader(From::Oldest)?)
}

/// One group after another, each durable.
pub(crate) fn write_durable<S: Storage>(
    journal: &mut Journal<S>,
    log: &mut Log,
    groups: u32,
    events: u32,
) {
    for _ in 0..groups {
        write_group(journal, log, &[events], 0).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
}

/// A small seeded generator: splitmix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// A directory of a test, gone when the test is.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let name = format!("lockstep-journal-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! What a log has to do here, and who does it.

use std::path::Path;

use lockstep_journaler::schema::Described;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{From, Mode, Options, Reader};

use crate::event::{EVENTS, Event, RING, ring};
use crate::okay::Okay;
use crate::ours::{Engine, Ours, still};
use crate::raft::{Files, Raft};
use crate::rounds::Outcome;

/// A log of groups of events.
pub(crate) trait Contender {
    /// The next so many events of the ring as one group, durable when it returns.
    fn append(&mut self, events: usize) -> Outcome<()>;

    /// As `append`, where it can without making anything durable: to have something to read.
    fn write(&mut self, events: usize) -> Outcome<()> {
        self.append(events)
    }
}

/// All of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    OursSync,
    OursDirect,
    RaftEngine,
    RaftEnginePrefilled,
    OkayWal,
}

impl Who {
    pub(crate) const ALL: [Who; 5] = [
        Who::OursSync,
        Who::OursDirect,
        Who::RaftEngine,
        Who::RaftEnginePrefilled,
        Who::OkayWal,
    ];

    /// Against whom the peers are held.
    pub(crate) const OURS: Who = Who::OursSync;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Who::OursSync => "lockstep sync",
            Who::OursDirect => "lockstep direct",
            Who::RaftEngine => "raft-engine",
            Who::RaftEnginePrefilled => "raft-engine prefilled",
            Who::OkayWal => "okaywal",
        }
    }

    /// A new log in this empty directory, with room for so many bytes.
    pub(crate) fn create(self, directory: &Path, bytes: u64) -> Outcome<Box<dyn Contender>> {
        let ours = |engine| -> Outcome<Box<dyn Contender>> {
            let segment = bytes.next_multiple_of(1 << 20);
            Ok(Box::new(Ours::create(directory, &still(engine, segment))?))
        };
        match self {
            Who::OursSync => ours(Engine::Sync),
            Who::OursDirect => ours(Engine::Direct),
            Who::RaftEngine => Ok(Box::new(Raft::create(directory, Files::Allocated, bytes)?)),
            Who::RaftEnginePrefilled => {
                Ok(Box::new(Raft::create(directory, Files::Prefilled, bytes)?))
            }
            Who::OkayWal => Ok(Box::new(Okay::create(directory, bytes)?)),
        }
    }

    /// As `create`, for a log that is only written to be read; `None` for one that reads as another.
    pub(crate) fn create_to_read(
        self,
        directory: &Path,
        bytes: u64,
    ) -> Outcome<Option<Box<dyn Contender>>> {
        match self {
            Who::OursSync => {
                let mut options = Options::new(&EVENTS)
                    .with_mode(Mode::Async {
                        max_unsynced_bytes: 64 << 20,
                        interval: std::time::Duration::from_secs(1),
                    })
                    .with_segment_bytes((bytes / 4).next_multiple_of(4096));
                options.prepare_pause = std::time::Duration::ZERO;
                options.prepare_chunk_bytes = 1 << 20;
                Ok(Some(Box::new(Ours::create(directory, &options)?)))
            }
            Who::RaftEngine | Who::OkayWal => self.create(directory, bytes).map(Some),
            Who::OursDirect | Who::RaftEnginePrefilled => Ok(None),
        }
    }

    /// How long reading everything back took, and what the values of all events add up to.
    pub(crate) fn read(self, directory: &Path) -> Outcome<Read> {
        match self {
            Who::OursSync | Who::OursDirect => read_ours(directory),
            Who::RaftEngine | Who::RaftEnginePrefilled => crate::raft::read(directory),
            Who::OkayWal => crate::okay::read(directory),
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Read {
    pub(crate) events: u64,
    pub(crate) sum: u64,
}

impl Read {
    pub(crate) fn add(&mut self, events: &[Event]) {
        self.events += events.len() as u64;
        self.sum = events
            .iter()
            .fold(self.sum, |sum, event| sum.wrapping_add(event.value));
    }
}

impl Read {
    /// Events as bytes at any address.
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        let events = bytes.chunks_exact(size_of::<Event>());
        self.events += events.len() as u64;
        self.sum = events
            .map(bytemuck::pod_read_unaligned::<Event>)
            .fold(self.sum, |sum, event| sum.wrapping_add(event.value));
    }
}

/// The events that peers append: the same ring as ours, each group one run of bytes.
pub(crate) struct Source {
    ring: Vec<Event>,
    next: usize,
}

impl Source {
    pub(crate) fn new() -> Source {
        Source {
            ring: ring(),
            next: 0,
        }
    }

    /// The next so many events, in two slices where the ring wraps.
    pub(crate) fn take(&mut self, events: usize) -> [&[u8]; 2] {
        let (from, end) = (self.next, self.next + events);
        self.next = end % RING;
        let taken: [&[Event]; 2] = if end <= RING {
            [&self.ring[from..end], &[]]
        } else {
            [&self.ring[from..], &self.ring[..end - RING]]
        };
        taken.map(bytemuck::cast_slice)
    }
}

impl Contender for Ours {
    fn append(&mut self, events: usize) -> Outcome<()> {
        Ours::append(self, events)
    }

    fn write(&mut self, events: usize) -> Outcome<()> {
        Ours::write(self, events)
    }
}

fn read_ours(directory: &Path) -> Outcome<Read> {
    let hash = Event::schema_hash();
    let mut reader = Reader::open(Disk::at(directory)?, From::Oldest)?;
    let mut read = Read::default();
    while let Some(frame) = reader.next_frame()? {
        read.add(frame.events_of::<Event>(hash)?);
    }
    Ok(read)
}

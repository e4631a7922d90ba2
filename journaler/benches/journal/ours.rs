//! A journal as the journal stage uses it alone: what waits is cut into one frame, which is one group.

use std::path::Path;
use std::time::Instant;

use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Counters, Cutter, Frame, Journal, Mode, Options};

use crate::event::{EVENT_BYTES, EVENTS, Event, RING, ring};
use crate::rounds::Outcome;

/// How a write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sync,
    Direct,
}

impl Engine {
    pub(crate) const BOTH: [Engine; 2] = [Engine::Sync, Engine::Direct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Sync => "sync",
            Engine::Direct => "direct",
        }
    }

    /// The calls that it cannot do without.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Engine::Sync => "pwrite + fdatasync",
            Engine::Direct => "O_DIRECT RWF_DSYNC",
        }
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Engine::Sync => Mode::Sync,
            Engine::Direct => Mode::Direct,
        }
    }
}

/// A journal that is written.
pub(crate) struct Ours {
    journal: Journal<Disk>,
    cutter: Cutter,
    ring: Vec<Event>,
    next: usize,
    began: Instant,
}

/// Bytes that a group of so many events takes in a file: mark, header, events.
pub(crate) fn group_bytes(events: usize) -> usize {
    128 + events * EVENT_BYTES
}

/// The most events of a group: the longest write of the default options.
pub(crate) const GROUP_MOST: usize = RING - 1;

impl Ours {
    pub(crate) fn create(directory: &Path, options: &Options) -> Outcome<Ours> {
        let (journal, _) = Journal::open(Disk::at(directory)?, options)?;
        Ok(Ours {
            cutter: journal.cutter(),
            journal,
            ring: ring(),
            next: 0,
            began: Instant::now(),
        })
    }

    /// Cuts the next events of the ring into a frame, writes it.
    pub(crate) fn write(&mut self, events: usize) -> Outcome<()> {
        let end = self.next + events;
        let body = if end <= RING {
            [&self.ring[self.next..end], &[]]
        } else {
            [&self.ring[self.next..], &self.ring[..end - RING]]
        };
        let body: [&[u8]; 2] = body.map(bytemuck::cast_slice);
        self.next = end % RING;
        let time_ns = u64::try_from(self.began.elapsed().as_nanos())?;
        let header = self.cutter.cut(body, time_ns);
        self.journal.write(&[Frame {
            header: &header,
            body,
        }])?;
        Ok(())
    }

    /// The same, durable.
    pub(crate) fn append(&mut self, events: usize) -> Outcome<()> {
        self.write(events)?;
        self.journal.sync()?;
        Ok(())
    }

    pub(crate) fn counters(&self) -> Counters {
        self.journal.counters()
    }

    pub(crate) fn is_prepared(&self) -> bool {
        self.journal.health().spares > 0
    }

    pub(crate) fn close(self) -> Outcome<()> {
        Ok(self.journal.close()?)
    }
}

/// The defaults, with segments large enough for a run and nothing built beside it: rolling is
/// another work's question.
pub(crate) fn still(engine: Engine, segment_bytes: u64) -> Options {
    let mut options = Options::new(&EVENTS).with_mode(engine.mode());
    options.segment_bytes = segment_bytes;
    options.spares = 0;
    options
}

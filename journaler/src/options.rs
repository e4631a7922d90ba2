//! What can be chosen of a journal, with the reasons for the defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::OptionError;
use crate::frame::HEADER_BYTES;
use crate::position::Position;
use crate::schema::Schema;
use crate::segment::{BLOCK, Identity, Tail, data_start};

/// What a journal promises of what it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: no file. `durable` stays where it began.
    None,
    /// Written; synced by the journal itself when so many bytes or so much time have
    /// gathered. A crash loses at most that.
    Async {
        /// Sync at the latest behind so many bytes.
        max_unsynced_bytes: u64,
        /// Sync at the latest after this time.
        interval: Duration,
    },
    /// Durable here, by `pwritev` and `fdatasync`.
    Sync,
    /// Durable here, past the page cache: `O_DIRECT` and `RWF_DSYNC`.
    Direct,
}

impl Mode {
    /// Its word on the command line and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Async { .. } => "async",
            Mode::Sync => "sync",
            Mode::Direct => "direct",
        }
    }

    pub(crate) fn number(&self) -> u8 {
        match self {
            Mode::None => 0,
            Mode::Async { .. } => 1,
            Mode::Sync => 2,
            Mode::Direct => 3,
        }
    }
}

/// How much of the sealed segments is read again when a journal is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Headers and footers; the newest segment wholly, always.
    Tail,
    /// Every frame from the segment with this position on: from the last snapshot.
    Since(Position),
    /// Every frame.
    Full,
}

/// Who does what is done ahead: zeroed segments, seals, the durable hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// A thread of the journal's own.
    Thread,
    /// The owner, by [`Journal::step_background`](crate::Journal::step_background): simulations.
    Stepped,
}

/// Whether there must be a journal already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Opened if there, created if not.
    Either,
    /// Opened, never created.
    Required,
    /// Created, never opened.
    Refused,
}

/// How to open a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The layout of the events.
    pub schema: Schema,
    /// Numbers of the kinds that are not the application's but of whoever keeps its journal: the engine's own.
    /// By default none. A journal whose schema has more or fewer of these is the same application's.
    pub own_kinds: &'static [RangeInclusive<u32>],
    /// The promise. Default `sync`: an unsafe default is a reputation.
    pub mode: Mode,
    /// Bytes of a segment file. Default 256 MiB: 4 million events, a roll every few seconds at most.
    pub segment_bytes: u64,
    /// The longest group. Default 4 MiB, where the bandwidth of disks has long levelled off.
    pub max_write_bytes: u64,
    /// Zeroed segments kept ready, beside the one that is next. Default 1.
    pub spares: u32,
    /// Bytes that the preparer writes between two pauses. Default 256 KiB.
    pub prepare_chunk_bytes: u64,
    /// How long it pauses. Default 2 ms: p99 of the appends beside it stays below twice the quiet one.
    pub prepare_pause: Duration,
    /// How often the durable hint is written. Default 100 ms.
    pub hint_interval: Duration,
    /// Who does the work ahead. Default a thread.
    pub background: Background,
    /// What is read again at open. Default the tail.
    pub verify: Verify,
    /// Whether there must be a journal. Default either.
    pub existing: Existing,
    /// What is written goes into a new segment, and the newest one is sealed as it is: for an archive,
    /// which takes sealed ones only. Default no.
    pub seals_newest: bool,
    /// Promise durability on a file system that forgets, and know it.
    pub allow_volatile_medium: bool,
    /// What whoever opens knows to have been acknowledged: evidence.
    pub known_durable: Position,
    /// The log's identity, where a journal is created; random by default. Equal on all nodes.
    pub log_id: Option<Identity>,
    /// This copy's identity, where a journal is created; random by default.
    pub journal_id: Option<Identity>,
    /// What the first frame continues, where a journal is created: behind an installed snapshot.
    pub start: Tail,
    /// Code changed on purpose, for the campaign that must notice.
    #[doc(hidden)]
    pub mutations: Mutations,
}

/// Ways to break the journal, one at a time, so that the crash campaign can prove that it sees them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mutations {
    /// Names are never made durable.
    pub no_directory_sync: bool,
    /// The promise moves with the write.
    pub acknowledge_before_sync: bool,
    /// A walk does not look at chains.
    pub no_chain: bool,
    /// A failed sync is tried again, and believed.
    pub retry_failed_sync: bool,
    /// A frame behind a bad one is taken for evidence, as a mark is.
    pub frames_are_evidence: bool,
    /// A torn tail is not zeroed.
    pub no_zeroing: bool,
    /// What an opening reads is taken for durable, though a sync may have failed before.
    pub trust_the_cache: bool,
    /// A cut is done without having been decided durably.
    pub cut_without_intent: bool,
}

impl Options {
    /// The defaults, for events of this layout.
    #[must_use]
    pub fn new(schema: &Schema) -> Options {
        Options {
            schema: schema.clone(),
            own_kinds: &[],
            mode: Mode::Sync,
            segment_bytes: 256 << 20,
            max_write_bytes: 4 << 20,
            spares: 1,
            prepare_chunk_bytes: 256 << 10,
            prepare_pause: Duration::from_millis(2),
            hint_interval: Duration::from_millis(100),
            background: Background::Thread,
            verify: Verify::Tail,
            existing: Existing::Either,
            seals_newest: false,
            allow_volatile_medium: false,
            known_durable: Position(0),
            log_id: None,
            journal_id: None,
            start: Tail::default(),
            mutations: Mutations::default(),
        }
    }

    /// The same with segments of this size, and writes that fit them.
    #[must_use]
    pub fn with_segment_bytes(self, segment_bytes: u64) -> Options {
        let max_write_bytes = self.max_write_bytes.min(segment_bytes / 8).max(4096);
        Options {
            segment_bytes,
            max_write_bytes,
            ..self
        }
    }

    /// The same with another promise.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Options {
        Options { mode, ..self }
    }

    /// Bytes that can be in flight behind the last durable one.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        let group = self.max_write_bytes + HEADER_BYTES as u64;
        match self.mode {
            Mode::Async {
                max_unsynced_bytes, ..
            } => max_unsynced_bytes + group,
            Mode::None | Mode::Sync | Mode::Direct => group,
        }
    }

    /// The descriptor's bytes, if everything fits together.
    pub(crate) fn checked(&self) -> Result<Vec<u8>, OptionError> {
        let schema = self.schema.encode()?;
        let overhead = data_start(schema.len() as u64) + BLOCK;
        let min_write =
            2 * HEADER_BYTES as u64 + u64::from(self.schema.event_size).next_multiple_of(64);
        let min = (overhead + 4 * min_write).next_multiple_of(BLOCK);
        if !self.segment_bytes.is_multiple_of(BLOCK)
            || !(min..=1 << 32).contains(&self.segment_bytes)
        {
            return Err(OptionError::SegmentBytes {
                found: self.segment_bytes,
                min,
            });
        }
        let max = ((self.segment_bytes - overhead) / 2).min(64 << 20);
        if !(min_write..=max).contains(&self.max_write_bytes) {
            let found = self.max_write_bytes;
            return Err(OptionError::MaxWriteBytes {
                found,
                min: min_write,
                max,
            });
        }
        if let Mode::Async {
            max_unsynced_bytes: bytes,
            interval,
        } = self.mode
            && (bytes < self.max_write_bytes || interval.is_zero())
        {
            let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
            return Err(OptionError::Async { bytes, interval_ns });
        }
        Ok(schema)
    }
}

//! The journal as the engine uses it: one frame for what waits, and replay.
//!
//! The only file of the engine that knows frames.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{
    Background, Cutter, Frame, FrameRef, From, Journal, Mode, Options, Position, Reached, Reader,
    Schema, WriteError,
};

use crate::config::{Config, JournalMode};
use crate::core::{Core, Scratch, StepError};
use crate::error::{Error, Result, panic_text};
use crate::event::{SYSTEM_KINDS, Slot};
use crate::logic::{EventOf, Logic, OutputOf};

/// Bytes of a frame's header and of a group's mark.
const OVERHEAD_BYTES: u64 = 128;

/// The journal, with what cuts its frames.
pub(crate) struct Log<S: Storage> {
    journal: Journal<S>,
    cutter: Cutter,
    frame_events_max: usize,
    mode: Mode,
    /// Whether nobody else does the work ahead.
    is_stepped: bool,
}

impl<S: Storage> fmt::Debug for Log<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("cutter", &self.cutter)
            .finish_non_exhaustive()
    }
}

/// Why a frame was not appended.
pub(crate) enum AppendError {
    /// No room; nothing was written, try again.
    Full(String),
    /// The journal is done for.
    Failed(String),
}

/// The journal's options by the engine's configuration.
pub(crate) fn options(config: &Config, schema: &Schema) -> Options {
    let mode = match config.journal {
        JournalMode::None => Mode::None,
        JournalMode::Async => Mode::Async {
            max_unsynced_bytes: 16 << 20,
            interval: Duration::from_millis(100),
        },
        JournalMode::Sync => Mode::Sync,
        JournalMode::Direct => Mode::Direct,
    };
    let options = Options::new(schema)
        .with_segment_bytes(config.segment_bytes)
        .with_mode(mode);
    Options {
        allow_volatile_medium: config.allow_volatile,
        own_kinds: crate::system::OWN_KINDS,
        ..options
    }
}

impl<S: Storage> Log<S> {
    pub(crate) fn new(journal: Journal<S>, options: &Options) -> Self {
        let room = options.max_write_bytes - OVERHEAD_BYTES;
        let most = room / u64::from(options.schema.event_size);
        let frame_events_max = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            cutter: journal.cutter(),
            journal,
            frame_events_max,
            mode: options.mode,
            is_stepped: options.background == Background::Stepped,
        }
    }

    /// The most events of one frame: one write.
    pub(crate) fn frame_events_max(&self) -> usize {
        self.frame_events_max
    }

    /// One frame of these events, written and, as the mode says, durable.
    pub(crate) fn append(&mut self, body: [&[u8]; 2], time_ns: u64) -> Result<(), AppendError> {
        let mut cutter = self.cutter;
        let header = cutter.cut(body, time_ns);
        self.journal
            .write(&[Frame {
                header: &header,
                body,
            }])
            .map_err(|error| match error {
                WriteError::Full { .. } => AppendError::Full(error.to_string()),
                other => AppendError::Failed(other.to_string()),
            })?;
        self.cutter = cutter;
        if self.mode == Mode::Sync {
            self.journal
                .sync()
                .map_err(|error| AppendError::Failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Nothing waits: what was promised by time is kept, and what no thread does ahead is done.
    pub(crate) fn idle(&mut self) -> Result<(), String> {
        if self.is_stepped {
            let _pace = self.journal.step_background();
        }
        if matches!(self.mode, Mode::Async { .. }) {
            self.journal
                .sync_if_due()
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.journal.counters().syncs
    }

    pub(crate) fn last_sync_ns(&self) -> u64 {
        self.journal.counters().last_sync_ns
    }

    /// Everything is durable and closed in order.
    pub(crate) fn close(mut self) -> Result<(), String> {
        self.journal.sync().map_err(|error| error.to_string())?;
        self.journal.close().map_err(|error| error.to_string())
    }
}

/// Why a replay ended before its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The logic panicked at the next event; the state is not to be used.
    Panicked {
        is_validating: bool,
        kind: u16,
        text: String,
    },
    Failed(Error),
}

impl<E: Into<Error>> std::convert::From<E> for Broken {
    fn from(error: E) -> Self {
        Broken::Failed(error.into())
    }
}

/// Runs the journal's events through a state, up to `until` or to its durable end, and hands
/// on what comes out. `is_refused` refuses an event on which `validate` panics.
pub(crate) fn replay<L: Logic, S: Storage>(
    reader: &mut Reader<S>,
    core: &mut Core<L>,
    scratch: &mut Scratch<L::Out>,
    until: Position,
    refuses_panics: bool,
    on_output: &mut dyn FnMut(&OutputOf<L>),
) -> Result<(), Broken> {
    // Ends: at `until`, or where the reader does.
    while core.position() < until {
        let Some(frame) = reader.next_frame().map_err(Error::from)? else {
            return Ok(());
        };
        replay_frame(&frame, core, scratch, until, refuses_panics, on_output)
            .map_err(|broken| named(broken, reader))?;
    }
    Ok(())
}

/// An event of the engine's own that this build does not know has its name in the schema of its segment (`SY2`).
fn named<S: Storage>(mut broken: Broken, reader: &mut Reader<S>) -> Broken {
    if let Broken::Failed(Error::Step(StepError::Unknown { source, .. })) = &mut broken
        && source.kind >= SYSTEM_KINDS
        && let Ok(schema) = reader.schema()
        && let Some(kind) = schema.kind(u32::from(source.kind))
    {
        source.name = kind.name.to_string();
    }
    broken
}

/// The same for one frame.
pub(crate) fn replay_frame<L: Logic>(
    frame: &FrameRef<'_>,
    core: &mut Core<L>,
    scratch: &mut Scratch<L::Out>,
    until: Position,
    refuses_panics: bool,
    on_output: &mut dyn FnMut(&OutputOf<L>),
) -> Result<(), Broken> {
    let events = events_of::<EventOf<L>>(frame)?;
    // What lies before the state is in it.
    let known = core
        .position()
        .0
        .saturating_sub(frame.header().first_position);
    let left = until.0.saturating_sub(frame.header().first_position);
    let end = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(events.len());
    let mut at = usize::try_from(known).unwrap_or(usize::MAX).min(end);
    // Ends: each turn steps over an event, or returns.
    while at < end {
        let mut out = scratch.outputs();
        let done = &mut at;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            for event in &events[*done..end] {
                core.step(event, &mut out)?;
                if out.used() != 0 {
                    out.written().for_each(&mut *on_output);
                    out.rewind();
                }
                *done += 1;
            }
            Ok::<_, crate::core::StepError>(())
        }));
        match ran {
            Ok(stepped) => stepped.map_err(Error::from)?,
            Err(_) if core.was_validating() && refuses_panics => {
                out.take_back();
                core.step_refused(&events[at], &mut out)
                    .map_err(Error::from)?;
                out.written().for_each(&mut *on_output);
                at += 1;
            }
            Err(panic) => {
                return Err(Broken::Panicked {
                    is_validating: core.was_validating(),
                    kind: events[at].header().kind,
                    text: panic_text(panic.as_ref()),
                });
            }
        }
    }
    Ok(())
}

/// All events of a frame where they are, whatever the version of their schema.
pub(crate) fn events_of<'r, E: Slot>(frame: &FrameRef<'r>) -> Result<&'r [E]> {
    let other = || Error::EventSize {
        expected: size_of::<E>(),
        found: frame.event_size(),
    };
    if usize::try_from(frame.event_size()).ok() != Some(size_of::<E>()) {
        return Err(other());
    }
    bytemuck::try_cast_slice(frame.body()).map_err(|_| other())
}

/// The position of the oldest event that is in the journal by now; `otherwise` if it has none.
pub(crate) fn oldest<S: Storage>(reader: &mut Reader<S>, otherwise: Position) -> Result<Position> {
    reader.seek(From::Oldest)?;
    let first = reader.next_frame()?;
    Ok(first.map_or(otherwise, |frame| Position(frame.header().first_position)))
}

/// The chain behind so many frames, if they end there in the log. Frames without events, of which a
/// cluster's log has some, share their position with others: only the count tells them apart.
pub(crate) fn chain_at<S: Storage>(
    reader: &mut Reader<S>,
    reached: Reached,
    end: &lockstep_journaler::Tail,
) -> Option<u32> {
    if reached == end.reached {
        return Some(end.chain);
    }
    reader.seek(From::Frame(reached.frames)).ok()?;
    let frame = reader.next_frame().ok()??;
    let header = frame.header();
    (header.first_position == reached.position.0).then_some(header.chain)
}

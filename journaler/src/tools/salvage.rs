//! Copying what holds into a new journal.
//!
//! ```text
//!  damaged    ├ 0..40 ┤ ░░ lost 40..52 ░░ ├ 52..120 ┤
//!  salvaged   ├ 0..40 ┤ gap: commit = 52  ├ 52..120 ┤     positions stay, nothing is renumbered
//! ```
//!
//! Where events are lost the new journal has a frame of the kind *gap*, so that
//! nobody who reads it can overlook it. Frames behind the first gap get a new
//! header, since theirs continues a frame that is gone; their events, times,
//! terms and numbers are what they were. A salvaged journal has an identity of
//! its own: it is evidence and a source for replay, not a member of a cluster.
//!
//! # Invariants
//!
//! * `SA1` The damaged journal is not changed.
//! * `SA2` Every frame of the new journal held in the old one, with its events, at its position.

use std::time::Duration;

use crate::frame::{Frame, FrameDraft, FrameHeader, FrameKind, HEADER_BYTES};
use crate::options::{Existing, Mode, Options};
use crate::position::{Position, Term};
use crate::scan::{Bytes, Window};
use crate::schema::Schema;
use crate::segment::SegmentHeader;
use crate::storage::{Open, Storage};
use crate::{Cutter, Journal};

use super::survey::{Seen, survey};
use super::{Catalog, CatalogSegment, Progress, ToolError, failed};

/// What was salvaged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Frames that were copied.
    pub frames: u64,
    /// Events in them.
    pub events: u64,
    /// What is lost: from the first position to that behind the last.
    pub gaps: Vec<(Position, Position)>,
    /// The first position of the new journal.
    pub from: Position,
    /// Behind its last.
    pub to: Position,
}

/// Copies everything that holds into `into`, where no journal may be.
///
/// # Errors
///
/// [`ToolError::Exists`], [`ToolError::NoJournal`], [`ToolError::Journal`], [`ToolError::Io`].
pub fn salvage<S: Storage, N: Storage>(
    journal: &S,
    into: &N,
    allow_volatile_medium: bool,
    progress: Progress<'_>,
) -> Result<Salvaged, ToolError> {
    let catalog = Catalog::of_journal(journal)?;
    if let Some(first) = Catalog::read(into)?.segments.first() {
        return Err(ToolError::Exists {
            name: first.id.file_name(),
        });
    }
    let mut copy = Copy {
        into,
        allow_volatile_medium,
        writing: None,
        salvaged: Salvaged::default(),
    };
    let all = catalog.bytes();
    let mut done = 0;
    for segment in &catalog.segments {
        if let (Ok(header), Some(schema)) = (&segment.header, schema_of(segment, &catalog)) {
            copy.segment(journal, segment, header, schema, &mut |at| {
                progress(done + at, all)
            })?;
        }
        done += segment.length;
        progress(done, all);
    }
    copy.finish()
}

/// The schema of a segment, from another of the same layout if its own does not hold.
fn schema_of<'a>(segment: &'a CatalogSegment, catalog: &'a Catalog) -> Option<&'a Schema> {
    let hash = segment.header.as_ref().ok()?.schema_hash;
    let same = |one: &&CatalogSegment| {
        one.header
            .as_ref()
            .is_ok_and(|header| header.schema_hash == hash)
    };
    let own = segment.schema.as_ref().ok();
    own.or_else(|| {
        catalog
            .segments
            .iter()
            .filter(same)
            .find_map(|one| one.schema.as_ref().ok())
    })
}

struct Copy<'a, N: Storage> {
    into: &'a N,
    allow_volatile_medium: bool,
    writing: Option<Writing<N>>,
    salvaged: Salvaged,
}

struct Writing<N: Storage> {
    journal: Journal<N>,
    cutter: Cutter,
    schema_hash: u64,
}

/// The new journal syncs by itself behind so many bytes: it is worth something only when it is
/// whole, and then it is closed.
const UNSYNCED_BYTES: u64 = 64 << 20;
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl<N: Storage> Copy<'_, N> {
    fn segment<S: Storage>(
        &mut self,
        journal: &S,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        schema: &Schema,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ToolError> {
        let name = segment.id.file_name();
        let file = journal
            .open(&name, Open::READ)
            .map_err(failed("opening", &name))?;
        let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 20));
        let limit = segment
            .footer
            .map_or(header.data_limit(), |footer| footer.data_end);
        self.open(header, schema)?;
        survey(header, &mut bytes, limit, &mut |seen, bytes| {
            let Seen::Frame { at, header: frame } = seen else {
                return Ok(());
            };
            progress(at);
            let length = usize::try_from(frame.body_bytes(header.event_size)).unwrap_or(0);
            let body = bytes
                .get(at + HEADER_BYTES as u64, length)
                .map_err(failed("reading", &name))?;
            self.frame(&frame, body)
        })
    }

    /// Opens the new journal, or opens it again for events of another layout.
    fn open(&mut self, header: &SegmentHeader, schema: &Schema) -> Result<(), ToolError> {
        if self
            .writing
            .as_ref()
            .is_some_and(|writing| writing.schema_hash == header.schema_hash)
        {
            return Ok(());
        }
        let mut options = Options::new(schema).with_segment_bytes(header.segment_bytes);
        options.max_write_bytes = (header.segment_bytes / 4).min(64 << 20);
        options.mode = Mode::Async {
            max_unsynced_bytes: UNSYNCED_BYTES,
            interval: SYNC_INTERVAL,
        };
        options.allow_volatile_medium = self.allow_volatile_medium;
        // The segments were one journal: whichever kinds each of them lists, the copy is one.
        options.own_kinds = &[0..=u32::MAX];
        match self.writing.take() {
            Some(writing) => {
                writing
                    .journal
                    .close()
                    .map_err(|error| ToolError::Journal(error.into()))?;
                options.existing = Existing::Required;
            }
            None => {
                options.existing = Existing::Refused;
                options.start = header.tail_before();
                self.salvaged.from = options.start.reached.position;
                self.salvaged.to = self.salvaged.from;
            }
        }
        let (journal, _) = Journal::open(self.into.clone(), &options)
            .map_err(|error| ToolError::Journal(error.into()))?;
        let cutter = journal.cutter();
        self.writing = Some(Writing {
            journal,
            cutter,
            schema_hash: header.schema_hash,
        });
        Ok(())
    }

    fn frame(&mut self, frame: &FrameHeader, body: &[u8]) -> Result<(), ToolError> {
        let (from, expected) = (Position(frame.first_position), self.salvaged.to);
        if from < expected {
            return Ok(());
        }
        if from > expected {
            let draft = FrameDraft {
                commit: from,
                kind: FrameKind::Gap as u8,
                time_ns: frame.time_ns,
                ..draft_of(frame)
            };
            self.write(&draft, 0, &[])?;
            self.salvaged.gaps.push((expected, from));
        }
        self.write(&draft_of(frame), frame.count, body)?;
        self.salvaged.frames += 1;
        self.salvaged.events += u64::from(frame.count);
        self.salvaged.to = frame.end().unwrap_or(from);
        Ok(())
    }

    fn write(&mut self, draft: &FrameDraft, count: u32, body: &[u8]) -> Result<(), ToolError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let body = [body, &[][..]];
        let header = writing.cutter.seal(draft, count, body);
        let frame = Frame {
            header: &header,
            body,
        };
        writing
            .journal
            .write(&[frame])
            .map_err(|error| ToolError::Journal(error.into()))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Salvaged, ToolError> {
        match self.writing.take() {
            None => Err(ToolError::NoJournal),
            Some(writing) => {
                writing
                    .journal
                    .close()
                    .map_err(|error| ToolError::Journal(error.into()))?;
                Ok(self.salvaged)
            }
        }
    }
}

/// What a frame's writer said of it; position, CRC and chain follow from where it goes.
fn draft_of(frame: &FrameHeader) -> FrameDraft {
    FrameDraft {
        time_ns: frame.time_ns,
        term: Term(frame.term),
        index: frame.index,
        commit: Position(frame.commit),
        schema_version: frame.schema_version,
        kind: frame.kind,
        flags: frame.flags,
    }
}

//! Figures of a journal: how much there is of what, and how it was written.

use std::collections::BTreeMap;

use crate::position::Position;
use crate::scan::{Bytes, Window};
use crate::segment::SegmentHeader;
use crate::storage::{Open, Storage};

use super::survey::{Seen, survey};
use super::{Catalog, CatalogSegment, Progress, ToolError, failed};

/// Figures of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Segment files, the unused among them.
    pub segments: u64,
    /// Of them sealed.
    pub sealed: u64,
    /// Bytes of all segment files.
    pub file_bytes: u64,
    /// Bytes of marks, frames and padding.
    pub data_bytes: u64,
    /// Bytes of events.
    pub event_bytes: u64,
    /// Groups: each was one write, and in the modes `sync` and `direct` one sync.
    pub groups: u64,
    /// Frames.
    pub frames: u64,
    /// Events.
    pub events: u64,
    /// The first position there is.
    pub from: Position,
    /// Behind the last.
    pub to: Position,
    /// The time of the first frame.
    pub first_time_ns: u64,
    /// Of the last frame.
    pub last_time_ns: u64,
    /// How often the journal was opened and written to, as far as its marks show.
    pub openings: u64,
    /// Terms of the consensus that wrote frames.
    pub terms: u64,
    /// How many events each group holds: the number of groups by the power of two.
    pub events_in_group: BTreeMap<u64, u64>,
    /// How many bytes each group takes: the number of groups by the power of two.
    pub bytes_in_group: BTreeMap<u64, u64>,
    /// Events by kind, where the schema holds: number, name and how many.
    pub kinds: BTreeMap<u32, (String, u64)>,
    /// Places that do not hold and were stepped over; `verify` says what they mean.
    pub faults: u64,
}

/// Reads all frames and counts.
///
/// # Errors
///
/// [`ToolError::NoJournal`], [`ToolError::Io`]; faults are counted, not errors.
pub fn stats<S: Storage>(storage: &S, progress: Progress<'_>) -> Result<Stats, ToolError> {
    let catalog = Catalog::of_journal(storage)?;
    let mut counted = Counted::default();
    let all = catalog.bytes();
    let mut done = 0;
    for segment in &catalog.segments {
        counted.stats.segments += 1;
        counted.stats.sealed += u64::from(segment.footer.is_some());
        counted.stats.file_bytes += segment.length;
        if let Ok(header) = &segment.header {
            let before = done;
            counted.segment(storage, &catalog, segment, header, &mut |at| {
                progress(before + at, all)
            })?;
        }
        done += segment.length;
        progress(done, all);
    }
    Ok(counted.finish())
}

#[derive(Default)]
struct Counted {
    stats: Stats,
    group: Option<(u64, u64)>,
    last_epoch: Option<u32>,
    last_term: Option<u64>,
    is_begun: bool,
}

impl Counted {
    fn segment<S: Storage>(
        &mut self,
        storage: &S,
        catalog: &Catalog,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ToolError> {
        let name = segment.id.file_name();
        let file = storage
            .open(&name, Open::READ)
            .map_err(failed("opening", &name))?;
        let mut bytes = Bytes::Window(Window::tolerant(file, 1 << 20));
        survey(
            header,
            &mut bytes,
            catalog.limit_in(segment, header),
            &mut |seen, bytes| {
                self.see(&seen, header.event_size);
                if let Seen::Frame { at, header: frame } = &seen {
                    progress(*at);
                    if let Ok(schema) = &segment.schema {
                        let length =
                            usize::try_from(frame.body_bytes(header.event_size)).unwrap_or(0);
                        let body = bytes
                            .get(at + 64, length)
                            .map_err(failed("reading", &name))?;
                        self.kinds(body, schema);
                    }
                }
                Ok(())
            },
        )
    }

    fn see(&mut self, seen: &Seen, event_size: u32) {
        match seen {
            Seen::Mark { mark, .. } => {
                self.end_group();
                self.group = Some((0, 64 + mark.length));
                self.stats.groups += 1;
                self.stats.data_bytes += 64 + mark.length;
                if self.last_epoch != Some(mark.open_epoch) {
                    self.last_epoch = Some(mark.open_epoch);
                    self.stats.openings += 1;
                }
            }
            Seen::Frame { header, .. } => {
                let stats = &mut self.stats;
                stats.frames += 1;
                stats.events += u64::from(header.count);
                stats.event_bytes += header.body_bytes(event_size);
                if !self.is_begun {
                    self.is_begun = true;
                    stats.from = Position(header.first_position);
                    stats.first_time_ns = header.time_ns;
                }
                stats.to = header.end().unwrap_or(stats.to);
                stats.last_time_ns = header.time_ns;
                if self.last_term != Some(header.term) {
                    self.last_term = Some(header.term);
                    stats.terms += 1;
                }
                if let Some((events, _)) = &mut self.group {
                    *events += u64::from(header.count);
                }
            }
            Seen::Fault { .. } => self.stats.faults += 1,
            Seen::Resumed { .. } => {}
            Seen::End { .. } => self.end_group(),
        }
    }

    fn kinds(&mut self, body: &[u8], schema: &crate::schema::Schema) {
        for event in body.chunks_exact(schema.event_size as usize) {
            let Some(number) = schema.kind_number(event) else {
                continue;
            };
            let name = || {
                let kind = schema.kind(number);
                kind.map_or_else(|| "unknown".to_owned(), |kind| kind.name.to_string())
            };
            self.stats
                .kinds
                .entry(number)
                .or_insert_with(|| (name(), 0))
                .1 += 1;
        }
    }

    fn end_group(&mut self) {
        if let Some((events, bytes)) = self.group.take() {
            *self
                .stats
                .events_in_group
                .entry(power_of_two(events))
                .or_default() += 1;
            *self
                .stats
                .bytes_in_group
                .entry(power_of_two(bytes))
                .or_default() += 1;
        }
    }

    fn finish(self) -> Stats {
        self.stats
    }
}

/// The least power of two that is not less; 0 for 0.
fn power_of_two(number: u64) -> u64 {
    if number == 0 {
        0
    } else {
        number.checked_next_power_of_two().unwrap_or(u64::MAX)
    }
}

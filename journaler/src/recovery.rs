//! Opening after whatever happened: one decision table, from what is on the disk
//! to *keep*, *cut* or *refuse*.
//!
//! Everything is synced before it is read, so that nothing is decided on bytes
//! that are only in a cache. Then the segments are followed from the oldest to
//! the newest; at the first place X that does not hold:
//!
//! | found at X | evidence that X was durable | verdict |
//! |---|---|---|
//! | zeros to the end of the data area | none | **clean end** |
//! | zeros, junk, a bad CRC, an unreadable sector | any | **corrupt**: refused, nothing changed |
//! | junk, or valid frames, within what was in flight; zeros behind | none | **torn tail**: copied to `quarantine/`, zeroed durably, reported |
//! | junk beyond what was in flight | none | **corrupt** |
//! | any bad byte | the journal was closed cleanly | **corrupt** |
//! | a newest segment of zeros | none | legal: named ahead |
//! | a segment missing, a header of another journal or a newer format | – | **refused**, by its own name |
//!
//! Evidence is: the hint and the watermark in `journal.meta`, a clean close, a
//! snapshot, a later segment, a mark behind X whose `durable_at` lies behind X,
//! and what whoever opens knows to have been acknowledged. A valid *frame* behind X is
//! none: the sectors of X's own group land in any order.
//!
//! # Invariants
//!
//! * `RC1` A refusal changes nothing on the disk.
//! * `RC2` What was acknowledged under `sync` or `direct` is never cut: it lies before X or
//!   leaves evidence, but for the last group, damaged, within the hint's interval.
//! * `RC3` Opening again, also after a crash within, comes to the same log.

use std::io::IoSlice;

use crate::directory::{
    MetaFile, MetaFound, MetaSlot, QUARANTINE, Watermark, hex, random_identity, read_meta, segments,
};
use crate::error::{Corruption, Damage, Evidence, IoFault, OpenError, OptionError, Survivors};
use crate::frame::{FrameHeader, GroupMark, HEADER_BYTES};
use crate::index::SparseIndex;
use crate::options::{Existing, Mode, Options, Verify};
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::prepare::open_writable;
use crate::scan::{Bytes, Fault, Step, Survey, Walk, Window, find_mark, last_data, survey};
use crate::schema::Schema;
use crate::segment::{
    BLOCK, BLOCK_BYTES, BlockFault, FORMAT, Place, SegmentFooter, SegmentHeader, Summary, Tail,
    data_start, salt,
};
use crate::storage::{File, Open, Storage};

mod cut;

pub(crate) use cut::{CutPlan, finish_cut, plan_cut, read_index};

/// What opening found and did.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// How far the log goes.
    pub reached: Reached,
    /// The oldest position that is here.
    pub oldest: Position,
    /// How it ended.
    pub verdict: Verdict,
    /// Whether it had been closed in order.
    pub was_clean: bool,
    /// A cut that a crash had interrupted was finished.
    pub finished_cut: bool,
    /// Full segments that a crash had left without a footer: sealed again.
    pub resealed: Vec<SegmentId>,
    /// How often this journal has been opened, this time included.
    pub open_epoch: u32,
}

/// How the log ended.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// There was no journal: created.
    Created,
    /// Zeros behind the last group.
    CleanEnd,
    /// A write was under way: it is cut, copied and zeroed.
    TornTail(Torn),
}

/// A torn tail that was cut.
#[derive(Debug, Clone)]
pub struct Torn {
    /// Where it began.
    pub place: Place,
    /// The position that the log ends at.
    pub position: Position,
    /// From the first to the last byte that was not zero.
    pub bytes: u64,
    /// What did not hold first.
    pub fault: Option<Fault>,
    /// The copy.
    pub quarantine: String,
}

/// What the journal goes on with.
#[derive(Debug)]
pub(crate) struct Recovery<F> {
    pub(crate) recovered: Recovered,
    pub(crate) meta: MetaFile<F>,
    pub(crate) tail: Tail,
    pub(crate) active: Option<Content>,
    pub(crate) next_id: SegmentId,
    /// A segment of zeros with that name.
    pub(crate) has_blank: bool,
    pub(crate) unsealed: Vec<Content>,
}

/// A segment with what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) header: SegmentHeader,
    pub(crate) summary: Summary,
    pub(crate) index: SparseIndex,
}

/// Opens or creates what is in the directory. The caller holds the lock.
pub(crate) fn recover<S: Storage>(
    storage: &S,
    options: &Options,
) -> Result<Recovery<S::File>, OpenError> {
    let mut ids = segments(storage)?;
    sync_everything(storage, &ids, options)?;
    let slot = match read_meta(storage)? {
        MetaFound::Future(found) => {
            let file = crate::directory::META.to_owned();
            return Err(OpenError::Future {
                file,
                found,
                known: FORMAT,
            });
        }
        MetaFound::Slot(slot) if options.existing == Existing::Refused => {
            drop(slot);
            return Err(OpenError::Existence(
                "there is a journal here already; open it, or choose another directory",
            ));
        }
        MetaFound::Slot(slot) => slot,
        MetaFound::Missing if !ids.is_empty() => {
            let file = crate::directory::META.to_owned();
            return Err(OpenError::Missing {
                file,
                why: "there are segments",
            });
        }
        MetaFound::Damaged if !ids.is_empty() => return Err(damaged_meta(ids[0])),
        MetaFound::Missing | MetaFound::Damaged if options.existing == Existing::Required => {
            return Err(OpenError::Existence(
                "there is no journal here; choose its directory, or create one",
            ));
        }
        MetaFound::Missing | MetaFound::Damaged => return create(storage, options),
    };
    let mut meta = MetaFile::open(storage, *slot)?;
    let intent = slot.cut_intent();
    if let Some(intent) = intent {
        finish_cut(storage, &slot, &intent)?;
        ids.retain(|&id| id <= intent.segment);
    }
    let watermark = match intent {
        Some(_) => None,
        None => Watermark::read(&*meta.file())?.filter(|cell| cell.open_epoch == slot.open_epoch),
    };
    let known = Known {
        slot: &slot,
        watermark,
        snapshot: newest_snapshot(storage)?,
        options,
    };
    let mut judge = Judge {
        storage,
        known,
        tail: slot.start(),
        unsealed: Vec::new(),
    };
    let found = judge.follow(&ids)?;
    let (tail, unsealed) = (judge.tail, judge.unsealed);
    let torn = match &found.torn {
        Some(torn) => Some(cut_torn_tail(storage, options, &slot, torn)?),
        None => None,
    };
    for blank in &found.surplus {
        remove(storage, &blank.file_name())?;
    }
    settle(&mut meta, options, &tail, &found)?;
    let recovered = Recovered {
        reached: tail.reached,
        oldest: found.oldest,
        verdict: torn.map_or(Verdict::CleanEnd, Verdict::TornTail),
        was_clean: slot.is_clean(),
        finished_cut: intent.is_some(),
        resealed: unsealed
            .iter()
            .map(|content| SegmentId(content.header.segment_id))
            .collect(),
        open_epoch: meta.slot().open_epoch,
    };
    let (active, next_id, has_blank) = (found.active, found.next_id, found.has_blank);
    let mut recovery = Recovery {
        recovered,
        meta,
        tail,
        active,
        next_id,
        has_blank,
        unsealed,
    };
    recovery.switch_schema(options)?;
    Ok(recovery)
}

fn damaged_meta(first: SegmentId) -> OpenError {
    OpenError::Corrupt(Box::new(Corruption {
        place: Place {
            segment: first,
            offset: Offset(0),
        },
        position: Position(0),
        damage: Damage::Meta,
        evidence: Evidence::Structure,
        survives: None,
    }))
}

fn create<S: Storage>(storage: &S, options: &Options) -> Result<Recovery<S::File>, OpenError> {
    for directory in [crate::directory::POOL, QUARANTINE] {
        storage
            .create_dir(directory)
            .map_err(|error| IoFault::new("create", directory, error))?;
    }
    let log_id = options.log_id.unwrap_or_else(random_identity);
    let journal_id = options.journal_id.unwrap_or_else(random_identity);
    let mut slot = MetaSlot::new(log_id, journal_id);
    slot.open_epoch = 1;
    slot.window_bytes = options.window_bytes();
    slot.segment_bytes = options.segment_bytes;
    slot.schema_hash = options.schema.hash();
    slot.schema_version = options.schema.version;
    slot.event_size = options.schema.event_size;
    slot.set_start(&options.start);
    slot.set_durable(&crate::directory::DurableHint {
        reached: options.start.reached,
        chain: options.start.chain,
        ..Default::default()
    });
    let meta = MetaFile::create(storage, slot)?;
    if !options.mutations.no_directory_sync {
        storage
            .sync_directory("")
            .map_err(|error| IoFault::new("sync of directory", "", error))?;
    }
    let recovered = Recovered {
        reached: options.start.reached,
        oldest: options.start.reached.position,
        verdict: Verdict::Created,
        was_clean: false,
        finished_cut: false,
        resealed: Vec::new(),
        open_epoch: 1,
    };
    Ok(Recovery {
        recovered,
        meta,
        tail: options.start,
        active: None,
        next_id: SegmentId(0),
        has_blank: false,
        unsealed: Vec::new(),
    })
}

/// Decide nothing on bytes that are only in a cache.
fn sync_everything<S: Storage>(
    storage: &S,
    ids: &[SegmentId],
    options: &Options,
) -> Result<(), IoFault> {
    let names = ids.iter().map(|id| id.file_name());
    for name in names.chain([crate::directory::META.to_owned()]) {
        match storage.open(&name, Open::READ) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other
                .and_then(|file| file.sync_data())
                .map_err(|error| IoFault::new("sync", &name, error))?,
        }
    }
    if options.mutations.no_directory_sync {
        return Ok(());
    }
    storage
        .sync_directory("")
        .map_err(|error| IoFault::new("sync of directory", "", error))
}

/// The new opening, durably: epoch, window, schema, and the end that was found.
fn settle<F: File>(
    meta: &mut MetaFile<F>,
    options: &Options,
    tail: &Tail,
    found: &Followed,
) -> Result<(), IoFault> {
    let hint = crate::directory::DurableHint {
        reached: tail.reached,
        segment: match &found.active {
            Some(content) => SegmentId(content.header.segment_id),
            None => found.next_id,
        },
        offset: found
            .active
            .as_ref()
            .map_or(0, |content| content.summary.data_end),
        chain: tail.chain,
    };
    meta.update_both(|slot| {
        slot.open_epoch += 1;
        slot.set_clean(false);
        slot.set_cut_intent(None);
        slot.set_durable(&hint);
        slot.window_bytes = options.window_bytes();
        slot.segment_bytes = options.segment_bytes;
        slot.schema_hash = options.schema.hash();
        slot.schema_version = options.schema.version;
        slot.event_size = options.schema.event_size;
    })
}

impl<F> Recovery<F> {
    /// A new version of the schema starts a new segment; anything else that differs is refused.
    fn switch_schema(&mut self, options: &Options) -> Result<(), OpenError> {
        let Some(content) = &self.active else {
            return Ok(());
        };
        let (header, schema) = (&content.header, &options.schema);
        let hash = schema.hash();
        if header.schema_hash == hash && header.event_size == schema.event_size {
            return Ok(());
        }
        let mut name = [0; 64];
        let length = schema.name.len().min(64);
        name[..length].copy_from_slice(&schema.name.as_bytes()[..length]);
        if header.schema_name == name && schema.version > header.schema_version {
            self.unsealed.extend(self.active.take());
            return Ok(());
        }
        let found_name = String::from_utf8_lossy(&header.schema_name);
        Err(OpenError::Schema {
            expected_name: schema.name.to_string(),
            expected: schema.version,
            expected_hash: hash,
            found_name: found_name.trim_end_matches('\0').to_owned(),
            found: header.schema_version,
            found_hash: header.schema_hash,
        })
    }
}

/// Where the newest whole snapshot stands: one with a manifest.
fn newest_snapshot<S: Storage>(storage: &S) -> Result<Option<Position>, IoFault> {
    let entries = storage
        .list("snap")
        .map_err(|error| IoFault::new("list", "snap", error))?;
    for entry in entries.iter().rev().filter(|entry| entry.is_directory) {
        let Ok(position) = entry.name.parse::<u64>() else {
            continue;
        };
        let directory = format!("snap/{}", entry.name);
        let files = storage
            .list(&directory)
            .map_err(|error| IoFault::new("list", &directory, error))?;
        if files.iter().any(|file| file.name == "MANIFEST") {
            return Ok(Some(Position(position)));
        }
    }
    Ok(None)
}

/// What is known beside the segments.
struct Known<'a> {
    slot: &'a MetaSlot,
    watermark: Option<Watermark>,
    snapshot: Option<Position>,
    options: &'a Options,
}

/// What the segments led to.
struct Followed {
    oldest: Position,
    active: Option<Content>,
    next_id: SegmentId,
    has_blank: bool,
    torn: Option<TornPlan>,
    surplus: Vec<SegmentId>,
}

/// A torn tail that is to be cut.
struct TornPlan {
    segment: SegmentId,
    from: u64,
    to: u64,
    position: Position,
    fault: Option<Fault>,
}

/// Follows the segments, oldest first, and gives the verdict.
struct Judge<'a, S> {
    storage: &'a S,
    known: Known<'a>,
    tail: Tail,
    unsealed: Vec<Content>,
}

/// A place X that is to be judged.
struct Suspect {
    segment: SegmentId,
    /// The first byte of the group, or of the segment, that does not hold.
    from: u64,
    /// Where what does not hold was found.
    at: u64,
    salt: u32,
    window: u64,
    limit: u64,
    damage: Damage,
    fault: Option<Fault>,
}

impl<S: Storage> Judge<'_, S> {
    fn follow(&mut self, ids: &[SegmentId]) -> Result<Followed, OpenError> {
        self.check_ids(ids)?;
        let mut followed = Followed {
            oldest: self.tail.reached.position,
            active: None,
            next_id: self.known.slot.first_segment(),
            has_blank: false,
            torn: None,
            surplus: Vec::new(),
        };
        for (at, &id) in ids.iter().enumerate() {
            let mut bytes = self.bytes(id)?;
            let header = match self.header(id, &mut bytes)? {
                Ok(header) => header,
                Err(damage) => {
                    self.headless(id, &ids[at + 1..], damage, &mut bytes, &mut followed)?;
                    self.expect_nothing_more()?;
                    return Ok(followed);
                }
            };
            if at == 0 && id > SegmentId(0) {
                self.tail = header.tail_before();
            }
            if at == 0 {
                followed.oldest = self.tail.reached.position;
            }
            self.check_continues(&header)?;
            let next = self.next_begun(ids.get(at + 1).copied())?;
            followed.next_id = id.next();
            self.segment(header, next, &mut bytes, &mut followed)?;
        }
        self.expect_nothing_more()?;
        Ok(followed)
    }

    fn check_ids(&self, ids: &[SegmentId]) -> Result<(), OpenError> {
        let slot = self.known.slot;
        let missing = |id: SegmentId, why| {
            Err(OpenError::Missing {
                file: id.file_name(),
                why,
            })
        };
        let hint = slot.durable();
        // A hint at offset 0 speaks of the segments before, and that one may not exist yet.
        let last_needed = SegmentId(if hint.offset > 0 {
            hint.segment.0
        } else {
            hint.segment.0.saturating_sub(1)
        });
        let needed = (hint.reached.frames > slot.start().reached.frames).then_some(last_needed);
        match (ids.first(), ids.last()) {
            (Some(&first), _) if first > slot.first_segment() => {
                return missing(
                    slot.first_segment(),
                    "journal.meta says that the log begins there",
                );
            }
            (_, Some(&last)) if needed.is_some_and(|needed| last < needed) => {
                return missing(
                    last.next(),
                    "journal.meta says that a later one was durable",
                );
            }
            (None, _) if needed.is_some() => {
                return missing(
                    slot.first_segment(),
                    "journal.meta says that the log goes further",
                );
            }
            _ => {}
        }
        match ids.windows(2).find(|pair| pair[1] != pair[0].next()) {
            Some(pair) => missing(pair[0].next(), "there are segments on both sides of it"),
            None => Ok(()),
        }
    }

    fn bytes(&self, id: SegmentId) -> Result<Bytes<S::File>, OpenError> {
        let name = id.file_name();
        let file = self.storage.open(&name, Open::READ);
        let file = file.map_err(|error| IoFault::new("open", &name, error))?;
        let chunk =
            usize::try_from(self.known.options.segment_bytes.min(1 << 20)).unwrap_or(1 << 20);
        Ok(Bytes::Window(Window::tolerant(file, chunk)))
    }

    /// The header and its descriptor, or what is wrong with them.
    fn header(
        &self,
        id: SegmentId,
        bytes: &mut Bytes<S::File>,
    ) -> Result<Result<SegmentHeader, Damage>, OpenError> {
        let slot = self.known.slot;
        let file = id.file_name();
        let read = |error| IoFault::new("read", &file, error);
        let header = match SegmentHeader::decode(bytes.get(0, BLOCK_BYTES).map_err(read)?) {
            Ok(header) => header,
            Err(BlockFault::Format { found }) => {
                return Err(OpenError::Future {
                    file,
                    found,
                    known: FORMAT,
                });
            }
            Err(fault) => return Ok(Err(Damage::Header(fault))),
        };
        if header.journal_id != slot.journal_id || header.log_id != slot.log_id {
            let (expected, found) = (hex(&slot.journal_id), hex(&header.journal_id));
            return Err(OpenError::Foreign {
                file,
                expected,
                found,
            });
        }
        if header.segment_id != id.0 {
            let expected = format!("segment {id}");
            return Err(OpenError::Foreign {
                file,
                expected,
                found: format!("segment {}", header.segment_id),
            });
        }
        let length = usize::try_from(header.schema_bytes).unwrap_or(0);
        let descriptor = bytes.get(BLOCK, length).map_err(read)?;
        let holds = Schema::decode(descriptor).is_ok_and(|schema| {
            schema.hash() == header.schema_hash && schema.event_size == header.event_size
        });
        Ok(if holds {
            Ok(header)
        } else {
            Err(Damage::Descriptor)
        })
    }

    /// The next segment, if it was begun: then everything before it was durable.
    fn next_begun(&self, id: Option<SegmentId>) -> Result<Option<SegmentHeader>, OpenError> {
        let Some(id) = id else { return Ok(None) };
        let mut bytes = self.bytes(id)?;
        Ok(self.header(id, &mut bytes)?.ok())
    }

    fn check_continues(&self, header: &SegmentHeader) -> Result<(), OpenError> {
        let (expected, found) = (&self.tail, header.tail_before());
        let damage = if expected.reached != found.reached {
            Damage::Gap {
                expected: expected.reached.position,
                found: found.reached.position,
            }
        } else if expected.chain != found.chain && !self.known.options.mutations.no_chain {
            Damage::Chain {
                expected: expected.chain,
                found: found.chain,
            }
        } else {
            return Ok(());
        };
        let place = Place {
            segment: SegmentId(header.segment_id),
            offset: Offset(0),
        };
        Err(OpenError::Corrupt(Box::new(Corruption {
            place,
            position: expected.reached.position,
            damage,
            evidence: Evidence::Structure,
            survives: None,
        })))
    }

    /// One segment with a header.
    fn segment(
        &mut self,
        header: SegmentHeader,
        next: Option<SegmentHeader>,
        bytes: &mut Bytes<S::File>,
        followed: &mut Followed,
    ) -> Result<(), OpenError> {
        let id = SegmentId(header.segment_id);
        let read = |error| IoFault::new("read", &id.file_name(), error);
        let block = bytes.get(header.data_limit(), BLOCK_BYTES).map_err(read)?;
        let footer = SegmentFooter::decode(block, &header);
        if let Some(footer) = footer {
            let summary = footer.summary();
            let is_due = match self.known.options.verify {
                Verify::Tail => false,
                Verify::Since(position) => summary.tail.reached.position > position,
                Verify::Full => true,
            };
            if !is_due {
                self.tail = summary.tail;
                return Ok(());
            }
        }
        let limit = footer.map_or(header.data_limit(), |footer| footer.data_end);
        let walk = Walk::new(&header)
            .until(limit)
            .without_chain(self.known.options.mutations.no_chain);
        let Survey {
            summary,
            index,
            stop,
        } = survey(walk, &header, bytes);
        let before = self.tail;
        self.tail = summary.tail;
        let suspect = self.suspect(&header, &summary, stop);
        if footer.is_some() || next.is_some() {
            let expected = next.as_ref().map(SegmentHeader::tail_before);
            let expected = expected
                .or(footer.map(|footer| footer.summary().tail))
                .unwrap_or(before);
            let holds =
                matches!(stop, Step::End { .. }) && expected.reached == summary.tail.reached;
            if !holds {
                let later = Evidence::LaterSegment(id.next());
                let evidence = if next.is_some() {
                    later
                } else {
                    Evidence::Structure
                };
                return Err(self.corrupt(
                    suspect.missing(expected.reached.position),
                    evidence,
                    bytes,
                ));
            }
            if footer.is_none() {
                self.unsealed.push(Content {
                    header,
                    summary,
                    index,
                });
            }
            return Ok(());
        }
        followed.torn = self.judge(&suspect, bytes)?;
        followed.active = Some(Content {
            header,
            summary,
            index,
        });
        Ok(())
    }

    fn suspect(&self, header: &SegmentHeader, summary: &Summary, stop: Step) -> Suspect {
        let base = header.window_bytes.max(self.known.slot.window_bytes);
        let (at, fault, window) = match stop {
            Step::Fault {
                at,
                group_at,
                fault,
            } => {
                let window = if at == group_at {
                    base
                } else {
                    self.group_window(header, group_at, base)
                };
                (at, Some(fault), window)
            }
            Step::End { at } | Step::Mark { at, .. } | Step::Frame { at, .. } => (at, None, base),
        };
        Suspect {
            segment: SegmentId(header.segment_id),
            from: summary.data_end,
            at,
            salt: header.salt(),
            window,
            limit: header.data_limit(),
            damage: Damage::Frames(fault.unwrap_or(Fault::Missing {
                durable: summary.tail.reached.position,
            })),
            fault,
        }
    }

    /// What was in flight with a group whose mark holds: itself, but for `async`.
    fn group_window(&self, header: &SegmentHeader, group_at: u64, base: u64) -> u64 {
        let is_async = Mode::Async {
            max_unsynced_bytes: 0,
            interval: std::time::Duration::ZERO,
        }
        .number();
        if header.mode == is_async || matches!(self.known.options.mode, Mode::Async { .. }) {
            return base;
        }
        let file = self.bytes(SegmentId(header.segment_id)).ok();
        let line = file.and_then(|mut bytes| {
            let line = bytes.get(group_at, HEADER_BYTES).ok()?;
            line.first_chunk::<HEADER_BYTES>().copied()
        });
        let mark = line.and_then(|line| GroupMark::decode(&line, header.salt(), group_at));
        mark.map_or(base, |mark| HEADER_BYTES as u64 + mark.length)
    }

    /// A newest segment without a header: blank, or its first write was under way.
    fn headless(
        &mut self,
        id: SegmentId,
        later: &[SegmentId],
        damage: Damage,
        bytes: &mut Bytes<S::File>,
        followed: &mut Followed,
    ) -> Result<(), OpenError> {
        let slot = self.known.slot;
        let options = self.known.options;
        let limit = slot.segment_bytes.max(options.segment_bytes);
        let schema_room = data_start(crate::schema::DESCRIPTOR_BYTES_MAX as u64);
        let suspect = Suspect {
            segment: id,
            from: 0,
            at: 0,
            salt: salt(&slot.journal_id, id),
            window: schema_room + slot.window_bytes.max(options.window_bytes()),
            limit,
            damage,
            fault: None,
        };
        for &other in later {
            let mut bytes = self.bytes(other)?;
            let read = |error| IoFault::new("read", &other.file_name(), error);
            if last_data(&mut bytes, 0, limit).map_err(read)?.is_some() {
                return Err(self.corrupt(suspect, Evidence::LaterSegment(other), &mut bytes));
            }
        }
        followed.next_id = id;
        followed.has_blank = true;
        followed.surplus = later.to_vec();
        let Some(torn) = self.judge(&suspect, bytes)? else {
            return Ok(());
        };
        if let Some(earlier) = &followed.torn {
            // It was written only once everything before it was durable.
            let damage = earlier.fault.map_or(suspect.damage, Damage::Frames);
            let suspect = Suspect {
                segment: earlier.segment,
                at: earlier.from,
                damage,
                ..suspect
            };
            return Err(self.corrupt(suspect, Evidence::LaterSegment(id), bytes));
        }
        followed.torn = Some(torn);
        // The segment before it was full, or this one would not have been written.
        self.unsealed.extend(followed.active.take());
        Ok(())
    }

    /// The table: clean, torn, or refused.
    fn judge(
        &self,
        suspect: &Suspect,
        bytes: &mut Bytes<S::File>,
    ) -> Result<Option<TornPlan>, OpenError> {
        let name = suspect.segment.file_name();
        let read = |error| IoFault::new("read", &name, error);
        let last = last_data(bytes, suspect.from, suspect.limit).map_err(read)?;
        let is_bad = last.is_some() || suspect.fault.is_some();
        if let Some(evidence) = self.evidence(suspect, is_bad) {
            return Err(self.corrupt(suspect.clone_for_report(evidence), evidence, bytes));
        }
        let Some(last) = last else { return Ok(None) };
        if let Some(evidence) = self.evidence_behind(suspect, last, bytes).map_err(read)? {
            return Err(self.corrupt(suspect.clone_for_report(evidence), evidence, bytes));
        }
        Ok(Some(TornPlan {
            segment: suspect.segment,
            from: suspect.from,
            to: last + 1,
            position: self.tail.reached.position,
            fault: suspect.fault,
        }))
    }

    /// Evidence beside the segment.
    fn evidence(&self, suspect: &Suspect, is_bad: bool) -> Option<Evidence> {
        let known = &self.known;
        let here = self.tail.reached;
        let hint = known.slot.durable();
        let is_behind =
            |segment: SegmentId, offset: u64| segment == suspect.segment && offset > suspect.from;
        if hint.reached.frames > here.frames || is_behind(hint.segment, hint.offset) {
            return Some(Evidence::Hint(hint.reached.position));
        }
        if let Some(cell) = known.watermark
            && (cell.reached().frames > here.frames || is_behind(cell.segment(), cell.offset().0))
        {
            return Some(Evidence::Hint(cell.reached().position));
        }
        if known.slot.is_clean() && is_bad {
            return Some(Evidence::CleanShutdown);
        }
        if let Some(position) = known.snapshot.filter(|&position| position > here.position) {
            return Some(Evidence::Snapshot(position));
        }
        let acknowledged = known.options.known_durable;
        (acknowledged > here.position).then_some(Evidence::Known(acknowledged))
    }

    /// Evidence behind X in the segment.
    fn evidence_behind(
        &self,
        suspect: &Suspect,
        last: u64,
        bytes: &mut Bytes<S::File>,
    ) -> std::io::Result<Option<Evidence>> {
        let place = |offset| Place {
            segment: suspect.segment,
            offset: Offset(offset),
        };
        let range =
            suspect.from + HEADER_BYTES as u64..(last + 1).next_multiple_of(64).min(suspect.limit);
        if matches!(
            suspect.fault,
            Some(Fault::MarkContinues { .. } | Fault::MarkEpoch { .. })
        ) {
            // A whole mark of this file, and what is before it is not what was durable then.
            return Ok(Some(Evidence::LaterMark(place(suspect.at))));
        }
        let says_so = |mark: &GroupMark| mark.durable_at > suspect.from;
        if let Some(mark) = find_mark(bytes, suspect.salt, range.clone(), says_so)? {
            return Ok(Some(Evidence::LaterMark(place(mark.at))));
        }
        if self.known.options.mutations.frames_are_evidence
            && let Some(at) = find_frame(bytes, range)?
        {
            return Ok(Some(Evidence::LaterMark(place(at))));
        }
        // A write takes its last page with it, to the end.
        if last >= (suspect.from + suspect.window).next_multiple_of(BLOCK) {
            let (window_bytes, last) = (suspect.window, Offset(last));
            return Ok(Some(Evidence::BeyondWindow { window_bytes, last }));
        }
        Ok(None)
    }

    fn corrupt(
        &self,
        suspect: Suspect,
        evidence: Evidence,
        bytes: &mut Bytes<S::File>,
    ) -> OpenError {
        let survives = survivors(&suspect, bytes, self.known.options).unwrap_or(None);
        OpenError::Corrupt(Box::new(Corruption {
            place: Place {
                segment: suspect.segment,
                offset: Offset(suspect.at),
            },
            position: self.tail.reached.position,
            damage: suspect.damage,
            evidence,
            survives,
        }))
    }

    /// Behind the last segment: does anything say that there was more?
    fn expect_nothing_more(&self) -> Result<(), OpenError> {
        let here = self.tail.reached;
        let known = &self.known;
        let hint = known.slot.durable();
        let cell = known.watermark.map(|cell| (cell.reached(), cell.segment()));
        let last = [Some((hint.reached, hint.segment)), cell]
            .into_iter()
            .flatten()
            .max();
        match last {
            Some((reached, segment)) if reached.frames > here.frames => Err(OpenError::Missing {
                file: segment.file_name(),
                why: "journal.meta says that the log goes further than the segments that are here",
            }),
            _ => Ok(()),
        }
    }
}

impl Suspect {
    /// The same with what should have been there, where only zeros are.
    fn missing(self, durable: Position) -> Suspect {
        let damage = match self.fault {
            Some(fault) => Damage::Frames(fault),
            None => Damage::Frames(Fault::Missing { durable }),
        };
        Suspect { damage, ..self }
    }

    fn clone_for_report(&self, evidence: Evidence) -> Suspect {
        let durable = match evidence {
            Evidence::Hint(position) | Evidence::Snapshot(position) | Evidence::Known(position) => {
                position
            }
            _ => Position(0),
        };
        let damage = match (self.damage, self.fault) {
            (Damage::Frames(_), None) => Damage::Frames(Fault::Missing { durable }),
            (damage, _) => damage,
        };
        Suspect { damage, ..*self }
    }
}

fn find_frame<F: File>(
    bytes: &mut Bytes<F>,
    range: std::ops::Range<u64>,
) -> std::io::Result<Option<u64>> {
    let mut at = range.start;
    // Ends: `at` rises to the end of the range.
    while at + HEADER_BYTES as u64 <= range.end {
        let line = bytes.get(at, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>();
        if line.is_some_and(|line| FrameHeader::decode(line).is_some()) {
            return Ok(Some(at));
        }
        at += HEADER_BYTES as u64;
    }
    Ok(None)
}

/// The first whole group behind the damage, and how far the log holds from there.
fn survivors<F: File>(
    suspect: &Suspect,
    bytes: &mut Bytes<F>,
    options: &Options,
) -> std::io::Result<Option<Survivors>> {
    let block = bytes.get(0, BLOCK_BYTES)?;
    let Ok(header) = SegmentHeader::decode(block) else {
        return Ok(None);
    };
    let mut from = suspect.at.max(header.data_start()) + HEADER_BYTES as u64;
    // Ends: `from` rises past each mark that leads nowhere.
    while let Some(mark) = find_mark(bytes, suspect.salt, from..header.data_limit(), |_| true)? {
        let walk = Walk::new(&header).without_chain(options.mutations.no_chain);
        if let Some(walk) = walk.resume_at(mark.at, bytes)? {
            let first = walk.tail().reached.position;
            let found = survey(walk, &header, bytes);
            if found.summary.groups > 0 {
                let place = Place {
                    segment: suspect.segment,
                    offset: Offset(mark.at),
                };
                let to = found.summary.tail.reached.position;
                return Ok(Some(Survivors {
                    place,
                    from: first,
                    to,
                }));
            }
        }
        from = mark.at + HEADER_BYTES as u64;
    }
    Ok(None)
}

/// Copies the torn tail aside and zeroes it, both durably, in this order.
fn cut_torn_tail<S: Storage>(
    storage: &S,
    options: &Options,
    slot: &MetaSlot,
    plan: &TornPlan,
) -> Result<Torn, OpenError> {
    let name = plan.segment.file_name();
    let quarantine = format!(
        "{QUARANTINE}/{:012}-{}-{}.torn",
        plan.segment.0, plan.from, slot.open_epoch
    );
    let copied = copy_aside(storage, &name, plan.from..plan.to, &quarantine);
    if let Err(fault) = copied {
        if !fault.is_full() || !empty_pool(storage)? {
            return Err(fault.into());
        }
        copy_aside(storage, &name, plan.from..plan.to, &quarantine)?;
    }
    if !options.mutations.no_zeroing {
        let file = open_writable(storage, &name, Open::WRITE)
            .map_err(|error| IoFault::new("open", &name, error))?;
        zero(&file, &name, plan.from..plan.to)?;
    }
    Ok(Torn {
        place: Place {
            segment: plan.segment,
            offset: Offset(plan.from),
        },
        position: plan.position,
        bytes: plan.to - plan.from,
        fault: plan.fault,
        quarantine,
    })
}

/// Writes zeros over a range and makes them durable.
pub(crate) fn zero<F: File>(
    file: &F,
    name: &str,
    range: std::ops::Range<u64>,
) -> Result<(), IoFault> {
    let zeros = vec![0; 1 << 16];
    let mut at = range.start;
    // Ends: `at` rises by the length of a piece.
    while at < range.end {
        let count =
            usize::try_from((range.end - at).min(zeros.len() as u64)).unwrap_or(zeros.len());
        file.write_at(&[IoSlice::new(&zeros[..count])], at)
            .map_err(|error| IoFault::new("write", name, error).at(at))?;
        at += count as u64;
    }
    file.sync_data()
        .map_err(|error| IoFault::new("sync", name, error))
}

/// Copies a range of a file into a new one, durably. Sectors that cannot be read are filled with 0xbd.
pub(crate) fn copy_aside<S: Storage>(
    storage: &S,
    from: &str,
    range: std::ops::Range<u64>,
    to: &str,
) -> Result<(), IoFault> {
    let fault = |operation, name: &str| {
        let name = name.to_owned();
        move |error| IoFault::new(operation, &name, error)
    };
    storage
        .create_dir(QUARANTINE)
        .map_err(fault("create", QUARANTINE))?;
    let source = storage
        .open(from, Open::READ)
        .map_err(fault("open", from))?;
    let mut bytes = Bytes::Window(Window::tolerant(source, 1 << 16));
    let target = match storage.open(to, Open::CREATE) {
        // An opening that crashed here before has begun it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            storage.open(to, Open::WRITE)
        }
        other => other,
    };
    let target = target.map_err(fault("create", to))?;
    let mut at = range.start;
    // Ends: `at` rises by the length of a piece.
    while at < range.end {
        let count = usize::try_from((range.end - at).min(1 << 16)).unwrap_or(1 << 16);
        let piece = bytes.get(at, count).map_err(fault("read", from))?;
        target
            .write_at(&[IoSlice::new(piece)], at - range.start)
            .map_err(fault("write", to))?;
        at += count as u64;
    }
    target.sync_data().map_err(fault("sync", to))?;
    storage
        .sync_directory(QUARANTINE)
        .map_err(fault("sync of directory", QUARANTINE))
}

/// Gives up the spares, for room; `false` if there were none.
fn empty_pool<S: Storage>(storage: &S) -> Result<bool, IoFault> {
    let pool = crate::directory::POOL;
    let entries = storage
        .list(pool)
        .map_err(|error| IoFault::new("list", pool, error))?;
    for entry in &entries {
        remove(storage, &format!("{pool}/{}", entry.name))?;
    }
    Ok(!entries.is_empty())
}

fn remove<S: Storage>(storage: &S, name: &str) -> Result<(), IoFault> {
    storage
        .remove(name)
        .map_err(|error| IoFault::new("remove", name, error))
}

/// Refuses promises that the medium cannot keep.
pub(crate) fn check_medium<S: Storage>(storage: &S, options: &Options) -> Result<(), OpenError> {
    if !matches!(options.mode, Mode::Sync | Mode::Direct) || options.allow_volatile_medium {
        return Ok(());
    }
    let medium = storage
        .medium()
        .map_err(|error| IoFault::new("look at the medium", "", error))?;
    if medium.is_durable {
        return Ok(());
    }
    let mode = options.mode.name();
    Err(OptionError::Medium {
        mode,
        medium: medium.name,
    }
    .into())
}

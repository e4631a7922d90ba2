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
//! * `RC4` What is accepted is on the disk before anything is appended, also where a sync had
//!   failed and the cache says otherwise (`anew.rs`).

use crate::directory::{
    MetaFile, MetaFound, MetaSlot, QUARANTINE, Watermark, random_identity, read_meta, segments,
};
use crate::error::{Corruption, Damage, Evidence, IoFault, OpenError, OptionError};
use crate::index::SparseIndex;
use crate::options::{Existing, Mode, Options};
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::scan::Fault;
use crate::schema::{GoesOn, Schema};
use crate::segment::{BLOCK, FORMAT, Place, SegmentHeader, Summary, Tail};
use crate::snapshots::{INCOMING, SnapshotError, Snapshots, take_in};
use crate::storage::{File, Open, Storage};

mod anew;
mod cut;
pub(crate) mod evidence;
mod judge;
mod torn;

use evidence::Beside;
use judge::{Followed, Judge, Known};
use torn::{cut_torn_tail, remove};

pub(crate) use cut::{CutPlan, finish_cut, plan_cut, read_index};
pub(crate) use torn::{copy_aside, zero};

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

impl Content {
    fn has_frames(&self) -> bool {
        self.summary.tail.reached.frames > self.header.tail_before().reached.frames
    }
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
    if slot.begins_anew() {
        begin_anew(storage, &mut meta)?;
        ids.retain(|&id| id >= slot.first_segment());
    }
    let slot = Box::new(*meta.slot());
    let intent = slot.cut_intent();
    if let Some(intent) = intent {
        // It may be in the cache alone, as all that a failed sync leaves (`AN1`).
        meta.update_both(|_| ())?;
        finish_cut(storage, &slot, &intent, true)?;
        ids.retain(|&id| id <= intent.segment);
    }
    let watermark = match intent {
        Some(_) => None,
        None => Watermark::read(&*meta.file())?.filter(|cell| cell.open_epoch == slot.open_epoch),
    };
    let snapshot = newest_snapshot(storage)?;
    let beside = Beside::new(&slot, watermark, snapshot, options.known_durable);
    let known = Known {
        slot: &slot,
        watermark,
        beside,
        options,
    };
    let mut judge = Judge {
        storage,
        known,
        tail: slot.start(),
        unsealed: Vec::new(),
    };
    let found = judge.follow(&ids)?;
    let has_frames = found.active.as_ref().is_some_and(Content::has_frames);
    let is_other_segment = has_other_schema(storage, options, found.newest.as_ref())?
        || options.seals_newest && has_frames;
    let (tail, unsealed) = (judge.tail, judge.unsealed);
    let torn = match &found.torn {
        Some(torn) => Some(cut_torn_tail(storage, options, &slot, torn)?),
        None => None,
    };
    for blank in &found.surplus {
        remove(storage, &blank.file_name())?;
    }
    if let Some(content) = &found.active
        && !slot.is_clean()
        && !options.mutations.trust_the_cache
    {
        let id = SegmentId(content.header.segment_id);
        let durable = beside.durable_in(id).max(found.durable_at);
        let window = content.header.window_bytes.max(slot.window_bytes);
        let end = content.summary.data_end;
        let behind = evidence::window_end(end, window).min(content.header.data_limit());
        anew::write_anew(storage, &id.file_name(), durable.min(end)..behind)?;
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
    if is_other_segment {
        recovery.unsealed.extend(recovery.active.take());
    }
    Ok(recovery)
}

/// The log begins behind a snapshot that another node sent: takes it in, and removes what was before
/// (`D5`). It may have been interrupted before, anywhere.
fn begin_anew<S: Storage>(storage: &S, meta: &mut MetaFile<S::File>) -> Result<(), OpenError> {
    // It may be in the cache alone, as all that a failed sync leaves (`AN1`).
    meta.update_both(|_| ())?;
    let (position, first) = (
        meta.slot().start().reached.position,
        meta.slot().first_segment(),
    );
    let failed = |error: SnapshotError| {
        let error = std::io::Error::other(error);
        OpenError::Io(IoFault::new("take in a snapshot", INCOMING, error))
    };
    take_in(storage, position).map_err(failed)?;
    let snapshots = Snapshots::new(storage.clone());
    for listed in snapshots.list().map_err(failed)? {
        if listed.position != position {
            snapshots.remove(listed.position).map_err(failed)?;
        }
    }
    let entries = storage
        .list("")
        .map_err(|error| IoFault::new("list", "", error))?;
    for entry in entries.iter().filter(|entry| !entry.is_directory) {
        let stem = entry.name.split('.').next().unwrap_or("");
        let number = stem.parse::<u64>().ok().filter(|_| stem.len() == 12);
        if number.is_some_and(|number| number < first.0) {
            remove(storage, &entry.name)?;
        }
    }
    storage
        .sync_directory("")
        .map_err(|error| IoFault::new("sync of directory", "", error))?;
    meta.update_both(|slot| slot.set_begins_anew(false))?;
    Ok(())
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

/// Whether what is written from here on wants a segment of its own, with a schema of its own (`SC3`); a journal
/// that this program cannot go on with is refused.
fn has_other_schema<S: Storage>(
    storage: &S,
    options: &Options,
    newest: Option<&SegmentHeader>,
) -> Result<bool, OpenError> {
    let schema = &options.schema;
    let Some(header) = newest else {
        return Ok(false);
    };
    let hash = schema.hash();
    if header.schema_hash == hash && header.event_size == schema.event_size {
        return Ok(false);
    }
    let found = schema_of(storage, header)?;
    match schema.goes_on(&found, options.own_kinds) {
        GoesOn::Here => Ok(false),
        GoesOn::Anew => Ok(true),
        GoesOn::Not => Err(OpenError::Schema {
            expected_name: schema.name.to_string(),
            expected: schema.version,
            expected_hash: hash,
            found_name: found.name.to_string(),
            found: header.schema_version,
            found_hash: header.schema_hash,
        }),
    }
}

/// The schema of a segment whose header holds: the judge has read it before.
fn schema_of<S: Storage>(storage: &S, header: &SegmentHeader) -> Result<Schema, IoFault> {
    let name = SegmentId(header.segment_id).file_name();
    let mut descriptor = vec![0; usize::try_from(header.schema_bytes).unwrap_or(0)];
    storage
        .open(&name, Open::READ)
        .and_then(|file| file.read_at(&mut descriptor, BLOCK))
        .and_then(|_| {
            Schema::decode(&descriptor)
                .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        })
        .map_err(|error| IoFault::new("read the schema of", &name, error))
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

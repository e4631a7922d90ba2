//! Which segments may go, and their going: a plan first, then the deed.
//!
//! ```text
//!  segments   ├── 0 ──┼── 1 ──┼── 2 ──┼── 3 ──┼── 4 (being written)
//!  needed     snapshot that passed a test load ─────┤
//!             archived up to ──────────────┤             a segment goes if its end is at or
//!             slowest reader at ─────┤                   before the least of them, and if what
//!             keep for so long, so much ─────────┤       stays is long and large enough
//! ```
//!
//! A file that goes is renamed first, so that no half-removed segment looks like
//! a damaged one; then it goes in steps, so that the syncs of others do not wait for it.
//!
//! # Invariants
//!
//! * `R1` What is removed is a prefix of the log, and never the segment being written.
//! * `R2` No event at or behind the least of the needs is removed.
//! * `R3` A plan without a snapshot that verified, or without the archive where one is asked
//!   for, removes nothing.

use std::fmt;

use crate::position::{Position, SegmentId};
use crate::segment::{SegmentFooter, SegmentHeader};
use crate::snapshots::{KEEP_MIN, SnapshotError, Snapshots};
use crate::storage::{Storage, remove_in_steps_while};
use crate::tools::{
    Catalog, CatalogSegment, Progress, ToolError, change_meta, failed, lock, read_whole,
    remove_if_there, write_whole,
};

/// What a segment on its way out is called.
const GOING: &str = ".going";

/// Where the readers leave how far they are.
pub const READERS: &str = "readers";

/// Who still needs the log, and from where on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Replay begins at a snapshot: the oldest of those kept that passed a test load.
    pub snapshot: Option<Position>,
    /// Up to where it is in the archive; `None` inside if it is not there at all.
    /// `None` outside if nobody asks for an archive.
    pub archive: Option<Option<Position>>,
    /// Readers and replicas by name, and the next event each will read.
    pub readers: Vec<(String, Position)>,
    /// Keep what is younger than this.
    pub keep_after_ns: Option<u64>,
    /// Keep at least so many bytes of segments.
    pub keep_bytes: Option<u64>,
}

/// What may go, and what holds the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The segments that may go, in order.
    pub remove: Vec<Leaving>,
    /// Everything before this position may go.
    pub limit: Position,
    /// What keeps the first segment that stays.
    pub held_by: HeldBy,
}

/// A segment that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// Its number.
    pub segment: SegmentId,
    /// Its first event.
    pub first_position: Position,
    /// Behind its last event.
    pub end_position: Position,
    /// Bytes it frees.
    pub bytes: u64,
}

/// What keeps the first segment that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBy {
    /// No snapshot passed a test load: without one, replay needs all of the log.
    NoSnapshot,
    /// The oldest snapshot that is kept.
    Snapshot(Position),
    /// The archive ends here.
    Archive(Option<Position>),
    /// A reader has not read further.
    Reader(String, Position),
    /// It is too young.
    Age,
    /// So much is to be kept.
    Size,
    /// It is being written.
    Active,
    /// It is not sealed, or damaged.
    Damaged,
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeldBy::NoSnapshot => write!(f, "no snapshot passed a test load: take two"),
            HeldBy::Snapshot(at) => write!(f, "the oldest kept snapshot, at position {at}"),
            HeldBy::Archive(Some(at)) => write!(f, "the archive, which ends at position {at}"),
            HeldBy::Archive(None) => write!(f, "the archive, which does not have it"),
            HeldBy::Reader(name, at) => write!(f, "the reader {name}, at position {at}"),
            HeldBy::Age => write!(f, "its age: it is to be kept longer"),
            HeldBy::Size => write!(f, "its size: so many bytes are to be kept"),
            HeldBy::Active => write!(f, "nothing: it is the segment being written"),
            HeldBy::Damaged => write!(f, "damage: verify the journal first"),
        }
    }
}

impl Needs {
    /// The need of the snapshots: reads the newest `keep` (two at least) to the last byte.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if the directory cannot be read.
    pub fn of_snapshots<S: Storage>(
        storage: &S,
        keep: usize,
        threads: usize,
    ) -> Result<Option<Position>, SnapshotError> {
        let snapshots = Snapshots::new(storage.clone());
        let mut verified = Vec::new();
        for listed in snapshots.list()? {
            if verified.len() < keep.max(KEEP_MIN)
                && snapshots.verify(listed.position, threads).is_ok()
            {
                verified.push(listed.position);
            }
        }
        // Fewer than asked for means that a loss of one leaves none: keep everything.
        if verified.len() < KEEP_MIN {
            Ok(None)
        } else {
            Ok(verified.pop())
        }
    }

    /// The least of the needs, and whose it is (`R2`).
    fn limit(&self) -> (Position, HeldBy) {
        let Some(snapshot) = self.snapshot else {
            return (Position(0), HeldBy::NoSnapshot);
        };
        let mut least = (snapshot, HeldBy::Snapshot(snapshot));
        let archive = self
            .archive
            .map(|at| (at.unwrap_or_default(), HeldBy::Archive(at)));
        let readers = self
            .readers
            .iter()
            .map(|(name, at)| (*at, HeldBy::Reader(name.clone(), *at)));
        for need in archive.into_iter().chain(readers) {
            if need.0 < least.0 {
                least = need;
            }
        }
        least
    }
}

/// What may go by these needs.
#[must_use]
pub fn plan(catalog: &Catalog, needs: &Needs) -> Plan {
    let (limit, holder) = needs.limit();
    let mut left = catalog.bytes();
    let mut remove = Vec::new();
    let mut held_by = HeldBy::Active;
    for (at, segment) in catalog.segments.iter().enumerate() {
        let is_last_used = catalog.segments[at + 1..]
            .iter()
            .all(CatalogSegment::is_unused);
        let Some((_, header, footer)) = segment.sealed() else {
            held_by = if is_last_used {
                HeldBy::Active
            } else {
                HeldBy::Damaged
            };
            break;
        };
        if let Some(held) = holds(footer, limit, &holder, needs, left - segment.length) {
            held_by = held;
            break;
        }
        if is_last_used {
            held_by = HeldBy::Active;
            break;
        }
        left -= segment.length;
        remove.push(leaving(segment, header, footer));
    }
    Plan {
        remove,
        limit,
        held_by,
    }
}

fn holds(
    footer: &SegmentFooter,
    limit: Position,
    holder: &HeldBy,
    needs: &Needs,
    left: u64,
) -> Option<HeldBy> {
    if footer.end_position > limit.0 || *holder == HeldBy::NoSnapshot {
        return Some(holder.clone());
    }
    if needs
        .keep_after_ns
        .is_some_and(|after| footer.last_time_ns >= after)
    {
        return Some(HeldBy::Age);
    }
    needs
        .keep_bytes
        .filter(|&keep| left < keep)
        .map(|_| HeldBy::Size)
}

fn leaving(segment: &CatalogSegment, header: &SegmentHeader, footer: &SegmentFooter) -> Leaving {
    Leaving {
        segment: segment.id,
        first_position: Position(header.first_position),
        end_position: Position(footer.end_position),
        bytes: segment.length,
    }
}

impl Plan {
    /// Bytes that the plan frees.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.remove.iter().map(|segment| segment.bytes).sum()
    }
}

/// Removes what the plan says, oldest first (`R1`), and what an earlier deed left half done.
///
/// First `give_up` has to say durably that the segments before the given one may go, or the
/// next open would miss them: [`Journal::give_up_before`](crate::Journal::give_up_before) for
/// whoever has the journal open, [`offline`] for nobody. It is safe beside the thread that
/// writes: a sealed segment is never touched again.
///
/// # Errors
///
/// [`ToolError::Io`], and what `give_up` says; what was removed until then is gone, and a plan
/// made anew goes on.
pub fn apply<S: Storage>(
    storage: &S,
    plan: &Plan,
    give_up: impl FnOnce(SegmentId) -> Result<(), ToolError>,
    progress: Progress<'_>,
) -> Result<(), ToolError> {
    apply_while(storage, plan, give_up, progress, &mut || true)
}

/// The same as long as `goes_on` says so, asked in front of each step of a file. What it leaves has no name as a segment any
/// more, and [`finish`], or the next deed, goes on with it.
///
/// # Errors
///
/// As [`apply`].
pub fn apply_while<S: Storage>(
    storage: &S,
    plan: &Plan,
    give_up: impl FnOnce(SegmentId) -> Result<(), ToolError>,
    progress: Progress<'_>,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<(), ToolError> {
    if let Some(last) = plan.remove.last() {
        give_up(last.segment.next())?;
    }
    let all = plan.bytes();
    let mut done = 0;
    for segment in &plan.remove {
        let name = segment.segment.file_name();
        let going = format!("{name}{GOING}");
        storage
            .rename(&name, &going)
            .map_err(failed("renaming", &name))?;
        remove_if_there(storage, &segment.segment.index_name())?;
        storage
            .sync_directory("")
            .map_err(failed("syncing the directory of", &name))?;
        if !remove_going(storage, &going, goes_on)? {
            return Ok(());
        }
        done += segment.bytes;
        progress(done, all);
    }
    finish(storage, goes_on)
}

/// Removes what an earlier deed left half done, as long as `goes_on` says so.
///
/// # Errors
///
/// [`ToolError::Io`]
pub fn finish<S: Storage>(storage: &S, goes_on: &mut dyn FnMut() -> bool) -> Result<(), ToolError> {
    for entry in storage
        .list("")
        .map_err(failed("listing", "the journal's directory"))?
    {
        if entry.name.ends_with(GOING) && !remove_going(storage, &entry.name, goes_on)? {
            return Ok(());
        }
    }
    Ok(())
}

/// [`apply`] for a journal that nobody has open; holds its lock meanwhile.
///
/// # Errors
///
/// [`ToolError::InUse`], and as `apply`.
pub fn offline<S: Storage>(
    storage: &S,
    plan: &Plan,
    progress: Progress<'_>,
) -> Result<(), ToolError> {
    let _lock = lock(storage)?;
    let give_up = |first: SegmentId| {
        change_meta(storage, |slot| {
            slot.set_first_segment(first.max(slot.first_segment()))
        })
    };
    apply(storage, plan, give_up, progress)
}

/// Removes a file that has lost its name as a segment; whether it is gone.
fn remove_going<S: Storage>(
    storage: &S,
    name: &str,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<bool, ToolError> {
    if !remove_in_steps_while(storage, name, goes_on).map_err(failed("removing", name))? {
        return Ok(false);
    }
    storage
        .sync_directory("")
        .map_err(failed("syncing the directory of", name))?;
    Ok(true)
}

/// Readers that retention waits for: a small file each, with the next event they will read.
#[derive(Debug, Clone)]
pub struct Readers<S> {
    storage: S,
}

/// `LOCKREAD`, position u64, CRC-32C over both u32, zeros.
const READER_BYTES: usize = 24;
const READER_MAGIC: &[u8; 8] = b"LOCKREAD";

impl<S: Storage> Readers<S> {
    /// The readers of the journal in this storage.
    pub fn new(storage: S) -> Self {
        Readers { storage }
    }

    /// Says durably where a reader is; the first time makes it known. Everything from
    /// `position` on stays until it says otherwise, or is [forgotten](Readers::forget).
    ///
    /// # Errors
    ///
    /// [`ToolError::Io`], also for a name that is no file's name.
    pub fn advance(&self, name: &str, position: Position) -> Result<(), ToolError> {
        self.storage
            .create_dir(READERS)
            .map_err(failed("creating", READERS))?;
        self.storage
            .sync_directory("")
            .map_err(failed("syncing", "the journal's directory"))?;
        let mut bytes = [0; READER_BYTES];
        bytes[..8].copy_from_slice(READER_MAGIC);
        bytes[8..16].copy_from_slice(&position.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        write_whole(&self.storage, &format!("{READERS}/{name}"), &bytes)
    }

    /// Lets a reader go: nothing is kept for it any more.
    ///
    /// # Errors
    ///
    /// [`ToolError::Io`], also if there is none of that name.
    pub fn forget(&self, name: &str) -> Result<(), ToolError> {
        let path = format!("{READERS}/{name}");
        self.storage
            .remove(&path)
            .map_err(failed("removing", &path))?;
        self.storage
            .sync_directory(READERS)
            .map_err(failed("syncing", READERS))
    }

    /// All readers by name, and the next event each will read.
    ///
    /// # Errors
    ///
    /// [`ToolError::Damaged`] for one whose file does not hold: retention must not guess.
    pub fn list(&self) -> Result<Vec<(String, Position)>, ToolError> {
        let mut readers = Vec::new();
        for entry in self
            .storage
            .list(READERS)
            .map_err(failed("listing", READERS))?
        {
            if entry.name.ends_with(".tmp") {
                continue;
            }
            let path = format!("{READERS}/{}", entry.name);
            let bytes = read_whole(&self.storage, &path, READER_BYTES as u64)?;
            readers.push((entry.name, decode_reader(&bytes, &path)?));
        }
        Ok(readers)
    }
}

fn decode_reader(bytes: &[u8], path: &str) -> Result<Position, ToolError> {
    let damaged = || {
        ToolError::damaged(
            path,
            "its position does not hold: let the reader register again",
        )
    };
    let bytes: &[u8; READER_BYTES] = bytes.try_into().map_err(|_| damaged())?;
    let crc = crc32c::crc32c(&bytes[..16]).to_le_bytes();
    if bytes[..8] != *READER_MAGIC || bytes[16..20] != crc {
        return Err(damaged());
    }
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[8..16]);
    Ok(Position(u64::from_le_bytes(number)))
}

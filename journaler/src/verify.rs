//! Walks everything, believes nothing, and says what it found.
//!
//! Every segment is surveyed on its own, several at a time, from its first mark
//! to its last byte: frames with their events, chain, positions, times, padding,
//! the footer against what was found, the zeros behind. Then the segments are
//! held against one another, and the end of the last one is judged by the same
//! evidence that opening uses. Snapshots are loaded to the last byte.
//!
//! ```text
//!  what is found                                     verdict          exit
//!  zeros to the end behind the last group            clean            0
//!  junk behind it, where a write was in flight,
//!  and no evidence that it was durable               torn tail        0   the next open cuts it
//!  anything else that does not hold                  corrupt          5
//! ```
//!
//! # Invariants
//!
//! * `V1` It changes nothing.
//! * `V2` Whatever the bytes are, it ends, with memory for a bounded number of findings.
//! * `V3` What it calls clean or torn, opening accepts; what it calls corrupt, opening refuses
//!   if it reads that far: opening believes footers, this does not.

mod judge;
mod look;

use self::look::look_at_all;
use crate::directory::{META, MetaFound, Watermark};
use crate::error::Evidence;
use crate::frame::GroupMark;
use crate::position::{Offset, Position, SegmentId};
use crate::recovery::evidence::{Beside, Suspected, beyond_window, of_fault, says_durable};
use crate::scan::Fault;
use crate::segment::Place;
use crate::snapshots::{DIRECTORY, SnapshotError, Snapshots};
use crate::storage::{Open, Storage};
use crate::tools::{Catalog, ToolError, failed};

const PIECE_BYTES: usize = 1 << 20;

/// So many findings are told one by one; the rest is counted (`V2`).
pub const FINDINGS_MAX: usize = 256;

/// How to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Segments that are looked at at the same time.
    pub threads: usize,
    /// Only segments that hold this position, or what is behind it.
    pub since: Position,
    /// Also load the snapshots.
    pub snapshots: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions {
            threads: 1,
            since: Position(0),
            snapshots: true,
        }
    }
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything holds.
    Clean,
    /// A write was in flight when the power went: the next open cuts it, with a report.
    TornTail,
    /// Something that was durable does not hold.
    Corrupt,
}

/// How bad one finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost by it.
    Note,
    /// A torn tail.
    Torn,
    /// Damage.
    Corrupt,
}

/// Something that does not hold, or is worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: Option<Offset>,
    /// Which event was next there.
    pub position: Option<Position>,
    /// What was expected, and what was found.
    pub what: String,
    /// Where the log goes on behind it, if it does.
    pub resumes: Option<(Place, Position)>,
    /// What helps.
    pub help: Vec<Help>,
}

/// What an operator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// Nothing is to be done: opening the journal cuts the torn tail and reports it.
    Open,
    /// Bring the segment back from an archive or another node's copy.
    RestoreSegment(SegmentId),
    /// Give up everything from this position on.
    TruncateAt(Position),
    /// Copy what holds into a new journal.
    Salvage,
    /// Remove the snapshot: an older one and the journal replace it.
    RemoveSnapshot(Position),
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// What does not hold, in the order of the log.
    pub findings: Vec<Finding>,
    /// How many more there are than are told.
    pub untold: usize,
    /// Segments that were looked at.
    pub segments: usize,
    /// Groups, frames and events that hold.
    pub groups: u64,
    /// Frames that hold.
    pub frames: u64,
    /// Events that hold.
    pub events: u64,
    /// The first position of the journal.
    pub from: Position,
    /// Behind the last frame that holds.
    pub to: Position,
    /// Snapshots that loaded whole.
    pub snapshots: Vec<Position>,
    /// Whether the snapshots were looked at.
    pub has_snapshots: bool,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Verifies a journal (`V1`).
///
/// # Errors
///
/// [`ToolError::NoJournal`], and [`ToolError::Io`] for what cannot be read at all; a bad
/// sector is a finding.
pub fn verify<S: Storage>(
    storage: &S,
    options: &VerifyOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Report, ToolError> {
    let catalog = Catalog::of_journal(storage)?;
    let looks = look_at_all(storage, &catalog, options, progress)?;
    let mut report = Report {
        verdict: Verdict::Clean,
        findings: Vec::new(),
        untold: 0,
        segments: looks.iter().flatten().count(),
        groups: 0,
        frames: 0,
        events: 0,
        from: catalog.first_position().unwrap_or_default(),
        to: catalog.first_position().unwrap_or_default(),
        snapshots: Vec::new(),
        has_snapshots: options.snapshots,
        bytes: catalog.bytes(),
    };
    if options.snapshots {
        report.snapshots(storage, options.threads)?;
    }
    report.meta(&catalog);
    report.beginning(&catalog);
    let known = Known::gather(storage, &catalog)?;
    report.segments(&catalog, &looks, &known);
    report
        .findings
        .sort_by(|left, right| (&left.file, left.offset).cmp(&(&right.file, right.offset)));
    Ok(report)
}

/// What says that a byte of the last segment was durable once: as opening has it.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    beside: Beside,
    /// What was in flight under the options of the last opening.
    window_bytes: u64,
}

impl Known {
    fn gather<S: Storage>(storage: &S, catalog: &Catalog) -> Result<Known, ToolError> {
        let listed = Snapshots::new(storage.clone())
            .list()
            .map_err(snapshot_error)?;
        let snapshot = listed.iter().map(|one| one.position).max();
        let MetaFound::Slot(slot) = &catalog.meta else {
            return Ok(Known {
                beside: Beside::of_snapshot(snapshot),
                window_bytes: 0,
            });
        };
        let file = storage
            .open(META, Open::READ)
            .map_err(failed("opening", META))?;
        let watermark = Watermark::read(&file).map_err(ToolError::of_fault)?;
        Ok(Known {
            beside: Beside::new(slot, watermark, snapshot, Position(0)),
            window_bytes: slot.window_bytes,
        })
    }

    /// Why X must have been durable; `None` if nothing says so, and it was in flight. `end` is
    /// behind the last byte that is not zero.
    fn against(&self, x: &Suspected, seen: &Behind<'_>) -> Option<Evidence> {
        let is_bad = seen.end.is_some() || seen.fault.is_some();
        if let Some(evidence) = self.beside.against(x, is_bad) {
            return Some(evidence);
        }
        let last = seen.end?.checked_sub(1)?;
        if let Some(evidence) = of_fault(seen.fault, x.segment, seen.at) {
            return Some(evidence);
        }
        let later = seen.marks.iter().find(|mark| says_durable(mark, x));
        if let Some(mark) = later {
            return Some(Evidence::LaterMark(Place {
                segment: x.segment,
                offset: Offset(mark.at),
            }));
        }
        beyond_window(x.from, seen.window_bytes, last)
    }
}

/// What is at the end of the log, or behind it.
struct Behind<'a> {
    /// Where what does not hold was found.
    at: u64,
    fault: Option<Fault>,
    /// Behind the last byte that is not zero; `None` if there is none from X on.
    end: Option<u64>,
    marks: &'a [GroupMark],
    window_bytes: u64,
}

fn snapshot_error(error: SnapshotError) -> ToolError {
    let (operation, name) = ("listing", DIRECTORY.to_owned());
    ToolError::Io {
        operation,
        name,
        source: std::io::Error::other(error),
    }
}

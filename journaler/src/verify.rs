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

use std::sync::{Mutex, PoisonError};

use crate::directory::{LOCK, META, MetaFound, Watermark};
use crate::error::Evidence;
use crate::frame::{GroupMark, HEADER_BYTES};
use crate::index::SparseIndex;
use crate::position::{Offset, Position, SegmentId};
use crate::recovery::evidence::{
    Beside, Suspected, beyond_window, of_fault, says_durable, window_bytes,
};
use crate::scan::{Bytes, Fault, Window};
use crate::schema::DESCRIPTOR_BYTES_MAX;
use crate::segment::{
    BlockFault, FORMAT, Place, SegmentFooter, SegmentHeader, Tail, data_start, is_zero, salt,
};
use crate::snapshots::{DIRECTORY, SnapshotError, Snapshots};
use crate::storage::{File, Open, Storage};
use crate::tools::survey::{Seen, next_mark, survey};
use crate::tools::{Catalog, CatalogSegment, ToolError, failed, read_whole};

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

/// What a survey of one segment found.
#[derive(Debug, Clone, Default)]
struct Look {
    groups: u64,
    frames: u64,
    events: u64,
    faults: Vec<LookFault>,
    untold: usize,
    /// Behind the group that is being looked at, and where its mark is.
    group: Option<(u64, u64)>,
    /// Marks behind the first fault.
    marks_behind: Vec<GroupMark>,
    event_size: u32,
    /// Behind the last frame, and the last whole group, before the first fault.
    reached: Tail,
    whole: Tail,
    tail: Tail,
    data_end: u64,
    first_time_ns: u64,
    /// Behind the last byte that is not zero, from the first thing that does not hold on.
    junk_end: Option<u64>,
    /// There is no footer, and something in its place.
    has_footer_junk: bool,
    /// The index beside it holds, or is missing though it should be there.
    index_note: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct LookFault {
    at: u64,
    group_at: u64,
    group_end: Option<u64>,
    fault: Fault,
    expected: Position,
    resumes: Option<(u64, Position)>,
}

/// Surveys the segments, several at a time; `None` for one that was not looked at.
fn look_at_all<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    options: &VerifyOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Vec<Option<Look>>, ToolError> {
    let all = catalog.bytes();
    let told = Mutex::new((0, progress));
    let tell = |bytes: u64| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += bytes;
        let done = told.0;
        (told.1)(done, all);
    };
    let jobs = Mutex::new(catalog.segments.iter().enumerate());
    let looks = Mutex::new((vec![None; catalog.segments.len()], Ok(())));
    let work = || {
        // Ends: each turn takes a segment from a finite list.
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, segment)) = next else {
                return;
            };
            if is_before(segment, options.since) {
                tell(segment.length);
                continue;
            }
            let look = look_at(storage, catalog, segment, &tell);
            let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
            match look {
                Ok(look) => looks.0[number] = look,
                Err(error) if looks.1.is_ok() => looks.1 = Err(error),
                Err(_) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let (looks, outcome) = looks.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.map(|()| looks)
}

fn is_before(segment: &CatalogSegment, since: Position) -> bool {
    segment
        .footer
        .is_some_and(|footer| footer.end_position <= since.0)
}

fn look_at<S: Storage>(
    storage: &S,
    catalog: &Catalog,
    segment: &CatalogSegment,
    tell: &dyn Fn(u64),
) -> Result<Option<Look>, ToolError> {
    let name = segment.id.file_name();
    let open = || {
        storage
            .open(&name, Open::READ)
            .map_err(failed("opening", &name))
    };
    let Ok(header) = &segment.header else {
        let junk_end = last_nonzero(&open()?, 0, segment.length, &name)?;
        let mut look = Look {
            junk_end,
            ..Look::default()
        };
        if let (MetaFound::Slot(slot), Some(end)) = (&catalog.meta, look.junk_end) {
            let mut bytes = Bytes::Window(Window::tolerant(open()?, PIECE_BYTES));
            let salt = salt(&slot.journal_id, segment.id);
            look.marks_behind
                .extend(next_mark(salt, &mut bytes, 0, end).map(|(_, mark)| mark));
        }
        tell(segment.length);
        return Ok(Some(look));
    };
    let mut bytes = Bytes::Window(Window::tolerant(open()?, PIECE_BYTES));
    let mut look = Look {
        event_size: header.event_size,
        reached: header.tail_before(),
        whole: header.tail_before(),
        tail: header.tail_before(),
        data_end: header.data_start(),
        ..Look::default()
    };
    let mut told = 0;
    let limit = catalog.limit_in(segment, header);
    let surveyed: Result<(), ToolError> = survey(header, &mut bytes, limit, &mut |seen, _| {
        if let Seen::Mark { at, .. } = &seen
            && *at > told + PIECE_BYTES as u64
        {
            tell(*at - told);
            told = *at;
        }
        look.see(seen);
        Ok(())
    });
    surveyed?;
    let junk_from = look.faults.first().map_or(look.data_end, |fault| fault.at);
    let is_live = catalog
        .durable_end
        .is_some_and(|end| end.segment <= segment.id);
    if !is_live {
        look.junk_end = last_nonzero(&open()?, junk_from, header.data_limit(), &name)?;
        if segment.footer.is_none() {
            let end = last_nonzero(&open()?, header.data_limit(), header.segment_bytes, &name)?;
            look.has_footer_junk = end.is_some();
        }
    }
    look.index_note = index_note(storage, segment, header);
    tell(segment.length.saturating_sub(told));
    Ok(Some(look))
}

impl Look {
    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Mark { at, mark } => {
                self.groups += 1;
                self.group = Some((at, at + HEADER_BYTES as u64 + mark.length));
                if !self.faults.is_empty() && self.marks_behind.len() < FINDINGS_MAX {
                    self.marks_behind.push(mark);
                }
            }
            Seen::Frame { at, header } => {
                if self.frames == 0 {
                    self.first_time_ns = header.time_ns;
                }
                self.frames += 1;
                self.events += u64::from(header.count);
                if self.faults.is_empty() {
                    self.reached = self.reached.behind(&header);
                    if self
                        .group
                        .is_some_and(|(_, end)| end <= at + header.stored_bytes(self.event_size))
                    {
                        self.whole = self.reached;
                    }
                }
            }
            Seen::Fault {
                at,
                group_at,
                fault,
                expected,
            } => {
                let group = self.group.filter(|(mark_at, _)| *mark_at == group_at);
                let group_end = group.map(|(_, end)| end);
                if self.faults.len() < FINDINGS_MAX {
                    self.faults.push(LookFault {
                        at,
                        group_at,
                        group_end,
                        fault,
                        expected,
                        resumes: None,
                    });
                } else {
                    self.untold += 1;
                }
            }
            Seen::Resumed { at, position } => {
                if let Some(last) = self.faults.last_mut() {
                    last.resumes.get_or_insert((at, position));
                }
            }
            Seen::End { at, tail } => {
                self.data_end = at;
                self.tail = tail;
            }
        }
    }
}

/// Behind the last byte between `from` and `to` that is not zero. A bad sector is not zero.
fn last_nonzero<F: File>(
    file: &F,
    from: u64,
    to: u64,
    name: &str,
) -> Result<Option<u64>, ToolError> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut last = None;
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        let read = match file.read_at(&mut piece[..wanted], at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                piece[..wanted].fill(0xbd);
                wanted
            }
            Err(error) => return Err(failed("reading", name)(error)),
        };
        if !is_zero(&piece[..read]) {
            let inside = piece[..read]
                .iter()
                .rposition(|&byte| byte != 0)
                .unwrap_or(0);
            last = Some(at + inside as u64 + 1);
        }
        at += read as u64;
    }
    Ok(last)
}

fn index_note<S: Storage>(
    storage: &S,
    segment: &CatalogSegment,
    header: &SegmentHeader,
) -> Option<&'static str> {
    segment.footer?;
    match read_whole(storage, &segment.id.index_name(), 1 << 30) {
        Err(_) => Some("it is missing: seeks in this segment are slower until it is rebuilt"),
        Ok(bytes) => match SparseIndex::decode(&bytes, &header.journal_id, segment.id) {
            None => Some("it does not hold and is not used: seeks in this segment are slower"),
            Some(_) => None,
        },
    }
}

impl Report {
    fn add(&mut self, finding: Finding) {
        self.verdict = self.verdict.max(match finding.severity {
            Severity::Note => Verdict::Clean,
            Severity::Torn => Verdict::TornTail,
            Severity::Corrupt => Verdict::Corrupt,
        });
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.untold += 1;
        }
    }

    fn corrupt(&mut self, file: String, offset: Option<u64>, what: String, help: Vec<Help>) {
        let (offset, position, resumes) = (offset.map(Offset), None, None);
        let severity = Severity::Corrupt;
        self.add(Finding {
            severity,
            file,
            offset,
            position,
            what,
            resumes,
            help,
        });
    }

    fn snapshots<S: Storage>(&mut self, storage: &S, threads: usize) -> Result<(), ToolError> {
        let snapshots = Snapshots::new(storage.clone());
        let listed = snapshots.list().map_err(snapshot_error)?;
        for one in listed {
            match snapshots.verify(one.position, threads) {
                Ok(manifest) => {
                    self.bytes += manifest.stored_bytes();
                    self.snapshots.push(one.position);
                }
                Err(error) => self.corrupt(
                    format!("{DIRECTORY}/{:020}", one.position),
                    None,
                    error.to_string(),
                    vec![Help::RemoveSnapshot(one.position)],
                ),
            }
        }
        Ok(())
    }

    fn note(&mut self, file: &str, what: String) {
        let (offset, position, resumes, help) = (None, None, None, Vec::new());
        let (severity, file) = (Severity::Note, file.to_owned());
        self.add(Finding {
            severity,
            file,
            offset,
            position,
            what,
            resumes,
            help,
        });
    }

    fn meta(&mut self, catalog: &Catalog) {
        if let Some(holder) = &catalog.in_use {
            let end = catalog
                .durable_end
                .map_or_else(String::new, |end| format!(", up to {end}"));
            self.note(
                LOCK,
                format!("in use by {holder}: only what is durable was looked at{end}"),
            );
        }
        match &catalog.meta {
            MetaFound::Slot(slot) => {
                if let Some(intent) = slot.cut_intent() {
                    let position = intent.reached.position;
                    self.note(
                        META,
                        format!(
                            "a cut at position {position} was decided: the next open finishes it"
                        ),
                    );
                }
            }
            MetaFound::Missing => {
                let what = "expected journal.meta beside the segments, found none: it says what was durable";
                self.corrupt(META.to_owned(), None, what.to_owned(), vec![Help::Salvage]);
            }
            MetaFound::Damaged => {
                let what = "expected a slot that holds, found none of the two";
                self.corrupt(
                    META.to_owned(),
                    Some(0),
                    what.to_owned(),
                    vec![Help::Salvage],
                );
            }
            MetaFound::Future(found) => {
                let what = format!(
                    "format {found}, this version reads format {FORMAT}: use the version that wrote it"
                );
                self.corrupt(META.to_owned(), Some(8), what, Vec::new());
            }
        }
    }

    /// The log must begin at its beginning, or at or before a snapshot.
    fn beginning(&mut self, catalog: &Catalog) {
        let Some((first, header)) = catalog
            .segments
            .iter()
            .find_map(|one| Some((one, one.header.as_ref().ok()?)))
        else {
            return;
        };
        let (begins, start) = match &catalog.meta {
            MetaFound::Slot(slot) => (slot.first_segment(), slot.start().reached.position),
            MetaFound::Missing | MetaFound::Damaged | MetaFound::Future(_) => {
                (SegmentId(0), Position(0))
            }
        };
        if first.id > begins {
            let missing = (begins.0..first.id.0).map(SegmentId);
            let what = format!(
                "expected {} to be the first, found {}: a segment is missing",
                begins.file_name(),
                first.id.file_name()
            );
            let help = missing.take(8).map(Help::RestoreSegment).collect();
            self.corrupt(begins.file_name(), None, what, help);
            return;
        }
        let at = Position(header.first_position);
        let is_covered = at <= start || self.snapshots.iter().any(|&snapshot| snapshot >= at);
        if is_covered || !self.has_snapshots {
            return;
        }
        let what = format!(
            "expected a log that begins at position {start} or at a snapshot, found one that begins at {at}: \
             what is before it was given up, and no snapshot that loads replaces it"
        );
        let missing = first
            .id
            .0
            .checked_sub(1)
            .map(|id| Help::RestoreSegment(SegmentId(id)));
        self.corrupt(
            first.id.file_name(),
            Some(0),
            what,
            missing.into_iter().collect(),
        );
    }

    fn segments(&mut self, catalog: &Catalog, looks: &[Option<Look>], known: &Known) {
        let is_used = |(segment, look): (&CatalogSegment, &Option<Look>)| {
            segment.header.is_ok() || look.as_ref().is_some_and(|look| look.junk_end.is_some())
        };
        let used = catalog.segments.iter().zip(looks).rposition(is_used);
        let mut before: Option<(SegmentId, Option<Tail>)> = None;
        for (number, (segment, look)) in catalog.segments.iter().zip(looks).enumerate() {
            let name = segment.id.file_name();
            self.numbering(before, segment.id);
            let header = match &segment.header {
                Ok(header) => header,
                Err(_) if used.is_none_or(|used| number > used) => {
                    before = Some((segment.id, None));
                    continue;
                }
                Err(fault) => {
                    let tail = before.and_then(|(_, tail)| tail).unwrap_or_default();
                    match look {
                        Some(look) if used == Some(number) => {
                            self.headless(segment.id, *fault, look, &tail, known);
                        }
                        Some(_) | None => self.no_header(segment.id, *fault, ""),
                    }
                    before = Some((segment.id, None));
                    continue;
                }
            };
            if let Err(fault) = &segment.schema {
                let help = vec![Help::RestoreSegment(segment.id)];
                self.corrupt(name.clone(), Some(4096), fault.to_string(), help);
            }
            if !segment.is_padded {
                let what = "expected zeros behind the descriptor, found others: nobody reads them";
                self.note(&name, what.to_owned());
            }
            if header.segment_id != segment.id.0 {
                let what = format!(
                    "expected segment {}, found {}",
                    segment.id, header.segment_id
                );
                self.corrupt(
                    name.clone(),
                    Some(0),
                    what,
                    vec![Help::RestoreSegment(segment.id)],
                );
            }
            if let Some((_, Some(tail))) = before {
                self.continuity(segment.id, &tail, header);
            }
            let tail = match look {
                Some(look) => {
                    let is_last = used == Some(number);
                    self.segment(segment, header, look, is_last, known);
                    Some(look.tail)
                }
                None => segment.footer.map(|footer| footer.summary().tail),
            };
            before = Some((segment.id, tail));
        }
    }

    fn no_header(&mut self, id: SegmentId, fault: BlockFault, why: &str) {
        let what = format!("expected a segment's header, found {fault}{why}");
        self.corrupt(
            id.file_name(),
            Some(0),
            what,
            vec![Help::RestoreSegment(id), Help::Salvage],
        );
    }

    /// The newest segment without a header: its first write was in flight, or it is damaged.
    fn headless(
        &mut self,
        id: SegmentId,
        fault: BlockFault,
        look: &Look,
        before: &Tail,
        known: &Known,
    ) {
        let room = data_start(DESCRIPTOR_BYTES_MAX as u64) + known.window_bytes;
        let x = Suspected {
            segment: id,
            from: 0,
            here: before.reached,
        };
        let seen = Behind {
            at: 0,
            fault: None,
            end: look.junk_end,
            marks: &look.marks_behind,
            window_bytes: room,
        };
        match known.against(&x, &seen) {
            Some(evidence) => self.no_header(id, fault, &format!("; {evidence}")),
            None => {
                let end = look.junk_end.unwrap_or(0);
                self.add(torn(id, 0, end, before.reached.position));
            }
        }
    }

    fn numbering(&mut self, before: Option<(SegmentId, Option<Tail>)>, id: SegmentId) {
        let Some((last, _)) = before else { return };
        if last.next() == id {
            return;
        }
        let missing = (last.0 + 1)..id.0;
        let what = format!(
            "expected {} behind {}, found {}: {} missing",
            last.next().file_name(),
            last.file_name(),
            id.file_name(),
            if missing.end - missing.start == 1 {
                "a segment is".to_owned()
            } else {
                format!("{} segments are", missing.end - missing.start)
            }
        );
        let help = missing
            .take(8)
            .map(|id| Help::RestoreSegment(SegmentId(id)));
        self.corrupt(
            last.next().file_name(),
            None,
            what,
            help.chain([Help::Salvage]).collect(),
        );
    }

    fn continuity(&mut self, id: SegmentId, tail: &Tail, header: &SegmentHeader) {
        let found = header.tail_before();
        if (tail.reached, tail.chain) == (found.reached, found.chain) {
            return;
        }
        let what = format!(
            "expected it to go on at position {} behind {} frames with chain {:08x}, found position {} \
             behind {} frames with {:08x}",
            tail.reached.position,
            tail.reached.frames,
            tail.chain,
            found.reached.position,
            found.reached.frames,
            found.chain
        );
        self.corrupt(id.file_name(), Some(0), what, vec![Help::Salvage]);
    }

    fn segment(
        &mut self,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        look: &Look,
        is_last: bool,
        known: &Known,
    ) {
        self.groups += look.groups;
        self.frames += look.frames;
        self.events += look.events;
        self.untold += look.untold;
        self.to = self.to.max(look.tail.reached.position);
        if let Some(what) = look.index_note {
            self.note(&segment.id.index_name(), what.to_owned());
        }
        match &segment.footer {
            Some(footer) => self.sealed(segment, header, footer, look),
            None if is_last => self.last(segment, header, look, known),
            None => self.unsealed(segment, header, look),
        }
        if look.has_footer_junk {
            let name = segment.id.file_name();
            self.note(
                &name,
                "its footer does not hold: the next open writes it anew from the frames".to_owned(),
            );
        }
    }

    /// A full segment whose seal a crash has prevented: opening seals it, if all of it holds.
    fn unsealed(&mut self, segment: &CatalogSegment, header: &SegmentHeader, look: &Look) {
        self.faults(segment, look);
        let name = segment.id.file_name();
        if segment.length != header.segment_bytes {
            let what = format!(
                "expected {} bytes, found {}",
                header.segment_bytes, segment.length
            );
            let help = vec![Help::RestoreSegment(segment.id), Help::Salvage];
            self.corrupt(name, None, what, help);
        } else if let (Some(end), true) = (look.junk_end, look.faults.is_empty()) {
            let what =
                format!("expected zeros behind the last group, found others up to offset {end}");
            self.corrupt(
                name,
                Some(look.data_end),
                what,
                vec![Help::RestoreSegment(segment.id)],
            );
        } else if !look.has_footer_junk {
            self.note(
                &name,
                "it is full and has no footer yet: the next open seals it".to_owned(),
            );
        }
    }

    fn sealed(
        &mut self,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        footer: &SegmentFooter,
        look: &Look,
    ) {
        self.faults(segment, look);
        let name = || segment.id.file_name();
        if segment.length != header.segment_bytes {
            let what = format!(
                "expected {} bytes, found {}",
                header.segment_bytes, segment.length
            );
            self.corrupt(name(), None, what, vec![Help::RestoreSegment(segment.id)]);
        }
        if !look.faults.is_empty() {
            return;
        }
        let expected = footer.summary();
        if look.data_end != expected.data_end
            || look.tail != expected.tail
            || look.groups != expected.groups
        {
            let what = format!(
                "expected what the footer says: {} groups up to offset {} and position {} with chain {:08x}, \
                 found {} up to {} and {} with {:08x}",
                expected.groups,
                expected.data_end,
                expected.tail.reached.position,
                expected.tail.chain,
                look.groups,
                look.data_end,
                look.tail.reached.position,
                look.tail.chain
            );
            let help = vec![Help::RestoreSegment(segment.id), Help::Salvage];
            self.corrupt(name(), Some(look.data_end), what, help);
        } else if let Some(end) = look.junk_end {
            let what =
                format!("expected zeros behind the last group, found others up to offset {end}");
            self.corrupt(
                name(),
                Some(look.data_end),
                what,
                vec![Help::RestoreSegment(segment.id)],
            );
        }
    }

    fn faults(&mut self, segment: &CatalogSegment, look: &Look) {
        for fault in &look.faults {
            let finding = damage(segment.id, fault, fault.fault.to_string());
            self.add(finding);
        }
    }

    /// The end of the log: clean, torn or corrupt (the table above).
    fn last(
        &mut self,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        look: &Look,
        known: &Known,
    ) {
        let (at, expected) = match look.faults.first() {
            Some(first) => (first.group_at, first.expected),
            None => (look.data_end, look.tail.reached.position),
        };
        let junk_end = look.junk_end.filter(|&end| end > at);
        let first = look.faults.first();
        // Only a fault behind a group's mark leaves that mark to say how long the group is.
        let group_length = first
            .filter(|first| first.at != first.group_at)
            .and_then(|first| Some(first.group_end? - first.group_at - HEADER_BYTES as u64));
        let x = Suspected {
            segment: segment.id,
            from: at,
            here: look.whole.reached,
        };
        let seen = Behind {
            at: first.map_or(at, |first| first.at),
            fault: first.map(|first| first.fault),
            end: junk_end,
            marks: &look.marks_behind,
            window_bytes: window_bytes(header, known.window_bytes, group_length, false),
        };
        match (known.against(&x, &seen), junk_end) {
            (None, None) => {}
            (None, Some(end)) => self.add(torn(segment.id, at, end, expected)),
            (Some(why), _) => match look.faults.first() {
                Some(first) => {
                    let what = format!("{}; {why}", first.fault);
                    self.add(damage(segment.id, first, what));
                    for fault in &look.faults[1..] {
                        self.add(damage(segment.id, fault, fault.fault.to_string()));
                    }
                }
                None => {
                    let what = match junk_end {
                        Some(end) => {
                            format!("expected zeros, found others up to offset {end}; {why}")
                        }
                        None => format!("expected the log to go on, found zeros; {why}"),
                    };
                    let fault = Fault::Missing { durable: expected };
                    let fault = LookFault {
                        at,
                        group_at: at,
                        group_end: None,
                        fault,
                        expected,
                        resumes: None,
                    };
                    self.add(damage(segment.id, &fault, what));
                }
            },
        }
    }
}

fn torn(segment: SegmentId, at: u64, end: u64, position: Position) -> Finding {
    let bytes = end - at;
    Finding {
        severity: Severity::Torn,
        file: segment.file_name(),
        offset: Some(Offset(at)),
        position: Some(position),
        what: format!(
            "the write in flight when the power went: {bytes} bytes up to offset {end} that were never \
             acknowledged"
        ),
        resumes: None,
        help: vec![Help::Open],
    }
}

fn damage(segment: SegmentId, fault: &LookFault, what: String) -> Finding {
    let place = |(at, position)| {
        (
            Place {
                segment,
                offset: Offset(at),
            },
            position,
        )
    };
    Finding {
        severity: Severity::Corrupt,
        file: segment.file_name(),
        offset: Some(Offset(fault.at)),
        position: Some(fault.expected),
        what,
        resumes: fault.resumes.map(place),
        help: vec![
            Help::RestoreSegment(segment),
            Help::TruncateAt(fault.expected),
            Help::Salvage,
        ],
    }
}

//! What a survey of each segment finds, several at a time.

use std::sync::{Mutex, PoisonError};

use super::{FINDINGS_MAX, PIECE_BYTES, VerifyOptions};
use crate::directory::MetaFound;
use crate::frame::{GroupMark, HEADER_BYTES};
use crate::index::SparseIndex;
use crate::position::Position;
use crate::scan::{Bytes, Fault, Window};
use crate::segment::{SegmentHeader, Tail, is_zero, salt};
use crate::storage::{File, Open, Storage};
use crate::tools::survey::{Seen, next_mark, survey};
use crate::tools::{Catalog, CatalogSegment, ToolError, failed, read_whole};

/// What a survey of one segment found.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) groups: u64,
    pub(super) frames: u64,
    pub(super) events: u64,
    pub(super) faults: Vec<LookFault>,
    pub(super) untold: usize,
    /// Behind the group that is being looked at, and where its mark is.
    pub(super) group: Option<(u64, u64)>,
    /// Marks behind the first fault.
    pub(super) marks_behind: Vec<GroupMark>,
    pub(super) event_size: u32,
    /// Behind the last frame, and the last whole group, before the first fault.
    pub(super) reached: Tail,
    pub(super) whole: Tail,
    pub(super) tail: Tail,
    pub(super) data_end: u64,
    pub(super) first_time_ns: u64,
    /// Behind the last byte that is not zero, from the first thing that does not hold on.
    pub(super) junk_end: Option<u64>,
    /// There is no footer, and something in its place.
    pub(super) has_footer_junk: bool,
    /// The index beside it holds, or is missing though it should be there.
    pub(super) index_note: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct LookFault {
    pub(super) at: u64,
    pub(super) group_at: u64,
    pub(super) group_end: Option<u64>,
    pub(super) fault: Fault,
    pub(super) expected: Position,
    pub(super) resumes: Option<(u64, Position)>,
}

/// Surveys the segments, several at a time; `None` for one that was not looked at.
pub(super) fn look_at_all<S: Storage>(
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

//! What the findings come to: the segments against one another, the beginning, the end.

use super::look::{Look, LookFault};
use super::{
    Behind, FINDINGS_MAX, Finding, Help, Known, Report, Severity, Verdict, snapshot_error,
};
use crate::directory::{LOCK, META, MetaFound};
use crate::frame::HEADER_BYTES;
use crate::position::{Offset, Position, SegmentId};
use crate::recovery::evidence::{Suspected, window_bytes};
use crate::scan::Fault;
use crate::schema::DESCRIPTOR_BYTES_MAX;
use crate::segment::{BlockFault, FORMAT, Place, SegmentFooter, SegmentHeader, Tail, data_start};
use crate::snapshots::{DIRECTORY, Snapshots};
use crate::storage::Storage;
use crate::tools::{Catalog, CatalogSegment, ToolError};

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
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

    pub(super) fn corrupt(
        &mut self,
        file: String,
        offset: Option<u64>,
        what: String,
        help: Vec<Help>,
    ) {
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

    pub(super) fn snapshots<S: Storage>(
        &mut self,
        storage: &S,
        threads: usize,
    ) -> Result<(), ToolError> {
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

    pub(super) fn note(&mut self, file: &str, what: String) {
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

    pub(super) fn meta(&mut self, catalog: &Catalog) {
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
    pub(super) fn beginning(&mut self, catalog: &Catalog) {
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

    pub(super) fn segments(&mut self, catalog: &Catalog, looks: &[Option<Look>], known: &Known) {
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
        let newest = used.map(|used| &catalog.segments[used]);
        if let Some((newest, Some(footer))) = newest.map(|one| (one, &one.footer)) {
            self.behind_a_seal(newest, footer, known);
        }
    }

    /// The newest segment that holds anything is sealed: the next one may be fresh, or all of it is lost.
    fn behind_a_seal(&mut self, newest: &CatalogSegment, footer: &SegmentFooter, known: &Known) {
        let Ok(header) = &newest.header else { return };
        let (next, here) = (newest.id.next(), footer.summary().tail.reached);
        let x = Suspected {
            segment: next,
            from: 0,
            here,
        };
        let seen = Behind {
            at: 0,
            fault: None,
            end: None,
            marks: &[],
            window_bytes: window_bytes(header, known.window_bytes, None, false),
        };
        let Some(why) = known.against(&x, &seen) else {
            return;
        };
        let expected = here.position;
        self.add(Finding {
            severity: Severity::Corrupt,
            file: next.file_name(),
            offset: None,
            position: Some(expected),
            what: format!("expected the log to go on there, found nothing of it; {why}"),
            resumes: None,
            help: vec![
                Help::RestoreSegment(next),
                Help::TruncateAt(expected),
                Help::Salvage,
            ],
        });
    }

    pub(super) fn no_header(&mut self, id: SegmentId, fault: BlockFault, why: &str) {
        let what = format!("expected a segment's header, found {fault}{why}");
        self.corrupt(
            id.file_name(),
            Some(0),
            what,
            vec![Help::RestoreSegment(id), Help::Salvage],
        );
    }

    /// The newest segment without a header: its first write was in flight, or it is damaged.
    pub(super) fn headless(
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

    pub(super) fn numbering(&mut self, before: Option<(SegmentId, Option<Tail>)>, id: SegmentId) {
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

    pub(super) fn continuity(&mut self, id: SegmentId, tail: &Tail, header: &SegmentHeader) {
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

    pub(super) fn segment(
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
    pub(super) fn unsealed(
        &mut self,
        segment: &CatalogSegment,
        header: &SegmentHeader,
        look: &Look,
    ) {
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

    pub(super) fn sealed(
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

    pub(super) fn faults(&mut self, segment: &CatalogSegment, look: &Look) {
        for fault in &look.faults {
            let finding = damage(segment.id, fault, fault.fault.to_string());
            self.add(finding);
        }
    }

    /// The end of the log: clean, torn or corrupt (the table above).
    pub(super) fn last(
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

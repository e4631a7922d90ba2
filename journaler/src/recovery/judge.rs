//! Following the segments to the first place that does not hold, and the verdict on it:
//! the table of `recovery.rs`, in code.

use crate::directory::{MetaSlot, Watermark, hex};
use crate::error::{Corruption, Damage, Evidence, IoFault, OpenError, Survivors};
use crate::frame::{FrameHeader, GroupMark, HEADER_BYTES};
use crate::options::{Mode, Options, Verify};
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::scan::{Bytes, Fault, Step, Survey, Walk, Window, find_mark, last_data, survey};
use crate::schema::Schema;
use crate::segment::{
    BLOCK, BLOCK_BYTES, BlockFault, FORMAT, Place, SegmentFooter, SegmentHeader, Summary, Tail,
    data_start, salt,
};
use crate::storage::{File, Open, Storage};

use super::Content;
use super::evidence::{Beside, Suspected, beyond_window, of_fault, says_durable, window_bytes};

/// What is known beside the segments.
pub(super) struct Known<'a> {
    pub(super) slot: &'a MetaSlot,
    pub(super) watermark: Option<Watermark>,
    pub(super) beside: Beside,
    pub(super) options: &'a Options,
}

/// What the segments led to.
pub(super) struct Followed {
    pub(super) oldest: Position,
    pub(super) active: Option<Content>,
    /// Of the newest segment that was begun.
    pub(super) newest: Option<SegmentHeader>,
    /// Up to where `active` was durable, by its last mark.
    pub(super) durable_at: u64,
    pub(super) next_id: SegmentId,
    pub(super) has_blank: bool,
    pub(super) torn: Option<TornPlan>,
    pub(super) surplus: Vec<SegmentId>,
}

/// A torn tail that is to be cut.
pub(super) struct TornPlan {
    pub(super) segment: SegmentId,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) position: Position,
    pub(super) fault: Option<Fault>,
}

/// Follows the segments, oldest first, and gives the verdict.
pub(super) struct Judge<'a, S> {
    pub(super) storage: &'a S,
    pub(super) known: Known<'a>,
    pub(super) tail: Tail,
    pub(super) unsealed: Vec<Content>,
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
    pub(super) fn follow(&mut self, ids: &[SegmentId]) -> Result<Followed, OpenError> {
        self.check_ids(ids)?;
        let mut followed = Followed {
            oldest: self.tail.reached.position,
            active: None,
            newest: None,
            durable_at: 0,
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
            followed.newest = Some(header);
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
            durable_at,
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
        followed.durable_at = durable_at;
        followed.active = Some(Content {
            header,
            summary,
            index,
        });
        Ok(())
    }

    fn suspect(&self, header: &SegmentHeader, summary: &Summary, stop: Step) -> Suspect {
        let (at, fault, group_at) = match stop {
            Step::Fault {
                at,
                group_at,
                fault,
            } => (at, Some(fault), (at != group_at).then_some(group_at)),
            Step::End { at } | Step::Mark { at, .. } | Step::Frame { at, .. } => (at, None, None),
        };
        let group_length = group_at.and_then(|at| self.group_length(header, at));
        let is_async = matches!(self.known.options.mode, Mode::Async { .. });
        let slot_window = self.known.slot.window_bytes;
        let window = window_bytes(header, slot_window, group_length, is_async);
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

    /// Of the group whose mark is there, if it holds.
    fn group_length(&self, header: &SegmentHeader, group_at: u64) -> Option<u64> {
        let mut bytes = self.bytes(SegmentId(header.segment_id)).ok()?;
        let line = bytes.get(group_at, HEADER_BYTES).ok()?;
        let line = line.first_chunk::<HEADER_BYTES>()?;
        Some(GroupMark::decode(line, header.salt(), group_at)?.length)
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
        let x = suspect.suspected(self.tail.reached);
        if let Some(evidence) = self.known.beside.against(&x, is_bad) {
            return Err(self.corrupt(suspect.clone_for_report(evidence), evidence, bytes));
        }
        let Some(last) = last else { return Ok(None) };
        let behind = self.evidence_behind(suspect, &x, last, bytes);
        if let Some(evidence) = behind.map_err(read)? {
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

    /// Evidence behind X in the segment.
    fn evidence_behind(
        &self,
        suspect: &Suspect,
        x: &Suspected,
        last: u64,
        bytes: &mut Bytes<S::File>,
    ) -> std::io::Result<Option<Evidence>> {
        let place = |offset| Place {
            segment: suspect.segment,
            offset: Offset(offset),
        };
        let range =
            suspect.from + HEADER_BYTES as u64..(last + 1).next_multiple_of(64).min(suspect.limit);
        if let Some(evidence) = of_fault(suspect.fault, suspect.segment, suspect.at) {
            return Ok(Some(evidence));
        }
        let says_so = |mark: &GroupMark| says_durable(mark, x);
        if let Some(mark) = find_mark(bytes, suspect.salt, range.clone(), says_so)? {
            return Ok(Some(Evidence::LaterMark(place(mark.at))));
        }
        if self.known.options.mutations.frames_are_evidence
            && let Some(at) = find_frame(bytes, range)?
        {
            return Ok(Some(Evidence::LaterMark(place(at))));
        }
        Ok(beyond_window(suspect.from, suspect.window, last))
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
    /// As the judgement asks, behind the last whole group.
    fn suspected(&self, here: Reached) -> Suspected {
        Suspected {
            segment: self.segment,
            from: self.from,
            here,
        }
    }

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

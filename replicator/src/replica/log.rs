//! The frames of one node: in memory until they are written, in the journal for ever.
//!
//! ```text
//!   journal ──────────────────────┤ written                 tail
//!   recent            ├───────────┼─────────────────────────┤   for sending again, newest kept
//!   waiting                       ├─────────────────────────┤   to be written by the next turn
//! ```
//!
//! # Invariants
//!
//! * `LG1` `waiting` begins where the journal ends, and ends at `tail`.
//! * `LG2` `recent` ends at `tail` and holds at least everything that is not durable: a reader of the
//!   journal has the rest.
//! * `LG3` A frame is taken only behind the one it chains to.

use std::collections::{BTreeMap, VecDeque};

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{
    Frame, FrameDraft, FrameHeader, FrameKind, From, Journal, Poisoned, Position, Reader, Tail,
    Term, WriteError,
};

use super::error::Fatal;
use crate::consensus::{NewEntry, Origin, Row};
use crate::ids::NodeId;
use crate::wire::SharedFrame;

/// The frames, in memory and in the journal.
pub(super) struct Log<S: Storage> {
    pub(super) journal: Journal<S>,
    pub(super) tail: Tail,
    waiting: VecDeque<SharedFrame>,
    recent: VecDeque<SharedFrame>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    group_bytes_max: u64,
    /// Of the message or the proposal that is being stepped.
    pub(super) arrived: Vec<SharedFrame>,
    behind: BTreeMap<NodeId, Behind<S>>,
    pub(super) cuts: u64,
    /// For the simulator to notice: descriptors are written, and the events are not.
    pub(super) loses_events: bool,
}

/// A reader for a peer that is sent what is no longer in memory.
struct Behind<S: Storage> {
    next: u64,
    reader: Reader<S>,
}

impl<S: Storage> Log<S> {
    pub(super) fn new(journal: Journal<S>, recent_bytes_max: usize, group_bytes_max: u64) -> Self {
        let tail = *journal.tail();
        Log {
            journal,
            tail,
            waiting: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max,
            group_bytes_max,
            arrived: Vec::new(),
            behind: BTreeMap::new(),
            cuts: 0,
            loses_events: false,
        }
    }

    /// The entry's frame goes behind the log, which is cut back first where it has the index already.
    pub(super) fn append(&mut self, entry: &NewEntry) -> Result<Row, Fatal> {
        if self.tail.index > entry.before.index {
            self.cut_back(&entry.before)?;
        }
        let arrived = self
            .arrived
            .iter()
            .find(|frame| (frame.header().index, frame.header().term) == (entry.index, entry.term));
        let frame = match (arrived, entry.origin) {
            (Some(frame), _) => frame.clone(),
            (None, Origin::NoOp) => empty(entry, FrameKind::NoOp),
            (None, Origin::LeaveJoint) => empty(entry, FrameKind::LeaveJoint),
            (None, Origin::Frame) => {
                return Err(Fatal::NoFrame {
                    index: entry.index,
                    term: entry.term,
                });
            }
        };
        let header = *frame.header();
        self.tail = self.tail.behind(&header);
        self.recent_bytes += frame.bytes().len();
        self.waiting.push_back(if self.loses_events {
            SharedFrame::new(header, [&vec![0; frame.body().len()], &[]])
        } else {
            frame.clone()
        });
        self.recent.push_back(frame);
        Ok(Row::of(&header))
    }

    fn cut_back(&mut self, to: &Tail) -> Result<(), Fatal> {
        let is_behind = |frame: Option<&SharedFrame>| {
            frame.is_some_and(|frame| frame.header().index > to.index)
        };
        // Ends: each turn takes one away.
        while is_behind(self.waiting.back()) {
            self.waiting.pop_back();
        }
        while is_behind(self.recent.back()) {
            let gone = self.recent.pop_back();
            self.recent_bytes -= gone.map_or(0, |frame| frame.bytes().len());
        }
        if self.journal.tail().index > to.index {
            self.journal.cut_back(to.reached)?;
        }
        self.behind.clear();
        self.tail = *to;
        self.cuts += 1;
        Ok(())
    }

    /// Segments are about to leave: whoever is read for is sought anew.
    pub(super) fn leave_readers(&mut self) {
        self.behind.clear();
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes everything that waits; `false` if there is no room for all of it.
    pub(super) fn write(&mut self) -> Result<bool, Fatal> {
        // Ends: each turn writes a group, or returns.
        while !self.waiting.is_empty() {
            let group = group_of(&self.waiting, self.group_bytes_max);
            let count = group.len();
            match self.journal.write(&group) {
                Ok(_) => drop(self.waiting.drain(..count)),
                Err(WriteError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    pub(super) fn sync(&mut self) -> Result<(), Poisoned> {
        self.journal.sync()?;
        self.trim();
        Ok(())
    }

    /// Lets go of what is durable and more than is kept (`LG2`).
    pub(super) fn trim(&mut self) {
        let durable = self.journal.progress().durable().frames;
        let is_enough = self.recent_bytes_max;
        // Ends: each turn takes one away.
        while self.recent_bytes > is_enough {
            let oldest = self.recent.front();
            if oldest.is_none_or(|frame| frame.header().index > durable) {
                return;
            }
            let gone = self.recent.pop_front();
            self.recent_bytes -= gone.map_or(0, |frame| frame.bytes().len());
        }
    }

    /// The frame with this index, from memory or from the journal.
    pub(super) fn frame(&mut self, index: u64) -> Result<SharedFrame, Fatal> {
        if let Some(frame) = self.in_memory(index) {
            return Ok(frame);
        }
        let mut reader = self.journal.reader(From::Frame(index - 1))?;
        next_frame(&mut reader, index)
    }

    fn in_memory(&self, index: u64) -> Option<SharedFrame> {
        let first = self.recent.front()?.header().index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.recent.get(at).cloned()
    }

    /// So many frames from this index on, for a peer, but no more bytes than this (and one at least).
    pub(super) fn frames_for(
        &mut self,
        peer: NodeId,
        first: u64,
        count: u64,
        bytes_max: usize,
    ) -> Result<Vec<SharedFrame>, Fatal> {
        let mut frames: Vec<SharedFrame> = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        let mut bytes = 0;
        for index in first..first + count {
            let frame = match self.in_memory(index) {
                Some(frame) => frame,
                None => self.read_for(peer, index)?,
            };
            bytes += frame.bytes().len();
            if bytes > bytes_max && !frames.is_empty() {
                break;
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Peers that lag read on where they were, so that a segment is sought once.
    fn read_for(&mut self, peer: NodeId, index: u64) -> Result<SharedFrame, Fatal> {
        let mut behind = match self.behind.remove(&peer) {
            Some(behind) if behind.next == index => behind,
            Some(_) | None => Behind {
                next: index,
                reader: self.journal.reader(From::Frame(index - 1))?,
            },
        };
        let frame = next_frame(&mut behind.reader, index)?;
        behind.next = index + 1;
        self.behind.insert(peer, behind);
        Ok(frame)
    }
}

/// As many of the waiting frames as one write takes, and one at least.
fn group_of(waiting: &VecDeque<SharedFrame>, bytes_max: u64) -> Vec<Frame<'_>> {
    let mut group = Vec::with_capacity(waiting.len());
    let mut bytes = 0;
    for frame in waiting {
        let frame = Frame {
            header: frame.header(),
            body: [frame.body(), &[]],
        };
        bytes += frame.stored_bytes();
        if bytes > bytes_max && !group.is_empty() {
            break;
        }
        group.push(frame);
    }
    group
}

fn next_frame<S: Storage>(reader: &mut Reader<S>, index: u64) -> Result<SharedFrame, Fatal> {
    let Some(frame) = reader.next_frame()? else {
        return Err(Fatal::NotThere { index });
    };
    if frame.header().index != index {
        return Err(Fatal::NotThere { index });
    }
    Ok(SharedFrame::new(*frame.header(), [frame.body(), &[]]))
}

/// The frame of an entry that the consensus appended by itself.
fn empty(entry: &NewEntry, kind: FrameKind) -> SharedFrame {
    let draft = FrameDraft {
        time_ns: entry.before.time_ns,
        term: Term(entry.term),
        index: entry.index,
        commit: entry.commit,
        schema_version: 0,
        kind: kind as u8,
        flags: 0,
    };
    let at = Position(entry.before.reached.position.0);
    let header = FrameHeader::seal(&draft, at, 0, [&[], &[]], entry.before.chain);
    SharedFrame::new(header, [&[], &[]])
}

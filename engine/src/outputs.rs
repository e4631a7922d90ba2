//! Where the logic writes what it has to say: straight into the slots of the output ring.
//!
//! ```text
//!   claimed slots   │ event 7's │ event 8's │ event 9's …│ free      │   spill: what one
//!                   0           ▲mark                    ▲used             event has too many
//! ```
//!
//! # Invariants
//!
//! * `O1` Position and index name an output for ever: positions rise, and indexes count
//!   from 0 within one event.
//! * `O2` Nothing that an event wrote leaves before the event is done; what it wrote is
//!   taken back if it fails.

use std::fmt;

use lockstep_journaler::Position;

use crate::event::{Body, Kinds, Slot};
use crate::reject::Reject;
use crate::system::Rejected;

/// Takes the outputs of one event.
pub struct Outputs<'a, K: Kinds> {
    head: &'a mut [K::Slot],
    tail: &'a mut [K::Slot],
    spill: &'a mut Vec<K::Slot>,
    used: usize,
    /// Where this event's outputs begin.
    mark: usize,
    position: u64,
    time: u64,
    index: u32,
    code: u16,
}

impl<K: Kinds> fmt::Debug for Outputs<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs")
            .field("position", &self.position)
            .field("index", &self.index)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl<'a, K: Kinds> Outputs<'a, K> {
    /// Writes into these slots, and into `spill` when they are used up.
    pub(crate) fn new(
        head: &'a mut [K::Slot],
        tail: &'a mut [K::Slot],
        spill: &'a mut Vec<K::Slot>,
    ) -> Self {
        Self {
            head,
            tail,
            spill,
            used: 0,
            mark: 0,
            position: 0,
            time: 0,
            index: 0,
            code: 0,
        }
    }

    /// The next event is this one.
    #[inline]
    pub(crate) fn begin(&mut self, position: u64, time: u64) {
        self.mark = self.used;
        self.position = position;
        self.time = time;
        self.index = 0;
        self.code = 0;
    }

    /// Forgets what was written so far: the slots are used again.
    pub(crate) fn rewind(&mut self) {
        self.used = 0;
        self.mark = 0;
        self.spill.clear();
    }

    /// Takes back what the event wrote (`O2`).
    pub(crate) fn take_back(&mut self) {
        self.used = self.mark;
        self.index = 0;
        self.code = 0;
        self.spill.truncate(self.used.saturating_sub(self.room()));
    }

    /// Slots used, spilled ones too.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn room(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Claimed slots that are left.
    pub(crate) fn left(&self) -> usize {
        self.room().saturating_sub(self.used)
    }

    /// What was written since the last rewind.
    pub(crate) fn written(&self) -> impl Iterator<Item = &K::Slot> {
        let head = self.used.min(self.head.len());
        let tail = (self.used - head).min(self.tail.len());
        self.head[..head]
            .iter()
            .chain(&self.tail[..tail])
            .chain(self.spill.iter())
    }

    /// The code by which the event was refused, or 0.
    #[inline]
    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    /// Emits one output; the header is written by the engine.
    ///
    /// A body that is not among the logic's `Out` is refused by the compiler.
    #[inline]
    pub fn emit<B: Body>(&mut self, body: B) {
        const { assert_known(K::VERSIONS, B::KIND) };
        self.write(&body);
    }

    /// The same with flags in the header.
    #[inline]
    pub fn emit_with_flags<B: Body>(&mut self, flags: u8, body: B) {
        const { assert_known(K::VERSIONS, B::KIND) };
        self.write(&body).output_mut().flags = flags;
    }

    /// The next slot with its time, position and index, for those who write kind, version
    /// and body themselves. The body is what the slot held before.
    #[inline]
    pub fn next_slot(&mut self) -> &mut K::Slot {
        let at = self.used;
        self.used += 1;
        let (time, position, index) = (self.time, self.position, self.index);
        self.index += 1;
        let head = self.head.len();
        let slot = if at < head {
            &mut self.head[at]
        } else if at - head < self.tail.len() {
            &mut self.tail[at - head]
        } else {
            let at = self.spill.len();
            self.spill.push(bytemuck::Zeroable::zeroed());
            &mut self.spill[at]
        };
        let header = slot.output_mut();
        header.time = time;
        header.position = position;
        header.index = index;
        slot
    }

    /// Says that the event was refused after all. For logic that finds out while it looks
    /// things up: nothing may have been changed before.
    #[inline]
    pub fn refuse(&mut self, reject: Reject) {
        debug_assert!(reject.code != 0, "code 0 is accepted");
        self.code = reject.code;
    }

    /// Emits the engine's [`Rejected`] for this event.
    pub fn rejected(&mut self, event: &impl Slot, reject: Reject) {
        let header = event.header();
        self.write(&Rejected {
            session: header.session,
            request: header.request,
            event_kind: header.kind,
            code: reject.code,
        });
    }

    /// The position of the event.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// How many outputs the event has by now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.index
    }

    /// Writes a body of any kind, the engine's own too.
    #[inline]
    pub(crate) fn write<B: Body>(&mut self, body: &B) -> &mut K::Slot {
        let slot = self.next_slot();
        let header = slot.output_mut();
        header.kind = B::KIND;
        header.version = B::VERSION.to_le_bytes()[0];
        header.flags = 0;
        slot.set_body(body);
        slot
    }
}

const fn assert_known(versions: &[(u16, u16)], kind: u16) {
    let mut at = 0;
    while at < versions.len() {
        if versions[at].0 == kind {
            return;
        }
        at += 1;
    }
    panic!("this body is not among the kinds of the logic's Out")
}

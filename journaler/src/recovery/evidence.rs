//! What says that a byte was durable: one judgement, for opening and for `verify`.
//!
//! Both walk up to the first place X that does not hold; opening stops there, `verify` goes on to
//! say what else is damaged. What X means they ask here.
//!
//! # Invariants
//!
//! * `EV1` Evidence is only what was written when, or after, X was durable. A valid frame behind X
//!   is none: it may belong to X's own group, whose sectors land in any order.

use crate::directory::{DurableHint, MetaSlot, Watermark};
use crate::error::Evidence;
use crate::frame::{GroupMark, HEADER_BYTES};
use crate::options::Mode;
use crate::position::{Offset, Position, Reached, SegmentId};
use crate::scan::Fault;
use crate::segment::{BLOCK, Place, SegmentHeader};

/// The first byte of the group, or of the segment, that does not hold, and what holds before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspected {
    pub(crate) segment: SegmentId,
    pub(crate) from: u64,
    /// Behind the last whole group.
    pub(crate) here: Reached,
}

/// What is known beside the segments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside {
    hint: DurableHint,
    watermark: Option<Watermark>,
    is_closed: bool,
    snapshot: Option<Position>,
    acknowledged: Position,
}

impl Beside {
    /// Of `journal.meta`, the newest snapshot, and what whoever asks knows to be acknowledged.
    pub(crate) fn new(
        slot: &MetaSlot,
        watermark: Option<Watermark>,
        snapshot: Option<Position>,
        acknowledged: Position,
    ) -> Beside {
        Beside {
            hint: slot.durable(),
            // A cell of an earlier opening, or from before a cut, says nothing of this log.
            watermark: watermark
                .filter(|cell| cell.open_epoch == slot.open_epoch && slot.cut_intent().is_none()),
            is_closed: slot.is_clean(),
            snapshot,
            acknowledged,
        }
    }

    /// Only a snapshot, where `journal.meta` does not hold.
    pub(crate) fn of_snapshot(snapshot: Option<Position>) -> Beside {
        Beside {
            snapshot,
            ..Beside::default()
        }
    }

    /// Up to where the segment was durable, by the hint and the watermark; 0 if they say nothing of it.
    pub(crate) fn durable_in(&self, segment: SegmentId) -> u64 {
        let of = |place: (SegmentId, u64)| if place.0 == segment { place.1 } else { 0 };
        let cell = self.watermark.map(|cell| (cell.segment(), cell.offset().0));
        of((self.hint.segment, self.hint.offset)).max(cell.map_or(0, of))
    }

    /// Why X must have been durable, by what stands beside the segment. `is_bad`: there is something
    /// at X or behind it, and not only zeros.
    pub(crate) fn against(&self, x: &Suspected, is_bad: bool) -> Option<Evidence> {
        let here = x.here;
        let is_behind = |segment: SegmentId, offset: u64| segment == x.segment && offset > x.from;
        let hint = &self.hint;
        if hint.reached.frames > here.frames || is_behind(hint.segment, hint.offset) {
            return Some(Evidence::Hint(hint.reached.position));
        }
        if let Some(cell) = self.watermark
            && (cell.reached().frames > here.frames || is_behind(cell.segment(), cell.offset().0))
        {
            return Some(Evidence::Hint(cell.reached().position));
        }
        if self.is_closed && is_bad {
            return Some(Evidence::CleanShutdown);
        }
        if let Some(position) = self.snapshot.filter(|&position| position > here.position) {
            return Some(Evidence::Snapshot(position));
        }
        (self.acknowledged > here.position).then_some(Evidence::Known(self.acknowledged))
    }
}

/// Whether the mark of a later group says that X was durable.
pub(crate) fn says_durable(mark: &GroupMark, x: &Suspected) -> bool {
    mark.at > x.from && mark.durable_at > x.from
}

/// A whole mark of this file that does not continue what is before it: then what is before it is
/// not what was durable when it was written.
pub(crate) fn of_fault(fault: Option<Fault>, segment: SegmentId, at: u64) -> Option<Evidence> {
    let is_mark = matches!(
        fault,
        Some(Fault::MarkContinues { .. } | Fault::MarkEpoch { .. })
    );
    let offset = Offset(at);
    is_mark.then_some(Evidence::LaterMark(Place { segment, offset }))
}

/// Whether the last byte that is not zero lies beyond what can have been in flight.
pub(crate) fn beyond_window(from: u64, window_bytes: u64, last: u64) -> Option<Evidence> {
    let last_at = Offset(last);
    (last >= window_end(from, window_bytes)).then_some(Evidence::BeyondWindow {
        window_bytes,
        last: last_at,
    })
}

/// The first byte that a write cannot have touched which began at `from`, with so many bytes in
/// flight: it takes its last page with it.
pub(crate) fn window_end(from: u64, window_bytes: u64) -> u64 {
    from.saturating_add(window_bytes).next_multiple_of(BLOCK)
}

/// What was in flight at X: the group itself where its mark holds, unless several were under way.
pub(crate) fn window_bytes(
    header: &SegmentHeader,
    slot_window_bytes: u64,
    group_length: Option<u64>,
    is_async: bool,
) -> u64 {
    let base = header.window_bytes.max(slot_window_bytes);
    let was_async = header.mode
        == Mode::Async {
            max_unsynced_bytes: 0,
            interval: std::time::Duration::ZERO,
        }
        .number();
    match group_length {
        Some(length) if !was_async && !is_async => HEADER_BYTES as u64 + length,
        _ => base,
    }
}

//! An event on which the logic panics goes into quarantine by a mark in the log.
//!
//! ```text
//!   the logic stands at p ─► the log: is there a mark, committed and durable?  ─ yes ─► it is passed over
//!                               │ no
//!                               └► a majority stands there, and this node leads ─► the mark enters the ring
//! ```
//!
//! # Invariants
//!
//! * `QU1` Only a mark that can not be replaced any more counts, whoever wrote it, in whichever term.
//! * `QU2` A leader marks what it stands at itself: it has answered nobody for that event.
//! * `QU3` The mark always finds a place: the last slot of the ring is kept for it.

use std::sync::Arc;

use lockstep_journaler::{From, Position};

use super::agreement::Agreement;
use super::life::Life;
use crate::error::Result;
use crate::event::{Body, Slot};
use crate::log::events_of;
use crate::logic::{EventOf, Logic};
use crate::stage::verdicts::Verdicts;
use crate::system::Quarantine;

/// See the module.
pub(crate) struct Quarantining {
    verdicts: Arc<Verdicts>,
    standing: Option<Position>,
    /// Everything of the log before it was looked through.
    looked: Position,
    /// Whether this leader has marked it in its ring.
    is_marked: bool,
}

impl Quarantining {
    pub(crate) fn new(verdicts: Arc<Verdicts>) -> Self {
        Self {
            verdicts,
            standing: None,
            looked: Position(0),
            is_marked: false,
        }
    }

    /// Another ring: what had been marked in the old one may be nowhere.
    pub(crate) fn enter(&mut self) {
        self.is_marked = false;
    }

    /// Looks for the mark of the event at which the logic stands, up to `both`, and makes it where that is
    /// this node's to do; whether anything was done.
    pub(crate) fn turn<L: Logic, A: Agreement>(
        &mut self,
        life: &mut Life<L>,
        agreement: &A,
        both: Position,
    ) -> Result<bool> {
        let standing = self.verdicts.standing();
        if standing != self.standing {
            self.standing = standing;
            self.looked = standing.unwrap_or_default();
            self.is_marked = false;
        }
        let Some(position) = standing else {
            return Ok(false);
        };
        if self.find::<L, A>(position, agreement, both)? {
            self.verdicts.decide(position);
            return Ok(true);
        }
        let is_due = agreement.agreed_panic() == Some(position) && life.is_open();
        if !is_due || self.is_marked {
            return Ok(false);
        }
        let mark = Quarantine {
            position: position.0,
        };
        // QU2, QU3
        self.is_marked = life
            .publish(|slot| *slot = EventOf::<L>::event(&mark))
            .is_ok();
        Ok(self.is_marked)
    }

    /// `QU1`
    fn find<L: Logic, A: Agreement>(
        &mut self,
        position: Position,
        agreement: &A,
        both: Position,
    ) -> Result<bool> {
        if self.looked >= both {
            return Ok(false);
        }
        let mut reader = agreement.reader(From::Position(self.looked))?;
        // Ends: at what may still be replaced.
        while self.looked < both {
            let Some(frame) = reader.next_frame()? else {
                break;
            };
            let events = events_of::<EventOf<L>>(&frame)?;
            let is_mark = |event: &EventOf<L>| {
                event.header().kind == Quarantine::KIND
                    && event.body_as::<Quarantine>().position == position.0
            };
            if events.iter().any(is_mark) {
                return Ok(true);
            }
            self.looked = Position(frame.header().first_position + events.len() as u64);
        }
        Ok(false)
    }
}

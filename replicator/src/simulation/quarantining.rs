//! What the model's node does about events on which its logic panics, as the engine's does.
//!
//! ```text
//!   the logic stands at p ─► a mark for p, committed and durable here?  ─ yes ─► it is passed over
//!                               │ no
//!                               └► a majority stands there, and this node leads ─► it offers the mark
//! ```
//!
//! # Invariants
//!
//! * `QM1` Only a mark that can not be replaced any more counts, whoever offered it.
//! * `QM2` A leader offers the mark of what it stands at itself, with a majority.

use lockstep_journaler::{From, Position};

use super::model::{Event, MARK};
use super::node::{ModelNode, Node};
use crate::consensus::Role;
use crate::replica::{Mutation, OfferError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Quarantining {
    pub(super) standing: Option<Position>,
    /// The logic of no other node panics on that.
    pub(super) stands_alone: bool,
    /// Whether it panics where no other does.
    panics_alone: bool,
    /// In which term this node has offered the mark of which event.
    offered: Option<(u64, Position)>,
}

impl Quarantining {
    pub(super) fn new(panics_alone: bool) -> Quarantining {
        Quarantining {
            panics_alone,
            ..Quarantining::default()
        }
    }

    pub(super) fn stand(&mut self, at: Option<Position>, is_alone: bool) {
        (self.standing, self.stands_alone) = (at, is_alone);
    }
}

impl ModelNode {
    /// How many of these events, the first of which is at this position, go before one on which the logic
    /// stands.
    pub(super) fn before_a_panic(&mut self, first: u64, events: &[Event]) -> Result<usize, String> {
        self.quarantining.stand(None, false);
        if events.iter().all(|event| event.amount >= 0) {
            return Ok(events.len());
        }
        let node = self.replica.options().node.0;
        // The events in front of one decide whether it is a repeated one.
        let mut model = self.model.clone();
        for (at, (position, event)) in (first..).zip(events).enumerate() {
            let is_alone = self.quarantining.panics_alone && model.panics_alone_on(event, node);
            let panics = is_alone || model.panics_on(event);
            if panics && !self.is_marked(Position(position))? {
                self.quarantining.stand(Some(Position(position)), is_alone);
                return Ok(at);
            }
            model.apply(position, event);
        }
        Ok(events.len())
    }

    /// `QM1`
    fn is_marked(&self, position: Position) -> Result<bool, String> {
        let until = match self.replica.options().mutation {
            Some(Mutation::PassesOverUnmarked) => return Ok(true),
            Some(Mutation::UncommittedMarkCounts) => self.replica.durable(),
            _ => self.both(),
        };
        let reader = self.replica.reader(From::Position(position));
        let mut reader = reader.map_err(|error| error.to_string())?;
        // Ends: at what may still be replaced.
        while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
            let events = frame.events::<Event>().map_err(|error| error.to_string())?;
            if frame.first_position() >= until {
                return Ok(false);
            }
            let is_mark = |event: &Event| event.kind == MARK && event.register == position.0;
            if events.iter().any(is_mark) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `QM2`
    pub(super) fn offer_mark(&mut self, wall_ns: u64) -> Result<(), String> {
        let view = self.replica.view();
        let Some(position) = self.replica.agreed_panic() else {
            return Ok(());
        };
        let offer = (view.term, position);
        let is_due = view.role == Role::Leader
            && self.quarantining.standing == Some(position)
            && self.quarantining.offered != Some(offer);
        if !is_due {
            return Ok(());
        }
        let mark = Event {
            kind: MARK,
            register: position.0,
            ..bytemuck::Zeroable::zeroed()
        };
        match self
            .replica
            .offer([bytemuck::bytes_of(&mark), &[]], wall_ns)
        {
            Ok(_) => self.quarantining.offered = Some(offer),
            Err(OfferError::NotNow(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// The others are told where this logic stands, and what it passed over where they ask.
    pub(super) fn talk_of_panics(&mut self) -> Result<(), String> {
        let stands = self.replica.stands_at(self.standing());
        stands.map_err(|fatal| fatal.to_string())?;
        // Of what it ran ahead by, nothing is said: another event may come to stand there.
        let said = self.applied.min(self.both());
        for position in self.replica.asked_about() {
            if position < said {
                let is_quarantined = self.model.quarantined().contains(&position.0);
                let told = self.replica.went_past(position, is_quarantined);
                told.map_err(|fatal| fatal.to_string())?;
            }
        }
        Ok(())
    }
}

//! What nodes tell each other of their states and of panics of their logic: the replica's part.
//!
//! `beacons` judges the states (`BJ`), `panics` the events (`PN`); here the words are said and heard.

use lockstep_journaler::Position;
use lockstep_journaler::storage::Storage;

use super::beacons::{Beacon, Judged};
use super::panics::{Panics, Verdict};
use super::{Fatal, Mutation, OfferError, Replica, Said};
use crate::consensus::{Peer, Role};
use crate::ids::NodeId;
use crate::wire::{Head, Kind, Message};

impl<S: Storage> Replica<S> {
    /// Everything before this position is applied here, and the state has this hash: the other nodes are
    /// told, and judge it as this one judges theirs.
    ///
    /// # Errors
    ///
    /// [`Fatal::Diverged`]: a majority has another state (`BJ2`).
    pub fn state_is(&mut self, position: Position, hash: u64) -> Result<(), Fatal> {
        self.check_alive()?;
        let beacon = Beacon {
            position: position.0,
            hash,
        };
        let heard = self.hear_beacon(self.options.node, beacon);
        if heard.is_ok() {
            self.say_beacon();
        }
        heard
    }

    /// The newest state that a majority of the voters has, and this node with it.
    #[must_use]
    pub fn agreed_state(&self) -> Option<Beacon> {
        self.beacons.agreed()
    }

    /// Where nodes differ, while too few speak to tell who is right.
    #[must_use]
    pub fn disputed_state(&self) -> Option<Position> {
        self.beacons.disputed().map(Position)
    }

    pub(super) fn hear_beacon(&mut self, from: NodeId, beacon: Beacon) -> Result<(), Fatal> {
        let me = self.options.node;
        self.beacons.hear(from, beacon);
        let position = beacon.position;
        let members = self.consensus.members();
        let outcome = match self.beacons.judge(me, position, members) {
            Judged::Open | Judged::Disputed | Judged::Agreed => Ok(()),
            Judged::Alone { said, has_majority } => Err(Fatal::Diverged {
                node: me,
                position: Position(position),
                said: Said(said),
                has_majority,
            }),
        };
        self.unless_failed(outcome)
    }

    /// Tells the others what our state was last: on the control connection a word may be lost, so it is
    /// said again now and then.
    pub(super) fn say_beacon(&mut self) {
        let me = self.options.node;
        let Some(own) = self.beacons.newest_of(me) else {
            return;
        };
        let head = Head {
            epoch: self.options.epoch,
            a: own.position,
            b: own.hash,
            ..Head::new(Kind::Beacon, me)
        };
        let others = self.consensus.members().all().into_iter();
        for to in others.filter(|node| *node != me) {
            self.unsent.push((to, Message::bare(head)));
        }
    }

    /// The logic of this node panicked on the event at this position and stands in front of it, or it
    /// stands nowhere: told to the others.
    ///
    /// # Errors
    ///
    /// [`Fatal::Panicked`]: a majority went past it.
    pub fn stands_at(&mut self, position: Option<Position>) -> Result<(), Fatal> {
        self.check_alive()?;
        match (
            self.panics.stand(position.map(|position| position.0)),
            position,
        ) {
            (true, Some(position)) => self.say_of_event(position, false),
            _ => Ok(()),
        }
    }

    /// Where the logic of others panicked, and this node has not said whether its own did.
    #[must_use]
    pub fn asked_about(&self) -> Vec<Position> {
        let asked = self.panics.asked_about(self.options.node);
        asked.into_iter().map(Position).collect()
    }

    /// The logic of this node has gone past this event, applied or in quarantine: told to the others.
    ///
    /// # Errors
    ///
    /// [`Fatal::Panicked`]: it was applied, and a majority panics on it (`PN2`).
    pub fn went_past(&mut self, position: Position, is_quarantined: bool) -> Result<(), Fatal> {
        self.check_alive()?;
        self.say_of_event(position, !is_quarantined)
    }

    /// The event in front of which this node stands, if a majority of the voters does: it may go into
    /// quarantine (`PN1`).
    #[must_use]
    pub fn agreed_panic(&self) -> Option<Position> {
        let agreed = match self.options.mutation {
            Some(Mutation::MarksAlone) => self.panics.standing(),
            _ => self.panics.agreed(),
        };
        agreed.map(Position)
    }

    fn say_of_event(&mut self, position: Position, has_passed: bool) -> Result<(), Fatal> {
        let (me, word) = Panics::own_word(self.options.node, position.0, has_passed);
        self.hear_of_panic(me, word)?;
        self.say_of_panic(word);
        Ok(())
    }

    pub(super) fn hear_of_panic(&mut self, from: NodeId, word: Beacon) -> Result<(), Fatal> {
        let me = self.options.node;
        let members = self.consensus.members();
        let outcome = match self.panics.hear(from, word, me, members) {
            Verdict::Open => Ok(()),
            Verdict::Alone { stand, passed } => Err(Fatal::Panicked {
                node: me,
                position: Position(word.position),
                stand,
                passed,
            }),
        };
        self.unless_failed(outcome)
    }

    pub(super) fn say_of_panic(&mut self, word: Beacon) {
        let me = self.options.node;
        let head = Head {
            epoch: self.options.epoch,
            a: word.position,
            b: word.hash,
            ..Head::new(Kind::Panic, me)
        };
        let others = self.consensus.members().all().into_iter();
        for to in others.filter(|node| *node != me) {
            self.unsent.push((to, Message::bare(head)));
        }
    }

    /// `PN4`: to the voter that went past, that answers, and that has all that is committed.
    pub(super) fn hand_over_where_another_passed(&mut self) -> Result<(), Fatal> {
        let view = self.consensus.view();
        let keeps = self.options.mutation == Some(Mutation::LeadsOnWhereItStands);
        if view.role != Role::Leader || view.handing_over.is_some() || keeps {
            return Ok(());
        }
        let (passed, members) = (self.panics.passed(), self.consensus.members());
        let is_able = |peer: &Peer| {
            let has_all = peer.is_active && !peer.in_snapshot && peer.matched >= view.committed;
            has_all && passed.contains(&peer.node) && members.is_voter(peer.node)
        };
        let able = self.consensus.peers().filter(is_able);
        let Some(heir) = able.max_by_key(|peer| peer.matched) else {
            return Ok(());
        };
        match self.transfer_to(heir.node) {
            Err(OfferError::Fatal(fatal)) => Err(fatal),
            // Not at the moment: it is asked again.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

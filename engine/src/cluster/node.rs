//! A whole node of a cluster, without threads and sockets: the real order, agreement, journal, logic
//! and egress, given turns by whoever owns it.
//!
//! The simulator drives several of these in one thread; a program drives one of them from a thread
//! with sockets, and may put the stages behind the gate on a second thread.
//!
//! ```text
//!   receive(message)* ─► turn(now): offer ─► say (a leader's frames) ─► write, sync ─► say ─► follow
//! ```
//!
//! # Invariants
//!
//! * `CN1` Nothing moves but within a call, except the logic where it has a thread of its own.
//! * `CN2` What is applied at opening is known committed; what lies behind it waits for a leader.
//! * `CN4` A beacon enters the log when a majority of the voters has that state; a node with another
//!   one stops.
//! * `CN5` A node that lagged behind the beginning of the others' log ends with
//!   [`Fatal::BegunAnew`] once it has a snapshot of the leader:
//!   opened again, it goes on from there.
//! * `CN3` Dropped, it leaves its storage as a killed process does.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstep_journaler::Position;
use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::Storage;
use lockstep_replicator::wire::Message;
use lockstep_replicator::{Fatal, Gating, NodeId, OfferError, Outbox, ReceiveError, Replica};

use super::administration::Administration;
use super::agreement::Agreement as _;
use super::answers::Asker;
use super::aside::set_aside;
use super::back::Back;
use super::builds::{Builds, NoSwitch};
use super::handing_over::HandingOver;
use super::leaving::KeptBack;
use super::member::{Member, Refused};
use super::options::NodeOptions;
use super::passive::Passive;
use super::shadowing::Shadowing;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::event::Slot;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::node::face::{self, Face};
use crate::node::recovery::Recovery;
use crate::node::watch::Rows;
use crate::requests::Reply;
use crate::shared::Shared;
use crate::source::stopped;
use crate::stage::egress::{Slow, Subscription};
use crate::stage::logic::Reports;
use crate::stage::verdicts::Verdicts;
use crate::system::{KNOWS_ADMINISTRATION, KNOWS_PRINCIPALS, Membership, VersionSwitch};

/// See the module.
pub struct ClusterNode<L: Logic, S: Storage> {
    pub(super) replica: Replica<S>,
    /// `None` once it has failed, and while it has no logic.
    pub(super) member: Option<Member<L, Replica<S>>>,
    pub(super) face: Face<L>,
    pub(super) passive: Passive<L, S>,
    pub(super) shadowing: Option<Shadowing<L, S>>,
    pub(super) storage: S,
    /// The newest snapshot that the agreement was told of.
    pub(super) offered: u64,
    /// How far the keeper had asked to give the log up.
    pub(super) wanted: u64,
    pub(super) builds: Builds,
    /// Beacons of the logic, for the others.
    pub(super) beacons: Arc<Reports>,
    /// What the logic panicked on.
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) handing_over: HandingOver,
    pub(super) is_stepped: bool,
}

impl<L: Logic, S: Storage> fmt::Debug for ClusterNode<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNode")
            .field("replica", &self.replica)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl<L: Logic, S: Storage> ClusterNode<L, S> {
    /// Opens the node in this storage, or makes it there, with everything on the caller's thread.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong, where, and what helps.
    pub fn open(
        storage: S,
        options: &NodeOptions,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Result<Self> {
        let here = |_: &Arc<Shared>| Ok(Back::Here(None));
        Self::open_with(storage, options, Arc::new(fresh), Vec::new(), here)
    }

    /// Takes a message of a peer.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: fatal, or to be told to whoever is connected.
    pub fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        let received = self.replica.receive(message);
        if let Err(ReceiveError::Fatal(fatal)) = &received {
            self.look_at_end(fatal);
        }
        received
    }

    /// One turn of everything; whether there is more to do at once.
    ///
    /// # Errors
    ///
    /// The node has failed, and why; it takes no further part.
    pub fn turn(
        &mut self,
        now_ns: u64,
        outbox: &mut impl Outbox,
        asker: &mut impl Asker<OutputOf<L>>,
    ) -> Result<bool> {
        let begun = self.begin(now_ns, outbox)?;
        self.persist(outbox)?;
        Ok(self.follow(asker)? | begun)
    }

    /// The first part of a turn: what does not wait for this disk. Whoever has sockets lets go what was
    /// said before the next part begins.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<bool> {
        let leaving = self.handing_over.leaving();
        let begun = self.try_begin(now_ns, &mut KeptBack::by(leaving.as_ref(), outbox));
        self.unless_failed(begun)
    }

    /// The second part: write, sync, and say what waited for that. Peers need not wait for the third.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn persist(&mut self, outbox: &mut impl Outbox) -> Result<()> {
        let leaving = self.handing_over.leaving();
        let mut outbox = KeptBack::by(leaving.as_ref(), outbox);
        let persisted = self.replica.persist(&mut outbox).map_err(Error::from);
        self.unless_failed(persisted.map(|()| true)).map(drop)
    }

    /// The third part: what comes of it here, in ring, logic and answers; whether there is more to do.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn follow(&mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<bool> {
        let followed = self.try_follow(asker);
        self.unless_failed(followed)
    }

    fn unless_failed(&mut self, turned: Result<bool>) -> Result<bool> {
        // CN5: that end is none that anybody has to look into.
        let begins_anew = matches!(turned, Err(Error::Agreement(Fatal::BegunAnew { .. })));
        if let Err(error) = &turned
            && !begins_anew
        {
            let cause = error.to_string();
            self.face.shared.fail(cause);
            if let Error::Agreement(fatal) = error {
                self.look_at_end(fatal);
            }
        }
        match (turned, self.face.shared.fault()) {
            (Ok(worked), None) => Ok(worked),
            (Ok(_), Some(cause)) => Err(Error::Stopped {
                cause: cause.to_owned(),
            }),
            (Err(error), _) => Err(error),
        }
    }

    /// Behind a state that the majority does not have its snapshots go, once nobody takes one any more.
    fn look_at_end(&mut self, fatal: &Fatal) {
        let has_wrong_state = matches!(
            fatal,
            Fatal::Diverged {
                has_majority: true,
                ..
            }
        );
        if has_wrong_state {
            self.face.shared.fail(fatal.to_string());
            drop(self.shadowing.take());
            let agreed = self.replica.agreed_state().map_or(0, |one| one.position);
            let oldest = self.replica.index().base().reached.position;
            set_aside(&self.storage, Position(agreed), oldest);
        }
    }

    fn try_begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<bool> {
        if let Some(cause) = self.face.shared.fault() {
            return Err(Error::Stopped {
                cause: cause.to_owned(),
            });
        }
        let worked = match &mut self.member {
            Some(member) => member.offer(&mut self.replica),
            None if self.passive.has_no_logic() => false,
            None => return Err(stopped(&self.face.shared)),
        };
        self.replica.begin(now_ns, outbox)?;
        Ok(worked | self.replica.has_unwritten())
    }

    fn try_follow(&mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<bool> {
        if self.passive.has_no_logic() {
            return self.follow_without_logic();
        }
        let Some(member) = &mut self.member else {
            return Err(stopped(&self.face.shared));
        };
        // Before the promises move: what they let through is read from the log as it is now.
        self.face.shared.cuts.set(self.replica.cuts());
        let worked = member.follow(&self.replica, asker)?;
        // Ends: the logic makes at most one beacon for each 64 events.
        let promised = Position(self.face.shared.promised.get());
        while let Some(beacon) = self.beacons.take(promised) {
            self.replica
                .state_is(Position(beacon.position), beacon.hash)?;
        }
        self.talk_of_panics()?;
        if self.is_stepped {
            self.replica.step_background();
        }
        if let Some(shadowing) = &mut self.shadowing {
            shadowing.turn(&self.face.shared);
        }
        self.give_up();
        self.look_whether_close();
        Ok(worked | self.replica.has_more())
    }

    /// Where the logic stands the others hear, and where it went past they do who ask.
    fn talk_of_panics(&mut self) -> Result<()> {
        self.replica.stands_at(self.verdicts.standing())?;
        for position in self.verdicts.untold() {
            self.replica.went_past(position, true)?;
        }
        // VD2: first how far, then what is in quarantine of it.
        let applied = self
            .applied()
            .min(Position(self.face.shared.promised.get()));
        for position in self.replica.asked_about() {
            if position < applied {
                let is_quarantined = self.verdicts.is_quarantined(position);
                self.replica.went_past(position, is_quarantined)?;
            }
        }
        Ok(())
    }

    /// What the shadow took is offered to nodes that lag, and what the keeper wants to give up is
    /// forgotten here first.
    fn give_up(&mut self) {
        let newest = self.face.shared.snapshot.get();
        if newest != self.offered {
            self.offered = newest;
            let snapshots = Snapshots::new(self.storage.clone());
            match snapshots.manifest(Position(newest)) {
                Ok(manifest) => drop(self.replica.offer_snapshot(&manifest)),
                Err(error) => tracing::warn!(%error, "a snapshot cannot be offered to others"),
            }
        }
        let lent = self.replica.lent().map_or(0, |at| at.0 + 1);
        self.face.shared.lent.set(lent);
        let wanted = self.face.shared.wanted.get();
        if wanted != self.wanted {
            self.wanted = wanted;
            let compacted = self.replica.compact(Position(wanted));
            if compacted.0 > self.face.shared.compacted.get() {
                self.face.shared.compacted.set(compacted.0);
                if let Some(shadowing) = &mut self.shadowing {
                    shadowing.look_again();
                }
            }
        }
    }

    /// Lets an event in at the door, for whoever gave the token: the [`Asker`] hears of it. Its
    /// position, if it stays there.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn let_in(&mut self, token: u64, event: &EventOf<L>) -> Result<Position, Refused> {
        self.let_in_behind(token, None, event)
    }

    /// The same for what an operator wants: who asked for it comes into the log right in front of it, unless a
    /// member is [too old](Self::too_old_for_administration) for such an event.
    ///
    /// # Errors
    ///
    /// [`Refused`]; then neither is in the log.
    pub fn let_in_asked(
        &mut self,
        token: u64,
        asked: &Administration,
        event: &EventOf<L>,
    ) -> Result<Position, Refused> {
        self.let_in_behind(token, self.sayable(asked), event)
    }

    fn let_in_behind(
        &mut self,
        token: u64,
        asked: Option<&Administration>,
        event: &EventOf<L>,
    ) -> Result<Position, Refused> {
        match self
            .member
            .as_mut()
            .filter(|_| self.face.shared.fault().is_none())
        {
            Some(member) => member.let_in(token, asked, event),
            None => Err(Refused::NotLeading {
                leader: self.replica.view().leader,
            }),
        }
    }

    /// Whether events are let in: it leads, and all of the log in front of the door is applied or on
    /// its way.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let stand = self.replica.stand();
        self.member
            .as_ref()
            .is_some_and(|member| member.is_open() && member.is_of(&stand))
    }

    /// The event on which the logic panicked, and in front of which it stands until a majority does.
    #[must_use]
    pub fn stands_at(&self) -> Option<Position> {
        self.verdicts.standing()
    }

    /// How many wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.member.as_ref().map_or(0, Member::waiting)
    }

    /// Hands leadership over to a voter that has caught up.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or that node cannot.
    pub fn transfer_to(&mut self, to: NodeId) -> Result<(), OfferError> {
        self.replica.transfer_to(to)
    }

    /// Hands leadership over to the voter whose log is the furthest: whom it is being handed to. `None`: this
    /// node does not lead, or nobody has all that is committed yet; ask again in a later turn. Who did not take
    /// over within an election is asked again only where nobody else can.
    pub fn hand_over(&mut self) -> Option<NodeId> {
        self.handing_over.hand_over(&mut self.replica)
    }

    /// A node that is to end asks this in front of each turn: whether it may. A leader hands over first, and then
    /// waits until the others commit without it: who has just come may not be connected with all of them.
    pub fn leave(&mut self, now_ns: u64) -> bool {
        self.handing_over.leave(&mut self.replica, now_ns)
    }

    /// An operator's word on whether the other site is waited for: it counts on this leader at once, and
    /// enters the log when there is room, behind who said it.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or waits for no site.
    pub fn go_by(&mut self, word: Gating, asked: &Administration) -> Result<(), OfferError> {
        self.replica.go_by(word)?;
        let mut event = EventOf::<L>::event(&Membership::default());
        word.write_to(bytemuck::bytes_of_mut(&mut event));
        let asked = self.sayable(asked).copied();
        if let Some(member) = &mut self.member {
            member.decide(asked, event);
        }
        Ok(())
    }

    /// A peer says which versions of the logic's rules it can run.
    pub fn peer_runs(&mut self, peer: NodeId, versions: RangeInclusive<u32>) {
        self.builds.runs(peer, versions);
    }

    /// A peer says which generation of the engine's own kinds of events it knows.
    pub fn peer_knows(&mut self, peer: NodeId, generation: u8) {
        self.builds.knows(peer, generation);
    }

    /// A member that has said that its build knows the engine's own kinds up to an older generation only.
    fn older_member(&self, generation: u8) -> Option<NodeId> {
        self.builds.older(self.replica.members(), generation)
    }

    /// A member that has said that its build is from before [`Administration`]: while there is one, the log
    /// does not say who asked for a change (`SY3`).
    #[must_use]
    pub fn too_old_for_administration(&self) -> Option<NodeId> {
        self.older_member(KNOWS_ADMINISTRATION)
    }

    /// Who asked, as far as the log may say it (`SY3`).
    fn sayable<'a>(&self, asked: &'a Administration) -> Option<&'a Administration> {
        let Some(old) = self.too_old_for_administration() else {
            return Some(asked);
        };
        tracing::warn!(
            ?asked,
            node = old.0,
            "the log does not say who asked for this: that node's build does not know such events; upgrade it"
        );
        None
    }

    /// Whether every member that has said so knows the events in which a principal has a name (`SY3`).
    pub(crate) fn knows_principals(&self) -> bool {
        self.older_member(KNOWS_PRINCIPALS).is_none()
    }

    /// The version of the logic's rules that the state is in.
    #[must_use]
    pub fn version(&self) -> u32 {
        u32::try_from(self.face.shared.version.get()).unwrap_or(u32::MAX)
    }

    /// Whether the log may go to this version of the logic's rules: every member says that it can run it.
    ///
    /// # Errors
    ///
    /// [`NoSwitch`], which says who cannot.
    pub fn check_version(&self, version: u32) -> Result<(), NoSwitch> {
        if !self.is_open() {
            return Err(NoSwitch::NotLeading);
        }
        let now = self.version();
        if version <= now {
            return Err(NoSwitch::Back { version, now });
        }
        let (members, me) = (self.replica.members(), self.replica.options().node);
        self.builds.check(members, version, me, &L::VERSIONS)
    }

    /// Lets the event in by which every node goes to this version of the logic's rules, at its position.
    ///
    /// # Errors
    ///
    /// [`NoSwitch`]
    pub fn switch_version(&mut self, token: u64, version: u32) -> Result<Position, NoSwitch> {
        self.check_version(version)?;
        let event = EventOf::<L>::event(&VersionSwitch { version, spare: 0 });
        self.let_in(token, &event).map_err(NoSwitch::Refused)
    }

    /// The agreement, to look at.
    #[must_use]
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The agreement, for what an operator asks of it.
    pub fn replica_mut(&mut self) -> &mut Replica<S> {
        &mut self.replica
    }

    /// Everything before it is in the state. Under `gate = output` a leader's may be ahead of what is committed and
    /// durable, and go back when it leads no more.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.face.applied()
    }

    /// How often the state had run ahead of what was committed, and was made anew when this node led no more.
    #[must_use]
    pub fn taken_back(&self) -> u64 {
        self.face.shared.taken_back.get()
    }

    /// Everything before it is answered: its outputs have left.
    #[must_use]
    pub fn answered(&self) -> Position {
        self.face.answered()
    }

    /// What the stages of the present ring count.
    pub(crate) fn count(&self, rows: &mut Rows, values: &mut Vec<u64>) {
        let Some((probe, ledger)) = self.member.as_ref().and_then(Member::probe) else {
            if self.passive.has_no_logic() {
                self.count_journal();
                values.extend_from_slice(rows.look_without_ring(&self.face.shared));
                return;
            }
            // The ring is gone: the node has failed, which the row behind all others says.
            let last = rows.names().len() - 1;
            values.extend(std::iter::repeat_n(0, last));
            values.push(1);
            return;
        };
        self.count_journal();
        values.extend_from_slice(rows.look(&probe, ledger, &self.face.shared));
    }

    fn count_journal(&self) {
        let journal = self.replica.journal().counters();
        self.face.shared.durable.set(self.replica.durable().0);
        self.face.shared.syncs.set(journal.syncs);
        self.face.shared.last_sync_ns.set(journal.last_sync_ns);
    }

    /// The rows that [`count`](Self::count) fills; `None` once it has failed.
    pub(crate) fn rows(&self) -> Option<Rows> {
        if self.passive.has_no_logic() {
            return Some(Rows::without_ring());
        }
        let (probe, _) = self.member.as_ref().and_then(Member::probe)?;
        Some(Rows::of(&probe))
    }

    /// The caller is about to sleep, with all answers taken that it knows of: whether there are more.
    pub(crate) fn set_alarm(&self) -> bool {
        self.member.as_ref().is_some_and(Member::set_alarm)
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.face.recovery
    }

    /// Outputs from now on, whoever leads: a follower's logic is hot.
    ///
    /// # Errors
    ///
    /// `slots` is no power of two.
    pub fn subscribe(
        &self,
        name: &str,
        slow: Slow,
        slots: usize,
    ) -> Result<Subscription<OutputOf<L>>> {
        self.check_has_logic()?;
        self.face.subscribe(name, slow, slots)
    }

    /// Asks for a look at the state between two events, once everything before `position` is applied;
    /// the answer comes with turns. Nothing is seen that may be taken back.
    ///
    /// # Errors
    ///
    /// The node stopped.
    pub fn look<R: Send + 'static>(
        &self,
        position: Position,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<std::sync::mpsc::Receiver<R>> {
        self.check_has_logic()?;
        self.face.look(position, look)
    }

    /// Wakes the logic, if it sleeps on a thread of its own, for who has asked for a [`look`](Self::look).
    pub(crate) fn ring_logic(&self) {
        if let Some(member) = &self.member {
            member.ring_logic();
        }
    }

    /// The kept reply to a client's request; as [`look`](Self::look).
    ///
    /// # Errors
    ///
    /// The node stopped.
    pub fn reply(
        &self,
        session: u64,
        request: u32,
    ) -> Result<std::sync::mpsc::Receiver<Option<Reply>>> {
        self.look(Position(0), face::reply(session, request))
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.face.fault()
    }

    /// Ends in order: who waits hears of it, the journal says that it was closed.
    ///
    /// # Errors
    ///
    /// It had failed, or the journal does.
    pub fn close(mut self, asker: &mut impl Asker<OutputOf<L>>) -> Result<()> {
        drop(self.shadowing.take());
        let member = self.member.take();
        let ended = member.map(|member| member.end(asker)).transpose();
        self.face.shared.close();
        if let Some(cause) = self.face.shared.fault() {
            return Err(Error::Stopped {
                cause: cause.to_owned(),
            });
        }
        let kept = ended?;
        self.face.mailbox.close();
        drop(kept);
        Ok(self.replica.close()?)
    }
}

/// An event of this body, as a client's request.
#[must_use]
pub fn request<E: Slot, B: crate::event::Body>(session: u64, request: u32, body: &B) -> E {
    let mut event = E::event(body);
    event.header_mut().session = session;
    event.header_mut().request = request;
    event
}

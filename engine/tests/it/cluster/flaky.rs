//! The logic of the tests: the bank in two versions, which may go wrong on one node; and a node that runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use lockstep_engine::cluster::{Administration, ClusterNode, NoSwitch, NodeOptions, Refused};
use lockstep_engine::core::Core;
use lockstep_engine::node::recovery::Recovery;
use lockstep_engine::prelude::*;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::wire::Message;
use lockstep_replicator::{Gating, NodeId, OfferError, ReceiveError, Replica};

use super::clients::{Heard, NOBODY};
use crate::bank::{Bank, BankIn, BankOut};

/// What goes wrong on one node only. Not part of the state: as broken memory is not.
#[derive(Clone)]
pub(super) struct Faults {
    /// From this position on every deposit is one cent more.
    wrong_from: Arc<AtomicU64>,
    /// From this position on every deposit panics.
    panics_from: Arc<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Self {
        let never = || Arc::new(AtomicU64::new(u64::MAX));
        Self {
            wrong_from: never(),
            panics_from: never(),
        }
    }
}

impl Faults {
    /// From here on its state is wrong; `None`: it is as those of the others again.
    pub(super) fn wrong_from(&self, position: Option<Position>) {
        Self::set(&self.wrong_from, position);
    }

    /// From here on its logic panics; `None`: it does not any more.
    pub(super) fn panics_from(&self, position: Option<Position>) {
        Self::set(&self.panics_from, position);
    }

    fn set(from: &AtomicU64, position: Option<Position>) {
        from.store(position.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    pub(super) fn are_planted(&self) -> bool {
        let is_set = |from: &AtomicU64| from.load(Ordering::Relaxed) != u64::MAX;
        is_set(&self.wrong_from) || is_set(&self.panics_from)
    }
}

/// What a node has in its state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) position: u64,
    pub(super) hash: u64,
    /// Of the clients, in their order.
    pub(super) balances: Vec<i64>,
}

/// The bank, in the versions from 1 to `NEWEST`; on one node it may do another thing than on the others.
#[derive(Default)]
pub(super) struct Flaky<const NEWEST: u32> {
    pub(super) bank: Bank,
    pub(super) faults: Faults,
}

impl<const NEWEST: u32> State for Flaky<NEWEST> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.bank.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            bank: Bank::load(from)?,
            faults: Faults::default(),
        })
    }
}

impl<const NEWEST: u32> Logic for Flaky<NEWEST> {
    type In = BankIn<'static>;
    type Out = BankOut<'static>;
    const VERSIONS: std::ops::RangeInclusive<u32> = 1..=NEWEST;

    fn validate(&self, event: BankIn<'_>, context: &Context) -> Result<(), Reject> {
        self.bank.validate(event, context)
    }

    fn apply(
        &mut self,
        event: BankIn<'_>,
        context: &Context,
        out: &mut Outputs<'_, BankOut<'static>>,
    ) {
        // From version 2 on every deposit counts twice.
        if let (BankIn::Deposit(deposit), true) = (event, context.version() >= 2) {
            *self.bank.balances.entry(deposit.account) += deposit.cents;
            self.bank.total += deposit.cents;
        }
        self.bank.apply(event, context, out);
        let is_due = context.position().0 >= self.faults.panics_from.load(Ordering::Relaxed);
        assert!(!is_due, "a bomb on one node");
        if context.position().0 >= self.faults.wrong_from.load(Ordering::Relaxed) {
            *self.bank.balances.entry(0) += 1;
            self.bank.total += 1;
        }
    }
}

/// A node of either build.
pub(super) enum Build {
    Old(ClusterNode<Flaky<1>, Simulated>),
    New(ClusterNode<Flaky<2>, Simulated>),
}

macro_rules! each {
    ($build:expr, $node:ident => $what:expr) => {
        match $build {
            Build::Old($node) => $what,
            Build::New($node) => $what,
        }
    };
}

impl Build {
    pub(super) fn open(
        newest: u32,
        disk: Simulated,
        options: &NodeOptions,
        faults: &Faults,
    ) -> lockstep_engine::Result<Self> {
        fn fresh<const NEWEST: u32>(faults: &Faults) -> impl Fn() -> Flaky<NEWEST> + use<NEWEST> {
            let faults = faults.clone();
            move || Flaky {
                bank: Bank::default(),
                faults: faults.clone(),
            }
        }
        Ok(match newest {
            1 => Self::Old(ClusterNode::open(disk, options, fresh(faults))?),
            _ => Self::New(ClusterNode::open(disk, options, fresh(faults))?),
        })
    }

    pub(super) fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        each!(self, node => node.receive(message))
    }

    pub(super) fn turn(
        &mut self,
        now_ns: u64,
        outbox: &mut Vec<(NodeId, Message)>,
        heard: &mut Heard,
    ) -> lockstep_engine::Result<bool> {
        each!(self, node => node.turn(now_ns, outbox, heard))
    }

    pub(super) fn let_in(&mut self, token: u64, event: &Event64) -> Result<Position, Refused> {
        each!(self, node => node.let_in(token, event))
    }

    pub(super) fn transfer_to(&mut self, to: NodeId) -> Result<(), OfferError> {
        each!(self, node => node.transfer_to(to))
    }

    pub(super) fn hand_over(&mut self) -> Option<NodeId> {
        each!(self, node => node.hand_over())
    }

    pub(super) fn leave(&mut self, now_ns: u64) -> bool {
        each!(self, node => node.leave(now_ns))
    }

    pub(super) fn go_by(&mut self, word: Gating) -> Result<(), OfferError> {
        each!(self, node => node.go_by(word, &Administration::default()))
    }

    pub(super) fn peer_runs(&mut self, peer: NodeId, newest: u32) {
        each!(self, node => node.peer_runs(peer, 1..=newest));
    }

    /// With a word in front of it of who asked for it.
    pub(super) fn let_in_asked(&mut self, event: &Event64) -> Result<Position, Refused> {
        let asked = Administration::default();
        each!(self, node => node.let_in_asked(NOBODY, &asked, event))
    }

    pub(super) fn peer_knows(&mut self, peer: NodeId, generation: u8) {
        each!(self, node => node.peer_knows(peer, generation));
    }

    pub(super) fn switch_version(&mut self, version: u32) -> Result<Position, NoSwitch> {
        each!(self, node => node.switch_version(NOBODY, version))
    }

    pub(super) fn version(&self) -> u32 {
        each!(self, node => node.version())
    }

    pub(super) fn activate(&mut self) -> lockstep_engine::Result<()> {
        each!(self, node => node.activate())
    }

    pub(super) fn is_passive(&self) -> bool {
        each!(self, node => node.is_passive())
    }

    pub(super) fn is_asleep(&self) -> bool {
        each!(self, node => node.is_asleep())
    }

    pub(super) fn peer_is_passive(&mut self, peer: NodeId, yes: bool) {
        each!(self, node => node.replica_mut().hear_passive(peer, yes));
    }

    /// Why there is no state to look at; none if there is one.
    pub(super) fn refuses_looks(&self) -> Option<String> {
        let refused = each!(self, node => node.reply(1, 1).map(drop));
        refused.err().map(|error| error.to_string())
    }

    pub(super) fn is_open(&self) -> bool {
        each!(self, node => node.is_open())
    }

    pub(super) fn applied(&self) -> Position {
        each!(self, node => node.applied())
    }

    pub(super) fn taken_back(&self) -> u64 {
        each!(self, node => node.taken_back())
    }

    pub(super) fn replica(&self) -> &Replica<Simulated> {
        each!(self, node => node.replica())
    }

    pub(super) fn recovery(&self) -> &Recovery {
        each!(self, node => node.recovery())
    }

    pub(super) fn close(self) -> lockstep_engine::Result<()> {
        each!(self, node => node.close(&mut Heard::default()))
    }

    /// What it has in its state, with the next turn.
    pub(super) fn state(&self) -> Receiver<Seen> {
        fn seen<const NEWEST: u32>(core: &Core<Flaky<NEWEST>>) -> Seen {
            let of = |account| core.logic().bank.balances.get(&account).copied();
            Seen {
                position: core.position().0,
                hash: core.state_hash(),
                balances: (0..4).map(|account| of(account).unwrap_or(0)).collect(),
            }
        }
        each!(self, node => node.look(Position(0), seen).unwrap())
    }
}

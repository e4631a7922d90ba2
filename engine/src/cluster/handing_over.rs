//! A leader that hands over: to whom, and when it may end.

use lockstep_journaler::storage::Storage;
use lockstep_replicator::consensus::Role;
use lockstep_replicator::{NodeId, Replica};

use super::leaving::Leaving;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HandingOver {
    /// To whom this leader handed over last.
    asked: Option<NodeId>,
    /// It was asked to end while it led.
    has_led: bool,
    /// It does not lead any more, and looks whether the others need it.
    leaving: Option<Leaving>,
}

impl HandingOver {
    /// What it keeps back of its acknowledgements goes by this.
    pub(crate) fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }

    /// Hands over to the voter whose log is the furthest; who it is being handed to.
    pub(crate) fn hand_over<S: Storage>(&mut self, replica: &mut Replica<S>) -> Option<NodeId> {
        let view = replica.view();
        if view.role != Role::Leader {
            self.asked = None;
            return None;
        }
        if view.handing_over.is_none() {
            let heir = self.heir(replica)?;
            self.asked = Some(heir);
            if let Err(error) = replica.transfer_to(heir) {
                tracing::warn!(%error, heir = heir.0, "no handing over");
            }
        }
        replica.view().handing_over
    }

    /// In front of each turn of a node that is to end: whether it may.
    pub(crate) fn leave<S: Storage>(&mut self, replica: &mut Replica<S>, now_ns: u64) -> bool {
        if replica.members().voters.len() < 2 {
            return true;
        }
        let view = replica.view();
        if view.role == Role::Leader {
            let _to = self.hand_over(replica);
            self.leaving = None;
            self.has_led = true;
            return false;
        }
        if !self.has_led {
            return true;
        }
        let tick_ns = replica.options().tick_ns;
        let leaving = self
            .leaving
            .get_or_insert(Leaving::begin(now_ns, view.last));
        leaving.look(now_ns, tick_ns, view.committed, view.last)
    }

    /// A voter with a logic that answers and misses nothing that is committed; who did not take over when asked comes last.
    fn heir<S: Storage>(&self, replica: &Replica<S>) -> Option<NodeId> {
        let (me, members) = (replica.options().node, replica.members());
        let committed = replica.view().committed;
        let able = replica.peers().filter(|peer| {
            peer.node != me
                && members.is_voter(peer.node)
                && !replica.is_passive_peer(peer.node)
                && peer.is_active
                && !peer.in_snapshot
                && peer.matched >= committed
        });
        let best = able.max_by_key(|peer| (self.asked != Some(peer.node), peer.matched));
        best.map(|peer| peer.node)
    }
}

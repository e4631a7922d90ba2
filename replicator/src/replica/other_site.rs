//! The other site: whether commits wait for it, and how far it is behind.

use lockstep_journaler::storage::Storage;

use super::{OfferError, Replica};
use crate::consensus::{Peer, Role};
use crate::ids::NodeId;
use crate::policy::Ack;
use crate::sites::Gating;

/// How far a node is behind the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// In events.
    pub events: u64,
    /// In nanoseconds of the log's time.
    pub time_ns: u64,
}

impl<S: Storage> Replica<S> {
    /// An operator's word on the other site, for this leader at once; it is to follow into the log by
    /// [`offer_change`](Self::offer_change), for which there may be no room before.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or nothing is gated here.
    pub fn go_by(&mut self, word: Gating) -> Result<(), OfferError> {
        self.check_alive()?;
        self.check_word(word)?;
        self.consensus.go_by(word)?;
        Ok(self.drain()?)
    }

    /// Whether the word makes sense here and now, whoever leads.
    ///
    /// # Errors
    ///
    /// If nothing is gated here, or a change of members is under way, or the voters are at one site.
    pub fn check_word(&self, word: Gating) -> Result<(), OfferError> {
        let refused = |why: &str| OfferError::Word {
            word,
            why: why.to_owned(),
        };
        if !self.options.sites.gates {
            return Err(refused(
                "`ack` does not end with +dr here: no site is waited for",
            ));
        }
        if word == Gating::Degraded {
            return Ok(());
        }
        // A change under way may leave the voters on one site (`ST2`).
        self.consensus.may_change()?;
        match self.options.sites.refuses(self.members()) {
            Some(why) => Err(refused(&why)),
            None => Ok(()),
        }
    }

    /// Whether commits wait for two sites, as this node leads or knows; `None` where they never do.
    #[must_use]
    pub fn gating(&self) -> Option<Gating> {
        let own = self.consensus.gating()?;
        if self.consensus.view().role == Role::Leader {
            return Some(own);
        }
        let is_degraded = self.members().is_degraded;
        Some(if is_degraded {
            Gating::Degraded
        } else {
            Gating::Sites
        })
    }

    /// What an answer of this cluster means, with its word.
    #[must_use]
    pub fn ack(&self) -> Ack {
        Ack {
            policy: self.options.policy,
            is_gated: self.options.sites.gates,
        }
    }

    /// Frames that a majority has and that wait for a voter of another site; 0 on a node that does not
    /// lead.
    #[must_use]
    pub fn frames_held_by_site(&self) -> u64 {
        if self.gating() != Some(Gating::Sites) {
            return 0;
        }
        let peers: Vec<Peer> = self.consensus.peers().collect();
        let has_majority = |at: &u64| {
            let holders = peers.iter().filter(|peer| peer.matched >= *at);
            let holders: Vec<NodeId> = holders.map(|peer| peer.node).collect();
            self.members().is_quorum(&holders)
        };
        let most = peers.iter().map(|peer| peer.matched).filter(has_majority);
        most.max()
            .unwrap_or(0)
            .saturating_sub(self.consensus.committed())
    }

    /// How far a node is behind this leader: events, and nanoseconds of the log. What it has acknowledged
    /// counts.
    #[must_use]
    pub fn lag_of(&self, peer: &Peer) -> Lag {
        let tail = &self.log.tail;
        let Some(at) = self.consensus.index().tail_at(peer.matched) else {
            return Lag {
                events: tail.reached.position.0,
                time_ns: tail.time_ns,
            };
        };
        Lag {
            events: tail.reached.position.0 - at.reached.position.0.min(tail.reached.position.0),
            time_ns: tail.time_ns.saturating_sub(at.time_ns),
        }
    }

    /// How far the best of the nodes at other sites than this one is behind; learners count. `None` on a
    /// node that does not lead, or where there is none.
    #[must_use]
    pub fn lag_of_other_site(&self) -> Option<Lag> {
        let own = self.options.sites.of(self.options.node)?;
        let elsewhere = |peer: &Peer| {
            let site = self.options.sites.of(peer.node);
            site.is_some_and(|site| site != own)
        };
        let peers = self.consensus.peers().filter(elsewhere);
        peers
            .map(|peer| self.lag_of(&peer))
            .min_by_key(|lag| lag.events)
    }
}

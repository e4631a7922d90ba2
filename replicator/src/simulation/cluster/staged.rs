//! Faults that only do harm one behind the other: staged, since chance alone seldom brings them together.
//!
//! A scenario goes by stages. Each has a shape of the network, and ends when what it waits for is there, or
//! when its time is over; then what it waited for did not happen, and the scenario goes on all the same.
//! While one is under way no other fault is drawn, and its cuts of the network stand.
//!
//! ```text
//!   ForgetsAndMeets   leader, one ╳ rest     one loses power between write and sync; then leader ╳ one, rest
//!   WritesAlone       leader ╳ all           the next leader ╳ all as it is elected; then the first one again
//!   LagsBehind        one ╳ all              then whoever sends it the log goes silent in the midst, or its own
//!                                            power goes
//!   SaysAWordAlone    leader ╳ all, is told  the next leader puts its own in the place of that word; the first one
//!   not to wait for the other site           leads again, and hears nothing of the other site
//! ```
//!
//! Beside the scenarios power goes now and then in the midst of a cut: few are long enough for chance to meet one.

use super::super::node::Node;
use super::super::random::Random;
use super::{Cluster, MS, Outcome, sites};
use crate::consensus::Role;
use crate::ids::NodeId;
use crate::policy::Policy;
use crate::sites::Gating;
use crate::wire::Message;

/// Which faults, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// A leader commits with a bare majority; one of it loses its power before the sync and meets those
    /// who had heard nothing, while the leader is cut off.
    ForgetsAndMeets,
    /// Two leaders write, one behind the other, what nobody else hears of; then the first one leads again.
    WritesAlone,
    /// A node hears nothing for long, and the node that brings it up to date goes silent.
    LagsBehind,
    /// A leader that nobody hears is told not to wait for the other site; the next one replaces that word,
    /// and hands over to the first one, which lives on and hears nothing of the other site.
    SaysAWordAlone,
}

/// A scenario under way.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    what: Scenario,
    stage: u8,
    /// When the stage is over, whatever has happened.
    until_ns: u64,
    /// Who leads when it begins.
    leader: NodeId,
    /// The follower that it is about; where the next leader is waited for that one, once it is there.
    one: NodeId,
    /// With leader and `one` a bare majority.
    with: Vec<NodeId>,
    /// The other voters; in [`Scenario::SaysAWordAlone`] those at the other site.
    rest: Vec<NodeId>,
    /// How far the log was that is waited for.
    index: u64,
}

/// A scenario, and what its choices are drawn from.
#[derive(Debug)]
pub(super) struct Staging {
    random: Random,
    staged: Option<Staged>,
}

impl Staging {
    pub(super) fn new(seed: u64) -> Staging {
        Staging {
            // Of its own, as the plan's.
            random: Random::new(seed ^ 0x0005_7a6e),
            staged: None,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether a leader was told a word that no other is to hear: nobody tells it another one meanwhile.
    pub(super) fn is_about_a_word(&self) -> bool {
        let staged = self.staged.as_ref();
        staged.is_some_and(|staged| staged.what == Scenario::SaysAWordAlone)
    }
}

impl<N: Node> Cluster<N> {
    /// Begins a scenario, now and then, where one can be staged. Whether it has.
    pub(super) fn stage(&mut self) -> bool {
        if !self.plan.stages || !self.staging.random.chance(300) {
            return false;
        }
        let Some(leader) = self.leader() else {
            return false;
        };
        let Some(mut others) = self.other_voters(leader) else {
            return false;
        };
        let at = self.staging.random.below(others.len() as u64);
        others.rotate_left(usize::try_from(at).unwrap_or(0));
        let majority = others.len().div_ceil(2) + 1;
        let (near, rest) = others.split_at(majority - 1);
        let [one, with @ ..] = near else { return false };
        // What is promised in memory can be forgotten: there it is tried more often.
        let forgets = if self.plan.policy == Policy::Disks {
            1
        } else {
            4
        };
        let says = if self.plan.has_sites { 4 } else { 0 };
        let drawn = self.staging.random.below(2 + says + forgets);
        let what = match drawn {
            0 => Scenario::WritesAlone,
            1 => Scenario::LagsBehind,
            _ if drawn < 2 + says => Scenario::SaysAWordAlone,
            _ => Scenario::ForgetsAndMeets,
        };
        if what == Scenario::ForgetsAndMeets && !self.may_lose_power(*one) {
            return false;
        }
        let (with, rest) = if what == Scenario::SaysAWordAlone {
            let Some(rest) = self.at_the_other_site(leader) else {
                return false;
            };
            (&[][..], rest)
        } else {
            (with, rest.to_vec())
        };
        self.trace(|| format!("{what:?} begins: {leader} leads, it is about {one}"));
        self.tally.staged += 1;
        self.staging.staged = Some(Staged {
            what,
            stage: 0,
            until_ns: 0,
            leader,
            one: *one,
            with: with.to_vec(),
            rest,
            index: 0,
        });
        true
    }

    /// The voters beside this one, if there are two or more, all of them awake, and nobody is leaving.
    fn other_voters(&self, leader: NodeId) -> Option<Vec<NodeId>> {
        let members = self.replica(leader)?.members();
        let is_awake = |id: &NodeId| {
            let process = self.processes.get(id);
            process.is_some_and(|process| {
                process.node.is_some() && process.paused_until_ns <= self.now_ns
            })
        };
        let voters = &members.voters;
        let can_be = voters.len() >= 3 && !members.is_joint() && voters.iter().all(is_awake);
        let others = voters.iter().copied().filter(|&id| id != leader);
        can_be.then(|| others.collect())
    }

    /// A node is about to cut back what it wrote, for the frames of this message: now and then its power goes
    /// in the midst of that.
    pub(super) fn stage_a_torn_cut(&mut self, id: NodeId, message: &Message) {
        let Some(replica) = self.replica(id) else {
            return;
        };
        let index = replica.index();
        let conflicts = message.frames().iter().any(|frame| {
            let header = frame.header();
            let own = index.term_at(header.index);
            own.is_some_and(|own| own != header.term)
        });
        let is_staged = self.plan.stages && self.plan.policy == Policy::Disks && !self.is_healed;
        if is_staged && conflicts && self.staging.random.chance(500) {
            let after = self.staging.random.below(12);
            self.hurt(id, |disk| disk.cut_power_after(after));
            self.tally.power_cut += 1;
        }
    }

    /// The voters at the other site than this leader, where it waits for them and its own is a majority.
    fn at_the_other_site(&self, leader: NodeId) -> Option<Vec<NodeId>> {
        let replica = self.replica(leader)?;
        let (members, sites) = (replica.members(), sites());
        let is_near = |id: &NodeId| sites.of(*id) == sites.of(leader);
        let (near, far): (Vec<NodeId>, Vec<NodeId>) =
            members.voters.iter().copied().partition(is_near);
        let can_be =
            members.is_quorum(&near) && !far.is_empty() && replica.gating() == Some(Gating::Sites);
        can_be.then_some(far)
    }

    /// Goes on with the scenario that is under way, behind each step of the simulation.
    pub(super) fn go_on(&mut self) -> Outcome {
        let Some(staged) = self.staging.staged.take() else {
            return Ok(());
        };
        if self.is_healed {
            return Ok(());
        }
        let has_come = self.has_come(&staged);
        if !has_come && self.now_ns < staged.until_ns {
            self.staging.staged = Some(staged);
            return Ok(());
        }
        self.trace(|| {
            let Staged { what, stage, .. } = staged;
            format!("{what:?}, stage {stage}: what was waited for is there: {has_come}")
        });
        let next = match staged.what {
            Scenario::ForgetsAndMeets => self.forgets_and_meets(staged)?,
            Scenario::WritesAlone => self.writes_alone(staged)?,
            Scenario::LagsBehind => self.lags_behind(staged)?,
            Scenario::SaysAWordAlone => self.says_a_word_alone(staged)?,
        };
        if next.is_none() {
            self.trace(|| "what was staged is over".to_owned());
            self.network.unblock_all();
            self.reconnect_all();
        }
        self.staging.staged = next;
        Ok(())
    }

    /// Whether what the stage waits for is there.
    fn has_come(&self, staged: &Staged) -> bool {
        let is_down = |id: NodeId| self.replica(id).is_none();
        let leads = |id: NodeId| {
            let view = self.replica(id).map(crate::replica::Replica::view);
            view.is_some_and(|view| view.role == Role::Leader)
        };
        let leader = self.replica(staged.leader).map(|replica| replica.view());
        match (staged.what, staged.stage) {
            (Scenario::ForgetsAndMeets, 1) => {
                let heard = staged.rest.iter().map(|&id| self.last_of(id)).max();
                let one = self.replica(staged.one);
                let is_ahead = self.last_of(staged.one) > heard.unwrap_or(0);
                is_ahead && one.is_some_and(|replica| replica.has_unwritten())
            }
            (Scenario::ForgetsAndMeets, 2) => {
                let has_it = leader.is_some_and(|view| view.committed >= staged.index);
                is_down(staged.one) && (has_it || is_down(staged.leader))
            }
            (Scenario::ForgetsAndMeets, 3) => {
                staged.rest.iter().any(|&id| leads(id)) || leads(staged.one)
            }
            (Scenario::WritesAlone, 1) => leader.is_none_or(|view| view.durable > staged.index),
            (Scenario::WritesAlone, 2) => self.next_leader(staged).is_some(),
            (Scenario::WritesAlone, 3) => {
                let next = self.replica(staged.one).map(|replica| replica.view());
                next.is_none_or(|view| view.durable > staged.index)
            }
            (Scenario::WritesAlone, 4) => leads(staged.leader),
            (Scenario::LagsBehind, 2) => {
                let one = self.replica(staged.one);
                one.is_none_or(|replica| replica.has_more() || replica.has_unwritten())
            }
            (Scenario::SaysAWordAlone, 1) => self.next_leader(staged).is_some(),
            (Scenario::SaysAWordAlone, 2) => leader
                .is_none_or(|view| view.leader == Some(staged.one) && view.durable >= staged.index),
            (Scenario::SaysAWordAlone, 3) => leads(staged.leader),
            _ => false,
        }
    }

    fn until(&mut self, least_ms: u64, most_ms: u64) -> u64 {
        self.now_ns + self.staging.random.between(least_ms, most_ms) * MS
    }

    fn forgets_and_meets(
        &mut self,
        mut staged: Staged,
    ) -> Result<Option<Staged>, Box<super::Failure>> {
        match staged.stage {
            0 => {
                for &far in &staged.rest {
                    self.cut_both(staged.leader, far);
                    for &near in &staged.with {
                        self.cut_both(near, far);
                    }
                }
                staged.until_ns = self.until(200, 600);
            }
            1 => {
                // The write is done, and promised where memory is enough; the sync is not.
                let id = staged.one;
                staged.index = self.replica(id).map_or(0, |replica| replica.view().last);
                if self.may_lose_power(id) {
                    self.hurt(id, |disk| disk.cut_power_after(1));
                    self.tally.power_cut += 1;
                }
                staged.until_ns = self.until(60, 200);
            }
            2 => {
                self.network.unblock_all();
                for &far in staged.rest.iter().chain([&staged.one]) {
                    self.cut_both(staged.leader, far);
                    for &near in &staged.with {
                        self.cut_both(near, far);
                    }
                }
                self.reconnect_all();
                staged.until_ns = self.until(500, 1200);
            }
            3 => staged.until_ns = self.until(1, 60),
            _ => return Ok(None),
        }
        staged.stage += 1;
        Ok(Some(staged))
    }

    fn writes_alone(&mut self, mut staged: Staged) -> Result<Option<Staged>, Box<super::Failure>> {
        match staged.stage {
            0 => {
                staged.index = self.last_of(staged.leader);
                self.isolate(staged.leader);
                staged.until_ns = self.until(50, 150);
            }
            1 => {
                self.kill(staged.leader, false);
                staged.until_ns = self.until(300, 600);
            }
            2 => {
                let Some(next) = self.next_leader(&staged) else {
                    self.start(staged.leader)?;
                    return Ok(None);
                };
                staged.one = next;
                staged.index = self.last_of(next).saturating_sub(1);
                self.isolate(next);
                staged.until_ns = self.until(20, 100);
            }
            3 => {
                self.kill(staged.one, false);
                self.network.unblock_all();
                self.start(staged.leader)?;
                self.reconnect_all();
                staged.until_ns = self.until(300, 600);
            }
            4 => staged.until_ns = self.until(1, 20),
            5 => {
                self.kill(staged.leader, false);
                self.start(staged.one)?;
                staged.until_ns = self.until(100, 600);
            }
            _ => {
                self.start(staged.leader)?;
                return Ok(None);
            }
        }
        staged.stage += 1;
        Ok(Some(staged))
    }

    fn lags_behind(&mut self, mut staged: Staged) -> Result<Option<Staged>, Box<super::Failure>> {
        match staged.stage {
            0 => {
                self.isolate(staged.one);
                staged.until_ns = self.until(200, 1500);
            }
            1 => {
                self.network.unblock_all();
                self.reconnect_all();
                staged.until_ns = self.until(100, 300);
            }
            2 => {
                let leader = self.leader().filter(|&leader| leader != staged.one);
                let one = staged.one;
                if self.staging.random.chance(500) && self.may_lose_power(one) {
                    // In the midst of what it fetches, checks, or writes of it.
                    let after = self.staging.random.below(8);
                    self.hurt(one, |disk| disk.cut_power_after(after));
                    self.tally.power_cut += 1;
                } else if let Some(leader) = leader {
                    self.isolate(leader);
                }
                staged.until_ns = self.until(50, 500);
            }
            _ => return Ok(None),
        }
        staged.stage += 1;
        Ok(Some(staged))
    }

    fn says_a_word_alone(
        &mut self,
        mut staged: Staged,
    ) -> Result<Option<Staged>, Box<super::Failure>> {
        match staged.stage {
            0 => {
                self.isolate(staged.leader);
                self.tell(staged.leader, Gating::Degraded)?;
                staged.until_ns = self.until(300, 600);
            }
            1 => {
                let Some(next) = self.next_leader(&staged) else {
                    return Ok(None);
                };
                staged.one = next;
                staged.index = self.last_of(next);
                self.network.unblock_all();
                self.reconnect_all();
                staged.until_ns = self.until(200, 500);
            }
            2 => {
                self.hand_over(staged.one, staged.leader)?;
                staged.until_ns = self.until(200, 400);
            }
            3 => {
                for &far in &staged.rest {
                    self.isolate(far);
                }
                staged.until_ns = self.until(100, 400);
            }
            _ => return Ok(None),
        }
        staged.stage += 1;
        Ok(Some(staged))
    }

    fn last_of(&self, id: NodeId) -> u64 {
        self.replica(id).map_or(0, |replica| replica.view().last)
    }

    /// Who leads in place of the one that led when it began.
    fn next_leader(&self, staged: &Staged) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let view = self.replica(*id).map(|replica| replica.view());
            *id != staged.leader && view.is_some_and(|view| view.role == Role::Leader)
        };
        self.alive().into_iter().find(leads)
    }

    fn isolate(&mut self, id: NodeId) {
        for other in self.ids() {
            self.cut_both(id, other);
        }
    }

    fn cut_both(&mut self, a: NodeId, b: NodeId) {
        self.cut(a, b);
        self.cut(b, a);
    }
}

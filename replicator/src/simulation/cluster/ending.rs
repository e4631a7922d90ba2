//! The end: everything is healed, and it is asked whether all is well.

use super::super::node::Node;
use super::{Cluster, Happening, MS, Outcome};
use crate::ids::NodeId;

/// Between two looks of an operator at what stands.
const MEND_NS: u64 = 500 * MS;

impl<N: Node> Cluster<N> {
    pub(super) fn heal(&mut self) -> Outcome {
        self.is_healed = true;
        self.plan.lost = 0;
        self.network.unblock_all();
        for id in self.ids() {
            let Some(process) = self.processes.get_mut(&id) else {
                continue;
            };
            process.paused_until_ns = 0;
            process.is_slow = false;
            let disk = process.setup.storage.clone();
            disk.set_capacity(u64::MAX);
            disk.heal();
            if disk.is_off() || process.is_hurt {
                self.kill(id, true);
            }
            self.start(id)?;
        }
        self.reconnect_all();
        self.after(MEND_NS, Happening::Mend);
        Ok(())
    }

    /// An operator's part: a logic that stands alone in front of an event is started again where it does
    /// not panic, if too few are left that could tell it to stop. Clients come first: another leads and
    /// answers them as long as there is one that does not stand (`PN4`).
    pub(super) fn mend(&mut self) {
        self.after(MEND_NS, Happening::Mend);
        let stand = |id: &NodeId| self.node(*id).and_then(Node::standing);
        for id in self.alive() {
            let Some(node) = self.node(id).filter(|node| node.stands_alone()) else {
                continue;
            };
            let (members, standing) = (node.replica().members(), node.standing());
            let gone = |id: &NodeId| self.processes.get(id).is_none_or(|process| process.is_gone);
            let left = members.voters.iter().filter(|id| !gone(id));
            let left: Vec<NodeId> = left.copied().collect();
            let others = left.iter().filter(|id| stand(id) != standing);
            let others: Vec<NodeId> = others.copied().collect();
            let somebody_can_answer = left.iter().any(|id| stand(id).is_none());
            let must_be_told = members.is_quorum(&others);
            if !must_be_told && (self.is_served() || !somebody_can_answer) {
                self.trace(|| format!("node {id} stands at {standing:?}, and is mended"));
                self.start_mended(id);
                return;
            }
        }
    }

    /// Every client had all its answers.
    fn is_served(&self) -> bool {
        let mut clients = self.clients.values();
        clients.all(|client| client.done_healed >= 3 && client.waiting.is_none())
    }

    /// One leader, all members level with it, and every client served.
    pub(super) fn is_well(&mut self) -> bool {
        if !self.is_served() {
            return false;
        }
        let Some(leader) = self.leader() else {
            return false;
        };
        let Some(replica) = self.replica(leader) else {
            return false;
        };
        let (end, members) = (replica.committed(), replica.members().clone());
        let is_level = |id: &NodeId| {
            let Some(process) = self.processes.get(id) else {
                return false;
            };
            let is_level = |node: &N| node.applied() == end && *node.replica().members() == members;
            process.is_gone || process.node.as_ref().is_some_and(is_level)
        };
        replica.tail().reached.position == end
            && !members.is_joint()
            && members.all().iter().all(is_level)
    }

    pub(super) fn state(&self) -> String {
        let mut text = String::new();
        for (id, process) in &self.processes {
            let state = match &process.node {
                None if process.is_gone => "gone".to_owned(),
                None => "down".to_owned(),
                Some(node) => {
                    let view = node.replica().view();
                    format!(
                        "{:?} of {:?} in term {}, ready {}, position {} of {}, last {}, committed {}, durable {}, applied {}, voters {:?}, learners {:?}",
                        view.role,
                        view.leader,
                        view.term,
                        node.replica().is_ready_to_lead(),
                        node.replica().durable(),
                        node.replica().committed(),
                        view.last,
                        view.committed,
                        view.durable,
                        node.applied(),
                        node.replica().members().voters,
                        node.replica().members().learners,
                    )
                }
            };
            text.push_str(&format!("\n  node {id}: {state}"));
        }
        for (id, client) in &self.clients {
            text.push_str(&format!("\n  client {id}: {client:?}"));
        }
        text
    }
}

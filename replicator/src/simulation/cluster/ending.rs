//! The end: everything is healed, and it is asked whether all is well.

use super::super::node::Node;
use super::{Cluster, Outcome};
use crate::ids::NodeId;

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
        Ok(())
    }

    /// One leader, all members level with it, and every client served.
    pub(super) fn is_well(&mut self) -> bool {
        if self
            .clients
            .values()
            .any(|client| client.done_healed < 3 || client.waiting.is_some())
        {
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

//! What goes wrong, at random: nodes, disks, network.

use lockstep_journaler::SegmentId;
use lockstep_journaler::frame::HEADER_BYTES;
use lockstep_journaler::storage::{Fault, Simulated, Storage};

use super::super::disk::OnDisk;
use super::super::network::Network;
use super::super::node::Node;
use super::{Cluster, Happening, MS, Outcome};
use crate::ids::NodeId;
use crate::policy::Policy;

impl<N: Node> Cluster<N> {
    pub(super) fn fault(&mut self) -> Outcome {
        if self.is_healed {
            return Ok(());
        }
        let delay = self.random.between(1, 2 * self.plan.fault_every_ns);
        self.after(delay, Happening::Fault);
        if self.staging.is_busy() || self.stage() {
            return Ok(());
        }
        let alive = self.alive();
        let Some(&id) = self.random.pick(&alive) else {
            return Ok(());
        };
        let kind = self.random.below(100);
        match kind {
            0..50 if self.plan.breaks_nodes => self.break_node(id),
            50..85 if self.plan.breaks_network => {
                self.break_network(id);
                Ok(())
            }
            85..90 => {
                let jump = self.random.below(2_000 * MS);
                if let Some(process) = self.processes.get_mut(&id) {
                    // Forward, and at another time back again.
                    process.wall_offset_ns = jump;
                    self.tally.jumps += 1;
                }
                Ok(())
            }
            _ => {
                let other = self.random.pick(&alive).copied().unwrap_or(id);
                if other != id {
                    self.reset(id, other);
                }
                Ok(())
            }
        }
    }

    fn break_node(&mut self, id: NodeId) -> Outcome {
        let kind = self.kind_of_break(id);
        match kind {
            0..20 => {
                self.tally.killed += 1;
                self.kill(id, false);
                self.restart_later(id);
            }
            20..40 => {
                self.tally.power_lost += 1;
                self.kill(id, true);
                self.restart_later(id);
            }
            40..50 => {
                let after = self.random.below(12);
                self.hurt(id, |disk| disk.cut_power_after(after));
                self.tally.power_cut += 1;
            }
            50..54 => {
                // The whole site loses power.
                for id in self.alive() {
                    self.tally.power_lost += 1;
                    self.kill(id, true);
                    self.restart_later(id);
                }
            }
            54..66 => {
                let until = self.now_ns + self.random.between(20, 600) * MS;
                if let Some(process) = self.processes.get_mut(&id) {
                    process.paused_until_ns = until;
                    self.tally.paused += 1;
                    self.trace(|| format!("node {id} pauses"));
                }
            }
            66..80 => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_slow = true;
                    self.tally.slow += 1;
                }
                let delay = self.random.between(50, 500) * MS;
                self.after(delay, Happening::HealDisk(id));
            }
            80..88 => {
                let fault = [Fault::SyncError, Fault::WriteError, Fault::ShortWrite]
                    [usize::try_from(self.random.below(3)).unwrap_or(0)];
                let skip = self.random.below(4);
                self.hurt(id, |disk| disk.inject(fault, "", skip));
                self.tally.disk_errors += 1;
            }
            88..94 => {
                if let Some(process) = self.processes.get_mut(&id) {
                    let disk = &process.setup.storage;
                    disk.set_capacity(u64::MAX);
                    // With room for everything, what is free tells what is used.
                    let used = u64::MAX - disk.free_bytes().unwrap_or(0);
                    disk.set_capacity(used.saturating_add(1000));
                    process.is_full = true;
                    self.tally.disk_full += 1;
                }
                let delay = self.random.between(50, 500) * MS;
                self.after(delay, Happening::HealDisk(id));
            }
            _ => return self.lose_disk(id),
        }
        Ok(())
    }

    /// Under a policy of memory power is lost by one node at a time, and by the next only when that
    /// one votes again; disks do as they are told. More was not promised.
    fn kind_of_break(&mut self, id: NodeId) -> u64 {
        let kind = self.random.below(100);
        if self.plan.policy == Policy::Disks {
            return kind;
        }
        let may_lose_power = self.may_lose_power(id);
        match kind {
            20..40 if may_lose_power => kind,
            40..50 if may_lose_power && self.plan.cuts_memory => kind,
            54..80 => kind,
            _ => 0,
        }
    }

    /// Whether a node's power may go: under a policy of memory only while all others know what they had promised.
    pub(super) fn may_lose_power(&self, id: NodeId) -> bool {
        if self.plan.policy == Policy::Disks {
            return true;
        }
        let others = self
            .processes
            .iter()
            .filter(|(other, process)| **other != id && !process.is_gone);
        let all_know = others.into_iter().all(|(_, process)| {
            process
                .node
                .as_ref()
                .is_some_and(|node| !node.replica().is_barred())
                && !process.is_hurt
        });
        // Of fewer, as behind a node that was forced, one that forgets may be one too many.
        let is_left = |id: &NodeId| self.processes.get(id).is_some_and(|one| one.is_left);
        let alive = self.alive().into_iter().filter(|id| !is_left(id));
        let mut replicas = alive.filter_map(|id| self.replica(id));
        let are_enough = replicas.all(|replica| replica.members().voters.len() >= 3);
        all_know && self.plan.voters >= 3 && are_enough
    }

    pub(super) fn hurt(&mut self, id: NodeId, how: impl FnOnce(&Simulated)) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.is_hurt = true;
            how(&process.setup.storage);
            self.trace(|| format!("the disk of node {id} is hurt"));
        }
    }

    /// One disk in a run is lost, or rots; the majority of three can bear it.
    fn lose_disk(&mut self, id: NodeId) -> Outcome {
        let others = self
            .processes
            .values()
            .filter(|process| !process.is_gone)
            .count();
        let is_bearable = self.plan.voters >= 3
            && others > 2
            && self.lost_for_ever == 0
            && self.plan.operator_every_ns > 0;
        if !is_bearable {
            return Ok(());
        }
        self.lost_for_ever += 1;
        self.kill(id, true);
        let disk = self.disks.get(&id).cloned();
        let Some(disk) = disk else { return Ok(()) };
        // What it had acknowledged it had: the checker goes on looking at the disk as it was.
        self.disks.insert(id, disk.fork());
        if self.random.chance(500) {
            self.tally.wiped += 1;
            if let Some(process) = self.processes.get_mut(&id) {
                process.is_gone = true;
            }
            return Ok(());
        }
        // In an older group: of the newest one nobody can tell rot from a torn write.
        let frames = self.checker.disk(id, &disk).frames();
        let newest = frames.last().map(|frame| (frame.segment, frame.group));
        let is_older = |frame: &&OnDisk| Some((frame.segment, frame.group)) != newest;
        let older: Vec<OnDisk> = frames.iter().filter(is_older).cloned().collect();
        let Some(frame) = self.random.pick(&older).cloned() else {
            // There is nothing to rot yet.
            self.disks.insert(id, disk);
            self.restart_later(id);
            return Ok(());
        };
        let length = HEADER_BYTES as u64 + frame.body.len() as u64;
        let at = frame.offset + self.random.below(length);
        if disk
            .rot(&SegmentId(frame.segment).file_name(), at, 0x10)
            .is_ok()
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.is_rotten = true;
        }
        self.checker.restarted(id);
        self.restart_later(id);
        Ok(())
    }

    fn break_network(&mut self, id: NodeId) {
        let ids = self.ids();
        let kind = self.random.below(100);
        match kind {
            0..30 => {
                self.tally.partitions += 1;
                for &other in &ids {
                    self.cut(id, other);
                    self.cut(other, id);
                }
            }
            30..55 => {
                self.tally.partitions += 1;
                let sides: Vec<bool> = ids.iter().map(|_| self.random.chance(500)).collect();
                for (&a, one) in ids.iter().zip(&sides) {
                    for (&b, other) in ids.iter().zip(&sides) {
                        if one != other {
                            self.cut(a, b);
                        }
                    }
                }
            }
            55..80 => {
                self.tally.one_way += 1;
                let is_inward = self.random.chance(500);
                for &other in &ids {
                    if is_inward {
                        self.cut(other, id);
                    } else {
                        self.cut(id, other);
                    }
                }
            }
            _ => {
                // Two sides; `id` sees both.
                self.tally.bridges += 1;
                let others: Vec<NodeId> =
                    ids.iter().copied().filter(|&other| other != id).collect();
                let (left, right) = others.split_at(others.len() / 2);
                for &a in left {
                    for &b in right {
                        self.cut(a, b);
                        self.cut(b, a);
                    }
                }
            }
        }
        self.trace(|| "the network is cut".to_owned());
        let delay = self.random.between(30, 700) * MS;
        self.after(delay, Happening::HealNetwork);
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        if from != to {
            self.network.block(from, to);
            self.network.reset(Network::pair(from, to));
        }
    }
}

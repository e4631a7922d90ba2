//! Processes: made, started on what their disks have, or not.

use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{Background, Options};

use super::super::model::EVENTS;
use super::super::node::{Node, Setup};
use super::{Cluster, Happening, MS, Outcome, Process, sites};
use crate::ids::{ClusterId, Epoch, NodeId};
use crate::policy::Policy;
use crate::replica::{Mutation, ReplicaOptions};

impl<N: Node> Cluster<N> {
    pub(super) fn add_process(&mut self, id: NodeId) {
        let storage = Simulated::new(self.random.draw());
        let mut journal = Options::new(&EVENTS).with_segment_bytes(self.plan.segment_bytes);
        journal.background = Background::Stepped;
        journal.journal_id = Some([u8::try_from(id.0).unwrap_or(255); 16]);
        journal.mutations.retry_failed_sync = self.plan.mutation == Some(Mutation::RetryFailedSync);
        journal.mutations.cut_without_intent =
            self.plan.mutation == Some(Mutation::CutWithoutIntent);
        let cluster: ClusterId = "simulated"
            .parse()
            .unwrap_or_else(|_| unreachable!("a good name"));
        let mut replica = ReplicaOptions::new(cluster, id, &self.founders);
        replica.settings.seed = self.plan.seed;
        replica.settings.frames_per_append = self.plan.frames_per_append;
        replica.tick_ns = self.plan.tick_ns;
        replica.window_frames = 64;
        replica.recent_bytes_max = 2048;
        replica.message_bytes_max = 4096;
        replica.mutation = self.plan.mutation;
        replica.policy = self.plan.policy;
        replica.boot = 1;
        replica.epoch = self.epoch;
        if self.plan.has_sites {
            replica.sites = sites();
        }
        if self.plan.policy != Policy::Disks {
            self.checker.count_written(id);
        }
        self.disks.insert(id, storage.clone());
        let process = Process {
            setup: Setup {
                storage,
                journal,
                replica,
                runs_ahead: self.plan.runs_ahead,
                panics_alone: self.plan.panics && self.epoch == Epoch(0),
            },
            node: None,
            life: 0,
            is_made: false,
            is_gone: false,
            is_left: false,
            is_hurt: false,
            is_full: false,
            begins_anew: false,
            is_rotten: false,
            paused_until_ns: 0,
            is_slow: false,
            persists: false,
            drift: self.random.below(2000),
            wall_offset_ns: self.random.below(50 * MS),
        };
        self.processes.insert(id, process);
    }

    pub(super) fn start(&mut self, id: NodeId) -> Outcome {
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        if process.is_gone || process.node.is_some() {
            return Ok(());
        }
        process.setup.storage.set_capacity(u64::MAX);
        process.is_full = false;
        let is_cut = process.begins_anew
            && !self.is_healed
            && self.plan.policy == Policy::Disks
            && self.random.chance(300);
        if is_cut {
            let after = self.random.below(40);
            process.setup.storage.cut_power_after(after);
        }
        let started = if process.is_made {
            N::open(&process.setup)
        } else {
            N::create(&process.setup)
        };
        process.life += 1;
        process.persists = false;
        let life = process.life;
        match started {
            Ok(_) if process.is_rotten => Err(self.failure(format!(
                "node {id} starts, though a byte of its journal is rotten"
            ))),
            Ok(_) | Err(_) if process.setup.storage.is_off() => {
                self.lose_power_in_start(id);
                Ok(())
            }
            Ok(node) => {
                process.begins_anew = false;
                self.tally.torn += u64::from(node.replica().has_cut_torn_tail());
                process.node = Some(node);
                process.is_made = true;
                // Where it was to lose power as it begins anew, and did not, it does later; so does one whose disk was
                // hurt while it was off.
                process.is_hurt |= is_cut;
                self.checker.restarted(id);
                self.trace(|| format!("node {id} starts"));
                self.after(MS, Happening::Turn(id, life));
                for other in self.ids() {
                    if other != id {
                        let delay = self.random.between(1, 20) * MS;
                        self.after(delay, Happening::Connect(id, other));
                    }
                }
                self.look(id)
            }
            Err(reason) if process.is_rotten => {
                // Its journal is damaged, and it says so: a node that does not start harms nobody.
                process.is_gone = true;
                self.tally.rotten += 1;
                self.trace(|| format!("node {id} will not start: {reason}"));
                Ok(())
            }
            Err(reason) => Err(self.failure(format!("node {id} will not start: {reason}"))),
        }
    }

    fn lose_power_in_start(&mut self, id: NodeId) {
        self.tally.begun_in_two += 1;
        if let Some(process) = self.processes.get_mut(&id) {
            process.setup.storage.crash();
            process.setup.storage.heal();
            process.setup.replica.boot += 1;
        }
        self.restart_later(id);
    }
}

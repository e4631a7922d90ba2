//! What happens next, and the steps of one node: a turn, its disk, its end; the checkers behind each.

use std::cmp::Reverse;

use super::super::node::Node;
use super::{Cluster, EPOCH_NS, Happening, MS, Outcome};
use crate::ids::NodeId;
use crate::policy::Policy;

impl<N: Node> Cluster<N> {
    pub(super) fn step(&mut self) -> Outcome {
        let Some(Reverse(scheduled)) = self.queue.pop() else {
            return Err(self.failure("nothing happens any more".to_owned()));
        };
        self.now_ns = self.now_ns.max(scheduled.at_ns);
        self.tally.steps += 1;
        self.happen(scheduled.what)?;
        self.go_on()
    }

    fn happen(&mut self, what: Happening) -> Outcome {
        match what {
            Happening::Deliver {
                from,
                to,
                life,
                bytes,
            } => self.deliver(from, to, life, bytes),
            Happening::Turn(id, life) => self.turn(id, life),
            Happening::Persist(id, life) => self.persist(id, life),
            Happening::Ask(id, request) => {
                self.ask(id, request);
                Ok(())
            }
            Happening::Answer(reply) => self.answer(&reply),
            Happening::Client(client) => {
                self.client(client);
                Ok(())
            }
            Happening::Fault => self.fault(),
            Happening::Operator => self.operator(),
            Happening::Snapshot => self.snapshot(),
            Happening::Connect(a, b) => self.connect(a, b),
            Happening::Restart(id) => self.start(id),
            Happening::HealNetwork => {
                // What is staged heals it behind itself.
                if !self.staging.is_busy() {
                    self.network.unblock_all();
                    self.trace(|| "the network is whole".to_owned());
                    self.reconnect_all();
                }
                Ok(())
            }
            Happening::HealDisk(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_slow = false;
                    process.is_full = false;
                    process.setup.storage.set_capacity(u64::MAX);
                }
                Ok(())
            }
            Happening::Force => self.force(),
            Happening::Mend => {
                self.mend();
                Ok(())
            }
        }
    }

    /// Its node, if it runs this life and is not paused; else the event comes again, or never.
    pub(super) fn is_running(&mut self, id: NodeId, life: u64, again: Happening) -> bool {
        let Some(process) = self.processes.get(&id) else {
            return false;
        };
        if process.node.is_none() || (life != 0 && process.life != life) {
            return false;
        }
        if process.paused_until_ns > self.now_ns {
            let at = process.paused_until_ns;
            self.at(at, again);
            return false;
        }
        true
    }

    fn turn(&mut self, id: NodeId, life: u64) -> Outcome {
        if !self.is_running(id, life, Happening::Turn(id, life)) {
            return Ok(());
        }
        let delay = self.random.between(MS, 4 * MS);
        self.after(delay, Happening::Turn(id, life));
        self.begin(id)
    }

    pub(super) fn begin(&mut self, id: NodeId) -> Outcome {
        let now_ns = self.now_ns;
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let own_ns = now_ns + now_ns / 1_000_000 * process.drift;
        let wall_ns = EPOCH_NS + own_ns + process.wall_offset_ns;
        let mut out = Vec::new();
        let begun = node.begin(own_ns, wall_ns, &mut out);
        let (life, is_slow) = (process.life, process.is_slow);
        let wants_disk = !process.persists;
        process.persists = true;
        if let Err(reason) = begun {
            return self.stopped(id, &reason);
        }
        if wants_disk {
            let (least, most) = self.plan.disk_ns;
            let delay = self.random.between(least, most) * if is_slow { 20 } else { 1 };
            self.after(delay, Happening::Persist(id, life));
        }
        self.send_all(id, out);
        self.look(id)
    }

    fn persist(&mut self, id: NodeId, life: u64) -> Outcome {
        if !self.is_running(id, life, Happening::Persist(id, life)) {
            return Ok(());
        }
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        process.persists = false;
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let mut out = Vec::new();
        if let Err(reason) = node.persist(&mut out) {
            if self.plan.policy != Policy::Disks {
                // Answers that promise memory had left before the sync.
                self.send_all(id, out);
            }
            return self.stopped(id, &reason);
        }
        self.send_all(id, out);
        self.look(id)
    }

    /// What must hold, and what it tells its clients.
    pub(super) fn look(&mut self, id: NodeId) -> Outcome {
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        let Some(node) = &mut process.node else {
            return Ok(());
        };
        let replies = node.replies();
        let checked = self.checker.check(id, &*node, &self.disks);
        checked.map_err(|what| self.failure(what))?;
        for reply in replies {
            let checked = self.checker.check_reply(id, &reply);
            checked.map_err(|what| self.failure(what))?;
            if !self.is_healed && self.random.chance(30) {
                continue;
            }
            let delay = self
                .random
                .between(self.plan.delay_ns.0, self.plan.delay_ns.1);
            self.after(delay, Happening::Answer(reply));
        }
        Ok(())
    }

    /// A node came to its end; that is right if its disk was hurt.
    pub(super) fn stopped(&mut self, id: NodeId, reason: &str) -> Outcome {
        if self
            .replica(id)
            .is_some_and(|replica| replica.has_begun_anew())
        {
            self.trace(|| format!("node {id}: {reason}"));
            self.tally.begun_anew += 1;
            self.kill(id, false);
            if let Some(process) = self.processes.get_mut(&id) {
                process.begins_anew = true;
            }
            let delay = self.random.between(1, 20) * MS;
            self.after(delay, Happening::Restart(id));
            return Ok(());
        }
        if self.node(id).is_some_and(Node::stands_alone) {
            self.trace(|| format!("node {id} stops: {reason}"));
            self.start_mended(id);
            return Ok(());
        }
        let is_hurt = self
            .processes
            .get(&id)
            .is_some_and(|process| process.is_hurt || process.is_full);
        if !is_hurt {
            return Err(self.failure(format!("node {id} stopped without a cause: {reason}")));
        }
        self.trace(|| format!("node {id} stops: {reason}"));
        let process = self.processes.get(&id);
        if let Some(node) = process.and_then(|process| process.node.as_ref()) {
            let checked = self.checker.check_dying(id, node, &self.disks);
            checked.map_err(|what| self.failure(what))?;
        }
        self.kill(id, true);
        self.restart_later(id);
        Ok(())
    }

    pub(super) fn kill(&mut self, id: NodeId, loses_power: bool) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if let Some(node) = process.node.take() {
            self.tally.cut_back += node.replica().cuts();
        }
        process.life += 1;
        process.paused_until_ns = 0;
        // What the cache says of a disk that has failed once is not to be believed: the machine is
        // started again, and not the process alone.
        let loses_power = loses_power || process.is_hurt;
        if loses_power {
            self.checker.loses_power(id, &process.setup.storage);
            process.setup.storage.crash();
            process.setup.replica.boot += 1;
        }
        process.setup.storage.heal();
        process.is_hurt = false;
        self.network.reset_all_of(id, self.plan.hears_last_words);
        self.checker.restarted(id);
        self.trace(|| format!("node {id} is killed, power lost: {loses_power}"));
    }

    /// A logic that panics alone is started again where it does not: its memory is mended.
    pub(super) fn start_mended(&mut self, id: NodeId) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.setup.panics_alone = false;
        }
        self.tally.panicked_alone += 1;
        self.kill(id, false);
        self.restart_later(id);
    }

    pub(super) fn restart_later(&mut self, id: NodeId) {
        let delay = self.random.between(10, 400) * MS;
        self.after(delay, Happening::Restart(id));
    }

    /// One node takes a snapshot, and gives up what is behind two of them.
    fn snapshot(&mut self) -> Outcome {
        let delay = self.random.between(1, 2 * self.plan.snapshot_every_ns);
        self.after(delay, Happening::Snapshot);
        let alive = self.alive();
        let Some(&id) = self.random.pick(&alive) else {
            return Ok(());
        };
        let now_ns = self.now_ns;
        let Some(process) = self.processes.get_mut(&id) else {
            return Ok(());
        };
        if process.paused_until_ns > now_ns {
            return Ok(());
        }
        if let Some(node) = &mut process.node {
            let first = node.replica().index().first();
            node.take_snapshot();
            self.tally.snapshots += 1;
            self.tally.given_up += node.replica().index().first() - first;
        }
        self.trace(|| format!("node {id} takes a snapshot"));
        self.look(id)
    }
}

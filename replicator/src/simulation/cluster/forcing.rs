//! An operator forces one node to go on alone: the others are off, and one of them comes back all the same.
//!
//! ```text
//!   all off ─► force ─► the node leads alone, in a higher epoch ─► others are added, under new ids
//!        │       └ power goes in the midst: once more, with a higher number
//!        └► one comes back as it was: its messages are of another epoch, and do no harm
//! ```
//!
//! What operators do wrong is tried too: an epoch that does not rise, the old file, the new number in the file
//! of who was left behind. Each has to be refused.

use super::super::node::Node;
use super::{Cluster, EPOCH_NS, Happening, MS, Outcome};
use crate::ids::{Epoch, NodeId};
use crate::policy::Policy;

impl<N: Node> Cluster<N> {
    pub(super) fn force(&mut self) -> Outcome {
        if self.is_healed {
            return Ok(());
        }
        let Some(one) = self.who_may_go_on() else {
            self.after(20 * MS, Happening::Force);
            return Ok(());
        };
        self.leave_behind(one)?;
        let loses_power = self.random.chance(500);
        self.kill(one, loses_power);
        self.trace(|| format!("{one} is forced to go on alone"));
        let before = self.checker.look_before_force(one, &self.disks);
        self.refuses_an_epoch_that_does_not_rise(one)?;
        self.force_until_done(one)?;
        self.refuses_to_start_in(one, Epoch(0))?;
        let kept = self.checker.force(one, &before, &self.disks);
        let (kept, lost) = kept.map_err(|what| self.failure(what))?;
        self.tally.forced += 1;
        self.tally.lost_by_force += lost;
        self.forget_what_was_under_way();
        self.clients_begin_again(kept);
        self.start(one)
    }

    /// A voter with something in its log, that nothing is wrong with.
    fn who_may_go_on(&mut self) -> Option<NodeId> {
        if self.staging.is_busy() {
            return None;
        }
        let can = |id: &NodeId| {
            let (Some(process), Some(replica)) = (self.processes.get(id), self.replica(*id)) else {
                return false;
            };
            let is_whole = !process.is_hurt && !process.is_full && !process.begins_anew;
            is_whole && replica.members().is_voter(*id) && replica.durable().0 > 0
        };
        let able: Vec<NodeId> = self.alive().into_iter().filter(can).collect();
        if self.random.chance(500) {
            // The worst choice: what only the others have is lost.
            let durable = |id: &&NodeId| self.replica(**id).map(|replica| replica.durable());
            return able.iter().min_by_key(durable).copied();
        }
        self.random.pick(&able).copied()
    }

    /// The others are off: for ever, but for one voter, which no others are left to vote for.
    fn leave_behind(&mut self, one: NodeId) -> Outcome {
        let is_voter = |id: &NodeId| {
            let replica = self.replica(*id);
            *id != one && replica.is_some_and(|replica| replica.members().voters.len() > 2)
        };
        let voters: Vec<NodeId> = self.alive().into_iter().filter(is_voter).collect();
        let returns = self.random.pick(&voters).copied();
        self.lost_for_ever += 1;
        for id in self.ids() {
            if id == one {
                continue;
            }
            self.kill(id, false);
            if let Some(process) = self.processes.get_mut(&id) {
                process.is_left = true;
                process.is_gone = Some(id) != returns;
            }
        }
        let Some(id) = returns else { return Ok(()) };
        let delay = self.random.between(20, 1000) * MS;
        self.after(delay, Happening::Restart(id));
        self.refuses_to_start_in(id, Epoch(self.epoch.0 + 1))
    }

    fn refuses_an_epoch_that_does_not_rise(&mut self, one: NodeId) -> Outcome {
        if !self.random.chance(300) {
            return Ok(());
        }
        let Some(process) = self.processes.get(&one) else {
            return Ok(());
        };
        match N::force(&process.setup, EPOCH_NS + self.now_ns) {
            Err(_) => Ok(()),
            Ok(_) => Err(self.failure(format!(
                "S14: node {one} is forced with epoch {}, which it has",
                self.epoch
            ))),
        }
    }

    /// Its file says another epoch than its directory: that is refused.
    fn refuses_to_start_in(&mut self, id: NodeId, epoch: Epoch) -> Outcome {
        let Some(process) = self.processes.get(&id) else {
            return Ok(());
        };
        if !self.random.chance(300) || process.setup.replica.epoch == epoch {
            return Ok(());
        }
        let mut setup = process.setup.clone();
        setup.replica.epoch = epoch;
        match N::open(&setup) {
            Err(_) => Ok(()),
            Ok(_) => Err(self.failure(format!(
                "S14: node {id} starts in epoch {epoch}, its directory is of another"
            ))),
        }
    }

    /// Power may go in the midst; then the operator does it again, with the next number.
    fn force_until_done(&mut self, one: NodeId) -> Outcome {
        let is_cut = self.plan.policy == Policy::Disks && self.random.chance(300);
        let mut after = is_cut.then(|| self.random.below(8));
        // Ends: power goes once at most.
        loop {
            self.epoch = Epoch(self.epoch.0 + 1);
            let time_ns = EPOCH_NS + self.now_ns;
            let Some(process) = self.processes.get_mut(&one) else {
                return Ok(());
            };
            let setup = &mut process.setup;
            setup.replica.epoch = self.epoch;
            setup.panics_alone = false;
            if let Some(after) = after.take() {
                setup.storage.cut_power_after(after);
            }
            let forced = N::force(setup, time_ns);
            let has_lost_power = setup.storage.is_off();
            if has_lost_power {
                setup.storage.crash();
                setup.replica.boot += 1;
            }
            setup.storage.heal();
            match forced {
                _ if has_lost_power => self.tally.power_cut += 1,
                Ok(_) => return Ok(()),
                Err(error) => {
                    return Err(self.failure(format!("node {one} can not be forced: {error}")));
                }
            }
        }
    }

    /// All were off when it was done: what they and the clients had said is gone.
    fn forget_what_was_under_way(&mut self) {
        self.queue.retain(|scheduled| {
            let what = &scheduled.0.what;
            let is_said = matches!(what, Happening::Ask(..) | Happening::Answer(_));
            !is_said && !matches!(what, Happening::Deliver { .. })
        });
    }

    /// Whose session is not in the log begins another.
    fn clients_begin_again(&mut self, kept: u64) {
        self.floor = self.floor.min(kept);
        for client in self.clients.values_mut() {
            client.leader = None;
            if client.session > kept {
                (client.session, client.number, client.waiting) = (0, 0, None);
            }
            if let Some(waiting) = &mut client.waiting {
                waiting.floor = waiting.floor.min(kept);
            }
        }
    }
}

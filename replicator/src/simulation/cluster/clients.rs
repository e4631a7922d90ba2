//! Clients: one request at a time, asked again until it is answered.

use super::super::checker::Checker;
use super::super::model::{Answer, BROKEN, BROKEN_ALONE, Reply};
use super::super::node::{Admitted, Node, Request};
use super::super::plan::Plan;
use super::super::random::Random;
use super::{Cluster, Happening, MS, Outcome, Waiting};
use crate::ids::{Epoch, NodeId};

impl<N: Node> Cluster<N> {
    pub(super) fn client(&mut self, number: u64) {
        let delay = self.random.between(3, 30) * MS;
        self.after(delay, Happening::Client(number));
        let (now_ns, floor, is_healed) = (self.now_ns, self.floor, self.is_healed);
        let alive = self.alive();
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let waiting = match client.waiting {
            Some(waiting) if now_ns < waiting.asked_ns + waiting.timeout_ns => return,
            Some(waiting) => {
                self.tally.retried += 1;
                client.leader = None;
                waiting
            }
            None if is_healed && client.done_healed >= 3 => return,
            None => {
                client.number += 1;
                Waiting {
                    request: Request {
                        client: number,
                        session: client.session,
                        number: client.number,
                        register: self.random.below(8),
                        amount: amount(&self.plan, self.epoch, &mut self.random),
                    },
                    floor,
                    asked_ns: now_ns,
                    timeout_ns: 0,
                }
            }
        };
        let request = waiting.request;
        let timeout_ns = self.random.between(50, 150) * MS;
        client.waiting = Some(Waiting {
            asked_ns: now_ns,
            timeout_ns,
            ..waiting
        });
        let to = client.leader.or_else(|| self.random.pick(&alive).copied());
        // Some ask twice at once: it is done once.
        let times = if self.random.chance(100) { 2 } else { 1 };
        for _ in 0..times {
            if let Some(to) = to
                && !self.random.chance(if is_healed { 0 } else { 30 })
            {
                let delay = self
                    .random
                    .between(self.plan.delay_ns.0, self.plan.delay_ns.1);
                self.after(delay, Happening::Ask(to, request));
            }
        }
    }

    pub(super) fn ask(&mut self, id: NodeId, request: Request) {
        if !self.is_running(id, 0, Happening::Ask(id, request)) {
            return;
        }
        let Some(node) = self
            .processes
            .get_mut(&id)
            .and_then(|process| process.node.as_mut())
        else {
            return;
        };
        let admitted = node.request(request);
        if let (Admitted::NotLeader(leader), Some(client)) =
            (admitted, self.clients.get_mut(&request.client))
        {
            client.leader = leader;
            if let Some(waiting) = &mut client.waiting {
                waiting.timeout_ns = 5 * MS;
            }
        }
    }

    pub(super) fn answer(&mut self, reply: &Reply) -> Outcome {
        let Some(client) = self.clients.get_mut(&reply.client) else {
            return Ok(());
        };
        let Some(waiting) = client.waiting else {
            return Ok(());
        };
        let is_opening = waiting.request.session == 0;
        let is_ours = reply.request == waiting.request.number
            && is_opening == (reply.answer == Answer::Opened)
            && (is_opening || reply.session == waiting.request.session);
        if !is_ours {
            return Ok(());
        }
        client.waiting = None;
        if is_opening {
            client.session = reply.session;
            client.number = 0;
        }
        if self.is_healed {
            client.done_healed += 1;
        }
        self.tally.acknowledged += 1;
        let done = Checker::check_order(reply, waiting.floor).map_err(|what| self.failure(what))?;
        self.floor = self.floor.max(done);
        Ok(())
    }
}

/// What is added; now and then what the logic panics on.
fn amount(plan: &Plan, epoch: Epoch, random: &mut Random) -> i64 {
    if plan.panics && random.chance(60) {
        // One of one is a majority: there nobody is alone, and who is forced to go on is one.
        let can_be_alone = plan.voters >= 3 && epoch == Epoch(0);
        let is_alone = can_be_alone && random.chance(300);
        return if is_alone { BROKEN_ALONE } else { BROKEN };
    }
    i64::try_from(random.between(1, 1000)).unwrap_or(1)
}

//! Orders over any number of client sessions, on one thread, and what came of them.
//!
//! Each client acts for an account of its own and has at most one order in each instrument's book: it
//! sells and buys at one price in turn, and an order that would meet the client's own cancels that
//! one. So the book stays small however long it goes on, and clients trade with one another.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_exchange::event::{
    Event, FLAG_SELF_TRADE_SHIFT, NewOrder, SelfTrade, SessionOpen, Side, TimeInForce,
};
use lockstep_perf::args::quantity::nanos;
use lockstep_replicator::client::{Client, ClientError, Reply};
use lockstep_replicator::transport::Waiting;

use super::reach::Reach;
use crate::verb::node::{ACCOUNTS, INSTRUMENTS};

/// Longest wait for a session to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) clients: u32,
    pub(super) in_flight: u32,
    /// Of all clients together; no more after `duration` either.
    pub(super) orders: u64,
    pub(super) duration: Duration,
    /// Orders a second, of all clients together; 0: as many as are answered.
    pub(super) rate: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) asked: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) repeated: u64,
    pub(super) unanswered: u64,
    pub(super) took: Duration,
    /// From when the order was asked, or due with a rate, to its answer.
    pub(super) response_ns: Histogram<u64>,
    /// The longest time between two answers, while some were waited for.
    pub(super) outage: Duration,
    pub(super) busy: u64,
    pub(super) lost_connections: u64,
    pub(super) redirected: u64,
    pub(super) sent_again: u64,
    /// The last answer's place in the log.
    pub(super) position: u64,
    /// Codes of refusals, and how often.
    pub(super) codes: Vec<(u16, u64)>,
}

/// A client and what it has asked.
struct Trader {
    client: Client,
    account: u32,
    asked: u64,
    /// When the orders in flight were due, the oldest first.
    due_ns: std::collections::VecDeque<u64>,
}

struct Load<'a> {
    plan: &'a Plan,
    traders: Vec<Trader>,
    started: Instant,
    last_answer: Instant,
    outcome: Outcome,
}

/// Asks, until all is answered, or nobody answers for too long.
pub(super) fn run(
    reach: &Reach,
    plan: &Plan,
    is_asked_to_end: impl Fn() -> bool,
) -> Result<Outcome, ClientError> {
    let mut options = reach.options.clone();
    options.window = plan.in_flight;
    let mut traders = Vec::new();
    for at in 0..plan.clients {
        let mut client = Client::connect(&reach.addresses, &options, reach.patience)?;
        let account = account_of(&client, at);
        let act_for = SessionOpen {
            account,
            ..SessionOpen::default()
        };
        client.call(
            bytemuck::bytes_of(&Event::new(0, 0, 0, &act_for)),
            reach.patience,
        )?;
        traders.push(Trader {
            client,
            account,
            asked: 0,
            due_ns: std::collections::VecDeque::new(),
        });
    }
    let now = Instant::now();
    let load = Load {
        plan,
        traders,
        started: now,
        last_answer: now,
        outcome: Outcome::new(),
    };
    load.go(reach.patience, is_asked_to_end)
}

/// Clients of one run have accounts of their own; those of the next run others.
fn account_of(client: &Client, at: u32) -> u32 {
    let session = client.session().unwrap_or(0);
    let spread = u32::try_from(session % u64::from(ACCOUNTS)).unwrap_or(0);
    (spread + at) % ACCOUNTS
}

impl Load<'_> {
    fn go(
        mut self,
        patience: Duration,
        is_asked_to_end: impl Fn() -> bool,
    ) -> Result<Outcome, ClientError> {
        let mut waiting = Waiting::default();
        loop {
            let is_over = self.started.elapsed() >= self.plan.duration
                || self.outcome.asked >= self.plan.orders
                || is_asked_to_end();
            if !is_over {
                self.ask();
            }
            let in_flight: u32 = self.traders.iter().map(|one| one.client.in_flight()).sum();
            if is_over && in_flight == 0 {
                break;
            }
            if in_flight > 0 && self.last_answer.elapsed() >= patience {
                break;
            }
            self.turn(&mut waiting)?;
        }
        self.outcome.took = self.started.elapsed();
        for one in &self.traders {
            let counters = one.client.counters();
            self.outcome.busy += counters.busy;
            self.outcome.lost_connections += counters.lost;
            self.outcome.redirected += counters.redirected;
            self.outcome.sent_again += counters.repeated;
            self.outcome.unanswered += u64::from(one.client.in_flight());
        }
        for one in self.traders {
            if one.client.in_flight() == 0 {
                // Whom it cannot be said to ends the session when it expires.
                let _ = one.client.close(CLOSE_WITHIN);
            }
        }
        Ok(self.outcome)
    }

    /// Asks for what is due, as far as the windows allow.
    fn ask(&mut self) {
        let elapsed = nanos(self.started.elapsed());
        if self.plan.rate == 0 {
            for at in 0..self.traders.len() {
                // Ends: the window is full, or all is asked.
                while self.outcome.asked < self.plan.orders && self.traders[at].ask(elapsed) {
                    self.note_asked();
                }
            }
            return;
        }
        let clients = u64::from(self.plan.clients);
        // Ends: comes to an order that is not due, or to one that has no room.
        while self.outcome.asked < self.plan.orders {
            let due = self.due_ns(self.outcome.asked);
            let whose = usize::try_from(self.outcome.asked % clients).unwrap_or(0);
            if due > elapsed || !self.traders[whose].ask(due) {
                return;
            }
            self.note_asked();
        }
    }

    fn note_asked(&mut self) {
        let had_none = self
            .traders
            .iter()
            .map(|one| one.due_ns.len())
            .sum::<usize>()
            == 1;
        if had_none {
            // Nothing was waited for before: that was no outage.
            self.last_answer = Instant::now();
        }
        self.outcome.asked += 1;
    }

    fn due_ns(&self, order: u64) -> u64 {
        let due = u128::from(order) * 1_000_000_000 / u128::from(self.plan.rate.max(1));
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    fn turn(&mut self, waiting: &mut Waiting) -> Result<(), ClientError> {
        waiting.clear();
        let mut timeout = Duration::from_millis(50);
        let clients = u64::from(self.plan.clients);
        let next = usize::try_from(self.outcome.asked % clients).unwrap_or(0);
        // One that has no room waits for an answer, however long its order is due.
        if self.plan.rate > 0 && self.traders[next].client.in_flight() < self.plan.in_flight {
            let due = self.due_ns(self.outcome.asked);
            let elapsed = nanos(self.started.elapsed());
            timeout = timeout.min(Duration::from_nanos(due.saturating_sub(elapsed)));
        }
        for one in &mut self.traders {
            timeout = timeout.min(one.client.prepare(waiting));
        }
        waiting.wait(timeout).map_err(ClientError::Wait)?;
        for at in 0..self.traders.len() {
            self.traders[at].client.take(waiting)?;
            // Ends: each turn takes one of finitely many.
            while let Some(reply) = self.traders[at].client.reply() {
                self.answered(at, &reply);
            }
        }
        Ok(())
    }

    fn answered(&mut self, whose: usize, reply: &Reply) {
        let now = Instant::now();
        let due = self.traders[whose].due_ns.pop_front().unwrap_or(0);
        let outcome = &mut self.outcome;
        outcome.outage = outcome.outage.max(now - self.last_answer);
        self.last_answer = now;
        let elapsed = nanos(now - self.started);
        // Within its bounds every number fits.
        let _ = outcome
            .response_ns
            .record(elapsed.saturating_sub(due).max(1));
        outcome.position = outcome.position.max(reply.position);
        outcome.repeated += u64::from(reply.is_repeated);
        if reply.code == 0 {
            outcome.accepted += 1;
            return;
        }
        outcome.refused += 1;
        match outcome
            .codes
            .iter_mut()
            .find(|(code, _)| *code == reply.code)
        {
            Some((_, count)) => *count += 1,
            None => outcome.codes.push((reply.code, 1)),
        }
    }
}

impl Trader {
    /// Asks for its next order; `false`: as many are in flight as may be.
    fn ask(&mut self, due_ns: u64) -> bool {
        let number = self.asked;
        let side = if (number / u64::from(INSTRUMENTS)).is_multiple_of(2) {
            Side::Sell
        } else {
            Side::Buy
        };
        let mut order = NewOrder::limit(side, TimeInForce::GoodTillCancel);
        order.price = 100;
        order.quantity = 1;
        order.instrument = u32::try_from(number % u64::from(INSTRUMENTS)).unwrap_or(0);
        order.account = self.account;
        order.flags = (SelfTrade::CancelOldest as u8) << FLAG_SELF_TRADE_SHIFT;
        order.order = self.client.session().unwrap_or(0) << 32 | number;
        let event = Event::new(0, 0, 0, &order);
        if self.client.ask(bytemuck::bytes_of(&event)).is_err() {
            return false;
        }
        self.asked += 1;
        self.due_ns.push_back(due_ns);
        true
    }
}

impl Outcome {
    fn new() -> Outcome {
        Outcome {
            asked: 0,
            accepted: 0,
            refused: 0,
            repeated: 0,
            unanswered: 0,
            took: Duration::ZERO,
            response_ns: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
                .expect("bounds that are constants"),
            outage: Duration::ZERO,
            busy: 0,
            lost_connections: 0,
            redirected: 0,
            sent_again: 0,
            position: 0,
            codes: Vec::new(),
        }
    }
}

//! One turn of a node: what is said at once, what is written, and what is said behind the sync.
//!
//! A turn is `begin` and `persist`. What the consensus asks on the way is `effects`.

use lockstep_journaler::storage::Storage;

use super::effects::{INDEX_MARK, Work};
use super::{Fatal, Fetching, Mutation, Outbox, Replica};
use crate::consensus::Role;

/// Ticks between two tellings of the newest beacon.
const BEACON_TICKS: u64 = 20;

/// Ticks between two tellings of the events on which a logic panics, while one stands.
const PANIC_TICKS: u64 = 4;

impl<S: Storage> Replica<S> {
    /// One turn: tick, say what a leader says at once, write, sync, say what waited for that.
    ///
    /// # Errors
    ///
    /// [`Fatal`], once; after it nothing works.
    pub fn turn(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.begin(now_ns, outbox)?;
        self.persist(outbox)
    }

    /// The first half of a turn: tick, and say what does not wait for this disk (`RP2`).
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn begin(&mut self, now_ns: u64, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.check_alive()?;
        let next = *self
            .next_tick_ns
            .get_or_insert(now_ns + self.options.tick_ns);
        if now_ns >= next {
            // After a pause one tick, not all that were missed: first let the peers be heard.
            self.next_tick_ns = Some((next + self.options.tick_ns).max(now_ns));
            self.consensus.tick();
            self.ticks += 1;
            self.ask_again();
            if self.ticks.is_multiple_of(BEACON_TICKS) {
                self.say_beacon();
            }
            if self.ticks.is_multiple_of(PANIC_TICKS) {
                for word in self.panics.tellings(self.options.node) {
                    self.say_of_panic(word);
                }
                self.hand_over_where_another_passed()?;
            }
        }
        if self.options.mutation == Some(Mutation::AcknowledgeBeforeSync) {
            self.consensus.durable(self.consensus.handed_out());
        }
        self.drain()?;
        self.fetch();
        self.lend();
        self.flush(outbox);
        Ok(())
    }

    /// The second half: write, sync, and say what waited for it (`RP1`).
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    pub fn persist(&mut self, outbox: &mut impl Outbox) -> Result<(), Fatal> {
        self.check_alive()?;
        self.begin_anew_if_whole()?;
        let mark = self.consensus.handed_out();
        let is_written = self.log.write();
        if !self.unless_failed(is_written)? {
            self.counters.turns_full += 1;
            return Ok(());
        }
        let leads = self.consensus.view().role == Role::Leader;
        if self.options.policy.is_written_enough(leads) {
            self.consensus.durable(mark);
            self.drain()?;
            self.flush(outbox);
        }
        // Under a policy of memory too: the answers have left, and the logic reads what is durable.
        let synced = self.log.sync().map_err(Fatal::from);
        self.unless_failed(synced)?;
        self.consensus.durable(mark);
        self.drain()?;
        self.flush(outbox);
        Ok(())
    }

    /// Whether anything waits for [`persist`](Self::persist).
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.log.is_waiting()
    }

    /// Whether turns go on without a message: a snapshot that came is looked at, or pieces of one are
    /// lent (`LN4`).
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.fetching.as_ref().is_some_and(Fetching::is_at_work) || self.lending.is_asked()
    }

    pub(super) fn drain(&mut self) -> Result<(), Fatal> {
        let was = self.consensus.view();
        let mut work = Work {
            log: &mut self.log,
            unsent: &mut self.unsent,
            reads: &mut self.reads,
            notes: &mut self.notes,
            lending: &mut self.lending,
            options: &self.options,
            counters: &mut self.counters,
            fault: None,
        };
        let drained = self.consensus.drain(&mut work);
        let outcome = work.fault.map_or(drained, Err);
        self.log.arrived.clear();
        let view = self.consensus.view();
        if view.role == Role::Leader && (was.role != Role::Leader || was.term != view.term) {
            self.counters.elected += 1;
        }
        self.counters.cuts = self.log.cuts;
        for (_, position) in &mut self.reads {
            // The consensus speaks of indices, everybody else of positions.
            let index = position.0;
            if index & INDEX_MARK != 0 {
                let at = self.consensus.index().position_behind(index & !INDEX_MARK);
                *position = at.unwrap_or_default();
            }
        }
        self.unless_failed(outcome)
    }

    pub(super) fn unless_failed<T>(&mut self, outcome: Result<T, Fatal>) -> Result<T, Fatal> {
        if outcome.is_err() {
            self.has_failed = true;
            self.unsent.clear();
        }
        outcome
    }

    pub(super) fn check_alive(&self) -> Result<(), Fatal> {
        if self.has_failed {
            return Err(Fatal::Failed);
        }
        Ok(())
    }

    fn flush(&mut self, outbox: &mut impl Outbox) {
        if self.unsent.is_empty() {
            return;
        }
        for (to, message) in self.unsent.drain(..) {
            self.counters.sent += 1;
            outbox.send(to, message);
        }
        outbox.leave();
    }
}

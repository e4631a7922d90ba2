//! Which node is asked: the one that is named as the leader, else the next that speaks, after a while that grows.
//!
//! # Invariants
//!
//! * `M3` A node that was silent for as long as an answer may take is passed over for a while, also
//!   where another names it as the leader: a process that hangs, or is cut off, takes connections
//!   and says nothing, and those that have not noticed yet name it. Where all were silent, they are
//!   asked in turn.
//! * `M5` Between two asks it waits an eighth of the time for which it has not been served: who is elected
//!   has its clients soon, and a cluster that is away for long is asked seldom. A leader that is named is
//!   asked at once, unless it was asked within that time.

use super::{Machine, State};

/// How often the time for an answer a silent node is passed over: longer than an election.
pub(super) const SILENT_TIMES: u64 = 4;

/// The longest wait before a node is asked again.
pub(super) const RETRY_NS_MAX: u64 = 500_000_000;

impl Machine {
    /// The node that is asked, or will be.
    #[must_use]
    pub fn address(&self) -> &str {
        match &self.redirect {
            Some(address) => address,
            None => &self.addresses[self.current],
        }
    }

    pub(super) fn redirected(&mut self, address: &str, now_ns: u64) {
        self.counters.redirected += 1;
        let is_known = !address.is_empty();
        let is_new = is_known && address != self.address() && !self.is_silent(address, now_ns);
        self.go_on(now_ns);
        if is_new {
            match self.addresses.iter().position(|known| known == address) {
                Some(known) => {
                    self.current = known;
                    self.redirect = None;
                }
                None => self.redirect = Some(address.to_owned()),
            }
            // A leader that is named is asked at once; two that name each other are not, for ever: it may be a
            // moment before the one becomes it.
            let asked_ns = self.asked_ns().filter(|_| self.failures > 4);
            let least_ns = self.options.retry_ns / 16;
            let again_ns =
                asked_ns.map_or(0, |asked_ns| asked_ns + self.eighth_ns(now_ns, least_ns));
            self.not_before_ns = again_ns.max(now_ns);
        }
    }

    /// Away, and to the next address; after a while, which grows.
    pub(super) fn go_on(&mut self, now_ns: u64) {
        if self.state == State::Ready && now_ns.saturating_sub(self.ready_ns) > RETRY_NS_MAX {
            // It had been served, or asked for nothing: what was before is over.
            self.failures = 0;
            self.unserved_since_ns = None;
        }
        self.state = State::Away;
        self.sent = 0;
        self.out.clear();
        self.redirect = None;
        self.current = self.next(now_ns);
        self.failures = self.failures.saturating_add(1);
        self.unserved_since_ns.get_or_insert(now_ns);
        self.not_before_ns = now_ns.saturating_add(self.wait_ns(now_ns));
    }

    /// Between two asks (`M5`). The first round over all nodes does not wait: one of them may lead.
    fn wait_ns(&self, now_ns: u64) -> u64 {
        if usize::try_from(self.failures).unwrap_or(usize::MAX) < self.addresses.len() {
            return 0;
        }
        self.eighth_ns(now_ns, self.options.retry_ns)
    }

    /// Of the time for which it has not been served, but so much at least.
    fn eighth_ns(&self, now_ns: u64, least_ns: u64) -> u64 {
        let since_ns = self.unserved_since_ns.unwrap_or(now_ns);
        let eighth = now_ns.saturating_sub(since_ns) / 8;
        eighth.max(least_ns).min(RETRY_NS_MAX)
    }

    /// The node at [`address`](Self::address) is being asked.
    pub(super) fn remember_asked(&mut self, now_ns: u64) {
        let own = self.address().to_owned();
        let is_recent = |asked_ns: u64| now_ns < asked_ns.saturating_add(RETRY_NS_MAX);
        self.asked
            .retain(|(address, asked_ns)| *address != own && is_recent(*asked_ns));
        self.asked.push((own, now_ns));
    }

    /// When the node at [`address`](Self::address) was asked, if it was a moment ago.
    fn asked_ns(&self) -> Option<u64> {
        let mut asked = self.asked.iter();
        let own = asked.find(|(address, _)| address == self.address());
        own.map(|(_, asked_ns)| *asked_ns)
    }

    /// The next node that was not silent just now; where all were, the next (`M3`).
    fn next(&self, now_ns: u64) -> usize {
        let count = self.addresses.len();
        let mut others = (1..=count).map(|step| (self.current + step) % count);
        others
            .find(|at| !self.is_silent(&self.addresses[*at], now_ns))
            .unwrap_or((self.current + 1) % count)
    }

    fn is_silent(&self, address: &str, now_ns: u64) -> bool {
        let mut silent = self.silent.iter();
        silent.any(|(one, until)| one == address && now_ns < *until)
    }

    /// This node says nothing: for a while it is not asked again.
    pub(super) fn pass_over(&mut self, now_ns: u64) {
        let own = self.address().to_owned();
        let until = now_ns.saturating_add(self.options.answer_within_ns * SILENT_TIMES);
        self.silent
            .retain(|(address, until)| *address != own && now_ns < *until);
        self.silent.push((own, until));
    }
}

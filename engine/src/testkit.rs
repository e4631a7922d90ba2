//! Given, when, then: a model under test, without threads or files.
//!
//! ```
//! # use lockstep_engine::prelude::*;
//! # bodies! {
//! #     Deposit, kind 1, version 1: { account: u64, cents: i64 }
//! #     Balance, kind 101, version 1: { account: u64, cents: i64 }
//! # }
//! # #[derive(Default)]
//! # struct Bank { balances: DetMap<u64, i64> }
//! # snapshot!(Bank { balances });
//! # impl Logic for Bank {
//! #     type In = Deposit;
//! #     type Out = Balance;
//! #     fn validate(&self, deposit: &Deposit, _: &Context) -> Result<(), Reject> {
//! #         if deposit.cents == 0 { return Err(Reject::new(1, "zero amount")); }
//! #         Ok(())
//! #     }
//! #     fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
//! #         let balance = self.balances.entry(deposit.account);
//! #         *balance += deposit.cents;
//! #         out.emit(Balance { account: deposit.account, cents: *balance });
//! #     }
//! # }
//! Given::<Bank>::new()
//!     .given(Deposit { account: 7, cents: 100 })
//!     .when(Deposit { account: 7, cents: -30 })
//!     .then(Balance { account: 7, cents: 70 })
//!     .when(Deposit { account: 7, cents: 0 })
//!     .then_rejected(1)
//!     .then_state(|bank| assert_eq!(bank.balances.get(&7), Some(&70)));
//! ```
//!
//! Every step also checks what must hold for any logic: a refusal leaves the hash of the
//! state as it was, and the state survives being saved and loaded.

use crate::core::{Core, Scratch};
use crate::event::{Body, Slot};
use crate::logic::{EventOf, Logic, OutputOf};
use crate::state::{from_bytes, to_bytes};
use crate::system::{Rejected, Tick};

/// A logic under test; see the module.
#[derive(Debug)]
pub struct Given<L: Logic> {
    core: Core<L>,
    scratch: Scratch<L::Out>,
    time_ns: u64,
    outputs: Vec<OutputOf<L>>,
    /// The first output that no `then` has looked at.
    next: usize,
    code: u16,
}

impl<L: Logic + Default> Default for Given<L> {
    fn default() -> Self {
        Self::of(L::default())
    }
}

impl<L: Logic> Given<L> {
    /// A fresh logic, at time 0.
    #[must_use]
    pub fn new() -> Self
    where
        L: Default,
    {
        Self::default()
    }

    /// This logic.
    #[must_use]
    pub fn of(logic: L) -> Self {
        Self {
            core: Core::new(logic),
            scratch: Scratch::default(),
            time_ns: 0,
            outputs: Vec::new(),
            next: 0,
            code: 0,
        }
    }

    /// The log's time from here on, in nanoseconds.
    #[must_use]
    pub fn at(mut self, time_ns: u64) -> Self {
        self.time_ns = time_ns;
        self
    }

    /// An event that lies before what is tested; it must be accepted.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[must_use]
    pub fn given<B: Body>(self, body: B) -> Self {
        let mut given = self.when(body);
        assert!(
            given.code == 0,
            "given {body:?} was refused, code {}",
            given.code
        );
        given.next = given.outputs.len();
        given
    }

    /// The event that is tested. Outputs of the one before must have been looked at.
    ///
    /// # Panics
    ///
    /// If outputs of the event before were not expected by any `then`; if a refusal changed
    /// the state; if the state does not survive being saved and loaded.
    #[must_use]
    pub fn when<B: Body>(self, body: B) -> Self {
        self.when_event(&EventOf::<L>::event(&body))
    }

    /// A tick of the log's time.
    ///
    /// # Panics
    ///
    /// As [`when`](Self::when).
    #[must_use]
    pub fn when_tick(self) -> Self {
        self.when_event(&EventOf::<L>::event(&Tick::default()))
    }

    /// The same with a whole event, whose time is set.
    ///
    /// # Panics
    ///
    /// As [`when`](Self::when).
    #[must_use]
    pub fn when_event(mut self, event: &EventOf<L>) -> Self {
        self.assert_all_seen();
        let mut event = *event;
        event.header_mut().time = self.time_ns;
        let before = self.core.logic().state_hash();
        let mut out = self.scratch.outputs();
        let outcome = self
            .core
            .step(&event, &mut out)
            .unwrap_or_else(|error| panic!("{error}"));
        self.outputs = out.written().copied().collect();
        self.next = 0;
        self.code = outcome.code;
        let bytes = to_bytes(self.core.logic());
        let read: L = from_bytes(&bytes)
            .unwrap_or_else(|error| panic!("the state cannot be loaded: {error}"));
        assert!(
            to_bytes(&read) == bytes,
            "SB1: a state that was loaded saves as other bytes"
        );
        let after = self.core.logic().state_hash();
        assert!(
            self.code == 0 || before == after,
            "LG1: a refusal changed the state, code {}",
            self.code
        );
        self
    }

    /// The next output is this one.
    ///
    /// # Panics
    ///
    /// If it is another, or there is none.
    #[must_use]
    pub fn then<B: Body + PartialEq>(mut self, expected: B) -> Self {
        let Some(output) = self.outputs.get(self.next) else {
            panic!(
                "expected {expected:?}, but there are {} outputs (code {})",
                self.outputs.len(),
                self.code
            );
        };
        let kind = output.output().kind;
        assert!(
            kind == B::KIND,
            "expected {expected:?} of kind {}, found {output:?} of kind {kind}",
            B::KIND
        );
        let found = output.body_as::<B>();
        assert!(*found == expected, "expected {expected:?}, found {found:?}");
        self.next += 1;
        self
    }

    /// The event was refused with this code.
    ///
    /// # Panics
    ///
    /// If it was not, or with another.
    #[must_use]
    pub fn then_rejected(mut self, code: u16) -> Self {
        assert!(
            self.code == code,
            "expected a refusal with code {code}, found {}",
            self.code
        );
        let next = self.outputs.get(self.next);
        if next.is_some_and(|output| output.output().kind == Rejected::KIND) {
            self.next += 1;
        }
        self
    }

    /// Nothing came out, and nothing was refused.
    ///
    /// # Panics
    ///
    /// If something did.
    #[must_use]
    pub fn then_nothing(self) -> Self {
        assert!(self.code == 0, "refused with code {}", self.code);
        self.assert_all_seen();
        self
    }

    /// Looks at the state.
    #[must_use]
    pub fn then_state(self, look: impl FnOnce(&L)) -> Self {
        look(self.core.logic());
        self
    }

    /// All outputs of the last event.
    #[must_use]
    pub fn outputs(&self) -> &[OutputOf<L>] {
        &self.outputs
    }

    fn assert_all_seen(&self) {
        let left = &self.outputs[self.next.min(self.outputs.len())..];
        assert!(left.is_empty(), "outputs that no `then` expects: {left:?}");
    }
}

impl<L: Logic> Drop for Given<L> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_all_seen();
        }
    }
}

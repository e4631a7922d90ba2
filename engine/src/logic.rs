//! What an application writes: a state, and how events change it.
//!
//! The laws of determinism: the logic sees the event, its position and the time *of the
//! log*, and nothing else. No clock, no randomness, no threads, no I/O, no floats that are
//! stored or compared, no map whose order differs between runs ([`DetMap`](crate::DetMap)
//! has a fixed one). Live state = replayed state = snapshot and tail, by hash.
//!
//! # Invariants
//!
//! * `LG1` `validate` changes nothing: it has `&self`.
//! * `LG2` One thread at a time has the logic, by ownership: the engine asks for `Send` and
//!   never for `Sync`, so a logic that cannot be shared is accepted, and nothing in the
//!   engine can share it.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use lockstep_journaler::Position;

use crate::event::Kinds;
use crate::outputs::Outputs;
use crate::principal::Principal;
pub use crate::reject::Reject;
use crate::state::{State, state_hash};
use crate::upcast::Upcasters;

/// The view of an event that a logic takes.
pub type In<'a, L> = <<L as Logic>::In as Kinds>::View<'a>;

/// The slot of a logic's events.
pub type EventOf<L> = <<L as Logic>::In as Kinds>::Slot;

/// The slot of a logic's outputs.
pub type OutputOf<L> = <<L as Logic>::Out as Kinds>::Slot;

/// The business logic: one thread, deterministic, `&mut self`, no locks, no I/O, no clock.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// bodies! {
///     Deposit, kind 1, version 1: { account: u64, cents: i64 }
///     Balance, kind 101, version 1: { account: u64, cents: i64 }
/// }
///
/// #[derive(Default)]
/// struct Bank { balances: DetMap<u64, i64> }
/// snapshot!(Bank { balances });
///
/// impl Logic for Bank {
///     type In = Deposit;
///     type Out = Balance;
///
///     fn validate(&self, deposit: &Deposit, _: &Context) -> Result<(), Reject> {
///         if deposit.cents == 0 { return Err(Reject::new(1, "zero amount")); }
///         Ok(())
///     }
///
///     fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
///         let balance = self.balances.entry(deposit.account);
///         *balance += deposit.cents;
///         out.emit(Balance { account: deposit.account, cents: *balance });
///     }
/// }
///
/// Given::<Bank>::new()
///     .when(Deposit { account: 7, cents: 100 }).then(Balance { account: 7, cents: 100 })
///     .when(Deposit { account: 7, cents: 0 }).then_rejected(1);
/// ```
///
/// It moves between threads and is never shared (`LG2`). What cannot even move is refused:
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// # use std::rc::Rc;
/// # bodies! { Deposit, kind 1, version 1: { account: u64, cents: i64 } }
/// struct Shared { balance: Rc<u64> } // somebody else could hold the other end
/// impl State for Shared {
///     fn save(&self, _: &mut StateWriter<'_>) {}
///     fn load(_: &mut StateReader<'_>) -> Result<Self, LoadError> { Ok(Self { balance: Rc::new(0) }) }
/// }
/// impl Logic for Shared {
///     type In = Deposit;
///     type Out = Deposit;
///     fn apply(&mut self, _: &Deposit, _: &Context, _: &mut Outputs<'_, Deposit>) {}
/// }
/// ```
///
/// And one that must not be shared is welcome, since nobody does:
///
/// ```
/// # use lockstep_engine::prelude::*;
/// # bodies! { Deposit, kind 1, version 1: { account: u64, cents: i64 } }
/// #[derive(Default)]
/// struct Counting { total: std::cell::Cell<i64> } // not Sync
/// # impl State for Counting {
/// #     fn save(&self, out: &mut StateWriter<'_>) { self.total.get().save(out); }
/// #     fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
/// #         Ok(Self { total: std::cell::Cell::new(i64::load(from)?) })
/// #     }
/// # }
/// impl Logic for Counting {
///     type In = Deposit;
///     type Out = Deposit;
///     fn apply(&mut self, deposit: &Deposit, _: &Context, _: &mut Outputs<'_, Deposit>) {
///         self.total.set(self.total.get() + deposit.cents);
///     }
/// }
/// Given::<Counting>::new().when(Deposit { account: 1, cents: 5 }).then_nothing();
/// ```
pub trait Logic: State + Send + 'static {
    /// The kinds of events it takes: a body of [`bodies!`](crate::bodies), or several in a
    /// [`kinds!`](crate::kinds).
    type In: Kinds;
    /// The kinds of outputs it emits.
    type Out: Kinds;

    /// The versions of its rules that this build can run, from the oldest to the newest.
    ///
    /// A log begins in version 1, or in the oldest of the build that begins it, and goes to another by an
    /// event ([`VersionSwitch`](crate::system::VersionSwitch)): every replica, live and in every replay,
    /// changes its rules at that position. [`Context::version`] says which rules an event is under. A build
    /// that cannot run the log's version stops there, by name.
    ///
    /// ```
    /// # use lockstep_engine::prelude::*;
    /// # bodies! { Deposit, kind 1, version 1: { account: u64, cents: i64 } }
    /// #[derive(Default)]
    /// struct Bank { cents: i64 }
    /// # snapshot!(Bank { cents });
    /// impl Logic for Bank {
    ///     type In = Deposit;
    ///     type Out = Deposit;
    ///     const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
    ///
    ///     fn apply(&mut self, deposit: &Deposit, context: &Context, _: &mut Outputs<'_, Deposit>) {
    ///         let fee = if context.version() >= 2 { 1 } else { 0 }; // from version 2 on
    ///         self.cents += deposit.cents - fee;
    ///     }
    /// }
    /// ```
    const VERSIONS: RangeInclusive<u32> = 1..=1;

    /// Looks whether the event may be applied. A refusal is an output, not an error: the
    /// state before and after it is the same.
    ///
    /// # Errors
    ///
    /// The refusal, with its number.
    fn validate(&self, event: In<'_, Self>, context: &Context) -> Result<(), Reject> {
        let _ = (event, context);
        Ok(())
    }

    /// Applies an event that was validated.
    fn apply(&mut self, event: In<'_, Self>, context: &Context, out: &mut Outputs<'_, Self::Out>);

    /// What to emit for a refused event; the engine's [`Rejected`](crate::system::Rejected)
    /// unless told.
    fn refused(
        &self,
        event: &EventOf<Self>,
        reject: Reject,
        context: &Context,
        out: &mut Outputs<'_, Self::Out>,
    ) {
        let _ = context;
        out.rejected(event, reject);
    }

    /// The log's time has come so far: what is due may happen.
    fn tick(&mut self, context: &Context, out: &mut Outputs<'_, Self::Out>) {
        let _ = (context, out);
    }

    /// What must hold whenever no event is being applied; looked at at every beacon. A
    /// broken invariant stops the engine.
    ///
    /// # Errors
    ///
    /// What does not hold.
    fn check(&self) -> Result<(), Cow<'static, str>> {
        Ok(())
    }

    /// From the layouts of older versions to those of this one. A body that changes gets a higher version,
    /// the kinds a higher version of their schema, and a step leads from the old body to the new one: a journal
    /// from before goes on, in a new segment. What was written stays as it is.
    ///
    /// ```
    /// # use lockstep_engine::prelude::*;
    /// bodies! {
    ///     DepositV1, kind 1, version 1: { account: u64, dollars: i64 }
    ///     Deposit, kind 1, version 2: { account: u64, cents: i64 }
    /// }
    /// # #[derive(Default)]
    /// # struct Bank { cents: i64 }
    /// # snapshot!(Bank { cents });
    /// impl Logic for Bank {
    ///     type In = Deposit;
    ///     type Out = Deposit;
    ///
    ///     fn upcasters() -> Upcasters<Event64> {
    ///         Upcasters::new().step(|old: &DepositV1| Deposit { account: old.account, cents: old.dollars * 100 })
    ///     }
    ///
    ///     fn apply(&mut self, deposit: &Deposit, _: &Context, _: &mut Outputs<'_, Deposit>) {
    ///         self.cents += deposit.cents;
    ///     }
    /// }
    /// ```
    #[must_use]
    fn upcasters() -> Upcasters<EventOf<Self>> {
        Upcasters::new()
    }

    /// The hash of the state. A logic that keeps one up to date can give it without going
    /// through the state; it must be a function of the state alone.
    fn state_hash(&self) -> u64 {
        state_hash(self)
    }
}

/// Where in the log an event is: all that the logic may know besides the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    position: Position,
    time_ns: u64,
    version: u32,
    principal: Principal,
}

impl Context {
    pub(crate) const fn new(position: u64, time_ns: u64, version: u32) -> Self {
        Self {
            position: Position(position),
            time_ns,
            version,
            principal: Principal::NOBODY,
        }
    }

    /// The same for an event of this principal's session.
    pub(crate) const fn of(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }

    /// Whose session the event belongs to: the name that a certificate or a token proved when the session was
    /// opened, the same on every replica. [`Principal::NOBODY`] for an event without a session, for one whose
    /// client had to prove nothing, and where the engine keeps no sessions (`sessions_max = 0`).
    ///
    /// It is who opened the session, and who sent the event: the node that leads lets nobody else ask in it.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        self.principal
    }

    /// The version of the rules that the log is in: one of [`Logic::VERSIONS`].
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The event's position.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The log's time in nanoseconds since 1970; it never goes back.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time_ns
    }
}

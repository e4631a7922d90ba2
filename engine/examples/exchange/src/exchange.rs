//! The exchange: validate, then apply. One thread, no clock, no I/O, no lock.
//!
//! ```text
//!            ┌─ validate(&self) ──────► refused: an output, nothing has changed
//!   event ───┤
//!            └─ apply(&mut self) ─► People.reserve → Deals.match → People.settle, release
//!                                        │              │                │
//!                                     Accepted       Executed ×2      Canceled …   outputs
//! ```
//!
//! The time is that of the event; the position is given by the caller. Equal events in
//! equal order give equal outputs and an equal [`Exchange::state_hash`].
//!
//! ```
//! use lockstep_exchange::event::{AddAccount, AddInstrument, AdjustBalance, Event,
//!     InstrumentState, NewOrder, SetInstrumentState, Side, TimeInForce};
//! use lockstep_exchange::exchange::{Bounds, Exchange};
//! use lockstep_exchange::output::OutputView;
//!
//! let mut exchange = Exchange::new(Bounds::small());
//! let mut out = Vec::new();
//! let order = |account, side, price| NewOrder {
//!     price, quantity: 5, order: 1, instrument: 0, account,
//!     ..NewOrder::limit(side, TimeInForce::GoodTillCancel)
//! };
//! let open = InstrumentState::Open as u8;
//! let money = |account| AdjustBalance { amount: 10_000, transaction: 1, account, ..Default::default() };
//! let events = [
//!     Event::new(1, 0, 1, &AddInstrument { tick: 1, lot: 1, ..Default::default() }),
//!     Event::new(1, 0, 2, &SetInstrumentState { state: open, ..Default::default() }),
//!     Event::new(1, 0, 3, &AddAccount { account: 1, ..Default::default() }),
//!     Event::new(1, 0, 4, &AddAccount { account: 2, ..Default::default() }),
//!     Event::new(1, 0, 5, &money(1)),
//!     Event::new(2, 0, 6, &order(2, Side::Sell, 100)),
//!     Event::new(3, 0, 7, &order(1, Side::Buy, 101)),
//! ];
//! for (position, event) in (0..).zip(&events) {
//!     exchange.validate(event).expect("all of them are good");
//!     exchange.apply(event, position, &mut out);
//! }
//! // The trade, seen from the maker: at its price.
//! let Some(OutputView::Executed(maker)) = out[out.len() - 2].view() else { panic!() };
//! assert_eq!((maker.account, maker.price, maker.quantity), (2, 100, 5));
//! assert_eq!(exchange.balance(1).map(|b| (b.cash, b.reserved)), Some((9_500, 0)));
//! exchange.invariants().expect("hold after every event");
//! ```

mod administration;
mod orders;
mod refusal;
mod settle;

pub(crate) use self::refusal::write_refusal;
pub use self::refusal::write_rejected;
use crate::book::{Capacity, Depth, LiveOrder, depth_of};
use crate::deals::Deals;
use crate::event::{
    AddAccount, AddInstrument, Event, Header, Kind, ResumeAccount, SessionClose, SetPriceCollar,
    SetRiskLimit, Side, SuspendAccount, View,
};
use crate::output::{Emitter, OutputSink};
use crate::people::{AccountState, People};
use crate::price::{Money, Price, Quantity};
use crate::reject::Reject;
use crate::risk::Rules;
use crate::stuff::Stuff;

/// How much an exchange holds. Memory for it is taken at the start; what exceeds it is
/// refused. Part of the state: two exchanges of different bounds refuse differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Orders in all books together.
    pub orders: u32,
    /// Accounts have numbers below this.
    pub accounts: u32,
    /// Instruments have numbers below this.
    pub instruments: u32,
    /// Pairs of account and instrument that ever had an order.
    pub holdings: u32,
    /// Client sessions at the same time.
    pub sessions: u32,
}

impl Bounds {
    /// Greatest number of accounts.
    pub const ACCOUNTS_MAX: u32 = Capacity::OWNERS_MAX;
    /// Greatest number of instruments, holdings, sessions.
    pub const TABLES_MAX: u32 = 1 << 24;

    /// A thousand of everything, for tests and examples: a few hundred kilobytes.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            orders: 1_024,
            accounts: 1_024,
            instruments: 64,
            holdings: 1_024,
            sessions: 64,
        }
    }

    /// Whether an exchange of these bounds can be made.
    #[must_use]
    pub const fn are_possible(&self) -> bool {
        self.orders <= Capacity::ORDERS_MAX
            && self.accounts <= Self::ACCOUNTS_MAX
            && self.instruments <= Self::TABLES_MAX
            && self.holdings <= Self::TABLES_MAX
            && self.sessions <= Self::TABLES_MAX
    }
}

impl Default for Bounds {
    /// A million live orders of 65,536 accounts in 4,096 instruments: about 190 MiB.
    fn default() -> Self {
        Self {
            orders: 1 << 20,
            accounts: 1 << 16,
            instruments: 1 << 12,
            holdings: 1 << 20,
            sessions: 1 << 14,
        }
    }
}

/// The money of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What it has.
    pub cash: Money,
    /// How much of it is reserved for open buy orders.
    pub reserved: Money,
    /// Whether it may trade.
    pub active: bool,
}

/// What an account has, and has open, in one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Plus is long, minus is short.
    pub position: i64,
    /// Open in buy orders.
    pub open_buy: Quantity,
    /// Open in sell orders.
    pub open_sell: Quantity,
}

/// At which price trades settle: the rule of the exchange, and a planted fault that
/// `lockstep replay --compare` has to find. Not part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pricing {
    /// At that of the order that was in the book.
    #[default]
    MakersPrice,
    /// One tick below it, where there is a price one tick below.
    OneTickBelow,
}

impl Pricing {
    #[inline]
    const fn of(self, makers: Price, tick: Price) -> Price {
        match self {
            Self::OneTickBelow if makers > tick => makers - tick,
            Self::MakersPrice | Self::OneTickBelow => makers,
        }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Exchange {
    pub(crate) bounds: Bounds,
    pub(crate) people: People,
    pub(crate) stuff: Stuff,
    pub(crate) deals: Deals,
    /// The time of the last tick.
    pub(crate) ticked: u64,
    pricing: Pricing,
}

impl Exchange {
    /// An empty exchange. All memory that it needs while it runs is taken and touched here.
    ///
    /// # Panics
    ///
    /// If the bounds are not [possible](Bounds::are_possible).
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        assert!(
            bounds.are_possible(),
            "bounds of {bounds:?} exceed what handles hold"
        );
        let Bounds {
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        } = bounds;
        Self {
            bounds,
            people: People::new(accounts, holdings, sessions),
            stuff: Stuff::new(instruments),
            deals: Deals::new(
                Capacity {
                    orders,
                    owners: accounts,
                },
                instruments,
            ),
            ticked: 0,
            pricing: Pricing::MakersPrice,
        }
    }

    /// The same exchange with another rule for the price of a trade.
    #[must_use]
    pub fn with_pricing(self, pricing: Pricing) -> Self {
        Self { pricing, ..self }
    }

    #[inline]
    fn rules(&self) -> Rules<'_> {
        let Self {
            people,
            stuff,
            deals,
            ticked,
            ..
        } = self;
        Rules {
            people,
            stuff,
            deals,
            ticked: *ticked,
        }
    }

    /// Whether the event may be applied; changes nothing.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks, by number.
    #[inline]
    pub fn validate(&self, event: &Event) -> Result<(), Reject> {
        self.rules().check(event)
    }

    /// Applies an event that [`validate`](Self::validate) has passed on this very state.
    ///
    /// # Panics
    ///
    /// May panic for an event that was not validated, or leave a state whose
    /// [`invariants`](Self::invariants) do not hold.
    #[inline]
    pub fn apply(&mut self, event: &Event, position: u64, out: &mut impl OutputSink) {
        let header = &event.header;
        let mut emit = Emitter::new(out, header.time, position);
        match event.view().expect("validated: the kind is known") {
            View::NewOrder(body) => self.new_order(header, body, emit),
            View::CancelOrder(body) => self.cancel(header, body, emit),
            View::ReplaceOrder(body) => self.replace(header, body, emit),
            View::ReduceOrder(body) => self.reduce(header, body, emit),
            View::MassCancel(body) => self.mass_cancel(header, body, emit),
            View::AddAccount(AddAccount { account, .. }) => {
                self.people.add_account(*account);
                self.emit_account(*account, &mut emit);
            }
            View::AdjustBalance(body) => self.adjust(body, &mut emit),
            View::SuspendAccount(SuspendAccount { account, .. }) => {
                self.people.account_mut(*account).state = AccountState::Suspended as u8;
                self.emit_account(*account, &mut emit);
            }
            View::ResumeAccount(ResumeAccount { account, .. }) => {
                self.people.account_mut(*account).state = AccountState::Active as u8;
                self.emit_account(*account, &mut emit);
            }
            View::SetRiskLimit(body @ SetRiskLimit { account, .. }) => {
                self.people.set_limits(body);
                self.emit_account(*account, &mut emit);
            }
            View::AddInstrument(body @ AddInstrument { instrument, .. }) => {
                self.stuff.add(body);
                self.emit_instrument(*instrument, &mut emit);
            }
            View::SetInstrumentState(body) => self.instrument_state(header, body, emit),
            View::SetPriceCollar(SetPriceCollar {
                low,
                high,
                instrument,
                ..
            }) => {
                self.stuff.set_collar(*instrument, *low, *high);
                self.emit_instrument(*instrument, &mut emit);
            }
            View::SessionOpen(body) => self.session_open(header, body, &mut emit),
            View::SessionClose(SessionClose { .. }) => self.session_close(header, emit),
            View::Tick(_) => self.tick(header, emit),
        }
    }

    fn tick<S: OutputSink>(&mut self, header: &Header, emit: Emitter<'_, S>) {
        self.ticked = header.time;
        let (deals, mut settle) = self.settling(header, emit, None);
        let orders = deals.expire(header.time, &mut settle);
        settle.emit_system(Kind::Tick, 0, orders);
    }

    /// The log's time has come so far without an event of this exchange that says so.
    pub fn time_passes(&mut self, time: u64, position: u64, out: &mut impl OutputSink) {
        if time >= self.ticked {
            let header = Header {
                time,
                ..Header::default()
            };
            self.tick(&header, Emitter::new(out, time, position));
        }
    }

    /// Validates, then applies or writes the refusal as an output.
    ///
    /// # Errors
    ///
    /// The refusal, which is in the outputs as well.
    #[inline]
    pub fn handle(
        &mut self,
        event: &Event,
        position: u64,
        out: &mut impl OutputSink,
    ) -> Result<(), Reject> {
        match self.validate(event) {
            Ok(()) => {
                self.apply(event, position, out);
                Ok(())
            }
            Err(reject) => {
                write_rejected(event, position, reject, out);
                Err(reject)
            }
        }
    }

    /// How much this exchange holds.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many orders are in the books.
    #[must_use]
    pub const fn live_orders(&self) -> u32 {
        self.deals.store.live()
    }

    /// How many matches there have been.
    #[must_use]
    pub const fn trades(&self) -> u64 {
        self.deals.trades
    }

    /// The fees taken so far.
    #[must_use]
    pub const fn fees(&self) -> Money {
        self.people.fees
    }

    /// The money of an account.
    #[must_use]
    pub fn balance(&self, account: u32) -> Option<Balance> {
        self.people.account(account).map(|account| Balance {
            cash: account.cash,
            reserved: account.reserved,
            active: account.is_active(),
        })
    }

    /// What an account has in an instrument, if it ever had an order there.
    #[must_use]
    pub fn position(&self, account: u32, instrument: u32) -> Option<Position> {
        let handle = self.people.find_holding(account, instrument)?;
        self.people.holding(handle).map(|holding| Position {
            position: holding.position,
            open_buy: holding.open_buy,
            open_sell: holding.open_sell,
        })
    }

    /// The prices of one side of an instrument's book, best first; empty if there is none.
    pub fn depth(&self, instrument: u32, side: Side) -> impl Iterator<Item = Depth> + '_ {
        let book = self.deals.books.get(instrument as usize);
        book.into_iter()
            .flat_map(move |book| depth_of(book, &self.deals.store, side))
    }

    /// The orders of one side of an instrument's book, first to trade first.
    pub fn orders(&self, instrument: u32, side: Side) -> impl Iterator<Item = LiveOrder> + '_ {
        let book = self.deals.books.get(instrument as usize);
        book.into_iter()
            .flat_map(move |book| book.walk(&self.deals.store, side))
            .map(|(_, order)| LiveOrder::from(order))
    }

    /// One live order of an account.
    #[must_use]
    pub fn order(&self, account: u32, order: u64) -> Option<LiveOrder> {
        let handle = self.deals.store.find(account, order)?;
        Some(LiveOrder::from(self.deals.store.order(handle)))
    }
}

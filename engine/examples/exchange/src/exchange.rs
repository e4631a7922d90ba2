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

use crate::book::{
    CancelReason, Capacity, Depth, Execution, LiveOrder, Party, Place, Report, Reports, depth_of,
};
use crate::deals::Deals;
use crate::event::{
    AddAccount, AddInstrument, AdjustBalance, CancelOrder, Event, Header, InstrumentState, Kind,
    MassCancel, NewOrder, OrderType, ReduceOrder, ReplaceOrder, ResumeAccount, SessionClose,
    SessionOpen, SetInstrumentState, SetPriceCollar, SetRiskLimit, Side, SuspendAccount, View,
};
use crate::output::{
    Accepted, AccountChanged, BalanceChanged, Canceled, Emitter, Executed, FLAG_FILLED, FLAG_MAKER,
    FLAG_PRIORITY_KEPT, InstrumentChanged, OutputSink, Rejected, Replaced, Restated,
    SessionChanged, SystemEvent,
};
use crate::people::{AccountState, Part, People, Session};
use crate::price::{Money, Price, Quantity, fee};
use crate::reject::Reject;
use crate::risk::{Rules, terms};
use crate::store::Order;
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

    /// The parts that a match works on: the books, and all that a trade settles.
    #[inline]
    fn settling<'a, S: OutputSink>(
        &'a mut self,
        header: &Header,
        emit: Emitter<'a, S>,
        taker: Option<(u32, Price)>,
    ) -> (&'a mut Deals, Settle<'a, S>) {
        let Self {
            people,
            stuff,
            deals,
            pricing,
            ..
        } = self;
        let (instrument, limit) = taker.unwrap_or((0, 0));
        let settle = Settle {
            people,
            stuff,
            pricing: *pricing,
            emit,
            request: header.request,
            instrument,
            limit,
            trades: 0,
        };
        (deals, settle)
    }

    #[inline]
    fn new_order<S: OutputSink>(
        &mut self,
        header: &Header,
        order: &NewOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let terms = terms(order).expect("validated: the terms are good");
        let instrument = self.stuff.known(order.instrument);
        let fee_ppm_max = instrument.fee_ppm_max();
        let limit = match terms.order_type {
            OrderType::Limit => order.price,
            OrderType::Market => self
                .rules()
                .market_limit(order.instrument, instrument, terms.side, order.quantity)
                .expect("validated: there is another side"),
        };
        let holding = self.people.holding_of(order.account, order.instrument);
        self.people.note_order(order.account, header.time);
        self.people.reserve(&Part {
            account: order.account,
            holding,
            side: terms.side,
            limit,
            before: order.quantity,
            quantity: order.quantity,
            fee_ppm_max,
        });
        emit.emit(
            0,
            &Accepted {
                order: order.order,
                price: limit,
                quantity: order.quantity,
                account: order.account,
                instrument: order.instrument,
                request: header.request,
                side: order.side,
                order_type: order.order_type,
                time_in_force: order.time_in_force,
                order_flags: order.flags,
            },
        );
        let place = Place {
            id: order.order,
            owner: order.account,
            side: terms.side,
            order_type: terms.order_type,
            price: limit,
            quantity: order.quantity,
            time_in_force: terms.time_in_force,
            post_only: terms.post_only,
            self_trade: terms.self_trade,
            expires: header
                .time
                .saturating_add(u64::from(order.lifetime_ms) * 1_000_000),
            tag: holding,
        };
        let (deals, mut settle) = self.settling(header, emit, Some((order.instrument, limit)));
        deals.place(order.instrument, &place, &mut settle);
        deals.trades += settle.trades;
    }

    #[inline]
    fn cancel<S: OutputSink>(&mut self, header: &Header, body: &CancelOrder, emit: Emitter<'_, S>) {
        let handle = self.found(body.account, body.order);
        let (deals, mut settle) = self.settling(header, emit, None);
        deals.cancel(handle, CancelReason::Requested, &mut settle);
    }

    fn found(&self, account: u32, order: u64) -> u32 {
        self.deals
            .store
            .find(account, order)
            .expect("validated: the order is live")
    }

    fn replace<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &ReplaceOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let handle = self.found(body.account, body.order);
        let old = *self.deals.store.order(handle);
        let fee_ppm_max = self.stuff.known(old.book).fee_ppm_max();
        let part = |limit, quantity| Part {
            account: old.owner,
            holding: old.tag,
            side: old.side,
            limit,
            before: quantity,
            quantity,
            fee_ppm_max,
        };
        self.people.note_order(old.owner, header.time);
        self.people.release(&part(old.price, old.quantity));
        self.people.reserve(&part(body.price, body.quantity));
        let kept = body.price == old.price && body.quantity <= old.quantity;
        emit.emit(
            if kept { FLAG_PRIORITY_KEPT } else { 0 },
            &Replaced {
                old_order: body.order,
                order: body.new_order,
                price: body.price,
                quantity: body.quantity,
                account: old.owner,
                instrument: old.book,
            },
        );
        if kept {
            self.deals.reduce(handle, old.quantity - body.quantity);
            self.deals.rename(handle, body.new_order);
            return;
        }
        self.deals
            .lift(handle, body.new_order, body.price, body.quantity);
        let (deals, mut settle) = self.settling(header, emit, Some((old.book, body.price)));
        deals.come_in_anew(handle, &mut settle);
        deals.trades += settle.trades;
    }

    fn reduce<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &ReduceOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let handle = self.found(body.account, body.order);
        let old = *self.deals.store.order(handle);
        if body.by >= old.quantity {
            let (deals, mut settle) = self.settling(header, emit, None);
            return deals.cancel(handle, CancelReason::Requested, &mut settle);
        }
        self.people.release(&Part {
            account: old.owner,
            holding: old.tag,
            side: old.side,
            limit: old.price,
            before: old.quantity,
            quantity: body.by,
            fee_ppm_max: self.stuff.known(old.book).fee_ppm_max(),
        });
        self.deals.reduce(handle, body.by);
        let restated = Restated {
            order: old.id,
            price: old.price,
            quantity: old.quantity - body.by,
            by: body.by,
            account: old.owner,
            instrument: old.book,
        };
        emit.emit(0, &restated);
    }

    fn mass_cancel<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &MassCancel,
        emit: Emitter<'_, S>,
    ) {
        let side = Side::from_byte(body.side);
        let one = (body.scope == MassCancel::ONE_INSTRUMENT).then_some(body.instrument);
        let which = |order: &Order| {
            side.is_none_or(|side| side == order.side)
                && one.is_none_or(|instrument| instrument == order.book)
        };
        let (deals, mut settle) = self.settling(header, emit, None);
        let orders = deals.cancel_all(body.account, CancelReason::MassCancel, which, &mut settle);
        settle.emit_system(Kind::MassCancel, body.account, orders);
    }

    fn adjust<S: OutputSink>(&mut self, body: &AdjustBalance, emit: &mut Emitter<'_, S>) {
        self.people
            .adjust(body.account, body.amount, body.transaction);
        let account = self.people.account_mut(body.account);
        let changed = BalanceChanged {
            balance: account.cash,
            reserved: account.reserved,
            amount: body.amount,
            transaction: body.transaction,
            account: body.account,
            spare: 0,
        };
        emit.emit(0, &changed);
    }

    fn emit_account<S: OutputSink>(&self, number: u32, emit: &mut Emitter<'_, S>) {
        let account = &self.people.accounts()[number as usize];
        let changed = AccountChanged {
            quantity_max: account.quantity_max,
            notional_max: account.notional_max,
            position_max: account.position_max,
            orders_per_second_max: account.orders_per_second_max,
            account: number,
            state: account.state,
            spare: [0; 7],
        };
        emit.emit(0, &changed);
    }

    fn emit_instrument<S: OutputSink>(&self, number: u32, emit: &mut Emitter<'_, S>) {
        let instrument = self.stuff.known(number);
        let changed = InstrumentChanged {
            symbol: instrument.symbol,
            low: instrument.low,
            high: instrument.high,
            tick: instrument.tick,
            instrument: number,
            state: instrument.state,
            spare: [0; 3],
        };
        emit.emit(0, &changed);
    }

    fn instrument_state<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &SetInstrumentState,
        mut emit: Emitter<'_, S>,
    ) {
        let state = InstrumentState::from_byte(body.state).expect("validated: the state is known");
        self.stuff.set_state(body.instrument, state);
        self.emit_instrument(body.instrument, &mut emit);
        if state == InstrumentState::Closed {
            let (deals, mut settle) = self.settling(header, emit, None);
            let orders = deals.cancel_day(body.instrument, &mut settle);
            settle.emit_system(Kind::SetInstrumentState, 0, orders);
        }
    }

    fn session_open<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &SessionOpen,
        emit: &mut Emitter<'_, S>,
    ) {
        self.people.open_session(Session {
            session: header.session,
            account: body.account,
            cancel_on_close: u32::from(body.cancel_on_close),
        });
        emit.emit(0, &session_changed(header.session, body.account, true));
    }

    fn session_close<S: OutputSink>(&mut self, header: &Header, mut emit: Emitter<'_, S>) {
        let closed = self.people.close_session(header.session);
        let closed = closed.expect("validated: the session is open");
        emit.emit(0, &session_changed(closed.session, closed.account, false));
        let last = self
            .people
            .account(closed.account)
            .is_some_and(|account| account.sessions == 0);
        if closed.cancel_on_close == 1 && last {
            let (deals, mut settle) = self.settling(header, emit, None);
            let reason = CancelReason::SessionClosed;
            let orders = deals.cancel_all(closed.account, reason, |_| true, &mut settle);
            settle.emit_system(Kind::SessionClose, closed.account, orders);
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

/// Writes a refusal as an output.
pub fn write_rejected(event: &Event, position: u64, reject: Reject, out: &mut impl OutputSink) {
    write_refusal(event, position, reject.code as u16, reject.detail, out);
}

/// The same with any code, those of the engine among them.
pub(crate) fn write_refusal(
    event: &Event,
    position: u64,
    code: u16,
    detail: i64,
    out: &mut impl OutputSink,
) {
    let (order, account) = named(event);
    let rejected = Rejected {
        session: event.header.session,
        detail,
        order,
        account,
        request: event.header.request,
        code,
        event_kind: event.header.kind,
        spare: 0,
    };
    Emitter::new(out, event.header.time, position).emit(0, &rejected);
}

/// The order and the account that an event names; zeros where it names none.
fn named(event: &Event) -> (u64, u32) {
    match event.view() {
        Some(View::NewOrder(body)) => (body.order, body.account),
        Some(View::CancelOrder(body)) => (body.order, body.account),
        Some(View::ReplaceOrder(body)) => (body.order, body.account),
        Some(View::ReduceOrder(body)) => (body.order, body.account),
        Some(View::MassCancel(body)) => (0, body.account),
        Some(View::AdjustBalance(body)) => (0, body.account),
        Some(View::SessionOpen(body)) => (0, body.account),
        Some(View::AddAccount(AddAccount { account, .. })) => (0, *account),
        Some(View::SuspendAccount(SuspendAccount { account, .. })) => (0, *account),
        Some(View::ResumeAccount(ResumeAccount { account, .. })) => (0, *account),
        Some(View::SetRiskLimit(body)) => (0, body.account),
        Some(
            View::AddInstrument(_)
            | View::SetInstrumentState(_)
            | View::SetPriceCollar(_)
            | View::SessionClose(_)
            | View::Tick(_),
        )
        | None => (0, 0),
    }
}

const fn session_changed(session: u64, account: u32, open: bool) -> SessionChanged {
    SessionChanged {
        session,
        account,
        open: open as u8,
        spare: [0; 3],
        spare_words: [0; 3],
    }
}

/// Settles what the books report, and writes it out.
struct Settle<'a, S> {
    people: &'a mut People,
    stuff: &'a Stuff,
    pricing: Pricing,
    emit: Emitter<'a, S>,
    request: u32,
    /// The instrument and the limit of the order that comes in.
    instrument: u32,
    limit: Price,
    trades: u64,
}

impl<S: OutputSink> Settle<'_, S> {
    #[inline]
    fn executed(&mut self, trade: &Execution) {
        let instrument = self.stuff.known(self.instrument);
        let fees = [instrument.maker_fee_ppm, instrument.taker_fee_ppm];
        let fee_ppm_max = instrument.fee_ppm_max();
        let price = self.pricing.of(trade.price, instrument.tick);
        let notional = price * trade.quantity.cast_signed();
        let first = self.emit.index();
        let sides = [trade.taker_side.opposite(), trade.taker_side];
        let limits = [trade.price, self.limit];
        for (index, party) in [trade.maker, trade.taker].iter().enumerate() {
            let Party {
                id,
                owner,
                tag,
                left,
            } = *party;
            let side = sides[index];
            let part = Part {
                account: owner,
                holding: tag,
                side,
                limit: limits[index],
                before: left + trade.quantity,
                quantity: trade.quantity,
                fee_ppm_max,
            };
            self.people.settle(&part, price, fee(notional, fees[index]));
            let maker = if index == 0 { FLAG_MAKER } else { 0 };
            let filled = if left == 0 { FLAG_FILLED } else { 0 };
            let executed = Executed {
                order: id,
                price,
                quantity: trade.quantity,
                account: owner,
                instrument: self.instrument,
                match_index: first,
                side: side as u8,
                spare: [0; 3],
            };
            self.emit.emit(maker | filled, &executed);
        }
        self.trades += 1;
    }

    fn emit_system(&mut self, kind: Kind, account: u32, orders: u64) {
        let event = SystemEvent {
            orders,
            account,
            request: self.request,
            event_kind: kind as u16,
            spare: [0; 3],
            spare_words: [0; 2],
        };
        self.emit.emit(0, &event);
    }
}

impl<S: OutputSink> Reports for Settle<'_, S> {
    #[inline]
    fn report(&mut self, report: &Report) {
        match report {
            Report::Executed(trade) => self.executed(trade),
            Report::Canceled(canceled) => {
                self.people.release(&Part {
                    account: canceled.owner,
                    holding: canceled.tag,
                    side: canceled.side,
                    limit: canceled.price,
                    before: canceled.quantity,
                    quantity: canceled.quantity,
                    fee_ppm_max: self.stuff.known(canceled.book).fee_ppm_max(),
                });
                let canceled = Canceled {
                    order: canceled.id,
                    price: canceled.price,
                    quantity: canceled.quantity,
                    account: canceled.owner,
                    instrument: canceled.book,
                    request: self.request,
                    reason: canceled.reason as u8,
                    side: canceled.side as u8,
                    spare: 0,
                };
                self.emit.emit(0, &canceled);
            }
            // The exchange writes these itself, before the books are touched.
            Report::Accepted(_) | Report::Reduced(_) | Report::Replaced(_) => {}
        }
    }
}

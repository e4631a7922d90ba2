//! The second fence: every rule that an event must pass before anything changes.
//!
//! Read-only. The first rule that does not hold refuses the event, by number; the order
//! of the rules is part of the behaviour (a replay must give the same refusal), and goes
//! from form over who to what and how much.

use crate::deals::Deals;
use crate::event::{
    AddAccount, AddInstrument, AdjustBalance, CancelOrder, Event, FLAG_POST_ONLY, FLAGS_KNOWN,
    Header, InstrumentState, MassCancel, NewOrder, OrderType, ReduceOrder, ReplaceOrder,
    ResumeAccount, SelfTrade, SessionClose, SessionOpen, SetInstrumentState, SetPriceCollar,
    SetRiskLimit, Side, SuspendAccount, Tick, TimeInForce, View,
};
use crate::matching::crosses;
use crate::people::{Account, Holding, People, reservation};
use crate::price::{
    FEE_PPM_MAX, NOTIONAL_MAX, POSITION_MAX, PRICE_MAX, Price, QUANTITY_MAX, Quantity, notional,
};
use crate::reject::{Reject, RejectCode};
use crate::store::Order;
use crate::stuff::{Instrument, Stuff};

type Verdict = Result<(), Reject>;

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) people: &'a People,
    pub(crate) stuff: &'a Stuff,
    pub(crate) deals: &'a Deals,
    /// The time of the last tick.
    pub(crate) ticked: u64,
}

/// A new order as it will be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) side: Side,
    pub(crate) order_type: OrderType,
    pub(crate) time_in_force: TimeInForce,
    pub(crate) self_trade: SelfTrade,
    pub(crate) post_only: bool,
}

/// Reads the bytes of an order that say how it is meant.
#[inline]
pub(crate) fn terms(order: &NewOrder) -> Result<Terms, Reject> {
    let malformed = || Reject::from(RejectCode::Malformed);
    let terms = Terms {
        side: Side::from_byte(order.side).ok_or_else(malformed)?,
        order_type: OrderType::from_byte(order.order_type).ok_or_else(malformed)?,
        time_in_force: TimeInForce::from_byte(order.time_in_force).ok_or_else(malformed)?,
        self_trade: order.self_trade(),
        post_only: order.flags & FLAG_POST_ONLY != 0,
    };
    let immediate = matches!(
        terms.time_in_force,
        TimeInForce::ImmediateOrCancel | TimeInForce::FillOrKill
    );
    let market = terms.order_type == OrderType::Market;
    let contradicts =
        (market && !immediate) || (terms.post_only && immediate) || (market && order.price != 0);
    if order.flags & !FLAGS_KNOWN != 0 || contradicts {
        return Err(malformed());
    }
    if (terms.time_in_force == TimeInForce::GoodTillTime) != (order.lifetime_ms != 0) {
        return Err(RejectCode::LifetimeInvalid.into());
    }
    Ok(terms)
}

const fn require(holds: bool, code: RejectCode, detail: i64) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Reject::new(code, detail))
    }
}

const fn spare_is_zero(zero: bool) -> Verdict {
    require(zero, RejectCode::Malformed, 0)
}

fn operator(header: &Header) -> Verdict {
    require(header.session == 0, RejectCode::NotOperator, 0)
}

impl<'a> Rules<'a> {
    /// The first rule that the event breaks, or none.
    #[inline]
    pub(crate) fn check(&self, event: &Event) -> Verdict {
        let header = &event.header;
        let Some(view) = event.view() else {
            return Err(Reject::new(RejectCode::UnknownKind, i64::from(header.kind)));
        };
        match view {
            View::NewOrder(body) => self.new_order(header, body),
            View::CancelOrder(body) => self.cancel(header, body),
            View::ReplaceOrder(body) => self.replace(header, body),
            View::ReduceOrder(body) => self.reduce(header, body),
            View::MassCancel(body) => self.mass_cancel(header, body),
            View::AddAccount(body) => self.add_account(header, body),
            View::AdjustBalance(body) => self.adjust(header, body),
            View::SuspendAccount(SuspendAccount { account, spare })
            | View::ResumeAccount(ResumeAccount { account, spare }) => {
                operator(header)?;
                spare_is_zero(*spare == [0; 9])?;
                self.account(*account).map(|_| ())
            }
            View::SetRiskLimit(body) => self.risk_limit(header, body),
            View::AddInstrument(body) => self.add_instrument(header, body),
            View::SetInstrumentState(body) => self.instrument_state(header, body),
            View::SetPriceCollar(body) => self.collar(header, body),
            View::SessionOpen(body) => self.session_open(header, body),
            View::SessionClose(SessionClose { spare }) => {
                spare_is_zero(*spare == [0; 5])?;
                let known = self.people.find_session(header.session).is_some();
                require(known, RejectCode::SessionUnknown, 0)
            }
            View::Tick(Tick { spare }) => {
                operator(header)?;
                spare_is_zero(*spare == [0; 5])?;
                let last = self.ticked.cast_signed();
                require(header.time >= self.ticked, RejectCode::TimeBackwards, last)
            }
        }
    }

    fn account(&self, number: u32) -> Result<&'a Account, Reject> {
        self.people
            .account(number)
            .ok_or(Reject::new(RejectCode::UnknownAccount, 0))
    }

    /// The account, if the session may act for it.
    #[inline]
    fn acting(&self, header: &Header, number: u32) -> Result<&'a Account, Reject> {
        if header.session != 0 {
            let Some(session) = self.people.find_session(header.session) else {
                return Err(RejectCode::SessionUnknown.into());
            };
            let own = session.account;
            require(own == number, RejectCode::NotYourAccount, i64::from(own))?;
        }
        self.account(number)
    }

    fn instrument(&self, number: u32) -> Result<&'a Instrument, Reject> {
        self.stuff
            .get(number)
            .ok_or(Reject::new(RejectCode::UnknownInstrument, 0))
    }

    fn order(&self, account: u32, id: u64) -> Result<&'a Order, Reject> {
        let handle = self.deals.store.find(account, id);
        let handle = handle.ok_or(Reject::new(RejectCode::UnknownOrder, id.cast_signed()))?;
        Ok(self.deals.store.order(handle))
    }

    #[inline]
    fn new_order(&self, header: &Header, order: &NewOrder) -> Verdict {
        let terms = terms(order)?;
        let account = self.acting(header, order.account)?;
        let instrument = self.instrument(order.instrument)?;
        self.may_trade(header, account, instrument)?;
        let store = &self.deals.store;
        if store.find(order.account, order.order).is_some() {
            return Err(Reject::new(
                RejectCode::DuplicateOrder,
                order.order.cast_signed(),
            ));
        }
        let bound = i64::from(store.capacity().orders);
        require(!store.is_full(), RejectCode::BookFull, bound)?;
        check_quantity(instrument, order.quantity)?;
        let limit = match terms.order_type {
            OrderType::Limit => order.price,
            OrderType::Market => {
                let reached =
                    self.market_limit(order.instrument, instrument, terms.side, order.quantity);
                reached.ok_or(Reject::from(RejectCode::NoOtherSide))?
            }
        };
        check_price(instrument, limit)?;
        if terms.post_only {
            self.check_post_only(order.instrument, terms.side, limit)?;
        }
        self.check_amount(account, limit, order.quantity)?;
        let holding = self.people.find_holding(order.account, order.instrument);
        if holding.is_none() && self.people.holdings_full() {
            let bound = i64::from(self.people.holdings_max());
            return Err(Reject::new(RejectCode::ExchangeFull, bound));
        }
        let holding = holding.and_then(|handle| self.people.holding(handle));
        check_position(account, holding, terms.side, order.quantity, 0)?;
        if terms.side == Side::Buy {
            let cost = reservation(limit, order.quantity, instrument.fee_ppm_max());
            let free = account.free();
            require(cost <= free, RejectCode::BalanceTooSmall, free)?;
        }
        Ok(())
    }

    /// The worst price of a market order: that of the last level which it can reach
    /// within the collar. It never trades beyond, so that what is reserved is enough.
    pub(crate) fn market_limit(
        &self,
        number: u32,
        instrument: &Instrument,
        side: Side,
        quantity: Quantity,
    ) -> Option<Price> {
        let bound = match side {
            Side::Buy => instrument.high,
            Side::Sell => instrument.low,
        };
        self.deals
            .book(number)
            .reach(&self.deals.store, side, bound, quantity)
    }

    #[inline]
    fn may_trade(&self, header: &Header, account: &Account, instrument: &Instrument) -> Verdict {
        require(account.is_active(), RejectCode::AccountSuspended, 0)?;
        require(instrument.is_open(), RejectCode::InstrumentNotOpen, 0)?;
        let max = account.orders_per_second_max;
        let sent = People::orders_in_second(account, header.time);
        require(
            max == 0 || sent < max,
            RejectCode::RateLimit,
            i64::from(max),
        )
    }

    fn check_post_only(&self, instrument: u32, side: Side, limit: Price) -> Verdict {
        match self
            .deals
            .book(instrument)
            .best_price(&self.deals.store, side.opposite())
        {
            Some(price) if crosses(side, limit, price) => {
                Err(Reject::new(RejectCode::PostOnlyWouldTrade, price))
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn check_amount(&self, account: &Account, limit: Price, quantity: Quantity) -> Verdict {
        let max = account.quantity_max;
        require(
            quantity <= max,
            RejectCode::QuantityLimit,
            max.cast_signed(),
        )?;
        let max = account.notional_max;
        let within = notional(limit, quantity).is_some_and(|amount| amount <= max);
        require(within, RejectCode::NotionalLimit, max)
    }

    #[inline]
    fn cancel(&self, header: &Header, body: &CancelOrder) -> Verdict {
        spare_is_zero(body.spare == [0; 7])?;
        self.acting(header, body.account)?;
        self.order(body.account, body.order).map(|_| ())
    }

    fn replace(&self, header: &Header, body: &ReplaceOrder) -> Verdict {
        spare_is_zero(body.spare == 0)?;
        let account = self.acting(header, body.account)?;
        let order = self.order(body.account, body.order)?;
        let instrument = self.instrument(order.book)?;
        self.may_trade(header, account, instrument)?;
        if body.new_order != body.order
            && self
                .deals
                .store
                .find(body.account, body.new_order)
                .is_some()
        {
            return Err(Reject::new(
                RejectCode::DuplicateOrder,
                body.new_order.cast_signed(),
            ));
        }
        check_quantity(instrument, body.quantity)?;
        check_price(instrument, body.price)?;
        if order.post_only {
            self.check_post_only(order.book, order.side, body.price)?;
        }
        self.check_amount(account, body.price, body.quantity)?;
        let holding = self.people.holding(order.tag);
        check_position(account, holding, order.side, body.quantity, order.quantity)?;
        if order.side == Side::Buy {
            let fee = instrument.fee_ppm_max();
            let free = account.free() + reservation(order.price, order.quantity, fee);
            let cost = reservation(body.price, body.quantity, fee);
            require(cost <= free, RejectCode::BalanceTooSmall, free)?;
        }
        Ok(())
    }

    fn reduce(&self, header: &Header, body: &ReduceOrder) -> Verdict {
        spare_is_zero(body.spare == [0; 5])?;
        self.acting(header, body.account)?;
        let order = self.order(body.account, body.order)?;
        let instrument = self.instrument(order.book)?;
        let valid = body.by >= order.quantity || (body.by > 0 && instrument.is_whole_lots(body.by));
        require(
            valid,
            RejectCode::QuantityInvalid,
            instrument.lot.cast_signed(),
        )
    }

    fn mass_cancel(&self, header: &Header, body: &MassCancel) -> Verdict {
        let form = body.scope <= MassCancel::ONE_INSTRUMENT
            && (body.side == 0 || Side::from_byte(body.side).is_some())
            && (body.scope == MassCancel::ONE_INSTRUMENT || body.instrument == 0)
            && body.spare == [0; 6]
            && body.spare_words == [0; 3];
        require(form, RejectCode::Malformed, 0)?;
        self.acting(header, body.account)?;
        if body.scope == MassCancel::ONE_INSTRUMENT {
            self.instrument(body.instrument)?;
        }
        Ok(())
    }

    fn add_account(&self, header: &Header, body: &AddAccount) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == [0; 9])?;
        let bound = self.people.accounts().len();
        let in_range = (body.account as usize) < bound;
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        require(in_range, RejectCode::AccountOutOfRange, bound)?;
        let is_new = self.people.account(body.account).is_none();
        require(is_new, RejectCode::AccountExists, 0)
    }

    fn adjust(&self, header: &Header, body: &AdjustBalance) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == [0; 5])?;
        let account = self.account(body.account)?;
        let last = account.transaction;
        require(
            body.transaction > last,
            RejectCode::TransactionRepeated,
            last.cast_signed(),
        )?;
        let fits = body.amount != 0 && self.people.can_deposit(body.amount);
        require(fits, RejectCode::AmountTooLarge, 0)?;
        let free = account.free();
        // Added, not negated: the smallest number has no opposite.
        let covered =
            body.amount > 0 || free.checked_add(body.amount).is_some_and(|left| left >= 0);
        require(covered, RejectCode::BalanceTooSmall, free)
    }

    fn risk_limit(&self, header: &Header, body: &SetRiskLimit) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == 0)?;
        self.account(body.account)?;
        let quantity = QUANTITY_MAX.cast_signed();
        require(
            body.quantity_max <= QUANTITY_MAX,
            RejectCode::LimitInvalid,
            quantity,
        )?;
        let notional = (0..=NOTIONAL_MAX).contains(&body.notional_max);
        require(notional, RejectCode::LimitInvalid, NOTIONAL_MAX)?;
        let position = (0..=POSITION_MAX).contains(&body.position_max);
        require(position, RejectCode::LimitInvalid, POSITION_MAX)
    }

    fn add_instrument(&self, header: &Header, body: &AddInstrument) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == 0)?;
        let bound = self.stuff.all().len();
        let in_range = (body.instrument as usize) < bound;
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        require(in_range, RejectCode::InstrumentOutOfRange, bound)?;
        let is_new = self.stuff.get(body.instrument).is_none();
        require(is_new, RejectCode::InstrumentExists, 0)?;
        let valid = (1..=PRICE_MAX).contains(&body.tick)
            && (1..=QUANTITY_MAX).contains(&body.lot)
            && body.maker_fee_ppm <= FEE_PPM_MAX
            && body.taker_fee_ppm <= FEE_PPM_MAX;
        require(valid, RejectCode::InstrumentInvalid, 0)
    }

    fn instrument_state(&self, header: &Header, body: &SetInstrumentState) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == [0; 3] && body.spare_words == [0; 4])?;
        let known = InstrumentState::from_byte(body.state).is_some();
        require(known, RejectCode::Malformed, 0)?;
        self.instrument(body.instrument).map(|_| ())
    }

    fn collar(&self, header: &Header, body: &SetPriceCollar) -> Verdict {
        operator(header)?;
        spare_is_zero(body.spare == [0; 5])?;
        self.instrument(body.instrument)?;
        let valid = 1 <= body.low && body.low <= body.high && body.high <= PRICE_MAX;
        require(valid, RejectCode::CollarInvalid, 0)
    }

    fn session_open(&self, header: &Header, body: &SessionOpen) -> Verdict {
        let form = body.cancel_on_close <= 1
            && body.spare == [0; 3]
            && body.spare_words == [0; 4]
            && header.session != 0;
        require(form, RejectCode::Malformed, 0)?;
        let is_new = self.people.find_session(header.session).is_none();
        require(is_new, RejectCode::SessionExists, 0)?;
        let account = self.account(body.account)?;
        let bound = i64::from(self.people.sessions_max());
        let room = !self.people.sessions_full() && account.sessions < u16::MAX;
        require(room, RejectCode::ExchangeFull, bound)
    }
}

#[inline]
fn check_quantity(instrument: &Instrument, quantity: Quantity) -> Verdict {
    let valid = quantity != 0 && quantity <= QUANTITY_MAX && instrument.is_whole_lots(quantity);
    require(
        valid,
        RejectCode::QuantityInvalid,
        instrument.lot.cast_signed(),
    )
}

#[inline]
fn check_price(instrument: &Instrument, price: Price) -> Verdict {
    let valid = (1..=PRICE_MAX).contains(&price) && instrument.is_on_tick(price);
    require(valid, RejectCode::PriceInvalid, instrument.tick)?;
    require(
        price >= instrument.low,
        RejectCode::OutsideCollar,
        instrument.low,
    )?;
    require(
        price <= instrument.high,
        RejectCode::OutsideCollar,
        instrument.high,
    )
}

/// The position if all open orders of the side were filled, this one instead of `replaced`.
#[inline]
fn check_position(
    account: &Account,
    holding: Option<&Holding>,
    side: Side,
    quantity: Quantity,
    replaced: Quantity,
) -> Verdict {
    let (position, open) = holding.map_or((0, 0), |holding| match side {
        Side::Buy => (holding.position, holding.open_buy),
        Side::Sell => (-holding.position, holding.open_sell),
    });
    // All terms are below 2^61: no sum of them overflows.
    let reached = position + (open - replaced + quantity).cast_signed();
    let max = account.position_max;
    require(reached <= max, RejectCode::PositionLimit, max)
}

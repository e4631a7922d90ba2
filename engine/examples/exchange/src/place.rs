//! An order that comes to a book.

use crate::event::{OrderType, SelfTrade, Side, TimeInForce};
use crate::price::{Price, Quantity};

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The owner's number of the order, unique among its live orders.
    pub id: u64,
    /// Whose order: small numbers, below [`Capacity::owners`](crate::book::Capacity::owners).
    pub owner: u32,
    /// Bid or ask.
    pub side: Side,
    /// Limit or market; the price of a market order is not read.
    pub order_type: OrderType,
    /// The worst price that it may trade at.
    pub price: Price,
    /// How much, from 1 to [`QUANTITY_MAX`](crate::price::QUANTITY_MAX).
    pub quantity: Quantity,
    /// What becomes of the rest.
    pub time_in_force: TimeInForce,
    /// Refuse it rather than let it trade at once.
    pub post_only: bool,
    /// What happens where it would trade with its own owner.
    pub self_trade: SelfTrade,
    /// For [`TimeInForce::GoodTillTime`]: gone at the first
    /// [`OrderBook::expire`](crate::book::OrderBook::expire) of this time or later.
    pub expires: u64,
    /// The caller's own word about the order; reports bring it back.
    pub tag: u32,
}

impl Place {
    /// A limit order of owner 0 that stays until it is filled or canceled.
    #[must_use]
    pub const fn limit(id: u64, side: Side, price: Price, quantity: Quantity) -> Self {
        Self {
            id,
            owner: 0,
            side,
            order_type: OrderType::Limit,
            price,
            quantity,
            time_in_force: TimeInForce::GoodTillCancel,
            post_only: false,
            self_trade: SelfTrade::Allow,
            expires: 0,
            tag: 0,
        }
    }

    /// A market order of owner 0: what it does not find is canceled.
    #[must_use]
    pub const fn market(id: u64, side: Side, quantity: Quantity) -> Self {
        let mut place = Self::limit(id, side, 0, quantity);
        place.order_type = OrderType::Market;
        place.time_in_force = TimeInForce::ImmediateOrCancel;
        place
    }

    /// The same order of this owner.
    #[must_use]
    pub const fn owner(mut self, owner: u32) -> Self {
        self.owner = owner;
        self
    }

    /// The same order, whose rest is canceled at once.
    #[must_use]
    pub const fn ioc(mut self) -> Self {
        self.time_in_force = TimeInForce::ImmediateOrCancel;
        self
    }

    /// The same order, filled whole at once or not at all.
    #[must_use]
    pub const fn fok(mut self) -> Self {
        self.time_in_force = TimeInForce::FillOrKill;
        self
    }

    /// The same order, refused rather than trading at once.
    #[must_use]
    pub const fn post_only(mut self) -> Self {
        self.post_only = true;
        self
    }

    /// The same order with an end.
    #[must_use]
    pub const fn until(mut self, time: u64) -> Self {
        self.time_in_force = TimeInForce::GoodTillTime;
        self.expires = time;
        self
    }

    /// The same order with this rule for trades with its own owner.
    #[must_use]
    pub const fn self_trade(mut self, self_trade: SelfTrade) -> Self {
        self.self_trade = self_trade;
        self
    }

    pub(crate) const fn rests(&self) -> bool {
        matches!(self.order_type, OrderType::Limit)
            && !matches!(
                self.time_in_force,
                TimeInForce::ImmediateOrCancel | TimeInForce::FillOrKill
            )
    }
}

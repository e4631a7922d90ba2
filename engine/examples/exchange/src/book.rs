//! A limit order book with price-time priority, usable alone.
//!
//! Better prices first; at one price, who came first. Trades happen at the price of the
//! order that was in the book. Each action reports what it did to a caller's sink, and
//! allocates nothing.
//!
//! ```text
//!        bids (best first)                    asks (best first)
//!   101 ─ [A 5]─[B 3]                    102 ─ [C 4]
//!   100 ─ [D 9]                          105 ─ [E 1]─[F 7]
//!          └─ came first, trades first
//! ```
//!
//! | action | what happens to the place in the queue |
//! |---|---|
//! | [`OrderBook::place`] | trades what it can, the rest goes to the end of its price |
//! | [`OrderBook::reduce`] | kept |
//! | [`OrderBook::replace`] | kept for the same price and no more quantity, else lost |
//! | [`OrderBook::cancel`] | gone |
//!
//! ```
//! use lockstep_exchange::book::{Capacity, OrderBook, Place, Report};
//! use lockstep_exchange::event::Side;
//!
//! let mut book = OrderBook::new(Capacity { orders: 1_000, owners: 10 });
//! let mut trades = Vec::new();
//! let mut sink = |report: &Report| {
//!     if let Report::Executed(trade) = report {
//!         trades.push((trade.maker.id, trade.price, trade.quantity));
//!     }
//! };
//! book.place(&Place::limit(1, Side::Sell, 102, 4).owner(1), &mut sink)?;
//! book.place(&Place::limit(2, Side::Sell, 101, 3).owner(2), &mut sink)?;
//! // Buys 5 at up to 103: the best price first, each at the maker's price.
//! book.place(&Place::limit(3, Side::Buy, 103, 5).owner(3).ioc(), &mut sink)?;
//! assert_eq!(trades, [(2, 101, 3), (1, 102, 2)]);
//! let best = book.best(Side::Sell).expect("two of order 1 are left");
//! assert_eq!((best.price, best.quantity, best.orders), (102, 2, 1));
//! # Ok::<(), lockstep_exchange::book::Refusal>(())
//! ```

use crate::event::{OrderType, Side, TimeInForce};
use crate::idmap::NONE;
use crate::matching::{Book, Taken, Taker, crosses};
pub use crate::place::Place;
use crate::price::{Price, QUANTITY_MAX, Quantity};
pub use crate::report::{CancelReason, Cancellation, Change, Execution, Party, Report, Reports};
pub use crate::store::Capacity;
use crate::store::{Level, Order, Store};

/// Why an action was refused. The book is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The owner has no live order of this number.
    #[error("owner {owner} has no live order {id}")]
    UnknownOrder {
        /// Whose order.
        owner: u32,
        /// Its number.
        id: u64,
    },
    /// The owner has a live order of this number.
    #[error("owner {owner} has a live order {id} already")]
    DuplicateOrder {
        /// Whose order.
        owner: u32,
        /// Its number.
        id: u64,
    },
    /// Zero, or more than [`QUANTITY_MAX`].
    #[error("a quantity of {0} is not between 1 and {QUANTITY_MAX}")]
    QuantityInvalid(Quantity),
    /// The number of the owner is not below [`Capacity::owners`].
    #[error("owner {owner} is not below the capacity of {owners} owners")]
    OwnerOutOfRange {
        /// Whose order.
        owner: u32,
        /// The bound.
        owners: u32,
    },
    /// A post-only order would trade at once.
    #[error("a post-only order would trade at once, at {0}")]
    WouldTrade(Price),
    /// The book holds as many orders as it can.
    #[error("the book is full: it holds {0} orders")]
    Full(u32),
}

/// A price of one side, as queries show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The price.
    pub price: Price,
    /// What is open at it.
    pub quantity: Quantity,
    /// How many orders wait at it.
    pub orders: u32,
}

impl From<&Level> for Depth {
    fn from(level: &Level) -> Self {
        Self {
            price: level.price,
            quantity: level.quantity,
            orders: level.orders,
        }
    }
}

/// A live order, as queries show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveOrder {
    /// The owner's number of the order.
    pub id: u64,
    /// Whose order.
    pub owner: u32,
    /// Bid or ask.
    pub side: Side,
    /// Its limit.
    pub price: Price,
    /// What is open.
    pub quantity: Quantity,
    /// How long it stays.
    pub time_in_force: TimeInForce,
    /// The caller's word about it.
    pub tag: u32,
}

impl From<&Order> for LiveOrder {
    fn from(order: &Order) -> Self {
        Self {
            id: order.id,
            owner: order.owner,
            side: order.side,
            price: order.price,
            quantity: order.quantity,
            time_in_force: order.time_in_force,
            tag: order.tag,
        }
    }
}

/// One order book. See the [module](self).
#[derive(Clone, Debug)]
pub struct OrderBook {
    store: Store,
    book: Book,
}

impl OrderBook {
    /// An empty book. All memory it will use is taken and touched here.
    ///
    /// # Panics
    ///
    /// If the capacity exceeds [`Capacity::ORDERS_MAX`] or [`Capacity::OWNERS_MAX`].
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            store: Store::new(capacity),
            book: Book::new(0),
        }
    }

    /// Takes an order: trades what it can, then rests, or not, as it says.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the book is as before. That a fill-or-kill order finds too little
    /// is no refusal: it is accepted, and canceled.
    pub fn place(&mut self, place: &Place, reports: &mut impl Reports) -> Result<(), Refusal> {
        self.check_place(place)?;
        reports.report(&Report::Accepted(*place));
        let mut taker = Taker {
            id: place.id,
            owner: place.owner,
            tag: place.tag,
            side: place.side,
            limit: limit_of(place),
            quantity: place.quantity,
            self_trade: place.self_trade,
        };
        let whole = place.time_in_force == TimeInForce::FillOrKill;
        if whole && !self.book.fillable(&self.store, &taker) {
            reports.report(&gone(&taker, CancelReason::NotFilledWhole));
            return Ok(());
        }
        let taken = self.book.take(&mut self.store, &mut taker, reports);
        if taker.quantity == 0 {
            return Ok(());
        }
        if taken == Taken::SelfTraded {
            reports.report(&gone(&taker, CancelReason::SelfTrade));
        } else if place.rests() {
            let timed = place.time_in_force == TimeInForce::GoodTillTime;
            let order = order_of(place, taker.quantity);
            let handle = self.store.add(order, timed.then_some(place.expires));
            self.book.rest(&mut self.store, handle);
        } else {
            reports.report(&gone(&taker, CancelReason::NotFilled));
        }
        Ok(())
    }

    fn check_place(&self, place: &Place) -> Result<(), Refusal> {
        let Place {
            owner,
            id,
            quantity,
            ..
        } = *place;
        let Capacity { owners, orders } = self.store.capacity();
        if quantity == 0 || quantity > QUANTITY_MAX {
            return Err(Refusal::QuantityInvalid(quantity));
        }
        if owner >= owners {
            return Err(Refusal::OwnerOutOfRange { owner, owners });
        }
        if self.store.find(owner, id).is_some() {
            return Err(Refusal::DuplicateOrder { owner, id });
        }
        if place.rests() && self.store.is_full() {
            return Err(Refusal::Full(orders));
        }
        self.check_post_only(place.post_only, place.side, limit_of(place))
    }

    fn check_post_only(&self, post_only: bool, side: Side, limit: Price) -> Result<(), Refusal> {
        match self.book.best_price(&self.store, side.opposite()) {
            Some(price) if post_only && crosses(side, limit, price) => {
                Err(Refusal::WouldTrade(price))
            }
            _ => Ok(()),
        }
    }

    fn find(&self, owner: u32, id: u64) -> Result<u32, Refusal> {
        self.store
            .find(owner, id)
            .ok_or(Refusal::UnknownOrder { owner, id })
    }

    /// Takes an order out.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownOrder`].
    pub fn cancel(
        &mut self,
        owner: u32,
        id: u64,
        reports: &mut impl Reports,
    ) -> Result<(), Refusal> {
        let handle = self.find(owner, id)?;
        self.book
            .cancel(&mut self.store, handle, CancelReason::Requested, reports);
        Ok(())
    }

    /// Takes `by` off an order, which keeps its place; all of it or more cancels it.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownOrder`]; [`Refusal::QuantityInvalid`] for zero.
    pub fn reduce(
        &mut self,
        owner: u32,
        id: u64,
        by: Quantity,
        reports: &mut impl Reports,
    ) -> Result<(), Refusal> {
        let handle = self.find(owner, id)?;
        if by == 0 {
            return Err(Refusal::QuantityInvalid(by));
        }
        if by >= self.store.order(handle).quantity {
            self.book
                .cancel(&mut self.store, handle, CancelReason::Requested, reports);
            return Ok(());
        }
        self.book.reduce(&mut self.store, handle, by);
        let change = change_of(self.store.order(handle), id, true);
        reports.report(&Report::Reduced(change));
        Ok(())
    }

    /// Gives an order another number, price and open quantity.
    ///
    /// It keeps its place where the price is the same and the quantity not greater, and
    /// comes in anew otherwise: at the end of the queue, and trading if it can.
    ///
    /// ```
    /// use lockstep_exchange::book::{Capacity, OrderBook, Place, Report};
    /// use lockstep_exchange::event::Side;
    /// let mut book = OrderBook::new(Capacity { orders: 10, owners: 1 });
    /// let mut ignore = |_: &Report| {};
    /// book.place(&Place::limit(1, Side::Buy, 100, 5), &mut ignore)?;
    /// book.place(&Place::limit(2, Side::Buy, 100, 5), &mut ignore)?;
    /// book.replace(0, 1, 10, 100, 4, &mut ignore)?;                // less: still first
    /// assert_eq!(book.queue(Side::Buy, 100).next().map(|order| order.id), Some(10));
    /// book.replace(0, 10, 11, 100, 6, &mut ignore)?;               // more: last
    /// assert_eq!(book.queue(Side::Buy, 100).next().map(|order| order.id), Some(2));
    /// # Ok::<(), lockstep_exchange::book::Refusal>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the book is as before. A post-only order stays one.
    pub fn replace(
        &mut self,
        owner: u32,
        id: u64,
        new_id: u64,
        price: Price,
        quantity: Quantity,
        reports: &mut impl Reports,
    ) -> Result<(), Refusal> {
        let handle = self.find(owner, id)?;
        let old = *self.store.order(handle);
        if quantity == 0 || quantity > QUANTITY_MAX {
            return Err(Refusal::QuantityInvalid(quantity));
        }
        if new_id != id && self.store.find(owner, new_id).is_some() {
            return Err(Refusal::DuplicateOrder { owner, id: new_id });
        }
        self.check_post_only(old.post_only, old.side, price)?;
        let kept = price == old.price && quantity <= old.quantity;
        if kept {
            self.book
                .reduce(&mut self.store, handle, old.quantity - quantity);
        } else {
            self.book.unlink(&mut self.store, handle);
            let order = &mut self.store.orders[handle as usize];
            (order.price, order.quantity) = (price, quantity);
        }
        if new_id != id {
            self.store.rename(handle, new_id);
        }
        reports.report(&Report::Replaced(change_of(
            self.store.order(handle),
            id,
            kept,
        )));
        if !kept {
            self.come_in_anew(handle, reports);
        }
        Ok(())
    }

    /// An order of the store that is in no level takes, then rests or ends.
    fn come_in_anew(&mut self, handle: u32, reports: &mut impl Reports) {
        let mut taker = taker_of(self.store.order(handle));
        let taken = self.book.take(&mut self.store, &mut taker, reports);
        if taken == Taken::SelfTraded || taker.quantity == 0 {
            self.store.drop_order(handle);
            if taker.quantity > 0 {
                reports.report(&gone(&taker, CancelReason::SelfTrade));
            }
            return;
        }
        self.store.orders[handle as usize].quantity = taker.quantity;
        self.book.rest(&mut self.store, handle);
    }

    /// Takes out all orders of an owner (of one side, if given), newest first, and says
    /// how many.
    pub fn cancel_all(
        &mut self,
        owner: u32,
        side: Option<Side>,
        reports: &mut impl Reports,
    ) -> u64 {
        let mut count = 0;
        let mut handle = self.store.newest(owner);
        while handle != NONE {
            let order = self.store.order(handle);
            let (here, older) = (handle, order.older);
            if side.is_none_or(|side| side == order.side) {
                self.book
                    .cancel(&mut self.store, here, CancelReason::MassCancel, reports);
                count += 1;
            }
            handle = older;
        }
        count
    }

    /// Takes out all orders whose time has come, earliest first, and says how many.
    pub fn expire(&mut self, time: u64, reports: &mut impl Reports) -> u64 {
        let mut count = 0;
        while let Some(handle) = self.store.expired(time) {
            self.book
                .cancel(&mut self.store, handle, CancelReason::Expired, reports);
            count += 1;
        }
        count
    }

    /// How many orders are in the book.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.store.live()
    }

    /// Whether no order is in the book.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The best price of a side.
    #[must_use]
    pub fn best(&self, side: Side) -> Option<Depth> {
        self.depth(side).next()
    }

    /// The prices of a side, best first.
    ///
    /// ```
    /// use lockstep_exchange::book::{Capacity, OrderBook, Place, Report};
    /// use lockstep_exchange::event::Side;
    /// let mut book = OrderBook::new(Capacity { orders: 10, owners: 1 });
    /// for (id, price) in [(1, 99), (2, 101), (3, 100), (4, 101)] {
    ///     book.place(&Place::limit(id, Side::Buy, price, 5), &mut |_: &Report| {})?;
    /// }
    /// let depth: Vec<_> = book.depth(Side::Buy).map(|d| (d.price, d.quantity, d.orders)).collect();
    /// assert_eq!(depth, [(101, 10, 2), (100, 5, 1), (99, 5, 1)]);
    /// # Ok::<(), lockstep_exchange::book::Refusal>(())
    /// ```
    pub fn depth(&self, side: Side) -> impl Iterator<Item = Depth> + '_ {
        depth_of(&self.book, &self.store, side)
    }

    /// The orders at a price, first to trade first.
    pub fn queue(&self, side: Side, price: Price) -> impl Iterator<Item = LiveOrder> + '_ {
        let level = self.book.level_at(&self.store, side, price);
        let mut handle = level.map_or(NONE, |level| self.store.levels[level as usize].head);
        std::iter::from_fn(move || {
            if handle == NONE {
                return None;
            }
            let order = self.store.order(handle);
            handle = order.next;
            Some(LiveOrder::from(order))
        })
    }

    /// All orders of a side, first to trade first.
    pub fn orders(&self, side: Side) -> impl Iterator<Item = LiveOrder> + '_ {
        self.book
            .walk(&self.store, side)
            .map(|(_, order)| LiveOrder::from(order))
    }

    /// One live order.
    #[must_use]
    pub fn order(&self, owner: u32, id: u64) -> Option<LiveOrder> {
        self.store
            .find(owner, id)
            .map(|handle| LiveOrder::from(self.store.order(handle)))
    }

    /// Walks everything and compares it with itself; for tests and drills.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, by its number in the source.
    pub fn check(&self) -> Result<(), &'static str> {
        self.store.check()?;
        self.book.check(&self.store)
    }
}

/// The prices of a side, best first.
pub(crate) fn depth_of<'a>(
    book: &'a Book,
    store: &'a Store,
    side: Side,
) -> impl Iterator<Item = Depth> + 'a {
    let mut level = book.half(side).best;
    std::iter::from_fn(move || {
        if level == NONE {
            return None;
        }
        let depth = Depth::from(&store.levels[level as usize]);
        level = book.level_behind(store, side, level);
        Some(depth)
    })
}

/// The worst price that an order trades at.
const fn limit_of(place: &Place) -> Price {
    match (place.order_type, place.side) {
        (OrderType::Limit, _) => place.price,
        (OrderType::Market, Side::Buy) => Price::MAX,
        (OrderType::Market, Side::Sell) => Price::MIN,
    }
}

/// What the store keeps of an order.
pub(crate) const fn order_of(place: &Place, quantity: Quantity) -> Order {
    Order {
        id: place.id,
        price: place.price,
        quantity,
        level: NONE,
        next: NONE,
        prev: NONE,
        owner: place.owner,
        older: NONE,
        newer: NONE,
        book: 0,
        tag: place.tag,
        timer: NONE,
        side: place.side,
        self_trade: place.self_trade,
        time_in_force: place.time_in_force,
        post_only: place.post_only,
    }
}

/// A live order on its way in anew.
pub(crate) const fn taker_of(order: &Order) -> Taker {
    Taker {
        id: order.id,
        owner: order.owner,
        tag: order.tag,
        side: order.side,
        limit: order.price,
        quantity: order.quantity,
        self_trade: order.self_trade,
    }
}

const fn change_of(order: &Order, old_id: u64, priority_kept: bool) -> Change {
    Change {
        old_id,
        id: order.id,
        owner: order.owner,
        tag: order.tag,
        side: order.side,
        price: order.price,
        quantity: order.quantity,
        priority_kept,
    }
}

/// The end of the rest of an order that came in.
const fn gone(taker: &Taker, reason: CancelReason) -> Report {
    Report::Canceled(Cancellation {
        id: taker.id,
        owner: taker.owner,
        tag: taker.tag,
        book: 0,
        side: taker.side,
        price: taker.limit,
        quantity: taker.quantity,
        reason,
    })
}

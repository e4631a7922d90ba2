//! One book over the shared store: who is in front, who trades with whom.
//!
//! The best price first; at one price the one who came first; fills at the price of the
//! order that was there. The incoming order lives on the stack until something of it
//! rests: an order that trades away never touches the store.
//!
//! # Invariants
//!
//! * `B1` `best` of a side is its best level, or `NONE` where the side is empty.
//! * `B2` Between two calls no bid is at or above an ask.
//! * `B3` Every report is made when the book is already as the report says.

use crate::event::{SelfTrade, Side};
use crate::idmap::NONE;
use crate::ladder::{Ladder, Towards};
use crate::price::{Price, Quantity};
use crate::report::{CancelReason, Cancellation, Execution, Party, Report, Reports};
use crate::store::{Order, Store};

/// One side of a book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    ladder: Ladder,
    /// The best level (`B1`).
    pub(crate) best: u32,
    pub(crate) levels: u32,
    pub(crate) orders: u32,
}

/// One book. Its orders and levels are in a [`Store`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Book {
    number: u32,
    halves: [Half; 2],
}

/// An order on its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker {
    pub(crate) id: u64,
    pub(crate) owner: u32,
    pub(crate) tag: u32,
    pub(crate) side: Side,
    pub(crate) limit: Price,
    pub(crate) quantity: Quantity,
    pub(crate) self_trade: SelfTrade,
}

/// Whether an order that came in may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is filled, or nothing is left that it could trade with.
    Done,
    /// It met an order of its own owner and loses its rest.
    SelfTraded,
}

const fn index(side: Side) -> usize {
    match side {
        Side::Buy => 0,
        Side::Sell => 1,
    }
}

/// Where worse prices of a side lie.
const fn worse(side: Side) -> Towards {
    match side {
        Side::Buy => Towards::Lower,
        Side::Sell => Towards::Higher,
    }
}

/// Whether an order of this side and limit trades at `price`.
#[inline]
pub(crate) const fn crosses(side: Side, limit: Price, price: Price) -> bool {
    match side {
        Side::Buy => price <= limit,
        Side::Sell => price >= limit,
    }
}

impl Book {
    pub(crate) const fn new(number: u32) -> Self {
        let half = Half {
            ladder: Ladder::new(),
            best: NONE,
            levels: 0,
            orders: 0,
        };
        Self {
            number,
            halves: [half; 2],
        }
    }

    #[inline]
    pub(crate) const fn half(&self, side: Side) -> &Half {
        &self.halves[index(side)]
    }

    /// The best price of a side.
    #[inline]
    pub(crate) fn best_price(&self, store: &Store, side: Side) -> Option<Price> {
        let best = self.half(side).best;
        (best != NONE).then(|| store.levels[best as usize].price)
    }

    /// The level at a price.
    pub(crate) fn level_at(&self, store: &Store, side: Side, price: Price) -> Option<u32> {
        self.half(side).ladder.get(&store.nodes, price)
    }

    /// The level behind this one.
    pub(crate) fn level_behind(&self, store: &Store, side: Side, level: u32) -> u32 {
        let price = store.levels[level as usize].price;
        self.half(side)
            .ladder
            .next(&store.nodes, price, worse(side))
            .unwrap_or(NONE)
    }

    /// Matches what comes in with what is there, until one of them ends.
    #[inline]
    pub(crate) fn take(
        &mut self,
        store: &mut Store,
        taker: &mut Taker,
        reports: &mut impl Reports,
    ) -> Taken {
        let side = taker.side.opposite();
        // Each turn ends the taker or removes an order from the book.
        while taker.quantity > 0 {
            let best = self.half(side).best;
            if best == NONE {
                break;
            }
            let level = &mut store.levels[best as usize];
            if !crosses(taker.side, taker.limit, level.price) {
                break;
            }
            let handle = level.head;
            let maker = &mut store.orders[handle as usize];
            if maker.owner == taker.owner && taker.self_trade != SelfTrade::Allow {
                if taker.self_trade != SelfTrade::CancelNewest {
                    self.cancel(store, handle, CancelReason::SelfTrade, reports);
                }
                if taker.self_trade != SelfTrade::CancelOldest {
                    return Taken::SelfTraded;
                }
                continue;
            }
            let quantity = maker.quantity.min(taker.quantity);
            maker.quantity -= quantity;
            taker.quantity -= quantity;
            level.quantity -= quantity;
            let execution = Execution {
                price: level.price,
                quantity,
                taker_side: taker.side,
                maker: Party {
                    id: maker.id,
                    owner: maker.owner,
                    tag: maker.tag,
                    left: maker.quantity,
                },
                taker: Party {
                    id: taker.id,
                    owner: taker.owner,
                    tag: taker.tag,
                    left: taker.quantity,
                },
            };
            if maker.quantity == 0 {
                self.unlink(store, handle);
                store.drop_order(handle);
            }
            reports.report(&Report::Executed(execution));
        }
        Taken::Done
    }

    /// Whether an order of this kind would be filled whole (for fill-or-kill).
    pub(crate) fn fillable(&self, store: &Store, taker: &Taker) -> bool {
        let side = taker.side.opposite();
        let mut missing = taker.quantity;
        let mut level = self.half(side).best;
        while level != NONE && crosses(taker.side, taker.limit, store.levels[level as usize].price)
        {
            if taker.self_trade == SelfTrade::Allow {
                missing = missing.saturating_sub(store.levels[level as usize].quantity);
            } else {
                let mut handle = store.levels[level as usize].head;
                while handle != NONE && missing > 0 {
                    let order = store.order(handle);
                    if order.owner != taker.owner {
                        missing = missing.saturating_sub(order.quantity);
                    } else if taker.self_trade != SelfTrade::CancelOldest {
                        return false;
                    }
                    handle = order.next;
                }
            }
            if missing == 0 {
                return true;
            }
            level = self.level_behind(store, side, level);
        }
        false
    }

    /// The price of the last level that an order of this quantity would reach within
    /// `limit`; of the last there is, where there is less. `None`: it meets nothing.
    pub(crate) fn reach(
        &self,
        store: &Store,
        side: Side,
        limit: Price,
        quantity: Quantity,
    ) -> Option<Price> {
        let mut missing = quantity;
        let mut reached = None;
        let mut level = self.half(side.opposite()).best;
        while level != NONE && missing > 0 {
            let here = &store.levels[level as usize];
            if !crosses(side, limit, here.price) {
                break;
            }
            reached = Some(here.price);
            missing = missing.saturating_sub(here.quantity);
            level = self.level_behind(store, side.opposite(), level);
        }
        reached
    }

    /// Puts an order of the store at the end of the queue of its price.
    #[inline]
    pub(crate) fn rest(&mut self, store: &mut Store, handle: u32) {
        let Order {
            price,
            side,
            quantity,
            ..
        } = *store.order(handle);
        let level = self.level_for(store, side, price);
        let tail = store.levels[level as usize].tail;
        let order = &mut store.orders[handle as usize];
        order.level = level;
        order.prev = tail;
        order.next = NONE;
        order.book = self.number;
        if tail != NONE {
            store.orders[tail as usize].next = handle;
        }
        let here = &mut store.levels[level as usize];
        if tail == NONE {
            here.head = handle;
        }
        here.tail = handle;
        here.orders += 1;
        here.quantity += quantity;
        self.halves[index(side)].orders += 1;
    }

    #[inline]
    fn level_for(&mut self, store: &mut Store, side: Side, price: Price) -> u32 {
        let half = &mut self.halves[index(side)];
        if half.best != NONE && store.levels[half.best as usize].price == price {
            return half.best;
        }
        if let Some(level) = half.ladder.get(&store.nodes, price) {
            return level;
        }
        let level = store.add_level(price);
        half.ladder.insert(&mut store.nodes, price, level);
        half.levels += 1;
        let best = half.best;
        if best == NONE || !crosses(side, store.levels[best as usize].price, price) {
            half.best = level;
        }
        level
    }

    /// Takes an order out of its queue, and its level out of the book if it was the last.
    #[inline]
    pub(crate) fn unlink(&mut self, store: &mut Store, handle: u32) {
        let Order {
            level,
            next,
            prev,
            side,
            quantity,
            ..
        } = *store.order(handle);
        if next != NONE {
            store.orders[next as usize].prev = prev;
        }
        if prev != NONE {
            store.orders[prev as usize].next = next;
        }
        let here = &mut store.levels[level as usize];
        here.quantity -= quantity;
        here.orders -= 1;
        if prev == NONE {
            here.head = next;
        }
        if next == NONE {
            here.tail = prev;
        }
        let (empty, price) = (here.orders == 0, here.price);
        let half = &mut self.halves[index(side)];
        half.orders -= 1;
        if empty {
            if half.best == level {
                let behind = half.ladder.next(&store.nodes, price, worse(side));
                half.best = behind.unwrap_or(NONE);
            }
            half.ladder.remove(&mut store.nodes, price);
            half.levels -= 1;
            store.drop_level(level);
        }
    }

    /// Takes an order out of the book and the store, and reports it.
    #[inline]
    pub(crate) fn cancel(
        &mut self,
        store: &mut Store,
        handle: u32,
        reason: CancelReason,
        reports: &mut impl Reports,
    ) {
        let order = *store.order(handle);
        self.unlink(store, handle);
        store.drop_order(handle);
        reports.report(&Report::Canceled(Cancellation {
            id: order.id,
            owner: order.owner,
            tag: order.tag,
            book: order.book,
            side: order.side,
            price: order.price,
            quantity: order.quantity,
            reason,
        }));
    }

    /// Takes some of an order's quantity off; it keeps its place.
    #[inline]
    pub(crate) fn reduce(&self, store: &mut Store, handle: u32, by: Quantity) {
        let order = &mut store.orders[handle as usize];
        order.quantity -= by;
        store.levels[order.level as usize].quantity -= by;
    }

    /// All orders of a side, from the first that would trade.
    pub(crate) fn walk<'a>(
        &'a self,
        store: &'a Store,
        side: Side,
    ) -> impl Iterator<Item = (u32, &'a Order)> + 'a {
        let mut level = self.half(side).best;
        let mut handle = if level == NONE {
            NONE
        } else {
            store.levels[level as usize].head
        };
        std::iter::from_fn(move || {
            if handle == NONE {
                return None;
            }
            let here = handle;
            let order = store.order(here);
            handle = order.next;
            if handle == NONE {
                level = self.level_behind(store, side, level);
                handle = if level == NONE {
                    NONE
                } else {
                    store.levels[level as usize].head
                };
            }
            Some((here, order))
        })
    }

    /// Looks whether levels and queues fit each other (`B1`, `B2`, `O2`).
    pub(crate) fn check(&self, store: &Store) -> Result<(), &'static str> {
        for side in [Side::Buy, Side::Sell] {
            self.check_half(store, side)?;
        }
        let bid = self.best_price(store, Side::Buy);
        let ask = self.best_price(store, Side::Sell);
        match (bid, ask) {
            (Some(bid), Some(ask)) if bid >= ask => Err("B2: the book is crossed"),
            _ => Ok(()),
        }
    }

    fn check_half(&self, store: &Store, side: Side) -> Result<(), &'static str> {
        let half = self.half(side);
        let (mut level, mut before) = (half.best, None);
        let (mut levels, mut orders) = (0, 0);
        while level != NONE {
            let here = store.levels[level as usize];
            let is_worse = before.is_none_or(|before: Price| match side {
                Side::Buy => here.price < before,
                Side::Sell => here.price > before,
            });
            if !is_worse {
                return Err("B1: levels are out of order");
            }
            let (mut handle, mut prev, mut quantity, mut count) = (here.head, NONE, 0, 0);
            while handle != NONE {
                let order = store.order(handle);
                let fits = order.level == level
                    && order.prev == prev
                    && order.price == here.price
                    && order.side == side
                    && order.book == self.number
                    && order.quantity > 0;
                if !fits {
                    return Err("O1: an order is not what its queue says");
                }
                quantity += order.quantity;
                count += 1;
                (prev, handle) = (handle, order.next);
            }
            if quantity != here.quantity || count != here.orders || count == 0 || prev != here.tail
            {
                return Err("O2: a level is not the sum of its queue");
            }
            levels += 1;
            orders += count;
            before = Some(here.price);
            level = self.level_behind(store, side, level);
        }
        if levels != half.levels || orders != half.orders {
            return Err("B1: levels or orders are missing from the walk");
        }
        Ok(())
    }
}

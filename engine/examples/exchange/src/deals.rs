//! Deals: the books of all instruments over one store of orders, and what they trade.

use crate::book::{
    CancelReason, Cancellation, Capacity, Place, Report, Reports, order_of, taker_of,
};
use crate::event::{Side, TimeInForce};
use crate::idmap::NONE;
use crate::matching::{Book, Taken, Taker};
use crate::price::{Price, Quantity};
use crate::store::{Order, Store};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Deals {
    pub(crate) store: Store,
    pub(crate) books: Vec<Book>,
    /// How many matches there have been.
    pub(crate) trades: u64,
}

impl Deals {
    pub(crate) fn new(capacity: Capacity, instruments: u32) -> Self {
        Self {
            store: Store::new(capacity),
            books: (0..instruments).map(Book::new).collect(),
            trades: 0,
        }
    }

    #[inline]
    pub(crate) fn book(&self, instrument: u32) -> &Book {
        &self.books[instrument as usize]
    }

    /// Lets an order trade, and rest if it may. `place.price` is its limit, of a market
    /// order too; the risk rules have passed it.
    #[inline]
    pub(crate) fn place(&mut self, instrument: u32, place: &Place, reports: &mut impl Reports) {
        let Self { store, books, .. } = self;
        let book = &mut books[instrument as usize];
        let mut taker = Taker {
            id: place.id,
            owner: place.owner,
            tag: place.tag,
            side: place.side,
            limit: place.price,
            quantity: place.quantity,
            self_trade: place.self_trade,
        };
        let immediate = match place.time_in_force {
            TimeInForce::FillOrKill => {
                if !book.fillable(store, &taker) {
                    let reason = CancelReason::NotFilledWhole;
                    return reports.report(&gone(&taker, instrument, reason));
                }
                true
            }
            TimeInForce::ImmediateOrCancel => true,
            TimeInForce::GoodTillCancel | TimeInForce::Day | TimeInForce::GoodTillTime => false,
        };
        let taken = book.take(store, &mut taker, reports);
        if taker.quantity == 0 {
            return;
        }
        if taken == Taken::SelfTraded {
            reports.report(&gone(&taker, instrument, CancelReason::SelfTrade));
        } else if immediate {
            reports.report(&gone(&taker, instrument, CancelReason::NotFilled));
        } else {
            let timed = place.time_in_force == TimeInForce::GoodTillTime;
            let order = order_of(place, taker.quantity);
            let handle = store.add(order, timed.then_some(place.expires));
            book.rest(store, handle);
        }
    }

    /// Takes an order out of its book and store.
    #[inline]
    pub(crate) fn cancel(&mut self, handle: u32, reason: CancelReason, reports: &mut impl Reports) {
        let book = self.store.order(handle).book as usize;
        self.books[book].cancel(&mut self.store, handle, reason, reports);
    }

    /// Takes some of an order's quantity off; it keeps its place.
    pub(crate) fn reduce(&mut self, handle: u32, by: Quantity) {
        let book = self.store.order(handle).book as usize;
        self.books[book].reduce(&mut self.store, handle, by);
    }

    /// Renames an order and takes it out of its queue with its new price and quantity;
    /// [`come_in_anew`](Self::come_in_anew) brings it back.
    pub(crate) fn lift(&mut self, handle: u32, id: u64, price: Price, quantity: Quantity) {
        let book = self.store.order(handle).book as usize;
        self.books[book].unlink(&mut self.store, handle);
        let order = &mut self.store.orders[handle as usize];
        (order.price, order.quantity) = (price, quantity);
        self.rename(handle, id);
    }

    pub(crate) fn rename(&mut self, handle: u32, id: u64) {
        if self.store.order(handle).id != id {
            self.store.rename(handle, id);
        }
    }

    /// A lifted order trades what it can, then rests or ends.
    pub(crate) fn come_in_anew(&mut self, handle: u32, reports: &mut impl Reports) {
        let Self { store, books, .. } = self;
        let instrument = store.order(handle).book;
        let book = &mut books[instrument as usize];
        let mut taker = taker_of(store.order(handle));
        let taken = book.take(store, &mut taker, reports);
        if taken == Taken::SelfTraded || taker.quantity == 0 {
            store.drop_order(handle);
            if taker.quantity > 0 {
                reports.report(&gone(&taker, instrument, CancelReason::SelfTrade));
            }
            return;
        }
        store.orders[handle as usize].quantity = taker.quantity;
        book.rest(store, handle);
    }

    /// Takes out all orders of an owner that `which` picks, newest first.
    pub(crate) fn cancel_all(
        &mut self,
        owner: u32,
        reason: CancelReason,
        which: impl Fn(&Order) -> bool,
        reports: &mut impl Reports,
    ) -> u64 {
        let mut count = 0;
        let mut handle = self.store.newest(owner);
        while handle != NONE {
            let (here, order) = (handle, self.store.order(handle));
            let (picked, older) = (which(order), order.older);
            if picked {
                self.cancel(here, reason, reports);
                count += 1;
            }
            handle = older;
        }
        count
    }

    /// Takes out all orders for the day of one book, bids first, best first.
    pub(crate) fn cancel_day(&mut self, instrument: u32, reports: &mut impl Reports) -> u64 {
        let mut count = 0;
        for side in [Side::Buy, Side::Sell] {
            let mut next = first(self.book(instrument), &self.store, side);
            while next != NONE {
                let here = next;
                next = following(self.book(instrument), &self.store, side, here);
                if self.store.order(here).time_in_force == TimeInForce::Day {
                    self.cancel(here, CancelReason::InstrumentClosed, reports);
                    count += 1;
                }
            }
        }
        count
    }

    /// Takes out all orders whose time has come, earliest first.
    pub(crate) fn expire(&mut self, time: u64, reports: &mut impl Reports) -> u64 {
        let mut count = 0;
        while let Some(handle) = self.store.expired(time) {
            self.cancel(handle, CancelReason::Expired, reports);
            count += 1;
        }
        count
    }
}

fn first(book: &Book, store: &Store, side: Side) -> u32 {
    let best = book.half(side).best;
    if best == NONE {
        NONE
    } else {
        store.levels[best as usize].head
    }
}

/// The order behind this one: in its queue, or at the head of the next.
fn following(book: &Book, store: &Store, side: Side, handle: u32) -> u32 {
    let order = store.order(handle);
    if order.next != NONE {
        return order.next;
    }
    let level = book.level_behind(store, side, order.level);
    if level == NONE {
        NONE
    } else {
        store.levels[level as usize].head
    }
}

const fn gone(taker: &Taker, instrument: u32, reason: CancelReason) -> Report {
    Report::Canceled(Cancellation {
        id: taker.id,
        owner: taker.owner,
        tag: taker.tag,
        book: instrument,
        side: taker.side,
        price: taker.limit,
        quantity: taker.quantity,
        reason,
    })
}

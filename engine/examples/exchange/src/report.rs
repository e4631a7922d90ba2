//! What a book reports while it works: accepted, executed, canceled, and who was in it.

use crate::event::Side;
use crate::place::Place;
use crate::price::{Price, Quantity};

/// What one side of a trade needs to know of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// The owner's number of the order.
    pub id: u64,
    /// Whose order.
    pub owner: u32,
    /// The caller's word about it.
    pub tag: u32,
    /// What is open of it after the trade.
    pub left: Quantity,
}

/// A trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The maker's price.
    pub price: Price,
    /// How much.
    pub quantity: Quantity,
    /// The side of the order that came in.
    pub taker_side: Side,
    /// The order that was in the book.
    pub maker: Party,
    /// The order that came in.
    pub taker: Party,
}

/// The end of an order, or of its rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The owner's number of the order.
    pub id: u64,
    /// Whose order.
    pub owner: u32,
    /// The caller's word about it.
    pub tag: u32,
    /// The number of the book; 0 for an [`OrderBook`](crate::book::OrderBook).
    pub book: u32,
    /// Its side.
    pub side: Side,
    /// Its limit.
    pub price: Price,
    /// What was open.
    pub quantity: Quantity,
    /// Why.
    pub reason: CancelReason,
}

/// Why an order is gone. The numbers are for ever.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelReason {
    /// Its owner said so.
    Requested = 1,
    /// The rest of an immediate-or-cancel or market order.
    NotFilled = 2,
    /// A fill-or-kill order that could not be filled whole.
    NotFilledWhole = 3,
    /// It would have traded with its own owner.
    SelfTrade = 4,
    /// Its time has come.
    Expired = 5,
    /// Its owner took all orders out.
    MassCancel = 6,
    /// Its owner's last client session closed.
    SessionClosed = 7,
    /// Its instrument closed, and it was for the day.
    InstrumentClosed = 8,
}

/// A change of an order in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the owner called it.
    pub old_id: u64,
    /// What the owner calls it.
    pub id: u64,
    /// Whose order.
    pub owner: u32,
    /// The caller's word about it.
    pub tag: u32,
    /// Its side.
    pub side: Side,
    /// Its price.
    pub price: Price,
    /// Its open quantity.
    pub quantity: Quantity,
    /// Whether it keeps its place.
    pub priority_kept: bool,
}

/// What an action did, in the order in which it did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The order was taken; trades may follow.
    Accepted(Place),
    /// A trade.
    Executed(Execution),
    /// An order, or the rest of it, is gone.
    Canceled(Cancellation),
    /// An order has less quantity and its old place.
    Reduced(Change),
    /// An order has another price, quantity or number; trades may follow.
    Replaced(Change),
}

/// Where reports go. Any `FnMut(&Report)` is one.
pub trait Reports {
    /// Takes one report. The book already is as the report says.
    fn report(&mut self, report: &Report);
}

impl<F: FnMut(&Report)> Reports for F {
    #[inline]
    fn report(&mut self, report: &Report) {
        self(report);
    }
}

//! LOBSTER message files: `time,type,order,size,price,direction`, prices in 1/10,000.
//!
//! | type | event |
//! |---|---|
//! | 1 new | `NewOrder` |
//! | 2 part canceled | `ReduceOrder` |
//! | 3 deleted | `CancelOrder` |
//! | 4 executed | an immediate-or-cancel order of that size and price from the other side |
//! | 5 hidden execution, 6 auction, 7 halt | none |
//!
//! The book with which the day began is not in the file: rows about its orders are
//! skipped, unless [`Lobster::opening_book`] gives the first row of the order book file.
//! Then each of its prices becomes one order, and those rows take from it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use super::{At, Feed, Lines, LoadError, Problem, Reason, Source, at_least, decimal, whole};
use crate::event::{InstrumentState, NewOrder, Side, TimeInForce};

/// See the [module](self).
#[derive(Debug)]
pub struct Lobster<R> {
    lines: Lines<R>,
    started: bool,
    /// What is open of the orders that the file has named.
    live: BTreeMap<u64, u64>,
    /// Price and quantity of each side as the day began.
    opening: BTreeMap<(Side, i64), u64>,
}

#[derive(Clone, Copy)]
struct Row {
    time: u64,
    kind: u8,
    order: u64,
    size: u64,
    price: i64,
    side: Side,
}

/// A price of no order: LOBSTER fills empty levels with it.
const NO_PRICE: i64 = 9_999_999_999;

/// Opening orders have numbers from here on.
const OPENING_ORDERS: u64 = 1 << 62;

impl<R: BufRead> Lobster<R> {
    /// Reads a message file.
    pub fn new(reader: R) -> Self {
        let (live, opening) = (BTreeMap::new(), BTreeMap::new());
        Self {
            lines: Lines::new(reader),
            started: false,
            live,
            opening,
        }
    }

    /// Begins with the book of the first row of the order book file
    /// (`ask price, ask size, bid price, bid size` for each level), which is the book
    /// *after* the first message; what that did is taken back.
    ///
    /// # Errors
    ///
    /// The row cannot be read.
    pub fn opening_book(mut self, row: &str) -> Result<Self, LoadError> {
        let fields: Vec<&str> = row.trim().split(',').collect();
        let error = |problem| LoadError::new(At::Line(1), problem);
        if !fields.len().is_multiple_of(4) || fields.is_empty() {
            let expected = (fields.len() / 4 + 1) * 4;
            return Err(error(Problem::Fields {
                expected,
                found: fields.len(),
            }));
        }
        for level in fields.chunks_exact(4) {
            for (side, pair) in [Side::Sell, Side::Buy]
                .into_iter()
                .zip(level.chunks_exact(2))
            {
                let price: i64 = whole("price", pair[0]).map_err(error)?;
                let size: u64 = whole("size", pair[1]).map_err(error)?;
                if size > 0 && price.abs() < NO_PRICE {
                    self.opening.insert((side, price), size);
                }
            }
        }
        Ok(self)
    }

    fn start(&mut self, first: Row, feed: &mut Feed) {
        self.started = true;
        let (instrument, symbol) = (feed.options().instrument, feed.options().symbol);
        feed.open_accounts(first.time);
        feed.add_instrument(first.time, instrument, symbol);
        feed.set_state(first.time, instrument, InstrumentState::Open);
        if self.opening.is_empty() {
            return;
        }
        let size = self.opening.entry((first.side, first.price)).or_default();
        match first.kind {
            1 => *size = size.saturating_sub(first.size),
            2..=4 => *size += first.size,
            _ => {}
        }
        self.opening.retain(|_, size| *size > 0);
        for (&(side, price), &quantity) in &self.opening {
            let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
            let order = opening_order(side, price);
            let account = feed.account_of(order);
            let opening = NewOrder {
                price,
                quantity,
                order,
                instrument,
                account,
                ..limit
            };
            feed.push(first.time, &opening);
        }
    }

    fn apply(&mut self, row: Row, feed: &mut Feed) {
        let Row {
            time,
            kind,
            order,
            size,
            price,
            side,
        } = row;
        let instrument = feed.options().instrument;
        let account = feed.account_of(order);
        match kind {
            1 => {
                self.live.insert(order, size);
                let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
                let new = NewOrder {
                    price,
                    quantity: size,
                    order,
                    instrument,
                    account,
                    ..limit
                };
                feed.push(time, &new);
            }
            2..=4 => {
                let known = self.live.get_mut(&order);
                let is_known = known.is_some();
                if let Some(open) = known {
                    *open = open.saturating_sub(size);
                    if *open == 0 || kind == 3 {
                        self.live.remove(&order);
                    }
                } else if !self.opening.contains_key(&(side, price)) {
                    return feed.skip(Reason::OrderBeforeFile);
                }
                match (kind, is_known) {
                    (4, _) => feed.take(time, instrument, side, price, size),
                    (3, true) => feed.cancel(time, account, order),
                    (_, true) => feed.reduce(time, account, order, size),
                    (_, false) => {
                        let order = opening_order(side, price);
                        feed.reduce(time, feed.account_of(order), order, size);
                    }
                }
            }
            5 => feed.skip(Reason::HiddenExecution),
            6 => feed.skip(Reason::CrossTrade),
            _ => feed.skip(Reason::Halt),
        }
    }
}

/// The number of the one order that stands for a price of the opening book.
const fn opening_order(side: Side, price: i64) -> u64 {
    OPENING_ORDERS | price.cast_unsigned() << 1 | (side as u64 & 1)
}

fn row(line: &str, midnight: u64) -> Result<Row, Problem> {
    let fields: Vec<&str> = line.split(',').collect();
    let [time, kind, order, size, price, side] = fields[..] else {
        return Err(Problem::Fields {
            expected: 6,
            found: fields.len(),
        });
    };
    let value = |field, found: &str| Problem::Value {
        field,
        found: found.to_owned(),
    };
    let kind: u8 = whole("type", kind)?;
    if !(1..=7).contains(&kind) {
        return Err(value("type", &kind.to_string()));
    }
    let orders = (1..=4).contains(&kind);
    let time = at_least("time", decimal("time", time, 9)?, 0)?.cast_unsigned();
    let size_number: u64 = whole("size", size)?;
    if orders && size_number == 0 {
        return Err(value("size", size));
    }
    Ok(Row {
        time: midnight.saturating_add(time),
        kind,
        order: whole("order", order)?,
        size: size_number,
        price: at_least(
            "price",
            whole("price", price)?,
            if orders { 1 } else { i64::MIN },
        )?,
        side: match side.trim() {
            "1" => Side::Buy,
            "-1" => Side::Sell,
            // Halts have any direction.
            _ if !orders => Side::Buy,
            other => return Err(value("direction", other)),
        },
    })
}

impl<R: BufRead + fmt::Debug> Source for Lobster<R> {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        let midnight = feed.options().midnight;
        let Some(line) = self.lines.next()? else {
            return Ok(false);
        };
        feed.row();
        let row = row(line, midnight);
        let row = row.map_err(|problem| LoadError::new(self.lines.at(), problem))?;
        if !self.started {
            self.start(row, feed);
        }
        self.apply(row, feed);
        Ok(true)
    }
}

//! Bitstamp-style level 3 CSV, columns found by the names in its header.
//!
//! `id, timestamp` (ms) `, price` (two decimals) `, volume` (satoshi) `, action, direction`:
//! created → `NewOrder`, changed → `ReduceOrder` by what it fell (`ReplaceOrder` where it
//! rose), deleted → `CancelOrder`. An order that comes in across the spread trades here as
//! it did there; the rows by which the venue tells of it then find less than they expect,
//! and the exchange refuses the last of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use super::{Feed, Lines, LoadError, Problem, Reason, Source, at_least, decimal, whole};
use crate::event::{InstrumentState, NewOrder, ReplaceOrder, Side, TimeInForce};

const COLUMNS: [&str; 6] = ["id", "timestamp", "price", "volume", "action", "direction"];
const PRICE_DECIMALS: u32 = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Bitstamp<R> {
    lines: Lines<R>,
    /// Where the columns are, and how many there are, once the header is read.
    columns: Option<([usize; 6], usize)>,
    started: bool,
    /// What is open of each order, as the file tells it.
    live: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy)]
enum Action {
    Created,
    Changed,
    Deleted,
}

struct Row {
    time: u64,
    order: u64,
    price: i64,
    volume: u64,
    action: Action,
    side: Side,
}

impl<R: BufRead> Bitstamp<R> {
    /// Reads a file with a header.
    pub const fn new(reader: R) -> Self {
        Self {
            lines: Lines::new(reader),
            columns: None,
            started: false,
            live: BTreeMap::new(),
        }
    }

    fn header(&mut self) -> Result<Option<([usize; 6], usize)>, LoadError> {
        let at = self.lines.at();
        let Some(line) = self.lines.next()? else {
            return Ok(None);
        };
        let names: Vec<&str> = line
            .split(',')
            .map(|name| name.trim().trim_matches('"'))
            .collect();
        let mut columns = [0; 6];
        for (column, name) in columns.iter_mut().zip(COLUMNS) {
            let found = names.iter().position(|found| *found == name);
            *column = found.ok_or_else(|| LoadError::new(at, Problem::Column(name)))?;
        }
        Ok(Some((columns, names.len())))
    }

    fn start(&mut self, time: u64, feed: &mut Feed) {
        self.started = true;
        let (instrument, symbol) = (feed.options().instrument, feed.options().symbol);
        feed.open_accounts(time);
        feed.add_instrument(time, instrument, symbol);
        feed.set_state(time, instrument, InstrumentState::Open);
    }

    fn apply(&mut self, row: &Row, feed: &mut Feed) {
        let Row {
            time,
            order,
            price,
            volume,
            action,
            side,
        } = *row;
        let account = feed.account_of(order);
        match action {
            Action::Created if volume == 0 => feed.skip(Reason::NoQuantity),
            Action::Created => {
                self.live.insert(order, volume);
                let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
                let instrument = feed.options().instrument;
                let new = NewOrder {
                    price,
                    quantity: volume,
                    order,
                    instrument,
                    account,
                    ..limit
                };
                feed.push(time, &new);
            }
            Action::Deleted => match self.live.remove(&order) {
                Some(_) => feed.cancel(time, account, order),
                None => feed.skip(Reason::OrderBeforeFile),
            },
            Action::Changed => {
                let Some(open) = self.live.get_mut(&order) else {
                    return feed.skip(Reason::OrderBeforeFile);
                };
                let before = std::mem::replace(open, volume);
                if volume < before {
                    feed.reduce(time, account, order, before - volume);
                } else if volume > before {
                    let replace = ReplaceOrder {
                        order,
                        new_order: order,
                        price,
                        quantity: volume,
                        account,
                        spare: 0,
                    };
                    feed.push(time, &replace);
                } else {
                    feed.skip(Reason::NoChange);
                }
            }
        }
    }
}

fn row(line: &str, columns: &[usize; 6], count: usize) -> Result<Row, Problem> {
    let fields: Vec<&str> = line
        .split(',')
        .map(|field| field.trim().trim_matches('"'))
        .collect();
    if fields.len() != count {
        return Err(Problem::Fields {
            expected: count,
            found: fields.len(),
        });
    }
    let [id, timestamp, price, volume, action, direction] = columns.map(|column| fields[column]);
    let value = |field, found: &str| Problem::Value {
        field,
        found: found.to_owned(),
    };
    let milliseconds: u64 = whole("timestamp", timestamp)?;
    let time = milliseconds
        .checked_mul(1_000_000)
        .ok_or_else(|| value("timestamp", timestamp))?;
    Ok(Row {
        time,
        order: whole("id", id)?,
        price: at_least("price", decimal("price", price, PRICE_DECIMALS)?, 0)?,
        volume: whole("volume", volume)?,
        action: match action {
            "created" => Action::Created,
            "changed" => Action::Changed,
            "deleted" => Action::Deleted,
            other => return Err(value("action", other)),
        },
        side: match direction {
            "bid" => Side::Buy,
            "ask" => Side::Sell,
            other => return Err(value("direction", other)),
        },
    })
}

impl<R: BufRead + fmt::Debug> Source for Bitstamp<R> {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        let (columns, count) = match self.columns {
            Some(columns) => columns,
            None => match self.header()? {
                Some(columns) => *self.columns.insert(columns),
                None => return Ok(false),
            },
        };
        let Some(line) = self.lines.next()? else {
            return Ok(false);
        };
        feed.row();
        let row = row(line, &columns, count);
        let row = row.map_err(|problem| LoadError::new(self.lines.at(), problem))?;
        if !self.started {
            self.start(row.time, feed);
        }
        self.apply(&row, feed);
        Ok(true)
    }
}

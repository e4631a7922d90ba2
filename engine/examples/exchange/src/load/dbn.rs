//! Databento DBN, schema MBO, versions 1 to 3, plain or compressed with zstd.
//!
//! | action | event |
//! |---|---|
//! | A | `NewOrder` |
//! | C | `CancelOrder`, or `ReduceOrder` where it takes less than all |
//! | M | `ReplaceOrder`, or `ReduceOrder` where only the size fell; of an unknown order `NewOrder` |
//! | R | `MassCancel` of all accounts in that instrument |
//! | T, F | see [`Trades`] |
//!
//! Instruments are numbered as they come; prices are read in steps of 1/10,000 (the format
//! has 10⁻⁹), and what is finer is refused. Orders of a snapshot come as all others do.

use std::collections::BTreeMap;
use std::io::BufRead;

use dbn::decode::{DecodeRecord, DynDecoder};
use dbn::{Action, MboMsg, Side as DbnSide, UNDEF_PRICE, VersionUpgradePolicy};

use super::{At, Feed, LoadError, Problem, Reason, Source};
use crate::event::{InstrumentState, MassCancel, NewOrder, ReplaceOrder, Side, TimeInForce};

/// 10⁻⁹ to 10⁻⁴.
const PRICE_STEP: i64 = 100_000;

/// What is done with trades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trades {
    /// Nothing: the C or M that follows changes the book. It ends as the venue's did, and
    /// trades only where the flow itself crosses.
    #[default]
    Rebuild,
    /// Each T becomes an immediate-or-cancel order of its size from the aggressor's side;
    /// the C and M that tell of its fills are left out.
    Match,
}

/// See the [module](self).
pub struct Dbn<R: BufRead> {
    decoder: DynDecoder<'static, R>,
    record: u64,
    trades: Trades,
    started: bool,
    instruments: BTreeMap<u32, u32>,
    live: BTreeMap<u64, Live>,
    /// What F records have told, and no C or M has taken yet.
    filled: BTreeMap<u64, u64>,
}

impl<R: BufRead> std::fmt::Debug for Dbn<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dbn")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Live {
    instrument: u32,
    price: i64,
    open: u64,
}

impl<R: BufRead> Dbn<R> {
    /// Reads a file; whether it is compressed, and of which version, is in its first bytes.
    ///
    /// # Errors
    ///
    /// It does not begin as DBN does.
    pub fn new(reader: R) -> Result<Self, Problem> {
        let decoder = DynDecoder::inferred_with_buffer(reader, VersionUpgradePolicy::UpgradeToV3)
            .map_err(|error| Problem::Decoder(error.to_string()))?;
        Ok(Self {
            decoder,
            record: 0,
            trades: Trades::default(),
            started: false,
            instruments: BTreeMap::new(),
            live: BTreeMap::new(),
            filled: BTreeMap::new(),
        })
    }

    /// The same with this use of trades.
    #[must_use]
    pub const fn trades(mut self, trades: Trades) -> Self {
        self.trades = trades;
        self
    }

    fn instrument(&mut self, time: u64, id: u32, feed: &mut Feed) -> u32 {
        if let Some(&known) = self.instruments.get(&id) {
            return known;
        }
        if !self.started {
            self.started = true;
            feed.open_accounts(time);
        }
        let count = u32::try_from(self.instruments.len()).expect("its keys have 32 bits");
        let instrument = feed.options().instrument + count;
        self.instruments.insert(id, instrument);
        let mut symbol = [b' '; 8];
        for (to, from) in symbol.iter_mut().zip(id.to_string().bytes()) {
            *to = from;
        }
        feed.add_instrument(time, instrument, symbol);
        feed.set_state(time, instrument, InstrumentState::Open);
        instrument
    }

    fn apply(&mut self, row: &Row, feed: &mut Feed) -> Result<(), Problem> {
        let Row {
            time, order, size, ..
        } = *row;
        let instrument = self.instrument(time, row.instrument, feed);
        match row.action {
            Action::Add => self.add(row, instrument, feed)?,
            Action::Cancel => {
                let size = self.unfilled(order, size);
                let account = feed.account_of(order);
                let Some(live) = self.live.get_mut(&order) else {
                    feed.skip(Reason::OrderBeforeFile);
                    return Ok(());
                };
                if size == 0 {
                    feed.skip(Reason::BookFollows);
                } else if size < live.open {
                    live.open -= size;
                    feed.reduce(time, account, order, size);
                } else {
                    self.live.remove(&order);
                    feed.cancel(time, account, order);
                }
            }
            Action::Modify => self.modify(row, instrument, feed)?,
            Action::Clear => {
                self.live.retain(|_, live| live.instrument != instrument);
                let scope = MassCancel::ONE_INSTRUMENT;
                for account in 1..=feed.options().accounts {
                    let clear = MassCancel {
                        account,
                        instrument,
                        scope,
                        ..Default::default()
                    };
                    feed.push(time, &clear);
                }
            }
            Action::Trade if self.trades == Trades::Match && row.side.is_some() => {
                // The side of a trade is its aggressor's.
                let resting = row.side()?.opposite();
                feed.take(time, instrument, resting, row.price()?, size);
            }
            Action::Fill if self.trades == Trades::Match => {
                *self.filled.entry(order).or_default() += size;
                if let Some(live) = self.live.get_mut(&order) {
                    live.open = live.open.saturating_sub(size);
                    if live.open == 0 {
                        self.live.remove(&order);
                    }
                }
                feed.skip(Reason::BookFollows);
            }
            Action::Trade | Action::Fill => feed.skip(Reason::BookFollows),
            Action::None => feed.skip(Reason::NotAboutOrders),
        }
        Ok(())
    }

    /// What of a size the fills before it do not explain.
    fn unfilled(&mut self, order: u64, size: u64) -> u64 {
        let Some(filled) = self.filled.get_mut(&order) else {
            return size;
        };
        let explained = size.min(*filled);
        *filled -= explained;
        if *filled == 0 {
            self.filled.remove(&order);
        }
        size - explained
    }

    fn add(&mut self, row: &Row, instrument: u32, feed: &mut Feed) -> Result<(), Problem> {
        let Row {
            time,
            order,
            size: quantity,
            ..
        } = *row;
        let (side, price) = (row.side()?, row.price()?);
        if quantity == 0 {
            feed.skip(Reason::NoQuantity);
            return Ok(());
        }
        self.live.insert(
            order,
            Live {
                instrument,
                price,
                open: quantity,
            },
        );
        let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
        let account = feed.account_of(order);
        feed.push(
            time,
            &NewOrder {
                price,
                quantity,
                order,
                instrument,
                account,
                ..limit
            },
        );
        Ok(())
    }

    fn modify(&mut self, row: &Row, instrument: u32, feed: &mut Feed) -> Result<(), Problem> {
        let Row {
            time,
            order,
            size: quantity,
            ..
        } = *row;
        let price = row.price()?;
        self.filled.remove(&order);
        let account = feed.account_of(order);
        let Some(live) = self.live.get_mut(&order) else {
            return self.add(row, instrument, feed);
        };
        let before = std::mem::replace(
            live,
            Live {
                instrument,
                price,
                open: quantity,
            },
        );
        if quantity == 0 {
            self.live.remove(&order);
            feed.cancel(time, account, order);
        } else if price == before.price && quantity == before.open {
            feed.skip(Reason::NoChange);
        } else if price == before.price && quantity < before.open {
            feed.reduce(time, account, order, before.open - quantity);
        } else {
            let new_order = order;
            let replace = ReplaceOrder {
                order,
                new_order,
                price,
                quantity,
                account,
                spare: 0,
            };
            feed.push(time, &replace);
        }
        Ok(())
    }
}

struct Row {
    time: u64,
    instrument: u32,
    order: u64,
    size: u64,
    raw_price: i64,
    action: Action,
    side: Option<Side>,
}

impl Row {
    fn of(message: &MboMsg) -> Result<Self, Problem> {
        let decoder = |error: dbn::Error| Problem::Value {
            field: "action or side",
            found: error.to_string(),
        };
        Ok(Self {
            time: message.hd.ts_event,
            instrument: message.hd.instrument_id,
            order: message.order_id,
            size: u64::from(message.size),
            raw_price: message.price,
            action: message.action().map_err(decoder)?,
            side: match message.side().map_err(decoder)? {
                DbnSide::Ask => Some(Side::Sell),
                DbnSide::Bid => Some(Side::Buy),
                DbnSide::None => None,
            },
        })
    }

    fn side(&self) -> Result<Side, Problem> {
        self.side.ok_or_else(|| Problem::Value {
            field: "side",
            found: "N".into(),
        })
    }

    fn price(&self) -> Result<i64, Problem> {
        let raw = self.raw_price;
        if raw == UNDEF_PRICE || raw <= 0 || raw % PRICE_STEP != 0 {
            return Err(Problem::Value {
                field: "price",
                found: raw.to_string(),
            });
        }
        Ok(raw / PRICE_STEP)
    }
}

impl<R: BufRead> Source for Dbn<R> {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        self.record += 1;
        let at = At::Record(self.record);
        let message = self.decoder.decode_record::<MboMsg>();
        let message =
            message.map_err(|error| LoadError::new(at, Problem::Decoder(error.to_string())))?;
        let Some(message) = message else {
            return Ok(false);
        };
        feed.row();
        let row = Row::of(message).map_err(|problem| LoadError::new(at, problem))?;
        self.apply(&row, feed)
            .map_err(|problem| LoadError::new(at, problem))?;
        Ok(true)
    }
}

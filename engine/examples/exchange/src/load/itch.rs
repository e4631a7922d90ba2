//! NASDAQ TotalView-ITCH 5.0, binary, as in the venue's daily files.
//!
//! ```text
//!   0      2      3         5          7          13
//!   ├──────┼──────┼─────────┼──────────┼──────────┼─────────────┐
//!   │length│ type │ locate  │ tracking │ time, ns │ by type     │   all big-endian
//!   └──────┴──────┴─────────┴──────────┴──────────┴─────────────┘
//! ```
//!
//! | type | event |
//! |---|---|
//! | R | `AddInstrument`, its number is the stock locate code |
//! | H | `SetInstrumentState`: T open, all else halted |
//! | S | C (end of messages) closes all instruments |
//! | A, F | `NewOrder` |
//! | E, C | an immediate-or-cancel order at the order's price from the other side |
//! | X, D, U | `ReduceOrder`, `CancelOrder`, `ReplaceOrder` |
//! | P, Q, others | none |
//!
//! Files exist whose length prefix is zero: then the length is that of the type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, ErrorKind};

use super::{At, Feed, LoadError, Problem, Reason, Source};
use crate::event::{InstrumentState, NewOrder, ReplaceOrder, Side, TimeInForce};

/// See the [module](self).
#[derive(Debug)]
pub struct Itch<R> {
    reader: R,
    offset: u64,
    message: [u8; MESSAGE_BYTES_MAX],
    started: bool,
    instruments: BTreeSet<u32>,
    live: BTreeMap<u64, Live>,
}

const MESSAGE_BYTES_MAX: usize = 64;

/// What later messages about an order do not say.
#[derive(Clone, Copy, Debug)]
struct Live {
    instrument: u32,
    account: u32,
    side: Side,
    price: i64,
    open: u64,
}

/// How long a message of this type is, without its prefix.
const fn length_of(kind: u8) -> Option<u16> {
    Some(match kind {
        b'S' | b'W' => 12,
        b'D' | b'B' => 19,
        b'Y' | b'N' => 20,
        b'h' => 21,
        b'X' => 23,
        b'H' => 25,
        b'L' => 26,
        b'K' => 28,
        b'E' => 31,
        b'U' | b'V' | b'J' => 35,
        b'A' | b'C' => 36,
        b'R' => 39,
        b'F' | b'Q' => 40,
        b'P' => 44,
        b'O' => 48,
        b'I' => 50,
        _ => return None,
    })
}

impl<R: BufRead> Itch<R> {
    /// Reads an unpacked file.
    pub fn new(reader: R) -> Self {
        let (instruments, live) = (BTreeSet::new(), BTreeMap::new());
        let message = [0; MESSAGE_BYTES_MAX];
        Self {
            reader,
            offset: 0,
            message,
            started: false,
            instruments,
            live,
        }
    }

    /// Fills a part of the message; says how many bytes are missing at the end of the file.
    fn fill(&mut self, from: usize, to: usize) -> Result<usize, LoadError> {
        let mut filled = from;
        while filled < to {
            match self.reader.read(&mut self.message[filled..to]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::new(At::Offset(self.offset), error)),
            }
        }
        Ok(to - filled)
    }

    /// The next message; `None` at the end of the file.
    fn message(&mut self) -> Result<Option<Message>, LoadError> {
        let at = At::Offset(self.offset);
        let truncated = |missing| LoadError::new(at, Problem::Truncated { missing });
        // Length and type together: no message is shorter.
        match self.fill(0, 3)? {
            0 => {}
            3 => return Ok(None),
            missing => return Err(truncated(missing)),
        }
        let prefix = u16::from_be_bytes([self.message[0], self.message[1]]);
        let kind = self.message[2];
        let known = length_of(kind);
        let length = if prefix == 0 { known } else { Some(prefix) };
        let Some(length) = length.filter(|length| *length >= 1) else {
            return Err(LoadError::new(at, Problem::MessageType(kind)));
        };
        let end = 2 + usize::from(length);
        if end > MESSAGE_BYTES_MAX {
            return Err(LoadError::new(at, Problem::MessageType(kind)));
        }
        match self.fill(3, end)? {
            0 => self.offset += u64::from(length) + 2,
            missing => return Err(truncated(missing)),
        }
        if let Some(expected) = known.filter(|known| *known != length) {
            let kind = char::from(kind);
            let problem = Problem::MessageLength {
                kind,
                expected,
                found: length,
            };
            return Err(LoadError::new(at, problem));
        }
        Ok(Some(Message {
            bytes: self.message,
            at,
        }))
    }

    fn start(&mut self, time: u64, feed: &mut Feed) {
        if !self.started {
            self.started = true;
            feed.open_accounts(time);
        }
    }

    /// Adds an instrument that orders come for before the directory names it.
    fn know(&mut self, time: u64, instrument: u32, symbol: [u8; 8], feed: &mut Feed) -> bool {
        let new = self.instruments.insert(instrument);
        if new {
            feed.add_instrument(time, instrument, symbol);
        }
        new
    }

    fn apply(&mut self, message: &Message, feed: &mut Feed) -> Result<(), Problem> {
        let time = feed.options().midnight.saturating_add(message.time());
        self.start(time, feed);
        let instrument = message.number(1, 2);
        let instrument = u32::try_from(instrument).expect("two bytes");
        match message.kind() {
            b'R' => {
                self.know(time, instrument, message.symbol(11), feed);
            }
            b'H' => {
                self.know(time, instrument, message.symbol(11), feed);
                let open = message.byte(19) == b'T';
                let state = if open {
                    InstrumentState::Open
                } else {
                    InstrumentState::Halted
                };
                feed.set_state(time, instrument, state);
            }
            b'S' if message.byte(11) == b'C' => {
                for &instrument in &self.instruments {
                    feed.set_state(time, instrument, InstrumentState::Closed);
                }
            }
            b'A' | b'F' => self.add(time, instrument, message, feed)?,
            b'E' | b'C' => {
                let quantity = message.number(19, 4);
                let Some(live) = self.taken(message, quantity) else {
                    feed.skip(Reason::OrderBeforeFile);
                    return Ok(());
                };
                feed.take(time, live.instrument, live.side, live.price, quantity);
            }
            b'X' => {
                let (order, quantity) = (message.number(11, 8), message.number(19, 4));
                match self.taken(message, quantity) {
                    Some(live) => feed.reduce(time, live.account, order, quantity),
                    None => feed.skip(Reason::OrderBeforeFile),
                }
            }
            b'D' => {
                let order = message.number(11, 8);
                match self.live.remove(&order) {
                    Some(live) => feed.cancel(time, live.account, order),
                    None => feed.skip(Reason::OrderBeforeFile),
                }
            }
            b'U' => self.replace(time, message, feed)?,
            b'P' => feed.skip(Reason::TradeWithoutBook),
            b'Q' => feed.skip(Reason::CrossTrade),
            _ => feed.skip(Reason::NotAboutOrders),
        }
        Ok(())
    }

    fn add(
        &mut self,
        time: u64,
        instrument: u32,
        message: &Message,
        feed: &mut Feed,
    ) -> Result<(), Problem> {
        let order = message.number(11, 8);
        let side = match message.byte(19) {
            b'B' => Side::Buy,
            b'S' => Side::Sell,
            other => return Err(message_value("side", other)),
        };
        let quantity = message.number(20, 4);
        let price = message.price(32)?;
        if quantity == 0 {
            feed.skip(Reason::NoQuantity);
            return Ok(());
        }
        if self.know(time, instrument, message.symbol(24), feed) {
            feed.set_state(time, instrument, InstrumentState::Open);
        }
        let account = feed.account_of(order);
        self.live.insert(
            order,
            Live {
                instrument,
                account,
                side,
                price,
                open: quantity,
            },
        );
        let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
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

    /// The order of a message that takes some of it.
    fn taken(&mut self, message: &Message, quantity: u64) -> Option<Live> {
        let order = message.number(11, 8);
        let live = self.live.get_mut(&order)?;
        live.open = live.open.saturating_sub(quantity);
        let taken = *live;
        if taken.open == 0 {
            self.live.remove(&order);
        }
        Some(taken)
    }

    fn replace(&mut self, time: u64, message: &Message, feed: &mut Feed) -> Result<(), Problem> {
        let (order, new_order) = (message.number(11, 8), message.number(19, 8));
        let quantity = message.number(27, 4);
        let price = message.price(31)?;
        let Some(live) = self.live.remove(&order) else {
            feed.skip(Reason::OrderBeforeFile);
            return Ok(());
        };
        let account = live.account;
        self.live.insert(
            new_order,
            Live {
                price,
                open: quantity,
                ..live
            },
        );
        let replace = ReplaceOrder {
            order,
            new_order,
            price,
            quantity,
            account,
            spare: 0,
        };
        feed.push(time, &replace);
        Ok(())
    }
}

fn message_value(field: &'static str, byte: u8) -> Problem {
    Problem::Value {
        field,
        found: char::from(byte).escape_default().to_string(),
    }
}

/// One message; fields by their place behind the prefix, as the specification counts.
struct Message {
    bytes: [u8; MESSAGE_BYTES_MAX],
    at: At,
}

impl Message {
    const fn byte(&self, place: usize) -> u8 {
        self.bytes[2 + place]
    }

    const fn kind(&self) -> u8 {
        self.byte(0)
    }

    /// A big-endian number of up to eight bytes.
    fn number(&self, place: usize, length: usize) -> u64 {
        let bytes = &self.bytes[2 + place..2 + place + length];
        bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn time(&self) -> u64 {
        self.number(5, 6)
    }

    fn price(&self, place: usize) -> Result<i64, Problem> {
        match self.number(place, 4).cast_signed() {
            0 => Err(Problem::Value {
                field: "price",
                found: "0".into(),
            }),
            price => Ok(price),
        }
    }

    fn symbol(&self, place: usize) -> [u8; 8] {
        let mut symbol = [0; 8];
        symbol.copy_from_slice(&self.bytes[2 + place..10 + place]);
        symbol
    }
}

impl<R: BufRead + fmt::Debug> Source for Itch<R> {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        let message = self.message();
        if !matches!(message, Ok(None)) {
            feed.row();
        }
        let Some(message) = message? else {
            return Ok(false);
        };
        let applied = self.apply(&message, feed);
        applied.map_err(|problem| LoadError::new(message.at, problem))?;
        Ok(true)
    }
}

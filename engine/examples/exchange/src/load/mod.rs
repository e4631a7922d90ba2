//! Order flow in the formats in which users have it, as a stream of events.
//!
//! ```text
//!   file ─► unpack (gz, xz by their first bytes) ─► format ─► Feed ─► Iterator<Result<Event, LoadError>>
//!                                                      │
//!                                                      └─► Summary: rows, events, skipped by reason, bad rows
//! ```
//!
//! | format | module |
//! |---|---|
//! | LOBSTER message CSV | [`lobster`] |
//! | NASDAQ ITCH 5.0, binary | [`itch`] |
//! | Databento DBN, schema MBO | `dbn` (feature `dbn`) |
//! | Bitstamp-style level 3 CSV | [`bitstamp`] |
//! | none: made up from a seed | [`generator`] |
//!
//! Such files know orders but no accounts. A loader opens the market first (instruments,
//! accounts with money), spreads the orders over accounts by their number, and sends what
//! trades from account 0, which no resting order belongs to. A row that means nothing to
//! a book is skipped, with a reason; a row that cannot be read is bad: it is counted, and
//! kept with its line or offset in the summary, or stops the stream, as [`OnBad`] says.

pub mod bitstamp;
#[cfg(feature = "dbn")]
pub mod dbn;
pub mod generator;
pub mod itch;
pub mod lobster;

mod feed;
mod files;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::event::Event;
use crate::price::DecimalError;

pub use feed::Feed;
pub use files::{AnyLoader, Format, OpenError, Unpacked, open, unpack};
pub(crate) use text::{Lines, at_least, decimal, whole};

/// What happens at a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// It is counted, the first ones are kept in the summary, and the stream goes on.
    Skip,
    /// The stream yields it as its error, and ends.
    #[default]
    Stop,
}

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// What happens at a row that cannot be read.
    pub on_bad: OnBad,
    /// Over how many accounts the orders are spread: numbers 1 to this.
    pub accounts: u32,
    /// The first instrument's number, for formats that name none.
    pub instrument: u32,
    /// The instrument's name, for formats that name none.
    pub symbol: [u8; 8],
    /// Midnight of the file's day in nanoseconds since 1970, for formats that count from
    /// midnight.
    pub midnight: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            on_bad: OnBad::Stop,
            accounts: 16,
            instrument: 0,
            symbol: *b"LOADED  ",
            midnight: 0,
        }
    }
}

/// Why a row gave no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// It is about an order that was there before the file began.
    OrderBeforeFile,
    /// An execution against a hidden order: no order of the book took part.
    HiddenExecution,
    /// A trading halt or resumption of a format whose halts name no instrument.
    Halt,
    /// An auction: no order of the book took part one by one.
    CrossTrade,
    /// A trade that does not change the book.
    TradeWithoutBook,
    /// A message about something else than orders.
    NotAboutOrders,
    /// A trade or fill whose change of the book follows in rows of its own.
    BookFollows,
    /// An order without quantity.
    NoQuantity,
    /// A change that leaves the order as it is.
    NoChange,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OrderBeforeFile => "order from before the file",
            Self::HiddenExecution => "execution of a hidden order",
            Self::Halt => "halt",
            Self::CrossTrade => "auction",
            Self::TradeWithoutBook => "trade that does not change the book",
            Self::NotAboutOrders => "not about orders",
            Self::BookFollows => "trade whose change of the book follows",
            Self::NoQuantity => "order without quantity",
            Self::NoChange => "change that changes nothing",
        })
    }
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The line, from 1.
    Line(u64),
    /// Bytes from the start of the unpacked file.
    Offset(u64),
    /// The record, from 1.
    Record(u64),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Record(record) => write!(f, "record {record}"),
        }
    }
}

/// What is wrong with a row or a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Reading failed.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// Too few or too many fields.
    #[error("expected {expected} fields, found {found}")]
    Fields {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A header without a column that is needed.
    #[error("the header has no column '{0}'")]
    Column(&'static str),
    /// A field that is no number.
    #[error("field '{field}': expected a whole number, found '{found}'")]
    NotANumber {
        /// Which field.
        field: &'static str,
        /// Its text.
        found: String,
    },
    /// A decimal field that cannot be read exactly.
    #[error("field '{field}': '{found}': {source}")]
    Decimal {
        /// Which field.
        field: &'static str,
        /// Its text.
        found: String,
        /// Why.
        source: DecimalError,
    },
    /// A field with a value that it cannot have.
    #[error("field '{field}' cannot be '{found}'")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// A kind of message that the format does not have; its length is not known either.
    #[error("message type {0:#04x} is not one of ITCH 5.0")]
    MessageType(u8),
    /// A length that its message type does not have.
    #[error("a message of type '{kind}' has {expected} bytes, its prefix says {found}")]
    MessageLength {
        /// The type.
        kind: char,
        /// Its length in the format.
        expected: u16,
        /// What the file says.
        found: u16,
    },
    /// The file ends within a message.
    #[error("the file ends within a message: {missing} bytes are missing")]
    Truncated {
        /// How many.
        missing: usize,
    },
    /// The decoder of the format says no.
    #[error("not readable as DBN: {0}")]
    Decoder(String),
    /// The format of a file cannot be told from its name.
    #[error(
        "the format cannot be told from the name: expected .dbn, .itch, '…message…csv', \
         '…orders…csv' or '…ITCH…'; say which it is"
    )]
    UnknownFormat,
    /// The program was built without a format.
    #[error("built without the feature '{0}', which this format needs")]
    NotBuilt(&'static str),
}

/// A row that cannot be read: where, and why.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct LoadError {
    /// Where.
    pub at: At,
    /// Why.
    #[source]
    pub problem: Problem,
}

impl LoadError {
    pub(crate) fn new(at: At, problem: impl Into<Problem>) -> Self {
        Self {
            at,
            problem: problem.into(),
        }
    }

    /// Whether the rows after it can be found.
    const fn can_go_on(&self) -> bool {
        !matches!(
            self.problem,
            Problem::Io(_)
                | Problem::MessageType(_)
                | Problem::Truncated { .. }
                | Problem::Column(_)
                | Problem::Decoder(_)
        )
    }
}

/// What a loader has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows or messages.
    pub rows: u64,
    /// Events made of them, with those that open the market.
    pub events: u64,
    /// Rows that gave none, by reason.
    pub skipped: BTreeMap<Reason, u64>,
    /// Rows that could not be read.
    pub bad: u64,
    /// The first of those, as text.
    pub first_bad: Vec<String>,
}

impl Summary {
    /// How many bad rows are kept as text.
    pub const FIRST_BAD_MAX: usize = 10;
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} events", self.rows, self.events)?;
        for (reason, count) in &self.skipped {
            write!(f, "; skipped {count}: {reason}")?;
        }
        if self.bad > 0 {
            write!(
                f,
                "; {} bad rows, the first: {}",
                self.bad,
                self.first_bad.join("; ")
            )?;
        }
        Ok(())
    }
}

/// A format: reads one row at a time.
pub trait Source: fmt::Debug {
    /// Reads the next row and writes what it means into the feed; `false` at the end.
    ///
    /// # Errors
    ///
    /// The row cannot be read. The next call goes on behind it, where that is possible.
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError>;
}

/// A file as a stream of events.
///
/// ```
/// use lockstep_exchange::load::{Loader, OnBad, Options, lobster::Lobster};
///
/// let file = "34200.1,1,7,100,5853300,1\nnonsense\n34200.2,3,7,100,5853300,1\n";
/// let options = Options { on_bad: OnBad::Skip, accounts: 1, ..Default::default() };
/// let mut loader = Loader::new(Lobster::new(file.as_bytes()), options);
/// let events = loader.by_ref().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(loader.summary().rows, 3);
/// assert_eq!(loader.summary().first_bad, ["line 2: expected 6 fields, found 1"]);
/// // Two accounts of two events each, the instrument of two, the order, its end.
/// assert_eq!(events.len(), 8);
/// # Ok::<(), lockstep_exchange::load::LoadError>(())
/// ```
#[derive(Debug)]
pub struct Loader<S> {
    source: S,
    feed: Feed,
    ended: bool,
}

impl<S: Source> Loader<S> {
    /// A stream of what `source` reads.
    pub fn new(source: S, options: Options) -> Self {
        Self {
            source,
            feed: Feed::new(options),
            ended: false,
        }
    }

    /// What has been read so far.
    pub const fn summary(&self) -> &Summary {
        &self.feed.summary
    }
}

impl<S: Source> Iterator for Loader<S> {
    type Item = Result<Event, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.feed.waiting.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            match self.source.read(&mut self.feed) {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    let summary = &mut self.feed.summary;
                    summary.bad += 1;
                    if summary.first_bad.len() < Summary::FIRST_BAD_MAX {
                        summary.first_bad.push(error.to_string());
                    }
                    if self.feed.options.on_bad == OnBad::Stop || !error.can_go_on() {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        (**self).read(feed)
    }
}

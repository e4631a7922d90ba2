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

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::event::{
    AddAccount, AddInstrument, AdjustBalance, Body, CancelOrder, Event, InstrumentState, NewOrder,
    ReduceOrder, SetInstrumentState, Side, TimeInForce,
};
use crate::price::{DecimalError, MONEY_MAX};

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

/// What a format writes its events into.
#[derive(Debug)]
pub struct Feed {
    options: Options,
    summary: Summary,
    waiting: VecDeque<Event>,
    request: u32,
    takers: u64,
}

/// Orders of account 0 have numbers from here on; none of them rests.
const TAKER_ORDERS: u64 = 1 << 63;

impl Feed {
    fn new(options: Options) -> Self {
        let summary = Summary::default();
        Self {
            options,
            summary,
            waiting: VecDeque::new(),
            request: 0,
            takers: 0,
        }
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn push<B: Body>(&mut self, time: u64, body: &B) {
        self.request = self.request.wrapping_add(1);
        self.waiting
            .push_back(Event::new(time, 0, self.request, body));
        self.summary.events += 1;
    }

    pub(crate) fn skip(&mut self, reason: Reason) {
        *self.summary.skipped.entry(reason).or_default() += 1;
    }

    pub(crate) const fn row(&mut self) {
        self.summary.rows += 1;
    }

    /// Opens the accounts, each with an equal share of all the money there may be.
    pub(crate) fn open_accounts(&mut self, time: u64) {
        let amount = MONEY_MAX / (i64::from(self.options.accounts) + 1);
        for account in 0..=self.options.accounts {
            self.push(
                time,
                &AddAccount {
                    account,
                    ..Default::default()
                },
            );
            let money = AdjustBalance {
                amount,
                transaction: 1,
                account,
                ..Default::default()
            };
            self.push(time, &money);
        }
    }

    pub(crate) fn add_instrument(&mut self, time: u64, instrument: u32, symbol: [u8; 8]) {
        let added = AddInstrument {
            symbol,
            tick: 1,
            lot: 1,
            instrument,
            ..Default::default()
        };
        self.push(time, &added);
    }

    pub(crate) fn set_state(&mut self, time: u64, instrument: u32, state: InstrumentState) {
        let state = state as u8;
        self.push(
            time,
            &SetInstrumentState {
                instrument,
                state,
                ..Default::default()
            },
        );
    }

    /// The account of an order that the file names by number.
    pub(crate) fn account_of(&self, order: u64) -> u32 {
        let mixed = (order ^ (order >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let account = mixed % u64::from(self.options.accounts.max(1));
        u32::try_from(account).expect("less than a 32-bit number of accounts") + 1
    }

    /// Takes what an execution took: an order of account 0 from the other side.
    pub(crate) fn take(
        &mut self,
        time: u64,
        instrument: u32,
        resting: Side,
        price: i64,
        quantity: u64,
    ) {
        self.takers += 1;
        let order = TAKER_ORDERS | self.takers;
        let ioc = NewOrder::limit(resting.opposite(), TimeInForce::ImmediateOrCancel);
        self.push(
            time,
            &NewOrder {
                price,
                quantity,
                order,
                instrument,
                account: 0,
                ..ioc
            },
        );
    }

    pub(crate) fn cancel(&mut self, time: u64, account: u32, order: u64) {
        self.push(
            time,
            &CancelOrder {
                order,
                account,
                ..Default::default()
            },
        );
    }

    pub(crate) fn reduce(&mut self, time: u64, account: u32, order: u64, by: u64) {
        self.push(
            time,
            &ReduceOrder {
                order,
                by,
                account,
                ..Default::default()
            },
        );
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

/// The formats that [`open`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// LOBSTER message CSV.
    Lobster,
    /// NASDAQ ITCH 5.0, binary.
    Itch,
    /// Databento DBN, schema MBO.
    Dbn,
    /// Bitstamp-style level 3 CSV.
    Bitstamp,
}

impl Format {
    /// The format of a file, by its name.
    ///
    /// ```
    /// use lockstep_exchange::load::Format;
    /// assert_eq!(Format::of("AAPL_2012_message_10.csv".as_ref()), Some(Format::Lobster));
    /// assert_eq!(Format::of("01302019.NASDAQ_ITCH50.gz".as_ref()), Some(Format::Itch));
    /// assert_eq!(Format::of("x.mbo.dbn.zst".as_ref()), Some(Format::Dbn));
    /// assert_eq!(Format::of("orders.csv.xz".as_ref()), Some(Format::Bitstamp));
    /// assert_eq!(Format::of("letter.txt".as_ref()), None);
    /// ```
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        if name.ends_with(".dbn") || name.ends_with(".dbn.zst") {
            Some(Self::Dbn)
        } else if name.contains("itch") {
            Some(Self::Itch)
        } else if name.contains(".csv") && name.contains("message") {
            Some(Self::Lobster)
        } else if name.contains(".csv") && name.contains("orders") {
            Some(Self::Bitstamp)
        } else {
            None
        }
    }
}

/// Any of the formats, chosen while the program runs.
pub type AnyLoader = Loader<Box<dyn Source + Send>>;

/// A file could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {}: {problem}", path.display())]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// Opens a file in a format, or in that which its name tells.
///
/// # Errors
///
/// The file cannot be opened, or its format is not known or not built in.
pub fn open(path: &Path, format: Option<Format>, options: Options) -> Result<AnyLoader, OpenError> {
    open_source(path, format)
        .map(|source| Loader::new(source, options))
        .map_err(|problem| OpenError {
            path: path.to_owned(),
            problem,
        })
}

fn open_source(path: &Path, format: Option<Format>) -> Result<Box<dyn Source + Send>, Problem> {
    // First: of a file that is not there, its format is not what is wrong.
    let file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let format = format
        .or_else(|| Format::of(path))
        .ok_or(Problem::UnknownFormat)?;
    Ok(match format {
        Format::Lobster => Box::new(lobster::Lobster::new(unpack(file)?)),
        Format::Itch => Box::new(itch::Itch::new(unpack(file)?)),
        Format::Bitstamp => Box::new(bitstamp::Bitstamp::new(unpack(file)?)),
        #[cfg(feature = "dbn")]
        Format::Dbn => Box::new(dbn::Dbn::new(file)?),
        #[cfg(not(feature = "dbn"))]
        Format::Dbn => return Err(Problem::NotBuilt("dbn")),
    })
}

/// What [`unpack`] reads from.
pub struct Unpacked(Box<dyn BufRead + Send>);

impl fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacked")
    }
}

impl Read for Unpacked {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

/// Reads through gzip or xz, where the first bytes say so.
///
/// # Errors
///
/// Reading fails.
pub fn unpack<R: BufRead + Send + 'static>(mut reader: R) -> io::Result<Unpacked> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
    let first = reader.fill_buf()?;
    if first.starts_with(GZIP) {
        let unpacked = flate2::bufread::MultiGzDecoder::new(reader);
        return Ok(Unpacked(Box::new(BufReader::with_capacity(
            1 << 16,
            unpacked,
        ))));
    }
    if first.starts_with(XZ) {
        let unpacked = lzma_rust2::XzReader::new(reader, true);
        return Ok(Unpacked(Box::new(BufReader::with_capacity(
            1 << 16,
            unpacked,
        ))));
    }
    Ok(Unpacked(Box::new(reader)))
}

/// Lines of a text, counted; one buffer for all of them.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    line: String,
    number: u64,
}

/// No line of these formats is longer.
const LINE_BYTES_MAX: u64 = 4_096;

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(reader: R) -> Self {
        Self {
            reader,
            line: String::new(),
            number: 0,
        }
    }

    pub(crate) const fn at(&self) -> At {
        At::Line(self.number)
    }

    /// The next line without its end; `None` at the end of the text.
    pub(crate) fn next(&mut self) -> Result<Option<&str>, LoadError> {
        self.line.clear();
        self.number += 1;
        let mut bytes = std::mem::take(&mut self.line).into_bytes();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| LoadError::new(At::Line(self.number), error))?;
        if read == 0 {
            return Ok(None);
        }
        self.line = String::from_utf8(bytes).map_err(|_| {
            let value = Problem::Value {
                field: "line",
                found: "bytes that are no text".into(),
            };
            LoadError::new(At::Line(self.number), value)
        })?;
        Ok(Some(self.line.trim_end_matches(['\n', '\r'])))
    }
}

pub(crate) fn whole<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Problem> {
    let found = || Problem::NotANumber {
        field,
        found: text.to_owned(),
    };
    text.trim().parse().map_err(|_| found())
}

pub(crate) fn decimal(field: &'static str, text: &str, decimals: u32) -> Result<i64, Problem> {
    let found = |source| Problem::Decimal {
        field,
        found: text.to_owned(),
        source,
    };
    crate::price::parse_decimal(text.trim(), decimals).map_err(found)
}

/// A price or time that is at least `least`.
pub(crate) fn at_least(field: &'static str, value: i64, least: i64) -> Result<i64, Problem> {
    if value >= least {
        return Ok(value);
    }
    Err(Problem::Value {
        field,
        found: value.to_string(),
    })
}

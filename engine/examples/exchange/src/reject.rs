//! Why an event is refused: stable numbers, one sentence each.
//!
//! A refusal is an output, not an error: the state before and after it is the same. The
//! numbers are for ever; `docs/EXCHANGE.md` lists them, and a test compares the two.

use std::fmt;

/// A refusal: its number, and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// The order, bound or transaction that it is about, by code; else 0.
    pub detail: i64,
}

impl Reject {
    /// A refusal with what it is about.
    #[must_use]
    #[inline]
    pub const fn new(code: RejectCode, detail: i64) -> Self {
        Self { code, detail }
    }
}

impl From<RejectCode> for Reject {
    #[inline]
    fn from(code: RejectCode) -> Self {
        Self { code, detail: 0 }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "refused, code {}: {}",
            self.code as u16,
            self.code.meaning()
        )?;
        if self.detail == 0 {
            Ok(())
        } else {
            write!(f, " ({})", self.detail)
        }
    }
}

impl std::error::Error for Reject {}

macro_rules! codes {
    ($( $name:ident = $number:literal, $meaning:literal; )*) => {
        /// The numbers of refusals. They are for ever.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum RejectCode { $( #[doc = $meaning] $name = $number, )* }

        impl RejectCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The code of this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$name => $meaning, )* }
            }
        }
    };
}

codes! {
    UnknownKind = 1, "kind or version of the event is not known here";
    Malformed = 2, "a field has a value that it cannot have, or spare bytes are not zero";
    NotOperator = 3, "only the operator (session 0) may do this";
    SessionUnknown = 4, "the session is not open";
    SessionExists = 5, "the session is open already";
    NotYourAccount = 6, "the session acts for another account (detail: that account)";
    ExchangeFull = 7, "a table of the exchange is full (detail: its bound)";
    TimeBackwards = 8, "the tick is older than the last one (detail: the time of the last)";
    UnknownAccount = 16, "no such account";
    AccountExists = 17, "the account exists already";
    AccountSuspended = 18, "the account is suspended";
    AccountOutOfRange = 19, "the number of the account is not below the bound (detail: the bound)";
    TransactionRepeated = 20, "the transaction is not newer than the last one (detail: the last)";
    BalanceTooSmall = 21, "the account has not enough free balance (detail: what is free)";
    AmountTooLarge = 22, "the amount is zero, or all money together would exceed the bound";
    LimitInvalid = 23, "a limit is negative or above the bound of the exchange (detail: the bound)";
    RateLimit = 24, "too many orders in this second (detail: the limit)";
    UnknownInstrument = 32, "no such instrument";
    InstrumentExists = 33, "the instrument exists already";
    InstrumentOutOfRange = 34, "the number of the instrument is not below the bound (detail: the bound)";
    InstrumentNotOpen = 35, "the instrument is not open";
    InstrumentInvalid = 36, "tick, lot or fee of the instrument is out of bounds";
    CollarInvalid = 37, "the collar is empty or out of bounds";
    UnknownOrder = 48, "no such live order";
    DuplicateOrder = 49, "the account has a live order of this number";
    QuantityInvalid = 50, "the quantity is zero, above the bound or no multiple of the lot (detail: the lot)";
    PriceInvalid = 51, "the price is out of bounds or no multiple of the tick (detail: the tick)";
    OutsideCollar = 52, "the price is outside the collar (detail: its nearest bound)";
    QuantityLimit = 53, "the quantity exceeds the account's limit (detail: the limit)";
    NotionalLimit = 54, "price times quantity exceeds the limit (detail: the limit)";
    PositionLimit = 55, "the position could exceed the account's limit (detail: the limit)";
    PostOnlyWouldTrade = 56, "a post-only order would trade at once (detail: the price it would meet)";
    NoOtherSide = 57, "a market order meets nothing within the collar";
    BookFull = 58, "the books hold as many orders as they can (detail: the bound)";
    LifetimeInvalid = 59, "a lifetime goes with good-till-time, and only with it";
}

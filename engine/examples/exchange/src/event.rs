//! What goes in: 64-byte events of one fixed layout, in ring, journal and wire.
//!
//! ```text
//!  0        8         16        20     22       24                          64
//!  ├────────┼─────────┼─────────┼──────┼────────┼───────────────────────────┤
//!  │ time   │ session │ request │ kind │ version│ body of that kind, 40 B   │
//!  └────────┴─────────┴─────────┴──────┴────────┴───────────────────────────┘
//! ```
//!
//! Little-endian, 8-byte aligned. A body is read through [`Event::view`]: an enum of
//! references into the slot, no copy. The position of an event is implied by where it
//! lies in the log.
//!
//! # Invariants
//!
//! * `E1` An event is 64 bytes, a header 24, every body 40; none has padding.
//! * `E2` A number of a kind is never reused for another meaning.
//! * `E3` Bytes that a body does not use are zero (checked by the risk rules).
//!
//! ```
//! use lockstep_exchange::event::{Event, NewOrder, OrderType, Side, TimeInForce, View};
//!
//! let order = NewOrder {
//!     price: 100_25, quantity: 10, order: 1, instrument: 3, account: 7,
//!     ..NewOrder::limit(Side::Buy, TimeInForce::GoodTillCancel)
//! };
//! let event = Event::new(1_000, 0, 1, &order);
//! assert_eq!(event.view(), Some(View::NewOrder(&order)));
//! assert_eq!(OrderType::from_byte(order.order_type), Some(OrderType::Limit));
//! ```

use bytemuck::{Pod, Zeroable};

/// The version of the layouts in this file.
pub const VERSION: u16 = 1;

/// What every event begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// Nanoseconds since 1970, as the log says; the logic knows no other clock.
    pub time: u64,
    /// The client session; 0 is the operator, who may act for any account.
    pub session: u64,
    /// The client's number of this request.
    pub request: u32,
    /// A [`Kind`].
    pub kind: u16,
    /// The version of the body's layout: [`VERSION`].
    pub version: u16,
}

/// One slot: header and body.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// Time, session, request, kind, version.
    pub header: Header,
    /// The body's bytes; read them through [`Event::view`].
    pub body: [u64; 5],
}

/// A body of one kind of event.
pub trait Body: Pod {
    /// The kind whose body this is.
    const KIND: Kind;
}

impl Event {
    /// An event with this body, in the current version.
    #[must_use]
    pub fn new<B: Body>(time: u64, session: u64, request: u32, body: &B) -> Self {
        let header = Header {
            time,
            session,
            request,
            kind: B::KIND as u16,
            version: VERSION,
        };
        let mut event = Self {
            header,
            body: [0; 5],
        };
        event.write(body);
        event
    }

    /// Writes body and kind in place.
    ///
    /// # Panics
    ///
    /// If `B` is not 40 bytes; every body of this module is (`E1`).
    pub fn write<B: Body>(&mut self, body: &B) {
        self.header.kind = B::KIND as u16;
        self.header.version = VERSION;
        bytemuck::bytes_of_mut(&mut self.body).copy_from_slice(bytemuck::bytes_of(body));
    }

    /// The kind, if this version knows it.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.header.kind)
    }
}

macro_rules! kinds {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, )*) => {
        /// What an event means. The numbers are for ever (`E2`).
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $( $(#[$doc])* $name = $number, )* }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The kind of this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }

            /// Its name in documents, exports and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }
        }

        /// The body of an event as what it is: references into the slot.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum View<'a> { $( $(#[$doc])* $name(&'a $name), )* }

        impl Event {
            /// The typed body, or `None` where kind or version is unknown.
            #[must_use]
            #[inline]
            pub fn view(&self) -> Option<View<'_>> {
                if self.header.version != VERSION {
                    return None;
                }
                match self.header.kind {
                    $( $number => Some(View::$name(bytemuck::must_cast_ref(&self.body))), )*
                    _ => None,
                }
            }
        }

        $(
            impl Body for $name { const KIND: Kind = Kind::$name; }
            const _: () = assert!(size_of::<$name>() == 40, "E1: a body is 40 bytes");
            const _: () = assert!(align_of::<$name>() <= 8, "E1: a slot is 8-byte aligned");
        )*
    };
}

kinds! {
    /// A new order.
    NewOrder = 1,
    /// Take an order out of the book.
    CancelOrder = 2,
    /// Give an order another price, quantity and number.
    ReplaceOrder = 3,
    /// Take quantity off an order, which keeps its priority.
    ReduceOrder = 4,
    /// Take all orders of an account out of the book.
    MassCancel = 5,
    /// A new account.
    AddAccount = 16,
    /// Money in or out.
    AdjustBalance = 17,
    /// An account may only cancel from here on.
    SuspendAccount = 18,
    /// An account may trade again.
    ResumeAccount = 19,
    /// How much an account may do.
    SetRiskLimit = 20,
    /// A new instrument, closed until it is opened.
    AddInstrument = 32,
    /// Open, halt, close.
    SetInstrumentState = 33,
    /// Between which prices orders are taken.
    SetPriceCollar = 34,
    /// A client session begins to act for an account.
    SessionOpen = 48,
    /// A client session ends.
    SessionClose = 49,
    /// The log's time has come so far: orders expire.
    Tick = 64,
}

const _: () = assert!(size_of::<Header>() == 24, "E1: a header is 24 bytes");
const _: () = assert!(size_of::<Event>() == 64, "E1: an event is 64 bytes");

macro_rules! bytes {
    ($(#[$outer:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $number:literal, )* }) => {
        $(#[$outer])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$doc])* $variant = $number, )* }

        impl $name {
            /// The value of this byte, if it has one.
            #[must_use]
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $( $number => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

bytes! {
    /// Which side of the book.
    Side {
        /// A bid.
        Buy = 1,
        /// An ask.
        Sell = 2,
    }
}

impl Side {
    /// The other side.
    #[must_use]
    #[inline]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

bytes! {
    /// How an order is priced.
    OrderType {
        /// At its price or better.
        Limit = 1,
        /// At the best prices there are; never rests.
        Market = 2,
    }
}

bytes! {
    /// How long an order stays.
    TimeInForce {
        /// Until it is filled or canceled.
        GoodTillCancel = 1,
        /// Until its instrument is closed.
        Day = 2,
        /// What cannot be filled at once is canceled.
        ImmediateOrCancel = 3,
        /// Filled whole at once, or not at all.
        FillOrKill = 4,
        /// Until the first tick at or after its time.
        GoodTillTime = 5,
    }
}

bytes! {
    /// What happens when an account would trade with itself.
    SelfTrade {
        /// It may.
        Allow = 0,
        /// The order that comes in loses its rest.
        CancelNewest = 1,
        /// The order in the book is canceled.
        CancelOldest = 2,
        /// Both.
        CancelBoth = 3,
    }
}

bytes! {
    /// What an instrument lets happen.
    InstrumentState {
        /// Orders are matched.
        Open = 1,
        /// No new orders; cancels are taken.
        Halted = 2,
        /// As halted; closing cancels the orders for the day.
        Closed = 3,
    }
}

/// [`NewOrder::flags`]: refuse the order rather than let it trade at once.
pub const FLAG_POST_ONLY: u8 = 1;
/// [`NewOrder::flags`]: where the [`SelfTrade`] mode begins (two bits).
pub const FLAG_SELF_TRADE_SHIFT: u32 = 4;
/// All bits that [`NewOrder::flags`] may have.
pub(crate) const FLAGS_KNOWN: u8 = FLAG_POST_ONLY | (3 << FLAG_SELF_TRADE_SHIFT);

/// A new order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct NewOrder {
    /// In ticks of the instrument's smallest price; 0 for a market order.
    pub price: i64,
    /// How much; at least 1.
    pub quantity: u64,
    /// The account's own number of the order, unique among its live orders.
    pub order: u64,
    /// What is traded.
    pub instrument: u32,
    /// For whom.
    pub account: u32,
    /// A [`Side`].
    pub side: u8,
    /// An [`OrderType`].
    pub order_type: u8,
    /// A [`TimeInForce`].
    pub time_in_force: u8,
    /// [`FLAG_POST_ONLY`] and the [`SelfTrade`] mode.
    pub flags: u8,
    /// For [`TimeInForce::GoodTillTime`]: milliseconds from the event's time; else 0.
    pub lifetime_ms: u32,
}

impl NewOrder {
    /// A limit order to fill in: `..NewOrder::limit(side, time_in_force)`.
    #[must_use]
    pub const fn limit(side: Side, time_in_force: TimeInForce) -> Self {
        Self {
            price: 0,
            quantity: 0,
            order: 0,
            instrument: 0,
            account: 0,
            side: side as u8,
            order_type: OrderType::Limit as u8,
            time_in_force: time_in_force as u8,
            flags: 0,
            lifetime_ms: 0,
        }
    }

    /// A market order to fill in.
    #[must_use]
    pub const fn market(side: Side) -> Self {
        let mut order = Self::limit(side, TimeInForce::ImmediateOrCancel);
        order.order_type = OrderType::Market as u8;
        order
    }

    /// The self-trade mode in the flags.
    #[must_use]
    pub const fn self_trade(&self) -> SelfTrade {
        match (self.flags >> FLAG_SELF_TRADE_SHIFT) & 3 {
            1 => SelfTrade::CancelNewest,
            2 => SelfTrade::CancelOldest,
            3 => SelfTrade::CancelBoth,
            _ => SelfTrade::Allow,
        }
    }
}

/// Take an order out of the book.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CancelOrder {
    /// The account's number of the order.
    pub order: u64,
    /// Whose order.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 7],
}

/// Give an order another price, quantity and number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReplaceOrder {
    /// The order as it is called so far.
    pub order: u64,
    /// What it is called from here on; may be the same.
    pub new_order: u64,
    /// The new price.
    pub price: i64,
    /// The new open quantity, at least 1.
    pub quantity: u64,
    /// Whose order.
    pub account: u32,
    /// Zero.
    pub spare: u32,
}

/// Take quantity off an order, which keeps its priority.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReduceOrder {
    /// The account's number of the order.
    pub order: u64,
    /// By how much; all of it or more cancels the order.
    pub by: u64,
    /// Whose order.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 5],
}

/// Take all orders of an account out of the book.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct MassCancel {
    /// Whose orders.
    pub account: u32,
    /// In which instrument; read only where `scope` has [`MassCancel::ONE_INSTRUMENT`].
    pub instrument: u32,
    /// A [`Side`], or 0 for both.
    pub side: u8,
    /// 0, or [`MassCancel::ONE_INSTRUMENT`].
    pub scope: u8,
    /// Zero.
    pub spare: [u8; 6],
    /// Zero.
    pub spare_words: [u64; 3],
}

impl MassCancel {
    /// [`MassCancel::scope`]: only in one instrument.
    pub const ONE_INSTRUMENT: u8 = 1;
}

/// A new account.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct AddAccount {
    /// Its number, below the exchange's bound.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 9],
}

/// Money in or out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct AdjustBalance {
    /// Plus pays in, minus pays out.
    pub amount: i64,
    /// Greater than that of the account's last adjustment: a repeat is refused.
    pub transaction: u64,
    /// Whose money.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 5],
}

/// An account may only cancel from here on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SuspendAccount {
    /// Which account.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 9],
}

/// An account may trade again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ResumeAccount {
    /// Which account.
    pub account: u32,
    /// Zero.
    pub spare: [u32; 9],
}

/// How much an account may do; 0 in a field is the exchange's own bound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SetRiskLimit {
    /// Greatest quantity of one order.
    pub quantity_max: u64,
    /// Greatest price times quantity of one order.
    pub notional_max: i64,
    /// Greatest position, long or short, if all open orders of a side were filled.
    pub position_max: i64,
    /// Greatest number of new and replaced orders in one second of the log's time.
    pub orders_per_second_max: u32,
    /// Whose limits.
    pub account: u32,
    /// Zero.
    pub spare: u64,
}

/// A new instrument, closed until it is opened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct AddInstrument {
    /// Its name, padded with zeros or spaces.
    pub symbol: [u8; 8],
    /// Prices are multiples of it, at least 1.
    pub tick: i64,
    /// Quantities are multiples of it, at least 1.
    pub lot: u64,
    /// Its number, below the exchange's bound.
    pub instrument: u32,
    /// Fee of the order that was in the book, in millionths of price times quantity.
    pub maker_fee_ppm: u32,
    /// Fee of the order that came in.
    pub taker_fee_ppm: u32,
    /// Zero.
    pub spare: u32,
}

/// Open, halt, close.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SetInstrumentState {
    /// Which instrument.
    pub instrument: u32,
    /// An [`InstrumentState`].
    pub state: u8,
    /// Zero.
    pub spare: [u8; 3],
    /// Zero.
    pub spare_words: [u64; 4],
}

/// Between which prices orders are taken; orders that are in the book stay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SetPriceCollar {
    /// Lowest price that is taken.
    pub low: i64,
    /// Highest price that is taken.
    pub high: i64,
    /// Which instrument.
    pub instrument: u32,
    /// Zero.
    pub spare: [u32; 5],
}

/// A client session (that of the header) begins to act for an account.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionOpen {
    /// For whom it acts.
    pub account: u32,
    /// 1: the account's orders are canceled when its last session closes.
    pub cancel_on_close: u8,
    /// Zero.
    pub spare: [u8; 3],
    /// Zero.
    pub spare_words: [u64; 4],
}

/// A client session (that of the header) ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionClose {
    /// Zero.
    pub spare: [u64; 5],
}

/// The log's time (that of the header) has come so far: orders expire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tick {
    /// Zero.
    pub spare: [u64; 5],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        for &kind in Kind::ALL {
            assert_eq!(
                Kind::from_number(kind as u16),
                Some(kind),
                "{}",
                kind.name()
            );
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(999), None);
    }

    #[test]
    fn a_view_is_a_reference_into_the_slot() {
        let event = Event::new(
            5,
            6,
            7,
            &CancelOrder {
                order: 9,
                account: 3,
                ..Default::default()
            },
        );
        let Some(View::CancelOrder(cancel)) = event.view() else {
            panic!("kind")
        };
        assert_eq!(cancel.order, 9);
        assert!(std::ptr::eq(
            std::ptr::from_ref(cancel).cast::<u8>(),
            std::ptr::from_ref(&event.body).cast::<u8>()
        ));
    }

    #[test]
    fn another_version_has_no_view() {
        let mut event = Event::new(5, 6, 7, &Tick::default());
        event.header.version = 2;
        assert_eq!(event.view(), None);
    }
}

//! What comes out: 64-byte outputs, written in place into a slot that the caller gives.
//!
//! ```text
//!  0        8          16      20     22        23      24                  64
//!  ├────────┼──────────┼───────┼──────┼─────────┼───────┼───────────────────┤
//!  │ time   │ position │ index │ kind │ version │ flags │ body, 40 B        │
//!  └────────┴──────────┴───────┴──────┴─────────┴───────┴───────────────────┘
//! ```
//!
//! `position` is that of the event that caused it, `index` counts the outputs of one
//! event: the pair names an output for ever. A trade gives two [`Executed`], that of the
//! maker first; the pair of the first one is the number of the match.

use bytemuck::{Pod, Zeroable};

/// The version of the layouts in this file.
pub const VERSION: u8 = 1;

/// What every output begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct OutputHeader {
    /// The time of the event that caused it.
    pub time: u64,
    /// The position of the event that caused it.
    pub position: u64,
    /// How many outputs of the same event went before.
    pub index: u32,
    /// An [`OutputKind`].
    pub kind: u16,
    /// [`VERSION`].
    pub version: u8,
    /// By kind: see the `FLAG_…` of this module.
    pub flags: u8,
}

/// One output.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Output {
    /// Time, position, index, kind, version, flags.
    pub header: OutputHeader,
    /// The body's bytes; read them through [`Output::view`].
    pub body: [u64; 5],
}

const _: () = assert!(size_of::<Output>() == 64, "an output is 64 bytes");

/// [`Executed`]: the order was in the book; without it, it came in.
pub const FLAG_MAKER: u8 = 1;
/// [`Executed`]: nothing of the order is left.
pub const FLAG_FILLED: u8 = 2;
/// [`Replaced`]: the order kept its place in the queue.
pub const FLAG_PRIORITY_KEPT: u8 = 4;

/// Where outputs are written: the next free slot, to be overwritten whole.
///
/// `Vec<Output>` is one for tests and tools.
pub trait OutputSink {
    /// The next slot. Whatever it holds is overwritten.
    fn next_slot(&mut self) -> &mut Output;
}

impl OutputSink for Vec<Output> {
    fn next_slot(&mut self) -> &mut Output {
        self.push(Output::default());
        self.last_mut().expect("pushed in the line above")
    }
}

/// A sink that counts and forgets: one slot, written over and over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard {
    /// How many outputs were written.
    pub outputs: u64,
    /// The last of them.
    pub last: Output,
}

impl OutputSink for Discard {
    #[inline]
    fn next_slot(&mut self) -> &mut Output {
        self.outputs += 1;
        &mut self.last
    }
}

/// A body of one kind of output.
pub trait OutputBody: Pod {
    /// The kind whose body this is.
    const KIND: OutputKind;
}

/// Numbers the outputs of one event and writes them.
#[derive(Debug)]
pub(crate) struct Emitter<'a, S> {
    sink: &'a mut S,
    time: u64,
    position: u64,
    index: u32,
}

impl<'a, S: OutputSink> Emitter<'a, S> {
    pub(crate) const fn new(sink: &'a mut S, time: u64, position: u64) -> Self {
        Self {
            sink,
            time,
            position,
            index: 0,
        }
    }

    /// The index of the next output.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    #[inline]
    pub(crate) fn emit<B: OutputBody>(&mut self, flags: u8, body: &B) {
        let header = OutputHeader {
            time: self.time,
            position: self.position,
            index: self.index,
            kind: B::KIND as u16,
            version: VERSION,
            flags,
        };
        let slot = self.sink.next_slot();
        slot.header = header;
        bytemuck::bytes_of_mut(&mut slot.body).copy_from_slice(bytemuck::bytes_of(body));
        self.index += 1;
    }
}

macro_rules! outputs {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, )*) => {
        /// What an output says. The numbers are for ever.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum OutputKind { $( $(#[$doc])* $name = $number, )* }

        impl OutputKind {
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

        /// The body of an output as what it is: references into the slot.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum OutputView<'a> { $( $(#[$doc])* $name(&'a $name), )* }

        impl Output {
            /// The typed body, or `None` where kind or version is unknown.
            #[must_use]
            pub fn view(&self) -> Option<OutputView<'_>> {
                if self.header.version != VERSION {
                    return None;
                }
                match self.header.kind {
                    $( $number => Some(OutputView::$name(bytemuck::must_cast_ref(&self.body))), )*
                    _ => None,
                }
            }
        }

        $(
            impl OutputBody for $name { const KIND: OutputKind = OutputKind::$name; }
            const _: () = assert!(size_of::<$name>() == 40, "a body is 40 bytes");
            const _: () = assert!(align_of::<$name>() <= 8, "a slot is 8-byte aligned");
        )*
    };
}

outputs! {
    /// An order was taken.
    Accepted = 1,
    /// An event was refused; nothing has changed.
    Rejected = 2,
    /// One side of a trade.
    Executed = 3,
    /// An order, or the rest of it, is gone.
    Canceled = 4,
    /// An order has another price, quantity or number.
    Replaced = 5,
    /// An order has less quantity and its old place.
    Restated = 6,
    /// An account was added, suspended or resumed, or has other limits.
    AccountChanged = 16,
    /// Money came or went.
    BalanceChanged = 17,
    /// An instrument was added, or has another state or collar.
    InstrumentChanged = 32,
    /// A client session was opened or closed.
    SessionChanged = 48,
    /// A tick, or the end of something that took many outputs.
    SystemEvent = 64,
}

/// An order was taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Accepted {
    /// The account's number of the order.
    pub order: u64,
    /// Its limit; of a market order the worst price that it may trade at.
    pub price: i64,
    /// Its quantity.
    pub quantity: u64,
    /// For whom.
    pub account: u32,
    /// What is traded.
    pub instrument: u32,
    /// The number of the request.
    pub request: u32,
    /// As in the event.
    pub side: u8,
    /// As in the event.
    pub order_type: u8,
    /// As in the event.
    pub time_in_force: u8,
    /// As in the event.
    pub order_flags: u8,
}

/// An event was refused; nothing has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rejected {
    /// The session of the event.
    pub session: u64,
    /// What the refusal is about: an order, a limit, a transaction; by code.
    pub detail: i64,
    /// The order that the event named, or 0.
    pub order: u64,
    /// The account that the event named, or 0.
    pub account: u32,
    /// The number of the request.
    pub request: u32,
    /// A [`RejectCode`](crate::reject::RejectCode).
    pub code: u16,
    /// The kind of the event.
    pub event_kind: u16,
    /// Zero.
    pub spare: u32,
}

/// One side of a trade.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Executed {
    /// The account's number of the order.
    pub order: u64,
    /// The maker's price.
    pub price: i64,
    /// How much was traded.
    pub quantity: u64,
    /// Whose order.
    pub account: u32,
    /// What was traded.
    pub instrument: u32,
    /// The index of the first output of this match: with the position its number.
    pub match_index: u32,
    /// The side of this order.
    pub side: u8,
    /// Zero.
    pub spare: [u8; 3],
}

/// An order, or the rest of it, is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Canceled {
    /// The account's number of the order.
    pub order: u64,
    /// Its price.
    pub price: i64,
    /// How much of it was open.
    pub quantity: u64,
    /// Whose order.
    pub account: u32,
    /// In which instrument.
    pub instrument: u32,
    /// The number of the request that caused it.
    pub request: u32,
    /// A [`CancelReason`](crate::book::CancelReason).
    pub reason: u8,
    /// Its side.
    pub side: u8,
    /// Zero.
    pub spare: u16,
}

/// An order has another price, quantity or number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Replaced {
    /// What it was called.
    pub old_order: u64,
    /// What it is called.
    pub order: u64,
    /// Its price.
    pub price: i64,
    /// Its open quantity.
    pub quantity: u64,
    /// Whose order.
    pub account: u32,
    /// In which instrument.
    pub instrument: u32,
}

/// An order has less quantity and its old place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Restated {
    /// The account's number of the order.
    pub order: u64,
    /// Its price.
    pub price: i64,
    /// What is open.
    pub quantity: u64,
    /// What was taken off.
    pub by: u64,
    /// Whose order.
    pub account: u32,
    /// In which instrument.
    pub instrument: u32,
}

/// An account was added, suspended or resumed, or has other limits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct AccountChanged {
    /// Greatest quantity of one order.
    pub quantity_max: u64,
    /// Greatest price times quantity of one order.
    pub notional_max: i64,
    /// Greatest position, long or short.
    pub position_max: i64,
    /// Greatest number of orders in one second.
    pub orders_per_second_max: u32,
    /// Which account.
    pub account: u32,
    /// An [`AccountState`](crate::people::AccountState).
    pub state: u8,
    /// Zero.
    pub spare: [u8; 7],
}

/// Money came or went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BalanceChanged {
    /// The balance after it.
    pub balance: i64,
    /// How much of it is reserved for open orders.
    pub reserved: i64,
    /// What came (plus) or went (minus).
    pub amount: i64,
    /// The number of the transaction.
    pub transaction: u64,
    /// Whose money.
    pub account: u32,
    /// Zero.
    pub spare: u32,
}

/// An instrument was added, or has another state or collar.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct InstrumentChanged {
    /// Its name.
    pub symbol: [u8; 8],
    /// Lowest price that is taken.
    pub low: i64,
    /// Highest price that is taken.
    pub high: i64,
    /// Prices are multiples of it.
    pub tick: i64,
    /// Its number.
    pub instrument: u32,
    /// An [`InstrumentState`](crate::event::InstrumentState).
    pub state: u8,
    /// Zero.
    pub spare: [u8; 3],
}

/// A client session was opened or closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionChanged {
    /// Which session.
    pub session: u64,
    /// For whom it acts.
    pub account: u32,
    /// 1 opened, 0 closed.
    pub open: u8,
    /// Zero.
    pub spare: [u8; 3],
    /// Zero.
    pub spare_words: [u64; 3],
}

/// A tick, or the end of something that took many outputs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SystemEvent {
    /// How many orders it took out of the books.
    pub orders: u64,
    /// The account, of a mass cancel; else 0.
    pub account: u32,
    /// The number of the request.
    pub request: u32,
    /// The kind of the event that caused it.
    pub event_kind: u16,
    /// Zero.
    pub spare: [u16; 3],
    /// Zero.
    pub spare_words: [u64; 2],
}

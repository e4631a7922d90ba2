//! Events and outputs: slots of one fixed layout, the same in ring, journal and wire.
//!
//! ```text
//!  event   0        8         16        20     22        24                       64 or 128
//!          ├────────┼─────────┼─────────┼──────┼─────────┼───────────────────────────┤
//!          │ time   │ session │ request │ kind │ version │ body of that kind, zeros  │
//!          ├────────┼─────────┼─────────┼──────┼────┬────┼───────────────────────────┤
//!  output  │ time   │ position│ index   │ kind │vers│flag│ body of that kind, zeros  │
//!          └────────┴─────────┴─────────┴──────┴────┴────┴───────────────────────────┘
//! ```
//!
//! Little-endian, 8-byte aligned. The position of an event is implied by where it lies in
//! the log; an output names the event that caused it.
//!
//! # Invariants
//!
//! * `E1` A slot is a multiple of 8 bytes, aligned to 8, and its first 24 are the header.
//! * `E2` A body has no padding, fits behind the header, and what it leaves is zero.
//! * `E3` Kinds from [`SYSTEM_KINDS`] on, and kind 0, are the engine's; an application's
//!   kinds lie between.

use std::borrow::Cow;
use std::fmt;

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::schema::{Field, FieldType, Kind, Schema, retyped, shape_of};

/// Bytes of the header of an event, and of an output.
pub const HEADER_BYTES: usize = 24;

/// The first kind that is the engine's own (`E3`).
pub const SYSTEM_KINDS: u16 = 0xff00;

/// What every event begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// Nanoseconds since 1970, as the log says; the logic knows no other clock.
    pub time: u64,
    /// The client session; 0 is nobody's, and is never checked for repeats.
    pub session: u64,
    /// The client's number of this request.
    pub request: u32,
    /// What the event is; 0 is an event that means nothing.
    pub kind: u16,
    /// The version of the body's layout.
    pub version: u16,
}

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
    /// What the output is.
    pub kind: u16,
    /// The version of the body's layout.
    pub version: u8,
    /// Free for the logic.
    pub flags: u8,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES && align_of::<Header>() == 8);
const _: () = assert!(size_of::<OutputHeader>() == HEADER_BYTES && align_of::<OutputHeader>() == 8);

/// One cell of a ring: 24 bytes of header, then the body (`E1`).
///
/// [`Event64`] and [`Event128`] are the usual ones. A type of the application's own is a
/// slot by `impl Slot for Mine {}`, if its first 24 bytes are the header; the compiler
/// refuses a layout against `E1`. Bodies and kinds name it:
///
/// ```
/// use lockstep_engine::bytemuck::{Pod, Zeroable};
/// use lockstep_engine::prelude::*;
///
/// #[repr(C)]
/// #[derive(Clone, Copy, Debug, Pod, Zeroable)]
/// #[bytemuck(crate = "lockstep_engine::bytemuck")] // or a dependency of your own on it
/// struct Wide {
///     header: [u64; 3],
///     body: [u64; 25], // room for bodies of 200 bytes
/// }
/// impl Slot for Wide {}
///
/// #[derive(Body)]
/// #[body(kind = 1, version = 1, slot = Wide)]
/// #[repr(C)]
/// struct Note { account: u64, #[body(chars)] text: [u8; 192] }
///
/// #[derive(Kinds)]
/// #[kinds(schema = "bank.notes", version = 1, slot = Wide)]
/// enum Notes<'a> { Note(&'a Note) }
/// # fn main() {
/// let event = Wide::event(&Note::default());
/// assert!(matches!(Notes::view(&event), Some(Notes::Note(note)) if note.account == 0));
/// # }
/// ```
pub trait Slot: Pod + Send + Sync + fmt::Debug {
    /// Fails to compile for a layout against `E1`.
    const LAYOUT: () = assert!(
        size_of::<Self>() > HEADER_BYTES
            && size_of::<Self>().is_multiple_of(8)
            && align_of::<Self>() == 8,
        "E1: a slot is a multiple of 8 bytes, aligned to 8, with a header of 24"
    );

    /// The slot read as an event.
    #[inline(always)]
    fn header(&self) -> &Header {
        let () = Self::LAYOUT;
        bytemuck::from_bytes(&bytemuck::bytes_of(self)[..HEADER_BYTES])
    }

    /// The same, to be written.
    #[inline(always)]
    fn header_mut(&mut self) -> &mut Header {
        let () = Self::LAYOUT;
        bytemuck::from_bytes_mut(&mut bytemuck::bytes_of_mut(self)[..HEADER_BYTES])
    }

    /// The slot read as an output.
    #[inline(always)]
    fn output(&self) -> &OutputHeader {
        let () = Self::LAYOUT;
        bytemuck::from_bytes(&bytemuck::bytes_of(self)[..HEADER_BYTES])
    }

    /// The same, to be written.
    #[inline(always)]
    fn output_mut(&mut self) -> &mut OutputHeader {
        let () = Self::LAYOUT;
        bytemuck::from_bytes_mut(&mut bytemuck::bytes_of_mut(self)[..HEADER_BYTES])
    }

    /// The bytes behind the header.
    #[inline(always)]
    fn body(&self) -> &[u8] {
        &bytemuck::bytes_of(self)[HEADER_BYTES..]
    }

    /// The same, to be written.
    #[inline(always)]
    fn body_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::bytes_of_mut(self)[HEADER_BYTES..]
    }

    /// The body as what it is; whether the kind says so is the caller's to know.
    #[inline(always)]
    fn body_as<B: Body>(&self) -> &B {
        const { assert_fits::<Self, B>() };
        bytemuck::from_bytes(&self.body()[..size_of::<B>()])
    }

    /// Writes a body, zeros behind it (`E2`). The header is the caller's.
    #[inline(always)]
    fn set_body<B: Body>(&mut self, body: &B) {
        const { assert_fits::<Self, B>() };
        let (own, rest) = self.body_mut().split_at_mut(size_of::<B>());
        own.copy_from_slice(bytemuck::bytes_of(body));
        rest.fill(0);
    }

    /// An event of this body, without session and time.
    #[must_use]
    fn event<B: Body>(body: &B) -> Self {
        let mut event = Self::zeroed();
        event.header_mut().kind = B::KIND;
        event.header_mut().version = B::VERSION;
        event.set_body(body);
        event
    }
}

const fn assert_fits<S: Slot, B: Body>() {
    assert!(
        size_of::<B>() + HEADER_BYTES <= size_of::<S>(),
        "E2: the body does not fit into the slot: take a larger slot, or a smaller body"
    );
    assert!(align_of::<B>() <= 8, "E1: a slot is aligned to 8");
}

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal, $words:literal;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name {
            header: Header,
            body: [u64; $words],
        }

        const _: () = assert!(size_of::<$name>() == $bytes);

        impl Slot for $name {
            #[inline(always)]
            fn header(&self) -> &Header {
                &self.header
            }

            #[inline(always)]
            fn header_mut(&mut self) -> &mut Header {
                &mut self.header
            }

            #[inline(always)]
            fn output(&self) -> &OutputHeader {
                bytemuck::must_cast_ref(&self.header)
            }

            #[inline(always)]
            fn output_mut(&mut self) -> &mut OutputHeader {
                bytemuck::must_cast_mut(&mut self.header)
            }

            #[inline(always)]
            fn body(&self) -> &[u8] {
                bytemuck::bytes_of(&self.body)
            }

            #[inline(always)]
            fn body_mut(&mut self) -> &mut [u8] {
                bytemuck::bytes_of_mut(&mut self.body)
            }
        }
    )*};
}

slots! {
    /// A slot of 64 bytes, a cache line: 40 for the body.
    Event64: 64, 5;
    /// A slot of 128 bytes: 104 for the body.
    Event128: 128, 13;
}

/// The body of one kind of event or output: plain old data without padding.
///
/// The derive of the same name makes a body of a struct. It implements `Clone`, `Copy`, `Debug`,
/// `Default` (zeros), `PartialEq`, `Eq`, `Pod`, [`State`](crate::State) and [`Kinds`] as well; it
/// checks the layout, and says at the field what is wrong with it.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// /// Money comes in.
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)] // and `slot = Event128` for more than 40 bytes, `name = "deposit"`
/// #[repr(C)]
/// pub struct Deposit {
///     /// Whose.
///     pub account: u64,
///     /// How much; the tools show 12.50 for 1250.
///     #[body(decimal = 2)]
///     pub cents: i64,
///     /// From when it counts; the tools show a date.
///     #[body(time)]
///     pub value_at: u64,
///     /// What the customer wrote.
///     #[body(chars)]
///     pub text: [u8; 15],
///     /// 0 or 1.
///     #[body(boolean)]
///     pub is_cash: u8,
/// }
/// # fn main() {
/// let event = Event64::event(&Deposit { account: 7, cents: 1250, ..Deposit::default() });
/// assert_eq!(Deposit::view(&event).map(|deposit| deposit.cents), Some(1250));
/// # }
/// ```
///
/// What a disk or another program may not hold is refused, with what to take instead: a `bool`,
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Flagged { is_cash: bool }
/// ```
///
/// a `usize`, a float, anything that points somewhere,
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Counted { count: usize }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Priced { price: f64 }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Named { name: String }
/// ```
///
/// gaps between the fields (`E2`), more than the slot has,
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Holey { small: u32, large: u64 }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Large { words: [u64; 6] } // 48 bytes: `slot = Event128` has room for 104
/// ```
///
/// a layout that the compiler may change, a kind of the engine's own (`E3`), a number that is missing,
/// an attribute that means nothing.
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// struct Loose { account: u64 } // no repr(C)
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 0xff01, version = 1)]
/// #[repr(C)]
/// struct Usurper { position: u64 }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1)]
/// #[repr(C)]
/// struct Undated { account: u64 }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// #[derive(Body)]
/// #[body(kind = 1, versoin = 1)]
/// #[repr(C)]
/// struct Typo { account: u64 }
/// ```
///
/// [`bodies!`](crate::bodies) is the short form for several at once.
pub trait Body: Pod + fmt::Debug + Send + Sync {
    /// The number of the kind; it is never used again for another meaning.
    const KIND: u16;
    /// The version of the layout.
    const VERSION: u16;
    /// The name of the kind in the journal's schema.
    const NAME: &'static str;

    /// The fields, by their offsets in the body, for the journal's schema.
    fn fields() -> Vec<Field>;
}

/// The kinds of events that a logic takes, or of outputs that it emits, over one slot.
///
/// A single [`Body`] is one; the derive of the same name makes one of an enum of several, and
/// the enum is the view: a reference into the slot, no copy. It implements `Clone`, `Copy`,
/// `Debug`, `PartialEq` and `Eq` as well.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// #[derive(Body)]
/// #[body(kind = 1, version = 1)]
/// #[repr(C)]
/// struct Deposit { account: u64, cents: i64 }
///
/// #[derive(Body)]
/// #[body(kind = 2, version = 1)]
/// #[repr(C)]
/// struct Close { account: u64 }
///
/// /// What customers ask for.
/// #[derive(Kinds)]
/// #[kinds(schema = "bank.requests", version = 1)] // raised with every change of a body; `slot = Event128`,
///                                                 // or one of your own, where the bodies say so
/// enum Requests<'a> {
///     Deposit(&'a Deposit),
///     Close(&'a Close),
/// }
/// # fn main() {
/// let event = Event64::event(&Close { account: 7 });
/// let Some(Requests::Close(close)) = Requests::view(&event) else { panic!("it is a close") };
/// assert_eq!(close.account, 7);
/// # }
/// ```
///
/// Two bodies with one number (`E3`), and a variant that is no reference to a body, are refused:
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// # bodies! {
/// #     Deposit, kind 1, version 1: { account: u64, cents: i64 }
/// #     Close, kind 1, version 1: { account: u64 }
/// # }
/// #[derive(Kinds)]
/// #[kinds(schema = "bank.requests", version = 1)]
/// enum Requests<'a> { Deposit(&'a Deposit), Close(&'a Close) }
/// ```
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// # bodies! { Deposit, kind 1, version 1: { account: u64, cents: i64 } }
/// #[derive(Kinds)]
/// #[kinds(schema = "bank.requests", version = 1)]
/// enum Requests<'a> { Deposit(&'a Deposit), Close { account: u64 } }
/// ```
///
/// [`kinds!`](crate::kinds) is the short form. An application with layouts of its own writes it by
/// hand.
pub trait Kinds: 'static {
    /// The slot that all of them share.
    type Slot: Slot;
    /// A slot seen as what it is: references into it, no copy.
    type View<'a>: Copy + fmt::Debug;
    /// The kinds' numbers and the newest version of each.
    const VERSIONS: &'static [(u16, u16)];

    /// The view of a slot whose kind and version are among [`VERSIONS`](Self::VERSIONS).
    fn view(slot: &Self::Slot) -> Option<Self::View<'_>>;

    /// The layout, as a journal describes itself.
    fn schema() -> Schema;

    /// The newest version of a kind, if there is such a kind.
    #[must_use]
    fn version_of(kind: u16) -> Option<u16> {
        let versions = Self::VERSIONS.iter();
        versions
            .filter(|(number, _)| *number == kind)
            .map(|(_, version)| *version)
            .next()
    }
}

/// What a kind of the schema looks like, from [`Body`].
#[must_use]
pub fn schema_kind<S: Slot, B: Body>() -> Kind {
    let mut fields = B::fields();
    for field in &mut fields {
        field.offset += in_slot(HEADER_BYTES);
    }
    let used = HEADER_BYTES + size_of::<B>();
    if used < size_of::<S>() {
        fields.push(padding(used, size_of::<S>() - used));
    }
    Kind {
        number: u32::from(B::KIND),
        name: Cow::Borrowed(B::NAME),
        fields: Cow::Owned(fields),
    }
}

/// The fields of the header that all events share, for the journal's schema.
pub(crate) fn header_fields() -> Vec<Field> {
    vec![
        retyped(at(|h: &Header| &h.time, "time", 0), "time"),
        at(|h: &Header| &h.session, "session", 8),
        at(|h: &Header| &h.request, "request", 16),
        at(|h: &Header| &h.kind, "kind", 20),
        at(|h: &Header| &h.version, "version", 22),
    ]
}

fn at<F: lockstep_journaler::schema::FieldShape>(
    field: fn(&Header) -> &F,
    name: &'static str,
    offset: usize,
) -> Field {
    shape_of::<Header, F>(field).field(name, offset)
}

pub(crate) fn padding(offset: usize, bytes: usize) -> Field {
    Field {
        name: Cow::Borrowed("spare"),
        kind: FieldType::Padding,
        scale: 0,
        element_size: 1,
        offset: in_slot(offset),
        count: in_slot(bytes),
        values: Cow::Borrowed(&[]),
    }
}

fn in_slot(bytes: usize) -> u32 {
    lockstep_journaler::schema::in_event(bytes)
}

/// Bodies of events and outputs: `repr(C)` plain old data, checked when compiled.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// bodies! {
///     /// Money comes in.
///     pub Deposit, kind 1, version 1: {
///         /// Whose.
///         account: u64,
///         /// How much.
///         cents: i64,
///     }
///     Balance, kind 101, version 1: { account: u64, cents: i64 }
/// }
/// let event = Event64::event(&Deposit { account: 7, cents: 100 });
/// assert_eq!(Deposit::view(&event), Some(&Deposit { account: 7, cents: 100 }));
/// assert_eq!(Balance::view(&event), None); // another kind
/// ```
///
/// A body with padding, or one that does not fit, is refused:
///
/// ```compile_fail
/// # use lockstep_engine::prelude::*;
/// bodies! { Holey, kind 1, version 1: { small: u8, large: u64 } }
/// ```
///
/// A body that needs a slot of 128 bytes says so: `Big, kind 2, version 1, slot Event128: { … }`.
#[macro_export]
macro_rules! bodies {
    ($(
        $(#[$meta:meta])*
        $vis:vis $name:ident, kind $kind:literal, version $version:literal $(, slot $slot:ident)?: {
            $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive($crate::Body)]
        #[body(kind = $kind, version = $version $(, slot = $crate::event::$slot)?)]
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }
    )*};
}

/// An enum of kinds over one slot, with a typed view that copies nothing.
///
/// ```
/// use lockstep_engine::prelude::*;
///
/// bodies! {
///     Deposit, kind 1, version 1: { account: u64, cents: i64 }
///     Close, kind 2, version 1: { account: u64 }
/// }
/// kinds! { enum Requests: "bank.requests" version 1 { Deposit, Close } }
///
/// let event = Event64::event(&Close { account: 7 });
/// match Requests::view(&event) {
///     Some(Requests::Close(close)) => assert_eq!(close.account, 7),
///     other => panic!("{other:?}"),
/// }
/// ```
///
/// A logic says `type In = Requests<'static>` and gets a `Requests<'_>`. The version is that
/// of the whole schema: raise it with every change of a body. `slot Event128` behind the
/// version takes larger slots.
#[macro_export]
macro_rules! kinds {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident: $schema:literal version $version:literal $(slot $slot:ident)? {
            $($(#[$variant_meta:meta])* $body:ident),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive($crate::Kinds)]
        #[kinds(schema = $schema, version = $version $(, slot = $crate::event::$slot)?)]
        $vis enum $name<'a> {
            $($(#[$variant_meta])* #[doc = stringify!($body)] $body(&'a $body),)*
        }
    };
}

/// Two kinds of one number would be one kind.
#[doc(hidden)]
pub const fn assert_distinct(kinds: &[u16]) {
    let mut at = 0;
    while at < kinds.len() {
        let mut before = 0;
        while before < at {
            assert!(
                kinds[before] != kinds[at],
                "E3: two of the kinds have one number: each body has a number of its own"
            );
            before += 1;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::bodies! {
        Small, kind 1, version 1: { account: u64, cents: i64 }
        Odd, kind 2, version 3: { code: u32, letters: [u8; 5], side: u8, spare: u16 }
        Large, kind 3, version 1, slot Event128: { words: [u64; 13] }
    }
    crate::kinds! { enum Both: "test.both" version 7 { Small, Odd } }

    /// A slot of an application's own.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Pod, Zeroable)]
    struct Own {
        time: u64,
        who: [u32; 4],
        words: [u64; 2],
    }
    impl Slot for Own {}

    #[test]
    fn e1_every_slot_shows_the_same_header() {
        let mut event = Event64::event(&Small {
            account: 7,
            cents: -1,
        });
        event.header_mut().time = 99;
        let mut own = Own::event(&Small {
            account: 7,
            cents: -1,
        });
        own.header_mut().time = 99;
        assert_eq!(own.header(), event.header());
        assert_eq!(own.body_as::<Small>(), event.body_as::<Small>());
        assert_eq!(own.time, 99);
        assert_eq!(event.output().time, 99);
        assert_eq!(own.output_mut(), event.output_mut());
    }

    #[test]
    fn e2_what_a_body_leaves_is_zero() {
        let mut event = Event64::zeroed();
        event.body_mut().fill(0xff);
        event.set_body(&Odd {
            code: 1,
            letters: *b"abcde",
            side: 2,
            spare: 3,
        });
        assert!(event.body()[12..].iter().all(|&byte| byte == 0));
        assert_eq!(event.body_as::<Odd>().letters, *b"abcde");
        let large = Event128::event(&Large { words: [7; 13] });
        assert_eq!(Large::view(&large).unwrap().words, [7; 13]);
    }

    #[test]
    fn a_view_is_of_the_kind_that_the_header_says() {
        let odd = Event64::event(&Odd {
            code: 5,
            ..Odd::default()
        });
        assert_eq!(
            Both::view(&odd),
            Some(Both::Odd(&Odd {
                code: 5,
                ..Odd::default()
            }))
        );
        assert_eq!(Both::view(&Event64::zeroed()), None);
        assert_eq!(Both::version_of(2), Some(3));
        assert_eq!(Both::version_of(9), None);
    }

    #[test]
    fn the_schema_covers_every_byte_and_shows_an_event() {
        let schema = Both::schema();
        let read = Schema::decode(&schema.encode().unwrap()).unwrap();
        let mut event = Event64::event(&Small {
            account: 7,
            cents: -5,
        });
        event.header_mut().session = 3;
        let shown: Vec<String> = read
            .values(bytemuck::bytes_of(&event))
            .map(|(field, value)| format!("{}={value}", field.name))
            .collect();
        assert_eq!(
            shown[1..].join(" "),
            "session=3 request=0 kind=1 version=1 account=7 cents=-5"
        );
        assert!(Large::schema().encode().is_ok());
    }
}

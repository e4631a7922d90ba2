//! The engine's own kinds: what it writes into the log, and what it emits, besides the
//! application's.
//!
//! Everything that changes the state is in the log, so what the engine decides is an event
//! too: parameters, ticks, sessions, beacons, quarantine.
//!
//! # Invariants
//!
//! * `SY1` Kinds come in generations: a build knows those of its own and of all before. What nodes compare
//!   when they greet counts the first one, as it was, whatever came later.
//! * `SY2` What a build before would misread has a new kind or a new version, and whoever does not know the
//!   kind or version of an event refuses it by name, and never passes it over.
//! * `SY3` A leader writes no kind that a member has said not to know.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use lockstep_journaler::schema::{Field, FieldType, Kind, Schema, in_event};

use crate::cluster::Administration;
use crate::event::{Body, HEADER_BYTES, Slot, header_fields, padding, schema_kind};
use crate::principal::SessionOpenAs;

macro_rules! system {
    ($($(#[$meta:meta])* $name:ident = $kind:literal {
        $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = assert!($kind >= crate::event::SYSTEM_KINDS && size_of::<$name>() <= 40);

        impl Body for $name {
            const KIND: u16 = $kind;
            const VERSION: u16 = 1;
            const NAME: &'static str = concat!("lockstep.", stringify!($name));

            fn fields() -> Vec<lockstep_journaler::schema::Field> {
                vec![$(
                    lockstep_journaler::schema::shape_of::<$name, $type>(|body| &body.$field)
                        .field(stringify!($field), std::mem::offset_of!($name, $field)),
                )*]
            }
        }
    )*};
}

system! {
    /// Event: the hash of the state behind all events before `position`.
    Beacon = 0xff01 {
        /// Where the state was hashed.
        position: u64,
        /// Its hash.
        hash: u64,
    }
    /// Event: the event at `position` is passed over, by all replicas and in every replay.
    Quarantine = 0xff02 {
        /// The event's position.
        position: u64,
    }
    /// Event: a client session begins; its number is the event's position plus one.
    SessionOpen = 0xff03 {
        /// Free for the client.
        tag: u64,
    }
    /// Event: a client session ends.
    SessionClose = 0xff04 {
        /// Its number.
        session: u64,
    }
    /// Event: the log's time has come so far; the header says how far.
    Tick = 0xff05 {
        /// Zero.
        spare: u64,
    }
    /// Event: what the engine's own part of the state goes by from here on.
    Parameters = 0xff06 {
        /// Sessions that may be open at once; 0: the engine keeps none, and checks no requests.
        sessions_max: u32,
        /// Replies kept for each session.
        replies_max: u32,
        /// A session without a request for so long ends, by the log's time.
        session_expiry_ns: u64,
        /// Events between two beacons; 0: none.
        beacon_every: u64,
    }
    /// Event: a change of the cluster's members, in the layout that the consensus reads. Whether it
    /// took effect the consensus knows; to the state it is an entry like any other.
    Membership = 0xff07 {
        /// Says that it is one.
        magic: u32,
        /// Which change.
        operation: u32,
        /// Whom it is about.
        node: u64,
    }
    /// Event: from the next event on the logic's rules are those of this version; never an older one.
    VersionSwitch = 0xff08 {
        /// One of [`Logic::VERSIONS`](crate::Logic::VERSIONS) on every replica, or it stops there.
        version: u32,
        /// Zero.
        spare: u32,
    }
    /// Event: how many of what one principal may have, from here on.
    Quotas = 0xff0b {
        /// Sessions that are open at once; 0: as many as there may be.
        sessions_per_principal: u32,
        /// Zero.
        spare: u32,
    }
    /// Output: the event was refused; the state is as before it.
    Rejected = 0xff11 {
        /// Of the event.
        session: u64,
        /// Of the event.
        request: u32,
        /// Of the event.
        event_kind: u16,
        /// Why: the logic's codes, or one of [`code`].
        code: u16,
    }
    /// Output: the request had been answered before; this was the answer.
    Repeated = 0xff12 {
        /// Of the event.
        session: u64,
        /// The position of the event that was applied.
        first: u64,
        /// Of the event.
        request: u32,
        /// What came of it: 0 is accepted.
        code: u16,
        /// Zero.
        spare: u16,
    }
    /// Output: a session was opened or closed.
    SessionChanged = 0xff13 {
        /// Its number.
        session: u64,
        /// Of the event that opened it.
        tag: u64,
        /// 1 opened, 0 closed.
        is_open: u32,
        /// Zero.
        spare: u32,
    }
    /// Output: an event is in quarantine; the state is as before it.
    Quarantined = 0xff14 {
        /// The event's position.
        position: u64,
    }
}

/// The numbers by which the engine itself refuses. They are for ever.
pub mod code {
    /// The session is not open, or was closed or has expired.
    pub const SESSION_UNKNOWN: u16 = 0xff01;
    /// As many sessions are open as may be.
    pub const SESSIONS_FULL: u16 = 0xff02;
    /// The request is older than those whose replies are kept.
    pub const REQUEST_FORGOTTEN: u16 = 0xff03;
    /// The number of the request jumps: one before it is missing.
    pub const REQUEST_GAP: u16 = 0xff04;
    /// `validate` panicked; the policy is to refuse.
    pub const VALIDATE_PANICKED: u16 = 0xff05;
    /// The event is in quarantine.
    pub const QUARANTINED: u16 = 0xff06;
    /// The request had been answered before.
    pub const REPEATED: u16 = 0xff07;
    /// The log is in a newer version of the logic's rules already.
    pub const VERSION_BACK: u16 = 0xff09;
    /// The principal has as many sessions as it may have.
    pub const SESSIONS_OF_PRINCIPAL: u16 = 0xff0a;
    /// The slot was claimed by a producer that gave it up.
    pub const VOID: u16 = 0xff08;

    /// What a code of the engine means.
    #[must_use]
    pub const fn meaning(code: u16) -> &'static str {
        match code {
            SESSION_UNKNOWN => "the session is not open, or has expired: open one",
            SESSIONS_FULL => {
                "as many sessions are open as may be: close some, or raise sessions_max"
            }
            SESSIONS_OF_PRINCIPAL => {
                "this client has as many sessions as it may have: close some, or raise sessions_per_principal"
            }
            REQUEST_FORGOTTEN => "the request is older than the replies that are kept",
            REQUEST_GAP => "a request before this one is missing: send that first",
            VALIDATE_PANICKED => "the logic panicked while it looked at the event",
            QUARANTINED => "the logic panicked on the event, which is in quarantine",
            REPEATED => "the request had been answered before",
            VERSION_BACK => {
                "the log is in a newer version of the logic already, and never goes back"
            }
            VOID => "the producer gave the slot up",
            _ => "refused by the logic",
        }
    }
}

/// The numbers of the engine's own kinds (`E3`): a journal is the application's, whichever of them it knows.
pub(crate) const OWN_KINDS: &[RangeInclusive<u32>] = &[0..=0, 0xff00..=0xffff];

/// The generation of this build's kinds (`SY1`). 1: up to `VersionSwitch`; 2: `Administration` too;
/// 3: `SessionOpenAs` and `Quotas` too.
pub(crate) const GENERATION: u8 = 3;

/// The generation that brought [`Administration`].
pub(crate) const KNOWS_ADMINISTRATION: u8 = 2;

/// The generation that brought [`SessionOpenAs`] and [`Quotas`].
pub(crate) const KNOWS_PRINCIPALS: u8 = 3;

/// The newest version of an engine's kind that this build reads (`SY2`); 0: it does not know the kind.
pub(crate) const fn known_version(kind: u16) -> u16 {
    match kind {
        Beacon::KIND..=VersionSwitch::KIND | Administration::KIND => 1,
        SessionOpenAs::KIND | Quotas::KIND => 1,
        _ => 0,
    }
}

/// The kinds of the first generation as they were, for ever (`SY1`): number, name, unsigned fields by name, bytes
/// of each.
type Frozen = (u32, &'static str, &'static [(&'static str, u16)]);
const FIRST_GENERATION: [Frozen; 9] = [
    (0, "lockstep.Void", &[("nothing", 8)]),
    (0xff01, "lockstep.Beacon", &[("position", 8), ("hash", 8)]),
    (0xff02, "lockstep.Quarantine", &[("position", 8)]),
    (0xff03, "lockstep.SessionOpen", &[("tag", 8)]),
    (0xff04, "lockstep.SessionClose", &[("session", 8)]),
    (0xff05, "lockstep.Tick", &[("spare", 8)]),
    (
        0xff06,
        "lockstep.Parameters",
        &[
            ("sessions_max", 4),
            ("replies_max", 4),
            ("session_expiry_ns", 8),
            ("beacon_every", 8),
        ],
    ),
    (
        0xff07,
        "lockstep.Membership",
        &[("magic", 4), ("operation", 4), ("node", 8)],
    ),
    (
        0xff08,
        "lockstep.VersionSwitch",
        &[("version", 4), ("spare", 4)],
    ),
];

/// The hash of the application's kinds with the engine's of the first generation: equal in all builds that have
/// the same of the application's (`SY1`).
pub(crate) fn lasting_hash(mut schema: Schema) -> u64 {
    let size = schema.event_size as usize;
    let kinds = schema.kinds.to_mut();
    kinds.retain(|kind| !OWN_KINDS.iter().any(|own| own.contains(&kind.number)));
    kinds.extend(FIRST_GENERATION.map(|frozen| thawed(frozen, size)));
    schema.hash()
}

fn thawed((number, name, fields): Frozen, event_size: usize) -> Kind {
    let mut at = HEADER_BYTES;
    let mut all = Vec::new();
    for &(name, element_size) in fields {
        all.push(Field {
            name: Cow::Borrowed(name),
            kind: FieldType::Unsigned,
            scale: 0,
            element_size,
            offset: in_event(at),
            count: 1,
            values: Cow::Borrowed(&[]),
        });
        at += usize::from(element_size);
    }
    if at < event_size {
        all.push(padding(at, event_size - at));
    }
    Kind {
        number,
        name: Cow::Borrowed(name),
        fields: Cow::Owned(all),
    }
}

/// The engine's kinds of events, for the journal's schema.
pub(crate) fn schema_kinds<S: Slot>() -> Vec<Kind> {
    let mut kinds = vec![
        schema_kind::<S, Void>(),
        schema_kind::<S, Beacon>(),
        schema_kind::<S, Quarantine>(),
        schema_kind::<S, SessionOpen>(),
        schema_kind::<S, SessionClose>(),
        schema_kind::<S, Tick>(),
        schema_kind::<S, Parameters>(),
        schema_kind::<S, Membership>(),
        schema_kind::<S, VersionSwitch>(),
        schema_kind::<S, Quotas>(),
    ];
    // Only a cluster writes it, whose slots are large enough (`E2`).
    if size_of::<S>() >= HEADER_BYTES + size_of::<Administration>() {
        kinds.push(schema_kind::<S, Administration>());
        kinds.push(schema_kind::<S, SessionOpenAs>());
    }
    kinds
}

/// The schema of these kinds: their fields behind the header that all share, and the
/// engine's own kinds (`E3`).
#[must_use]
pub fn schema_of<S: Slot>(name: &'static str, version: u32, kinds: Vec<Kind>) -> Schema {
    let mut all = kinds;
    all.extend(schema_kinds::<S>());
    Schema {
        name: Cow::Borrowed(name),
        version,
        event_size: in_event(size_of::<S>()),
        kind_offset: 20,
        kind_size: 2,
        header: Cow::Owned(header_fields()),
        kinds: Cow::Owned(all),
    }
}

/// The engine's kinds of outputs, for whoever shows outputs field by field.
pub(crate) fn output_kinds<S: Slot>() -> Vec<Kind> {
    vec![
        schema_kind::<S, Rejected>(),
        schema_kind::<S, Repeated>(),
        schema_kind::<S, SessionChanged>(),
        schema_kind::<S, Quarantined>(),
    ]
}

/// An event that means nothing: a claimed slot whose producer gave it up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Void {
    spare: u64,
}

impl Body for Void {
    const KIND: u16 = 0;
    const VERSION: u16 = 0;
    const NAME: &'static str = "lockstep.Void";

    fn fields() -> Vec<lockstep_journaler::schema::Field> {
        vec![
            lockstep_journaler::schema::shape_of::<Void, u64>(|body| &body.spare)
                .field("nothing", 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event64, Kinds};

    crate::bodies! {
        Add, kind 1, version 1: { amount: u64 }
    }

    #[test]
    fn sy1_what_nodes_compare_is_what_the_first_builds_compared() {
        // What a build of the first generation has for this kind.
        assert_eq!(lasting_hash(Add::schema()), 0x2172_73e9_9aa8_5c81);
    }

    #[test]
    fn sy2_every_kind_that_the_schema_lists_is_known() {
        for kind in schema_kinds::<Event64>() {
            let number = u16::try_from(kind.number).unwrap();
            assert_eq!(known_version(number) != 0, number != 0, "{}", kind.name);
        }
        assert_eq!(known_version(0xff0c), 0);
    }
}

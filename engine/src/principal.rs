//! Who a client is: the name that its certificate or its token proved, in the log and in the state.
//!
//! A session that is opened by somebody whose name was proved begins with [`SessionOpenAs`], any other one
//! with [`SessionOpen`](crate::system::SessionOpen). So every replica, and every replay, knows whose session a request
//! belongs to: the engine counts how many one principal has, and the logic reads
//! [`Context::principal`](crate::Context::principal).
//!
//! # Invariants
//!
//! * `PR1` A name that was only claimed is none: it does not get into the log.
//! * `PR2` A state in which nobody has a name, and no limit, has the bytes and the hash that it had before
//!   there were names.

use std::fmt;

use lockstep_journaler::schema::{Field, retyped, shape_of};

use crate::event::Body;
use crate::state::{LoadError, State, StateReader, StateWriter};

/// Bytes of a name.
pub const PRINCIPAL_BYTES: usize = 32;

/// A name that was proved, or nobody's.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal([u8; PRINCIPAL_BYTES]);

impl Principal {
    /// Whose name was not proved.
    pub const NOBODY: Principal = Principal([0; PRINCIPAL_BYTES]);

    /// This name; what is longer than 32 bytes is cut, as no certificate and no token has it.
    #[must_use]
    pub fn of(name: &str) -> Principal {
        let mut own = Principal::NOBODY;
        for (to, from) in own.0.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        own
    }

    /// The name; `None` is nobody's.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let own = self.0.get(..end.unwrap_or(PRINCIPAL_BYTES))?;
        std::str::from_utf8(own)
            .ok()
            .filter(|name| !name.is_empty())
    }

    /// Whether it is nobody's.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        *self == Principal::NOBODY
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name().unwrap_or(""))
    }
}

impl State for Principal {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.bytes(&self.0);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let mut own = Principal::NOBODY;
        own.0
            .copy_from_slice(from.bytes(PRINCIPAL_BYTES, "Principal")?);
        Ok(own)
    }
}

/// Event: a client session begins, of this principal; its number is the event's position plus one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SessionOpenAs {
    /// Free for the client.
    pub tag: u64,
    /// Its name, zeros behind.
    pub principal: [u8; PRINCIPAL_BYTES],
}

impl SessionOpenAs {
    /// A session of this principal.
    #[must_use]
    pub fn new(tag: u64, principal: Principal) -> SessionOpenAs {
        SessionOpenAs {
            tag,
            principal: principal.0,
        }
    }

    /// The one in the body of an event; `None` in a slot that has no room for it.
    pub(crate) fn in_body(body: &[u8]) -> Option<SessionOpenAs> {
        let own = body.get(..size_of::<SessionOpenAs>())?;
        Some(bytemuck::pod_read_unaligned(own))
    }

    /// Whose.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal(self.principal)
    }
}

impl Body for SessionOpenAs {
    const KIND: u16 = 0xff0a;
    const VERSION: u16 = 1;
    const NAME: &'static str = "lockstep.SessionOpenAs";

    fn fields() -> Vec<Field> {
        let name = shape_of::<Self, [u8; PRINCIPAL_BYTES]>(|one| &one.principal);
        vec![
            shape_of::<Self, u64>(|one| &one.tag).field("tag", 0),
            retyped(name.field("principal", 8), "chars"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Core, Scratch};
    use crate::event::{Event64, Slot};
    use crate::logic::{Context, Logic};
    use crate::outputs::Outputs;
    use crate::state::{from_bytes, to_bytes};
    use crate::system::{Parameters, Quotas, SessionClose, SessionOpen, code};

    crate::bodies! {
        Add, kind 1, version 1: { amount: u64 }
        Sum, kind 101, version 1: { sum: u64 }
    }

    /// Adds up what comes of one desk.
    #[derive(Default)]
    struct Desk {
        sum: u64,
    }
    crate::snapshot!(Desk { sum });

    impl Logic for Desk {
        type In = Add;
        type Out = Sum;

        fn apply(&mut self, add: &Add, context: &Context, _: &mut Outputs<'_, Sum>) {
            if context.principal().name() == Some("desk") {
                self.sum += add.amount;
            }
        }
    }

    fn step(core: &mut Core<Desk>, event: &Event64) -> u16 {
        let mut scratch = Scratch::default();
        core.step(event, &mut scratch.outputs()).unwrap().code
    }

    fn add(core: &mut Core<Desk>, session: u64, request: u32) -> u16 {
        let mut event = Event64::event(&Add { amount: 10 });
        event.header_mut().session = session;
        event.header_mut().request = request;
        step(core, &event)
    }

    fn open(core: &mut Core<Desk>, name: &str) -> (u16, u64) {
        let number = core.position().0 + 1;
        let opened = SessionOpenAs::new(3, Principal::of(name));
        (step(core, &Event64::event(&opened)), number)
    }

    fn rules(core: &mut Core<Desk>) {
        let rules = Parameters {
            sessions_max: 8,
            replies_max: 4,
            session_expiry_ns: 1_000,
            beacon_every: 0,
        };
        step(core, &Event64::event(&rules));
    }

    fn again(core: &Core<Desk>) -> Core<Desk> {
        let again = Core::<Desk>::load(&core.to_bytes(), core.position()).unwrap();
        assert_eq!(again.state_hash(), core.state_hash());
        again
    }

    #[test]
    fn the_logic_sees_whose_session_a_request_is_of() {
        let mut core = Core::new(Desk::default());
        rules(&mut core);
        let (_, desk) = open(&mut core, "desk");
        let (_, other) = open(&mut core, "other");
        let nobody = core.position().0 + 1;
        step(&mut core, &Event64::event(&SessionOpen { tag: 1 }));
        for session in [desk, other, nobody, 0] {
            assert_eq!(add(&mut core, session, 1), 0);
        }
        assert_eq!(core.logic().sum, 10);
        let mut again = again(&core);
        for core in [&mut core, &mut again] {
            assert_eq!(add(core, desk, 2), 0);
            assert_eq!(core.logic().sum, 20);
        }
    }

    #[test]
    fn rq4_the_log_says_how_many_sessions_a_principal_may_have() {
        let mut core = Core::new(Desk::default());
        rules(&mut core);
        let before = core.state_hash();
        let quotas = |most| {
            Event64::event(&Quotas {
                sessions_per_principal: most,
                spare: 0,
            })
        };
        step(&mut core, &quotas(1));
        assert_ne!(core.state_hash(), before);
        let (first, session) = open(&mut core, "desk");
        assert_eq!(first, 0);
        let mut again = again(&core);
        for core in [&mut core, &mut again] {
            assert_eq!(core.sessions_per_principal(), 1);
            assert_eq!(open(core, "desk").0, code::SESSIONS_OF_PRINCIPAL);
            assert_eq!(open(core, "other").0, 0);
            step(core, &Event64::event(&SessionClose { session }));
            assert_eq!(open(core, "desk").0, 0);
            step(core, &quotas(0));
            assert_eq!(open(core, "desk").0, 0);
        }
        assert_eq!(core.state_hash(), again.state_hash());
    }

    #[test]
    fn a_name_comes_back_and_nobody_has_none() {
        let long = "x".repeat(40);
        for (name, expected) in [
            ("desk", Some("desk")),
            ("", None),
            (&long, Some(&long[..32])),
        ] {
            let principal = Principal::of(name);
            assert_eq!(principal.name(), expected);
            assert_eq!(principal.is_nobody(), expected.is_none());
            let read: Principal = from_bytes(&to_bytes(&principal)).unwrap();
            assert_eq!(read, principal);
        }
        assert_eq!(format!("{:?}", Principal::of("desk")), "\"desk\"");
    }
}

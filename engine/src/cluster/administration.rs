//! Who asked for a change of the cluster, and for which: an event in the log, right in front of the one by
//! which it is done.
//!
//! ```text
//!   position p    Administration   who, how that is known, what
//!   position p+1  the change: Membership, VersionSwitch        none behind a transfer, and none behind
//! ```                                                          `force-single`, which writes it itself
//!
//! # Invariants
//!
//! * `AD1` The two are published together, so nothing lies between them. If leadership ends in between, the
//!   word is in the log alone: it was asked for, and not done.
//! * `AD2` The state does not depend on it: whoever replays goes past it.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

use lockstep_journaler::schema::{Field, NamedValue, retyped, shape_of, with_values};
use lockstep_replicator::NodeId;
use lockstep_replicator::client::{Identity, Principal};

use crate::event::Body;

/// Bytes of a principal's name in the log.
const PRINCIPAL_BYTES: usize = 32;

/// Event: an operator asks for something.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Administration {
    /// Who, zeros behind: a name that was believed, `loopback`, an address, or `user@host` as the system says.
    pub principal: [u8; PRINCIPAL_BYTES],
    /// What: an [`Action`].
    pub action: u8,
    /// How it is known who: 1 by a certificate, 2 by a token, 3 not at all.
    pub identity: u8,
    /// Which node it is about; 0 none.
    pub node: u16,
    /// The version to switch to, the epoch from here on, else 0.
    pub argument: u32,
}

/// What an operator may ask for. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// A learner more.
    Add = 1,
    /// A learner gets a vote.
    Promote = 2,
    /// A node leaves for ever.
    Remove = 3,
    /// Another node is to lead.
    Transfer = 4,
    /// The other site is not waited for.
    Degrade = 5,
    /// It is again.
    Gate = 6,
    /// Another version of the logic's rules.
    SwitchVersion = 7,
    /// One node goes on alone, in a higher epoch.
    ForceSingle = 8,
}

impl Action {
    const ALL: [Action; 8] = [
        Action::Add,
        Action::Promote,
        Action::Remove,
        Action::Transfer,
        Action::Degrade,
        Action::Gate,
        Action::SwitchVersion,
        Action::ForceSingle,
    ];
}

/// In [`Administration::identity`]: a name that nobody has proved, or an address.
const UNAUTHENTICATED: u8 = 3;

const fn named(number: i64, name: &'static str) -> NamedValue {
    NamedValue {
        number,
        name: std::borrow::Cow::Borrowed(name),
    }
}

static ACTIONS: [NamedValue; 8] = [
    named(1, "add"),
    named(2, "promote"),
    named(3, "remove"),
    named(4, "transfer"),
    named(5, "degrade"),
    named(6, "gate"),
    named(7, "switch-version"),
    named(8, "force-single"),
];

static IDENTITIES: [NamedValue; 3] = [
    named(1, "certificate"),
    named(2, "token"),
    named(3, "unauthenticated"),
];

impl Body for Administration {
    const KIND: u16 = 0xff09;
    const VERSION: u16 = 1;
    const NAME: &'static str = "lockstep.Administration";

    fn fields() -> Vec<Field> {
        let plain = |field: Field| field;
        let chars = |field: Field| retyped(field, "chars");
        vec![
            chars(
                shape_of::<Self, [u8; PRINCIPAL_BYTES]>(|one| &one.principal).field("principal", 0),
            ),
            with_values(
                shape_of::<Self, u8>(|one| &one.action).field("action", 32),
                "enumeration",
                &ACTIONS,
            ),
            with_values(
                shape_of::<Self, u8>(|one| &one.identity).field("identity", 33),
                "enumeration",
                &IDENTITIES,
            ),
            plain(shape_of::<Self, u16>(|one| &one.node).field("node", 34)),
            plain(shape_of::<Self, u32>(|one| &one.argument).field("argument", 36)),
        ]
    }
}

impl Administration {
    /// This principal asks for this.
    pub(crate) fn of(principal: &Principal, action: Action) -> Self {
        let (identity, name) = match principal.identity {
            Identity::Certificate => (1, principal.name.clone()),
            Identity::Token => (2, principal.name.clone()),
            Identity::Nobody => (UNAUTHENTICATED, place(principal.address)),
        };
        Self::by(&name, identity, action)
    }

    /// Whoever uses this machine, as its system says, forces a node on; nobody has proved who that is.
    pub(crate) fn of_system(action: Action) -> Self {
        Self::by(&system_user(), UNAUTHENTICATED, action)
    }

    fn by(name: &str, identity: u8, action: Action) -> Self {
        let mut principal = [0; PRINCIPAL_BYTES];
        for (to, from) in principal.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self {
            principal,
            action: action as u8,
            identity,
            ..Self::default()
        }
    }

    /// Who asked, as text.
    #[must_use]
    pub fn who(&self) -> String {
        let end = self.principal.iter().position(|byte| *byte == 0);
        let name = &self.principal[..end.unwrap_or(PRINCIPAL_BYTES)];
        String::from_utf8_lossy(name).into_owned()
    }

    /// What for; `None` for an action that this build does not know.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        Action::ALL
            .into_iter()
            .find(|action| *action as u8 == self.action)
    }

    /// The word of its action.
    #[must_use]
    pub fn action_name(&self) -> String {
        name_in(&ACTIONS, self.action)
    }

    /// How it is known who asked, as one word.
    #[must_use]
    pub fn known_by(&self) -> String {
        name_in(&IDENTITIES, self.identity)
    }

    /// The same, about this node.
    pub(crate) fn about(self, node: NodeId) -> Self {
        Self {
            node: node.0,
            ..self
        }
    }

    /// The same, with this version.
    pub(crate) fn with(self, argument: u32) -> Self {
        Self { argument, ..self }
    }
}

fn name_in(names: &[NamedValue], number: u8) -> String {
    let name = names.iter().find(|one| one.number == i64::from(number));
    name.map_or_else(|| number.to_string(), |one| one.name.to_string())
}

/// `user@host`, as far as the system says.
fn system_user() -> String {
    let user = std::fs::metadata("/proc/self").map_or_else(
        |_| "unknown".to_owned(),
        |own| name_of_user(own.uid(), &read("/etc/passwd")),
    );
    let host = read("/proc/sys/kernel/hostname");
    match host.trim() {
        "" => user,
        host => format!("{user}@{host}"),
    }
}

/// A file of the system; empty where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The name of a user in `/etc/passwd`, or the number.
fn name_of_user(number: u32, users: &str) -> String {
    let is_own = |line: &&str| {
        let mut fields = line.split(':').skip(2);
        fields.next().and_then(|uid| uid.parse().ok()) == Some(number)
    };
    let line = users.lines().find(is_own);
    let name = line.and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("uid {number}"), str::to_owned)
}

/// Where somebody comes from whom nobody knows; an address that is too long, as its 32 digits.
fn place(address: IpAddr) -> String {
    if address.is_loopback() {
        return "loopback".to_owned();
    }
    let text = address.to_string();
    match address {
        IpAddr::V6(address) if text.len() > PRINCIPAL_BYTES => {
            format!("{:032x}", u128::from(address))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event64, Kinds, Slot};

    crate::bodies! { Add, kind 1, version 1: { amount: u64 } }

    fn principal(identity: Identity, address: &str) -> Principal {
        Principal {
            name: "ops".to_owned(),
            identity,
            address: address.parse().unwrap(),
        }
    }

    fn shown(asked: &Administration) -> String {
        let schema = Add::schema();
        let event = Event64::event(asked);
        let values = schema.values(bytemuck::bytes_of(&event)).skip(5);
        let shown: Vec<String> = values
            .map(|(field, value)| format!("{}={value}", field.name))
            .collect();
        shown.join(" ")
    }

    #[test]
    fn ad1_the_log_shows_who_asked_for_what_and_how_that_is_known() {
        let by_name = principal(Identity::Certificate, "10.0.0.7");
        let asked = Administration::of(&by_name, Action::Remove).about(NodeId(3));
        assert_eq!(
            shown(&asked),
            "principal=ops action=remove identity=certificate node=3 argument=0"
        );
        let nobody = principal(Identity::Nobody, "127.0.0.1");
        let asked = Administration::of(&nobody, Action::SwitchVersion).with(2);
        assert_eq!(
            shown(&asked),
            "principal=loopback action=switch-version identity=unauthenticated node=0 argument=2"
        );
        // Who is not believed does not get into the log by the name it gave itself.
        let long = principal(Identity::Nobody, "2001:db8:1111:2222:3333:4444:5555:6666");
        let asked = Administration::of(&long, Action::Gate);
        assert!(shown(&asked).contains("principal=20010db8111122223333444455556666 "));
        let far = principal(Identity::Nobody, "10.0.0.7");
        let asked = Administration::of(&far, Action::Degrade);
        assert!(shown(&asked).contains("principal=10.0.0.7 action=degrade"));
    }

    #[test]
    fn who_forces_a_node_on_is_whom_the_system_names() {
        let users = "root:x:0:0::/root:/bin/sh\nops:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of_user(1000, users), "ops");
        assert_eq!(name_of_user(7, users), "uid 7");
        let asked = Administration::of_system(Action::ForceSingle).with(3);
        assert!(!asked.who().is_empty());
        assert_eq!(asked.action(), Some(Action::ForceSingle));
        let shown = shown(&asked);
        assert!(
            shown.contains("action=force-single identity=unauthenticated node=0 argument=3"),
            "{shown}"
        );
    }

    #[test]
    fn every_action_has_its_word() {
        for action in Action::ALL {
            let asked = Administration::of_system(action);
            assert_eq!(asked.action(), Some(action));
            assert!(asked.action_name().parse::<u8>().is_err(), "{action:?}");
        }
        let unknown = Administration::default();
        assert_eq!(
            (unknown.action(), unknown.action_name()),
            (None, "0".to_owned())
        );
    }
}

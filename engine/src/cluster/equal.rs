//! What has to be equal on all nodes of a cluster, as one number that they compare when they greet.
//!
//! | of the node's file | why |
//! |---|---|
//! | the schema of the events, the engine's own kinds as they were first (`SY1`) | the same bytes have to mean the same |
//! | `sessions_max`, `session_replies`, `session_expiry_ms`, `beacon_every`, `sessions_per_principal` | who leads writes them into the log: nodes that differ would write them in turns |
//! | `ack`, and where it ends with `+dr` the sites of the founders | an answer has to mean the same, whoever leads |
//! | `engine.tick_ms` | the log's time has to go on the same way, whoever leads |
//! | `on_validate_panic`, `on_apply_panic`, and unless both are `halt` the length of the ring | an event goes into quarantine on all nodes, or on none (`QU3`) |
//!
//! Beside it stand, each with a place of its own in the hello: the cluster, the epoch, the sizes of events
//! and frames, the versions of the logic, the generation of the engine's kinds.

use std::fmt::Write as _;

use lockstep_replicator::Ack;

use super::options::NodeOptions;
use crate::config::{Config, OnApplyPanic, OnValidatePanic};
use crate::event::Kinds;
use crate::logic::Logic;
use crate::system::lasting_hash;

/// The number. It is the same in every build that compares the same things in the same words.
pub(crate) fn fingerprint<L: Logic>(options: &NodeOptions) -> u64 {
    let (config, replica) = (&options.config, &options.replica);
    let ack = Ack {
        policy: replica.policy,
        is_gated: replica.sites.gates,
    };
    let most = match config.sessions_per_principal {
        0 => String::new(),
        most => format!(" {most} per principal"),
    };
    let mut equal = format!(
        "{:016x} {:?} {ack} {}{}{most}",
        // SY1
        lasting_hash(L::In::schema()),
        config.parameters(),
        config.tick_ms,
        on_panic(config)
    );
    for node in replica.founders.voters.iter().filter(|_| ack.is_gated) {
        // Writing to a text cannot fail.
        let _ = write!(equal, " {node}@{}", replica.sites.of(*node).unwrap_or(""));
    }
    xxhash_rust::xxh3::xxh3_64(equal.as_bytes())
}

/// What is done about a panic; for quarantine the rings have to be as long, too: what one leader had in
/// its own behind the event has to go into that of the next one, with a place for the mark (`QU3`).
fn on_panic(config: &Config) -> String {
    let (validate, apply) = (config.on_validate_panic, config.on_apply_panic);
    let is_halt = validate == OnValidatePanic::Halt && apply == OnApplyPanic::Halt;
    if is_halt {
        return String::new();
    }
    format!(" {validate:?} {apply:?} {}", config.slots)
}

#[cfg(test)]
mod tests {
    use lockstep_replicator::{NodeId, Policy, ReplicaOptions, Sites};

    use super::*;
    use crate::config::JournalMode;
    use crate::logic::Context;
    use crate::outputs::Outputs;

    crate::bodies! {
        Add, kind 1, version 1: { amount: u64 }
        Take, kind 2, version 1: { amount: u64 }
        Sum, kind 101, version 1: { sum: u64 }
    }

    macro_rules! logics {
        ($($name:ident of $events:ident),*) => {$(
            #[derive(Default)]
            struct $name { sum: u64 }
            crate::snapshot!($name { sum });
            impl Logic for $name {
                type In = $events;
                type Out = Sum;
                fn apply(&mut self, event: &$events, _: &Context, _: &mut Outputs<'_, Sum>) {
                    self.sum += event.amount;
                }
            }
        )*};
    }
    logics! { Adder of Add, Taker of Take }

    fn options() -> NodeOptions {
        let founders = [NodeId(1), NodeId(2), NodeId(3)];
        let mut replica = ReplicaOptions::new("paris".parse().unwrap(), NodeId(1), &founders);
        replica.sites = sites("lyon");
        NodeOptions::new(replica)
    }

    fn sites(of_the_third: &str) -> Sites {
        let of = [(1, "paris"), (2, "paris"), (3, of_the_third)];
        Sites::new(of.map(|(node, site)| (NodeId(node), site.to_owned())))
    }

    fn changed(change: impl FnOnce(&mut NodeOptions)) -> NodeOptions {
        let mut options = options();
        change(&mut options);
        options
    }

    /// A build that says another number for the same file talks to none before it: no cluster can be upgraded
    /// node by node. What comes later is told apart elsewhere, or added to the text only where it is asked for.
    #[test]
    fn the_number_is_the_one_that_the_first_builds_said() {
        assert_eq!(fingerprint::<Adder>(&options()), 0xc166_baf3_955f_7b39);
    }

    #[test]
    fn what_has_to_be_equal_is_in_the_number() {
        let own = fingerprint::<Adder>(&options());
        assert_ne!(own, fingerprint::<Taker>(&options()), "the schema");
        type Change = fn(&mut NodeOptions);
        let changes: [(&str, Change); 9] = [
            ("sessions_max", |one| one.config.sessions_max += 1),
            ("sessions_per_principal", |one| {
                one.config.sessions_per_principal = 7;
            }),
            ("session_replies", |one| one.config.session_replies += 1),
            ("session_expiry_ms", |one| one.config.session_expiry_ms += 1),
            ("beacon_every", |one| one.config.beacon_every += 64),
            ("ack", |one| one.replica.policy = Policy::DiskAndMemory),
            ("+dr", |one| one.replica.sites.gates = true),
            ("tick_ms", |one| one.config.tick_ms += 1),
            ("on_apply_panic", |one| {
                one.config.on_apply_panic = OnApplyPanic::Quarantine;
            }),
        ];
        for (name, change) in changes {
            assert_ne!(own, fingerprint::<Adder>(&changed(change)), "{name}");
        }
        for policy in [OnValidatePanic::Refuse, OnValidatePanic::Quarantine] {
            let other = changed(|one| one.config.on_validate_panic = policy);
            let default = options().config.on_validate_panic;
            let is_equal = own == fingerprint::<Adder>(&other);
            assert_eq!(
                is_equal,
                policy == default,
                "on_validate_panic = {policy:?}"
            );
        }
    }

    #[test]
    fn what_counts_under_a_condition_is_in_the_number_under_it() {
        let gated = |third: &str| {
            let mut options = options();
            options.replica.sites = sites(third).gated();
            fingerprint::<Adder>(&options)
        };
        assert_ne!(
            gated("lyon"),
            gated("rome"),
            "where an answer waits for sites"
        );
        let other_site = changed(|one| one.replica.sites = sites("rome"));
        let own = fingerprint::<Adder>(&options());
        assert_eq!(own, fingerprint::<Adder>(&other_site));
        let ring = |apply, slots| {
            let mut options = options();
            options.config.on_validate_panic = OnValidatePanic::Halt;
            options.config.on_apply_panic = apply;
            options.config.slots = slots;
            fingerprint::<Adder>(&options)
        };
        let (quarantine, halt) = (OnApplyPanic::Quarantine, OnApplyPanic::Halt);
        assert_ne!(ring(quarantine, 256), ring(quarantine, 512));
        assert_eq!(ring(halt, 256), ring(halt, 512));
    }

    #[test]
    fn what_is_a_nodes_own_matter_is_not() {
        let own = fingerprint::<Adder>(&options());
        let other = changed(|one| {
            one.replica.node = NodeId(2);
            one.replica.tick_ns *= 2;
            one.config.output_slots *= 2;
            one.config.segment_bytes *= 2;
            one.config.snapshot_every += 1;
            one.config.journal = JournalMode::Direct;
            one.config.wait = lockstep_ringbuffer::Wait::Park;
        });
        assert_eq!(own, fingerprint::<Adder>(&other));
    }
}

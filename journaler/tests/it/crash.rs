//! A short slice of the campaign, with fixed seeds, and proof that it notices a broken journal.
//! The long one: `cargo run --release -p lockstep-journaler --example crash_campaign -- --seeds 10000`.

use lockstep_journaler::Mutations;

use crate::campaign::{Tally, live};

#[test]
fn i1_to_i7_hold_in_300_lives() {
    let mut tally = Tally::default();
    for seed in 0..300 {
        if let Err(violation) = live(seed, Mutations::default(), &mut tally) {
            panic!("seed {}: {}", violation.seed, violation.what);
        }
    }
    assert!(
        tally.torn_tails > 20 && tally.cuts > 20 && tally.refusals > 20,
        "{tally:?}"
    );
}

fn is_noticed(mutations: Mutations) {
    let mut tally = Tally::default();
    let caught = (0..1000).find(|&seed| live(seed, mutations, &mut tally).is_err());
    assert!(caught.is_some(), "1000 lives did not notice {mutations:?}");
}

#[test]
fn no_directory_sync_is_noticed() {
    is_noticed(Mutations {
        no_directory_sync: true,
        ..Mutations::default()
    });
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    is_noticed(Mutations {
        acknowledge_before_sync: true,
        ..Mutations::default()
    });
}

#[test]
fn no_chain_is_noticed() {
    is_noticed(Mutations {
        no_chain: true,
        ..Mutations::default()
    });
}

#[test]
fn retrying_a_failed_sync_is_noticed() {
    is_noticed(Mutations {
        retry_failed_sync: true,
        ..Mutations::default()
    });
}

#[test]
fn taking_frames_for_evidence_is_noticed() {
    is_noticed(Mutations {
        frames_are_evidence: true,
        ..Mutations::default()
    });
}

#[test]
fn not_zeroing_a_torn_tail_is_noticed() {
    is_noticed(Mutations {
        no_zeroing: true,
        ..Mutations::default()
    });
}

#[test]
fn trusting_the_cache_behind_a_failed_sync_is_noticed() {
    is_noticed(Mutations {
        trust_the_cache: true,
        ..Mutations::default()
    });
}

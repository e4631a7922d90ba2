//! Failures planted on purpose: the simulator has to find each of them.
//!
//! Seeds are searched and not named. Which seed shows a mutation moves with each fault that is drawn in another
//! place, so a search takes the seeds whose plan has what the mutation needs, from 1 on, ends at the first that
//! fails, and gives up far behind where it is found.

use lockstep_replicator::Policy;
use lockstep_replicator::replica::Mutation;
use lockstep_replicator::simulation::{ModelNode, Plan, run_seed_of};

/// What is found with the first of these plans that fails.
fn found_among(mutation: Mutation, plans: impl Iterator<Item = Plan>) -> String {
    let mut runs = plans.map(|plan| {
        run_seed_of::<ModelNode>(&Plan {
            mutation: Some(mutation),
            ..plan
        })
    });
    let Some(failure) = runs.find_map(Result::err) else {
        panic!("{} survived all of its seeds", mutation.name());
    };
    failure.what
}

/// What is found of the first so many seeds whose plan has what it needs.
fn found_where(mutation: Mutation, most: usize, has: impl Fn(&Plan) -> bool) -> String {
    found_among(mutation, (1..).map(Plan::of_seed).filter(has).take(most))
}

fn found(mutation: Mutation, most: usize) -> String {
    found_where(mutation, most, |_| true)
}

fn has_sites(plan: &Plan) -> bool {
    plan.has_sites
}

fn gives_up(plan: &Plan) -> bool {
    plan.snapshot_every_ns > 0
}

fn panics(plan: &Plan) -> bool {
    plan.panics
}

fn is_forced(plan: &Plan) -> bool {
    plan.forces_at_ns > 0
}

fn runs_ahead(plan: &Plan) -> bool {
    plan.runs_ahead
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found(Mutation::AcknowledgeBeforeSync, 20);
}

#[test]
fn events_that_are_not_behind_their_acknowledgement_are_found() {
    found(Mutation::AcknowledgeWithoutEvents, 20);
}

#[test]
fn a_commit_without_an_entry_of_the_own_term_is_found() {
    found(Mutation::CommitWithoutOwnTerm, 100);
}

#[test]
fn a_request_done_twice_is_found() {
    found(Mutation::SkipDeduplication, 20);
}

#[test]
fn logic_before_its_gate_is_found() {
    found(Mutation::LogicBeforeGate, 20);
}

#[test]
fn bytes_taken_without_crc_and_chain_are_found() {
    found(Mutation::NoChain, 300);
}

#[test]
fn a_learner_counted_as_voter_is_found() {
    found(Mutation::LearnerCountedAsVoter, 100);
}

#[test]
fn messages_let_out_early_are_found() {
    found(Mutation::MessagesLetOutEarly, 50);
}

#[test]
fn a_frame_cut_again_on_resend_is_found() {
    found(Mutation::RecutOnResend, 50);
}

#[test]
fn members_remembered_apart_from_what_was_applied_are_found() {
    found(Mutation::AppliedApartFromMembers, 100);
}

#[test]
fn a_sync_that_is_tried_again_is_found() {
    found(Mutation::RetryFailedSync, 300);
}

#[test]
fn a_cut_that_was_not_decided_durably_is_found() {
    let cuts = |plan: &Plan| plan.policy == Policy::Disks && plan.stages && plan.voters >= 3;
    let what = found_where(Mutation::CutWithoutIntent, 500, cuts);
    assert!(what.contains("will not start"), "{what}");
}

#[test]
fn a_vote_after_forgetting_is_found_where_faults_are_staged() {
    let is_staged =
        |plan: &Plan| plan.policy != Policy::Disks && plan.stages && plan.hears_last_words;
    let what = found_where(Mutation::VoteAfterForgetting, 300, is_staged);
    assert!(what.starts_with("S5"), "{what}");
}

#[test]
fn a_leader_that_forgets_the_sites_when_elected_is_found() {
    let what = found_where(Mutation::ForgetGroups, 50, has_sites);
    assert!(what.starts_with("S11"), "{what}");
}

#[test]
fn a_leader_that_does_not_see_the_word_in_its_log_is_found() {
    let what = found_where(Mutation::WordInTheLogNotSeen, 400, has_sites);
    assert!(what.starts_with("S11"), "{what}");
}

#[test]
fn a_word_that_outlives_its_term_is_found_where_faults_are_staged() {
    let is_staged = |plan: &Plan| plan.has_sites && plan.stages;
    let what = found_where(Mutation::WordOutlivesItsTerm, 100, is_staged);
    assert!(what.starts_with("S11"), "{what}");
}

#[test]
fn a_log_begun_anew_with_the_members_of_before_is_found() {
    found_where(Mutation::AnewWithOldMembers, 100, gives_up);
}

#[test]
fn a_snapshot_that_is_taken_unverified_is_found() {
    let what = found_where(Mutation::SnapshotTakenUnverified, 100, gives_up);
    assert!(what.contains("will not start"), "{what}");
}

#[test]
fn an_event_passed_over_without_its_mark_is_found() {
    let what = found_where(Mutation::PassesOverUnmarked, 50, panics);
    assert!(what.starts_with("S13"), "{what}");
}

#[test]
fn a_mark_that_counts_before_it_is_committed_is_found() {
    let what = found_where(Mutation::UncommittedMarkCounts, 200, panics);
    assert!(what.starts_with("S13"), "{what}");
}

#[test]
fn a_leader_that_marks_alone_is_found() {
    let what = found_where(Mutation::MarksAlone, 100, panics);
    assert!(what.starts_with("S13"), "{what}");
}

#[test]
fn a_leader_that_stands_alone_and_leads_on_is_found() {
    // It wants a disk that is lost for ever, and an operator who is in no hurry to replace it.
    let plans = (1..200).map(|seed| Plan {
        voters: 3,
        policy: Policy::Disks,
        has_sites: false,
        panics: true,
        breaks_nodes: true,
        operator_every_ns: 2_000_000_000,
        fault_every_ns: 20_000_000,
        clients: 4,
        ..Plan::of_seed(seed)
    });
    let what = found_among(Mutation::LeadsOnWhereItStands, plans);
    assert!(what.starts_with("not well"), "{what}");
}

#[test]
fn a_node_forced_to_go_on_alone_of_which_the_log_says_nothing_is_found() {
    let what = found_where(Mutation::AloneNotInTheLog, 100, is_forced);
    assert!(what.starts_with("not well"), "{what}");
}

#[test]
fn an_epoch_that_is_not_remembered_is_found() {
    let what = found_where(Mutation::EpochNotRemembered, 100, is_forced);
    assert!(what.contains("epoch"), "{what}");
}

#[test]
fn an_epoch_taken_from_the_file_of_who_was_left_behind_is_found() {
    let what = found_where(Mutation::EpochTakenFromTheFile, 100, is_forced);
    assert!(what.starts_with("S14"), "{what}");
}

#[test]
fn an_output_before_its_gate_is_found() {
    let what = found_where(Mutation::OutputBeforeItsGate, 50, runs_ahead);
    assert!(what.starts_with("S9"), "{what}");
}

#[test]
fn a_state_that_did_not_commit_and_is_kept_is_found() {
    let what = found_where(Mutation::KeepsAStateThatDidNotCommit, 200, runs_ahead);
    assert!(what.starts_with("S7") || what.starts_with("S8"), "{what}");
}

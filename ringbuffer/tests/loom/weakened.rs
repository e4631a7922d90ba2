//! What each ordering is for: the models that fail without it.

/// An ordering or a fence, a model that fails when it is weakened, and how.
const WEAKENED: &[(&str, &str, &str)] = &[
    (
        "cursor_advance",
        "passing::r1_what_was_written_before_is_seen",
        RACE,
    ),
    (
        "cursor_advance",
        "passing::r2_a_slot_is_written_again_only_when_it_is_released",
        RACE,
    ),
    (
        "cursor_advance",
        "passing::r2_a_claim_across_the_wrap_waits_for_both_of_its_ends",
        RACE,
    ),
    (
        "cursor_advance",
        "passing::b2_what_is_released_early_may_be_reused_while_the_batch_goes_on",
        RACE,
    ),
    (
        "cursor_advance",
        "passing::r3_the_end_of_a_diamond_sees_what_both_arms_have_left",
        RACE,
    ),
    (
        "cursor_advance",
        "passing::r3_stages_of_one_runner_release_to_another_in_their_order",
        RACE,
    ),
    (
        "cursor_advance",
        "promises::k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken",
        RACE,
    ),
    (
        "cursor_advance",
        "promises::k1_a_hold_keeps_what_the_promise_has_released",
        RACE,
    ),
    (
        "cursor_advance",
        "many::m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "cursor_get",
        "passing::r1_what_was_written_before_is_seen",
        RACE,
    ),
    (
        "cursor_get",
        "passing::r2_a_slot_is_written_again_only_when_it_is_released",
        RACE,
    ),
    (
        "cursor_get",
        "passing::r2_a_claim_across_the_wrap_waits_for_both_of_its_ends",
        RACE,
    ),
    (
        "cursor_get",
        "passing::b2_what_is_released_early_may_be_reused_while_the_batch_goes_on",
        RACE,
    ),
    (
        "cursor_get",
        "passing::r3_the_end_of_a_diamond_sees_what_both_arms_have_left",
        RACE,
    ),
    (
        "cursor_get",
        "passing::r3_stages_of_one_runner_release_to_another_in_their_order",
        RACE,
    ),
    (
        "cursor_get",
        "promises::k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken",
        RACE,
    ),
    (
        "cursor_get",
        "promises::k1_a_hold_keeps_what_the_promise_has_released",
        RACE,
    ),
    (
        "cursor_get",
        "many::m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_set",
        "many::m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_set",
        "many::m2_an_aborted_claim_is_void_and_leaves_no_hole",
        RACE,
    ),
    (
        "stamp_get",
        "many::m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use",
        RACE,
    ),
    (
        "stamp_get",
        "many::m2_an_aborted_claim_is_void_and_leaves_no_hole",
        RACE,
    ),
    (
        "finished_set",
        "ending::r6_who_is_told_of_the_end_has_seen_everything",
        "R6: finished",
    ),
    (
        "finished_set",
        "ending::r6_the_last_of_two_producers_ends_the_ring",
        "R6: finished",
    ),
    (
        "finished_get",
        "ending::r6_who_is_told_of_the_end_has_seen_everything",
        "R6: finished",
    ),
    (
        "finished_get",
        "ending::r6_the_last_of_two_producers_ends_the_ring",
        "R6: finished",
    ),
    (
        "state_set",
        "faults::r5_a_stage_behind_a_poller_that_fails_stops_exactly_there",
        "R5: dependants",
    ),
    (
        "state_get",
        "faults::r5_a_stage_behind_a_poller_that_fails_stops_exactly_there",
        "R5: dependants",
    ),
    (
        "seat_take",
        "joining::r7_a_seat_that_is_taken_again_carries_what_was_read_from_it",
        RACE,
    ),
    (
        "seat_free",
        "joining::r7_a_seat_that_is_taken_again_carries_what_was_read_from_it",
        RACE,
    ),
    (
        "tap_stamp_set",
        "joining::t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_stamp_get",
        "joining::t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_write_fence",
        "joining::t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "tap_read_fence",
        "joining::t1_what_a_tap_returns_is_one_event_and_whole",
        "T1: one event",
    ),
    (
        "wake_publisher_fence",
        "waking::w2_a_runner_that_parks_is_woken_by_what_is_published",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "waking::w2_a_producer_that_parks_is_woken_by_what_is_released",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "waking::w2_a_runner_that_parks_is_woken_by_the_end",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "faults::r5_a_producer_that_waits_for_room_is_told_of_the_fault",
        ASLEEP,
    ),
    (
        "wake_publisher_fence",
        "promises::k1_a_gate_that_is_dropped_is_found_by_a_stage_that_parks",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "waking::w2_a_runner_that_parks_is_woken_by_what_is_published",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "waking::w2_a_producer_that_parks_is_woken_by_what_is_released",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "waking::w2_a_runner_that_parks_is_woken_by_the_end",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "faults::r5_a_producer_that_waits_for_room_is_told_of_the_fault",
        ASLEEP,
    ),
    (
        "wake_sleeper_fence",
        "promises::k1_a_gate_that_is_dropped_is_found_by_a_stage_that_parks",
        ASLEEP,
    ),
    (
        "join_producer_fence",
        "joining::r7_a_reader_that_joins_is_never_overtaken",
        RACE,
    ),
    (
        "join_reader_fence",
        "joining::r7_a_reader_that_joins_is_never_overtaken",
        RACE,
    ),
];

/// Two threads in one slot.
const RACE: &str = "Causality violation: Concurrent";
/// Somebody sleeps whom nobody will wake.
const ASLEEP: &str = "deadlock; threads";

#[test]
fn each_weakened_ordering_fails_its_models() {
    let mut wrong = Vec::new();
    for &(ordering, model, how) in WEAKENED {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", model, "--nocapture"])
            .env("LOCKSTEP_LOOM_WEAKEN", ordering)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        let failed_so = !run.status.success() && said.contains(how);
        println!(
            "{ordering:>20}  {model}: {}",
            if failed_so { how } else { "NOT SO" }
        );
        if !failed_so {
            wrong.push((ordering, model, said.lines().take(3).collect::<String>()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these should have failed, and so: {wrong:#?}"
    );
}

/// The names as the sources have them: `name, Ordering` of the macro, and fences.
#[test]
fn every_ordering_and_fence_of_the_crate_is_in_the_table() {
    let orderings = include_str!("../../src/orderings.rs");
    let declared = orderings.lines().filter_map(|line| {
        let (name, strong) = line.strip_prefix("    ")?.split_once(", ")?;
        ["Acquire", "Release", "AcqRel"]
            .contains(&strong)
            .then_some(name)
    });
    let users = [
        include_str!("../../src/poller.rs"),
        include_str!("../../src/room.rs"),
        include_str!("../../src/tap.rs"),
        include_str!("../../src/wake.rs"),
    ];
    let fences = users.iter().flat_map(|file| {
        let calls = file.split("_fence(\"").skip(1);
        calls.filter_map(|call| call.split('"').next())
    });
    let names: std::collections::BTreeSet<&str> = declared.chain(fences).collect();
    let listed = WEAKENED.iter().map(|row| row.0).collect();
    assert_eq!(names, listed);
    assert_eq!(names.len(), 18);
}

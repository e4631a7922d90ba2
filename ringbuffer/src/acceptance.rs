//! What this crate has to do, number by number, and the test that shows it. Documentation
//! only: there is nothing to call here.
//!
//! The list was drawn from the tests of the LMAX Disruptor, of its ports and of other
//! rings, and from what their users report. Unless another file is named a test is in
//! `tests/it`; `tests/loom` holds the models, `tests/stress.rs` the long runs. That every
//! number is here and every named test exists is itself a test
//! (`table::the_table_names_every_number_and_tests_that_exist`). **(e)**: the engine, which
//! builds whole nodes on rings, has a test of its own besides.
//!
//! # Sequences, barriers
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 1 | sequences add, subtract, compare | `sequences::a01_sequences_add_subtract_and_compare` |
//! | 2 | the minimum of a group, of an empty one too; powers of two | `sequences::a02_the_slowest_of_a_group_counts_and_an_empty_group_holds_nobody_back`, `sequences::a02_a_capacity_is_a_power_of_two_or_names_the_next_one` |
//! | 3 | a group: add, size, remove (here: seats of readers) | `sequences::a03_seats_are_taken_given_back_and_taken_again` |
//! | 4 | a late joiner starts at the cursor | `sequences::a04_a_late_joiner_starts_at_the_cursor_and_follows_from_there` |
//! | 5 | a barrier: ahead, blocked, catching up | `sequences::a05_a_stage_moves_when_those_before_it_are_ahead_and_not_before` |
//! | 6 | a halt wakes a busy spinner behind three dependents | `sequences::a06_a_halt_wakes_a_busy_spinner_that_waits_on_three_dependents` |
//! | 7 | alert set, and by whom it is seen | `sequences::a07_a_halt_is_seen_by_all_of_its_ring_and_by_no_other` |
//!
//! # Producers, one and many
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 8 | the first claim is `start_at` | `producers::a08_the_first_claim_is_where_the_ring_starts` |
//! | 9 | a claim of 4 covers 4 | `producers::a09_a_claim_of_four_covers_four` |
//! | 10 | capacity queries | `producers::a10_there_is_room_for_the_size_and_for_one_less_after_one_event` |
//! | 11 | none when full and unread | `producers::a11_there_is_no_room_when_the_ring_is_full_and_unread` |
//! | 12 | held while full; one step frees one | `producers::a12_a_producer_is_held_while_full_and_one_step_of_the_consumer_frees_one` |
//! | 13 | trying on a full ring is an error | `producers::a13_trying_on_a_full_ring_is_an_error_after_claims_and_after_tries` |
//! | 14 | remaining falls by one for each event | `producers::a14_what_remains_falls_by_one_for_each_event` |
//! | 15 | nothing before publish, exactly the range after | `producers::a15_nothing_is_seen_before_it_is_published_and_exactly_the_range_after`, `loom/passing::r1_what_was_written_before_is_seen` |
//! | 16 | signalled once a publication, once a batch | `producers::a16_what_is_published_at_once_arrives_at_once`, `loom/waking::w2_a_runner_that_parks_is_woken_by_what_is_published` |
//! | 17 | ten claimed, half published, then the rest | `producers::a17_of_a_claim_of_ten_half_is_published_and_then_the_rest`, `producers::a17_a_part_of_a_claim_of_many_producers_leaves_void_behind_it_and_no_hole` |
//! | 18 | after p comes p + 1 | `producers::a18_the_claim_after_p_is_p_and_one` |
//! | 19 | a claim of 0 is refused | `producers::a19_a_claim_of_nothing_is_refused` |
//! | 20 | a claim of more than the size is refused | `producers::a20_a_claim_of_more_than_the_ring_is_refused_at_once` |
//! | 21 | unavailable after wrapping | `producers::a21_a_slot_of_the_lap_before_is_not_taken_for_an_event`, `stamps::an_event_is_unavailable_after_its_slot_has_wrapped` |
//! | 22 | out of order shows only what is there | `producers::a22_out_of_order_publication_shows_only_what_is_there_without_a_hole`, `stamps::out_of_order_shows_only_what_is_there` |
//! | 23 | a query has no side effect | `producers::a23_asking_changes_nothing` |
//! | 24 | two threads on a single producer do not compile | below, and `producers::a24_a_producer_moves_between_threads_and_many_producers_are_cloned` |
//!
//! # The ring
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 25 | claim, write, read on one thread | `ring::a25_an_event_is_claimed_written_and_read_on_one_thread` |
//! | 26 | across threads | `ring::a26_an_event_is_read_on_another_thread` |
//! | 27 | several in order | `ring::a27_several_events_are_read_in_their_order` |
//! | 28 | who lags without gating reads the newest (here: a tap) | `ring::a28_who_lags_a_lap_behind_without_holding_anybody_back_reads_the_newest` |
//! | 29 | `size` publications pass, the next try fails | `ring::a29_as_many_as_there_are_slots_are_published_and_not_one_more` |
//! | 30 | an error when full | `ring::a30_a_full_ring_is_an_error_that_says_how_much_is_missing` |
//! | 31 | size + 1 waits for the consumer | `ring::a31_who_publishes_one_more_than_the_size_waits_for_the_consumer_and_completes` |
//! | 32 | batches of every size, refused whole | `ring::a32_a_batch_is_published_whole_or_refused_with_no_slot_consumed` |
//! | 33 | a change of who gates changes the minimum | `ring::a33_a_change_of_who_holds_back_changes_what_remains` |
//! | 34 | capacities that are none | `ring::a34_a_ring_of_one_slot_works_and_a_ring_of_none_is_refused`, `bad_input::a_capacity_that_is_zero_odd_or_too_large` |
//! | 35 | publishing claims and publishes once | `ring::a35_publishing_claims_and_publishes_exactly_once` |
//!
//! # Batches
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 36 | hooks in the order of life | `batches::a36_hooks_come_in_the_order_of_life` |
//! | 37 | a stage that publishes into its own ring: 3, 2, 1 | `batches::a37_a_stage_that_publishes_into_its_own_ring_sees_three_two_one` |
//! | 38 | never an empty batch | `batches::a38_a_batch_is_never_empty` |
//! | 39 | a halt at any moment: hooks in pairs | `batches::a39_a_halt_at_any_moment_leaves_start_and_stop_in_pairs` |
//! | 40 | the fault policy is asked; there always is one | `batches::a40_the_fault_policy_is_asked_on_a_panic_and_there_always_is_one` |
//! | 41 | start before the first event, stop after the last | `batches::a41_start_comes_before_the_first_event_and_stop_after_the_last_on_the_same_thread` |
//! | 42 | the end of the backlog flushes | `batches::a42_the_end_of_the_backlog_flushes_the_last_value` |
//! | 43 | largest batch, sizes, depths | `batches::a43_batches_are_as_large_as_allowed_and_know_their_backlog` |
//! | 44 | early release | `batches::a44_what_is_released_early_is_seen_before_the_batch_ends_and_never_goes_back`, `batches::a44_the_producer_may_use_what_is_released_early_while_the_batch_goes_on`, `loom/passing::b2_what_is_released_early_may_be_reused_while_the_batch_goes_on` |
//! | 45 | fused handlers, and none | `batches::a45_fused_handlers_get_events_and_hooks_in_their_order`, `batches::a45_an_empty_list_of_handlers_lets_everything_pass`, `batches::a45_the_second_of_two_fused_handlers_does_not_see_what_failed_in_the_first` |
//!
//! # Rewind
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 46 | at first, middle, last event, in batches of one and ten | `rewind::a46_a_rewind_at_any_event_of_a_batch_repeats_from_there` |
//! | 47 | several | `rewind::a47_several_rewinds_at_one_event_and_at_several_of_one_batch` |
//! | 48 | only the failing batch | `rewind::a48_only_the_batch_that_failed_comes_again` |
//! | 49 | with a largest batch | `rewind::a49_the_largest_batch_holds_for_what_comes_again` |
//! | 50 | the policy is asked once a failure | `rewind::a50_the_policy_is_asked_once_for_each_failure_and_never_without` |
//! | 51 | a pause | `rewind::a51_a_pause_is_kept_before_the_event_comes_again` |
//! | 52 | give up after 3, skip, go on | `rewind::a52_a_stage_that_gives_up_after_three_skips_the_event_and_goes_on` |
//! | 53 | other errors go to the policy | `rewind::a53_an_error_a_panic_and_a_promise_outside_the_batch_all_go_to_the_policy` |
//! | 54 | a policy that cannot work is refused | `rewind::a54_a_policy_that_needs_single_events_is_refused_where_there_are_none` |
//!
//! # Pollers, waits
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 55 | idle, gated, ran | `pollers::a55_a_poller_is_idle_then_gated_then_runs_then_finished` |
//! | 56 | polling a full ring | `pollers::a56_a_full_ring_is_polled_like_any_other` |
//! | 57 | stopping in the middle keeps the rest | `pollers::a57_a_poller_that_stops_in_the_middle_gets_the_rest_again` |
//! | 58 | every strategy sees a late update | `waits::a58_every_strategy_sees_an_update_that_comes_late` |
//! | 59 | timed waits end by timeout, not earlier | `waits::a59_a_timed_wait_ends_by_timeout_and_not_earlier` |
//! | 60 | delays across every phase | `waits::a60_delays_that_cross_every_phase_of_a_strategy_are_survived` |
//! | new | a timeout while waiting on a dependent | `waits::a_producer_that_waits_for_a_dependent_stage_times_out_too` |
//! | new | a blocked dependent uses about no CPU | `waits::a_dependent_stage_that_is_blocked_uses_about_no_cpu` |
//! | new | no lost wake-up | `waits::threads_that_park_and_publish_in_turns_always_wake`, `wake::no_wake_up_is_lost_in_many_rounds`, `loom/waking::w2_a_producer_that_parks_is_woken_by_what_is_released` |
//!
//! # Graph, shutdown
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 61 (e) | events published before the start are processed | `graph::a61_events_published_before_the_start_are_processed` |
//! | 62 | dependents wait for all; runners of one's own | `graph::a62_dependents_wait_for_all_they_follow_and_the_first_for_nobody`, `graph::a62_runners_of_the_users_own_do_the_same_before_and_after` |
//! | 63 | blocked until the slowest leaf moves | `graph::a63_a_producer_is_blocked_until_the_slowest_leaf_moves` |
//! | 64 | a foreign id is refused | `graph::a64_the_stage_of_another_graph_is_refused_though_it_looks_the_same` |
//! | 65 (e) | adding after start, starting twice | does not compile: below |
//! | 66 | fault policies, default and of a stage | `graph::a66_the_default_fault_policy_and_that_of_a_stage_may_be_set_at_any_time` |
//! | 67 | a late observer starts at the cursor | `pollers::a67_a_late_observer_starts_at_the_cursor` |
//! | 68 | drain with a stuck stage, and with a dead one | `shutdown::a68_a_drain_with_a_stuck_stage_is_an_error_that_tells_what_is_left`, `shutdown::a68_a_drain_after_a_stage_has_died_returns_at_once_with_the_fault`, `shutdown::a68_a_drain_without_an_end_in_time_is_possible` |
//! | 69 | remaining within a stage and outside | `graph::a69_what_remains_within_a_stage_is_one_less_than_outside` |
//! | 70 | a drain right after the start loses nothing | `shutdown::a70_a_drain_right_after_the_start_loses_nothing` |
//! | 71 | a panic: refused producers, dependents stop exactly there | `shutdown::a71_after_a_panic_producers_are_refused_dependents_stop_exactly_there_and_drop_returns`, `shutdown::a71_a_producer_that_waits_for_room_is_told_of_the_fault`, `shutdown::a71_a_panic_in_any_hook_is_a_fault_of_its_stage`, `loom/faults::r5_a_stage_two_behind_the_fault_stops_exactly_there` |
//! | 72 | a panic while publishing | `shutdown::a72_a_panic_while_publishing_leaves_no_hole_and_no_half_written_event`, `shutdown::a72_a_void_that_panics_poisons_and_hangs_nobody` |
//! | 73 | whatever is dropped: no hang, no thread left | `shutdown::a73_whatever_is_dropped_first_nobody_hangs`, `shutdown::a73_a_dropped_claim_changes_nothing_for_one_and_is_void_for_many`, `shutdown::a73_a_pipeline_that_never_ran_is_dropped_and_its_producers_know`, `shutdown::a73_a_runner_that_is_given_up_halts_the_pipeline`, `shutdown::a73_no_thread_is_left_behind`, `shutdown::a73_running_may_be_dropped_by_one_of_its_own_stages`, `shutdown::a73_a_stage_that_does_not_return_is_named_and_left_to_its_thread` |
//! | 74 | a failed pin is an error before anything runs | `shutdown::a74_a_pin_that_cannot_be_is_an_error_before_anything_runs` |
//! | 75 | a parallel writer is a build error | `graph::a75_a_writer_beside_anybody_is_a_build_error_and_in_line_it_is_not` |
//! | 76 | a gate is clamped to what was taken | `gates::a76_a_gate_beyond_what_was_taken_is_clamped_and_never_goes_back`, `loom/promises::k1_a_gate_on_a_third_thread_lends_and_releases_what_was_taken` |
//! | 77 | every placement, the same streams | `property::a77_every_placement_gives_every_stage_what_was_published`, `property::a77_on_threads_as_well` |
//! | 78 | a start at p reproduces the numbering | `graph::a78_a_ring_that_starts_at_p_goes_on_with_the_same_numbers` |
//! | new | a late stage reads a whole ring ahead, and the producer stops | `gates::a_late_stage_with_its_gate_on_another_thread_reads_a_whole_ring_ahead_and_the_producer_stops` |
//! | new | a failing gate poisons at the released sequence | `gates::a_gate_that_fails_poisons_at_what_is_released_and_those_behind_stop_exactly_there` |
//! | new | what is held is what was taken, byte for byte | `gates::what_is_held_equals_what_was_taken_byte_for_byte_across_the_wrap` |
//!
//! # Stress, litmus
//!
//! | no. | behaviour | shown by |
//! |---|---|---|
//! | 79 | correlated fields, strings | `ring::a79_as_many_producers_as_stages_never_see_an_event_half_written`, `ring::a79_four_producers_hand_strings_to_three_consumers`; larger in `tests/stress.rs` |
//! | 80 | order, visibility, one winner, no lost increments | `loom/passing::r1_what_was_written_before_is_seen`, `loom/ending::r6_who_is_told_of_the_end_has_seen_everything`, `loom/many::m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use`, `cursor::a_claim_has_one_winner_and_tells_the_loser_the_number` |
//! | 81 | no capacity, no size, drops, parts, closing | `ring::a81_events_without_size_are_counted_all_the_same`, `ring::a81_every_event_is_dropped_once_whoever_goes_first`, `ring::a81_a_claim_and_a_batch_are_the_parts_of_a_slice_at_the_wrap`, `ring::a81_closing_races_with_nobody` |
//! | 82 | layouts | constants beside `Cursor`, `ring::a82_slots_are_aligned_and_follow_one_another`, `memory::the_first_slot_is_aligned_to_a_pair_of_lines` |
//!
//! # The reference crate's defects
//!
//! | | defect there | here |
//! |---|---|---|
//! | U1 | `&mut E` survives its publication | does not compile: below; `reference::u1_what_a_publication_wrote_is_what_is_seen` |
//! | U2 | a branch of another ring is accepted | `reference::u2_a_branch_of_another_ring_is_refused` |
//! | L1 | a consumer panics: silence, and `publish` spins | `reference::l1_a_panic_in_a_consumer_is_reported_and_publishing_ends` |
//! | L2 | then a drop: panic, abort | `reference::l2_dropping_everything_after_a_panic_neither_panics_nor_aborts_nor_leaves_a_thread` |
//! | L3 | a panic in one of many producers: a hole for ever | `reference::l3_a_panic_while_one_of_many_publishes_leaves_no_consumer_stuck` |
//! | L4 | a batch beyond the capacity: a loop for ever | `reference::l4_a_batch_larger_than_the_ring_is_an_error_and_no_loop` |
//! | L5 | a dropped poller gates for ever | `reference::l5_a_dropped_poller_holds_the_producer_no_longer` |
//! | L6 | dropping the producer joins: deadlock | `reference::l6_dropping_the_producer_waits_for_nobody` |
//! | L7 | a builder dropped unbuilt leaves a spinning thread | `reference::l7_a_graph_that_is_dropped_without_build_has_started_nothing` |
//! | L8 | a failed pin panics in the consumer | `reference::l8_a_failed_pin_is_an_error_of_build_and_no_panic_in_a_consumer` |
//! | L9 | iterators that do not know their length | `reference::l9_iterators_know_how_long_they_are` |
//!
//! # What must not compile
//!
//! Each of these would let a reference to a slot outlive the right to it.
//!
//! A slot kept beyond its publication (U1), by one event or by many, one producer or many:
//!
//! ```compile_fail,E0521
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn keep(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let mut kept: Option<&mut u64> = None;
//!     producer.publish(|slot| kept = Some(slot))?;
//!     *kept.unwrap() = 1_000_000; // readers are in this slot by now
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0521
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn keep(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let mut kept: Option<&mut [u64]> = None;
//!     producer.publish_batch(3, |slots| kept = Some(slots.head))?;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn keep(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let (_, kept) = producer.publish_batch(3, |slots| slots.head)?; // returned
//!     kept[0] = 1;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0521
//! # use lockstep_ringbuffer::{ClaimError, MultiProducer};
//! fn keep(producer: &mut MultiProducer<u64>) -> Result<(), ClaimError> {
//!     let mut kept: Option<&mut u64> = None;
//!     producer.publish(|slot| kept = Some(slot))?;
//!     Ok(())
//! }
//! ```
//!
//! The slots of a claim after its commit, and two of them at a time:
//!
//! ```compile_fail,E0505
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn keep(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let mut claim = producer.claim(2)?;
//!     let slots = claim.slots();
//!     claim.commit();
//!     slots.head[0] = 1;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0505
//! # use lockstep_ringbuffer::{ClaimError, MultiProducer};
//! fn keep(producer: &mut MultiProducer<u64>) -> Result<(), ClaimError> {
//!     let mut claim = producer.claim(2)?;
//!     let slots = claim.slots();
//!     claim.commit();
//!     slots.head[0] = 1;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0499
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn twice(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let mut claim = producer.claim(2)?;
//!     let (first, second) = (claim.slots(), claim.slots());
//!     first.head[0] = second.head[0];
//!     Ok(())
//! }
//! ```
//!
//! Publishing past an open claim, and one producer on two threads (24):
//!
//! ```compile_fail,E0499
//! # use lockstep_ringbuffer::{ClaimError, Producer};
//! fn pass(producer: &mut Producer<u64>) -> Result<(), ClaimError> {
//!     let claim = producer.claim(2)?;
//!     producer.publish(|slot| *slot = 1)?;
//!     claim.commit();
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail,E0499
//! # use lockstep_ringbuffer::Producer;
//! fn share(producer: &mut Producer<u64>) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| producer.publish(|slot| *slot = 1));
//!         scope.spawn(|| producer.publish(|slot| *slot = 2));
//!     });
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # use lockstep_ringbuffer::Producer;
//! fn second(producer: Producer<u64>) {
//!     let second = producer.clone();
//! }
//! ```
//!
//! An event across an early release:
//!
//! ```compile_fail,E0502
//! # use lockstep_ringbuffer::{Batch, Progress};
//! fn on_batch(mut batch: Batch<'_, u64>) -> Progress {
//!     let first = &batch.events()[0];
//!     batch.release_first(1);
//!     assert_eq!(*first, 0); // the producer may be writing this slot by now
//!     Progress::All
//! }
//! ```
//!
//! ```compile_fail,E0499
//! # use lockstep_ringbuffer::{BatchMut, Progress};
//! fn on_batch(mut batch: BatchMut<'_, u64>) -> Progress {
//!     let first = &mut batch.events_mut()[0];
//!     batch.release_first(1);
//!     *first = 7;
//!     Progress::All
//! }
//! ```
//!
//! What a lane holds across an early release, and one's own lane borrowed twice:
//!
//! ```compile_fail,E0502
//! # use lockstep_ringbuffer::{Batch, Lane, Progress};
//! fn on_batch(mut batch: Batch<'_, u64>, lane: &Lane<u64>) -> Progress {
//!     let values = batch.lane(lane);
//!     batch.release_first(1);
//!     assert_eq!(values[0], 0);
//!     Progress::All
//! }
//! ```
//!
//! ```compile_fail,E0499
//! # use lockstep_ringbuffer::{Batch, Lane, Progress};
//! fn on_batch(mut batch: Batch<'_, u64>, lane: &Lane<u64>) -> Progress {
//!     let (one, two) = (batch.lane_mut(lane), batch.lane_mut(lane));
//!     one[0] = two[0];
//!     Progress::All
//! }
//! ```
//!
//! Events kept by a poller, a stage, a handler of single events, or a late stage:
//!
//! ```compile_fail,E0521
//! # use lockstep_ringbuffer::{Batch, Poller, Progress};
//! fn keep(poller: &mut Poller<u64>) {
//!     let mut kept: Option<Batch<'_, u64>> = None;
//!     poller.poll(9, |batch| {
//!         kept = Some(batch);
//!         Progress::All
//!     });
//! }
//! ```
//!
//! ```compile_fail
//! # use lockstep_ringbuffer::{Batch, Progress, Stage};
//! struct Keeps<'e>(Vec<&'e u64>);
//! impl<'e> Stage<u64> for Keeps<'e> {
//!     fn on_batch(&mut self, batch: Batch<'_, u64>) -> Progress {
//!         self.0.extend(batch.events());
//!         Progress::All
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! # use lockstep_ringbuffer::{Cause, Handler, Sequence};
//! struct Keeps<'e>(Option<&'e u64>);
//! impl<'e> Handler<u64> for Keeps<'e> {
//!     fn on_event(&mut self, event: &u64, _: Sequence) -> Result<(), Cause> {
//!         self.0 = Some(event);
//!         Ok(())
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! # use lockstep_ringbuffer::{LateStage, Progress, View};
//! struct Keeps<'e>(Option<View<'e, u64>>);
//! impl<'e> LateStage<u64> for Keeps<'e> {
//!     fn on_batch(&mut self, view: View<'_, u64>) -> Progress {
//!         self.0 = Some(view);
//!         Progress::All
//!     }
//! }
//! ```
//!
//! What a gate or a hold lends, across what ends it:
//!
//! ```compile_fail,E0502
//! # use lockstep_ringbuffer::Gate;
//! fn write(gate: &mut Gate<u64>) {
//!     let held = gate.held();
//!     gate.release_to(held.end());
//!     assert!(held.head.is_empty());
//! }
//! ```
//!
//! ```compile_fail,E0502
//! # use lockstep_ringbuffer::Hold;
//! fn resend(hold: &mut Hold<u64>) {
//!     let held = hold.held();
//!     hold.keep_from(held.end());
//!     assert!(held.head.is_empty());
//! }
//! ```
//!
//! ```compile_fail,E0505
//! # use lockstep_ringbuffer::Gate;
//! fn give_up(gate: Gate<u64>) {
//!     let held = gate.held();
//!     gate.fail("no space left");
//!     assert!(held.head.is_empty());
//! }
//! ```
//!
//! Starting twice, and adding to what was built (65):
//!
//! ```compile_fail,E0382
//! # use lockstep_ringbuffer::Pipeline;
//! fn twice(pipeline: Pipeline<u64>) {
//!     let running = pipeline.start();
//!     let again = pipeline.start();
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use lockstep_ringbuffer::{Graph, each};
//! fn late(mut graph: Graph<u64>) {
//!     let built = graph.build();
//!     graph.stage("late", &[], each(|_: &u64, _| ()));
//! }
//! ```
//!
//! Events that may not cross threads:
//!
//! ```compile_fail,E0277
//! # use lockstep_ringbuffer::Graph;
//! let graph = Graph::new(8, || std::rc::Rc::new(0));
//! ```

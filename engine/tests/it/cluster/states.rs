//! The state of one node is another than that of the others: a majority says which is right.

use super::world::{World, next_of};

/// One node does another thing than the others, from some position on: it stops by name, whoever leads,
/// and they go on.
fn one_is_wrong(seed: u64, is_leader: bool) {
    let mut world = World::new(seed);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let wrong = if is_leader { leader } else { next_of(leader) };
    let from = world.node(wrong).applied();
    world.processes[wrong].faults.wrong_from(Some(from));
    world.until("the wrong one stops", |world| {
        world.stopped(wrong).is_some()
    });
    let why = world.stopped(wrong).unwrap();
    let name = format!("node {} has", wrong + 1);
    let is_named = why.contains(&name) && why.contains("a majority agrees on another one");
    assert!(is_named, "{why}");
    world.until_answered(60);
    assert!(World::others(wrong).all(|at| world.stopped(at).is_none()));
    // The log says what was right: whoever replays it wrongly is told where.
    let other = next_of(wrong);
    let end = world.node(other).applied();
    world.until("the log is marked", |world| {
        let agreed = world.node(other).replica().agreed_state();
        agreed.is_some_and(|agreed| agreed.position > end.0)
    });
    world.processes[wrong].faults.wrong_from(None);
    world.start(wrong);
    world.finish(0);
}

#[test]
fn cn4_a_follower_with_another_state_stops_by_name_and_the_others_go_on() {
    (1..=4).for_each(|seed| one_is_wrong(seed, false));
}

#[test]
fn cn4_a_leader_with_another_state_stops_by_name_and_the_others_go_on() {
    (1..=4).for_each(|seed| one_is_wrong(seed, true));
}

#[test]
fn cn4_two_that_differ_go_on_until_a_third_tells_which_is_right() {
    let mut world = World::new(5);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let third = next_of(leader);
    world.kill(third);
    let from = world.node(leader).applied();
    world.processes[leader].faults.wrong_from(Some(from));
    world.until("an alarm", |world| {
        let replica = world.node(leader).replica();
        replica.disputed_state().is_some()
    });
    world.until_answered(40);
    let mut all = world.processes.iter();
    assert!(all.all(|process| process.stopped.is_none()));
    world.start(third);
    world.until("the leader stops", |world| world.stopped(leader).is_some());
    world.until_answered(80);
}

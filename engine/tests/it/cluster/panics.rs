//! Events on which the logic panics: on one node only, or on all of them while there is no room.

use lockstep_engine::prelude::*;

use super::clients::NOBODY;
use super::seeds;
use super::world::{World, next_of};
use crate::bank::{Bomb, deposit};

/// The logic of one node panics where that of the others does not: it stops by name, whoever leads, and
/// nothing that was answered is taken back.
fn one_panics(seed: u64, is_leader: bool) {
    // None that all of them panic on: a state that was rebuilt from a snapshot has no faults any more.
    let mut world = World::with_bombs(seed, 1_000_000);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let odd = if is_leader { leader } else { next_of(leader) };
    let from = world.node(odd).applied();
    world.processes[odd].faults.panics_from(Some(from));
    world.until("the odd one stops", |world| world.stopped(odd).is_some());
    let why = world.stopped(odd).unwrap();
    let name = format!("node {} is not with a majority", odd + 1);
    let is_named = why.contains(&name) && why.contains("the logic panicked at position");
    assert!(is_named, "seed {seed}: {why}");
    world.until_answered(30);
    for at in World::others(odd) {
        assert_eq!(world.stopped(at), None, "seed {seed}");
    }
    // It comes back with a logic that does not panic there, and is as the others.
    world.processes[odd].faults.panics_from(None);
    world.start(odd);
    let seen = world.finish(0);
    world.replay_agrees(&seen);
}

#[test]
fn qu_a_follower_that_panics_alone_stops_by_name() {
    (1..=seeds().unwrap_or(4)).for_each(|seed| one_panics(seed, false));
}

#[test]
fn qu_a_leader_that_panics_alone_stops_by_name_and_another_answers() {
    (1..=seeds().unwrap_or(4)).for_each(|seed| one_panics(seed, true));
}

/// One node is off, and of the two others the one that leads panics alone: no majority can tell it to stop,
/// so it hands over to the one that went past, which answers.
fn one_of_two_panics(seed: u64) {
    let mut world = World::with_bombs(seed, 1_000_000);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let (off, other) = (next_of(leader), next_of(next_of(leader)));
    world.kill(off);
    let from = world.node(leader).applied();
    world.processes[leader].faults.panics_from(Some(from));
    world.until("the other one leads", |world| world.leader() == Some(other));
    world.until_answered(world.asked() + 20);
    assert_eq!(world.stopped(leader), None, "seed {seed}");
    assert_eq!(world.node(leader).applied(), from, "seed {seed}: it stands");
    // With a mended logic it is as the others, whoever comes back first.
    world.kill(leader);
    world.processes[leader].faults.panics_from(None);
    world.start(leader);
    world.start(off);
    let seen = world.finish(3);
    world.replay_agrees(&seen);
}

#[test]
fn pn4_a_leader_that_panics_alone_hands_over_where_no_majority_speaks() {
    (1..=seeds().unwrap_or(4)).for_each(one_of_two_panics);
}

/// The ring of the leader is full behind the event, and the leader dies: the mark finds a place, in
/// its ring or in that of the next one.
fn full_ring(seed: u64) {
    let mut world = World::with_bombs(seed, 10);
    world.until_answered(2);
    let leader = world.leader().unwrap();
    let account = 77;
    let bomb = Event64::event(&Bomb {
        account,
        is_armed_in_validate: 0,
    });
    let node = world.node_mut(leader);
    node.let_in(NOBODY, &bomb).unwrap();
    let mut filled = 0;
    while node.let_in(NOBODY, &deposit(account, 1)).is_ok() {
        filled += 1;
    }
    assert!(filled > 40, "the ring has 64 slots: {filled}");
    for _ in 0..world.random.below(60) {
        world.step();
    }
    if seed.is_multiple_of(2) && world.leader() == Some(leader) {
        world.kill(leader);
        for _ in 0..world.random.below(2000) {
            world.step();
        }
    }
    world.heal();
    let seen = world.finish(3);
    world.replay_agrees(&seen);
}

#[test]
fn qu3_a_full_ring_has_a_place_for_the_mark() {
    (1..=seeds().unwrap_or(10)).for_each(full_ring);
}

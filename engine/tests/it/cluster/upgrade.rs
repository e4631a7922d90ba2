//! A version of the logic takes over, on every node at one position, under load.

use lockstep_engine::cluster::{Administration, NoSwitch};
use lockstep_engine::event::{Body, Slot};
use lockstep_engine::journaler::From;
use lockstep_engine::prelude::*;
use lockstep_engine::system::Tick;
use lockstep_replicator::NodeId;

use super::world::{ALL, World, id_of, next_of};

/// Whoever leads is asked for another version.
fn switch(world: &mut World, version: u32) -> Result<Position, NoSwitch> {
    let leader = world.until_led();
    world.node_mut(leader).switch_version(version)
}

/// Why another version is refused.
fn refused(world: &mut World, version: u32) -> String {
    switch(world, version).unwrap_err().to_string()
}

/// Each node is stopped and started with the new build, one after the other, the leader last; then the log
/// goes to version 2.
fn upgraded(seed: u64) -> (World, Position) {
    let mut world = World::new(seed);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let early = refused(&mut world, 2);
    assert!(
        early.contains("node 1 runs versions 1 to 1, not 2"),
        "{early}"
    );
    let mut goal = 20;
    for at in World::others(leader).chain([leader]) {
        world.restart_with(at, 2);
        world.until_answered(goal);
        goal += 10;
    }
    let back = refused(&mut world, 1);
    assert!(back.contains("never goes back"), "{back}");
    let unknown = refused(&mut world, 3);
    assert!(unknown.contains("runs versions 1 to 2, not 3"), "{unknown}");
    let at = switch(&mut world, 2).unwrap();
    (world, at)
}

/// Every deposit counts once before the switch and twice behind it.
fn counted(world: &World, at: Position) -> Vec<i64> {
    let counts = |position: &u64| if *position > at.0 { 2 } else { 1 };
    let clients = world.clients.iter();
    clients
        .map(|client| client.answers.values().map(counts).sum())
        .collect()
}

#[test]
fn every_node_goes_to_a_new_version_at_one_position_under_load() {
    for seed in 1..=3 {
        let (mut world, at) = upgraded(seed);
        world.until_answered(80);
        let seen = world.finish(0);
        assert_eq!(seen.balances, counted(&world, at), "seed {seed}");
        // The same by the log alone.
        ALL.for_each(|at| world.restart_with(at, 2));
        assert_eq!(world.agree().balances, seen.balances, "seed {seed}");
        assert!(ALL.into_iter().all(|at| world.node(at).version() == 2));
    }
}

#[test]
fn a_node_that_cannot_run_the_version_stops_at_it_by_name_and_the_others_go_on() {
    let mut world = World::new(4);
    ALL.for_each(|at| world.restart_with(at, 2));
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let old = next_of(leader);
    // It said that it can, and comes back with the build before: nobody can know that.
    world.kill(old);
    let at = world.node_mut(leader).switch_version(2).unwrap();
    world.processes[old].newest = 1;
    world.start(old);
    world.until("it stops", |world| world.stopped(old).is_some());
    let why = world.stopped(old).unwrap();
    let name = format!("version 2 of the logic at position {at}");
    assert!(why.contains(&name), "{why}");
    world.until_answered(30);
    // Its log has the switch by now, mostly: then it does not even start.
    world.processes[old].newest = 2;
    world.start(old);
    let seen = world.finish(0);
    assert_eq!(seen.balances, counted(&world, at));
}

/// Positions of the words of who asked for something, in the log of a node.
fn words(world: &World, at: usize) -> Vec<u64> {
    let mut reader = world.node(at).replica().reader(From::Oldest).unwrap();
    let mut found = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let events: &[Event64] = bytemuck::cast_slice(frame.body());
        let numbered = (frame.first_position().0..).zip(events);
        let words = numbered.filter(|(_, event)| event.header().kind == Administration::KIND);
        found.extend(words.map(|(position, _)| position));
    }
    found
}

#[test]
fn sy3_the_log_says_who_asked_once_every_member_knows_such_events() {
    let mut world = World::new(9);
    world.until_answered(5);
    let leader = world.until_led();
    let other = id_of(next_of(leader));
    let ask = |world: &mut World| {
        let event = Event64::event(&Tick::default());
        let at = world.node_mut(leader).let_in_asked(&event).unwrap();
        let is_there = |world: &World| world.node(leader).applied() > at;
        world.until("it is applied", is_there);
        (at.0, words(world, leader))
    };
    world.node_mut(leader).peer_knows(other, 1);
    assert_eq!(ask(&mut world).1, [], "SY3: a member does not know it");
    world.node_mut(leader).peer_knows(NodeId(77), 1);
    world.node_mut(leader).peer_knows(other, 2);
    let (at, words) = ask(&mut world);
    assert_eq!(words, [at - 1], "AD1; who is no member does not count");
    world.finish(0);
}

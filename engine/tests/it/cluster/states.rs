//! The state of one node is another than that of the others: a majority says which is right.

use lockstep_engine::core::Core;
use lockstep_journaler::snapshots::{SnapshotOf, Snapshots};
use lockstep_journaler::storage::{Simulated, Storage as _};

use super::flaky::Flaky;
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

#[test]
fn as1_a_snapshot_of_a_wrong_state_is_set_aside_and_the_node_comes_back_right() {
    for seed in [2, 4] {
        let mut world = World::new(seed);
        world.until_answered(2);
        let leader = world.leader().unwrap();
        let wrong = next_of(leader);
        let from = world.node(wrong).applied();
        world.processes[wrong].faults.wrong_from(Some(from));
        world.until("some of it is wrong", |world| {
            world.node(wrong).applied().0 >= from.0 + 3
        });
        // Its shadow begins with the state that a restart makes, and so with what is wrong.
        world.kill(wrong);
        world.start(wrong);
        assert_eq!(world.from_snapshots, 0, "seed {seed}: too late");
        let disk = world.processes[wrong].disk.clone();
        let listed = |disk| Snapshots::new(disk).list().unwrap().len();
        world.until("a snapshot is taken", |_| listed(disk.clone()) == 1);
        world.until("the wrong one stops", |world| {
            world.stopped(wrong).is_some()
        });
        assert_eq!(listed(disk.clone()), 0, "seed {seed}");
        assert_eq!(disk.list("quarantine").unwrap().len(), 1, "seed {seed}");
        world.processes[wrong].faults.wrong_from(None);
        world.start(wrong);
        world.finish(20);
        assert!(world.stopped(wrong).is_none());
    }
}

/// Another state in the newest snapshot, which says of itself that it is right.
fn falsify(disk: &Simulated) {
    let snapshots = Snapshots::new(disk.clone());
    let Some(listed) = snapshots.list().unwrap().into_iter().next() else {
        return;
    };
    let (position, of) = (listed.position, listed.manifest.unwrap());
    let mut bytes = snapshots.load(&of, 1).unwrap().concat();
    // Of the last field, a sum.
    *bytes.last_mut().unwrap() ^= 1;
    let state = Core::<Flaky<1>>::load(&bytes, position).unwrap();
    snapshots.remove(position).unwrap();
    let of = SnapshotOf {
        log: of.log,
        reached: of.reached,
        index: of.index,
        term: of.term,
        chain: of.chain,
        time_ns: of.time_ns,
        schema_version: of.schema_version,
        schema_hash: of.schema_hash,
        build: of.build,
    };
    let mut writer = snapshots.create(of).unwrap();
    writer.write(&bytes).unwrap();
    writer.finish(state.state_hash()).unwrap();
}

#[test]
fn as1_a_node_that_opens_with_another_state_than_its_log_says_sets_its_snapshots_aside_too() {
    let mut world = World::new(2);
    let mut answered = 10;
    world.until_answered(answered);
    let wrong = next_of(world.leader().unwrap());
    let right = world.processes[wrong].disk.clone();
    let positions = |disk: &Simulated| -> Vec<u64> {
        let listed = Snapshots::new(disk.clone()).list().unwrap();
        listed.iter().map(|one| one.position.0).collect()
    };
    // Ends: soon a beacon is in its log behind its newest snapshot.
    let (disk, why, before) = loop {
        world.kill(wrong);
        let disk = right.fork();
        falsify(&disk);
        let before = positions(&disk);
        world.processes[wrong].disk = disk.clone();
        match world.try_start(wrong) {
            Err(error) => break (disk, error.to_string(), before),
            Ok(()) => world.kill(wrong),
        }
        world.processes[wrong].disk = right.clone();
        world.start(wrong);
        answered += 5;
        assert!(answered < 500, "it never differs from its log");
        world.until_answered(answered);
    };
    assert!(why.contains("the beacon in the log says"), "{why}");
    let left = positions(&disk);
    assert!(
        left.len() < before.len() && before.ends_with(&left),
        "{left:?}"
    );
    let moved = disk.list("quarantine").unwrap().len();
    assert_eq!(moved, before.len() - left.len(), "nothing is deleted");
    // The next start begins in front of it.
    world.start(wrong);
    world.finish(answered + 10);
    assert!(world.stopped(wrong).is_none());
}

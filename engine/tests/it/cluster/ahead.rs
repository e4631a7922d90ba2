//! The gates stand in front of the outputs: the logic of whoever leads runs ahead of disk and quorum, and what did not
//! commit is taken back.

use lockstep_engine::prelude::*;
use lockstep_replicator::replica::Mutation;

use super::clients::NOBODY;
use super::flaky::Build;
use super::seeds;
use super::world::{ALL, World, runs_ahead};
use crate::bank::{Bomb, Flood, deposit};

/// An event that nobody hears of, on an account that no client has.
fn any(world: &mut World) -> Event64 {
    let has_bombs = world.bomb_every != 0;
    match world.random.below(10) {
        // More outputs than the ring has slots.
        0 => Event64::event(&Flood { outputs: 80 }),
        1 if has_bombs => Event64::event(&Bomb {
            account: 77,
            is_armed_in_validate: 0,
        }),
        _ => deposit(77, 1),
    }
}

/// What the leader takes from now on the others do not hear; one of them leads, and there are other events in its place.
fn depose(world: &mut World) {
    let leader = world.until_led();
    let is_deaf = world.random.below(2) == 0;
    for other in World::others(leader) {
        world.cut[leader][other] = true;
        world.cut[other][leader] = is_deaf;
    }
    for _ in 0..1 + world.random.below(12) {
        let event = any(world);
        let _busy = world.node_mut(leader).let_in(NOBODY, &event);
        world.step();
        world.look_around();
    }
    world.until("another leads", |world| {
        World::others(leader).any(|at| world.node(at).is_open())
    });
    let event = any(world);
    for at in World::others(leader) {
        let _not_led = world.node_mut(at).let_in(NOBODY, &event);
    }
    if world.random.below(2) == 0 {
        let more = world.asked() + 2;
        world.until_answered(more);
    }
    world.heal();
    world.look_around();
}

/// Leaders are deposed, one behind the other; then everything is compared.
fn run(mut world: World) -> World {
    world.until_answered(3);
    for _ in 0..5 {
        depose(&mut world);
    }
    let seen = world.finish(3);
    world.look_around();
    world.replay_agrees(&seen);
    world
}

fn seeds_ahead(most: u64) -> impl Iterator<Item = u64> {
    (1..=2 * most).filter(|seed| runs_ahead(*seed))
}

#[test]
fn mb4_what_a_deposed_leader_had_applied_ahead_is_taken_back() {
    let (mut ahead, mut taken_back) = (0, 0);
    for seed in seeds_ahead(seeds().unwrap_or(6)) {
        let world = run(World::new(seed));
        ahead += world.ahead;
        taken_back += world.taken_back;
    }
    assert!(ahead > 500 && taken_back > 20, "{ahead}, {taken_back}");
}

#[test]
fn ls4_a_panic_ahead_of_the_gates_counts_when_its_event_is_committed() {
    for seed in seeds_ahead(seeds().unwrap_or(4)) {
        run(World::with_bombs(seed, 7));
    }
}

#[test]
fn a_node_alone_may_run_ahead_and_its_neighbours_need_not() {
    // The gate is a matter of each node.
    let mut world = World::new(2);
    for at in ALL {
        world.processes[at].is_gated_in_front = at != 0;
        world.kill(at);
        world.start(at);
    }
    run(world);
}

/// On how many of the first seeds this is found.
fn found(mutation: Mutation) -> usize {
    let is_found = |seed: &u64| {
        let life = || drop(run(World::mutated(*seed, mutation)));
        std::panic::catch_unwind(life).is_err()
    };
    seeds_ahead(4).filter(is_found).count()
}

#[test]
fn an_output_that_leaves_before_its_gate_is_found() {
    assert_eq!(found(Mutation::OutputBeforeItsGate), 4);
}

#[test]
fn a_state_that_is_kept_and_did_not_commit_is_found() {
    assert_eq!(found(Mutation::KeepsAStateThatDidNotCommit), 4);
}

#[test]
fn a_leader_that_hands_over_has_nothing_to_take_back() {
    let (mut transfers, mut taken_back) = (0, 0);
    for seed in seeds_ahead(4) {
        let mut world = World::new(seed);
        for round in 1..=5 {
            world.until_answered(round * 5);
            let leader = world.until_led();
            let is_next = |world: &World| {
                let leads = |at: usize| {
                    world.processes[at]
                        .node
                        .as_ref()
                        .is_some_and(Build::is_open)
                };
                World::others(leader).any(leads)
            };
            for _ in 0..4000 {
                world.node_mut(leader).hand_over();
                world.step();
                if is_next(&world) {
                    break;
                }
            }
            transfers += u64::from(is_next(&world));
        }
        world.finish(3);
        taken_back += world.taken_back;
    }
    assert_eq!(transfers, 20);
    assert!(taken_back <= transfers / 4, "{taken_back} of {transfers}");
}

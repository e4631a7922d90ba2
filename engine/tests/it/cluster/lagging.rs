//! A node that lags behind the beginning of the log comes back by a snapshot of another.

use lockstep_engine::prelude::*;

use super::world::{ALL, World};

/// Where the log of a node begins, as its agreement has it, and on its disk.
fn begins(world: &World, at: usize) -> (u64, u64) {
    let base = world.node(at).replica().index().base();
    let segments = lockstep_journaler::directory::segments(&world.processes[at].disk);
    (base.reached.position.0, segments.unwrap()[0].0)
}

fn applied(world: &World, at: usize) -> Option<Position> {
    let node = world.processes[at].node.as_ref();
    node.map(super::flaky::Build::applied)
}

/// A node that is down until the others have given up what it needs comes back by a snapshot of one of
/// them; then the others do, one after the other.
fn comes_back(seed: u64) {
    let mut world = World::giving_up(seed);
    world.until_answered(10);
    for gone in ALL {
        let end = world.node(gone).applied().0;
        world.kill(gone);
        world.until("logs that begin behind its end", |world| {
            World::others(gone).all(|at| {
                let (base, segment) = begins(world, at);
                base > end && segment > 0
            })
        });
        let before = world.begun_anew;
        world.start(gone);
        world.until("a snapshot of another", |world| world.begun_anew > before);
        world.until("it has caught up", |world| {
            let last = world.leader().and_then(|at| applied(world, at));
            last.is_some() && applied(world, gone) == last
        });
    }
    world.finish(0);
}

#[test]
fn cn5_a_node_that_lags_behind_the_beginning_of_the_log_comes_back_by_a_snapshot() {
    (1..=2).for_each(comes_back);
}

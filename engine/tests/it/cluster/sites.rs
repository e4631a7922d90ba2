//! Answers that wait for the other site, until an operator says otherwise.

use lockstep_replicator::Gating;

use super::world::{ALL, World};

/// Whether this node knows that the other site is not waited for.
fn is_degraded(world: &World, at: usize) -> bool {
    let node = world.processes[at].node.as_ref();
    node.and_then(|node| node.replica().gating()) == Some(Gating::Degraded)
}

#[test]
fn answers_wait_for_the_other_site_until_an_operator_says_otherwise() {
    let mut world = World::gated(3);
    world.until_answered(10);
    // Node 3 is the other site: without it a majority is there, and nothing is answered.
    world.kill(2);
    world.until("frames that wait", |world| {
        let leader = world.leader();
        leader.is_some_and(|at| world.node(at).replica().frames_held_by_site() > 0)
    });
    let before = world.answers();
    (0..3000).for_each(|_| world.step());
    // Who was committed and not told yet may have been told.
    assert!(
        world.answers() <= before + 4,
        "answers without the other site"
    );
    let leader = world.leader().unwrap();
    world.node_mut(leader).go_by(Gating::Degraded).unwrap();
    let more = world.asked() + 10;
    world.until_answered(more);
    // The word is in the log: whoever leads next goes by it, and nobody tells that one.
    let other = 1 - leader;
    world.kill(leader);
    world.start(leader);
    world.until_led();
    world.until_answered(more + 10);
    assert!(is_degraded(&world, leader) && is_degraded(&world, other));
    // And back, when the other site is there again.
    world.start(2);
    let leader = world.leader().unwrap();
    world.node_mut(leader).go_by(Gating::Sites).unwrap();
    world.until_answered(more + 20);
    world.finish(0);
    assert!(ALL.into_iter().all(|at| !is_degraded(&world, at)));
}

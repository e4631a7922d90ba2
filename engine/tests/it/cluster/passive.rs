//! A node without a logic: it journals, acknowledges and votes, answers nobody, and takes over once it has one.

use lockstep_engine::cluster::ClusterNode;
use lockstep_engine::{Clock, Position};
use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::Simulated;
use lockstep_replicator::NodeId;

use super::seeds;
use super::world::{World, id_of, options};
use crate::bank::Bank;

/// The passive one; the two before it have a logic.
const THIRD: usize = 2;

fn world(seed: u64) -> World {
    World::new(seed).with_passive(THIRD)
}

/// Which of the two leads, and the other.
fn actives(world: &mut World) -> (usize, usize) {
    let leader = world.until_led();
    assert_ne!(leader, THIRD, "seed {}", world.seed);
    (leader, 1 - leader)
}

fn durable(world: &World, at: usize) -> Position {
    world.node(at).replica().durable()
}

/// Every request is asked once more, and gets the answer that it got first: the clients look at that.
fn ask_again(world: &mut World) {
    let last = world.asked();
    for client in &mut world.clients {
        client.request = client.request.min(last) - 1;
        client.asked = None;
    }
    world.until_answered(last);
}

#[test]
fn pa1_it_is_half_of_a_majority_with_either_of_the_others_and_runs_no_logic() {
    for seed in 1..=seeds().unwrap_or(2) {
        let mut world = world(seed);
        world.until_answered(10);
        let (leader, other) = actives(&mut world);
        world.kill(other);
        world.until_answered(30);
        assert!(world.node(THIRD).is_asleep());
        let newest = world
            .clients
            .iter()
            .flat_map(|client| client.answers.values());
        let newest = Position(*newest.max().unwrap());
        assert!(
            durable(&world, THIRD) > newest,
            "seed {seed}: it has what was answered"
        );
        let refused = world.node(THIRD).refuses_looks().unwrap();
        assert!(refused.contains("node 3 is passive"), "{refused}");
        world.start(other);
        let end = durable(&world, leader);
        world.until("the other has caught up", |world| {
            durable(world, other) > end
        });
        world.kill(leader);
        let more = world.asked() + 20;
        world.until_answered(more);
        assert_eq!(world.leader(), Some(other), "seed {seed}");
        world.start(leader);
        world.activate(THIRD);
        let seen = world.finish(5);
        world.replay_agrees(&seen);
    }
}

#[test]
fn pv2_what_it_alone_has_it_hands_over_to_who_has_a_logic() {
    for seed in 1..=seeds().unwrap_or(3) {
        let mut world = world(seed);
        world.until_answered(10);
        let (leader, other) = actives(&mut world);
        world.kill(other);
        world.until_answered(30);
        world.kill(leader);
        // It has nothing of what was answered meanwhile: nobody elects it, and it takes no leader's place.
        world.start(other);
        world.until_answered(40);
        assert_eq!(world.leader(), Some(other), "seed {seed}");
        let steps = world.led_passively;
        assert!(
            (1..200).contains(&steps),
            "seed {seed}: it led for {steps} steps"
        );
        world.start(leader);
        world.activate(THIRD);
        world.finish(5);
    }
}

#[test]
fn pa2_made_active_behind_the_death_of_the_leader_it_leads_with_the_same_state_and_answers() {
    for seed in 1..=seeds().unwrap_or(3) {
        let mut world = world(seed);
        world.until_answered(20);
        let (leader, other) = actives(&mut world);
        world.kill(leader);
        world.until_answered(30);
        let refused = world.node_mut(other).transfer_to(id_of(THIRD)).unwrap_err();
        assert!(
            refused.to_string().contains("node 3 is passive"),
            "{refused}"
        );
        world.activate(THIRD);
        let again = world.node_mut(THIRD).activate().unwrap_err();
        assert!(
            again.to_string().contains("it is active already"),
            "{again}"
        );
        world.node_mut(other).transfer_to(id_of(THIRD)).unwrap();
        world.until("it leads", |world| world.leader() == Some(THIRD));
        world.kill(other);
        world.start(leader);
        let more = world.asked() + 20;
        world.until_answered(more);
        ask_again(&mut world);
        world.start(other);
        let seen = world.finish(5);
        world.replay_agrees(&seen);
        let all = i64::from(world.deposits_max);
        assert_eq!(
            seen.balances, [all; 4],
            "seed {seed}: applied not exactly once"
        );
    }
}

#[test]
fn pa2_it_is_made_active_where_nobody_leads() {
    for seed in 1..=seeds().unwrap_or(2) {
        let mut world = World::new(seed).with_passive(1).with_passive(THIRD);
        world.until_answered(10);
        assert_eq!(world.leader(), Some(0));
        world.kill(0);
        (0..2_000).for_each(|_| world.step());
        world.activate(1);
        world.until_answered(20);
        assert_eq!(world.leader(), Some(1), "seed {seed}");
        world.start(0);
        world.activate(THIRD);
        world.finish(5);
    }
}

/// A life full of trouble with a passive node in it; then it is made active, and everything is compared.
fn run(seed: u64) -> u32 {
    let passive = usize::try_from(seed % 3).unwrap();
    let bombs = if seed.is_multiple_of(4) { 17 } else { 0 };
    let mut world = World::with_bombs(seed, bombs).with_passive(passive);
    // To some of them leadership is handed over by those who do not know.
    world.hides_passive = seed.is_multiple_of(2);
    world.until_led();
    for _ in 0..25 {
        for _ in 0..80 {
            world.step();
        }
        world.trouble();
    }
    world.heal();
    world.hides_passive = false;
    let more = world.asked() + 3;
    world.until_answered(more);
    world.activate(passive);
    let seen = world.finish(5);
    world.replay_agrees(&seen);
    world.led_passively
}

#[test]
fn pa1_it_never_answers_through_crashes_partitions_and_transfers_and_is_as_the_others_then() {
    let led: u32 = (1..=seeds().unwrap_or(8)).map(run).sum();
    assert!(led > 0, "it was never elected, and so handed nothing over");
}

/// The logic of one node panics where that of the other does not, and the third has none: it stops by name, and
/// the other two go on.
fn one_panics(seed: u64, is_leader: bool) {
    let mut world = World::with_bombs(seed, 1_000_000).with_passive(THIRD);
    world.until_answered(10);
    let (leader, other) = actives(&mut world);
    let odd = if is_leader { leader } else { other };
    let from = world.node(odd).applied();
    world.processes[odd].faults.panics_from(Some(from));
    world.until("the odd one stops", |world| world.stopped(odd).is_some());
    let why = world.stopped(odd).unwrap();
    assert!(
        why.contains("the logic panicked at position"),
        "seed {seed}: {why}"
    );
    let more = world.asked() + 20;
    world.until_answered(more);
    world.processes[odd].faults.panics_from(None);
    world.start(odd);
    world.activate(THIRD);
    let seen = world.finish(0);
    world.replay_agrees(&seen);
}

#[test]
fn pn5_who_panics_alone_beside_a_node_without_a_logic_stops_by_name() {
    for seed in 1..=seeds().unwrap_or(3) {
        one_panics(seed, true);
        one_panics(seed, false);
    }
}

#[test]
fn pv3_two_that_differ_go_on_until_it_tells_which_is_right() {
    let mut world = world(5);
    world.until_answered(10);
    let (leader, _) = actives(&mut world);
    let from = world.node(leader).applied();
    world.processes[leader].faults.wrong_from(Some(from));
    world.until("an alarm", |world| {
        let replica = world.node(leader).replica();
        replica.disputed_state().is_some()
    });
    world.until_answered(40);
    assert!(World::others(THIRD).all(|at| world.stopped(at).is_none()));
    world.activate(THIRD);
    world.until("the leader stops", |world| world.stopped(leader).is_some());
    world.until_answered(80);
}

#[test]
fn cn5_it_begins_anew_behind_a_snapshot_of_another_gives_nothing_up_and_uses_it() {
    for seed in 1..=seeds().unwrap_or(2) {
        let mut world = World::giving_up(seed).with_passive(THIRD);
        world.until_answered(10);
        let base = |world: &World, at: usize| {
            let base = world.node(at).replica().index().base();
            base.reached.position
        };
        let end = durable(&world, THIRD);
        world.kill(THIRD);
        let given_up = |world: &World, end| World::others(THIRD).all(|at| base(world, at) > end);
        world.until("logs that begin behind its end", |world| {
            given_up(world, end)
        });
        world.start(THIRD);
        world.until("a snapshot of another", |world| world.begun_anew > 0);
        let begins = base(&world, THIRD);
        assert!(begins > end && world.node(THIRD).is_asleep(), "seed {seed}");
        world.until("the others give up more", |world| given_up(world, begins));
        // Its own log is needed from there on, and it has no other state to begin with.
        assert_eq!(base(&world, THIRD), begins, "seed {seed}");
        let listed = Snapshots::new(world.processes[THIRD].disk.clone())
            .list()
            .unwrap();
        let listed: Vec<Position> = listed.iter().map(|one| one.position).collect();
        assert_eq!(listed, [begins], "seed {seed}: it takes none of its own");
        world.activate(THIRD);
        let plan = &world.node(THIRD).recovery().plan;
        assert_eq!(plan.snapshot, Some(begins), "seed {seed}");
        world.finish(5);
    }
}

#[test]
fn what_a_passive_node_cannot_be_is_refused_by_name() {
    let mut alone = options(1, 1, &Clock::manual(0));
    alone.replica.founders = lockstep_replicator::Members::of_voters(&[NodeId(1)]);
    alone.is_passive = true;
    let refused = ClusterNode::open(Simulated::new(1), &alone, Bank::default).unwrap_err();
    assert!(refused.to_string().contains("the only voter"), "{refused}");
    alone.is_passive = false;
    let mut active = ClusterNode::open(Simulated::new(1), &alone, Bank::default).unwrap();
    let refused = active.activate().unwrap_err().to_string();
    assert!(
        refused.contains("node 1 cannot be made active"),
        "{refused}"
    );
}

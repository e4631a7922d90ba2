//! Crashes, partitions, transfers, starts: what clients were told holds.

use super::clients::is_bomb;
use super::seeds;
use super::world::{ALL, World, id_of, next_of, runs_ahead};

/// A life full of trouble; then all is well, and everything is compared.
fn run(seed: u64, bomb_every: u32) -> World {
    let mut world = World::with_bombs(seed, bomb_every);
    world.until_led();
    for _ in 0..25 {
        for _ in 0..8 {
            (0..10).for_each(|_| world.step());
            world.look_around();
        }
        world.trouble();
    }
    world.heal();
    let seen = world.finish(5);
    world.replay_agrees(&seen);
    let goal = world.deposits_max;
    for (number, (client, balance)) in world.clients.iter().zip(&seen.balances).enumerate() {
        let bombs = (1..=goal).filter(|request| is_bomb(bomb_every, number, *request));
        let deposits = goal - u32::try_from(bombs.count()).unwrap();
        assert!(client.answers.keys().copied().eq(1..=goal), "seed {seed}");
        assert_eq!(
            *balance,
            i64::from(deposits),
            "seed {seed}: applied not exactly once"
        );
        let positions: Vec<u64> = client.answers.values().copied().collect();
        assert!(positions.is_sorted(), "seed {seed}: {positions:?}");
    }
    world
}

#[test]
fn what_clients_were_told_holds_through_crashes_partitions_and_transfers() {
    let seeds = 1..=seeds().unwrap_or(20);
    let (mut from_snapshots, mut ahead) = (0, 0);
    for seed in seeds {
        let world = run(seed, 0);
        from_snapshots += world.from_snapshots;
        ahead += world.ahead;
        assert!(runs_ahead(seed) || world.ahead == 0, "seed {seed}");
    }
    assert!(from_snapshots > 10, "only {from_snapshots}");
    assert!(ahead > 1000, "only {ahead}");
}

#[test]
fn qu_what_the_logic_panics_on_is_in_quarantine_everywhere_through_crashes_and_partitions() {
    for seed in 1..=seeds().unwrap_or(6) {
        run(seed, 5 + u32::try_from(seed % 17).unwrap());
    }
}

#[test]
fn a_node_starts_behind_its_snapshot_whatever_was_replaced_behind_it() {
    let mut world = World::new(2);
    for round in 1..=4 {
        world.until_answered(round * 30);
        // Whoever leads is alone with what it takes from now on, which the others replace.
        let leader = world.leader().unwrap();
        for other in World::others(leader) {
            world.cut[leader][other] = true;
        }
        (0..40).for_each(|_| world.step());
        world.heal();
        world.until_answered(round * 30 + 10);
    }
    let before = world.finish(0);
    ALL.for_each(|at| world.kill(at));
    ALL.for_each(|at| world.start(at));
    for at in ALL {
        let recovery = world.node(at).recovery();
        assert!(recovery.plan.snapshot.is_some(), "{recovery:?}");
        assert!(recovery.plan.events < 200, "{recovery:?}");
    }
    assert_eq!(world.agree().balances, before.balances);
}

#[test]
fn a_planned_transfer_and_a_closed_cluster_go_on_where_they_were() {
    let mut world = World::new(7);
    world.deposits_max = 30;
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let other = next_of(leader);
    world.node_mut(leader).transfer_to(id_of(other)).unwrap();
    world.until("the other leads", |world| world.leader() == Some(other));
    world.until_answered(20);
    for at in ALL {
        let node = world.processes[at].node.take().unwrap();
        node.close().unwrap();
        world.start(at);
        assert_eq!(world.node(at).recovery().journal, "closed in order");
    }
    for client in &mut world.clients {
        client.asked = None;
    }
    world.until_answered(30);
    assert_eq!(world.agree().balances, [30; 4]);
}

/// The leader asks to be followed by another, in each turn, until one leads: which.
fn hand_over(world: &mut World, leader: usize) -> usize {
    for _ in 0..2_000 {
        world.node_mut(leader).hand_over();
        world.step();
        if let Some(next) = world.leader().filter(|next| *next != leader) {
            return next;
        }
    }
    panic!("seed {}: nobody takes over", world.seed);
}

#[test]
fn leadership_goes_to_who_has_all_of_the_log_and_not_to_who_has_just_come() {
    for seed in 1..=10 {
        let mut world = World::new(seed);
        world.until_answered(10);
        let leader = world.leader().unwrap();
        let level = next_of(leader);
        let restarted = next_of(level);
        world.kill(restarted);
        let more = world.asked() + 40;
        world.until_answered(more);
        world.start(restarted);
        // Until it has caught up nobody hands over to it.
        assert_eq!(hand_over(&mut world, leader), level, "seed {seed}");
        world.finish(5);
    }
}

#[test]
fn who_does_not_take_over_is_passed_over() {
    for seed in 1..=10 {
        let mut world = World::new(seed);
        world.until_answered(10);
        let leader = world.leader().unwrap();
        let first = world.node_mut(leader).hand_over().unwrap();
        let first = usize::from(first.0) - 1;
        // What it was told does not arrive, and it is still thought to be there.
        for (from, to) in [(leader, first), (first, leader)] {
            world.cut[from][to] = true;
        }
        let from_ns = world.now_ns;
        let next = hand_over(&mut world, leader);
        assert!(next != first, "seed {seed}");
        let took_ns = world.now_ns - from_ns;
        assert!(took_ns < 300_000_000, "seed {seed}: {took_ns} ns");
        world.heal();
        world.finish(5);
    }
}

#[test]
fn who_does_not_lead_hands_nothing_over() {
    let mut world = World::new(3);
    world.until_answered(10);
    let leader = world.leader().unwrap();
    let follower = next_of(leader);
    assert_eq!(world.node_mut(follower).hand_over(), None);
    // And who is alone keeps what nobody can take.
    for other in World::others(leader) {
        world.cut[leader][other] = true;
        world.cut[other][leader] = true;
    }
    world.until("it leads no more", |world| world.leader() != Some(leader));
    assert_eq!(world.node_mut(leader).hand_over(), None);
    world.heal();
    world.finish(5);
}

#[test]
fn who_led_leaves_when_the_others_commit_without_it() {
    for seed in 1..=10 {
        let mut world = World::new(seed);
        world.until_answered(10);
        let leader = world.leader().unwrap();
        // The other two are not connected with each other yet: whoever is next has its quorum with the leader.
        let (one, other) = (next_of(leader), next_of(next_of(leader)));
        (world.cut[one][other], world.cut[other][one]) = (true, true);
        let leave = |world: &mut World| {
            let now_ns = world.now_ns;
            let may_leave = world.node_mut(leader).leave(now_ns);
            world.step();
            may_leave
        };
        for _ in 0..600 {
            assert!(!leave(&mut world), "seed {seed}: nobody commits without it");
        }
        let next = world.leader().unwrap();
        assert_ne!(next, leader, "seed {seed}");
        let answers = world.answers();
        for _ in 0..600 {
            assert!(!leave(&mut world), "seed {seed}: nobody commits without it");
        }
        assert!(world.answers() > answers, "seed {seed}: they are answered");
        world.cut = Default::default();
        let mut steps = 0;
        while !leave(&mut world) {
            steps += 1;
            assert!(steps < 2_000, "seed {seed}: it does not leave");
        }
        world.kill(leader);
        let gone_ns = world.now_ns;
        let answers = world.answers();
        world.until("an answer without it", |world| {
            world.answers() > answers + 4
        });
        let silent_ns = world.now_ns - gone_ns;
        assert!(silent_ns < 100_000_000, "seed {seed}: {silent_ns} ns");
        world.start(leader);
        world.finish(5);
    }
}

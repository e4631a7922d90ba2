//! Numbers 61 to 66, 69, 75 and 78: edges, placements, writers, lanes.

use std::sync::{Arc, OnceLock};
use std::thread;

use lockstep_ringbuffer::{
    Batch, BatchMut, BuildError, Gate, Graph, Lane, LateStage, OnDrop, OnFault, Probe, Progress,
    Sequence, StageId, Standing, Turn, View, Wait, each, each_mut,
};

use crate::common::{
    BOTH, Kind, Log, build, graph, read, recorder, returns, rounds, turn_out, until,
};

#[test]
fn a61_events_published_before_the_start_are_processed() {
    for kind in BOTH {
        let mut graph = graph(8);
        let (_, seen) = recorder(&mut graph, "sees", &[]);
        let (mut producer, pipeline) = build(graph, kind);
        producer.publish_many(5).unwrap();
        let running = pipeline.start().unwrap();
        producer.publish_many(2).unwrap();
        drop(producer);
        running.join();
        assert_eq!(seen.all(), [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a62_dependents_wait_for_all_they_follow_and_the_first_for_nobody() {
    let mut graph = graph(8);
    let (first, seen_first) = recorder(&mut graph, "first", &[]);
    let left = graph.poller("left", &[first], OnDrop::Halt);
    let right = graph.poller("right", &[first], OnDrop::Halt);
    let (join, seen_join) = recorder(&mut graph, "join", &[left, right]);
    let (_, seen_last) = recorder(&mut graph, "last", &[join]);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut left = pipeline.poller(left).unwrap();
    let mut right = pipeline.poller(right).unwrap();
    producer.publish_many(4).unwrap();
    turn_out(&mut pipeline);
    assert_eq!((seen_first.len(), seen_join.len()), (4, 0));
    read(&mut left, 4);
    turn_out(&mut pipeline);
    assert_eq!(seen_join.len(), 0, "one of two is not enough");
    read(&mut right, 3);
    turn_out(&mut pipeline);
    assert_eq!((seen_join.len(), seen_last.len()), (3, 3));
    read(&mut right, 1);
    turn_out(&mut pipeline);
    assert_eq!(seen_last.all(), [0, 1, 2, 3]);
}

#[test]
fn a62_runners_of_the_users_own_do_the_same_before_and_after() {
    let mut graph = graph(8);
    let (first, _) = recorder(&mut graph, "first", &[]);
    let (second, _) = recorder(&mut graph, "second", &[first]);
    let (_, seen) = recorder(&mut graph, "third", &[second]);
    graph.together(&[first]).named("mine");
    graph.together(&[second]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let (runners, running) = pipeline.into_runners();
    let names: Vec<_> = runners
        .iter()
        .map(|runner| runner.name().to_owned())
        .collect();
    assert_eq!(names, ["mine", "second", "third"]);
    let threads: Vec<_> = runners
        .into_iter()
        .map(|runner| thread::spawn(move || runner.run()))
        .collect();
    producer.publish_many(6).unwrap();
    drop(producer);
    let report = running.join();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(report.released_by_all(), Sequence(6));
    assert_eq!(seen.len(), 6);
}

#[test]
fn a63_a_producer_is_blocked_until_the_slowest_leaf_moves() {
    let mut graph = graph(4);
    let quick = graph.poller("quick", &[], OnDrop::Halt);
    let slow = graph.poller("slow", &[], OnDrop::Halt);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let (mut quick, mut slow) = (
        pipeline.poller(quick).unwrap(),
        pipeline.poller(slow).unwrap(),
    );
    producer.publish_many(4).unwrap();
    read(&mut quick, 4);
    assert!(producer.try_publish(4).is_err());
    let published = Log::new();
    let told = published.clone();
    let publisher = thread::spawn(move || {
        let at = producer.publish(4);
        told.push(at.unwrap());
        producer
    });
    (0..50).for_each(|_| thread::yield_now());
    assert_eq!(published.len(), 0);
    read(&mut slow, 1);
    let mut producer = publisher.join().unwrap();
    assert_eq!(published.all(), [Sequence(4)]);
    assert!(producer.try_publish(5).is_err());
}

#[test]
fn a64_the_stage_of_another_graph_is_refused_though_it_looks_the_same() {
    let mut one = graph(8);
    let mut two = graph(8);
    let (foreign, _) = recorder(&mut one, "a", &[]);
    let (own, _) = recorder(&mut two, "a", &[]);
    assert_ne!(foreign, own, "identity, not equality");
    recorder(&mut two, "b", &[own, foreign]);
    let error = two.build().unwrap_err();
    assert!(matches!(error, BuildError::ForeignStage { .. }), "{error}");
    assert!(one.build().is_ok());
}

#[test]
fn a66_the_default_fault_policy_and_that_of_a_stage_may_be_set_at_any_time() {
    let mut graph = graph(8);
    let fail = || {
        each(|event: &u64, _| match event {
            1 => Err("planted"),
            _ => Ok(()),
        })
    };
    let own = graph.stage("own", &[], fail());
    graph.on_fault(OnFault::Halt);
    let default = graph.stage("default", &[], fail());
    graph.on_fault_of(own, OnFault::Halt);
    graph.on_fault(OnFault::Skip);
    graph.on_fault_of(own, OnFault::Skip);
    let last = graph.stage("last", &[own, default], fail());
    graph.on_fault_of(last, OnFault::Halt);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(3).unwrap();
    assert_eq!(turn_out(&mut pipeline), Turn::Ended);
    let released: Vec<_> = pipeline
        .report()
        .positions
        .stages
        .iter()
        .map(|s| s.released.0)
        .collect();
    assert_eq!(released, [3, 3, 1]);
}

#[test]
fn a69_what_remains_within_a_stage_is_one_less_than_outside() {
    let mut graph = graph(8);
    let probe: Arc<OnceLock<Probe>> = Arc::default();
    let (probed, remaining) = (Arc::clone(&probe), Log::new());
    let told = remaining.clone();
    graph.stage(
        "asks",
        &[],
        each(move |_: &u64, _| told.push(probed.get().unwrap().look().remaining)),
    );
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    probe.set(pipeline.probe()).unwrap();
    assert_eq!(probe.get().unwrap().look().remaining, 8);
    for _ in 0..3 {
        producer.publish(0).unwrap();
        turn_out(&mut pipeline);
        assert_eq!(probe.get().unwrap().look().remaining, 8);
    }
    assert_eq!(remaining.all(), [7, 7, 7]);
}

#[test]
fn a75_a_writer_beside_anybody_is_a_build_error_and_in_line_it_is_not() {
    let write = || each_mut(|event: &mut u64, _| *event += 1);
    let read = || each(|_: &u64, _| ());

    let mut beside = graph(8);
    beside.stage_mut("writer", &[], write());
    beside.stage("reader", &[], read());
    let error = beside.build().unwrap_err();
    assert!(
        matches!(error, BuildError::ParallelWriter { .. }),
        "{error}"
    );

    let mut two = graph(8);
    let first = two.stage("first", &[], read());
    two.stage_mut("one", &[first], write());
    two.stage_mut("two", &[first], write());
    assert!(matches!(
        two.build(),
        Err(BuildError::ParallelWriter { .. })
    ));

    let mut seats = graph(8);
    seats.stage_mut("writer", &[], write());
    seats.readers(1, &[]);
    assert!(matches!(
        seats.build(),
        Err(BuildError::ParallelWriter { .. })
    ));

    let mut held = graph(8);
    let late = held.late_stage_split("late", &[], |promise, hold| {
        move |_: View<'_, u64>| {
            let _kept = (&promise, &hold);
            Progress::All
        }
    });
    held.stage_mut("writer", &[late], write());
    assert!(matches!(
        held.build(),
        Err(BuildError::ParallelWriter { .. })
    ));

    let mut line = graph(8);
    let first = line.stage_mut("first", &[], write());
    let a = line.stage("a", &[first], read());
    let b = line.stage("b", &[first], read());
    let last = line.stage_mut("last", &[a, b], write());
    line.readers(1, &[last]);
    assert!(line.build().is_ok());
}

#[test]
fn a78_a_ring_that_starts_at_p_goes_on_with_the_same_numbers() {
    for kind in BOTH {
        let run = |start: u64, count: u64| {
            let mut graph = graph(8);
            graph.start_at(Sequence(start));
            let log = Log::new();
            let told = log.clone();
            graph.stage(
                "sees",
                &[],
                each(move |event: &u64, at| told.push((at.0, *event))),
            );
            let (mut producer, pipeline) = build(graph, kind);
            let running = pipeline.start().unwrap();
            for n in start..start + count {
                assert_eq!(producer.publish(n * 3), Ok(Sequence(n)));
            }
            drop(producer);
            let report = running.join();
            (log.all(), report.released_by_all().0)
        };
        let (whole, _) = run(0, 30);
        // The same in two lives, the second where the first one ended.
        let (mut parts, ended) = run(0, 13);
        let (rest, ended) = run(ended, 17);
        parts.extend(rest);
        assert_eq!((parts, ended), (whole, 30));
    }
}

/// Writes a lane and promises it a turn later.
struct Named {
    gate: Gate<u64>,
    lane: Lane<String>,
}

impl LateStage<u64> for Named {
    fn on_batch(&mut self, mut view: View<'_, u64>) -> Progress {
        let events = view.events().to_vec();
        for (name, event) in view.lane_mut(&self.lane).iter_mut().zip(events) {
            *name = format!("<{event}>");
        }
        Progress::All
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        let before = self.gate.released();
        self.gate.release_to(standing.taken) != before
    }
}

#[test]
fn what_a_lane_holds_is_seen_by_those_behind_its_owner_for_the_same_events() {
    for threads in [false, true] {
        let mut graph = graph(8);
        let squares = graph.lane(|| 0_u64).unwrap();
        let names = graph.lane(String::new).unwrap();
        let write = squares.clone();
        let square = graph.stage("square", &[], move |mut batch: Batch<'_, u64>| {
            for n in 0..batch.len() {
                let event = batch.events()[n];
                batch.lane_mut(&write)[n] = event * event;
            }
            Progress::All
        });
        let name = graph.late_stage("name", &[], |gate| Named {
            gate,
            lane: names.clone(),
        });
        graph.lane_owner(square, &squares).lane_owner(name, &names);
        let log = Log::new();
        let told = log.clone();
        graph.stage("join", &[square, name], move |batch: Batch<'_, u64>| {
            for (n, event) in batch.events().iter().enumerate() {
                told.push((
                    *event,
                    batch.lane(&squares)[n],
                    batch.lane(&names)[n].clone(),
                ));
            }
            Progress::All
        });
        if threads {
            for stage in [square, name] {
                graph.together(&[stage]);
            }
        }
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let count = 40;
        if threads {
            let running = pipeline.start().unwrap();
            for event in 0..count {
                producer.publish(event).unwrap();
            }
            drop(producer);
            assert!(running.join().faults.is_empty());
        } else {
            for event in 0..count {
                producer.publish(event).unwrap();
                turn_out(&mut pipeline);
            }
        }
        let expected: Vec<_> = (0..count).map(|n| (n, n * n, format!("<{n}>"))).collect();
        assert_eq!(log.all(), expected);
    }
}

#[test]
fn a_lane_is_written_by_its_owner_alone_and_read_by_those_behind_it() {
    let mut graph = graph(8);
    let lane = graph.lane(|| 0_u64).unwrap();
    let (writes, reads) = (lane.clone(), lane.clone());
    let owner = graph.stage("owner", &[], |_: Batch<'_, u64>| Progress::All);
    graph.stage("thief", &[owner], move |mut batch: Batch<'_, u64>| {
        batch.lane_mut(&writes)[0] = 1;
        Progress::All
    });
    graph.stage("beside", &[], move |batch: Batch<'_, u64>| {
        let _ = batch.lane(&reads);
        Progress::All
    });
    graph.lane_owner(owner, &lane);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    turn_out(&mut pipeline);
    let faults = pipeline.report().faults;
    assert_eq!(faults.len(), 2);
    assert!(
        faults.iter().all(|fault| fault.text.starts_with("N1:")),
        "{faults:?}"
    );
}

#[test]
fn a_stage_may_be_told_to_follow_later_than_it_was_made() {
    let mut graph = graph(8);
    let (late, seen_late) = recorder(&mut graph, "late", &[]);
    let first = graph.poller("first", &[], OnDrop::Halt);
    graph.follow(late, &[first]);
    assert_eq!(graph.find("late").unwrap(), late);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut first = pipeline.poller(first).unwrap();
    producer.publish_many(2).unwrap();
    turn_out(&mut pipeline);
    assert_eq!(seen_late.len(), 0);
    read(&mut first, 1);
    turn_out(&mut pipeline);
    assert_eq!(seen_late.len(), 1);
}

/// The names of the runners of a graph of so many stages in a row.
fn runners(stages: usize, place: impl FnOnce(&mut Graph<u64>, &[StageId])) -> Vec<String> {
    let mut graph = graph(8);
    let mut ids: Vec<StageId> = Vec::new();
    for n in 0..stages {
        let after: Vec<StageId> = ids.last().copied().into_iter().collect();
        ids.push(recorder(&mut graph, &format!("s{n}"), &after).0);
    }
    place(&mut graph, &ids);
    let (_producer, pipeline) = build(graph, Kind::Single);
    let (runners, _running) = pipeline.into_runners();
    runners
        .iter()
        .map(|runner| runner.name().to_owned())
        .collect()
}

#[test]
fn the_default_placement_has_no_more_threads_than_there_are_cpus() {
    let usable = thread::available_parallelism().unwrap().get();
    for stages in [1, 2, 3, 7, 40] {
        let names = runners(stages, |_, _| ());
        assert!(
            names.len() < usable.max(2),
            "{names:?} and the producer on {usable}"
        );
        let placed: usize = names.iter().map(|name| name.split('+').count()).sum();
        assert_eq!(placed, stages);
    }
}

#[test]
fn stages_that_share_a_thread_run_those_first_that_others_follow() {
    let names = runners(4, |graph, ids| {
        graph.together(&[ids[3], ids[0], ids[1]]);
        graph.together(&[ids[2]]).named("middle");
    });
    assert_eq!(names, ["s0+s1+s3", "middle"]);
}

#[test]
fn a_stage_on_the_caller_gets_its_turns_there() {
    let mut graph = graph(8);
    let (here, _) = recorder(&mut graph, "here", &[]);
    let log = Log::new();
    let told = log.clone();
    let there = graph.stage(
        "there",
        &[here],
        each(move |_: &u64, _| told.push(thread::current().id())),
    );
    graph.together(&[here]);
    graph.together(&[there]).on_caller();
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let mut running = pipeline.start().unwrap();
    producer.publish_many(3).unwrap();
    until("three events", || {
        running.turn();
        log.len() == 3
    });
    assert!(log.all().iter().all(|id| *id == thread::current().id()));
    producer.publish(3).unwrap();
    let report = running.drain(crate::common::PATIENCE).unwrap();
    assert_eq!(
        report.released_by_all(),
        Sequence(4),
        "a drain gives turns as well"
    );
}

#[test]
fn joining_with_a_stage_on_the_caller_is_a_mistake_that_says_so() {
    let mut graph = graph(8);
    let (here, _) = recorder(&mut graph, "here", &[]);
    graph.together(&[here]).on_caller();
    let (_producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.join()));
    let text = *panic.unwrap_err().downcast::<&str>().unwrap();
    assert!(text.contains("use drain"), "{text}");
}

#[test]
fn threads_are_named_and_pinned_as_they_were_placed() {
    let cpu = pinnable();
    let mut graph = graph(8);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.stage(
        "where",
        &[],
        each(move |_: &u64, _| {
            told.push((thread::current().name().map(str::to_owned), allowed()));
        }),
    );
    graph.together(&[stage]).named("placed").pin(cpu);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    drop(producer);
    pipeline.start().unwrap().join();
    let (name, cpus) = log.all().remove(0);
    assert_eq!(name.as_deref(), Some("placed"));
    if cfg!(all(target_os = "linux", not(miri))) {
        assert_eq!(cpus, Some(cpu.to_string()));
    }
}

/// The CPUs that this thread may use, as the kernel writes them.
fn allowed() -> Option<String> {
    if cfg!(miri) {
        return None;
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list:"))?;
    Some(line.split(':').nth(1)?.trim().to_owned())
}

/// One CPU that this process may use.
fn pinnable() -> usize {
    let first = allowed().and_then(|list| {
        let end = list
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(list.len());
        list[..end].parse().ok()
    });
    first.unwrap_or(0)
}

#[test]
fn a_writer_and_its_followers_share_a_ring_without_a_copy() {
    let mut graph = graph(16);
    let stamp = graph.stage_mut("stamp", &[], |mut batch: BatchMut<'_, u64>| {
        let first = batch.first().0;
        for (event, at) in batch.events_mut().iter_mut().zip(first..) {
            *event = *event * 1000 + at;
        }
        Progress::All
    });
    let (a, seen_a) = recorder(&mut graph, "a", &[stamp]);
    let (b, seen_b) = recorder(&mut graph, "b", &[stamp]);
    let negate = graph.stage_mut(
        "negate",
        &[a, b],
        each_mut(|event: &mut u64, _| *event = !*event),
    );
    let (_, seen_last) = recorder(&mut graph, "last", &[negate]);
    graph.together(&[stamp, b]).wait(Wait::Yield { spins: 1 });
    graph.together(&[a, negate]);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    let count = rounds(2_000, 60);
    for n in 0..count {
        producer.publish(n % 7).unwrap();
    }
    drop(producer);
    returns("the end", || running.join());
    let stamped: Vec<u64> = (0..count).map(|n| n % 7 * 1000 + n).collect();
    assert_eq!(seen_a.all(), stamped);
    assert_eq!(seen_b.all(), stamped);
    assert_eq!(
        seen_last.all(),
        stamped.iter().map(|event| !event).collect::<Vec<_>>()
    );
}

//! Numbers 58 to 60 and what was added to them: wait strategies, deadlines, and what it
//! costs to be blocked.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_ringbuffer::{ClaimError, OnDrop, OnFull, Polled, Progress, Wait, each};

use crate::common::{Kind, Log, Polling, build, graph, recorder, rounds, until};

const STRATEGIES: [&str; 7] = [
    "spin",
    "spin-pause:4",
    "yield",
    "yield:0",
    "backoff",
    "park",
    "auto",
];

fn strategies() -> impl Iterator<Item = Wait> {
    STRATEGIES.into_iter().map(|text| text.parse().unwrap())
}

#[test]
fn a58_every_strategy_sees_an_update_that_comes_late() {
    for wait in strategies() {
        let mut graph = graph(8);
        let (first, _) = recorder(&mut graph, "first", &[]);
        let (_, seen) = recorder(&mut graph, "second", &[first]);
        graph.together(&[first]);
        graph.wait(wait);
        let (mut producer, pipeline) = build(graph, Kind::Single);
        let running = pipeline.start().unwrap();
        thread::sleep(Duration::from_millis(50));
        producer.publish(7).unwrap();
        until(&format!("an event with {wait}"), || seen.all() == [7]);
        drop((producer, running));
    }
}

#[test]
fn a59_a_timed_wait_ends_by_timeout_and_not_earlier() {
    let limit = Duration::from_millis(20);
    for wait in strategies() {
        let mut graph = graph(1);
        graph.producer_wait(wait).on_full(OnFull::WaitFor(limit));
        let mut ring = Polling::of(graph, Kind::Single);
        ring.producer.publish(0).unwrap();
        let start = Instant::now();
        let outcome = ring.producer.publish(1);
        assert_eq!(outcome, Err(ClaimError::TimedOut { missing: 1 }), "{wait}");
        assert!(start.elapsed() >= limit, "{wait}");
    }
}

#[test]
fn a_producer_that_waits_for_a_dependent_stage_times_out_too() {
    for wait in strategies() {
        let mut graph = graph(4);
        let (first, _) = recorder(&mut graph, "first", &[]);
        let stuck = graph.poller("never polled", &[first], OnDrop::Halt);
        graph.producer_wait(wait);
        graph.on_full(OnFull::WaitFor(Duration::from_millis(5)));
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let _stuck = pipeline.poller(stuck).unwrap();
        let running = pipeline.start().unwrap();
        producer.publish_many(4).unwrap();
        // The first stage goes through all of it, and that does not help.
        until("the first stage", || {
            crate::common::released(&running, 0) == 4
        });
        assert_eq!(
            producer.publish(4),
            Err(ClaimError::TimedOut { missing: 1 }),
            "{wait}"
        );
    }
}

#[test]
fn a60_delays_that_cross_every_phase_of_a_strategy_are_survived() {
    let delays = [0, 1, 2, 10].map(Duration::from_millis);
    for wait in ["backoff:10,10,100000", "backoff:0,0,1", "auto", "park"] {
        let mut graph = graph(8);
        let (_, seen) = recorder(&mut graph, "sees", &[]);
        graph.wait(wait.parse().unwrap());
        let (mut producer, pipeline) = build(graph, Kind::Single);
        let running = pipeline.start().unwrap();
        for (delay, event) in delays.into_iter().cycle().take(8).zip(0..) {
            thread::sleep(delay);
            producer.publish(event).unwrap();
        }
        drop(producer);
        assert_eq!(running.join().released_by_all().0, 8, "{wait}");
        assert_eq!(seen.all(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

/// A lost wake-up costs a park its backstop here; `wake` has the same rounds without one,
/// where a lost wake-up hangs, and the models show why there is none.
#[test]
fn threads_that_park_and_publish_in_turns_always_wake() {
    let count = rounds(5_000, 20);
    let mut there = graph(2);
    there.wait(Wait::Park);
    let mut back = graph(2);
    back.wait(Wait::Park);
    let (_, seen) = recorder(&mut back, "home", &[]);
    let (mut reply, back) = build(back, Kind::Single);
    there.stage(
        "echo",
        &[],
        each(move |event: &u64, _| {
            reply.publish(*event).unwrap();
        }),
    );
    let (mut ask, there) = build(there, Kind::Single);
    let (there, back) = (there.start().unwrap(), back.start().unwrap());
    for round in 0..count {
        ask.publish(round).unwrap();
        let answered = usize::try_from(round + 1).unwrap();
        until("the echo", || seen.len() == answered);
    }
    drop(ask);
    assert!(there.join().faults.is_empty());
    assert_eq!(back.join().released_by_all().0, count);
}

/// The scheduler counts what a thread ran, in nanoseconds: the first number.
#[cfg(all(target_os = "linux", not(miri)))]
fn cpu_time(task: &std::path::Path) -> Option<Duration> {
    let text = std::fs::read_to_string(std::path::Path::new("/proc").join(task).join("schedstat"));
    let nanoseconds = text.ok()?.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_dependent_stage_that_is_blocked_uses_about_no_cpu() {
    struct Tells(Arc<Mutex<Option<std::path::PathBuf>>>);
    impl lockstep_ringbuffer::Stage<u64> for Tells {
        fn on_batch(&mut self, _: lockstep_ringbuffer::Batch<'_, u64>) -> Progress {
            Progress::All
        }
        fn on_start(&mut self) {
            *self.0.lock().unwrap() = std::fs::read_link("/proc/thread-self").ok();
        }
    }
    let blocked_for = Duration::from_millis(500);
    for wait in [Wait::Park, Wait::Auto] {
        let task = Arc::default();
        let mut graph = graph(64);
        let first = graph.poller("blocks", &[], OnDrop::Halt);
        let dependent = graph.stage("dependent", &[first], Tells(Arc::clone(&task)));
        graph.together(&[dependent]).wait(wait);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        let mut first = pipeline.poller(first).unwrap();
        let running = pipeline.start().unwrap();
        // Its upstream is published to all the time, so the ring itself is never idle.
        producer.publish_many(64).unwrap();
        until("the start", || task.lock().unwrap().is_some());
        let task = task.lock().unwrap().clone().unwrap();
        let Some(before) = cpu_time(&task) else {
            eprintln!("skipped: this kernel does not count what threads run");
            return;
        };
        thread::sleep(blocked_for);
        let used = cpu_time(&task).unwrap() - before;
        assert!(
            used < blocked_for / 10,
            "{wait}: {used:?} of {blocked_for:?}"
        );
        // And it wakes when what it waits for moves.
        assert_eq!(first.poll(64, |_| Progress::All), Polled::Ran(64));
        until("the dependent", || {
            crate::common::released(&running, 1) == 64
        });
    }
}

#[test]
fn a_thread_may_have_a_strategy_of_its_own() {
    let mut graph = graph(8);
    let log = Log::new();
    for (name, wait) in [
        ("spins", Wait::Spin),
        ("parks", Wait::Park),
        ("auto", Wait::Auto),
    ] {
        let told = log.clone();
        let stage = each(move |event: &u64, _| told.push((name, *event)));
        let id = graph.stage(name, &[], stage);
        graph.together(&[id]).wait(wait);
    }
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    for event in 0..20 {
        producer.publish(event).unwrap();
    }
    until("all events", || log.len() == 60);
    assert!(Wait::Spin.spins_for_ever() && !Wait::Auto.spins_for_ever());
    drop((producer, running));
}

#[test]
fn a_parked_stage_that_leaves_its_batch_is_asked_again_though_nobody_wakes_it() {
    let mut graph = graph(8);
    let tries = Log::new();
    let told = tries.clone();
    graph.stage(
        "full",
        &[],
        move |_: lockstep_ringbuffer::Batch<'_, u64>| {
            told.push(());
            // As if another ring had no room: what makes room there knows nothing of us.
            if told.len() < 500 {
                Progress::Retry
            } else {
                Progress::All
            }
        },
    );
    graph.wait(Wait::Park);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    let running = pipeline.start().unwrap();
    producer.publish(0).unwrap();
    // With the backstop alone these tries would take most of a minute.
    until("the last try", || tries.len() == 500);
    drop(producer);
    assert_eq!(running.join().released_by_all().0, 1);
}

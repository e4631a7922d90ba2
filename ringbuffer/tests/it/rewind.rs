//! Numbers 46 to 54: events that are delivered again, because a stage says so or because
//! it failed.

use std::time::{Duration, Instant};

use lockstep_ringbuffer::{
    Batch, FaultKind, GiveUp, OnFault, Progress, Sequence, Turn, View, each,
};

use crate::common::{Kind, Log, build, graph, turn_out};

/// Runs `events` through a stage that answers as it is told for each batch, by number and
/// content; the batches that it saw.
fn batches(
    events: usize,
    max_batch: usize,
    answer: impl Fn(usize, &Batch<'_, u64>) -> Progress + Send + 'static,
) -> Vec<Vec<u64>> {
    let mut graph = graph(32);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.stage("rewinds", &[], move |batch: Batch<'_, u64>| {
        let number = told.len();
        told.push(batch.events().to_vec());
        answer(number, &batch)
    });
    graph.max_batch(stage, max_batch);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(events).unwrap();
    // A turn without progress is idle: the stage is asked again all the same.
    for _ in 0..100 {
        pipeline.turn();
    }
    assert_eq!(pipeline.report().released_by_all(), Sequence(events as u64));
    log.all()
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..to).collect()
}

#[test]
fn a46_a_rewind_at_any_event_of_a_batch_repeats_from_there() {
    for count in [1, 10] {
        for at in 0..count as u64 {
            let seen = batches(count, 32, move |number, _| match number {
                0 => Progress::To(Sequence(at)),
                _ => Progress::All,
            });
            assert_eq!(seen, [range(0, count as u64), range(at, count as u64)]);
        }
        let seen = batches(count, 32, |number, _| match number {
            0 => Progress::Retry,
            _ => Progress::All,
        });
        assert_eq!(seen, [range(0, count as u64), range(0, count as u64)]);
    }
}

#[test]
fn a47_several_rewinds_at_one_event_and_at_several_of_one_batch() {
    let seen = batches(10, 32, |number, _| match number {
        0..3 => Progress::To(Sequence(4)),
        3 => Progress::To(Sequence(7)),
        4 => Progress::Retry,
        _ => Progress::All,
    });
    assert_eq!(
        seen,
        [(0, 10), (4, 10), (4, 10), (4, 10), (7, 10), (7, 10)].map(|(a, b)| range(a, b))
    );
}

#[test]
fn a48_only_the_batch_that_failed_comes_again() {
    let seen = batches(30, 10, |number, _| match number {
        1 => Progress::Retry,
        _ => Progress::All,
    });
    assert_eq!(
        seen,
        [(0, 10), (10, 20), (10, 20), (20, 30)].map(|(a, b)| range(a, b))
    );
}

#[test]
fn a49_the_largest_batch_holds_for_what_comes_again() {
    let seen = batches(30, 10, |_, batch| match batch.first().0 {
        0 => Progress::To(Sequence(5)),
        _ => Progress::All,
    });
    assert_eq!(
        seen,
        [(0, 10), (5, 15), (15, 25), (25, 30)].map(|(a, b)| range(a, b))
    );
}

/// A stage that goes event by event and fails at `bad` as often as told, under a policy.
fn failing(
    policy: OnFault,
    bad: u64,
    failures: u32,
) -> (Vec<u64>, lockstep_ringbuffer::Report, Turn) {
    let mut graph = graph(32);
    let log = Log::new();
    let told = log.clone();
    let mut left = failures;
    let stage = graph.stage(
        "fails",
        &[],
        each(move |event: &u64, _| {
            told.push(*event);
            if *event == bad && left > 0 {
                left -= 1;
                return Err("planted");
            }
            Ok(())
        }),
    );
    graph.on_fault_of(stage, policy);
    graph.max_batch(stage, 32);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(20).unwrap();
    let turn = turn_out(&mut pipeline);
    (log.all(), pipeline.report(), turn)
}

const fn retry(times: u32, then: GiveUp) -> OnFault {
    OnFault::Retry {
        times,
        pause: Duration::ZERO,
        then,
    }
}

#[test]
fn a50_the_policy_is_asked_once_for_each_failure_and_never_without() {
    for failures in 0..4 {
        let (seen, report, turn) = failing(retry(5, GiveUp::Halt), 12, failures);
        assert_eq!(turn, Turn::Idle);
        assert_eq!(report.fault_count, u64::from(failures));
        assert!(
            report
                .faults
                .iter()
                .all(|fault| fault.kind == FaultKind::Retried && fault.at == Sequence(12))
        );
        let expected: Vec<u64> = (0..12)
            .chain((0..failures).map(|_| 12))
            .chain(12..20)
            .collect();
        assert_eq!(seen, expected, "only the event that failed comes again");
    }
}

#[test]
fn a51_a_pause_is_kept_before_the_event_comes_again() {
    let pause = Duration::from_millis(20);
    let mut graph = graph(8);
    let times = Log::new();
    let told = times.clone();
    let stage = graph.stage(
        "fails",
        &[],
        each(move |_: &u64, _| {
            told.push(Instant::now());
            if told.len() == 1 {
                Err("planted")
            } else {
                Ok(())
            }
        }),
    );
    let other = graph.stage("goes on", &[], each(|_: &u64, _| ()));
    graph.on_fault_of(
        stage,
        OnFault::Retry {
            times: 1,
            pause,
            then: GiveUp::Halt,
        },
    );
    // Nobody wakes it when the pause is over.
    graph
        .together(&[stage, other])
        .wait(lockstep_ringbuffer::Wait::Park);
    let (mut producer, pipeline) = build(graph, Kind::Single);
    producer.publish(0).unwrap();
    drop(producer);
    let running = pipeline.start().unwrap();
    let report = running.join();
    assert_eq!(report.positions.stages[1].released, Sequence(1));
    let times = times.all();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= pause);
}

#[test]
fn a52_a_stage_that_gives_up_after_three_skips_the_event_and_goes_on() {
    let (seen, report, turn) = failing(retry(3, GiveUp::Skip), 15, 9);
    assert_eq!(turn, Turn::Idle);
    let expected: Vec<u64> = (0..15).chain([15; 4]).chain(16..20).collect();
    assert_eq!(seen, expected);
    let kinds: Vec<_> = report.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(
        kinds,
        [
            FaultKind::Retried,
            FaultKind::Retried,
            FaultKind::Retried,
            FaultKind::Skipped
        ]
    );
    assert_eq!(report.released_by_all(), Sequence(20));

    let (seen, report, turn) = failing(retry(3, GiveUp::Halt), 15, 9);
    assert_eq!((turn, seen.len()), (Turn::Ended, 15 + 4));
    assert_eq!(report.released_by_all(), Sequence(15));
}

#[test]
fn a53_an_error_a_panic_and_a_promise_outside_the_batch_all_go_to_the_policy() {
    let answers: [fn(&Batch<'_, u64>) -> Progress; 4] = [
        |_| Progress::fail("planted"),
        |_| panic!("planted"),
        |batch| Progress::To(batch.end() + 1),
        |batch| Progress::To(Sequence(batch.first().0 - 1)),
    ];
    for (answer, (kind, text)) in answers.into_iter().zip([
        (FaultKind::Error, "planted"),
        (FaultKind::Panic, "planted"),
        (FaultKind::Error, "promised 9, which is outside 4..=8"),
        (FaultKind::Error, "promised 3, which is outside 4..=8"),
    ]) {
        let mut graph = graph(8);
        let stage = graph.stage("answers", &[], move |batch: Batch<'_, u64>| {
            match batch.first().0 {
                4 => answer(&batch),
                _ => Progress::All,
            }
        });
        graph.max_batch(stage, 4);
        let (mut producer, mut pipeline) = build(graph, Kind::Single);
        producer.publish_many(8).unwrap();
        assert_eq!(turn_out(&mut pipeline), Turn::Ended);
        let fault = pipeline.report().faults[0].clone();
        assert_eq!((fault.kind, fault.text.as_str()), (kind, text));
        assert_eq!(fault.at, Sequence(4));
    }
}

#[test]
fn a54_a_policy_that_needs_single_events_is_refused_where_there_are_none() {
    for policy in [OnFault::Skip, retry(3, GiveUp::Skip)] {
        let mut graph = graph(8);
        let stage = graph.stage("whole", &[], |_: Batch<'_, u64>| Progress::All);
        graph.on_fault_of(stage, policy);
        let error = graph.build().unwrap_err().to_string();
        assert!(error.contains("\"whole\" takes whole batches"), "{error}");
    }
}

#[test]
fn a_late_stage_rewinds_what_it_has_taken_and_not_what_is_released() {
    let mut graph = graph(8);
    let log = Log::new();
    let told = log.clone();
    let stage = graph.late_stage("late", &[], |mut gate| {
        let mut number = 0;
        move |view: View<'_, u64>| {
            told.push(view.events().to_vec());
            number += 1;
            match number {
                1 => Progress::Retry,
                2 => Progress::To(Sequence(2)),
                _ => {
                    gate.release_to(Sequence(2));
                    Progress::All
                }
            }
        }
    });
    graph.max_batch(stage, 8);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    producer.publish_many(4).unwrap();
    for _ in 0..6 {
        pipeline.turn();
    }
    assert_eq!(log.all(), [range(0, 4), range(0, 4), range(2, 4)]);
    let position = &pipeline.probe().look().stages[0];
    assert_eq!(
        (position.released, position.taken),
        (Sequence(2), Sequence(4))
    );
}

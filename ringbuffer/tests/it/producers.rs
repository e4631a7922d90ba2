//! Numbers 8 to 24: claims and publication, for one producer and for many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lockstep_ringbuffer::{Batch, ClaimError, OnFull, Polled, Progress, Sequence};

use crate::common::{
    BOTH, Either, Kind, Log, Polling, VOID, build, graph, rounds, turn_out, until,
};

const FULL_BY_ONE: ClaimError = ClaimError::Full { missing: 1 };

#[test]
fn a08_the_first_claim_is_where_the_ring_starts() {
    for kind in BOTH {
        for start in [0, 1, 7, 8, 1 << 40, u64::MAX / 2] {
            let mut graph = graph(8);
            graph.start_at(Sequence(start));
            let mut ring = Polling::of(graph, kind);
            assert_eq!(ring.producer.publish(5), Ok(Sequence(start)));
            assert_eq!(ring.read(10), [5]);
            assert_eq!(ring.producer.publish_many(8), Ok(Sequence(start + 1)));
            assert_eq!(ring.read_all().len(), 8);
        }
    }
}

#[test]
fn a09_a_claim_of_four_covers_four() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        assert_eq!(ring.producer.publish_many(4), Ok(Sequence(0)));
        assert_eq!(ring.producer.remaining(), 4);
        assert_eq!(ring.read_all(), [0, 1, 2, 3]);
    }
}

#[test]
fn a10_there_is_room_for_the_size_and_for_one_less_after_one_event() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        ring.producer.abort(1).unwrap();
        ring.read_all();
        assert_eq!(ring.producer.remaining(), 8);
        assert!(matches!(
            ring.producer.try_publish_many(9),
            Err(ClaimError::TooLarge {
                asked: 9,
                capacity: 8
            })
        ));
        ring.producer.publish(0).unwrap();
        assert_eq!(ring.producer.try_publish_many(8), Err(FULL_BY_ONE));
        assert!(ring.producer.try_publish_many(7).is_ok());
    }
}

#[test]
fn a11_there_is_no_room_when_the_ring_is_full_and_unread() {
    for kind in BOTH {
        let mut ring = Polling::new(4, kind);
        ring.producer.publish_many(4).unwrap();
        assert_eq!(ring.producer.remaining(), 0);
        assert_eq!(ring.producer.try_publish(1), Err(FULL_BY_ONE));
    }
}

#[test]
fn a12_a_producer_is_held_while_full_and_one_step_of_the_consumer_frees_one() {
    for kind in BOTH {
        let Polling {
            mut producer,
            mut poller,
            pipeline,
        } = Polling::new(4, kind);
        producer.publish_many(4).unwrap();
        let is_through = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&is_through);
        let publisher = thread::spawn(move || {
            let at = producer.publish(4);
            tells.store(true, Ordering::Release);
            (at, producer)
        });
        (0..100).for_each(|_| thread::yield_now());
        assert!(!is_through.load(Ordering::Acquire), "held");
        poller.poll(1, |batch| Progress::To(batch.end()));
        let (at, mut producer) = publisher.join().unwrap();
        assert_eq!(at, Ok(Sequence(4)), "exactly the next sequence");
        assert_eq!(
            producer.try_publish(9),
            Err(FULL_BY_ONE),
            "exactly one slot"
        );
        assert_eq!(pipeline.probe().look().published, Sequence(5));
    }
}

#[test]
fn a13_trying_on_a_full_ring_is_an_error_after_claims_and_after_tries() {
    for kind in BOTH {
        for tries in [false, true] {
            let mut ring = Polling::new(4, kind);
            for event in 0..4 {
                let outcome = if tries {
                    ring.producer.try_publish(event)
                } else {
                    ring.producer.publish(event)
                };
                assert_eq!(outcome, Ok(Sequence(event)));
            }
            for _ in 0..3 {
                assert_eq!(ring.producer.try_publish(9), Err(FULL_BY_ONE));
                assert_eq!(
                    ring.producer.try_publish_many(3),
                    Err(ClaimError::Full { missing: 3 })
                );
            }
            assert_eq!(ring.read_all(), [0, 1, 2, 3]);
        }
    }
}

#[test]
fn a14_what_remains_falls_by_one_for_each_event() {
    for kind in BOTH {
        let mut ring = Polling::new(16, kind);
        for event in 0..16_u64 {
            assert_eq!(ring.producer.remaining() as u64, 16 - event);
            ring.producer.publish(event).unwrap();
        }
        assert_eq!(ring.producer.remaining(), 0);
        ring.read(5);
        assert_eq!(ring.producer.remaining(), 5);
    }
}

#[test]
fn a15_nothing_is_seen_before_it_is_published_and_exactly_the_range_after() {
    let mut ring = Polling::new(8, Kind::Single);
    let Either::Single(producer) = &mut ring.producer else {
        unreachable!()
    };
    let mut claim = producer.claim(3).unwrap();
    claim.slots().copy_from(&[1, 2, 3]);
    assert_eq!(ring.poller.poll(9, |_| Progress::All), Polled::Idle);
    claim.commit();
    assert_eq!(ring.read_all(), [1, 2, 3]);

    let mut ring = Polling::new(8, Kind::Multi);
    let Either::Multi(producer) = &mut ring.producer else {
        unreachable!()
    };
    let mut claim = producer.claim(3).unwrap();
    claim.slots().copy_from(&[1, 2, 3]);
    // With many producers a claim shows as published and gated, since it is on its way.
    assert_eq!(ring.poller.poll(9, |_| Progress::All), Polled::Gated);
    claim.commit();
    assert_eq!(ring.read_all(), [1, 2, 3]);
}

#[test]
fn a16_what_is_published_at_once_arrives_at_once() {
    for kind in BOTH {
        let mut graph = graph(16);
        let sizes = Log::new();
        let told = sizes.clone();
        let stage = graph.stage("sizes", &[], move |batch: Batch<'_, u64>| {
            told.push(batch.len());
            Progress::All
        });
        graph.max_batch(stage, 16);
        let (mut producer, mut pipeline) = build(graph, kind);
        producer.publish(0).unwrap();
        turn_out(&mut pipeline);
        producer.publish_many(10).unwrap();
        turn_out(&mut pipeline);
        assert_eq!(sizes.all(), [1, 10], "once for an event, once for a batch");
    }
}

#[test]
fn a17_of_a_claim_of_ten_half_is_published_and_then_the_rest() {
    let mut ring = Polling::new(16, Kind::Single);
    ring.producer.publish_part(10, 5).unwrap();
    assert_eq!(ring.read_all(), [0, 1, 2, 3, 4]);
    assert_eq!(ring.producer.publish_many(5), Ok(Sequence(5)), "used again");
    assert_eq!(ring.read_all(), [5, 6, 7, 8, 9]);

    // Many: two claims of five; the first is committed, then the second.
    let mut ring = Polling::new(16, Kind::Multi);
    let Either::Multi(first) = &mut ring.producer else {
        unreachable!()
    };
    let mut second = first.clone();
    let mut early = first.claim(5).unwrap();
    let mut late = second.claim(5).unwrap();
    early.slots().copy_from(&[0, 1, 2, 3, 4]);
    late.slots().copy_from(&[5, 6, 7, 8, 9]);
    early.commit();
    assert_eq!(crate::common::read(&mut ring.poller, 99), [0, 1, 2, 3, 4]);
    late.commit();
    assert_eq!(ring.read_all(), [5, 6, 7, 8, 9]);
}

#[test]
fn a17_a_part_of_a_claim_of_many_producers_leaves_void_behind_it_and_no_hole() {
    let mut ring = Polling::new(16, Kind::Multi);
    ring.producer.publish_part(4, 2).unwrap();
    ring.producer.abort(2).unwrap();
    ring.producer.publish(6).unwrap();
    assert_eq!(ring.read_all(), [0, 1, VOID, VOID, VOID, VOID, 6]);
}

#[test]
fn a18_the_claim_after_p_is_p_and_one() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        for at in 0..rounds(100, 20) {
            assert_eq!(ring.producer.publish(at), Ok(Sequence(at)));
            assert_eq!(ring.read(9), [at]);
        }
    }
}

#[test]
fn a19_a_claim_of_nothing_is_refused() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        assert_eq!(ring.producer.publish_many(0), Err(ClaimError::Nothing));
        assert_eq!(ring.producer.try_publish_many(0), Err(ClaimError::Nothing));
        assert_eq!(ring.producer.publish(7), Ok(Sequence(0)));
    }
    let Either::Single(mut producer) = Polling::new(8, Kind::Single).producer else {
        unreachable!()
    };
    assert!(matches!(
        producer.try_claim_up_to(0),
        Err(ClaimError::Nothing)
    ));
}

#[test]
fn a20_a_claim_of_more_than_the_ring_is_refused_at_once() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        for asked in [9, 64, usize::MAX] {
            let refused = Err(ClaimError::TooLarge { asked, capacity: 8 });
            assert_eq!(ring.producer.publish_many(asked), refused);
            assert_eq!(ring.producer.try_publish_many(asked), refused);
        }
        assert_eq!(ring.producer.publish_many(8), Ok(Sequence(0)));
    }
}

#[test]
fn a21_a_slot_of_the_lap_before_is_not_taken_for_an_event() {
    for kind in BOTH {
        let mut ring = Polling::new(4, kind);
        for lap in 0..3_u64 {
            ring.producer.publish_many(4).unwrap();
            assert_eq!(ring.read_all(), [0, 1, 2, 3].map(|n| 4 * lap + n));
            assert_eq!(ring.poller.poll(9, |_| Progress::All), Polled::Idle);
        }
    }
}

#[test]
fn a22_out_of_order_publication_shows_only_what_is_there_without_a_hole() {
    let mut ring = Polling::new(8, Kind::Multi);
    let Either::Multi(producer) = &mut ring.producer else {
        unreachable!()
    };
    let mut handles: Vec<_> = (0..6).map(|_| producer.clone()).collect();
    let mut claims: Vec<_> = handles
        .iter_mut()
        .map(|handle| Some(handle.claim(1).unwrap()))
        .collect();
    let mut commit = |at: usize| {
        let mut claim = claims[at].take().unwrap();
        claim.slots().head[0] = at as u64;
        claim.commit();
    };
    let mut poller = ring.poller;
    let mut read = || crate::common::read(&mut poller, 99);
    commit(3);
    commit(5);
    assert_eq!(read(), [0; 0], "0 is missing");
    commit(0);
    assert_eq!(read(), [0]);
    commit(2);
    assert_eq!(read(), [0; 0]);
    commit(1);
    assert_eq!(read(), [1, 2, 3], "5 waits for 4");
    commit(4);
    assert_eq!(read(), [4, 5]);
}

#[test]
fn a23_asking_changes_nothing() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        ring.producer.publish_many(5).unwrap();
        let probe = ring.pipeline.probe();
        let before = probe.look();
        for _ in 0..10 {
            assert_eq!(ring.producer.remaining(), 3);
            assert_eq!(ring.producer.check(), Ok(()));
            assert_eq!(ring.poller.released(), Sequence(0));
        }
        assert_eq!(probe.look(), before);
        assert_eq!(ring.read_all(), [0, 1, 2, 3, 4]);
    }
}

/// That two threads cannot use a `Producer` is shown by the examples of `acceptance` that
/// do not compile; this is what does.
#[test]
fn a24_a_producer_moves_between_threads_and_many_producers_are_cloned() {
    fn sent<T: Send>(_: &T) {}
    let mut ring = Polling::new(8, Kind::Single);
    sent(&ring.producer);
    ring.producer = thread::spawn(move || {
        ring.producer.publish(1).unwrap();
        ring.producer
    })
    .join()
    .unwrap();
    ring.producer.publish(2).unwrap();

    let mut many = Polling::new(64, Kind::Multi);
    let Either::Multi(producer) = &many.producer else {
        unreachable!()
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let mut mine = producer.clone();
            scope.spawn(move || {
                (0..16).for_each(|n| {
                    mine.publish(|slot| *slot = 100 * thread + n).unwrap();
                });
            });
        }
    });
    let mut seen = many.read_all();
    seen.sort_unstable();
    let expected: Vec<u64> = (0..4)
        .flat_map(|t| (0..16).map(move |n| 100 * t + n))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_policy_that_rejects_never_waits() {
    for kind in BOTH {
        let mut graph = graph(4);
        graph.on_full(OnFull::Reject);
        let mut ring = Polling::of(graph, kind);
        ring.producer.publish_many(3).unwrap();
        assert_eq!(
            ring.producer.publish_many(3),
            Err(ClaimError::Full { missing: 2 })
        );
        assert_eq!(ring.producer.publish(3), Ok(Sequence(3)));
        assert_eq!(ring.producer.publish(4), Err(FULL_BY_ONE));
        assert_eq!(ring.read(1), [0]);
        assert_eq!(ring.producer.publish(4), Ok(Sequence(4)));
    }
}

#[test]
fn a_policy_that_sheds_load_resumes_only_when_enough_is_free() {
    for kind in BOTH {
        let mut graph = graph(8);
        graph.on_full(OnFull::Shed { resume_at_free: 4 });
        let mut ring = Polling::of(graph, kind);
        ring.producer.publish_many(8).unwrap();
        assert_eq!(ring.producer.publish(8), Err(FULL_BY_ONE));
        for freed in 1..4 {
            ring.read(1);
            let refused = ring.producer.publish(8);
            assert_eq!(
                refused,
                Err(ClaimError::Full { missing: 0 }),
                "{freed} free"
            );
        }
        ring.read(1);
        for event in 8..12 {
            assert_eq!(ring.producer.publish(event), Ok(Sequence(event)));
        }
        assert_eq!(
            ring.producer.publish(12),
            Err(FULL_BY_ONE),
            "to the last slot"
        );
    }
}

#[test]
fn a_policy_with_a_deadline_times_out_and_says_how_much_is_missing() {
    for kind in BOTH {
        let mut graph = graph(4);
        graph.on_full(OnFull::WaitFor(Duration::from_millis(2)));
        let mut ring = Polling::of(graph, kind);
        ring.producer.publish_many(3).unwrap();
        assert_eq!(
            ring.producer.publish_many(3),
            Err(ClaimError::TimedOut { missing: 2 })
        );
        assert_eq!(
            ring.producer.publish(3),
            Ok(Sequence(3)),
            "nothing was claimed"
        );
    }
}

#[test]
fn a_deadline_at_the_end_of_all_time_is_none() {
    let mut graph = graph(1);
    graph.on_full(OnFull::WaitFor(Duration::MAX));
    let Polling {
        mut producer,
        mut poller,
        ..
    } = Polling::of(graph, Kind::Single);
    producer.publish(0).unwrap();
    let publisher = thread::spawn(move || producer.publish(1));
    until("an event", || {
        poller.poll(1, |_| Progress::All) == Polled::Ran(1)
    });
    assert_eq!(publisher.join().unwrap(), Ok(Sequence(1)));
}

#[test]
fn a_claim_of_up_to_so_many_takes_what_is_free() {
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish_many(3).unwrap();
    let Either::Single(producer) = &mut ring.producer else {
        unreachable!()
    };
    assert_eq!(producer.try_claim_up_to(2).unwrap().len(), 2);
    let claim = producer.try_claim_up_to(100).unwrap();
    assert_eq!((claim.len(), claim.is_empty()), (5, false));
    let _given_up = claim;
    assert_eq!(producer.next_sequence(), Sequence(3));
    producer.publish_batch(5, |_| ()).unwrap();
    assert!(matches!(
        producer.try_claim_up_to(1),
        Err(ClaimError::Full { missing: 1 })
    ));
}

#[test]
fn a_slice_is_published_by_copy_across_the_wrap_and_in_parts() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        ring.producer.publish_many(5).unwrap();
        ring.read_all();
        assert_eq!(
            ring.producer.publish_slice(&[1, 2, 3, 4, 5, 6]),
            Ok(Sequence(5))
        );
        assert_eq!(ring.read_all(), [1, 2, 3, 4, 5, 6]);
    }
    // One producer: longer than the ring, while a consumer makes room.
    let Polling {
        producer: Either::Single(mut producer),
        mut poller,
        ..
    } = Polling::new(8, Kind::Single)
    else {
        unreachable!()
    };
    let publisher = thread::spawn(move || {
        let events: Vec<u64> = (0..100).collect();
        assert_eq!(producer.publish_slice(&events), Ok(Sequence(0)));
        assert_eq!(producer.publish_slice(&[]), Ok(Sequence(100)));
    });
    let mut seen = Vec::new();
    until("all of the slice", || {
        seen.extend(crate::common::read(&mut poller, 99));
        seen.len() == 100
    });
    publisher.join().unwrap();
    assert_eq!(seen, (0..100).collect::<Vec<u64>>());
}

#[test]
fn a_slice_that_cannot_be_published_whole_tells_how_far_it_came() {
    let mut graph = graph(8);
    graph.on_full(OnFull::Reject);
    let mut ring = Polling::of(graph, Kind::Single);
    let Either::Single(producer) = &mut ring.producer else {
        unreachable!()
    };
    let events: Vec<u64> = (0..11).collect();
    let outcome = producer.publish_slice(&events);
    assert_eq!(outcome, Err((8, ClaimError::Full { missing: 3 })));
    assert_eq!(ring.read_all(), (0..8).collect::<Vec<u64>>());
}

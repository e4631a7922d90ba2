//! Numbers 25 to 35, 79, 81 and 82: events through slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lockstep_ringbuffer::{
    Batch, ClaimError, Graph, JoinAt, Memory, Polled, Progress, Sequence, Tapped, Wait, each, tap,
};

use crate::common::{
    BOTH, Either, Kind, Log, Polling, build, graph, read, recorder, rounds, turn_out, until,
};

#[test]
fn a25_an_event_is_claimed_written_and_read_on_one_thread() {
    for kind in BOTH {
        let mut ring = Polling::new(32, kind);
        assert_eq!(ring.poller.poll(1, |_| Progress::All), Polled::Idle);
        ring.producer.publish(2701).unwrap();
        let polled = ring.poller.poll(1, |batch| {
            assert_eq!((batch.first(), batch.events()), (Sequence(0), &[2701][..]));
            Progress::All
        });
        assert_eq!(polled, Polled::Ran(1));
    }
}

#[test]
fn a26_an_event_is_read_on_another_thread() {
    for kind in BOTH {
        let Polling {
            mut producer,
            mut poller,
            ..
        } = Polling::new(32, kind);
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            until("an event", || {
                seen = read(&mut poller, 1);
                !seen.is_empty()
            });
            seen
        });
        producer.publish(2701).unwrap();
        assert_eq!(reader.join().unwrap(), [2701]);
    }
}

#[test]
fn a27_several_events_are_read_in_their_order() {
    for kind in BOTH {
        let mut ring = Polling::new(32, kind);
        for event in 0..32 {
            ring.producer.publish(event).unwrap();
        }
        assert_eq!(ring.read_all(), (0..32).collect::<Vec<_>>());
    }
}

#[test]
fn a28_who_lags_a_lap_behind_without_holding_anybody_back_reads_the_newest() {
    let (stage, taps) = tap::<u64>(8);
    let mut graph = graph(8);
    graph.stage("tap", &[], stage);
    let (mut producer, mut pipeline) = build(graph, Kind::Single);
    let mut tap = taps.attach();
    for event in 0..8 + 3 {
        producer.publish(event).unwrap();
        turn_out(&mut pipeline);
    }
    assert_eq!(tap.next(), Tapped::Lost(3));
    for event in 3..11 {
        assert_eq!(tap.next(), Tapped::Event(Sequence(event), event));
    }
    assert_eq!(tap.next(), Tapped::Nothing);
}

#[test]
fn a29_as_many_as_there_are_slots_are_published_and_not_one_more() {
    for kind in BOTH {
        let mut ring = Polling::new(32, kind);
        for event in 0..32 {
            assert_eq!(ring.producer.try_publish(event), Ok(Sequence(event)));
        }
        assert!(ring.producer.try_publish(32).is_err());
        assert_eq!(ring.read_all().len(), 32);
    }
}

#[test]
fn a30_a_full_ring_is_an_error_that_says_how_much_is_missing() {
    for kind in BOTH {
        let mut ring = Polling::new(4, kind);
        ring.producer.publish_many(4).unwrap();
        for count in 1..=4 {
            let missing = count as u64;
            assert_eq!(
                ring.producer.try_publish_many(count),
                Err(ClaimError::Full { missing })
            );
        }
    }
}

#[test]
fn a31_who_publishes_one_more_than_the_size_waits_for_the_consumer_and_completes() {
    for kind in BOTH {
        for wait in [Wait::Spin, Wait::Park, Wait::Auto] {
            let mut graph = graph(4);
            graph.producer_wait(wait);
            let Polling {
                mut producer,
                mut poller,
                ..
            } = Polling::of(graph, kind);
            let publisher = thread::spawn(move || {
                (0..5).for_each(|event| {
                    producer.publish(event).unwrap();
                });
            });
            let mut seen = Vec::new();
            until("five events", || {
                seen.extend(read(&mut poller, 1));
                seen.len() == 5
            });
            publisher.join().unwrap();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }
}

/// One row for each of the peers' forty tests of publishing arrays and parts of them.
#[test]
fn a32_a_batch_is_published_whole_or_refused_with_no_slot_consumed() {
    let nothing = Err(ClaimError::Nothing);
    let full = |missing| Err(ClaimError::Full { missing });
    let large = |asked| Err(ClaimError::TooLarge { asked, capacity: 8 });
    let table = [
        // already in the ring, asked for, outcome
        (0, 0, nothing.clone()),
        (0, 1, Ok(())),
        (0, 4, Ok(())),
        (0, 8, Ok(())),
        (0, 9, large(9)),
        (0, 800, large(800)),
        (3, 5, Ok(())),
        (3, 6, full(1)),
        (7, 1, Ok(())),
        (7, 8, full(7)),
        (8, 0, nothing),
        (8, 1, full(1)),
        (8, 8, full(8)),
        (8, 9, large(9)),
    ];
    for kind in BOTH {
        // The wrap falls everywhere within the batch.
        for offset in 0..8 {
            for (before, asked, outcome) in &table {
                let mut ring = Polling::new(8, kind);
                (0..offset).for_each(|_| {
                    ring.producer.publish(0).unwrap();
                });
                ring.read_all();
                if *before > 0 {
                    ring.producer.publish_many(*before).unwrap();
                }
                let published = ring.producer.try_publish_many(*asked).map(drop);
                assert_eq!(&published, outcome, "{before} + {asked} at {offset}");
                let count = before + if outcome.is_ok() { *asked } else { 0 };
                assert_eq!(ring.producer.remaining(), 8 - count);
                let expected: Vec<u64> = (offset..offset + count as u64).collect();
                assert_eq!(ring.read_all(), expected, "{before} + {asked} at {offset}");
            }
        }
    }
}

#[test]
fn a33_a_change_of_who_holds_back_changes_what_remains() {
    for kind in BOTH {
        let mut graph = graph(16);
        let (sink, _) = recorder(&mut graph, "sink", &[]);
        graph.readers(1, &[]);
        graph.max_batch(sink, 16);
        let (mut producer, mut pipeline) = build(graph, kind);
        producer.publish_many(3).unwrap();
        turn_out(&mut pipeline);
        let reader = pipeline.readers().unwrap().join(JoinAt::Oldest).unwrap();
        producer.publish_many(4).unwrap();
        turn_out(&mut pipeline);
        assert_eq!(producer.remaining(), 16 - 4, "the reader at 3 holds back");
        drop(reader);
        assert_eq!(producer.remaining(), 16, "the sink at 7 does not");
    }
}

#[test]
fn a34_a_ring_of_one_slot_works_and_a_ring_of_none_is_refused() {
    assert!(Graph::new(0, || 0_u64).is_err());
    for kind in BOTH {
        let mut ring = Polling::new(1, kind);
        for event in 0..10 {
            assert_eq!(ring.producer.try_publish(event), Ok(Sequence(event)));
            assert!(ring.producer.try_publish(event).is_err());
            assert_eq!(ring.read(1), [event]);
        }
    }
}

#[test]
fn a35_publishing_claims_and_publishes_exactly_once() {
    for kind in BOTH {
        let mut ring = Polling::new(8, kind);
        let probe = ring.pipeline.probe();
        ring.producer.publish(1).unwrap();
        assert_eq!(probe.look().published, Sequence(1));
        ring.producer.try_publish(2).unwrap();
        assert_eq!(probe.look().published, Sequence(2));
        assert_eq!(ring.read_all(), [1, 2]);
    }
}

/// Four fields that belong together, written by as many threads as read them: whoever
/// sees a slot half-written finds out.
#[derive(Debug, Clone, Copy, Default)]
struct Correlated {
    value: u64,
    squared: u64,
    inverted: u64,
    text: [u8; 20],
}

impl Correlated {
    fn of(value: u64) -> Self {
        let mut text = [b'0'; 20];
        let digits = value.to_string();
        text[20 - digits.len()..].copy_from_slice(digits.as_bytes());
        Self {
            value,
            squared: value.wrapping_mul(value),
            inverted: !value,
            text,
        }
    }

    fn check(&self) {
        let right = Self::of(self.value);
        assert_eq!(
            (self.squared, self.inverted, self.text),
            (right.squared, right.inverted, right.text),
            "half-written"
        );
    }
}

#[test]
fn a79_as_many_producers_as_stages_never_see_an_event_half_written() {
    let events = rounds(20_000, 50);
    for threads in [1_u64, 3] {
        let mut graph = Graph::new(64, Correlated::default).unwrap();
        graph.wait(Wait::Yield { spins: 10 });
        let sums: Vec<_> = (0..threads).map(|_| Arc::new(AtomicU64::new(0))).collect();
        for (number, sum) in sums.iter().enumerate() {
            let sum = Arc::clone(sum);
            let stage = each(move |event: &Correlated, _| {
                event.check();
                sum.fetch_add(event.value, Ordering::Relaxed);
            });
            let id = graph.stage(&format!("check {number}"), &[], stage);
            graph.together(&[id]);
        }
        let (producer, pipeline) = graph.build_multi(|_| ()).unwrap();
        let running = pipeline.start().unwrap();
        thread::scope(|scope| {
            for number in 0..threads {
                let mut producer = producer.clone();
                scope.spawn(move || {
                    for n in 0..events {
                        let value = number * events + n;
                        producer
                            .publish(|slot| *slot = Correlated::of(value))
                            .unwrap();
                    }
                });
            }
        });
        drop(producer);
        let report = running.join();
        assert!(report.faults.is_empty(), "{report}");
        let total = threads * events;
        for sum in sums {
            assert_eq!(sum.load(Ordering::Relaxed), total * (total - 1) / 2);
        }
    }
}

#[test]
fn a79_four_producers_hand_strings_to_three_consumers() {
    let events = rounds(5_000, 20);
    let mut graph = Graph::new(64, String::new).unwrap();
    graph.wait(Wait::Yield { spins: 10 });
    let lengths: Vec<_> = (0..3).map(|_| Arc::new(AtomicU64::new(0))).collect();
    for (number, total) in lengths.iter().enumerate() {
        let total = Arc::clone(total);
        let stage = each(move |event: &String, _| {
            let (digits, rest) = event.split_once(' ').unwrap();
            assert_eq!(rest.len(), digits.parse::<usize>().unwrap());
            total.fetch_add(rest.len() as u64, Ordering::Relaxed);
        });
        graph.stage(&format!("consumer {number}"), &[], stage);
    }
    let (producer, pipeline) = graph.build_multi(String::clear).unwrap();
    let running = pipeline.start().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut producer = producer.clone();
            scope.spawn(move || {
                for n in 0..events {
                    let length = usize::try_from(n % 17).unwrap();
                    producer
                        .publish(|slot| *slot = format!("{length} {}", "x".repeat(length)))
                        .unwrap();
                }
            });
        }
    });
    drop(producer);
    let report = running.join();
    assert!(report.faults.is_empty(), "{report}");
    let expected = 4 * (0..events).map(|n| n % 17).sum::<u64>();
    for total in lengths {
        assert_eq!(total.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn a81_events_without_size_are_counted_all_the_same() {
    let mut graph = Graph::new(4, || ()).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&count);
    graph.stage("count", &[], move |batch: Batch<'_, ()>| {
        counts.fetch_add(batch.events().len() as u64, Ordering::Relaxed);
        Progress::All
    });
    let (mut producer, mut pipeline) = graph.build().unwrap();
    for _ in 0..10 {
        producer.publish(|()| ()).unwrap();
        producer.publish_batch(2, |slots| slots.len()).unwrap();
        while pipeline.turn() == lockstep_ringbuffer::Turn::Worked {}
    }
    assert_eq!(count.load(Ordering::Relaxed), 30);
}

#[test]
fn a81_every_event_is_dropped_once_whoever_goes_first() {
    for order in 0..3 {
        let count = Arc::new(());
        let mut graph = Graph::new(8, || Arc::clone(&count)).unwrap();
        let id = graph.poller("poller", &[], lockstep_ringbuffer::OnDrop::Halt);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        assert_eq!(Arc::strong_count(&count), 9);
        for _ in 0..20 {
            // The event of a lap before is dropped by whoever writes over it.
            producer.publish(|slot| *slot = Arc::clone(&count)).unwrap();
            assert_eq!(poller.poll(1, |_| Progress::All), Polled::Ran(1));
            assert_eq!(Arc::strong_count(&count), 9);
        }
        producer.publish(|_| ()).unwrap();
        match order {
            0 => drop((producer, poller, pipeline)),
            1 => drop((poller, pipeline, producer)),
            _ => drop((pipeline, producer, poller)),
        }
        assert_eq!(Arc::strong_count(&count), 1);
    }
}

#[test]
fn a81_a_claim_and_a_batch_are_the_parts_of_a_slice_at_the_wrap() {
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish_many(5).unwrap();
    ring.read_all();
    let Either::Single(producer) = &mut ring.producer else {
        unreachable!()
    };
    let mut claim = producer.claim(6).unwrap();
    {
        let slots = claim.slots();
        assert_eq!(
            (slots.first, slots.head.len(), slots.tail.len()),
            (Sequence(5), 3, 3)
        );
    }
    assert_eq!(claim.slots().bytes_mut().0.len(), 24);
    claim.slots().copy_from(&[1, 2, 3, 4, 5, 6]);
    claim.commit();
    // A batch ends at the wrap, so that it is one slice.
    assert_eq!(ring.read(99), [1, 2, 3]);
    assert_eq!(ring.read(99), [4, 5, 6]);
}

#[test]
fn a81_closing_races_with_nobody() {
    for round in 0..rounds(300, 5) {
        let mut graph = graph(4);
        let (_, seen) = recorder(&mut graph, "sees", &[]);
        let (mut producer, pipeline) = build(graph, BOTH[usize::try_from(round % 2).unwrap()]);
        let running = pipeline.start().unwrap();
        let publisher = thread::spawn(move || {
            (0..round % 7).for_each(|event| {
                producer.publish(event).unwrap();
            });
        });
        let report = running.join();
        publisher.join().unwrap();
        assert_eq!(seen.all(), (0..round % 7).collect::<Vec<_>>());
        assert_eq!(report.released_by_all(), Sequence(round % 7));
    }
}

/// The sizes of cursors and their offsets are `const` assertions beside them.
#[test]
fn a82_slots_are_aligned_and_follow_one_another() {
    #[derive(Clone, Copy, Default)]
    #[repr(align(64))]
    struct Line([u64; 8]);

    let mut graph = Graph::new(8, Line::default).unwrap();
    let addresses = Log::new();
    let told = addresses.clone();
    let stage = graph.stage("where", &[], move |batch: Batch<'_, Line>| {
        for event in batch.events() {
            told.push(
                std::ptr::from_ref(event) as usize - usize::try_from(event.0[0]).unwrap() * 64,
            );
        }
        Progress::All
    });
    graph.max_batch(stage, 8);
    let (mut producer, mut pipeline) = graph.build().unwrap();
    producer
        .publish_batch(8, |mut slots| {
            slots.iter_mut().for_each(|(at, slot)| slot.0[0] = at.0);
        })
        .unwrap();
    pipeline.turn();
    let addresses = addresses.all();
    assert_eq!(addresses.len(), 8);
    assert!(
        addresses.iter().all(|address| *address == addresses[0]),
        "64 bytes apart"
    );
    assert_eq!(addresses[0] % 128, 0, "a pair of lines");
}

#[test]
fn memory_may_be_huge_and_says_what_was_granted() {
    let memory = Memory {
        huge_pages: true,
        lock: false,
    };
    let graph = Graph::with_memory(64, memory, || 0_u64).unwrap();
    assert!(graph.memory().bytes >= 64 * 8);
    assert!(!graph.memory().locked);
    assert!(!Graph::new(64, || 0_u64).unwrap().memory().huge_pages);
}

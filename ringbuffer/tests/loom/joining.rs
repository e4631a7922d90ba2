//! R7, T1: readers that come and go, and onlookers.

use super::*;

#[test]
fn r7_a_reader_that_joins_is_never_overtaken() {
    explore(Some(3), || {
        let (mut producer, mut sink, readers) = joinable(1);
        publish(&mut producer, 1);
        let joins = thread::spawn(move || {
            let mut reader = readers.join(JoinAt::Oldest).unwrap();
            let first = reader.released().0;
            until(|| {
                reader.poll(1, check_batch);
                (reader.released().0 == 2).then_some(())
            });
            assert!(first <= 2);
            reader
        });
        read_until(&mut sink, 1);
        publish(&mut producer, 1);
        let _reader = joins.join().unwrap();
    });
}

#[test]
fn r7_a_reader_that_joins_at_the_next_event_misses_none_behind_it() {
    explore(Some(3), || {
        let (mut producer, mut sink, readers) = joinable(2);
        let joins = thread::spawn(move || {
            let mut reader = readers.join(JoinAt::Next).unwrap();
            until(|| {
                reader.poll(1, check_batch);
                (reader.released().0 == 3).then_some(())
            });
            reader
        });
        for end in 1..=3 {
            publish(&mut producer, 1);
            read_until(&mut sink, end);
        }
        let _reader = joins.join().unwrap();
    });
}

#[test]
fn r7_a_seat_that_is_taken_again_carries_what_was_read_from_it() {
    explore(Some(3), || {
        let (mut producer, mut sink, readers) = joinable(1);
        let mut first = readers.join(JoinAt::Oldest).unwrap();
        publish(&mut producer, 1);
        read_until(&mut sink, 1);
        let leaves = thread::spawn(move || {
            first.poll(1, check_batch);
        });
        let joins = thread::spawn(move || until(|| readers.join(JoinAt::Oldest)));
        until(|| producer.try_publish(|event| *event = 11).ok());
        leaves.join().unwrap();
        let _second = joins.join().unwrap();
    });
}

// T1: onlookers.

#[test]
fn t1_what_a_tap_returns_is_one_event_and_whole() {
    explore(Some(3), || {
        let (stage, taps) = tap::<[u64; 2]>(2);
        let mut graph = Graph::new(1, || [0_u64; 2]).unwrap();
        graph.wait(Wait::Spin);
        graph.stage("tap", &[], stage);
        let (mut producer, mut pipeline) = graph.build().unwrap();
        let mut tap = taps.attach();
        let looks = thread::spawn(move || {
            let mut passed = 0;
            until(|| {
                match tap.next() {
                    Tapped::Event(at, event) => {
                        assert_eq!(event, [at.0 + 10; 2], "T1: one event, whole");
                        passed += 1;
                    }
                    Tapped::Lost(lost) => passed += lost,
                    Tapped::Nothing => {}
                }
                (passed >= 1).then_some(())
            });
            tap
        });
        for value in 10..13 {
            producer.publish(|event| *event = [value; 2]).unwrap();
            pipeline.turn();
        }
        let _tap = looks.join().unwrap();
    });
}

//! M1, M2: many producers.

use super::*;

#[test]
fn m1_two_producers_publish_each_event_once_and_never_into_a_slot_in_use() {
    explore(Some(3), || {
        let mut graph = spinning(1);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (producer, mut pipeline) = graph.build_multi(|event| *event = 0).unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        let threads = [10, 20].map(|value| {
            let mut producer = producer.clone();
            thread::spawn(move || {
                producer.publish(|event| *event = value).unwrap();
                producer
            })
        });
        let mut seen = Vec::new();
        until(|| {
            poller.poll(2, |batch| {
                seen.extend_from_slice(batch.events());
                Progress::All
            });
            (poller.released().0 == 2).then_some(())
        });
        seen.sort_unstable();
        assert_eq!(seen, [10, 20]);
        let _producers = threads.map(|thread| thread.join().unwrap());
    });
}

#[test]
fn m2_an_aborted_claim_is_void_and_leaves_no_hole() {
    explore(Some(3), || {
        let mut graph = spinning(2);
        let id = graph.poller("reader", &[], OnDrop::Detach);
        let (mut producer, mut pipeline) = graph.build_multi(|event| *event = 99).unwrap();
        let mut poller = pipeline.poller(id).unwrap();
        let mut other = producer.clone();
        let aborts = thread::spawn(move || {
            let mut claim = other.claim(1).unwrap();
            claim.slots().head[0] = 7;
            drop(claim);
            other
        });
        let reads = thread::spawn(move || {
            let mut seen = Vec::new();
            until(|| {
                poller.poll(2, |batch| {
                    seen.extend_from_slice(batch.events());
                    Progress::All
                });
                (poller.released().0 == 2).then_some(())
            });
            seen.sort_unstable();
            assert_eq!(seen, [10, 99], "M2: the claim is void, and nothing is lost");
            poller
        });
        producer.publish(|event| *event = 10).unwrap();
        let _other = aborts.join().unwrap();
        let _poller = reads.join().unwrap();
    });
}

//! Every refusal, word by word: what was given, what is allowed, what is nearest. Nothing
//! has run when it is said.

use lockstep_ringbuffer::{
    Batch, BuildError, ClaimError, FaultKind, Graph, OnDrop, OnFault, Progress, Sequence, Stage,
    Wait, each,
};

use crate::common::{Kind, Log, Polling, VOID, build, graph, poisoned, recorder};

/// Tells when it is started, called or stopped.
struct Silent(Log<&'static str>);

impl Stage<u64> for Silent {
    fn on_batch(&mut self, _: Batch<'_, u64>) -> Progress {
        self.0.push("batch");
        Progress::All
    }
    fn on_start(&mut self) {
        self.0.push("start");
    }
    fn on_stop(&mut self) {
        self.0.push("stop");
    }
}

/// What `build` says to a graph of one stage and a mistake, for one producer and for many.
#[track_caller]
fn refused(mistake: impl Fn(&mut Graph<u64>)) -> String {
    let said = [Kind::Single, Kind::Multi].map(|kind| {
        let log = Log::new();
        let mut graph = graph(8);
        let quiet = graph.stage("quiet", &[], Silent(log.clone()));
        graph.together(&[quiet]).named("bad-input");
        mistake(&mut graph);
        let error = match kind {
            Kind::Single => graph.build().map(drop).unwrap_err(),
            Kind::Multi => graph
                .build_multi(|slot| *slot = VOID)
                .map(drop)
                .unwrap_err(),
        };
        assert_eq!(log.all(), [""; 0], "no stage was called");
        #[cfg(all(target_os = "linux", not(miri)))]
        assert_eq!(
            crate::common::threads_called("bad-input"),
            0,
            "no thread was started"
        );
        error.to_string()
    });
    assert_eq!(said[0], said[1]);
    said[0].clone()
}

fn read() -> impl Stage<u64> {
    each(|_: &u64, _| ())
}

#[test]
fn a_capacity_that_is_zero_odd_or_too_large() {
    let said = |asked| Graph::new(asked, || 0_u64).unwrap_err().to_string();
    let all = |asked: usize, nearest: usize| {
        format!(
            "a ring of {asked} slots is not possible: the capacity is a power of two from 1 to \
             1073741824; the nearest one is {nearest}"
        )
    };
    assert_eq!(said(0), all(0, 1));
    assert_eq!(said(1000), all(1000, 1024));
    assert_eq!(said(1 << 31), all(1 << 31, 1 << 30));
    assert_eq!(said(usize::MAX), all(usize::MAX, 1 << 30));
}

#[test]
#[cfg_attr(miri, ignore = "Miri itself ends where memory does")]
fn more_memory_than_there_is() {
    let error = Graph::new(1 << 30, || [0_u8; 1 << 18]);
    let Err(BuildError::NoMemory { capacity, .. }) = error else {
        panic!("2^48 bytes")
    };
    assert_eq!(capacity, 1 << 30);
}

#[test]
fn a_batch_larger_than_the_ring_or_of_nothing() {
    let mut ring = Polling::new(8, Kind::Single);
    assert_eq!(
        ring.producer.publish_many(9).unwrap_err().to_string(),
        "9 events do not fit into a ring of 8 slots: claim from 1 to 8 at once, and publish more in parts"
    );
    assert_eq!(
        ring.producer.publish_many(0).unwrap_err().to_string(),
        "a claim of 0 events claims nothing: claim at least 1"
    );
}

#[test]
fn a_largest_batch_of_nothing_or_of_more_than_the_ring() {
    let all = |asked: usize, nearest: usize| {
        format!(
            "a largest batch of {asked} is not possible: it is from 1 to the 8 slots of the ring; \
             the nearest is {nearest}"
        )
    };
    for (asked, nearest) in [(0, 1), (9, 8), (usize::MAX, 8)] {
        let of_a_stage = refused(|graph| {
            let quiet = graph.find("quiet").unwrap();
            graph.max_batch(quiet, asked);
        });
        assert_eq!(of_a_stage, all(asked, nearest));
        let of_a_thread = refused(|graph| {
            let stage = graph.stage("other", &[], read());
            graph.together(&[stage]).max_batch(asked);
        });
        assert_eq!(of_a_thread, all(asked, nearest));
    }
}

#[test]
fn a_stage_that_follows_another_graphs() {
    let mut other = graph(8);
    let (_, foreign) = (
        recorder(&mut other, "x", &[]),
        recorder(&mut other, "y", &[]).0,
    );
    assert_eq!(
        refused(|graph| {
            graph.stage("b", &[foreign], read());
        }),
        "stage \"b\" names stage 1 of another graph; use the ids that this graph returned, \
         those of [\"quiet\"]"
    );
    assert_eq!(
        refused(|graph| {
            graph.together(&[foreign]);
        }),
        "together names stage 1 of another graph; use the ids that this graph returned, \
         those of [\"quiet\"]"
    );
    let lane = other.lane(|| 0_u8).unwrap();
    assert_eq!(
        refused(|graph| {
            let quiet = graph.find("quiet").unwrap();
            graph.lane_owner(quiet, &lane);
        }),
        "lane_owner names a lane of u8 of another graph; use the ids that this graph returned, \
         those of [\"quiet\"]"
    );
}

#[test]
fn a_stage_that_follows_itself() {
    assert_eq!(
        refused(|graph| {
            let b = graph.stage("b", &[], read());
            graph.follow(b, &[b]);
        }),
        "stage \"b\" is told to follow itself; name the stages before it, or none"
    );
}

#[test]
fn a_stage_that_follows_nothing_that_exists() {
    let mut graph = graph(8);
    recorder(&mut graph, "journal", &[]);
    recorder(&mut graph, "logic", &[]);
    assert_eq!(
        graph.find("journl").unwrap_err().to_string(),
        "there is no stage called \"journl\"; the stages are [\"journal\", \"logic\"]; \
         did you mean \"journal\"?"
    );
    assert_eq!(
        graph.find("replicate").unwrap_err().to_string(),
        "there is no stage called \"replicate\"; the stages are [\"journal\", \"logic\"]"
    );
}

#[test]
fn a_circle() {
    assert_eq!(
        refused(|graph| {
            let a = graph.stage("a", &[], read());
            let b = graph.stage("b", &[a], read());
            let c = graph.stage("c", &[b], read());
            graph.follow(a, &[c]);
        }),
        "stages follow one another in a circle: a -> b -> c -> a; remove one of these edges"
    );
}

#[test]
fn two_writers_in_parallel() {
    let write = || lockstep_ringbuffer::each_mut(|_: &mut u64, _| ());
    assert_eq!(
        refused(|graph| {
            let quiet = graph.find("quiet").unwrap();
            graph.stage_mut("one", &[quiet], write());
            graph.stage_mut("two", &[quiet], write());
        }),
        "stage \"one\" writes events, but \"two\" is neither before nor behind it and would read \
         them at the same time; let one follow the other, or give \"one\" a lane of its own"
    );
}

#[test]
fn a_cpu_that_does_not_exist() {
    let said = refused(|graph| {
        let stage = graph.stage("other", &[], read());
        graph.together(&[stage]).pin(70_000);
    });
    let begins = "cannot pin \"other\" to CPU 70000: it does not exist or is not allowed; \
                  this process may use CPUs ";
    let (_, allowed) = said.split_at(begins.len());
    assert!(said.starts_with(begins), "{said}");
    assert!(allowed.starts_with(|c: char| c.is_ascii_digit()), "{said}");
}

#[test]
fn a_wait_strategy_that_cannot_be_read() {
    let said = |text: &str| text.parse::<Wait>().unwrap_err().to_string();
    let all = |text: &str, reason: &str, nearest: &str| {
        format!(
            "\"{text}\" is no wait strategy: {reason}; one of: spin, spin-pause[:PAUSES], \
             yield[:SPINS], backoff[:SPINS,YIELDS,NS], park, auto{nearest}"
        )
    };
    let unknown = "the name is unknown";
    assert_eq!(
        said("spinn"),
        all("spinn", unknown, "; did you mean \"spin\"?")
    );
    assert_eq!(
        said("Park"),
        all("Park", unknown, "; did you mean \"park\"?")
    );
    assert_eq!(
        said("as fast as you can"),
        all("as fast as you can", unknown, "")
    );
    assert_eq!(
        said("yield:-1"),
        all(
            "yield:-1",
            "an argument is no whole number from 0 to 4294967295",
            "; did you mean \"yield\"?"
        )
    );
    assert_eq!(
        said("park:1"),
        all(
            "park:1",
            "it takes another number of arguments",
            "; did you mean \"park\"?"
        )
    );
    assert_eq!(
        said("spin-pause:0"),
        all(
            "spin-pause:0",
            "it pauses at least once; without pauses it is `spin`",
            "; did you mean \"spin-pause\"?"
        )
    );
}

#[test]
fn names_that_are_given_twice_and_graphs_of_nothing() {
    assert_eq!(
        refused(|graph| {
            graph.stage("quiet", &[], read());
        }),
        "two stages are called \"quiet\"; names identify stages in reports and must differ"
    );
    assert_eq!(
        graph(8).build().unwrap_err().to_string(),
        "the graph has no stage: add one with `stage`, or a `poller`"
    );
}

#[test]
fn stages_that_are_placed_twice_or_cannot_be() {
    assert_eq!(
        refused(|graph| {
            let quiet = graph.find("quiet").unwrap();
            graph.together(&[quiet]);
        }),
        "stage \"quiet\" is placed twice; a stage runs on one thread"
    );
    assert_eq!(
        refused(|graph| {
            let poller = graph.poller("mine", &[], OnDrop::Halt);
            graph.together(&[poller]);
        }),
        "\"mine\" is driven by its user's thread and cannot be placed on a runner"
    );
}

#[test]
fn a_poller_that_may_leave_and_is_followed() {
    assert_eq!(
        refused(|graph| {
            let poller = graph.poller("mine", &[], OnDrop::Detach);
            graph.stage("behind", &[poller], read());
        }),
        "poller \"mine\" may be dropped (OnDrop::Detach), but \"behind\" follows it and would \
         never move again; use OnDrop::Halt"
    );
}

#[test]
fn too_many_stages_seats_and_too_late_a_start() {
    assert_eq!(
        refused(|graph| {
            for n in 0..64 {
                graph.stage(&format!("s{n}"), &[], read());
            }
        }),
        "65 stages are too many for one graph: it holds 64; join some with `Fused`, or chain two rings"
    );
    // With readers there is one less; and as many as there may be can be built.
    let many = |stages: usize| {
        move |graph: &mut Graph<u64>| {
            for n in 1..stages {
                graph.stage(&format!("s{n}"), &[], read());
            }
        }
    };
    assert!(
        refused(|graph| {
            many(64)(graph);
            graph.readers(1, &[]);
        })
        .starts_with("64 stages are too many for one graph: it holds 63;")
    );
    let mut full = graph(8);
    recorder(&mut full, "s0", &[]);
    many(64)(&mut full);
    assert!(full.build().is_ok());

    assert_eq!(
        refused(|graph| {
            graph.readers(33, &[]);
        }),
        "33 seats for readers are not possible: there are from 0 to 32; the nearest is 32"
    );
    assert_eq!(
        refused(|graph| {
            graph.start_at(Sequence(u64::MAX));
        }),
        "a ring cannot start at 18446744073709551615: it starts at 0 to 9223372036854775807; \
         the nearest is 9223372036854775807"
    );
}

#[test]
fn a_lane_without_an_owner_or_with_two() {
    let said = |owners: usize| {
        refused(move |graph| {
            let lane = graph.lane(|| 0_u16).unwrap();
            let quiet = graph.find("quiet").unwrap();
            for _ in 0..owners {
                graph.lane_owner(quiet, &lane);
            }
        })
    };
    for owners in [0, 2] {
        assert_eq!(
            said(owners),
            format!(
                "a lane of u16 has {owners} owners; say `graph.lane_owner(stage, &lane)` exactly once"
            )
        );
    }
}

#[test]
fn seats_without_a_stage_that_stays() {
    let mut graph = graph(8);
    graph.poller("leaves", &[], OnDrop::Detach);
    graph.readers(1, &[]);
    assert_eq!(
        graph.build().unwrap_err().to_string(),
        "seats for readers need at least one stage that stays; the graph has none"
    );
}

#[test]
fn an_event_to_be_skipped_that_is_not_known() {
    assert_eq!(
        refused(|graph| {
            let quiet = graph.find("quiet").unwrap();
            graph.on_fault_of(quiet, OnFault::Skip);
        }),
        "stage \"quiet\" takes whole batches, so the event at fault is not known and cannot be \
         skipped; write it with `each`, or use OnFault::Halt"
    );
}

#[test]
fn a_poller_that_is_none() {
    let mut graph = graph(8);
    let (stage, _) = recorder(&mut graph, "stage", &[]);
    let (_producer, mut pipeline) = build(graph, Kind::Single);
    assert_eq!(
        pipeline.poller(stage).unwrap_err().to_string(),
        "\"stage\" is no poller that can be had: it is a stage, or was handed out already"
    );
}

#[test]
fn what_a_producer_is_told() {
    let full = ClaimError::Full { missing: 3 };
    assert_eq!(
        full.to_string(),
        "the ring is full: 3 more slots are needed"
    );
    let timed_out = ClaimError::TimedOut { missing: 3 };
    assert_eq!(
        timed_out.to_string(),
        "the ring stayed full until the deadline: 3 more slots are needed"
    );
    let poisoned = poisoned("disk", 7, FaultKind::Gate, "no space left");
    assert_eq!(
        poisoned.to_string(),
        "the pipeline is poisoned: stage \"disk\" lost its promise at 7: no space left"
    );
    assert_eq!(ClaimError::Halted.to_string(), "the pipeline was halted");
}

#[test]
fn a_poll_of_at_most_nothing_is_a_mistake_of_the_caller() {
    let mut ring = Polling::new(8, Kind::Single);
    ring.producer.publish(1).unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.poller.poll(0, |_| Progress::All)
    }));
    let text = *panic.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(text, "poll: a batch of at most 0 events is none");
    assert_eq!(ring.read(1), [1], "and changes nothing");
}

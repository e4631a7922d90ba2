//! Plans of machines that were captured.

use super::place::split;
use super::*;
use crate::machine::cpus::Distance;
use crate::machine::cpus::tests::{Captured, tree};

fn machine(name: &str, sockets: u32, cores: u32, smt: bool, l3: u32) -> Machine {
    let captured = Captured::new(name, &tree(sockets, cores, smt, l3));
    Machine::read(captured.root(), None)
}

fn refuse(wishes: &Wishes, machine: &Machine) -> String {
    Plan::resolve(wishes, machine).unwrap_err().to_string()
}

#[test]
fn two_cpus_run_the_diamond_on_one_thread_beside_the_generator() {
    let plan = Plan::resolve(
        &Wishes::new(Shape::Diamond),
        &machine("plan-two", 1, 2, false, 2),
    )
    .unwrap();
    assert_eq!(plan.place(), "stage0+stage1+stage2");
    assert_eq!(plan.pins(), "producer=0 stage0+stage1+stage2=1");
    assert_eq!(plan.waits(), "spin");
    assert_eq!(plan.spinners(), 2);
}

#[test]
fn one_cpu_runs_everything_on_the_generator() {
    let one = machine("plan-one", 1, 1, false, 1);
    let plan = Plan::resolve(&Wishes::new(Shape::Diamond), &one).unwrap();
    assert!(plan.threads.is_empty());
    assert_eq!(plan.place(), "inline");
    // Two producers need two threads; they and the stage take turns and yield.
    let plan = Plan::resolve(&Wishes::new(Shape::Mpsc(2)), &one).unwrap();
    assert_eq!(plan.threads.len(), 1);
    assert_eq!(plan.spinners(), 0);
}

#[test]
fn sixty_four_cpus_give_each_stage_a_core_of_one_l3() {
    let big = machine("plan-big", 2, 16, true, 8);
    let plan = Plan::resolve(&Wishes::new(Shape::Diamond), &big).unwrap();
    assert_eq!(plan.place(), "stage0,stage1,stage2");
    let cpus = plan.pinned_cpus();
    assert_eq!(cpus.len(), 4);
    for pair in cpus.windows(2) {
        assert_eq!(big.distance(pair[0], pair[1]), Distance::SameL3, "{cpus:?}");
    }
}

#[test]
fn p2_too_many_spinners_are_refused_with_what_would_do() {
    let two = machine("plan-p2", 1, 2, false, 2);
    let mut wishes = Wishes::new(Shape::Pipeline(4));
    wishes.place = "stage0,stage1,stage2,stage3".parse().unwrap();
    wishes.waits = "spin".parse().unwrap();
    assert_eq!(
        refuse(&wishes, &two),
        "--place asks for 5 spinning threads, 2 CPUs are usable (0,1). They would take turns and \
         every number would be meaningless\n  hint: --place auto, --wait auto, --topology spsc, \
         or --insist"
    );
    wishes.insist = true;
    assert!(Plan::resolve(&wishes, &two).is_ok());
    wishes.insist = false;
    wishes.waits = Waits::default();
    let plan = Plan::resolve(&wishes, &two).unwrap();
    assert_eq!(plan.waits(), "yield:100", "auto counts CPUs");
}

#[test]
fn p3_one_cpu_for_two_spinners_is_refused() {
    let eight = machine("plan-p3", 1, 8, false, 8);
    let mut wishes = Wishes::new(Shape::Pipeline(2));
    wishes.pin = Pin::parse("producer=0,stage0=3,stage1=3", &[]).unwrap();
    assert_eq!(
        refuse(&wishes, &eight),
        "--pin names CPU 3 for stage0 and for stage1; both spin\n  hint: a CPU each, or one \
         thread: --place ...,stage0+stage1"
    );
}

#[test]
fn bad_sizes_and_places_say_what_would_do() {
    let two = machine("plan-bad", 1, 2, false, 2);
    let base = Wishes::new(Shape::Spsc);
    let cases: Vec<(Wishes, &str)> = vec![
        (
            Wishes {
                ring: 60_000,
                ..base.clone()
            },
            "--ring 60000 is not a power of two\n  hint: 65536 (64Ki) or 32768 (32Ki)",
        ),
        (
            Wishes {
                event_size: 20,
                ..base.clone()
            },
            "--event-size 20 is not built in\n  hint: one of 16, 32, 64, 128, 256, 512, 1024, 4096 bytes",
        ),
        (
            Wishes {
                claim: 0,
                ..base.clone()
            },
            "--claim 0 does not fit a ring of 65536\n  hint: 1 to 32768",
        ),
        (
            Wishes {
                pin: Pin::List(vec![0, 7]),
                ..base.clone()
            },
            "cannot pin stage0 to CPU 7: this process may use CPUs 0,1\n  hint: --pin auto, or \
             start with CPU 7 allowed (taskset, --cpuset-cpus)",
        ),
        (
            Wishes {
                place: "stage5".parse().unwrap(),
                ..base.clone()
            },
            "--place names stage5, which spsc has not\n  hint: its stages are stage0",
        ),
        (
            Wishes {
                waits: "logic=spin".parse().unwrap(),
                ..base.clone()
            },
            "--wait names logic, which spsc has not\n  hint: its roles are stage0, producer0",
        ),
        (
            Wishes {
                waits: "stage0=spin,stage1=park".parse().unwrap(),
                place: "stage0+stage1".parse().unwrap(),
                ..Wishes::new(Shape::Pipeline(2))
            },
            "--wait asks for spin and for park on one thread, stage0+stage1\n  hint: one strategy \
             for stages that share a thread, or --place apart",
        ),
        (
            Wishes {
                pin: Pin::parse("logic=1", &[]).unwrap(),
                ..base.clone()
            },
            "--pin names logic, which spsc has not\n  hint: its roles are producer0, stage0, producer",
        ),
    ];
    for (wishes, expected) in cases {
        assert_eq!(refuse(&wishes, &two), expected);
    }
}

#[test]
fn the_engines_threads_wait_each_in_its_own_way() {
    let eight = machine("plan-waits", 1, 8, false, 8);
    let mut wishes = Wishes::new(Shape::Full);
    wishes.place = "order+journal,logic+egress".parse().unwrap();
    wishes.waits = "journal=park,logic=spin,producer=yield".parse().unwrap();
    let plan = Plan::resolve(&wishes, &eight).unwrap();
    assert_eq!(plan.waits(), "park, spin");
    assert!(plan.producers_yield);
    assert_eq!(plan.spinners(), 1);
}

#[test]
fn p1_every_stage_has_one_thread() {
    for stages in 1..10 {
        for threads in 1..=stages {
            let groups = split(stages, threads);
            let all: Vec<usize> = groups.concat();
            assert_eq!(all, (0..stages).collect::<Vec<_>>());
            assert!(groups.iter().all(|group| !group.is_empty()));
        }
    }
}

//! What retention gives up, and what it does not.

use super::*;

fn needs(snapshot: Option<u64>) -> Needs {
    Needs {
        snapshot: snapshot.map(Position),
        ..Needs::default()
    }
}

#[test]
fn retention_takes_the_least_of_the_needs() {
    let made = made(Plan {
        segments: 5,
        ..Plan::default()
    });
    let catalog = Catalog::read(&made.storage).unwrap();
    let removed = |needs: &Needs| {
        let plan = retention::plan(&catalog, needs);
        (plan.remove.len(), plan.held_by)
    };
    assert_eq!(removed(&needs(None)), (0, HeldBy::NoSnapshot), "R3");
    assert_eq!(
        removed(&needs(Some(1_000))),
        (4, HeldBy::Active),
        "R1: never the one being written"
    );
    assert_eq!(
        removed(&needs(Some(80))),
        (2, HeldBy::Snapshot(Position(80)))
    );
    assert_eq!(
        removed(&needs(Some(79))),
        (1, HeldBy::Snapshot(Position(79))),
        "R2"
    );
    let with = |change: fn(&mut Needs)| {
        let mut needs = needs(Some(1_000));
        change(&mut needs);
        needs
    };
    assert_eq!(
        removed(&with(|n| n.archive = Some(None))),
        (0, HeldBy::Archive(None)),
        "R3"
    );
    assert_eq!(
        removed(&with(|n| n.archive = Some(Some(Position(120))))),
        (3, HeldBy::Archive(Some(Position(120))))
    );
    assert_eq!(
        removed(&with(
            |n| n.readers = vec![("a".into(), Position(500)), ("b".into(), Position(41))]
        )),
        (1, HeldBy::Reader("b".into(), Position(41)))
    );
    assert_eq!(
        removed(&with(|n| n.keep_after_ns = Some(1_100))),
        (2, HeldBy::Age)
    );
    assert_eq!(
        removed(&with(|n| n.keep_bytes = Some(3 * made::SEGMENT_BYTES))),
        (2, HeldBy::Size)
    );
    made.storage.rot(&name(1), 20, 1).unwrap();
    let catalog = Catalog::read(&made.storage).unwrap();
    assert_eq!(
        retention::plan(&catalog, &needs(Some(1_000))).held_by,
        HeldBy::Damaged
    );
}

#[test]
fn snapshots_count_only_when_two_of_them_pass_a_test_load() {
    let storage = Simulated::new(1);
    let need = || Needs::of_snapshots(&storage, 2, 1).unwrap();
    assert_eq!(need(), None);
    snapshot(&storage, 10);
    assert_eq!(need(), None);
    snapshot(&storage, 20);
    assert_eq!(need(), Some(Position(10)));
    snapshot(&storage, 30);
    assert_eq!(need(), Some(Position(20)));
    storage
        .rot("snap/00000000000000000020/part-000.zst", 20, 1)
        .unwrap();
    assert_eq!(need(), Some(Position(10)));
}

#[test]
fn what_retention_removes_is_a_prefix_whenever_the_power_goes() {
    let made = made(Plan {
        segments: 5,
        ..Plan::default()
    });
    snapshot(&made.storage, 90);
    snapshot(&made.storage, 95);
    for step in 0..200 {
        let storage = made.storage.fork();
        storage.reseed(step);
        let plan = retention::plan(&Catalog::read(&storage).unwrap(), &needs(Some(90)));
        assert_eq!(plan.remove.len(), 2);
        storage.cut_power_after(step);
        let outcome = retention::offline(&storage, &plan, &mut quiet);
        storage.crash();
        let report = verified(&storage);
        assert_eq!(
            report.verdict,
            Verdict::Clean,
            "step {step}: {:?}",
            report.findings
        );
        assert!(report.from <= Position(80));
        let again = retention::plan(&Catalog::read(&storage).unwrap(), &needs(Some(90)));
        retention::offline(&storage, &again, &mut quiet).unwrap();
        assert_eq!(verified(&storage).from, Position(80));
        assert!(
            storage
                .list("")
                .unwrap()
                .iter()
                .all(|one| !one.name.ends_with(".going"))
        );
        if outcome.is_ok() {
            assert!(step > 8, "all steps were cut: {step}");
            return;
        }
    }
    panic!("retention never came to its end");
}

#[test]
fn readers_are_known_until_they_are_forgotten() {
    let storage = Simulated::new(1);
    let readers = Readers::new(storage.clone());
    readers.advance("risk", Position(7)).unwrap();
    readers.advance("archive", Position(5)).unwrap();
    readers.advance("risk", Position(9)).unwrap();
    storage.crash_keeping(|_| false);
    assert_eq!(
        readers.list().unwrap(),
        [
            ("archive".to_owned(), Position(5)),
            ("risk".to_owned(), Position(9))
        ]
    );
    readers.forget("risk").unwrap();
    assert_eq!(readers.list().unwrap().len(), 1);
    storage.rot("readers/archive", 9, 1).unwrap();
    assert!(
        readers.list().unwrap_err().is_damage(),
        "retention must not guess"
    );
}

//! The ways out of damage: the log ends earlier, or is copied as far as it holds.

use super::agreeing::must_agree;
use super::*;

#[test]
fn truncation_ends_the_log_at_a_frame_and_keeps_what_goes() {
    let made = made(Plan::default());
    let refused = |at| truncate::truncate(&made.storage, Position(at), true).unwrap_err();
    let error = refused(42);
    assert!(
        matches!(
            error,
            ToolError::NoBoundary {
                before: Position(40),
                behind: Position(44),
                ..
            }
        ),
        "TR1: {error}"
    );
    assert!(matches!(
        refused(121),
        ToolError::NoPosition {
            to: Position(120),
            ..
        }
    ));
    snapshot(&made.storage, 70);
    assert!(matches!(
        refused(52),
        ToolError::SnapshotBehind {
            snapshot: Position(70),
            ..
        }
    ));
    crate::snapshots::Snapshots::new(made.storage.clone())
        .remove(Position(70))
        .unwrap();

    for at in [4, 40, 44, 80, 100, 120] {
        let storage = made.storage.fork();
        let before = storage.durable_bytes(&name(at / 41)).unwrap();
        let rehearsed = truncate::truncate(&storage, Position(at), true).unwrap();
        assert_eq!(
            verified(&storage).to,
            Position(120),
            "a rehearsal changes nothing"
        );
        let done = truncate::truncate(&storage, Position(at), false).unwrap();
        assert_eq!(done, rehearsed);
        storage.crash_keeping(|_| false);
        let report = verified(&storage);
        assert_eq!(
            (report.verdict, report.to),
            (Verdict::Clean, Position(at)),
            "{:?}",
            report.findings
        );
        must_agree(&storage, &format!("cut at {at}"));
        let kept = storage.durable_bytes(&done.kept_as).unwrap();
        assert!(kept.len() == before.len(), "TR2");
    }
}

#[test]
fn a_corrupt_journal_opens_again_behind_a_truncation() {
    let made = made(Plan::default());
    made.storage
        .rot(&name(1), made.groups[1][2] + 64 + 64, 1)
        .unwrap();
    let report = verified(&made.storage);
    let help = &damage(&report)[0].help;
    let Some(Help::TruncateAt(at)) = help.iter().find(|one| matches!(one, Help::TruncateAt(_)))
    else {
        panic!("no such help: {help:?}");
    };
    truncate::truncate(&made.storage, *at, false).unwrap();
    assert_eq!(verified(&made.storage).verdict, Verdict::Clean);
    assert_eq!(opened(&made.storage).unwrap().reached.position, *at);
}

#[test]
fn a_power_cut_at_any_step_of_a_truncation_is_finished_by_the_next_open() {
    let made = made(Plan::default());
    for step in 0..200 {
        let storage = made.storage.fork();
        storage.reseed(step);
        storage.cut_power_after(step);
        let outcome = truncate::truncate(&storage, Position(44), false);
        storage.crash();
        let reached = opened(&storage).unwrap().reached.position;
        assert!(
            reached == Position(44) || reached == Position(120),
            "step {step}: {reached}"
        );
        if outcome.is_ok() {
            assert_eq!(reached, Position(44));
            assert!(step > 10, "all steps were cut: {step}");
            return;
        }
    }
    panic!("the truncation never came to its end");
}

#[test]
fn salvage_copies_what_holds_and_marks_what_is_lost() {
    let made = made(Plan::default());
    let into = Simulated::new(9);
    let whole = salvage::salvage(&made.storage, &into, false, &mut quiet).unwrap();
    assert_eq!((whole.frames, whole.events, whole.gaps.len()), (30, 120, 0));
    let same = diff::diff(&made.storage, &into, &mut quiet);
    assert!(
        matches!(same, Err(ToolError::Foreign { what: "log", .. })),
        "an identity of its own"
    );
    assert!(matches!(
        salvage::salvage(&made.storage, &into, false, &mut quiet),
        Err(ToolError::Exists { .. })
    ));

    // The events of a frame, the header of another, a whole segment.
    let before = made.storage.durable_bytes(&name(0)).unwrap();
    made.storage
        .rot(&name(0), made.groups[0][1] + 64 + 64 + 3, 1)
        .unwrap();
    made.storage
        .rot(&name(0), made.groups[0][3] + 64 + 3, 1)
        .unwrap();
    made.storage.remove(&name(1)).unwrap();
    let into = Simulated::new(9);
    let salvaged = salvage::salvage(&made.storage, &into, false, &mut quiet).unwrap();
    let gaps: Vec<_> = salvaged
        .gaps
        .iter()
        .map(|(from, to)| (from.0, to.0))
        .collect();
    assert_eq!(gaps, [(8, 12), (24, 32), (40, 80)]);
    assert_eq!(salvaged.events, 120 - 4 - 8 - 40);
    into.crash_keeping(|_| false);
    let report = verified(&into);
    assert_eq!(report.verdict, Verdict::Clean, "{:?}", report.findings);
    assert_eq!((report.from, report.to), (Position(0), Position(120)));
    let catalog = Catalog::read(&into).unwrap();
    let mut positions = Vec::new();
    each_frame(&into, &catalog, Start::First, &mut |frame| {
        for (position, event) in frame.events() {
            assert_eq!(event, bytemuck::bytes_of(&made::order(position.0)), "SA2");
            positions.push(position.0);
        }
        Ok(true)
    })
    .unwrap();
    let expected: Vec<u64> = (0..120)
        .filter(|at| !gaps.iter().any(|(from, to)| (from..to).contains(&at)))
        .collect();
    assert_eq!(positions, expected);
    made.storage
        .rot(&name(0), made.groups[0][1] + 64 + 64 + 3, 1)
        .unwrap();
    made.storage
        .rot(&name(0), made.groups[0][3] + 64 + 3, 1)
        .unwrap();
    assert_eq!(made.storage.durable_bytes(&name(0)).unwrap(), before, "SA1");
}

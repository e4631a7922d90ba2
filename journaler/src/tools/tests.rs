//! The tools on journals made by hand, whole and damaged.

use super::frames::{Start, each_frame};
use super::made::{Made, Plan, made};
use super::*;
use crate::archive::Archive;
use crate::retention::{self, HeldBy, Needs, Readers};
use crate::ship;
use crate::storage::{Errno, Fault, Faulty, Operation, Simulated};
use crate::verify::{Help, Report, Severity, Verdict, VerifyOptions, verify};

/// Of the schema's descriptor; more in a file is padding.
const ORDERS_BYTES: u64 = 128 + 7 * 64 + 64 + 2 * 48;
const EVENTS_PER_GROUP: u64 = 8;
const EVENTS_PER_SEGMENT: u64 = 40;

fn quiet(_: u64, _: u64) {}

fn verified(storage: &Simulated) -> Report {
    verify(
        storage,
        &VerifyOptions {
            threads: 2,
            ..VerifyOptions::default()
        },
        &mut quiet,
    )
    .unwrap()
}

fn name(segment: u64) -> String {
    SegmentId(segment).file_name()
}

fn damage(report: &Report) -> Vec<&crate::verify::Finding> {
    report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Corrupt)
        .collect()
}

#[test]
fn a_whole_journal_is_clean_and_counted() {
    let Made { storage, tail, .. } = made(Plan::default());
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Clean, "{:?}", report.findings);
    assert_eq!((report.events, report.frames, report.groups), (120, 30, 15));
    assert_eq!(
        (report.from, report.to),
        (Position(0), tail.reached.position)
    );
    let stats = stats::stats(&storage, &mut quiet).unwrap();
    assert_eq!(
        (stats.events, stats.frames, stats.groups, stats.sealed),
        (120, 30, 15, 2)
    );
    assert_eq!(stats.kinds[&1], ("new".to_owned(), 120));
    assert_eq!(stats.events_in_group, [(8, 15)].into());
}

#[test]
fn v1_every_flipped_byte_of_a_sealed_segment_is_found_where_it_is() {
    let Made {
        storage, groups, ..
    } = made(Plan::default());
    let end = groups[1].last().copied().unwrap();
    let before = storage.durable_bytes(&name(1)).unwrap();
    let data = (8192..end).step_by(23);
    let others = (0..8192)
        .step_by(97)
        .chain([end, end + 5000])
        .chain((258_048..258_048 + 128).step_by(5));
    for at in data.chain(others) {
        storage.rot(&name(1), at, 0x10).unwrap();
        let report = verified(&storage);
        let is_padding = (4096 + ORDERS_BYTES..8192).contains(&at);
        if (258_048..).contains(&at) || is_padding {
            // A footer only repeats what the frames say, and nobody reads the padding.
            let is_told = |one: &crate::verify::Finding| {
                one.what.contains("footer") || one.what.contains("behind the descriptor")
            };
            assert!(report.findings.iter().any(is_told), "byte {at}");
            storage.rot(&name(1), at, 0x10).unwrap();
            continue;
        }
        assert_eq!(report.verdict, Verdict::Corrupt, "byte {at}");
        assert!(
            damage(&report)
                .iter()
                .all(|one| one.file == name(1) || one.file == name(2)),
            "byte {at}"
        );
        storage.rot(&name(1), at, 0x10).unwrap();
    }
    assert_eq!(storage.durable_bytes(&name(1)).unwrap(), before);
}

#[test]
fn a_flipped_byte_names_what_is_lost_and_what_goes_on() {
    let Made {
        storage, groups, ..
    } = made(Plan::default());
    // In the events of the first frame of the third group.
    storage
        .rot(&name(0), groups[0][2] + 64 + 64 + 40, 1)
        .unwrap();
    let report = verified(&storage);
    let found = damage(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].offset.map(|at| at.0), Some(groups[0][2] + 64));
    assert_eq!(found[0].position, Some(Position(16)));
    let (place, position) = found[0].resumes.unwrap();
    assert_eq!(
        (place.offset.0, position),
        (groups[0][2] + 64 + 64 + 128, Position(20)),
        "the group's second frame"
    );
    assert!(
        found[0].what.contains("events with CRC"),
        "{}",
        found[0].what
    );
    assert!(found[0].help.contains(&Help::RestoreSegment(SegmentId(0))));
    assert_eq!(report.events, 120 - 4);

    // In the header of the second frame of the last group of a segment.
    storage
        .rot(&name(1), groups[1][4] + 64 + 64 + 128 + 20, 1)
        .unwrap();
    let report = verified(&storage);
    let found = damage(&report);
    assert!(
        found
            .iter()
            .any(|one| one.position == Some(Position(40 + 36))),
        "{found:?}"
    );
}

#[test]
fn a_missing_segment_is_named() {
    let Made { storage, .. } = made(Plan::default());
    storage.remove(&name(1)).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Corrupt);
    let found = damage(&report);
    assert_eq!(found[0].file, name(1));
    assert!(
        found[0].what.contains("a segment is missing"),
        "{}",
        found[0].what
    );
    assert_eq!(found[0].help[0], Help::RestoreSegment(SegmentId(1)));
    let error = each_frame(
        &storage,
        &Catalog::read(&storage).unwrap(),
        Start::First,
        &mut |_| Ok(true),
    );
    assert!(error.unwrap_err().is_damage());
}

#[test]
fn a_missing_beginning_is_named_unless_a_snapshot_replaces_it() {
    let Made { storage, .. } = made(Plan::default());
    snapshot(&storage, EVENTS_PER_SEGMENT + 1);
    storage.remove(&name(0)).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Corrupt);
    assert_eq!(damage(&report)[0].file, name(0));
    change_meta(&storage, |slot| slot.set_first_segment(SegmentId(1))).unwrap();
    assert_eq!(
        verified(&storage).verdict,
        Verdict::Clean,
        "given up, and a snapshot is behind it"
    );
    crate::snapshots::Snapshots::new(storage.clone())
        .remove(Position(EVENTS_PER_SEGMENT + 1))
        .unwrap();
    assert_eq!(
        verified(&storage).verdict,
        Verdict::Corrupt,
        "given up, and nothing replaces it"
    );
}

#[test]
fn the_write_in_flight_is_a_torn_tail_and_what_was_durable_is_damage() {
    let plan = Plan::default();
    // The events of the last group: nothing says that they were durable.
    let Made {
        storage, groups, ..
    } = made(plan);
    storage.rot(&name(2), groups[2][4] + 64 + 64, 1).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::TornTail, "{:?}", report.findings);
    let torn = report
        .findings
        .iter()
        .find(|one| one.severity == Severity::Torn)
        .unwrap();
    assert_eq!(torn.offset.map(|at| at.0), Some(groups[2][4]));
    assert_eq!(torn.position, Some(Position(80 + 32)));

    // A snapshot behind it does.
    snapshot(&storage, 80 + 33);
    assert_eq!(verified(&storage).verdict, Verdict::Corrupt);

    // The group before the last: the last one's mark says that it was durable.
    let Made {
        storage, groups, ..
    } = made(plan);
    storage.rot(&name(2), groups[2][3] + 64 + 64, 1).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Corrupt);
    assert!(
        damage(&report)[0].what.contains("says it was durable"),
        "{:?}",
        damage(&report)
    );

    // Junk far behind the end cannot have been in flight.
    let Made {
        storage, groups, ..
    } = made(plan);
    storage
        .overwrite(&name(2), groups[2][5] + 100_000, &[7; 100])
        .unwrap();
    assert_eq!(verified(&storage).verdict, Verdict::Corrupt);
    let Made {
        storage, groups, ..
    } = made(plan);
    storage
        .overwrite(&name(2), groups[2][5], &[7; 100])
        .unwrap();
    assert_eq!(verified(&storage).verdict, Verdict::TornTail);
}

#[test]
fn a_cut_file_is_damage_when_it_was_sealed() {
    let Made {
        storage, groups, ..
    } = made(Plan::default());
    storage.set_writable(&name(1)).unwrap();
    let file = storage.open(&name(1), Open::WRITE).unwrap();
    file.set_len(groups[1][3] + 10).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Corrupt);
    assert!(
        damage(&report)
            .iter()
            .any(|one| one.what.contains("expected 262144 bytes")),
        "{:?}",
        damage(&report)
    );
}

#[test]
fn v2_a_bad_sector_is_a_finding_and_not_an_end() {
    let Made {
        storage, groups, ..
    } = made(Plan::default());
    storage.spoil_sector(&name(1), groups[1][2] + 100).unwrap();
    let report = verified(&storage);
    assert_eq!(report.verdict, Verdict::Corrupt);
    assert!(
        report.events >= 120 - 2 * EVENTS_PER_GROUP,
        "{}",
        report.events
    );
}

#[test]
fn v2_noise_of_any_kind_ends() {
    for seed in 0..40u64 {
        let Made { storage, .. } = made(Plan::default());
        let mut state = seed * 0x9E37_79B9 + 1;
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) % made::SEGMENT_BYTES;
            storage
                .rot(
                    &name(state >> 20 & 1),
                    at,
                    (state >> 40).to_le_bytes()[0] | 1,
                )
                .unwrap();
        }
        assert_eq!(verified(&storage).verdict, Verdict::Corrupt, "seed {seed}");
        stats::stats(&storage, &mut quiet).unwrap();
    }
}

fn snapshot(storage: &Simulated, position: u64) {
    use crate::snapshots::{SnapshotOf, Snapshots};
    let of = SnapshotOf {
        log: [1; 16],
        reached: crate::Reached {
            position: Position(position),
            frames: position / 4,
        },
        index: 0,
        term: crate::Term(0),
        chain: 0,
        time_ns: 0,
        schema_version: 1,
        schema_hash: 0,
        build: String::new(),
    };
    let mut writer = Snapshots::new(storage.clone()).create(of).unwrap();
    writer.write(&position.to_le_bytes()).unwrap();
    writer.finish(1).unwrap();
}

#[test]
fn frames_start_anywhere() {
    let Made { storage, .. } = made(Plan {
        groups: 100,
        ..Plan::default()
    });
    let catalog = Catalog::read(&storage).unwrap();
    let first = |start| {
        let mut first = None;
        each_frame(&storage, &catalog, start, &mut |frame| {
            first = Some(frame.header.first_position);
            Ok(false)
        })
        .unwrap();
        first
    };
    let all = 3 * 100 * EVENTS_PER_GROUP;
    for position in [0, 3, 4, 5, 799, 800, 801, 1999, all - 1] {
        assert_eq!(
            first(Start::Position(Position(position))),
            Some(position / 4 * 4),
            "position {position}"
        );
        let behind = (position.div_ceil(4) * 4).min(all);
        let expected = (behind < all).then_some(behind);
        assert_eq!(
            first(Start::Time(1_000 + position)),
            expected,
            "time of {position}"
        );
    }
    assert_eq!(first(Start::Position(Position(all))), None);
    // An index that lies is not believed.
    let bytes = storage.durable_bytes(&SegmentId(1).index_name()).unwrap();
    storage
        .overwrite(&SegmentId(0).index_name(), 0, &bytes)
        .unwrap();
    assert_eq!(first(Start::Position(Position(500))), Some(500));
}

#[test]
fn a_journal_that_the_program_does_not_know_is_read_by_its_own_schema() {
    let Made { storage, .. } = made(Plan::default());
    let catalog = Catalog::read(&storage).unwrap();
    let mut shown = String::new();
    each_frame(
        &storage,
        &catalog,
        Start::Position(Position(42)),
        &mut |frame| {
            let schema = frame.schema.unwrap();
            let (position, event) = frame.events().nth(2).unwrap();
            let fields = schema
                .values(event)
                .map(|(field, value)| format!("{}={value}", field.name));
            shown = format!("{position} {}", fields.collect::<Vec<_>>().join(" "));
            Ok(false)
        },
    )
    .unwrap();
    assert_eq!(
        shown,
        "42 time_ns=1970-01-01T00:00:00.000001042Z kind=1 side=buy symbol=ABC price=123.4500 quantity=42"
    );
}

#[test]
fn two_copies_are_compared_by_their_chain() {
    let left = made(Plan::default());
    // Another node has other groups and segments, and the same frames.
    let right = made(Plan {
        groups: 3,
        frames: 5,
        journal_id: 9,
        segments: 2,
        ..Plan::default()
    });
    let found = diff::diff(&left.storage, &right.storage, &mut quiet).unwrap();
    assert_eq!(
        (found.equal_to, found.frames, found.first),
        (Position(120), 30, None)
    );

    let right = made(Plan {
        differs_from: 17,
        journal_id: 9,
        ..Plan::default()
    });
    let found = diff::diff(&left.storage, &right.storage, &mut quiet).unwrap();
    assert_eq!((found.equal_to, found.frames), (Position(68), 17));
    let first = found.first.unwrap();
    assert_eq!(first.event, Some(Position(69)));
    assert_eq!(
        first.left.header.first_position,
        first.right.header.first_position
    );

    let short = made(Plan {
        segments: 2,
        ..Plan::default()
    });
    let found = diff::diff(&left.storage, &short.storage, &mut quiet).unwrap();
    assert_eq!(
        (found.equal_to, found.left_end, found.right_end),
        (Position(80), Position(120), Position(80))
    );
    assert_eq!(found.first, None);
}

fn archived(made: &Made) -> (Simulated, Archive<Simulated>) {
    let place = Simulated::new(5);
    let archive = Archive::new(place.clone());
    for (segment, ..) in Catalog::read(&made.storage).unwrap().sealed() {
        archive.put(&made.storage, segment, &mut quiet).unwrap();
    }
    (place, archive)
}

#[test]
fn a1_an_archived_segment_comes_back_byte_for_byte() {
    let made = made(Plan::default());
    let (place, archive) = archived(&made);
    place.crash_keeping(|_| false);
    let into = Simulated::new(6);
    for id in [SegmentId(0), SegmentId(1)] {
        let about = archive.verify(id).unwrap();
        assert!(about.stored_bytes * 10 < about.raw_bytes, "zeros compress");
        archive.restore(id, &into, &mut quiet).unwrap();
        into.crash_keeping(|_| false);
        assert_eq!(
            into.durable_bytes(&id.file_name()).unwrap(),
            made.storage.durable_bytes(&id.file_name()).unwrap()
        );
        assert!(matches!(
            archive.restore(id, &into, &mut quiet),
            Err(ToolError::Exists { .. })
        ));
    }
    assert_eq!(
        archive
            .mark(&Catalog::read(&made.storage).unwrap())
            .unwrap(),
        Some(Position(80))
    );
}

#[test]
fn a_damaged_or_unsealed_segment_is_not_archived() {
    let journal = made(Plan::default());
    let archive = Archive::new(Simulated::new(5));
    let catalog = Catalog::read(&journal.storage).unwrap();
    let put = |id| {
        archive.put(
            &journal.storage,
            catalog.segment(SegmentId(id)).unwrap(),
            &mut quiet,
        )
    };
    assert!(matches!(put(2), Err(ToolError::NotSealed { .. })));
    journal
        .storage
        .rot(&name(0), journal.groups[0][1] + 200, 1)
        .unwrap();
    assert!(put(0).unwrap_err().is_damage());
    put(1).unwrap();
    assert_eq!(
        archive.mark(&catalog).unwrap(),
        None,
        "A3: the first segment is not there"
    );
    let other = made(Plan {
        journal_id: 9,
        ..Plan::default()
    });
    let catalog = Catalog::read(&other.storage).unwrap();
    let error = archive
        .put(&other.storage, &catalog.segments[0], &mut quiet)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ToolError::Foreign {
                what: "journal",
                ..
            }
        ),
        "A2: {error}"
    );
}

#[test]
fn a_damaged_archive_is_named_and_nothing_is_restored_from_it() {
    let (place, archive) = archived(&made(Plan::default()));
    for entry in place.list("").unwrap() {
        for at in (0..entry.length).step_by(41) {
            place.rot(&entry.name, at, 4).unwrap();
            let id = SegmentId(entry.name[..12].parse().unwrap());
            let error = archive.verify(id).unwrap_err();
            assert!(error.is_damage(), "{} byte {at}: {error}", entry.name);
            let into = Simulated::new(6);
            assert!(archive.restore(id, &into, &mut quiet).is_err());
            assert!(
                into.list("")
                    .unwrap()
                    .iter()
                    .all(|found| !found.name.ends_with(".seg"))
            );
            place.rot(&entry.name, at, 4).unwrap();
        }
    }
}

#[test]
fn a_power_cut_at_any_step_of_archiving_leaves_whole_segments_or_none() {
    let made = made(Plan::default());
    let catalog = Catalog::read(&made.storage).unwrap();
    for step in 0..200 {
        let place = Simulated::new(step);
        place.cut_power_after(step);
        let archive = Archive::new(place.clone());
        let outcome = archive.put(&made.storage, &catalog.segments[0], &mut quiet);
        place.crash();
        for about in archive.list().unwrap() {
            archive.verify(about.segment).unwrap();
        }
        assert_eq!(
            archive
                .put(&made.storage, &catalog.segments[0], &mut quiet)
                .unwrap()
                .segment,
            SegmentId(0)
        );
        if outcome.is_ok() {
            assert!(step > 5, "all steps were cut: {step}");
            return;
        }
    }
    panic!("archiving never came to its end");
}

#[test]
fn repair_takes_the_archived_copy_and_keeps_the_damaged_file() {
    let made = made(Plan::default());
    let (place, _) = archived(&made);
    let good = made.storage.durable_bytes(&name(1)).unwrap();
    made.storage
        .rot(&name(1), made.groups[1][1] + 70, 1)
        .unwrap();
    let bad = made.storage.durable_bytes(&name(1)).unwrap();

    let mend = |is_rehearsal| {
        repair::from_archive(
            &made.storage,
            &place,
            &[SegmentId(1)],
            is_rehearsal,
            &mut quiet,
        )
    };
    assert_eq!(
        mend(true).unwrap()[0].kept_as.as_deref(),
        Some("quarantine/000000000001.seg.0")
    );
    assert_eq!(
        made.storage.durable_bytes(&name(1)).unwrap(),
        bad,
        "a rehearsal changes nothing"
    );
    let held = made.storage.lock(LOCK).unwrap();
    assert!(matches!(mend(false), Err(ToolError::InUse { .. })));
    drop(held);

    mend(false).unwrap();
    made.storage.crash_keeping(|_| false);
    assert_eq!(made.storage.durable_bytes(&name(1)).unwrap(), good);
    assert_eq!(
        made.storage
            .durable_bytes("quarantine/000000000001.seg.0")
            .unwrap(),
        bad,
        "RP1"
    );
    assert_eq!(verified(&made.storage).verdict, Verdict::Clean);

    made.storage.remove(&name(1)).unwrap();
    assert_eq!(
        mend(false).unwrap()[0].kept_as,
        None,
        "a missing segment has nothing to keep"
    );
    assert_eq!(verified(&made.storage).verdict, Verdict::Clean);
}

#[test]
fn rp2_a_copy_of_another_journal_is_refused() {
    let (place, _) = archived(&made(Plan {
        journal_id: 9,
        ..Plan::default()
    }));
    let mine = made(Plan::default());
    let error = repair::from_archive(&mine.storage, &place, &[SegmentId(1)], false, &mut quiet)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ToolError::Foreign {
                what: "journal",
                ..
            }
        ),
        "{error}"
    );
    let (place, _) = archived(&made(Plan {
        differs_from: 3,
        ..Plan::default()
    }));
    let error = repair::from_archive(&mine.storage, &place, &[SegmentId(1)], false, &mut quiet)
        .unwrap_err();
    assert!(
        matches!(error, ToolError::Foreign { what: "log", .. }),
        "{error}"
    );
}

#[test]
fn sh1_shipping_goes_on_where_it_stopped_and_the_list_is_true() {
    let made = made(Plan {
        seals_last: true,
        ..Plan::default()
    });
    let place = Simulated::new(5);
    let shipped = ship::ship(&made.storage, &place, &mut quiet).unwrap();
    assert_eq!((shipped.segments.len(), shipped.new), (3, 3));
    assert_eq!(
        ship::ship(&made.storage, &place, &mut quiet).unwrap().new,
        0
    );
    assert_eq!(ship::verify(&place, &mut quiet).unwrap(), shipped.segments);
    for step in 0..400 {
        let place = Simulated::new(step);
        place.cut_power_after(step);
        let outcome = ship::ship(&made.storage, &place, &mut quiet);
        place.crash();
        ship::verify(&place, &mut quiet).unwrap();
        assert_eq!(
            ship::ship(&made.storage, &place, &mut quiet)
                .unwrap()
                .segments,
            shipped.segments
        );
        if outcome.is_ok() {
            assert!(step > 20, "all steps were cut: {step}");
            place.remove("000000000001.seg.zst").unwrap();
            assert!(ship::verify(&place, &mut quiet).unwrap_err().is_damage());
            return;
        }
    }
    panic!("shipping never came to its end");
}

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

#[test]
fn a_disk_that_says_no_is_an_error_and_not_damage() {
    let made = made(Plan::default());
    let storage = Faulty::new(made.storage.clone());
    storage.fail_once(Operation::Open, ".seg", 4, Errno::Io);
    let error = verify(&storage, &VerifyOptions::default(), &mut quiet).unwrap_err();
    assert!(matches!(error, ToolError::Io { .. }), "{error}");
    assert!(error.to_string().contains(".seg"), "{error}");

    let place = Simulated::new(3);
    place.inject(Fault::NoSpace, "", 0);
    let catalog = Catalog::read(&made.storage).unwrap();
    let error = Archive::new(place)
        .put(&made.storage, &catalog.segments[0], &mut quiet)
        .unwrap_err();
    assert!(matches!(error, ToolError::Io { .. }), "{error}");
}

#[test]
fn a_probe_measures_both_ways_and_leaves_nothing() {
    let storage = Simulated::new(1);
    let found = probe::probe(&storage, std::time::Duration::from_millis(30)).unwrap();
    assert_eq!(found.rows.len(), probe::SIZES.len());
    for row in &found.rows {
        assert!(
            row.sync.count >= 10 && row.sync.min <= row.sync.p50 && row.sync.p99 <= row.sync.max
        );
        assert_eq!(row.direct.unwrap().count, row.sync.count, "in turns");
    }
    assert!(storage.list("").unwrap().is_empty());
}

/// What opening says of a copy of this disk.
fn opened(storage: &Simulated) -> Result<crate::Recovered, crate::OpenError> {
    let fork = storage.fork();
    let mut options = crate::Options::new(&made::ORDERS).with_segment_bytes(made::SEGMENT_BYTES);
    options.background = crate::Background::Stepped;
    options.max_write_bytes = 16 * 1024;
    crate::Journal::open(fork, &options).map(|(_, recovered)| recovered)
}

/// `V3`: verification and opening must not disagree about the end of the log.
fn must_agree(storage: &Simulated, context: &str) {
    let report = verified(storage);
    let found = damage(&report);
    match opened(storage) {
        Ok(recovered) => {
            assert!(
                found.is_empty(),
                "{context}: opened, and verify says {found:?}"
            );
            let torn = report
                .findings
                .iter()
                .find(|one| one.severity == Severity::Torn);
            match (recovered.verdict, torn) {
                (crate::Verdict::TornTail(torn), Some(finding)) => {
                    assert_eq!(Some(torn.place.offset), finding.offset, "{context}");
                    assert_eq!(torn.place.segment.file_name(), finding.file, "{context}");
                }
                (crate::Verdict::TornTail(torn), None) => panic!("{context}: not seen: {torn:?}"),
                (_, Some(finding)) => panic!("{context}: opening does not see {finding:?}"),
                (_, None) => assert_eq!(recovered.reached.position, report.to, "{context}"),
            }
        }
        Err(error) => assert!(
            !found.is_empty(),
            "{context}: refused, and verify is content: {error}"
        ),
    }
}

#[test]
fn v3_opening_and_verification_agree_on_every_flip_in_the_last_segment() {
    let whole = made(Plan {
        groups: 3,
        ..Plan::default()
    });
    let end = *whole.groups[2].last().unwrap();
    must_agree(&whole.storage, "whole");
    let data = (8192..end + 200).step_by(9);
    for at in (0..300)
        .step_by(7)
        .chain((4096..4900).step_by(13))
        .chain(data)
    {
        whole.storage.rot(&name(2), at, 1 << (at % 8)).unwrap();
        must_agree(&whole.storage, &format!("byte {at}"));
        whole.storage.rot(&name(2), at, 1 << (at % 8)).unwrap();
    }
    for (at, length) in [
        (0, 4096),
        (0, 8192),
        (0, 20_000),
        (9_000, 100),
        (end, 64),
        (end + 64, 9000),
        (end, 80_000),
    ] {
        for fill in [0, 0xa5] {
            let fork = whole.storage.fork();
            fork.overwrite(&name(2), at, &vec![fill; length]).unwrap();
            must_agree(&fork, &format!("{length} bytes of {fill:x} at {at}"));
        }
    }
}

#[test]
fn v3_opening_and_verification_agree_after_every_crash() {
    for seed in 0..120 {
        let disk = Simulated::new(seed);
        let mut options = crate::Options::new(&made::ORDERS).with_segment_bytes(64 * 1024);
        options.background = crate::Background::Stepped;
        disk.cut_power_after(20 + seed % 300);
        // Ends with the power.
        let _ = (|| -> Result<(), Box<dyn std::error::Error>> {
            let (mut journal, _) = crate::Journal::open(disk.clone(), &options)?;
            let mut cutter = journal.cutter();
            for position in 0.. {
                let events: Vec<made::Order> = (0..1 + position % 40).map(made::order).collect();
                let body: [&[u8]; 2] = [bytemuck::cast_slice(&events), &[]];
                let header = cutter.cut(body, position);
                journal.write(&[crate::Frame {
                    header: &header,
                    body,
                }])?;
                journal.sync()?;
                for _ in 0..8 {
                    journal.step_background();
                }
            }
            Ok(())
        })();
        assert!(disk.is_off());
        disk.crash();
        if Catalog::read(&disk).unwrap().segments.is_empty() {
            continue;
        }
        let report = verified(&disk);
        let error = opened_with(&disk, &options);
        assert_eq!(
            damage(&report).is_empty(),
            error.is_none(),
            "seed {seed}: {:?} {error:?}",
            report.findings
        );
        assert!(error.is_none(), "a crash is never corruption");
    }
}

fn opened_with(storage: &Simulated, options: &crate::Options) -> Option<crate::OpenError> {
    crate::Journal::open(storage.fork(), options).err()
}

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

//! The tools on journals made by hand, whole and damaged.

mod agreeing;
mod archiving;
mod cutting;
mod keeping;
mod reading;

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

/// What opening says of a copy of this disk.
fn opened(storage: &Simulated) -> Result<crate::Recovered, crate::OpenError> {
    let fork = storage.fork();
    let mut options = crate::Options::new(&made::ORDERS).with_segment_bytes(made::SEGMENT_BYTES);
    options.background = crate::Background::Stepped;
    options.max_write_bytes = 16 * 1024;
    crate::Journal::open(fork, &options).map(|(_, recovered)| recovered)
}

fn opened_with(storage: &Simulated, options: &crate::Options) -> Option<crate::OpenError> {
    crate::Journal::open(storage.fork(), options).err()
}

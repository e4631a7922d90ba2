//! Segments that are kept elsewhere, and come back.

use super::*;

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

//! What is read of a journal that nobody has to know: from anywhere, by its own schema, beside a copy.

use super::*;

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

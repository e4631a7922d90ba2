//! Yesterday's files open today, today's are what the document says.
#![allow(clippy::print_stderr, reason = "what is skipped is said aloud")]

use std::fmt::Write as _;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::archive::Archive;
use lockstep_journaler::retention::Readers;
use lockstep_journaler::schema::{Field, Value};
use lockstep_journaler::ship::ship;
use lockstep_journaler::snapshots::{SnapshotOf, Snapshots};
use lockstep_journaler::storage::{Disk, File, Open, Simulated, Storage};
use lockstep_journaler::{
    Frame, FrameHeader, From, Mode, Options, Position, Reader, SegmentId, Term,
};

use crate::support::{EVENTS, Log, event, open, read_journal, small, write_durable, write_group};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Three groups, a new schema version, three more: a sealed segment and an open one, with every layout.
fn sample() -> (Simulated, Log) {
    let disk = Simulated::new(1);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    journal
        .set_term_and_vote(lockstep_journaler::Term(3), Some(1))
        .unwrap();
    journal.set_notes(b"notes").unwrap();
    for counts in [&[3][..], &[0, 2], &[1]] {
        write_group(&mut journal, &mut log, counts, 7).unwrap();
        journal.sync().unwrap();
    }
    journal.close().unwrap();
    let (mut journal, _) = open(&disk, &second()).unwrap();
    write_durable(&mut journal, &mut log, 3, 2);
    journal.close().unwrap();
    (disk, log)
}

fn second() -> Options {
    let mut options = small();
    options.schema.version = 2;
    options
}

const FILES: [&str; 4] = [
    "journal.meta",
    "000000000000.seg",
    "000000000000.idx",
    "000000000001.seg",
];

/// Lines of 32 bytes that are not zero, in hex behind their offset.
fn listed(disk: &Simulated, names: &[&str]) -> String {
    let mut text = String::new();
    for &name in names {
        let bytes = disk.durable_bytes(name).unwrap();
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (at, line) in bytes
            .chunks(32)
            .enumerate()
            .filter(|(_, line)| line.iter().any(|&byte| byte != 0))
        {
            write!(text, "{:6} ", at * 32).unwrap();
            line.iter()
                .for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

fn restored<S: Storage>(disk: S, text: &str) -> S {
    let mut file = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["file", name, length] => {
                for (at, _) in name.match_indices('/') {
                    disk.create_dir(&name[..at]).unwrap();
                }
                let opened = disk.open(name, Open::CREATE).unwrap();
                opened.set_len(length.parse().unwrap()).unwrap();
                file = Some(opened);
            }
            [at, hex] => {
                let bytes: Vec<u8> = (0..hex.len() / 2)
                    .map(|byte| u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16).unwrap())
                    .collect();
                let file = file.as_ref().unwrap();
                file.write_at(&[IoSlice::new(&bytes)], at.parse().unwrap())
                    .unwrap();
                file.sync_all().unwrap();
            }
            _ => panic!("{line}"),
        }
    }
    disk.sync_directory("").unwrap();
    disk
}

/// `LOCKSTEP_WRITE_FIXTURES=1 cargo test -p lockstep-journaler --test it formats` writes the fixture
/// of a version that is new; those of versions that were released never change.
#[test]
fn version_1_is_written_byte_for_byte_as_it_was() {
    let path = tests().join("fixtures/v1.txt");
    let (disk, _) = sample();
    let text = listed(&disk, &FILES);
    if std::env::var_os("LOCKSTEP_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let fixture = std::fs::read_to_string(&path).unwrap();
    let differs = fixture
        .lines()
        .zip(text.lines())
        .find(|(fixture, now)| fixture != now);
    assert_eq!(
        differs, None,
        "the format changed: raise FORMAT, read both, add a fixture"
    );
    assert_eq!(fixture.lines().count(), text.lines().count());
}

#[test]
fn version_1_opens_and_reads_as_it_was() {
    let fixture = std::fs::read_to_string(tests().join("fixtures/v1.txt")).unwrap();
    let disk = restored(Simulated::new(2), &fixture);
    let (journal, recovered) = open(&disk, &second()).unwrap();
    assert!(recovered.was_clean);
    assert_eq!(
        (journal.term().0, journal.vote(), journal.notes()),
        (3, Some(1), b"notes".to_vec())
    );
    let found = read_journal(&journal).unwrap();
    let counts: Vec<u32> = found
        .frames
        .iter()
        .map(|(header, _)| header.count)
        .collect();
    assert_eq!(counts, [3, 0, 2, 1, 2, 2, 2]);
    let events: Vec<u8> = found
        .frames
        .iter()
        .flat_map(|(_, body)| body.clone())
        .collect();
    for (at, bytes) in events.chunks(64).enumerate() {
        let branch = if at < 6 { 7 } else { 0 };
        assert_eq!(bytes, bytemuck::bytes_of(&event(at as u64, branch)));
    }
}

#[test]
fn the_hash_of_the_schema_is_pinned() {
    assert_eq!(
        EVENTS.hash(),
        18_138_502_836_527_750_140,
        "the layout changed: raise its version, then pin the new hash"
    );
}

#[test]
fn version_1_is_dumped_as_it_was() {
    let path = tests().join("fixtures/v1.jsonl");
    let fixture = std::fs::read_to_string(tests().join("fixtures/v1.txt")).unwrap();
    let text = dumped(restored(Simulated::new(2), &fixture));
    if std::env::var_os("LOCKSTEP_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "what is in version 1 is shown otherwise");
    let place = Place::new("v1");
    drop(restored(place.disk(), &fixture));
    if let Some(read) = by_the_stranger(&place.0) {
        assert_eq!(read, Ok(expected));
    }
}

const MANIFEST: &str = "snap/00000000000000000012/MANIFEST";
const BESIDE: [&str; 4] = [
    MANIFEST,
    "snap/00000000000000000012/part-000.zst",
    "snap/00000000000000000012/part-001.zst",
    "readers/slow",
];
const SHIPMENT: [&str; 3] = ["SHIPPED", "000000000000.seg.zst", "000000000000.seg.about"];

fn state() -> [Vec<u8>; 2] {
    [b"what the logic knows ".repeat(50), Vec::new()]
}

/// What lies beside the sample: a snapshot and a reader's position; and its shipment.
fn sample_beside() -> (Simulated, Simulated) {
    let (disk, log) = sample();
    let (last, _) = log.frames.last().unwrap();
    let of = SnapshotOf {
        log: [0x11; 16],
        reached: log.reached(),
        index: 4,
        term: Term(3),
        chain: last.header_crc(),
        time_ns: last.time_ns,
        schema_version: 2,
        schema_hash: EVENTS.hash(),
        build: "lockstep 0.1.0".to_owned(),
    };
    let mut writer = Snapshots::new(disk.clone()).create(of).unwrap();
    for part in state() {
        writer.next_part().unwrap();
        writer.write(&part).unwrap();
    }
    writer.finish(0xfeed).unwrap();
    let readers = Readers::new(disk.clone());
    readers.advance("slow", Position(5)).unwrap();
    let destination = Simulated::new(3);
    ship(&disk, &destination, &mut |_, _| ()).unwrap();
    (disk, destination)
}

/// Compressed bytes may differ with the compressor, so these are only read, and what is not
/// compressed is written again.
#[test]
fn version_1_of_snapshots_archives_and_shipments_reads_as_it_was() {
    let fixture = |name: &str| tests().join("fixtures").join(name);
    let (beside, shipment) = (fixture("v1-beside.txt"), fixture("v1-shipment.txt"));
    if std::env::var_os("LOCKSTEP_WRITE_FIXTURES").is_some() {
        let (disk, destination) = sample_beside();
        std::fs::write(&beside, listed(&disk, &BESIDE)).unwrap();
        std::fs::write(&shipment, listed(&destination, &SHIPMENT)).unwrap();
    }
    let restore = |path| restored(Simulated::new(2), &std::fs::read_to_string(path).unwrap());
    let (disk, shipped) = (restore(beside), restore(shipment));
    let (today, shipped_today) = sample_beside();

    let snapshots = Snapshots::new(disk.clone());
    let manifest = snapshots.verify(Position(12), 1).unwrap();
    assert_eq!(snapshots.load(&manifest, 1).unwrap(), state());
    assert_eq!(disk.durable_bytes(MANIFEST).unwrap(), manifest.encode());
    let mut expected = Snapshots::new(today.clone())
        .manifest(Position(12))
        .unwrap();
    expected.parts.clone_from(&manifest.parts);
    assert_eq!(manifest, expected);

    let readers = Readers::new(disk.clone()).list().unwrap();
    assert_eq!(readers, [("slow".to_owned(), Position(5))]);
    let name = "readers/slow";
    let written = today.durable_bytes(name).unwrap();
    assert_eq!(disk.durable_bytes(name).unwrap(), written);

    let list = lockstep_journaler::ship::verify(&shipped, &mut |_, _| ()).unwrap();
    assert_eq!(list.len(), 1);
    let archive = Archive::new(shipped.clone());
    let about = archive.about(SegmentId(0)).unwrap();
    let text = shipped.durable_bytes("000000000000.seg.about").unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), about.encode());
    let mut expected = Archive::new(shipped_today).about(SegmentId(0)).unwrap();
    (expected.stored_bytes, expected.stored_crc) = (about.stored_bytes, about.stored_crc);
    assert_eq!(about, expected);
    let back = Simulated::new(4);
    archive
        .restore(SegmentId(0), &back, &mut |_, _| ())
        .unwrap();
    assert_eq!(
        back.durable_bytes("000000000000.seg").unwrap(),
        today.durable_bytes("000000000000.seg").unwrap()
    );
}

/// An event with every type of field, 56 bytes: frames of it want padding.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Trade {
    time_ns: u64,
    kind: u16,
    side: u8,
    flags: u8,
    is_urgent: u8,
    tag: [u8; 3],
    price: i64,
    drift: i32,
    levels: [u16; 2],
    symbol: [u8; 8],
    quantity: u64,
    reserved: u64,
}

lockstep_journaler::schema! {
    /// Two kinds, and every type.
    TRADES: "test.trades" version 7 for Trade, kind by kind;
    header { time_ns: time; kind: plain; }
    1 = "trade" as Trade {
        side: enumeration { buy = 1, sell = 2 };
        flags: flags { hidden = 1, both = 6, late = 8 };
        is_urgent: boolean;
        tag: bytes;
        price: decimal(3);
        drift: plain;
        levels: plain;
        symbol: chars;
        quantity: plain;
        reserved: padding;
    }
    5 = "bust" as Trade {
        side: padding;
        flags: padding;
        is_urgent: padding;
        tag: padding;
        price: decimal(0);
        drift: padding;
        levels: padding;
        symbol: chars;
        quantity: plain;
        reserved: padding;
    }
}

fn trade(number: u64) -> Trade {
    const SYMBOLS: [[u8; 8]; 3] = [*b"ACME    ", *b"\0\0\0\0\0\0\0\0", *b"K\xc3\x96LN\0\0\0"];
    let plain = Trade {
        time_ns: u64::MAX / 2 + number,
        kind: 1,
        price: (number as i64 - 40) * 777,
        symbol: SYMBOLS[(number % 3) as usize],
        quantity: u64::MAX - number,
        ..Trade::zeroed()
    };
    match number % 7 {
        6 => Trade { kind: 5, ..plain },
        // A kind that the schema does not know: only the shared fields are shown.
        5 => Trade { kind: 9, ..plain },
        _ => Trade {
            side: (number % 4) as u8,
            flags: number as u8,
            is_urgent: (number % 2) as u8,
            tag: [number as u8, 0xff, 0],
            drift: 5 - number as i32,
            levels: [number as u16, u16::MAX],
            ..plain
        },
    }
}

/// Three segments of trades and a started one, in frames of 1, 0 and 9; the number of trades.
fn write_trades(disk: &Disk, mode: Mode) -> Option<u64> {
    let options = Options {
        schema: TRADES,
        allow_volatile_medium: true,
        ..small()
    }
    .with_mode(mode);
    let (mut journal, _) = match open(disk, &options) {
        Ok(opened) => opened,
        Err(error) if mode == Mode::Direct => {
            eprintln!("skipped: no direct access to this file system: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut number = 0;
    while journal.counters().rolls < 3 || number % 20 != 0 {
        let mut cutter = journal.cutter();
        let frames: Vec<(FrameHeader, Vec<Trade>)> = [1, 0, 9]
            .into_iter()
            .map(|count| {
                let trades: Vec<Trade> = (number..number + count).map(trade).collect();
                number += count;
                let header = cutter.cut([bytemuck::cast_slice(&trades), &[]], number);
                (header, trades)
            })
            .collect();
        let group: Vec<Frame<'_>> = frames
            .iter()
            .map(|(header, trades)| Frame {
                header,
                body: [bytemuck::cast_slice(trades), &[]],
            })
            .collect();
        journal.write(&group).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.close().unwrap();
    Some(number)
}

#[test]
fn a_stranger_reads_a_journal_by_the_document() {
    for mode in [Mode::Sync, Mode::Direct] {
        let place = Place::new(mode.name());
        let disk = place.disk();
        let Some(trades) = write_trades(&disk, mode) else {
            continue;
        };
        let expected = dumped(disk.clone());
        assert_eq!(expected.lines().count() as u64, trades);
        let Some(read) = by_the_stranger(&place.0) else {
            return;
        };
        assert_eq!(read, Ok(expected));

        // The stranger notices what was changed behind the checksums, too.
        let name = "000000000001.seg";
        disk.set_writable(name).unwrap();
        let bytes = std::fs::read(place.0.join(name)).unwrap();
        let data = 4096 + 4096;
        assert_eq!(&bytes[data..data + 4], b"LSM1");
        let frame = data + 64;
        let padding = frame + 64 + 56;
        for at in [4000, 4200, data + 40, frame + 20, frame + 70, padding] {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            std::fs::write(place.0.join(name), &bad).unwrap();
            let refused = by_the_stranger(&place.0).unwrap().unwrap_err();
            assert!(refused.starts_with("damaged: "), "byte {at}: {refused}");
        }
        // A whole segment that is gone is no damage to any byte.
        std::fs::remove_file(place.0.join(name)).unwrap();
        let refused = by_the_stranger(&place.0).unwrap().unwrap_err();
        assert_eq!(refused, "damaged: 000000000002.seg: not the next\n");
    }
}

/// A directory of the real disk, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("lockstep-formats-{}-{name}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }

    fn disk(&self) -> Disk {
        Disk::create(&self.0).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the reader in Python prints, or what it says against it; `None` without Python.
fn by_the_stranger(journal: &Path) -> Option<Result<String, String>> {
    let reader = tests().join("read_journal.py");
    let started = Command::new("python3").arg(reader).arg(journal).output();
    let Ok(output) = started else {
        eprintln!(
            "skipped: there is no python3 here, so the reader of docs/FORMATS.md was not tried"
        );
        return None;
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    })
}

/// The same lines from our own reader.
fn dumped<S: Storage>(storage: S) -> String {
    let mut reader = Reader::open(storage, From::Oldest).unwrap();
    let mut text = String::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let first = frame.first_position().0;
        let events: Vec<Vec<u8>> = frame.event_bytes().map(<[u8]>::to_vec).collect();
        let schema = reader.schema().unwrap();
        for (position, event) in (first..).zip(&events) {
            let kind = schema.kind_number(event).and_then(|kind| schema.kind(kind));
            let kind = kind.map_or("null".to_owned(), |kind| quoted(&kind.name));
            let fields = schema.values(event);
            let fields = fields.map(|(field, value)| (quoted(&field.name), as_json(value)));
            let fields: Vec<String> = fields
                .map(|(name, value)| format!("{name}:{value}"))
                .collect();
            writeln!(
                text,
                "{{\"position\":{position},\"event\":{kind},\"fields\":{{{}}}}}",
                fields.join(",")
            )
            .unwrap();
        }
    }
    text
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn as_json(value: Value<'_>) -> String {
    match value {
        Value::Unsigned(_)
        | Value::Signed(_)
        | Value::Bool(_)
        | Value::Enumeration { name: None, .. } => value.to_string(),
        Value::Time(nanoseconds) => nanoseconds.to_string(),
        Value::Text(_) | Value::Bytes(_) | Value::Decimal { .. } | Value::Enumeration { .. } => {
            quoted(&value.to_string())
        }
        Value::Flags { bits: 0, .. } => "[]".to_owned(),
        Value::Flags { .. } => {
            let shown = value.to_string();
            let one = |flag: &str| match flag.parse::<u64>() {
                Ok(unnamed) => unnamed.to_string(),
                Err(_) => quoted(flag),
            };
            let flags: Vec<String> = shown.split('|').map(one).collect();
            format!("[{}]", flags.join(","))
        }
        Value::Array { field, bytes } => {
            let element = Field {
                offset: 0,
                count: 1,
                ..field.clone()
            };
            let one = |bytes| as_json(element.value(bytes).unwrap());
            let elements = bytes.chunks(usize::from(field.element_size));
            let elements: Vec<String> = elements.map(one).collect();
            format!("[{}]", elements.join(","))
        }
    }
}

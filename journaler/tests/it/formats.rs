//! Yesterday's files open today, today's are what the document says.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_journaler::storage::{Disk, File, Open, Simulated, Storage};
use lockstep_journaler::{Mode, Options};

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
fn listed(disk: &Simulated) -> String {
    let mut text = String::new();
    for name in FILES {
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

fn restored(text: &str) -> Simulated {
    let disk = Simulated::new(2);
    let mut file = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["file", name, length] => {
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
    let text = listed(&disk);
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
    let disk = restored(&fixture);
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
fn a_stranger_reads_a_journal_by_the_document() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!(
            "skipped: there is no python3 here, so the reader of docs/FORMATS.md was not tried"
        );
        return;
    }
    let path = std::env::temp_dir().join(format!("lockstep-stranger-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let disk = Disk::create(&path).unwrap();
    let mut log = Log::default();
    let options = Options {
        allow_volatile_medium: true,
        ..small()
    }
    .with_mode(Mode::Sync);
    let (mut journal, _) = open(&disk, &options).unwrap();
    while journal.counters().rolls < 3 {
        write_group(&mut journal, &mut log, &[5, 0, 9], 3).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.close().unwrap();
    let read = |path: &Path| {
        let reader = tests().join("read_journal.py");
        Command::new("python3")
            .arg(reader)
            .arg(path)
            .output()
            .unwrap()
    };
    let output = read(&path);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let end = log.reached().position.0;
    assert_eq!(text.lines().count() as u64, end);
    for (position, line) in text.lines().enumerate() {
        let event = event(position as u64, 3);
        let (side, price) = (
            ["buy", "sell"][position % 2],
            (position as i64 - 50) * 12_345,
        );
        let (whole, rest) = (price.abs() / 10_000, price.abs() % 10_000);
        let sign = if price < 0 { "-" } else { "" };
        let expected = format!(
            "{position} order time_ns={} position={position} branch=3 kind=1 side={side} symbol=ABC \
             price={sign}{whole}.{rest:04} fill={},{} check={}",
            event.time_ns, event.fill[0], event.fill[1], event.check
        );
        assert_eq!(line, expected);
    }

    // The stranger notices a flipped bit too.
    let segment = disk.open("000000000001.seg", Open::READ).unwrap();
    let mut byte = [0; 1];
    segment.read_at(&mut byte, 9000).unwrap();
    drop(segment);
    disk.set_writable("000000000001.seg").unwrap();
    let segment = disk.open("000000000001.seg", Open::WRITE).unwrap();
    segment
        .write_at(&[IoSlice::new(&[byte[0] ^ 4])], 9000)
        .unwrap();
    let output = read(&path);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged: 000000000001.seg"));
    std::fs::remove_dir_all(&path).unwrap();
}

//! `lockstep journal …` as an operator meets it: journals of an event type that
//! the program was not built with, whole, damaged, mended and moved.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::snapshots::{SnapshotOf, Snapshots};
use lockstep_journaler::storage::{Disk, File as _, Open, Storage as _};
use lockstep_journaler::{Background, Frame, Journal, Options, Pace};
use serde_json::Value;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tick {
    time_ns: u64,
    kind: u32,
    venue: [u8; 4],
    price: i64,
    volume: u64,
}

lockstep_journaler::schema! {
    TICKS: "test.ticks" version 3 for Tick, kind by kind;
    header { time_ns: time; kind: plain; }
    1 = "trade" as Tick { venue: chars; price: decimal(2); volume: plain; }
    2 = "quote" as Tick { venue: chars; price: decimal(2); volume: plain; }
}

const SEGMENT_BYTES: u64 = 64 * 1024;
const EVENTS_PER_FRAME: u64 = 10;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("lockstep-it-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("j")).unwrap();
        Place(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("j")
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    let mut options = Options::new(&TICKS).with_segment_bytes(SEGMENT_BYTES);
    options.background = Background::Stepped;
    options.hint_interval = Duration::from_secs(3600);
    options.prepare_pause = Duration::ZERO;
    options.allow_volatile_medium = true;
    options
}

fn tick(position: u64) -> Tick {
    Tick {
        time_ns: 1_700_000_000_000_000_000 + position * 1_000,
        kind: 1 + u32::from(position % 2 == 1),
        venue: *b"XETR",
        price: 10_000 + i64::try_from(position % 100).unwrap(),
        volume: position,
    }
}

/// Opens the journal and writes so many frames, each a durable group of its own.
fn write(dir: &Path, frames: u64) -> Journal<Disk> {
    let (mut journal, _) = Journal::open(Disk::at(dir).unwrap(), &options()).unwrap();
    let mut cutter = journal.cutter();
    for _ in 0..frames {
        write_group(&mut journal, &mut cutter);
        journal.sync().unwrap();
        while journal.step_background() == Pace::Busy {}
    }
    journal
}

fn write_group(journal: &mut Journal<Disk>, cutter: &mut lockstep_journaler::Cutter) {
    let first = cutter.tail().reached.position.0;
    let ticks: Vec<Tick> = (first..first + EVENTS_PER_FRAME).map(tick).collect();
    let body: [&[u8]; 2] = [bytemuck::cast_slice(&ticks), &[]];
    let header = cutter.cut(body, ticks[0].time_ns);
    journal
        .write(&[Frame {
            header: &header,
            body,
        }])
        .unwrap();
}

/// A journal of several segments that was closed in order.
fn closed(name: &str) -> Place {
    let place = Place::new(name);
    write(&place.journal(), 400).close().unwrap();
    let count = segments(&place.journal()).len();
    assert!(count >= 3, "{count} segments");
    place
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .arg("journal")
        .args(arguments)
        .output()
        .unwrap()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs, wants this exit code, and gives what was printed.
fn expect(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{stdout}\n{stderr}"
    );
    format!("{stdout}{stderr}")
}

fn json(code: i32, arguments: &[&str]) -> Value {
    let mut with_format = arguments.to_vec();
    with_format.extend(["--format", "json"]);
    let text = expect(code, &with_format);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
}

/// Flips a bit of a file, whatever its mode.
fn flip(path: &Path, at: u64) {
    let storage = Disk::at(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    storage.set_writable(name).unwrap();
    let file = storage.open(name, Open::WRITE).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_at(&[std::io::IoSlice::new(&[byte[0] ^ 4])], at)
        .unwrap();
}

/// Behind the last byte of a segment's data that is not zero.
fn data_end(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let data = &bytes[..bytes.len() - 4096];
    data.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1
}

#[test]
fn a_journal_of_an_unknown_type_is_shown_with_its_field_names() {
    let place = closed("shown");
    let dir = place.journal();
    let dir = shown(&dir);
    let text = expect(0, &["inspect", dir, "--fields"]);
    for part in [
        "test.ticks version 3",
        "price: decimal(2) i64",
        "venue: char[4]",
        "sealed",
        "open",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let found = json(0, &["inspect", dir]);
    assert_eq!(found["segments"][0]["from"], 0);
    assert_eq!(found["segments"][0]["schema"]["kinds"][1]["name"], "quote");

    let text = expect(0, &["dump", dir, "--from", "101", "--count", "2"]);
    assert_eq!(
        text,
        "101 quote time_ns=2023-11-14T22:13:20.000101000Z kind=2 venue=XETR price=100.01 volume=101\n\
         102 trade time_ns=2023-11-14T22:13:20.000102000Z kind=1 venue=XETR price=100.02 volume=102\n"
    );
    let text = expect(
        0,
        &[
            "dump", dir, "--from", "101", "--count", "1", "--format", "json",
        ],
    );
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["fields"]["price"], "100.01");
    assert_eq!(
        (event["position"].as_u64(), event["kind"].as_str()),
        (Some(101), Some("quote"))
    );
    let text = expect(
        0,
        &["dump", dir, "--as", "csv", "--kind", "quote", "--to", "6"],
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "position,frame_time_ns,kind_name,time_ns,kind,venue,price,volume"
    );
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[3].starts_with("5,1700000000000000000,quote,"),
        "{text}"
    );
    let text = expect(0, &["dump", dir, "--as", "hex", "--count", "1"]);
    assert!(text.contains("LSF1") && text.contains("XETR"), "{text}");

    let text = expect(0, &["tail", dir, "-n", "3"]);
    assert!(
        text.lines().last().unwrap().starts_with("3999 quote "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3);
    let found = json(0, &["seek", dir, "--position", "1234"]);
    assert_eq!(found["event"]["fields"]["volume"], 1234);
    assert_eq!(found["frame"]["first_position"], 1230);
    let found = json(0, &["seek", dir, "--time", "1700000000000500000"]);
    assert_eq!(found["frame"]["first_position"], 500);
    let found = json(0, &["stats", dir]);
    assert_eq!(
        (found["events"].as_u64(), found["groups"].as_u64()),
        (Some(4000), Some(400))
    );
    assert_eq!(found["kinds"][0]["events"], 2000);
    let found = json(0, &["verify", dir, "--parallel", "2"]);
    assert_eq!(
        (found["verdict"].as_str(), found["events"].as_u64()),
        (Some("clean"), Some(4000))
    );
}

#[test]
fn a_flipped_byte_is_exit_5_with_place_position_and_help() {
    let place = closed("flipped");
    let dir = place.journal();
    let second = &segments(&dir)[1];
    flip(second, 20_000);
    let found = json(5, &["verify", shown(&dir)]);
    assert_eq!(found["verdict"], "corrupt");
    let finding = &found["findings"][0];
    assert_eq!(finding["file"], "000000000001.seg");
    assert_eq!(finding["severity"], "corrupt");
    let offset = finding["offset"].as_u64().unwrap();
    assert!((19_000..=20_000).contains(&offset), "{finding}");
    let lost = finding["position"].as_u64().unwrap();
    assert_eq!(
        finding["resumes"]["position"].as_u64(),
        Some(lost + EVENTS_PER_FRAME),
        "{finding}"
    );
    assert_eq!(found["events"].as_u64(), Some(4000 - EVENTS_PER_FRAME));
    let text = expect(5, &["verify", shown(&dir)]);
    for part in [
        "CORRUPT",
        "expected",
        "found",
        "help: lockstep journal repair",
        "truncate",
        "salvage",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let text = expect(5, &["dump", shown(&dir), "--from", &(lost - 1).to_string()]);
    assert!(
        text.contains("stopped in 000000000001.seg at offset"),
        "{text}"
    );
}

#[test]
fn a_missing_segment_is_exit_5_and_is_named() {
    let place = closed("missing");
    let dir = place.journal();
    fs::remove_file(&segments(&dir)[1]).unwrap();
    let text = expect(5, &["verify", shown(&dir)]);
    assert!(
        text.contains("expected 000000000001.seg behind 000000000000.seg"),
        "{text}"
    );
    assert!(text.contains("--segment 1"), "{text}");
    let text = expect(5, &["dump", shown(&dir), "--as", "hex"]);
    assert!(text.contains("a segment between is missing"), "{text}");

    let place = closed("missing_first");
    let dir = place.journal();
    fs::remove_file(&segments(&dir)[0]).unwrap();
    let text = expect(5, &["verify", shown(&dir)]);
    assert!(
        text.contains("expected 000000000000.seg to be the first"),
        "{text}"
    );
}

#[test]
fn a_cut_tail_is_torn_where_a_write_was_in_flight_and_damage_where_it_was_durable() {
    // Killed with a group written and not synced, and half of the group is lost.
    let place = Place::new("torn");
    let dir = place.journal();
    let mut journal = write(&dir, 20);
    let mut cutter = journal.cutter();
    write_group(&mut journal, &mut cutter);
    drop(journal);
    let newest = segments(&dir)
        .into_iter()
        .rfind(|path| fs::read(path).unwrap()[0] != 0)
        .unwrap();
    let end = data_end(&newest);
    let file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    file.set_len(end - 100).unwrap();
    file.set_len(SEGMENT_BYTES).unwrap();
    let found = json(0, &["verify", shown(&dir)]);
    assert_eq!(found["verdict"], "torn tail", "{found}");
    assert_eq!(found["findings"][0]["position"], 200);
    let text = expect(0, &["verify", shown(&dir)]);
    assert!(text.contains("opening the journal cuts it off"), "{text}");

    // The next open does, and from then on it is clean.
    write(&dir, 1).close().unwrap();
    let found = json(0, &["verify", shown(&dir)]);
    assert_eq!(
        (found["verdict"].as_str(), found["to"].as_u64()),
        (Some("clean"), Some(210))
    );

    // The same cut behind a close in order is damage.
    let end = data_end(&newest);
    let file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    file.set_len(end - 100).unwrap();
    let found = json(5, &["verify", shown(&dir)]);
    assert_eq!(found["verdict"], "corrupt");
}

#[test]
fn a_newest_segment_of_which_nothing_is_left_is_damage() {
    for how in ["emptied", "removed"] {
        let place = closed(&format!("newest-{how}"));
        let dir = place.journal();
        let held = json(0, &["verify", shown(&dir)]);
        let all = segments(&dir);
        let newest = all.last().unwrap();
        let end = held["to"].as_u64().unwrap();
        match how {
            "emptied" => fs::write(newest, "").unwrap(),
            _ => fs::remove_file(newest).unwrap(),
        }
        let found = json(5, &["verify", shown(&dir)]);
        assert_eq!(found["verdict"], "corrupt", "{how}: {found}");
        let what = found["findings"][0]["what"].as_str().unwrap();
        assert!(
            what.contains(&format!("journal.meta says durable up to {end}")),
            "{how}: {what}"
        );
        // What it advises goes through, and leaves a journal that holds.
        let at = found["to"].to_string();
        expect(0, &["truncate", shown(&dir), "--at", &at, "--yes"]);
        json(0, &["verify", shown(&dir)]);
    }
}

#[test]
fn the_copy_of_another_node_mends_a_damaged_journal() {
    let place = closed("peer");
    let (dir, copy) = (place.journal(), place.dir("copy"));
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let second = segments(&dir)[1].clone();
    flip(&second, 20_000);
    fs::remove_file(&segments(&dir)[0]).unwrap();
    let _ = fs::remove_dir_all(dir.join("pool"));
    let repair = ["repair", shown(&dir), "--from-peer", shown(&copy)];
    let text = expect(2, &repair);
    assert!(text.contains("--dry-run"), "{text}");
    let text = expect(0, &[&repair[..], &["--segment", "1", "--dry-run"]].concat());
    assert!(text.contains("would replace 000000000001.seg"), "{text}");
    expect(5, &["verify", shown(&dir)]);
    let text = expect(0, &[&repair[..], &["--yes"]].concat());
    assert!(text.contains("replaced 000000000000.seg"), "{text}");
    assert!(
        text.contains("1 frame of it from the copy, kept as quarantine/"),
        "{text}"
    );
    expect(0, &["verify", shown(&dir)]);
    expect(0, &["diff", shown(&dir), shown(&copy)]);

    // A copy that is damaged in the same place mends nothing, and says where it ends.
    flip(&second, 20_000);
    (12_288..60_000)
        .step_by(1_000)
        .for_each(|at| flip(&segments(&copy)[1], at));
    let text = expect(5, &[&repair[..], &["--yes"]].concat());
    assert!(text.contains("is as it was"), "{text}");
    assert!(text.contains("the copy: journal damaged"), "{text}");
    // And the copy of another log is none.
    let other = closed("peer-other");
    let text = expect(
        5,
        &[
            "repair",
            shown(&dir),
            "--from-peer",
            shown(&other.journal()),
            "--yes",
        ],
    );
    assert!(text.contains("another log"), "{text}");
}

#[test]
fn an_archive_mends_a_damaged_journal() {
    let place = closed("archive");
    let (dir, archive) = (place.journal(), place.dir("archive"));
    let found = json(0, &["archive", shown(&dir), shown(&archive)]);
    let sealed = found["segments"].as_array().unwrap().len();
    assert!(sealed >= 2, "{found}");
    json(0, &["archive", shown(&dir), shown(&archive), "--verify"]);

    let second = segments(&dir)[1].clone();
    let good = fs::read(&second).unwrap();
    flip(&second, 20_000);
    let repair = ["repair", shown(&dir), "--from-archive", shown(&archive)];
    let text = expect(2, &repair);
    assert!(text.contains("--dry-run"), "{text}");
    let text = expect(0, &[&repair[..], &["--dry-run"]].concat());
    assert!(text.contains("would replace 000000000001.seg"), "{text}");
    expect(5, &["verify", shown(&dir)]);
    let text = expect(0, &[&repair[..], &["--yes"]].concat());
    assert!(text.contains("kept as quarantine/"), "{text}");
    assert_eq!(fs::read(&second).unwrap(), good);
    expect(0, &["verify", shown(&dir)]);

    let restored = place.dir("restored");
    expect(
        0,
        &[
            "restore",
            shown(&archive),
            shown(&restored),
            "--segment",
            "1",
        ],
    );
    assert_eq!(fs::read(restored.join("000000000001.seg")).unwrap(), good);
    expect(
        2,
        &[
            "restore",
            shown(&archive),
            shown(&restored),
            "--segment",
            "1",
        ],
    );

    let shipped = place.dir("shipped");
    let found = json(0, &["ship", shown(&dir), shown(&shipped)]);
    assert_eq!(found["new"].as_u64(), Some(sealed as u64));
    expect(0, &["ship", shown(&dir), shown(&shipped), "--verify"]);
    flip(&shipped.join("000000000000.seg.zst"), 100);
    expect(5, &["ship", shown(&dir), shown(&shipped), "--verify"]);
}

#[test]
fn a_journal_of_one_open_segment_is_archived_when_it_is_sealed_and_comes_back() {
    let place = Place::new("small");
    let (dir, archive) = (place.journal(), place.dir("archive"));
    write(&dir, 3).close().unwrap();
    let put = ["archive", shown(&dir), shown(&archive)];
    let seal = [&put[..], &["--seal"]].concat();
    let text = expect(0, &put);
    assert!(text.contains("--seal does it now"), "{text}");
    assert_eq!(json(0, &put)["unsealed_from"].as_u64(), Some(0));

    let open = write(&dir, 1);
    let text = expect(6, &seal);
    assert!(text.contains("stop it first"), "{text}");
    assert!(expect(0, &put).contains("and say --seal"));
    open.close().unwrap();

    let all = 4 * EVENTS_PER_FRAME;
    let found = json(0, &seal);
    assert_eq!(found["mark"].as_u64(), Some(all), "{found}");
    assert!(found["unsealed_from"].is_null(), "{found}");
    assert_eq!(json(0, &seal)["segments"].as_array().unwrap().len(), 1);
    let shipped = place.dir("shipped");
    let found = json(0, &["ship", shown(&dir), shown(&shipped), "--seal"]);
    assert_eq!(found["end"].as_u64(), Some(all), "{found}");
    expect(0, &["verify", shown(&dir)]);

    let (restored, back) = (place.dir("restored"), place.0.join("back"));
    let text = expect(0, &["restore", shown(&archive), shown(&restored)]);
    let next = format!("lockstep journal salvage {} NEW", shown(&restored));
    assert!(text.contains(&next), "{text}");
    let salvage = ["salvage", shown(&restored), shown(&back), "--unsafe"];
    let found = json(0, &salvage);
    assert_eq!(found["events"].as_u64(), Some(all), "{found}");
    // What it goes on with lies in a segment of its own, in both.
    for dir in [&dir, &back] {
        write(dir, 1).close().unwrap();
        let found = json(0, &["verify", shown(dir)]);
        assert_eq!(
            found["to"].as_u64(),
            Some(all + EVENTS_PER_FRAME),
            "{found}"
        );
    }
}

#[test]
fn truncation_and_salvage_are_the_ways_out_without_an_archive() {
    let place = closed("ways_out");
    let dir = place.journal();
    flip(&segments(&dir)[1], 20_000);
    let lost = json(5, &["verify", shown(&dir)])["findings"][0]["position"]
        .as_u64()
        .unwrap();

    let out = place.0.join("salvaged");
    let salvage = ["salvage", shown(&dir), shown(&out), "--unsafe"];
    let found = json(0, &salvage);
    assert_eq!(found["gaps"][0]["from"].as_u64(), Some(lost));
    assert_eq!(found["events"].as_u64(), Some(4000 - EVENTS_PER_FRAME));
    let found = json(0, &["verify", shown(&out)]);
    assert_eq!(
        (found["verdict"].as_str(), found["to"].as_u64()),
        (Some("clean"), Some(4000))
    );
    expect(2, &salvage);

    let at = lost.to_string();
    let truncate = ["truncate", shown(&dir), "--at", &at];
    expect(2, &truncate);
    let odd = (lost - 1).to_string();
    let text = expect(2, &["truncate", shown(&dir), "--at", &odd, "--yes"]);
    assert!(text.contains("no frame ends at position"), "{text}");
    expect(0, &[&truncate[..], &["--dry-run"]].concat());
    expect(5, &["verify", shown(&dir)]);
    expect(0, &[&truncate[..], &["--yes"]].concat());
    let found = json(0, &["verify", shown(&dir)]);
    assert_eq!(
        (found["verdict"].as_str(), found["to"].as_u64()),
        (Some("clean"), Some(lost))
    );
    let journal = write(&dir, 1);
    assert_eq!(journal.tail().reached.position.0, lost + EVENTS_PER_FRAME);
}

#[test]
fn two_nodes_are_compared_and_the_first_difference_is_named() {
    let place = closed("diff");
    let (left, right) = (place.journal(), place.dir("right"));
    let log_id = {
        let (journal, _) = Journal::open(Disk::at(&left).unwrap(), &options()).unwrap();
        journal.log_id()
    };
    let mut other = options();
    other.log_id = Some(log_id);
    let (mut journal, _) = Journal::open(Disk::at(&right).unwrap(), &other).unwrap();
    let mut cutter = journal.cutter();
    for at in 0..30 {
        let first = cutter.tail().reached.position.0;
        let mut ticks: Vec<Tick> = (first..first + EVENTS_PER_FRAME).map(tick).collect();
        ticks[4].volume += u64::from(at >= 25);
        let body: [&[u8]; 2] = [bytemuck::cast_slice(&ticks), &[]];
        let header = cutter.cut(body, ticks[0].time_ns);
        journal
            .write(&[Frame {
                header: &header,
                body,
            }])
            .unwrap();
        journal.sync().unwrap();
    }
    journal.close().unwrap();
    let found = json(5, &["diff", shown(&left), shown(&right)]);
    assert_eq!(found["equal_to"], 250);
    assert_eq!(found["first"]["event"], 254);
    let found = json(0, &["diff", shown(&left), shown(&left)]);
    assert!(found["first"].is_null());
}

#[test]
fn snapshots_and_retention_are_planned_first() {
    let place = closed("retention");
    let dir = place.journal();
    let found = json(0, &["retention", "plan", shown(&dir)]);
    assert_eq!(found["remove"].as_array().unwrap().len(), 0, "{found}");
    assert!(
        found["held_by"].as_str().unwrap().contains("no snapshot"),
        "{found}"
    );
    let snapshots = Snapshots::new(Disk::at(&dir).unwrap());
    for position in [2500u64, 2600] {
        let of = SnapshotOf {
            log: [0; 16],
            reached: lockstep_journaler::Reached {
                position: lockstep_journaler::Position(position),
                frames: position / EVENTS_PER_FRAME,
            },
            index: 0,
            term: lockstep_journaler::Term(0),
            chain: 0,
            time_ns: 0,
            schema_version: 3,
            schema_hash: TICKS.hash(),
            build: "test".to_owned(),
        };
        let mut writer = snapshots.create(of).unwrap();
        writer.write(&position.to_le_bytes()).unwrap();
        writer.finish(7).unwrap();
    }
    let found = json(0, &["snapshot", "list", shown(&dir)]);
    assert_eq!(found["snapshots"][0]["position"], 2600);
    expect(0, &["snapshot", "verify", shown(&dir)]);

    let found = json(0, &["retention", "plan", shown(&dir)]);
    let planned = found["remove"].as_array().unwrap().len();
    assert!(planned >= 1, "{found}");
    expect(2, &["retention", "apply", shown(&dir)]);
    let before = segments(&dir).len();
    expect(0, &["retention", "apply", shown(&dir), "--dry-run"]);
    assert_eq!(segments(&dir).len(), before);
    expect(0, &["retention", "apply", shown(&dir), "--yes"]);
    assert_eq!(segments(&dir).len(), before - planned);
    expect(0, &["verify", shown(&dir)]);
    let (journal, recovered) = Journal::open(Disk::at(&dir).unwrap(), &options()).unwrap();
    assert!(
        recovered.oldest.0 > 0 && recovered.oldest.0 <= 2500,
        "{recovered:?}"
    );
    drop(journal);

    flip(&dir.join("snap/00000000000000002600/part-000.zst"), 12);
    let text = expect(5, &["snapshot", "verify", shown(&dir)]);
    assert!(text.contains("00000000000000002600"), "{text}");
    expect(
        2,
        &[
            "snapshot",
            "remove",
            shown(&dir),
            "--position",
            "77",
            "--yes",
        ],
    );
    expect(
        0,
        &[
            "snapshot",
            "remove",
            shown(&dir),
            "--position",
            "2600",
            "--yes",
        ],
    );
}

#[test]
fn a_living_journal_is_read_up_to_what_is_durable_and_changed_by_nobody_else() {
    let place = Place::new("living");
    let dir = place.journal();
    let mut journal = write(&dir, 30);
    let mut cutter = journal.cutter();
    write_group(&mut journal, &mut cutter);
    let found = json(0, &["verify", shown(&dir)]);
    assert_eq!(found["verdict"], "clean", "{found}");
    assert!(
        found["to"].as_u64().unwrap() <= 300,
        "the last group is not durable: {found}"
    );
    let in_use = found["findings"].as_array().unwrap().iter().any(|finding| {
        finding["file"] == "LOCK" && finding["what"].as_str().unwrap().contains("in use by pid")
    });
    assert!(in_use, "{found}");
    let text = expect(6, &["truncate", shown(&dir), "--at", "10", "--yes"]);
    assert!(text.contains("in use by pid"), "{text}");
    drop(journal);
    expect(0, &["truncate", shown(&dir), "--at", "10", "--dry-run"]);
}

#[test]
fn questions_that_make_no_sense_are_exit_2() {
    let place = Place::new("usage");
    let dir = place.journal();
    let text = expect(2, &["inspect", shown(&dir)]);
    assert!(text.contains("no journal in "), "{text}");
    let text = expect(2, &["verify", "/nowhere/at/all"]);
    assert!(text.contains("there is no directory"), "{text}");
    expect(2, &["seek", shown(&dir)]);
    expect(2, &["dump", shown(&dir), "--as", "xml"]);
    expect(2, &[]);
    write(&dir, 3).close().unwrap();
    let text = expect(2, &["seek", shown(&dir), "--position", "999"]);
    assert!(text.contains("ends at position 30"), "{text}");
    for verb in [
        "inspect", "verify", "dump", "tail", "seek", "truncate", "salvage", "repair", "archive",
    ] {
        let text = expect(0, &[verb, "--help"]);
        assert!(
            text.contains("lockstep journal"),
            "{verb} --help has examples:\n{text}"
        );
    }
}

#[test]
fn a_probe_measures_and_leaves_nothing() {
    let place = Place::new("probe");
    let dir = place.journal();
    let found = json(0, &["probe", shown(&dir), "--duration", "1ms"]);
    assert_eq!(found["rows"].as_array().unwrap().len(), 3);
    assert!(found["rows"][0]["sync"]["p50_ns"].as_u64().unwrap() > 0);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

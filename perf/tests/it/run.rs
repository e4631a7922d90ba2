//! `lockstep run` and `lockstep replay`: order flow goes in, the same comes out again, over
//! signals, crashes and other versions of the exchange.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lockstep::{Ran, lockstep_args};

/// Small tables: the debug build fills them in no time.
const BOUNDS: &str = "orders=16Ki,accounts=64,instruments=16,holdings=1Ki,sessions=16";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run_with(load: &str, directory: &Path, more: &[&str]) -> Ran {
    let mut all = vec!["run", "--load", load, "--dir", text(directory)];
    all.extend(["--bounds", BOUNDS, "--allow-volatile", "--format", "json"]);
    all.extend(more);
    lockstep_args(&all)
}

fn loaded(load: &str, directory: &Path, more: &[&str]) -> Value {
    let ran = run_with(load, directory, more);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn replay(directory: &Path, more: &[&str]) -> Ran {
    let mut all = vec!["replay", text(directory)];
    all.extend(more);
    lockstep_args(&all)
}

fn replayed(directory: &Path, more: &[&str]) -> Value {
    let ran = replay(directory, &[&["--format", "json"], more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn what_was_run_is_replayed_with_the_same_summary() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("x");
    let ran = loaded("generator:seed=3,count=20k", &directory, &[]);
    let again = replayed(&directory, &[]);
    for key in [
        "events",
        "outputs",
        "trades",
        "volume",
        "rejects",
        "live_orders",
        "position",
        "logic_hash",
    ] {
        assert!(!ran[key].is_null(), "{key}: {ran}");
        assert_eq!(ran[key], again[key], "{key}");
    }
    assert_eq!(ran["events"], ran["read"]["events"]);
    assert!(ran["trades"].as_u64().unwrap() > 1_000, "{ran}");
    assert!(ran["latency"]["samples"].as_u64().unwrap() > 100, "{ran}");
}

#[test]
fn compare_finds_the_planted_tick_and_nothing_in_the_version_itself() {
    let root = tempfile::tempdir().unwrap();
    loaded(
        "generator:seed=4,count=3k",
        root.path().join("x").as_path(),
        &[],
    );
    let directory = root.path().join("x");
    let same = replay(&directory, &["--compare", "standard"]);
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.contains("the states agree"), "{same:?}");
    let found = replay(
        &directory,
        &["--compare", "faulty-tick", "--format", "json"],
    );
    assert_eq!(found.code, 4, "{found:?}");
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found["kinds"][0], "Executed");
    assert_eq!(found["fields"].as_array().unwrap().len(), 1);
    assert_eq!(found["fields"][0]["name"], "price");
    let price = |at: usize| {
        let value = found["fields"][0]["values"][at].as_str().unwrap();
        value.parse::<i64>().unwrap()
    };
    assert_eq!(price(0) - price(1), 1);
}

/// A file system of its own that is taken away at the end.
struct Small(std::path::PathBuf);

impl Small {
    /// `None` where this process may not mount one.
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none", text(at)])
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount")
            .args(["-o", &options, text(&self.0)])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", text(&self.0)]).status();
    }
}

#[test]
fn a_full_disk_ends_a_load_that_goes_on_when_there_is_room() {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = Small::new(&root.path().join("disk"), "8m") else {
        println!("SKIPPED: this process may not mount a file system");
        return;
    };
    let config = root.path().join("engine.toml");
    std::fs::write(&config, "segment_bytes = 1048576\ndrain_ms = 300\n").unwrap();
    let load = "generator:seed=8,count=200k";
    let directory = disk.0.join("x");
    let more = ["--config", text(&config)];
    let full = run_with(load, &directory, &more);
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.stderr.contains("error: the disk is full"), "{full:?}");
    assert!(full.stderr.contains("goes on behind it"), "{full:?}");
    let part: Value = serde_json::from_str(&full.stdout).unwrap();
    assert!(part["events"].as_u64().unwrap() > 1_000, "{part}");
    // Still full: nothing is lost by another try.
    let again = run_with(load, &directory, &more);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("the disk is full"), "{again:?}");
    disk.grow("64m");
    let rest = loaded(load, &directory, &more);
    assert!(rest["behind"].as_u64() >= part["events"].as_u64(), "{rest}");
    let whole = loaded(load, &root.path().join("whole"), &more);
    assert_eq!(rest["logic_hash"], whole["logic_hash"]);
    assert_eq!(replayed(&directory, &[])["logic_hash"], rest["logic_hash"]);
}

/// Kills a load at different moments; the same command goes on, and at the end log, state and
/// the file of outputs are as if nothing had happened. `LOCKSTEP_KILLS` says how often.
#[test]
fn a_load_that_is_killed_goes_on_exactly_once() {
    let kills = std::env::var("LOCKSTEP_KILLS").map_or(6, |kills| kills.parse().unwrap());
    for (name, kills) in [
        ("outputs.bin", kills - kills / 2),
        ("outputs.jsonl", kills / 2),
    ] {
        let root = tempfile::tempdir().unwrap();
        let load = format!("generator:seed=5,count={}", kills.max(1) * 10_000);
        let (killed, whole) = (root.path().join("killed"), root.path().join("whole"));
        let (killed_outputs, whole_outputs) = (
            root.path().join(format!("k-{name}")),
            root.path().join(name),
        );
        for round in 0..kills {
            // Different moments: during the opening, in a snapshot, under load.
            kill_behind(
                (round * 37 + 3) % 7 * 60_000,
                &load,
                &killed,
                &killed_outputs,
            );
        }
        let more = ["--outputs", text(&killed_outputs)];
        let last = loaded(&load, &killed, &more);
        assert!(last["behind"].as_u64().unwrap() > 0, "{last}");
        let again = run_with(&load, &killed, &more);
        let told = |what: &str| again.stderr.find(what).expect(&again.stderr);
        assert!(told("recovery planned events=") < told("recovered position="));
        let more = ["--outputs", text(&whole_outputs)];
        let uninterrupted = loaded(&load, &whole, &more);
        assert_eq!(last["logic_hash"], uninterrupted["logic_hash"]);
        assert_eq!(last["trades_in_log"], uninterrupted["trades"]);
        assert_eq!(replayed(&killed, &[])["logic_hash"], last["logic_hash"]);
        let outputs = std::fs::read(&killed_outputs).unwrap();
        assert!(
            outputs == std::fs::read(&whole_outputs).unwrap(),
            "{name}: each output once, in order"
        );
        // Once more: there is nothing left to do.
        let nothing = loaded(&load, &killed, &[]);
        assert_eq!(nothing["events"], 0);
        assert_eq!(nothing["logic_hash"], last["logic_hash"]);
        println!(
            "{kills} kills: {} events, {} bytes in {name}, each once; state {}",
            uninterrupted["events"],
            outputs.len(),
            last["logic_hash"]
        );
    }
}

/// Loads until there are so many bytes more in the file of outputs, and kills it.
fn kill_behind(more: u64, load: &str, directory: &Path, outputs: &Path) {
    let size = || std::fs::metadata(outputs).map_or(0, |file| file.len());
    let wanted = size() + more;
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["run", "--load", load, "--dir", text(directory)])
        .args(["--bounds", BOUNDS, "--allow-volatile", "--rate", "40k"])
        .args(["--outputs", text(outputs)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Ends: when some more is in the file, or the load is over.
    let until = Instant::now() + Duration::from_secs(60);
    while size() < wanted && Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_signal_drains_and_the_summary_is_of_what_was_loaded() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("x");
    let child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args([
            "run",
            "--load",
            "generator:count=100M",
            "--dir",
            text(&directory),
        ])
        .args([
            "--bounds",
            BOUNDS,
            "--allow-volatile",
            "--rate",
            "10k",
            "--format",
            "json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let counters = || lockstep_engine::counters::Counters::read(&directory);
    let applied = || counters().ok().and_then(|all| all.get("logic.applied"));
    while applied().unwrap_or(0) < 500 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let ran: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(ran["ended"], "interrupted");
    assert!(ran["events"].as_u64().unwrap() >= 500, "{ran}");
    let again = replayed(&directory, &[]);
    assert_eq!(
        (&ran["events"], &ran["logic_hash"]),
        (&again["events"], &again["logic_hash"])
    );
}

#[test]
fn rows_that_cannot_be_read_are_told_or_stop_the_load() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("x_message_1.csv");
    let rows = "34200.1,1,7,100,5853300,1\nnonsense\n34200.2,3,7,100,5853300,1\n";
    std::fs::write(&file, rows).unwrap();
    let ran = loaded(text(&file), &root.path().join("skip"), &[]);
    assert_eq!(ran["read"]["bad"]["count"], 1);
    assert_eq!(
        ran["read"]["bad"]["first"][0],
        "line 2: expected 6 fields, found 1"
    );
    let stopped = run_with(
        text(&file),
        &root.path().join("stop"),
        &["--on-bad", "stop"],
    );
    assert_eq!(stopped.code, 1);
    assert_eq!(
        stopped.stderr, "error: line 2: expected 6 fields, found 1\n",
        "{stopped:?}"
    );
    let summary: Value = serde_json::from_str(&stopped.stdout).unwrap();
    assert_eq!(summary["ended"], "bad row");
    let again = replayed(&root.path().join("stop"), &[]);
    assert_eq!(summary["logic_hash"], again["logic_hash"]);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("x");
    let first = loaded("generator:seed=1,count=1k", &directory, &[]);
    let refused = |ran: Ran, code: i32, words: &str| {
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(ran.stdout, "", "{ran:?}");
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    };
    let other = run_with("generator:seed=2,count=1k", &directory, &[]);
    refused(other, 2, "hint: name another directory, or --append");
    let bounds = ["run", "--load", "generator", "--dir", text(&directory)];
    let bounds = lockstep_args(&[&bounds[..], &["--bounds", "orders=1k"]].concat());
    refused(bounds, 2, "contradicts");
    refused(
        run_with("no-such-file.csv", &directory, &[]),
        2,
        "No such file",
    );
    refused(
        run_with("no_message.csv", &directory, &[]),
        2,
        "No such file",
    );
    refused(
        run_with("generator:9", &directory, &[]),
        2,
        "expected NAME=NUMBER",
    );
    let nowhere = lockstep_args(&["run", "--load", "generator", "--journal", "sync"]);
    refused(nowhere, 2, "--dir is missing");
    refused(
        replay(&root.path().join("none"), &[]),
        2,
        "there is no directory",
    );
    refused(replay(&directory, &["--filter", "Apples"]), 2, "is no kind");
    refused(replay(&directory, &["--speed", "fast"]), 2, "is no speed");
    let backwards = replay(&directory, &["--from", "9", "--to", "5"]);
    refused(backwards, 2, "lies behind the end");

    let config = root.path().join("c.toml");
    std::fs::write(&config, "[engine]\nslotz = 4\n").unwrap();
    let named = ["--config", text(&config)];
    refused(run_with("generator", &directory, &named), 2, "slotz");
    std::fs::write(&config, "slots = 1000\n").unwrap();
    refused(run_with("generator", &directory, &named), 2, "power of two");

    std::fs::write(&config, "slots = 1024\nring = \"1Ki\"\n").unwrap();
    refused(
        run_with("generator", &directory, &named),
        2,
        "below [engine]",
    );

    let expected = replay(&directory, &["--expect-hash", "77", "--format", "quiet"]);
    refused(expected, 5, "expected 0000000000000077");
    assert_eq!(replayed(&directory, &[])["logic_hash"], first["logic_hash"]);

    std::fs::write(
        &config,
        "ring = \"1Ki\"\nwait = \"journal=park,logic=yield\"\n[engine]\nslots = 256\ngate = \"output\"\nbatch = 16\n\
         place = \"order+journal,logic+egress\"\nwaits = [\"park\", \"yield:10\"]\n",
    )
    .unwrap();
    // Flags alone, as tune writes them for a ring: nothing in them is the engine's.
    let flags = root.path().join("flags.toml");
    std::fs::write(
        &flags,
        "topology = \"diamond\"\nplace = \"stage0,stage1\"\nwait = \"park\"\n",
    )
    .unwrap();
    let nothing = loaded(
        "generator:seed=1,count=1k",
        &directory,
        &["--config", text(&flags)],
    );
    assert_eq!(nothing["events"], 0);
    let appended = [&named[..], &["--append"]].concat();
    let more = loaded("generator:seed=2,count=1k", &directory, &appended);
    assert_eq!(more["behind"], 0);
    assert_eq!(replayed(&directory, &[])["logic_hash"], more["logic_hash"]);
}

#[test]
fn a_replay_ends_where_it_is_told_and_shows_what_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("x");
    loaded("generator:seed=6,count=2k", &directory, &[]);
    let part = replayed(&directory, &["--to", "1000"]);
    assert_eq!(part["position"], 1_000);
    let time = part["time_ns"].as_u64().unwrap().to_string();
    let as_of = replayed(&directory, &["--as-of", &time]);
    assert!(as_of["position"].as_u64().unwrap() >= 1_000);
    assert_eq!(as_of["time_ns"], part["time_ns"]);
    let paced = replayed(&directory, &["--to", "1000", "--speed", "1000x"]);
    assert_eq!(paced["logic_hash"], part["logic_hash"]);
    assert_eq!(paced["events"], part["events"]);

    let trades = replay(&directory, &["--filter", "executed", "--to", "500"]);
    assert_eq!(trades.code, 0, "{trades:?}");
    let shown = trades
        .stdout
        .lines()
        .filter(|line| line.contains("Executed"));
    let counted = replayed(&directory, &["--to", "500"])["trades"]
        .as_u64()
        .unwrap();
    assert_eq!(shown.count() as u64, 2 * counted);

    let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["replay", text(&directory), "--from", "700", "--step"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\n\nq\n").unwrap();
    let stepped = child.wait_with_output().unwrap();
    let stepped = String::from_utf8(stepped.stdout).unwrap();
    for position in ["700 ", "701 ", "702 "] {
        assert!(stepped.contains(position), "{position}: {stepped}");
    }
    assert!(!stepped.contains("\n703 "), "{stepped}");
}

#[test]
fn every_format_of_real_files_is_run_and_replayed() {
    let Some(data) = std::env::var_os("LOCKSTEP_DATA") else {
        eprintln!("SKIPPED: LOCKSTEP_DATA does not say where the sample files are");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut formats = 0;
    for (folder, word) in [
        ("lobster", "message"),
        ("itch", "ITCH"),
        ("dbn", "mbo.dbn"),
        ("bitstamp", "orders"),
    ] {
        let folder = Path::new(&data).join(folder);
        let files = std::fs::read_dir(&folder).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        let file = files
            .find(|file| text(file).contains(word))
            .unwrap_or_else(|| panic!("no {word} in {}", folder.display()));
        let directory = root.path().join(word);
        let ran = loaded(text(&file), &directory, &["--day", "2012-06-21"]);
        let again = replayed(&directory, &[]);
        assert_eq!(ran["logic_hash"], again["logic_hash"], "{}", file.display());
        assert_eq!(ran["events"], again["events"]);
        formats += 1;
    }
    assert_eq!(formats, 4);
}

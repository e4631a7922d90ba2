//! Every verb that emits a result emits one that the committed schema allows; and the
//! validator refuses what it does not.

use serde_json::Value;

use crate::lockstep::{Ran, lockstep};

/// As much of JSON Schema as ours uses; an unknown keyword fails, so that none is ignored.
fn validate(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                faults.extend(validate(&root["$defs"][name], root, value, at));
            }
            "const" if rule == value => {}
            "const" => faults.push(format!("{at}: {value} is not {rule}")),
            "enum" if rule.as_array().unwrap().contains(value) => {}
            "enum" => faults.push(format!("{at}: {value} is none of {rule}")),
            "type" => {
                let one = std::slice::from_ref(rule);
                let kinds = rule.as_array().map_or(one, Vec::as_slice);
                if !kinds.iter().any(|kind| is(kind.as_str().unwrap(), value)) {
                    faults.push(format!("{at}: {value} is no {rule}"));
                }
            }
            "minimum" => {
                if value
                    .as_f64()
                    .is_some_and(|number| number < rule.as_f64().unwrap())
                {
                    faults.push(format!("{at}: {value} is below {rule}"));
                }
            }
            "oneOf" => {
                let fits = |one: &&Value| validate(one, root, value, at).is_empty();
                if rule.as_array().unwrap().iter().filter(fits).count() != 1 {
                    faults.push(format!("{at}: {value} fits not exactly one of {rule}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults.extend(validate(rule, root, item, &format!("{at}[{index}]")));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        faults.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(found) = value.get(name) {
                        faults.extend(validate(rule, root, found, &format!("{at}.{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let fields = value.as_object().into_iter().flatten();
                for (name, found) in
                    fields.filter(|(n, _)| known.is_none_or(|k| !k.contains_key(*n)))
                {
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => faults.push(format!("{at}: {name} is not known")),
                        rule => faults.extend(validate(rule, root, found, &format!("{at}.{name}"))),
                    }
                }
            }
            other => faults.push(format!("{at}: this validator does not know {other:?}")),
        }
    }
    faults
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other:?} is no type of JSON"),
    }
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../schema/result-1.schema.json")).unwrap()
}

#[track_caller]
fn assert_valid(ran: &Ran) -> Value {
    let value: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", ran.stdout, ran.stderr));
    let schema = schema();
    let faults = validate(&schema, &schema, &value, "result");
    assert!(faults.is_empty(), "{faults:#?}");
    value
}

const SHORT: &str = "--allow-debug --no-save --format json --insist --ring 1Ki";

#[test]
fn latency_emits_a_valid_result() {
    for topology in ["diamond", "mpsc:2"] {
        let ran = lockstep(&format!(
            "latency {SHORT} --topology {topology} --rate 1k,2k --warmup 10ms --duration 100ms --runs 2 --floor 10ms"
        ));
        let value = assert_valid(&ran);
        assert_eq!(value["runs"].as_array().unwrap().len(), 4);
        for run in value["runs"].as_array().unwrap() {
            assert_eq!(run["lost"], 0, "{run}");
            assert_eq!(
                run["hist"]["response"]["p9999"],
                Value::Null,
                "200 samples carry no p99.99"
            );
        }
        // A debug build's figures cannot carry a claim, and the exit code says so.
        assert_eq!(ran.code, if cfg!(debug_assertions) { 3 } else { ran.code });
    }
}

#[test]
fn the_engine_gives_a_valid_result_that_says_what_done_means() {
    for (journal, done) in [
        ("none", "nothing is kept"),
        ("async", "a power cut loses the last 100 ms"),
        ("sync", "durable (fdatasync), then applied"),
    ] {
        let ran = lockstep(&format!(
            "latency {SHORT} --journal {journal} --stages --rate 1k --warmup 10ms --duration 100ms --runs 1 --floor 0"
        ));
        let value = assert_valid(&ran);
        let config = &value["config"];
        assert_eq!(config["topology"], "full");
        assert!(
            config["acknowledged"].as_str().unwrap().contains(done),
            "{config}"
        );
        assert_eq!(
            config["journal_on"].is_string(),
            journal != "none",
            "{config}"
        );
        let hist = value["runs"][0]["hist"].as_object().unwrap();
        assert!(
            hist.contains_key("part.1.journal and gate"),
            "{:?}",
            hist.keys()
        );
        // An asynchronous journal syncs each 100 ms: in so short a run perhaps.
        let has_syncs = hist.contains_key("work.journal sync");
        assert!(has_syncs || journal != "sync");
        assert!(!has_syncs || journal != "none");
    }
    let plain = lockstep(&format!(
        "latency {SHORT} --topology diamond --stages --rate 1k --warmup 10ms --duration 50ms --runs 1 --floor 0"
    ));
    let value = assert_valid(&plain);
    assert_eq!(
        value["config"]["acknowledged"],
        "seen by the last stage; nothing is kept"
    );
    assert!(value["runs"][0]["hist"]["part.2.stage2"].is_object());
}

#[test]
fn quick_emits_a_valid_result() {
    let ran = lockstep("quick --duration 60ms --no-save --format json");
    let value = assert_valid(&ran);
    assert_eq!(value["config"]["topology"], "full");
    assert!(!value["runs"].as_array().unwrap().is_empty());
    assert!(value["config"]["acknowledged"].is_string());
}

#[test]
fn throughput_emits_a_valid_result() {
    for topology in ["full", "spsc"] {
        let ran = lockstep(&format!(
            "throughput {SHORT} --topology {topology} --duration 20ms --runs 2 --floor 5ms"
        ));
        let value = assert_valid(&ran);
        assert!(value["runs"][0]["received"].as_u64().unwrap() > 0);
    }
}

#[test]
fn the_machines_verbs_emit_valid_results() {
    let hiccup = assert_valid(&lockstep("hiccup --duration 20ms --no-save --format json"));
    assert!(!hiccup["floor"].as_array().unwrap().is_empty());
    assert_valid(&lockstep("c2c --samples 20 --no-save --format json"));
    let doctor = assert_valid(&lockstep("doctor --format json"));
    assert!(doctor["env"]["checks"].as_array().unwrap().len() > 15);
}

#[test]
fn tune_emits_a_valid_result() {
    let home = std::env::temp_dir().join(format!("lockstep-tune-{}.toml", std::process::id()));
    let ran = lockstep(&format!(
        "tune {SHORT} --topology spsc --objective p50@1k --space wait=yield|park,place=1,ring=1Ki,batch=16|64 --budget 2s --write {}",
        home.display()
    ));
    let value = assert_valid(&ran);
    assert_eq!(value["candidates"].as_array().unwrap().len(), 4);
    let recommended = value["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .any(|candidate| candidate["rank"] == "recommended");
    // It recommends and writes, or it says that it cannot tell.
    assert_eq!(ran.code, if recommended { 0 } else { 3 }, "{}", ran.stderr);
    assert_eq!(home.exists(), recommended);
    if recommended {
        let again = lockstep(&format!(
            "latency --config {} --allow-debug --no-save --format json --rate 1k --warmup 5ms --duration 30ms --runs 1 --floor 0",
            home.display()
        ));
        let value = assert_valid(&again);
        assert_eq!(value["config"]["ring"], 1024);
        std::fs::remove_file(home).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_tune_that_was_interrupted_goes_on_and_measures_nothing_twice() {
    use std::process::{Command, Stdio};

    let home = std::env::temp_dir().join(format!("lockstep-resume-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let line = "tune --allow-debug --insist --topology spsc --objective p50@1k \
                --space wait=yield|park,place=1,ring=1Ki|2Ki,batch=16|64 --budget 12s --out results";
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(line.split_whitespace())
        .current_dir(&home)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let notebook = || {
        let entries = std::fs::read_dir(home.join("results")).ok()?.flatten();
        let mut files = entries.map(|entry| entry.path().join("measured.jsonl"));
        std::fs::read_to_string(files.find(|file| file.is_file())?).ok()
    };
    // The head, and two outcomes. Ends: with them, or with the program, and then the test fails.
    while notebook().is_none_or(|text| text.lines().count() < 3) {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(
        said.contains("goes on  lockstep tune --resume results/"),
        "{said}"
    );
    let kept = notebook().unwrap();

    let again = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["tune", "--resume", "--out", "results", "--format", "json"])
        .current_dir(&home)
        .output()
        .unwrap();
    let ran = Ran {
        code: again.status.code().unwrap_or(-1),
        stdout: String::from_utf8(again.stdout).unwrap(),
        stderr: String::from_utf8(again.stderr).unwrap(),
    };
    let value = assert_valid(&ran);
    assert!(ran.code == 0 || ran.code == 3, "{}", ran.stderr);
    assert_eq!(value["candidates"].as_array().unwrap().len(), 8);
    assert_eq!(value["argv"][1], "--allow-debug", "as it was asked for");
    // Those that were screened out have their first score from before.
    let scores: Vec<f64> = value["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|candidate| candidate["confirmed"] == false)
        .map(|candidate| candidate["scores"][0].as_f64().unwrap())
        .collect();
    let before: Vec<f64> = kept
        .lines()
        .skip(1)
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["outcome"]["score"].as_f64()
        })
        .collect();
    let confirmed = 4;
    let taken = before.iter().filter(|score| scores.contains(score)).count();
    assert!(
        taken + confirmed >= before.len().min(8),
        "{before:?} in {scores:?}"
    );
    assert!(notebook().is_none(), "the result has everything");
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn the_validator_refuses_what_the_schema_does_not_allow() {
    let schema = schema();
    let doctor: Value = serde_json::from_str(&lockstep("doctor --format json").stdout).unwrap();
    let faults = |value: &Value| validate(&schema, &schema, value, "result");
    assert_eq!(faults(&doctor), Vec::<String>::new());
    for (path, value) in [
        ("/schema", Value::from(2)),
        ("/verb", Value::from("dance")),
        ("/env/tsc_hz", Value::from("fast")),
        ("/env/checks/0/state", Value::from("fine")),
        ("/summary/verdict", Value::Null),
    ] {
        let mut damaged = doctor.clone();
        *damaged.pointer_mut(path).unwrap() = value;
        assert!(!faults(&damaged).is_empty(), "{path}");
    }
    let mut damaged = doctor.clone();
    damaged.as_object_mut().unwrap().remove("tool");
    assert!(!faults(&damaged).is_empty());
}

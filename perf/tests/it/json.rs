//! With `--format json` every verb prints one object, or one in a line where it goes on, and nothing
//! else: each verb that the help names is run here, or stands on a list with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::lockstep::{lockstep, lockstep_args};

/// What a verb prints.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Prints {
    /// One object, over as many lines as it likes.
    Object,
    /// An object in each line, and at least one.
    Lines,
}
use Prints::{Lines, Object};

const SHORT: &str = "--allow-debug --insist --ring 1Ki --topology spsc --runs 1 --floor 0";

/// Verbs with what makes them short, in an order in which each finds what it wants. `H` is the test's
/// directory, `SHORT` what is above.
const RUN: &[(&str, &str, Prints)] = &[
    (
        "run",
        "--load generator:seed=7,count=2k --dir H/x --allow-volatile --bounds orders=16Ki,accounts=64,instruments=16,holdings=1Ki,sessions=16",
        Object,
    ),
    ("replay", "H/x", Object),
    ("replay", "H/x --compare standard", Object),
    ("top", "H/x --once", Lines),
    ("quick", "--duration 20ms --no-save", Object),
    (
        "latency",
        "SHORT --rate 1k --warmup 5ms --duration 30ms --out H/r",
        Object,
    ),
    ("throughput", "SHORT --duration 20ms --out H/r", Object),
    (
        "tune",
        "--allow-debug --insist --topology spsc --objective p50@1k --space wait=yield|park,place=1,ring=1Ki,batch=16 --budget 1s --out H/r --write H/tuned.toml",
        Object,
    ),
    ("tune", "--list --allow-debug --topology spsc", Object),
    ("compare", "last~1 last --force --out H/r", Object),
    ("hiccup", "--duration 20ms --out H/h", Object),
    ("plot", "last --out H/h", Object),
    ("plot", "last --out H/h -o H/h.svg", Object),
    ("plot", "last --out H/h -o H/h.html", Object),
    ("c2c", "--samples 20 --out H/c", Object),
    ("plot", "last --out H/c", Object),
    ("doctor", "", Object),
    ("doctor", "--fix-script", Object),
    ("journal inspect", "H/x", Object),
    ("journal stats", "H/x", Object),
    ("journal verify", "H/x", Object),
    ("journal dump", "H/x --count 3", Lines),
    ("journal tail", "H/x", Lines),
    ("journal seek", "H/x --position 5", Object),
    ("journal diff", "H/x H/copy", Object),
    ("journal probe", "H/x", Object),
    ("journal repair", "H/x --from-peer H/copy --yes", Object),
    ("journal salvage", "H/x H/out", Object),
    ("journal truncate", "H/x --at 0 --dry-run", Object),
    ("journal snapshot list", "H/x", Object),
    ("journal snapshot verify", "H/x", Object),
    ("journal retention plan", "H/x", Object),
    ("journal retention apply", "H/x --dry-run", Object),
    ("journal retention readers", "H/x", Object),
    ("journal archive", "H/x H/archive", Object),
    ("journal restore", "H/archive H/back", Object),
    ("journal ship", "H/x H/shipped", Object),
    ("cluster certs", "H/certs --name demo", Object),
];

/// The same, asked of a cluster of one node, whose file is `H/node.toml`; most changes make no sense
/// there and are refused, in the same form.
const ASKED: &[(&str, &str)] = &[
    ("client", "--orders 20 --patience 120s"),
    ("cluster status", ""),
    ("cluster history", ""),
    ("cluster add", "2 --dry-run"),
    ("cluster promote", "2 --dry-run"),
    ("cluster remove", "2 --dry-run"),
    ("cluster transfer", "2 --dry-run"),
    ("cluster activate", "1 --dry-run"),
    ("cluster degrade", "--dry-run"),
    ("cluster gate", "--dry-run"),
    ("cluster switch-version", "2 --dry-run"),
];

/// Of a node that has ended.
const ENDED: &[(&str, &str)] = &[("cluster force-single", "--epoch 1 --dry-run")];

/// What is not run here, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("export", "what it prints is the format of another program"),
    ("completions", "what it prints is read by a shell"),
    ("man", "what it prints is read by man"),
    (
        "drill",
        "three processes under load: .ci/smoke runs it and looks at its object",
    ),
    (
        "journal snapshot remove",
        "wants two snapshots: `journal::snapshots_and_retention_are_planned_first`",
    ),
    (
        "journal retention forget",
        "wants a reader: `journal::snapshots_and_retention_are_planned_first`",
    ),
];

/// The verbs that have no verbs below them, as the help names them.
fn leaves(above: &str) -> Vec<String> {
    let help = lockstep(&format!("{above} --help")).stdout;
    let below = crate::faces::verbs_of(&help);
    if below.is_empty() {
        return vec![above.to_owned()];
    }
    let below = below
        .iter()
        .flat_map(|verb| leaves(format!("{above} {verb}").trim()));
    below.collect()
}

#[test]
fn every_verb_is_run_here_or_says_why_not() {
    let run = RUN.iter().map(|(verb, ..)| *verb);
    let asked = ASKED.iter().chain(ENDED).map(|(verb, _)| *verb);
    let listed: BTreeSet<&str> = run
        .chain(asked)
        .chain(NOT_RUN.iter().map(|(verb, _)| *verb))
        .collect();
    let there = leaves("");
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(
        there, listed,
        "a new verb wants a row in one of the tables above"
    );
}

#[test]
fn a_flag_that_is_not_there_is_told_on_stderr_alone() {
    for verb in leaves("") {
        let ran = lockstep(&format!("{verb} --no-such-flag --format json"));
        assert_eq!(ran.code, 2, "{verb}: {ran:?}");
        assert_eq!(ran.stdout, "", "{verb}");
        assert!(ran.stderr.starts_with("error: "), "{verb}: {}", ran.stderr);
    }
}

/// What the tables call `H`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for below in ["copy", "archive", "back", "shipped"] {
            fs::create_dir_all(home.path().join(below)).unwrap();
        }
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a verb, and holds what it prints against what it should.
    fn runs(&self, verb: &str, more: &str, prints: Prints) {
        let more = more.replace("SHORT", SHORT);
        let home = self.path().display().to_string();
        let words = verb.split(' ').chain(more.split_whitespace());
        let mut words: Vec<String> = words
            .map(|word| word.replace("H/", &format!("{home}/")))
            .collect();
        words.extend(["--format".to_owned(), "json".to_owned()]);
        let ran = lockstep_args(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let said = format!(
            "{verb} {more}: exit {}\n{}\n{}",
            ran.code, ran.stdout, ran.stderr
        );
        // 3: a debug build's figures carry no claim. 6: a cluster of one node refuses.
        assert!(matches!(ran.code, 0 | 3 | 6), "{said}");
        match prints {
            Object => {
                let object = serde_json::from_str::<Map<String, Value>>(&ran.stdout);
                let is_of_verb = |object: Map<String, Value>| {
                    let is_named = object.get("verb").is_some_and(|named| named == verb);
                    is_named
                        || !verb.starts_with("journal ")
                            && !verb.starts_with("cluster ")
                            && !object.is_empty()
                };
                assert!(object.is_ok_and(is_of_verb), "{said}");
            }
            Lines => {
                assert!(!ran.stdout.is_empty(), "{said}");
                for line in ran.stdout.lines() {
                    let object = serde_json::from_str::<Map<String, Value>>(line);
                    assert!(
                        object.is_ok_and(|object| !object.is_empty()),
                        "{line}\nof {said}"
                    );
                }
            }
        }
    }

    fn copy(&self, from: &str, to: &str) {
        for entry in fs::read_dir(self.path().join(from)).unwrap().flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), self.path().join(to).join(entry.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn every_verb_prints_objects_and_nothing_else() {
    let home = Home::new();
    for (verb, more, prints) in RUN {
        home.runs(verb, more, *prints);
        if *verb == "run" {
            home.copy("x", "copy");
        }
    }
}

/// A cluster of one, whose addresses were free a moment ago.
fn node_file(home: &Path) -> PathBuf {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let file = home.join("node.toml");
    let text = format!(
        "cluster = \"one\"\nnode = 1\ndirectory = \"{}/node1\"\n\n\
         [[peer]]\nnode = 1\naddress = \"{}\"\nclient = \"{}\"\n\n\
         [engine]\nallow_volatile = true\nwait = \"park\"\nsegment_bytes = 1048576\n",
        home.display(),
        free(),
        free()
    );
    fs::write(&file, text).unwrap();
    file
}

#[cfg(unix)]
#[test]
fn a_node_and_who_asks_it_print_objects_and_nothing_else() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let home = Home::new();
    let file = node_file(home.path());
    let mut node = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["run", "--format", "json", "--node"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let told: Map<String, Value> = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(told["verb"], "run --node");
    assert_eq!(told["voters"], serde_json::json!([1]));
    for (verb, more) in ASKED {
        home.runs(verb, &format!("{more} --node H/node.toml"), Object);
    }
    let ended = Command::new("kill")
        .arg(node.id().to_string())
        .status()
        .unwrap();
    assert!(ended.success());
    assert_eq!(node.wait().unwrap().code(), Some(0));
    assert_eq!(lines.count(), 0, "one object, at the start");
    for (verb, more) in ENDED {
        home.runs(verb, &format!("{more} --node H/node.toml"), Object);
    }
}

//! What users see: messages for bad arguments, `--help` of every verb, exit codes, results
//! that are found, drawn, exported and compared.

use std::path::PathBuf;

use crate::lockstep::{lockstep, lockstep_args};

/// CPUs and figures of the machine that the test runs on have no place in a snapshot.
fn without_figures(text: &str) -> String {
    let mut shown = String::new();
    let mut in_number = false;
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                shown.push('#');
            }
            in_number = true;
        } else {
            in_number = false;
            shown.push(c);
        }
    }
    shown
}

#[track_caller]
fn refuses(arguments: &[&str], code: i32, expected: &str) {
    let ran = lockstep_args(arguments);
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(ran.stdout, "", "results go to stdout, all else to stderr");
    assert_eq!(ran.stderr.trim_end(), expected);
}

#[test]
fn a_ring_that_is_no_power_of_two() {
    refuses(
        &["latency", "--allow-debug", "--ring", "60000"],
        2,
        "error: --ring 60000 is not a power of two\n  hint: 65536 (64Ki) or 32768 (32Ki)",
    );
}

#[test]
fn a_cpu_that_this_process_may_not_use() {
    let ran = lockstep("latency --allow-debug --topology spsc --pin producer=0,stage0=4000");
    assert_eq!(ran.code, 6, "{ran:?}");
    let text = without_figures(&ran.stderr);
    assert!(
        text.starts_with("error: cannot pin stage# to CPU #: this process may use CPUs #"),
        "{text}"
    );
    assert!(
        text.contains("hint: --pin auto, or start with CPU # allowed"),
        "{text}"
    );
}

#[test]
fn a_range_of_cpus_that_runs_backwards() {
    refuses(
        &["latency", "--allow-debug", "--pin", "2-1"],
        2,
        "error: --pin \"2-1\": range runs backwards\n  hint: 1-2",
    );
}

#[test]
fn one_cpu_for_two_threads_that_spin() {
    refuses(
        &[
            "latency",
            "--allow-debug",
            "--insist",
            "--topology",
            "pipeline:2",
            "--place",
            "stage0,stage1",
            "--wait",
            "spin",
            "--pin",
            "stage0=0,stage1=0",
        ],
        2,
        "error: --pin names CPU 0 for stage0 and for stage1; both spin\n  hint: a CPU each, or one thread: --place ...,stage0+stage1",
    );
}

#[test]
fn more_spinning_threads_than_cpus() {
    let stages: Vec<String> = (0..32).map(|n| format!("stage{n}")).collect();
    let place = stages.join(",");
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus > 32 {
        println!("skipped: {cpus} CPUs are enough for 33 threads");
        return;
    }
    let ran = lockstep_args(&[
        "latency",
        "--allow-debug",
        "--topology",
        "pipeline:32",
        "--place",
        &place,
        "--wait",
        "spin",
        "--pin",
        "none",
    ]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let text = without_figures(&ran.stderr);
    assert!(
        text.contains("--place asks for # spinning threads, # CPUs are usable"),
        "{text}"
    );
    assert!(
        text.contains("They would take turns and every number would be meaningless"),
        "{text}"
    );
    assert!(text.contains("hint: --place auto, --wait auto"), "{text}");
}

#[test]
fn a_rate_of_nothing() {
    refuses(
        &["latency", "--allow-debug", "--rate", "0"],
        2,
        "error: --rate 0\n  hint: for maximum speed use: lockstep throughput",
    );
}

#[test]
fn a_rate_that_no_clock_read_fits_between() {
    let ran = lockstep("latency --allow-debug --rate 900M");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(
        without_figures(&ran.stderr),
        "error: --rate #M needs a send every # ns; this machine's clock read costs # ns\n  \
         hint: for maximum speed use: lockstep throughput\n"
    );
}

#[test]
fn an_objective_that_the_run_cannot_decide() {
    refuses(
        &[
            "latency",
            "--allow-debug",
            "--slo",
            "p99.99<1us",
            "--events",
            "10k",
            "--runs",
            "10",
        ],
        2,
        "error: --slo 'p99.99<1us' needs at least 1,000,000 samples for 100 above the line; this run gives 100,000, 10 above it\n  \
         hint: a longer --duration, a higher --rate, or a lower percentile",
    );
}

#[test]
fn a_journal_that_does_not_fit() {
    let directory = std::env::temp_dir();
    let directory = directory.to_str().unwrap();
    let ran = lockstep_args(&[
        "latency",
        "--allow-debug",
        "--insist",
        "--rate",
        "1M",
        "--duration",
        "2000h",
        "--journal-dir",
        directory,
    ]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let text = without_figures(&ran.stderr.replace(directory, "DIR").replace("MiB", "GiB"));
    assert_eq!(
        text,
        "error: --journal-dir DIR: #.# GiB free, this run writes about #.# GiB\n  \
         hint: --duration #s, another directory, or --journal none\n"
    );
}

#[test]
fn what_the_engine_cannot_do_and_rings_do_not() {
    for (arguments, expected) in [
        (
            "--topology diamond --journal-dir /tmp",
            "error: --journal-dir: diamond keeps nothing\n  hint: --topology full",
        ),
        (
            "--event-size 32",
            "error: --event-size 32: an event of the engine has a header of 24 bytes and 40 of ours\n  \
             hint: --event-size 64, or a plain ring: --topology diamond",
        ),
        (
            "--place order+journal,logic+egress --wait order=park,journal=yield",
            "error: --wait asks for park and for yield:100 on one thread, order+journal\n  \
             hint: one strategy for stages that share a thread, or --place apart",
        ),
        (
            "--wait stage0=spin",
            "error: --wait names stage0, which full has not\n  \
             hint: its roles are order, journal, logic, egress, producer0",
        ),
        (
            "--batch 0",
            "error: --batch 0 takes nothing\n  hint: 1 or more; 256 is the default",
        ),
    ] {
        let line = format!("latency --allow-debug --insist {arguments}");
        refuses(&line.split(' ').collect::<Vec<_>>(), 2, expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_refused_before_anything_is_measured() {
    for arguments in [
        "latency --allow-debug",
        "throughput --allow-debug",
        "tune --allow-debug",
        "hiccup",
        "c2c",
    ] {
        let ran = lockstep(&format!("{arguments} --out /proc/nowhere"));
        assert_eq!(ran.code, 6, "{arguments}: {ran:?}");
        assert_eq!(
            ran.stderr,
            "error: --out /proc/nowhere: no result can be kept there: No such file or directory (os error 2)\n  \
             hint: --out another directory, or --no-save\n"
        );
    }
    let ran = lockstep("tune --allow-debug --no-save --write /proc/nowhere.toml");
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("error: --write /proc/nowhere.toml: cannot be written"),
        "{ran:?}"
    );
    let ran = lockstep("doctor --journal-dir /proc/nowhere");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("cannot examine the disk under /proc/nowhere"),
        "{ran:?}"
    );
}

#[test]
fn what_is_resumed_is_there_and_is_resumed_as_it_was_asked_for() {
    let nowhere = temporary("no-tune");
    let name = nowhere.to_str().unwrap();
    refuses(
        &["tune", "--resume", name],
        6,
        &format!(
            "error: --resume {name}: no tune that was interrupted\n  hint: a directory with measured.jsonl, as an interrupted tune names it, or last for the newest in lockstep-results"
        ),
    );
    let ran = lockstep("tune --resume --budget 5s");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("cannot be used with"), "{ran:?}");
    std::fs::create_dir_all(&nowhere).unwrap();
    let head = r#"{"tune":9,"argv":[],"asked":"","fingerprint":"","program":""}"#;
    let file = nowhere.join("measured.jsonl");
    std::fs::write(&file, format!("{head}\n")).unwrap();
    refuses(
        &["tune", "--resume", name],
        6,
        &format!(
            "error: {}: line 1: version 9, this lockstep reads 1\n  hint: lockstep tune without --resume begins anew",
            file.display()
        ),
    );
    std::fs::remove_dir_all(nowhere).unwrap();
}

#[test]
fn only_measurements_are_compared() {
    for arguments in [
        ["compare", "--aa", "doctor"].as_slice(),
        &["compare", "--ab", "latency", "plot"],
    ] {
        let ran = lockstep_args(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.stderr
                .contains("is no command line that can be compared"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_result_of_another_schema() {
    let path = temporary("schema-3.json");
    std::fs::write(&path, "{\"schema\": 3}").unwrap();
    let name = path.to_str().unwrap();
    refuses(
        &["plot", name],
        6,
        &format!(
            "error: {name}: schema 3, this lockstep reads 1\n  hint: a file that this version of lockstep has written"
        ),
    );
    std::fs::remove_file(path).unwrap();
}

#[cfg(debug_assertions)]
#[test]
fn a_debug_build() {
    for verb in ["latency", "throughput", "tune"] {
        refuses(
            &[verb],
            2,
            "error: this is a debug build: latencies would be 10-50x too high\n  hint: cargo run --release   (--allow-debug to go on)",
        )
    }
}

#[test]
fn words_that_are_no_numbers() {
    for (arguments, part) in [
        (
            "latency --duration 10",
            "is no duration: a number and one of ns, us, ms, s, m, h",
        ),
        ("latency --duration 0", "is no time to measure in"),
        ("hiccup --duration 0s", "is no time to measure in"),
        ("throughput --duration 0", "is no time to measure in"),
        ("tune --budget 0", "is no time to measure in"),
        (
            "latency --config /nowhere.toml",
            "--config /nowhere.toml: cannot be read",
        ),
        ("latency --ring many", "is no number"),
        (
            "latency --topology ring",
            "is no topology: full, spsc, pipeline:N, diamond, fanout:N, mpsc:N",
        ),
        ("latency --wait fast", "is no wait strategy"),
        ("latency --arrivals never", "is no kind of arrivals"),
        (
            "latency --journal ./j",
            "is no journal: none, async, sync, direct",
        ),
        ("latency --gate moon", "is no gate: logic, output"),
        (
            "latency --journal-thread far",
            "is no place for a sync: auto, inline, worker",
        ),
        (
            "latency --pin-policy up",
            "is no policy: near, far, smt, l3, node:N",
        ),
        ("latency --rt high", "is no class: none, fifo:PRIO, rr:PRIO"),
        ("latency --max-lateness much", "is no share, as in 5%"),
        ("latency --slo p99", "is no objective"),
        ("compare a b --metric mean", "is no metric"),
        ("compare a b --threshold much", "is no share"),
        ("tune --objective fast", "is no objective"),
        ("frobnicate", "unrecognized subcommand"),
    ] {
        let ran = lockstep(arguments);
        assert_eq!(ran.code, 2, "{arguments}: {ran:?}");
        assert!(ran.stderr.contains(part), "{arguments}: {}", ran.stderr);
    }
}

/// The verbs that a help names.
pub(crate) fn verbs_of(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn fits_a_terminal(help: &str) {
    for line in help.lines() {
        let is_typed = line.starts_with("  lockstep ") || line.starts_with("Usage: ");
        let width = if is_typed { 120 } else { 80 };
        assert!(line.chars().count() <= width, "{line}");
    }
}

#[test]
fn every_verb_has_help_with_an_example_exit_codes_and_a_man_page() {
    let help = lockstep("--help");
    assert_eq!(help.code, 0);
    fits_a_terminal(&help.stdout);
    let verbs = verbs_of(&help.stdout);
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        let ran = lockstep(&format!("{verb} --help"));
        assert_eq!(ran.code, 0, "{verb}");
        fits_a_terminal(&ran.stdout);
        for part in ["Example", "\n  lockstep ", "Exit codes: 0 "] {
            assert!(
                ran.stdout.contains(part),
                "{verb}: no {part:?} in {}",
                ran.stdout
            );
        }
        assert!(
            lockstep(&format!("man {verb}")).stdout.contains(".TH"),
            "{verb}"
        );
        for below in verbs_of(&ran.stdout) {
            let ran = lockstep(&format!("{verb} {below} --help"));
            assert_eq!(ran.code, 0, "{verb} {below}");
            fits_a_terminal(&ran.stdout);
        }
    }
    assert!(lockstep("completions bash").stdout.contains("lockstep"));
    assert_eq!(lockstep("man nothing").code, 2);
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("lockstep-faces-{}-{name}", std::process::id()))
}

#[test]
fn results_are_found_drawn_exported_and_compared() {
    let home = temporary("results");
    let out = home.to_str().unwrap();
    for label in ["a", "b"] {
        let ran = lockstep(&format!(
            "latency --allow-debug --ring 1Ki --topology spsc --rate 2k --warmup 5ms --duration 100ms --runs 3 --floor 5ms --label {label} --out {out}"
        ));
        assert!(ran.stdout.contains("saved"), "{ran:?}");
        assert!(
            ran.stdout.lines().all(|line| line.chars().count() <= 200),
            "{}",
            ran.stdout
        );
    }
    let plot = lockstep(&format!("plot a b --out {out}"));
    assert_eq!(plot.code, 0, "{plot:?}");
    assert!(plot.stdout.contains("a: response"), "{}", plot.stdout);
    for file in ["plot.svg", "plot.html"] {
        let path = home.join(file);
        let ran = lockstep(&format!("plot last --out {out} -o {}", path.display()));
        assert_eq!(ran.code, 0, "{ran:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("<svg"), "{file}");
        // Nothing is fetched: no source, no link, no import.
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!text.contains(outside), "{file} has {outside}");
        }
    }
    assert_eq!(
        lockstep(&format!("plot last --out {out} -o plot.pdf")).code,
        2
    );
    let json = lockstep(&format!("plot last --out {out} --format json"));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["series"][0]["name"], "response");
    let matrix = lockstep(&format!("plot last --out {out} --kind c2c"));
    assert_eq!(matrix.code, 2, "{matrix:?}");
    let hgrm = lockstep(&format!("export last --to hgrm --four-columns --out {out}"));
    assert!(hgrm.stdout.contains("#[Max"), "{}", hgrm.stdout);
    for line in hgrm
        .stdout
        .lines()
        .filter(|line| line.starts_with(' '))
        .skip(1)
    {
        assert_eq!(line.split_whitespace().count(), 4, "{line}");
    }
    let nothing = lockstep(&format!("export last --to hgrm --tag nothing --out {out}"));
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""));
    assert!(
        nothing.stderr.contains("hint: lateness, response, service"),
        "{nothing:?}"
    );
    let hlog = lockstep(&format!("export last --to hlog --out {out}"));
    assert!(
        hlog.stdout
            .starts_with("#[Histogram log format version 1.3]"),
        "{}",
        hlog.stdout
    );
    assert_eq!(hlog.stdout.matches("Tag=response").count(), 3);
    assert!(
        lockstep(&format!("export last --to csv --out {out}"))
            .stdout
            .starts_with("run,rate,kind")
    );

    let page = home.join("compare.html");
    let same = lockstep(&format!(
        "compare a a --out {out} --html {}",
        page.display()
    ));
    let page = std::fs::read_to_string(page).unwrap();
    for part in ["<svg", "base, 2k/s", "no regression"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert_eq!(same.code, 0, "{same:?}");
    assert!(
        same.stdout.contains("noise\n") && same.stdout.contains(": below the threshold"),
        "{}",
        same.stdout
    );
    let json = lockstep(&format!(
        "compare last~1 last --fail-on none --format json --out {out}"
    ));
    assert_eq!(json.code, 0, "{json:?}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap()["comparisons"].is_array()
    );
    let nobody = lockstep(&format!("compare a nobody --out {out}"));
    assert_eq!(nobody.code, 6);
    assert!(
        nobody.stderr.contains("or a label: a, b"),
        "{}",
        nobody.stderr
    );

    let other = lockstep(&format!(
        "latency --allow-debug --ring 1Ki --topology spsc --rate 1k --warmup 5ms --duration 50ms --runs 1 --floor 0 --label c --out {out}"
    ));
    assert!(other.stdout.contains("saved"), "{other:?}");
    let unlike = lockstep(&format!("compare a c --out {out}"));
    assert_eq!(unlike.code, 6);
    assert!(
        unlike.stderr.contains("not comparable: rates"),
        "{}",
        unlike.stderr
    );
    std::fs::remove_dir_all(home).unwrap();
}

/// Made up: events a second of a program and of the same made a tenth slower, in pairs, with a
/// drift, and a noise of 1.5 %. What is tested is the decision, and nothing is measured.
const SIMULATED: [(f64, f64); 12] = [
    (1958288.0, 1753192.0),
    (1949903.0, 1753069.0),
    (1926321.0, 1736536.0),
    (1887203.0, 1770609.0),
    (1974378.0, 1742560.0),
    (1906161.0, 1727594.0),
    (1917671.0, 1793748.0),
    (1913403.0, 1740227.0),
    (1977825.0, 1748165.0),
    (1909597.0, 1708755.0),
    (1978759.0, 1760627.0),
    (1904307.0, 1733171.0),
];

/// A result of throughput with one run of each of these rates.
fn result_of(template: &serde_json::Value, rates: &[f64]) -> String {
    let mut result = template.clone();
    let run = template["runs"][0].clone();
    let runs = rates.iter().enumerate().map(|(index, rate)| {
        let mut run = run.clone();
        run["n"] = (index + 1).into();
        run["achieved_rate"] = (*rate).into();
        run["stolen"] = 0.0.into();
        run["preempted"] = serde_json::json!({});
        run["line_ns"] = serde_json::json!([]);
        run
    });
    result["runs"] = runs.collect();
    result.to_string()
}

fn template() -> serde_json::Value {
    let ran = lockstep(
        "throughput --allow-debug --insist --no-save --format json --ring 1Ki --topology spsc --duration 10ms --runs 1 --floor 0",
    );
    serde_json::from_str(&ran.stdout).unwrap()
}

fn latency_template() -> serde_json::Value {
    let ran = lockstep(
        "latency --allow-debug --insist --no-save --format json --ring 1Ki --topology spsc --rate 2k --warmup 5ms --duration 20ms --runs 1 --floor 0",
    );
    serde_json::from_str(&ran.stdout).unwrap()
}

/// A result of latency whose only run has this p50, in nanoseconds.
fn latency_of(template: &serde_json::Value, p50: f64) -> String {
    let mut result = template.clone();
    let run = &mut result["runs"][0];
    run["hist"]["response"]["p50"] = lockstep_perf::args::quantity::whole(p50).into();
    run["stolen"] = 0.0.into();
    run["preempted"] = serde_json::json!({});
    run["line_ns"] = serde_json::json!([]);
    result.to_string()
}

#[test]
fn a_planted_regression_ends_with_exit_code_four() {
    let home = temporary("regression");
    std::fs::create_dir_all(&home).unwrap();
    let template = template();
    let file = |name: &str, rates: &[f64]| {
        let path = home.join(name);
        std::fs::write(&path, result_of(&template, rates)).unwrap();
        path.display().to_string()
    };
    let rates = [100.0, 101.0, 99.5, 100.5, 100.2].map(|rate| rate * 1e6);
    let base = file("base.json", &rates);
    let slower = file("slower.json", &rates.map(|rate| rate / 1.1));
    let faster = file("faster.json", &rates.map(|rate| rate * 1.1));
    for (new, fail_on, code, result) in [
        (&slower, "regression", 4, "regression in throughput"),
        (&slower, "none", 0, "regression in throughput"),
        (&faster, "regression", 0, "no regression"),
        (&faster, "any", 4, "no regression"),
        (&base, "any", 0, "no difference"),
    ] {
        let ran = lockstep(&format!(
            "compare {base} {new} --metric throughput --fail-on {fail_on}"
        ));
        assert_eq!(ran.code, code, "{new} {fail_on}: {ran:?}");
        assert!(ran.stdout.contains(result), "{new}: {}", ran.stdout);
    }
    std::fs::remove_dir_all(home).unwrap();
}

/// A program in the place of `lockstep` that prints one of these results at each call.
#[cfg(unix)]
fn stand_in(home: &std::path::Path, name: &str, results: &[String]) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = home.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (index, result) in results.iter().enumerate() {
        std::fs::write(folder.join(index.to_string()), result).unwrap();
    }
    let at = folder.display();
    std::fs::write(folder.join("next"), "0").unwrap();
    let script =
        format!("#!/bin/sh\nn=$(cat '{at}/next')\necho $((n + 1)) > '{at}/next'\ncat '{at}/'$n\n");
    let program = folder.join("program");
    std::fs::write(&program, script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    program.display().to_string()
}

#[cfg(unix)]
#[test]
fn runs_in_turns_find_a_planted_slowdown_and_nothing_where_nothing_is() {
    let home = temporary("turns");
    let (rates, latencies) = (template(), latency_template());
    let compare = |name: &str, metric: &str, a: &[f64], b: &[f64]| {
        let each = |values: &[f64]| -> Vec<String> {
            let results = values.iter().map(|value| match metric {
                "p50" => latency_of(&latencies, *value),
                _ => result_of(&rates, &[*value]),
            });
            results.collect()
        };
        let (a, b) = (
            stand_in(&home, &format!("{name}-a"), &each(a)),
            stand_in(&home, &format!("{name}-b"), &each(b)),
        );
        lockstep_args(&[
            "compare",
            "--ab",
            "throughput",
            "throughput",
            "--program-a",
            &a,
            "--program-b",
            &b,
            "--metric",
            metric,
        ])
    };
    let (a, b): (Vec<f64>, Vec<f64>) = SIMULATED.into_iter().unzip();
    let planted = compare("planted", "throughput", &a, &b);
    assert_eq!(planted.code, 4, "{planted:?}");
    assert!(
        planted.stdout.contains("regression in throughput"),
        "{planted:?}"
    );
    // The same as times: a rate that is a tenth lower is a p50 that is a tenth higher.
    let times = |rates: &[f64]| rates.iter().map(|rate| 2e10 / rate).collect::<Vec<f64>>();
    let planted = compare("slower", "p50", &times(&a), &times(&b));
    assert_eq!(planted.code, 4, "{planted:?}");
    assert!(planted.stdout.contains("regression in p50"), "{planted:?}");
    // The same program twice: each pair's runs of A against those of the pair behind it.
    let next: Vec<f64> = a.iter().cycle().skip(1).take(a.len()).copied().collect();
    for (name, metric, a, b) in [
        ("same", "throughput", a.clone(), next.clone()),
        ("alike", "p50", times(&a), times(&next)),
    ] {
        let same = compare(name, metric, &a, &b);
        assert_eq!(same.code, 0, "{same:?}");
        assert!(same.stdout.contains("no difference"), "{same:?}");
    }
    std::fs::remove_dir_all(home).unwrap();
}

#[cfg(unix)]
#[test]
fn pairs_that_were_disturbed_are_run_again_and_said() {
    let home = temporary("disturbed");
    let template = template();
    let mut disturbed: serde_json::Value =
        serde_json::from_str(&result_of(&template, &[1e6])).unwrap();
    disturbed["runs"][0]["preempted"] = serde_json::json!({ "stage0": 0.4 });
    let quiet = |count: usize| vec![result_of(&template, &[9e6]); count];
    let a = stand_in(
        &home,
        "a",
        &[vec![disturbed.to_string()], quiet(30)].concat(),
    );
    let b = stand_in(&home, "b", &quiet(60));
    let arguments = |a: &str| {
        let words = [
            "compare",
            "--ab",
            "throughput",
            "throughput",
            "--program-a",
            a,
        ];
        let more = ["--program-b", &b, "--metric", "throughput"];
        lockstep_args(&[&words[..], &more[..]].concat())
    };
    let ran = arguments(&a);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = "left out 1 disturbed pair: stage0 lost 40% to other tasks";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    assert!(ran.stdout.contains("12 runs"), "{}", ran.stdout);
    // Nothing but disturbed pairs decides nothing.
    let never = stand_in(&home, "never", &vec![disturbed.to_string(); 30]);
    let ran = arguments(&never);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("no pair of runs was left alone"),
        "{ran:?}"
    );
    std::fs::remove_dir_all(home).unwrap();
}

//! Flags that several verbs share, each by what it does.

use std::path::Path;
use std::process::Command;

use crate::lockstep::{lockstep, lockstep_args};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const SHORT: &str = "--allow-debug --insist --ring 1Ki --topology spsc --rate 2k --warmup 5ms --duration 30ms --runs 1 --floor 0";

#[test]
fn a_directory_that_is_a_file_is_told_with_its_flag() {
    let kept = tempfile::tempdir().unwrap();
    let home = kept.path();
    let file = home.join("file");
    std::fs::write(&file, "").unwrap();
    let at = text(&file);
    for line in [
        format!("latency --allow-debug --insist --journal-dir {at}"),
        format!("throughput --allow-debug --insist --journal-dir {at}/below"),
        format!("doctor --journal-dir {at}"),
        format!("run --load generator --dir {at}"),
    ] {
        let ran = lockstep(&line);
        assert_eq!(ran.code, 2, "{ran:?}");
        let flag = if line.contains("--journal-dir") {
            "--journal-dir"
        } else {
            "--dir"
        };
        let told = format!("error: {flag} {at}");
        assert!(ran.stderr.starts_with(&told), "{line}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("is a file, and a directory is wanted"),
            "{}",
            ran.stderr
        );
    }
    let ran = lockstep(&format!("hiccup --duration 10ms --out {at}"));
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.stderr.starts_with(&format!("error: --out {at}")),
        "{}",
        ran.stderr
    );
}

#[test]
fn quiet_prints_no_result_and_colour_only_where_it_is_wanted() {
    let ran = lockstep("doctor -q");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert_eq!(lockstep("doctor -q --format json").code, 2);
    // Who reads this is no terminal.
    let plain = lockstep("doctor -v").stdout;
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = lockstep("doctor -v --color always").stdout;
    assert!(coloured.contains("\x1b[32mok\x1b[0m"), "{coloured}");
    let error = lockstep("doctor --color=always --no-such-flag").stderr;
    assert!(error.contains('\x1b'), "{error}");
}

#[test]
fn memory_is_asked_for_and_what_was_granted_is_in_the_result() {
    let ran = lockstep(&format!(
        "latency {SHORT} --mem thp --no-save --format json"
    ));
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["config"]["mem"], "thp");
    let granted = value["config"]["memory"].as_str().unwrap();
    assert!(
        granted.starts_with("2.0 MiB a ring, huge pages "),
        "{granted}"
    );
    let plain = lockstep(&format!("latency {SHORT} --no-save --format json"));
    let value: serde_json::Value = serde_json::from_str(&plain.stdout).unwrap();
    assert!(value["config"]["mem"].is_null() && value["config"]["memory"].is_null());
    let doctor = lockstep("doctor -v").stdout;
    for name in ["--mem thp", "huge_pages = true", "lock_memory = true"] {
        let said = doctor.split_whitespace().collect::<Vec<_>>().join(" ");
        // What the kernel does not have cannot be advised on.
        let is_asked = said.contains(name) || doctor.contains("no transparent huge pages");
        assert!(is_asked || name == "lock_memory = true", "{name}: {doctor}");
    }
}

/// Without the right to lock, and with no memory that may be locked.
#[cfg(target_os = "linux")]
#[test]
fn rings_that_cannot_be_locked_are_refused_before_anything_is_measured() {
    let program = env!("CARGO_BIN_EXE_lockstep");
    let run = |more: &str| {
        // In an own user namespace root has no right over the limits of the one outside.
        Command::new("unshare")
            .args(["--user", "sh", "-c"])
            .arg(format!("ulimit -l 0 && exec {program} {more}"))
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap()
    };
    let probe = Command::new("unshare").args(["--user", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: no user namespaces here");
        return;
    }
    let output = run(&format!("latency {SHORT} --mlock --no-save"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(
        stderr.starts_with("error: --mlock: cannot lock"),
        "{stderr}"
    );
    let bounds = "orders=16Ki,accounts=64,instruments=16,holdings=1Ki,sessions=16";
    let output = run(&format!(
        "run --load generator:seed=7,count=1k --journal none --mlock --bounds {bounds}"
    ));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("cannot lock"), "{stderr}");
}

#[test]
fn a_command_runs_beside_hiccup_and_is_told() {
    let kept = tempfile::tempdir().unwrap();
    let home = kept.path();
    let mark = home.join("mark");
    let command = format!("touch {}", mark.display());
    let ran = lockstep_args(&[
        "hiccup",
        "--duration",
        "1s",
        "--with",
        &command,
        "--no-save",
        "--format",
        "json",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(
        value["config"]["with"]
            .as_str()
            .unwrap()
            .starts_with(&command),
        "{value}"
    );
    assert!(mark.exists());
}

#[cfg(unix)]
#[test]
fn the_page_is_shown_by_the_browser_that_is_named_and_a_histogram_is_drawn() {
    use std::os::unix::fs::PermissionsExt as _;
    let kept = tempfile::tempdir().unwrap();
    let home = kept.path();
    let shown = home.join("shown");
    let browser = home.join("browser");
    let script = format!(
        "#!/bin/sh\ncp \"$1\" {0}.new && mv {0}.new {0}\n",
        shown.display()
    );
    std::fs::write(&browser, script).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |browser: &Path| {
        Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(format!("latency {SHORT} --open --out {}", home.display()).split(' '))
            .env("BROWSER", browser)
            .output()
            .unwrap()
    };
    let ran = run(&browser);
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !shown.exists() {
        assert!(std::time::Instant::now() < limit, "nothing was shown");
        std::thread::yield_now();
    }
    assert!(std::fs::read_to_string(&shown).unwrap().contains("<svg"));
    let ran = run(&home.join("nobody"));
    assert_eq!(ran.status.code(), Some(6));
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(told.starts_with("error: --open: "), "{told}");

    let out = home.display();
    let chart = lockstep(&format!("plot --kind hist --out {out}"));
    assert_eq!(chart.code, 0, "{chart:?}");
    assert!(chart.stdout.contains("●●"), "{}", chart.stdout);
    let chart = lockstep(&format!("plot --kind hist --out {out} --format json"));
    let chart: serde_json::Value = serde_json::from_str(&chart.stdout).unwrap();
    let points = chart["series"][0]["points"].as_array().unwrap();
    let all: f64 = points.iter().map(|point| point[0].as_f64().unwrap()).sum();
    assert!((all - 100.0).abs() < 1e-6, "{all}");
    let page = home.join("hist.html");
    let ran = lockstep(&format!(
        "plot --kind hist --out {out} -o {}",
        page.display()
    ));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("how many events took how long")
    );
}

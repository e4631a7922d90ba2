//! The harness against a real stall: a process that is stopped by a signal for 200 ms must
//! come out as what it is, whichever end of the harness it is on.
//!
//! Only bounds are asserted that hold on any machine, however slow: a stall of so many
//! milliseconds *is* so many late events. What a quiet machine shows besides is asserted
//! where the machine was quiet, and said where it was not.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lockstep_perf::report::result::Document;
use lockstep_perf::{Harness, Recorder, Run, Target, Ticket};

const RATE: u64 = 1_000;
const STALL: Duration = Duration::from_millis(200);

/// Events that are seen before the stall.
const BEFORE: u64 = 400;

fn signal(name: &str, pid: u32) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(sent.unwrap().success());
}

/// Whether the process is stopped.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.trim_start().starts_with('T')
}

/// Stops a process for the length of a stall; how long it was stopped at least.
fn stall(pid: u32) -> Duration {
    signal("STOP", pid);
    // Ends: the kernel stops a process that was told to.
    while !is_stopped(pid) {
        thread::yield_now();
    }
    let stopped = Instant::now();
    // This is the stall itself, and waits for nothing.
    thread::sleep(STALL);
    let least = stopped.elapsed();
    signal("CONT", pid);
    least
}

/// Events above `ms` that a stall of `stopped` makes at least, at a steady rate.
fn events_above(stopped: Duration, ms: u64) -> u64 {
    let above = stopped.saturating_sub(Duration::from_millis(ms));
    (u64::try_from(above.as_micros()).unwrap() * RATE / 1_000_000).saturating_sub(2)
}

fn above(histogram: &Histogram<u64>, ms: u64) -> u64 {
    histogram.count_between(ms * 1_000_000, u64::MAX)
}

/// A pipeline whose only stage is another process: `cat`.
struct Echo {
    input: ChildStdin,
    /// Whether one event at a time is under way, and whether one is.
    alone: bool,
    is_busy: Arc<AtomicBool>,
}

impl Target for Echo {
    fn offer(&mut self, ticket: Ticket) -> bool {
        // ORDERING: Acquire, pairs with the Release of the reader.
        if self.alone && self.is_busy.load(Ordering::Acquire) {
            return false;
        }
        // ORDERING: Relaxed, the pipe orders it before the answer.
        self.is_busy.store(true, Ordering::Relaxed);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&ticket.intended.to_le_bytes());
        bytes[8..].copy_from_slice(&ticket.sent.to_le_bytes());
        self.input.write_all(&bytes).unwrap();
        true
    }

    fn idle(&mut self) {
        thread::yield_now();
    }
}

fn read(mut output: ChildStdout, mut recorder: Recorder, is_busy: &AtomicBool, now: &Sender<()>) {
    let mut bytes = [0; 16];
    let mut seen = 0;
    // Ends: with the other process, whose input the harness closes.
    while output.read_exact(&mut bytes).is_ok() {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        recorder.done(Ticket {
            intended: number(0),
            sent: number(8),
        });
        // ORDERING: Release, pairs with the Acquire of the generator.
        is_busy.store(false, Ordering::Release);
        seen += 1;
        if seen == BEFORE {
            let _ = now.send(());
        }
    }
}

/// One run through `cat`, which is stopped once; the run, and how long it was.
fn through_cat(alone: bool) -> (Run, Duration) {
    let children: Arc<Mutex<Vec<Child>>> = Arc::default();
    let stopped: Arc<Mutex<Option<Duration>>> = Arc::default();
    let mut controllers = Vec::new();
    let report = Harness::new("cat")
        .rate(RATE)
        .warmup(Duration::from_millis(100))
        .duration(Duration::from_millis(1_200))
        .floor(Duration::ZERO)
        .drain(Duration::from_secs(120))
        .runs(1)
        .run(|session| {
            let mut cat = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (pid, is_busy) = (cat.id(), Arc::new(AtomicBool::new(false)));
            let (now, is_now) = channel();
            let (output, recorder) = (cat.stdout.take().unwrap(), session.recorder());
            let input = cat.stdin.take().unwrap();
            let busy = Arc::clone(&is_busy);
            thread::spawn(move || read(output, recorder, &busy, &now));
            let stopped = Arc::clone(&stopped);
            controllers.push(thread::spawn(move || {
                is_now.recv().unwrap();
                *stopped.lock().unwrap() = Some(stall(pid));
            }));
            children.lock().unwrap().push(cat);
            Ok(vec![Echo {
                input,
                alone,
                is_busy,
            }])
        })
        .unwrap();
    for controller in controllers {
        controller.join().unwrap();
    }
    for child in children.lock().unwrap().iter_mut() {
        assert!(child.wait().unwrap().success());
    }
    let stopped = stopped.lock().unwrap().unwrap();
    (report.runs[0].clone(), stopped)
}

#[test]
fn a_stage_that_is_stopped_shows_its_whole_ramp() {
    let (run, stopped) = through_cat(false);
    assert_eq!((run.lost, run.negative), (0, 0));
    let ns = u64::try_from(stopped.as_nanos()).unwrap();
    // The event that came first waited all of it, but for what lies between two events.
    let whole = ns - 2 * 1_000_000_000 / RATE;
    assert!(
        run.response.max() >= whole,
        "{} of {ns}",
        run.response.max()
    );
    for ms in [50, 100, 150] {
        let (found, expected) = (above(&run.response, ms), events_above(stopped, ms));
        assert!(
            found >= expected,
            "{found} above {ms} ms, expected {expected}"
        );
    }
    if run.lateness.max() > 50_000_000 {
        println!(
            "skipped: the machine stopped the generator too, by {} ns",
            run.lateness.max()
        );
        return;
    }
    // The generator went on: the stall is the stage's, and not lateness.
    assert!(above(&run.lateness, 50) == 0 && above(&run.service, 100) > 0);
}

#[test]
fn a_stage_that_holds_up_the_generator_is_hidden_by_the_uncorrected_view_only() {
    let (run, stopped) = through_cat(true);
    assert_eq!((run.lost, run.negative), (0, 0));
    for ms in [50, 100] {
        let (found, expected) = (above(&run.response, ms), events_above(stopped, ms));
        assert!(
            found >= expected,
            "{found} above {ms} ms, expected {expected}"
        );
    }
    // One event was under way. Each other one that waited was sent late, and only the view
    // from the intended time knows.
    let (corrected, blind) = (above(&run.response, 100), above(&run.service, 100));
    assert!(blind >= 1, "the one under way waited in both views");
    if blind > 1 {
        println!("skipped: the machine was slow by itself: {blind} events waited");
        return;
    }
    assert!(corrected >= events_above(stopped, 100) && corrected > 20 * blind);
}

#[test]
fn a_harness_that_is_stopped_says_that_it_was_late() {
    let child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(
            "latency --allow-debug --insist --no-save --format json --topology spsc --ring 4Ki"
                .split(' '),
        )
        .args("--rate 1k --warmup 10ms --duration 4s --runs 1 --floor 0 --drain 2m".split(' '))
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    // The measured phase is on when a thread of the generator's has run for some time.
    let generator_ran = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .flatten();
        let mut stats =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        stats.any(|stat| {
            let Some((name, fields)) = stat.rsplit_once(')') else {
                return false;
            };
            let ticks: u64 = fields.split_whitespace().nth(11).unwrap().parse().unwrap();
            name.ends_with("generator-0") && ticks > 2
        })
    };
    // Ends: the child's generator gets its CPU time, or the child ends and has no tasks.
    while !generator_ran(pid) {
        thread::yield_now();
    }
    let stopped = stall(pid);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let document = Document::from_json(&text).unwrap();
    let late = document.merged("lateness", Some(RATE)).unwrap();
    let response = document.merged("response", Some(RATE)).unwrap();
    for ms in [50, 100] {
        let expected = events_above(stopped, ms);
        assert!(
            above(&late, ms) >= expected,
            "{} of {expected}",
            above(&late, ms)
        );
        assert!(above(&response, ms) >= expected);
    }
    let reasons = document.summary.verdict.to_string();
    assert!(reasons.contains("generator late"), "{reasons}");
}

//! How many instructions our hot paths take, where no hardware counter is needed to say so.
//!
//! `cargo bench -p lockstep-ringbuffer -- --instructions` runs this program under valgrind's
//! callgrind, each path twice with different counts; the difference, divided, is what one
//! operation takes, with building and ending the pipeline left out. By hand:
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=publish.out  target/release/deps/peers-* --exercise publish 20000
//! callgrind_annotate publish.out
//! ```
//!
//! The counts depend on compiler and target, not on the machine's speed: they are kept in
//! the figures and may not grow.

use std::env;
use std::hint::black_box;
use std::process::Command;

use lockstep_ringbuffer::{Graph, Pipeline, Producer, each};

use crate::event::Event;
use crate::run::as_f64;

/// No path wraps or waits: ten times twice the times fit.
const RING: usize = 524_288;
const TIMES: u64 = 20_000;

/// A hot path by its name, and what one of it is.
const PATHS: [(&str, &str); 8] = [
    (
        "publish",
        "one event claimed, written and published by one producer",
    ),
    (
        "publish_10",
        "ten events claimed, written and published at once",
    ),
    ("publish_multi", "one event by one of many producers"),
    ("turn_idle", "a turn of one stage that finds nothing"),
    (
        "turn_idle_3",
        "a turn of three stages on one thread that find nothing",
    ),
    (
        "turn_one",
        "one event published and taken by one stage, a turn each",
    ),
    (
        "turn_one_3",
        "the same through a pipeline of three on one thread",
    ),
    (
        "take",
        "one event more in the batch of one stage, its publication included",
    ),
];

/// Counts every path and says what it found.
pub(crate) fn count(mut say: impl FnMut(&str)) -> Result<(), String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let program = program.display().to_string();
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("valgrind is not installed; where it is, this counts what one operation takes:");
        for (path, _) in PATHS {
            say(&format!(
                "  valgrind --tool=callgrind {program} --exercise {path} {TIMES}"
            ));
        }
        return Ok(());
    }
    for (path, what) in PATHS {
        let (once, twice) = (
            collected(&program, path, TIMES)?,
            collected(&program, path, 2 * TIMES)?,
        );
        let each = as_f64(twice.saturating_sub(once)) / as_f64(TIMES);
        say(&format!("{path:14} {each:7.1} instructions: {what}"));
    }
    Ok(())
}

/// The instructions of a whole run.
fn collected(program: &str, path: &str, times: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            program,
        ])
        .args(["--exercise", path, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, count)| count.trim().parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind counted nothing for {path}:\n{text}"))
}

/// Goes one path so many times, and does nothing else that depends on how many.
pub(crate) fn exercise(path: &str, times: u64) -> Result<(), String> {
    match path {
        "publish" => single(1, |producer, _| {
            (0..times)
                .try_for_each(|value| producer.publish(|slot| *slot = Event::of(value)).map(drop))
        }),
        "publish_10" => single(1, |producer, pipeline| {
            for value in 0..times {
                producer.publish_batch(10, |mut slots| {
                    slots
                        .iter_mut()
                        .for_each(|(_, slot)| *slot = Event::of(value));
                })?;
                if value % 6_000 == 0 {
                    pipeline.turn();
                }
            }
            Ok(())
        }),
        "publish_multi" => multi(times),
        "turn_idle" => turns(1, times),
        "turn_idle_3" => turns(3, times),
        "turn_one" => one_by_one(1, times),
        "turn_one_3" => one_by_one(3, times),
        "take" => single(1, |producer, pipeline| {
            (0..times).try_for_each(|value| {
                producer.publish(|slot| *slot = Event::of(value)).map(drop)
            })?;
            pipeline.turn();
            Ok(())
        }),
        _ => Err(format!(
            "--exercise {path:?} is no path; there are: {}",
            PATHS.map(|(path, _)| path).join(", ")
        )),
    }
}

type Outcome = Result<(), lockstep_ringbuffer::ClaimError>;

fn graph(stages: usize) -> Result<Graph<Event>, String> {
    let mut graph = Graph::new(RING, Event::default).map_err(|error| error.to_string())?;
    let mut before = Vec::new();
    for name in ["first", "second", "third"].into_iter().take(stages) {
        let mut sum = 0_u64;
        let stage = each(move |event: &Event, _| sum = black_box(sum.wrapping_add(event.value)));
        let stage = graph.stage(name, &before, stage);
        before.push(stage);
    }
    graph.together(&before);
    Ok(graph)
}

fn single(
    stages: usize,
    body: impl FnOnce(&mut Producer<Event>, &mut Pipeline<Event>) -> Outcome,
) -> Result<(), String> {
    let (mut producer, mut pipeline) = graph(stages)?.build().map_err(|error| error.to_string())?;
    body(&mut producer, &mut pipeline).map_err(|error| error.to_string())
}

fn multi(times: u64) -> Result<(), String> {
    let void = |slot: &mut Event| *slot = Event::default();
    let (mut producer, _pipeline) = graph(1)?
        .build_multi(void)
        .map_err(|error| error.to_string())?;
    (0..times)
        .try_for_each(|value| producer.publish(|slot| *slot = Event::of(value)).map(drop))
        .map_err(|error| error.to_string())
}

fn turns(stages: usize, times: u64) -> Result<(), String> {
    single(stages, |_, pipeline| {
        for _ in 0..times {
            black_box(pipeline.turn());
        }
        Ok(())
    })
}

fn one_by_one(stages: usize, times: u64) -> Result<(), String> {
    single(stages, |producer, pipeline| {
        for value in 0..times {
            producer.publish(|slot| *slot = Event::of(value))?;
            pipeline.turn();
        }
        Ok(())
    })
}

//! The long crash campaign on the simulated disk:
//! `cargo run --release -p lockstep-journaler --example crash_campaign -- --seeds 10000 [--from SEED] [--mutate NAME]`.
//!
//! Each seed is a life of several openings and crashes; what is checked after each is told in
//! `tests/it/campaign.rs`, which this program shares with `cargo test`. A violation ends it with
//! exit code 5 and the seed that repeats it. With `--mutate` the journal is broken on purpose, and
//! the campaign has to notice.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a program for the terminal, which uses a part of the helpers of the tests"
)]

use std::process::ExitCode;
use std::time::Instant;

use lockstep_journaler::Mutations;

#[path = "../tests/it/campaign.rs"]
mod campaign;
#[path = "../tests/it/support.rs"]
mod support;

use campaign::{Tally, live};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let number = |name: &str, default: u64| value(name).map_or(Ok(default), |text| text.parse());
    let (Ok(seeds), Ok(from)) = (number("--seeds", 10_000), number("--from", 0)) else {
        eprintln!("error: --seeds and --from want numbers");
        return ExitCode::from(2);
    };
    let Some(mutations) = mutations(value("--mutate").map_or("none", String::as_str)) else {
        eprintln!(
            "error: --mutate wants none, no-directory-sync, early-acknowledge, no-chain, retry-sync, frames-are-evidence, no-zeroing or trust-the-cache"
        );
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let mut tally = Tally::default();
    for seed in from..from + seeds {
        if let Err(violation) = live(seed, mutations, &mut tally) {
            println!("{tally:?}");
            println!("violated in life {}: {}", violation.seed, violation.what);
            println!("repeat it with --from {} --seeds 1", violation.seed);
            return ExitCode::from(5);
        }
        if (seed + 1 - from).is_multiple_of(10_000) {
            println!(
                "{} lives, {:.0} s",
                seed + 1 - from,
                started.elapsed().as_secs_f64()
            );
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{tally:?}");
    println!(
        "{seeds} lives, {} crashes, {} deaths of the process alone, {} openings in {seconds:.1} s ({:.0} openings/s): I1 to I7 held",
        tally.crashes,
        tally.deaths,
        tally.openings,
        tally.openings as f64 / seconds
    );
    ExitCode::SUCCESS
}

fn mutations(name: &str) -> Option<Mutations> {
    let none = Mutations::default();
    Some(match name {
        "none" => none,
        "no-directory-sync" => Mutations {
            no_directory_sync: true,
            ..none
        },
        "early-acknowledge" => Mutations {
            acknowledge_before_sync: true,
            ..none
        },
        "no-chain" => Mutations {
            no_chain: true,
            ..none
        },
        "retry-sync" => Mutations {
            retry_failed_sync: true,
            ..none
        },
        "frames-are-evidence" => Mutations {
            frames_are_evidence: true,
            ..none
        },
        "no-zeroing" => Mutations {
            no_zeroing: true,
            ..none
        },
        "trust-the-cache" => Mutations {
            trust_the_cache: true,
            ..none
        },
        _ => return None,
    })
}

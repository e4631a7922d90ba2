//! The journal beside other durable logs, on the same work:
//!
//! ```text
//! cargo run --release --manifest-path journaler/benches/peers/Cargo.toml -- --rounds 5
//! ```
//!
//! Everybody appends the same events of 64 bytes in groups of the same size, one by one in turns, and
//! makes each group durable by one sync; then everybody reads a log of the same events back, adding
//! a field of each up. Times and rates are those of one round; a ratio is formed within a round.
//!
//! | where | what |
//! |---|---|
//! | `append` | one group made durable, by each in turns |
//! | `scan` | reading back from the page cache |
//! | `contender` | what a log has to do here |
//! | `okay`, `raft` | the peers, each as good as its options allow |
//! | the others | of `benches/journal`: events, our journal, where and how it is written down |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod append;
mod args;
mod contender;
mod okay;
mod raft;
mod rounds;
mod scan;

#[path = "../../journal/event.rs"]
mod event;
#[path = "../../journal/machine.rs"]
mod machine;
#[expect(dead_code, reason = "of another bench, which uses more of it")]
#[path = "../../journal/ours.rs"]
mod ours;
#[expect(dead_code, reason = "of another bench, which uses more of it")]
#[path = "../../journal/place.rs"]
mod place;
#[expect(dead_code, reason = "of another bench, which uses more of it")]
#[path = "../../journal/raw.rs"]
mod raw;
#[expect(dead_code, reason = "of another bench, which uses more of it")]
#[path = "../../journal/results.rs"]
mod results;
#[expect(dead_code, reason = "of another bench, which uses more of it")]
#[path = "../../journal/statistics.rs"]
mod statistics;
#[path = "../../journal/table.rs"]
mod table;

use std::path::Path;
use std::process::ExitCode;

use args::Args;
use place::Place;
use results::Results;
use rounds::Outcome;

fn main() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Outcome<()> {
    let Some(args) = Args::parse(std::env::args().skip(1))? else {
        println!("{}", args::HELP);
        return Ok(());
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    let place = Place::under(args.dir.as_deref().unwrap_or(&here))?;
    let mut results = Results::default();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        append::round(&args, &place, round, &mut results)?;
        scan::round(&args, &place, &mut results)?;
    }
    let mut description = machine::description(&place);
    description.push(("rounds", args.rounds.to_string()));
    println!("{}", table::text(&results, &description));
    Ok(())
}

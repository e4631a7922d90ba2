//! `cargo bench -p lockstep-ringbuffer`: ours, the peers and the machine's limits, side by side.
//!
//! One process, several rounds; in each round every contender runs once at every work, in an
//! order that changes, with one cache line bounced between the CPUs before and after each
//! run. What that finds (near or far) labels the run, and ratios are formed between runs of
//! one round and one label. Readers add up a field of every event and the sums are checked.
//!
//! | where | what |
//! |---|---|
//! | `works` | the shapes, how many events, in which unit |
//! | `contenders/*` | ours and one file for each peer; `queues` has the shapes for all queues |
//! | `limits` | the hand-written ring and the bounced line |
//! | `run`, `event`, `idle`, `clock`, `machine`, `regime` | how one run goes |
//! | `rounds`, `statistics`, `rows` | how many make a figure |
//! | `table`, `json`, `args` | in and out |
//! | `instructions` | another question: how many instructions our hot paths take |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod args;
mod clock;
mod contenders;
mod event;
mod idle;
mod instructions;
mod json;
mod limits;
mod machine;
mod queues;
mod regime;
mod rounds;
mod rows;
mod run;
mod statistics;
mod table;
mod works;

use std::process::ExitCode;

use args::{Args, Task};
use machine::Machine;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| perform(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(args: &Args) -> Result<(), String> {
    let machine = Machine::discover();
    match &args.task {
        Task::Help => println!("{}", args::HELP),
        Task::List => list(args, &machine),
        Task::Measure => measure(args, &machine)?,
        Task::Instructions => instructions::count(|line| println!("{line}"))?,
        Task::Exercise { path, times } => instructions::exercise(path, *times)?,
    }
    Ok(())
}

fn list(args: &Args, machine: &Machine) {
    for work in &args.works {
        println!("{} ({}): {}", work.key, work.unit(), work.title);
        for case in contenders::cases(work, machine) {
            if args.wants(case.contender) {
                println!("    {case:?}");
            }
        }
    }
}

fn measure(args: &Args, machine: &Machine) -> Result<(), String> {
    let results = rounds::measure(machine, args, |what| eprintln!("{what}"))?;
    println!("{}", table::text(&results, machine, args.all));
    if let Some(path) = &args.json {
        let document = json::document(&results, machine, args);
        std::fs::write(path, format!("{document:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

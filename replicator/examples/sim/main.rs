//! A campaign of simulated clusters, or one seed again.
//!
//! ```text
//! cargo run --release -p lockstep-replicator --example sim -- --seeds 10000 --from 1
//! cargo run --release -p lockstep-replicator --example sim -- --seed 42 --trace
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program's output"
)]

use std::process::ExitCode;
use std::time::Instant;

use lockstep_replicator::simulation::{ModelNode, Plan, Tally, run_seed_of};

mod args;

use args::Args;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if !args.is_traced {
        // A panic of a node is a failure with a seed; where it came from is for the trace.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let started = Instant::now();
    let mut total = Tally::default();
    let mut failed = 0_u64;
    for seed in args.from..args.from + args.seeds {
        let mut plan = Plan::of_seed(seed);
        plan.mutation = args.mutation;
        plan.is_traced = args.is_traced;
        match run_seed_of::<ModelNode>(&plan) {
            Ok(tally) => total.add(&tally),
            Err(failure) => {
                println!("{failure}");
                if args.mutation.is_some() {
                    println!("with the same --mutation, without which it may pass");
                }
                failed += 1;
                if failed >= args.failures_max {
                    break;
                }
            }
        }
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!(
        "seeds {} to {}: {failed} failed, {:.0} seeds a minute",
        args.from,
        args.from + args.seeds - 1,
        args.seeds as f64 / minutes
    );
    print!("{total}");
    let missing = total.missing(args.seeds);
    if args.seeds >= 1000 && args.mutation.is_none() && !missing.is_empty() {
        println!("seen too seldom to prove anything: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    if failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

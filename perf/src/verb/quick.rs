//! `lockstep quick`, and what happens without a verb: what is this machine, how much does it
//! interrupt, and how fast does a pipeline answer on it. About 15 seconds.

use std::path::Path;
use std::time::Duration;

use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::show_short;
use lockstep_perf::args::shape::Shape;
use lockstep_perf::exit::Exit;
use lockstep_perf::pipeline::latency;
use lockstep_perf::report::chart::percentile_chart;
use lockstep_perf::report::latency::{show, verdict};
use lockstep_perf::report::result::percentile;
use lockstep_perf::report::store;
use lockstep_perf::report::text::{Table, wrap};

use super::bench::{Bench, clear_status, exit_of, is_interrupted};
use super::latency::{add, plan_lines};
use super::{Global, doctor};

/// The rates; those that the clock is too slow for are left out.
const RATES: [u64; 3] = [10_000, 100_000, 1_000_000];

const WARM_UP: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_millis(3_000);
const FLOOR: Duration = Duration::from_millis(400);

/// Arguments of `lockstep quick`.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep\n  lockstep quick --format json > quick.json\n\n\
                        Exit codes: 0 done · 3 invalid · 130 interrupted, the partial result is kept"
)]
pub(crate) struct Args {
    /// Keep nothing
    #[arg(long)]
    no_save: bool,
}

/// Measures and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let bench = Bench::new(global);
    bench.say(&doctor::four_lines(&bench))?;
    let plan = Plan::resolve(&Wishes::new(Shape::Diamond), &bench.machine)?;
    bench.say(&format!("\n{}", plan_lines(&plan)))?;
    let mut document = bench.document("quick", "");
    document.config = plan.config();
    let fastest = 1e9 / bench.clock.read_cost_ns().max(1.0);
    for rate in RATES {
        let fits = lockstep_perf::machine::clock::ratio(rate, 1) < fastest / 4.0;
        if !fits || is_interrupted() {
            continue;
        }
        bench.say(&format!(
            "measuring {}/s for {:.1} s …\n",
            show_short(rate),
            DURATION.as_secs_f64()
        ))?;
        let harness = bench
            .harness("quick", plan.threads.len() + plan.producers.len())
            .rate(rate)
            .warmup(WARM_UP)
            .duration(DURATION)
            .interval(Duration::from_millis(100))
            .floor(FLOOR)
            .drain(Duration::from_secs(1))
            .runs(1);
        let measured = latency::measure(&harness, &plan)?;
        clear_status();
        add(&mut document, &plan, &measured)?;
    }
    bench.say(&format!("\n{}", table(&bench, &document)?))?;
    bench.say(&format!("\n{}", percentile_chart(&document)?.to_text()))?;
    bench.say(&format!(
        "{}\n",
        wrap(&format!("valid    {}", verdict(&document)), 79, "         ")
    ))?;
    let keep = (!args.no_save).then(|| Path::new(store::DIRECTORY));
    if let Some(home) = bench.finish(&document, keep)? {
        bench.say(&format!(
            "report   {}/report.html\nnext     lockstep tune · lockstep latency --rate 1M · lockstep doctor\n",
            home.display()
        ))?;
    }
    Ok(exit_of(&document, false))
}

/// One row a rate: response, and what of it the machine may be to blame for.
fn table(
    bench: &Bench,
    document: &lockstep_perf::report::result::Document,
) -> anyhow::Result<String> {
    let units = bench.units();
    let mut table = Table::new("lrrrrrr");
    table.row([
        "response at",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "late p99",
    ]);
    for rate in &document.summary.rates {
        let response = document.merged("response", rate.rate)?;
        let late = document.merged("lateness", rate.rate)?;
        table.row([
            format!("{}/s", show_short(rate.rate.unwrap_or(0))),
            show(percentile(&response, 50.0), units),
            show(percentile(&response, 90.0), units),
            show(percentile(&response, 99.0), units),
            show(percentile(&response, 99.9), units),
            units.show(response.max()),
            show(percentile(&late, 99.0), units),
        ]);
    }
    let lost = document
        .floor
        .iter()
        .map(|floor| floor.lost)
        .fold(0.0, f64::max);
    let wait = document
        .floor
        .iter()
        .map(|floor| floor.arrival_p99_ns)
        .max()
        .unwrap_or(0);
    Ok(format!(
        "{table}the machine alone: an event waits {} at p99, {:.2}% of the time is lost\n",
        units.show(wait),
        lost * 100.0
    ))
}

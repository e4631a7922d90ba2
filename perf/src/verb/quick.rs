//! `lockstep quick`, and what happens without a verb: what is this machine, how much does it
//! interrupt, and how fast does the engine answer on it, with a journal in a temporary
//! directory. About 15 seconds.

use std::path::PathBuf;
use std::time::Duration;

use lockstep_engine::JournalMode;
use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::{show_short, span, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::pipeline::{full, latency};
use lockstep_perf::report::chart::percentile_chart;
use lockstep_perf::report::latency::{show, verdict};
use lockstep_perf::report::result::percentile;
use lockstep_perf::report::store;
use lockstep_perf::report::text::{Table, wrap};

use super::bench::{Bench, clear_status, exit_of, is_interrupted};
use super::latency::{acknowledged_line, add, check_room, plan_lines};
use super::{Global, doctor};

/// The rates; those that the clock is too slow for are left out.
const RATES: [u64; 3] = [10_000, 100_000, 1_000_000];

const WARM_UP: Duration = Duration::from_millis(500);
const FLOOR: Duration = Duration::from_millis(400);

/// Arguments of `lockstep quick`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep\n  lockstep quick --format json > quick.json\n\n\
                        Exit codes: 0 done · 3 invalid · 130 interrupted, the partial result is kept"
)]
pub(crate) struct Args {
    /// Measured time at each of the three rates
    #[arg(long, default_value = "3s", value_parser = span, value_name = "DUR")]
    duration: Duration,
    /// Keep nothing
    #[arg(long)]
    no_save: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(3),
            no_save: false,
        }
    }
}

/// Measures and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let bench = Bench::new(global);
    bench.say(&doctor::four_lines(&bench))?;
    let (plan, note) = plan(&bench, args.duration)?;
    let keep = (!args.no_save).then(home).transpose()?;
    let mut document = bench.document("quick", "");
    document.config = plan.config();
    bench.say(&format!("\n{}", plan_lines(&plan, &bench)))?;
    bench.say(&acknowledged_line(&plan, &mut document)?)?;
    if let Some(note) = note {
        bench.say(&format!(
            "{}\n",
            wrap(&format!("note     {note}"), 79, "         ")
        ))?;
    }
    let fastest = 1e9 / bench.clock.read_cost_ns().max(1.0);
    for rate in RATES {
        let fits = lockstep_perf::machine::clock::ratio(rate, 1) < fastest / 4.0;
        if !fits || is_interrupted() {
            continue;
        }
        bench.say(&format!(
            "measuring {}/s for {:.1} s …\n",
            show_short(rate),
            args.duration.as_secs_f64()
        ))?;
        let harness = bench
            .harness("quick", plan.threads.len() + plan.producers.len())
            .rate(rate)
            .warmup(WARM_UP)
            .duration(args.duration)
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
    if let Some(home) = bench.finish(&document, keep.as_deref())? {
        bench.say(&format!(
            "report   {}/report.html\nnext     lockstep tune · lockstep latency --rate 1M · lockstep doctor\n",
            home.display()
        ))?;
    }
    Ok(exit_of(&document, false))
}

/// Where the result is kept: here, or where nothing can be written below the temporary directory.
fn home() -> Result<PathBuf, Refusal> {
    let here = PathBuf::from(store::DIRECTORY);
    if store::check(&here).is_ok() {
        return Ok(here);
    }
    let aside = std::env::temp_dir().join(store::DIRECTORY);
    store::check(&aside).map(|()| aside)
}

/// The engine with a journal where there is room and leave for one: below the temporary
/// directory, or else here. Without, it keeps nothing, and says so.
fn plan(bench: &Bench, duration: Duration) -> anyhow::Result<(Plan, Option<String>)> {
    let mut wishes = Wishes::new(Shape::Full);
    let most = RATES.iter().max().copied().unwrap_or(0);
    let seconds = (WARM_UP + duration).as_secs_f64();
    let events = whole(seconds * ratio(most, 1));
    let mut reasons = Vec::new();
    for directory in [None, Some(PathBuf::from("."))] {
        wishes.log.directory = directory;
        let plan = Plan::resolve(&wishes, &bench.machine)?;
        let fits = check_room(&plan, events, "").map_err(|refusal| refusal.what);
        match fits.and_then(|()| full::try_out(&plan).map_err(|error| format!("{error:#}"))) {
            Ok(()) => return Ok((plan, None)),
            Err(reason) => reasons.push(reason),
        }
    }
    wishes.log.directory = None;
    wishes.log.mode = JournalMode::None;
    let plan = Plan::resolve(&wishes, &bench.machine)?;
    let note = format!("without a journal: {}", reasons.join("; "));
    Ok((plan, Some(note)))
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

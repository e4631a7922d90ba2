//! `lockstep throughput`: how many events a second a pipeline carries; with `--search`, at
//! which rate it still keeps an objective.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use lockstep_perf::Verdict;
use lockstep_perf::args::plan::Plan;
use lockstep_perf::args::quantity::{duration, show_count, show_rate, span, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::slo::{Met, Slo};
use lockstep_perf::exit::Exit;
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::machine::floor::Watch;
use lockstep_perf::measure::harness::watch_together;
use lockstep_perf::measure::statistics::Spread;
use lockstep_perf::measure::validity::Grade;
use lockstep_perf::pipeline::latency;
use lockstep_perf::pipeline::throughput::{Throughput, measure};
use lockstep_perf::report::result::{FloorRecord, RunRecord};
use lockstep_perf::report::text::wrap;

use super::Global;
use super::bench::{Bench, clear_status, exit_of, is_interrupted, refuse_debug_build};
use super::flags::{PipelineFlags, ResultFlags};
use super::latency::{acknowledged_line, add, add_threads, check_room, plan_lines};

/// Runs whose rates spread further apart are in different regimes.
const SPREAD_MAX: f64 = 0.2;

/// What the engine journals at most, for the room that a run needs.
const EVENTS_A_SECOND: f64 = 20e6;

/// A search ends when its bounds are this close.
const SEARCH_RATIO: f64 = 1.05;

/// Arguments of `lockstep throughput`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep throughput --topology spsc --claim 100\n  \
                        lockstep throughput --search --slo 'p99<50us'\n\n\
                        Exit codes: 0 done · 2 bad arguments · 3 with --strict: noisy; with --search: no rate keeps the objective · \
                        6 a pin is impossible · 130 interrupted"
)]
pub(crate) struct Args {
    /// Measured time of each run
    #[arg(long, default_value = "3s", value_parser = span, value_name = "DUR")]
    duration: Duration,
    /// Runs, each with fresh threads and a fresh ring
    #[arg(long, default_value = "5", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// The platform's floor before and after; 0 leaves it out
    #[arg(long, default_value = "500ms", value_parser = duration, value_name = "DUR")]
    floor: Duration,
    /// Look for the highest rate whose response keeps --slo
    #[arg(long, requires = "slo")]
    search: bool,
    /// The objective of --search
    #[arg(long, value_name = "SLO")]
    slo: Option<Slo>,
    #[command(flatten)]
    pipeline: PipelineFlags,
    #[command(flatten)]
    result: ResultFlags,
}

/// Measures and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    refuse_debug_build(args.pipeline.allow_debug)?;
    let bench = Bench::new(global);
    let plan = args.pipeline.plan(&bench.machine)?;
    let seconds = args.duration.as_secs_f64();
    check_room(&plan, whole(seconds * EVENTS_A_SECOND), "--duration 1s")?;
    args.result.check()?;
    let mut document = bench.document("throughput", &args.result.label);
    document.config = plan.config();
    bench.say(&plan_lines(&plan, &bench))?;
    bench.say(&acknowledged_line(&plan, &mut document)?)?;
    bench.say(&args.pipeline.take_memory(&plan, &mut document)?)?;
    bench.say(&args.pipeline.go_before_others(&mut document)?)?;
    let mut runs = Vec::new();
    floor(args, &bench, &plan, "before", &mut document.floor)?;
    for n in 1..=usize::from(args.runs) {
        if is_interrupted() {
            break;
        }
        let before = bench.line_ns(&plan);
        let run = measure(&bench.clock, &plan, args.duration, &bench.stop)?;
        let mut kept = record(n, &run);
        kept.line_ns = before.into_iter().chain(bench.line_ns(&plan)).collect();
        document.runs.push(kept);
        add_threads(&mut document, &plan, &run.seen);
        runs.push(run);
    }
    floor(args, &bench, &plan, "after", &mut document.floor)?;
    document.interrupted = is_interrupted();
    document.summarise();
    document.summary.verdict = verdict(&document.runs);
    bench.say(&text(&plan, &runs, &document.summary.verdict))?;
    let mut exit = exit_of(&document, args.result.strict);
    if let (true, Some(slo)) = (args.search, &args.slo) {
        let top = document
            .summary
            .rates
            .first()
            .and_then(|rate| rate.throughput);
        let found = search(
            args,
            &bench,
            &plan,
            slo,
            top.map_or(1e6, |t| t.median),
            &mut document,
        )?;
        if found.is_none() && exit == Exit::Done {
            exit = Exit::Undecided;
        }
    }
    if let Some(home) = bench.finish(&document, args.result.keep())? {
        args.result.show(&home)?;
        bench.say(&format!("saved    {}/report.html\n", home.display()))?;
    }
    Ok(exit)
}

fn floor(
    args: &Args,
    bench: &Bench,
    plan: &Plan,
    when: &str,
    into: &mut Vec<FloorRecord>,
) -> anyhow::Result<()> {
    if args.floor.is_zero() || is_interrupted() {
        return Ok(());
    }
    let watch = Watch {
        duration: args.floor,
        ..Watch::default()
    };
    for floor in watch_together(&bench.clock, &plan.pinned_cpus(), watch)? {
        into.push(FloorRecord::of(when, &floor)?);
    }
    Ok(())
}

fn record(n: usize, run: &Throughput) -> RunRecord {
    let mut verdict = Verdict::default();
    if run.interrupted {
        verdict.grade = Grade::Noisy;
        verdict
            .reasons
            .push("interrupted: shorter than asked for".to_owned());
    }
    RunRecord {
        n,
        rate: None,
        verdict,
        sent: run.events,
        received: run.events,
        lost: 0,
        unsent: 0,
        blocked: run.blocked,
        negative_samples: 0,
        achieved_rate: run.rate(),
        cpu_s: run.cpu_s,
        stolen: run.stolen,
        line_ns: Vec::new(),
        hist: BTreeMap::new(),
        intervals: Vec::new(),
        tail_from_ns: 0,
        tail: Vec::new(),
        batches: run.batches.iter().cloned().collect(),
        work: run.work.clone(),
        preempted: run.preempted(),
    }
}

fn verdict(runs: &[RunRecord]) -> Verdict {
    let mut verdict = Verdict::default();
    if is_interrupted() {
        verdict.grade = Grade::Noisy;
        verdict
            .reasons
            .push("interrupted: shorter than asked for".to_owned());
    }
    if cfg!(debug_assertions) {
        verdict.grade = Grade::Invalid;
        verdict
            .reasons
            .push("this is a debug build: rates are far too low".to_owned());
    }
    let rates: Vec<f64> = runs.iter().map(|run| run.achieved_rate).collect();
    if let Some(spread) = Spread::of(&rates).filter(|spread| spread.relative() > SPREAD_MAX) {
        verdict.grade = verdict.grade.max(Grade::Noisy);
        verdict.reasons.push(format!(
            "runs disagree by ±{:.0}%: the CPUs may be near each other at one moment and far at the next (lockstep c2c)",
            spread.relative() * 100.0
        ));
    }
    verdict
}

fn text(plan: &Plan, runs: &[Throughput], verdict: &Verdict) -> String {
    let rates: Vec<f64> = runs.iter().map(Throughput::rate).collect();
    let Some(spread) = Spread::of(&rates) else {
        return "interrupted before the first run\n".to_owned();
    };
    let list: Vec<String> = rates.iter().map(|rate| show_rate(*rate)).collect();
    let events: u64 = runs.iter().map(|run| run.events).sum();
    let span: u64 = runs.iter().map(|run| run.span_ns).sum();
    let cpu: f64 = runs.iter().map(|run| run.cpu_s).sum();
    let blocked: u64 = runs.iter().map(|run| run.blocked).sum();
    // Whoever publishes several at once waits inside of the engine, and is not told.
    let full = if plan.shape == Shape::Full && plan.claim > 1 {
        "ring full: not counted".to_owned()
    } else {
        format!("ring full {} times", show_count(blocked))
    };
    let bytes = spread.median * ratio(plan.event_size as u64, 1) / 1e9;
    let mut text = format!(
        "rate     median {}  [{} .. {}]   {bytes:.2} GB/s\nruns     {}\ncpu      {:.2} CPUs   {} in {} events\n",
        show_rate(spread.median),
        show_rate(spread.min),
        show_rate(spread.max),
        list.join(" / "),
        cpu / ratio(span.max(1), 1_000_000_000),
        full,
        show_count(events)
    );
    for (index, (stage, _)) in runs[0].batches.iter().enumerate() {
        let all = runs
            .iter()
            .filter_map(|run| run.batches.get(index))
            .map(|(_, batches)| batches);
        let turns: u64 = all.clone().map(|batches| batches.turns).sum();
        let max = all.map(|batches| batches.max).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "batches  {stage}: {:.1} on average, {max} at most",
            ratio(events, turns)
        );
    }
    for name in runs
        .iter()
        .flat_map(|run| run.work.keys())
        .collect::<BTreeSet<_>>()
    {
        let work = |run: &Throughput| run.work.get(name).copied().unwrap_or_default();
        let count: u64 = runs.iter().map(|run| work(run).count).sum();
        let _ = writeln!(
            text,
            "{name:<13} {:.0}% of the time, {} times, {:.0} events each",
            mean_share(runs, name) * 100.0,
            show_count(count),
            ratio(events, count.max(1))
        );
    }
    if let Some(advice) = slowest(plan, runs) {
        let _ = writeln!(
            text,
            "{}",
            wrap(&format!("slowest  {advice}"), 79, "         ")
        );
    }
    let _ = writeln!(
        text,
        "{}",
        wrap(&format!("valid    {verdict}"), 79, "         ")
    );
    text
}

fn mean_share(runs: &[Throughput], work: &str) -> f64 {
    let shares = runs.iter().filter_map(|run| run.work.get(work));
    shares.map(|work| work.share).sum::<f64>() / ratio(runs.len().max(1) as u64, 1)
}

/// A journal that is busy for more of the time holds up the rest.
const BUSY: f64 = 0.5;

/// Who holds up the others, as far as can be seen, and what would help.
fn slowest(plan: &Plan, runs: &[Throughput]) -> Option<String> {
    let busy = ["journal sync", "journal write"].map(|work| mean_share(runs, work));
    if busy.iter().sum::<f64>() > BUSY {
        let percent = busy.iter().sum::<f64>().min(1.0) * 100.0;
        return Some(format!(
            "journal ({percent:.0}% busy): --journal-dir on a faster disk, --journal direct or async, --gate output"
        ));
    }
    // Whoever is behind finds more waiting: its batches are those of the limit.
    let behind = runs.iter().flat_map(|run| &run.batches);
    let behind = behind.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    if let Some((stage, batches)) =
        behind.filter(|(_, b)| b.mean * 2.0 > ratio(plan.batch as u64, 1))
    {
        return Some(format!(
            "{stage} (takes {:.0} of {} at a time): a thread of its own (--place), or less work in it",
            batches.mean, plan.batch
        ));
    }
    let is_alone = plan.shape != Shape::Full && plan.claim == 1;
    is_alone
        .then(|| "the generator (no stage is behind): --claim 16 publishes more at once".to_owned())
}

/// Halves the distance between a rate that keeps the objective and one that does not.
fn search(
    args: &Args,
    bench: &Bench,
    plan: &Plan,
    slo: &Slo,
    top: f64,
    document: &mut lockstep_perf::report::result::Document,
) -> anyhow::Result<Option<u64>> {
    let clock_limit = 1e9 / bench.clock.read_cost_ns().max(1.0);
    let mut misses = top.min(clock_limit);
    let mut keeps: Option<f64> = None;
    let mut lowest = 1_000.0_f64.min(misses / 2.0);
    // Ends: each turn brings the bounds together by half, in proportion.
    while misses / keeps.unwrap_or(lowest) > SEARCH_RATIO && !is_interrupted() {
        let rate = whole((misses * keeps.unwrap_or(lowest)).sqrt()).max(1);
        let met = try_rate(args, bench, plan, slo, rate, document)?;
        if met == Met::Yes {
            keeps = Some(ratio(rate, 1));
        } else {
            misses = ratio(rate, 1);
            lowest = lowest.min(misses / 2.0);
        }
        if keeps.is_none() && misses < 200.0 {
            break;
        }
    }
    let line = match keeps {
        Some(rate) => format!(
            "search   {slo} holds up to {} (fails at {})\n",
            show_rate(rate),
            show_rate(misses)
        ),
        None => format!(
            "search   no rate keeps {slo} on this machine, not even {}\n",
            show_rate(misses)
        ),
    };
    bench.say(&line)?;
    Ok(keeps.map(whole))
}

fn try_rate(
    args: &Args,
    bench: &Bench,
    plan: &Plan,
    slo: &Slo,
    rate: u64,
    document: &mut lockstep_perf::report::result::Document,
) -> anyhow::Result<Met> {
    let long_enough = Duration::from_secs_f64((1_000.0_f64 / ratio(rate, 1)).clamp(0.5, 30.0));
    let harness = bench
        .harness("search", plan.threads.len() + plan.producers.len())
        .rate(rate)
        .warmup(Duration::from_millis(300))
        .duration(args.duration.max(long_enough))
        .drain(Duration::from_secs(1))
        .floor(Duration::ZERO)
        .runs(1);
    let measured = latency::measure(&harness, plan)?;
    clear_status();
    let run = &measured.report.runs[0];
    let reached = run.unsent == 0 && run.achieved_rate > 0.99 * ratio(rate, 1);
    let met = if reached {
        slo.judge(&run.response)
    } else {
        Met::No
    };
    let words = match (reached, met) {
        (false, _) => "rate not reached",
        (_, Met::Yes) => "kept",
        (_, Met::No) => "missed",
        (_, Met::Undecided) => "too few samples",
    };
    bench.say(&format!(
        "search   {}: p99 {}  {words}\n",
        show_rate(ratio(rate, 1)),
        bench.units().show(run.response.value_at_percentile(99.0))
    ))?;
    add(document, plan, &measured)?;
    Ok(met)
}

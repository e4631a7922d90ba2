//! `lockstep latency`: response of a pipeline at a fixed rate, from the intended send times.

use std::time::Duration;

use lockstep_engine::JournalMode;
use lockstep_perf::Arrivals;
use lockstep_perf::Harness;
use lockstep_perf::args::plan::Plan;
use lockstep_perf::args::quantity::{counted, rate, show_bytes, show_count, show_short, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::slo::{Met, Slo};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::{Clock, ratio};
use lockstep_perf::machine::pin::ThreadSeen;
use lockstep_perf::machine::storage::free_bytes;
use lockstep_perf::measure::validity::Grade;
use lockstep_perf::pipeline::full;
use lockstep_perf::pipeline::latency::{self, Measured};
use lockstep_perf::report::latency::text;
use lockstep_perf::report::result::{Document, Placed};
use lockstep_perf::report::text::wrap;

use super::Global;
use super::bench::{Bench, clear_status, exit_of, is_interrupted, refuse_debug_build, seconds};
use super::flags::{PhaseFlags, PipelineFlags, ResultFlags, check_directory, existing, share};

/// Arguments of `lockstep latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lockstep latency --rate 100k,1M\n  \
                        lockstep latency --topology pipeline:3 --rate 1M --pin producer=2,stage0=3,stage1=4,stage2=5\n  \
                        lockstep latency --rate 500k --arrivals poisson --slo 'p99<50us,p99.9<1ms'\n\n\
                        Exit codes: 0 done · 2 bad arguments · 3 invalid (with --strict: or noisy), or too few samples for --slo · \
                        4 --slo missed · 6 a pin is impossible · 130 interrupted, the partial result is kept")]
pub(crate) struct Args {
    /// Events a second; several make several measurements
    #[arg(long, default_value = "100k", value_parser = rate, value_delimiter = ',', value_name = "RATE")]
    rate: Vec<u64>,
    /// even | poisson[:SEED] | burst:N
    #[arg(long, default_value = "even", value_name = "KIND")]
    arrivals: Arrivals,
    /// Objective on the response: 'p99<50us,p99.9<1ms'
    #[arg(long, value_name = "SLO")]
    slo: Option<Slo>,
    /// Invalid if more than this share of the events left later than a period
    #[arg(long, default_value = "100%", value_parser = share, value_name = "SHARE")]
    max_lateness: f64,
    /// Ends a run after so many events instead of --duration
    #[arg(long, value_parser = lockstep_perf::args::quantity::count, value_name = "N")]
    events: Option<u64>,
    #[command(flatten)]
    pipeline: PipelineFlags,
    #[command(flatten)]
    phases: PhaseFlags,
    #[command(flatten)]
    result: ResultFlags,
}

/// Measures and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    refuse_debug_build(args.pipeline.allow_debug)?;
    let bench = Bench::new(global);
    let plan = args.pipeline.plan(&bench.machine)?;
    for &rate in &args.rate {
        check_rate(rate, &bench.clock)?;
        if let Some(slo) = &args.slo {
            let one_run = whole(args.duration(rate).as_secs_f64() * ratio(rate, 1));
            slo.check(one_run.saturating_mul(u64::from(args.phases.runs)))?;
        }
    }
    let most = args.rate.iter().map(|&rate| args.events_at(rate)).max();
    check_room(&plan, most.unwrap_or(0), "--duration 3s")?;
    args.result.check()?;
    let mut document = bench.document("latency", &args.result.label);
    document.config = plan.config();
    document
        .config
        .insert("arrivals".to_owned(), args.arrivals.to_string().into());
    bench.say(&plan_lines(&plan, &bench))?;
    bench.say(&acknowledged_line(&plan, &mut document)?)?;
    bench.say(&args.pipeline.take_memory(&plan, &mut document)?)?;
    bench.say(&args.pipeline.go_before_others(&mut document)?)?;
    bench.say(&format!(
        "record   an event costs its receiver {:.0} ns, of which {:.0} ns are a clock read\n",
        document.env.record_ns, document.env.clock_read_ns
    ))?;
    for &rate in &args.rate {
        if is_interrupted() {
            break;
        }
        bench.say(&phases_line(args, rate))?;
        let harness = args.harness(&bench, rate, plan.threads.len() + plan.producers.len());
        let (first, before) = (document.runs.len(), bench.line_ns(&plan));
        let measured = latency::measure(&harness, &plan)?;
        clear_status();
        add(&mut document, &plan, &measured)?;
        let line: Vec<f64> = before.into_iter().chain(bench.line_ns(&plan)).collect();
        for run in &mut document.runs[first..] {
            run.line_ns.clone_from(&line);
        }
    }
    judge_lateness(args, &mut document)?;
    bench.say(&text(&document, bench.units())?)?;
    let exit = judge(args, &document, &bench)?;
    if let Some(home) = bench.finish(&document, args.result.keep())? {
        args.result.show(&home)?;
        bench.say(&format!(
            "saved    {}/report.html\nnext     lockstep plot last · lockstep compare last~1 last\n",
            home.display()
        ))?;
    }
    Ok(exit)
}

impl Args {
    fn duration(&self, rate: u64) -> Duration {
        self.events.map_or(self.phases.duration, |events| {
            Duration::from_secs_f64(ratio(events, rate.max(1)))
        })
    }

    /// Events of one run, its warm-up included.
    fn events_at(&self, rate: u64) -> u64 {
        let seconds = (self.duration(rate) + self.phases.warmup).as_secs_f64();
        whole(seconds * ratio(rate, 1))
    }

    fn harness(&self, bench: &Bench, rate: u64, threads: usize) -> Harness {
        bench
            .harness(&self.pipeline.topology.to_string(), threads)
            .rate(rate)
            .arrivals(self.arrivals)
            .warmup(self.phases.warmup)
            .duration(self.duration(rate))
            .runs(usize::from(self.phases.runs))
            .floor(self.phases.floor)
            .interval(self.phases.interval)
            .drain(self.phases.drain)
    }
}

/// Refuses rates that no clock read fits between.
pub(crate) fn check_rate(rate: u64, clock: &Clock) -> Result<(), Refusal> {
    if rate == 0 {
        return Err(Refusal::usage(
            "--rate 0",
            "for maximum speed use: lockstep throughput",
        ));
    }
    let period_ns = 1e9 / ratio(rate, 1);
    let cost_ns = clock.read_cost_ns();
    if period_ns < cost_ns {
        return Err(Refusal::usage(
            format!(
                "--rate {} needs a send every {period_ns:.0} ns; this machine's clock read costs {cost_ns:.0} ns",
                show_short(rate)
            ),
            "for maximum speed use: lockstep throughput",
        ));
    }
    Ok(())
}

/// What the plan has settled.
pub(crate) fn plan_lines(plan: &Plan, bench: &Bench) -> String {
    let generators = if plan.producers_yield {
        "yield"
    } else {
        "spin"
    };
    let mut more = Vec::new();
    if plan.shape == Shape::Full {
        more.push(format!("gate {}", plan.log.gate_name()));
    }
    if plan.batch > 0 {
        more.push(format!("batch {}", plan.batch));
    }
    let more = more.join("   ");
    let mut text = format!(
        "pipeline {}   ring {} x {} B   {more}   claim {}\npins     {}   place {}\nwait     {}   generator: {generators}\n",
        plan.shape,
        show_short(plan.ring as u64),
        plan.event_size,
        plan.claim,
        plan.pins(),
        plan.place(),
        plan.waits()
    );
    for warning in &plan.warnings {
        text.push_str(&format!("warning  {}\n", wrap(warning, 71, "         ")));
    }
    if plan.stage_reads() > 0 {
        let cost = bench.clock.read_cost_ns() * ratio(plan.stage_reads() as u64, 1);
        text.push_str(&format!(
            "stages   {} more clock reads on the way of each event: {cost:.0} ns of its latency are theirs\n",
            plan.stage_reads()
        ));
    }
    text
}

/// What an event has behind it when it counts as done, and on what the journal lies; kept in
/// the result too.
pub(crate) fn acknowledged_line(plan: &Plan, document: &mut Document) -> anyhow::Result<String> {
    let mut line = format!("done     {}", plan.acknowledged());
    if plan.shape == Shape::Full && plan.log.mode != JournalMode::None {
        let (medium, is_durable) = full::medium(plan)?;
        let kept = if is_durable {
            String::new()
        } else {
            " (forgets all at a power cut)".to_owned()
        };
        let on = format!("{medium}{kept}");
        line.push_str(&format!(" · journal on {on}"));
        document.config.insert("journal_on".to_owned(), on.into());
    }
    Ok(format!("{}\n", wrap(&line, 79, "         ")))
}

/// Refuses a run whose journal does not fit.
pub(crate) fn check_room(plan: &Plan, events: u64, hint: &str) -> Result<(), Refusal> {
    if plan.shape != Shape::Full {
        return Ok(());
    }
    let (below, wanted) = (full::below(plan), full::bytes_wanted(plan, events));
    check_directory("--journal-dir", &below)?;
    match free_bytes(&existing(&below)) {
        Some(free) if free < wanted => Err(Refusal::environment(
            format!(
                "--journal-dir {}: {} free, this run writes about {}",
                below.display(),
                show_bytes(free),
                show_bytes(wanted)
            ),
            format!("{hint}, another directory, or --journal none"),
        )),
        _ => Ok(()),
    }
}

fn phases_line(args: &Args, rate: u64) -> String {
    let line = format!(
        "phases   floor {} · {} x (warm-up {} + {}) at {}/s {} · floor {}",
        seconds(args.phases.floor),
        counted(args.phases.runs, "run"),
        seconds(args.phases.warmup),
        seconds(args.duration(rate)),
        show_count(rate),
        args.arrivals,
        seconds(args.phases.floor)
    );
    wrap(&line, 79, "         ") + "\n"
}

/// Adds a measured rate to a document: runs, batches, where the threads were.
pub(crate) fn add(document: &mut Document, plan: &Plan, measured: &Measured) -> anyhow::Result<()> {
    let first = document.runs.len();
    document.add(&measured.report)?;
    for (run, batches) in document.runs[first..].iter_mut().zip(&measured.batches) {
        run.batches = batches.iter().cloned().collect();
    }
    for (index, &cpu) in plan.producers.iter().enumerate() {
        let proofs = measured.report.runs.iter().flat_map(|run| &run.generators);
        let verified = cpu.is_some_and(|cpu| {
            proofs.clone().any(|p| p.cpu == cpu)
                && proofs.clone().filter(|p| p.cpu == cpu).all(|p| p.holds())
        });
        document.placement.insert(
            format!("producer{index}"),
            Placed {
                cpu,
                verified,
                wait: if plan.producers_yield {
                    "yield"
                } else {
                    "spin"
                }
                .to_owned(),
                stages: Vec::new(),
            },
        );
    }
    add_threads(document, plan, &measured.seen);
    Ok(())
}

/// Where the threads of the stages were put, and whether the kernel had them there.
pub(crate) fn add_threads(document: &mut Document, plan: &Plan, seen: &[ThreadSeen]) {
    for thread in &plan.threads {
        let names: Vec<String> = thread
            .stages
            .iter()
            .map(|&i| plan.shape.stage_name(i))
            .collect();
        let name = names.join("+");
        let own = seen.iter().find(|seen| seen.is(&name));
        document.placement.insert(
            name,
            Placed {
                cpu: thread.cpu,
                verified: thread
                    .cpu
                    .is_some_and(|cpu| own.is_some_and(|own| own.is_on(cpu))),
                wait: thread.wait.to_string(),
                stages: names,
            },
        );
    }
}

/// Too many events left late: then it was another load than the one asked for.
fn judge_lateness(args: &Args, document: &mut Document) -> anyhow::Result<()> {
    let rates: Vec<u64> = document
        .summary
        .rates
        .iter()
        .filter_map(|r| r.rate)
        .collect();
    for rate in rates {
        let lateness = document.merged("lateness", Some(rate))?;
        let late = lateness.count_between(1_000_000_000 / rate.max(1), u64::MAX);
        let share = ratio(late, lateness.len().max(1));
        if share > args.max_lateness {
            let verdict = &mut document.summary.verdict;
            verdict.grade = Grade::Invalid;
            verdict.reasons.insert(
                0,
                format!(
                    "{:.1}% of the events left later than a period, more than --max-lateness {:.1}%",
                    share * 100.0,
                    args.max_lateness * 100.0
                ),
            );
        }
    }
    Ok(())
}

fn judge(args: &Args, document: &Document, bench: &Bench) -> anyhow::Result<Exit> {
    let exit = exit_of(document, args.result.strict);
    let Some(slo) = &args.slo else {
        return Ok(exit);
    };
    let mut worst = Met::Yes;
    for rate in &document.summary.rates {
        let met = slo.judge(&document.merged("response", rate.rate)?);
        let words = match met {
            Met::Yes => "kept",
            Met::No => "MISSED",
            Met::Undecided => "not decidable: too few samples",
        };
        bench.say(&format!(
            "slo      {slo} at {}/s: {words}\n",
            show_count(rate.rate.unwrap_or(0))
        ))?;
        worst = match (worst, met) {
            (Met::No, _) | (_, Met::No) => Met::No,
            (Met::Undecided, _) | (_, Met::Undecided) => Met::Undecided,
            _ => Met::Yes,
        };
    }
    Ok(match (exit, worst) {
        (Exit::Interrupted, _) => Exit::Interrupted,
        (_, Met::No) => Exit::Missed,
        (_, Met::Undecided) => Exit::Undecided,
        (exit, Met::Yes) => exit,
    })
}

//! `lockstep hiccup`: the platform's pauses, as spinning threads see them.

use std::fmt::Write as _;
use std::time::Duration;

use lockstep_perf::args::quantity::{duration, span};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::cpu_list;
use lockstep_perf::machine::floor::{Floor, Watch};
use lockstep_perf::machine::realtime::Realtime;
use lockstep_perf::measure::harness::watch_together;
use lockstep_perf::report::result::FloorRecord;
use lockstep_perf::report::text::{Table, wrap};

use super::Global;
use super::bench::{Bench, is_interrupted};
use super::beside::Beside;
use super::flags::ResultFlags;

/// Arguments of `lockstep hiccup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lockstep hiccup --duration 30s\n  \
                        lockstep hiccup --cpus 2-5 --one-by-one --stop-above 1ms\n  \
                        lockstep hiccup --with 'dd if=/dev/zero of=/dev/null'\n\n\
                        Exit codes: 0 done · 2 bad arguments · 4 --stop-above was exceeded · 6 a CPU may not be used · 130 interrupted")]
pub(crate) struct Args {
    /// CPUs to watch, as taskset; all that may be used
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// For how long
    #[arg(long, default_value = "10s", value_parser = span, value_name = "DUR")]
    duration: Duration,
    /// Two looks at the clock further apart are a gap
    #[arg(long, default_value = "500ns", value_parser = duration, value_name = "DUR")]
    threshold: Duration,
    /// Ask the kernel for the cause of gaps this long
    #[arg(long, default_value = "5us", value_parser = duration, value_name = "DUR")]
    attribute_above: Duration,
    /// One CPU after the other instead of all together
    #[arg(long)]
    one_by_one: bool,
    /// End at the first gap this long, with exit code 4
    #[arg(long, value_parser = duration, value_name = "DUR")]
    stop_above: Option<Duration>,
    /// Watch from before the tasks of others: none | fifo:PRIO | rr:PRIO
    #[arg(long, default_value = "none", value_name = "CLASS")]
    rt: Realtime,
    /// Run this command beside it, by sh, for as long as it watches: what does it do to others?
    #[arg(long, value_name = "COMMAND")]
    with: Option<String>,
    #[command(flatten)]
    result: ResultFlags,
}

/// Watches and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let bench = Bench::new(global);
    args.result.check()?;
    let cpus = cpus(args.cpus.as_deref(), "--cpus", &bench)?;
    args.rt.take()?;
    let watch = Watch {
        duration: args.duration,
        threshold: args.threshold,
        attribute_above: args.attribute_above,
        stop_above: args.stop_above,
    };
    let beside = args.with.as_deref().map(Beside::start).transpose()?;
    let mut floors = Vec::new();
    if args.one_by_one {
        for cpu in &cpus {
            if !is_interrupted() {
                floors.extend(watch_together(&bench.clock, &[*cpu], watch)?);
            }
        }
    } else {
        floors = watch_together(&bench.clock, &cpus, watch)?;
    }
    let mut document = bench.document("hiccup", &args.result.label);
    if let Some(beside) = beside {
        let told = beside.end();
        bench.say(&format!("with      {told}\n"))?;
        document.config.insert("with".to_owned(), told.into());
    }
    for floor in &floors {
        document.floor.push(FloorRecord::of("alone", floor)?);
    }
    document.interrupted = is_interrupted();
    bench.say(&text(&bench, &floors))?;
    if let Some(home) = bench.finish(&document, args.result.keep())? {
        args.result.show(&home)?;
        bench.say(&format!("saved     {}\n", home.display()))?;
    }
    Ok(if document.interrupted {
        Exit::Interrupted
    } else if floors.iter().any(|floor| floor.stopped) {
        Exit::Missed
    } else {
        Exit::Done
    })
}

/// The CPUs of a list that may be used, or all.
pub(crate) fn cpus(list: Option<&str>, flag: &str, bench: &Bench) -> Result<Vec<u32>, Refusal> {
    let allowed = &bench.machine.allowed;
    let Some(list) = list else {
        return Ok(allowed.clone());
    };
    let cpus = cpu_list::parse(list, allowed)
        .map_err(|bad| Refusal::usage(format!("{flag} {list:?}: {}", bad.reason), bad.hint))?;
    let isolated = bench.machine.isolated();
    match cpus
        .iter()
        .find(|cpu| !allowed.contains(cpu) && !isolated.contains(cpu))
    {
        None => Ok(cpus),
        Some(cpu) => Err(Refusal::environment(
            format!(
                "{flag} names CPU {cpu}: this process may use CPUs {}",
                cpu_list::show(allowed)
            ),
            "lockstep doctor shows the CPUs of this machine",
        )),
    }
}

/// The table of floors.
pub(crate) fn text(bench: &Bench, floors: &[Floor]) -> String {
    let units = bench.units();
    let mut table = Table::new("rrrrrrrrr");
    table.row([
        "cpu",
        "lost",
        "preempted",
        "irq+hv",
        "gaps>5us/s",
        "p50",
        "p99",
        "max",
        "arrivals p99 / p99.9",
    ]);
    for floor in floors {
        let gaps = &floor.lengths;
        let percent = |share: f64| format!("{:.2}%", share * 100.0);
        table.row([
            floor
                .cpu
                .map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()),
            percent(floor.lost()),
            percent(floor.preempted()),
            percent(floor.lost() - floor.preempted()),
            format!("{:.0}", floor.gaps_per_second_above(5_000)),
            units.show(gaps.value_at_percentile(50.0)),
            units.show(gaps.value_at_percentile(99.0)),
            units.show(gaps.max()),
            format!(
                "{} / {}",
                units.show(floor.arrival_wait_ns(99.0)),
                units.show(floor.arrival_wait_ns(99.9))
            ),
        ]);
    }
    let mut text = table.to_string();
    let worst = floors
        .iter()
        .map(|floor| floor.arrival_wait_ns(99.0))
        .max()
        .unwrap_or(0);
    let verdict = if worst > 10_000 {
        format!(
            "not a tail-latency machine: whatever runs here, an event waits {} at p99 for the platform alone",
            units.show(worst)
        )
    } else {
        format!(
            "the platform alone costs an event {} at p99",
            units.show(worst)
        )
    };
    let _ = writeln!(
        text,
        "{}",
        wrap(&format!("verdict   {verdict}"), 79, "          ")
    );
    text
}

//! `lockstep c2c`: what a message costs from each CPU to each other.

use std::fmt::Write as _;

use lockstep_perf::exit::Exit;
use lockstep_perf::machine::c2c::{self, Pair};
use lockstep_perf::report::result::PairRecord;
use lockstep_perf::report::text::Table;

use super::Global;
use super::bench::{Bench, is_interrupted};
use super::flags::ResultFlags;
use super::hiccup::cpus;

/// Arguments of `lockstep c2c`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep c2c\n  lockstep c2c --cpus 0-7 --samples 1000 --format json\n\n\
                        Exit codes: 0 done · 2 bad arguments · 6 a CPU may not be used · 130 interrupted"
)]
pub(crate) struct Args {
    /// CPUs, as taskset; all that may be used
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// Samples of each pair, 200 round trips each
    #[arg(long, default_value = "300", value_name = "N", value_parser = clap::value_parser!(u32).range(20..))]
    samples: u32,
    #[command(flatten)]
    result: ResultFlags,
}

/// Measures and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let bench = Bench::new(global);
    args.result.check()?;
    let cpus = cpus(args.cpus.as_deref(), "--cpus", &bench)?;
    let mut document = bench.document("c2c", &args.result.label);
    let mut pairs = Vec::new();
    for (index, &from) in cpus.iter().enumerate() {
        for &to in &cpus[index + 1..] {
            if is_interrupted() {
                document.interrupted = true;
                continue;
            }
            pairs.push(c2c::measure(&bench.clock, from, to, args.samples as usize)?);
        }
    }
    document.pairs = pairs.iter().map(|pair| record(&bench, pair)).collect();
    bench.say(&text(&document.pairs))?;
    if let Some(home) = bench.finish(&document, args.result.keep())? {
        args.result.show(&home)?;
        bench.say(&format!("saved     {}\n", home.display()))?;
    }
    Ok(if document.interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

fn record(bench: &Bench, pair: &Pair) -> PairRecord {
    let regimes = pair.regimes();
    PairRecord {
        from: pair.from,
        to: pair.to,
        distance: bench.machine.distance(pair.from, pair.to).name().to_owned(),
        p50_ns: pair.median_ns(),
        min_ns: pair.min_ns(),
        near_ns: regimes.map(|r| r.near_ns),
        far_ns: regimes.map(|r| r.far_ns),
        near_share: regimes.map(|r| r.near_share),
        skew_ns: pair.skew_ns,
        skew_bound_ns: pair.skew_bound_ns,
    }
}

/// The matrix, and what lies between the CPUs.
pub(crate) fn text(records: &[PairRecord]) -> String {
    let mut cpus: Vec<u32> = records.iter().flat_map(|r| [r.from, r.to]).collect();
    cpus.sort_unstable();
    cpus.dedup();
    if cpus.is_empty() {
        return "one CPU: there is nobody to send a message to\n".to_owned();
    }
    let mut table = Table::new(&"r".repeat(cpus.len() + 1));
    let mut head = vec!["one way, p50 ns".to_owned()];
    head.extend(cpus.iter().map(ToString::to_string));
    table.row(head);
    for &row in &cpus {
        let mut cells = vec![row.to_string()];
        for &column in &cpus {
            let (low, high) = (row.min(column), row.max(column));
            let found = records
                .iter()
                .find(|p| p.from.min(p.to) == low && p.from.max(p.to) == high);
            cells.push(found.map_or_else(|| "-".to_owned(), |pair| format!("{:.0}", pair.p50_ns)));
        }
        table.row(cells);
    }
    let mut text = table.to_string();
    let mut kinds: Vec<(&str, Vec<f64>)> = Vec::new();
    for record in records {
        match kinds.iter_mut().find(|(name, _)| *name == record.distance) {
            Some((_, values)) => values.push(record.p50_ns),
            None => kinds.push((&record.distance, vec![record.p50_ns])),
        }
    }
    for (name, values) in kinds {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "{name:<10} {} pair{}, {low:.0}-{high:.0} ns one way",
            values.len(),
            if values.len() == 1 { "" } else { "s" }
        );
    }
    for record in records {
        if let (Some(near), Some(far), Some(share)) =
            (record.near_ns, record.far_ns, record.near_share)
        {
            let _ = writeln!(
                text,
                "{}-{} has two regimes: near {near:.0} ns ({:.0}% of the samples), far {far:.0} ns",
                record.from,
                record.to,
                share * 100.0
            );
        }
    }
    text
}

//! What a tune says: the table of its candidates, and the file with its recommendation.

use std::fmt::Write as _;

use lockstep_perf::args::quantity::{Units, show_short, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::measure::ranking::Rank;
use lockstep_perf::measure::statistics::median;
use lockstep_perf::pipeline::full;
use lockstep_perf::report::result::CandidateRecord;
use lockstep_perf::report::store;
use lockstep_perf::report::text::Table;
use toml::Table as Toml;

use super::Args;
use super::candidate::Candidate;
use crate::verb::bench::Bench;

pub(super) fn order(rank: &str) -> usize {
    let ranks = [
        Rank::Recommended,
        Rank::Best,
        Rank::Equal,
        Rank::Worse,
        Rank::Failed,
    ];
    ranks
        .iter()
        .position(|known| known.name() == rank)
        .unwrap_or(ranks.len())
}

/// Rows of screened candidates that are shown; the result has all.
const SCREENED_SHOWN: usize = 6;

pub(super) fn table(args: &Args, candidates: &[CandidateRecord]) -> String {
    let mut table = Table::new("llllrrrrr");
    let last = if args.pipeline.topology == Shape::Full {
        "sync"
    } else {
        "batch"
    };
    table.row([
        "", "wait", "place", "ring", last, "p50", "p99", "p99.9", "cpu",
    ]);
    let show =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ns| Units::Auto.show(whole(ns)));
    let mut screened: Vec<&CandidateRecord> = candidates.iter().filter(|c| !c.confirmed).collect();
    screened.sort_by(|a, b| {
        a.p99
            .unwrap_or(f64::INFINITY)
            .total_cmp(&b.p99.unwrap_or(f64::INFINITY))
    });
    let hidden = screened.len().saturating_sub(SCREENED_SHOWN);
    let shown = candidates.iter().filter(|c| c.confirmed);
    for candidate in shown.chain(screened.into_iter().take(SCREENED_SHOWN)) {
        let config = |key: &str| candidate.config.get(key).cloned().unwrap_or_default();
        let place = config("place");
        let threads = place.split(',').count();
        let (p50, p99, p999) = if args.objective.latency.is_some() {
            (
                show(candidate.p50),
                show(candidate.p99),
                show(candidate.p999),
            )
        } else {
            let rate = median(&candidate.scores).map_or_else(
                || "-".to_owned(),
                |ns| lockstep_perf::args::quantity::show_rate(1e9 / ns),
            );
            (rate, "-".to_owned(), "-".to_owned())
        };
        table.row([
            candidate.rank.clone(),
            config("wait"),
            format!("{threads} thread{}", if threads == 1 { "" } else { "s" }),
            config("ring"),
            config(last),
            p50,
            p99,
            p999,
            format!("{:.2}", candidate.cpus),
        ]);
    }
    let mut text = table.to_string();
    if hidden > 0 {
        let _ = writeln!(text, "{hidden} more were screened out (in the result)");
    }
    text
}

pub(super) fn to_toml(
    args: &Args,
    bench: &Bench,
    candidate: &Candidate,
    why: &str,
) -> anyhow::Result<String> {
    let plan = &candidate.plan;
    let mut text = format!(
        "# Written by lockstep tune on {}, {}.\n# Objective {}: {why}.\n\
         topology = \"{}\"\nwait = \"{}\"\nplace = \"{}\"\nring = \"{}\"\nevent-size = \"{}\"\nclaim = \"{}\"\n",
        bench.machine.summary(),
        store::Moment::now().rfc3339(),
        args.objective.show(),
        args.pipeline.topology,
        candidate.wait,
        if plan.threads.is_empty() {
            "auto".to_owned()
        } else {
            plan.place()
        },
        show_short(candidate.ring as u64),
        args.pipeline.event_size,
        args.pipeline.claim,
    );
    if plan.batch > 0 {
        let _ = writeln!(text, "batch = \"{}\"", plan.batch);
    }
    if plan.memory.huge_pages {
        text.push_str("mem = \"thp\"\n");
    }
    if plan.memory.lock {
        text.push_str("mlock = true\n");
    }
    if plan.shape != Shape::Full {
        return Ok(text);
    }
    let _ = write!(
        text,
        "journal = \"{}\"\njournal-thread = \"{}\"\ngate = \"{}\"\n\n# The same by the engine's own names: lockstep run --config, or Config::read.\n[engine]\n",
        plan.log.mode_name(),
        plan.log.thread_name(),
        plan.log.gate_name()
    );
    let configuration = Toml::try_from(full::configuration(plan))?;
    for key in TUNED {
        let is_empty = |value: &toml::Value| value.as_array().is_some_and(Vec::is_empty);
        if let Some(value) = configuration.get(key).filter(|value| !is_empty(value)) {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    Ok(text)
}

/// What of the engine's configuration a tuned file says.
const TUNED: [&str; 12] = [
    "slots",
    "output_slots",
    "batch",
    "huge_pages",
    "lock_memory",
    "wait",
    "waits",
    "place",
    "pin",
    "journal",
    "journal_thread",
    "gate",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::{Global, Verb, parse};
    use lockstep_perf::args::plan::Plan;

    #[test]
    fn what_is_written_is_the_engines_configuration_and_the_flags() {
        let bench = Bench::new(&Global::silent());
        let line = "lockstep tune --ring 1Ki --wait park --insist --mem thp --mlock";
        let cli = parse(line.split(' ').map(std::ffi::OsString::from)).unwrap();
        let Some(Verb::Tune(args)) = cli.verb else {
            panic!("{cli:?}")
        };
        let wishes = args.pipeline.wishes(&bench.machine).unwrap();
        let candidate = Candidate {
            wait: "park".to_owned(),
            ring: wishes.ring,
            plan: Plan::resolve(&wishes, &bench.machine).unwrap(),
            runs: Vec::new(),
        };
        let text = to_toml(&args, &bench, &candidate, "a test").unwrap();
        let table: Toml = text.parse().unwrap();
        let engine: lockstep_engine::Config = table["engine"].clone().try_into().unwrap();
        assert_eq!(engine.slots, 1024);
        assert_eq!(engine.wait.to_string(), "park");
        assert_eq!(engine.place, candidate.plan.place());
        assert!(engine.huge_pages && engine.lock_memory);
        engine.checked().unwrap();
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tuned.toml");
        std::fs::write(&file, &text).unwrap();
        let line = ["lockstep", "tune", "--config"].map(std::ffi::OsString::from);
        let cli = parse(line.into_iter().chain([file.into_os_string()])).unwrap();
        let Some(Verb::Tune(again)) = cli.verb else {
            panic!("{cli:?}")
        };
        let again = again.pipeline.wishes(&bench.machine).unwrap();
        assert_eq!(again.memory, wishes.memory);
    }
}

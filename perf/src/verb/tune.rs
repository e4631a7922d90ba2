//! `lockstep tune`: tries wait strategies, placements, rings and batches on this machine and
//! recommends one, or says that it cannot tell.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lockstep_engine::{JournalMode, JournalThread};
use lockstep_perf::HarnessError;
use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::{Units, duration, rate, show_short, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::wish::{Log, Place};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::measure::arrivals::Random;
use lockstep_perf::measure::ranking::{Contender, Rank, rank};
use lockstep_perf::measure::statistics::median;
use lockstep_perf::pipeline::{full, latency, throughput};
use lockstep_perf::report::chart::tune_chart;
use lockstep_perf::report::result::{CandidateRecord, percentile};
use lockstep_perf::report::store;
use lockstep_perf::report::text::{Table, wrap};

use toml::Table as Toml;

use super::Global;
use super::bench::{Bench, clear_status, is_interrupted, refuse_debug_build};
use super::flags::{PipelineFlags, ResultFlags};
use super::latency::{acknowledged_line, check_room};

/// Candidates that are confirmed.
const FINALISTS: usize = 4;
/// Confirming runs of each.
const CONFIRMING_RUNS: usize = 5;
/// Screening runs shorter than this say nothing.
const SCREEN_MIN: Duration = Duration::from_millis(80);
/// What a run costs beside what it measures: threads, ring, drain.
const OVERHEAD: Duration = Duration::from_millis(30);

/// Arguments of `lockstep tune`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lockstep tune --objective p99@100k\n  \
                        lockstep tune --topology diamond --objective throughput --budget 1m\n  \
                        lockstep latency --config lockstep-tuned.toml --rate 500k\n  \
                        lockstep run exchange --config lockstep-tuned.toml --dir ./data ...\n\n\
                        The file has the flags, and below [engine] the same for the engine.\n\
                        Exit codes: 0 a recommendation was written · 2 bad arguments · 3 it cannot tell · 130 interrupted")]
pub(crate) struct Args {
    /// pN@RATE[,cpu<N] | throughput[,cpu<N]
    #[arg(long, default_value = "p99@100k", value_name = "GOAL")]
    objective: Objective,
    /// Limit the space: wait=spin|park,place=1|2,ring=16Ki,batch=64|256,sync=inline|worker (where
    /// the engine's syncs block)
    #[arg(long, value_name = "SPACE")]
    space: Option<Space>,
    /// How long it may take
    #[arg(long, default_value = "90s", value_parser = duration, value_name = "DUR")]
    budget: Duration,
    /// Where the recommendation is written
    #[arg(long, default_value = "lockstep-tuned.toml", value_name = "FILE")]
    write: PathBuf,
    /// List the candidates and measure nothing
    #[arg(long)]
    list: bool,
    /// Of the random order
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
    #[command(flatten)]
    pipeline: PipelineFlags,
    #[command(flatten)]
    result: ResultFlags,
}

/// What is to become small.
#[derive(Debug, Clone, PartialEq)]
struct Objective {
    /// A percentile at a rate; none: throughput.
    latency: Option<(f64, u64)>,
    /// CPUs that may be used.
    cpus_below: Option<f64>,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no objective: p99@500k, p50@1M,cpu<2 or throughput");
        let mut parts = text.split(',').map(str::trim);
        let goal = parts.next().ok_or_else(bad)?;
        let latency = if goal == "throughput" {
            None
        } else {
            let (name, at) = goal.split_once('@').ok_or_else(bad)?;
            let percentile: f64 = name
                .strip_prefix('p')
                .and_then(|n| n.parse().ok())
                .ok_or_else(bad)?;
            let per_second = rate(at)?;
            if !(percentile > 0.0 && percentile < 100.0) || per_second == 0 {
                return Err(bad());
            }
            Some((percentile, per_second))
        };
        let mut cpus_below = None;
        for limit in parts {
            let number = limit
                .strip_prefix("cpu<")
                .and_then(|n| n.parse::<f64>().ok());
            cpus_below = Some(number.ok_or_else(bad)?);
        }
        Ok(Self {
            latency,
            cpus_below,
        })
    }
}

/// What is tried.
#[derive(Debug, Clone, Default, PartialEq)]
struct Space {
    waits: Vec<String>,
    places: Vec<usize>,
    rings: Vec<usize>,
    batches: Vec<Option<usize>>,
    syncs: Vec<JournalThread>,
}

impl Space {
    /// All that is worth trying for these stages. The engine chooses its batches, unless they
    /// are named; where its syncs block is tried.
    fn whole(wishes: &Wishes) -> Self {
        let stages = wishes.shape.stages();
        let is_full = wishes.shape == Shape::Full;
        let has_syncs = is_full && wishes.log.mode != JournalMode::None;
        let waits = ["spin", "spin-pause", "yield:100", "backoff", "park"];
        let mut places = vec![1, 2, stages];
        places.retain(|threads| *threads <= stages);
        places.sort_unstable();
        places.dedup();
        Self {
            waits: waits.map(str::to_owned).to_vec(),
            places,
            rings: vec![1 << 10, 1 << 14, 1 << 16],
            batches: if is_full {
                vec![wishes.batch]
            } else {
                vec![Some(16), Some(64), Some(256)]
            },
            syncs: if has_syncs {
                vec![JournalThread::Inline, JournalThread::Worker]
            } else {
                vec![wishes.log.thread]
            },
        }
    }

    /// What is named here, and what is not from another.
    fn or(self, other: Self) -> Self {
        fn named<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
            if own.is_empty() { other } else { own }
        }
        Self {
            waits: named(self.waits, other.waits),
            places: named(self.places, other.places),
            rings: named(self.rings, other.rings),
            batches: named(self.batches, other.batches),
            syncs: named(self.syncs, other.syncs),
        }
    }
}

impl FromStr for Space {
    type Err = String;

    /// What is not named keeps its own values: an empty list stands for them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut space = Self::default();
        for part in text.split(',') {
            let (key, values) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: as in wait=spin|park,ring=1Ki|64Ki"))?;
            let sizes = || {
                values
                    .split('|')
                    .map(super::flags::size)
                    .collect::<Result<Vec<_>, _>>()
            };
            match key.trim() {
                "wait" => {
                    for wait in values.split('|') {
                        wait.parse::<lockstep_perf::args::wish::Waits>()?;
                        space.waits.push(wait.to_owned());
                    }
                }
                "place" => space.places = sizes()?,
                "ring" => space.rings = sizes()?,
                "batch" => space.batches = sizes()?.into_iter().map(Some).collect(),
                "sync" => {
                    let each = values.split('|').map(Log::thread);
                    space.syncs = each.collect::<Result<_, _>>()?;
                }
                other => {
                    return Err(format!(
                        "{other:?} is not tuned: wait, place, ring, batch, sync"
                    ));
                }
            }
        }
        Ok(space)
    }
}

/// One configuration on its way.
#[derive(Debug, Clone)]
struct Candidate {
    wait: String,
    ring: usize,
    plan: Plan,
    runs: Vec<Outcome>,
}

/// What one run of a candidate came to.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    /// Lower is better; infinite where the rate was not kept.
    score: f64,
    p50: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    cpus: f64,
}

/// Screens, confirms, recommends.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    refuse_debug_build(args.pipeline.allow_debug || args.list)?;
    let bench = Bench::new(global);
    let wishes = args.pipeline.wishes(&bench.machine)?;
    let (mut candidates, impossible) = candidates(args, &bench, &wishes)?;
    bench.say(&format!(
        "space    {} candidates for {} on {} CPUs; {impossible} more are impossible here\n",
        candidates.len(),
        args.pipeline.topology,
        bench.machine.spinners_max()
    ))?;
    let fastest = args.objective.latency.map_or(20_000_000, |(_, rate)| rate);
    let seconds = args.budget.as_secs_f64() / 20.0;
    let plan = &candidates[0].plan;
    check_room(
        plan,
        whole(seconds * ratio(fastest, 1)),
        "a smaller --budget",
    )?;
    if args.list {
        for candidate in &candidates {
            bench.say(&format!("{}\n", candidate.show()))?;
        }
        return Ok(Exit::Done);
    }
    args.result.check()?;
    check_file(&args.write)?;
    let mut random = Random::new(args.seed);
    let confirming = args.budget.mul_f64(0.5);
    let mut screened = Vec::new();
    let mut budget = args.budget.saturating_sub(confirming) / 2;
    // Ends: each round keeps half, down to the finalists. The first two rounds share half of
    // the budget, so later ones measure each candidate longer.
    for _ in 0..2 {
        random.shuffle(&mut candidates);
        round(args, &bench, &mut candidates, budget, &mut random)?;
        candidates.sort_by(|a, b| a.median_score().total_cmp(&b.median_score()));
        let keep = (candidates.len() / 3).max(FINALISTS).min(candidates.len());
        screened.extend(candidates.split_off(keep));
        budget = budget.max(SCREEN_MIN);
    }
    screened.extend(candidates.split_off(FINALISTS.min(candidates.len())));
    let duration = confirming / u32::try_from((candidates.len() * CONFIRMING_RUNS).max(1))?;
    for candidate in &mut candidates {
        candidate.runs.clear();
    }
    for n in 1..=CONFIRMING_RUNS {
        random.shuffle(&mut candidates);
        for candidate in &mut candidates {
            if is_interrupted() {
                break;
            }
            let outcome = measure(
                args,
                &bench,
                &candidate.plan,
                duration.saturating_sub(OVERHEAD),
            )?;
            candidate.runs.push(outcome);
        }
        progress(&format!("confirming {n} of {CONFIRMING_RUNS}"));
    }
    clear_status();
    conclude(args, &bench, &candidates, &screened)
}

/// Whether the recommendation can be written, before it is looked for.
fn check_file(path: &Path) -> Result<(), Refusal> {
    let probe = path.with_extension("tmp");
    std::fs::write(&probe, "")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            Refusal::environment(
                format!("--write {}: cannot be written: {error}", path.display()),
                "--write another file",
            )
        })
}

fn progress(text: &str) {
    use std::io::{IsTerminal as _, Write as _};
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r{text}\x1b[K");
    }
}

/// All configurations that this machine can run, and how many it cannot.
fn candidates(
    args: &Args,
    bench: &Bench,
    wishes: &Wishes,
) -> anyhow::Result<(Vec<Candidate>, usize)> {
    let all = Space::whole(wishes);
    let Space {
        waits,
        places,
        rings,
        batches,
        syncs,
    } = args.space.clone().unwrap_or_default().or(all);
    let mut found = Vec::new();
    let mut impossible = 0;
    for wait in &waits {
        let rest = places.iter().flat_map(|&threads| {
            let rings = rings.iter().map(move |&ring| (threads, ring));
            rings.flat_map(|(threads, ring)| batches.iter().map(move |&b| (threads, ring, b)))
        });
        for (threads, ring, batch) in rest {
            for &sync in &syncs {
                let wishes = Wishes {
                    ring,
                    batch,
                    waits: wait.parse().map_err(anyhow::Error::msg)?,
                    place: threads_of(wishes.shape, threads),
                    log: Log {
                        thread: sync,
                        ..wishes.log.clone()
                    },
                    ..wishes.clone()
                };
                match Plan::resolve(&wishes, &bench.machine) {
                    Ok(plan) => found.push(Candidate {
                        wait: wait.clone(),
                        ring,
                        plan,
                        runs: Vec::new(),
                    }),
                    Err(_) => impossible += 1,
                }
            }
        }
    }
    if found.is_empty() {
        return Err(Refusal::environment(
            "nothing in this space can run on this machine",
            "lockstep tune --list shows what can; leave out --space",
        )
        .into());
    }
    Ok((found, impossible))
}

/// The stages in so many groups of neighbours.
fn threads_of(shape: Shape, threads: usize) -> Place {
    let stages = shape.stages();
    let threads = threads.clamp(1, stages);
    let group = |thread: usize| {
        (thread * stages / threads..(thread + 1) * stages / threads)
            .map(|index| shape.stage_name(index))
            .collect()
    };
    Place::Groups((0..threads).map(group).collect())
}

/// One run of each, in the order they are in.
fn round(
    args: &Args,
    bench: &Bench,
    candidates: &mut [Candidate],
    budget: Duration,
    random: &mut Random,
) -> anyhow::Result<()> {
    let all = candidates.len();
    let each = (budget / u32::try_from(all.max(1))?)
        .saturating_sub(OVERHEAD)
        .max(SCREEN_MIN);
    random.shuffle(candidates);
    for (done, candidate) in candidates.iter_mut().enumerate() {
        if is_interrupted() {
            return Ok(());
        }
        progress(&format!("screening {done} of {all}"));
        candidate
            .runs
            .push(measure(args, bench, &candidate.plan, each)?);
    }
    Ok(())
}

fn measure(args: &Args, bench: &Bench, plan: &Plan, duration: Duration) -> anyhow::Result<Outcome> {
    let Some((p, per_second)) = args.objective.latency else {
        let run = throughput::measure(&bench.clock, plan, duration, &bench.stop)?;
        let seconds = ratio(run.span_ns.max(1), 1_000_000_000);
        return Ok(Outcome {
            // Nanoseconds an event: lower is better, as for latencies.
            score: 1e9 / run.rate().max(1e-9),
            p50: None,
            p99: None,
            p999: None,
            cpus: run.cpu_s / seconds,
        });
    };
    let warm_up = duration.mul_f64(0.25);
    let harness = bench
        .harness("tune", usize::MAX)
        .rate(per_second)
        .warmup(warm_up)
        .duration(duration.saturating_sub(warm_up))
        .floor(Duration::ZERO)
        .drain(Duration::from_millis(300))
        .runs(1);
    let measured = match latency::measure(&harness, plan) {
        Ok(measured) => measured,
        // A candidate that cannot run has failed; the others go on.
        Err(HarnessError::Failed(_)) => return Ok(Outcome::failed()),
        Err(error) => return Err(error.into()),
    };
    let run = &measured.report.runs[0];
    let kept = run.unsent == 0 && run.lost == 0;
    let score = run.response.value_at_percentile(p);
    Ok(Outcome {
        score: if kept { ratio(score, 1) } else { f64::INFINITY },
        p50: percentile(&run.response, 50.0),
        p99: percentile(&run.response, 99.0),
        p999: percentile(&run.response, 99.9),
        cpus: run.cpu_s / duration.as_secs_f64(),
    })
}

impl Outcome {
    fn failed() -> Self {
        Self {
            score: f64::INFINITY,
            p50: None,
            p99: None,
            p999: None,
            cpus: 0.0,
        }
    }
}

impl Candidate {
    fn median_score(&self) -> f64 {
        let scores: Vec<f64> = self.runs.iter().map(|run| run.score).collect();
        median(&scores).unwrap_or(f64::INFINITY)
    }

    fn cpus(&self) -> f64 {
        let cpus: Vec<f64> = self.runs.iter().map(|run| run.cpus).collect();
        median(&cpus).unwrap_or(0.0)
    }

    fn config(&self) -> BTreeMap<String, String> {
        let mut config = BTreeMap::from([
            ("wait".to_owned(), self.wait.clone()),
            ("place".to_owned(), self.plan.place()),
            ("ring".to_owned(), show_short(self.ring as u64)),
        ]);
        if self.plan.shape == Shape::Full {
            config.insert("sync".to_owned(), self.plan.log.thread_name().to_owned());
        }
        if self.plan.batch > 0 {
            config.insert("batch".to_owned(), self.plan.batch.to_string());
        }
        config
    }

    fn show(&self) -> String {
        let parts: Vec<String> = self
            .config()
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        parts.join(" ")
    }

    fn record(&self, rank: &str, confirmed: bool) -> CandidateRecord {
        let middle = |pick: fn(&Outcome) -> Option<u64>| {
            let values: Vec<f64> = self
                .runs
                .iter()
                .filter_map(pick)
                .map(|ns| ratio(ns, 1))
                .collect();
            median(&values)
        };
        CandidateRecord {
            config: self.config(),
            confirmed,
            runs: self.runs.len(),
            // Infinity is no JSON: a rate that was not kept has no score.
            scores: self
                .runs
                .iter()
                .map(|run| run.score)
                .filter(|s| s.is_finite())
                .collect(),
            p50: middle(|run| run.p50),
            p99: middle(|run| run.p99),
            p999: middle(|run| run.p999),
            cpus: self.cpus(),
            rank: rank.to_owned(),
        }
    }
}

fn conclude(
    args: &Args,
    bench: &Bench,
    finalists: &[Candidate],
    screened: &[Candidate],
) -> anyhow::Result<Exit> {
    let limit = args.objective.cpus_below.unwrap_or(f64::INFINITY);
    let contenders: Vec<Contender> = finalists
        .iter()
        .map(|candidate| Contender {
            scores: if candidate.cpus() < limit {
                candidate.runs.iter().map(|run| run.score).collect()
            } else {
                Vec::new()
            },
            cpus: candidate.cpus(),
        })
        .collect();
    let ranking = rank(&contenders);
    let mut document = bench.document("tune", &args.result.label);
    document.interrupted = is_interrupted();
    document.config.insert(
        "topology".to_owned(),
        args.pipeline.topology.to_string().into(),
    );
    document
        .config
        .insert("conclusion".to_owned(), ranking.why.clone().into());
    document
        .config
        .insert("objective".to_owned(), args.objective.show().into());
    if let Some(candidate) = finalists.first() {
        let done = candidate.plan.acknowledged();
        document
            .config
            .insert("acknowledged".to_owned(), done.into());
        bench.say(&acknowledged_line(&candidate.plan, &mut document)?)?;
    }
    document.candidates = finalists
        .iter()
        .zip(&ranking.ranks)
        .map(|(candidate, rank)| match candidate.runs.len() {
            0 => candidate.record("not confirmed", false),
            _ => candidate.record(rank.name(), true),
        })
        .collect();
    document
        .candidates
        .sort_by_key(|candidate| order(&candidate.rank));
    document
        .candidates
        .extend(screened.iter().map(|c| c.record("screened out", false)));
    bench.say(&table(args, &document.candidates))?;
    bench.say(&format!(
        "{}\n",
        wrap(&format!("why      {}", ranking.why), 79, "         ")
    ))?;
    if document.candidates.iter().any(|c| !c.scores.is_empty()) {
        bench.say(&format!("\n{}", tune_chart(&document).to_text()))?;
    }
    if let Some(home) = bench.finish(&document, args.result.keep())? {
        bench.say(&format!("saved    {}/report.html\n", home.display()))?;
    }
    if document.interrupted {
        return Ok(Exit::Interrupted);
    }
    let Some(chosen) = ranking.recommended else {
        return Ok(Exit::Undecided);
    };
    store::write(
        &args.write,
        &to_toml(args, bench, &finalists[chosen], &ranking.why)?,
    )?;
    bench.say(&format!(
        "wrote    {0} (lockstep latency --config {0}, and the engine: lockstep run --config {0})\n",
        args.write.display()
    ))?;
    Ok(Exit::Done)
}

fn order(rank: &str) -> usize {
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

fn table(args: &Args, candidates: &[CandidateRecord]) -> String {
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

fn to_toml(args: &Args, bench: &Bench, candidate: &Candidate, why: &str) -> anyhow::Result<String> {
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
const TUNED: [&str; 10] = [
    "slots",
    "output_slots",
    "batch",
    "wait",
    "waits",
    "place",
    "pin",
    "journal",
    "journal_thread",
    "gate",
];

impl Objective {
    fn show(&self) -> String {
        let goal = match self.latency {
            Some((p, rate)) => format!("p{p}@{}", show_short(rate)),
            None => "throughput".to_owned(),
        };
        match self.cpus_below {
            Some(cpus) => format!("{goal},cpu<{cpus}"),
            None => goal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_and_spaces_are_read() {
        for text in ["p99@500k", "throughput", "p50@1M,cpu<2"] {
            assert_eq!(text.parse::<Objective>().unwrap().show(), text);
        }
        for text in ["", "p99", "p100@1k", "p99@0", "fast", "throughput,mem<2"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
        let space: Space = "wait=spin|park,ring=1Ki".parse().unwrap();
        assert_eq!(space.waits, ["spin", "park"]);
        assert_eq!(space.rings, [1024]);
        assert!("colour=red".parse::<Space>().is_err());
        let space: Space = "sync=inline|worker".parse().unwrap();
        assert_eq!(space.syncs, [JournalThread::Inline, JournalThread::Worker]);
    }

    #[test]
    fn what_is_written_is_the_engines_configuration_and_the_flags() {
        let bench = Bench::new(&Global {
            format: super::super::Format::Quiet,
            units: super::super::UnitsFlag::Auto,
            config: None,
        });
        let line = [
            "lockstep", "tune", "--ring", "1Ki", "--wait", "park", "--insist",
        ];
        let cli = super::super::parse(line.map(std::ffi::OsString::from)).unwrap();
        let Some(super::super::Verb::Tune(args)) = cli.verb else {
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
        engine.checked().unwrap();
    }
}

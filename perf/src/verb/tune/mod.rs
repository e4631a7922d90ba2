//! `lockstep tune`: tries wait strategies, placements, rings and batches on this machine and
//! recommends one, or says that it cannot tell.
//!
//! | file | question |
//! |---|---|
//! | `space` | what is looked for, and among what? |
//! | `candidate` | what is one configuration, and what came of it? |
//! | `notebook` | what was measured before it was interrupted? |
//! | `show` | what is said, and written? |

mod candidate;
mod notebook;
mod show;
mod space;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_perf::HarnessError;
use lockstep_perf::args::plan::{Plan, Wishes};
use lockstep_perf::args::quantity::{span, whole};
use lockstep_perf::args::shape::Shape;
use lockstep_perf::args::wish::{Log, Place};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::measure::arrivals::Random;
use lockstep_perf::measure::ranking::{Contender, rank};
use lockstep_perf::pipeline::{latency, throughput};
use lockstep_perf::report::chart::tune_chart;
use lockstep_perf::report::result::{Document, percentile};
use lockstep_perf::report::store;
use lockstep_perf::report::text::wrap;

use super::bench::{Bench, clear_status, is_interrupted, refuse_debug_build};
use super::flags::{PipelineFlags, ResultFlags};
use super::latency::{acknowledged_line, check_room};
use super::{Global, Verb};
use candidate::{Candidate, Outcome};
use notebook::{Head, Notebook};
use show::{order, table, to_toml};
use space::{Objective, Space};

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
                        lockstep run exchange --config lockstep-tuned.toml --dir ./data ...\n  \
                        lockstep tune --resume               goes on with the last one that was interrupted\n\n\
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
    #[arg(long, default_value = "90s", value_parser = span, value_name = "DUR")]
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
    /// Go on with a tune that was interrupted, as it was asked for: the directory that it named;
    /// without one, the newest of --out
    #[arg(long, num_args = 0..=1, default_missing_value = "last", value_name = "DIR")]
    resume: Option<String>,
    #[command(flatten)]
    pipeline: PipelineFlags,
    #[command(flatten)]
    result: ResultFlags,
}

/// Screens, confirms, recommends; or goes on where it was interrupted.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let Some(name) = &args.resume else {
        return Tune::new(args, global)?.run();
    };
    let notebook = Notebook::find(&args.result.out, name)?;
    let args = as_asked(&notebook)?;
    let mut tune = Tune::new(&args, global)?;
    notebook.check(&tune.head())?;
    tune.bench.say(&format!(
        "resumed  {}: {} outcomes are taken over\n",
        notebook.home().display(),
        notebook.ahead()
    ))?;
    tune.document.argv.clone_from(&notebook.head().argv);
    tune.notebook = Some(notebook);
    tune.run()
}

/// What goes on has its arguments already: others beside `--resume` would have no meaning.
pub(crate) fn resumed_as_it_was(tune: clap::Command) -> clap::Command {
    let others = tune.get_arguments().map(clap::Arg::get_id);
    let others = others.filter(|id| !matches!(id.as_str(), "resume" | "out"));
    let others: Vec<clap::Id> = others.cloned().collect();
    tune.mut_arg("resume", |resume| resume.conflicts_with_all(others))
}

/// The command line that a notebook was begun with.
fn as_asked(notebook: &Notebook) -> anyhow::Result<Args> {
    let argv = notebook.head().argv.iter().map(OsString::from);
    let line = std::iter::once(OsString::from("lockstep")).chain(argv);
    match super::parse(line)?.verb {
        Some(Verb::Tune(args)) if args.resume.is_none() => Ok(args),
        _ => Err(Refusal::environment(
            format!("{}: no tune was begun there", notebook.home().display()),
            "lockstep tune without --resume",
        )
        .into()),
    }
}

/// A tune under way.
struct Tune<'a> {
    args: &'a Args,
    bench: Bench,
    document: Document,
    /// Where outcomes go, if anything is kept.
    notebook: Option<Notebook>,
}

impl<'a> Tune<'a> {
    fn new(args: &'a Args, global: &Global) -> anyhow::Result<Self> {
        refuse_debug_build(args.pipeline.allow_debug || args.list)?;
        let bench = Bench::new(global);
        let document = bench.document("tune", &args.result.label);
        Ok(Self {
            args,
            bench,
            document,
            notebook: None,
        })
    }

    /// What has to be the same if this is to be gone on with.
    fn head(&self) -> Head {
        let (args, tool) = (self.args, &self.document.tool);
        let asked = (&args.objective, &args.space, args.budget, args.seed);
        Head {
            tune: notebook::VERSION,
            argv: self.document.argv.clone(),
            asked: format!("{asked:?} {:?}", args.pipeline),
            fingerprint: self.document.env.fingerprint.clone(),
            program: format!("{} {} {}", tool.version, tool.git, tool.dirty),
        }
    }

    /// What would be tried.
    fn list(&self, candidates: &[Candidate], impossible: usize) -> anyhow::Result<Exit> {
        for candidate in candidates {
            self.bench.say(&format!("{}\n", candidate.show()))?;
        }
        if self.bench.is_json() {
            let configs = candidates.iter().map(|candidate| candidate.plan.config());
            let list = serde_json::json!({
                "verb": "tune --list",
                "candidates": configs.collect::<Vec<_>>(),
                "impossible": impossible,
            });
            let text = serde_json::to_string_pretty(&list)? + "\n";
            io::stdout().write_all(text.as_bytes())?;
        }
        Ok(Exit::Done)
    }

    fn run(mut self) -> anyhow::Result<Exit> {
        let args = self.args;
        let wishes = args.pipeline.wishes(&self.bench.machine)?;
        let (mut candidates, impossible) = candidates(args, &self.bench, &wishes)?;
        self.bench.say(&format!(
            "space    {} candidates for {} on {} CPUs; {impossible} more are impossible here\n",
            candidates.len(),
            args.pipeline.topology,
            self.bench.machine.spinners_max()
        ))?;
        let fastest = args.objective.latency.map_or(20_000_000, |(_, rate)| rate);
        let seconds = args.budget.as_secs_f64() / 20.0;
        let most = whole(seconds * ratio(fastest, 1));
        check_room(&candidates[0].plan, most, "a smaller --budget")?;
        if args.list {
            return self.list(&candidates, impossible);
        }
        args.result.check()?;
        check_file(&args.write)?;
        let memory = args
            .pipeline
            .take_memory(&candidates[0].plan, &mut self.document)?;
        self.bench.say(&memory)?;
        if let (Some(out), None) = (args.result.keep(), &self.notebook) {
            let home = store::home(out, &self.document);
            self.notebook = Some(Notebook::new(home, self.head()));
        }
        if let Some(least) = longer_than(args.budget, candidates.len()) {
            self.bench.say(&format!(
                "note     --budget {:.1} s does not do: {} candidates take {:.1} s at least\n",
                args.budget.as_secs_f64(),
                candidates.len(),
                least.as_secs_f64()
            ))?;
        }
        let mut random = Random::new(args.seed);
        let screened = self.screen(&mut candidates, &mut random)?;
        self.confirm(&mut candidates, &mut random)?;
        clear_status();
        self.conclude(&candidates, &screened)
    }

    /// Half of the budget: all once, then the better third again. Leaves the finalists, and
    /// gives back the others.
    fn screen(
        &mut self,
        candidates: &mut Vec<Candidate>,
        random: &mut Random,
    ) -> anyhow::Result<Vec<Candidate>> {
        let mut screened = Vec::new();
        let budget = self.args.budget.mul_f64(0.25).max(SCREEN_MIN);
        // The second round has as much time for fewer: it measures each of them longer.
        for _ in 0..2 {
            random.shuffle(candidates);
            self.round(candidates, budget, random)?;
            candidates.sort_by(|a, b| a.median_score().total_cmp(&b.median_score()));
            let keep = (candidates.len() / 3).max(FINALISTS).min(candidates.len());
            screened.extend(candidates.split_off(keep));
        }
        screened.extend(candidates.split_off(FINALISTS.min(candidates.len())));
        Ok(screened)
    }

    /// The other half: each finalist as often as it takes to tell them apart, in turns.
    fn confirm(&mut self, finalists: &mut [Candidate], random: &mut Random) -> anyhow::Result<()> {
        let runs = u32::try_from((finalists.len() * CONFIRMING_RUNS).max(1))?;
        let duration = (self.args.budget.mul_f64(0.5) / runs)
            .saturating_sub(OVERHEAD)
            .max(SCREEN_MIN);
        for candidate in &mut *finalists {
            candidate.runs.clear();
        }
        for n in 1..=CONFIRMING_RUNS {
            random.shuffle(finalists);
            for candidate in &mut *finalists {
                if is_interrupted() {
                    return Ok(());
                }
                self.run_once(candidate, duration)?;
            }
            progress(&format!("confirming {n} of {CONFIRMING_RUNS}"));
        }
        Ok(())
    }

    /// One run of each, in random order.
    fn round(
        &mut self,
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
            self.run_once(candidate, each)?;
        }
        Ok(())
    }

    /// Measures, or takes what was measured before. What an interruption cut short does not
    /// count.
    fn run_once(&mut self, candidate: &mut Candidate, duration: Duration) -> anyhow::Result<()> {
        let name = candidate.show();
        let known = self.notebook.as_mut().map(|notebook| notebook.take(&name));
        if let Some(outcome) = known.transpose()?.flatten() {
            candidate.runs.push(outcome);
            return Ok(());
        }
        let outcome = measure(self.args, &self.bench, &candidate.plan, duration)?;
        if is_interrupted() {
            return Ok(());
        }
        if let Some(notebook) = &mut self.notebook {
            notebook.note(&name, &outcome)?;
        }
        candidate.runs.push(outcome);
        Ok(())
    }

    /// Ranks, tells, keeps and writes.
    fn conclude(mut self, finalists: &[Candidate], screened: &[Candidate]) -> anyhow::Result<Exit> {
        let args = self.args;
        let limit = args.objective.cpus_below.unwrap_or(f64::INFINITY);
        let ranking = rank(&contenders(finalists, limit));
        self.document.interrupted = is_interrupted();
        for (key, value) in [
            ("topology", args.pipeline.topology.to_string()),
            ("conclusion", ranking.why.clone()),
            ("objective", args.objective.show()),
        ] {
            self.document.config.insert(key.to_owned(), value.into());
        }
        if let Some(candidate) = finalists.first() {
            let done = candidate.plan.acknowledged();
            let config = &mut self.document.config;
            config.insert("acknowledged".to_owned(), done.into());
            let line = acknowledged_line(&candidate.plan, &mut self.document)?;
            self.bench.say(&line)?;
        }
        let ranked = finalists.iter().zip(&ranking.ranks);
        let mut records: Vec<_> = ranked
            .map(|(candidate, rank)| match candidate.runs.len() {
                0 => candidate.record("not confirmed", false),
                _ => candidate.record(rank.name(), true),
            })
            .collect();
        records.sort_by_key(|candidate| order(&candidate.rank));
        records.extend(screened.iter().map(|c| c.record("screened out", false)));
        self.document.candidates = records;
        self.bench.say(&table(args, &self.document.candidates))?;
        let why = wrap(&format!("why      {}", ranking.why), 79, "         ");
        self.bench.say(&format!("{why}\n"))?;
        if self
            .document
            .candidates
            .iter()
            .any(|c| !c.scores.is_empty())
        {
            let chart = tune_chart(&self.document).to_text();
            self.bench.say(&format!("\n{chart}"))?;
        }
        let text = match ranking.recommended {
            Some(chosen) => {
                let text = to_toml(args, &self.bench, &finalists[chosen], &ranking.why)?;
                Some(text)
            }
            None => None,
        };
        self.keep()?;
        match text {
            _ if self.document.interrupted => Ok(Exit::Interrupted),
            None => Ok(Exit::Undecided),
            Some(text) => {
                store::write(&args.write, &text)?;
                self.bench.say(&format!(
                    "wrote    {0} (lockstep latency --config {0}, and the engine: lockstep run --config {0})\n",
                    args.write.display()
                ))?;
                Ok(Exit::Done)
            }
        }
    }

    /// The result, and what is left to go on from.
    fn keep(&mut self) -> anyhow::Result<()> {
        self.bench.print(&self.document)?;
        let Some(notebook) = self.notebook.take() else {
            return Ok(());
        };
        let home = notebook.home().to_owned();
        self.bench.save(&self.document, &home)?;
        self.args.result.show(&home)?;
        self.bench
            .say(&format!("saved    {}/report.html\n", home.display()))?;
        if !self.document.interrupted {
            return notebook.close();
        }
        if notebook.is_written() {
            self.bench.say(&format!(
                "goes on  lockstep tune --resume {}\n",
                home.display()
            ))?;
        }
        Ok(())
    }
}

/// Who is over the limit of CPUs takes no part.
fn contenders(finalists: &[Candidate], limit: f64) -> Vec<Contender> {
    let each = finalists.iter().map(|candidate| Contender {
        scores: if candidate.cpus() < limit {
            candidate.runs.iter().map(|run| run.score).collect()
        } else {
            Vec::new()
        },
        cpus: candidate.cpus(),
    });
    each.collect()
}

/// What the shortest runs of so many candidates take, if that is more than there is.
fn longer_than(budget: Duration, candidates: usize) -> Option<Duration> {
    let better = (candidates / 3).max(FINALISTS).min(candidates);
    let confirming = FINALISTS.min(candidates) * CONFIRMING_RUNS;
    let runs = u32::try_from(candidates + better + confirming).ok()?;
    Some((SCREEN_MIN + OVERHEAD) * runs).filter(|least| *least > budget)
}

/// Whether the recommendation can be written, before it is looked for.
fn check_file(path: &Path) -> Result<(), Refusal> {
    let probe = path.with_file_name(format!(".lockstep-{}", std::process::id()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_does_not_do_is_told_what_would() {
        // 45 runs, then 15, then five of each of four: 80 at 110 ms.
        let least = Duration::from_millis(8_800);
        assert_eq!(longer_than(Duration::from_millis(1), 45), Some(least));
        assert_eq!(longer_than(least, 45), None);
    }
}

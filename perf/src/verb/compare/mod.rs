//! `lockstep compare`: are two results different, or is it this machine?

mod show;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::measure::compare::{
    Comparison, DISTURBED_ABOVE, Finding, MOVED_ABOVE, Metric, compare, compare_pairs, noise_of,
};
use lockstep_perf::measure::statistics::Spread;
use lockstep_perf::report::result::{Document, RunRecord};
use lockstep_perf::report::store;
use lockstep_perf::report::text::Table;
use serde::{Deserialize, Serialize};

use self::show::{row_name, several, show};
use super::bench::is_interrupted;
use super::flags::share;
use super::{Format, Global, paint};

/// Arguments of `lockstep compare`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep compare last~1 last\n  lockstep compare main new --metric p50,throughput --fail-on regression\n  \
                        lockstep compare --ab 'latency --rate 100k' 'latency --rate 100k --wait yield' --pairs 12\n  \
                        lockstep compare --ab 'throughput --topology spsc --work 500ns' 'throughput --topology spsc --work 550ns'\n  \
                        lockstep compare --aa 'throughput --topology spsc' --pairs 8\n\n\
                        Of kept results `worse` needs three things: medians beyond the threshold, ranges that do not overlap, \
                        a change beyond the A/A noise learnt by --aa. --ab runs pairs, A B, B A, and takes the ratio within each: \
                        `worse` needs an interval of the ratio that leaves out 1, and an estimate beyond the threshold. A pair in \
                        which a thread lost more than 5% of its time to other tasks, or the hypervisor took more, or a message \
                        between the CPUs took twice as long at one moment as at another, is run again. \
                        Runs of --ab and --aa are short unless told: --duration 400ms --warmup 100ms --floor 0.\n\n\
                        Exit codes: 0 no regression · 2 bad arguments · 3 nothing could be decided · 4 regression · \
                        6 not comparable · 130 interrupted"
)]
pub(crate) struct Args {
    /// Two results: files, directories, labels (all results of one), last, last~N
    #[arg(value_name = "RESULT", num_args = 0..=2)]
    results: Vec<String>,
    /// What to compare
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "p50,p99,p99.9,throughput",
        value_name = "LIST"
    )]
    metric: Vec<Metric>,
    /// A change below this share is not worth a word
    #[arg(long, default_value = "5%", value_parser = share, value_name = "SHARE")]
    threshold: f64,
    /// What exit code 4 is for
    #[arg(long, value_enum, default_value_t = FailOn::Regression)]
    fail_on: FailOn,
    /// Compare what is not comparable
    #[arg(long)]
    force: bool,
    /// Run two command lines in turns, A B B A, and compare them
    #[arg(long, num_args = 2, value_names = ["ARGS_A", "ARGS_B"], conflicts_with_all = ["results", "aa"])]
    ab: Vec<String>,
    /// Run one command line so often and learn by how much its results differ
    #[arg(long, value_name = "ARGS", conflicts_with = "results")]
    aa: Option<String>,
    /// Pairs of --ab that count, and of --aa
    #[arg(long, default_value = "12", value_name = "N", value_parser = clap::value_parser!(u16).range(3..=200))]
    pairs: u16,
    /// Another program for side A, of another build
    #[arg(long, value_name = "FILE", requires = "ab")]
    program_a: Option<PathBuf>,
    /// Another program for side B
    #[arg(long, value_name = "FILE", requires = "ab")]
    program_b: Option<PathBuf>,
    /// Write the comparison as a page too
    #[arg(long, value_name = "FILE", conflicts_with = "aa")]
    html: Option<PathBuf>,
    /// Where results and learnt noise are kept
    #[arg(long, default_value = store::DIRECTORY, value_name = "DIR")]
    out: PathBuf,
}

/// How long runs in turns last unless told: short ones meet one regime of the machine.
const SHORT: [(&str, &str); 3] = [
    ("LOCKSTEP_DURATION", "400ms"),
    ("LOCKSTEP_WARMUP", "100ms"),
    ("LOCKSTEP_FLOOR", "0"),
];

/// What is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Something got worse.
    Regression,
    /// Something changed.
    Any,
    /// Nothing.
    None,
}

/// One side: its name and its results.
#[derive(Debug, Default)]
struct Side {
    name: String,
    documents: Vec<Document>,
}

/// What has been learnt about a kind of run on a kind of machine.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noise {
    /// By kind of run and metric: the share by which halves of the same runs differ.
    kinds: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The answer, for programs.
#[derive(Debug, Serialize)]
struct Answer {
    base: String,
    new: String,
    comparisons: Vec<(Option<u64>, Comparison)>,
    differs: Vec<String>,
    regression: bool,
    /// Why pairs were left out.
    disturbed: Vec<String>,
}

/// Compares.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    for line in args.ab.iter().chain(&args.aa) {
        check_line(line)?;
    }
    if let Some(line) = &args.aa {
        return learn(args, global, line);
    }
    let mut turns = None;
    let (base, new) = match (args.ab.as_slice(), args.results.as_slice()) {
        ([a, b], _) => {
            let mut found = in_turns(args, [a, b])?;
            let sides = std::mem::take(&mut found.sides);
            turns = Some(found);
            let [base, new] = sides;
            (base, new)
        }
        (_, [base, new]) => (stored(args, base)?, stored(args, new)?),
        _ => {
            return Err(Refusal::usage(
                "compare needs two results, --ab with two command lines, or --aa with one",
                "lockstep compare last~1 last",
            )
            .into());
        }
    };
    let (Some(first), Some(second)) = (base.documents.first(), new.documents.first()) else {
        let turns = turns.unwrap_or_default();
        return Err(Refusal::new(
            Exit::Undecided,
            format!("no pair of runs was left alone: {}", turns.why()),
            "a quieter machine; lockstep hiccup shows who runs beside you",
        )
        .into());
    };
    let differs = differences(first, second);
    refuse_unlike(args, &base, &new)?;
    let comparisons = all_comparisons(args, &base, &new, turns.is_some())?;
    if comparisons.is_empty() {
        return Err(Refusal::environment(
            "the two sides have no figure in common",
            "results of one verb",
        )
        .into());
    }
    let has = |finding| comparisons.iter().any(|(_, c)| c.finding == finding);
    let regression = has(Finding::Worse);
    let fails = match args.fail_on {
        FailOn::Regression => regression,
        FailOn::Any => regression || has(Finding::Better),
        FailOn::None => false,
    };
    let exit = if fails { Exit::Missed } else { Exit::Done };
    let answer = Answer {
        base: base.name,
        new: new.name,
        comparisons,
        differs,
        regression,
        disturbed: turns.map(|turns| turns.disturbed).unwrap_or_default(),
    };
    if global.format == Format::Json {
        let text = serde_json::to_string_pretty(&answer)? + "\n";
        io::stdout().write_all(text.as_bytes())?;
    }
    let shown = show::Shown::of(&answer, &base.documents, &new.documents);
    if global.format == Format::Text {
        let mut text = format!("{}(exit {})\n", shown.text(), exit.code());
        if paint::is_wanted(global.color) {
            text = paint::verdicts(&text);
        }
        io::stdout().write_all(text.as_bytes())?;
    }
    if let Some(path) = &args.html {
        store::write(path, &shown.page(&base.documents, &new.documents)?)?;
    }
    Ok(exit)
}

fn stored(args: &Args, name: &str) -> anyhow::Result<Side> {
    let documents = store::find(&args.out, name)?
        .into_iter()
        .map(|(_, document)| document);
    Ok(Side {
        name: name.to_owned(),
        documents: documents.collect(),
    })
}

/// What running in turns came to.
#[derive(Debug, Default)]
struct Turns {
    sides: [Side; 2],
    /// Why pairs were left out.
    disturbed: Vec<String>,
}

impl Turns {
    fn why(&self) -> String {
        several(&self.disturbed)
    }
}

/// A B, B A, A B …: a drift of the machine meets both sides alike. A pair that was disturbed
/// is run again, up to twice as many pairs in all: whether it was is read from what the kernel
/// says about the threads, never from what they measured.
fn in_turns(args: &Args, lines: [&str; 2]) -> anyhow::Result<Turns> {
    let programs = [args.program_a.as_deref(), args.program_b.as_deref()];
    let mut turns = Turns::default();
    for (side, (letter, line)) in turns.sides.iter_mut().zip(["A", "B"].iter().zip(lines)) {
        side.name = format!("{letter}: {line}");
    }
    let pairs = usize::from(args.pairs);
    for pair in 0..2 * pairs {
        if turns.sides[0].documents.len() == pairs {
            break;
        }
        let mut both: [Option<Document>; 2] = [None, None];
        for index in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            if is_interrupted() {
                bail!(Refusal::new(
                    Exit::Interrupted,
                    "interrupted: a comparison needs all its runs",
                    ""
                ));
            }
            both[index] = Some(run_once(lines[index], programs[index])?);
        }
        let disturbed = both.iter().flatten().find_map(disturbed);
        let disturbed = disturbed.or_else(|| moved(both.iter().flatten()));
        let done = turns.sides[0].documents.len();
        match disturbed {
            Some(reason) => {
                note(&format!(
                    "pair {} of {pairs}: run again, {reason}",
                    done + 1
                ));
                turns.disturbed.push(reason);
            }
            None => {
                note(&format!("pair {} of {pairs}", done + 1));
                for (side, document) in turns.sides.iter_mut().zip(both) {
                    side.documents.extend(document);
                }
            }
        }
    }
    Ok(turns)
}

/// Whether the CPUs were near each other in one moment of a pair and far in another: what a
/// message between them took before and behind each run tells, and not what the runs measured.
fn moved<'a>(pair: impl Iterator<Item = &'a Document>) -> Option<String> {
    let runs = pair.flat_map(|document| &document.runs);
    let lines = runs.flat_map(|run| run.line_ns.iter().copied());
    let line = Spread::of(&lines.collect::<Vec<f64>>())?;
    (line.max > line.min * MOVED_ABOVE).then(|| {
        format!(
            "the CPUs moved: a message takes {:.0}ns, and then {:.0}ns",
            line.min, line.max
        )
    })
}

/// What disturbed a run, if something did.
fn disturbed(document: &Document) -> Option<String> {
    document.runs.iter().find_map(|run| {
        let percent = |share: f64| format!("{:.0}%", share * 100.0);
        if run.stolen > DISTURBED_ABOVE {
            return Some(format!("the hypervisor took {}", percent(run.stolen)));
        }
        let mut threads = run.preempted.iter();
        let (thread, share) = threads.find(|(_, share)| **share > DISTURBED_ABOVE)?;
        let share = percent(*share);
        Some(format!("{thread} lost {share} to other tasks"))
    })
}

fn check_line(line: &str) -> Result<(), Refusal> {
    match line.split_whitespace().next() {
        Some("latency" | "throughput") => Ok(()),
        _ => Err(Refusal::usage(
            format!("{line:?} is no command line that can be compared"),
            "latency ... or throughput ..., as after lockstep",
        )),
    }
}

/// Runs a command line of ours once and reads its result.
fn run_once(line: &str, program: Option<&Path>) -> anyhow::Result<Document> {
    let this = std::env::current_exe().context("this program cannot find itself")?;
    let program = program.unwrap_or(&this);
    let mut command = Command::new(program);
    command.args(line.split_whitespace());
    for (variable, value) in SHORT {
        // Flags of the command line win over these, and what the caller has set stays.
        if std::env::var_os(variable).is_none() {
            command.env(variable, value);
        }
    }
    let output = command
        .args(["--runs", "1", "--format", "json", "--no-save"])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.trim().is_empty() {
        let code = output.status.code().unwrap_or(-1);
        bail!("{line:?} ended with exit code {code} and without a result");
    }
    Document::from_json(&text).with_context(|| format!("{line:?} printed no result"))
}

fn note(text: &str) {
    // Nobody is hurt if stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What must be equal, or the figures mean different things.
fn refuse_unlike(args: &Args, base: &Side, new: &Side) -> Result<(), Refusal> {
    if args.force {
        return Ok(());
    }
    let all = base.documents.iter().chain(&new.documents);
    let first = &base.documents[0];
    for other in all.skip(1) {
        let unlike = |what: &str, a: &str, b: &str| {
            Err(Refusal::environment(
                format!("not comparable: {what} {a} vs {b}"),
                "--force prints anyway",
            ))
        };
        if first.verb != other.verb {
            return unlike("verb", &first.verb, &other.verb);
        }
        if first.env.fingerprint != other.env.fingerprint {
            for (what, a, b) in [
                ("CPU", &first.env.cpu, &other.env.cpu),
                ("kernel", &first.env.kernel, &other.env.kernel),
                ("CPUs", &first.env.cpus_allowed, &other.env.cpus_allowed),
                ("isolated CPUs", &first.env.isolated, &other.env.isolated),
            ] {
                if a != b {
                    return unlike(what, a, b);
                }
            }
            let none = "none".to_owned();
            let a = first.env.governor.as_ref().unwrap_or(&none);
            let b = other.env.governor.as_ref().unwrap_or(&none);
            return unlike("governor or clock", a, b);
        }
        for key in ["topology", "event_size", "arrivals"] {
            let (a, b) = (first.config.get(key), other.config.get(key));
            if a != b {
                let show =
                    |v: Option<&serde_json::Value>| v.map_or_else(String::new, ToString::to_string);
                return unlike(key, &show(a), &show(b));
            }
        }
        let rates = |d: &Document| d.summary.rates.iter().map(|r| r.rate).collect::<Vec<_>>();
        if rates(first) != rates(other) {
            return unlike(
                "rates",
                &format!("{:?}", rates(first)),
                &format!("{:?}", rates(other)),
            );
        }
    }
    Ok(())
}

/// What differs and may: the subject of the comparison.
fn differences(base: &Document, new: &Document) -> Vec<String> {
    let mut found = Vec::new();
    if base.tool.git != new.tool.git {
        found.push(format!("git {} -> {}", base.tool.git, new.tool.git));
    }
    for (key, value) in &new.config {
        let before = base.config.get(key);
        if before != Some(value) {
            let before = before.map_or_else(|| "-".to_owned(), ToString::to_string);
            found.push(format!("{key} {before} -> {value}"));
        }
    }
    found
}

fn values(documents: &[Document], rate: Option<u64>, metric: Metric) -> Vec<f64> {
    let runs = documents.iter().flat_map(|document| &document.runs);
    let of = |run: &RunRecord| {
        let hist = run.hist.get("response");
        let ns = match metric {
            Metric::Throughput => return Some(run.achieved_rate),
            Metric::P50 => hist?.p50,
            Metric::P90 => hist?.p90,
            Metric::P99 => hist?.p99,
            Metric::P999 => hist?.p999,
        };
        Some(lockstep_perf::machine::clock::ratio(ns?, 1))
    };
    runs.filter(|run| run.rate == rate).filter_map(of).collect()
}

fn all_comparisons(
    args: &Args,
    base: &Side,
    new: &Side,
    in_turns: bool,
) -> anyhow::Result<Vec<(Option<u64>, Comparison)>> {
    let noise = read_noise(&args.out, &base.documents[0])?;
    let rates = base.documents[0].summary.rates.iter().map(|r| r.rate);
    let of_rate = |rate: Option<u64>| args.metric.iter().map(move |&metric| (rate, metric));
    let rows: Vec<(Option<u64>, Metric)> = rates
        .flat_map(of_rate)
        // An open loop's throughput is its rate: it says nothing about the engine.
        .filter(|(rate, metric)| rate.is_some() != (*metric == Metric::Throughput))
        .collect();
    let compared = rows.iter().map(|&(rate, metric)| {
        let (a, b) = (
            values(&base.documents, rate, metric),
            values(&new.documents, rate, metric),
        );
        let comparison = if in_turns {
            // A run with too few samples for this metric leaves a hole, and pairs would shift.
            let is_whole = a.len() == base.documents.len() && b.len() == new.documents.len();
            let (a, b) = if is_whole {
                (a, b)
            } else {
                (Vec::new(), Vec::new())
            };
            compare_pairs(metric, &a, &b, args.threshold, rows.len())
        } else {
            let known = noise.kinds.get(&kind(&base.documents[0], rate));
            let noise = known.and_then(|known| known.get(metric.name())).copied();
            compare(metric, &a, &b, args.threshold, noise)
        };
        (rate, comparison)
    });
    Ok(compared.collect())
}

/// What noise is learnt for: the verb, the topology, the rate.
fn kind(document: &Document, rate: Option<u64>) -> String {
    let topology = document
        .config
        .get("topology")
        .map_or_else(String::new, ToString::to_string);
    let rate = rate.map_or_else(String::new, |rate| rate.to_string());
    format!("{} {} {rate}", document.verb, topology.trim_matches('"'))
}

fn noise_path(directory: &Path, document: &Document) -> PathBuf {
    directory
        .join("noise")
        .join(format!("{}.json", document.env.fingerprint))
}

fn read_noise(directory: &Path, document: &Document) -> anyhow::Result<Noise> {
    let path = noise_path(directory, document);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is damaged; remove it and learn anew with --aa",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noise::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// `--aa`: runs the same thing again and again and keeps by how much it differs.
fn learn(args: &Args, global: &Global, line: &str) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    for run in 1..=2 * args.pairs {
        if is_interrupted() {
            return Ok(Exit::Interrupted);
        }
        note(&format!("run {run} of {}", 2 * args.pairs));
        documents.push(run_once(line, None)?);
    }
    let first = &documents[0];
    let mut noise = read_noise(&args.out, first)?;
    let mut table = Table::new("lrrl");
    table.row(["", "median", "range", "A/A noise"]);
    for summary in &first.summary.rates {
        let mut learnt = BTreeMap::new();
        for &metric in &args.metric {
            if summary.rate.is_some() == (metric == Metric::Throughput) {
                continue;
            }
            let values = values(&documents, summary.rate, metric);
            let (Some(spread), Some(share)) = (Spread::of(&values), noise_of(&values)) else {
                continue;
            };
            learnt.insert(metric.name().to_owned(), share);
            table.row([
                row_name(summary.rate, metric),
                show(metric, spread.median),
                format!(
                    "[{}..{}]",
                    show(metric, spread.min),
                    show(metric, spread.max)
                ),
                format!("±{:.1}%", share * 100.0),
            ]);
        }
        noise.kinds.insert(kind(first, summary.rate), learnt);
    }
    let path = noise_path(&args.out, first);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let text = serde_json::to_string_pretty(&noise)? + "\n";
    store::write(&path, &text)?;
    match global.format {
        Format::Text => {
            let text = format!(
                "{table}learnt   {} (compare uses it on this kind of machine)\n",
                path.display()
            );
            io::stdout().write_all(text.as_bytes())?;
        }
        Format::Json => io::stdout().write_all(text.as_bytes())?,
        Format::Quiet => {}
    }
    Ok(Exit::Done)
}

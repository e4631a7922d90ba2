//! `lockstep plot`: results as a page, as SVG, or in the terminal.

use std::io::{self, Write as _};
use std::path::PathBuf;

use lockstep_perf::args::quantity::{duration, nanos};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::report::chart::{
    Chart, histogram_chart, percentile_chart, time_chart, tune_chart,
};
use lockstep_perf::report::html;
use lockstep_perf::report::result::Document;
use lockstep_perf::report::store;
use serde_json::json;

use super::{Format, Global};

/// Arguments of `lockstep plot`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep plot                          terminal, the last result\n  \
                        lockstep plot last -o last.html\n  lockstep plot main new -o both.svg\n  \
                        lockstep plot --kind time --ymax 1ms\n\n\
                        Exit codes: 0 done · 2 bad arguments · 6 no such result"
)]
pub(crate) struct Args {
    /// Files, directories, labels, last, last~N
    #[arg(default_value = "last", value_name = "RESULT")]
    results: Vec<String>,
    /// What to draw; unless told what the result is of
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// FILE.svg, FILE.html, or - for SVG on stdout; without it, the terminal
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Above the plot
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// The highest latency that is drawn
    #[arg(long, value_name = "DUR")]
    ymax: Option<String>,
    /// Where results are kept
    #[arg(long, default_value = store::DIRECTORY, value_name = "DIR")]
    out: PathBuf,
}

/// Kinds of plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Latency by percentile.
    Percentile,
    /// How many events took how long.
    Hist,
    /// Latency over time.
    Time,
    /// The trade-off of tune.
    Tune,
    /// What a message costs from each CPU to each other.
    C2c,
}

/// Draws.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    for name in &args.results {
        documents.extend(store::find(&args.out, name)?);
    }
    let documents: Vec<Document> = documents
        .into_iter()
        .map(|(_, document)| document)
        .collect();
    let wants_page = args
        .output
        .as_ref()
        .is_some_and(|path| path.extension().is_some_and(|e| e == "html"));
    let wants_all = args.kind.is_none_or(|kind| kind == Kind::C2c);
    if wants_page && wants_all && documents.len() == 1 {
        return write(args, global, &html::page(&documents[0])?);
    }
    let kind = args.kind.unwrap_or_else(|| kind_of(&documents));
    if kind == Kind::C2c {
        return matrices(args, global, &documents);
    }
    let chart = chart(args, kind, &documents)?;
    if global.format == Format::Json && args.output.is_none() {
        let text = serde_json::to_string_pretty(&chart)? + "\n";
        io::stdout().write_all(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    match &args.output {
        None => {
            if global.format == Format::Text {
                io::stdout().write_all(chart.to_text().as_bytes())?;
            }
            Ok(Exit::Done)
        }
        Some(path) if path.as_os_str() == "-" => {
            io::stdout().write_all(chart.to_svg().as_bytes())?;
            Ok(Exit::Done)
        }
        Some(_) if wants_page => write(args, global, &html::charts(&chart)),
        Some(path) if path.extension().is_some_and(|e| e == "svg") => {
            write(args, global, &chart.to_svg())
        }
        Some(path) => Err(Refusal::usage(
            format!("-o {}: neither .svg nor .html", path.display()),
            "-o plot.svg, -o plot.html, or -o - for SVG on stdout",
        )
        .into()),
    }
}

/// What the first of them can be drawn as.
fn kind_of(documents: &[Document]) -> Kind {
    match documents.first() {
        Some(document) if !document.candidates.is_empty() => Kind::Tune,
        Some(document) if !document.pairs.is_empty() => Kind::C2c,
        _ => Kind::Percentile,
    }
}

/// Matrices are tables: in the terminal here, and on a page with colours.
fn matrices(args: &Args, global: &Global, documents: &[Document]) -> anyhow::Result<Exit> {
    if args.output.is_some() || documents.iter().any(|document| document.pairs.is_empty()) {
        return Err(Refusal::usage(
            "--kind c2c draws one result of c2c, in the terminal or on a page",
            "lockstep plot RESULT --kind c2c, or -o matrix.html",
        )
        .into());
    }
    let text = match global.format {
        Format::Json => {
            let each = documents.iter().map(|document| {
                let label = &document.label;
                json!({"started": document.started, "label": label, "pairs": document.pairs})
            });
            let all = json!({"kind": "c2c", "results": each.collect::<Vec<_>>()});
            serde_json::to_string_pretty(&all)? + "\n"
        }
        Format::Text => documents
            .iter()
            .map(|document| super::c2c::text(&document.pairs))
            .collect(),
        Format::Quiet => String::new(),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Into the file that was asked for; programs are told that it is there.
fn write(args: &Args, global: &Global, text: &str) -> anyhow::Result<Exit> {
    if let Some(path) = &args.output {
        store::write(path, text)?;
        if global.format == Format::Json {
            writeln!(
                io::stdout(),
                "{}",
                json!({"wrote": path, "bytes": text.len()})
            )?;
        }
    }
    Ok(Exit::Done)
}

/// Whose a series is: the label, where only one carries it; else when it was measured.
fn owner(document: &Document, all: &[Document]) -> String {
    let alike = all.iter().filter(|other| other.label == document.label);
    let time = document.started.get(11..19).unwrap_or(&document.started);
    match (document.label.as_str(), alike.count()) {
        ("", _) => time.to_owned(),
        (label, 1) => label.to_owned(),
        (label, _) => format!("{label} {time}"),
    }
}

/// One chart of all documents: with several, each series says whose it is.
fn chart(args: &Args, kind: Kind, documents: &[Document]) -> anyhow::Result<Chart> {
    let mut all: Option<Chart> = None;
    for document in documents {
        let mut one = match kind {
            Kind::Hist => histogram_chart(document)?,
            Kind::Time => time_chart(document),
            Kind::Tune => tune_chart(document),
            Kind::Percentile | Kind::C2c => percentile_chart(document)?,
        };
        if documents.len() > 1 {
            let owner = owner(document, documents);
            for series in &mut one.series {
                series.name = format!("{owner}: {}", series.name);
            }
        }
        match &mut all {
            None => all = Some(one),
            Some(all) => {
                let taken = all.series.iter().map(|series| series.colour + 1).max();
                for series in &mut one.series {
                    series.colour += taken.unwrap_or(0);
                }
                all.series.extend(one.series);
                if one.x_ticks.len() > all.x_ticks.len() {
                    all.x_ticks = one.x_ticks;
                }
            }
        }
    }
    let mut chart =
        all.ok_or_else(|| Refusal::environment("no result", "lockstep latency makes one"))?;
    if chart.series.iter().all(|series| series.points.is_empty()) {
        return Err(Refusal::environment(
            "there is nothing of that kind in this result",
            "--kind percentile, hist or time for latency, tune for tune, c2c for c2c",
        )
        .into());
    }
    if let Some(title) = &args.title {
        chart.title.clone_from(title);
    }
    if let Some(ymax) = &args.ymax {
        let limit = duration(ymax)
            .map_err(|what| Refusal::usage(format!("--ymax: {what}"), "--ymax 1ms"))?;
        chart.y_max = Some(nanos(limit));
    }
    Ok(chart)
}

//! `lockstep export`: results as other tools read them.

use std::io::{self, Write as _};
use std::path::PathBuf;

use lockstep_perf::args::quantity::rate;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::report::export::{csv, hgrm, hlog};
use lockstep_perf::report::store;

use super::Global;

/// Arguments of `lockstep export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep export last --to hgrm > response.hgrm\n  \
                        lockstep export last --to hlog > series.hlog\n\n\
                        Exit codes: 0 done · 2 bad arguments · 6 no such result"
)]
pub(crate) struct Args {
    /// A file, a directory, a label, last, last~N
    #[arg(default_value = "last", value_name = "RESULT")]
    result: String,
    /// The format
    #[arg(long, value_enum)]
    to: To,
    /// hgrm: which histogram: response, service, lateness, or another that the result has
    #[arg(long, default_value = "response", value_name = "NAME")]
    tag: String,
    /// hgrm: which rate, if there are several
    #[arg(long, value_parser = rate, value_name = "RATE")]
    rate: Option<u64>,
    /// hgrm: a fourth column in the last row too, for readers that drop the maximum
    #[arg(long)]
    four_columns: bool,
    /// Where results are kept
    #[arg(long, default_value = store::DIRECTORY, value_name = "DIR")]
    out: PathBuf,
}

/// Formats of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Percentiles as Java's HdrHistogram prints them.
    Hgrm,
    /// Interval log, version 1.3.
    Hlog,
    /// One line a run, kind and percentile.
    Csv,
}

/// Prints.
pub(crate) fn run(args: &Args, _: &Global) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    for (path, document) in store::find(&args.out, &args.result)? {
        let text = match args.to {
            To::Hlog => hlog(&document)?,
            To::Csv => csv(&document)?,
            To::Hgrm => {
                let rates: Vec<Option<u64>> =
                    document.summary.rates.iter().map(|r| r.rate).collect();
                let chosen = args.rate.or_else(|| rates.first().copied().flatten());
                if !rates.contains(&chosen) {
                    let known: Vec<String> =
                        rates.iter().flatten().map(ToString::to_string).collect();
                    return Err(Refusal::usage(
                        format!(
                            "--rate {}: {} has no such rate",
                            chosen.unwrap_or(0),
                            path.display()
                        ),
                        known.join(", "),
                    )
                    .into());
                }
                let tags = document.kinds("", chosen);
                if !tags.contains(&args.tag) {
                    return Err(Refusal::usage(
                        format!(
                            "--tag {}: {} has no such histogram",
                            args.tag,
                            path.display()
                        ),
                        tags.join(", "),
                    )
                    .into());
                }
                hgrm(&document, &args.tag, chosen, args.four_columns)?
            }
        };
        stdout.write_all(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

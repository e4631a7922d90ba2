//! A result as others read it: `hgrm` and `hlog` of the HdrHistogram family, and CSV.

use std::fmt::Write as _;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::result::Document;
use crate::machine::clock::ratio;

/// Java's text of percentiles: value, percentile, count, 1/(1-percentile); the last row has
/// no fourth column, unless `four_columns` asks for `inf`, so that every reader takes it.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn hgrm(
    document: &Document,
    kind: &str,
    rate: Option<u64>,
    four_columns: bool,
) -> Result<String> {
    let histogram = document.merged(kind, rate)?;
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for point in histogram.iter_quantiles(5) {
        let quantile = point.quantile_iterated_to();
        let count = count_up_to(&histogram, point.value_iterated_to());
        let _ = write!(
            text,
            "{:>12.3} {quantile:>2.12} {count:>10}",
            ratio(point.value_iterated_to(), 1)
        );
        if quantile < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
        } else if four_columns {
            text.push_str("            inf");
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n#[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        histogram.mean(),
        histogram.stdev(),
        ratio(histogram.max(), 1),
        histogram.len(),
        histogram.buckets(),
        histogram.distinct_values()
    );
    Ok(text)
}

fn count_up_to(histogram: &Histogram<u64>, value: u64) -> u64 {
    histogram.count_between(0, value)
}

/// The interval log, version 1.3: one line a run and kind, tagged, in nanoseconds.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn hlog(document: &Document) -> Result<String> {
    let mut text = String::from("#[Histogram log format version 1.3]\n");
    let _ = writeln!(
        text,
        "#[lockstep {} {}, started {}]",
        document.tool.version, document.tool.git, document.started
    );
    text.push_str("#[StartTime: 0.000 (seconds since start)]\n#[MaxValueDivisor: 1.0]\n");
    text.push_str("\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n");
    let mut start = 0.0;
    for run in &document.runs {
        let length = ratio(run.received, 1) / run.achieved_rate.max(1.0);
        for (kind, hist) in &run.hist {
            let rate = run.rate.map_or_else(String::new, |rate| format!("@{rate}"));
            let _ = writeln!(
                text,
                "Tag={kind}{rate},{start:.3},{length:.3},{:.3},{}",
                ratio(hist.max, 1),
                hist.data
            );
        }
        start += length;
    }
    Ok(text)
}

/// One line for each run, kind and percentile.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn csv(document: &Document) -> Result<String> {
    let mut text = String::from("run,rate,kind,percentile,ns,count\n");
    for run in &document.runs {
        let rate = run.rate.map_or_else(String::new, |rate| rate.to_string());
        if run.hist.is_empty() {
            let _ = writeln!(
                text,
                "{},{rate},throughput,,{:.1},{}",
                run.n, run.achieved_rate, run.received
            );
        }
        for (kind, hist) in &run.hist {
            let histogram = hist.decode()?;
            for point in histogram.iter_quantiles(1) {
                let _ = writeln!(
                    text,
                    "{},{rate},{kind},{:.6},{},{}",
                    run.n,
                    point.quantile_iterated_to() * 100.0,
                    point.value_iterated_to(),
                    count_up_to(&histogram, point.value_iterated_to())
                );
            }
        }
    }
    Ok(text)
}

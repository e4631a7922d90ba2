//! One page with everything of a result in it: opens without a network, prints well.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::chart::{escape, percentile_chart, time_chart, tune_chart};
use super::latency::{part_name, show};
use super::result::{Document, Hist, PART, SPAN, percentile};
use crate::args::quantity::{Units, show_count, show_rate};
use crate::measure::validity::Grade;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}\
td,th{padding:.25em .6em;text-align:right;border-bottom:1px solid #8884;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child{text-align:left}.left td,.left th{text-align:left}code{background:#8882;padding:.1em .3em}\
.left td:last-child{overflow-wrap:anywhere}.left td:first-child{white-space:nowrap}.heat{width:auto;margin-bottom:1em}.heat td,.heat th{text-align:center;padding:.25em .5em}\
.clean{color:#12843f}.noisy{color:#b46a00}.invalid{color:#c22}svg{width:100%;height:auto}\
@media(prefers-color-scheme:dark){.clean{color:#3fbf70}.noisy{color:#e0962e}.invalid{color:#f66}}\
</style>";

/// The page.
///
/// # Errors
///
/// When a histogram is damaged.
pub fn page(document: &Document) -> Result<String> {
    let mut html = String::from(HEAD);
    let title = match document.label.as_str() {
        "" => format!("lockstep {}", document.verb),
        label => format!("lockstep {}: {label}", document.verb),
    };
    let _ = writeln!(html, "<title>{0}</title><h1>{0}</h1>", escape(&title));
    header(&mut html, document);
    if !document.runs.is_empty() && document.runs.iter().any(|run| !run.hist.is_empty()) {
        html.push_str(&percentile_chart(document)?.to_svg());
        latency_table(&mut html, document)?;
        html.push_str("<h2>Over time</h2>");
        html.push_str(&time_chart(document).to_svg());
        tail_table(&mut html, document);
    }
    if document.runs.iter().any(|run| run.hist.is_empty()) {
        throughput_table(&mut html, document);
    }
    if !document.candidates.is_empty() {
        html.push_str(&tune_chart(document).to_svg());
        candidate_table(&mut html, document);
    }
    if !document.pairs.is_empty() {
        pair_table(&mut html, document);
    }
    floor_table(&mut html, document);
    config_table(&mut html, document);
    environment_table(&mut html, document);
    html.push_str("</html>\n");
    Ok(html)
}

/// A page with one chart.
#[must_use]
pub fn charts(chart: &super::chart::Chart) -> String {
    let title = escape(&chart.title);
    format!(
        "{HEAD}<title>{title}</title><h1>lockstep plot</h1>{}</html>\n",
        chart.to_svg()
    )
}

/// A page with a table of comparisons, what is to be said of them, and curves.
#[must_use]
pub fn comparison(
    title: &str,
    columns: &[String],
    rows: &[[String; 5]],
    notes: &[(&str, String)],
    chart: Option<&super::chart::Chart>,
) -> String {
    let mut html = format!("{HEAD}<title>{0}</title><h1>{0}</h1>", escape(title));
    html.push_str("<table class=\"left\">");
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    head_row(&mut html, &columns);
    for cells in rows {
        row(&mut html, cells);
    }
    html.push_str("</table><ul>");
    for (name, text) in notes {
        let _ = write!(html, "<li><b>{name}</b> {}</li>", escape(text));
    }
    html.push_str("</ul>");
    html.push_str(&chart.map(super::chart::Chart::to_svg).unwrap_or_default());
    html.push_str("</html>\n");
    html
}

fn header(html: &mut String, document: &Document) {
    if document.interrupted {
        html.push_str("<p class=\"noisy\"><b>interrupted</b>: what was measured until then</p>");
    }
    if let Some(conclusion) = document.config.get("conclusion") {
        let text = conclusion.as_str().unwrap_or_default();
        let _ = writeln!(html, "<p><b>{}</b></p>", escape(text));
    } else {
        verdict(html, document);
    }
    let _ = writeln!(
        html,
        "<p>{}<br>{} · lockstep {} {}<br><code>lockstep {}</code></p>",
        escape(&document.env.summary),
        escape(&document.started),
        escape(&document.tool.version),
        escape(&document.tool.git),
        escape(&document.argv.join(" "))
    );
    if let Some(acknowledged) = document.config.get("acknowledged") {
        let on = document.config.get("journal_on").and_then(Value::as_str);
        let _ = writeln!(
            html,
            "<p>an event counts as done when it is: {}{}</p>",
            escape(acknowledged.as_str().unwrap_or_default()),
            on.map(|on| format!(" · {}", escape(on)))
                .unwrap_or_default()
        );
    }
}

fn verdict(html: &mut String, document: &Document) {
    if document.runs.is_empty() {
        return;
    }
    let verdict = &document.summary.verdict;
    let class = verdict.grade.name();
    let _ = write!(html, "<p class=\"{class}\"><b>{class}</b>");
    html.push_str(match verdict.grade {
        Grade::Clean => ": nothing was found that speaks against it</p>",
        Grade::Noisy => ": true, and as much the machine's as the engine's</p>",
        Grade::Invalid => ": the figures do not mean what they say</p>",
    });
    if !verdict.reasons.is_empty() {
        html.push_str("<ul>");
        for reason in &verdict.reasons {
            let _ = write!(html, "<li>{}</li>", escape(reason));
        }
        html.push_str("</ul>");
    }
    html.push('\n');
}

fn head(html: &mut String, cells: &[&str]) {
    html.push_str("<table>");
    head_row(html, cells);
}

fn head_row(html: &mut String, cells: &[&str]) {
    html.push_str("<tr>");
    for cell in cells {
        let _ = write!(html, "<th>{}</th>", escape(cell));
    }
    html.push_str("</tr>\n");
}

fn row(html: &mut String, cells: &[String]) {
    html.push_str("<tr>");
    for cell in cells {
        let _ = write!(html, "<td>{}</td>", escape(cell));
    }
    html.push_str("</tr>\n");
}

fn latency_table(html: &mut String, document: &Document) -> Result<()> {
    head(
        html,
        &["", "p50", "p90", "p99", "p99.9", "p99.99", "max", "count"],
    );
    for rate in &document.summary.rates {
        let mut kinds: Vec<(String, String)> = ["response", "service", "lateness"]
            .map(|kind| (kind.to_owned(), kind.to_owned()))
            .to_vec();
        for part in document.kinds(PART, rate.rate) {
            let name = format!("· {}", part_name(&part));
            kinds.insert(kinds.len() - 1, (part, name));
        }
        for work in document.kinds(SPAN, rate.rate) {
            let name = work[SPAN.len()..].to_owned();
            kinds.push((work, name));
        }
        for (kind, name) in kinds {
            let histogram = document.merged(&kind, rate.rate)?;
            let name = match rate.rate {
                Some(rate) => format!("{name} at {}/s", show_count(rate)),
                None => name,
            };
            let mut cells = vec![name];
            cells.extend(
                [50.0, 90.0, 99.0, 99.9, 99.99]
                    .map(|p| show(percentile(&histogram, p), Units::Auto)),
            );
            cells.extend([
                Units::Auto.show(histogram.max()),
                show_count(histogram.len()),
            ]);
            row(html, &cells);
        }
    }
    html.push_str(
        "</table><p>response: from the intended send time. service: from the real one, blind \
                   to what held the sender up. A dash: too few samples to say.</p>\n",
    );
    Ok(())
}

fn tail_table(html: &mut String, document: &Document) {
    html.push_str("<h2>What the slowest waited for</h2>");
    html.push_str("<table class=\"left\">");
    head_row(html, &["run", "above", "cause", "events"]);
    for run in &document.runs {
        for cause in &run.tail {
            let rate = run
                .rate
                .map_or_else(String::new, |r| format!(" at {}/s", show_count(r)));
            row(
                html,
                &[
                    format!("{}{rate}", run.n),
                    Units::Auto.show(run.tail_from_ns),
                    cause.cause.clone(),
                    show_count(cause.count),
                ],
            );
        }
    }
    html.push_str("</table>\n");
}

fn throughput_table(html: &mut String, document: &Document) {
    html.push_str("<h2>Throughput</h2>");
    head(html, &["run", "rate", "events", "CPU s", "stages"]);
    for run in document.runs.iter().filter(|run| run.hist.is_empty()) {
        let batches = run
            .batches
            .iter()
            .map(|(stage, batches)| format!("{stage} takes {:.1}", batches.mean));
        let work = run
            .work
            .iter()
            .map(|(name, work)| format!("{name} {:.0}%", work.share * 100.0));
        let batches: Vec<String> = batches.chain(work).collect();
        row(
            html,
            &[
                run.n.to_string(),
                show_rate(run.achieved_rate),
                show_count(run.received),
                format!("{:.2}", run.cpu_s),
                batches.join(", "),
            ],
        );
    }
    html.push_str("</table>\n");
}

fn candidate_table(html: &mut String, document: &Document) {
    html.push_str("<h2>Candidates</h2>");
    html.push_str("<table class=\"left\">");
    head_row(
        html,
        &[
            "rank",
            "configuration",
            "p50",
            "p99",
            "p99.9",
            "CPUs",
            "runs",
        ],
    );
    let show = |value: Option<f64>| {
        value.map_or_else(
            || "-".to_owned(),
            |ns| Units::Auto.show(crate::args::quantity::whole(ns)),
        )
    };
    for candidate in &document.candidates {
        let config: Vec<String> = candidate
            .config
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        row(
            html,
            &[
                candidate.rank.clone(),
                config.join(" "),
                show(candidate.p50),
                show(candidate.p99),
                show(candidate.p999),
                format!("{:.2}", candidate.cpus),
                candidate.runs.to_string(),
            ],
        );
    }
    html.push_str("</table>\n");
}

/// CPUs against CPUs: the darker, the longer a message takes.
fn heat_map(html: &mut String, document: &Document) {
    let mut cpus: Vec<u32> = document.pairs.iter().flat_map(|p| [p.from, p.to]).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let values = || document.pairs.iter().map(|pair| pair.p50_ns);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let between = |a: u32, b: u32| {
        let mut pairs = document.pairs.iter();
        pairs.find(|p| (p.from.min(p.to), p.from.max(p.to)) == (a.min(b), a.max(b)))
    };
    html.push_str("<table class=\"heat\"><tr><th>ns</th>");
    for cpu in &cpus {
        let _ = write!(html, "<th>{cpu}</th>");
    }
    html.push_str("</tr>\n");
    for &from in &cpus {
        let _ = write!(html, "<tr><th>{from}</th>");
        for &to in &cpus {
            let Some(pair) = between(from, to) else {
                html.push_str("<td>·</td>");
                continue;
            };
            let share = (pair.p50_ns - low) / (high - low).max(1.0);
            let _ = write!(
                html,
                "<td title=\"{from} to {to}, {}\" style=\"background:rgba(224,123,0,{:.2})\">{:.0}</td>",
                escape(&pair.distance),
                0.08 + 0.72 * share,
                pair.p50_ns
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

fn pair_table(html: &mut String, document: &Document) {
    html.push_str("<h2>Core to core, one way</h2>");
    heat_map(html, document);
    head(html, &["from", "to", "distance", "p50", "min", "regimes"]);
    for pair in &document.pairs {
        let regimes = match (pair.near_ns, pair.far_ns, pair.near_share) {
            (Some(near), Some(far), Some(share)) => {
                format!("near {near:.0}ns ({:.0}%), far {far:.0}ns", share * 100.0)
            }
            _ => "one".to_owned(),
        };
        row(
            html,
            &[
                pair.from.to_string(),
                pair.to.to_string(),
                pair.distance.clone(),
                format!("{:.0}ns", pair.p50_ns),
                format!("{:.0}ns", pair.min_ns),
                regimes,
            ],
        );
    }
    html.push_str("</table>\n");
}

fn floor_table(html: &mut String, document: &Document) {
    if document.floor.is_empty() {
        return;
    }
    html.push_str("<h2>The platform's floor</h2>");
    head(
        html,
        &[
            "when",
            "CPU",
            "lost",
            "preempted",
            "gaps>5us/s",
            "longest",
            "arrival p99",
            "p99.9",
        ],
    );
    for floor in &document.floor {
        let Hist { max, .. } = floor.gaps;
        row(
            html,
            &[
                floor.when.clone(),
                floor
                    .cpu
                    .map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()),
                format!("{:.2}%", floor.lost * 100.0),
                format!("{:.2}%", floor.preempted * 100.0),
                format!("{:.0}", floor.gaps_per_second),
                Units::Auto.show(max),
                Units::Auto.show(floor.arrival_p99_ns),
                Units::Auto.show(floor.arrival_p999_ns),
            ],
        );
    }
    html.push_str("</table>\n");
}

fn config_table(html: &mut String, document: &Document) {
    if document.config.is_empty() {
        return;
    }
    html.push_str("<h2>What was measured</h2><table class=\"left\">");
    for (key, value) in &document.config {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        row(html, &[key.clone(), value]);
    }
    html.push_str("</table>\n");
}

fn environment_table(html: &mut String, document: &Document) {
    html.push_str("<h2>Environment</h2><table class=\"left\">");
    for check in &document.env.checks {
        let mut text = check.evidence.clone();
        if !check.effect.is_empty() {
            let _ = write!(text, ": {}", check.effect);
        }
        if !check.fix.is_empty() {
            let _ = write!(text, " → {}", check.fix);
        }
        row(html, &[check.id.clone(), check.state.to_string(), text]);
    }
    let _ = writeln!(
        html,
        "</table><p>fingerprint {} · clock {} {:.3} MHz ±{:.2} ppm, a read costs {:.0} ns, recording an event {:.0} ns</p>",
        escape(&document.env.fingerprint),
        escape(&document.env.clocksource),
        document.env.tsc_hz / 1e6,
        document.env.tsc_ppm_err,
        document.env.clock_read_ns,
        document.env.record_ns
    );
}

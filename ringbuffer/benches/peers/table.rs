//! The rows as text, no wider than 120 columns.

use std::fmt::Write;

use crate::contenders::PEERS;
use crate::machine::Machine;
use crate::regime::Regime;
use crate::rounds::Results;
use crate::rows::{Row, rows};
use crate::statistics::median;

/// Everything that is printed at the end.
pub(crate) fn text(results: &Results, machine: &Machine, all: bool) -> String {
    let rows = rows(results);
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _infallible = write_all(&mut text, &rows, results, machine, all);
    text
}

fn write_all(
    out: &mut String,
    rows: &[Row<'_>],
    results: &Results,
    machine: &Machine,
    all: bool,
) -> std::fmt::Result {
    for (name, value) in machine.description() {
        writeln!(out, "{name:18} {value}")?;
    }
    writeln!(out, "{:18} {}", "bounced line", probes(results))?;
    writeln!(out, "{:18} {:.0} s\n", "took", results.took_s)?;
    main_table(out, rows)?;
    writeln!(out)?;
    winners(out, rows)?;
    writeln!(out)?;
    variants(out, rows, results, all)
}

fn main_table(out: &mut String, rows: &[Row<'_>]) -> std::fmt::Result {
    write!(out, "{:18} {:>4}{:>8}", "work", "unit", "ours")?;
    for short in ["disrupt.", "rtrb", "xb-chan", "xb-queue", "kanal", "mpsc"] {
        write!(out, "{short:>9}")?;
    }
    writeln!(
        out,
        "{:>7}{:>7}{:>7}{:>12}{:>3} regime",
        "×best", "limit", "×limit", "spread", "n"
    )?;
    for row in rows {
        main_row(out, row)?;
    }
    Ok(())
}

fn main_row(out: &mut String, row: &Row<'_>) -> std::fmt::Result {
    let unit = row.work.unit();
    let dash = || "-".to_owned();
    let short_unit = unit
        .to_string()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    let ours = row
        .ours
        .as_ref()
        .map_or_else(dash, |ours| unit.text(ours.figure.median));
    write!(out, "{:18} {short_unit:>4}{ours:>8}", row.work.title)?;
    for contender in PEERS {
        let peer = row.peers.iter().find(|peer| peer.contender == contender);
        let value = peer.map_or_else(dash, |peer| unit.text(peer.figure.median));
        write!(out, "{value:>9}")?;
    }
    let to_best = row
        .to_best
        .map_or_else(dash, |(_, ratio)| ratio.to_string());
    let limit = row
        .limit
        .as_ref()
        .map_or_else(dash, |limit| unit.text(limit.figure.median));
    let to_limit = row.to_limit.map_or_else(dash, |ratio| ratio.to_string());
    let spread = row.ours.as_ref().map_or_else(dash, |ours| {
        format!(
            "{}-{}",
            unit.text(ours.figure.least),
            unit.text(ours.figure.most)
        )
    });
    let runs = row.ours.as_ref().map_or(0, |ours| ours.figure.count);
    let regime = row
        .regime
        .map_or_else(|| "any".to_owned(), |regime| regime.to_string());
    writeln!(
        out,
        "{to_best:>7}{limit:>7}{to_limit:>7}{spread:>12}{runs:>3} {regime}"
    )
}

/// Which variant stands for whom.
fn winners(out: &mut String, rows: &[Row<'_>]) -> std::fmt::Result {
    writeln!(
        out,
        "M/s: million events a second, more is better. ns: p50, less is better. ×best, ×limit: above 1 we are better;\n\
         median over pairs of one round and regime, ~ where there is no such pair. Spread and n are ours.\n\
         -: cannot do this shape. The limit of a throughput is the least ring there can be: bigger batches beat it.\n\
         Each by its best variant:"
    )?;
    for row in rows {
        let entries = row.ours.iter().chain(&row.peers).chain(&row.limit);
        let list: Vec<String> = entries
            .map(|entry| format!("{} {}", entry.contender.name(), entry.variant))
            .collect();
        let regime = row
            .regime
            .map_or_else(|| "any".to_owned(), |regime| regime.to_string());
        writeln!(out, "{:18} {regime:6} {}", row.work.title, list.join("; "))?;
    }
    Ok(())
}

/// Every variant of ours, and of the limits; of the peers only if asked.
fn variants(out: &mut String, rows: &[Row<'_>], results: &Results, all: bool) -> std::fmt::Result {
    writeln!(
        out,
        "{:18} {:6} {:17} {:34} {:>8}{:>17}{:>3}{:>8}{:>8}",
        "work", "regime", "who", "variant", "median", "spread", "n", "p90", "p99"
    )?;
    for row in rows {
        let Some(measured) = results
            .works
            .iter()
            .find(|measured| measured.work.key == row.work.key)
        else {
            continue;
        };
        let unit = row.work.unit();
        for series in &measured.series {
            let is_peer = PEERS.contains(&series.contender);
            let Some(figure) = series
                .samples
                .figure(row.regime)
                .filter(|_| all || !is_peer)
            else {
                continue;
            };
            let regime = row
                .regime
                .map_or_else(|| "any".to_owned(), |regime| regime.to_string());
            let spread = format!("{}-{}", unit.text(figure.least), unit.text(figure.most));
            let (p90, p99) = match series.samples.tail(row.regime) {
                Some((p90, p99)) => (unit.text(p90), unit.text(p99)),
                None => (String::new(), String::new()),
            };
            writeln!(
                out,
                "{:18} {regime:6} {:17} {:34} {:>8}{spread:>17}{:>3}{p90:>8}{p99:>8}",
                row.work.title,
                series.contender.name(),
                series.variant,
                unit.text(figure.median),
                figure.count,
            )?;
        }
    }
    Ok(())
}

/// How often the CPUs were near and far, and how far that is.
fn probes(results: &Results) -> String {
    if results.probes_ns.is_empty() {
        return "one CPU: nothing to bounce between; limits and spinning variants are left out"
            .to_owned();
    }
    let of = |regime: Regime| {
        let of_it: Vec<f64> = results
            .probes_ns
            .iter()
            .copied()
            .filter(|ns| crate::regime::of(*ns) == regime)
            .collect();
        median(of_it.iter().copied()).map(|ns| {
            format!(
                "{regime} {ns:.0} ns there and back ({} probes)",
                of_it.len()
            )
        })
    };
    let found: Vec<String> = [Regime::Near, Regime::Far]
        .into_iter()
        .filter_map(of)
        .collect();
    found.join(", ")
}

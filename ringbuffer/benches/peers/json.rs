//! The rows for programs.

use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::event::Event;
use crate::machine::Machine;
use crate::rounds::Results;
use crate::rows::{Entry, Row, rows};
use crate::works::RING;

/// One object: the machine, how it was run, and a row for each work and regime.
pub(crate) fn document(results: &Results, machine: &Machine, args: &Args) -> Value {
    let described = machine.description().into_iter();
    let machine: Map<String, Value> = described
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({
        "machine": machine,
        "rounds": args.rounds,
        "seconds_a_run": args.seconds,
        "took_s": results.took_s,
        "event_bytes": size_of::<Event>(),
        "ring_slots": RING,
        "probes_ns": results.probes_ns,
        "rows": rows(results).iter().map(|row| self::row(row, results)).collect::<Vec<_>>(),
    })
}

fn row(row: &Row<'_>, results: &Results) -> Value {
    let ours = row.ours.as_ref();
    let of_peers = |value: fn(&Entry<'_>) -> Value| -> Map<String, Value> {
        let named = row.peers.iter();
        named
            .map(|peer| (peer.contender.name().to_owned(), value(peer)))
            .collect()
    };
    json!({
        "work": row.work.key,
        "unit": match row.work.unit() {
            crate::works::Unit::EventsPerSecond => "events/s",
            crate::works::Unit::MedianNs => "ns p50",
        },
        "regime": row.regime.map(|regime| regime.to_string()),
        "ours": ours.map(|ours| ours.figure.median),
        "peers": of_peers(|peer| peer.figure.median.into()),
        "limit": row.limit.as_ref().map(|limit| limit.figure.median),
        "ratio_to_best": row.to_best.map(|(_, ratio)| ratio.value),
        "best_peer": row.to_best.map(|(peer, _)| peer.name()),
        "ratio_to_limit": row.to_limit.map(|ratio| ratio.value),
        "pairs": row.to_best.map(|(_, ratio)| ratio.pairs),
        "rounds": ours.map(|ours| ours.figure.count),
        "spread": ours.map(|ours| [ours.figure.least, ours.figure.most]),
        "tail_p90_p99": ours.and_then(|ours| ours.tail).map(|(p90, p99)| [p90, p99]),
        "variant": ours.map(|ours| ours.variant),
        "peer_variants": of_peers(|peer| peer.variant.into()),
        "limit_is": row.limit.as_ref().map(|limit| limit.variant),
        "variants": variants(row, results),
    })
}

/// Everybody's every variant, in this regime.
fn variants(row: &Row<'_>, results: &Results) -> Vec<Value> {
    let measured = results
        .works
        .iter()
        .find(|measured| measured.work.key == row.work.key);
    let series = measured.into_iter().flat_map(|measured| &measured.series);
    series
        .filter_map(|series| {
            let figure = series.samples.figure(row.regime)?;
            Some(json!({
                "who": series.contender.name(),
                "variant": series.variant,
                "median": figure.median,
                "spread": [figure.least, figure.most],
                "n": figure.count,
                "tail_p90_p99": series.samples.tail(row.regime).map(|(p90, p99)| [p90, p99]),
            }))
        })
        .collect()
}

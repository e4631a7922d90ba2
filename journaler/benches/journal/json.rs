//! The rows for programs.

use serde_json::{Map, Value, json};

use crate::results::{Goal, Results, Row, Unit};
use crate::statistics::Reading;

/// One object: the machine, and a row for each case with every round.
pub(crate) fn document(results: &Results, description: &[(&'static str, String)]) -> Value {
    let machine: Map<String, Value> = description
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    json!({
        "machine": machine,
        "rows": results.rows.iter().map(row).collect::<Vec<_>>(),
        "notes": results.notes,
    })
}

fn row(row: &Row) -> Value {
    let (goal, limit) = match row.about.goal {
        Goal::None => (None, None),
        Goal::RatioAtMost(limit) => (Some("ratio at most"), Some(limit)),
        Goal::RatioAtLeast(limit) => (Some("ratio at least"), Some(limit)),
        Goal::AtMost(limit) => (Some("at most"), Some(limit)),
        Goal::AtLeast(limit) => (Some("at least"), Some(limit)),
    };
    let ratio = row.ratio();
    json!({
        "work": row.about.work,
        "case": row.about.case,
        "unit": match row.about.unit {
            Unit::Ns => "ns",
            Unit::EventsPerSecond => "events/s",
            Unit::BytesPerSecond => "bytes/s",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        },
        "against": row.about.against,
        "ours": Row::figure(&row.ours).map(|figure| figure.median),
        "other": Row::figure(&row.other).map(|figure| figure.median),
        "ratio": ratio.map(|figure| figure.median),
        "ratio_spread": ratio.map(|figure| [figure.least, figure.most]),
        "goal": goal,
        "goal_limit": limit,
        "is_met": row.is_met(),
        "ours_rounds": row.ours.iter().map(reading).collect::<Vec<_>>(),
        "other_rounds": row.other.iter().map(reading).collect::<Vec<_>>(),
    })
}

fn reading(reading: &Reading) -> Value {
    json!({ "value": reading.value, "p90_p99": reading.tail })
}

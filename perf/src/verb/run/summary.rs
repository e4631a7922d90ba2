//! What a load came to: for people, and as one object.

use hdrhistogram::Histogram;
use lockstep_exchange::load;
use lockstep_perf::args::quantity::{Units, counted, show_count, show_rate};
use lockstep_perf::report::result::percentile;
use lockstep_perf::report::text::Table;
use serde_json::{Map, Value, json};

use super::tally::{Standing, Tally};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it is loaded.
    Done,
    /// A signal: what was sent is done.
    Interrupted,
    /// A row that cannot be read, with `--on-bad stop`, or behind which no row can be found.
    BadRow(String),
    /// The engine, or the file of outputs, failed.
    Failed(String),
}

impl Ended {
    fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::BadRow(_) => "bad row",
            Self::Failed(_) => "failed",
        }
    }
}

/// Everything there is to say.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) load: String,
    pub(super) directory: Option<String>,
    pub(super) how: String,
    pub(super) ended: Ended,
    /// Events of the load that were in the log before.
    pub(super) behind: u64,
    pub(super) read: &'a load::Summary,
    pub(super) tally: Tally,
    pub(super) standing: Option<Standing>,
    pub(super) seconds: f64,
    pub(super) rate: Option<u64>,
    pub(super) latency: Histogram<u64>,
}

const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
];

impl Summary<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    fn events_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.tally.events as f64 / self.seconds
        } else {
            0.0
        }
    }

    pub(super) fn text(&self, units: Units) -> String {
        let directory = self.directory.as_deref().unwrap_or("nowhere");
        let mut text = format!(
            "load       {} into {directory}: {}, {}\n",
            self.load,
            self.ended.word(),
            self.how
        );
        if let Ended::BadRow(why) | Ended::Failed(why) = &self.ended {
            text.push_str(&format!("because    {why}\n"));
        }
        if self.behind > 0 {
            let behind = counted(show_count(self.behind), "event");
            text.push_str(&format!("went on    behind {behind} of the log\n"));
        }
        let rows = counted(show_count(self.read.rows), "row");
        let events = counted(show_count(self.read.events), "event");
        text.push_str(&format!("read       {rows}, {events}\n"));
        for (reason, count) in &self.read.skipped {
            text.push_str(&format!("skipped    {}: {reason}\n", show_count(*count)));
        }
        if self.read.bad > 0 {
            text.push_str(&format!(
                "bad rows   {}, the first:\n",
                show_count(self.read.bad)
            ));
            for bad in &self.read.first_bad {
                text.push_str(&format!("           {bad}\n"));
            }
        }
        let mut table = Table::new("lrl");
        self.tally.rows(&mut table);
        if let Some(standing) = &self.standing {
            standing.rows(&mut table);
        }
        text.push_str(&table.to_string());
        text.push_str(&self.speed(units));
        text
    }

    fn speed(&self, units: Units) -> String {
        let mut text = format!(
            "throughput {} over {:.2} s\n",
            show_rate(self.events_per_second()),
            self.seconds
        );
        let mut table = Table::new("lrrrrrrr");
        let mut names = vec!["latency".to_owned()];
        let mut values = vec![match self.rate {
            Some(_) => "response".to_owned(),
            None => "saturated".to_owned(),
        }];
        for (name, at) in PERCENTILES {
            names.push(name.to_owned());
            let value = percentile(&self.latency, at);
            values.push(value.map_or_else(|| "-".to_owned(), |ns| units.show(ns)));
        }
        names.extend(["max".to_owned(), "samples".to_owned()]);
        values.push(units.show(self.latency.max()));
        values.push(show_count(self.latency.len()));
        table.row(names);
        table.row(values);
        text.push_str(&table.to_string());
        text.push_str(&match self.rate {
            Some(rate) => format!(
                "           from the intended time of each event at {}/s to its first output\n",
                show_count(rate)
            ),
            None => "           as fast as it goes: from handing an event over, waits for room among it\n"
                .to_owned(),
        });
        text
    }

    pub(super) fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("verb".into(), "run".into());
        all.insert("load".into(), self.load.clone().into());
        all.insert("dir".into(), json!(self.directory));
        all.insert("ended".into(), self.ended.word().into());
        if let Ended::BadRow(why) | Ended::Failed(why) = &self.ended {
            all.insert("because".into(), why.clone().into());
        }
        all.insert("behind".into(), self.behind.into());
        let skipped: Map<String, Value> = self
            .read
            .skipped
            .iter()
            .map(|(reason, count)| (reason.to_string(), (*count).into()))
            .collect();
        let read = json!({
            "rows": self.read.rows,
            "events": self.read.events,
            "skipped": skipped,
            "bad": { "count": self.read.bad, "first": self.read.first_bad },
        });
        all.insert("read".into(), read);
        self.tally.json(&mut all);
        if let Some(standing) = &self.standing {
            standing.json(&mut all);
        }
        let throughput = json!({
            "seconds": self.seconds,
            "events_per_second": self.events_per_second().round(),
        });
        all.insert("throughput".into(), throughput);
        let mut latency = Map::new();
        let of = if self.rate.is_some() {
            "response"
        } else {
            "saturated"
        };
        latency.insert("of".into(), of.into());
        latency.insert("rate".into(), json!(self.rate));
        latency.insert("unit".into(), "ns".into());
        latency.insert("samples".into(), self.latency.len().into());
        for (name, at) in PERCENTILES {
            let name = name.replace('.', "");
            latency.insert(name, json!(percentile(&self.latency, at)));
        }
        latency.insert("max".into(), self.latency.max().into());
        all.insert("latency".into(), latency.into());
        Value::Object(all)
    }
}

//! What a drill found, for people and for programs.

use std::io::Write as _;

use lockstep_perf::args::quantity::counted;
use lockstep_perf::exit::Exit;
use serde::Serialize;

use super::bench::NODES;
use super::check::Checked;
use super::load::Told;
use super::{Args, Cut, What};
use crate::verb::{Format, Global};

/// What one drill found.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    drill: &'static str,
    /// Of a partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<&'static str>,
    /// `namespaces`, or `loopback`.
    network: &'static str,
    /// Why the nodes have no network of their own, where that was wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_note: Option<String>,
    #[serde(skip_serializing_if = "is_none")]
    delay_ms: f64,
    #[serde(skip_serializing_if = "is_nothing")]
    loss_percent: u8,
    runs: usize,
    interrupted: bool,
    nodes: u16,
    clients: u32,
    rate: u32,
    ack: &'static str,
    tick_ms: u64,
    requests: u64,
    answered: u64,
    refused: u64,
    late: u64,
    unanswered: u64,
    lost: u64,
    duplicated: u64,
    wrong: u64,
    reordered: u64,
    stale: u64,
    differing: u64,
    /// Runs in which a node came by a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_snapshot: Option<usize>,
    response_us_p50: f64,
    response_us_p99: f64,
    outage_ms_p50: f64,
    outage_ms_p99: f64,
    outage_ms_max: f64,
    whole_ms_p50: f64,
    whole_ms_max: f64,
    outages_ms: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks it that way")]
fn is_none(delay_ms: &f64) -> bool {
    *delay_ms == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks it that way")]
fn is_nothing(percent: &u8) -> bool {
    *percent == 0
}

/// Where a drill took place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) network: &'static str,
    pub(super) note: Option<String>,
}

/// The runs of a drill.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// From the cause to full service, in seconds since the drill began.
    pub(super) away: Vec<(f64, f64)>,
    /// How long that was, in milliseconds.
    pub(super) whole: Vec<f64>,
    pub(super) is_interrupted: bool,
    /// In how many of them a node came by a snapshot, where that is what they are for.
    pub(super) by_snapshot: Option<usize>,
}

impl Document {
    pub(super) fn of(
        args: &Args,
        place: Place,
        told: &Told,
        checked: Checked,
        mut runs: Runs,
    ) -> Self {
        let outages = runs.away.iter().map(|away| told.outage_ms(*away));
        let mut outages: Vec<f64> = outages.collect();
        let in_order = outages.clone();
        let mut responses = told.responses_us();
        let late_us = args.late.as_secs_f64() * 1e6;
        let late = responses.iter().filter(|response| **response > late_us);
        Self {
            drill: args.what.name(),
            cut: (args.what == What::Partition).then(|| args.cut.name()),
            network: place.network,
            network_note: place.note,
            delay_ms: args.delay.as_secs_f64() * 1e3,
            loss_percent: args.loss,
            runs: runs.away.len(),
            interrupted: runs.is_interrupted,
            nodes: NODES,
            clients: args.clients,
            rate: args.rate(),
            ack: lockstep_replicator::Policy::default().name(),
            tick_ms: args.tick_ms,
            requests: told.requests,
            answered: told.answered.len() as u64,
            refused: told.refused,
            late: late.count() as u64,
            unanswered: told.requests.saturating_sub(told.answered.len() as u64),
            lost: checked.lost,
            duplicated: checked.duplicated,
            wrong: checked.wrong,
            reordered: checked.reordered,
            stale: checked.stale,
            differing: checked.differing,
            by_snapshot: runs.by_snapshot,
            response_us_p50: percentile(&mut responses, 50.0),
            response_us_p99: percentile(&mut responses, 99.0),
            outage_ms_p50: percentile(&mut outages, 50.0),
            outage_ms_p99: percentile(&mut outages, 99.0),
            outage_ms_max: percentile(&mut outages, 100.0),
            whole_ms_p50: percentile(&mut runs.whole, 50.0),
            whole_ms_max: percentile(&mut runs.whole, 100.0),
            outages_ms: in_order,
            findings: checked.findings,
        }
    }

    /// How the drill ended.
    pub(super) fn exit(&self) -> Exit {
        let is_missed = self.by_snapshot.is_some_and(|times| times < self.runs);
        let faults = u64::from(is_missed)
            + self.lost
            + self.duplicated
            + self.wrong
            + self.reordered
            + self.stale;
        if self.differing > 0 {
            Exit::Corrupt
        } else if faults + self.unanswered > 0 {
            Exit::Missed
        } else if self.interrupted {
            Exit::Interrupted
        } else {
            Exit::Done
        }
    }

    fn text(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let cut = self.cut.map_or(String::new(), |cut| format!(" ({cut})"));
        writeln!(
            out,
            "drill     {}{cut}, {}, {}, ack {}, tick {} ms{}",
            self.drill,
            counted(self.runs, "run"),
            counted(self.nodes, "node"),
            self.ack,
            self.tick_ms,
            if self.interrupted {
                ", interrupted"
            } else {
                ""
            }
        )?;
        let mut network = self.network.to_owned();
        if self.delay_ms > 0.0 {
            network += &format!(", {} ms between nodes", self.delay_ms);
        }
        if self.loss_percent > 0 {
            network += &format!(", {} % of packets lost", self.loss_percent);
        }
        if let Some(note) = &self.network_note {
            network += &format!(" ({note})");
        }
        writeln!(out, "network   {network}")?;
        writeln!(
            out,
            "requests  {} at {}/s of {}: {} answered, {} late, {} unanswered",
            self.requests,
            self.rate,
            counted(self.clients, "client"),
            self.answered,
            self.late,
            self.unanswered
        )?;
        writeln!(
            out,
            "history   {} lost, {} duplicated, {} wrong, {} reordered, {} stale, {} logs differ",
            self.lost, self.duplicated, self.wrong, self.reordered, self.stale, self.differing
        )?;
        writeln!(
            out,
            "response  p50 {:.0} us, p99 {:.0} us, from when the order was due",
            self.response_us_p50, self.response_us_p99
        )?;
        if self.runs > 0 {
            writeln!(
                out,
                "outage    p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms: from the last answer before to the first after",
                self.outage_ms_p50, self.outage_ms_p99, self.outage_ms_max
            )?;
            writeln!(
                out,
                "whole     p50 {:.0} ms, max {:.0} ms until every node was there and level again",
                self.whole_ms_p50, self.whole_ms_max
            )?;
        }
        if let Some(by_snapshot) = self.by_snapshot {
            writeln!(out, "snapshot  {by_snapshot} times, a node came by one",)?;
        }
        for finding in &self.findings {
            writeln!(out, "found     {finding}")?;
        }
        Ok(())
    }
}

/// One drill of several, or why it did not take place, or came to no end.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Each {
    Done(Box<Document>),
    Left { drill: String, left_out: String },
    Failed { drill: String, failed: String },
}

impl Each {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Done(document) => document.exit(),
            Self::Left { .. } => Exit::Done,
            Self::Failed { .. } => Exit::Failed,
        }
    }

    /// Tells of it at once, where it is told for people.
    pub(super) fn say(&self, global: &Global) -> anyhow::Result<()> {
        if global.format != Format::Text {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        match self {
            Self::Done(document) => document.text(&mut out)?,
            Self::Left { drill, left_out } => {
                writeln!(out, "drill     {drill}: left out, {left_out}")?;
            }
            Self::Failed { drill, failed } => {
                writeln!(out, "drill     {drill}: failed, {failed}")?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// One object for a program: the drill, or all of them.
pub(super) fn say(what: What, all: &[Each], global: &Global) -> anyhow::Result<()> {
    if global.format != Format::Json {
        return Ok(());
    }
    let text = match (what, all) {
        (What::All, all) => {
            serde_json::to_string(&serde_json::json!({"drill": "all", "drills": all}))?
        }
        (_, [one]) => serde_json::to_string(one)?,
        (_, all) => serde_json::to_string(all)?,
    };
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

impl Cut {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
        }
    }
}

/// The value that so many percent do not exceed; 0 of nothing.
fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * percent / 100.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small whole number, at least 0"
    )]
    let at = (rank as usize).saturating_sub(1);
    values.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_there() {
        assert_eq!(percentile(&mut [], 50.0), 0.0);
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 50.0), 2.0);
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 99.0), 3.0);
        assert_eq!(percentile(&mut [5.0], 1.0), 5.0);
    }
}

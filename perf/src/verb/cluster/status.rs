//! `lockstep cluster status`: what every node says of itself, beside what its leader knows of it, and what
//! somebody should look at.
//!
//! All nodes are asked at once, so that one that hangs holds nobody up. The leader knows how far the others are;
//! a node that sees something else than the others shows.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lockstep_perf::args::quantity::{Units, duration, show_count};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::interrupt;
use lockstep_perf::report::text::{Table, wrap};
use lockstep_replicator::client::{ClientError, admin};
use serde_json::{Value, json};

use crate::verb::client::reach::{Reach, ReachFlags};
use crate::verb::{Format, Global};

/// Frames that a member may be behind and be level: a learner that is no further behind gets a vote.
const LEVEL_FRAMES: u64 = 512;

/// How long a node may take to answer, unless told: whoever looks has others to look at.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked at a node of whom the leader has heard nothing, before that counts.
const LOOKS: usize = 4;

/// Between two looks of `--level-within`.
const EVERY: Duration = Duration::from_millis(200);

/// Characters of a line of text.
const WIDTH: usize = 80;

/// Arguments of `lockstep cluster status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        lockstep cluster status --node node1.toml\n  \
        lockstep cluster status --node node1.toml --level-within 30s && restart-the-next-one\n  \
        lockstep cluster status --node node1.toml --format json\n\n\
        durable    its log ends there, on its disk\n\
        unapplied  events of these that are not yet in its state\n\
        behind     events that it has not acknowledged to the leader, and for how long\n\n\
        Exit codes: 0 somebody answered · 1 nobody did · 2 bad arguments · 4 not level within that time · \
        6 all refuse this client · 130 interrupted")]
pub(super) struct Args {
    #[command(flatten)]
    reach: ReachFlags,
    /// Ask until every member is there and level, for so long at most; exit 4 if it does not come to that
    #[arg(long, value_name = "DUR", value_parser = duration)]
    level_within: Option<Duration>,
}

/// What one node said.
struct Told {
    address: String,
    /// Its id, as the file says it or as it says itself.
    node: Option<u64>,
    answer: Result<Value, String>,
    /// It is there, and does not talk with this client.
    is_refusal: bool,
}

/// Asks, and shows; with `--level-within` until all is well.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let reach = args.reach.reach_within(0, PATIENCE)?;
    let _flag = interrupt::flag();
    let started = Instant::now();
    // Ends: without a time after one look, else with that time, or by a signal.
    let (cluster, exit) = loop {
        let cluster = look(&reach)?;
        let Some(within) = args.level_within else {
            break (cluster, Exit::Done);
        };
        if cluster.is_level() {
            break (cluster, Exit::Done);
        }
        if interrupt::is_set() {
            break (cluster, Exit::Interrupted);
        }
        if started.elapsed() >= within {
            break (cluster, Exit::Missed);
        }
        std::thread::park_timeout(EVERY);
    };
    show(&cluster, global)?;
    if cluster.answers().next().is_none() {
        // Who is refused by all has reached a cluster.
        let exit = match cluster.told.iter().all(|told| told.is_refusal) {
            true => Exit::Refused,
            false => Exit::Failed,
        };
        let what = "no node answered";
        let hint = "is one running, is this its clients' port, and may this client come?";
        return Err(Refusal::new(exit, what, hint).into());
    }
    Ok(exit)
}

/// In which term this node leads, once it does; looked for so long at most.
pub(super) fn leads_within(
    reach: &Reach,
    node: u64,
    within: Duration,
) -> anyhow::Result<Option<u64>> {
    let started = Instant::now();
    // Ends: when it leads, or with the time.
    loop {
        let cluster = look(reach)?;
        if let Some(leader) = cluster.leader().filter(|leader| leader["node"] == node) {
            return Ok(leader["term"].as_u64());
        }
        if started.elapsed() >= within {
            return Ok(None);
        }
        std::thread::park_timeout(EVERY / 4);
    }
}

/// Asks everybody; again where the leader has not heard of somebody lately, since it forgets that at each look
/// for its quorum, until the next heartbeat is answered.
fn look(reach: &Reach) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::of(ask(reach)?);
    for _ in 1..LOOKS {
        if cluster.unheard.is_empty() {
            break;
        }
        std::thread::park_timeout(EVERY / 4);
        let before = cluster.unheard;
        cluster = Cluster::of(ask(reach)?);
        cluster.unheard.retain(|node| before.contains(node));
    }
    Ok(cluster)
}

/// Every node says what it sees.
fn ask(reach: &Reach) -> anyhow::Result<Vec<Told>> {
    let one = |(address, node): (&String, &Option<u16>)| {
        let mut is_refusal = false;
        let answer = match admin(address, &reach.options, "status", false, reach.patience) {
            Ok((0, answer)) => serde_json::from_str(&answer)
                .with_context(|| format!("{address} answers something else"))
                .map_err(|error| format!("{error:#}")),
            Ok((code, answer)) => Err(format!("{answer} (code {code})")),
            Err(ClientError::NoAnswer { last, .. }) => Err(last),
            Err(ClientError::Refused { text, code, .. }) => {
                is_refusal = true;
                Err(format!("it refuses this client: {text} (code {code:#06x})"))
            }
            Err(error) => Err(error.to_string()),
        };
        let said = answer
            .as_ref()
            .ok()
            .and_then(|it: &Value| it["node"].as_u64());
        Told {
            address: address.clone(),
            node: said.or(node.map(u64::from)),
            answer,
            is_refusal,
        }
    };
    std::thread::scope(|scope| {
        let nodes = reach.addresses.iter().zip(&reach.ids);
        let asked: Vec<_> = nodes.map(|node| scope.spawn(move || one(node))).collect();
        let mut told = Vec::new();
        for thread in asked {
            let Ok(one) = thread.join() else {
                bail!("a thread that asked a node panicked");
            };
            told.push(one);
        }
        Ok(told)
    })
}

fn show(cluster: &Cluster, global: &Global) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&cluster.json())?)?,
        Format::Text => write!(out, "{}", cluster.text())?,
        Format::Quiet => {}
    }
    Ok(())
}

/// All that was said.
struct Cluster {
    told: Vec<Told>,
    /// Who answers here, and of whom the leader has heard nothing lately.
    unheard: BTreeSet<u64>,
}

impl Cluster {
    fn of(told: Vec<Told>) -> Self {
        let mut cluster = Self {
            told,
            unheard: BTreeSet::new(),
        };
        let nodes = cluster.answers().filter_map(|it| it["node"].as_u64());
        let is_unheard = |node: &u64| {
            cluster
                .as_led(*node)
                .is_some_and(|it| it["is_active"] == false)
        };
        cluster.unheard = nodes.filter(is_unheard).collect();
        cluster
    }

    fn answers(&self) -> impl Iterator<Item = &Value> {
        self.told
            .iter()
            .filter_map(|told| told.answer.as_ref().ok())
    }

    /// Who says that it leads: of several the one of the highest term.
    fn leader(&self) -> Option<&Value> {
        let leads = self.answers().filter(|it| it["role"] == "leader");
        leads.max_by_key(|it| it["term"].as_u64())
    }

    /// Of whom the rest is taken: the leader, else whoever is furthest.
    fn best(&self) -> Option<&Value> {
        let furthest = || self.answers().max_by_key(|it| it["term"].as_u64());
        self.leader().or_else(furthest)
    }

    /// What the leader knows of a node.
    fn as_led(&self, node: u64) -> Option<&Value> {
        let peers = self.leader()?["peers"].as_array()?;
        peers.iter().find(|peer| peer["node"] == node)
    }

    /// Everybody answers and follows one leader whose door is open, nobody is far behind, and nothing is to be
    /// looked at.
    fn is_level(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let last = leader["last_index"].as_u64().unwrap_or(u64::MAX);
        let is_close = |member: u64| {
            let peer = self.as_led(member);
            let at = peer.and_then(|peer| peer["acknowledged"].as_u64());
            at.is_some_and(|at| at + LEVEL_FRAMES >= last)
        };
        leader["is_open"] == true
            && self.members().iter().all(|member| is_close(*member))
            && self.alarms().is_empty()
    }

    fn members(&self) -> BTreeSet<u64> {
        let of = |key: &str| self.best().map_or(Vec::new(), |best| numbers(&best[key]));
        of("voters").into_iter().chain(of("learners")).collect()
    }

    /// It stands in the file, and is not, or not yet, of the cluster.
    fn is_stranger(&self, node: u64) -> bool {
        let members = self.members();
        !members.is_empty() && !members.contains(&node)
    }

    fn json(&self) -> Value {
        let nodes: Vec<Value> = self.told.iter().map(Told::json).collect();
        json!({
            "verb": "cluster status",
            "leader": self.leader().map(|leader| &leader["node"]),
            "term": self.best().map(|best| &best["term"]),
            "is_level": self.is_level(),
            "alarms": self.alarms(),
            "nodes": nodes,
        })
    }

    fn text(&self) -> String {
        let mut text = self.head();
        text.push_str(&self.table().to_string());
        for alarm in self.alarms() {
            text.push_str(&wrap(&format!("look at   {alarm}"), WIDTH, "          "));
            text.push('\n');
        }
        text
    }

    /// What holds for all of them.
    fn head(&self) -> String {
        let Some(best) = self.best() else {
            return String::new();
        };
        let mut text = format!(
            "cluster   {}, epoch {}, ack {}, rules version {}\n",
            words(&best["cluster"]),
            best["epoch"],
            words(&best["ack"]),
            best["version"]
        );
        text.push_str(&match self.leader() {
            Some(leader) => format!(
                "leader    node {}, term {}, committed {}, {} waiting for an answer\n",
                leader["node"],
                leader["term"],
                count(&leader["committed"]),
                count(&leader["waiting"])
            ),
            None => match best["leader"].as_u64() {
                Some(named) => format!(
                    "leader    node {named}, term {}, as others say\n",
                    best["term"]
                ),
                None => format!("leader    nobody, term {}\n", best["term"]),
            },
        });
        let lists = [("voters", &best["voters"]), ("learners", &best["learners"])];
        for (name, list) in lists {
            let all: Vec<String> = numbers(list).iter().map(u64::to_string).collect();
            if !all.is_empty() {
                text.push_str(&format!("{name:<10}{}\n", all.join(" ")));
            }
        }
        if best["gate"] != "none" {
            let held = waiting_frames(best["held_by_site"].as_u64().unwrap_or(0));
            text.push_str(&match best["gate"] == "sites" {
                true => format!("sites     commits wait for two of them; {held}\n"),
                false => "sites     commits wait for none, by an operator's word\n".to_owned(),
            });
        }
        text
    }

    fn table(&self) -> Table {
        let has_sites = self.told.iter().any(|told| !self.site(told).is_empty());
        let mut table = Table::new(if has_sites { "rlllrrl" } else { "rllrrl" });
        let line = |node: &str, site: &str, rest: [&str; 5]| {
            let [at, role, durable, applied, behind] = rest;
            let mut cells = vec![node.to_owned(), at.to_owned()];
            if has_sites {
                cells.push(site.to_owned());
            }
            cells.extend([role, durable, applied, behind].map(str::to_owned));
            cells
        };
        let names = ["clients at", "role", "durable", "unapplied", "behind"];
        table.row(line("node", "site", names));
        for told in &self.told {
            let node = told.node.map_or("?".to_owned(), |node| node.to_string());
            let site = self.site(told);
            let behind = self.behind(told);
            let at = told.address.as_str();
            table.row(match &told.answer {
                Ok(it) => line(
                    &node,
                    &site,
                    [
                        at,
                        role(it),
                        &count(&it["durable"]),
                        &unapplied(it),
                        &behind,
                    ],
                ),
                Err(_) if told.node.is_some_and(|node| self.is_stranger(node)) => {
                    line(&node, &site, [at, "no member", "", "", ""])
                }
                Err(_) => line(&node, &site, [at, "no answer", "", "", &behind]),
            });
        }
        table
    }

    fn site(&self, told: &Told) -> String {
        let peer = told.node.and_then(|node| self.as_led(node));
        peer.map_or("", |peer| words(&peer["site"])).to_owned()
    }

    /// How far a node is behind the leader, as the leader knows it.
    fn behind(&self, told: &Told) -> String {
        let Some(peer) = told.node.and_then(|node| self.as_led(node)) else {
            return "-".to_owned();
        };
        match (peer["lag_events"].as_u64(), peer["lag_ms"].as_u64()) {
            (Some(0), _) => "0".to_owned(),
            (Some(events), Some(ms)) => {
                let age = Units::Auto.show(ms.saturating_mul(1_000_000));
                format!("{} {age}", show_count(events))
            }
            (Some(events), None) => show_count(events),
            _ => "unknown".to_owned(),
        }
    }

    /// What somebody should look at, the worst first.
    fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        let members = self.members();
        let is_wanted = |told: &&Told| {
            let is_member = told.node.is_none_or(|node| members.contains(&node));
            told.answer.is_err() && (is_member || members.is_empty())
        };
        let silent: Vec<&Told> = self.told.iter().filter(is_wanted).collect();
        for told in &silent {
            let name = told
                .node
                .map_or(told.address.clone(), |node| format!("node {node}"));
            let why = told.answer.as_ref().err().map_or("", String::as_str);
            alarms.push(format!("{name} does not answer: {why}"));
        }
        let Some(best) = self.best() else {
            return alarms;
        };
        let voters = numbers(&best["voters"]);
        let is_silent = |voter: &&u64| silent.iter().any(|told| told.node == Some(**voter));
        let away = voters.iter().filter(is_silent).count();
        if away * 2 >= voters.len() && away > 0 {
            alarms.push(format!(
                "{away} of {} voters do not answer: without a majority nothing is committed; start them, or, if \
                 they are lost for ever, cluster force-single",
                voters.len()
            ));
        } else if self.leader().is_none() && best["leader"].is_null() {
            alarms.push(
                "nobody leads: an election takes fractions of a second; if it stays so, look at the nodes' logs"
                    .to_owned(),
            );
        }
        for it in self.answers() {
            self.alarms_of(it, best, &mut alarms);
        }
        if best["gate"] == "degraded" {
            alarms.push(
                "answers do not wait for the other site: cluster gate, when it is back".to_owned(),
            );
        }
        if let Some(held) = best["held_by_site"].as_u64().filter(|held| *held > 0) {
            alarms.push(format!(
                "{}: the line to it, or cluster degrade --yes",
                waiting_frames(held)
            ));
        }
        alarms
    }

    /// What one node says that it should not.
    fn alarms_of(&self, it: &Value, best: &Value, alarms: &mut Vec<String>) {
        let node = it["node"].as_u64().unwrap_or(0);
        for (key, what) in [("cluster", "cluster"), ("epoch", "epoch"), ("ack", "ack")] {
            if it[key] != best[key] {
                alarms.push(format!(
                    "node {node} is of {what} {}, node {} of {}: compare their files",
                    words(&it[key]),
                    best["node"],
                    words(&best[key])
                ));
            }
        }
        if let Some(at) = it["disputed"].as_u64() {
            alarms.push(format!(
                "node {node}: states differ at position {at}, and too few nodes are there to tell which is right: \
                 start the others"
            ));
        }
        if let Some(why) = it["activation_failed"].as_str() {
            alarms.push(format!("node {node} stays passive: {why}"));
        }
        if let Some(at) = it["stands_at"].as_u64() {
            alarms.push(format!(
                "node {node}: the logic panicked on the event at position {at} and stands in front of it until a \
                 majority does: lockstep journal dump DIR --from {at} --count 1"
            ));
        }
        let Some(leader) = self.leader().filter(|leader| leader["node"] != it["node"]) else {
            return;
        };
        if self.members().contains(&node)
            && self.as_led(node).is_some_and(|it| it["is_active"] == false)
        {
            alarms.push(format!(
                "node {node} answers here and not to its leader, node {}: the line between them, or files or builds \
                 that differ; both nodes' logs say which",
                leader["node"]
            ));
        } else if it["term"].as_u64() > leader["term"].as_u64() {
            alarms.push(format!(
                "node {node} is in term {}, its leader in {}: an election is under way",
                it["term"], leader["term"]
            ));
        }
        if self.is_stranger(node) && it["cluster"] == best["cluster"] {
            alarms.push(format!(
                "node {node} is no member: cluster add {node}, or end it and delete its directory"
            ));
        }
    }
}

impl Told {
    fn json(&self) -> Value {
        match &self.answer {
            Ok(answer) => json!({"address": self.address, "node": self.node, "status": answer}),
            Err(error) => json!({"address": self.address, "node": self.node, "error": error}),
        }
    }
}

/// What a node is; one without a logic is that before all.
fn role(it: &Value) -> &str {
    match (words(&it["role"]), it["passive"] == true) {
        ("leader", true) => "leader, passive",
        (_, true) => "passive",
        (role, false) => role,
    }
}

/// How many frames wait for a voter of another site.
pub(super) fn waiting_frames(held: u64) -> String {
    let (frames, wait) = if held == 1 {
        ("frame", "waits")
    } else {
        ("frames", "wait")
    };
    format!("{} {frames} {wait} for the other site", show_count(held))
}

/// Events that are in a node's log and not yet in its state.
fn unapplied(it: &Value) -> String {
    if it["passive"] == true && it["applied"] == 0 {
        return "-".to_owned();
    }
    match (it["durable"].as_u64(), it["applied"].as_u64()) {
        (Some(durable), Some(applied)) => show_count(durable.saturating_sub(applied)),
        _ => "?".to_owned(),
    }
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn count(value: &Value) -> String {
    value.as_u64().map_or("?".to_owned(), show_count)
}

fn numbers(list: &Value) -> Vec<u64> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(Value::as_u64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, role: &str, durable: u64) -> Told {
        let peers = json!([
            {"node": 1, "acknowledged": 9_000_000, "is_active": true, "site": null, "lag_events": 0, "lag_ms": 0},
            {"node": 2, "acknowledged": 8_999_000, "is_active": true, "site": null, "lag_events": 300_000, "lag_ms": 12_345},
            {"node": 3, "acknowledged": 0, "is_active": false, "site": null, "lag_events": null, "lag_ms": null},
        ]);
        Told {
            address: format!("192.168.100.{id}:7201"),
            node: Some(id),
            answer: Ok(json!({
                "cluster": "paris", "node": id, "role": role, "is_open": role == "leader", "version": 1,
                "versions": [1, 1], "term": 7, "epoch": 0, "leader": 1, "ack": "disks", "gate": "none",
                "held_by_site": 0, "voters": [1, 2, 3], "learners": [], "last_index": 9_000_000,
                "committed": 1_234_567_890_123_u64, "durable": durable, "applied": durable, "agreed": 0,
                "disputed": null, "stands_at": null, "waiting": 0,
                "peers": if role == "leader" { peers } else { json!([]) },
            })),
            is_refusal: false,
        }
    }

    fn silent(id: u64) -> Told {
        Told {
            address: format!("192.168.100.{id}:7201"),
            node: Some(id),
            answer: Err("Connection refused (os error 111)".to_owned()),
            is_refusal: false,
        }
    }

    #[test]
    fn what_is_the_matter_is_said_within_80_columns() {
        let far = 1_234_567_890_123;
        let cluster = Cluster::of(vec![
            node(1, "leader", far),
            node(2, "follower", far),
            silent(3),
        ]);
        let text = cluster.text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.contains("leader    node 1, term 7, committed 1,234,567,890,123"),
            "{text}"
        );
        assert!(text.contains("300,000 12.3s"), "{text}");
        assert!(
            text.contains("look at   node 3 does not answer: Connection refused"),
            "{text}"
        );
        assert!(!cluster.is_level());
        let json = cluster.json();
        assert_eq!(json["leader"], 1);
        assert_eq!(json["is_level"], false);
        assert_eq!(
            json["nodes"][2]["error"],
            "Connection refused (os error 111)"
        );
    }

    #[test]
    fn a_passive_node_is_shown_as_one() {
        let mut third = node(3, "follower", 5);
        if let Ok(it) = &mut third.answer {
            it["passive"] = json!(true);
            it["applied"] = json!(0);
            it["activation_failed"] = json!("no snapshot can be loaded");
        }
        let cluster = Cluster::of(vec![node(1, "leader", 5), node(2, "follower", 5), third]);
        let text = cluster.text();
        let row = text.lines().find(|line| line.contains("100.3")).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells[2..5], ["passive", "5", "-"], "{text}");
        let alarm = "node 3 stays passive: no snapshot can be loaded";
        assert!(text.contains(alarm), "{text}");
    }

    #[test]
    fn without_a_majority_it_says_so() {
        let mut candidate = node(1, "candidate", 5);
        if let Ok(it) = &mut candidate.answer {
            it["leader"] = Value::Null;
        }
        let cluster = Cluster::of(vec![candidate, silent(2), silent(3)]);
        let alarms = cluster.alarms();
        assert!(
            alarms
                .iter()
                .any(|it| it.starts_with("2 of 3 voters do not answer")),
            "{alarms:?}"
        );
        assert!(cluster.text().contains("leader    nobody, term 7"));
        let cluster = Cluster::of(vec![
            silent(1),
            node(2, "follower", 5),
            node(3, "follower", 5),
        ]);
        let text = cluster.text();
        assert!(
            text.contains("leader    node 1, term 7, as others say"),
            "{text}"
        );
    }

    #[test]
    fn everybody_there_and_close_is_level() {
        let mut leader = node(1, "leader", 5);
        if let Ok(it) = &mut leader.answer {
            it["peers"][1]["acknowledged"] = json!(8_999_600);
            it["peers"][2] = json!({"node": 3, "acknowledged": 9_000_000, "is_active": true});
        }
        let mut cluster = Cluster::of(vec![leader, node(2, "follower", 5), node(3, "follower", 5)]);
        assert!(cluster.is_level(), "{:?}", cluster.alarms());
        if let Ok(it) = &mut cluster.told[2].answer {
            it["stands_at"] = json!(4);
        }
        assert!(
            !cluster.is_level(),
            "who stands in front of an event is not well"
        );
        assert!(cluster.text().contains("journal dump DIR --from 4"));
    }
}

//! `lockstep cluster`: what a cluster is, and changes of it, over the clients' port.
//!
//! `force-single` works on a directory, since there is nobody left to ask, and `history` reads one.
//!
//! A question goes to the nodes in turn until one answers; a change goes to the leader, who says so if
//! it is another, and `activate` to the node that it is about. What can do harm says what it would do with `--dry-run`, and does it with `--yes`
//! alone.

mod certs;
mod history;
mod status;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use lockstep_engine::cluster::{force_single as do_force_single, would_force_single};
use lockstep_exchange::exchange::Exchange;
use lockstep_perf::cluster_file::NodeFile;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_replicator::Epoch;
use lockstep_replicator::client::admin;
use serde_json::{Value, json};

use super::client::reach::{Reach, ReachFlags, failed};
use super::journal::disk;
use super::run::engine::refused;
use super::{Format, Global};

/// How long a transfer is looked at: it takes milliseconds, and is given up after an election's time.
const LEADS_WITHIN: Duration = Duration::from_secs(3);

/// Arguments of `lockstep cluster`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep cluster status --node node1.toml\n  \
                        lockstep cluster transfer 2 --node node1.toml\n  \
                        lockstep cluster add 4 --node node1.toml --dry-run\n  \
                        lockstep cluster activate 3 --node node1.toml --yes\n  \
                        lockstep cluster history --dir /var/lib/lockstep/1\n  \
                        lockstep cluster certs certs --name demo --nodes 3\n\n\
                        Exit codes: 0 done · 1 nobody answered · 2 bad arguments · 6 the cluster refuses"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Who leads, who follows, how far each is
    Status(status::Args),
    /// A new node, as a learner: it gets the log and has no vote
    Add {
        /// Its id, which no node ever had; it stands among the [[peer]]s of every node's file
        id: u16,
        #[command(flatten)]
        change: Change,
    },
    /// A learner becomes a voter
    Promote {
        /// Which
        id: u16,
        #[command(flatten)]
        change: Change,
    },
    /// A node leaves for ever: its id is not used again
    Remove {
        /// Which
        id: u16,
        #[command(flatten)]
        change: Change,
    },
    /// Another node leads, within milliseconds
    Transfer {
        /// Which
        id: u16,
        #[command(flatten)]
        change: Change,
    },
    /// A passive node gets a logic: it makes the state from its own log, and may lead then
    Activate {
        /// Which
        id: u16,
        #[command(flatten)]
        change: Change,
    },
    /// Go on without the other site, where `ack` ends with +dr and it cannot be reached: what is answered
    /// from then on is at one site
    Degrade {
        #[command(flatten)]
        change: Change,
    },
    /// Every node goes to a newer version of the logic's rules, at one position of the log; all of them have
    /// to be able to run it
    SwitchVersion {
        /// Which
        version: u32,
        #[command(flatten)]
        change: Change,
    },
    /// Wait for the other site again
    Gate {
        #[command(flatten)]
        change: Change,
    },
    /// A node that has ended is to go on alone, when the quorum is lost for ever; the others must be off
    ForceSingle {
        /// The file of the node
        #[arg(long, value_name = "FILE")]
        node: PathBuf,
        /// A number above the cluster's epoch: whoever has a lower one is refused from then on
        #[arg(long)]
        epoch: u32,
        /// Say what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do it
        #[arg(long, conflicts_with = "dry_run")]
        yes: bool,
    },
    /// Who asked for what, when, and what came of it, from the log of one node
    #[command(long_about = history::LONG)]
    History(history::Args),
    /// An authority and certificates, for tests and for a first cluster
    Certs(certs::Args),
}

#[derive(Debug, clap::Args)]
struct Change {
    #[command(flatten)]
    reach: ReachFlags,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// Asks and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    match &args.what {
        What::Status(args) => status::run(args, global),
        What::Add { id, change } => make(change, &format!("add {id}"), true, global),
        What::Promote { id, change } => make(change, &format!("promote {id}"), true, global),
        What::Remove { id, change } => make(change, &format!("remove {id}"), true, global),
        // Nothing is lost by it, and it is taken back by another one.
        What::Transfer { id, change } => make(change, &format!("transfer {id}"), false, global),
        What::Activate { id, change } => activate(*id, change, global),
        What::SwitchVersion { version, change } => {
            make(change, &format!("switch-version {version}"), true, global)
        }
        What::Degrade { change } => make(change, "degrade", true, global),
        // Nothing is weakened by it.
        What::Gate { change } => make(change, "gate", false, global),
        What::ForceSingle {
            node,
            epoch,
            dry_run,
            yes,
        } => {
            if !dry_run && !yes {
                return Err(consent("force-single"));
            }
            force_single(node, *epoch, *dry_run, global)
        }
        What::History(args) => history::run(args, global),
        What::Certs(args) => certs::run(args, global),
    }
}

fn make(
    change: &Change,
    command: &str,
    wants_consent: bool,
    global: &Global,
) -> anyhow::Result<Exit> {
    if wants_consent && !change.dry_run && !change.yes {
        return Err(consent(command));
    }
    let reach = change.reach.reach(0)?;
    let (code, answer) = ask_leader(&reach, command, change.dry_run)?;
    let mut told = serde_json::from_str::<Value>(&answer).unwrap_or(Value::String(answer));
    if let Some(to) = told["transferring_to"].as_u64() {
        told["term"] = json!(status::leads_within(&reach, to, LEADS_WITHIN)?);
    }
    tell(command, change.dry_run, code, &told, global)
}

/// The node itself is asked: where it is wanted most there may be no leader.
fn activate(id: u16, change: &Change, global: &Global) -> anyhow::Result<Exit> {
    let command = format!("activate {id}");
    if !change.dry_run && !change.yes {
        return Err(consent(&command));
    }
    let reach = change.reach.reach(0)?;
    let is_it = |address: &&String| {
        let status = status_of(&reach, address);
        status.is_some_and(|status| status["node"] == id)
    };
    let Some(address) = reach.addresses.iter().find(is_it) else {
        bail!(
            "node {id} did not answer: does it run, and is its clients' port among the addresses?"
        );
    };
    let (options, patience) = (&reach.options, reach.patience);
    let (code, answer) = admin(address, options, &command, change.dry_run, patience)?;
    let told = serde_json::from_str::<Value>(&answer).unwrap_or(Value::String(answer));
    tell(&command, change.dry_run, code, &told, global)
}

/// What a node answered to a command.
fn tell(
    command: &str,
    is_dry: bool,
    code: u16,
    told: &Value,
    global: &Global,
) -> anyhow::Result<Exit> {
    if code != 0 && global.format == Format::Text {
        return Err(Refusal::environment(line(told), "").into());
    }
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => {
            let verb = command.split(' ').next().unwrap_or(command);
            let value = json!({
                "verb": format!("cluster {verb}"), "command": command, "dry_run": is_dry,
                "code": code, "answer": told,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        }
        Format::Text => writeln!(out, "{}", in_words(command, is_dry, told))?,
        Format::Quiet => {}
    }
    Ok(if code == 0 { Exit::Done } else { Exit::Refused })
}

/// What came of a command, and what comes next.
fn in_words(command: &str, is_dry: bool, told: &Value) -> String {
    let mut words = command.split(' ');
    let (verb, whom) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let held = told["held_by_site"].as_u64();
    let held = held.map_or(String::new(), |held| {
        format!(" ({})", status::waiting_frames(held))
    });
    if is_dry {
        return format!("{command}: would be done{held}; nothing was changed");
    }
    let done = match told["position"].as_u64() {
        Some(position) => format!("done at position {position}"),
        None => format!("done{held}"),
    };
    match verb {
        "add" => format!(
            "{command}: {done}; next: start it, and cluster promote {whom} when it has caught up"
        ),
        "remove" => format!(
            "{command}: {done}; next: end it and delete its directory; its id is not used again"
        ),
        "degrade" => format!("{command}: {done}; next: cluster gate, when the other site is back"),
        "transfer" => match told["term"].as_u64() {
            Some(term) => format!("{command}: node {whom} leads, in term {term}"),
            None => format!(
                "{command}: asked for, and node {whom} does not lead yet: cluster status says who does"
            ),
        },
        "activate" => format!(
            "{command}: it makes its state; cluster status says when it is not passive any more\n\
             next      take `passive` out of its file, or it is passive again at its next start"
        ),
        _ => format!("{command}: {done}"),
    }
}

fn consent(command: &str) -> anyhow::Error {
    Refusal::usage(
        format!("`{command}` changes the cluster"),
        "look with --dry-run, then do it with --yes",
    )
    .into()
}

/// Works on the directory of a node that has ended: there is nobody left to ask.
fn force_single(node: &Path, epoch: u32, is_dry: bool, global: &Global) -> anyhow::Result<Exit> {
    let file = NodeFile::read(node)?;
    let mut options = file.options()?;
    options.node.replica.epoch = Epoch(epoch);
    let directory = &options.directory;
    // It is looked at, and not made.
    disk(directory)?;
    let forced = if is_dry {
        would_force_single::<Exchange>(directory, &options.node)
    } else {
        do_force_single::<Exchange>(directory, &options.node)
    };
    let forced = forced.map_err(refused)?;
    let voters = &forced.members_before.voters;
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => {
            let voters: Vec<u16> = voters.iter().map(|one| one.0).collect();
            let told = json!({
                "verb": "cluster force-single", "dry_run": is_dry,
                "node": file.node, "cluster": file.cluster, "directory": directory,
                "epoch": epoch, "epoch_before": forced.from_epoch.0, "voters_before": voters,
                "position": forced.position.0, "known_committed_before": forced.committed_before.0,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        }
        Format::Text => {
            let is_one = voters.contains(&options.node.replica.node);
            let voters: Vec<String> = voters.iter().map(ToString::to_string).collect();
            let (did, next) = if is_dry {
                (
                    "would make",
                    "nothing was changed; --yes does it, with all others off for good".to_owned(),
                )
            } else {
                (
                    "made",
                    format!(
                        "write `epoch = {epoch}` into {} and start the node;\n          the others come back under new ids",
                        node.display()
                    ),
                )
            };
            writeln!(
                out,
                "{did} node {} the only voter of cluster {}\n\
                 epoch     {epoch}, before {}\n\
                 voters    {} before\n\
                 log       ends at position {}; known to be committed before that: {}\n\
                 next      {next}",
                file.node,
                file.cluster,
                forced.from_epoch,
                voters.join(" "),
                forced.position,
                forced.committed_before,
            )?;
            if !is_one {
                writeln!(
                    out,
                    "careful   node {} is none of these voters: it may lack what they had answered",
                    file.node
                )?;
            }
        }
        Format::Quiet => {}
    }
    Ok(Exit::Done)
}

/// Who says that it leads is asked first, then the others: a leader may change meanwhile.
fn ask_leader(reach: &Reach, command: &str, is_dry: bool) -> anyhow::Result<(u16, String)> {
    let mut first_refusal = None;
    let mut last_error = None;
    for address in leader_first(reach) {
        match admin(&address, &reach.options, command, is_dry, reach.patience) {
            Ok((0, answer)) => return Ok((0, answer)),
            Ok(refusal) => {
                first_refusal.get_or_insert(refusal);
            }
            Err(error) => last_error = Some(error),
        }
    }
    match (first_refusal, last_error) {
        (Some(refusal), _) => Ok(refusal),
        (None, Some(error)) => Err(failed(error)),
        (None, None) => bail!("no address of a node"),
    }
}

fn leader_first(reach: &Reach) -> Vec<String> {
    let leads = |address: &String| {
        let status = status_of(reach, address);
        status.is_some_and(|status| status["role"] == "leader")
    };
    let leader = reach
        .addresses
        .iter()
        .find(|address| leads(address))
        .cloned();
    let mut all: Vec<String> = leader.into_iter().collect();
    let others = reach
        .addresses
        .iter()
        .filter(|address| !all.contains(address));
    let others: Vec<String> = others.cloned().collect();
    all.extend(others);
    all
}

/// What the node at this address says of itself, if it answers.
fn status_of(reach: &Reach, address: &str) -> Option<Value> {
    let answer = admin(address, &reach.options, "status", false, reach.patience);
    answer
        .ok()
        .and_then(|(_, text)| serde_json::from_str(&text).ok())
}

/// An object as `key value, key value`.
fn line(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{key} {}", line(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(line).collect();
            format!("[{}]", items.join("; "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_change_is_said_with_what_comes_next() {
        assert_eq!(
            in_words("add 4", false, &json!({"position": 9})),
            "add 4: done at position 9; next: start it, and cluster promote 4 when it has caught up"
        );
        assert_eq!(
            in_words(
                "transfer 2",
                false,
                &json!({"transferring_to": 2, "term": 4})
            ),
            "transfer 2: node 2 leads, in term 4"
        );
        assert_eq!(
            in_words(
                "degrade",
                true,
                &json!({"gate": "sites", "held_by_site": 3})
            ),
            "degrade: would be done (3 frames wait for the other site); nothing was changed"
        );
    }

    #[test]
    fn an_answer_is_one_line() {
        let answer =
            serde_json::json!({"leader": 2, "nodes": [{"node": 1}, {"node": 2}], "ack": "disks"});
        assert_eq!(line(&answer), "ack disks, leader 2, nodes [node 1; node 2]");
    }
}

//! `lockstep cluster`: what a cluster is, and changes of it, over the clients' port.
//!
//! `force-single` works on a directory, since there is nobody left to ask, and `history` reads one.
//!
//! A question goes to the nodes in turn until one answers; a change goes to the leader, who says so if
//! it is another. What can do harm says what it would do with `--dry-run`, and does it with `--yes`
//! alone.

mod certs;
mod history;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use lockstep_exchange::exchange::Exchange;
use lockstep_perf::cluster_file::NodeFile;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_replicator::Epoch;
use lockstep_replicator::client::admin;
use serde_json::Value;

use super::client::reach::{Reach, ReachFlags};
use super::{Format, Global};

/// Arguments of `lockstep cluster`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep cluster status --node node1.toml\n  \
                        lockstep cluster transfer 2 --node node1.toml\n  \
                        lockstep cluster add 4 --node node1.toml --dry-run\n  \
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
    Status(Ask),
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
struct Ask {
    #[command(flatten)]
    reach: ReachFlags,
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
        What::Status(ask) => status(&ask.reach.reach(0)?, global),
        What::Add { id, change } => make(change, &format!("add {id}"), true, global),
        What::Promote { id, change } => make(change, &format!("promote {id}"), true, global),
        What::Remove { id, change } => make(change, &format!("remove {id}"), true, global),
        // Nothing is lost by it, and it is taken back by another one.
        What::Transfer { id, change } => make(change, &format!("transfer {id}"), false, global),
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

/// Every node says what it sees: so a node that sees something else shows.
fn status(reach: &Reach, global: &Global) -> anyhow::Result<Exit> {
    let mut told = Vec::new();
    let mut answered = 0;
    for address in &reach.addresses {
        match admin(address, &reach.options, "status", false, reach.patience) {
            Ok((0, answer)) => {
                answered += 1;
                let answer: Value = serde_json::from_str(&answer)
                    .with_context(|| format!("{address} answers something else"))?;
                told.push((address, Ok(answer)));
            }
            Ok((code, answer)) => told.push((address, Err(format!("{answer} (code {code})")))),
            Err(error) => told.push((address, Err(error.to_string()))),
        }
    }
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => {
            let nodes: Vec<Value> = told
                .iter()
                .map(|(address, answer)| match answer {
                    Ok(answer) => serde_json::json!({"address": address, "status": answer}),
                    Err(error) => serde_json::json!({"address": address, "error": error}),
                })
                .collect();
            let all = serde_json::json!({"verb": "cluster status", "nodes": nodes});
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        }
        Format::Text => {
            for (address, answer) in &told {
                match answer {
                    Ok(answer) => writeln!(out, "{address}  {}", line(answer))?,
                    Err(error) => writeln!(out, "{address}  no answer: {error}")?,
                }
            }
        }
        Format::Quiet => {}
    }
    if answered == 0 {
        bail!("no node answered: is one running, and is this its clients' port?");
    }
    Ok(Exit::Done)
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
    let mut out = std::io::stdout().lock();
    match (global.format, serde_json::from_str::<Value>(&answer)) {
        (Format::Json, Ok(value)) => {
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        }
        (Format::Json, Err(_)) => {
            let value = serde_json::json!({"code": code, "answer": answer});
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        }
        (Format::Text, Ok(value)) => writeln!(out, "{}", line(&value))?,
        (Format::Text, Err(_)) => writeln!(out, "{answer}")?,
        (Format::Quiet, _) => {}
    }
    Ok(if code == 0 { Exit::Done } else { Exit::Refused })
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
    let told = if is_dry {
        serde_json::json!({
            "would": "force-single", "node": file.node, "cluster": file.cluster, "epoch": epoch,
            "directory": options.directory,
        })
    } else {
        let forced =
            lockstep_engine::cluster::force_single::<Exchange>(&options.directory, &options.node)?;
        let before: Vec<u16> = forced
            .members_before
            .voters
            .iter()
            .map(|one| one.0)
            .collect();
        serde_json::json!({
            "did": "force-single", "node": file.node, "cluster": file.cluster, "epoch": epoch,
            "epoch_before": forced.from_epoch.0, "voters_before": before,
            "position": forced.position.0, "known_committed_before": forced.committed_before.0,
            "next": format!("write `epoch = {epoch}` into {} and start the node; the others come back under new ids", node.display()),
        })
    };
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?,
        Format::Text => writeln!(out, "{}", line(&told))?,
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
        (None, Some(error)) => Err(error.into()),
        (None, None) => bail!("no address of a node"),
    }
}

fn leader_first(reach: &Reach) -> Vec<String> {
    let leads = |address: &String| {
        let answer = admin(address, &reach.options, "status", false, reach.patience);
        let status = answer
            .ok()
            .and_then(|(_, text)| serde_json::from_str(&text).ok());
        status.is_some_and(|status: Value| status["role"] == "leader")
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
    fn an_answer_is_one_line() {
        let answer =
            serde_json::json!({"leader": 2, "nodes": [{"node": 1}, {"node": 2}], "ack": "disks"});
        assert_eq!(line(&answer), "ack disks, leader 2, nodes [node 1; node 2]");
    }
}

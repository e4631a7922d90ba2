//! Nodes that come by a snapshot: one that was down for too long, and one that is added.
//!
//! ```text
//!   node 1       keeps its log, whole: what clients were told is held against it
//!   nodes 2, 3   give theirs up behind snapshots; one of them leads
//!   node 4…      added by an operator, one in each run: learner, voter, leader, and removed again
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use lockstep_replicator::client::{ClientOptions, admin};
use serde_json::Value;

use super::bench::{Bench, NODES};
use super::processes::{Cluster, Process};

/// The node that keeps its log.
pub(super) const KEEPER: u16 = 1;

/// What a node says in its log when it comes by a snapshot.
const CAME_BY_SNAPSHOT: &str = "this node lagged behind the beginning of the log";

/// How often a node is left behind until it has come by a snapshot.
const LAG_TRIES: u32 = 3;

/// How long one question to a node may take; it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A node that will be added.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) process: Process,
    pub(super) client: SocketAddr,
}

impl Bench {
    /// Waits for a leader that gives up its log: which. The keeper hands over.
    pub(super) fn one_that_gives_up_leads(&mut self) -> anyhow::Result<usize> {
        self.given_up_behind(None)?;
        self.leader()
    }

    /// Waits until the leader has given up its log up to this position and somewhat further.
    fn given_up_behind(&mut self, position: Option<u64>) -> anyhow::Result<()> {
        let what = "a leader that has given up the beginning of its log";
        self.cluster.until(what, |cluster| {
            let Some(leader) = cluster.leader() else {
                return false;
            };
            if cluster.processes[leader].number == KEEPER {
                let mut others = cluster.processes.iter_mut();
                let next = others.find_map(|other| {
                    let is_able = other.number != KEEPER && other.is_running();
                    is_able.then_some(other.number)
                });
                if let Some(next) = next {
                    // Asked again, where it cannot now.
                    let _answer = cluster.ask(leader, &format!("transfer {next}"));
                }
                return false;
            }
            let oldest = cluster.processes[leader].seen().map(|seen| seen.oldest);
            let further = cluster.lag_max;
            position.is_none_or(|position| oldest.is_some_and(|oldest| oldest > position + further))
        })?;
        Ok(())
    }

    /// The other one that gives up its log is gone until the leader has no log for it any more.
    pub(super) fn lag(&mut self, leader: usize) -> anyhow::Result<()> {
        let own = self.cluster.processes[leader].number;
        let mut others = self.cluster.processes.iter();
        let lags = others.position(|other| other.number != own && other.number != KEEPER);
        let lags = lags.context("there are two that give up their logs")?;
        let before = self.cluster.processes[lags].times_said(CAME_BY_SNAPSHOT);
        for _ in 0..LAG_TRIES {
            let process = &mut self.cluster.processes[lags];
            process.kill()?;
            let tail = process.seen().map_or(0, |seen| seen.tail);
            self.given_up_behind(Some(tail))?;
            let process = &mut self.cluster.processes[lags];
            process.start()?;
            self.cluster.until("a whole cluster", Cluster::is_whole)?;
            if self.cluster.processes[lags].times_said(CAME_BY_SNAPSHOT) > before {
                self.by_snapshot += 1;
                break;
            }
            // The keeper was elected meanwhile, and had the log.
        }
        Ok(())
    }

    /// A node is added, promoted, leads, and is removed.
    pub(super) fn grow(&mut self) -> anyhow::Result<()> {
        self.given_up_behind(Some(0))?;
        let guest = self.guests.pop_front().context("no node is left to add")?;
        let number = guest.process.number;
        self.until_done(&format!("add {number}"), |members| {
            members.has("learners", number)
        })?;
        let at = self.cluster.processes.len();
        self.cluster.processes.push(guest.process);
        self.cluster.clients.push(guest.client);
        self.cluster.processes[at].start()?;
        self.cluster.until("a whole cluster", Cluster::is_whole)?;
        let said = self.cluster.processes[at].times_said(CAME_BY_SNAPSHOT);
        self.by_snapshot += usize::from(said > 0);
        self.until_done(&format!("promote {number}"), |members| {
            members.has("voters", number)
        })?;
        self.hand_over("the node that was added leads", number, |leader| {
            leader == at
        })?;
        let back = KEEPER + 1;
        self.hand_over("a founder leads", back, |leader| {
            leader < usize::from(NODES)
        })?;
        self.until_done(&format!("remove {number}"), |members| {
            !members.has("voters", number) && !members.has("learners", number)
        })?;
        self.cluster.clients.truncate(at);
        let mut process = self.cluster.processes.remove(at);
        self.gone.push(process.directory.clone());
        process.end()
    }

    /// What an interrupted run has left of a node that was added.
    pub(super) fn send_guests_away(&mut self) -> anyhow::Result<()> {
        let founders = usize::from(NODES);
        self.cluster.clients.truncate(founders);
        for mut process in self.cluster.processes.split_off(founders) {
            // Its log may end with what nobody else has: it is not checked.
            process.kill()?;
        }
        Ok(())
    }

    /// The leader is asked until it is so, whoever leads meanwhile.
    fn until_done(&mut self, word: &str, is_done: impl Fn(&Members) -> bool) -> anyhow::Result<()> {
        let mut last = String::new();
        let done = self.cluster.until(word, |cluster| {
            let Some(leader) = cluster.leader() else {
                return false;
            };
            if cluster
                .members(leader)
                .is_some_and(|members| is_done(&members))
            {
                return true;
            }
            last = cluster.ask(leader, word);
            false
        });
        done.with_context(|| format!("the last answer was {last:?}"))?;
        Ok(())
    }

    /// The leader is asked to hand over to this node, until one leads that is meant.
    fn hand_over(
        &mut self,
        what: &str,
        to: u16,
        is_meant: impl Fn(usize) -> bool,
    ) -> anyhow::Result<()> {
        let mut last = String::new();
        let done = self.cluster.until(what, |cluster| {
            let leader = cluster.leader();
            if let Some(leader) = leader.filter(|leader| !is_meant(*leader)) {
                last = cluster.ask(leader, &format!("transfer {to}"));
            }
            leader.is_some_and(&is_meant)
        });
        done.with_context(|| format!("the last answer was {last:?}"))?;
        Ok(())
    }
}

/// The members, as a node sees them.
struct Members(Value);

impl Members {
    fn has(&self, role: &str, node: u16) -> bool {
        let nodes = self.0.get(role).and_then(Value::as_array);
        nodes.is_some_and(|nodes| nodes.iter().any(|one| one.as_u64() == Some(node.into())))
    }
}

impl Cluster {
    /// What a node answers an operator; why it did not.
    fn ask(&self, node: usize, word: &str) -> String {
        let address = self.clients[node].to_string();
        let asked = "drill"
            .parse()
            .map_err(anyhow::Error::from)
            .and_then(|cluster| {
                let options = ClientOptions::new(cluster, 64);
                Ok(admin(&address, &options, word, false, ANSWER_WITHIN)?)
            });
        match asked {
            Ok((_, text)) => text,
            Err(error) => format!("{error:#}"),
        }
    }

    fn members(&self, node: usize) -> Option<Members> {
        let text = self.ask(node, "status");
        serde_json::from_str(&text).ok().map(Members)
    }
}

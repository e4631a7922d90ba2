//! A cluster of real processes on this machine: started, killed, paused, started again.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lockstep_engine::counters::Counters;
use lockstep_perf::machine::interrupt;

use super::apart;

/// How long anything may take before the drill gives up: far longer than a slow machine needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(5);

/// One node and its process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) number: u16,
    pub(super) directory: PathBuf,
    file: PathBuf,
    log: PathBuf,
    /// The namespace that it lives in, where it has one.
    space: Option<RawFd>,
    child: Option<Child>,
}

/// What is seen of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) is_open: bool,
    pub(super) leader: u64,
    pub(super) term: u64,
    pub(super) committed: u64,
    pub(super) applied: u64,
    /// Where its log ends, and where it begins.
    pub(super) tail: u64,
    pub(super) oldest: u64,
    pub(super) has_failed: bool,
}

/// The whole cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) processes: Vec<Process>,
    /// Where clients reach each node.
    pub(super) clients: Vec<SocketAddr>,
    /// Events that a node may be behind and still counts as level: what is on its way.
    pub(super) lag_max: u64,
    /// It is being closed: nothing interrupts that, but for a second signal, which kills.
    pub(super) is_ending: bool,
}

/// A free port of loopback, as of now.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

impl Process {
    pub(super) fn new(
        number: u16,
        home: &Path,
        text: &str,
        space: Option<RawFd>,
    ) -> anyhow::Result<Self> {
        let file = home.join(format!("node{number}.toml"));
        std::fs::write(&file, text)?;
        Ok(Self {
            number,
            directory: home.join(format!("node{number}")),
            file,
            log: home.join(format!("node{number}.log")),
            space,
            child: None,
        })
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe()?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(program);
        command
            .args(["run", "--node"])
            .arg(&self.file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is the drill's to hear: it ends its nodes itself.
            .process_group(0);
        apart::bind(&mut command, self.space);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start node {}", self.number))?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal; the process is there.
    pub(super) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let Some(child) = &self.child else {
            bail!("node {} does not run", self.number);
        };
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .context("cannot run kill")?;
        if !sent.success() {
            bail!("kill {signal} {}: {sent}", child.id());
        }
        Ok(())
    }

    /// Kills it, as a power switch would, but for the page cache.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits for it; how it ended.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.signal("-TERM")?;
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let started = now();
        // Ends: by its end, or out of patience.
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                if !status.success() {
                    bail!(
                        "node {} ended with {status}: {}",
                        self.number,
                        self.last_words()
                    );
                }
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("node {} does not end", self.number);
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// What it shows of itself; of one that is gone, what it showed last.
    pub(super) fn seen(&self) -> Option<Seen> {
        let counters = Counters::read(&self.directory).ok()?;
        let child = self.child.as_ref().map(Child::id);
        if child.is_some_and(|child| u64::from(child) != counters.pid) {
            // A former life says nothing of this one: it may not have opened its log yet.
            return None;
        }
        let get = |name| counters.get(name).unwrap_or(0);
        Some(Seen {
            is_open: get("cluster.is_open") == 1,
            leader: get("cluster.leader"),
            term: get("cluster.term"),
            committed: get("cluster.committed"),
            applied: get("logic.applied"),
            tail: get("cluster.tail"),
            oldest: get("retention.oldest"),
            has_failed: get("engine.has_failed") != 0,
        })
    }

    /// Whether the process is there.
    pub(super) fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// How often it has said this in its log.
    pub(super) fn times_said(&self, words: &str) -> usize {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains(words)).count()
    }

    /// The last lines that it wrote.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever drops it has no use for its last words; a child is never left behind.
        let _gone = self.kill();
    }
}

/// Somebody has asked the drill to end: not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Fails once somebody has asked the drill to end.
pub(super) fn go_on() -> anyhow::Result<()> {
    if interrupt::is_set() {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// Waits so long, or until somebody asks the drill to end.
pub(super) fn wait(long: Duration) -> anyhow::Result<()> {
    let started = now();
    // Ends: the time is over, or an interrupt.
    while started.elapsed() < long {
        go_on()?;
        std::thread::park_timeout(LOOK.min(long.saturating_sub(started.elapsed())));
    }
    Ok(())
}

/// A drill is measured on a person's clock.
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Cluster {
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::start)
    }

    /// Waits until it is so, and no process has died meanwhile that should not.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> anyhow::Result<Duration> {
        let started = now();
        // Ends: it is so, a node failed, or out of patience.
        while !is_so(self) {
            if !self.is_ending {
                go_on()?;
            }
            for process in &mut self.processes {
                if process.child.is_some() && !process.is_running() {
                    let words = process.last_words();
                    bail!("node {} ended by itself: {words}", process.number);
                }
            }
            if started.elapsed() > PATIENCE {
                let seen: Vec<_> = self.processes.iter().map(Process::seen).collect();
                bail!("{what} did not come within {PATIENCE:?}: {seen:?}");
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(started.elapsed())
    }

    /// Which node leads with its door open, by what the nodes that run say.
    pub(super) fn leader(&mut self) -> Option<usize> {
        let mut newest: Option<(u64, usize)> = None;
        for (at, process) in self.processes.iter_mut().enumerate() {
            if !process.is_running() {
                continue;
            }
            let Some(seen) = process.seen().filter(|seen| seen.is_open) else {
                continue;
            };
            if newest.is_none_or(|(term, _)| seen.term > term) {
                newest = Some((seen.term, at));
            }
        }
        newest.map(|(_, at)| at)
    }

    /// Whether there is a leader, and every node is level with it, but for what is on its way.
    pub(super) fn is_whole(&mut self) -> bool {
        self.is_level(self.lag_max)
    }

    /// Whether nothing is on its way any more.
    pub(super) fn is_at_rest(&mut self) -> bool {
        self.is_level(0)
    }

    fn is_level(&mut self, lag_max: u64) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let seen: Vec<Option<Seen>> = self.processes.iter().map(Process::seen).collect();
        let Some(first) = seen[leader] else {
            return false;
        };
        let all_run = self.processes.iter_mut().all(Process::is_running);
        all_run
            && seen.iter().all(|one| {
                one.is_some_and(|one| {
                    one.term == first.term
                        && one.leader == first.leader
                        && !one.has_failed
                        // What a busy cluster commits between two writings of the counters.
                        && one.applied + lag_max >= first.committed
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use lockstep_engine::Engine;
    use lockstep_exchange::exchange::Exchange;

    use super::*;
    use crate::verb::node::fresh;

    #[test]
    fn a_process_is_not_seen_by_what_another_one_left_in_its_directory() {
        let home = tempfile::tempdir().unwrap();
        let mut process = Process::new(1, home.path(), "", None).unwrap();
        let engine = Engine::<Exchange>::open_with(&process.directory, fresh);
        let engine = engine.allow_volatile(true).start().unwrap();
        assert!(process.seen().is_some(), "of one that is gone");
        // It has just been started, and shows nothing yet.
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        process.child = Some(child);
        assert_eq!(process.seen(), None);
        assert!(process.is_running());
        process.kill().unwrap();
        engine.close().unwrap();
    }
}

//! `lockstep drill`: three real processes under load, and something that goes wrong with one of them.
//!
//! | drill | what happens to the leader in each run |
//! |---|---|
//! | kill | SIGKILL; then it is started again |
//! | pause | SIGSTOP for two seconds, then SIGCONT: a leader that wakes up and knows nothing of it |
//! | partition | all its links to the others are cut for two seconds, and mended |
//! | disk-full | its file system, a small one of its own, is filled up for a second, and emptied; wants root |
//! | restart | each node in turn ends by SIGTERM and is started again: a rolling restart |
//!
//! Clients trade all the while, each with a session of its own; who has no answer asks again, with the
//! same number. A run is over when there is full service again: new orders are accepted, and every node
//! is there and level. At the end the nodes are closed, and everything that a client was told is held
//! against all journals.

mod check;
mod load;
mod processes;
mod proxy;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lockstep_perf::exit::{Exit, Refusal};
use serde::Serialize;

use super::{Format, Global};
use check::Checked;
use load::{Load, Told};
use processes::{Cluster, Process, free_address};
use proxy::Link;

/// How long a leader is paused or cut off: far longer than an election.
const AWAY: Duration = Duration::from_secs(2);

/// How long a disk is full once another node leads.
const FULL: Duration = Duration::from_secs(1);

/// Arguments of `lockstep drill`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lockstep drill kill --runs 50\n  \
                        lockstep drill pause --runs 5 --format json\n\n\
                        Exit codes: 0 nothing lost or done twice, everything answered · 1 failed · \
                        4 something was lost, done twice or never answered · 5 logs differ")]
pub(crate) struct Args {
    /// What goes wrong
    #[arg(value_enum)]
    what: What,
    /// How often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    runs: u32,
    /// Clients that trade, each with a session
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    clients: u32,
    /// Orders a second, of all clients together
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    rate: u32,
    /// An answer that comes later than this, from the moment the order was due, is late
    #[arg(long, default_value = "50ms", value_parser = lockstep_perf::args::quantity::duration, value_name = "DUR")]
    late: Duration,
    /// Milliseconds between two ticks of the nodes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000), value_name = "MS")]
    tick_ms: u64,
    /// Where the nodes live; kept. A temporary directory that goes with the drill unless told
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The leader is killed and started again
    Kill,
    /// The leader is stopped for two seconds and goes on
    Pause,
    /// The leader is cut off from the others for two seconds
    Partition,
    /// The leader's disk is full for a second; wants root, for small file systems
    DiskFull,
    /// Each node in turn ends and is started again
    Restart,
}

impl Args {
    /// A disk that is to be full has to be written to: what was prepared ahead is used up first.
    fn rate(&self) -> u32 {
        match self.what {
            What::DiskFull => self.rate.max(FILL_RATE),
            What::Kill | What::Pause | What::Partition | What::Restart => self.rate,
        }
    }
}

/// Orders a second that use up what a journal has prepared within a few seconds.
const FILL_RATE: u32 = 4_000;

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Kill => "kill",
            What::Pause => "pause",
            What::Partition => "partition",
            What::DiskFull => "disk-full",
            What::Restart => "restart",
        }
    }
}

/// What the drill found.
#[derive(Debug, Serialize)]
struct Document {
    drill: String,
    runs: u32,
    nodes: usize,
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
    differing: u64,
    response_us_p50: f64,
    response_us_p99: f64,
    outage_ms_p50: f64,
    outage_ms_p99: f64,
    outage_ms_max: f64,
    whole_ms_p50: f64,
    whole_ms_max: f64,
    outages_ms: Vec<f64>,
}

/// Runs the drill and tells of it.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let home = Home::at(args.dir.as_deref())?;
    let mut bench = Bench::new(args, &home.path)?;
    bench.cluster.start()?;
    bench.cluster.until("a whole cluster", Cluster::is_whole)?;
    let load = Load::start(&bench.cluster.clients, args.clients, args.rate())?;
    let mut away = Vec::new();
    let mut whole = Vec::new();
    for run in 0..args.runs {
        load.flow(processes::PATIENCE)?;
        let (from, took) = bench.trouble(args.what, run)?;
        load.flow(processes::PATIENCE)?;
        away.push((from, from + took.as_secs_f64()));
        whole.push(took.as_secs_f64() * 1e3);
    }
    let told = load.end()?;
    let directories: Vec<PathBuf> = bench.directories();
    bench.end()?;
    let paths: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
    let checked = check::check(&paths, &told.answered)?;
    let document = document(args, &told, &checked, &away, &mut whole);
    say(&document, &checked, global)?;
    Ok(if checked.differing > 0 {
        Exit::Corrupt
    } else if document.lost + document.duplicated + document.unanswered > 0 {
        Exit::Missed
    } else {
        Exit::Done
    })
}

/// A directory that goes when the drill does, unless it was given.
struct Home {
    path: PathBuf,
    is_kept: bool,
}

impl Home {
    fn at(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("lockstep-drill-{}", std::process::id())),
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Self {
            path,
            is_kept: given.is_some(),
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed is the system's to clean up.
            let _left = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The cluster, and the links that can be cut: from the node that dials to the one that is dialed.
struct Bench {
    cluster: Cluster,
    links: BTreeMap<(u16, u16), Link>,
    /// Small file systems of the nodes; they go when everything else has.
    _mounts: Vec<Mount>,
}

/// A small file system in memory, for a disk that can be filled.
struct Mount(PathBuf);

impl Mount {
    fn at(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "lockstep-drill"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(path.to_owned())),
            Ok(output) => Err(Refusal::environment(
                format!(
                    "disk-full wants a small file system at {}: {}",
                    path.display(),
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
                "run it as root, where mount is allowed",
            )
            .into()),
            Err(error) => Err(error).context("cannot run mount"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Nothing is lost by it; whoever owns the machine sees it in its mounts.
            eprintln_left(&self.0);
        }
    }
}

fn eprintln_left(path: &Path) {
    use std::io::Write as _;
    let _closed = writeln!(
        std::io::stderr(),
        "warning: {} is still mounted: umount it",
        path.display()
    );
}

/// The size of such a file system: the journals of a few minutes.
const DISK: &str = "size=160m";

/// Fills a file system up to its last byte.
fn fill(ballast: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast)?;
    let block = vec![0xa5; 64 << 10];
    // Ends: the file system is full.
    loop {
        match file.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

const NODES: u16 = 3;

impl Bench {
    fn new(args: &Args, home: &Path) -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..NODES {
            addresses.push(free_address()?);
            clients.push(free_address()?);
        }
        let mut links = BTreeMap::new();
        let mut processes = Vec::new();
        let mut mounts = Vec::new();
        for own in 1..=NODES {
            if args.what == What::DiskFull {
                mounts.push(Mount::at(&home.join(format!("node{own}")))?);
            }
            let mut text = format!(
                "cluster = \"drill\"\nnode = {own}\ndirectory = \"node{own}\"\ntick_ms = {}\n",
                args.tick_ms
            );
            for peer in 1..=NODES {
                let real = addresses[usize::from(peer - 1)];
                // The higher number dials: through a link, where links are to be cut.
                let address = if args.what == What::Partition && own > peer {
                    let link = Link::open(real)?;
                    let address = link.address;
                    links.insert((own, peer), link);
                    address
                } else {
                    real
                };
                let client = clients[usize::from(peer - 1)];
                write!(
                    text,
                    "[[peer]]\nnode = {peer}\naddress = \"{address}\"\nclient = \"{client}\"\n"
                )?;
            }
            // Small segments where the disk is to be full: what is prepared ahead lasts a second.
            let segment_bytes = if args.what == What::DiskFull {
                1 << 20
            } else {
                4 << 20
            };
            writeln!(text, "[engine]\nsegment_bytes = {segment_bytes}")?;
            text.push_str(
                "slots = 16384\noutput_slots = 16384\nsession_replies = 256\nallow_volatile = true\nwait = \"park\"\n",
            );
            processes.push(Process::new(own, home, &text)?);
        }
        Ok(Self {
            cluster: Cluster { processes, clients },
            links,
            _mounts: mounts,
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        let processes = self.cluster.processes.iter();
        processes.map(|process| process.directory.clone()).collect()
    }

    /// One run of what goes wrong: since when, and how long until all is well again.
    fn trouble(&mut self, what: What, run: u32) -> anyhow::Result<(f64, Duration)> {
        let leader = match what {
            What::Restart => usize::try_from(run).unwrap_or(0) % usize::from(NODES),
            What::Kill | What::Pause | What::Partition | What::DiskFull => self.leader()?,
        };
        let started = processes::now();
        let from = load::since_start(started);
        match what {
            What::Kill => {
                self.cluster.processes[leader].kill()?;
                self.another_leads(leader)?;
                self.cluster.processes[leader].start()?;
            }
            What::Pause => {
                self.cluster.processes[leader].signal("-STOP")?;
                std::thread::park_timeout(AWAY);
                self.cluster.processes[leader].signal("-CONT")?;
            }
            What::Partition => {
                let number = self.cluster.processes[leader].number;
                let own = |pair: &(u16, u16)| pair.0 == number || pair.1 == number;
                let links = self.links.iter().filter(|(pair, _)| own(pair));
                let links: Vec<Link> = links.map(|(_, link)| link.clone()).collect();
                links.iter().for_each(Link::cut);
                std::thread::park_timeout(AWAY);
                links.iter().for_each(Link::mend);
            }
            What::DiskFull => {
                let ballast = self.cluster.processes[leader].directory.join("ballast");
                fill(&ballast)?;
                let others = self.another_leads(leader);
                std::thread::park_timeout(FULL);
                std::fs::remove_file(&ballast)?;
                others?;
            }
            What::Restart => {
                self.cluster.processes[leader].end()?;
                self.cluster.until("a leader among the others", |cluster| {
                    cluster.leader().is_some()
                })?;
                self.cluster.processes[leader].start()?;
            }
        }
        self.cluster.until("a whole cluster", Cluster::is_whole)?;
        Ok((from, started.elapsed()))
    }

    fn leader(&mut self) -> anyhow::Result<usize> {
        self.cluster
            .until("a leader", |cluster| cluster.leader().is_some())?;
        self.cluster.leader().context("the leader has just gone")
    }

    fn another_leads(&mut self, old: usize) -> anyhow::Result<()> {
        self.cluster.until("another leader", |cluster| {
            cluster.leader().is_some_and(|leader| leader != old)
        })?;
        Ok(())
    }

    /// Closes every node, in order.
    fn end(&mut self) -> anyhow::Result<()> {
        self.cluster.processes.iter_mut().try_for_each(Process::end)
    }
}

fn document(
    args: &Args,
    told: &Told,
    checked: &Checked,
    away: &[(f64, f64)],
    whole: &mut [f64],
) -> Document {
    let mut outages: Vec<f64> = away.iter().map(|away| told.outage_ms(*away)).collect();
    let in_order = outages.clone();
    let mut responses = told.responses_us();
    let late_us = args.late.as_secs_f64() * 1e6;
    let late = responses.iter().filter(|response| **response > late_us);
    Document {
        drill: args.what.name().to_owned(),
        runs: args.runs,
        nodes: usize::from(NODES),
        clients: args.clients,
        rate: args.rate(),
        ack: lockstep_replicator::Policy::default().name(),
        tick_ms: args.tick_ms,
        requests: told.requests,
        answered: told.answered.len() as u64,
        refused: told.refused,
        late: late.count() as u64,
        unanswered: told.requests - told.answered.len() as u64,
        lost: checked.lost,
        duplicated: checked.duplicated,
        differing: checked.differing,
        response_us_p50: percentile(&mut responses, 50.0),
        response_us_p99: percentile(&mut responses, 99.0),
        outage_ms_p50: percentile(&mut outages, 50.0),
        outage_ms_p99: percentile(&mut outages, 99.0),
        outage_ms_max: percentile(&mut outages, 100.0),
        whole_ms_p50: percentile(whole, 50.0),
        whole_ms_max: percentile(whole, 100.0),
        outages_ms: in_order,
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

fn say(document: &Document, checked: &Checked, global: &Global) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Quiet => return Ok(()),
        Format::Json => {
            writeln!(out, "{}", serde_json::to_string(document)?)?;
            return Ok(());
        }
        Format::Text => {}
    }
    let Document {
        drill,
        runs,
        requests,
        answered,
        late,
        unanswered,
        lost,
        duplicated,
        ..
    } = document;
    writeln!(
        out,
        "drill     {drill}, {runs} runs, 3 nodes, ack {}, tick {} ms",
        document.ack, document.tick_ms
    )?;
    writeln!(
        out,
        "requests  {requests} at {}/s of {} clients: {answered} answered, {late} late, {unanswered} unanswered",
        document.rate, document.clients
    )?;
    writeln!(
        out,
        "history   {lost} lost, {duplicated} duplicated, {} logs differ",
        document.differing
    )?;
    writeln!(
        out,
        "response  p50 {:.0} us, p99 {:.0} us, from when the order was due",
        document.response_us_p50, document.response_us_p99
    )?;
    writeln!(
        out,
        "outage    p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms: from the last answer before to the first after",
        document.outage_ms_p50, document.outage_ms_p99, document.outage_ms_max
    )?;
    writeln!(
        out,
        "whole     p50 {:.0} ms, max {:.0} ms until every node was there and level again",
        document.whole_ms_p50, document.whole_ms_max
    )?;
    for finding in &checked.findings {
        writeln!(out, "found     {finding}")?;
    }
    Ok(())
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

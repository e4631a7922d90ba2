//! `lockstep drill`: three real processes under load, and something that goes wrong with one of them.
//!
//! | drill | what happens to the leader in each run |
//! |---|---|
//! | kill | SIGKILL; then it is started again |
//! | pause | SIGSTOP for two seconds, then SIGCONT: a leader that wakes up and knows nothing of it |
//! | partition | it is cut off for two seconds: from all others, one way, or from one of them |
//! | disk-full | its file system, a small one of its own, is filled up for a second, and emptied |
//! | restart | each node in turn ends by SIGTERM and is started again: a rolling restart |
//! | lag | it goes on, and gives up its log; another node is down for so long that it comes back by a snapshot |
//! | grow | it goes on, and a node more is added that comes by a snapshot, gets a vote, leads, and is removed |
//! | all | all of these, one after another, each kind of partition too |
//!
//! Clients trade all the while, each with a session of its own; who has no answer asks again, with the
//! same number. A run is over when there is full service again: new orders are accepted, and every node
//! is there and level. At the end the nodes are closed, and everything that a client was told is held
//! against all journals.
//!
//! Nothing is left behind: the nodes die with the drill, and namespaces and mounts live no longer than
//! it does. Ctrl-C lets the clients have their answers, checks what there is, and says that it was
//! interrupted; a second one ends at once.

mod apart;
mod bench;
mod check;
mod disk;
mod load;
mod members;
mod processes;
mod proxy;
mod told;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lockstep_engine::GateAt;
use lockstep_perf::args::wish::Log;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::interrupt;

use super::Global;
use apart::Apart;
use bench::Bench;
use load::Load;
use processes::{Cluster, Interrupted};
use told::{Document, Each, Place, Runs};

/// Arguments of `lockstep drill`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  lockstep drill kill --runs 50\n  \
                        lockstep drill partition --cut one-way --runs 10\n  \
                        lockstep drill pause --gate output --runs 5 --format json\n  \
                        lockstep drill all --runs 20\n\n\
                        Exit codes: 0 nothing lost or done twice, everything answered · 1 failed · \
                        4 something was lost, done twice, answered wrongly or never · 5 logs differ · \
                        6 this machine does not allow it · 130 interrupted")]
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
    /// What a partition cuts
    #[arg(long, value_enum, default_value_t = Cut::Full)]
    cut: Cut,
    /// What waits for disk and quorum: `logic`, or the outputs, while the leader's logic runs ahead (`output`)
    #[arg(long, default_value = "logic", value_parser = Log::gate, value_name = "STAGE")]
    gate: GateAt,
    /// A network for each node, or one loopback for all
    #[arg(long, value_enum, default_value_t = Network::Auto)]
    network: Network,
    /// How long bytes take between two nodes; on loopback
    #[arg(long, default_value = "0s", value_parser = lockstep_perf::args::quantity::duration, value_name = "DUR")]
    delay: Duration,
    /// Packets of a hundred that are lost; in namespaces, where the kernel has `sch_netem`
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50), value_name = "PERCENT")]
    loss: u8,
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
    /// The leader is cut off for two seconds
    Partition,
    /// The leader's disk is full for a second; wants small file systems
    DiskFull,
    /// Each node in turn ends and is started again
    Restart,
    /// A node is down until the leader has given up the log that it lacks: it comes back by a snapshot
    Lag,
    /// A node is added, comes by a snapshot, gets a vote, leads, and is removed
    Grow,
    /// All of these, with each cut, one after another
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Cut {
    /// The leader from both others; in namespaces from its clients too
    Full,
    /// What the leader sends to the others, or what they send to it, in turn
    OneWay,
    /// The leader from one of the others; the third sees both
    Bridge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    /// Namespaces where they can be had, else loopback
    Auto,
    /// A network namespace for each node, or nothing
    Namespaces,
    /// All on 127.0.0.1
    Loopback,
}

impl Args {
    /// What it is called, with what it cuts.
    fn name(&self) -> String {
        match self.what {
            What::Partition => format!("partition ({})", self.cut.name()),
            what => what.name().to_owned(),
        }
    }

    /// A disk that is to be full has to be written to, since what was prepared ahead is used up first; and so
    /// has a log of which segments are to be given up.
    fn rate(&self) -> u32 {
        match self.what {
            What::DiskFull | What::Lag | What::Grow => self.rate.max(FILL_RATE),
            What::All | What::Kill | What::Pause | What::Partition | What::Restart => self.rate,
        }
    }
}

/// Orders a second that use up what a journal has prepared, or fill a segment of it, within a few seconds.
const FILL_RATE: u32 = 4_000;

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Kill => "kill",
            What::Pause => "pause",
            What::Partition => "partition",
            What::DiskFull => "disk-full",
            What::Restart => "restart",
            What::Lag => "lag",
            What::Grow => "grow",
            What::All => "all",
        }
    }

    /// Whether logs are given up behind snapshots.
    fn gives_up(self) -> bool {
        matches!(self, What::Lag | What::Grow)
    }
}

/// Runs the drill and tells of it.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let _flag = interrupt::flag();
    if args.what != What::All {
        let one = Each::Done(Box::new(drill(args)?));
        one.say(global)?;
        let exit = one.exit();
        told::say(args.what, &[one], global)?;
        return Ok(exit);
    }
    // Said before anything runs, not behind all the others.
    bench::guests(&Args {
        what: What::Grow,
        ..args.clone()
    })?;
    let mut all = Vec::new();
    let mut worst = Exit::Done;
    for (what, cut) in ALL {
        let dir = args.dir.as_ref();
        let dir = dir.map(|dir| dir.join(format!("{}-{}", what.name(), cut.name())));
        let args = Args {
            what,
            cut,
            dir,
            ..args.clone()
        };
        let one = match drill(&args) {
            Ok(document) => Each::Done(Box::new(document)),
            Err(error) if error.is::<Interrupted>() => {
                worst = worse(worst, Exit::Interrupted);
                break;
            }
            // What this machine does not allow is said and left out; what failed does not take with it what
            // the others found.
            Err(error) => match error.downcast::<Refusal>() {
                Ok(refusal) if refusal.exit == Exit::Refused => Each::Left {
                    drill: args.name(),
                    left_out: refusal.what,
                },
                Ok(refusal) => return Err(refusal.into()),
                Err(error) => Each::Failed {
                    drill: args.name(),
                    failed: format!("{error:#}"),
                },
            },
        };
        one.say(global)?;
        worst = worse(worst, one.exit());
        all.push(one);
        if interrupt::is_set() {
            break;
        }
    }
    told::say(args.what, &all, global)?;
    Ok(worst)
}

/// What `all` is.
const ALL: [(What, Cut); 9] = [
    (What::Kill, Cut::Full),
    (What::Pause, Cut::Full),
    (What::Partition, Cut::Full),
    (What::Partition, Cut::OneWay),
    (What::Partition, Cut::Bridge),
    (What::DiskFull, Cut::Full),
    (What::Restart, Cut::Full),
    (What::Lag, Cut::Full),
    (What::Grow, Cut::Full),
];

/// Damage counts more than something lost, that more than a drill that failed, and that more than an interruption.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: &Exit| match exit {
        Exit::Corrupt => 4,
        Exit::Missed => 3,
        Exit::Failed => 2,
        Exit::Done => 0,
        _ => 1,
    };
    std::cmp::max_by_key(one, other, rank)
}

/// One drill, from the first node's start to the last check.
fn drill(args: &Args) -> anyhow::Result<Document> {
    let home = Home::at(args.dir.as_deref(), args.what.name())?;
    let (apart, place) = network(args)?;
    if apart.is_none() && args.what == What::DiskFull {
        // Without them the mounts are seen by all, and taken back at the end.
        let _seen_by_all = apart::own_mounts();
    }
    let mut bench = Bench::new(args, &home.path, apart)?;
    bench.cluster.start()?;
    bench.cluster.until("a whole cluster", Cluster::is_whole)?;
    let load = Load::start(&bench.cluster.clients, args.clients, args.rate())?;
    let mut runs = Runs::default();
    for run in 0..args.runs {
        match once(&mut bench, &load, args.what, run) {
            Ok((from, took)) => {
                say_run(args, run + 1, took);
                runs.away.push((from, from + took.as_secs_f64()));
                runs.whole.push(took.as_secs_f64() * 1e3);
            }
            Err(error) if error.is::<Interrupted>() => {
                runs.is_interrupted = true;
                bench.heal()?;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let told = load.end()?;
    bench.end()?;
    runs.by_snapshot = args.what.gives_up().then_some(bench.by_snapshot);
    let checked = check::check(&bench.directories(), &bench.gone, &told.answered)?;
    Ok(Document::of(args, place, &told, checked, runs))
}

/// How far it is, for whoever watches.
fn say_run(args: &Args, run: u32, took: Duration) {
    // Who does not listen misses nothing that the result has not.
    let _closed = writeln!(
        std::io::stderr().lock(),
        "drill {}: run {run} of {}, whole after {} ms",
        args.name(),
        args.runs,
        took.as_millis()
    );
}

/// One run: answers flow, something goes wrong, answers flow again.
fn once(bench: &mut Bench, load: &Load, what: What, run: u32) -> anyhow::Result<(f64, Duration)> {
    load.flow(processes::PATIENCE)?;
    let outcome = bench.trouble(what, run)?;
    load.flow(processes::PATIENCE)?;
    Ok(outcome)
}

/// The network that was asked for, or that can be had.
fn network(args: &Args) -> anyhow::Result<(Option<Apart>, Place)> {
    let loopback = |note| Place {
        network: "loopback",
        note,
    };
    let is_late = !args.delay.is_zero();
    if is_late && args.loss > 0 {
        return Err(Refusal::usage(
            "--delay is for loopback, and --loss for namespaces",
            "give one of them",
        )
        .into());
    }
    if args.network == Network::Loopback || (args.network == Network::Auto && is_late) {
        if args.loss > 0 {
            return Err(
                Refusal::usage("--loss wants namespaces", "without --network loopback").into(),
            );
        }
        return Ok((None, loopback(None)));
    }
    if is_late {
        return Err(Refusal::usage("--delay wants loopback", "--network loopback, or auto").into());
    }
    if let Some(why) = apart::obstacle() {
        if args.network == Network::Namespaces || args.loss > 0 {
            return Err(Refusal::environment(
                format!("no network namespaces here: {why}"),
                "run it as root with the program `ip` there, or --network loopback",
            )
            .into());
        }
        return Ok((None, loopback(Some(format!("no namespaces: {why}")))));
    }
    let apart = Apart::enter(bench::spaces(args))?;
    let place = Place {
        network: "namespaces",
        note: None,
    };
    Ok((Some(apart), place))
}

/// A directory that goes when the drill does, unless it was given.
struct Home {
    path: PathBuf,
    is_kept: bool,
}

impl Home {
    fn at(given: Option<&Path>, drill: &str) -> anyhow::Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => {
                let name = format!("lockstep-drill-{drill}-{}", std::process::id());
                std::env::temp_dir().join(name)
            }
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

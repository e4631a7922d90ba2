//! `lockstep cluster history`: who asked for what, when, and what came of it, from the log of one node.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;

use lockstep_engine::cluster::Administration;
use lockstep_engine::cluster::history::{Deed, Entry, Outcome, What, history};
use lockstep_journaler::Position;
use lockstep_perf::cluster_file::NodeFile;
use lockstep_perf::exit::Exit;
use lockstep_replicator::Gating;
use serde_json::{Value, json};

use crate::verb::Global;
use crate::verb::journal::{journal_in, print, refused};

/// What `--help` teaches.
pub(super) const LONG: &str = "Who asked for what, when, and what came of it, from the log of one node\n\n\
    Every change that an operator asks for stands in the log of every node, right in front of what came \
    of it. This reads the journal in a directory, also while a process has it; behind the last commit a \
    later leader may still replace what is there. Nothing is asked of a running cluster.\n\n\
    A row is a term (another leader; which node it was the log does not say), a word of an operator with \
    its outcome, or a change that nobody asked for over the clients' port. Who asked is a name that a \
    certificate or a token proved, or, as unauthenticated, `loopback`, an address, or the user and host \
    that forced a node on.";

/// Arguments of `lockstep cluster history`.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("where").required(true),
    after_help = "Examples:\n  lockstep cluster history --dir /var/lib/lockstep/1\n  \
        lockstep cluster history --node node1.toml --last 20\n  \
        lockstep cluster history --dir ./x --from 1000000 --format json\n\n\
        Exit codes: 0 done · 1 I/O · 2 bad arguments · 5 damaged"
)]
pub(super) struct Args {
    /// A node's directory
    #[arg(long, value_name = "DIR", group = "where")]
    dir: Option<PathBuf>,
    /// The file of a node of this machine, instead of --dir
    #[arg(long, value_name = "FILE", group = "where")]
    node: Option<PathBuf>,
    /// Read from this position on
    #[arg(long, value_name = "P", default_value_t = 0)]
    from: u64,
    /// Show nothing from this position on; it is read to the end all the same, for what came of it
    #[arg(long, value_name = "P")]
    to: Option<u64>,
    /// Only the last N rows
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

/// Reads and shows.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let directory = match (&args.dir, &args.node) {
        (Some(dir), _) => dir.clone(),
        (None, Some(file)) => NodeFile::read(file)?.directory,
        (None, None) => PathBuf::from("."),
    };
    let storage = journal_in(&directory)?;
    let (entries, ending) = history(&storage, Position(args.from)).map_err(refused)?;
    let rows = chosen(entries, args);
    let end = ending.tail.reached.position;
    let is_damaged = ending.fault.is_some() && ending.is_sealed;
    let damage = ending.fault.filter(|_| ending.is_sealed);
    print::result(
        global,
        || {
            json!({
                "verb": "cluster history",
                "directory": directory,
                "end": end.0,
                "damage": damage.map(|fault| fault.to_string()),
                "entries": rows.iter().map(as_json).collect::<Vec<_>>(),
            })
        },
        |out| {
            for row in &rows {
                text(out, row)?;
            }
            if rows.is_empty() {
                writeln!(out, "nothing was administered up to position {end}")?;
            }
            match damage {
                Some(fault) => writeln!(
                    out,
                    "stopped at position {end}: {fault}\n  hint: lockstep journal verify {}",
                    directory.display()
                ),
                None => Ok(()),
            }
        },
    )?;
    Ok(if is_damaged {
        Exit::Corrupt
    } else {
        Exit::Done
    })
}

fn chosen(entries: Vec<Entry>, args: &Args) -> VecDeque<Entry> {
    let (from, to) = (args.from, args.to.unwrap_or(u64::MAX));
    let mut rows: VecDeque<Entry> = entries
        .into_iter()
        .filter(|one| (from..to).contains(&one.position.0))
        .collect();
    let most = args.last.unwrap_or(usize::MAX);
    rows.drain(..rows.len().saturating_sub(most));
    rows
}

fn text(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let (position, time) = (entry.position, print::time_to_ms(entry.time_ns));
    write!(out, "{position:>12}  {time}  ")?;
    match &entry.what {
        What::Term { is_first: true } => writeln!(out, "read from here on, in term {}", entry.term),
        What::Term { is_first: false } => writeln!(out, "term {}: a new leader", entry.term),
        What::Asked { asked, outcome } => writeln!(
            out,
            "{} asked for {} ({}): {}",
            asked.who(),
            wish(asked),
            asked.known_by(),
            came(*outcome)
        ),
        What::Changed { deed, is_taken } => {
            let refused = if *is_taken { "" } else { ", not taken" };
            writeln!(out, "{}, nobody asked{refused}", deed_text(*deed))
        }
    }
}

/// What was asked for, as it is typed.
fn wish(asked: &Administration) -> String {
    let name = asked.action_name();
    match (asked.node, asked.argument) {
        (0, 0) => name,
        (0, number) => format!("{name} {number}"),
        (node, 0) => format!("{name} {node}"),
        (node, number) => format!("{name} {node}, epoch {number}"),
    }
}

fn came(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done { position } => format!("done at {position}"),
        Outcome::Refused { position } => {
            format!("not taken: the agreement refused the event at {position}")
        }
        Outcome::Term { term, position } => format!("term {term} from {position} on"),
        Outcome::NotDone => "not done: leadership ended first".to_owned(),
        Outcome::Open => "nothing yet in this log".to_owned(),
    }
}

fn deed_text(deed: Deed) -> String {
    match deed {
        Deed::Members(change) => change.to_string(),
        Deed::Gating(Gating::Degraded) => "degrade".to_owned(),
        Deed::Gating(Gating::Sites) => "gate".to_owned(),
        Deed::Version(version) => format!("version {version} of the logic"),
    }
}

fn as_json(entry: &Entry) -> Value {
    let (event, more) = match &entry.what {
        What::Term { is_first } => ("term", json!({ "is_first": is_first })),
        What::Asked { asked, outcome } => ("asked", asked_json(asked, *outcome)),
        What::Changed { deed, is_taken } => (
            "changed",
            json!({ "what": deed_text(*deed), "is_taken": is_taken }),
        ),
    };
    let mut all = json!({
        "position": entry.position.0,
        "time_ns": entry.time_ns,
        "term": entry.term,
        "event": event,
    });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn asked_json(asked: &Administration, outcome: Outcome) -> Value {
    let outcome = match outcome {
        Outcome::Done { position } => json!({ "is": "done", "position": position.0 }),
        Outcome::Refused { position } => json!({ "is": "refused", "position": position.0 }),
        Outcome::Term { term, position } => {
            json!({ "is": "term", "term": term, "position": position.0 })
        }
        Outcome::NotDone => json!({ "is": "not done" }),
        Outcome::Open => json!({ "is": "open" }),
    };
    json!({
        "who": asked.who(),
        "known_by": asked.known_by(),
        "action": asked.action_name(),
        "node": asked.node,
        "argument": asked.argument,
        "outcome": outcome,
    })
}

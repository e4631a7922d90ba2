//! `lockstep journal`: see, prove, mend and move what a journal wrote.
//!
//! The work is in `lockstep_journaler::tools`; here are the arguments, the
//! printing, and the exit codes: 0 also for a torn tail, which is reported; 1 for
//! I/O; 2 for a question that makes no sense; 5 for damage; 6 for a journal in use.

mod events;
mod look;
mod mend;
pub(super) mod print;
mod store;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lockstep_journaler::snapshots::SnapshotError;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::tools::ToolError;
use lockstep_perf::exit::{Exit, Refusal};

use super::Global;

/// Arguments of `lockstep journal`.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        lockstep journal inspect ./j\n  \
        lockstep journal verify ./j --parallel 2 --format json\n  \
        lockstep journal dump ./j --from 1000 --count 5\n  \
        lockstep journal tail ./j --follow\n\n\
        Exit codes: 0 done, also for a torn tail (reported, the next open cuts it) · 1 I/O · \
        2 bad command line · 5 corrupt · 6 in use"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(Debug, clap::Subcommand)]
enum JournalVerb {
    /// Segments, schema, positions and times, from headers and footers
    Inspect(look::InspectArgs),
    /// Figures: how many events of what, groups and their sizes; reads all frames
    Stats(look::StatsArgs),
    /// Check everything: CRCs, chain, positions, footers, snapshots; exit 5 for damage
    Verify(look::VerifyArgs),
    /// Print events with their field names, by the schema in the journal
    Dump(events::DumpArgs),
    /// Print the last events, and with --follow those to come
    Tail(events::TailArgs),
    /// Find an event by position or by time
    Seek(events::SeekArgs),
    /// Where two copies of one log stop being equal
    Diff(events::DiffArgs),
    /// Measure both ways to make a group durable here, and say which suits
    Probe(store::ProbeArgs),
    /// Mend damaged or missing segments from an archive, or from another node's copy
    Repair(mend::RepairArgs),
    /// Copy everything that holds into a new journal, with a mark where something is lost
    Salvage(mend::SalvageArgs),
    /// End the log at a position, and keep what goes in quarantine/
    Truncate(mend::TruncateArgs),
    /// Snapshots: list, verify, remove
    Snapshot(store::SnapshotArgs),
    /// Segments that are no longer needed: plan, apply, readers
    Retention(store::RetentionArgs),
    /// Copy sealed segments to an archive, compressed and verified by reading back
    Archive(store::ArchiveArgs),
    /// Bring archived segments back into a journal's directory
    Restore(store::RestoreArgs),
    /// Archive what is new and keep the list SHIPPED, for another place
    Ship(store::ShipArgs),
}

/// Does what was asked.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    match &args.verb {
        JournalVerb::Inspect(args) => look::inspect(args, global),
        JournalVerb::Stats(args) => look::stats(args, global),
        JournalVerb::Verify(args) => look::verify(args, global),
        JournalVerb::Dump(args) => events::dump(args, global),
        JournalVerb::Tail(args) => events::tail(args, global),
        JournalVerb::Seek(args) => events::seek(args, global),
        JournalVerb::Diff(args) => events::diff(args, global),
        JournalVerb::Probe(args) => store::probe(args, global),
        JournalVerb::Repair(args) => mend::repair(args, global),
        JournalVerb::Salvage(args) => mend::salvage(args, global),
        JournalVerb::Truncate(args) => mend::truncate(args, global),
        JournalVerb::Snapshot(args) => store::snapshot(args, global),
        JournalVerb::Retention(args) => store::retention(args, global),
        JournalVerb::Archive(args) => store::archive(args, global),
        JournalVerb::Restore(args) => store::restore(args, global),
        JournalVerb::Ship(args) => store::ship(args, global),
    }
}

/// The directory of a journal, or of an archive, which must exist.
pub(in crate::verb) fn disk(path: &Path) -> anyhow::Result<Disk> {
    Disk::at(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let hint = "name the directory that the engine or node was started on";
            Refusal::usage(format!("there is no directory {}", path.display()), hint).into()
        }
        io::ErrorKind::NotADirectory => {
            let hint = "name the directory that the segment files are in";
            Refusal::usage(format!("{} is not a directory", path.display()), hint).into()
        }
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    })
}

/// A directory with a journal in it, whole or not.
pub(in crate::verb) fn journal_in(path: &Path) -> anyhow::Result<Disk> {
    let storage = disk(path)?;
    let names = std::fs::read_dir(path)?
        .flatten()
        .map(|entry| entry.file_name());
    let is_of_journal = |name: std::ffi::OsString| {
        let name = Path::new(&name);
        name.extension().is_some_and(|end| end == "seg") || name == Path::new("journal.meta")
    };
    if names.into_iter().any(is_of_journal) {
        return Ok(storage);
    }
    let what = format!(
        "no journal in {}: neither segment files (NNNNNNNNNNNN.seg) nor journal.meta",
        path.display()
    );
    Err(Refusal::usage(
        what,
        "name the directory that the engine or node was started on",
    )
    .into())
}

/// A directory that something is copied to.
fn target(path: &Path) -> anyhow::Result<Disk> {
    if path.exists() {
        return disk(path);
    }
    let hint = format!(
        "mkdir -p {}; it is not made unasked: where a disk is not mounted, the copy would lie on another one",
        path.display()
    );
    Err(Refusal::usage(format!("there is no directory {}", path.display()), hint).into())
}

/// A copy that lies in the journal's own directory goes with it.
fn elsewhere(journal: &Path, copy: &Path) -> anyhow::Result<()> {
    if std::fs::canonicalize(journal)? != std::fs::canonicalize(copy)? {
        return Ok(());
    }
    let what = format!("{} is the journal's own directory", copy.display());
    Err(Refusal::usage(what, "name another directory, best on another disk").into())
}

/// Gives a tool's error its exit code.
pub(in crate::verb) fn refused(error: ToolError) -> anyhow::Error {
    let exit = match &error {
        ToolError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
            return anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        ToolError::Io { .. } | ToolError::Journal(_) => Exit::Failed,
        ToolError::InUse { .. } => Exit::Refused,
        error if error.is_damage() => Exit::Corrupt,
        _ => Exit::Usage,
    };
    Refusal::new(exit, error.to_string(), "").into()
}

fn refused_snapshot(error: SnapshotError) -> anyhow::Error {
    let exit = if error.is_damage() {
        Exit::Corrupt
    } else {
        Exit::Failed
    };
    Refusal::new(exit, error.to_string(), "").into()
}

/// A destructive verb: `--dry-run` shows what it would do, `--yes` does it.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Consent {
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it; without this, and without --dry-run, nothing is done
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

impl Consent {
    /// Whether only to rehearse; an error if neither was said.
    fn is_rehearsal(self, what: &str) -> anyhow::Result<bool> {
        if self.dry_run || self.yes {
            return Ok(self.dry_run);
        }
        let hint = "--dry-run shows what it would do, --yes does it";
        Err(Refusal::usage(
            format!("{what} changes the directory and wants --yes"),
            hint,
        )
        .into())
    }
}

/// How far a long work is, on stderr: on a terminal from the second second on, else
/// a line every ten.
struct Meter {
    what: &'static str,
    begun: Instant,
    told: Instant,
    is_terminal: bool,
    has_told: bool,
}

impl Meter {
    fn new(what: &'static str) -> Meter {
        let now = Instant::now();
        let is_terminal = io::stderr().is_terminal();
        Meter {
            what,
            begun: now,
            told: now,
            is_terminal,
            has_told: false,
        }
    }

    fn tell(&mut self, done: u64, all: u64) {
        let pause = if self.is_terminal {
            Duration::from_secs(1)
        } else {
            Duration::from_secs(10)
        };
        if self.told.elapsed() < pause || all == 0 {
            return;
        }
        self.told = Instant::now();
        self.has_told = true;
        let percent = u128::from(done) * 100 / u128::from(all);
        let seconds = self.begun.elapsed().as_secs();
        let (start, end) = if self.is_terminal {
            ("\r", "")
        } else {
            ("", "\n")
        };
        // Nobody may be reading; the work goes on.
        let _ = write!(
            io::stderr(),
            "{start}{}: {percent} % after {seconds} s{end}",
            self.what
        );
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.has_told && self.is_terminal {
            let _ = writeln!(io::stderr());
        }
    }
}

/// Bytes, with `k M G` (1000) or `Ki Mi Gi` (1024) behind.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => return Err(format!("the unit {other:?} is none of k M G Ki Mi Gi")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a number"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "more than 2^64 bytes".to_owned())
}

/// A duration: `250ms 30s 20m 2h 7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a number"))?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    let duration = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        other => return Err(format!("the unit {other:?} is none of ms s m h d")),
    };
    duration.ok_or_else(|| "longer than 2^64 seconds".to_owned())
}

/// The directory of a journal, for every verb.
#[derive(Debug, Clone, clap::Args)]
struct Journal {
    /// The journal's directory
    dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_take_their_units() {
        assert_eq!(bytes("4Ki"), Ok(4096));
        assert_eq!(bytes("2G"), Ok(2_000_000_000));
        assert_eq!(bytes("17"), Ok(17));
        assert!(bytes("4Q").is_err());
        assert!(bytes("99999999999G").is_err());
        assert_eq!(duration("20m"), Ok(Duration::from_secs(1200)));
        assert!(duration("20").is_err());
    }
}

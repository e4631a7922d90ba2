//! `snapshot`, `retention`, `archive`, `restore`, `ship`, `probe`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use lockstep_journaler::archive::{Archive, Archived};
use lockstep_journaler::directory::MetaFound;
use lockstep_journaler::retention::{self, Needs, Readers};
use lockstep_journaler::snapshots::{Manifest, SnapshotError, Snapshots};
use lockstep_journaler::storage::Disk;
use lockstep_journaler::tools::{Catalog, probe, seal};
use lockstep_journaler::{Position, SegmentId, ship};
use lockstep_perf::args::quantity::counted;
use lockstep_perf::exit::{Exit, Refusal};
use serde_json::{Value, json};

use super::{
    Consent, Journal, Meter, bytes, disk, duration, elsewhere, journal_in, print, refused,
    refused_snapshot, target,
};
use crate::verb::Global;

/// Arguments of `journal snapshot`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, clap::Subcommand)]
enum SnapshotVerb {
    /// All finished snapshots, newest first, by their manifests
    List(Journal),
    /// Load snapshots to the last byte; exit 5 if one does not hold
    Verify {
        #[command(flatten)]
        journal: Journal,
        /// Only this one
        #[arg(long)]
        position: Option<u64>,
        /// Threads that decompress
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
        parallel: u16,
    },
    /// Remove one snapshot
    Remove {
        #[command(flatten)]
        journal: Journal,
        /// Which
        #[arg(long)]
        position: u64,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Does what was asked about snapshots.
pub(super) fn snapshot(args: &SnapshotArgs, global: &Global) -> anyhow::Result<Exit> {
    match &args.verb {
        SnapshotVerb::List(journal) => {
            let snapshots = Snapshots::new(disk(&journal.dir)?);
            let listed = snapshots.list().map_err(refused_snapshot)?;
            let rows = listed
                .into_iter()
                .map(|one| (one.position, one.manifest))
                .collect();
            show_snapshots(global, rows)
        }
        SnapshotVerb::Verify {
            journal,
            position,
            parallel,
        } => {
            let snapshots = Snapshots::new(disk(&journal.dir)?);
            let listed = snapshots.list().map_err(refused_snapshot)?;
            let mut rows = Vec::new();
            for one in listed {
                if position.is_none_or(|wanted| wanted == one.position.0) {
                    rows.push((
                        one.position,
                        snapshots.verify(one.position, usize::from(*parallel)),
                    ));
                }
            }
            if let (Some(position), true) = (position, rows.is_empty()) {
                let hint = "lockstep journal snapshot list shows what there is";
                return Err(Refusal::usage(
                    format!("there is no snapshot at position {position}"),
                    hint,
                )
                .into());
            }
            show_snapshots(global, rows)
        }
        SnapshotVerb::Remove {
            journal,
            position,
            consent,
        } => {
            let is_rehearsal = consent.is_rehearsal("snapshot remove")?;
            let snapshots = Snapshots::new(disk(&journal.dir)?);
            let listed = snapshots.list().map_err(refused_snapshot)?;
            if !listed.iter().any(|one| one.position.0 == *position) {
                return Err(Refusal::usage(
                    format!("there is no snapshot at position {position}"),
                    "",
                )
                .into());
            }
            if !is_rehearsal {
                snapshots
                    .remove(Position(*position))
                    .map_err(refused_snapshot)?;
            }
            let verb = if is_rehearsal {
                "would remove"
            } else {
                "removed"
            };
            print::result(
                global,
                || json!({ "dry_run": is_rehearsal, "removed": position }),
                |out| writeln!(out, "{verb} the snapshot at position {position}"),
            )?;
            Ok(Exit::Done)
        }
    }
}

fn show_snapshots(
    global: &Global,
    rows: Vec<(Position, Result<Manifest, SnapshotError>)>,
) -> anyhow::Result<Exit> {
    let row = |(position, found): &(Position, Result<Manifest, SnapshotError>)| match found {
        Ok(manifest) => json!({
            "position": position.0,
            "frames": manifest.reached.frames,
            "time_ns": manifest.time_ns,
            "term": manifest.term.0,
            "index": manifest.index,
            "chain": format!("{:08x}", manifest.chain),
            "state_hash": format!("{:016x}", manifest.state_hash),
            "bytes": manifest.raw_bytes(),
            "stored_bytes": manifest.stored_bytes(),
            "parts": manifest.parts.len(),
            "build": manifest.build,
        }),
        Err(error) => json!({ "position": position.0, "error": error.to_string() }),
    };
    print::result(
        global,
        || json!({ "snapshots": rows.iter().map(row).collect::<Vec<_>>() }),
        |out| {
            if rows.is_empty() {
                writeln!(out, "no snapshots")?;
            }
            for (position, found) in &rows {
                match found {
                    Ok(manifest) => writeln!(
                        out,
                        "{position:>20}  {}  {} in {} parts ({} stored)  state {:016x}  {}",
                        print::time(manifest.time_ns),
                        print::size(manifest.raw_bytes()),
                        manifest.parts.len(),
                        print::size(manifest.stored_bytes()),
                        manifest.state_hash,
                        manifest.build
                    )?,
                    Err(error) => writeln!(out, "{position:>20}  {error}")?,
                }
            }
            Ok(())
        },
    )?;
    let is_damaged = rows.iter().any(|(_, found)| found.is_err());
    Ok(if is_damaged {
        Exit::Corrupt
    } else {
        Exit::Done
    })
}

/// Arguments of `journal retention`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct RetentionArgs {
    #[command(subcommand)]
    verb: RetentionVerb,
}

#[derive(Debug, clap::Subcommand)]
enum RetentionVerb {
    /// What may go, and what holds the rest
    Plan(NeedsArgs),
    /// Remove what may go
    Apply {
        #[command(flatten)]
        needs: NeedsArgs,
        #[command(flatten)]
        consent: Consent,
    },
    /// The readers that segments are kept for, and where each is
    Readers(Journal),
    /// Keep nothing for this reader any more
    Forget {
        #[command(flatten)]
        journal: Journal,
        /// Its name
        reader: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lockstep journal retention plan ./j --archive ./archive --keep-bytes 10Gi"
)]
struct NeedsArgs {
    #[command(flatten)]
    journal: Journal,
    /// Snapshots that are kept; each must pass a test load. Two at least
    #[arg(long, default_value_t = 2)]
    snapshots: usize,
    /// Keep what is not in this archive
    #[arg(long)]
    archive: Option<PathBuf>,
    /// Keep at least so many bytes of segments
    #[arg(long, value_parser = bytes)]
    keep_bytes: Option<u64>,
    /// Keep what is younger than this, by the time of the log at its end
    #[arg(long, value_parser = duration)]
    keep_for: Option<Duration>,
}

impl NeedsArgs {
    fn plan(&self) -> anyhow::Result<(Disk, retention::Plan)> {
        let storage = journal_in(&self.journal.dir)?;
        let catalog = Catalog::of_journal(&storage).map_err(refused)?;
        let archive = match &self.archive {
            None => None,
            Some(path) => Some(Archive::new(disk(path)?).mark(&catalog).map_err(refused)?),
        };
        let last_ns = catalog
            .sealed()
            .last()
            .map_or(0, |(_, _, footer)| footer.last_time_ns);
        let keep_after_ns = self
            .keep_for
            .map(|keep| last_ns.saturating_sub(u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX)));
        let needs = Needs {
            snapshot: Needs::of_snapshots(&storage, self.snapshots, 1).map_err(refused_snapshot)?,
            archive,
            readers: Readers::new(storage.clone()).list().map_err(refused)?,
            keep_after_ns,
            keep_bytes: self.keep_bytes,
        };
        let plan = retention::plan(&catalog, &needs);
        Ok((storage, plan))
    }
}

/// Does what was asked about retention.
pub(super) fn retention(args: &RetentionArgs, global: &Global) -> anyhow::Result<Exit> {
    match &args.verb {
        RetentionVerb::Plan(needs) => {
            let (_, plan) = needs.plan()?;
            show_plan(global, &plan, true)
        }
        RetentionVerb::Apply { needs, consent } => {
            let is_rehearsal = consent.is_rehearsal("retention apply")?;
            let (storage, plan) = needs.plan()?;
            if !is_rehearsal {
                let mut meter = Meter::new("retention");
                retention::offline(&storage, &plan, &mut |done, all| meter.tell(done, all))
                    .map_err(refused)?;
            }
            show_plan(global, &plan, is_rehearsal)
        }
        RetentionVerb::Readers(journal) => {
            let readers = Readers::new(disk(&journal.dir)?).list().map_err(refused)?;
            let row = |(name, at): &(String, Position)| json!({ "name": name, "position": at.0 });
            print::result(
                global,
                || json!({ "readers": readers.iter().map(row).collect::<Vec<_>>() }),
                |out| {
                    readers
                        .iter()
                        .try_for_each(|(name, at)| writeln!(out, "{name} at position {at}"))
                },
            )?;
            Ok(Exit::Done)
        }
        RetentionVerb::Forget {
            journal,
            reader,
            consent,
        } => {
            let is_rehearsal = consent.is_rehearsal("retention forget")?;
            let readers = Readers::new(disk(&journal.dir)?);
            if !readers
                .list()
                .map_err(refused)?
                .iter()
                .any(|(name, _)| name == reader)
            {
                return Err(Refusal::usage(format!("there is no reader {reader:?}"), "").into());
            }
            if !is_rehearsal {
                readers.forget(reader).map_err(refused)?;
            }
            print::result(
                global,
                || json!({ "dry_run": is_rehearsal, "forgotten": reader }),
                |out| {
                    writeln!(
                        out,
                        "{} {reader}",
                        if is_rehearsal {
                            "would forget"
                        } else {
                            "forgot"
                        }
                    )
                },
            )?;
            Ok(Exit::Done)
        }
    }
}

fn show_plan(global: &Global, plan: &retention::Plan, is_rehearsal: bool) -> anyhow::Result<Exit> {
    let row = |one: &retention::Leaving| {
        json!({
            "file": one.segment.file_name(),
            "from": one.first_position.0,
            "to": one.end_position.0,
            "bytes": one.bytes,
        })
    };
    print::result(
        global,
        || {
            json!({
                "dry_run": is_rehearsal,
                "remove": plan.remove.iter().map(row).collect::<Vec<_>>(),
                "bytes": plan.bytes(),
                "limit": plan.limit.0,
                "held_by": plan.held_by.to_string(),
            })
        },
        |out| {
            let verb = if is_rehearsal {
                "would remove"
            } else {
                "removed"
            };
            for one in &plan.remove {
                let name = one.segment.file_name();
                writeln!(
                    out,
                    "{verb} {name}, positions {} to {}",
                    one.first_position, one.end_position
                )?;
            }
            writeln!(
                out,
                "{}, {}",
                counted(plan.remove.len(), "segment"),
                print::size(plan.bytes())
            )?;
            writeln!(out, "what stays is held by {}", plan.held_by)
        },
    )?;
    Ok(Exit::Done)
}

/// Arguments of `journal archive`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal archive ./j ./archive\n  lockstep journal archive ./j ./archive --seal\n  lockstep journal archive ./j ./archive --verify"
)]
pub(super) struct ArchiveArgs {
    #[command(flatten)]
    journal: Journal,
    /// The archive's directory, which must exist
    archive: PathBuf,
    /// Read all that is archived to the last byte, instead of adding to it
    #[arg(long)]
    verify: bool,
    /// Seal the newest segment first, so that it is archived too; nobody may have the journal open
    #[arg(long, conflicts_with = "verify")]
    seal: bool,
}

/// Archives sealed segments, or verifies an archive.
pub(super) fn archive(args: &ArchiveArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let archive = Archive::new(target(&args.archive)?);
    elsewhere(&args.journal.dir, &args.archive)?;
    if args.seal {
        seal::seal(&storage).map_err(refused)?;
    }
    let catalog = Catalog::of_journal(&storage).map_err(refused)?;
    let mut rows = Vec::new();
    if args.verify {
        for one in archive.list().map_err(refused)? {
            rows.push(archive.verify(one.segment).map_err(refused)?);
        }
    } else {
        let mut meter = Meter::new("archive");
        for (segment, ..) in catalog.sealed() {
            let archived = archive.put(&storage, segment, &mut |done, all| meter.tell(done, all));
            rows.push(archived.map_err(refused)?);
        }
    }
    let mark = archive.mark(&catalog).map_err(refused)?;
    print::result(
        global,
        || {
            json!({
                "segments": rows.iter().map(archived_json).collect::<Vec<_>>(),
                "mark": mark.map(|at| at.0),
                "unsealed_from": unsealed_from(&catalog),
            })
        },
        |out| {
            for one in &rows {
                writeln!(
                    out,
                    "{}  positions {} to {}  {} as {}",
                    one.segment.file_name(),
                    one.first_position,
                    one.end_position,
                    print::size(one.raw_bytes),
                    print::size(one.stored_bytes)
                )?;
            }
            match mark {
                Some(at) => writeln!(out, "the journal is archived up to position {at}")?,
                None => writeln!(out, "nothing of the journal is archived")?,
            }
            unsealed(out, &catalog)
        },
    )?;
    Ok(Exit::Done)
}

/// Where what is in no sealed segment begins.
fn unsealed_from(catalog: &Catalog) -> Option<u64> {
    let header = catalog.unsealed()?.header.as_ref().ok()?;
    Some(header.first_position)
}

/// What an archive does not take, and the way out.
fn unsealed(out: &mut dyn Write, catalog: &Catalog) -> io::Result<()> {
    let (Some(newest), Some(from)) = (catalog.unsealed(), unsealed_from(catalog)) else {
        return Ok(());
    };
    let name = newest.id.file_name();
    let how = match &catalog.in_use {
        Some(_) => "stop whoever has the journal open, and say --seal",
        None => "--seal does it now",
    };
    writeln!(
        out,
        "{name}, from position {from} on, is not full, so not sealed, and in no archive yet; {how}"
    )
}

fn archived_json(one: &Archived) -> Value {
    json!({
        "file": one.segment.file_name(),
        "from": one.first_position.0,
        "to": one.end_position.0,
        "bytes": one.raw_bytes,
        "stored_bytes": one.stored_bytes,
        "xxh3": format!("{:016x}", one.raw_hash),
    })
}

/// Arguments of `journal restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lockstep journal restore ./archive ./restored --segment 7")]
pub(super) struct RestoreArgs {
    /// The archive's directory
    archive: PathBuf,
    /// The directory to restore into, which must exist; nothing in it is overwritten
    into: PathBuf,
    /// Only these segments
    #[arg(long)]
    segment: Vec<u64>,
}

/// Brings archived segments back.
pub(super) fn restore(args: &RestoreArgs, global: &Global) -> anyhow::Result<Exit> {
    let archive = Archive::new(disk(&args.archive)?);
    let into = target(&args.into)?;
    let wanted = match args.segment.as_slice() {
        [] => archive
            .list()
            .map_err(refused)?
            .into_iter()
            .map(|one| one.segment)
            .collect(),
        some => some.iter().copied().map(SegmentId).collect::<Vec<_>>(),
    };
    let mut meter = Meter::new("restore");
    let mut rows = Vec::new();
    for id in wanted {
        let restored = archive.restore(id, &into, &mut |done, all| meter.tell(done, all));
        rows.push(restored.map_err(refused)?);
    }
    drop(meter);
    let is_journal = !matches!(
        Catalog::read(&into).map_err(refused)?.meta,
        MetaFound::Missing
    );
    let next = (!is_journal).then(|| {
        let into = args.into.display();
        format!("lockstep journal salvage {into} NEW")
    });
    print::result(
        global,
        || json!({ "restored": rows.iter().map(archived_json).collect::<Vec<_>>(), "next": next }),
        |out| {
            for one in &rows {
                let name = one.segment.file_name();
                writeln!(
                    out,
                    "restored {name}, positions {} to {}",
                    one.first_position, one.end_position
                )?;
            }
            match &next {
                Some(next) => writeln!(
                    out,
                    "these are segments and no journal yet: `{next}` makes one of them that opens, with an identity of its own, since what \
                     journal.meta said (term, vote, up to where it was durable) is not in an archive"
                ),
                None => Ok(()),
            }
        },
    )?;
    Ok(Exit::Done)
}

/// Arguments of `journal ship`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal ship ./j /mnt/standby/j\n  lockstep journal ship ./j /mnt/standby/j --verify"
)]
pub(super) struct ShipArgs {
    #[command(flatten)]
    journal: Journal,
    /// Where to: a directory that exists
    to: PathBuf,
    /// Read all that was shipped to the last byte, instead of adding to it
    #[arg(long)]
    verify: bool,
    /// Seal the newest segment first, so that it is shipped too; nobody may have the journal open
    #[arg(long, conflicts_with = "verify")]
    seal: bool,
}

/// Ships what is new, or verifies what was shipped.
pub(super) fn ship(args: &ShipArgs, global: &Global) -> anyhow::Result<Exit> {
    let (journal, to) = (journal_in(&args.journal.dir)?, target(&args.to)?);
    elsewhere(&args.journal.dir, &args.to)?;
    if args.seal {
        seal::seal(&journal).map_err(refused)?;
    }
    let mut meter = Meter::new("ship");
    let mut progress = |done, all| meter.tell(done, all);
    let shipped = if args.verify {
        ship::verify(&to, &mut progress).map(|segments| ship::Shipped { segments, new: 0 })
    } else {
        ship::ship(&journal, &to, &mut progress)
    };
    let shipped = shipped.map_err(refused)?;
    let end = shipped.segments.last().map(|last| last.end_position);
    // What was shipped can be verified where the journal is gone.
    let catalog = Catalog::read(&journal).map_err(refused)?;
    print::result(
        global,
        || {
            json!({
                "segments": shipped.segments.len(),
                "new": shipped.new,
                "end": end.map(|at| at.0),
                "unsealed_from": unsealed_from(&catalog),
            })
        },
        |out| {
            let end = end.map_or_else(|| "-".to_owned(), |at| at.to_string());
            writeln!(
                out,
                "{}, {} of them new, up to position {end}",
                counted(shipped.segments.len(), "segment"),
                shipped.new
            )?;
            unsealed(out, &catalog)
        },
    )?;
    Ok(Exit::Done)
}

/// Arguments of `journal probe`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lockstep journal probe /var/lib/exchange --duration 6s\n\n\
        Writes and removes a scratch file of 16 MiB; run it on a quiet machine, or more than once."
)]
pub(super) struct ProbeArgs {
    /// The directory that a journal is to be in
    dir: PathBuf,
    /// How long to measure in all
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
}

/// Measures.
pub(super) fn probe(args: &ProbeArgs, global: &Global) -> anyhow::Result<Exit> {
    let found = probe::probe(&disk(&args.dir)?, args.duration).map_err(refused)?;
    let advice = match found.advice() {
        probe::Advice::Sync => "sync",
        probe::Advice::Direct => "direct",
        probe::Advice::Either => "either (within a tenth of each other): sync, the default",
    };
    let latencies = |row: &probe::Latencies| {
        json!({
            "count": row.count, "min_ns": row.min, "p50_ns": row.p50, "p90_ns": row.p90,
            "p99_ns": row.p99, "max_ns": row.max,
        })
    };
    let row = |row: &probe::ProbeRow| json!({ "bytes": row.bytes, "sync": latencies(&row.sync), "direct": row.direct.as_ref().map(latencies) });
    print::result(
        global,
        || {
            json!({
                "file_system": found.medium.name,
                "is_durable": found.medium.is_durable,
                "rows": found.rows.iter().map(row).collect::<Vec<_>>(),
                "no_direct": found.no_direct,
                "advice": advice,
            })
        },
        |out| {
            writeln!(out, "file system {}", found.medium.name)?;
            if !found.medium.is_durable {
                writeln!(
                    out,
                    "WARNING: a sync here does not survive a power cut; use it for tests only"
                )?;
            }
            writeln!(
                out,
                "{:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>7}",
                "group", "engine", "min", "p50", "p90", "p99", "count"
            )?;
            for row in &found.rows {
                for (name, measured) in [("sync", Some(&row.sync)), ("direct", row.direct.as_ref())]
                {
                    let Some(m) = measured else { continue };
                    writeln!(
                        out,
                        "{:>10} {name:>8} {:>10} {:>10} {:>10} {:>10} {:>7}",
                        print::size(row.bytes as u64),
                        print::nanoseconds(m.min),
                        print::nanoseconds(m.p50),
                        print::nanoseconds(m.p90),
                        print::nanoseconds(m.p99),
                        m.count
                    )?;
                }
            }
            if let Some(why) = &found.no_direct {
                writeln!(out, "no direct access here: {why}")?;
            }
            writeln!(out, "advice: {advice}")
        },
    )?;
    Ok(Exit::Done)
}

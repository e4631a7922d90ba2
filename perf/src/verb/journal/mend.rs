//! `repair`, `truncate`, `salvage`: mending, offline and explicit.

use std::path::PathBuf;

use lockstep_journaler::storage::Disk;
use lockstep_journaler::tools::{repair, salvage, truncate};
use lockstep_journaler::verify::{self, Help, VerifyOptions};
use lockstep_journaler::{Position, SegmentId};
use lockstep_perf::args::quantity::counted;
use lockstep_perf::exit::Exit;
use serde_json::json;

use super::{Consent, Journal, Meter, disk, journal_in, print, refused};
use crate::verb::Global;

/// Arguments of `journal repair`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal repair ./j --from-archive ./archive --dry-run\n  \
        lockstep journal repair ./j --from-archive ./archive --segment 7 --yes\n  \
        lockstep journal repair ./j --from-peer ./copy-of-another-node --yes\n\n\
        An archive gives whole segments of this journal; another node's copy of the log gives the\n\
        frames that do not hold here, by position and chain. Damaged files are kept in quarantine/."
)]
#[group(id = "source", required = true, multiple = false, args = ["from_archive", "from_peer"])]
pub(super) struct RepairArgs {
    #[command(flatten)]
    journal: Journal,
    /// The archive's directory
    #[arg(long, value_name = "ARCHIVE")]
    from_archive: Option<PathBuf>,
    /// The directory of another node's journal, or a copy of it
    #[arg(long, value_name = "COPY")]
    from_peer: Option<PathBuf>,
    /// These segments; without it, all that verify says another copy would help
    #[arg(long)]
    segment: Vec<u64>,
    #[command(flatten)]
    consent: Consent,
}

/// Replaces damaged segments, or fills them.
pub(super) fn repair(args: &RepairArgs, global: &Global) -> anyhow::Result<Exit> {
    let is_rehearsal = args.consent.is_rehearsal("repair")?;
    let journal = journal_in(&args.journal.dir)?;
    let mut segments: Vec<SegmentId> = args.segment.iter().copied().map(SegmentId).collect();
    if segments.is_empty() {
        let mut meter = Meter::new("verify");
        let options = VerifyOptions {
            snapshots: true,
            ..VerifyOptions::default()
        };
        let report = verify::verify(&journal, &options, &mut |done, all| meter.tell(done, all));
        for finding in &report.map_err(refused)?.findings {
            for help in &finding.help {
                if let Help::RestoreSegment(id) = help
                    && !segments.contains(id)
                {
                    segments.push(*id);
                }
            }
        }
        segments.sort_unstable();
    }
    let mut meter = Meter::new("repair");
    let mut tell = |done, all| meter.tell(done, all);
    let repaired = match (&args.from_archive, &args.from_peer) {
        (Some(archive), _) => {
            let archive = disk(archive)?;
            repair::from_archive(&journal, &archive, &segments, is_rehearsal, &mut tell)
        }
        (None, Some(peer)) => {
            let peer = disk(peer)?;
            repair::from_peer(&journal, &peer, &segments, is_rehearsal, &mut tell)
        }
        (None, None) => Ok(Vec::new()),
    };
    drop(meter);
    let repaired = repaired.map_err(refused)?;
    let row = |one: &repair::Repaired| {
        json!({
            "file": one.segment.file_name(),
            "from": one.first_position.0,
            "to": one.end_position.0,
            "kept_as": one.kept_as,
            "frames_taken": one.frames_taken,
        })
    };
    print::result(
        global,
        || json!({ "dry_run": is_rehearsal, "repaired": repaired.iter().map(row).collect::<Vec<_>>() }),
        |out| {
            if repaired.is_empty() {
                writeln!(out, "nothing to repair")?;
            }
            for one in &repaired {
                let verb = if is_rehearsal {
                    "would replace"
                } else {
                    "replaced"
                };
                let kept = one
                    .kept_as
                    .as_ref()
                    .map_or_else(String::new, |kept| format!(", kept as {kept}"));
                let name = one.segment.file_name();
                let taken = one.frames_taken.map_or_else(String::new, |frames| {
                    format!(", {} of it from the copy", counted(frames, "frame"))
                });
                writeln!(
                    out,
                    "{verb} {name}, positions {} to {}{taken}{kept}",
                    one.first_position, one.end_position
                )?;
            }
            Ok(())
        },
    )?;
    Ok(Exit::Done)
}

/// Arguments of `journal truncate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal truncate ./j --at 1000 --dry-run\n  \
        lockstep journal truncate ./j --at 1000 --yes\n\n\
        What goes is kept in quarantine/: whole segments, and a copy of the one that is shortened.\n\
        Events that were acknowledged may be among it: prefer repair --from-archive."
)]
pub(super) struct TruncateArgs {
    #[command(flatten)]
    journal: Journal,
    /// The log ends here: behind the last event before this position
    #[arg(long)]
    at: u64,
    #[command(flatten)]
    consent: Consent,
}

/// Gives up the end of the log.
pub(super) fn truncate(args: &TruncateArgs, global: &Global) -> anyhow::Result<Exit> {
    let is_rehearsal = args.consent.is_rehearsal("truncate")?;
    let storage = journal_in(&args.journal.dir)?;
    let done = truncate::truncate(&storage, Position(args.at), is_rehearsal).map_err(refused)?;
    let files: Vec<String> = done.segments.iter().map(|id| id.file_name()).collect();
    print::result(
        global,
        || {
            json!({
                "dry_run": is_rehearsal,
                "end": done.reached.position.0,
                "frames": done.reached.frames,
                "file": done.segment.file_name(),
                "offset": done.offset,
                "kept_as": done.kept_as,
                "segments": files,
            })
        },
        |out| {
            let (ends, goes) = if is_rehearsal {
                ("would end", "would go")
            } else {
                ("ends", "went")
            };
            writeln!(
                out,
                "the log {ends} at position {}, in {} at offset {}",
                done.reached.position,
                done.segment.file_name(),
                done.offset
            )?;
            writeln!(out, "a copy of that segment: {}", done.kept_as)?;
            files
                .iter()
                .try_for_each(|file| writeln!(out, "{file} {goes} to quarantine/"))
        },
    )?;
    Ok(Exit::Done)
}

/// Arguments of `journal salvage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lockstep journal salvage ./j ./salvaged\n\n\
        The damaged journal is not changed. Positions stay what they were; where events are lost\n\
        the new journal has a gap frame, and its identity is its own.")]
pub(super) struct SalvageArgs {
    #[command(flatten)]
    journal: Journal,
    /// The new journal's directory; created if it is missing, and it must hold no journal
    out: PathBuf,
    /// Also where a sync does not survive a power cut: tmpfs, overlay and the like
    #[arg(long)]
    r#unsafe: bool,
}

/// Copies what holds.
pub(super) fn salvage(args: &SalvageArgs, global: &Global) -> anyhow::Result<Exit> {
    let journal = journal_in(&args.journal.dir)?;
    let into = Disk::create(&args.out)?;
    let mut meter = Meter::new("salvage");
    let salvaged = salvage::salvage(&journal, &into, args.r#unsafe, &mut |done, all| {
        meter.tell(done, all)
    });
    drop(meter);
    let salvaged = salvaged.map_err(refused)?;
    let gap = |(from, to): &(Position, Position)| json!({ "from": from.0, "to": to.0 });
    print::result(
        global,
        || {
            json!({
                "frames": salvaged.frames,
                "events": salvaged.events,
                "from": salvaged.from.0,
                "to": salvaged.to.0,
                "gaps": salvaged.gaps.iter().map(gap).collect::<Vec<_>>(),
            })
        },
        |out| {
            writeln!(
                out,
                "salvaged {} in {}, positions {} to {}",
                counted(salvaged.events, "event"),
                counted(salvaged.frames, "frame"),
                salvaged.from,
                salvaged.to
            )?;
            for (from, to) in &salvaged.gaps {
                writeln!(out, "lost: positions {from} to {to}")?;
            }
            Ok(())
        },
    )?;
    Ok(Exit::Done)
}

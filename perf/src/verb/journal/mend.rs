//! `repair`: what changes a journal, offline and explicit.

use std::path::PathBuf;

use lockstep_journaler::SegmentId;
use lockstep_journaler::tools::repair;
use lockstep_journaler::verify::{self, Help, VerifyOptions};
use lockstep_perf::exit::Exit;
use serde_json::json;

use super::{Consent, Journal, Meter, disk, print, refused};
use crate::verb::Global;

/// Arguments of `journal repair`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal repair ./j --from-archive ./archive --dry-run\n  \
        lockstep journal repair ./j --from-archive ./archive --segment 7 --yes\n\n\
        Damaged files are moved to quarantine/ in the journal's directory, never removed."
)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    journal: Journal,
    /// The archive's directory
    #[arg(long)]
    from_archive: PathBuf,
    /// These segments; without it, all that verify says an archived copy would help
    #[arg(long)]
    segment: Vec<u64>,
    #[command(flatten)]
    consent: Consent,
}

/// Replaces damaged segments.
pub(super) fn repair(args: &RepairArgs, global: &Global) -> anyhow::Result<Exit> {
    let is_rehearsal = args.consent.is_rehearsal("repair")?;
    let (journal, archive) = (disk(&args.journal.dir)?, disk(&args.from_archive)?);
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
    let repaired = repair::from_archive(
        &journal,
        &archive,
        &segments,
        is_rehearsal,
        &mut |done, all| {
            meter.tell(done, all);
        },
    );
    drop(meter);
    let repaired = repaired.map_err(refused)?;
    let row = |one: &repair::Repaired| {
        json!({
            "file": one.segment.file_name(),
            "from": one.first_position.0,
            "to": one.end_position.0,
            "kept_as": one.kept_as,
        })
    };
    print::result(
        global.format,
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
                writeln!(
                    out,
                    "{verb} {name}, positions {} to {}{kept}",
                    one.first_position, one.end_position
                )?;
            }
            Ok(())
        },
    )?;
    Ok(Exit::Done)
}

//! `inspect`, `stats`, `verify`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use lockstep_journaler::schema::Schema;
use lockstep_journaler::segment::{SegmentFooter, SegmentHeader};
use lockstep_journaler::tools::{Catalog, CatalogSegment, stats};
use lockstep_journaler::verify::{Finding, Help, Report, Severity, Verdict, VerifyOptions};
use lockstep_journaler::{Position, verify};
use lockstep_perf::args::quantity::counted;
use lockstep_perf::exit::Exit;
use serde_json::{Value, json};

use super::{Journal, Meter, journal_in, print, refused};
use crate::verb::Global;

/// Arguments of `journal inspect`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal inspect ./j\n  lockstep journal inspect ./j --fields"
)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    journal: Journal,
    /// Show the fields of every kind of event too
    #[arg(long)]
    fields: bool,
}

/// Shows what headers and footers say.
pub(super) fn inspect(args: &InspectArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let catalog = Catalog::of_journal(&storage).map_err(refused)?;
    print::result(
        global,
        || inspect_json(&catalog),
        |out| inspect_text(out, &catalog, args.fields),
    )?;
    let is_whole = |segment: &CatalogSegment| {
        segment.is_unused() || (segment.header.is_ok() && segment.schema.is_ok())
    };
    Ok(if catalog.segments.iter().all(is_whole) {
        Exit::Done
    } else {
        Exit::Corrupt
    })
}

fn state(segment: &CatalogSegment) -> String {
    match (&segment.header, &segment.footer) {
        _ if segment.is_unused() => "unused".to_owned(),
        (Err(fault), _) => format!("DAMAGED: {fault}"),
        (Ok(_), Some(_)) => "sealed".to_owned(),
        (Ok(_), None) => "open".to_owned(),
    }
}

fn inspect_text(out: &mut dyn Write, catalog: &Catalog, fields: bool) -> io::Result<()> {
    let header = catalog
        .segments
        .iter()
        .find_map(|one| one.header.as_ref().ok());
    if let Some(header) = header {
        writeln!(out, "log        {}", print::identity(&header.log_id))?;
        writeln!(out, "journal    {}", print::identity(&header.journal_id))?;
        writeln!(
            out,
            "format     {}, engine {}",
            header.format,
            engine_name(header)
        )?;
    }
    if let Some(schema) = catalog
        .segments
        .iter()
        .rev()
        .find_map(|one| one.schema.as_ref().ok())
    {
        writeln!(
            out,
            "schema     {} version {}, {} kinds, {} bytes an event",
            schema.name,
            schema.version,
            schema.kinds.len(),
            schema.event_size
        )?;
        if fields {
            schema_text(out, schema)?;
        }
    }
    writeln!(
        out,
        "\n{:<17} {:>10} {:>14} {:>14} {:>10}  {:<30} state",
        "segment", "size", "from", "to", "frames", "first time"
    )?;
    for segment in &catalog.segments {
        let from = segment
            .header
            .as_ref()
            .ok()
            .map(|header| header.first_position);
        let footer = segment.footer.as_ref();
        let shown = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        writeln!(
            out,
            "{:<17} {:>10} {:>14} {:>14} {:>10}  {:<30} {}",
            segment.id.file_name(),
            print::size(segment.length),
            shown(from),
            shown(footer.map(|footer| footer.end_position)),
            shown(footer.map(|footer| footer.frames)),
            print::time(footer.map_or(0, |footer| footer.first_time_ns)),
            state(segment)
        )?;
        if !segment.is_unused()
            && let Err(fault) = &segment.schema
        {
            writeln!(out, "    {fault}")?;
        }
    }
    Ok(())
}

fn schema_text(out: &mut dyn Write, schema: &Schema) -> io::Result<()> {
    for field in schema.header.iter() {
        writeln!(out, "  {:>4}  {field}", field.offset)?;
    }
    for kind in schema.kinds.iter() {
        writeln!(out, "  {} = {}", kind.number, kind.name)?;
        for field in kind.fields.iter() {
            writeln!(out, "  {:>6}  {field}", field.offset)?;
        }
    }
    Ok(())
}

fn engine_name(header: &SegmentHeader) -> &'static str {
    match header.engine {
        1 => "sync",
        2 => "direct",
        _ => "unknown",
    }
}

fn inspect_json(catalog: &Catalog) -> Value {
    let header = catalog
        .segments
        .iter()
        .find_map(|one| one.header.as_ref().ok());
    json!({
        "log": header.map(|header| print::identity(&header.log_id)),
        "journal": header.map(|header| print::identity(&header.journal_id)),
        "segments": catalog.segments.iter().map(segment_json).collect::<Vec<_>>(),
    })
}

fn segment_json(segment: &CatalogSegment) -> Value {
    let footer = |read: fn(&SegmentFooter) -> u64| segment.footer.as_ref().map(read);
    let header = segment.header.as_ref().ok();
    json!({
        "segment": segment.id.0,
        "file": segment.id.file_name(),
        "bytes": segment.length,
        "state": state(segment),
        "engine": header.map(engine_name),
        "from": header.map(|header| header.first_position),
        "to": footer(|footer| footer.end_position),
        "frames": footer(|footer| footer.frames),
        "groups": footer(|footer| footer.groups),
        "data_end": footer(|footer| footer.data_end),
        "first_time_ns": footer(|footer| footer.first_time_ns),
        "last_time_ns": footer(|footer| footer.last_time_ns),
        "chain": segment.footer.map(|footer| format!("{:08x}", footer.chain)),
        "schema": segment.schema.as_ref().ok().map(schema_json),
        "schema_fault": segment.schema.as_ref().err().filter(|_| !segment.is_unused()).map(ToString::to_string),
    })
}

fn schema_json(schema: &Schema) -> Value {
    let fields = |fields: &[lockstep_journaler::schema::Field]| {
        let row = |field: &lockstep_journaler::schema::Field| json!({ "name": field.name, "offset": field.offset, "type": field.to_string() });
        fields.iter().map(row).collect::<Vec<_>>()
    };
    let kind = |kind: &lockstep_journaler::schema::Kind| json!({ "number": kind.number, "name": kind.name, "fields": fields(&kind.fields) });
    json!({
        "name": schema.name,
        "version": schema.version,
        "event_size": schema.event_size,
        "hash": format!("{:016x}", schema.hash()),
        "fields": fields(&schema.header),
        "kinds": schema.kinds.iter().map(kind).collect::<Vec<_>>(),
    })
}

/// Arguments of `journal stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lockstep journal stats ./j --format json")]
pub(super) struct StatsArgs {
    #[command(flatten)]
    journal: Journal,
}

/// Counts.
pub(super) fn stats(args: &StatsArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let mut meter = Meter::new("stats");
    let stats = stats::stats(&storage, &mut |done, all| meter.tell(done, all)).map_err(refused)?;
    drop(meter);
    print::result(global, || stats_json(&stats), |out| stats_text(out, &stats))?;
    Ok(Exit::Done)
}

fn stats_text(out: &mut dyn Write, stats: &stats::Stats) -> io::Result<()> {
    writeln!(
        out,
        "segments   {} ({} sealed), {}",
        stats.segments,
        stats.sealed,
        print::size(stats.file_bytes)
    )?;
    writeln!(
        out,
        "events     {} of {}, positions {} to {}",
        stats.events,
        print::size(stats.event_bytes),
        stats.from,
        stats.to
    )?;
    writeln!(
        out,
        "frames     {} in {}",
        stats.frames,
        counted(stats.groups, "group")
    )?;
    let overhead = (stats.data_bytes - stats.event_bytes.min(stats.data_bytes)) * 1000;
    let overhead = overhead.checked_div(stats.data_bytes).unwrap_or(0);
    writeln!(
        out,
        "data       {}, {}.{} % of it headers, marks and padding",
        print::size(stats.data_bytes),
        overhead / 10,
        overhead % 10
    )?;
    let span = stats.last_time_ns.saturating_sub(stats.first_time_ns);
    writeln!(
        out,
        "time       {} to {}",
        print::time(stats.first_time_ns),
        print::time(stats.last_time_ns)
    )?;
    let rate = |count: u64| (u128::from(count) * 1_000_000_000).checked_div(u128::from(span));
    if let (Some(events), Some(groups)) = (rate(stats.events), rate(stats.groups)) {
        writeln!(
            out,
            "rate       {events} events/s, {groups} groups/s over that time"
        )?;
    }
    writeln!(out, "openings   {}, terms {}", stats.openings, stats.terms)?;
    for (number, (name, count)) in &stats.kinds {
        writeln!(out, "kind       {number} {name}: {count}")?;
    }
    histogram(out, "events in a group", &stats.events_in_group)?;
    histogram(out, "bytes of a group", &stats.bytes_in_group)?;
    if stats.faults > 0 {
        writeln!(
            out,
            "FAULTS     {} places do not hold and were stepped over: lockstep journal verify",
            stats.faults
        )?;
    }
    Ok(())
}

fn histogram(out: &mut dyn Write, name: &str, groups: &BTreeMap<u64, u64>) -> io::Result<()> {
    let most = groups.values().max().copied().unwrap_or(1).max(1);
    writeln!(out, "{name}:")?;
    for (size, count) in groups {
        let bar = usize::try_from(count * 40 / most).unwrap_or(40);
        writeln!(out, "  <= {size:>10} {count:>12} {}", "#".repeat(bar))?;
    }
    Ok(())
}

fn stats_json(stats: &stats::Stats) -> Value {
    let table = |groups: &BTreeMap<u64, u64>| {
        groups
            .iter()
            .map(|(up_to, count)| json!({ "up_to": up_to, "groups": count }))
            .collect::<Vec<_>>()
    };
    let kind = |(number, (name, count)): (&u32, &(String, u64))| json!({ "number": number, "name": name, "events": count });
    json!({
        "segments": stats.segments,
        "sealed": stats.sealed,
        "file_bytes": stats.file_bytes,
        "data_bytes": stats.data_bytes,
        "event_bytes": stats.event_bytes,
        "groups": stats.groups,
        "frames": stats.frames,
        "events": stats.events,
        "from": stats.from.0,
        "to": stats.to.0,
        "first_time_ns": stats.first_time_ns,
        "last_time_ns": stats.last_time_ns,
        "openings": stats.openings,
        "terms": stats.terms,
        "events_in_group": table(&stats.events_in_group),
        "bytes_in_group": table(&stats.bytes_in_group),
        "kinds": stats.kinds.iter().map(kind).collect::<Vec<_>>(),
        "faults": stats.faults,
    })
}

/// Arguments of `journal verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal verify ./j\n  lockstep journal verify ./j --since 1000000 --parallel 2\n\n\
        Exit 0: clean, or a torn tail (reported). Exit 5: corrupt; each finding names file, offset,\n\
        expected, found, what survives behind it, and the commands that help."
)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    journal: Journal,
    /// Segments that are looked at at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Only what holds this position or comes behind it
    #[arg(long, default_value_t = 0)]
    since: u64,
    /// Leave the snapshots out
    #[arg(long)]
    no_snapshots: bool,
}

/// Checks everything.
pub(super) fn verify(args: &VerifyArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let options = VerifyOptions {
        threads: usize::from(args.parallel),
        since: Position(args.since),
        snapshots: !args.no_snapshots,
    };
    let mut meter = Meter::new("verify");
    let report = verify::verify(&storage, &options, &mut |done, all| meter.tell(done, all));
    drop(meter);
    let report = report.map_err(refused)?;
    let dir = args.journal.dir.display().to_string();
    print::result(
        global,
        || report_json(&report, &dir),
        |out| report_text(out, &report, &dir),
    )?;
    Ok(match report.verdict {
        Verdict::Clean | Verdict::TornTail => Exit::Done,
        Verdict::Corrupt => Exit::Corrupt,
    })
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::TornTail => "torn tail",
        Verdict::Corrupt => "CORRUPT",
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Torn => "torn",
        Severity::Corrupt => "corrupt",
    }
}

fn report_text(out: &mut dyn Write, report: &Report, dir: &str) -> io::Result<()> {
    writeln!(
        out,
        "{}: {} in {} and {}, positions {} to {}, {}, {}, {} read",
        verdict_name(report.verdict),
        counted(report.events, "event"),
        counted(report.frames, "frame"),
        counted(report.groups, "group"),
        report.from,
        report.to,
        counted(report.segments, "segment"),
        counted(report.snapshots.len(), "snapshot"),
        print::size(report.bytes)
    )?;
    for finding in &report.findings {
        finding_text(out, finding, dir)?;
    }
    if report.untold > 0 {
        writeln!(out, "and {} more of the kind", report.untold)?;
    }
    Ok(())
}

fn finding_text(out: &mut dyn Write, finding: &Finding, dir: &str) -> io::Result<()> {
    write!(
        out,
        "\n{} {}",
        severity_name(finding.severity),
        finding.file
    )?;
    if let Some(offset) = finding.offset {
        write!(out, " at offset {offset}")?;
    }
    if let Some(position) = finding.position {
        write!(out, ", position {position}")?;
    }
    writeln!(out, ":\n  {}", finding.what)?;
    if let Some((place, position)) = finding.resumes {
        writeln!(
            out,
            "  behind it the log goes on in {place} with position {position}"
        )?;
    } else if finding.severity == Severity::Corrupt && finding.position.is_some() {
        writeln!(out, "  behind it nothing in this file can be read")?;
    }
    for help in &finding.help {
        writeln!(out, "  help: {}", help_text(*help, dir))?;
    }
    Ok(())
}

fn help_text(help: Help, dir: &str) -> String {
    match help {
        Help::Open => {
            "nothing: opening the journal cuts it off, keeps a copy and reports it".to_owned()
        }
        Help::RestoreSegment(id) => {
            format!(
                "lockstep journal repair {dir} --from-archive ARCHIVE --segment {id} --yes   \
                 (or --from-peer COPY, another node's directory)"
            )
        }
        Help::TruncateAt(position) => format!(
            "lockstep journal truncate {dir} --at {position} --yes   (gives up what is behind)"
        ),
        Help::Salvage => format!("lockstep journal salvage {dir} OUT   (copies what holds)"),
        Help::RemoveSnapshot(position) => {
            format!("lockstep journal snapshot remove {dir} --position {position} --yes")
        }
    }
}

fn report_json(report: &Report, dir: &str) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": severity_name(finding.severity),
            "file": finding.file,
            "offset": finding.offset.map(|offset| offset.0),
            "position": finding.position.map(|position| position.0),
            "what": finding.what,
            "resumes": finding.resumes.map(|(place, position)| json!({
                "file": place.segment.file_name(),
                "offset": place.offset.0,
                "position": position.0,
            })),
            "help": finding.help.iter().map(|help| help_text(*help, dir)).collect::<Vec<_>>(),
        })
    };
    json!({
        "verdict": verdict_name(report.verdict).to_lowercase(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "untold": report.untold,
        "segments": report.segments,
        "groups": report.groups,
        "frames": report.frames,
        "events": report.events,
        "from": report.from.0,
        "to": report.to.0,
        "snapshots": report.snapshots.iter().map(|at| at.0).collect::<Vec<_>>(),
        "bytes": report.bytes,
    })
}

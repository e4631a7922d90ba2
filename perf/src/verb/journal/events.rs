//! `dump`, `tail`, `seek`, `diff`: events by the schema in the journal.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use lockstep_journaler::storage::{Disk, Storage as _};
use lockstep_journaler::tools::frames::{Ending, FoundFrame, Start, each_frame};
use lockstep_journaler::tools::{Catalog, ToolError, diff};
use lockstep_journaler::{Position, Schema};
use lockstep_perf::args::quantity::counted;
use lockstep_perf::exit::{Exit, Refusal};
use serde_json::{Map, Value, json};

use super::{Journal, Meter, journal_in, print, refused};
use crate::verb::{Format, Global};

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum As {
    /// A line each, fields by name
    Text,
    /// A JSON object a line
    Json,
    /// A table with a column for each field of any kind
    Csv,
    /// Frame headers and events as bytes
    Hex,
}

/// Arguments of `journal dump`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal dump ./j --from 1000 --count 5\n  \
        lockstep journal dump ./j --as csv --kind new > orders.csv\n  \
        lockstep journal dump ./j --as hex --from 0 --count 1"
)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    journal: Journal,
    /// The first event
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The position to stop before
    #[arg(long)]
    to: Option<u64>,
    /// At most so many events
    #[arg(long)]
    count: Option<u64>,
    /// Only events of this kind, by name or number
    #[arg(long)]
    kind: Option<String>,
    /// How to write them; --format json means json
    #[arg(long = "as", value_enum)]
    how: Option<As>,
}

/// Prints events.
pub(super) fn dump(args: &DumpArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let catalog = Catalog::of_journal(&storage).map_err(refused)?;
    let how = as_asked(args.how, global.format);
    let mut printer = Printer::new(how, &catalog, global.format);
    printer.kind.clone_from(&args.kind);
    printer.from = args.from;
    printer.to = args.to.unwrap_or(u64::MAX);
    printer.left = args.count.unwrap_or(u64::MAX);
    must_have(&catalog, args.from)?;
    let ending = printer.frames(&storage, &catalog, Start::Position(Position(args.from)));
    printer.out.flush()?;
    Ok(judged(&ending.map_err(refused)?, &args.journal))
}

fn as_asked(how: Option<As>, format: Format) -> As {
    match (how, format) {
        (Some(how), _) => how,
        (None, Format::Json) => As::Json,
        (None, Format::Text | Format::Quiet) => As::Text,
    }
}

/// A position that retention has taken, or that never was, is a question without an answer.
fn must_have(catalog: &Catalog, position: u64) -> anyhow::Result<()> {
    let first = catalog.first_position().unwrap_or_default();
    if position == 0 || position >= first.0 {
        return Ok(());
    }
    let what = format!("position {position} is no longer here: the journal begins at {first}");
    Err(Refusal::usage(
        what,
        "lockstep journal restore brings archived segments back",
    )
    .into())
}

/// Damage in a sealed segment is exit 5; what the open one ends with is `verify`'s to judge.
fn judged(ending: &Ending, journal: &Journal) -> Exit {
    let (Some(place), Some(fault)) = (ending.place, ending.fault) else {
        return Exit::Done;
    };
    let dir = journal.dir.display();
    let said = writeln!(
        io::stderr(),
        "stopped in {place}, position {}: {fault}\n  hint: lockstep journal verify {dir}",
        ending.tail.reached.position
    );
    // A closed stderr changes nothing about the journal.
    let _ = said;
    if ending.is_sealed {
        Exit::Corrupt
    } else {
        Exit::Done
    }
}

/// Writes the events it is given, as long as it wants more.
struct Printer {
    how: As,
    out: Box<dyn Write>,
    from: u64,
    to: u64,
    left: u64,
    kind: Option<String>,
    columns: Vec<String>,
    has_header: bool,
}

impl Printer {
    fn new(how: As, catalog: &Catalog, format: Format) -> Printer {
        let mut columns: Vec<String> = Vec::new();
        let schemas = catalog
            .segments
            .iter()
            .filter_map(|one| one.schema.as_ref().ok());
        for schema in schemas {
            let own = schema.kinds.iter().flat_map(|kind| kind.fields.iter());
            for field in schema.header.iter().chain(own) {
                let is_shown = field.kind != lockstep_journaler::schema::FieldType::Padding;
                if is_shown && !columns.iter().any(|column| *column == *field.name) {
                    columns.push(field.name.to_string());
                }
            }
        }
        Printer {
            how,
            out: match format {
                Format::Quiet => Box::new(io::sink()),
                Format::Text | Format::Json => Box::new(io::BufWriter::new(io::stdout())),
            },
            from: 0,
            to: u64::MAX,
            left: u64::MAX,
            kind: None,
            columns,
            has_header: false,
        }
    }

    fn frames(
        &mut self,
        storage: &Disk,
        catalog: &Catalog,
        start: Start,
    ) -> Result<Ending, ToolError> {
        each_frame(storage, catalog, start, &mut |frame| {
            self.frame(frame).map_err(|source| ToolError::Io {
                operation: "writing",
                name: "the output".to_owned(),
                source,
            })
        })
    }

    /// Whether it wants more.
    fn frame(&mut self, frame: &FoundFrame<'_>) -> io::Result<bool> {
        if self.how == As::Hex && self.left > 0 && frame.header.first_position < self.to {
            writeln!(self.out, "{} frame", frame.place)?;
            hex(&mut self.out, frame.header.as_bytes())?;
        }
        for (position, event) in frame.events() {
            if self.left == 0 || position.0 >= self.to {
                return Ok(false);
            }
            if position.0 >= self.from && self.wants(frame.schema, event) {
                self.event(position, frame, event)?;
                self.left -= 1;
            }
        }
        Ok(self.left > 0)
    }

    fn wants(&self, schema: Option<&Schema>, event: &[u8]) -> bool {
        let Some(wanted) = &self.kind else {
            return true;
        };
        schema.is_some_and(|schema| {
            let number = schema.kind_number(event).map(|number| number.to_string());
            print::kind_name(schema, event) == *wanted || number.as_ref() == Some(wanted)
        })
    }

    fn event(
        &mut self,
        position: Position,
        frame: &FoundFrame<'_>,
        event: &[u8],
    ) -> io::Result<()> {
        match (self.how, frame.schema) {
            (As::Hex, _) => {
                writeln!(self.out, "{position}")?;
                hex(&mut self.out, event)
            }
            (As::Text, Some(schema)) => self.text(position, schema, event),
            (As::Json, Some(schema)) => {
                let object = event_json(position, frame, schema, event);
                writeln!(self.out, "{object}")
            }
            (As::Csv, Some(schema)) => self.csv(position, frame, schema, event),
            // Without a schema the bytes are all there is.
            (As::Text | As::Csv, None) => {
                write!(self.out, "{position} ")?;
                event
                    .iter()
                    .try_for_each(|byte| write!(self.out, "{byte:02x}"))?;
                writeln!(self.out)
            }
            (As::Json, None) => {
                let bytes: String = event.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(
                    self.out,
                    "{}",
                    json!({ "position": position.0, "bytes": bytes })
                )
            }
        }
    }

    fn text(&mut self, position: Position, schema: &Schema, event: &[u8]) -> io::Result<()> {
        write!(self.out, "{position} {}", print::kind_name(schema, event))?;
        for (field, value) in schema.values(event) {
            write!(self.out, " {}={value}", field.name)?;
        }
        writeln!(self.out)
    }

    fn csv(
        &mut self,
        position: Position,
        frame: &FoundFrame<'_>,
        schema: &Schema,
        event: &[u8],
    ) -> io::Result<()> {
        if !self.has_header {
            self.has_header = true;
            let names: Vec<String> = self.columns.iter().map(|name| print::cell(name)).collect();
            writeln!(
                self.out,
                "position,frame_time_ns,kind_name,{}",
                names.join(",")
            )?;
        }
        let kind = print::cell(&print::kind_name(schema, event));
        write!(self.out, "{position},{},{kind}", frame.header.time_ns)?;
        let values: Vec<_> = schema.values(event).collect();
        for column in &self.columns {
            let value = values.iter().find(|(field, _)| *field.name == *column);
            let shown = value.map(|(_, value)| print::cell(&value.to_string()));
            write!(self.out, ",{}", shown.unwrap_or_default())?;
        }
        writeln!(self.out)
    }
}

fn event_json(position: Position, frame: &FoundFrame<'_>, schema: &Schema, event: &[u8]) -> Value {
    let fields: Map<String, Value> = schema
        .values(event)
        .map(|(field, value)| (field.name.to_string(), print::field(&value)))
        .collect();
    json!({
        "position": position.0,
        "time_ns": frame.header.time_ns,
        "term": frame.header.term,
        "kind": print::kind_name(schema, event),
        "fields": fields,
    })
}

fn hex(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for (at, line) in bytes.chunks(16).enumerate() {
        write!(out, "  {:04x} ", at * 16)?;
        line.iter()
            .try_for_each(|byte| write!(out, " {byte:02x}"))?;
        let shown = |byte: &u8| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '.'
            }
        };
        let text: String = line.iter().map(shown).collect();
        writeln!(out, "{:width$}  {text}", "", width = 3 * (16 - line.len()))?;
    }
    Ok(())
}

/// Arguments of `journal tail`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal tail ./j -n 20\n  lockstep journal tail ./j --follow --as json"
)]
pub(super) struct TailArgs {
    #[command(flatten)]
    journal: Journal,
    /// So many events from the end
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// Go on with those to come, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How to write them; --format json means json
    #[arg(long = "as", value_enum)]
    how: Option<As>,
}

/// How often a followed journal is looked at again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Prints the last events.
pub(super) fn tail(args: &TailArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let how = as_asked(args.how, global.format);
    let mut catalog = Catalog::of_journal(&storage).map_err(refused)?;
    let begin = last_segment_start(&catalog, args.lines);
    let ending = each_frame(&storage, &catalog, begin, &mut |_| Ok(true)).map_err(refused)?;
    let end = ending.tail.reached.position;
    let mut printer = Printer::new(how, &catalog, global.format);
    printer.from = end.0.saturating_sub(args.lines);
    let mut exit = judged(&ending, &args.journal);
    // Ends: when it is not to follow, or at damage, or with the process.
    loop {
        let start = Start::Position(Position(printer.from));
        let ending = printer.frames(&storage, &catalog, start).map_err(refused)?;
        printer.out.flush()?;
        printer.from = ending.tail.reached.position.0.max(printer.from);
        if !args.follow {
            return Ok(exit);
        }
        if ending.fault.is_some() && ending.is_sealed {
            exit = judged(&ending, &args.journal);
            return Ok(exit);
        }
        storage.pause(FOLLOW_PAUSE);
        catalog = Catalog::of_journal(&storage).map_err(refused)?;
    }
}

/// Where to start so that the last `lines` events are passed: the last sealed segment that
/// ends so far before the end of the sealed ones.
fn last_segment_start(catalog: &Catalog, lines: u64) -> Start {
    let end = catalog
        .sealed()
        .last()
        .map_or(0, |(_, _, footer)| footer.end_position);
    Start::Position(Position(end.saturating_sub(lines)))
}

/// Arguments of `journal seek`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep journal seek ./j --position 1000000\n  \
        lockstep journal seek ./j --time 1767225600000000000"
)]
pub(super) struct SeekArgs {
    #[command(flatten)]
    journal: Journal,
    /// The event with this number
    #[arg(long, required_unless_present = "time", conflicts_with = "time")]
    position: Option<u64>,
    /// The first event of the first frame at or behind this time, in nanoseconds since 1970
    #[arg(long)]
    time: Option<u64>,
}

/// Finds an event.
pub(super) fn seek(args: &SeekArgs, global: &Global) -> anyhow::Result<Exit> {
    let storage = journal_in(&args.journal.dir)?;
    let catalog = Catalog::of_journal(&storage).map_err(refused)?;
    let start = match (args.position, args.time) {
        (Some(position), _) => {
            must_have(&catalog, position)?;
            Start::Position(Position(position))
        }
        (None, time) => Start::Time(time.unwrap_or_default()),
    };
    let mut found = None;
    let ending = each_frame(&storage, &catalog, start, &mut |frame| {
        let at = args.position.unwrap_or(frame.header.first_position);
        if frame.header.count > 0 {
            found = frame_json(frame, Position(at));
        }
        Ok(found.is_none())
    })
    .map_err(refused)?;
    let Some(found) = found else {
        if judged(&ending, &args.journal) == Exit::Corrupt {
            return Ok(Exit::Corrupt);
        }
        let what = format!(
            "nothing there: the journal ends at position {}",
            ending.tail.reached.position
        );
        return Err(Refusal::usage(what, "lockstep journal inspect shows what there is").into());
    };
    print::result(global, || found.clone(), |out| seek_text(out, &found))?;
    Ok(Exit::Done)
}

fn frame_json(frame: &FoundFrame<'_>, at: Position) -> Option<Value> {
    let (position, event) = frame.events().find(|(position, _)| *position == at)?;
    let event = match frame.schema {
        Some(schema) => event_json(position, frame, schema, event),
        None => json!({ "position": position.0 }),
    };
    Some(json!({
        "file": frame.place.segment.file_name(),
        "offset": frame.place.offset.0,
        "frame": {
            "first_position": frame.header.first_position,
            "count": frame.header.count,
            "time_ns": frame.header.time_ns,
            "term": frame.header.term,
            "index": frame.header.index,
            "chain": format!("{:08x}", frame.header.header_crc()),
        },
        "event": event,
    }))
}

fn seek_text(out: &mut dyn Write, found: &Value) -> io::Result<()> {
    let frame = &found["frame"];
    writeln!(
        out,
        "{} at offset {}",
        found["file"].as_str().unwrap_or("?"),
        found["offset"]
    )?;
    writeln!(
        out,
        "frame of {} events from position {}, time {}, term {}, index {}, chain {}",
        frame["count"],
        frame["first_position"],
        print::time(frame["time_ns"].as_u64().unwrap_or(0)),
        frame["term"],
        frame["index"],
        frame["chain"].as_str().unwrap_or("?")
    )?;
    writeln!(out, "event {}", found["event"])
}

/// Arguments of `journal diff`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lockstep journal diff ./node1/j ./node2/j\n\nExit 5 if they differ."
)]
pub(super) struct DiffArgs {
    /// One journal's directory
    left: PathBuf,
    /// The other's
    right: PathBuf,
}

/// Compares two copies of one log.
pub(super) fn diff(args: &DiffArgs, global: &Global) -> anyhow::Result<Exit> {
    let (left, right) = (journal_in(&args.left)?, journal_in(&args.right)?);
    let mut meter = Meter::new("diff");
    let found =
        diff::diff(&left, &right, &mut |done, all| meter.tell(done, all)).map_err(refused)?;
    drop(meter);
    print::result(global, || diff_json(&found), |out| diff_text(out, &found))?;
    Ok(if found.first.is_some() {
        Exit::Corrupt
    } else {
        Exit::Done
    })
}

fn diff_text(out: &mut dyn Write, found: &diff::Difference) -> io::Result<()> {
    writeln!(
        out,
        "equal from position {} to {}: {}",
        found.from,
        found.equal_to,
        counted(found.frames, "frame")
    )?;
    match &found.first {
        None if found.left_end == found.right_end => writeln!(out, "both end there"),
        None => writeln!(
            out,
            "left ends at {}, right at {}",
            found.left_end, found.right_end
        ),
        Some(first) => {
            if let Some(event) = first.event {
                writeln!(out, "DIFFERENT from event {event} on")?;
            } else {
                writeln!(
                    out,
                    "DIFFERENT: the same events under different frame headers"
                )?;
            }
            for (name, side) in [("left ", &first.left), ("right", &first.right)] {
                writeln!(
                    out,
                    "  {name} {}: frame of {} from {}, time {}, term {}, chain {:08x}",
                    side.place,
                    side.header.count,
                    side.header.first_position,
                    side.header.time_ns,
                    side.header.term,
                    side.header.header_crc()
                )?;
            }
            Ok(())
        }
    }
}

fn diff_json(found: &diff::Difference) -> Value {
    let side = |side: &diff::Sample| {
        json!({
            "file": side.place.segment.file_name(),
            "offset": side.place.offset.0,
            "first_position": side.header.first_position,
            "count": side.header.count,
            "time_ns": side.header.time_ns,
            "term": side.header.term,
            "chain": format!("{:08x}", side.header.header_crc()),
        })
    };
    json!({
        "from": found.from.0,
        "equal_to": found.equal_to.0,
        "frames": found.frames,
        "left_end": found.left_end.0,
        "right_end": found.right_end.0,
        "first": found.first.as_ref().map(|first| json!({
            "event": first.event.map(|at| at.0),
            "left": side(&first.left),
            "right": side(&first.right),
        })),
    })
}

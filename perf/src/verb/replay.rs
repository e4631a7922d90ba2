//! `lockstep replay`: a log gone through again, and two versions of the exchange beside each
//! other.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_engine::replay::{Range, Replay, Speed, Stepped, Verdict, compare, position_as_of};
use lockstep_engine::runtime::clock::Stopwatch;
use lockstep_engine::schema::{Field, FieldType, Schema};
use lockstep_engine::{Kinds, Position};
use lockstep_exchange::exchange::Exchange;
use lockstep_exchange::logic::{Events, FaultyTick, Reports};
use lockstep_exchange::output::Output;
use lockstep_perf::args::quantity::{count, show_count, show_rate};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::interrupt;
use lockstep_perf::report::text::Table;
use serde_json::{Map, Value, json};

use super::journal::{journal_in, print};
use super::run::engine::refused;
use super::run::held;
use super::run::outputs::{LineWriter, OutputFile};
use super::run::tally::{Standing, Tally};
use super::{Format, Global};

/// Arguments of `lockstep replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        lockstep replay ./x\n  \
        lockstep replay ./x --to 1M --expect-hash 7c1f09aa00000000\n  \
        lockstep replay ./x --as-of 2012-06-21T09:45:00 --format json\n  \
        lockstep replay ./x --from 500 --step\n  \
        lockstep replay ./x --filter Executed | head\n  \
        lockstep replay ./x --compare faulty-tick\n\n\
        Exit codes: 0 done, or the versions agree · 3 they cannot be compared to the end · 4 they differ, \
        the first difference is shown · 5 log or hash differ from what is expected")]
pub(crate) struct Args {
    /// The journal's directory; it may be in use
    dir: PathBuf,
    /// Count and show from this position on; the state before it comes from a snapshot
    #[arg(long, default_value = "0", value_parser = count, value_name = "POSITION")]
    from: u64,
    /// End in front of this position
    #[arg(long, value_parser = count, value_name = "POSITION")]
    to: Option<u64>,
    /// End behind the last event of this time: YYYY-MM-DD[THH:MM:SS[.fraction]], or
    /// nanoseconds since 1970
    #[arg(long, value_parser = time, value_name = "TIME", conflicts_with = "to")]
    as_of: Option<u64>,
    /// max, or so many times the log's own pace: 1, 10x, 0.5
    #[arg(long, default_value = "max", value_parser = speed, value_name = "SPEED")]
    speed: Speed,
    /// Show each event with its outputs
    #[arg(long)]
    show: bool,
    /// The same, one with each line read from stdin; q ends
    #[arg(long, conflicts_with = "speed")]
    step: bool,
    /// Show events of these kinds, or with outputs of them: NewOrder,Executed
    #[arg(long, value_delimiter = ',', value_parser = kind, value_name = "KIND")]
    filter: Vec<String>,
    /// Write all outputs to a new file: .bin as they are, else a line of JSON each
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
    /// Exit 5 unless the exchange has this hash (logic_hash) at the end
    #[arg(long, value_parser = hash, value_name = "HEX")]
    expect_hash: Option<u64>,
    /// Run this version of the exchange beside the one that is: the first output that differs
    /// is shown, field by field
    #[arg(long, value_enum, value_name = "VERSION", conflicts_with_all = ["show", "step", "filter", "outputs", "expect_hash"])]
    compare: Option<Version>,
}

/// Versions of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Version {
    /// This one: is it deterministic?
    Standard,
    /// With a planted fault: trades settle one tick below the maker's price
    FaultyTick,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::FaultyTick => "faulty-tick",
        }
    }
}

fn hash(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no hash: 16 hexadecimal digits"))
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let wrong = || format!("{text:?} is no speed: max, or times the log's pace, as in 1, 10x, 0.5");
    let digits = text.strip_suffix('x').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 2 || !is_number(whole) || !is_number(fraction) {
        return Err(wrong());
    }
    let percent = format!("{whole}{fraction:0<2}");
    match percent.parse::<u32>() {
        Ok(percent @ 1..) => Ok(Speed::Percent(percent)),
        _ => Err(wrong()),
    }
}

/// A time of the log in nanoseconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .map_err(|_| format!("{text:?} is beyond 2^64 ns"));
    }
    let wrong = || {
        format!("{text:?} is no time: YYYY-MM-DD[THH:MM:SS[.fraction]], or nanoseconds since 1970")
    };
    let (day, clock) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let day = super::run::day(day)?;
    let (clock, fraction) = clock
        .trim_end_matches('Z')
        .split_once('.')
        .unwrap_or((clock.trim_end_matches('Z'), ""));
    let parts: Vec<u64> = clock
        .split(':')
        .map(|part| part.parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] = parts[..] else {
        return Err(wrong());
    };
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    Ok(day + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + fraction)
}

/// The name of a kind of event or output, as the schemas have it.
fn kind(text: &str) -> Result<String, String> {
    let (events, outputs) = (Events::schema(), Reports::schema());
    let names: Vec<String> = events
        .kinds
        .iter()
        .chain(outputs.kinds.iter())
        .map(|kind| kind.name.to_string())
        .filter(|name| !name.starts_with("lockstep."))
        .collect();
    let found = names.iter().find(|name| name.eq_ignore_ascii_case(text));
    found
        .cloned()
        .ok_or_else(|| format!("{text:?} is no kind: {}", names.join(", ")))
}

/// Goes through the log.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    // It is looked at before anything else is said of it.
    journal_in(&args.dir)?;
    let bounds = held::read(&args.dir)?.unwrap_or_default();
    let fresh = move || Exchange::new(bounds);
    let until = match args.as_of {
        Some(time) => Some(position_as_of::<Exchange>(&args.dir, time).map_err(refused)?),
        None => args.to.map(Position),
    };
    let range = Range {
        from: Position(args.from),
        until,
    };
    if until.is_some_and(|until| until < range.from) {
        let what = format!(
            "--from {} lies behind the end, {}",
            args.from,
            until.unwrap_or_default()
        );
        return Err(Refusal::usage(what, "positions count from 0").into());
    }
    if let Some(version) = args.compare {
        return compared(args, global, version, range, fresh);
    }
    let mut replay = Replay::open(&args.dir, fresh, range).map_err(refused)?;
    let mut tally = Tally::default();
    let output_file = args.outputs.as_deref().map(new_file).transpose()?;
    let (mut writer, mut written) = match output_file {
        Some(file) => {
            let (writer, written) = file.writer()?;
            (Some(writer), Some(written))
        }
        None => (None, None),
    };
    let mut take = |output: &Output| {
        tally.take(output);
        if let Some(writer) = &mut writer {
            writer.take(output);
        }
    };
    let mut is_interrupted = false;
    let took = if args.show || args.step || !args.filter.is_empty() || args.speed != Speed::Max {
        let _flag = interrupt::flag();
        let mut show = Show::new(args, global.format);
        let is_shown = args.show || args.step || !args.filter.is_empty();
        let mut pace = Pace::new(args.speed);
        // Ends: with the range, by a signal, or when somebody wants no more.
        while !interrupt::is_set() {
            let Some(stepped) = replay.step().map_err(refused)? else {
                break;
            };
            pace.wait_for(stepped.event.header.time);
            stepped.outputs.iter().for_each(&mut take);
            if is_shown && !show.event(&stepped)? {
                break;
            }
        }
        show.out.flush()?;
        is_interrupted = interrupt::is_set();
        pace.watch.elapsed()
    } else {
        replay.run(&mut take).map_err(refused)?.took
    };
    drop(writer);
    if let Some(fault) = written
        .as_mut()
        .and_then(super::run::outputs::Written::finish)
    {
        return Err(Refusal::new(Exit::Failed, fault, "").into());
    }
    let core = replay.core();
    let standing = Standing::of(core.position(), core.logic());
    let summary = Summed {
        directory: args.dir.display().to_string(),
        snapshot: replay.snapshot(),
        tally,
        standing,
        time_ns: core.time_ns(),
        seconds: took.as_secs_f64(),
    };
    print::result(
        global,
        || summary.json(),
        |out| out.write_all(summary.text().as_bytes()),
    )?;
    if let Some(expected) = args.expect_hash
        && expected != standing.logic_hash
    {
        let what = format!(
            "the logic hash at position {} is {:016x}, expected {expected:016x}",
            standing.position, standing.logic_hash
        );
        return Err(Refusal::new(Exit::Corrupt, what, "--to POSITION finds where it parts").into());
    }
    Ok(if is_interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

/// Refuses the log of another application.
fn new_file(path: &Path) -> anyhow::Result<OutputFile> {
    let file = OutputFile::open(path)?;
    if file.last.is_some() {
        let what = format!("{} has outputs already", path.display());
        return Err(Refusal::usage(what, "name a new file").into());
    }
    Ok(file)
}

fn compared(
    args: &Args,
    global: &Global,
    version: Version,
    range: Range,
    fresh: impl Fn() -> Exchange + Send + Sync + Copy + 'static,
) -> anyhow::Result<Exit> {
    let verdict = match version {
        Version::Standard => compare(&args.dir, fresh, fresh, range),
        Version::FaultyTick => compare(&args.dir, fresh, move || FaultyTick::from(fresh()), range),
    };
    let verdict = verdict.map_err(refused)?;
    print::result(
        global,
        || verdict_json(&args.dir, version, &verdict),
        |out| {
            let name = version.name();
            writeln!(out, "standard beside {name} on {}", args.dir.display())?;
            let Verdict::Different(difference) = &verdict else {
                return writeln!(out, "{verdict}");
            };
            let (position, index) = (difference.position, difference.index);
            writeln!(out, "different at position {position}, output {index}:")?;
            let mut table = Table::new("lll");
            table.row(["", "standard", name]);
            table.row(["kind", &difference.old_kind, &difference.new_kind]);
            for field in &difference.fields {
                table.row([&field.name, &field.old, &field.new]);
            }
            write!(out, "{table}")
        },
    )?;
    Ok(match verdict {
        Verdict::Same { .. } => Exit::Done,
        Verdict::Different(_) => Exit::Missed,
        Verdict::CannotTell { .. } => Exit::Undecided,
    })
}

fn verdict_json(directory: &Path, version: Version, verdict: &Verdict) -> Value {
    let mut all = Map::new();
    all.insert("verb".into(), "replay".into());
    all.insert("dir".into(), directory.display().to_string().into());
    all.insert("compare".into(), json!(["standard", version.name()]));
    match verdict {
        Verdict::Same {
            events,
            outputs,
            states_agree,
        } => {
            all.insert("verdict".into(), "same".into());
            all.insert("events".into(), (*events).into());
            all.insert("outputs".into(), (*outputs).into());
            all.insert("states_agree".into(), (*states_agree).into());
        }
        Verdict::Different(difference) => {
            all.insert("verdict".into(), "different".into());
            all.insert("position".into(), difference.position.0.into());
            all.insert("output".into(), difference.index.into());
            let kinds = [&difference.old_kind, &difference.new_kind];
            all.insert("kinds".into(), json!(kinds));
            let fields: Vec<Value> = difference
                .fields
                .iter()
                .map(|field| json!({ "name": field.name, "values": [field.old, field.new] }))
                .collect();
            all.insert("fields".into(), fields.into());
        }
        Verdict::CannotTell { position, why } => {
            all.insert("verdict".into(), "cannot tell".into());
            all.insert("position".into(), position.0.into());
            all.insert("why".into(), why.clone().into());
        }
    }
    Value::Object(all)
}

/// What it came to.
struct Summed {
    directory: String,
    snapshot: Option<Position>,
    tally: Tally,
    standing: Standing,
    time_ns: u64,
    seconds: f64,
}

impl Summed {
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    fn events_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.tally.events as f64 / self.seconds
        } else {
            0.0
        }
    }

    fn text(&self) -> String {
        let from = match self.snapshot {
            Some(snapshot) => format!("the snapshot at {}", show_count(snapshot.0)),
            None => "the beginning".to_owned(),
        };
        let mut text = format!("replay     {} from {from}\n", self.directory);
        let mut table = Table::new("lrl");
        self.tally.rows(&mut table);
        self.standing.rows(&mut table);
        text.push_str(&table.to_string());
        // A string takes everything.
        let _ = write!(
            text,
            "log time   {}\nthroughput {} over {:.2} s\n",
            print::time(self.time_ns),
            show_rate(self.events_per_second()),
            self.seconds
        );
        text
    }

    fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("verb".into(), "replay".into());
        all.insert("dir".into(), self.directory.clone().into());
        all.insert("snapshot".into(), json!(self.snapshot.map(|at| at.0)));
        self.tally.json(&mut all);
        self.standing.json(&mut all);
        all.insert("time_ns".into(), self.time_ns.into());
        let throughput = json!({
            "seconds": self.seconds,
            "events_per_second": self.events_per_second().round(),
        });
        all.insert("throughput".into(), throughput);
        Value::Object(all)
    }
}

/// Keeps the gaps between events as the log has them, so many times shorter.
struct Pace {
    watch: Stopwatch,
    percent: Option<u32>,
    first_ns: Option<u64>,
}

/// A pause is slept in parts of this length, so that a signal ends it.
const NAP: Duration = Duration::from_millis(20);

impl Pace {
    fn new(speed: Speed) -> Self {
        Self {
            watch: Stopwatch::start(),
            percent: match speed {
                Speed::Max => None,
                Speed::Percent(percent) => Some(percent),
            },
            first_ns: None,
        }
    }

    fn wait_for(&mut self, time_ns: u64) {
        // An event of the engine's own has no time where events bring theirs.
        let (Some(percent), 1..) = (self.percent, time_ns) else {
            return;
        };
        let first_ns = *self.first_ns.get_or_insert(time_ns);
        let since_ns = u128::from(time_ns.saturating_sub(first_ns)) * 100 / u128::from(percent);
        let due = Duration::from_nanos(u64::try_from(since_ns).unwrap_or(u64::MAX));
        // Ends: time passes, or a signal comes.
        while let Some(left) = due.checked_sub(self.watch.elapsed())
            && !left.is_zero()
            && !interrupt::is_set()
        {
            std::thread::park_timeout(left.min(NAP));
        }
    }
}

/// Shows events with their outputs.
struct Show<'a> {
    args: &'a Args,
    format: Format,
    events: Schema,
    lines: LineWriter,
    out: io::BufWriter<io::Stdout>,
}

impl<'a> Show<'a> {
    fn new(args: &'a Args, format: Format) -> Self {
        Self {
            args,
            format,
            events: Events::schema(),
            lines: LineWriter::new(),
            out: io::BufWriter::new(io::stdout()),
        }
    }

    /// Shows it if it is asked for; `false` if nothing more is wanted.
    fn event(&mut self, stepped: &Stepped<'_, Exchange>) -> io::Result<bool> {
        let event = bytemuck::bytes_of(&stepped.event);
        let name = print::kind_name(&self.events, event);
        let outputs: Vec<Map<String, Value>> = stepped
            .outputs
            .iter()
            .map(|output| self.lines.object(output))
            .collect();
        let is_wanted = |name: &str| self.args.filter.iter().any(|wanted| wanted == name);
        let of_kind = |output: &Map<String, Value>| {
            output
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(is_wanted)
        };
        if !self.args.filter.is_empty() && !is_wanted(&name) && !outputs.iter().any(of_kind) {
            return Ok(true);
        }
        match self.format {
            Format::Quiet => {}
            Format::Json => {
                let mut object = Map::new();
                object.insert("position".into(), stepped.position.0.into());
                object.insert("kind".into(), name.into());
                object.insert("code".into(), stepped.outcome.code.into());
                for (field, value) in self.events.values(event).filter(is_shown) {
                    object.insert(field.name.to_string(), print::field(&value));
                }
                object.insert("outputs".into(), json!(outputs));
                writeln!(self.out, "{}", Value::Object(object))?;
            }
            Format::Text => {
                let time = print::time(stepped.event.header.time);
                write!(self.out, "{} {time} {name}", stepped.position)?;
                for (field, value) in self.events.values(event).filter(is_shown).skip(1) {
                    write!(self.out, " {}={value}", field.name)?;
                }
                writeln!(self.out)?;
                for mut output in outputs {
                    let kind = output.remove("kind").unwrap_or_default();
                    for known in ["position", "index", "time"] {
                        output.remove(known);
                    }
                    write!(self.out, "    {}", kind.as_str().unwrap_or("?"))?;
                    for (name, value) in &output {
                        match value.as_str() {
                            Some(text) => write!(self.out, " {name}={text}")?,
                            None => write!(self.out, " {name}={value}")?,
                        }
                    }
                    writeln!(self.out)?;
                }
            }
        }
        if self.args.step {
            self.out.flush()?;
            let mut line = String::new();
            return Ok(io::stdin().lock().read_line(&mut line)? > 0 && line.trim() != "q");
        }
        Ok(true)
    }
}

/// Fields with something to say: no padding, and not what stands in front of the line.
fn is_shown((field, _): &(&Field, lockstep_engine::schema::Value<'_>)) -> bool {
    field.kind != FieldType::Padding && !matches!(&*field.name, "kind" | "version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_times_and_kinds_are_read() {
        assert_eq!(speed("max"), Ok(Speed::Max));
        assert_eq!(speed("1"), Ok(Speed::Percent(100)));
        assert_eq!(speed("10x"), Ok(Speed::Percent(1000)));
        assert_eq!(speed("0.5"), Ok(Speed::Percent(50)));
        for text in ["", "0", "fast", "1.234", "-1", "x"] {
            assert!(speed(text).is_err(), "{text}");
        }
        assert_eq!(time("1970-01-02"), Ok(86_400_000_000_000));
        assert_eq!(time("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(time("17"), Ok(17));
        for text in ["", "noon", "1970-01-01T25:00:00", "1970-01-01T00:00"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(kind("executed"), Ok("Executed".to_owned()));
        assert!(kind("lockstep.Beacon").is_err());
    }
}

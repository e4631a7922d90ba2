//! `lockstep top`: where a running engine is, who waits for whom, and how long a sync takes;
//! from the counters that it maps, without touching it.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use lockstep_engine::Clock;
use lockstep_engine::counters::{Counters, Live};
use lockstep_perf::args::quantity::{Units, duration, nanos, show_count, show_rate};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::ratio;
use lockstep_perf::machine::interrupt;
use lockstep_perf::report::text::Table;
use serde_json::{Map, Value, json};

use super::{Format, Global};

/// Arguments of `lockstep top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        lockstep top ./x\n  \
        lockstep top ./x --once --format json\n  \
        lockstep top ./x --every 200ms | tee top.txt\n\n\
        released  everything before this position is done here, and promised\n  \
        behind    how far the stage is behind what it follows\n  \
        held by   whom a full ring would wait for now, and so whoever publishes\n\n\
        Exit codes: 0 done · 2 there is no engine's directory · 6 nothing of that name was ever counted here")]
pub(crate) struct Args {
    /// The engine's directory
    dir: PathBuf,
    /// Look once
    #[arg(long)]
    once: bool,
    /// How often to look
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DUR")]
    every: Duration,
}

/// No look is shown more often: nobody reads faster.
const EVERY_MIN: Duration = Duration::from_millis(50);

/// Between the two looks that the first rates come from.
const FIRST: Duration = Duration::from_millis(200);

/// An engine that has counted nothing for so long has been killed, or stands still.
const SILENT: Duration = Duration::from_secs(5);

/// Looks until the engine ends, or a signal does it.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    if !args.dir.is_dir() {
        let what = format!("there is no directory {}", args.dir.display());
        return Err(Refusal::usage(what, "the directory that the engine was started on").into());
    }
    let live = Live::open(&args.dir).map_err(|error| {
        let what = format!("no engine has shown its counters in {}", args.dir.display());
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "start one: lockstep run --load generator --dir …".to_owned()
            }
            _ => error.to_string(),
        };
        Refusal::environment(what, hint)
    })?;
    let _flag = interrupt::flag();
    let is_terminal = io::stdout().is_terminal() && global.format == Format::Text;
    let every = args.every.max(EVERY_MIN);
    // A rate wants two looks.
    let mut before = Some(live.look()?).filter(|first| first.is_running);
    if before.is_some() {
        std::thread::park_timeout(FIRST);
    }
    let mut lines = 0;
    // Ends: after one look, with the engine, or by a signal.
    loop {
        let now = live.look()?;
        let now_ns = Clock::System.now_ns().unwrap_or(now.updated_ns);
        let look = Look {
            directory: args.dir.display().to_string(),
            now: &now,
            before: before.as_ref(),
            now_ns,
            units: global.units.into(),
        };
        let mut out = io::stdout().lock();
        match global.format {
            Format::Quiet => {}
            Format::Json => writeln!(out, "{}", look.json())?,
            Format::Text => {
                let text = look.text();
                if is_terminal && lines > 0 {
                    write!(out, "\x1b[{lines}A")?;
                }
                for line in text.lines() {
                    writeln!(out, "{line}{}", if is_terminal { "\x1b[K" } else { "" })?;
                }
                lines = text.lines().count();
                if !is_terminal && !args.once {
                    writeln!(out)?;
                }
            }
        }
        out.flush()?;
        drop(out);
        if args.once || !now.is_running {
            return Ok(Exit::Done);
        }
        before = Some(now);
        std::thread::park_timeout(every);
        if interrupt::is_set() {
            return Ok(Exit::Done);
        }
    }
}

/// One look, and the one before it.
struct Look<'a> {
    directory: String,
    now: &'a Counters,
    before: Option<&'a Counters>,
    now_ns: u64,
    units: Units,
}

impl Look<'_> {
    fn get(&self, name: &str) -> u64 {
        self.now.get(name).unwrap_or(0)
    }

    /// How fast a number rises, since the look before or else since the engine started.
    fn rate(&self, name: &str) -> Option<f64> {
        let now = self.now.get(name)?;
        let (first, since_ns) = match self.before {
            Some(before) => (before.get(name)?, before.updated_ns),
            None => return None,
        };
        let took_ns = self.now.updated_ns.saturating_sub(since_ns);
        (took_ns > 0).then(|| ratio(now.saturating_sub(first), 1) * 1e9 / ratio(took_ns, 1))
    }

    fn show_rate(&self, name: &str) -> String {
        self.rate(name).map_or_else(|| "-".to_owned(), show_rate)
    }

    fn released(&self, stage: &str) -> u64 {
        self.get(&format!("stage.{stage}.released"))
    }

    /// What the stage follows: other stages, or the ring.
    fn follows(&self, stage: &str) -> Vec<String> {
        let after: Vec<String> = self.now.after(stage).map(str::to_owned).collect();
        if after.is_empty() {
            vec!["ring".to_owned()]
        } else {
            after
        }
    }

    /// How far the stage may be by now: where the slowest that it follows is.
    fn allowed(&self, stage: &str) -> (String, u64) {
        let of = |name: String| {
            let at = if name == "ring" {
                self.get("ring.published")
            } else {
                self.released(&name)
            };
            (name, at)
        };
        let slowest = self
            .follows(stage)
            .into_iter()
            .map(of)
            .min_by_key(|(_, at)| *at);
        slowest.unwrap_or_else(|| ("ring".to_owned(), self.get("ring.published")))
    }

    /// Whom a producer would wait for.
    fn holder(&self) -> Option<&str> {
        let is_it = |stage: &&str| self.get(&format!("ring.gated_by.{stage}")) == 1;
        self.now.stages().find(is_it)
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(self.now_ns.saturating_sub(self.now.updated_ns))
    }

    fn state(&self) -> &'static str {
        match (self.get("engine.has_failed"), self.now.is_running) {
            (1.., _) => "failed",
            (0, true) if self.age() > SILENT => "silent: killed?",
            (0, true) => "running",
            (0, false) => "ended",
        }
    }

    fn text(&self) -> String {
        let up = Duration::from_nanos(self.now.updated_ns.saturating_sub(self.now.started_ns));
        let mut text = format!(
            "{}  pid {}  {}  up {} s  counted {} ago\n",
            self.directory,
            self.now.pid,
            self.state(),
            up.as_secs(),
            self.units.show(nanos(self.age()))
        );
        text.push_str(&self.cluster());
        let has_ring = self.now.get("ring.slots").is_some();
        if has_ring {
            text.push_str(&self.ring_text());
        }
        text.push_str(&self.journal_text());
        if has_ring {
            text.push_str(&self.logic_text());
        }
        text
    }

    fn ring_text(&self) -> String {
        let slots = self.get("ring.slots");
        let used = slots.saturating_sub(self.get("ring.free_slots"));
        // An empty ring holds nobody up.
        let holder = self.holder().filter(|_| used > 0).unwrap_or("nobody");
        let mut text = format!(
            "ring     {} of {} slots used, held by {holder}\n",
            show_count(used),
            show_count(slots)
        );
        let mut table = Table::new("lrrrl");
        table.row(["stage", "released", "behind", "rate", "follows"]);
        let rate = |name: &str| self.show_rate(name);
        let published = show_count(self.get("ring.published"));
        table.row([
            "(ring)",
            &published,
            "",
            &rate("ring.published"),
            "producers",
        ]);
        for stage in self.now.stages() {
            let at = self.released(stage);
            let (slowest, allowed) = self.allowed(stage);
            let follows = self.follows(stage);
            let marked: Vec<String> = follows
                .iter()
                .map(|name| {
                    // Of several, the one that it waits for.
                    if follows.len() > 1 && *name == slowest && allowed <= at {
                        format!("{name} (waits)")
                    } else {
                        name.clone()
                    }
                })
                .collect();
            table.row([
                stage,
                &show_count(at),
                &show_count(allowed.saturating_sub(at)),
                &rate(&format!("stage.{stage}.released")),
                &marked.join(", "),
            ]);
        }
        text.push_str(&table.to_string());
        text
    }

    fn journal_text(&self) -> String {
        let sync = self.get("journal.last_sync_ns");
        format!(
            "journal  durable {}  waits for room {}\nsyncs    {} ({})  the last took {}\n",
            show_count(self.get("journal.durable")),
            show_count(self.get("journal.waits_for_room")),
            show_count(self.get("journal.syncs")),
            self.show_rate("journal.syncs"),
            self.units.show(sync)
        )
    }

    fn logic_text(&self) -> String {
        let mut text = format!(
            "logic    refused {}  repeated {}  quarantined {}\n",
            show_count(self.get("logic.refused")),
            show_count(self.get("logic.repeated")),
            show_count(self.get("logic.quarantined"))
        );
        text.push_str(&format!(
            "outputs  {} ({})  spilled {}  consumers cut off {}\n",
            show_count(self.get("outputs.emitted")),
            self.show_rate("outputs.emitted"),
            show_count(self.get("outputs.spilled")),
            show_count(self.get("outputs.cut_consumers"))
        ));
        text.push_str(&format!(
            "shadow   {}, {} behind  newest snapshot {}\n",
            show_count(self.get("shadow.position")),
            show_count(
                self.get("logic.applied")
                    .saturating_sub(self.get("shadow.position"))
            ),
            show_count(self.get("snapshot.position"))
        ));
        text
    }

    /// What a node of a cluster counts besides.
    fn cluster(&self) -> String {
        let Some(node) = self.now.get("cluster.node") else {
            return String::new();
        };
        let term = self.get("cluster.term");
        let role = match (self.get("cluster.is_leading"), self.get("cluster.leader")) {
            (1.., _) if self.get("cluster.is_open") == 0 => "leads, its door closed".to_owned(),
            (1.., _) => "leads".to_owned(),
            (0, 0) => "knows no leader".to_owned(),
            (0, leader) => format!("follows node {leader}"),
        };
        let mut text = format!(
            "cluster  node {node} {role}, term {term}  committed {}  waiting {}\n",
            show_count(self.get("cluster.committed")),
            show_count(self.get("cluster.waiting"))
        );
        if self.get("cluster.passive") == 1 {
            text.push_str("passive  it journals, acknowledges and votes; nobody is answered\n");
        }
        let disputed = self.get("cluster.disputed");
        if disputed > 0 {
            text.push_str(&format!(
                "         states differ at {}: start the nodes that are off\n",
                show_count(disputed)
            ));
        }
        let stands_at = self.get("cluster.stands_at");
        if stands_at > 0 {
            text.push_str(&format!(
                "         the logic panicked at {}; a majority decides\n",
                show_count(stands_at)
            ));
        }
        let held = self.get("cluster.held_by_site");
        if held > 0 {
            text.push_str(&format!(
                "         frames that wait for the other site: {}\n",
                show_count(held)
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let stages: Map<String, Value> = self
            .now
            .stages()
            .map(|stage| {
                let at = self.released(stage);
                let (slowest, allowed) = self.allowed(stage);
                let value = json!({
                    "released": at,
                    "taken": self.get(&format!("stage.{stage}.taken")),
                    "behind": allowed.saturating_sub(at),
                    "follows": self.follows(stage),
                    "slowest": slowest,
                    "events_per_second": self.rate(&format!("stage.{stage}.released")),
                });
                (stage.to_owned(), value)
            })
            .collect();
        let counters: Map<String, Value> = self
            .now
            .rows
            .iter()
            .map(|row| (row.name.clone(), row.value.into()))
            .collect();
        json!({
            "verb": "top",
            "dir": self.directory,
            "pid": self.now.pid,
            "state": self.state(),
            "started_ns": self.now.started_ns,
            "updated_ns": self.now.updated_ns,
            "held_by": self.holder(),
            // Of a node of a cluster alone.
            "passive": self.now.get("cluster.passive").map(|yes| yes == 1),
            "stages": stages,
            "counters": counters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::counters::Counter;

    fn counters(rows: &[(&str, u64)]) -> Counters {
        Counters {
            pid: 7,
            started_ns: 1_000_000_000,
            updated_ns: 3_000_000_000,
            is_running: true,
            rows: rows
                .iter()
                .map(|(name, value)| Counter {
                    name: (*name).to_owned(),
                    value: *value,
                })
                .collect(),
        }
    }

    fn rows() -> Vec<(&'static str, u64)> {
        vec![
            ("ring.published", 18_446_744_073_709),
            ("ring.free_slots", 100),
            ("ring.slots", 65_536),
            ("stage.order.released", 18_446_744_073_700),
            ("stage.journal.released", 18_446_744_073_000),
            ("stage.journal.after.order", 1),
            ("stage.replicate.released", 18_446_744_072_000),
            ("stage.replicate.after.order", 1),
            ("stage.logic.released", 18_446_744_072_000),
            ("stage.logic.after.journal", 1),
            ("stage.logic.after.replicate", 1),
            ("ring.gated_by.logic", 1),
            ("journal.last_sync_ns", 412_000),
            ("journal.syncs", 18_446_744_073_709),
            ("logic.applied", 18_446_744_072_000),
        ]
    }

    #[test]
    fn of_a_node_without_a_logic_the_journal_is_shown() {
        let rows = [
            ("cluster.node", 3),
            ("cluster.passive", 1),
            ("journal.durable", 12_345),
        ];
        let now = counters(&rows);
        let look = Look {
            directory: "./x".to_owned(),
            now: &now,
            before: None,
            now_ns: 3_001_000_000,
            units: Units::Auto,
        };
        let text = look.text();
        assert!(text.contains("\npassive  it journals"), "{text}");
        assert!(text.contains("durable 12,345"), "{text}");
        assert!(!text.contains("ring") && !text.contains("logic"), "{text}");
        assert_eq!(look.json()["passive"], true);
    }

    #[test]
    fn a_node_says_whom_it_follows() {
        let mut rows = rows();
        rows.extend([
            ("cluster.node", 2),
            ("cluster.leader", 3),
            ("cluster.term", 7),
            ("cluster.committed", 18_446_744_073_000),
            ("cluster.disputed", 18_446_744_000_000),
            ("cluster.stands_at", 18_446_744_000_001),
        ]);
        let now = counters(&rows);
        let look = Look {
            directory: "./x".to_owned(),
            now: &now,
            before: None,
            now_ns: 3_001_000_000,
            units: Units::Auto,
        };
        let text = look.text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let expected = "cluster  node 2 follows node 3, term 7  committed 18,446,744,073,000";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("states differ at 18,446,744,000,000"),
            "{text}"
        );
        assert!(text.contains("panicked at 18,446,744,000,001;"), "{text}");
    }

    #[test]
    fn who_waits_for_whom_is_said_within_80_columns() {
        let now = counters(&rows());
        let look = Look {
            directory: "./x".to_owned(),
            now: &now,
            before: Some(&now),
            now_ns: 3_001_000_000,
            units: Units::Auto,
        };
        let text = look.text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.contains("65,436 of 65,536 slots used, held by logic"),
            "{text}"
        );
        assert!(text.contains("journal, replicate (waits)"), "{text}");
        assert!(text.contains("the last took 412us"), "{text}");
        assert_eq!(look.json()["stages"]["journal"]["behind"], 700);
        assert_eq!(look.json()["stages"]["logic"]["slowest"], "replicate");
    }
}

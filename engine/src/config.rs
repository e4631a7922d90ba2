//! What can be chosen of an engine: by the builder and by a TOML file, with the same names.
//!
//! ```
//! use lockstep_engine::config::{Config, GateAt};
//!
//! let config: Config = "gate = \"output\"\nslots = 4096\nwait = \"park\"".parse()?;
//! assert_eq!(config.gate, GateAt::Output);
//! assert_eq!(config.snapshots_kept, Config::default().snapshots_kept);
//! let error = "slotz = 4096".parse::<Config>().unwrap_err();
//! assert!(error.to_string().contains("slotz"));
//! # Ok::<(), lockstep_engine::config::ConfigError>(())
//! ```

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lockstep_ringbuffer::{Memory, Wait};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::system::Parameters;

/// Everything that can be chosen, with its default and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "snake_case")]
pub struct Config {
    /// Slots of the ring, a power of two. Default 65 536: 4 MiB of 64 bytes, a few sync times
    /// of a fast source. A stage takes a quarter at most in one turn, so groups of the journal are
    /// no longer: 262 144, here and for the outputs, allow its largest, where it is fastest, for 30 MiB more.
    pub slots: usize,
    /// Slots of the output ring, a power of two. Default as many.
    pub output_slots: usize,
    /// The most events that a stage takes in one turn; 0, the default: what the ring chooses.
    pub batch: usize,
    /// Asks the kernel for huge pages below both rings. Default no. A refusal is said in the log
    /// and is no error.
    pub huge_pages: bool,
    /// Keeps both rings in memory (`mlock`), so that they are never swapped out. Default no. A
    /// refusal is an error, since who asks for this relies on it.
    pub lock_memory: bool,
    /// What the journal promises. Default `sync`.
    pub journal: JournalMode,
    /// Where the sync blocks. Default `auto`: a thread of its own where a CPU is left for it.
    pub journal_thread: JournalThread,
    /// Bytes of a segment file. Default 256 MiB.
    pub segment_bytes: u64,
    /// Allows `sync` on a file system that forgets at a power cut. Default no.
    pub allow_volatile: bool,
    /// What *logic* waits for. Default `logic`: it never sees what is not durable.
    pub gate: GateAt,
    /// Which stages share a thread: `order+journal,logic+egress`. Empty, the default: two
    /// threads, or one where there is one CPU.
    pub place: String,
    /// The CPU of each thread of `place`, in its order. Empty, the default: not pinned.
    pub pin: Vec<usize>,
    /// How threads wait. Default `auto`.
    #[serde(with = "wait_text")]
    pub wait: Wait,
    /// How each thread of `place` waits, in its order. Empty, the default: all as `wait`.
    #[serde(with = "waits_text")]
    pub waits: Vec<Wait>,
    /// Events between two snapshots; 0 takes none. Default 1 000 000: a restart within a second.
    pub snapshot_every: u64,
    /// Snapshots kept, at least 2. Default 2.
    pub snapshots_kept: usize,
    /// Which segments the journal gives up. Default `keep`: nothing is removed unasked.
    pub retention: Retention,
    /// Under `retention = "snapshots"` at least so many bytes of segments stay. Default 0.
    pub retention_bytes: u64,
    /// Under `retention = "snapshots"` a segment stays until this archive has it. Default: none.
    pub archive: Option<PathBuf>,
    /// Keeps a second copy of the state that answers reads and takes the snapshots, so that
    /// neither holds up the logic. Default yes.
    pub shadow: bool,
    /// Events between two beacons; 0: none. Default 1 000 000.
    pub beacon_every: u64,
    /// Client sessions open at once; 0: requests are not checked. Default 1024.
    pub sessions_max: u32,
    /// Client sessions open at once of one principal, in a cluster: a client whose name a certificate or a
    /// token proves; 0, the default: as many as there may be.
    pub sessions_per_principal: u32,
    /// Replies kept for each session. Default 16.
    pub session_replies: u32,
    /// A session without a request for so long ends. Default one day.
    pub session_expiry_ms: u64,
    /// What happens when `validate` panics. Default `halt`.
    pub on_validate_panic: OnValidatePanic,
    /// What happens when `apply` panics. Default `halt`.
    pub on_apply_panic: OnApplyPanic,
    /// A tick in the log each so many milliseconds; 0, the default: none.
    pub tick_ms: u64,
    /// Whether positions and counts are shown in a mapped file. Default yes.
    pub counters: bool,
    /// Where they are shown over HTTP as well, `127.0.0.1:9100`. Default nowhere.
    pub prometheus: Option<String>,
    /// How long `close` waits for what was published to pass every stage. Default 10 s.
    pub drain_ms: u64,
}

/// What the journal promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalMode {
    /// Nothing: no file.
    None,
    /// Written; synced at the latest behind 100 ms or 16 MiB.
    Async,
    /// Durable before it is released.
    #[default]
    Sync,
    /// The same past the page cache.
    Direct,
}

/// Where the sync blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalThread {
    /// As `worker` where there are more CPUs than threads of stages and one that publishes; else,
    /// and where the caller gives the turns, as `inline`.
    #[default]
    Auto,
    /// On the thread of the stage.
    Inline,
    /// On a thread of its own, which owns the gate.
    Worker,
}

impl JournalThread {
    /// Whether a thread of its own blocks in the sync, on so many CPUs, beside so many threads of
    /// stages and one that publishes.
    #[must_use]
    pub fn is_worker(self, cpus: usize, threads: usize) -> bool {
        match self {
            JournalThread::Auto => cpus > threads + 1,
            JournalThread::Inline => false,
            JournalThread::Worker => true,
        }
    }
}

/// Which segments the journal gives up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retention {
    /// None: the log is kept from its first event on.
    #[default]
    Keep,
    /// Those before every kept snapshot that passed a test load, every registered reader and the
    /// archive's mark.
    Snapshots,
}

/// Where the gate stands that waits for the promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateAt {
    /// In front of the logic: it sees only what is durable, and committed.
    #[default]
    Logic,
    /// In front of the outputs: the logic runs ahead, nothing leaves. In a cluster a leader that is deposed takes back
    /// what did not commit, and makes its state anew from snapshot and log.
    Output,
}

/// When `validate` panics: it has changed nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnValidatePanic {
    /// The event is refused.
    Refuse,
    /// The event goes into quarantine.
    Quarantine,
    /// The engine stops.
    #[default]
    Halt,
}

/// When `apply` panics: the state is rebuilt from snapshot and log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnApplyPanic {
    /// The event goes into quarantine, by a mark in the log. In a cluster a majority of the voters decides.
    Quarantine,
    /// The engine stops.
    #[default]
    Halt,
}

/// What in a configuration cannot work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no configuration: the line, and what was expected there.
    #[error("the configuration{}: {source}", place(.path.as_deref()))]
    Parse {
        /// The file, if it is from one.
        path: Option<PathBuf>,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{name} = {found}: {expected}")]
    Value {
        /// The name in builder and file.
        name: &'static str,
        /// What was found.
        found: String,
        /// What is possible.
        expected: &'static str,
    },
    /// Two values that contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

fn place(path: Option<&Path>) -> String {
    path.map(|path| format!(" {}", path.display()))
        .unwrap_or_default()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slots: 65_536,
            output_slots: 65_536,
            batch: 0,
            huge_pages: false,
            lock_memory: false,
            journal: JournalMode::Sync,
            journal_thread: JournalThread::Auto,
            segment_bytes: 256 << 20,
            allow_volatile: false,
            gate: GateAt::Logic,
            place: String::new(),
            pin: Vec::new(),
            wait: Wait::Auto,
            waits: Vec::new(),
            snapshot_every: 1_000_000,
            snapshots_kept: 2,
            retention: Retention::Keep,
            retention_bytes: 0,
            archive: None,
            shadow: true,
            beacon_every: 1_000_000,
            sessions_max: 1024,
            sessions_per_principal: 0,
            session_replies: 16,
            session_expiry_ms: 24 * 60 * 60 * 1000,
            on_validate_panic: OnValidatePanic::Halt,
            on_apply_panic: OnApplyPanic::Halt,
            tick_ms: 0,
            counters: true,
            prometheus: None,
            drain_ms: 10_000,
        }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: None,
            source: Box::new(source),
        })
    }
}

impl Config {
    /// Reads a TOML file. Where it has a table `[engine]`, as the files of the program
    /// `lockstep` have, that table is the configuration, and the rest is the program's.
    ///
    /// # Errors
    ///
    /// The file, the line, and what was expected there. A name that is not known is an error.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        of_text(&text).map_err(|source| ConfigError::Parse {
            path: Some(path.to_owned()),
            source: Box::new(source),
        })
    }

    /// Whether everything fits together.
    ///
    /// # Errors
    ///
    /// The value, and what is possible.
    pub fn checked(&self) -> Result<(), ConfigError> {
        for (name, slots) in [("slots", self.slots), ("output_slots", self.output_slots)] {
            if !slots.is_power_of_two() || !(16..=1 << 30).contains(&slots) {
                return Err(ConfigError::Value {
                    name,
                    found: slots.to_string(),
                    expected: "a power of two from 16 to 1073741824 is possible",
                });
            }
        }
        if (1..64).contains(&self.beacon_every) {
            return Err(ConfigError::Value {
                name: "beacon_every",
                found: self.beacon_every.to_string(),
                expected: "0 for none, or at least 64: a beacon is an event too",
            });
        }
        if self.snapshots_kept < 2 {
            return Err(ConfigError::Value {
                name: "snapshots_kept",
                found: self.snapshots_kept.to_string(),
                expected: "at least 2: the newest may turn out to be unreadable",
            });
        }
        if self.session_replies == 0 && self.sessions_max != 0 {
            return Err(ConfigError::Value {
                name: "session_replies",
                found: "0".to_owned(),
                expected: "at least 1: without a reply a repeated request cannot be answered",
            });
        }
        if self.session_expiry_ms == 0 && self.sessions_max != 0 {
            return Err(ConfigError::Value {
                name: "session_expiry_ms",
                found: "0".to_owned(),
                expected: "at least 1: a session would have expired when it is opened; sessions_max = 0 checks no requests",
            });
        }
        let needs_log = self.on_apply_panic == OnApplyPanic::Quarantine
            || self.on_validate_panic == OnValidatePanic::Quarantine;
        if self.journal == JournalMode::None && needs_log {
            return Err(ConfigError::Contradiction(
                "journal = none and quarantine contradict each other: the mark is in the log, and the state \
                 is rebuilt from it; choose halt, or keep a journal",
            ));
        }
        if self.retention == Retention::Snapshots && !self.has_shadow() {
            return Err(ConfigError::Contradiction(
                "retention = snapshots wants snapshots, which a shadow takes from the journal: set shadow = true \
                 and keep a journal, or set retention = keep",
            ));
        }
        if self.retention == Retention::Keep
            && (self.retention_bytes != 0 || self.archive.is_some())
        {
            return Err(ConfigError::Contradiction(
                "retention = keep removes no segment: retention_bytes and archive say which ones go, so set \
                 retention = snapshots, or leave them out",
            ));
        }
        Ok(())
    }

    /// What the engine's part of the state goes by; a change is an event.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        Parameters {
            sessions_max: self.sessions_max,
            replies_max: self.session_replies,
            session_expiry_ns: self.session_expiry_ms.saturating_mul(1_000_000),
            beacon_every: self.beacon_every,
        }
    }

    /// Whether a shadow has anything to do.
    #[must_use]
    pub fn has_shadow(&self) -> bool {
        self.shadow && self.journal != JournalMode::None
    }

    /// What lies below both rings.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            huge_pages: self.huge_pages,
            lock: self.lock_memory,
        }
    }

    /// How the thread at this place of `place` waits.
    #[must_use]
    pub fn wait_at(&self, thread: usize) -> Wait {
        self.waits.get(thread).copied().unwrap_or(self.wait)
    }

    /// How long `close` waits.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// A file that is the program's as well.
#[derive(Deserialize)]
struct Shared {
    engine: Option<Config>,
}

fn of_text(text: &str) -> Result<Config, toml::de::Error> {
    match toml::from_str::<Shared>(text)?.engine {
        Some(config) => Ok(config),
        None => toml::from_str(text),
    }
}

mod wait_text {
    use lockstep_ringbuffer::Wait;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(wait: &Wait, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(wait)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Wait, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

mod waits_text {
    use lockstep_ringbuffer::Wait;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(waits: &[Wait], to: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = waits.iter().map(Wait::to_string).collect();
        texts.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Wait>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let waits = texts.iter().map(|text| text.parse());
        waits.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_survive_a_file() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(text.parse::<Config>().unwrap(), Config::default());
        Config::default().checked().unwrap();
    }

    #[test]
    fn a_worker_wants_a_cpu_that_nobody_else_keeps_busy() {
        let auto = JournalThread::Auto;
        assert!(!auto.is_worker(1, 1) && !auto.is_worker(2, 1));
        assert!(!auto.is_worker(2, 2) && !auto.is_worker(3, 2));
        assert!(auto.is_worker(4, 2) && auto.is_worker(3, 1));
        assert!(JournalThread::Worker.is_worker(1, 4) && !JournalThread::Inline.is_worker(64, 1));
    }

    #[test]
    fn a_file_may_be_the_programs_as_well() {
        let shared = "ring = \"64Ki\"\n[engine]\nslots = 1024\n";
        assert_eq!(of_text(shared).unwrap().slots, 1024);
        assert_eq!(of_text("slots = 2048").unwrap().slots, 2048);
        for text in ["[engine]\nslotz = 1", "slotz = 1", "engine = 3"] {
            assert!(of_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn threads_wait_alike_or_each_in_its_own_way() {
        let alike: Config = "wait = \"park\"".parse().unwrap();
        assert_eq!(
            (alike.wait_at(0), alike.wait_at(1)),
            (Wait::Park, Wait::Park)
        );
        let text = "waits = [\"spin\", \"backoff:1,2,3\"]";
        let each: Config = text.parse().unwrap();
        assert_eq!(each.wait_at(0), Wait::Spin);
        assert_eq!(each.wait_at(1).to_string(), "backoff:1,2,3");
        let again = toml::to_string(&each).unwrap();
        assert_eq!(again.parse::<Config>().unwrap(), each);
        assert!("waits = [\"never\"]".parse::<Config>().is_err());
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (text, word) in [
            ("slots = 1000", "power of two"),
            ("snapshots_kept = 1", "at least 2"),
            ("beacon_every = 1", "at least 64"),
            ("session_expiry_ms = 0", "expired when it is opened"),
            (
                "journal = \"none\"\non_apply_panic = \"quarantine\"",
                "contradict",
            ),
            ("retention = \"snapshots\"\nshadow = false", "shadow = true"),
            ("retention_bytes = 1", "retention = snapshots"),
        ] {
            let config: Config = text.parse().unwrap();
            let error = config.checked().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        for text in [
            "wait = \"never\"",
            "gate = \"moon\"",
            "slots = \"many\"",
            "colour = 1",
        ] {
            assert!(text.parse::<Config>().is_err(), "{text}");
        }
    }
}

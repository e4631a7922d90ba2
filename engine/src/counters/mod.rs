//! Positions and counts for other processes: a mapped file that a cold thread keeps up to date.
//!
//! ```text
//!   stages ─► their own cursors and marks ◄─ the cold thread ─► the file, mapped ◄─ whoever looks
//!             (the hot path ends here)        50 ms, relaxed stores
//! ```
//!
//! The hot path does nothing for it: the thread reads what the stages publish for one another.
//! Readers map the same pages, take no lock, make no call and hold nobody up, so that there may be
//! any number of them, before, while and after the engine runs. Every byte is in
//! `docs/FORMATS.md`.
//!
//! ```no_run
//! let counters = lockstep_engine::counters::read("./bank")?;
//! println!("answered {:?}", counters.get("egress.answered"));
//!
//! let live = lockstep_engine::counters::Live::open("./bank")?; // mapped once, looked at often
//! while live.look()?.is_running {
//!     std::thread::park_timeout(std::time::Duration::from_secs(1));
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | row | is |
//! |---|---|
//! | `ring.published`, `ring.free_slots`, `ring.slots` | the position behind the last event that was claimed; room |
//! | `ring.gated_by.STAGE` | 1 for the stage that the producer would wait for now |
//! | `stage.STAGE.released`, `.taken` | the position that it has promised, that it has read |
//! | `stage.STAGE.after.OTHER` | 1: it follows that stage; without such a row it follows the producer |
//! | `journal.durable`, `.syncs`, `.last_sync_ns`, `.waits_for_room` | the last is 1 while the disk is full |
//! | `logic.applied`, `.refused`, `.repeated`, `.quarantined` | |
//! | `outputs.emitted`, `.spilled`, `.cut_consumers` | |
//! | `egress.answered`, `shadow.position`, `snapshot.position` | positions |
//! | `retention.position` | the newest snapshot that was read back whole, and behind which nothing is left to remove |
//! | `retention.oldest`, `.freed_bytes`, `.faults` | the oldest position that is kept, and what went |

mod file;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

pub(crate) use file::CounterFile;
pub use file::{FILE, Live};

/// One name and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// `stage.journal.released`
    pub name: String,
    /// The number.
    pub value: u64,
}

/// What a look at the file found: all numbers of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// The process that writes it, or wrote it last.
    pub pid: u64,
    /// When that engine was started, in nanoseconds since 1970.
    pub started_ns: u64,
    /// When it was written last, in nanoseconds since 1970.
    pub updated_ns: u64,
    /// Whether the engine had not been closed by then. One that was killed cannot say so: then
    /// `updated_ns` stands still.
    pub is_running: bool,
    /// The counters, in their order.
    pub rows: Vec<Counter>,
}

/// Reads the counters of the engine in this directory, running or not.
///
/// # Errors
///
/// `NotFound` if there are none, `InvalidData` if the file is none of ours or of another version.
pub fn read(directory: impl AsRef<Path>) -> io::Result<Counters> {
    Live::open(directory)?.look()
}

impl Counters {
    /// The same as [`read`].
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub fn read(directory: impl AsRef<Path>) -> io::Result<Self> {
        read(directory)
    }

    /// The number of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.rows
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.value)
    }

    /// The stages by name, in the order of their making.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|row| {
            let name = row.name.strip_prefix("stage.")?;
            name.strip_suffix(".released")
        })
    }

    /// The stages that this one follows.
    pub fn after<'c>(&'c self, stage: &'c str) -> impl Iterator<Item = &'c str> {
        self.rows.iter().filter_map(move |row| {
            let name = row.name.strip_prefix("stage.")?.strip_prefix(stage)?;
            name.strip_prefix(".after.")
        })
    }

    /// As Prometheus wants it, names with underscores behind `lockstep_`.
    #[must_use]
    pub fn prometheus(rows: &[Counter]) -> String {
        let mut text = String::new();
        for Counter { name, value } in rows {
            let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# TYPE lockstep_{name} gauge\nlockstep_{name} {value}\n"
            );
        }
        text
    }
}

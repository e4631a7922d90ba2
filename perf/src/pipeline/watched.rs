//! A disk whose writes and syncs are timed, from outside the engine: what an event waited
//! for at the journal is then known to the nanosecond.

use std::io::{self, IoSlice};
use std::time::Duration;

use lockstep_journaler::storage::{Entry, File, Mapped, Medium, Open, Storage};

use crate::machine::clock::{Clock, Ticks as _};
use crate::measure::tail::Spans;

/// The thread of the journal that prepares files ahead of the writer: nothing waits for it.
const AHEAD: &str = "journal-ahead";

/// Where the times go.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) clock: Clock,
    pub(super) writes: Spans,
    pub(super) syncs: Spans,
}

/// A storage, timed.
#[derive(Debug, Clone)]
pub(super) struct Watched<S> {
    pub(super) storage: S,
    pub(super) times: Times,
}

/// A file of it.
#[derive(Debug)]
pub(super) struct WatchedFile<F> {
    file: F,
    times: Times,
}

impl Times {
    fn take<R>(&self, spans: &Spans, call: impl FnOnce() -> R) -> R {
        let from = self.clock.early();
        let result = call();
        if std::thread::current().name() != Some(AHEAD) {
            spans.push(&self.clock, from, self.clock.early());
        }
        result
    }
}

impl<S: Storage> Storage for Watched<S> {
    type File = WatchedFile<S::File>;
    type Lock = S::Lock;

    fn open(&self, name: &str, how: Open) -> io::Result<Self::File> {
        Ok(WatchedFile {
            file: self.storage.open(name, how)?,
            times: self.times.clone(),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        self.storage.remove_dir(name)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<Entry>> {
        self.storage.list(directory)
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.storage.create_dir(name)
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        let sync = || self.storage.sync_directory(name);
        self.times.take(&self.times.syncs, sync)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.storage.free_bytes()
    }

    fn medium(&self) -> io::Result<Medium> {
        self.storage.medium()
    }

    fn lock(&self, name: &str) -> io::Result<Self::Lock> {
        self.storage.lock(name)
    }

    fn holder(&self, name: &str) -> io::Result<Option<String>> {
        self.storage.holder(name)
    }

    fn set_read_only(&self, name: &str) -> io::Result<()> {
        self.storage.set_read_only(name)
    }

    fn set_writable(&self, name: &str) -> io::Result<()> {
        self.storage.set_writable(name)
    }

    fn now_ns(&self) -> u64 {
        self.storage.now_ns()
    }

    fn pause(&self, duration: Duration) {
        self.storage.pause(duration);
    }
}

impl<F: File> File for WatchedFile<F> {
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let write = || self.file.write_at(parts, at);
        self.times.take(&self.times.writes, write)
    }

    fn write_durable_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let write = || self.file.write_durable_at(parts, at);
        self.times.take(&self.times.syncs, write)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.times.take(&self.times.syncs, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.times.take(&self.times.syncs, || self.file.sync_all())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn map(&self, length: u64) -> io::Result<Mapped> {
        self.file.map(length)
    }
}

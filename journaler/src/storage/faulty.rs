//! Any storage, with errors at calls of the test's choice.
//!
//! [`Simulated`](super::Simulated) knows what a disk does behind a fault; this
//! wrapper only makes a call say no, which is all that can be had over real
//! files without a kernel module. A failed sync here has not synced; a failed
//! write has written nothing.
//!
//! Who must survive it: the journal is poisoned by any of them and promises
//! nothing behind it; opening refuses with the file and what failed; the tools
//! exit with 1; retention, archive and snapshots leave what was there before.

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Entry, File, Mapped, Medium, Open, Storage};

/// The calls that can be made to fail, and that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `open`, whatever for.
    Open,
    /// `rename`.
    Rename,
    /// `remove` and `remove_dir`.
    Remove,
    /// `create_dir`.
    CreateDir,
    /// `sync_directory`.
    SyncDirectory,
    /// `write_at` and `write_durable_at`.
    Write,
    /// `read_at` and `map`.
    Read,
    /// `sync_data` and `sync_all`.
    Sync,
    /// `set_len`.
    SetLength,
}

/// The error numbers that storage gives most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// `EIO`: the device said no.
    Io,
    /// `ENOSPC`: full.
    Full,
}

impl Errno {
    /// The error as the kernel would give it.
    #[must_use]
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Errno::Io => libc::EIO,
            Errno::Full => libc::ENOSPC,
        })
    }
}

#[derive(Debug)]
struct Planned {
    operation: Operation,
    matching: String,
    skip: u64,
    errno: Errno,
    again: bool,
}

/// A storage some of whose calls fail.
pub struct Faulty<S> {
    inner: S,
    plan: Arc<Mutex<Vec<Planned>>>,
}

impl<S: Storage> Faulty<S> {
    /// `inner`, with nothing failing yet.
    pub fn new(inner: S) -> Faulty<S> {
        Faulty {
            inner,
            plan: Arc::default(),
        }
    }

    /// The storage behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Lets one call fail: after `skip` more calls of that kind on names that
    /// contain `matching` (all do, if it is empty), the next one.
    pub fn fail_once(&self, operation: Operation, matching: &str, skip: u64, errno: Errno) {
        self.add(operation, matching, skip, errno, false);
    }

    /// As [`fail_once`](Faulty::fail_once), and all such calls from then on.
    pub fn fail_from(&self, operation: Operation, matching: &str, skip: u64, errno: Errno) {
        self.add(operation, matching, skip, errno, true);
    }

    /// Lets nothing fail from here on.
    pub fn heal(&self) {
        locked(&self.plan).clear();
    }

    fn add(&self, operation: Operation, matching: &str, skip: u64, errno: Errno, again: bool) {
        locked(&self.plan).push(Planned {
            operation,
            matching: matching.to_owned(),
            skip,
            errno,
            again,
        });
    }
}

/// Counts one call, and says whether it fails.
fn pass(plan: &Mutex<Vec<Planned>>, operation: Operation, name: &str) -> io::Result<()> {
    let mut plan = locked(plan);
    let mut hit = None;
    for (index, planned) in plan.iter_mut().enumerate() {
        if planned.operation != operation || !name.contains(planned.matching.as_str()) {
            continue;
        }
        if planned.skip > 0 {
            planned.skip -= 1;
        } else if hit.is_none() {
            hit = Some(index);
        }
    }
    let Some(index) = hit else { return Ok(()) };
    let error = plan[index].errno.error();
    if !plan[index].again {
        plan.remove(index);
    }
    Err(error)
}

fn locked(plan: &Mutex<Vec<Planned>>) -> MutexGuard<'_, Vec<Planned>> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Storage> Storage for Faulty<S> {
    type File = FaultyFile<S::File>;
    type Lock = S::Lock;

    fn open(&self, name: &str, how: Open) -> io::Result<Self::File> {
        pass(&self.plan, Operation::Open, name)?;
        let inner = self.inner.open(name, how)?;
        Ok(FaultyFile {
            inner,
            name: name.to_owned(),
            plan: Arc::clone(&self.plan),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        pass(&self.plan, Operation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        pass(&self.plan, Operation::Remove, name)?;
        self.inner.remove(name)
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        pass(&self.plan, Operation::Remove, name)?;
        self.inner.remove_dir(name)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<Entry>> {
        self.inner.list(directory)
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        pass(&self.plan, Operation::CreateDir, name)?;
        self.inner.create_dir(name)
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        pass(&self.plan, Operation::SyncDirectory, name)?;
        self.inner.sync_directory(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn medium(&self) -> io::Result<Medium> {
        self.inner.medium()
    }

    fn lock(&self, name: &str) -> io::Result<Self::Lock> {
        self.inner.lock(name)
    }

    fn holder(&self, name: &str) -> io::Result<Option<String>> {
        self.inner.holder(name)
    }

    fn set_read_only(&self, name: &str) -> io::Result<()> {
        self.inner.set_read_only(name)
    }

    fn set_writable(&self, name: &str) -> io::Result<()> {
        self.inner.set_writable(name)
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn pause(&self, duration: Duration) {
        self.inner.pause(duration);
    }
}

impl<S: Clone> Clone for Faulty<S> {
    fn clone(&self) -> Self {
        Faulty {
            inner: self.inner.clone(),
            plan: Arc::clone(&self.plan),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .field("plan", &self.plan)
            .finish()
    }
}

/// A file of [`Faulty`].
pub struct FaultyFile<F> {
    inner: F,
    name: String,
    plan: Arc<Mutex<Vec<Planned>>>,
}

impl<F> FaultyFile<F> {
    fn pass(&self, operation: Operation) -> io::Result<()> {
        pass(&self.plan, operation, &self.name)
    }
}

impl<F: File> File for FaultyFile<F> {
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.pass(Operation::Write)?;
        self.inner.write_at(parts, at)
    }

    fn write_durable_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.pass(Operation::Write)?;
        self.inner.write_durable_at(parts, at)
    }

    fn write_onward_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.pass(Operation::Write)?;
        self.inner.write_onward_at(parts, at)
    }

    fn write_durable_filled(
        &self,
        buffer: &mut [u8],
        filled: usize,
        at: u64,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<()> {
        self.pass(Operation::Write)?;
        self.inner.write_durable_filled(buffer, filled, at, fill)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.pass(Operation::Read)?;
        self.inner.read_at(into, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass(Operation::Sync)?;
        self.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.pass(Operation::Sync)?;
        self.inner.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.pass(Operation::SetLength)?;
        self.inner.set_len(length)
    }

    fn reads_on(&self) {
        self.inner.reads_on();
    }

    fn forget(&self, end: u64) {
        self.inner.forget(end);
    }

    fn settle(&self, at: u64, end: u64) -> io::Result<()> {
        self.inner.settle(at, end)
    }

    fn map(&self, length: u64) -> io::Result<Mapped> {
        self.pass(Operation::Read)?;
        self.inner.map(length)
    }

    fn is_alone(&self) -> bool {
        self.inner.is_alone()
    }
}

impl<F: fmt::Debug> fmt::Debug for FaultyFile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyFile")
            .field("inner", &self.inner)
            .field("name", &self.name)
            .finish()
    }
}

//! The face: open, write, sync, read, cut back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::batch::Cutter;
use crate::directory::{LOCK, segments};
use crate::error::{IoFault, OpenError, Poisoned, ReadError, WriteError};
use crate::frame::Frame;
use crate::options::{Background, Mode, Options};
use crate::position::{Reached, SegmentId};
use crate::prepare::{Pace, Preparer};
use crate::reader::{From, Reader};
use crate::recovery::{Recovered, check_medium, recover};
use crate::segment::Tail;
use crate::shared::{Progress, Shared, lock};
use crate::storage::Storage;
use crate::writer::{Counters, Writer};

mod consensus;
mod opening;

pub use consensus::Retainer;

/// A journal that is open for writing: one owner, one thread that writes.
///
/// ```
/// use lockstep_journaler::{Frame, From, Journal, Options};
/// # use lockstep_journaler::storage::Simulated;
/// # #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// # #[repr(C)]
/// # struct Tick { time_ns: u64, price: i64 }
/// # lockstep_journaler::schema! {
/// #     TICKS: "example.ticks" version 1 for Tick, one kind;
/// #     header { time_ns: time; price: decimal(2); }
/// #     0 = "tick" as Tick {}
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let storage = Simulated::new(1);
/// let options = Options::new(&TICKS).with_segment_bytes(1 << 20);
/// let (mut journal, recovered) = Journal::open(storage, &options)?;
/// assert_eq!(recovered.reached.position.0, 0);
///
/// let ticks = [Tick { time_ns: 1, price: 10_050 }, Tick { time_ns: 2, price: 10_075 }];
/// let mut cutter = journal.cutter();
/// let body: [&[u8]; 2] = [bytemuck::cast_slice(&ticks), &[]];
/// let header = cutter.cut(body, 2);
/// journal.write(&[Frame { header: &header, body }])?;         // written
/// let durable = journal.sync()?;                              // durable
/// assert_eq!(durable.position.0, 2);
///
/// let mut reader = journal.reader(From::Oldest)?;
/// let frame = reader.next_frame()?.expect("one frame is durable");
/// assert_eq!(frame.events::<Tick>()?[1].price, 10_075);
/// drop(reader);
/// journal.close()?;
/// # Ok(())
/// # }
/// ```
pub struct Journal<S: Storage> {
    shared: Arc<Shared<S>>,
    writer: Writer<S>,
    background: Worker<S>,
    lock: Option<S::Lock>,
}

enum Worker<S: Storage> {
    Stepped(Box<Preparer<S>>),
    Thread {
        stop: Arc<AtomicBool>,
        handle: Option<JoinHandle<Preparer<S>>>,
    },
    Gone,
}

/// What an operator should know of, beside the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// No room for the next spare: make some, before writing has to stop.
    pub is_low_on_space: bool,
    /// Failures in the background that cost nothing yet: seals, indexes, spares.
    pub background_faults: u64,
    /// Segments that were begun before one was ready.
    pub unprepared_rolls: u64,
    /// Zeroed segments that are ready.
    pub spares: usize,
    /// How long a sync usually takes.
    pub usual_sync_ns: u64,
    /// Bytes written and not durable: what a crash can cost, in `async`.
    pub unsynced: Reached,
}

impl<S: Storage> Journal<S> {
    /// Opens the journal in this storage, or creates one, and brings it to a known end.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what is wrong, where, and what helps; then nothing was changed.
    pub fn open(storage: S, options: &Options) -> Result<(Journal<S>, Recovered), OpenError> {
        let descriptor = options.checked()?;
        if options.mode == Mode::None {
            return Ok(Journal::without_files(storage, options));
        }
        check_medium(&storage, options)?;
        let held = storage.lock(LOCK).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::InUse {
                holder: error.to_string(),
            },
            _ => OpenError::Io(IoFault::new("lock", LOCK, error)),
        })?;
        let recovery = recover(&storage, options)?;
        let mut journal = Journal::resume(storage, options, &descriptor, recovery)?;
        journal.0.lock = Some(held);
        journal.0.start_background();
        Ok(journal)
    }

    fn start_background(&mut self) {
        if self.shared.options.background == Background::Stepped {
            return;
        }
        let Worker::Stepped(preparer) = std::mem::replace(&mut self.background, Worker::Gone)
        else {
            return;
        };
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let run = move || run(*preparer, &asked);
        let spawned = std::thread::Builder::new()
            .name("journal-ahead".to_owned())
            .spawn(run);
        // Without a thread the writer prepares for itself: slower, and counted.
        self.background = spawned.map_or(Worker::Gone, |handle| Worker::Thread {
            stop,
            handle: Some(handle),
        });
    }

    /// Writes a group of frames: all of them, in one write. They are *written*, and in `direct`
    /// durable too.
    ///
    /// # Errors
    ///
    /// [`WriteError::Refused`] and [`WriteError::Full`] leave everything as it was;
    /// [`WriteError::Poisoned`] is the end of this journal in this process.
    pub fn write(&mut self, group: &[Frame<'_>]) -> Result<Reached, WriteError> {
        self.writer.write(group)
    }

    /// Makes what is written durable, and says how far that is.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: what the disk holds is not known, nothing is acknowledged from here on.
    pub fn sync(&mut self) -> Result<Reached, Poisoned> {
        self.writer.sync()
    }

    /// In `async`, syncs if the interval is over; call it when idle. Elsewhere it does nothing.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn sync_if_due(&mut self) -> Result<Reached, Poisoned> {
        self.writer.sync_if_due()
    }

    /// Makes the headers of the frames that come next, when the journal stage runs alone.
    #[must_use]
    pub fn cutter(&self) -> Cutter {
        let schema = &self.shared.template;
        let version = u16::try_from(schema.schema_version).unwrap_or(u16::MAX);
        Cutter::new(self.writer.tail(), version, schema.event_size)
    }

    /// Behind the last frame that was written.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        self.writer.tail()
    }

    /// The promises, for other threads.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress.clone()
    }

    /// What the writing thread has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.writer.counters()
    }

    /// What an operator should know.
    #[must_use]
    pub fn health(&self) -> Health {
        let alarms = &self.shared.alarms;
        let (written, durable) = (
            self.shared.progress.written(),
            self.shared.progress.durable(),
        );
        let spares = lock(&self.shared.spares);
        Health {
            // ORDERING: Relaxed, figures for people.
            is_low_on_space: alarms.low_space.load(Ordering::Relaxed),
            // ORDERING: Relaxed, as above.
            background_faults: alarms.background_faults.load(Ordering::Relaxed),
            // ORDERING: Relaxed, as above.
            unprepared_rolls: alarms.unprepared_rolls.load(Ordering::Relaxed),
            spares: spares.pool.len() + usize::from(spares.next.is_some()),
            // ORDERING: Relaxed, as above.
            usual_sync_ns: alarms.usual_sync_ns.load(Ordering::Relaxed),
            unsynced: Reached {
                position: crate::Position(written.position.0.saturating_sub(durable.position.0)),
                frames: written.frames.saturating_sub(durable.frames),
            },
        }
    }

    /// What poisoned the journal, if anything did.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Poisoned> {
        self.shared.poisoned()
    }

    /// Reads what is durable, and follows it as it grows. Readers belong to no thread.
    ///
    /// # Errors
    ///
    /// [`ReadError`] for a place that is not here.
    pub fn reader(&self, from: From) -> Result<Reader<S>, ReadError> {
        Reader::of_journal(Arc::clone(&self.shared), from)
    }

    /// One step of the work ahead, under [`Background::Stepped`].
    pub fn step_background(&mut self) -> Pace {
        match &mut self.background {
            Worker::Stepped(preparer) => preparer.step(),
            Worker::Thread { .. } | Worker::Gone => Pace::Idle(std::time::Duration::from_secs(1)),
        }
    }

    /// The segments that are here, oldest first.
    ///
    /// # Errors
    ///
    /// From listing.
    pub fn segments(&self) -> Result<Vec<SegmentId>, ReadError> {
        Ok(segments(&self.shared.storage)?)
    }

    /// Syncs, seals what waits, and says durably that all was in order.
    ///
    /// # Errors
    ///
    /// [`Poisoned`], and then it was not.
    pub fn close(mut self) -> Result<(), Poisoned> {
        self.sync()?;
        if let Some(mut preparer) = self.stop_background() {
            preparer.finish();
        }
        let hint = *lock(&self.shared.hint);
        let mut meta = lock(&self.shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(());
        };
        meta.update_both(|slot| {
            slot.set_durable(&hint);
            slot.set_clean(true);
        })
        .map_err(|fault| self.shared.poison(fault))
    }

    fn stop_background(&mut self) -> Option<Preparer<S>> {
        match std::mem::replace(&mut self.background, Worker::Gone) {
            Worker::Stepped(preparer) => Some(*preparer),
            Worker::Thread { stop, handle } => {
                // ORDERING: Release, pairs with the Acquire in `run`; the join orders everything else.
                stop.store(true, Ordering::Release);
                let handle = handle?;
                handle.thread().unpark();
                handle.join().ok()
            }
            Worker::Gone => None,
        }
    }
}

impl<S: Storage> Drop for Journal<S> {
    fn drop(&mut self) {
        drop(self.stop_background());
        // From here on the directory is somebody else's: a retainer that is left may not write.
        *lock(&self.shared.meta) = None;
    }
}

impl<S: Storage> fmt::Debug for Journal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("written", &self.shared.progress.written())
            .field("durable", &self.shared.progress.durable())
            .field("poisoned", &self.shared.poisoned())
            .finish_non_exhaustive()
    }
}

/// The thread of the work ahead.
fn run<S: Storage>(mut preparer: Preparer<S>, stop: &AtomicBool) -> Preparer<S> {
    // ORDERING: Acquire, pairs with the Release in `stop_background`.
    while !stop.load(Ordering::Acquire) {
        match preparer.step() {
            Pace::Busy => {}
            Pace::Pause(duration) | Pace::Idle(duration) => std::thread::park_timeout(duration),
        }
    }
    preparer
}

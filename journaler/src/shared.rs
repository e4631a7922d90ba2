//! What the writing thread, the background and the readers of one journal share.
//!
//! | field | who writes | when | who reads |
//! |---|---|---|---|
//! | `progress` | the writing thread | behind each write and sync | anyone, at any time |
//! | `hint` | the writing thread | behind each sync | the background, readers |
//! | `spares` | the background; the writing thread at a roll | | both |
//! | `seals` | the writing thread at a roll pushes | the background takes | |
//! | `meta` | whoever holds the lock; never the writing thread between opening and closing, but for the consensus | | |
//! | `poison` | the first who fails | once | anyone |
//!
//! # Invariants
//!
//! * `SH1` `durable` never says more than is durable, and stops at the poison.
//! * `SH2` Position and frames of one promise are each true on their own; a reader may see the
//!   position of one promise with the frames of the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::directory::{DurableHint, MetaFile};
use crate::error::{IoFault, Poisoned};
use crate::index::SparseIndex;
use crate::options::Options;
use crate::position::{Position, Reached, SegmentId};
use crate::segment::{SegmentHeader, Summary};
use crate::storage::{DIRECT_ALIGN, Storage};

/// How far the journal is, for anyone to look at.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    written: Cell,
    durable: Cell,
    is_poisoned: AtomicBool,
}

/// A pair of cache lines of its own: who follows does not slow down who writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    position: AtomicU64,
    frames: AtomicU64,
}

impl Cell {
    fn get(&self) -> Reached {
        // ORDERING: Acquire, pairs with the Release in `set`: who sees the position sees, in the
        // file, the bytes before it; the frames stored before it too (SH2).
        let position = Position(self.position.load(Ordering::Acquire));
        // ORDERING: Acquire, as above.
        let frames = self.frames.load(Ordering::Acquire);
        Reached { position, frames }
    }

    fn set(&self, reached: Reached) {
        // ORDERING: Release, pairs with the Acquire in `get`.
        self.frames.store(reached.frames, Ordering::Release);
        // ORDERING: Release, pairs with the Acquire in `get`.
        self.position.store(reached.position.0, Ordering::Release);
    }
}

impl Progress {
    pub(crate) fn new(at: Reached) -> Progress {
        let cells = Cells::default();
        cells.written.set(at);
        cells.durable.set(at);
        Progress(Arc::new(cells))
    }

    /// What has been handed to the system. It may vanish in a crash.
    #[must_use]
    pub fn written(&self) -> Reached {
        self.0.written.get()
    }

    /// What is durable here (`SH1`).
    #[must_use]
    pub fn durable(&self) -> Reached {
        self.0.durable.get()
    }

    /// Whether the journal failed: `durable` stays where it is.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `poison`: the fault is there to be read.
        self.0.is_poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn set_written(&self, reached: Reached) {
        self.0.written.set(reached);
    }

    pub(crate) fn set_durable(&self, reached: Reached) {
        self.0.durable.set(reached);
    }

    fn poison(&self) {
        // ORDERING: Release, pairs with the Acquire in `is_poisoned`.
        self.0.is_poisoned.store(true, Ordering::Release);
    }
}

/// What needs an operator's look, and what paces the background; plain counts and flags.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    pub(crate) low_space: AtomicBool,
    pub(crate) background_faults: AtomicU64,
    pub(crate) unprepared_rolls: AtomicU64,
    pub(crate) last_sync_ns: AtomicU64,
    pub(crate) usual_sync_ns: AtomicU64,
    /// How far the present segment is written: what the preparer has to keep ahead of.
    pub(crate) data_end: AtomicU64,
}

/// A segment under its final name, open, with all that writing it will need.
#[derive(Debug)]
pub(crate) struct Next<F> {
    pub(crate) id: SegmentId,
    pub(crate) file: F,
    /// Bytes of the file: zeros.
    pub(crate) length: u64,
    pub(crate) index: SparseIndex,
    pub(crate) tail_block: Box<[u8; DIRECT_ALIGN]>,
}

#[derive(Debug)]
pub(crate) struct Spares<F> {
    /// The next segment, named, durable as a name.
    pub(crate) next: Option<Next<F>>,
    /// Names of whole zeroed files in the pool.
    pub(crate) pool: Vec<String>,
    /// Of the next file in the pool.
    pub(crate) serial: u64,
    /// The segment that the writer will want next, once it is near its end.
    pub(crate) wanted: Option<SegmentId>,
}

/// A full segment, to be sealed in the background.
#[derive(Debug)]
pub(crate) struct Seal {
    pub(crate) header: SegmentHeader,
    pub(crate) summary: Summary,
    pub(crate) index: SparseIndex,
}

#[derive(Debug)]
pub(crate) struct Shared<S: Storage> {
    pub(crate) storage: S,
    pub(crate) options: Options,
    /// Header template: identity, sizes, schema.
    pub(crate) template: SegmentHeader,
    /// The descriptor, padded to whole blocks.
    pub(crate) schema_blocks: Vec<u8>,
    pub(crate) progress: Progress,
    pub(crate) hint: Mutex<DurableHint>,
    /// None in mode `none`, which has no files.
    pub(crate) meta: Mutex<Option<MetaFile<S::File>>>,
    pub(crate) spares: Mutex<Spares<S::File>>,
    pub(crate) seals: Mutex<VecDeque<Seal>>,
    pub(crate) alarms: Alarms,
    poison: OnceLock<Poisoned>,
}

impl<S: Storage> Shared<S> {
    pub(crate) fn new(
        storage: S,
        options: Options,
        template: SegmentHeader,
        schema_blocks: Vec<u8>,
        meta: Option<MetaFile<S::File>>,
        hint: DurableHint,
    ) -> Shared<S> {
        Shared {
            storage,
            options,
            template,
            schema_blocks,
            progress: Progress::new(hint.reached),
            hint: Mutex::new(hint),
            meta: Mutex::new(meta),
            spares: Mutex::new(Spares {
                next: None,
                pool: Vec::new(),
                serial: 0,
                wanted: None,
            }),
            seals: Mutex::new(VecDeque::with_capacity(16)),
            alarms: Alarms::default(),
            poison: OnceLock::new(),
        }
    }

    /// Nothing is acknowledged from here on; the first fault stays.
    pub(crate) fn poison(&self, fault: IoFault) -> Poisoned {
        let durable = self.progress.durable().position;
        let poisoned = self
            .poison
            .get_or_init(|| Poisoned { fault, durable })
            .clone();
        self.progress.poison();
        poisoned
    }

    pub(crate) fn poisoned(&self) -> Option<&Poisoned> {
        self.poison.get()
    }

    pub(crate) fn checked(&self) -> Result<(), Poisoned> {
        self.poisoned()
            .map_or(Ok(()), |poisoned| Err(poisoned.clone()))
    }

    /// Makes the names of a directory durable.
    pub(crate) fn sync_directory(&self, name: &str) -> Result<(), IoFault> {
        if self.options.mutations.no_directory_sync {
            return Ok(());
        }
        self.storage
            .sync_directory(name)
            .map_err(|error| IoFault::new("sync of directory", name, error))
    }
}

/// The guard, also behind a panic of another holder: every holder leaves a whole value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

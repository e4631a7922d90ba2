//! The keeper: behind each snapshot it removes the snapshots and the segments that nobody needs.
//!
//! ```text
//!  segments   ├── 0 ──┼── 1 ──┼── 2 ──┼── 3 ──┼── 4 (being written)
//!  snapshots  ····················▲···········▲           kept, and they passed a test load
//!  reader     ····················│···▲                   its outputs begin here
//!             gone  gone          └── limit: the newest state at or before the slowest of them
//! ```
//!
//! It runs on a cold thread of its own: a test load reads a whole snapshot, and a segment leaves
//! in small steps. The plan and the deed are the journal's (`lockstep_journaler::retention`).
//!
//! # Invariants
//!
//! * `KP1` Only a segment that ends at or before every kept snapshot, every registered reader and
//!   the archive's mark is removed, and none under `retention = keep`.
//! * `KP2` For every registered reader a state is kept from which its next event can be
//!   reached: the newest snapshot at or before it, or the log from its beginning.
//! * `KP4` In a cluster no segment leaves before the node's own thread has forgotten its frames: the keeper
//!   asks for it (`wanted`), the thread says how far it went (`compacted`), and what another node fetches
//!   stays, with the log behind it (`lent`).
//! * `KP3` What fails removes nothing further, is told, and is tried again behind the next snapshot.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use lockstep_journaler::archive::Archive;
use lockstep_journaler::directory::META;
use lockstep_journaler::retention::{self, HeldBy, Leaving, Needs, Plan, Readers};
use lockstep_journaler::snapshots::{KEEP_MIN, Listed, Snapshots};
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_journaler::tools::{Catalog, ToolError};
use lockstep_journaler::{ChangeError, Position, Retainer};

use crate::config::{Config, Retention};
use crate::error::{Error, Result};
use crate::runtime::priority::{breathe_slowly, give_way};
use crate::shared::Shared;

/// A test load pauses so many times as long as it worked.
const PAUSE_TIMES: u32 = 8;

/// See the module.
pub(crate) struct Keeper<S: Storage> {
    storage: S,
    retainer: Retainer<S>,
    retention: Retention,
    snapshots_kept: usize,
    bytes_kept: u64,
    archive: Option<PathBuf>,
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    /// `KP4`
    asks_first: bool,
}

/// Wakes the keeper: a snapshot was taken, or it is to end.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    calls: Mutex<Calls>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    is_rung: bool,
    is_over: bool,
}

impl Bell {
    /// There is a snapshot more.
    pub(crate) fn ring(&self) {
        self.change(|calls| calls.is_rung = true);
    }

    /// No deed is begun behind this.
    pub(crate) fn end(&self) {
        self.change(|calls| calls.is_over = true);
    }

    fn change(&self, change: impl FnOnce(&mut Calls)) {
        change(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_all();
    }

    fn is_over(&self) -> bool {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_over
    }

    /// Waits for the next call; `false` at the end.
    fn wait(&self) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends: somebody rings, or it is over.
        while !calls.is_rung && !calls.is_over {
            calls = self
                .woken
                .wait(calls)
                .unwrap_or_else(PoisonError::into_inner);
        }
        calls.is_rung = false;
        !calls.is_over
    }
}

/// Who says how far they have read, on whatever storage the log is.
pub(crate) trait LogReaders: Send + Sync {
    fn keep_from(&self, name: &str, position: Position) -> Result<()>;
    fn forget(&self, name: &str) -> Result<()>;
}

impl<S: Storage> LogReaders for Readers<S> {
    fn keep_from(&self, name: &str, position: Position) -> Result<()> {
        Ok(self.advance(name, position)?)
    }

    fn forget(&self, name: &str) -> Result<()> {
        Ok(Readers::forget(self, name)?)
    }
}

impl<S: Storage> Keeper<S> {
    pub(crate) fn new(
        storage: S,
        retainer: Retainer<S>,
        config: &Config,
        shared: Arc<Shared>,
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            storage,
            retainer,
            retention: config.retention,
            snapshots_kept: config.snapshots_kept,
            bytes_kept: config.retention_bytes,
            archive: config.archive.clone(),
            shared,
            bell,
            asks_first: false,
        }
    }

    /// In a cluster the node's thread is asked before anything goes (`KP4`).
    pub(crate) fn asking_first(self) -> Self {
        Self {
            asks_first: true,
            ..self
        }
    }

    /// The snapshot that another node fetches.
    fn lent(&self) -> Option<Position> {
        self.shared.lent.get().checked_sub(1).map(Position)
    }

    /// Runs until it is told to end: once at the start, and behind each snapshot.
    pub(crate) fn run(self) {
        give_way();
        // Ends: the bell says so.
        loop {
            self.turn();
            if !self.bell.wait() {
                return;
            }
        }
    }

    /// One look, and what comes of it (`KP3`).
    pub(crate) fn turn(&self) {
        if let Err(error) = self.try_turn() {
            self.shared.retention_faults.add(1);
            tracing::error!(%error, "retention removed nothing further; the next snapshot tries again");
        }
    }

    fn try_turn(&self) -> Result<()> {
        let readers = Readers::new(self.storage.clone()).list()?;
        let slowest = readers.iter().map(|(_, at)| *at).min();
        let kept = self.keep_snapshots(slowest)?;
        if self.retention == Retention::Snapshots {
            self.give_up(&kept, readers)?;
        }
        if let Some(newest) = kept.last() {
            self.shared.kept.set(newest.0);
        }
        Ok(())
    }

    /// Removes the snapshots beyond those kept; what is left and loads, oldest first (`KP2`).
    fn keep_snapshots(&self, slowest: Option<Position>) -> Result<Vec<Position>> {
        let snapshots = Snapshots::new(self.storage.clone());
        let mut kept: Vec<Position> = Vec::new();
        let mut surplus = Vec::new();
        for Listed { position, .. } in snapshots.list()? {
            let is_ahead = |at: Position| kept.last().is_none_or(|oldest| *oldest > at);
            let is_for_reader = slowest.is_some_and(|at| is_ahead(at) && position <= at);
            let is_lent = self.lent() == Some(position);
            if kept.len() >= self.snapshots_kept && !is_for_reader && !is_lent {
                surplus.push(position);
            } else if self.loads(&snapshots, position) {
                kept.push(position);
            }
        }
        // Oldest first: a crash in between leaves the newer ones.
        for position in surplus.into_iter().rev() {
            snapshots.remove(position)?;
        }
        kept.reverse();
        Ok(kept)
    }

    /// A test load; one that fails is told, and nothing relies on that snapshot (`KP3`).
    fn loads(&self, snapshots: &Snapshots<S>, position: Position) -> bool {
        // Nobody waits for it, but whoever ends the engine.
        let loaded = snapshots.verify_slowly(position, &mut || {
            if !self.bell.is_over() {
                breathe_slowly(PAUSE_TIMES);
            }
        });
        if let Err(error) = &loaded {
            self.shared.retention_faults.add(1);
            tracing::error!(%position, %error, "a snapshot does not load; retention counts on the others");
        }
        loaded.is_ok()
    }

    /// Lets the segments go that nobody needs (`KP1`), one deed for each, so that an end does not wait
    /// for all of them.
    fn give_up(&self, kept: &[Position], readers: Vec<(String, Position)>) -> Result<()> {
        // KP2: what a reader needs begins at the state in front of it.
        let state_before = |at: Position| kept.iter().rev().find(|own| **own <= at).copied();
        let lent = self
            .lent()
            .map(|at| ("a node that fetches it".to_owned(), at));
        let readers = readers
            .into_iter()
            .chain(lent)
            .map(|(name, at)| (name, state_before(at).unwrap_or_default()));
        let catalog = Catalog::read(&self.storage)?;
        let needs = Needs {
            snapshot: kept.first().copied().filter(|_| kept.len() >= KEEP_MIN),
            archive: self.archive_mark(&catalog)?,
            readers: readers.collect(),
            keep_after_ns: None,
            keep_bytes: Some(self.bytes_kept).filter(|bytes| *bytes != 0),
        };
        let mut plan = retention::plan(&catalog, &needs);
        if self.asks_first && !plan.remove.is_empty() {
            self.shared.wanted.set(plan.limit.0);
            let compacted = self.shared.compacted.get();
            plan.remove
                .retain(|leaving| leaving.end_position.0 < compacted);
        }
        let oldest = catalog.first_position().unwrap_or_default();
        self.shared.oldest.set(oldest.0);
        for leaving in &plan.remove {
            if self.bell.is_over() {
                return Ok(());
            }
            self.remove(*leaving, &plan)?;
            self.shared.oldest.set(leaving.end_position.0);
            self.shared.freed_bytes.add(leaving.bytes);
        }
        if let Some(last) = plan.remove.last() {
            let (freed, oldest) = (plan.bytes(), last.end_position.0);
            tracing::info!(freed, oldest, held_by = %plan.held_by, "segments given up");
        } else if matches!(plan.held_by, HeldBy::Reader(..) | HeldBy::Archive(_)) {
            tracing::warn!(held_by = %plan.held_by, "no segment can be given up");
        }
        Ok(())
    }

    fn remove(&self, leaving: Leaving, plan: &Plan) -> Result<()> {
        let one = Plan {
            remove: vec![leaving],
            ..plan.clone()
        };
        let give_up = |first| {
            let refused = |error: ChangeError| ToolError::Io {
                operation: "writing",
                name: META.to_owned(),
                source: std::io::Error::other(error),
            };
            self.retainer.give_up_before(first).map_err(refused)
        };
        Ok(retention::apply(
            &self.storage,
            &one,
            give_up,
            &mut |_, _| (),
        )?)
    }

    fn archive_mark(&self, catalog: &Catalog) -> Result<Option<Option<Position>>> {
        let Some(directory) = &self.archive else {
            return Ok(None);
        };
        let disk = Disk::at(directory).map_err(|source| Error::Directory {
            directory: directory.display().to_string(),
            source,
        })?;
        let mark = Archive::new(disk).mark(catalog)?;
        Ok(Some(mark))
    }
}

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
//! * `KP5` A snapshot is relied on when it was read back whole by this keeper, no longer ago than an hour by the log's time,
//!   and nothing was found damaged since; what can be seen without reading it is looked at in each turn.
//! * `KP6` Who ends the engine waits for one step of a file, not for a file: what is half removed counts for nothing
//!   already, and goes with the next retention, or with the next snapshot.
//! * `KP3` What fails removes nothing further, is told, and is tried again behind the next snapshot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use lockstep_journaler::archive::Archive;
use lockstep_journaler::directory::META;
use lockstep_journaler::retention::{self, HeldBy, Leaving, Needs, Plan, Readers};
use lockstep_journaler::snapshots::{KEEP_MIN, Listed, Manifest, Snapshots};
use lockstep_journaler::storage::{Disk, Storage};
use lockstep_journaler::tools::{Catalog, ToolError};
use lockstep_journaler::{ChangeError, Position, Retainer};

use crate::config::{Config, Retention};
use crate::error::{Error, Result};
use crate::runtime::priority::{breathe_slowly, give_way};
use crate::shared::Shared;

/// A test load pauses so many times as long as it worked.
const PAUSE_TIMES: u32 = 8;

/// So long, by the log's time, a snapshot that was read back is believed to be on the disk as it was (`KP5`).
const TRUSTED_NS: u64 = 3_600_000_000_000;

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
    /// `KP5`: what was read back, and when by the log's time.
    read_back: BTreeMap<Position, (Manifest, u64)>,
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
            read_back: BTreeMap::new(),
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
    pub(crate) fn run(mut self) {
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
    pub(crate) fn turn(&mut self) {
        if let Err(error) = self.try_turn() {
            self.shared.retention_faults.add(1);
            tracing::error!(%error, "retention removed nothing further; the next snapshot tries again");
        }
    }

    fn try_turn(&mut self) -> Result<()> {
        let readers = Readers::new(self.storage.clone()).list()?;
        let slowest = readers.iter().map(|(_, at)| *at).min();
        let Some(kept) = self.keep_snapshots(slowest)? else {
            return Ok(());
        };
        if self.retention == Retention::Snapshots {
            self.give_up(&kept, readers)?;
        }
        if let Some(newest) = kept.last() {
            self.shared.kept.set(newest.0);
        }
        Ok(())
    }

    /// Removes the snapshots beyond those kept; what is left and loads, oldest first (`KP2`). `None`: it is over (`KP6`).
    fn keep_snapshots(&mut self, slowest: Option<Position>) -> Result<Option<Vec<Position>>> {
        let snapshots = Snapshots::new(self.storage.clone());
        let listed = snapshots.list()?;
        let times = listed.iter().filter_map(|one| one.manifest.as_ref().ok());
        let now_ns = times.map(|manifest| manifest.time_ns).max().unwrap_or(0);
        let mut kept: Vec<Position> = Vec::new();
        let mut surplus = Vec::new();
        for Listed { position, .. } in listed {
            let is_ahead = |at: Position| kept.last().is_none_or(|oldest| *oldest > at);
            let is_for_reader = slowest.is_some_and(|at| is_ahead(at) && position <= at);
            let is_lent = self.lent() == Some(position);
            if kept.len() >= self.snapshots_kept && !is_for_reader && !is_lent {
                surplus.push(position);
                continue;
            }
            match self.loads(&snapshots, position, now_ns) {
                Some(true) => kept.push(position),
                Some(false) => {}
                None => return Ok(None),
            }
        }
        self.read_back.retain(|position, _| kept.contains(position));
        // Oldest first: a crash in between leaves the newer ones.
        for position in surplus.into_iter().rev() {
            if !snapshots.remove_while(position, &mut self.goes_on())? {
                return Ok(None);
            }
        }
        kept.reverse();
        Ok(Some(kept))
    }

    /// Whether a snapshot can be relied on (`KP5`), by a test load where that is not known; one that fails is told, and
    /// nothing relies on that snapshot (`KP3`). `None`: it is over before that was found out (`KP6`).
    fn loads(&mut self, snapshots: &Snapshots<S>, position: Position, now_ns: u64) -> Option<bool> {
        let is_trusted = |(read, at_ns): &(Manifest, u64)| {
            let is_young = now_ns.saturating_sub(*at_ns) < TRUSTED_NS;
            is_young && snapshots.glance(position).is_ok_and(|now| now == *read)
        };
        if self.read_back.get(&position).is_some_and(is_trusted) {
            return Some(true);
        }
        let mut goes_on = self.goes_on();
        // Nobody waits for it.
        let loaded = snapshots.verify_slowly(position, &mut || {
            breathe_slowly(PAUSE_TIMES);
            goes_on()
        });
        match loaded {
            Ok(Some(manifest)) => {
                self.read_back.insert(position, (manifest, now_ns));
                Some(true)
            }
            Ok(None) => None,
            Err(error) => {
                // What has lost one may have lost others: the next turn reads all of them.
                self.read_back.clear();
                self.shared.retention_faults.add(1);
                tracing::error!(%position, %error, "a snapshot does not load; retention counts on the others");
                Some(false)
            }
        }
    }

    /// Whether there is time for another step (`KP6`).
    fn goes_on(&self) -> impl FnMut() -> bool + use<S> {
        let bell = Arc::clone(&self.bell);
        move || !bell.is_over()
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
        // KP6: what an earlier keeper had no time for.
        retention::finish(&self.storage, &mut self.goes_on())?;
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
        let told = &mut |_, _| ();
        let goes_on = &mut self.goes_on();
        Ok(retention::apply_while(
            &self.storage,
            &one,
            give_up,
            told,
            goes_on,
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

#[cfg(test)]
mod tests {
    use lockstep_journaler::snapshots::SnapshotOf;
    use lockstep_journaler::storage::{File as _, Open, Simulated};
    use lockstep_journaler::{Journal, Reached, Term};

    use super::*;
    use crate::event::Kinds as _;

    crate::bodies! { Word, kind 1, version 1: { word: u64 } }

    const SECOND: u64 = 1_000_000_000;

    fn journal(disk: &Simulated, config: &Config) -> Journal<Simulated> {
        let options = crate::log::options(config, &Word::schema());
        Journal::open(disk.clone(), &options).unwrap().0
    }

    fn keeper(
        disk: &Simulated,
        journal: &Journal<Simulated>,
        config: &Config,
    ) -> Keeper<Simulated> {
        let (shared, bell) = (Arc::new(Shared::new(0, 8)), Arc::default());
        Keeper::new(disk.clone(), journal.retainer(), config, shared, bell)
    }

    fn config() -> Config {
        Config {
            segment_bytes: 1 << 20,
            ..Config::default()
        }
    }

    fn take(disk: &Simulated, position: u64, time_ns: u64) {
        let of = SnapshotOf {
            log: [7; 16],
            reached: Reached {
                position: Position(position),
                ..Reached::default()
            },
            index: 0,
            term: Term(0),
            chain: 0,
            time_ns,
            schema_version: 1,
            schema_hash: 1,
            build: String::new(),
        };
        let mut writer = Snapshots::new(disk.clone()).create(of).unwrap();
        writer.write(&[1; 1000]).unwrap();
        writer.finish(9).unwrap();
    }

    /// One byte is another one, in a file that is as long as it was.
    fn damage(disk: &Simulated, position: u64) {
        let name = format!("snap/{position:020}/part-000.zst");
        let file = disk.open(&name, Open::WRITE).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 12).unwrap();
        byte[0] ^= 1;
        file.write_at(&[std::io::IoSlice::new(&byte)], 12).unwrap();
    }

    fn positions(disk: &Simulated) -> Vec<u64> {
        let listed = Snapshots::new(disk.clone()).list().unwrap();
        listed.iter().map(|one| one.position.0).collect()
    }

    #[test]
    fn kp5_what_was_read_back_is_believed_for_an_hour_of_the_log_s() {
        for (later_ns, faults, left) in [
            (SECOND, 0, &[30, 20][..]),
            (TRUSTED_NS, 1, &[30, 20, 10][..]),
        ] {
            let disk = Simulated::new(1);
            let journal = journal(&disk, &config());
            let mut keeper = keeper(&disk, &journal, &config());
            take(&disk, 10, SECOND);
            take(&disk, 20, SECOND);
            keeper.turn();
            damage(&disk, 20);
            take(&disk, 30, SECOND + later_ns);
            keeper.turn();
            assert_eq!(positions(&disk), left);
            assert_eq!(keeper.shared.retention_faults.get(), faults);
            assert_eq!(keeper.shared.kept.get(), 30);
        }
    }

    #[test]
    fn kp5_what_is_seen_without_reading_is_never_believed() {
        let disk = Simulated::new(1);
        let journal = journal(&disk, &config());
        let mut keeper = keeper(&disk, &journal, &config());
        take(&disk, 10, SECOND);
        take(&disk, 20, SECOND);
        keeper.turn();
        let part = "snap/00000000000000000020/part-000.zst";
        disk.open(part, Open::WRITE).unwrap().set_len(30).unwrap();
        take(&disk, 30, SECOND);
        keeper.turn();
        assert_eq!(positions(&disk), [30, 20, 10]);
        assert_eq!(keeper.shared.retention_faults.get(), 1);
    }

    #[test]
    fn kp6_one_that_is_to_end_leaves_the_rest_to_the_next() {
        let disk = Simulated::new(1);
        let config = Config {
            retention: Retention::Snapshots,
            ..config()
        };
        let journal = journal(&disk, &config);
        for position in [10, 20, 30] {
            take(&disk, position, SECOND);
        }
        let going = "0000000000.seg.going";
        let file = disk.open(going, Open::CREATE).unwrap();
        file.set_len(3 << 20).unwrap();
        let mut ending = keeper(&disk, &journal, &config);
        ending.bell.end();
        ending.turn();
        assert_eq!(positions(&disk), [30, 20, 10]);
        assert_eq!(ending.shared.retention_faults.get(), 0);
        assert_eq!(ending.shared.kept.get(), 0, "it was not done");
        keeper(&disk, &journal, &config).turn();
        assert_eq!(positions(&disk), [30, 20]);
        assert!(disk.list("").unwrap().iter().all(|one| one.name != going));
    }
}

//! What is done ahead, so that the hot path does no metadata operation: zeroed
//! spares, the next segment under its name, seals, and the durable hint.
//!
//! ```text
//!   pool/7.tmp ──zeros, paced──► sync ──rename──► pool/7.zero ──rename, sync of directory──► 42.seg ──► writer
//!   full segment ◄── footer, sync, read-only, 41.idx                        hint ──► journal.meta, every 100 ms
//! ```
//!
//! One state machine, [`Preparer::step`]: a thread gives it turns on a real disk,
//! the test on the simulated one.
//!
//! # Invariants
//!
//! * `PR1` A file called `.zero` or `.seg` without a header is zeros, durably, and has its full length.
//! * `PR2` Whoever finds no room cleans up, raises the alarm, and asks again later.
//! * `PR3` A footer or index that cannot be written is an alarm, no poison: they only repeat the frames.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::buffer::AlignedBuffer;
use crate::directory::{DurableHint, POOL};
use crate::error::IoFault;
use crate::index::SparseIndex;
use crate::position::SegmentId;
use crate::segment::{BLOCK, SegmentFooter};
use crate::shared::{Next, Seal, Shared, Spares, lock};
use crate::storage::{DIRECT_ALIGN, File, Open, Storage};

/// What a step did, and when the next one makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Something was done: go on at once.
    Busy,
    /// Something was done: give the disk this long.
    Pause(Duration),
    /// There was nothing to do: look again after this long.
    Idle(Duration),
}

#[derive(Debug)]
pub(crate) struct Preparer<S: Storage> {
    shared: Arc<Shared<S>>,
    building: Option<Building<S::File>>,
    zeros: AlignedBuffer,
    hinted: DurableHint,
    hint_due_ns: u64,
    retry_at_ns: u64,
}

#[derive(Debug)]
struct Building<F> {
    name: String,
    serial: u64,
    file: F,
    at: u64,
}

const RETRY: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

impl<S: Storage> Preparer<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>) -> Preparer<S> {
        let chunk = chunk_bytes(&shared);
        let hinted = *lock(&shared.hint);
        Preparer {
            zeros: AlignedBuffer::with_room(chunk),
            shared,
            building: None,
            hinted,
            hint_due_ns: 0,
            retry_at_ns: 0,
        }
    }

    /// Does the most urgent piece of work.
    pub(crate) fn step(&mut self) -> Pace {
        if self.shared.poisoned().is_some() {
            return Pace::Idle(RETRY);
        }
        let work = self.try_step();
        work.unwrap_or_else(|fault| {
            self.shared.poison(fault);
            Pace::Idle(RETRY)
        })
    }

    fn try_step(&mut self) -> Result<Pace, IoFault> {
        if provide_next(&self.shared)? {
            return Ok(Pace::Busy);
        }
        let seal = lock(&self.shared.seals).pop_front();
        if let Some(seal) = seal {
            self.seal(&seal);
            return Ok(Pace::Busy);
        }
        let now_ns = self.shared.storage.now_ns();
        if now_ns >= self.hint_due_ns && self.write_hint(now_ns)? {
            return Ok(Pace::Busy);
        }
        if now_ns < self.retry_at_ns {
            return Ok(Pace::Idle(LOOK));
        }
        match self.build() {
            Ok(true) if self.is_behind() => Ok(Pace::Busy),
            Ok(true) => Ok(Pace::Pause(self.pause())),
            Ok(false) => Ok(Pace::Idle(LOOK)),
            Err(fault) => {
                self.give_up(&fault, now_ns);
                Ok(Pace::Idle(LOOK))
            }
        }
    }

    /// Whether the segment that is written fills faster than the next one: it is wanted at three
    /// quarters, and a pause now costs more then.
    fn is_behind(&self) -> bool {
        // ORDERING: Relaxed, a measurement that nothing hangs on.
        let data_end = self.shared.alarms.data_end.load(Ordering::Relaxed);
        let spares = lock(&self.shared.spares);
        let has_next = spares.next.is_some() || !spares.pool.is_empty();
        let built = self.building.as_ref().map_or(0, |building| building.at);
        !has_next && built < data_end.saturating_mul(4) / 3
    }

    /// Longer while the syncs beside us take more than twice their usual time.
    fn pause(&self) -> Duration {
        let alarms = &self.shared.alarms;
        // ORDERING: Relaxed, two measurements that nothing hangs on.
        let last = alarms.last_sync_ns.load(Ordering::Relaxed);
        // ORDERING: Relaxed, as above.
        let usual = alarms.usual_sync_ns.load(Ordering::Relaxed);
        let pause = self.shared.options.prepare_pause;
        if last > 2 * usual { pause * 4 } else { pause }
    }

    /// Makes the durable hint durable itself, if it moved.
    fn write_hint(&mut self, now_ns: u64) -> Result<bool, IoFault> {
        let interval = self.shared.options.hint_interval;
        self.hint_due_ns = now_ns + u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 2);
        // Meta before hint, as everywhere: a cut lowers the hint and the slot under both locks.
        let mut meta = lock(&self.shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(false);
        };
        let hint = *lock(&self.shared.hint);
        if hint == self.hinted {
            return Ok(false);
        }
        meta.update(|slot| slot.set_durable(&hint))?;
        self.hinted = hint;
        Ok(true)
    }

    /// One chunk of zeros, or the last touch to a spare; `false` if there are enough.
    fn build(&mut self) -> Result<bool, IoFault> {
        self.build_up_to(self.shared.options.spares as usize)
    }

    fn build_up_to(&mut self, enough: usize) -> Result<bool, IoFault> {
        let Some(building) = &mut self.building else {
            return self.begin(enough);
        };
        let length = self.shared.options.segment_bytes;
        let fault = |operation: &'static str| {
            let name = building.name.clone();
            move |error| IoFault::new(operation, &name, error)
        };
        if building.at < length {
            let bytes = (length - building.at).min(self.zeros.len() as u64);
            let zeros = &self.zeros[..usize::try_from(bytes).unwrap_or(self.zeros.len())];
            building
                .file
                .write_at(&[IoSlice::new(zeros)], building.at)
                .map_err(fault("write"))?;
            building.at += zeros.len() as u64;
            return Ok(true);
        }
        building.file.sync_all().map_err(fault("sync"))?;
        let whole = format!("{POOL}/{:012}.zero", building.serial);
        self.shared
            .storage
            .rename(&building.name, &whole)
            .map_err(fault("rename"))?;
        self.shared.sync_directory(POOL)?;
        self.building = None;
        lock(&self.shared.spares).pool.push(whole);
        // ORDERING: Relaxed, a flag for people.
        self.shared.alarms.low_space.store(false, Ordering::Relaxed);
        Ok(true)
    }

    fn begin(&mut self, enough: usize) -> Result<bool, IoFault> {
        let (serial, has_enough) = {
            let mut spares = lock(&self.shared.spares);
            let has_enough = spares.pool.len() >= enough;
            if !has_enough {
                spares.serial += 1;
            }
            (spares.serial, has_enough)
        };
        if has_enough {
            return Ok(false);
        }
        let name = format!("{POOL}/{serial:012}.tmp");
        let file = create_zeroable(&self.shared.storage, &name)
            .map_err(|error| IoFault::new("create", &name, error))?;
        self.building = Some(Building {
            name,
            serial,
            file,
            at: 0,
        });
        Ok(true)
    }

    /// Builds one spare without pauses, also where none are to be kept: when a journal is created.
    pub(crate) fn build_now(&mut self) -> Result<(), IoFault> {
        let has_one = |shared: &Shared<S>| !lock(&shared.spares).pool.is_empty();
        // Ends: each turn writes a chunk of a file of fixed length, or fails.
        while !has_one(&self.shared) {
            if let Err(fault) = self.build_up_to(1) {
                self.give_up(&fault, 0);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// A spare that cannot be built goes, with the room it takes (`PR2`).
    fn give_up(&mut self, fault: &IoFault, now_ns: u64) {
        self.retry_at_ns = now_ns + u64::try_from(RETRY.as_nanos()).unwrap_or(0);
        let alarms = &self.shared.alarms;
        if fault.is_full() {
            // ORDERING: Relaxed, a flag for people.
            alarms.low_space.store(true, Ordering::Relaxed);
        } else {
            // ORDERING: Relaxed, a count for people.
            alarms.background_faults.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(building) = self.building.take() {
            drop(building.file);
            // If it stays, the next opening removes it.
            let _ = self.shared.storage.remove(&building.name);
        }
    }

    pub(crate) fn seal(&self, seal: &Seal) {
        if write_seal(&self.shared, seal).is_err() {
            // ORDERING: Relaxed, a count for people (PR3).
            self.shared
                .alarms
                .background_faults
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything that waits, without building: before closing.
    pub(crate) fn finish(&mut self) {
        // Ends: nobody pushes while we close.
        loop {
            let seal = lock(&self.shared.seals).pop_front();
            match seal {
                Some(seal) => self.seal(&seal),
                None => break,
            }
        }
        if let Some(building) = self.building.take() {
            drop(building.file);
            let _ = self.shared.storage.remove(&building.name);
        }
    }
}

/// Gives a spare its final name, durably, if the writer is near the end of its segment.
pub(crate) fn provide_next<S: Storage>(shared: &Shared<S>) -> Result<bool, IoFault> {
    let mut spares = lock(&shared.spares);
    let Some(id) = spares
        .wanted
        .filter(|_| spares.next.is_none() && !spares.pool.is_empty())
    else {
        return Ok(false);
    };
    take_from_pool(shared, &mut spares, id)?;
    Ok(true)
}

pub(crate) fn take_from_pool<S: Storage>(
    shared: &Shared<S>,
    spares: &mut Spares<S::File>,
    id: SegmentId,
) -> Result<(), IoFault> {
    let Some(spare) = spares.pool.pop() else {
        return Ok(());
    };
    let name = id.file_name();
    shared
        .storage
        .rename(&spare, &name)
        .map_err(|error| IoFault::new("rename", &spare, error))?;
    shared.sync_directory("")?;
    spares.next = Some(open_next(shared, id)?);
    spares.wanted = None;
    Ok(())
}

/// A segment that holds nothing yet, with all that writing it will need.
pub(crate) fn open_next<S: Storage>(
    shared: &Shared<S>,
    id: SegmentId,
) -> Result<Next<S::File>, IoFault> {
    let file = open_segment(shared, id)?;
    let length = file
        .len()
        .map_err(|error| IoFault::new("look", &id.file_name(), error))?;
    let index = SparseIndex::with_room(shared.options.segment_bytes);
    let tail_block = Box::new([0; DIRECT_ALIGN]);
    Ok(Next {
        id,
        file,
        length,
        index,
        tail_block,
    })
}

/// Opens a segment for writing, as the engine wants it.
pub(crate) fn open_segment<S: Storage>(
    shared: &Shared<S>,
    id: SegmentId,
) -> Result<S::File, IoFault> {
    let how = match shared.options.mode {
        crate::options::Mode::Direct => Open::WRITE.direct(),
        _ => Open::WRITE,
    };
    let name = id.file_name();
    open_writable(&shared.storage, &name, how).map_err(|error| IoFault::new("open", &name, error))
}

/// Opens for writing what may have been sealed: a footer that was lost leaves a read-only file.
pub(crate) fn open_writable<S: Storage>(storage: &S, name: &str, how: Open) -> io::Result<S::File> {
    match storage.open(name, how) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            storage.set_writable(name)?;
            storage.open(name, how)
        }
        other => other,
    }
}

/// Past the page cache, so that zeros do not push out what is read; in it where the storage cannot.
fn create_zeroable<S: Storage>(storage: &S, name: &str) -> io::Result<S::File> {
    match storage.open(name, Open::CREATE.direct()) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            match storage.open(name, Open::CREATE) {
                // The refused open left the file behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    storage.open(name, Open::WRITE)
                }
                other => other,
            }
        }
        other => other,
    }
}

/// Footer, sync, read-only, index: `SG3`.
pub(crate) fn write_seal<S: Storage>(shared: &Shared<S>, seal: &Seal) -> Result<(), IoFault> {
    let id = SegmentId(seal.header.segment_id);
    let name = id.file_name();
    let fault = |operation| {
        let name = name.clone();
        move |error| IoFault::new(operation, &name, error)
    };
    let file = open_writable(&shared.storage, &name, Open::WRITE).map_err(fault("open"))?;
    let footer = SegmentFooter::new(&seal.header, &seal.summary).block();
    let at = seal.header.segment_bytes - BLOCK;
    file.write_at(&[IoSlice::new(&footer)], at)
        .map_err(fault("write"))?;
    file.sync_all().map_err(fault("sync"))?;
    shared
        .storage
        .set_read_only(&name)
        .map_err(fault("chmod"))?;
    write_index(shared, seal)
}

fn write_index<S: Storage>(shared: &Shared<S>, seal: &Seal) -> Result<(), IoFault> {
    let id = SegmentId(seal.header.segment_id);
    let name = id.index_name();
    let fault = |operation| {
        let name = name.clone();
        move |error| IoFault::new(operation, &name, error)
    };
    let bytes = seal.index.encode(&seal.header.journal_id, id);
    let file = match shared.storage.open(&name, Open::CREATE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => shared
            .storage
            .open(&name, Open::WRITE)
            .map_err(fault("open"))?,
        other => other.map_err(fault("create"))?,
    };
    file.set_len(bytes.len() as u64)
        .map_err(fault("set length"))?;
    file.write_at(&[IoSlice::new(&bytes)], 0)
        .map_err(fault("write"))?;
    file.sync_data().map_err(fault("sync"))
}

fn chunk_bytes<S: Storage>(shared: &Shared<S>) -> usize {
    let chunk = shared.options.prepare_chunk_bytes.clamp(BLOCK, 16 << 20);
    usize::try_from(
        chunk
            .next_multiple_of(BLOCK)
            .min(shared.options.segment_bytes),
    )
    .unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use crate::storage::Simulated;
    use crate::{Background, Journal, Options};

    crate::schema! {
        /// The least there is.
        NUMBERS: "numbers" version 1 for Number, one kind;
        header { value: plain; }
        0 = "number" as Number {}
    }

    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Number {
        value: u64,
    }

    #[test]
    fn a_journal_that_keeps_no_spares_still_begins_with_a_segment() {
        let mut options = Options::new(&NUMBERS).with_segment_bytes(1 << 20);
        (options.spares, options.background) = (0, Background::Stepped);
        let (journal, _) = Journal::open(Simulated::new(1), &options).unwrap();
        assert_eq!(
            journal.health().spares,
            1,
            "the next segment, and nothing else"
        );
    }
}

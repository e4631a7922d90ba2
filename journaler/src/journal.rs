//! The face: open, write, sync, read, cut back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::batch::Cutter;
use crate::directory::{LOCK, MetaSlot, NOTES_BYTES, POOL, segments};
use crate::error::{ChangeError, IoFault, OpenError, Poisoned, ReadError, WriteError};
use crate::frame::Frame;
use crate::options::{Background, Mode, Options};
use crate::position::{Reached, SegmentId, Term};
use crate::prepare::{Pace, Preparer, open_segment, provide_next};
use crate::reader::{From, Reader};
use crate::recovery::{
    Content, CutPlan, Recovered, Recovery, Verdict, check_medium, finish_cut, plan_cut, recover,
};
use crate::scan::{Bytes, Survey, Walk, Window, survey};
use crate::segment::{BLOCK_BYTES, SegmentHeader, Tail};
use crate::shared::{Next, Progress, Seal, Shared, lock};
use crate::storage::{DIRECT_ALIGN, File, Open, Storage};
use crate::writer::{Active, Counters, Writer};

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

    fn without_files(storage: S, options: &Options) -> (Journal<S>, Recovered) {
        let tail = options.start;
        let recovered = Recovered {
            reached: tail.reached,
            oldest: tail.reached.position,
            verdict: Verdict::Created,
            was_clean: false,
            finished_cut: false,
            resealed: Vec::new(),
            open_epoch: 0,
        };
        let slot = MetaSlot::new([0; 16], [0; 16]);
        let template = template(options, &slot, 0);
        let hint = crate::directory::DurableHint {
            reached: tail.reached,
            ..Default::default()
        };
        let shared = Arc::new(Shared::new(
            storage,
            options.clone(),
            template,
            Vec::new(),
            None,
            hint,
        ));
        let writer = Writer::new(Arc::clone(&shared), None, SegmentId(0), tail, 0);
        (
            Journal {
                shared,
                writer,
                background: Worker::Gone,
                lock: None,
            },
            recovered,
        )
    }

    fn resume(
        storage: S,
        options: &Options,
        descriptor: &[u8],
        recovery: Recovery<S::File>,
    ) -> Result<(Journal<S>, Recovered), OpenError> {
        let Recovery {
            recovered,
            meta,
            tail,
            active,
            next_id,
            has_blank,
            unsealed,
        } = recovery;
        let template = template(options, meta.slot(), descriptor.len());
        let mut blocks = descriptor.to_vec();
        blocks.resize(descriptor.len().next_multiple_of(BLOCK_BYTES), 0);
        let hint = meta.slot().durable();
        let epoch = recovered.open_epoch;
        let shared = Arc::new(Shared::new(
            storage,
            options.clone(),
            template,
            blocks,
            Some(meta),
            hint,
        ));
        load_pool(&shared)?;
        for Content {
            header,
            summary,
            index,
        } in unsealed
        {
            lock(&shared.seals).push_back(Seal {
                header,
                summary,
                index,
            });
        }
        let active = active
            .map(|content| resume_segment(&shared, content))
            .transpose()?;
        if has_blank {
            let file = open_segment(&shared, next_id)?;
            lock(&shared.spares).next = Some(Next { id: next_id, file });
        }
        let mut preparer = Preparer::new(Arc::clone(&shared));
        if active.is_none() && !has_blank {
            lock(&shared.spares).wanted = Some(next_id);
            match preparer.build_now() {
                Err(fault) if !fault.is_full() => return Err(fault.into()),
                // Opening works on a full disk; writing says "full" until there is room.
                _ => provide_next(&shared)?,
            };
        }
        let writer = Writer::new(Arc::clone(&shared), active, next_id, tail, epoch);
        let background = Worker::Stepped(Box::new(preparer));
        Ok((
            Journal {
                shared,
                writer,
                background,
                lock: None,
            },
            recovered,
        ))
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

    /// Makes the log end at `to`, durably, because another leader had other frames behind it.
    /// Only between two rings: readers behind `to` have to be gone.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoBoundary`] if no frame ends there; then nothing was changed.
    pub fn cut_back(&mut self, to: Reached) -> Result<(), ChangeError> {
        self.shared.checked()?;
        self.sync()?;
        let end = self.tail().reached;
        if to == end {
            return Ok(());
        }
        let no_boundary = ChangeError::NoBoundary {
            position: to.position,
            frames: to.frames,
            end: end.position,
            end_frames: end.frames,
        };
        if to.frames > end.frames || to.position > end.position {
            return Err(no_boundary);
        }
        match plan_cut(&self.shared.storage, to)? {
            CutPlan::NoBoundary => Err(no_boundary),
            CutPlan::At(intent) => {
                let outcome = self.cut(&intent);
                outcome.map_err(|fault| ChangeError::Poisoned(self.shared.poison(fault)))
            }
        }
    }

    fn cut(&mut self, intent: &crate::directory::CutIntent) -> Result<(), IoFault> {
        let shared = Arc::clone(&self.shared);
        // A seal or a renaming under way is finished before files change under it.
        let background = self.stop_background();
        self.cut_alone(&shared, intent)?;
        if let Some(preparer) = background {
            self.background = Worker::Stepped(Box::new(preparer));
            self.start_background();
        }
        Ok(())
    }

    fn cut_alone(
        &mut self,
        shared: &Arc<Shared<S>>,
        intent: &crate::directory::CutIntent,
    ) -> Result<(), IoFault> {
        let mut meta = lock(&shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(());
        };
        let mut hint = *lock(&shared.hint);
        hint.reached = intent.reached;
        (hint.segment, hint.offset, hint.chain) = (intent.segment, intent.offset, 0);
        meta.update_both(|slot| {
            slot.set_durable(&hint);
            slot.set_cut_intent(Some(*intent));
        })?;
        drop(self.writer.take_active());
        lock(&shared.seals).retain(|seal| seal.header.segment_id < intent.segment.0);
        {
            // What was named ahead goes with the later segments, what was asked for is another now.
            let mut spares = lock(&shared.spares);
            (spares.next, spares.wanted) = (None, None);
        }
        finish_cut(&shared.storage, meta.slot(), intent)?;
        let (content, tail) = self.content(intent.segment)?;
        hint.chain = tail.chain;
        meta.update_both(|slot| {
            slot.set_cut_intent(None);
            slot.set_durable(&hint);
            slot.open_epoch += 1;
        })?;
        let epoch = meta.slot().open_epoch;
        *lock(&shared.hint) = hint;
        shared.progress.set_durable(intent.reached);
        shared.progress.set_written(intent.reached);
        let next_id = intent.segment.next();
        let active = resume_segment(shared, content)?;
        self.writer.restart(active, next_id, tail, epoch);
        Ok(())
    }

    /// What a segment holds, by a walk through it.
    fn content(&self, id: SegmentId) -> Result<(Content, Tail), IoFault> {
        let name = id.file_name();
        let file = self.shared.storage.open(&name, Open::READ);
        let file = file.map_err(|error| IoFault::new("open", &name, error))?;
        let mut bytes = Bytes::Window(Window::new(file, 1 << 20));
        let read = |error| IoFault::new("read", &name, error);
        let block = bytes.get(0, BLOCK_BYTES).map_err(read)?;
        let header = SegmentHeader::decode(block).map_err(|fault| {
            read(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                fault.to_string(),
            ))
        })?;
        let Survey { summary, index, .. } = survey(Walk::new(&header), &header, &mut bytes);
        let tail = summary.tail;
        Ok((
            Content {
                header,
                summary,
                index,
            },
            tail,
        ))
    }

    /// The durable term.
    #[must_use]
    pub fn term(&self) -> Term {
        lock(&self.shared.meta)
            .as_ref()
            .map_or(Term(0), |meta| meta.slot().term())
    }

    /// For whom this node voted in the durable term.
    #[must_use]
    pub fn vote(&self) -> Option<u64> {
        lock(&self.shared.meta)
            .as_ref()
            .and_then(|meta| meta.slot().vote())
    }

    /// What the consensus keeps beside term and vote.
    #[must_use]
    pub fn notes(&self) -> Vec<u8> {
        lock(&self.shared.meta)
            .as_ref()
            .map_or_else(Vec::new, |meta| meta.slot().notes().to_vec())
    }

    /// The identity of the log, the same on every node.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.template.log_id
    }

    /// Makes term and vote durable, in both slots, before it returns.
    ///
    /// # Errors
    ///
    /// [`ChangeError::TermBack`] and [`ChangeError::SecondVote`] change nothing.
    pub fn set_term_and_vote(&mut self, term: Term, vote: Option<u64>) -> Result<(), ChangeError> {
        let (current, voted) = (self.term(), self.vote());
        if term < current {
            return Err(ChangeError::TermBack {
                found: term,
                current,
            });
        }
        if let (Some(voted), true) = (voted, term == current)
            && vote != Some(voted)
        {
            return Err(ChangeError::SecondVote {
                term,
                current: voted,
                found: vote.unwrap_or(0),
            });
        }
        self.change_meta(|slot| slot.set_term_and_vote(term, vote))
    }

    /// Makes the consensus' notes durable: membership and the like.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotesTooLong`] changes nothing.
    pub fn set_notes(&mut self, notes: &[u8]) -> Result<(), ChangeError> {
        if notes.len() > NOTES_BYTES {
            return Err(ChangeError::NotesTooLong {
                found: notes.len(),
                max: NOTES_BYTES,
            });
        }
        self.change_meta(|slot| {
            slot.set_notes(notes);
        })
    }

    /// Says, durably, that segments before `first` may go: opening does not miss them any more.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Poisoned`].
    pub fn give_up_before(&mut self, first: SegmentId) -> Result<(), ChangeError> {
        self.change_meta(|slot| {
            let first = first.max(slot.first_segment());
            slot.set_first_segment(first);
        })
    }

    fn change_meta(&mut self, change: impl FnOnce(&mut MetaSlot)) -> Result<(), ChangeError> {
        self.shared.checked()?;
        let mut meta = lock(&self.shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(());
        };
        meta.update_both(change)
            .map_err(|fault| ChangeError::Poisoned(self.shared.poison(fault)))
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

/// What every new segment's header says, but for where it continues.
fn template(options: &Options, slot: &MetaSlot, schema_bytes: usize) -> SegmentHeader {
    let schema = &options.schema;
    let mut schema_name = [0; 64];
    let length = schema.name.len().min(64);
    schema_name[..length].copy_from_slice(&schema.name.as_bytes()[..length]);
    SegmentHeader {
        segment_bytes: options.segment_bytes,
        window_bytes: options.window_bytes(),
        schema_version: schema.version,
        event_size: schema.event_size,
        schema_bytes: u32::try_from(schema_bytes).unwrap_or(u32::MAX),
        alignment: 64,
        engine: if options.mode == Mode::Direct { 2 } else { 1 },
        mode: options.mode.number(),
        schema_hash: schema.hash(),
        schema_name,
        ..SegmentHeader::new(slot.log_id, slot.journal_id, SegmentId(0))
    }
}

/// The spares that are whole; what was begun goes.
fn load_pool<S: Storage>(shared: &Shared<S>) -> Result<(), IoFault> {
    let storage = &shared.storage;
    storage
        .create_dir(POOL)
        .map_err(|error| IoFault::new("create", POOL, error))?;
    let entries = storage
        .list(POOL)
        .map_err(|error| IoFault::new("list", POOL, error))?;
    let mut spares = lock(&shared.spares);
    for entry in entries {
        let name = format!("{POOL}/{}", entry.name);
        let serial = entry
            .name
            .strip_suffix(".zero")
            .and_then(|digits| digits.parse::<u64>().ok());
        match serial {
            Some(serial) if entry.length == shared.options.segment_bytes => {
                spares.serial = spares.serial.max(serial);
                spares.pool.push(name);
            }
            _ => storage
                .remove(&name)
                .map_err(|error| IoFault::new("remove", &name, error))?,
        }
    }
    Ok(())
}

/// The newest segment, to be written further.
fn resume_segment<S: Storage>(
    shared: &Shared<S>,
    content: Content,
) -> Result<Active<S::File>, IoFault> {
    let Content {
        header,
        summary,
        index,
    } = content;
    let id = SegmentId(header.segment_id);
    let name = id.file_name();
    let fault = |operation| {
        let name = name.clone();
        move |error| IoFault::new(operation, &name, error)
    };
    let file = open_segment(shared, id)?;
    let zeroed_to = file.len().map_err(fault("look"))?;
    let mut tail_block = Box::new([0; DIRECT_ALIGN]);
    let block_at = summary.data_end - summary.data_end % DIRECT_ALIGN as u64;
    let buffered = shared
        .storage
        .open(&name, Open::READ)
        .map_err(fault("open"))?;
    buffered
        .read_at(&mut tail_block[..], block_at)
        .map_err(fault("read"))?;
    let mut room = crate::index::SparseIndex::with_room(header.segment_bytes);
    for row in index.rows() {
        room.note(*row);
    }
    Ok(Active {
        durable_at: summary.data_end,
        header,
        file,
        is_blank: false,
        zeroed_to,
        summary,
        index: room,
        tail_block,
    })
}

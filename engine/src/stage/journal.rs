//! *journal*: what it releases is durable here.
//!
//! It takes whatever waits, cuts one frame from it, writes and syncs; what arrives while the
//! disk is busy is the next group. So the group grows with the load by itself, and there is
//! no timer.
//!
//! # Invariants
//!
//! * `JS1` The gate moves only behind the sync's success; under `async` behind the write.
//! * `JS2` A full disk holds the gate where it is, and it goes on when there is room; every
//!   other failure closes it for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_journaler::storage::Storage;
use lockstep_ringbuffer::{Gate, LateStage, Progress, Sequence, Standing, View};

use crate::event::Slot;
use crate::ledger::Ledger;
use crate::log::{AppendError, Log};
use crate::shared::Shared;

/// A worker that was not woken looks again after this time.
const WORKER_BACKSTOP: Duration = Duration::from_millis(1);

/// Writes what the gate holds.
#[derive(Debug)]
pub(crate) struct Committer<E, S: Storage> {
    /// `None` once it has failed.
    gate: Option<Gate<E>>,
    log: Option<Log<S>>,
    ledger: Ledger,
    shared: Arc<Shared>,
    /// No other promise stands beside this one: what is durable is promised.
    is_alone: bool,
    is_full: bool,
}

impl<E: Slot, S: Storage> Committer<E, S> {
    /// The last says that this promise is the only one.
    pub(crate) fn new(
        gate: Gate<E>,
        log: Log<S>,
        ledger: Ledger,
        shared: Arc<Shared>,
        is_alone: bool,
    ) -> Self {
        Self {
            gate: Some(gate),
            log: Some(log),
            ledger,
            shared,
            is_alone,
            is_full: false,
        }
    }

    /// Writes and syncs one frame, and moves the gate; whether there was anything.
    fn commit(&mut self) -> bool {
        let (Some(gate), Some(log)) = (&mut self.gate, &mut self.log) else {
            return false;
        };
        let held = gate.held();
        if held.is_empty() {
            return log.idle().is_err_and(|error| self.fail(&error.to_string()));
        }
        let most = log.frame_events_max();
        let head = &held.head[..held.head.len().min(most)];
        let tail = &held.tail[..held.tail.len().min(most - head.len())];
        let end = held.first + (head.len() + tail.len()) as u64;
        let last = tail
            .last()
            .or(head.last())
            .map_or(0, |event| event.header().time);
        match log.append(
            [bytemuck::cast_slice(head), bytemuck::cast_slice(tail)],
            last,
        ) {
            Ok(()) => {
                let released = gate.release_to(end);
                self.note(released);
                true
            }
            Err(AppendError::Full(error)) => self.hold(&error),
            Err(AppendError::Failed(error)) => self.fail(&error),
        }
    }

    fn note(&mut self, released: Sequence) {
        if self.is_full {
            self.is_full = false;
            self.shared.waits_for_room.set(0);
            tracing::info!("the journal has room again");
        }
        let durable = self.ledger.position(released).0;
        self.shared.durable.set(durable);
        if self.is_alone {
            self.shared.promised.set(durable);
        }
        if let Some(log) = &self.log {
            self.shared.syncs.set(log.syncs());
            self.shared.last_sync_ns.set(log.last_sync_ns());
        }
    }

    /// `JS2`: no room. Nothing was written, nothing is lost, the door says busy.
    #[cold]
    fn hold(&mut self, error: &str) -> bool {
        if !self.is_full {
            tracing::warn!(%error, "the journal waits for room on the disk");
        }
        self.is_full = true;
        self.shared.waits_for_room.set(1);
        false
    }

    #[cold]
    fn fail(&mut self, error: &str) -> bool {
        self.shared.fail(format!("journal: {error}"));
        if let Some(gate) = self.gate.take() {
            gate.fail(error.to_owned());
        }
        false
    }

    fn is_behind(&self) -> bool {
        self.gate
            .as_ref()
            .is_some_and(|gate| gate.taken() != gate.released())
    }

    /// Everything is written: the log is closed in order, unless it failed or the process is
    /// taken to have died.
    fn close(&mut self) {
        let Some(log) = self.log.take() else { return };
        if self.shared.is_abandoned() {
            return;
        }
        if let Err(error) = log.close() {
            self.shared.fail(format!("journal: {error}"));
        }
    }
}

/// The stage that writes and syncs on its own thread.
#[derive(Debug)]
pub(crate) struct Inline<E, S: Storage>(pub(crate) Committer<E, S>);

impl<E: Slot, S: Storage> LateStage<E> for Inline<E, S> {
    fn on_batch(&mut self, _: View<'_, E>) -> Progress {
        Progress::All
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        self.0.commit()
    }

    fn on_stop(&mut self) {
        self.0.close();
    }
}

/// The stage whose gate is moved by a thread of its own, which blocks in the kernel.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Worker {
    pub(crate) fn new<E: Slot, S: Storage>(
        mut committer: Committer<E, S>,
    ) -> std::io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let body = move || {
            // Ends: by the flag, once nothing is taken that is not written or the disk has no room for
            // it, or by a failure.
            loop {
                let worked = committer.commit();
                // ORDERING: Acquire, pairs with the Release in `on_stop`.
                if seen.load(Ordering::Acquire) && (!committer.is_behind() || committer.is_full)
                    || committer.gate.is_none()
                {
                    break;
                }
                if !worked {
                    std::thread::park_timeout(WORKER_BACKSTOP);
                }
            }
            committer.close();
        };
        let thread = std::thread::Builder::new()
            .name("journal-disk".to_owned())
            .spawn(body)?;
        Ok(Self {
            thread: Some(thread),
            is_over,
        })
    }

    fn end(&mut self) {
        // ORDERING: Release, pairs with the Acquire in the thread.
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has poisoned the pipeline by dropping the gate.
            let _panicked = thread.join();
        }
    }

    /// For a graph that is not going to run.
    pub(crate) fn none() -> Self {
        Self {
            thread: None,
            is_over: Arc::default(),
        }
    }
}

impl<E: Slot> LateStage<E> for Worker {
    fn on_batch(&mut self, _: View<'_, E>) -> Progress {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        Progress::All
    }

    fn on_stop(&mut self) {
        self.end();
    }
}

/// A graph that was refused before it ran gives the journal back, too.
impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

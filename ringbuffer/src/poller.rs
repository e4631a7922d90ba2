//! A stage driven by its user's own thread, and readers that come and go.
//!
//! Both take batches when they please and never wait.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::batch::{Batch, Progress};
use crate::cursor::{CursorRef, NOWHERE, Sequence};
use crate::desk::{Desk, Locals};
use crate::error::{ClaimError, FaultKind};
use crate::orderings::{OWN, full_fence, seat_free, seat_take};
use crate::state::{Phase, State, panic_text};
use crate::sync::{Arc, AtomicBool};

/// What happens to the pipeline when a poller is dropped before the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDrop {
    /// It is poisoned: events that the poller should have seen will not be seen.
    #[default]
    Halt,
    /// It goes on without the poller. No stage may follow such a poller.
    Detach,
}

/// What a poll came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// The closure got a batch; so many events were released.
    Ran(usize),
    /// Nothing is published.
    Idle,
    /// Events are published, and not released by the stages that the poller follows.
    Gated,
    /// The producers are gone and everything is released.
    Finished,
    /// The pipeline was halted or poisoned, and nothing is left to take.
    Stopped(ClaimError),
}

/// A stage that its user drives, from any thread: `Send`, never waits.
///
/// ```
/// use lockstep_ringbuffer::{Graph, OnDrop, Polled, Progress};
///
/// let mut graph = Graph::new(8, || 0_u64)?;
/// let id = graph.poller("mine", &[], OnDrop::Halt);
/// let (mut producer, mut pipeline) = graph.build()?;
/// let mut poller = pipeline.poller(id)?;
///
/// producer.publish(|event| *event = 42)?;
/// let polled = poller.poll(100, |batch| {
///     assert_eq!(batch.events(), [42]);
///     Progress::All
/// });
/// assert_eq!(polled, Polled::Ran(1));
/// assert_eq!(poller.poll(100, |_| Progress::All), Polled::Idle);
/// drop(producer);
/// assert_eq!(poller.poll(100, |_| Progress::All), Polled::Finished);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Poller<E> {
    pub(crate) desk: Desk<E>,
    pub(crate) published: CursorRef,
    pub(crate) state: Arc<State>,
    pub(crate) on_drop: OnDrop,
    pub(crate) is_over: bool,
}

impl<E> fmt::Debug for Poller<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("released", &self.desk.outlet.released)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> Poller<E> {
    /// Hands the next events, at most `max` of them, to `take` and releases what it
    /// answers. What it leaves comes again.
    ///
    /// # Panics
    ///
    /// If `max` is 0. A panic in `take` poisons the pipeline and goes on here; a sequence
    /// outside the batch poisons it as well.
    pub fn poll(&mut self, max: usize, take: impl FnOnce(Batch<'_, E>) -> Progress) -> Polled {
        assert!(max > 0, "poll: a batch of at most 0 events is none");
        if self.is_over {
            return Polled::Finished;
        }
        self.desk.max_batch = (max as u64).min(self.desk.slots.capacity());
        let taken = self.desk.outlet.released;
        let Some(found) = self.desk.look(taken, &Locals::default()) else {
            return self.nothing(taken);
        };
        let end = taken + found.0 as u64;
        self.desk.outlet.reached = taken;
        let (span, outlet) = self.desk.parts(taken, found);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            take(Batch::new(span.into_view(), outlet))
        }));
        self.settle(end, outcome);
        let moved = self.desk.outlet.released - taken;
        Polled::Ran(crate::column::index(moved))
    }

    fn settle(&mut self, end: u64, outcome: Result<Progress, Box<dyn std::any::Any + Send>>) {
        let released = self.desk.outlet.released;
        match outcome {
            Ok(Progress::All) => self.desk.outlet.release(end),
            Ok(Progress::To(Sequence(to))) if (released..=end).contains(&to) => {
                self.desk.outlet.release(to);
            }
            Ok(Progress::To(to)) => {
                let text = format!("promised {to}, which is outside {released}..={end}");
                self.poison(FaultKind::Error, text);
            }
            Ok(Progress::Retry) => {}
            Ok(Progress::Halt) => self.state.halt(),
            Ok(Progress::Fail(cause)) => self.poison(FaultKind::Error, cause.to_string()),
            Err(panic) => {
                self.poison(FaultKind::Panic, panic_text(panic.as_ref()));
                resume_unwind(panic);
            }
        }
    }

    /// What is done before the fault is released, and the pipeline poisoned there.
    fn poison(&mut self, kind: FaultKind, text: String) {
        let at = self.desk.outlet.reached.max(self.desk.outlet.released);
        self.desk.outlet.release(at);
        self.state.poison(self.desk.card.index, at, kind, text);
    }

    fn nothing(&mut self, taken: u64) -> Polled {
        let refusal = self.state.refusal();
        let is_poisoned = matches!(refusal, Some(ClaimError::Poisoned { .. }));
        if !is_poisoned && self.desk.is_at_the_end(taken, &Locals::default()) {
            self.is_over = true;
            self.desk.outlet.cursor.finish();
            self.state.wake_everybody();
            return Polled::Finished;
        }
        if let Some(refusal) = refusal
            && self.is_stopped(taken)
        {
            return Polled::Stopped(refusal);
        }
        if self.desk.is_published(&self.published, taken) {
            return Polled::Gated;
        }
        Polled::Idle
    }

    /// In a pipeline that is not live: whether nothing is left to take.
    fn is_stopped(&mut self, taken: u64) -> bool {
        let locals = Locals::default();
        self.state.phase() == Phase::Halted
            || self.desk.look(taken, &locals).is_none() && self.desk.is_cut_off(taken, &locals)
    }

    /// Everything before it is done.
    #[must_use]
    pub fn released(&self) -> Sequence {
        Sequence(self.desk.outlet.released)
    }
}

impl<E> Drop for Poller<E> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let released = self.desk.outlet.released;
        if self.desk.is_at_the_end(released, &Locals::default()) {
            self.desk.outlet.cursor.finish();
            self.state.wake_everybody();
            return;
        }
        match self.on_drop {
            OnDrop::Detach => {
                self.desk.outlet.cursor.advance(NOWHERE);
                self.desk.outlet.wake.signal();
            }
            OnDrop::Halt => {
                if self.state.is_live() {
                    let at = self.desk.outlet.released;
                    let text = "the poller was dropped before the end".to_owned();
                    self.state
                        .poison(self.desk.card.index, at, FaultKind::PollerDropped, text);
                }
            }
        }
    }
}

/// The seats that a graph keeps for readers: [`Graph::readers`](crate::Graph::readers).
///
/// A reader joins a running ring, holds it back while it is there, and leaves. The
/// producer looks at the seats when it has used up what it knew to be free, never before.
///
/// # Why joining is safe (R7)
///
/// A producer that found room looked at the sinks, executed a full fence and looked at the
/// seats. A reader that joins stores its seat, executes a full fence and looks at the
/// sinks. If the producer missed the seat, its fence came first, so the reader finds the
/// sinks at least as far on as the producer did; it starts there, and what the producer
/// may overwrite by what it knew is all before that.
pub struct Readers<E> {
    pub(crate) seats: Arc<[ReaderSeat]>,
    pub(crate) gating: Box<[CursorRef]>,
    pub(crate) make: Arc<dyn Fn(CursorRef, u64) -> Desk<E> + Send + Sync>,
    pub(crate) published: CursorRef,
    pub(crate) state: Arc<State>,
}

/// One seat: free, or with a reader on it.
#[derive(Debug)]
pub(crate) struct ReaderSeat {
    pub(crate) cursor: CursorRef,
    pub(crate) is_taken: AtomicBool,
}

impl<E> Clone for Readers<E> {
    fn clone(&self) -> Self {
        Self {
            seats: Arc::clone(&self.seats),
            gating: self.gating.clone(),
            make: Arc::clone(&self.make),
            published: self.published.clone(),
            state: Arc::clone(&self.state),
        }
    }
}

impl<E> fmt::Debug for Readers<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("seats", &self.seats.len())
            .finish_non_exhaustive()
    }
}

/// Where a reader that joins begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinAt {
    /// With the oldest event that is surely in the ring: what the slowest sink has next.
    Oldest,
    /// With the next event.
    Next,
}

impl<E: Send + Sync> Readers<E> {
    /// Takes a seat; `None` if all are taken.
    #[must_use]
    pub fn join(&self, at: JoinAt) -> Option<Reader<E>> {
        let place = self.seats.iter().position(ReaderSeat::try_take)?;
        let cursor = self.seats[place].cursor.clone();
        // The seat holds everything from now on; then it is moved to where it belongs.
        cursor.advance(self.least());
        full_fence("join_reader_fence");
        let oldest = self.least();
        cursor.advance(oldest);
        let mut desk = (self.make)(cursor, oldest);
        let start = match at {
            JoinAt::Oldest => oldest,
            JoinAt::Next => desk
                .look(oldest, &Locals::default())
                .map_or(oldest, |(_, backlog)| oldest + backlog),
        };
        desk.outlet.release(start);
        Some(Reader {
            poller: Poller {
                desk,
                published: self.published.clone(),
                state: Arc::clone(&self.state),
                on_drop: OnDrop::Detach,
                is_over: false,
            },
            seats: Arc::clone(&self.seats),
            place,
        })
    }

    /// How far the slowest sink is.
    fn least(&self) -> u64 {
        let sinks = self.gating.iter().map(|cursor| cursor.get());
        sinks.min().unwrap_or(NOWHERE)
    }
}

impl ReaderSeat {
    fn try_take(&self) -> bool {
        // ORDERING: Relaxed, a hint that saves the locked operation on a seat that is taken;
        // the swap behind it decides.
        !self.is_taken.load(OWN) && !self.is_taken.swap(true, seat_take())
    }

    fn free(&self) {
        self.is_taken.store(false, seat_free());
    }
}

/// A reader on a seat: a [`Poller`] that holds the ring back while it lives, and leaves
/// when it is dropped.
pub struct Reader<E> {
    poller: Poller<E>,
    seats: Arc<[ReaderSeat]>,
    place: usize,
}

impl<E> fmt::Debug for Reader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.place)
            .field("released", &self.poller.desk.outlet.released)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync> Reader<E> {
    /// As [`Poller::poll`].
    ///
    /// # Panics
    ///
    /// As [`Poller::poll`].
    pub fn poll(&mut self, max: usize, take: impl FnOnce(Batch<'_, E>) -> Progress) -> Polled {
        self.poller.poll(max, take)
    }

    /// Everything before it is done.
    #[must_use]
    pub fn released(&self) -> Sequence {
        self.poller.released()
    }
}

impl<E> Drop for Reader<E> {
    fn drop(&mut self) {
        // Whatever comes of the poller, the seat holds nobody back once it is free.
        let seat = &self.seats[self.place];
        seat.cursor.advance(NOWHERE);
        self.poller.is_over = true;
        self.poller.desk.outlet.wake.signal();
        seat.free();
    }
}

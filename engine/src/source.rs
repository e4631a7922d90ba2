//! The door: where requests become events in the ring, or are told "busy".

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lockstep_journaler::Position;
use lockstep_ringbuffer::{ClaimError, MultiProducer};

use crate::error::{Error, Result, of_fault};
use crate::event::{Body, HEADER_BYTES, Header, Kinds, SYSTEM_KINDS, Slot};
use crate::ledger::Ledger;
use crate::logic::{EventOf, Logic};
use crate::shared::{Found, Shared, Waited};
use crate::system::{SessionClose, SessionOpen, code};

/// The writing end: a clone for each thread that publishes.
pub struct Producer<L: Logic> {
    ring: MultiProducer<EventOf<L>>,
    ledger: Ledger,
    shared: Arc<Shared>,
}

impl<L: Logic> std::fmt::Debug for Producer<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

impl<L: Logic> Clone for Producer<L> {
    fn clone(&self) -> Self {
        Self {
            ring: self.ring.clone(),
            ledger: self.ledger,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What came of an event, behind the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Applied.
    Accepted {
        /// Its position.
        position: Position,
    },
    /// Refused; the state is as it was.
    Rejected {
        /// Its position.
        position: Position,
        /// The logic's code, or one of [`code`].
        code: u16,
    },
    /// The request had been answered before: [`Engine::reply`](crate::Engine::reply) has the answer.
    Repeated {
        /// The position of the repetition.
        position: Position,
    },
    /// It was answered too long ago to be known here; a session's replies are known for longer.
    Forgotten {
        /// Its position.
        position: Position,
    },
}

/// The promise of an answer.
#[derive(Debug, Clone)]
#[must_use = "an event is only known to be done once its answer is there"]
pub struct Ack {
    position: Position,
    shared: Arc<Shared>,
}

impl Ack {
    /// The event's position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits for the answer: the event is durable, as the gate says, applied, and its outputs
    /// have left.
    ///
    /// # Errors
    ///
    /// The engine stopped or was closed before.
    pub fn wait(&self) -> Result<Answer> {
        self.wait_at_most(None)
    }

    /// The same for so long at most.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), and [`Error::TimedOut`].
    pub fn wait_for(&self, within: Duration) -> Result<Answer> {
        self.wait_at_most(Some(within))
    }

    fn wait_at_most(&self, within: Option<Duration>) -> Result<Answer> {
        let shared = &*self.shared;
        match shared.wait(&shared.answered, self.position.0 + 1, within) {
            Waited::Reached => Ok(self.answer()),
            Waited::Stopped => Err(stopped(shared)),
            Waited::TimedOut => Err(Error::TimedOut {
                position: self.position,
            }),
        }
    }

    /// The answer, if it is there.
    #[must_use]
    pub fn poll(&self) -> Option<Answer> {
        (self.shared.answered.get() > self.position.0).then(|| self.answer())
    }

    fn answer(&self) -> Answer {
        let position = self.position;
        match self.shared.outcome(position.0) {
            Found::Code(0) => Answer::Accepted { position },
            Found::Code(code::REPEATED) => Answer::Repeated { position },
            Found::Code(code) => Answer::Rejected { position, code },
            Found::Gone => Answer::Forgotten { position },
        }
    }
}

/// Why nothing more will come.
pub(crate) fn stopped(shared: &Shared) -> Error {
    match shared.fault() {
        Some(cause) => Error::Stopped {
            cause: cause.to_owned(),
        },
        None => Error::Closed {
            position: Position(shared.answered.get()),
        },
    }
}

impl<L: Logic> Producer<L> {
    pub(crate) fn new(
        ring: MultiProducer<EventOf<L>>,
        ledger: Ledger,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            ring,
            ledger,
            shared,
        }
    }

    /// Publishes an event whose body `fill` writes, in the ring; waits for room.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    #[inline]
    pub fn publish<B: Body>(&mut self, fill: impl FnOnce(&mut B)) -> Result<Ack> {
        self.publish_as(0, 0, fill)
    }

    /// The same for a request of a client session: it is applied once, however often it comes.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    #[inline]
    pub fn publish_as<B: Body>(
        &mut self,
        session: u64,
        request: u32,
        fill: impl FnOnce(&mut B),
    ) -> Result<Ack> {
        const { assert_known(L::In::VERSIONS, B::KIND, B::VERSION) };
        let sequence = self
            .ring
            .publish(|slot| write(slot, session, request, fill));
        self.ack(sequence.map(|sequence| self.ledger.position(sequence)))
    }

    /// The same without ever waiting for room.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if the ring is full; the engine stopped.
    #[inline]
    pub fn try_publish_as<B: Body>(
        &mut self,
        session: u64,
        request: u32,
        fill: impl FnOnce(&mut B),
    ) -> Result<Ack> {
        const { assert_known(L::In::VERSIONS, B::KIND, B::VERSION) };
        let sequence = self
            .ring
            .try_publish(|slot| write(slot, session, request, fill));
        self.ack(sequence.map(|sequence| self.ledger.position(sequence)))
    }

    /// Publishes whole events as they are, but for their time, and waits for room: from the
    /// position of the first to that behind the last. Where they are more than a quarter of the
    /// ring, events of others may lie between.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKind`], and then none was published; the engine stopped.
    pub fn publish_events(&mut self, events: &[EventOf<L>]) -> Result<Range<Position>> {
        events.iter().try_for_each(|event| self.check(event))?;
        let mut range: Option<Range<Position>> = None;
        for part in events.chunks((self.ring.capacity() / 4).max(1)) {
            let claimed = self
                .ring
                .publish_batch(part.len(), |mut slots| slots.copy_from(part));
            let (sequence, ()) = claimed.map_err(|error| self.refusal(error))?;
            let start = range.map_or(self.ledger.position(sequence), |range| range.start);
            range = Some(start..self.ledger.position(sequence + part.len() as u64));
        }
        let here = Position(self.shared.applied.get());
        Ok(range.unwrap_or(here..here))
    }

    /// The same without ever waiting for room: all of them, in one run, or none.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if the ring has no room for them now; otherwise as
    /// [`publish_events`](Self::publish_events).
    pub fn try_publish_events(&mut self, events: &[EventOf<L>]) -> Result<Range<Position>> {
        events.iter().try_for_each(|event| self.check(event))?;
        let claimed = self.ring.try_claim(events.len()).map(|mut claim| {
            claim.slots().copy_from(events);
            claim.commit()
        });
        let sequence = claimed.map_err(|error| self.refusal(error))?;
        let first = self.ledger.position(sequence);
        Ok(first..Position(first.0 + events.len() as u64))
    }

    /// Waits until everything before `position` is answered.
    ///
    /// # Errors
    ///
    /// The engine stopped or was closed before.
    pub fn wait_until(&self, position: Position) -> Result<()> {
        match self.shared.wait(&self.shared.answered, position.0, None) {
            Waited::Reached => Ok(()),
            Waited::Stopped | Waited::TimedOut => Err(stopped(&self.shared)),
        }
    }

    /// Publishes one whole event without waiting for an answer; its position.
    ///
    /// # Errors
    ///
    /// As [`publish_events`](Self::publish_events).
    #[inline]
    pub fn post(&mut self, event: &EventOf<L>) -> Result<Position> {
        self.check(event)?;
        match self.ring.publish(|slot| *slot = *event) {
            Ok(sequence) => Ok(self.ledger.position(sequence)),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// The promise of an answer to an event that was posted.
    pub fn ack_of(&self, position: Position) -> Ack {
        Ack {
            position,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Opens a client session and waits for it; its number.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`]; no session can be had, which is said with its code.
    pub fn open_session(&mut self, tag: u64) -> Result<u64> {
        match self.begin_session(tag)?.wait()? {
            Answer::Accepted { position } => Ok(position.0 + 1),
            Answer::Rejected { code, .. } => Err(Error::Stopped {
                cause: format!("no session: {}", code::meaning(code)),
            }),
            other => Err(Error::Stopped {
                cause: format!("no session: {other:?}"),
            }),
        }
    }

    /// The same without waiting: accepted at a position, the session's number is that plus one.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn begin_session(&mut self, tag: u64) -> Result<Ack> {
        self.own(&SessionOpen { tag })
    }

    /// Closes a client session.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn close_session(&mut self, session: u64) -> Result<Ack> {
        self.own(&SessionClose { session })
    }

    /// Whether the ring still takes events, and if not, why.
    pub(crate) fn check_ring(&self) -> Result<(), ClaimError> {
        self.ring.check()
    }

    /// Publishes an event of the engine's own.
    pub(crate) fn own<B: Body>(&mut self, body: &B) -> Result<Ack> {
        let sequence = self.ring.publish(|slot| *slot = EventOf::<L>::event(body));
        self.ack(sequence.map(|sequence| self.ledger.position(sequence)))
    }

    fn ack(&self, claimed: Result<Position, ClaimError>) -> Result<Ack> {
        match claimed {
            Ok(position) => Ok(self.ack_of(position)),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// Only what the logic knows enters the log.
    #[inline]
    fn check(&self, event: &EventOf<L>) -> Result<()> {
        let Header { kind, version, .. } = *event.header();
        if kind < SYSTEM_KINDS && L::In::version_of(kind) == Some(version) {
            return Ok(());
        }
        Err(Error::UnknownKind { kind, version })
    }

    #[cold]
    fn refusal(&self, error: ClaimError) -> Error {
        match error {
            ClaimError::Full { .. } | ClaimError::TimedOut { .. } => Error::Busy,
            _ if self.shared.fault().is_some() => stopped(&self.shared),
            ClaimError::Halted => stopped(&self.shared),
            ClaimError::Poisoned { fault } => Error::Stopped {
                cause: of_fault(&fault, self.ledger),
            },
            other => Error::Stopped {
                cause: other.to_string(),
            },
        }
    }
}

/// Writes header and body in place.
#[inline(always)]
fn write<E: Slot, B: Body>(slot: &mut E, session: u64, request: u32, fill: impl FnOnce(&mut B)) {
    *slot.header_mut() = Header {
        time: 0,
        session,
        request,
        kind: B::KIND,
        version: B::VERSION,
    };
    slot.body_mut().fill(0);
    let _fits = slot.body_as::<B>();
    fill(bytemuck::from_bytes_mut(
        &mut slot.body_mut()[..size_of::<B>()],
    ));
}

const _: () = assert!(HEADER_BYTES == size_of::<Header>());

const fn assert_known(versions: &[(u16, u16)], kind: u16, version: u16) {
    let mut at = 0;
    while at < versions.len() {
        if versions[at].0 == kind && versions[at].1 == version {
            return;
        }
        at += 1;
    }
    panic!("this body, in this version, is not among the kinds of the logic's In")
}

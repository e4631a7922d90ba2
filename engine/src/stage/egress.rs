//! *egress*: outputs leave, behind the gate, in order, to everyone who wants them.
//!
//! ```text
//!   output ring ─► egress ─┬─► on_output closures, on this thread: waited for
//!                          ├─► subscription "wait":    a full one holds egress, and so the ring
//!                          └─► subscription "cut off": a full one is cut, told so, and may come
//!                                                      again from the position where it was cut
//! ```
//!
//! # Invariants
//!
//! * `EG1` No output leaves before its gate: under `gate = output` not before its event is durable and,
//!   where a quorum is asked, committed.
//! * `EG2` Every consumer gets every output once, in order, up to its cut; none is dropped in
//!   silence.
//! * `EG3` `answered` moves behind the outputs: who has the answer, its outputs have left.
//! * `EG4` Outputs of a state that was taken back never leave; those in front of it do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_journaler::Position;
use lockstep_ringbuffer::{
    Batch, BuildError, ClaimError, Graph, OnDrop, OnFull, Polled, Poller, Producer, Progress,
    Sequence, Stage, Standing,
};

use crate::event::Slot;
use crate::ledger::Ledger;
use crate::shared::Shared;

/// Outputs taken from the ring at a time.
const CHUNK: usize = 1024;

/// Not cut.
const NEVER: u64 = u64::MAX;

/// How long a subscription that waits sleeps between looks.
const NAP: Duration = Duration::from_micros(100);

/// What happens to a consumer of outputs that is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It is cut off, and told where; the engine goes on.
    CutOff,
    /// It is waited for: the engine stands still once its ring is full.
    Wait,
}

/// A closure that gets every output.
pub(crate) type Sink<O> = Box<dyn FnMut(&O) + Send>;

/// Where new subscriptions wait for *egress* to take them in.
pub(crate) struct Desk<O> {
    waiting: Mutex<Vec<Subscriber<O>>>,
    has_waiting: AtomicBool,
}

impl<O> std::fmt::Debug for Desk<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl<O> Default for Desk<O> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            has_waiting: AtomicBool::new(false),
        }
    }
}

/// The engine's end of a subscription.
struct Subscriber<O> {
    name: String,
    slow: Slow,
    producer: Producer<O>,
    line: Arc<Line>,
}

/// What both ends of a subscription share.
#[derive(Debug)]
struct Line {
    /// The position of the first output that was not delivered.
    cut_at: AtomicU64,
    is_left: AtomicBool,
}

/// The consumer's end: outputs from the moment of subscribing on.
///
/// Dropped, it leaves.
pub struct Subscription<O> {
    poller: Poller<O>,
    line: Arc<Line>,
}

impl<O> std::fmt::Debug for Subscription<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What a subscription has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<O> {
    /// An output.
    Output(O),
    /// Nothing new.
    Nothing,
    /// It was too slow and is cut off. Outputs of this position, from some index on, and of all
    /// later ones were not delivered: read them from a replay, and subscribe again.
    Cut(Position),
    /// The engine is closed; everything was delivered.
    Closed,
}

impl<O: Slot> Desk<O> {
    /// A subscription that *egress* will take in with its next turn.
    pub(crate) fn subscribe(
        &self,
        name: &str,
        slow: Slow,
        slots: usize,
    ) -> Result<Subscription<O>, BuildError> {
        let mut graph = Graph::new(slots, O::zeroed)?;
        graph.on_full(OnFull::Reject);
        let id = graph.poller("consumer", &[], OnDrop::Detach);
        let (producer, mut pipeline) = graph.build()?;
        let poller = pipeline.poller(id)?;
        let line = Arc::new(Line {
            cut_at: AtomicU64::new(NEVER),
            is_left: AtomicBool::new(false),
        });
        let subscriber = Subscriber {
            name: name.to_owned(),
            slow,
            producer,
            line: Arc::clone(&line),
        };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(subscriber);
        // ORDERING: Relaxed, the lock orders what it is about.
        self.has_waiting.store(true, Ordering::Relaxed);
        Ok(Subscription { poller, line })
    }
}

impl<O: Slot> Subscription<O> {
    /// The next output, or what there is instead. Never waits.
    pub fn try_recv(&mut self) -> Received<O> {
        let mut next = None;
        let polled = self.poller.poll(1, |batch| {
            next = batch.events().first().copied();
            Progress::All
        });
        match (next, polled) {
            (Some(output), _) => Received::Output(output),
            (None, Polled::Finished | Polled::Stopped(_)) => self.ended(),
            (None, _) => Received::Nothing,
        }
    }

    /// The next output, or how it ended; waits for either.
    pub fn recv(&mut self) -> Received<O> {
        // Ends: by an output or by the engine's end.
        loop {
            match self.try_recv() {
                Received::Nothing => std::thread::park_timeout(NAP),
                other => return other,
            }
        }
    }

    /// Hands all outputs that wait to `take`, a batch at a time; how many they were.
    pub fn drain(&mut self, mut take: impl FnMut(&[O])) -> usize {
        let mut all = 0;
        // Ends: each turn takes some, and nothing is waited for.
        loop {
            match self.poller.poll(CHUNK, |batch| {
                take(batch.events());
                Progress::All
            }) {
                Polled::Ran(count) => all += count,
                _ => return all,
            }
        }
    }

    fn ended(&self) -> Received<O> {
        // ORDERING: Acquire, pairs with the Release in `cut`.
        match self.line.cut_at.load(Ordering::Acquire) {
            NEVER => Received::Closed,
            at => Received::Cut(Position(at)),
        }
    }
}

impl<O> Drop for Subscription<O> {
    fn drop(&mut self) {
        // ORDERING: Relaxed, nothing is read by way of the flag.
        self.line.is_left.store(true, Ordering::Relaxed);
    }
}

impl<O: Slot> Subscriber<O> {
    fn has_room(&self) -> bool {
        self.producer.remaining() > 0
    }

    fn has_left(&self) -> bool {
        // ORDERING: Relaxed, as in `drop`.
        self.line.is_left.load(Ordering::Relaxed)
    }

    /// Delivers one output; `false` if it was cut off.
    fn deliver(&mut self, output: &O) -> bool {
        match self.producer.try_publish(|slot| *slot = *output) {
            Ok(_) => true,
            Err(ClaimError::Full { .. }) => {
                let position = output.output().position;
                tracing::warn!(
                    consumer = self.name,
                    position,
                    "a slow consumer of outputs is cut off"
                );
                // ORDERING: Release, pairs with the Acquire in `ended`; the producer's drop
                // comes behind it.
                self.line.cut_at.store(position, Ordering::Release);
                false
            }
            Err(_) => false,
        }
    }
}

/// See the module.
pub(crate) struct Egress<O> {
    poller: Poller<O>,
    exits: Exits<O>,
    ledger: Ledger,
    shared: Arc<Shared>,
    /// Whether the gate stands here.
    is_gate: bool,
    /// Behind the last batch that came through the gate: what it stands for, by whatever promises.
    allowed: u64,
    /// What was taken back and lies in the output ring yet.
    voids: Vec<Void>,
    /// A closure of the application's panicked: what it had is not given to it again.
    is_broken: bool,
}

/// Outputs of events at or behind a position, up to where the ring was then (`EG4`).
struct Void {
    from: u64,
    end: Sequence,
}

/// Everyone who gets outputs.
struct Exits<O> {
    sinks: Vec<Sink<O>>,
    subscribers: Vec<Subscriber<O>>,
    desk: Arc<Desk<O>>,
    shared: Arc<Shared>,
}

impl<O: Slot> Egress<O> {
    pub(crate) fn new(
        poller: Poller<O>,
        sinks: Vec<Sink<O>>,
        desk: Arc<Desk<O>>,
        ledger: Ledger,
        shared: Arc<Shared>,
        is_gate: bool,
    ) -> Self {
        let exits = Exits {
            sinks,
            subscribers: Vec::new(),
            desk,
            shared: Arc::clone(&shared),
        };
        Self {
            poller,
            exits,
            ledger,
            shared,
            is_gate,
            allowed: ledger.position(Sequence(0)).0,
            voids: Vec::new(),
            is_broken: false,
        }
    }

    /// Goes on in another ring of events, with the outputs that wait.
    pub(crate) fn enter(&mut self, ledger: Ledger) {
        self.ledger = ledger;
        self.allowed = ledger.position(Sequence(0)).0;
    }

    /// What lies in the output ring up to `end`, of events at or behind `from`, is not to leave (`EG4`).
    pub(crate) fn forget_behind(&mut self, from: Position, end: Sequence) {
        self.voids.push(Void { from: from.0, end });
    }

    /// Lets out everything that may leave; whether nothing of that is left, and whether there was any.
    fn let_out(&mut self) -> (bool, bool) {
        self.exits.take_in();
        // A panic leaves it so.
        self.is_broken = true;
        let left = self.let_out_all();
        self.is_broken = false;
        left
    }

    fn let_out_all(&mut self) -> (bool, bool) {
        // An event of more outputs than the ring has slots is not released before they have left.
        let limit = match self.is_gate {
            true => self.allowed.max(self.shared.promised.get()),
            false => u64::MAX,
        };
        if !self.voids.is_empty() {
            let released = self.poller.released();
            self.voids.retain(|void| released < void.end);
        }
        let mut any = false;
        // What the logic has emitted ahead of the gate stays, and is nobody's fault.
        let mut is_at_gate = false;
        // Ends: each turn lets something out, or returns.
        loop {
            let (exits, voids) = (&mut self.exits, &self.voids);
            let polled = self.poller.poll(CHUNK, |batch| {
                for (at, output) in batch.iter() {
                    let position = output.output().position;
                    // EG4
                    if voids
                        .iter()
                        .any(|void| at < void.end && position >= void.from)
                    {
                        continue;
                    }
                    // EG1
                    is_at_gate = position >= limit;
                    if is_at_gate || !exits.deliver(output) {
                        return Progress::To(at);
                    }
                }
                Progress::All
            });
            match polled {
                Polled::Ran(0) => return (is_at_gate, any),
                Polled::Ran(_) => any = true,
                _ => return (true, any),
            }
        }
    }
}

impl<O: Slot> Exits<O> {
    fn take_in(&mut self) {
        // ORDERING: Relaxed, as in `subscribe`.
        if self.desk.has_waiting.load(Ordering::Relaxed) {
            let mut waiting = self
                .desk
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // ORDERING: Relaxed, as in `subscribe`.
            self.desk.has_waiting.store(false, Ordering::Relaxed);
            self.subscribers.append(&mut waiting);
        }
    }

    /// Delivers to all, or to none if somebody has to be waited for (`EG2`).
    fn deliver(&mut self, output: &O) -> bool {
        if !self.subscribers.is_empty() {
            self.subscribers.retain(|subscriber| !subscriber.has_left());
            let is_held = |subscriber: &Subscriber<O>| {
                subscriber.slow == Slow::Wait && !subscriber.has_room()
            };
            if self.subscribers.iter().any(is_held) {
                return false;
            }
            let before = self.subscribers.len();
            self.subscribers
                .retain_mut(|subscriber| subscriber.deliver(output));
            self.shared
                .cut_consumers
                .add((before - self.subscribers.len()) as u64);
        }
        for sink in &mut self.sinks {
            sink(output);
        }
        true
    }
}

impl<E: Slot, O: Slot> Stage<E> for Egress<O> {
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress {
        self.allowed = self.ledger.position(batch.end()).0;
        if !self.let_out().0 {
            return Progress::Retry;
        }
        // EG3
        self.shared.answer(self.ledger.position(batch.end()).0);
        Progress::All
    }

    fn on_turn(&mut self, _: Standing) -> bool {
        self.let_out().1
    }

    fn on_stop(&mut self) {
        if !self.is_broken {
            self.let_out();
        }
        self.exits.subscribers.clear();
    }
}

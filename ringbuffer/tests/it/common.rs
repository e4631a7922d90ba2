//! What many tests need: patience, rings of either kind, a journal of what happened.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_ringbuffer::{
    ClaimError, Fault, FaultKind, Graph, MultiProducer, OnDrop, Pipeline, Polled, Poller, Producer,
    Progress, Running, Sequence, StageId, Turn, Wait,
};

/// Longer than any machine needs: only a hang comes here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Fewer rounds where every step is interpreted.
pub(crate) const fn rounds(native: u64, interpreted: u64) -> u64 {
    if cfg!(miri) { interpreted } else { native }
}

/// Waits for what another thread brings about.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "never came: {what}");
        thread::yield_now();
    }
}

/// Runs something that must not hang, and fails instead of hanging with it.
#[track_caller]
pub(crate) fn returns<R: Send + 'static>(
    what: &str,
    run: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let returned = run();
        let _nobody_waits_any_more = sender.send(());
        returned
    });
    if receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("hangs: {what}");
    }
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What a producer is told behind a fault.
pub(crate) fn poisoned(stage: &str, at: u64, kind: FaultKind, text: &str) -> ClaimError {
    let fault = Fault {
        stage: stage.into(),
        at: Sequence(at),
        kind,
        text: text.to_owned(),
    };
    ClaimError::Poisoned {
        fault: Arc::new(fault),
    }
}

/// What happened, in its order, told from any thread.
#[derive(Debug)]
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Log<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, entry: T) {
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

/// Whether one thread publishes or many may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Multi,
}

pub(crate) const BOTH: [Kind; 2] = [Kind::Single, Kind::Multi];

/// The value of slots whose writer gave up.
pub(crate) const VOID: u64 = 999_999_999;

/// A producer of either kind, for what both can do.
pub(crate) enum Either {
    Single(Producer<u64>),
    Multi(MultiProducer<u64>),
}

macro_rules! either {
    ($self:expr, $producer:ident => $call:expr) => {
        match $self {
            Either::Single($producer) => $call,
            Either::Multi($producer) => $call,
        }
    };
}

impl Either {
    pub(crate) fn publish(&mut self, event: u64) -> Result<Sequence, ClaimError> {
        either!(self, producer => producer.publish(|slot| *slot = event))
    }

    pub(crate) fn try_publish(&mut self, event: u64) -> Result<Sequence, ClaimError> {
        either!(self, producer => producer.try_publish(|slot| *slot = event))
    }

    pub(crate) fn publish_panicking(&mut self) {
        let fill = |_: &mut u64| panic!("planted");
        let _never = either!(self, producer => producer.publish(fill));
    }

    /// Publishes as many, numbered by their sequences.
    pub(crate) fn publish_many(&mut self, count: usize) -> Result<Sequence, ClaimError> {
        let outcome = either!(self, producer => producer.publish_batch(count, |mut slots| {
            slots.iter_mut().for_each(|(at, slot)| *slot = at.0);
        }));
        outcome.map(|(first, ())| first)
    }

    pub(crate) fn try_publish_many(&mut self, count: usize) -> Result<Sequence, ClaimError> {
        either!(self, producer => {
            let mut claim = producer.try_claim(count)?;
            claim.slots().iter_mut().for_each(|(at, slot)| *slot = at.0);
            Ok(claim.commit())
        })
    }

    /// Claims and gives up.
    pub(crate) fn abort(&mut self, count: usize) -> Result<(), ClaimError> {
        either!(self, producer => {
            let mut claim = producer.claim(count)?;
            claim.slots().iter_mut().for_each(|(_, slot)| *slot = 13);
            Ok(())
        })
    }

    /// Claims `count`, commits the first `kept`.
    pub(crate) fn publish_part(
        &mut self,
        count: usize,
        kept: usize,
    ) -> Result<Sequence, ClaimError> {
        either!(self, producer => {
            let mut claim = producer.claim(count)?;
            claim.slots().iter_mut().for_each(|(at, slot)| *slot = at.0);
            Ok(claim.commit_first(kept))
        })
    }

    pub(crate) fn publish_slice(&mut self, events: &[u64]) -> Result<Sequence, ClaimError> {
        match self {
            Self::Single(producer) => producer.publish_slice(events).map_err(|(_, error)| error),
            Self::Multi(producer) => producer.publish_slice(events),
        }
    }

    pub(crate) fn remaining(&self) -> usize {
        either!(self, producer => producer.remaining())
    }

    pub(crate) fn check(&self) -> Result<(), ClaimError> {
        either!(self, producer => producer.check())
    }
}

/// Builds for one producer or for many.
pub(crate) fn build(graph: Graph<u64>, kind: Kind) -> (Either, Pipeline<u64>) {
    match kind {
        Kind::Single => {
            let (producer, pipeline) = graph.build().unwrap();
            (Either::Single(producer), pipeline)
        }
        Kind::Multi => {
            let (producer, pipeline) = graph.build_multi(|slot| *slot = VOID).unwrap();
            (Either::Multi(producer), pipeline)
        }
    }
}

pub(crate) fn graph(capacity: usize) -> Graph<u64> {
    let mut graph = Graph::new(capacity, || 0).unwrap();
    // Yields: as many threads as the tests like share whatever CPUs there are.
    graph.wait(Wait::Yield { spins: 10 });
    graph
}

/// A ring that a poller reads.
pub(crate) struct Polling {
    pub(crate) producer: Either,
    pub(crate) poller: Poller<u64>,
    pub(crate) pipeline: Pipeline<u64>,
}

impl Polling {
    pub(crate) fn new(capacity: usize, kind: Kind) -> Self {
        Self::of(graph(capacity), kind)
    }

    pub(crate) fn of(mut graph: Graph<u64>, kind: Kind) -> Self {
        let id = graph.poller("poller", &[], OnDrop::Halt);
        let (producer, mut pipeline) = build(graph, kind);
        let poller = pipeline.poller(id).unwrap();
        Self {
            producer,
            poller,
            pipeline,
        }
    }

    /// What can be read now, at most `max`, of one batch.
    pub(crate) fn read(&mut self, max: usize) -> Vec<u64> {
        read(&mut self.poller, max)
    }

    /// All that can be read now.
    pub(crate) fn read_all(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let batch = self.read(usize::MAX / 2);
            if batch.is_empty() {
                return all;
            }
            all.extend(batch);
        }
    }
}

pub(crate) fn read(poller: &mut Poller<u64>, max: usize) -> Vec<u64> {
    let mut events = Vec::new();
    let polled = poller.poll(max, |batch| {
        events.extend_from_slice(batch.events());
        Progress::All
    });
    assert!(!matches!(polled, Polled::Ran(0)), "a batch is never empty");
    events
}

/// A stage that writes down what it sees.
pub(crate) fn recorder(
    graph: &mut Graph<u64>,
    name: &str,
    after: &[StageId],
) -> (StageId, Log<u64>) {
    let log = Log::new();
    let told = log.clone();
    let each = lockstep_ringbuffer::each(move |event: &u64, _| told.push(*event));
    (graph.stage(name, after, each), log)
}

/// Turns until nothing is left to do.
pub(crate) fn turn_out(pipeline: &mut Pipeline<u64>) -> Turn {
    loop {
        match pipeline.turn() {
            Turn::Worked => {}
            turn => return turn,
        }
    }
}

pub(crate) fn released(running: &Running, stage: usize) -> u64 {
    running.probe().look().stages[stage].released.0
}

/// How many threads this process has of which the name begins so.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn threads_called(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

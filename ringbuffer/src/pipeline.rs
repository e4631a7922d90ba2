//! A graph that was built, before it runs and while it does.
//!
//! ```text
//!   Graph ─build─► Pipeline ─start─► Running ─drain | join | halt─► Report
//!                     │ turn            │ turn, for stages placed on the caller
//!                     └ into_runners ─► Runner.run, on threads of the user's own
//! ```

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cursor::Sequence;
use crate::error::{BuildError, Fault, StartError};
use crate::graph::StageId;
use crate::poller::{Poller, Readers};
use crate::probe::{Positions, Probe};
use crate::runner::{Runner, Turn};
use crate::state::{Phase, State};
use crate::sync::Arc;
use crate::threads::{Threads, spawn};

/// How long [`Running::halt`] and a dropped [`Running`] wait for stages to return from the
/// batch that they are in. A stage that does not is left to its thread and named.
const HALT_WAIT: Duration = Duration::from_secs(1);
/// How often a drain looks: often enough for a close, seldom enough to cost nothing.
const DRAIN_LOOK: Duration = Duration::from_micros(200);

/// A graph that was built. Nothing runs yet: [`start`](Self::start) it, give it
/// [`turn`](Self::turn)s, or take it apart [`into_runners`](Self::into_runners).
pub struct Pipeline<E> {
    runners: Vec<Runner>,
    pollers: Vec<Option<Poller<E>>>,
    readers: Option<Readers<E>>,
    control: Control,
    graph: u64,
}

impl<E> fmt::Debug for Pipeline<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("runners", &self.runners)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync + 'static> Pipeline<E> {
    pub(crate) fn new(
        runners: Vec<Runner>,
        pollers: Vec<Option<Poller<E>>>,
        readers: Option<Readers<E>>,
        probe: Probe,
        state: Arc<State>,
        finish: Arc<Finish>,
        graph: u64,
    ) -> Self {
        Self {
            runners,
            pollers,
            readers,
            control: Control {
                state,
                probe,
                finish,
            },
            graph,
        }
    }

    /// Gives every stage one turn on this thread, whatever its placement: tests,
    /// simulation, replay. Never waits.
    pub fn turn(&mut self) -> Turn {
        turn_all(&mut self.runners)
    }

    /// Starts a thread for each placement, named and pinned, and returns when all of them
    /// are where they belong.
    ///
    /// # Errors
    ///
    /// A thread cannot be had or pinned, or a poller was not taken; no stage has been
    /// called then, and no thread is left.
    pub fn start(mut self) -> Result<Running, StartError> {
        if let Some(index) = self.pollers.iter().position(Option::is_some) {
            let name = Arc::clone(&self.control.probe.stages[index].name);
            return Err(StartError::PollerNotTaken {
                poller: name.to_string(),
            });
        }
        let runners = std::mem::take(&mut self.runners);
        let (on_caller, spawned) = runners.into_iter().partition(|runner| runner.on_caller);
        Ok(Running {
            threads: spawn(spawned)?,
            on_caller,
            control: self.control,
        })
    }

    /// The runners, for threads of the user's own, and what watches over them.
    pub fn into_runners(self) -> (Vec<Runner>, Running) {
        let running = Running {
            threads: Threads::default(),
            on_caller: Vec::new(),
            control: self.control,
        };
        (self.runners, running)
    }

    /// Hands out a poller, once.
    ///
    /// # Errors
    ///
    /// The id is another graph's, or no poller's, or the poller was handed out before.
    pub fn poller(&mut self, id: StageId) -> Result<Poller<E>, BuildError> {
        if id.graph != self.graph {
            let names = self.control.probe.stages.iter();
            return Err(BuildError::ForeignStage {
                what: "pipeline.poller".to_owned(),
                id: format!("stage {}", id.index),
                known: names.map(|stage| stage.name.to_string()).collect(),
            });
        }
        self.pollers[id.index]
            .take()
            .ok_or_else(|| BuildError::NotAPoller {
                stage: self.control.probe.stages[id.index].name.to_string(),
            })
    }

    /// The seats for readers, if the graph was told to have any.
    #[must_use]
    pub fn readers(&self) -> Option<Readers<E>> {
        self.readers.clone()
    }

    /// Watches how far everybody is.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.control.probe.clone()
    }

    /// Where everybody is, and what has failed so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.control.report(Vec::new())
    }
}

fn turn_all(runners: &mut [Runner]) -> Turn {
    let (mut worked, mut ended) = (false, true);
    for runner in runners {
        let turn = runner.turn();
        worked |= turn == Turn::Worked;
        ended &= turn == Turn::Ended;
    }
    match (worked, ended) {
        (true, _) => Turn::Worked,
        (false, true) => Turn::Ended,
        (false, false) => Turn::Idle,
    }
}

/// What is left to say of a pipeline, whoever runs it.
#[derive(Debug, Clone)]
struct Control {
    state: Arc<State>,
    probe: Probe,
    finish: Arc<Finish>,
}

impl Control {
    fn report(&self, unfinished: Vec<String>) -> Report {
        let (faults, fault_count) = self.state.faults();
        Report {
            positions: self.probe.look(),
            faults,
            fault_count,
            unfinished,
            was_live: self.state.is_live(),
        }
    }
}

/// How many runners have not ended; whoever waits for them sleeps here.
#[derive(Debug)]
pub(crate) struct Finish {
    left: Mutex<usize>,
    changed: Condvar,
}

impl Finish {
    pub(crate) fn of(runners: usize) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(runners),
            changed: Condvar::new(),
        })
    }

    /// One runner has ended.
    pub(crate) fn one_less(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
    }

    /// Waits until all have ended, or so long at most; whether they have.
    pub(crate) fn wait(&self, within: Option<Duration>) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = |left: &mut usize| *left > 0;
        let left = match within {
            Some(within) => {
                let waited = self.changed.wait_timeout_while(left, within, not_yet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait_while(left, not_yet);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        *left == 0
    }
}

/// A pipeline that runs.
///
/// Dropped, it halts, and waits a second for stages to return from their batch; one that
/// does not is left to its thread. It never panics.
#[derive(Debug)]
#[must_use = "dropping it halts the pipeline"]
pub struct Running {
    threads: Threads,
    on_caller: Vec<Runner>,
    control: Control,
}

impl Running {
    /// Gives the stages that were placed on the caller one turn on this thread.
    pub fn turn(&mut self) -> Turn {
        turn_all(&mut self.on_caller)
    }

    /// Waits until everything that is published by now is released by every stage, then
    /// halts. Producers that go on are refused from then on.
    ///
    /// # Errors
    ///
    /// The report, if a stage failed, if the deadline came first, or if the pipeline was
    /// halted before: its positions tell what was not done.
    pub fn drain(mut self, within: Duration) -> Result<Report, Box<Report>> {
        let deadline = Instant::now().checked_add(within);
        let target = self.control.probe.look().published;
        let is_drained = loop {
            self.turn();
            let positions = self.control.probe.look();
            if positions
                .stages
                .iter()
                .all(|s| s.is_gone || s.released >= target)
            {
                break true;
            }
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late || self.has_stopped() {
                break false;
            }
            std::thread::park_timeout(DRAIN_LOOK);
        };
        let was_live = self.control.state.is_live();
        let report = self.stop();
        let report = Report { was_live, ..report };
        if is_drained && was_live {
            Ok(report)
        } else {
            Err(Box::new(report))
        }
    }

    /// Whether a halt was called, or a fault and everybody has done what is before it.
    fn has_stopped(&self) -> bool {
        match self.control.state.phase() {
            Phase::Running | Phase::Closing => false,
            Phase::Poisoned => self.control.finish.wait(Some(Duration::ZERO)),
            Phase::Halted => true,
        }
    }

    /// Waits until the producers are gone and everything is released, or until the pipeline
    /// is halted or poisoned.
    ///
    /// # Panics
    ///
    /// If a stage is placed on the caller: nobody would give it turns.
    pub fn join(self) -> Report {
        assert!(
            self.on_caller.is_empty(),
            "join: a stage is placed on the caller, who has to give it turns; use drain"
        );
        self.control.finish.wait(None);
        self.control.report(Vec::new())
    }

    /// Ends every runner after its turn, whatever is left to do.
    pub fn halt(mut self) -> Report {
        self.stop()
    }

    fn stop(&mut self) -> Report {
        self.control.state.halt();
        self.on_caller.clear();
        let unfinished = self.threads.wait(&self.control.finish, HALT_WAIT);
        self.control.report(unfinished)
    }

    /// Watches how far everybody is.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.control.probe.clone()
    }

    /// Halts the pipeline from any thread, for signal handlers and the like.
    #[must_use]
    pub fn halter(&self) -> Halter {
        Halter(Arc::clone(&self.control.state))
    }

    /// Where everybody is, and what has failed so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.control.report(Vec::new())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Halts a pipeline from any thread: `Clone`.
#[derive(Debug, Clone)]
pub struct Halter(Arc<State>);

impl Halter {
    /// Every runner ends after its turn; producers are refused.
    pub fn halt(&self) {
        self.0.halt();
    }
}

/// What became of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How far everybody was.
    pub positions: Positions,
    /// What failed, oldest first: the first 64.
    pub faults: Vec<Fault>,
    /// How many failures there were.
    pub fault_count: u64,
    /// Threads whose stage had not returned from its batch when the wait for it ended.
    pub unfinished: Vec<String>,
    /// Whether it had been neither poisoned nor halted.
    pub was_live: bool,
}

impl Report {
    /// The last sequence that every stage has released: where the next ring may start.
    #[must_use]
    pub fn released_by_all(&self) -> Sequence {
        let stages = self.positions.stages.iter().filter(|stage| !stage.is_gone);
        let least = stages.map(|stage| stage.released).min();
        least.unwrap_or(self.positions.published)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.positions)?;
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        for thread in &self.unfinished {
            writeln!(f, "thread {thread:?} has not returned from its stage")?;
        }
        Ok(())
    }
}

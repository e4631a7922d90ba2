//! The stages of one thread, given turns in topological order.
//!
//! ```text
//!   for each stage, those it follows first:
//!       look, take a batch, release                (seat)
//!   if nothing was done: idle as the wait strategy says
//! ```
//!
//! A stage that follows another of the same runner reads a local number; a cursor that
//! nobody on another thread waits for is stored now and then only, to be looked at.
//!
//! # Invariants
//!
//! * `U1` A runner ends after its turn when the pipeline is halted, and when it is poisoned
//!   or closing once nothing is left that it can do.
//! * `U2` `on_start` and `on_stop` are called on the thread that gives the turns.

use std::fmt;
use std::time::Instant;

use crate::breath::Breath;
use crate::desk::Locals;
use crate::pipeline::Finish;
use crate::seat::Seat;
use crate::state::{Phase, State};
use crate::sync::Arc;
use crate::wait::{Idler, Wait};

/// Busy turns between two looks for others at cursors that nobody waits for.
const SHOW_EVERY: u32 = 256;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something was done; it is worth another turn at once.
    Worked,
    /// There was nothing to do.
    Idle,
    /// There will never be anything to do again.
    Ended,
}

/// The stages that run on one thread. [`Running`](crate::Running) owns the threads that it
/// started; this is for those who bring a thread of their own.
pub struct Runner {
    pub(crate) name: Arc<str>,
    pub(crate) cpu: Option<usize>,
    pub(crate) wait: Wait,
    pub(crate) on_caller: bool,
    seats: Vec<Box<dyn Seat>>,
    locals: Locals,
    state: Arc<State>,
    idler: Idler,
    phase: RunnerPhase,
    turns_until_show: u32,
    finish: Arc<Finish>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunnerPhase {
    Fresh,
    Started,
    Ended,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("name", &self.name)
            .field("cpu", &self.cpu)
            .field("wait", &self.wait)
            .field("stages", &self.seats.len())
            .finish_non_exhaustive()
    }
}

/// Everything that makes a runner.
pub(crate) struct RunnerPlan {
    pub(crate) name: Arc<str>,
    pub(crate) cpu: Option<usize>,
    pub(crate) wait: Wait,
    pub(crate) on_caller: bool,
    pub(crate) seats: Vec<Box<dyn Seat>>,
    pub(crate) start: u64,
    pub(crate) state: Arc<State>,
    pub(crate) idler: Idler,
    pub(crate) finish: Arc<Finish>,
}

impl Runner {
    pub(crate) fn new(plan: RunnerPlan) -> Self {
        let count = plan.seats.len();
        Self {
            name: plan.name,
            cpu: plan.cpu,
            wait: plan.wait,
            on_caller: plan.on_caller,
            seats: plan.seats,
            locals: Locals {
                released: vec![plan.start; count],
                is_finished: vec![false; count],
                is_impatient: false,
            },
            state: plan.state,
            idler: plan.idler,
            finish: plan.finish,
            phase: RunnerPhase::Fresh,
            turns_until_show: SHOW_EVERY,
        }
    }

    /// The name: that of its placement, or of its stages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CPU that it was placed on.
    #[must_use]
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Gives every stage one turn. Never waits.
    #[inline]
    pub fn turn(&mut self) -> Turn {
        if self.phase != RunnerPhase::Started && !self.start() {
            return Turn::Ended;
        }
        let mut worked = false;
        for seat in &mut self.seats {
            worked |= seat.turn(&mut self.locals);
        }
        if !self.state.is_running() && self.winds_down(worked) {
            return self.end();
        }
        if !worked {
            return Turn::Idle;
        }
        self.turns_until_show -= 1;
        if self.turns_until_show == 0 {
            self.show();
        }
        Turn::Worked
    }

    /// Gives turns until the end, and waits as its [`Wait`] says when there is nothing to do.
    pub fn run(mut self) {
        let breathes = self.wait != Wait::Spin;
        let mut breath = Breath::default();
        let mut taken = self.locals.released[0];
        loop {
            match self.turn() {
                Turn::Worked => {
                    self.idler.reset();
                    let took = self.locals.released[0] - taken;
                    taken += took;
                    if breathes {
                        breath.after(took);
                    }
                }
                Turn::Idle => {
                    breath.end();
                    self.show();
                    let deadline = self.next_turn();
                    self.idler.idle(deadline);
                }
                Turn::Ended => return,
            }
        }
    }

    /// When an idle runner wants its next turn, if it cannot wait to be woken.
    #[inline(always)]
    fn next_turn(&mut self) -> Option<Instant> {
        if !std::mem::take(&mut self.locals.is_impatient) {
            return None;
        }
        self.seats.iter().filter_map(|seat| seat.resumes_at()).min()
    }

    /// Whether there is anything left to start.
    #[cold]
    fn start(&mut self) -> bool {
        if self.phase == RunnerPhase::Ended {
            return false;
        }
        self.phase = RunnerPhase::Started;
        self.seats.iter_mut().for_each(|seat| seat.start());
        true
    }

    /// U1: whether this was the last turn.
    #[cold]
    fn winds_down(&mut self, worked: bool) -> bool {
        match self.state.phase() {
            Phase::Running => false,
            Phase::Closing => !worked && self.finish_all(),
            Phase::Poisoned => !worked && self.give_up_all(),
            Phase::Halted => true,
        }
    }

    fn finish_all(&mut self) -> bool {
        let mut all = true;
        for seat in &mut self.seats {
            all &= seat.finish(&mut self.locals);
        }
        all
    }

    fn give_up_all(&mut self) -> bool {
        let mut all = true;
        for seat in &mut self.seats {
            all &= seat.give_up(&mut self.locals);
        }
        all
    }

    #[cold]
    fn end(&mut self) -> Turn {
        if self.phase == RunnerPhase::Started {
            self.show();
            self.seats.iter_mut().for_each(|seat| seat.stop());
        }
        if self.phase != RunnerPhase::Ended {
            self.phase = RunnerPhase::Ended;
            self.finish.one_less();
        }
        Turn::Ended
    }

    #[cold]
    fn show(&mut self) {
        self.turns_until_show = SHOW_EVERY;
        self.seats.iter().for_each(|seat| seat.show());
    }
}

impl Drop for Runner {
    /// A runner that is given up in the middle can promise nothing any more: the pipeline
    /// halts, and producers are refused.
    fn drop(&mut self) {
        if self.phase != RunnerPhase::Ended {
            self.state.halt();
            self.end();
        }
    }
}

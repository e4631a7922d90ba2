//! One stage at its desk: looks, takes a batch, lets the stage work, moves the promise.
//!
//! ```text
//!   look ─► nothing ────────────────────────────► on_turn ─► idle
//!     └───► batch ─► on_batch ─► All, To, Retry ─► release ─► on_turn ─► busy
//!                       └─► Fail, panic ─► OnFault: halt | skip | retry later
//! ```
//!
//! # Invariants
//!
//! * `F1` A stage that has poisoned the pipeline is never called again, but for `on_stop`.
//! * `F2` `on_start` comes before the first batch, `on_stop` behind the last, once each.
//! * `F3` In a poisoned pipeline a stage ends when what it follows has ended and everything
//!   is done that was released: those behind the fault stop exactly there, however slow
//!   the stages between are. Nobody waits for a gate, a poller or a producer.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::batch::{Batch, BatchMut, Outlet, Progress, Span};
use crate::cursor::Sequence;
use crate::desk::{Desk, Locals};
use crate::error::FaultKind;
use crate::fault::{GiveUp, OnFault};
use crate::gate::Late;
use crate::orderings::finished_get;
use crate::stage::{LateStage, Stage, StageMut, Standing};
use crate::state::{State, panic_text};
use crate::sync::Arc;

/// How long a thread sleeps at most while one of its stages leaves a batch where it is:
/// what the stage waits for, room in another ring say, may wake nobody.
const STUCK_NAP: Duration = Duration::from_micros(100);

/// A stage of any kind, as its seat calls it.
pub(crate) trait Work<E>: Send {
    fn on_batch(&mut self, span: Span<'_, E>, outlet: &mut Outlet) -> Progress;
    fn on_turn(&mut self, standing: Standing) -> bool;
    fn on_start(&mut self);
    fn on_stop(&mut self);
    fn goes_event_by_event(&self) -> bool;
}

/// A stage that reads.
pub(crate) struct Reads<S>(pub(crate) S);
/// A stage that writes.
pub(crate) struct Writes<S>(pub(crate) S);
/// A stage that promises late: what its outlet calls released is only taken.
pub(crate) struct Takes<S>(pub(crate) S);

macro_rules! hooks {
    () => {
        #[inline(always)]
        fn on_turn(&mut self, standing: Standing) -> bool {
            self.0.on_turn(standing)
        }

        fn on_start(&mut self) {
            self.0.on_start();
        }

        fn on_stop(&mut self) {
            self.0.on_stop();
        }
    };
}

impl<E: Send + Sync, S: Stage<E>> Work<E> for Reads<S> {
    #[inline(always)]
    fn on_batch(&mut self, span: Span<'_, E>, outlet: &mut Outlet) -> Progress {
        self.0.on_batch(Batch::new(span.into_view(), outlet))
    }

    hooks!();

    fn goes_event_by_event(&self) -> bool {
        self.0.goes_event_by_event()
    }
}

impl<E: Send + Sync, S: StageMut<E>> Work<E> for Writes<S> {
    #[inline(always)]
    fn on_batch(&mut self, span: Span<'_, E>, outlet: &mut Outlet) -> Progress {
        self.0
            .on_batch(BatchMut::new(span.into_view_to_write(), outlet))
    }

    hooks!();

    fn goes_event_by_event(&self) -> bool {
        self.0.goes_event_by_event()
    }
}

impl<E: Send + Sync, S: LateStage<E>> Work<E> for Takes<S> {
    #[inline(always)]
    fn on_batch(&mut self, span: Span<'_, E>, _outlet: &mut Outlet) -> Progress {
        self.0.on_batch(span.into_view())
    }

    hooks!();

    fn goes_event_by_event(&self) -> bool {
        false
    }
}

/// A seat of any stage, as its runner calls it: one indirect call a turn, none an event.
pub(crate) trait Seat: Send {
    /// Whether there was anything to do.
    fn turn(&mut self, locals: &mut Locals) -> bool;
    fn start(&mut self);
    fn stop(&mut self);
    /// Called on idle turns of a pipeline that closes: whether nothing will come any more
    /// and everything is released. Says so to those who follow.
    fn finish(&mut self, locals: &mut Locals) -> bool;
    /// Called on idle turns of a pipeline that is poisoned: whether nothing can come any
    /// more and all is done that can be. Says so to those who follow (F3).
    fn give_up(&mut self, locals: &mut Locals) -> bool;
    /// Shows how far the stage is where nobody waits for it.
    fn show(&self);
    /// When a stage wants to be called again that nobody may wake: it pauses, or it left a
    /// batch where it was.
    fn resumes_at(&self) -> Option<Instant>;
}

/// A stage, its desk and its luck.
pub(crate) struct Seated<E, W> {
    pub(crate) desk: Desk<E>,
    pub(crate) work: W,
    /// The place in the runner.
    pub(crate) place: usize,
    pub(crate) state: Arc<State>,
    pub(crate) on_fault: OnFault,
    /// For a late stage: what it shares with its gate.
    pub(crate) late: Option<Arc<Late>>,
    pub(crate) luck: Luck,
}

/// What is remembered of faults.
#[derive(Debug, Default)]
pub(crate) struct Luck {
    /// F1: the stage has poisoned the pipeline.
    is_dead: bool,
    is_finished: bool,
    /// It was given a batch in its last turn and left it where it was.
    is_stuck: bool,
    /// The event that is being retried, and how often it was.
    retried: (u64, u32),
    /// When the stage may be called again.
    resume_at: Option<Instant>,
}

impl<E, W> fmt::Debug for Seated<E, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seated")
            .field("desk", &self.desk)
            .field("luck", &self.luck)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync, W: Work<E>> Seat for Seated<E, W> {
    #[inline]
    fn turn(&mut self, locals: &mut Locals) -> bool {
        let taken = self.desk.outlet.released;
        let Some(found) = self.desk.look(taken, locals) else {
            self.luck.is_stuck = false;
            return self.on_turn();
        };
        if self.luck.is_dead || self.luck.resume_at.is_some() {
            return self.is_still_down(locals);
        }
        self.desk.outlet.reached = taken;
        let (span, outlet) = self.desk.parts(taken, found);
        let work = &mut self.work;
        let outcome = catch_unwind(AssertUnwindSafe(|| work.on_batch(span, outlet)));
        let moved = self.settle(taken + found.0 as u64, outcome);
        locals.released[self.place] = self.desk.outlet.released;
        let turned = self.on_turn();
        let worked = moved || turned || self.desk.outlet.released != taken;
        self.luck.is_stuck = !worked;
        locals.is_impatient |= !worked;
        worked
    }

    fn start(&mut self) {
        self.guarded(W::on_start);
    }

    fn stop(&mut self) {
        self.guarded(W::on_stop);
    }

    fn finish(&mut self, locals: &mut Locals) -> bool {
        if self.luck.is_finished {
            return true;
        }
        let taken = self.desk.outlet.released;
        if self.luck.is_dead || !self.desk.is_at_the_end(taken, locals) {
            return false;
        }
        if let Some(late) = &self.late
            && late.released.get() != taken
        {
            return false;
        }
        self.be_final(locals);
        true
    }

    fn give_up(&mut self, locals: &mut Locals) -> bool {
        if self.luck.is_finished {
            return true;
        }
        let taken = self.desk.outlet.released;
        let is_over = self.luck.is_dead
            || self.luck.is_stuck
            || self.desk.look(taken, locals).is_none() && self.desk.is_cut_off(taken, locals);
        if is_over {
            self.be_final(locals);
        }
        is_over
    }

    fn resumes_at(&self) -> Option<Instant> {
        let again = || Instant::now() + STUCK_NAP;
        self.luck
            .resume_at
            .or_else(|| self.luck.is_stuck.then(again))
    }

    fn show(&self) {
        let outlet = &self.desk.outlet;
        if !outlet.is_followed && outlet.cursor.peek() != outlet.released {
            outlet.cursor.advance(outlet.released);
        }
    }
}

impl<E: Send + Sync, W: Work<E>> Seated<E, W> {
    /// Says to those who follow that the number is the last.
    fn be_final(&mut self, locals: &mut Locals) {
        self.show();
        if let Some(late) = &self.late {
            late.released.finish();
        }
        self.desk.outlet.cursor.finish();
        locals.released[self.place] = self.desk.outlet.released;
        locals.is_finished[self.place] = true;
        self.luck.is_finished = true;
        self.state.wake_everybody();
    }

    #[inline(always)]
    fn on_turn(&mut self) -> bool {
        if self.luck.is_dead {
            return false;
        }
        if let Some(late) = &self.late
            && late.is_abandoned.load(finished_get())
        {
            self.find_abandoned();
        }
        let standing = Standing {
            taken: Sequence(self.desk.outlet.released),
            available: Sequence(self.desk.bound),
        };
        // A panic here has no event; it is the stage's.
        match catch_unwind(AssertUnwindSafe(|| self.work.on_turn(standing))) {
            Ok(busy) => busy,
            Err(panic) => {
                self.die(
                    self.desk.outlet.released,
                    FaultKind::Panic,
                    panic_text(panic.as_ref()),
                );
                false
            }
        }
    }

    /// Moves the promise as the stage answered. Whether it is worth another turn at once,
    /// even if nothing was released.
    #[inline(always)]
    fn settle(&mut self, end: u64, outcome: Result<Progress, Box<dyn Any + Send>>) -> bool {
        let released = self.desk.outlet.released;
        match outcome {
            Ok(Progress::All) => {
                if released != end {
                    self.desk.outlet.release(end);
                }
                false
            }
            Ok(Progress::To(to)) if (released..=end).contains(&to.0) => {
                if to.0 != released {
                    self.desk.outlet.release(to.0);
                }
                false
            }
            other => self.settle_otherwise(end, other),
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_otherwise(
        &mut self,
        end: u64,
        outcome: Result<Progress, Box<dyn Any + Send>>,
    ) -> bool {
        let released = self.desk.outlet.released;
        match outcome {
            Ok(Progress::All | Progress::Retry) => false,
            Ok(Progress::To(to)) => {
                let text = format!("promised {to}, which is outside {released}..={end}");
                self.fault(FaultKind::Error, text)
            }
            Ok(Progress::Halt) => {
                self.state.halt();
                false
            }
            Ok(Progress::Fail(cause)) => self.fault(FaultKind::Error, cause.to_string()),
            Err(panic) => self.fault(FaultKind::Panic, panic_text(panic.as_ref())),
        }
    }

    /// What is done before the event at fault is released; then the policy decides. Whether
    /// the stage goes on.
    fn fault(&mut self, kind: FaultKind, text: String) -> bool {
        let at = self.desk.outlet.reached.max(self.desk.outlet.released);
        if at != self.desk.outlet.released {
            self.desk.outlet.release(at);
        }
        match self.on_fault {
            OnFault::Halt => self.die(at, kind, text),
            OnFault::Skip => self.skip(at, text),
            OnFault::Retry { times, pause, then } => {
                if self.luck.retried.0 != at {
                    self.luck.retried = (at, 0);
                }
                if self.luck.retried.1 < times {
                    self.luck.retried.1 += 1;
                    self.state
                        .record(self.desk.card.index, at, FaultKind::Retried, text);
                    self.luck.resume_at = (!pause.is_zero()).then(|| Instant::now() + pause);
                    return true;
                }
                match then {
                    GiveUp::Halt => self.die(at, kind, text),
                    GiveUp::Skip => self.skip(at, text),
                }
            }
        }
        !self.luck.is_dead
    }

    fn skip(&mut self, at: u64, text: String) {
        self.state
            .record(self.desk.card.index, at, FaultKind::Skipped, text);
        self.desk.outlet.release(at + 1);
    }

    fn die(&mut self, at: u64, kind: FaultKind, text: String) {
        self.luck.is_dead = true;
        self.show();
        self.state.poison(self.desk.card.index, at, kind, text);
    }

    /// A late stage whose gate is gone while it had events in flight.
    #[cold]
    fn find_abandoned(&mut self) {
        let Some(late) = &self.late else { return };
        let released = late.released.get();
        if released != self.desk.outlet.released && self.state.is_live() {
            let text = "its gate was dropped with events in flight".to_owned();
            self.die(released, FaultKind::Gate, text);
        }
    }

    #[cold]
    fn is_still_down(&mut self, locals: &mut Locals) -> bool {
        let resumes = self.luck.resume_at.is_some_and(|at| Instant::now() >= at);
        if resumes {
            self.luck.resume_at = None;
        }
        locals.is_impatient |= self.luck.resume_at.is_some();
        resumes
    }

    fn guarded(&mut self, hook: impl FnOnce(&mut W)) {
        let work = &mut self.work;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(work))) {
            let released = self.desk.outlet.released;
            self.die(released, FaultKind::Panic, panic_text(panic.as_ref()));
        }
    }
}

/// A stage that waits for its desk: the graph knows it before it knows the graph.
pub(crate) trait Unseated<E>: Send {
    fn seat(self: Box<Self>, place: SeatPlan<E>) -> Box<dyn Seat>;
    fn is_event_by_event(&self) -> bool;
}

/// What a stage needs to be seated.
pub(crate) struct SeatPlan<E> {
    pub(crate) desk: Desk<E>,
    pub(crate) place: usize,
    pub(crate) state: Arc<State>,
    pub(crate) on_fault: OnFault,
    pub(crate) late: Option<Arc<Late>>,
}

impl<E, W> Unseated<E> for W
where
    E: Send + Sync + 'static,
    W: Work<E> + 'static,
{
    fn seat(self: Box<Self>, plan: SeatPlan<E>) -> Box<dyn Seat> {
        Box::new(Seated {
            desk: plan.desk,
            work: *self,
            place: plan.place,
            state: plan.state,
            on_fault: plan.on_fault,
            late: plan.late,
            luck: Luck::default(),
        })
    }

    fn is_event_by_event(&self) -> bool {
        self.goes_event_by_event()
    }
}

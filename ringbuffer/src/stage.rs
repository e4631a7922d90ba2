//! What a stage is: code that reads a ring, batch by batch, and promises how far it is.
//!
//! | trait | sees | promises by |
//! |---|---|---|
//! | [`Stage`] | `&[E]` | returning |
//! | [`StageMut`] | `&mut [E]` | returning; no stage may be parallel to it |
//! | [`LateStage`] | `&[E]` | its [`Gate`](crate::Gate), whenever it likes and from wherever |
//! | [`each`] | one `&E` after the other | returning, batch by batch |
//!
//! A closure that takes a [`Batch`] is a stage as well.

use crate::batch::{Batch, BatchMut, Outcome, Progress, View};
use crate::cursor::Sequence;

/// Where a stage stands, for what it does between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How far it has read.
    pub taken: Sequence,
    /// How far it could read by what it knew last.
    pub available: Sequence,
}

/// A stage that reads events. Returning from [`on_batch`](Self::on_batch) releases them.
///
/// ```
/// use lockstep_ringbuffer::{Batch, Graph, Progress, Stage};
///
/// struct Sum(u64);
/// impl Stage<u64> for Sum {
///     fn on_batch(&mut self, batch: Batch<'_, u64>) -> Progress {
///         self.0 += batch.events().iter().sum::<u64>();
///         if batch.ends_backlog() {
///             println!("{} up to {}", self.0, batch.end());
///         }
///         Progress::All
///     }
/// }
///
/// let mut graph = Graph::new(8, || 0_u64)?;
/// graph.stage("sum", &[], Sum(0));
/// let (mut producer, mut pipeline) = graph.build()?;
/// producer.publish(|event| *event = 42)?;
/// pipeline.turn();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Stage<E: Send + Sync>: Send {
    /// Takes one batch, never empty.
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress;

    /// Called in every turn, behind the batch if there was one: ticks, completions. The
    /// answer is whether there was anything to do; while there is, the thread stays awake.
    fn on_turn(&mut self, standing: Standing) -> bool {
        let _ = standing;
        false
    }

    /// Called once on the thread that runs the stage, before its first batch.
    fn on_start(&mut self) {}

    /// Called once behind the last batch, however the pipeline ended.
    fn on_stop(&mut self) {}

    /// Whether it goes through its batches with [`Batch::for_each`], so that a fault has an
    /// event and that event can be skipped.
    fn goes_event_by_event(&self) -> bool {
        false
    }
}

/// A stage that writes events in place. Returning releases them.
pub trait StageMut<E: Send + Sync>: Send {
    /// Takes one batch, never empty.
    fn on_batch(&mut self, batch: BatchMut<'_, E>) -> Progress;

    /// As [`Stage::on_turn`].
    fn on_turn(&mut self, standing: Standing) -> bool {
        let _ = standing;
        false
    }

    /// As [`Stage::on_start`].
    fn on_start(&mut self) {}

    /// As [`Stage::on_stop`].
    fn on_stop(&mut self) {}

    /// As [`Stage::goes_event_by_event`].
    fn goes_event_by_event(&self) -> bool {
        false
    }
}

/// A stage that reads ahead of its promise. Returning only *takes* events; they are
/// released by its [`Gate`](crate::Gate).
pub trait LateStage<E: Send + Sync>: Send {
    /// Takes one batch, never empty. `All` and `To` say how far it was taken.
    fn on_batch(&mut self, view: View<'_, E>) -> Progress;

    /// As [`Stage::on_turn`]: the place to poll for completions and to move the gate.
    fn on_turn(&mut self, standing: Standing) -> bool {
        let _ = standing;
        false
    }

    /// As [`Stage::on_start`].
    fn on_start(&mut self) {}

    /// As [`Stage::on_stop`].
    fn on_stop(&mut self) {}
}

impl<E, F> Stage<E> for F
where
    E: Send + Sync,
    F: FnMut(Batch<'_, E>) -> Progress + Send,
{
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress {
        self(batch)
    }
}

impl<E, F> StageMut<E> for F
where
    E: Send + Sync,
    F: FnMut(BatchMut<'_, E>) -> Progress + Send,
{
    fn on_batch(&mut self, batch: BatchMut<'_, E>) -> Progress {
        self(batch)
    }
}

impl<E, F> LateStage<E> for F
where
    E: Send + Sync,
    F: FnMut(View<'_, E>) -> Progress + Send,
{
    fn on_batch(&mut self, view: View<'_, E>) -> Progress {
        self(view)
    }
}

/// A handler of single events.
pub trait Handler<E>: Send {
    /// Handles one event.
    ///
    /// # Errors
    ///
    /// When the stage cannot go on; its [`OnFault`](crate::OnFault) decides.
    fn on_event(&mut self, event: &E, at: Sequence) -> Result<(), crate::Cause>;

    /// As [`Stage::on_turn`].
    fn on_turn(&mut self, standing: Standing) -> bool {
        let _ = standing;
        false
    }

    /// As [`Stage::on_start`].
    fn on_start(&mut self) {}

    /// As [`Stage::on_stop`].
    fn on_stop(&mut self) {}
}

/// A closure as a [`Handler`].
#[derive(Debug)]
pub struct FromFn<F>(F);

impl<E, F, R> Handler<E> for FromFn<F>
where
    F: FnMut(&E, Sequence) -> R + Send,
    R: Outcome,
{
    #[inline(always)]
    fn on_event(&mut self, event: &E, at: Sequence) -> Result<(), crate::Cause> {
        (self.0)(event, at).into_result()
    }
}

/// A stage that goes event by event; see [`each`].
#[derive(Debug)]
pub struct Each<H>(pub H);

/// A stage from a closure that takes one event after the other and returns nothing, or a
/// `Result`. For a handler with hooks of its own: `Each(handler)`.
///
/// ```
/// # use lockstep_ringbuffer::{Graph, each};
/// let mut graph = Graph::new(8, || 0_u64)?;
/// graph.stage("print", &[], each(|event: &u64, at| println!("{at}: {event}")));
/// graph.stage("check", &[], each(|event: &u64, _at| {
///     if *event < 100 { Ok(()) } else { Err("too large") }
/// }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn each<E, R, F>(handle: F) -> Each<FromFn<F>>
where
    F: FnMut(&E, Sequence) -> R + Send,
    R: Outcome,
{
    Each(FromFn(handle))
}

impl<E: Send + Sync, H: Handler<E>> Stage<E> for Each<H> {
    #[inline]
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress {
        batch.for_each(|event, at| self.0.on_event(event, at))
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        self.0.on_turn(standing)
    }

    fn on_start(&mut self) {
        self.0.on_start();
    }

    fn on_stop(&mut self) {
        self.0.on_stop();
    }

    fn goes_event_by_event(&self) -> bool {
        true
    }
}

/// Two handlers as one: the second gets each event right behind the first, while it is
/// in the cache. `graph.together` runs stages one *batch* behind the other instead; a
/// journal wants that, a cheap enrichment this. For a list known at run time there is
/// `Vec<Box<dyn Handler<E>>>`, which is a handler too; an empty one passes everything.
///
/// ```
/// # use lockstep_ringbuffer::{Each, Fused, Graph, handler};
/// let mut graph = Graph::new(8, || 0_u64)?;
/// let both = Fused(
///     handler(|event: &u64, _| println!("first {event}")),
///     handler(|event: &u64, _| println!("then {event}")),
/// );
/// graph.stage("both", &[], Each(both));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Fused<A, B>(pub A, pub B);

/// A [`Handler`] from a closure, to be fused with others.
pub fn handler<E, R, F>(handle: F) -> FromFn<F>
where
    F: FnMut(&E, Sequence) -> R + Send,
    R: Outcome,
{
    FromFn(handle)
}

impl<E, A: Handler<E>, B: Handler<E>> Handler<E> for Fused<A, B> {
    #[inline(always)]
    fn on_event(&mut self, event: &E, at: Sequence) -> Result<(), crate::Cause> {
        self.0.on_event(event, at)?;
        self.1.on_event(event, at)
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        self.0.on_turn(standing) | self.1.on_turn(standing)
    }

    fn on_start(&mut self) {
        self.0.on_start();
        self.1.on_start();
    }

    fn on_stop(&mut self) {
        self.0.on_stop();
        self.1.on_stop();
    }
}

impl<E> Handler<E> for Vec<Box<dyn Handler<E>>> {
    fn on_event(&mut self, event: &E, at: Sequence) -> Result<(), crate::Cause> {
        self.iter_mut()
            .try_for_each(|handler| handler.on_event(event, at))
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        self.iter_mut()
            .fold(false, |busy, handler| handler.on_turn(standing) | busy)
    }

    fn on_start(&mut self) {
        self.iter_mut().for_each(|handler| handler.on_start());
    }

    fn on_stop(&mut self) {
        self.iter_mut().for_each(|handler| handler.on_stop());
    }
}

/// A writing stage that goes event by event; see [`each_mut`].
#[derive(Debug)]
pub struct EachMut<F>(F);

/// A writing stage from a closure that takes one event after the other and returns
/// nothing, or a `Result`.
///
/// ```
/// # use lockstep_ringbuffer::{Graph, each, each_mut};
/// let mut graph = Graph::new(8, || 0_u64)?;
/// let double = graph.stage_mut("double", &[], each_mut(|event: &mut u64, _at| *event *= 2));
/// graph.stage("print", &[double], each(|event: &u64, _at| println!("{event}")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn each_mut<E, R, F>(handle: F) -> EachMut<F>
where
    F: FnMut(&mut E, Sequence) -> R + Send,
    R: Outcome,
{
    EachMut(handle)
}

impl<E, R, F> StageMut<E> for EachMut<F>
where
    E: Send + Sync,
    F: FnMut(&mut E, Sequence) -> R + Send,
    R: Outcome,
{
    #[inline]
    fn on_batch(&mut self, batch: BatchMut<'_, E>) -> Progress {
        batch.for_each(&mut self.0)
    }

    fn goes_event_by_event(&self) -> bool {
        true
    }
}

//! Looking on without holding anybody back: lossy, and free while nobody looks.
//!
//! A tap must not read slots, since nobody keeps the producer out of them. A stage copies
//! the events into a small ring of atomic words instead, each cell under a stamp, and only
//! while anybody looks. Whoever reads a cell looks at its stamp before and after.
//!
//! ```text
//!   cell   stamp = 2 × sequence + 1 while it is written, 2 × (sequence + 1) when it is whole
//!          words   the event, eight bytes each
//! ```
//!
//! # Invariants
//!
//! * `T1` What a tap returns is one event, whole: the stamp was even and that of the event
//!   before the words were read, and the same after.

use std::fmt;
use std::marker::PhantomData;

use crate::batch::{Batch, Progress};
use crate::cursor::Sequence;
use crate::orderings::{OWN, half_fence, tap_stamp_get, tap_stamp_set};
use crate::stage::Stage;
use crate::sync::{Arc, AtomicU64, Ordering};

struct Cell {
    stamp: AtomicU64,
    words: Box<[AtomicU64]>,
}

struct Cells {
    cells: Box<[Cell]>,
    /// How many events the stage has passed.
    passed: AtomicU64,
    /// Where the ring began: nobody lost what went before.
    first: AtomicU64,
    /// How many taps look.
    watchers: AtomicU64,
}

impl Cells {
    fn cell(&self, sequence: u64) -> &Cell {
        let mask = self.cells.len() as u64 - 1;
        &self.cells[crate::column::index(sequence & mask)]
    }
}

/// A stage that lets others look on, and the handle they attach by. `capacity` is how many
/// events a tap may lag behind before it loses some, rounded up to a power of two.
///
/// The stage is placed like any other; while no tap is attached a batch costs it one store.
///
/// ```
/// use lockstep_ringbuffer::{Graph, Tapped, tap};
///
/// let (stage, taps) = tap::<u64>(1024);
/// let mut graph = Graph::new(8, || 0_u64)?;
/// graph.stage("tap", &[], stage);
/// let (mut producer, mut pipeline) = graph.build()?;
///
/// let mut tap = taps.attach(); // at any time, on any thread
/// producer.publish(|event| *event = 42)?;
/// pipeline.turn();
/// assert!(matches!(tap.next(), Tapped::Event(at, 42) if at.0 == 0));
/// assert!(matches!(tap.next(), Tapped::Nothing));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tap<E: bytemuck::Pod>(capacity: usize) -> (TapStage<E>, Taps<E>) {
    let words = size_of::<E>().div_ceil(8);
    let cell = || Cell {
        stamp: AtomicU64::new(0),
        words: (0..words).map(|_| AtomicU64::new(0)).collect(),
    };
    let count = capacity.clamp(2, 1 << 24).next_power_of_two();
    let cells = Arc::new(Cells {
        cells: (0..count).map(|_| cell()).collect(),
        passed: AtomicU64::new(0),
        first: AtomicU64::new(0),
        watchers: AtomicU64::new(0),
    });
    let stage = TapStage {
        cells: Arc::clone(&cells),
        has_begun: false,
        event: PhantomData,
    };
    let taps = Taps {
        cells,
        event: PhantomData,
    };
    (stage, taps)
}

/// The stage of [`tap`].
pub struct TapStage<E> {
    cells: Arc<Cells>,
    has_begun: bool,
    event: PhantomData<fn(E)>,
}

impl<E> fmt::Debug for TapStage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapStage").finish_non_exhaustive()
    }
}

impl<E: bytemuck::Pod> TapStage<E> {
    fn copy(&self, sequence: u64, event: &E) {
        let cell = self.cells.cell(sequence);
        cell.stamp.store(2 * sequence + 1, OWN);
        // ORDERING: Release fence, pairs with the Acquire fence in `read` (T1): who reads a
        // new word sees the odd stamp.
        half_fence("tap_write_fence", Ordering::Release);
        for (word, bytes) in cell.words.iter().zip(bytemuck::bytes_of(event).chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), OWN);
        }
        cell.stamp.store(2 * (sequence + 1), tap_stamp_set());
    }
}

impl<E: bytemuck::Pod + Send + Sync> Stage<E> for TapStage<E> {
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress {
        if self.cells.watchers.load(OWN) != 0 {
            for (at, event) in batch.iter() {
                self.copy(at.0, event);
            }
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.cells.first.store(batch.first().0, OWN);
        }
        self.cells.passed.store(batch.end().0, tap_stamp_set());
        Progress::All
    }
}

/// Attaches taps: `Clone`, from any thread, at any time.
pub struct Taps<E> {
    cells: Arc<Cells>,
    event: PhantomData<fn() -> E>,
}

impl<E> Clone for Taps<E> {
    fn clone(&self) -> Self {
        Self {
            cells: Arc::clone(&self.cells),
            event: PhantomData,
        }
    }
}

impl<E> fmt::Debug for Taps<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taps")
            .field("watchers", &self.cells.watchers.load(OWN))
            .finish_non_exhaustive()
    }
}

impl<E: bytemuck::Pod> Taps<E> {
    /// A tap that begins with the next event.
    #[must_use]
    pub fn attach(&self) -> Tap<E> {
        self.cells.watchers.fetch_add(1, OWN);
        Tap {
            next: self.cells.passed.load(tap_stamp_get()),
            cells: Arc::clone(&self.cells),
            event: PhantomData,
        }
    }
}

/// What a tap finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tapped<E> {
    /// An event.
    Event(Sequence, E),
    /// So many events were not seen: overwritten, or passed while the tap was attached.
    Lost(u64),
    /// Nothing new.
    Nothing,
}

/// One onlooker; it holds nobody back and leaves when it is dropped.
pub struct Tap<E> {
    cells: Arc<Cells>,
    next: u64,
    event: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Tap<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<E: bytemuck::Pod> Tap<E> {
    /// The next event, or how many were missed. Never waits.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator"
    )]
    pub fn next(&mut self) -> Tapped<E> {
        let passed = self.cells.passed.load(tap_stamp_get());
        if passed <= self.next {
            return Tapped::Nothing;
        }
        self.next = self.next.max(self.cells.first.load(OWN));
        let oldest = passed.saturating_sub(self.cells.cells.len() as u64);
        if oldest > self.next {
            return self.lose_until(oldest);
        }
        match self.read(self.next) {
            Some(event) => {
                let at = Sequence(self.next);
                self.next += 1;
                Tapped::Event(at, event)
            }
            None => self.lose_until(self.next + 1),
        }
    }

    fn lose_until(&mut self, next: u64) -> Tapped<E> {
        let lost = next - self.next;
        self.next = next;
        Tapped::Lost(lost)
    }

    /// The event of `sequence`, unless its cell holds another or is being written.
    fn read(&self, sequence: u64) -> Option<E> {
        let cell = self.cells.cell(sequence);
        let whole = 2 * (sequence + 1);
        if cell.stamp.load(tap_stamp_get()) != whole {
            return None;
        }
        let mut event = E::zeroed();
        for (bytes, word) in bytemuck::bytes_of_mut(&mut event)
            .chunks_mut(8)
            .zip(&cell.words)
        {
            bytes.copy_from_slice(&word.load(OWN).to_le_bytes()[..bytes.len()]);
        }
        // ORDERING: Acquire fence, pairs with the Release fence in `copy` (T1): if any word
        // was new, the stamp below is too.
        half_fence("tap_read_fence", Ordering::Acquire);
        (cell.stamp.load(OWN) == whole).then_some(event)
    }
}

impl<E> Drop for Tap<E> {
    fn drop(&mut self) {
        self.cells.watchers.fetch_sub(1, OWN);
    }
}

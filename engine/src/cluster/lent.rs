//! Stages that outlive their ring: the logic with its state, egress with its outputs.
//!
//! A role lives as long as a ring, and the next ring begins where the logic is. So the graph only
//! borrows the two: when its runner ends, however it ends, they lie at home again.
//!
//! # Invariants
//!
//! * `LT1` The part is in the ring or at home, never in both and never in neither.

use std::sync::{Arc, Mutex, PoisonError};

use lockstep_ringbuffer::{Batch, Progress, Stage, Standing};

/// Where a part lies between two rings.
#[derive(Debug)]
pub(crate) struct Home<T>(Arc<Mutex<Option<T>>>);

/// The part in a ring.
#[derive(Debug)]
pub(crate) struct Lent<T> {
    /// `None` once it was given back.
    part: Option<T>,
    home: Arc<Mutex<Option<T>>>,
}

impl<T> Home<T> {
    /// Where nothing lies yet.
    pub(crate) fn empty() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The part, if no ring has it.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a part into a stage that brings it back.
    pub(crate) fn lend(&self, part: T) -> Lent<T> {
        Lent {
            part: Some(part),
            home: Arc::clone(&self.0),
        }
    }
}

impl<T> Lent<T> {
    /// `LT1`
    fn give_back(&mut self) {
        if let Some(part) = self.part.take() {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
        }
    }
}

impl<E: Send + Sync, T: Stage<E>> Stage<E> for Lent<T> {
    fn on_batch(&mut self, batch: Batch<'_, E>) -> Progress {
        match &mut self.part {
            Some(part) => part.on_batch(batch),
            None => Progress::Halt,
        }
    }

    fn on_turn(&mut self, standing: Standing) -> bool {
        self.part
            .as_mut()
            .is_some_and(|part| part.on_turn(standing))
    }

    /// The ring ends, the part does not.
    fn on_stop(&mut self) {
        self.give_back();
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        self.give_back();
    }
}

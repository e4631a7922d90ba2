//! Looking at a state that another thread has: a closure goes there and its answer comes back.
//!
//! # Invariants
//!
//! * `MB1` A letter is opened between two events, on the thread that has the state.
//! * `MB2` Whoever waits for an answer gets it, or hears that there is none: the thread is gone, or
//!   the closure panicked. That is the matter of who sent it: the state's thread goes on.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use lockstep_journaler::Position;

use crate::core::Core;
use crate::error::panic_text;
use crate::logic::Logic;

/// What is to be done with the state, once it has reached a position.
type Letter<L> = (u64, Box<dyn FnOnce(&Core<L>) + Send>);

/// Where letters lie until the state's thread has time.
pub(crate) struct Mailbox<L: Logic> {
    letters: Mutex<Option<Vec<Letter<L>>>>,
    has_letters: AtomicBool,
}

impl<L: Logic> fmt::Debug for Mailbox<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<L: Logic> Mailbox<L> {
    pub(crate) fn new() -> Self {
        Self {
            letters: Mutex::new(Some(Vec::new())),
            has_letters: AtomicBool::new(false),
        }
    }

    /// Sends a closure to the state, to be opened when it has reached `position`; where the
    /// answer will come. `None` once the thread is gone.
    pub(crate) fn send<R: Send + 'static>(
        &self,
        position: u64,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Option<mpsc::Receiver<R>> {
        let (answer, answered) = mpsc::sync_channel(1);
        let letter = Box::new(move |core: &Core<L>| {
            // It has the state to look at only, and is used up: nothing half done is seen again.
            match catch_unwind(AssertUnwindSafe(|| look(core))) {
                // Who asked may have gone away: then nobody wants the answer.
                Ok(found) => drop(answer.send(found)),
                Err(panic) => {
                    let (text, position) = (panic_text(&*panic), core.position().0);
                    tracing::error!(position, text, "a look at the state panicked");
                }
            }
        });
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.as_mut()?.push((position, letter));
        // ORDERING: Relaxed, the lock orders the letters; a state that misses the flag finds
        // it in its next turn.
        self.has_letters.store(true, Ordering::Relaxed);
        Some(answered)
    }

    /// Whether there is anything to open.
    #[inline]
    pub(crate) fn has_letters(&self) -> bool {
        // ORDERING: Relaxed, as in `send`.
        self.has_letters.load(Ordering::Relaxed)
    }

    /// Whether there is anything to open for a state at this position.
    #[cold]
    pub(crate) fn is_due(&self, at: Position) -> bool {
        let letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = letters.iter().flatten();
        all.any(|(position, _)| *position <= at.0)
    }

    /// Opens what the state is far enough for (`MB1`); whether there was anything.
    #[cold]
    pub(crate) fn open(&self, core: &Core<L>) -> bool {
        let due = {
            let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(all) = letters.as_mut() else {
                return false;
            };
            let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(all)
                .into_iter()
                .partition(|(position, _)| *position <= core.position().0);
            // ORDERING: Relaxed, as in `send`.
            self.has_letters.store(!rest.is_empty(), Ordering::Relaxed);
            *all = rest;
            due
        };
        let any = !due.is_empty();
        due.into_iter().for_each(|(_, letter)| letter(core));
        any
    }

    /// The thread is gone: letters are thrown away, and nobody waits for them (`MB2`).
    pub(crate) fn close(&self) {
        *self.letters.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

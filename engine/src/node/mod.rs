//! The engine: opened on a directory, started on threads, closed in order.

pub(crate) mod face;
pub(crate) mod metrics;
pub(crate) mod rebuild;
pub mod recovery;
pub mod stepped;
pub(crate) mod watch;

mod builder;
mod engine;
mod starter;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use lockstep_journaler::{Position, Recovered, Verdict};
use lockstep_ringbuffer::Probe;

use crate::error::{Error, Result, panic_text};
use crate::shared::Shared;

pub use builder::Builder;
pub use engine::Engine;
pub use stepped::Stepped;

/// Nothing is answered until there is room on the disk.
fn no_room(shared: &Shared, probe: &Probe) -> Error {
    Error::NoRoom {
        durable: Position(shared.durable.get()),
        report: probe.look().to_string(),
    }
}

/// A cold thread of this name: if it panics the engine ends with that as its cause (`EN4`).
pub(crate) fn spawn(
    what: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    // It is used up, and what it shares with others are numbers.
    let run = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            shared.fail(format!("thread {what:?} panicked: {}", panic_text(&*panic)));
        }
    };
    let builder = std::thread::Builder::new().name(what.to_owned());
    builder
        .spawn(run)
        .map_err(|source| Error::Beside { what, source })
}

pub(crate) fn describe(recovered: &Recovered) -> String {
    match &recovered.verdict {
        Verdict::Created => "created".to_owned(),
        Verdict::CleanEnd if recovered.was_clean => "closed in order".to_owned(),
        Verdict::CleanEnd => "ended between two groups".to_owned(),
        Verdict::TornTail(torn) => {
            format!(
                "a torn tail of {} bytes at position {} was cut; a copy is in {}",
                torn.bytes, torn.position, torn.quarantine
            )
        }
    }
}

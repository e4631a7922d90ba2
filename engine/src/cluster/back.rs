//! The thread behind the gate: it runs *logic* and *egress* of one ring after another.
//!
//! ```text
//!   the node's thread ──runner of this ring──► back ──the ring was halted──► runner dropped, parts at home
//! ```
//!
//! In a simulation there is no thread: the owner gives the same runner turns.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_ringbuffer::{Runner, Turn};

use crate::error::{Error, Result};

/// Who runs the stages behind the gate.
#[derive(Debug)]
pub(crate) enum Back {
    /// The owner, in its turns.
    Here(Option<Runner>),
    /// A thread of its own.
    Thread(BackThread),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BackThread {
    runners: Option<Sender<Runner>>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl BackThread {
    /// Starts the thread; `wake` is called whenever a ring has ended, in whatever way.
    pub(crate) fn start(wake: impl Fn() + Send + 'static) -> Result<Self> {
        let (runners, inbox) = channel::<Runner>();
        let (outbox, ended) = channel();
        let body = move || {
            // Ends: when the node drops its end.
            for runner in inbox {
                runner.run();
                let is_gone = outbox.send(()).is_err();
                wake();
                if is_gone {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("logic+egress".to_owned())
            .spawn(body)
            .map_err(|source| Error::Beside {
                what: "the logic's thread",
                source,
            })?;
        Ok(Self {
            runners: Some(runners),
            ended,
            thread: Some(thread),
            is_busy: false,
        })
    }
}

impl Back {
    /// Runs the stages of this ring from now on.
    pub(crate) fn take(&mut self, runner: Runner) {
        match self {
            Back::Here(own) => *own = Some(runner),
            Back::Thread(back) => {
                back.is_busy = back
                    .runners
                    .as_ref()
                    .is_some_and(|runners| runners.send(runner).is_ok());
            }
        }
    }

    /// A turn, where it is the owner's to give; whether anything was done.
    pub(crate) fn turn(&mut self) -> bool {
        match self {
            Back::Here(runner) => runner
                .as_mut()
                .is_some_and(|runner| runner.turn() == Turn::Worked),
            Back::Thread(_) => false,
        }
    }

    /// Waits until the stages of a ring that was halted are at home; whether they came in time.
    pub(crate) fn end(&mut self, within: Duration) -> bool {
        match self {
            Back::Here(runner) => {
                drop(runner.take());
                true
            }
            Back::Thread(back) => {
                if !back.is_busy {
                    return true;
                }
                back.is_busy = false;
                match back.ended.recv_timeout(within) {
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                }
            }
        }
    }
}

impl Drop for BackThread {
    fn drop(&mut self) {
        drop(self.runners.take());
        if let Some(thread) = self.thread.take()
            && !self.is_busy
        {
            // A panic outside of a stage: the node has ended already.
            let _panicked = thread.join();
        }
    }
}

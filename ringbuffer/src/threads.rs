//! Threads for runners: named, pinned, started together or not at all.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::cpus;
use crate::error::{PinError, StartError};
use crate::pipeline::Finish;
use crate::runner::Runner;

/// The threads of a pipeline. Dropped, they are left alone.
#[derive(Debug, Default)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

/// Whether the runners may go: nothing yet, go, or go home.
type Signal = Arc<(Mutex<Option<bool>>, Condvar)>;

/// A thread for each runner. Each pins itself and then waits for the others.
pub(crate) fn spawn(runners: Vec<Runner>) -> Result<Threads, StartError> {
    let signal: Signal = Arc::default();
    let (sender, pinned) = mpsc::channel();
    let mut threads = Vec::with_capacity(runners.len());
    let mut failure = None;
    for runner in runners {
        match spawn_one(runner, sender.clone(), Arc::clone(&signal)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let refused = pinned.iter().take(threads.len()).find_map(Result::err);
    let failure = failure.or(refused.map(StartError::Pin));
    say(&signal, failure.is_none());
    match failure {
        None => Ok(Threads(threads)),
        Some(failure) => {
            threads.into_iter().for_each(|thread| {
                let _nothing_ran = thread.join();
            });
            Err(failure)
        }
    }
}

fn spawn_one(
    runner: Runner,
    pinned: mpsc::Sender<Result<(), PinError>>,
    signal: Signal,
) -> Result<JoinHandle<()>, StartError> {
    let name = runner.name().to_owned();
    let thread = Builder::new().name(name.clone()).spawn(move || {
        let outcome = match runner.cpu() {
            Some(cpu) => cpus::pin(runner.name(), cpu),
            None => Ok(()),
        };
        let _receiver_is_there = pinned.send(outcome);
        drop(pinned);
        if listen(&signal) {
            runner.run();
        }
    });
    thread.map_err(|source| StartError::Spawn {
        runner: name,
        source,
    })
}

fn say(signal: &Signal, go: bool) {
    *signal.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(go);
    signal.1.notify_all();
}

fn listen(signal: &Signal) -> bool {
    let said = signal.0.lock().unwrap_or_else(PoisonError::into_inner);
    let said = signal.1.wait_while(said, |said| said.is_none());
    *said.unwrap_or_else(PoisonError::into_inner) == Some(true)
}

impl Threads {
    /// Waits until all have ended, so long at most, and joins those that have; the names of
    /// the others, who are left to themselves. A thread does not wait for itself.
    pub(crate) fn wait(&mut self, finish: &Finish, within: Duration) -> Vec<String> {
        let me = std::thread::current().id();
        let is_own = self.0.iter().any(|thread| thread.thread().id() == me);
        let all_ended = !is_own && !self.0.is_empty() && finish.wait(Some(within));
        let mut unfinished = Vec::new();
        for thread in self.0.drain(..) {
            if thread.thread().id() == me {
                continue;
            }
            if all_ended || thread.is_finished() {
                let _runners_catch_their_panics = thread.join();
            } else {
                unfinished.push(thread.thread().name().unwrap_or_default().to_owned());
            }
        }
        unfinished
    }
}

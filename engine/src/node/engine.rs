//! An engine that runs: read, watched, and closed in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_journaler::Position;
use lockstep_ringbuffer::{Probe, Report, Running};

use super::face::{self, Face};
use super::no_room;
use super::recovery::Recovery;
use super::starter::agree_on;
use crate::config::Config;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::logic::{Logic, OutputOf};
use crate::requests::Reply;
use crate::shared::Waited;
use crate::snapshot::keeper::{Bell, LogReaders};
use crate::snapshot::shadow::Asked;
use crate::source::{Ack, Producer, stopped};
use crate::stage::egress::{Slow, Subscription};
use crate::system::{Parameters, VersionSwitch};

/// How often a start looks why it takes so long.
const LOOK_AT_START: Duration = Duration::from_millis(20);

/// An engine that runs. Dropped, it halts; [`close`](Self::close) lets it finish. Threads may share it.
pub struct Engine<L: Logic> {
    /// Only who closes it takes it out; the lock lets threads share the engine.
    pub(super) running: Mutex<Option<Running>>,
    pub(super) producer: Producer<L>,
    /// Looks go to the shadow, or to the logic where there is none.
    pub(super) face: Face<L>,
    pub(super) shadow: Option<(JoinHandle<()>, Arc<Asked>)>,
    pub(super) keeper: Option<(JoinHandle<()>, Arc<Bell>)>,
    pub(super) readers: Option<Box<dyn LogReaders>>,
    pub(super) watch: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    pub(super) metrics: Option<(JoinHandle<()>, SocketAddr)>,
    pub(super) probe: Probe,
    pub(super) config: Config,
}

impl<L: Logic> std::fmt::Debug for Engine<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("position", &self.position())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<L: Logic> Engine<L> {
    /// A change of what the state goes by is an event.
    pub(super) fn agree_on(&self, found: Parameters) -> Result<()> {
        let recovered = self.face.recovery.position;
        let wanted = self.config.parameters();
        let acks = agree_on(self.producer(), recovered, found, wanted)?;
        acks.iter().try_for_each(|ack| self.wait_unless_full(ack))
    }

    /// Goes to another version of the logic's rules, from the next event on, here and in every replay.
    ///
    /// # Errors
    ///
    /// This build cannot run it, the log is in a newer one, or the engine stopped.
    pub fn switch_version(&self, version: u32) -> Result<crate::source::Answer> {
        if !L::VERSIONS.contains(&version) {
            return Err(crate::config::ConfigError::Value {
                name: "version",
                found: version.to_string(),
                expected: "one of the versions that this build's logic can run",
            }
            .into());
        }
        let switch = VersionSwitch { version, spare: 0 };
        self.producer.clone().own(&switch)?.wait()
    }

    /// The version of the logic's rules that the log is in.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn version(&self) -> Result<u32> {
        self.read_core(Core::version)
    }

    /// Nobody who starts an engine waits for room on a disk without being told.
    fn wait_unless_full(&self, ack: &Ack) -> Result<()> {
        // Ends: answered, stopped, or the disk is full.
        loop {
            match ack.wait_for(LOOK_AT_START) {
                Err(Error::TimedOut { .. }) if self.face.shared.waits_for_room.get() != 0 => {
                    return Err(no_room(&self.face.shared, &self.probe));
                }
                Err(Error::TimedOut { .. }) => {}
                answered => return answered.map(|_| ()),
            }
        }
    }

    /// The writing end: one for each thread that publishes.
    #[must_use]
    pub fn producer(&self) -> Producer<L> {
        self.producer.clone()
    }

    /// Everything before it is answered: durable as the gate says, applied, its outputs gone.
    #[must_use]
    pub fn position(&self) -> Position {
        self.face.answered()
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.face.recovery
    }

    /// What it was started with.
    #[must_use]
    pub fn configuration(&self) -> &Config {
        &self.config
    }

    /// Where the counters are shown over HTTP: with port 0 in the configuration, the one that was free.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Watches how far every stage is.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// Looks at the state, between two events, not before what is answered now: a reader
    /// sees what it has been told. With a shadow the logic is not held up. Without one, and under
    /// `gate = output`, it is the logic's own state, which may have run ahead of what is durable.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&L) -> R + Send + 'static,
    ) -> Result<(Position, R)> {
        self.read_core(face::state(look))
    }

    /// Waits until everything before `position` is answered; then `read` sees it, whoever was told of
    /// the position: another thread, another process's client.
    ///
    /// ```no_run
    /// # use lockstep_engine::logic::EventOf;
    /// # use lockstep_engine::prelude::*;
    /// # fn show<Bank: Logic + Default>(events: &[EventOf<Bank>]) -> lockstep_engine::Result<()> {
    /// let engine = Engine::<Bank>::open("./bank").start()?;
    /// let end = engine.producer().publish_events(events)?.end;
    /// let (position, _) = engine.at_least(end)?.read(|bank| bank.state_hash())?;
    /// assert!(position >= end);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The engine stopped before.
    pub fn at_least(&self, position: Position) -> Result<&Self> {
        match self
            .face
            .shared
            .wait(&self.face.shared.answered, position.0, None)
        {
            Waited::Reached => Ok(self),
            Waited::Stopped | Waited::TimedOut => Err(stopped(&self.face.shared)),
        }
    }

    /// The hash of the whole state, with the position it is of.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn state_hash(&self) -> Result<(Position, u64)> {
        self.read_core(face::state_hash)
    }

    /// The kept reply to a client's request: the position of the event, and its code.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn reply(&self, session: u64, request: u32) -> Result<Option<Reply>> {
        self.read_core(face::reply(session, request))
    }

    /// Positions in quarantine.
    ///
    /// # Errors
    ///
    /// The engine stopped.
    pub fn quarantined(&self) -> Result<Vec<Position>> {
        self.read_core(|core| core.quarantined().iter().map(|at| Position(*at)).collect())
    }

    fn read_core<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<R> {
        let answer = self.face.look(self.position(), look)?;
        if let Some((shadow, _)) = &self.shadow {
            shadow.thread().unpark();
        }
        answer.recv().map_err(|_| {
            if self.face.shared.is_over() {
                stopped(&self.face.shared)
            } else {
                Error::LookPanicked
            }
        })
    }

    /// Outputs from now on, for a thread of the application's own. A consumer that is slow is
    /// cut off or waited for; nothing is dropped in silence.
    ///
    /// # Errors
    ///
    /// `slots` is no power of two.
    pub fn subscribe(
        &self,
        name: &str,
        slow: Slow,
        slots: usize,
    ) -> Result<Subscription<OutputOf<L>>> {
        self.face.subscribe(name, slow, slots)
    }

    /// Asks the shadow for a snapshot of what is durable now.
    pub fn snapshot_now(&self) {
        if let Some((shadow, asked)) = &self.shadow {
            asked.ask_for_snapshot();
            shadow.thread().unpark();
        }
    }

    /// The position of the newest snapshot; 0 before the first.
    #[must_use]
    pub fn newest_snapshot(&self) -> Position {
        self.face.newest_snapshot()
    }

    /// The newest snapshot that the engine has read back from the disk and found whole, and behind which
    /// it has removed what nobody needs any more; 0 before the first.
    #[must_use]
    pub fn kept_snapshot(&self) -> Position {
        Position(self.face.shared.kept.get())
    }

    /// The oldest position that is in the journal; what lies before it was given up.
    #[must_use]
    pub fn oldest(&self) -> Position {
        Position(self.face.shared.oldest.get())
    }

    /// Says durably that somebody still needs the log from `position` on, and the state in front of
    /// it: retention waits for them, also behind a restart. Whoever keeps outputs says so with
    /// each that they keep, and can ask for those behind it by
    /// [`outputs_after`](super::Builder::outputs_after). The name is that of a file; the same name again
    /// moves it.
    ///
    /// # Errors
    ///
    /// [`Error::Retention`]: the disk says no, or the name; there is no journal.
    pub fn keep_from(&self, name: &str, position: Position) -> Result<()> {
        self.readers()?.keep_from(name, position)
    }

    /// Nothing is kept for this reader any more.
    ///
    /// # Errors
    ///
    /// [`Error::Retention`]: the disk says no, or there is none of that name.
    pub fn forget_reader(&self, name: &str) -> Result<()> {
        self.readers()?.forget(name)
    }

    fn readers(&self) -> Result<&dyn LogReaders> {
        let none = || Error::Retention(lockstep_journaler::tools::ToolError::NoJournal);
        self.readers.as_deref().ok_or_else(none)
    }

    /// Whether the journal waits for room on the disk: nothing is lost, and nothing is answered until
    /// there is some.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.face.shared.waits_for_room.get() != 0
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.face.fault()
    }

    /// Runs until SIGTERM or SIGINT asks it to end, or it stops by itself; then closes it.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); signals cannot be watched.
    pub fn run_until_signal(self) -> Result<()> {
        crate::runtime::signals::watch().map_err(|source| Error::Beside {
            what: "signals",
            source,
        })?;
        while !crate::runtime::signals::is_asked_to_end() && self.face.shared.fault().is_none() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.close()
    }

    /// Lets everything that was published pass every stage, closes the journal, and ends the
    /// threads.
    ///
    /// # Errors
    ///
    /// The engine had stopped before, and why; or it did not finish within `drain_ms`.
    pub fn close(mut self) -> Result<()> {
        self.end_watch();
        self.end_keeper();
        let within = self.config.drain();
        let drained = self.take_running().map(|running| running.drain(within));
        self.end_shadow();
        self.face.shared.close();
        match (self.face.shared.fault(), drained) {
            (Some(cause), drained) => {
                let report = drained.map(|drained| drained.unwrap_or_else(|report| *report));
                Err(Error::Stopped {
                    cause: with_faults(cause, report.as_ref()),
                })
            }
            (None, Some(Err(report))) if self.face.shared.waits_for_room.get() != 0 => {
                Err(Error::NoRoom {
                    durable: Position(self.face.shared.durable.get()),
                    report: report.to_string(),
                })
            }
            (None, Some(Err(report))) if report.was_live => Err(Error::NotDrained {
                within_ms: self.config.drain_ms,
                report: report.to_string(),
            }),
            (None, Some(Err(report))) => Err(Error::Stopped {
                cause: report.to_string(),
            }),
            (None, _) => Ok(()),
        }
    }

    fn take_running(&mut self) -> Option<Running> {
        let running = self.running.get_mut();
        running.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end_watch(&mut self) {
        if let Some((thread, is_over)) = self.watch.take() {
            // ORDERING: Release, pairs with the Acquire in the thread.
            is_over.store(true, Ordering::Release);
            thread.thread().unpark();
            // A panic there is nobody's loss: it was the cold thread.
            let _panicked = thread.join();
        }
        if let Some((thread, _)) = self.metrics.take() {
            thread.thread().unpark();
            // As above.
            let _panicked = thread.join();
        }
    }

    /// Before the journal: what may be missing is written by whoever has it open.
    fn end_keeper(&mut self) {
        if let Some((thread, bell)) = self.keeper.take() {
            bell.end();
            // A panic there has removed nothing further, and the log is as it was.
            let _panicked = thread.join();
        }
    }

    fn end_shadow(&mut self) {
        if let Some((thread, asked)) = self.shadow.take() {
            // ORDERING: Release, pairs with the Acquire in the thread.
            asked.end.store(true, Ordering::Release);
            thread.thread().unpark();
            // A panic there has ended no promise: the shadow only follows.
            let _panicked = thread.join();
        }
    }
}

/// The first cause, and what the stages said besides.
pub(super) fn with_faults(cause: &str, report: Option<&Report>) -> String {
    let others = report.map(|report| report.faults.iter().map(|fault| format!("; {fault}")));
    let others: String = others.into_iter().flatten().collect();
    format!("{cause}{others}")
}

impl<L: Logic> Drop for Engine<L> {
    fn drop(&mut self) {
        self.end_watch();
        self.end_keeper();
        drop(self.take_running());
        self.end_shadow();
        self.face.shared.close();
    }
}

//! The shadow: a second copy of the state, fed by the same log, that takes the snapshots and
//! answers the reads. The logic never stops for either.
//!
//! It follows the journal, not the ring: it holds nobody back, and it has only what is
//! durable. Between two looks it sleeps; a read or a snapshot that is due wakes it.
//!
//! # Invariants
//!
//! * `SD1` A snapshot is of a position where a frame ends, and names that frame's chain.
//! * `SD2` A failed snapshot costs nothing but itself: it is reported, and the next one is tried.
//! * `SD3` A beacon in the log that names another hash than the shadow's stops the engine.
//! * `SD4` Where a quorum promises besides the journal, it takes no event that was not answered: reads
//!   and snapshots have nothing that may still be refused, and nothing of a tail that was replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_journaler::snapshots::{SnapshotError, SnapshotOf, Snapshots};
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Position, Reader, Tail, Term};

use crate::core::{Core, Scratch, StepError};
use crate::error::{Error, panic_text};
use crate::log::{Broken, replay_frame};
use crate::logic::Logic;
use crate::mailbox::Mailbox;
use crate::runtime::clock::Stopwatch;
use crate::runtime::priority::{breathe_slowly, give_way, rested};
use crate::shared::Shared;
use crate::snapshot::keeper::Bell;
use crate::stage::verdicts::Verdicts;
use crate::state::StateWriter;

/// While it catches up it pauses so many times as long as it worked.
const PAUSE_TIMES: u32 = 3;

/// How long it sleeps between looks.
const NAP: Duration = Duration::from_millis(10);

/// What the shadow is told at the start.
pub(crate) struct Orders<S: Storage> {
    pub(crate) storage: S,
    pub(crate) log: [u8; 16],
    pub(crate) schema_version: u32,
    pub(crate) schema_hash: u64,
    /// Events between two snapshots; 0: none.
    pub(crate) every: u64,
    /// Rung behind each snapshot.
    pub(crate) bell: Arc<Bell>,
    pub(crate) refuses_panics: bool,
    /// What is durable here may be taken back: another stage promises besides.
    pub(crate) waits_for_quorum: bool,
    /// Where the newest snapshot is.
    pub(crate) newest: u64,
}

/// See the module.
pub(crate) struct Shadow<L: Logic, S: Storage> {
    core: Core<L>,
    reader: Reader<S>,
    scratch: Scratch<L::Out>,
    orders: Orders<S>,
    mailbox: Arc<Mailbox<L>>,
    shared: Arc<Shared>,
    asked: Arc<Asked>,
    /// In a cluster: what the primary has passed over.
    verdicts: Option<Arc<Verdicts>>,
    /// Rebuilds the state where an event is in quarantine.
    rebuild: Option<crate::stage::logic::Rebuild<L>>,
    /// The end of the last frame that was taken whole.
    behind: Tail,
    /// How often the log's end had been replaced when it was read last.
    cuts: u64,
    /// The state lies between two events of one frame.
    is_within_frame: bool,
    leisure: Leisure,
}

/// Whether who catches up has time to pause: only when it has come as much nearer as the pause before cost.
/// So pauses make the way twice as long at most, and keep nobody behind.
#[derive(Debug, Default)]
struct Leisure {
    /// It has time when it is no further behind than this.
    next: Option<u64>,
}

impl Leisure {
    fn has_time(&self, lag: u64) -> bool {
        self.next.is_none_or(|next| lag <= next)
    }

    /// How far it was behind in front of the pause, and behind it.
    fn paused(&mut self, before: u64, after: u64) {
        let cost = after.saturating_sub(before);
        self.next = Some(before.saturating_sub(cost));
    }
}

/// What others ask of the shadow.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) snapshot: AtomicBool,
    pub(crate) end: AtomicBool,
}

impl Asked {
    pub(crate) fn ask_for_snapshot(&self) {
        // ORDERING: Relaxed, the request is the flag itself.
        self.snapshot.store(true, Ordering::Relaxed);
    }
}

impl<L: Logic, S: Storage> Shadow<L, S> {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one of its parts, named at the only call"
    )]
    pub(crate) fn new(
        core: Core<L>,
        reader: Reader<S>,
        orders: Orders<S>,
        mailbox: Arc<Mailbox<L>>,
        shared: Arc<Shared>,
        asked: Arc<Asked>,
        rebuild: Option<crate::stage::logic::Rebuild<L>>,
        verdicts: Option<Arc<Verdicts>>,
        behind: Tail,
    ) -> Self {
        let cuts = shared.cuts.get();
        let scratch = Scratch::default();
        Self {
            core,
            reader,
            scratch,
            orders,
            mailbox,
            shared,
            asked,
            rebuild,
            verdicts,
            behind,
            cuts,
            is_within_frame: false,
            leisure: Leisure::default(),
        }
    }

    /// Runs until it is told to end, or cannot go on; then nobody waits for an answer any more, also
    /// where the application's own code panicked.
    pub(crate) fn run(mut self) {
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        // What it has is not used behind a panic.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run_on())) {
            shared.fail(format!("shadow: panicked: {}", panic_text(&*panic)));
        }
        mailbox.close();
    }

    fn run_on(&mut self) {
        give_way();
        self.shared.shadow.set(self.core.position().0);
        // Ends: when it is asked to, or by an error.
        loop {
            // ORDERING: Acquire, pairs with the Release of who asks: what was durable then is seen.
            let is_last = self.asked.end.load(Ordering::Acquire);
            match self.turn() {
                Ok(moved) => {
                    let opened = self.mailbox.has_letters() && self.mailbox.open(&self.core);
                    if !moved && !opened && !is_last {
                        std::thread::park_timeout(NAP);
                        rested();
                        self.leisure = Leisure::default();
                    } else if !is_last {
                        self.catch_breath();
                    }
                    if !moved && is_last {
                        break;
                    }
                }
                Err(error) => {
                    self.shared.fail(format!("shadow: {error}"));
                    break;
                }
            }
        }
        self.mailbox.open(&self.core);
    }

    /// Takes the next frame, as far as it may, and a snapshot, if one is due; whether it moved.
    pub(crate) fn turn(&mut self) -> Result<bool, Error> {
        let limit = self.limit();
        if self.core.position() >= limit {
            self.snapshot_if_asked();
            return Ok(false);
        }
        // SD4: in this order. A cut that made room for what was answered is seen with it.
        let cuts = self.shared.cuts.get();
        if self.is_within_frame || cuts != self.cuts {
            self.reader.seek(From::Position(self.core.position()))?;
            self.cuts = cuts;
        }
        let Some(frame) = self.reader.next_frame()? else {
            self.snapshot_if_asked();
            return Ok(false);
        };
        if let Some(verdicts) = &self.verdicts {
            // The primary has gone past all that this frame has in front of the limit.
            self.core.skip(&verdicts.quarantined());
        }
        let header = *frame.header();
        let end = Position(header.first_position + u64::from(header.count));
        let refuses = self.orders.refuses_panics;
        let ran = replay_frame(
            &frame,
            &mut self.core,
            &mut self.scratch,
            limit,
            refuses,
            &mut |_| (),
        );
        match ran {
            Ok(()) => {}
            Err(Broken::Failed(Error::Step(StepError::Marked { position })))
                if self.verdicts.is_some() =>
            {
                let here = self.core.position();
                self.pass_over(position, here)?;
            }
            Err(Broken::Failed(error)) => return Err(error),
            Err(Broken::Panicked { text, .. }) => {
                let position = self.core.position();
                if self.verdicts.is_some() || self.rebuild.is_none() {
                    return Err(Error::Stopped {
                        cause: format!("the logic panicked at position {position}: {text}"),
                    });
                }
                // The frame's rest is taken in the next turn.
                self.pass_over(position, Position(position.0 + 1))?;
            }
        }
        self.shared.shadow.set(self.core.position().0);
        self.is_within_frame = self.core.position() < end;
        if self.is_within_frame {
            return Ok(true);
        }
        self.behind = Tail {
            reached: self.reader.reached(),
            index: header.index,
            term: header.term,
            time_ns: header.time_ns,
            chain: header.header_crc(),
        };
        if self.is_due() {
            self.snapshot();
        }
        Ok(true)
    }

    /// Behind a snapshot there are seconds of events to take: it takes them slowly, unless it falls behind
    /// or somebody waits for a read.
    fn catch_breath(&mut self) {
        let before = self.lag();
        let has_time = self.leisure.has_time(before) && !self.mailbox.has_letters();
        if has_time && breathe_slowly(PAUSE_TIMES) {
            self.leisure.paused(before, self.lag());
        }
    }

    fn lag(&self) -> u64 {
        let durable = self.shared.durable.get();
        durable.saturating_sub(self.core.position().0)
    }

    /// What is durable, and where a quorum is asked no further than what was answered (`SD4`).
    fn limit(&self) -> Position {
        if self.orders.waits_for_quorum {
            Position(self.shared.answered.get())
        } else {
            Position(u64::MAX)
        }
    }

    fn snapshot_if_asked(&mut self) {
        // ORDERING: Relaxed, the request is the flag itself.
        if !self.is_within_frame && self.asked.snapshot.swap(false, Ordering::Relaxed) {
            self.snapshot();
        }
    }

    /// The state at `end` again, with this event passed over: the primary has, or the engine has stopped.
    fn pass_over(&mut self, position: Position, end: Position) -> Result<(), Error> {
        let mut skip = self.core.quarantined().clone();
        skip.insert(position.0);
        let core = match &mut self.rebuild {
            Some(rebuild) => rebuild(end, &skip)?,
            None => None,
        };
        self.core = core.ok_or_else(|| Error::Stopped {
            cause: format!("the log ends before position {end}"),
        })?;
        Ok(())
    }

    fn is_due(&self) -> bool {
        let every = self.orders.every;
        // A node of a cluster may begin in front of its newest snapshot: where it knows of a commit.
        every != 0 && self.core.position().0.saturating_sub(self.orders.newest) >= every
    }

    /// `SD2`
    fn snapshot(&mut self) {
        self.leisure = Leisure::default();
        let position = self.core.position();
        self.orders.newest = position.0;
        let watch = Stopwatch::start();
        match self.take() {
            Ok(bytes) => {
                self.shared.snapshot.set(position.0);
                self.orders.bell.ring();
                let took_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(position = position.0, bytes, took_ms, "snapshot taken");
            }
            Err(SnapshotError::Exists { .. }) => {}
            Err(error) => {
                tracing::error!(position = position.0, %error, "no snapshot was taken");
                // On a full disk its parts have room that the journal wants. What cannot be removed now,
                // the next taker tries again.
                if let Err(error) = Snapshots::new(self.orders.storage.clone()).sweep() {
                    tracing::warn!(%error, "what there is of it stays for now");
                }
            }
        }
    }

    /// Writes the state of a frame's end (`SD1`).
    fn take(&self) -> Result<u64, SnapshotError> {
        let snapshots = Snapshots::new(self.orders.storage.clone());
        let mut writer = snapshots.create(self.of())?;
        let mut outcome = Ok(());
        let mut bytes = 0;
        {
            let mut sink = |run: &[u8]| {
                bytes += run.len() as u64;
                if outcome.is_ok() {
                    outcome = writer.write(run);
                }
            };
            self.core.save(&mut StateWriter::new(&mut sink));
        }
        outcome?;
        writer.finish(self.core.state_hash())?;
        Ok(bytes)
    }

    fn of(&self) -> SnapshotOf {
        SnapshotOf {
            log: self.orders.log,
            reached: self.behind.reached,
            index: self.behind.index,
            term: Term(self.behind.term),
            chain: self.behind.chain,
            time_ns: self.behind.time_ns,
            schema_version: self.orders.schema_version,
            schema_hash: self.orders.schema_hash,
            build: concat!("lockstep ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Leisure;

    #[test]
    fn pauses_make_the_way_twice_as_long_at_most() {
        // Ten events are taken in the time in which so many come; a pause is of three such times.
        for coming in 0..10 {
            let mut leisure = Leisure::default();
            let (mut lag, mut turns, mut pauses) = (100_000_u64, 0, 0);
            let without = lag / (10 - coming);
            while lag > 10 {
                lag = lag - 10 + coming;
                if leisure.has_time(lag) {
                    leisure.paused(lag, lag + 3 * coming);
                    lag += 3 * coming;
                    pauses += 1;
                }
                turns += 1;
                assert!(turns <= 2 * without + 100, "{lag} behind, {coming} coming");
            }
            assert!(pauses > turns / 100, "{coming}: {pauses} in {turns} turns");
        }
    }
}

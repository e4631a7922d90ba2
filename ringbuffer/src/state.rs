//! Whether a pipeline runs, is poisoned, or was halted: one word that everybody reads,
//! and the faults behind it.
//!
//! # Invariants
//!
//! * `P1` The phase only rises: running, closing, poisoned, halted.
//! * `P2` Who sees `Poisoned` finds the first fault in the list.
//! * `P3` Whoever changes the phase wakes every sleeper of the pipeline.

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use crate::cursor::Sequence;
use crate::error::{ClaimError, Fault, FaultKind};
use crate::orderings::{OWN, state_get, state_set};
use crate::sync::{Arc, AtomicU32, Mutex, lock};
use crate::wake::{WakeList, WakeSlot};

/// The faults that are kept with their text; more are counted only.
const FAULTS_KEPT_MAX: usize = 64;

/// Of a fault's text so many bytes are kept: enough for a sentence, and no stage can fill memory with it.
const TEXT_BYTES_MAX: usize = 1024;

/// Where a pipeline is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running = 0,
    /// The last producer is gone: runners end when everything is done.
    Closing = 1,
    Poisoned = 2,
    Halted = 3,
}

/// Shared by every handle of a pipeline. Written seldom, so that reading it each turn
/// hits a line that every core has.
#[derive(Debug)]
pub(crate) struct State {
    phase: CachePadded<AtomicU32>,
    faults: Mutex<FaultList>,
    /// Every thread of this pipeline that may park; known once it is built.
    sleepers: OnceLock<Box<[Arc<WakeSlot>]>>,
    /// The names of the stages, in the order of their numbers.
    names: OnceLock<Box<[Arc<str>]>>,
}

#[derive(Debug, Default)]
struct FaultList {
    kept: Vec<Fault>,
    /// The one that poisoned the pipeline.
    first: Option<Arc<Fault>>,
    total: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            phase: CachePadded::new(AtomicU32::new(Phase::Running as u32)),
            faults: Mutex::new(FaultList::default()),
            sleepers: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    /// Called once, by `build`.
    pub(crate) fn set_up(&self, names: Vec<Arc<str>>, sleepers: Vec<Arc<WakeSlot>>) {
        let _first = self.names.set(names.into_boxed_slice());
        let _first = self.sleepers.set(sleepers.into_boxed_slice());
    }

    pub(crate) fn name(&self, stage: usize) -> Arc<str> {
        let names = self.names.get();
        names.map_or_else(|| Arc::from("?"), |names| Arc::clone(&names[stage]))
    }

    #[inline(always)]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(state_get()) {
            0 => Phase::Running,
            1 => Phase::Closing,
            2 => Phase::Poisoned,
            _ => Phase::Halted,
        }
    }

    /// Whether nothing has gone wrong or been called off.
    pub(crate) fn is_live(&self) -> bool {
        self.phase() < Phase::Poisoned
    }

    /// Whether the pipeline runs: one load of a line that seldom changes.
    #[inline(always)]
    pub(crate) fn is_running(&self) -> bool {
        // ORDERING: Relaxed, a hint; who acts on it asks `phase`.
        self.phase.load(OWN) == Phase::Running as u32
    }

    /// Stops the pipeline at the place of the fault.
    pub(crate) fn poison(&self, stage: usize, at: u64, kind: FaultKind, text: String) {
        let fault = self.fault(stage, at, kind, text);
        let mut faults = lock(&self.faults);
        if self.is_live() {
            faults.first = Some(Arc::new(fault.clone()));
        }
        faults.keep(fault);
        self.raise(Phase::Poisoned);
        drop(faults);
        self.wake_everybody();
    }

    /// Records a fault that the stage's policy lives with.
    pub(crate) fn record(&self, stage: usize, at: u64, kind: FaultKind, text: String) {
        let fault = self.fault(stage, at, kind, text);
        lock(&self.faults).keep(fault);
    }

    /// Ends every runner after its turn.
    pub(crate) fn halt(&self) {
        self.rise_and_wake(Phase::Halted);
    }

    /// Nothing more will be published.
    pub(crate) fn close(&self) {
        self.rise_and_wake(Phase::Closing);
    }

    fn rise_and_wake(&self, to: Phase) {
        let faults = lock(&self.faults);
        self.raise(to);
        drop(faults);
        self.wake_everybody();
    }

    /// P1.
    fn raise(&self, to: Phase) {
        self.phase.fetch_max(to as u32, state_set());
    }

    pub(crate) fn wake_everybody(&self) {
        if let Some(sleepers) = self.sleepers.get() {
            WakeList::signal_seldom(sleepers);
        }
    }

    /// The faults so far, oldest first (the first 64 of them), and how many there were.
    pub(crate) fn faults(&self) -> (Vec<Fault>, u64) {
        let faults = lock(&self.faults);
        (faults.kept.clone(), faults.total)
    }

    /// What a producer is told once the pipeline does not run; `None` while it does. A
    /// fault that came before a halt is what it wants to know.
    pub(crate) fn refusal(&self) -> Option<ClaimError> {
        if self.is_live() {
            return None;
        }
        let faults = lock(&self.faults);
        Some(match &faults.first {
            None => ClaimError::Halted,
            Some(first) => ClaimError::Poisoned {
                fault: Arc::clone(first),
            },
        })
    }

    fn fault(&self, stage: usize, at: u64, kind: FaultKind, mut text: String) -> Fault {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        // Ends: a letter has four bytes at most.
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Fault {
            stage: self.name(stage),
            at: Sequence(at),
            kind,
            text,
        }
    }
}

impl FaultList {
    fn keep(&mut self, fault: Fault) {
        self.total += 1;
        if self.kept.len() < FAULTS_KEPT_MAX {
            self.kept.push(fault);
        }
    }
}

/// The message of a panic, where it is text.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn state() -> State {
        let state = State::new();
        state.set_up(vec![Arc::from("a"), Arc::from("b")], Vec::new());
        state
    }

    #[test]
    fn the_first_fault_poisons_and_later_ones_are_kept() {
        let state = state();
        assert_eq!(state.refusal(), None);
        state.poison(1, 7, FaultKind::Panic, "first".into());
        state.poison(0, 3, FaultKind::Error, "second".into());
        let fault = Arc::new(Fault {
            stage: Arc::from("b"),
            at: Sequence(7),
            kind: FaultKind::Panic,
            text: "first".into(),
        });
        let poisoned = ClaimError::Poisoned { fault };
        assert_eq!(state.refusal(), Some(poisoned));
        assert_eq!(state.faults().1, 2);
    }

    #[test]
    fn a_long_text_is_cut_between_two_letters() {
        let state = state();
        state.poison(0, 1, FaultKind::Error, format!("a{}", "ä".repeat(4096)));
        let text = &state.faults().0[0].text;
        assert_eq!(text.len(), TEXT_BYTES_MAX - 1);
        assert!(text.starts_with('a') && text.ends_with('ä'));
    }

    #[test]
    fn a_halt_outranks_poison_and_stays() {
        let state = state();
        state.halt();
        state.poison(0, 1, FaultKind::Panic, "late".into());
        assert_eq!((state.phase(), state.is_running()), (Phase::Halted, false));
        assert_eq!(state.refusal(), Some(ClaimError::Halted));
    }

    #[test]
    fn a_fault_before_a_halt_is_still_told_to_producers() {
        let state = state();
        state.poison(1, 7, FaultKind::Panic, "first".into());
        state.halt();
        assert_eq!(state.phase(), Phase::Halted);
        assert!(matches!(state.refusal(), Some(ClaimError::Poisoned { .. })));
    }

    #[test]
    fn faults_beyond_the_limit_are_counted() {
        let state = state();
        for at in 0..100 {
            state.record(0, at, FaultKind::Skipped, String::new());
        }
        let (kept, total) = state.faults();
        assert_eq!((kept.len(), total), (FAULTS_KEPT_MAX, 100));
        assert_eq!(state.phase(), Phase::Running);
    }

    #[test]
    fn panics_of_both_kinds_of_text_are_told() {
        assert_eq!(panic_text(&"static"), "static");
        assert_eq!(panic_text(&String::from("owned")), "owned");
        assert_eq!(panic_text(&7_u8), "a panic without a message");
    }
}

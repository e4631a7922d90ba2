//! Who asked for which event, and what came of it.
//!
//! ```text
//!   asked: token at position ─► … ring, quorum, logic, egress … ─► outputs, answered
//!                                                                      │ matched by position
//!                                                                      └► output(token, …), done(token, …)
//! ```
//!
//! # Invariants
//!
//! * `AN1` Everybody who was let in at the door hears one of `done`, `not_led` and `unknown`, once.
//! * `AN2` `done` comes behind all outputs of the event.
//! * `AN3` `not_led` is only said of events that were never offered: they are in no log, for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use lockstep_journaler::Position;

use crate::event::{Body, Slot};
use crate::shared::{Found, Shared};
use crate::stage::egress::Subscription;
use crate::system::{Repeated, code};

/// What came of an event that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Its position.
    pub position: Position,
    /// 0 is accepted; else the logic's code, or one of [`code`]. For a request that was answered
    /// before it is the code of the first answer.
    pub code: u16,
    /// Where the request was applied, if that was before.
    pub first: Option<Position>,
}

/// Who hears of the events that they asked for. The token is what they gave at the door.
pub trait Asker<O> {
    /// An output of the event.
    fn output(&mut self, token: u64, output: &O);

    /// The event is durable here, committed by the quorum, applied; this came of it.
    fn done(&mut self, token: u64, done: Done);

    /// The event is in no log: this node does not lead any more. Ask who does.
    fn not_led(&mut self, token: u64);

    /// The event was sent to others before this node ceased to lead: it may be applied or not. Ask who
    /// leads, with the same session and request.
    fn unknown(&mut self, token: u64);
}

/// Who asked for the event at this position. Where nobody else publishes they lie side by side, and the
/// first look finds it.
fn find(pending: &mut VecDeque<Pending>, position: u64) -> Option<&mut Pending> {
    let ahead = position.checked_sub(pending.front()?.position)?;
    let near = usize::try_from(ahead).unwrap_or(usize::MAX);
    let is_there = |at: usize| pending.get(at).is_some_and(|one| one.position == position);
    let at = if is_there(near) {
        near
    } else {
        pending.partition_point(|one| one.position < position)
    };
    pending.get_mut(at).filter(|one| one.position == position)
}

#[derive(Debug)]
struct Pending {
    position: u64,
    token: u64,
    /// Where and how the request was answered before.
    first: Option<(u64, u16)>,
}

/// See the module.
pub(crate) struct Answers<O: Slot> {
    /// By position.
    pending: VecDeque<Pending>,
    outputs: Subscription<O>,
    shared: Arc<Shared>,
    /// Everything answered before it was told.
    told: u64,
}

impl<O: Slot> std::fmt::Debug for Answers<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl<O: Slot> Answers<O> {
    pub(crate) fn new(outputs: Subscription<O>, shared: Arc<Shared>) -> Self {
        Self {
            pending: VecDeque::new(),
            outputs,
            shared,
            told: 0,
        }
    }

    /// An event was let in at this position.
    pub(crate) fn expect(&mut self, position: Position, token: u64) {
        self.pending.push_back(Pending {
            position: position.0,
            token,
            first: None,
        });
    }

    /// Whoever waits for answers sleeps from here on, and is woken by the next one; whether there is one
    /// already. With nobody who waits there is nothing to be woken for.
    pub(crate) fn set_alarm(&self) -> bool {
        !self.pending.is_empty() && self.shared.set_alarm(self.told)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Tells of everything that came since; whether there was anything.
    pub(crate) fn tell(&mut self, asker: &mut impl Asker<O>) -> bool {
        // AN2: first how far, then the outputs, which left before it went so far.
        let answered = self.shared.answered.get();
        let pending = &mut self.pending;
        let drained = self.outputs.drain(|batch| {
            for output in batch {
                let header = output.output();
                let Some(one) = find(pending, header.position) else {
                    continue;
                };
                if header.kind == Repeated::KIND {
                    let repeated = output.body_as::<Repeated>();
                    one.first = Some((repeated.first, repeated.code));
                }
                asker.output(one.token, output);
            }
        });
        self.told = answered;
        let mut told = false;
        while let Some(one) = self.pending.front().filter(|one| one.position < answered) {
            asker.done(one.token, self.done(one));
            self.pending.pop_front();
            told = true;
        }
        told || drained != 0
    }

    fn done(&self, one: &Pending) -> Done {
        let position = Position(one.position);
        let found = match self.shared.outcome(one.position) {
            Found::Code(code) => code,
            // SH2: as many events as four rings hold came since the last turn: it cannot be.
            Found::Gone => code::REPEATED,
        };
        match one.first {
            Some((first, code)) => Done {
                position,
                code,
                first: Some(Position(first)),
            },
            None => Done {
                position,
                code: found,
                first: None,
            },
        }
    }

    /// The ring has ended; what lies at or behind `offered` was never offered (`AN3`).
    pub(crate) fn end(&mut self, offered: Position, asker: &mut impl Asker<O>) {
        self.tell(asker);
        for one in self.pending.drain(..) {
            if one.position < offered.0 {
                asker.unknown(one.token);
            } else {
                asker.not_led(one.token);
            }
        }
    }
}

//! What an engine shows, whoever drives it: how far it is, its state, its outputs.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use lockstep_journaler::Position;

use super::recovery::Recovery;
use crate::core::Core;
use crate::error::Result;
use crate::logic::{Logic, OutputOf};
use crate::mailbox::Mailbox;
use crate::requests::Reply;
use crate::shared::Shared;
use crate::source::stopped;
use crate::stage::egress::{Desk, Slow, Subscription};

/// See the module.
pub(crate) struct Face<L: Logic> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: Arc<Desk<OutputOf<L>>>,
    /// Where looks at the state go.
    pub(crate) mailbox: Arc<Mailbox<L>>,
    pub(crate) recovery: Recovery,
}

impl<L: Logic> Face<L> {
    /// Everything before it is answered.
    pub(crate) fn answered(&self) -> Position {
        Position(self.shared.answered.get())
    }

    /// Everything before it is in the state.
    pub(crate) fn applied(&self) -> Position {
        Position(self.shared.applied.get())
    }

    /// The position of the newest snapshot; 0 before the first.
    pub(crate) fn newest_snapshot(&self) -> Position {
        Position(self.shared.snapshot.get())
    }

    /// Why it stopped, if it did.
    pub(crate) fn fault(&self) -> Option<String> {
        self.shared.fault().map(str::to_owned)
    }

    pub(crate) fn subscribe(
        &self,
        name: &str,
        slow: Slow,
        slots: usize,
    ) -> Result<Subscription<OutputOf<L>>> {
        Ok(self.desk.subscribe(name, slow, slots)?)
    }

    /// Asks for a look at the state, once everything before `position` is in it.
    pub(crate) fn look<R: Send + 'static>(
        &self,
        position: Position,
        look: impl FnOnce(&Core<L>) -> R + Send + 'static,
    ) -> Result<Receiver<R>> {
        let sent = self.mailbox.send(position.0, look);
        sent.ok_or_else(|| stopped(&self.shared))
    }
}

/// A look at what the application keeps.
pub(crate) fn state<L: Logic, R>(
    look: impl FnOnce(&L) -> R + Send,
) -> impl FnOnce(&Core<L>) -> (Position, R) + Send {
    move |core| (core.position(), look(core.logic()))
}

/// A look at the hash of the whole state.
pub(crate) fn state_hash<L: Logic>(core: &Core<L>) -> (Position, u64) {
    (core.position(), core.state_hash())
}

/// A look at the kept reply to a client's request.
pub(crate) fn reply<L: Logic>(
    session: u64,
    request: u32,
) -> impl FnOnce(&Core<L>) -> Option<Reply> + Send {
    move |core| core.requests().reply(session, request)
}

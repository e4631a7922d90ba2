//! A node that was started without a logic, and how it gets one.
//!
//! ```text
//!   asleep ──activate──► recovering ──a state──► catching up ──close behind the commit──► as any other
//!     ▲                      │
//!     └── none can be made ──┘
//! ```
//!
//! Asleep it is a replica and nothing else: it checks, journals, acknowledges and votes. It has no ring,
//! no logic, no shadow and no outputs, takes no snapshot, and gives up nothing of its log: without a state
//! there is nothing that could stand in its place.
//!
//! # Invariants
//!
//! * `PA1` Without a logic it opens no door. Where it is elected all the same (`PV2`) it hands over as soon
//!   as a voter with a logic has what is committed.
//! * `PA2` The state is made of what is committed and durable here, on a thread of its own: meanwhile the
//!   node acknowledges and votes as before. Where no state can be made it goes on as it was, and says why.
//! * `PA3` It counts as passive until its logic is close behind the commit, or stands at an event (`QU`).

use std::mem;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use lockstep_journaler::storage::Storage;

use super::node::ClusterNode;
use super::opening::{Recovered, Ways};
use super::shadowing::behind;
use crate::error::{Error, Result};
use crate::logic::Logic;

/// See the module.
pub(super) enum Passive<L: Logic, S: Storage> {
    /// It has a logic, or has failed.
    Not,
    Asleep {
        ways: Box<Ways<L, S>>,
        /// Why it could not be made active when that was tried.
        failed: Option<String>,
    },
    Recovering {
        ways: Box<Ways<L, S>>,
        state: Receiver<Result<Recovered<L>>>,
    },
    /// It has a logic, which may be far behind.
    CatchingUp {
        /// So many events behind is close: they fit into the ring.
        within: u64,
    },
}

impl<L: Logic, S: Storage> Passive<L, S> {
    pub(super) fn asleep(ways: Ways<L, S>) -> Self {
        Self::Asleep {
            ways: Box::new(ways),
            failed: None,
        }
    }

    pub(super) fn has_no_logic(&self) -> bool {
        matches!(self, Self::Asleep { .. } | Self::Recovering { .. })
    }
}

impl<L: Logic, S: Storage> ClusterNode<L, S> {
    /// Whether it counts as passive: it has no logic, or one that is far behind.
    #[must_use]
    pub fn is_passive(&self) -> bool {
        self.replica.is_passive()
    }

    /// Whether it has no logic, and nobody has asked for one.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        matches!(self.passive, Passive::Asleep { .. })
    }

    /// Whether it has a logic.
    pub(crate) fn has_logic(&self) -> bool {
        !self.passive.has_no_logic()
    }

    /// How far it is on its way to a logic, in words; `None` where it is not.
    pub(crate) fn activation(&self) -> Option<&'static str> {
        match &self.passive {
            Passive::Not | Passive::Asleep { .. } => None,
            Passive::Recovering { .. } => Some("recovering"),
            Passive::CatchingUp { .. } => Some("catching up"),
        }
    }

    /// Why it could not be made active when that was tried last.
    pub(crate) fn activation_failed(&self) -> Option<&str> {
        match &self.passive {
            Passive::Asleep { failed, .. } => failed.as_deref(),
            _ => None,
        }
    }

    /// A passive node gets a logic, and may lead once that is close behind the log: with turns.
    ///
    /// # Errors
    ///
    /// It is not passive, or on its way already.
    pub fn activate(&mut self) -> Result<()> {
        self.check_asleep()?;
        let Passive::Asleep { ways, .. } = mem::replace(&mut self.passive, Passive::Not) else {
            return Ok(());
        };
        // PA2
        let until = self.replica.committed().min(self.replica.durable());
        let end = behind(&self.replica, until);
        tracing::info!(until = until.0, "this node is made active");
        let (made, state) = sync_channel(1);
        let begun = ways.recovery(self, until, end).and_then(|recover| {
            let make = move || {
                // The node may have ended meanwhile.
                let _gone = made.send(recover());
            };
            if self.is_stepped {
                make();
                return Ok(());
            }
            let thread = std::thread::Builder::new().name("recovery".to_owned());
            let started = thread.spawn(make);
            started.map(drop).map_err(|source| Error::Beside {
                what: "the thread that makes the state",
                source,
            })
        });
        self.passive = match begun {
            Ok(()) => Passive::Recovering { ways, state },
            Err(error) => not_made(ways, &error.to_string()),
        };
        Ok(())
    }

    /// Whether it may be made active.
    pub(crate) fn check_asleep(&self) -> Result<()> {
        let why = match self.passive {
            Passive::Asleep { .. } => return Ok(()),
            Passive::Recovering { .. } | Passive::CatchingUp { .. } => {
                "that is under way, `cluster status` says how far it is"
            }
            Passive::Not => "it is active already",
        };
        let node = self.replica.options().node;
        Err(Error::NotPassive { node, why })
    }

    /// Whether there is a state to look at.
    pub(super) fn check_has_logic(&self) -> Result<()> {
        let node = self.replica.options().node;
        if self.has_logic() {
            Ok(())
        } else {
            Err(Error::Passive { node })
        }
    }

    /// The third part of a turn, without a ring; whether there is more to do.
    pub(super) fn follow_without_logic(&mut self) -> Result<bool> {
        // PA1
        let _heir = self.hand_over();
        if self.is_stepped {
            self.replica.step_background();
        }
        let has_woken = self.wake()?;
        Ok(has_woken | self.replica.has_more())
    }

    /// Takes the state, if it is made; whether it is.
    fn wake(&mut self) -> Result<bool> {
        let Passive::Recovering { state, .. } = &self.passive else {
            return Ok(false);
        };
        let state = match state.try_recv() {
            Err(TryRecvError::Empty) => return Ok(false),
            Ok(state) => state.map_err(|error| error.to_string()),
            Err(TryRecvError::Disconnected) => {
                Err("the thread that made the state panicked".to_owned())
            }
        };
        let Passive::Recovering { ways, .. } = mem::replace(&mut self.passive, Passive::Not) else {
            return Ok(false);
        };
        match state {
            Ok(state) => {
                let within = ways.options.config.slots as u64;
                self.take_logic(*ways, state)?;
                self.passive = Passive::CatchingUp { within };
            }
            Err(why) => self.passive = not_made(ways, &why),
        }
        Ok(true)
    }

    /// `PA3`
    pub(super) fn look_whether_close(&mut self) {
        let Passive::CatchingUp { within } = self.passive else {
            return;
        };
        let committed = self.replica.committed().0;
        let is_close = self.applied().0 + within >= committed;
        if is_close || self.verdicts.standing().is_some() {
            self.passive = Passive::Not;
            self.replica.be_passive(false);
            tracing::info!(
                applied = self.applied().0,
                committed,
                "this node is active: it may lead"
            );
        }
    }
}

/// `PA2`
fn not_made<L: Logic, S: Storage>(ways: Box<Ways<L, S>>, why: &str) -> Passive<L, S> {
    tracing::error!(why, "this node stays passive: its state cannot be made");
    Passive::Asleep {
        ways,
        failed: Some(why.to_owned()),
    }
}

//! A snapshot of the leader, piece by piece, for a node that lags behind the beginning of its log.
//!
//! Nothing of the node changes while it fetches: it lags, votes and answers as before. When all is here
//! and checked, its log begins anew behind the snapshot, in one write, and the node is opened again as
//! behind a crash (`FE1`).
//!
//! # Invariants
//!
//! * `FE1` The log begins anew only behind a snapshot that is whole, checked against its manifest, of
//!   this log, and ahead of everything that is known committed here.
//! * `FE2` A turn does a bounded piece of the work: who fetches still answers its leader.

use lockstep_journaler::snapshots::{Manifest, SnapshotError, SnapshotReceiver, Snapshots};
use lockstep_journaler::storage::Storage;

use super::lending::{PIECE_BYTES, read_about};
use crate::ids::NodeId;
use crate::members::Members;
use crate::wire::{Body, Head, Kind, Message};

/// Pieces that are asked for ahead.
const AHEAD: u64 = 8;

/// Ticks without a piece until it is asked for again, and in which a leader hears that we are at it.
const AGAIN_TICKS: u64 = 10;

/// Ticks without a piece until another offer is taken instead.
const STALE_TICKS: u64 = 30;

/// Frames of 256 KiB that are checked in a turn (`FE2`).
const FRAMES_CHECKED: usize = 8;

/// See the module.
pub(super) struct Fetching<S: Storage> {
    pub(super) from: NodeId,
    pub(super) index: u64,
    /// Of the snapshot's last frame.
    pub(super) log_term: u64,
    /// Of the leader that offered it.
    pub(super) term: u64,
    state: State<S>,
    /// The tick of the last piece, and of the last word of ours.
    heard: u64,
    said: Option<u64>,
    piece_bytes: u64,
}

enum State<S: Storage> {
    /// What it is.
    About,
    /// Its parts: everything before `at` of `part` is here, before `asked` is asked for.
    Parts {
        receiver: SnapshotReceiver<S>,
        members: Members,
        part: usize,
        at: u64,
        asked: u64,
    },
    /// All of it is here, and looked at.
    Checking {
        receiver: SnapshotReceiver<S>,
        members: Members,
    },
    /// It is whole.
    Whole {
        manifest: Manifest,
        members: Members,
    },
}

impl<S: Storage> Fetching<S> {
    /// Begins with what a leader offers.
    pub(super) fn new(offer: &Head, bytes_max: usize, ticks: u64) -> Self {
        Fetching {
            from: offer.from,
            index: offer.index,
            log_term: offer.log_term,
            term: offer.term,
            state: State::About,
            heard: ticks,
            said: None,
            piece_bytes: PIECE_BYTES.min(bytes_max as u64),
        }
    }

    /// Whether it makes no progress.
    pub(super) fn is_stale(&self, ticks: u64) -> bool {
        let is_waiting = matches!(self.state, State::About | State::Parts { .. });
        is_waiting && ticks > self.heard + STALE_TICKS
    }

    /// What is to be said to the one that is asked.
    pub(super) fn say(&mut self, ticks: u64) -> Vec<Head> {
        let is_late = self.said.is_none_or(|said| ticks >= said + AGAIN_TICKS);
        let fetch = |part: u64, a: u64, b: u64| Head {
            index: self.index,
            log_term: self.log_term,
            commit: part,
            a,
            b,
            ..Head::new(Kind::Fetch, self.from)
        };
        let mut heads = Vec::new();
        match &mut self.state {
            State::About if is_late => heads.push(fetch(0, 0, self.piece_bytes)),
            State::Parts {
                receiver,
                part,
                at,
                asked,
                ..
            } => {
                if is_late {
                    *asked = *at;
                }
                let rows = &receiver.manifest().parts;
                let length = rows.get(*part).map_or(0, |row| row.stored_bytes);
                let limit = length.min(*at + AHEAD * self.piece_bytes);
                // Ends: each turn asks for a piece more.
                while *asked < limit {
                    heads.push(fetch(*part as u64 + 1, *asked, self.piece_bytes));
                    *asked += self.piece_bytes;
                }
            }
            // Only so that it is known that we are at it.
            State::Checking { .. } if is_late => heads.push(fetch(0, 0, 0)),
            State::About | State::Checking { .. } | State::Whole { .. } => {}
        }
        if !heads.is_empty() {
            self.said = Some(ticks);
        }
        heads
    }

    /// Takes a piece; one that is not the next is passed over, and asked for again.
    pub(super) fn take(
        mut self,
        piece: &Message,
        storage: &S,
        ticks: u64,
    ) -> Result<Self, SnapshotError> {
        let (head, Body::Bytes(bytes)) = (&piece.head, &piece.body) else {
            return Ok(self);
        };
        if (head.from, head.index) != (self.from, self.index) {
            return Ok(self);
        }
        match &mut self.state {
            State::About if head.commit == 0 => {
                let damaged = || SnapshotError::Damaged {
                    name: "what was received".to_owned(),
                    what: "its members and its manifest do not hold".to_owned(),
                };
                let (members, manifest) = read_about(bytes).ok_or_else(damaged)?;
                let receiver = Snapshots::new(storage.clone()).receive(manifest)?;
                let own = receiver.manifest();
                let is_offered = (own.index, own.term.0, own.reached.frames)
                    == (self.index, self.log_term, self.index);
                if !is_offered {
                    return Err(damaged());
                }
                self.state = State::Parts {
                    receiver,
                    members,
                    part: 0,
                    at: 0,
                    asked: 0,
                };
            }
            State::Parts {
                receiver,
                part,
                at,
                asked,
                ..
            } if head.commit == *part as u64 + 1 && head.a == *at => {
                receiver.write(*part, bytes, *at)?;
                *at += bytes.len() as u64;
                *asked = (*asked).max(*at);
                let rows = &receiver.manifest().parts;
                if rows.get(*part).is_none_or(|row| row.stored_bytes <= *at) {
                    (*part, *at, *asked) = (*part + 1, 0, 0);
                }
            }
            _ => return Ok(self),
        }
        (self.heard, self.said) = (ticks, Some(ticks));
        self.state = match self.state {
            State::Parts {
                receiver,
                members,
                part,
                ..
            } if part >= receiver.manifest().parts.len() => State::Checking { receiver, members },
            other => other,
        };
        Ok(self)
    }

    /// Looks at some of what came (`FE2`).
    pub(super) fn check(mut self, believes: bool) -> Result<Self, SnapshotError> {
        let State::Checking {
            mut receiver,
            members,
        } = self.state
        else {
            return Ok(self);
        };
        let mut is_done = believes;
        for _ in 0..FRAMES_CHECKED {
            is_done = is_done || !receiver.check_next()?;
        }
        self.state = if is_done {
            let manifest = receiver.finish_unchecked()?;
            State::Whole { manifest, members }
        } else {
            State::Checking { receiver, members }
        };
        Ok(self)
    }

    /// Whether turns are to go on without waiting for a message.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(self.state, State::Checking { .. } | State::Whole { .. })
    }

    /// The snapshot, once it is whole.
    pub(super) fn whole(&self) -> Option<(&Manifest, &Members)> {
        match &self.state {
            State::Whole { manifest, members } => Some((manifest, members)),
            State::About | State::Parts { .. } | State::Checking { .. } => None,
        }
    }
}

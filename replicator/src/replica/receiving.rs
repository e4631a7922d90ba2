//! What comes from peers: greetings and messages, compared with our log before they are believed.

use lockstep_journaler::storage::Storage;

use super::{Beacon, Fatal, Mutation, ReceiveError, Replica};
use crate::consensus::StepError;
use crate::policy::Policy;
use crate::wire::{Head, Kind, Message, SharedFrame};

impl<S: Storage> Replica<S> {
    /// What a hello says of our log.
    #[must_use]
    pub fn hello(&self) -> Head {
        let view = self.consensus.view();
        Head {
            epoch: self.options.epoch,
            term: view.term,
            index: view.last,
            log_term: self.consensus.index().term_at(view.last).unwrap_or(0),
            commit: view.committed,
            a: self.founders_said(),
            // PV1: builds from before this do not look at it.
            b: u64::from(self.is_passive),
            ..Head::new(Kind::Hello, self.options.node)
        }
    }

    /// A number of the founders, with whom the log begins: whoever begins with others counts other majorities.
    /// 0, nothing is said, once the members are not those any more: then the log says who they are.
    fn founders_said(&self) -> u64 {
        let founders = &self.notes.founders;
        if self.members() != founders {
            return 0;
        }
        let mut bytes = Vec::new();
        founders.encode(&mut bytes);
        1 << 32 | u64::from(crc32c::crc32c(&bytes))
    }

    /// Judges the hello of a peer, on its *log* connection: there its acknowledgements were given too,
    /// in order. What it rightly has no longer is forgotten here too, and sent again.
    ///
    /// What a node acknowledged to this leader may be gone for two reasons that are no loss:
    ///
    /// * on a memory policy its machine lost power;
    /// * it has heard of a higher term, whose leader may have put other frames in the place of what was
    ///   not committed. What is committed no leader shortens.
    ///
    /// # Errors
    ///
    /// [`StepError::Lost`]: it lost what it had acknowledged, and
    /// takes no part under its old id (`R6`).
    pub fn judge(&mut self, hello: &Head) -> Result<(), StepError> {
        if self.is_barred {
            self.greeted.insert(hello.from, hello.index);
        }
        let known = self
            .consensus
            .peers()
            .find(|peer| peer.node == hello.from)
            .map_or(0, |peer| peer.matched);
        let view = self.consensus.view();
        let must_have = match self.options.policy {
            Policy::Disks if hello.term > view.term => known.min(view.committed),
            Policy::Disks => known,
            Policy::DiskAndMemory | Policy::Memory => 0,
        };
        if must_have > hello.index {
            return Err(StepError::Lost {
                from: self.options.node,
                acknowledged: must_have,
                last: hello.index,
            });
        }
        self.consensus.forget_acknowledged(hello.from, hello.index);
        self.hear_passive(hello.from, hello.b & 1 == 1);
        Ok(())
    }

    /// Takes a message of a peer. Its frames are whole (`W2`); here they are compared with our log.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]: fatal, or to be told to whoever is connected.
    pub fn receive(&mut self, message: &Message) -> Result<(), ReceiveError> {
        self.check_alive()?;
        let head = &message.head;
        if head.epoch != self.options.epoch {
            return Err(ReceiveError::Epoch {
                from: head.from,
                expected: self.options.epoch,
                found: head.epoch,
            });
        }
        if head.kind == Kind::Beacon {
            let beacon = Beacon {
                position: head.a,
                hash: head.b,
            };
            return Ok(self.hear_beacon(head.from, beacon)?);
        }
        if head.kind == Kind::Panic {
            let word = Beacon {
                position: head.a,
                hash: head.b,
            };
            return Ok(self.hear_of_panic(head.from, word)?);
        }
        match head.kind {
            Kind::Fetch => {
                self.lending.ask(*head);
                return Ok(());
            }
            Kind::Piece => {
                self.take_piece(message);
                return Ok(());
            }
            Kind::Snapshot => return self.hear_of_snapshot(head),
            _ => {}
        }
        let asks_for_vote = matches!(
            head.kind,
            Kind::Vote | Kind::VoteInTransfer | Kind::PreVote | Kind::TimeoutNow
        );
        if self.is_barred && asks_for_vote {
            return Err(ReceiveError::Barred);
        }
        // PV1
        if self.is_passive && head.kind == Kind::TimeoutNow {
            return Err(ReceiveError::Passive { from: head.from });
        }
        self.check_chain(message)?;
        self.log.arrived.clear();
        self.log.arrived.extend_from_slice(message.frames());
        let headers = message.frames().iter().map(SharedFrame::header);
        if let Err(error) = self.consensus.step(head, headers) {
            self.log.arrived.clear();
            return Err(match error {
                // In memory it may have been forgotten; the greeting tells the leader how far we are.
                lost @ StepError::Lost { .. } if self.options.policy == Policy::Disks => {
                    self.has_failed = true;
                    Fatal::Lost(lost).into()
                }
                other => ReceiveError::Step(other),
            });
        }
        self.counters.received += 1;
        self.drain()?;
        Ok(self.lift_bar()?)
    }

    /// `LG3`, for the first frame; the decoder has compared the others.
    fn check_chain(&self, message: &Message) -> Result<(), ReceiveError> {
        let Some(first) = message.frames().first() else {
            return Ok(());
        };
        let head = &message.head;
        let index = self.consensus.index();
        let is_same = index.term_at(head.index) == Some(head.log_term);
        let (Some(expected), true) = (index.chain_at(head.index), is_same) else {
            return Ok(());
        };
        let found = first.header().chain;
        if found != expected && self.options.mutation != Some(Mutation::NoChain) {
            return Err(ReceiveError::Diverged {
                from: head.from,
                index: head.index,
                expected,
                found,
            });
        }
        Ok(())
    }

    /// A leader has brought this node up to date: everything that its log had when it greeted us after
    /// our start is committed and here, with an entry of its own term. Whatever we may have acknowledged
    /// and forgotten was among it, or was never committed.
    fn lift_bar(&mut self) -> Result<(), Fatal> {
        let view = self.consensus.view();
        let of_now = self.consensus.index().term_at(view.committed) == Some(view.term);
        let has_greeted = view.leader.is_some_and(|leader| {
            let greeted = self.greeted.get(&leader);
            greeted.is_some_and(|&last| view.committed >= last)
        });
        if self.is_barred && of_now && has_greeted {
            self.is_barred = false;
            self.consensus.may_campaign(true);
            return self.remember_boot();
        }
        Ok(())
    }

    /// From here on a process that ends under this start of the machine has forgotten nothing.
    pub(super) fn remember_boot(&mut self) -> Result<(), Fatal> {
        if self.options.policy == Policy::Disks || self.notes.boot == self.options.boot {
            return Ok(());
        }
        self.notes.boot = self.options.boot;
        let remembered = self.log.journal.set_notes(&self.notes.encode());
        self.unless_failed(remembered.map_err(Fatal::from))
    }
}

//! From a directory to a node that knows its log: made new, or opened again.
//!
//! ```text
//!   journal opened ─► whose it is ─► the rows of its frames ─► what is known committed ─► consensus
//! ```

use std::collections::{BTreeMap, BTreeSet};

use lockstep_journaler::snapshots::{Manifest, Snapshots};
use lockstep_journaler::storage::{File, Open, Storage};
use lockstep_journaler::{
    Existing, From, Journal, Options, Position, Reached, Recovered, SegmentId, Tail, Verdict,
};

use super::beacons::Beacons;
use super::error::{Fatal, StartError};
use super::lending::Lending;
use super::log::Log;
use super::notes::Notes;
use super::panics::Panics;
use super::{Counters, Mutation, Replica, ReplicaOptions};
use crate::consensus::{BrokenGate, Consensus, LogIndex, Row};
use crate::ids::ClusterId;
use crate::members::{CHANGE_AT, CHANGE_BYTES};
use crate::policy::Policy;

/// How a node found its journal.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What opening the journal found and did.
    pub journal: Recovered,
    /// Known committed from what lies here: a restart may apply up to it.
    pub committed: Position,
    /// It may have forgotten what it had acknowledged, and does not vote yet.
    pub is_barred: bool,
}

impl<S: Storage> Replica<S> {
    /// Makes a node in an empty directory: a founder, or one that is going to be added.
    ///
    /// # Errors
    ///
    /// [`StartError`]; a directory that holds a journal with frames is refused.
    pub fn create(
        storage: S,
        journal: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        if options.founders.voters.is_empty() {
            return Err(StartError::NoFounders);
        }
        let journal_options = Options {
            log_id: Some(options.cluster.bytes()),
            existing: Existing::Either,
            ..journal.clone()
        };
        let (mut journal, recovered) = Journal::open(storage.clone(), &journal_options)?;
        // A creation that a crash interrupted has left no notes, and is done again.
        if recovered.reached == Reached::default() && journal.notes().is_empty() {
            let notes = Notes {
                node: options.node,
                epoch: options.epoch,
                applied: 0,
                committed: 0,
                boot: options.boot,
                founders: options.founders.clone(),
                members: options.founders.clone(),
            };
            journal.set_notes(&notes.encode()).map_err(Fatal::from)?;
        }
        Replica::start(storage, journal, recovered, &journal_options, options)
    }

    /// Opens the node in this directory and brings it to a known end.
    ///
    /// # Errors
    ///
    /// [`StartError`], which says what is wrong and what helps.
    pub fn open(
        storage: S,
        journal: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        let journal_options = Options {
            existing: Existing::Required,
            ..journal.clone()
        };
        let (journal, recovered) = Journal::open(storage.clone(), &journal_options)?;
        Replica::start(storage, journal, recovered, &journal_options, options)
    }

    fn start(
        storage: S,
        journal: Journal<S>,
        recovered: Recovered,
        journal_options: &Options,
        options: &ReplicaOptions,
    ) -> Result<(Replica<S>, Opened), StartError> {
        let event_size = journal_options.schema.event_size;
        let min = CHANGE_AT + CHANGE_BYTES;
        if (event_size as usize) < min {
            return Err(StartError::EventSize {
                found: event_size,
                min: u32::try_from(min).unwrap_or(u32::MAX),
            });
        }
        let notes = checked_notes(&journal, options)?;
        let takes_any = options.mutation == Some(Mutation::EpochTakenFromTheFile);
        if notes.epoch < options.epoch && !takes_any {
            return Err(StartError::EpochNotForced {
                expected: options.epoch,
                found: notes.epoch,
            });
        }
        let (index, known) = read_index(&storage, &journal, &notes)?;
        if notes.applied > index.last() {
            return Err(StartError::Forgot {
                applied: notes.applied,
                last: index.last(),
            });
        }
        let mut index = index;
        let reached = index.index_reaching(known);
        let committed = reached.max(notes.committed.min(index.last()));
        index.know_committed(committed);
        let taken = own_snapshots(&storage, &journal, &index)?;
        for manifest in &taken {
            // It holds nothing that was not answered: committed, whatever else was forgotten.
            index.know_committed(manifest.index);
        }
        let committed = index.position_behind(index.committed());
        let mut lending = Lending::new(index.applied(), index.members().clone());
        for manifest in &taken {
            if let Some((at, term, members)) = lending.offer(manifest) {
                index.set_snapshot(at, term, members);
            }
        }
        let is_barred = options.policy != Policy::Disks
            && !recovered.was_clean
            && (recovered.reached.frames > 0 || journal.term().0 > 0)
            && (options.boot == 0 || options.boot != notes.boot)
            && notes.members.voters != [options.node]
            && options.mutation != Some(Mutation::VoteAfterForgetting);
        if let Some(why) = options.sites.refuses(&options.founders) {
            return Err(StartError::Sites(why));
        }
        let mut consensus = Consensus::new(options.node, index, options.settings);
        if options.sites.gates {
            consensus.gate_sites(&options.sites.groups());
        }
        let mut log = Log::new(
            journal,
            options.recent_bytes_max,
            journal_options.max_write_bytes,
        );
        log.loses_events = options.mutation == Some(Mutation::AcknowledgeWithoutEvents);
        let mut replica = Replica {
            storage,
            consensus,
            log,
            lending,
            fetching: None,
            notes,
            options: options.clone(),
            event_size,
            schema_version: u16::try_from(journal_options.schema.version).unwrap_or(u16::MAX),
            unsent: Vec::new(),
            reads: Vec::new(),
            next_tick_ns: None,
            is_barred,
            greeted: BTreeMap::new(),
            beacons: Beacons::default(),
            panics: Panics::default(),
            is_passive: false,
            passive_peers: BTreeSet::new(),
            ticks: 0,
            has_cut_torn_tail: matches!(recovered.verdict, Verdict::TornTail(_)),
            has_failed: false,
            has_begun_anew: false,
            counters: Counters::default(),
        };
        if is_barred {
            replica.consensus.may_campaign(false);
        } else {
            replica.remember_boot()?;
        }
        if options.mutation == Some(Mutation::MessagesLetOutEarly) {
            replica.consensus.let_messages_out_early();
        }
        let broken_gate = match options.mutation {
            Some(Mutation::ForgetGroups) => Some(BrokenGate::NoGroups),
            Some(Mutation::WordInTheLogNotSeen) => Some(BrokenGate::NoLog),
            Some(Mutation::WordOutlivesItsTerm) => Some(BrokenGate::KeepsItsWord),
            _ => None,
        };
        if let Some(how) = broken_gate {
            replica.consensus.break_gate(how);
        }
        replica.drain()?;
        let opened = Opened {
            journal: recovered,
            committed: committed.unwrap_or_default(),
            is_barred,
        };
        Ok((replica, opened))
    }
}

pub(super) fn checked_notes<S: Storage>(
    journal: &Journal<S>,
    options: &ReplicaOptions,
) -> Result<Notes, StartError> {
    if journal.log_id() != options.cluster.bytes() {
        let found = ClusterId::of_bytes(journal.log_id());
        return Err(StartError::OtherCluster {
            expected: options.cluster.to_string(),
            found: found.map_or("none".to_owned(), |cluster| cluster.to_string()),
        });
    }
    let notes = Notes::decode(&journal.notes()).ok_or(StartError::NoCluster)?;
    if notes.node != options.node {
        return Err(StartError::OtherNode {
            expected: options.node,
            found: notes.node,
        });
    }
    if notes.epoch > options.epoch {
        return Err(StartError::OlderEpoch {
            expected: options.epoch,
            found: notes.epoch,
        });
    }
    Ok(notes)
}

/// The rows of what is in the journal, and the position that its frames prove committed.
pub(super) fn read_index<S: Storage>(
    storage: &S,
    journal: &Journal<S>,
    notes: &Notes,
) -> Result<(LogIndex, Position), StartError> {
    let base = base_of(storage, journal)?;
    let (term, vote) = (journal.term().0, journal.vote().unwrap_or(0));
    let mut index = LogIndex::new(base, term, vote, notes.applied, notes.members.clone());
    let mut known = base.reached.position;
    let mut reader = journal.reader(From::Oldest).map_err(Fatal::from)?;
    // Ends: at the durable end, where nobody writes now.
    while let Some(frame) = reader.next_frame().map_err(Fatal::from)? {
        let header = frame.header();
        let expected = index.last() + 1;
        if header.index != expected {
            return Err(StartError::Index {
                position: header.first_position,
                expected,
                found: header.index,
            });
        }
        known = known.max(Position(header.commit));
        index.put(header.index, Row::of(header));
    }
    Ok((index, known))
}

/// The manifests of this node's snapshots whose last frame is in its log, oldest first.
fn own_snapshots<S: Storage>(
    storage: &S,
    journal: &Journal<S>,
    index: &LogIndex,
) -> Result<Vec<Manifest>, StartError> {
    let listed = Snapshots::new(storage.clone()).list()?;
    let manifests = listed.into_iter().rev();
    let manifests = manifests.filter_map(|listed| listed.manifest.ok());
    let is_of_log = |manifest: &Manifest| {
        manifest.log == journal.log_id() && is_in(index, manifest.index, manifest.chain)
    };
    Ok(manifests.filter(is_of_log).collect())
}

/// Whether the frame with this index and `header_crc` is in the log, or right in front of it.
pub(super) fn is_in(index: &LogIndex, at: u64, chain: u32) -> bool {
    at > 0 && index.chain_at(at) == Some(chain)
}

/// What the oldest segment continues.
fn base_of<S: Storage>(storage: &S, journal: &Journal<S>) -> Result<Tail, StartError> {
    let segments = journal.segments().map_err(Fatal::from)?;
    let oldest = segments.first().copied().unwrap_or(SegmentId(0));
    let mut block = [0; 4096];
    let read = storage
        .open(&oldest.file_name(), Open::READ)
        .and_then(|file| file.read_at(&mut block, 0));
    let header = read
        .ok()
        .and_then(|_| lockstep_journaler::segment::SegmentHeader::decode(&block).ok());
    // A segment of zeros is named ahead; then there is nothing in front of the tail either.
    Ok(header.map_or(*journal.tail(), |header| header.tail_before()))
}

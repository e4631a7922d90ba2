//! One node goes on alone: what an operator does when the quorum is lost for ever.
//!
//! The node must have ended, and the others must be off and stay off: nothing here can see whether
//! they are. All of its log counts as committed, also what no quorum ever had; it is the only member;
//! and the epoch rises, so that whoever was left behind is refused and comes back under a new id.
//!
//! # Invariants
//!
//! * `FO1` Behind a log that is not empty come two frames: who wanted it, and that this node goes on alone. Whoever
//!   is added later, and has the log from its beginning, has these members from there on too.
//! * `FO2` The frames are durable before the node remembers that it is alone: with one half only it is a node of
//!   before, with a longer tail.

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{
    Background, Existing, Frame, FrameDraft, FrameKind, Journal, Options, Position, Term,
};

use super::notes::Notes;
use super::opening::{checked_notes, read_index};
use super::{Fatal, Mutation, ReplicaOptions, StartError};
use crate::ids::Epoch;
use crate::members::{Change, Members};

/// What was forced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forced {
    /// The epoch before.
    pub from_epoch: Epoch,
    /// The epoch now: the node's file must say it, too.
    pub epoch: Epoch,
    /// The members before.
    pub members_before: Members,
    /// Where the log ends: all before it counts as committed now.
    pub position: Position,
    /// What was known committed before: what lies between may be unknown to all others.
    pub committed_before: Position,
}

/// Makes the node in this directory the only member of its cluster, from the epoch in `options` on; behind
/// its log come two events, of this time: `word`, which says who wanted it, and `change`, into which is written that
/// this node goes on alone (`FO1`).
///
/// # Errors
///
/// [`StartError`]: it runs, it is another node, or the epoch does not rise. Then nothing was changed.
pub fn force_single<S: Storage>(
    storage: S,
    journal: &Options,
    options: &ReplicaOptions,
    word: &[u8],
    change: &[u8],
    time_ns: u64,
) -> Result<Forced, StartError> {
    let schema_version = u16::try_from(journal.schema.version).unwrap_or(u16::MAX);
    let Opened {
        mut journal,
        mut notes,
        forced,
    } = open(storage, journal, options)?;
    if forced.position > Position(0) {
        let mut change = change.to_vec();
        Change::Alone(options.node).write_to(&mut change);
        let frames = [
            (FrameKind::Events, word),
            (FrameKind::Membership, &change[..]),
        ];
        let is_said = options.mutation != Some(Mutation::AloneNotInTheLog);
        let frames = &frames[..1 + usize::from(is_said)];
        // FO2
        write(&mut journal, options, schema_version, frames, time_ns)?;
    }
    // MB2: what is applied and the members there, in one durable write.
    notes.applied = journal.tail().index;
    notes.committed = notes.applied;
    notes.members = Members::of_voters(&[options.node]);
    if options.mutation != Some(Mutation::EpochNotRemembered) {
        notes.epoch = options.epoch;
    }
    journal.set_notes(&notes.encode()).map_err(Fatal::from)?;
    journal.close().map_err(Fatal::from)?;
    Ok(forced)
}

/// What [`force_single`] would do. The journal is opened as at a start, which cuts a torn tail; nothing else
/// is changed.
///
/// # Errors
///
/// As of [`force_single`].
pub fn would_force_single<S: Storage>(
    storage: S,
    journal: &Options,
    options: &ReplicaOptions,
) -> Result<Forced, StartError> {
    let opened = open(storage, journal, options)?;
    opened.journal.close().map_err(Fatal::from)?;
    Ok(opened.forced)
}

/// A node that has ended, and what is known of it.
struct Opened<S: Storage> {
    journal: Journal<S>,
    notes: Notes,
    forced: Forced,
}

fn open<S: Storage>(
    storage: S,
    journal: &Options,
    options: &ReplicaOptions,
) -> Result<Opened<S>, StartError> {
    let journal_options = Options {
        existing: Existing::Required,
        // One frame is written behind the log here: no segment need be prepared ahead.
        background: Background::Stepped,
        ..journal.clone()
    };
    let (journal, _) = Journal::open(storage.clone(), &journal_options)?;
    let notes = checked_notes(&journal, options)?;
    if notes.epoch >= options.epoch {
        return Err(StartError::EpochNotAbove {
            asked: options.epoch,
            found: notes.epoch,
        });
    }
    let (index, known) = read_index(&storage, &journal, &notes)?;
    let committed = index
        .index_reaching(known)
        .max(notes.committed.min(index.last()));
    let committed_before = index.position_behind(committed).unwrap_or_default();
    let forced = Forced {
        from_epoch: notes.epoch,
        epoch: options.epoch,
        members_before: notes.members.clone(),
        position: journal.tail().reached.position,
        committed_before,
    };
    Ok(Opened {
        journal,
        notes,
        forced,
    })
}

/// As if this node had been elected once more, and had cut these frames of one event each.
fn write<S: Storage>(
    journal: &mut Journal<S>,
    options: &ReplicaOptions,
    schema_version: u16,
    frames: &[(FrameKind, &[u8])],
    time_ns: u64,
) -> Result<(), Fatal> {
    let mut tail = *journal.tail();
    let term = Term(journal.term().0.max(tail.term) + 1);
    journal.set_term_and_vote(term, Some(options.node.number()))?;
    let commit = tail.reached.position;
    for &(kind, event) in frames {
        let draft = FrameDraft {
            time_ns: time_ns.max(tail.time_ns),
            term,
            index: tail.index + 1,
            commit,
            schema_version,
            kind: kind as u8,
            flags: 0,
        };
        let body = [event, &[]];
        let header = &journal.cutter().seal(&draft, 1, body);
        journal.write(&[Frame { header, body }])?;
        tail = *journal.tail();
    }
    journal.sync()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::storage::Simulated;

    use super::*;
    use crate::consensus::Role;
    use crate::ids::NodeId;
    use crate::members::CHANGE_AT;
    use crate::replica::Replica;
    use crate::simulation::model::{EVENT_BYTES, EVENTS};
    use crate::wire::Message;

    const WORD: [u8; EVENT_BYTES as usize] = [9; EVENT_BYTES as usize];

    fn journal() -> Options {
        Options {
            background: Background::Stepped,
            ..Options::new(&EVENTS).with_segment_bytes(64 << 10)
        }
    }

    fn options(epoch: u32) -> ReplicaOptions {
        let mut options = ReplicaOptions::new("paris".parse().unwrap(), NodeId(1), &[NodeId(1)]);
        options.epoch = Epoch(epoch);
        options
    }

    fn force(disk: &Simulated, epoch: u32) -> Result<Forced, StartError> {
        let nothing = [0; EVENT_BYTES as usize];
        force_single(
            disk.clone(),
            &journal(),
            &options(epoch),
            &WORD,
            &nothing,
            9,
        )
    }

    /// Turns until this holds; the number of turns has a limit, time does not matter.
    fn until(
        replica: &mut Replica<Simulated>,
        now: &mut u64,
        mut is_done: impl FnMut(&mut Replica<Simulated>) -> bool,
    ) -> bool {
        let mut sent: Vec<(NodeId, Message)> = Vec::new();
        for _ in 0..200 {
            if is_done(replica) {
                return true;
            }
            *now += 10_000_000;
            replica.turn(*now, &mut sent).unwrap();
        }
        false
    }

    #[test]
    fn a_node_that_lost_its_quorum_goes_on_alone_and_keeps_its_whole_log() {
        let disk = Simulated::new(1);
        let (mut replica, _) = Replica::create(disk.clone(), &journal(), &options(0)).unwrap();
        let mut now = 0;
        assert!(until(&mut replica, &mut now, |one| one.is_ready_to_lead()));
        assert_ne!(replica.hello().a, 0, "it says with whom it began");
        for change in [Change::AddLearner(NodeId(2)), Change::Promote(NodeId(2))] {
            let mut event = [0; EVENT_BYTES as usize];
            change.write_to(&mut event);
            assert!(event[CHANGE_AT..].iter().any(|byte| *byte != 0));
            assert!(until(&mut replica, &mut now, |one| one
                .offer_change(&event, 1)
                .is_ok()));
        }
        assert!(until(&mut replica, &mut now, |one| one
            .members()
            .voters
            .len()
            == 2));
        assert_eq!(replica.hello().a, 0, "those are not the members any more");
        // The other one never comes: this is never committed.
        let event = [7; EVENT_BYTES as usize];
        let position = replica.offer([&event, &[]], 2).unwrap();
        assert!(!until(&mut replica, &mut now, |one| one.committed() > position));
        drop(replica);
        assert!(matches!(
            force(&disk, 0),
            Err(StartError::EpochNotAbove { .. })
        ));
        let forced = force(&disk, 1).unwrap();
        assert_eq!(forced.members_before.voters, [NodeId(1), NodeId(2)]);
        assert_eq!(forced.position, Position(position.0 + 1));
        assert!(forced.committed_before <= position);
        // Without the new epoch in its file it does not start; with it, it leads alone.
        assert!(matches!(
            Replica::open(disk.clone(), &journal(), &options(0)),
            Err(StartError::OlderEpoch { .. })
        ));
        let (mut replica, opened) = Replica::open(disk, &journal(), &options(1)).unwrap();
        // FO1: both frames are in the log, and are committed.
        assert_eq!(opened.committed, Position(forced.position.0 + 2));
        assert!(until(&mut replica, &mut now, |one| one.is_ready_to_lead()));
        assert_eq!(replica.view().role, Role::Leader);
        assert_eq!(replica.members().voters, [NodeId(1)]);
        let next = replica.offer([&event, &[]], 3).unwrap();
        assert_eq!(next, opened.committed);
        assert!(until(&mut replica, &mut now, |one| one.committed() > next));
        let mut reader = replica
            .reader(lockstep_journaler::From::Position(forced.position))
            .unwrap();
        let word = reader.next_frame().unwrap().unwrap();
        assert_eq!(word.body(), WORD);
        assert!(word.header().term > 1, "of a term of its own");
        let alone = reader.next_frame().unwrap().unwrap();
        assert_eq!(
            Change::read_from(alone.body()),
            Some(Change::Alone(NodeId(1)))
        );
    }

    #[test]
    fn an_epoch_rises_by_force_and_in_no_file() {
        let disk = Simulated::new(1);
        drop(Replica::create(disk.clone(), &journal(), &options(0)).unwrap());
        // Who was left behind has the new number in its file: it does not start, and is as it was.
        let refused = Replica::open(disk.clone(), &journal(), &options(1)).unwrap_err();
        let (expected, found) = (Epoch(1), Epoch(0));
        assert_eq!(
            refused.to_string(),
            StartError::EpochNotForced { expected, found }.to_string()
        );
        drop(Replica::open(disk.clone(), &journal(), &options(0)).unwrap());
        force(&disk, 1).unwrap();
        drop(Replica::open(disk, &journal(), &options(1)).unwrap());
    }

    #[test]
    fn fo1_behind_an_empty_log_there_is_no_word() {
        let disk = Simulated::new(1);
        drop(Replica::create(disk.clone(), &journal(), &options(0)).unwrap());
        let forced = force(&disk, 1).unwrap();
        assert_eq!(forced.position, Position(0));
        let (replica, _) = Replica::open(disk, &journal(), &options(1)).unwrap();
        assert_eq!(replica.tail().reached.position, Position(0));
    }
}

//! What this node lends: its snapshots, to nodes that lag behind the beginning of its log.
//!
//! ```text
//!   leader                                       the one that lags
//!   snapshot of index P, term T ───────────────►
//!              ◄─────────────────── fetch part 0    the members at P, and the manifest
//!   piece ─────────────────────────────────────►
//!              ◄─────────────────── fetch part 1…   eight pieces ahead
//!   piece ─────────────────────────────────────►    … checked, and the log begins behind P
//! ```
//!
//! Whoever is asked needs to remember nothing: a fetch says what, from where and how much.
//!
//! # Invariants
//!
//! * `LN1` A snapshot is offered only with the members as they were at its index, and if its last frame
//!   is in this log: what it holds is committed.
//! * `LN2` The log is given up no further than the newest offer, and than what is being fetched.
//! * `LN3` A node that was told of a snapshot and does not fetch is asked again: word or answer was lost.
//! * `LN4` A turn reads one piece at most, and where there are frames to write, one turn of eight: a node
//!   that lags does not hold up those that do not.

use std::collections::{BTreeMap, VecDeque};

use lockstep_journaler::Position;
use lockstep_journaler::snapshots::{Manifest, Snapshots};
use lockstep_journaler::storage::Storage;

use crate::ids::NodeId;
use crate::members::Members;
use crate::wire::{Head, Kind, Message};

/// A node that has not fetched for so many ticks does not fetch.
const IDLE_TICKS: u64 = 30;

/// Offers that are remembered: a fetch may go on while newer ones are made.
const OFFERS_MAX: usize = 8;

/// Fetches that wait for their piece; of what is beyond, who fetches asks again.
const ASKED_MAX: usize = 64;

/// A piece is read in one turn of so many, where there are frames to write (`LN4`).
const BUSY_TURNS: u64 = 8;

/// Most bytes of a piece.
pub(super) const PIECE_BYTES: u64 = 64 << 10;

/// In front of what part 0 holds.
///
/// ```text
///  0 crc u32 over 4..   4 length of the members u32   8 members   behind them the manifest
/// ```
const ABOUT_BYTES: usize = 8;

/// A snapshot that can be sent.
#[derive(Debug, Clone)]
struct Offer {
    index: u64,
    term: u64,
    position: Position,
    members: Members,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lending {
    /// The members from each of these indices on, oldest first.
    history: VecDeque<(u64, Members)>,
    /// Oldest first.
    offers: VecDeque<Offer>,
    /// Who fetched, when and what, or was seen to wait for a snapshot.
    fetched: BTreeMap<NodeId, (u64, u64)>,
    /// What is to be answered, first come, first served.
    asked: VecDeque<Head>,
    /// Turns with frames to write since the last piece.
    busy_turns: u64,
}

impl Lending {
    /// Nothing is offered; the members have been these from this index on.
    pub(super) fn new(applied: u64, members: Members) -> Lending {
        Lending {
            history: VecDeque::from([(applied, members)]),
            offers: VecDeque::new(),
            fetched: BTreeMap::new(),
            asked: VecDeque::new(),
            busy_turns: 0,
        }
    }

    /// A fetch, to be answered in a turn of its own.
    pub(super) fn ask(&mut self, fetch: Head) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push_back(fetch);
        }
    }

    /// Whether a fetch waits.
    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The fetch that this turn answers, if it is one that does (`LN4`).
    pub(super) fn due(&mut self, is_busy: bool) -> Option<Head> {
        self.busy_turns += 1;
        if is_busy && self.busy_turns < BUSY_TURNS {
            return None;
        }
        let fetch = self.asked.pop_front()?;
        self.busy_turns = 0;
        Some(fetch)
    }

    /// The members are others from this index on.
    pub(super) fn members_are(&mut self, index: u64, members: &Members) {
        self.history.push_back((index, members.clone()));
    }

    /// Offers a snapshot whose last frame is in the log (`LN1`); its index, term and members, if it is
    /// newer than the last offer, and the members there are known.
    pub(super) fn offer(&mut self, manifest: &Manifest) -> Option<(u64, u64, Members)> {
        let (index, term) = (manifest.index, manifest.term.0);
        let is_newer = self.newest().is_none_or(|newest| newest < index);
        let known = self.history.iter().rev().find(|(from, _)| *from <= index);
        let (_, members) = known.filter(|_| is_newer && index > 0)?;
        let members = members.clone();
        self.offers.push_back(Offer {
            index,
            term,
            position: manifest.reached.position,
            members: members.clone(),
        });
        if self.offers.len() > OFFERS_MAX {
            self.offers.pop_front();
        }
        // Ends: each turn takes one away. Newer snapshots need no older members.
        while self.history.get(1).is_some_and(|(from, _)| *from <= index) {
            self.history.pop_front();
        }
        Some((index, term, members))
    }

    /// The index of the newest offer.
    pub(super) fn newest(&self) -> Option<u64> {
        self.offers.back().map(|offer| offer.index)
    }

    /// The answer to a fetch; none if the snapshot is not here, or not any more.
    pub(super) fn answer<S: Storage>(
        &mut self,
        storage: &S,
        fetch: &Head,
        bytes_max: usize,
        ticks: u64,
    ) -> Option<Message> {
        let asked = (fetch.index, fetch.log_term);
        let mut offers = self.offers.iter();
        let offer = offers.find(|offer| (offer.index, offer.term) == asked)?;
        self.fetched.insert(fetch.from, (ticks, fetch.index));
        if fetch.b == 0 {
            return None;
        }
        let snapshots = Snapshots::new(storage.clone());
        let part = usize::try_from(fetch.commit).ok()?.checked_sub(1);
        let most = fetch.b.min(PIECE_BYTES);
        let mut bytes = vec![0; usize::try_from(most).ok()?.min(bytes_max)];
        let bytes = if part.is_none() {
            about(&offer.members, &snapshots.manifest(offer.position).ok()?)
        } else {
            let read = snapshots.read_stored(offer.position, part, &mut bytes, fetch.a);
            bytes.truncate(read.ok().filter(|count| *count > 0)?);
            bytes
        };
        let head = Head {
            index: fetch.index,
            commit: fetch.commit,
            ..Head::new(Kind::Piece, fetch.from)
        };
        Some(Message::piece(head, fetch.a, bytes))
    }

    /// The oldest snapshot that is being fetched (`LN2`): its index and position.
    pub(super) fn lent(&self, ticks: u64) -> Option<(u64, Position)> {
        let lately = |(at, _): &&(u64, u64)| at + IDLE_TICKS > ticks;
        let fetched = self.fetched.values().filter(lately);
        let oldest = fetched.map(|(_, index)| *index).min()?;
        let offer = self.offers.iter().find(|offer| offer.index == oldest)?;
        Some((offer.index, offer.position))
    }

    /// Which of those that wait for a snapshot do not fetch it (`LN3`).
    pub(super) fn idle(&mut self, waiting: &[NodeId], ticks: u64) -> Vec<NodeId> {
        let newest = self.newest().unwrap_or(0);
        let is_idle = |node: &&NodeId| {
            let (at, _) = *self.fetched.entry(**node).or_insert((ticks, newest));
            at + IDLE_TICKS <= ticks
        };
        let idle: Vec<NodeId> = waiting.iter().filter(is_idle).copied().collect();
        self.fetched
            .retain(|node, (at, _)| *at + IDLE_TICKS > ticks && !idle.contains(node));
        idle
    }
}

/// Part 0 of what is fetched.
fn about(members: &Members, manifest: &Manifest) -> Vec<u8> {
    let mut list = Vec::new();
    members.encode(&mut list);
    let mut bytes = vec![0; ABOUT_BYTES];
    let length = u32::try_from(list.len()).unwrap_or(u32::MAX);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&list);
    bytes.extend_from_slice(&manifest.encode());
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The members and the manifest in part 0, if its bytes hold.
pub(super) fn read_about(bytes: &[u8]) -> Option<(Members, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<ABOUT_BYTES>()?;
    let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
    if crc32c::crc32c(&bytes[4..]) != half(0) {
        return None;
    }
    let (list, manifest) = rest.split_at_checked(usize::try_from(half(4)).ok()?)?;
    let (members, behind) = Members::decode(list)?;
    behind.is_empty().then_some((members, manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_journaler::snapshots::SnapshotOf;
    use lockstep_journaler::storage::Simulated;
    use lockstep_journaler::{Reached, Term};

    fn taken(disk: &Simulated, index: u64) -> Manifest {
        let of = SnapshotOf {
            log: [1; 16],
            reached: Reached {
                position: Position(index * 10),
                frames: index,
            },
            index,
            term: Term(3),
            chain: 4,
            time_ns: 5,
            schema_version: 1,
            schema_hash: 6,
            build: String::new(),
        };
        let mut writer = Snapshots::new(disk.clone()).create(of).unwrap();
        writer.write(b"state").unwrap();
        writer.finish(7).unwrap()
    }

    #[test]
    fn ln1_a_snapshot_is_offered_with_the_members_of_its_index_or_not_at_all() {
        let disk = Simulated::new(1);
        let (two, three) = (
            Members::of_voters(&[NodeId(1), NodeId(2)]),
            Members::of_voters(&[NodeId(1), NodeId(2), NodeId(3)]),
        );
        let mut lending = Lending::new(10, two.clone());
        lending.members_are(20, &three);
        assert_eq!(lending.offer(&taken(&disk, 9)), None, "nobody knows them");
        assert_eq!(lending.offer(&taken(&disk, 19)), Some((19, 3, two)));
        assert_eq!(
            lending.offer(&taken(&disk, 20)),
            Some((20, 3, three.clone()))
        );
        assert_eq!(lending.offer(&taken(&disk, 15)), None, "older");
        let fetch = |index, part| Head {
            index,
            log_term: 3,
            commit: part,
            b: 1000,
            ..Head::new(Kind::Fetch, NodeId(3))
        };
        let piece = lending.answer(&disk, &fetch(20, 0), 4096, 1).unwrap();
        let crate::wire::Body::Bytes(bytes) = piece.body else {
            panic!("no bytes")
        };
        let (members, manifest) = read_about(&bytes).unwrap();
        assert_eq!(members, three);
        assert_eq!(Manifest::decode(manifest, "").unwrap().index, 20);
        let mut flipped = (*bytes).clone();
        flipped[9] ^= 1;
        assert_eq!(read_about(&flipped), None);
        assert!(lending.answer(&disk, &fetch(20, 1), 4096, 1).is_some());
        assert!(lending.answer(&disk, &fetch(20, 2), 4096, 1).is_none());
        assert!(lending.answer(&disk, &fetch(21, 0), 4096, 1).is_none());
    }

    #[test]
    fn ln4_a_busy_turn_of_eight_reads_a_piece_and_any_idle_one() {
        let mut lending = Lending::new(0, Members::of_voters(&[NodeId(1)]));
        for at in 0..100 {
            lending.ask(Head {
                a: at,
                ..Head::new(Kind::Fetch, NodeId(2))
            });
        }
        let mut due = |is_busy| lending.due(is_busy).map(|fetch| fetch.a);
        assert_eq!([due(false), due(false)], [Some(0), Some(1)]);
        for _ in 1..BUSY_TURNS {
            assert_eq!(due(true), None);
        }
        assert_eq!([due(true), due(true), due(false)], [Some(2), None, Some(3)]);
        let rest = (4..).take_while(|_| due(false).is_some()).count();
        assert_eq!(rest, ASKED_MAX - 4, "the others are asked again");
        assert!(!lending.is_asked());
    }

    #[test]
    fn ln2_ln3_what_is_fetched_is_lent_and_who_does_not_fetch_is_asked_again() {
        let disk = Simulated::new(1);
        let mut lending = Lending::new(0, Members::of_voters(&[NodeId(1)]));
        lending.offer(&taken(&disk, 5));
        assert_eq!(lending.lent(1), None);
        assert_eq!(lending.idle(&[NodeId(2)], 1), []);
        assert_eq!(lending.lent(2), Some((5, Position(50))));
        assert_eq!(lending.idle(&[NodeId(2)], 30), []);
        assert_eq!(lending.idle(&[NodeId(2)], 31), [NodeId(2)]);
        assert_eq!(lending.lent(31), None);
    }
}

//! An event on which the logic panics: a majority of the voters says what becomes of it.
//!
//! A node whose logic panics stands in front of the event and says so. Whoever is asked says whether
//! its own logic stands there too, or has gone past. Nobody is believed because it leads: a logic that
//! panics on one node only is no reason to take an event from all of them.
//!
//! ```text
//!   node 1  ──(p, stands)──┐
//!   node 2  ──(p, stands)──┼─► a majority stands there      the leader marks p in the log: quarantine
//!   node 3  ──(p, passed)──┘   a majority has passed        who stands there stops, by name
//!                              no majority can come about   who stands there stops, by name,
//!                                                           if another passed
//!                              too few speak                a leader that stands hands over to one that passed
//! ```
//!
//! # Invariants
//!
//! * `PN1` Quarantine is proposed with the word of a majority of the voters, the leader's own among
//!   them; so nobody who proposes has answered for the event.
//! * `PN2` A node that has passed an event at which a majority stands says nothing any more.
//! * `PN3` Nothing is said where nobody stands.
//! * `PN4` A leader that stands alone where another voter has passed hands over to it: that one answers.
//! * `PN5` Who has no logic abstains: that counts for neither, and only says that no word of its is to be
//!   waited for. A majority is one of all voters, whoever abstains.

use std::collections::BTreeSet;

use super::beacons::{Beacon, Beacons, Judged};
use crate::ids::NodeId;
use crate::members::Members;

/// The logic panics on the event, or did before it went into quarantine.
const STANDS: u64 = 1;

/// The event is applied, or refused by its rules.
const PASSED: u64 = 2;

/// The node has no logic that could stand or pass: it waits for nobody, and nobody for it.
const ABSTAINS: u64 = 3;

/// Most positions that are asked about at a time: more than nodes there are.
const ASKED_MAX: usize = 64;

/// What is known of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few have spoken, or a majority says as we do.
    Open,
    /// This node and the others differ.
    Alone {
        /// Who stands there.
        stand: Vec<NodeId>,
        /// Who has passed it.
        passed: Vec<NodeId>,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Panics {
    /// Where each node stands or has passed, told as a beacon is.
    words: Beacons,
    /// Where this node stands.
    standing: Option<u64>,
    /// Whether a majority stands where this node does.
    is_agreed: bool,
    /// Where others stand, since the last telling.
    asked: BTreeSet<u64>,
    /// `PN5`
    abstains: bool,
}

impl Panics {
    /// This node stands here, or nowhere any more; whether that is news.
    pub(super) fn stand(&mut self, standing: Option<u64>) -> bool {
        if self.standing == standing {
            return false;
        }
        self.standing = standing;
        self.is_agreed = false;
        true
    }

    /// Whether this node has no logic (`PN5`).
    pub(super) fn abstain(&mut self, yes: bool) {
        self.abstains = yes;
    }

    /// The word of this node on an event: it stands there or goes into quarantine, or it was applied.
    pub(super) fn own_word(me: NodeId, position: u64, has_passed: bool) -> (NodeId, Beacon) {
        let hash = if has_passed { PASSED } else { STANDS };
        (me, Beacon { position, hash })
    }

    /// What a node says; what follows for this one.
    pub(super) fn hear(
        &mut self,
        from: NodeId,
        word: Beacon,
        me: NodeId,
        members: &Members,
    ) -> Verdict {
        if from != me && word.hash == STANDS && self.asked.len() < ASKED_MAX {
            self.asked.insert(word.position);
        }
        self.words.hear(from, word);
        self.judge(word.position, me, members)
    }

    fn judge(&mut self, position: u64, me: NodeId, members: &Members) -> Verdict {
        let judged = self.words.judge(me, position, members);
        if self.standing == Some(position) {
            // PN1
            self.is_agreed = judged == Judged::Agreed;
        }
        let Judged::Alone { said, .. } = judged else {
            return Verdict::Open;
        };
        let who = |what: u64| {
            let of_word = said.iter().filter(|(_, word)| *word == what);
            of_word.map(|(node, _)| *node).collect::<Vec<_>>()
        };
        let (stand, passed) = (who(STANDS), who(PASSED));
        let is_alone = if stand.contains(&me) {
            // PN5: where all others abstain too, this one waits for somebody with a logic.
            passed.iter().any(|node| members.is_voter(*node))
        } else {
            members.is_quorum(&stand)
        };
        if is_alone {
            Verdict::Alone { stand, passed }
        } else {
            Verdict::Open
        }
    }

    /// Where this node stands.
    pub(super) fn standing(&self) -> Option<u64> {
        self.standing
    }

    /// Where this node stands with a majority of the voters (`PN1`).
    pub(super) fn agreed(&self) -> Option<u64> {
        self.standing.filter(|_| self.is_agreed)
    }

    /// Who has passed the event in front of which this node stands, if no majority stands there (`PN4`).
    pub(super) fn passed(&self) -> Vec<NodeId> {
        let Some(position) = self.standing.filter(|_| !self.is_agreed) else {
            return Vec::new();
        };
        let said = self.words.at(position).into_iter();
        let passed = said.filter(|(_, word)| *word == PASSED);
        passed.map(|(node, _)| node).collect()
    }

    /// Where others stand, and this node has said nothing yet.
    pub(super) fn asked_about(&self, me: NodeId) -> Vec<u64> {
        let is_open = |position: &&u64| self.words.word_of(me, **position).is_none();
        self.asked.iter().filter(is_open).copied().collect()
    }

    /// What is to be told, now and then: words may be lost (`PN3`).
    pub(super) fn tellings(&mut self, me: NodeId) -> Vec<Beacon> {
        let asked = std::mem::take(&mut self.asked);
        let open: BTreeSet<u64> = asked
            .iter()
            .filter(|position| self.words.word_of(me, **position).is_none())
            .copied()
            .collect();
        let told = asked.into_iter().chain(self.standing);
        let abstains = self.abstains.then_some(ABSTAINS);
        let words = told.filter_map(|position| {
            let hash = self.words.word_of(me, position).or(abstains)?;
            Some(Beacon { position, hash })
        });
        let words = words.collect();
        if !self.abstains {
            self.asked = open;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    /// Node 1 says its word, then hears these.
    fn told(
        has_passed: bool,
        others: &[(NodeId, u64)],
        voters: &[NodeId],
    ) -> (Option<u64>, Verdict) {
        let members = Members::of_voters(voters);
        let mut panics = Panics::default();
        panics.stand((!has_passed).then_some(9));
        let (me, word) = Panics::own_word(ONE, 9, has_passed);
        let mut verdict = panics.hear(me, word, ONE, &members);
        for &(node, hash) in others {
            verdict = panics.hear(node, Beacon { position: 9, hash }, ONE, &members);
        }
        (panics.agreed(), verdict)
    }

    #[test]
    fn pn1_a_majority_of_the_voters_puts_an_event_into_quarantine() {
        let three = [ONE, TWO, THREE];
        assert_eq!(told(false, &[], &three), (None, Verdict::Open));
        assert_eq!(told(false, &[], &[ONE]), (Some(9), Verdict::Open));
        assert_eq!(told(false, &[(TWO, STANDS)], &three).0, Some(9));
        assert_eq!(told(false, &[(THREE, STANDS)], &[ONE, TWO]).0, None);
        let once_more = [(TWO, STANDS), (TWO, PASSED)];
        assert_eq!(told(false, &once_more, &three), (None, Verdict::Open));
    }

    #[test]
    fn pn2_who_differs_from_a_majority_stops() {
        let three = [ONE, TWO, THREE];
        let both = |what| [(TWO, what), (THREE, what)];
        let alone = |stand: &[NodeId], passed: &[NodeId]| Verdict::Alone {
            stand: stand.to_vec(),
            passed: passed.to_vec(),
        };
        let stands_alone = told(false, &both(PASSED), &three);
        assert_eq!(stands_alone, (None, alone(&[ONE], &[TWO, THREE])));
        let passed_alone = told(true, &both(STANDS), &three);
        assert_eq!(passed_alone, (None, alone(&[TWO, THREE], &[ONE])));
        assert_eq!(told(true, &both(PASSED), &three).1, Verdict::Open);
        // Of two that differ, the one that went past goes on.
        let two = [ONE, TWO];
        assert_eq!(told(true, &[(TWO, STANDS)], &two).1, Verdict::Open);
        let stands = told(false, &[(TWO, PASSED)], &two).1;
        assert_eq!(stands, alone(&[ONE], &[TWO]));
    }

    #[test]
    fn pn4_who_stands_alone_knows_who_could_answer() {
        let members = Members::of_voters(&[ONE, TWO, THREE]);
        let mut panics = Panics::default();
        panics.stand(Some(9));
        let (me, word) = Panics::own_word(ONE, 9, false);
        panics.hear(me, word, ONE, &members);
        assert_eq!(panics.passed(), []);
        let told = |position, hash| Beacon { position, hash };
        panics.hear(TWO, told(8, PASSED), ONE, &members);
        assert_eq!(panics.passed(), [], "that was another event");
        panics.hear(TWO, told(9, PASSED), ONE, &members);
        assert_eq!(panics.passed(), [TWO]);
        panics.hear(THREE, told(9, STANDS), ONE, &members);
        assert_eq!(panics.passed(), [], "a majority stands there");
        panics.stand(None);
        assert_eq!(panics.passed(), []);
    }

    #[test]
    fn pn5_who_abstains_counts_for_neither_and_is_not_waited_for() {
        let three = [ONE, TWO, THREE];
        let with = |what| [(THREE, ABSTAINS), (TWO, what)];
        let (agreed, verdict) = told(false, &with(STANDS), &three);
        assert_eq!((agreed, verdict), (Some(9), Verdict::Open));
        // Without that word node 1 would wait for node 3 for ever.
        let (stand, passed) = (vec![ONE], vec![TWO]);
        let alone = Verdict::Alone { stand, passed };
        assert_eq!(told(false, &with(PASSED), &three), (None, alone));
        assert_eq!(told(false, &[(TWO, PASSED)], &three).1, Verdict::Open);
        assert_eq!(told(true, &with(STANDS), &three).1, Verdict::Open);
        // Nobody else has a logic: it is no majority, and there is nobody who differs.
        let nobody = with(ABSTAINS);
        assert_eq!(told(false, &nobody, &three), (None, Verdict::Open));
        assert_eq!(told(true, &nobody, &three), (None, Verdict::Open));
        assert_eq!(
            told(false, &[(TWO, STANDS), (THREE, PASSED)], &[ONE, TWO]).0,
            Some(9)
        );
    }

    #[test]
    fn pn5_who_abstains_says_so_when_asked_until_it_has_a_word_of_its_own() {
        let members = Members::of_voters(&[ONE, TWO, THREE]);
        let mut panics = Panics::default();
        panics.abstain(true);
        let said = |hash| Beacon { position: 9, hash };
        panics.hear(TWO, said(STANDS), ONE, &members);
        assert_eq!(panics.tellings(ONE), [said(ABSTAINS)]);
        assert!(panics.tellings(ONE).is_empty(), "nobody asks again");
        panics.abstain(false);
        panics.hear(TWO, said(STANDS), ONE, &members);
        assert_eq!(
            panics.asked_about(ONE),
            [9],
            "it has not said what its logic does"
        );
        let (me, word) = Panics::own_word(ONE, 9, true);
        panics.hear(me, word, ONE, &members);
        assert_eq!(panics.tellings(ONE), [said(PASSED)]);
    }

    #[test]
    fn pn3_who_stands_asks_and_who_is_asked_answers_until_nobody_asks() {
        let members = Members::of_voters(&[ONE, TWO, THREE]);
        let mut panics = Panics::default();
        assert!(panics.tellings(ONE).is_empty());
        let ask = Beacon {
            position: 9,
            hash: STANDS,
        };
        panics.hear(TWO, ask, ONE, &members);
        assert_eq!(panics.asked_about(ONE), [9]);
        assert!(panics.tellings(ONE).is_empty(), "nothing to say yet");
        let (me, word) = Panics::own_word(ONE, 9, true);
        panics.hear(me, word, ONE, &members);
        assert_eq!(panics.tellings(ONE), [word]);
        assert!(panics.tellings(ONE).is_empty());
        assert!(panics.asked_about(ONE).is_empty());
        for position in 0..1000 {
            let hash = STANDS;
            panics.hear(TWO, Beacon { position, hash }, ONE, &members);
        }
        assert_eq!(panics.asked.len(), ASKED_MAX);
    }
}

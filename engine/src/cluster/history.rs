//! Who asked for what, when, and what came of it: the journal of a node, read for what was administered.
//!
//! ```text
//!   …  Administration (transfer to 2)  events …  ‖ term 8 …     came of it: term 8
//!   …  Administration (add 4)  Membership (add 4)  …            came of it: the event behind it
//!   …  Administration (remove 3)  ‖ term 9 …                    leadership ended between: not done
//! ```
//!
//! It reads what lies in one directory, whether a process has it or not. What lies there behind the last
//! commit a later leader may replace: then the history of that node changes, as its log does.
//!
//! # Invariants
//!
//! * `HI1` What came of a word is what the log says behind it (`AD1`): never what was answered.
//! * `HI2` A change that nobody asked for over the clients' port is shown, too: by itself.

use lockstep_journaler::Position;
use lockstep_journaler::storage::Storage;
use lockstep_journaler::tools::frames::{Ending, FoundFrame, Start, each_frame};
use lockstep_journaler::tools::{Catalog, ToolError};
use lockstep_replicator::consensus::REFUSED;
use lockstep_replicator::{Change, Gating};

use super::administration::{Action, Administration};
use crate::event::{Body, HEADER_BYTES, Header};
use crate::system::{Membership, VersionSwitch};

/// Something that was administered, or a change of who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where in the log.
    pub position: Position,
    /// When, by the log's time.
    pub time_ns: u64,
    /// Under which leader.
    pub term: u64,
    /// What.
    pub what: What,
}

/// What an [`Entry`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A leader began. Which node it was the log does not say.
    Term {
        /// The first that was read: it may have begun before.
        is_first: bool,
    },
    /// An operator asked.
    Asked {
        /// Who, for what.
        asked: Administration,
        /// What came of it (`HI1`).
        outcome: Outcome,
    },
    /// It was changed, and no word of an operator stands in front of it (`HI2`).
    Changed {
        /// What.
        deed: Deed,
        /// The agreement took it.
        is_taken: bool,
    },
}

/// What came of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The event by which it was done.
    Done {
        /// Where that is.
        position: Position,
    },
    /// That event is there, and the agreement did not take it: nothing was changed.
    Refused {
        /// Where that is.
        position: Position,
    },
    /// The next leader, behind a transfer.
    Term {
        /// Its term.
        term: u64,
        /// Where it began.
        position: Position,
    },
    /// Leadership ended before it was done.
    NotDone,
    /// The log ends here, as far as it is read.
    Open,
}

/// What the event of a change says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Other members.
    Members(Change),
    /// Whether the other site is waited for.
    Gating(Gating),
    /// Other rules.
    Version(u32),
}

/// The history from the frame with `from` on, oldest first, and where reading ended.
///
/// # Errors
///
/// [`ToolError`]: there is no journal, it cannot be read, or a segment is missing.
pub fn history<S: Storage>(storage: &S, from: Position) -> Result<(Vec<Entry>, Ending), ToolError> {
    let catalog = Catalog::of_journal(storage)?;
    let mut read = Reading::default();
    let start = Start::Position(from);
    let ending = each_frame(storage, &catalog, start, &mut |frame| {
        read.frame(frame);
        Ok(true)
    })?;
    Ok((read.entries, ending))
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    term: Option<u64>,
    entries: Vec<Entry>,
    /// The word whose deed has to be the next event.
    asked: Option<usize>,
    /// Transfers behind which no other term has begun yet.
    transfers: Vec<usize>,
}

impl Reading {
    fn frame(&mut self, frame: &FoundFrame<'_>) {
        let header = &frame.header;
        if self.term != Some(header.term) {
            self.begin_term(header.term, Position(header.first_position), header.time_ns);
        }
        for (position, event) in frame.events() {
            self.event(position, event, header.flags & REFUSED == 0);
        }
    }

    fn begin_term(&mut self, term: u64, position: Position, time_ns: u64) {
        self.end_word(Outcome::NotDone);
        for at in std::mem::take(&mut self.transfers) {
            self.came(at, Outcome::Term { term, position });
        }
        let is_first = self.term.is_none();
        // An engine alone has no terms.
        if term != 0 {
            self.push(position, time_ns, term, What::Term { is_first });
        }
        self.term = Some(term);
    }

    fn event(&mut self, position: Position, event: &[u8], is_taken: bool) {
        let Some((header, body)) = event.split_first_chunk::<HEADER_BYTES>() else {
            return;
        };
        let header: Header = bytemuck::pod_read_unaligned(header);
        let deed = Deed::of(&header, event);
        if self.asked.is_some() {
            let outcome = match deed {
                Some(_) if is_taken => Outcome::Done { position },
                Some(_) => Outcome::Refused { position },
                None => Outcome::NotDone,
            };
            self.end_word(outcome);
        } else if let Some(deed) = deed.filter(|deed| !deed.is_forced()) {
            let what = What::Changed { deed, is_taken };
            self.push(position, header.time, self.term.unwrap_or(0), what);
        }
        if let Some(asked) = word(&header, body) {
            self.word(position, header.time, asked);
        }
    }

    fn word(&mut self, position: Position, time_ns: u64, asked: Administration) {
        let outcome = Outcome::Open;
        let at = self.entries.len();
        let what = What::Asked { asked, outcome };
        self.push(position, time_ns, self.term.unwrap_or(0), what);
        match asked.action() {
            Some(Action::Transfer) => self.transfers.push(at),
            // It was written by what did it.
            Some(Action::ForceSingle) => self.came(at, Outcome::Done { position }),
            _ => self.asked = Some(at),
        }
    }

    fn end_word(&mut self, outcome: Outcome) {
        if let Some(at) = self.asked.take() {
            self.came(at, outcome);
        }
    }

    fn came(&mut self, at: usize, came: Outcome) {
        if let What::Asked { outcome, .. } = &mut self.entries[at].what {
            *outcome = came;
        }
    }

    fn push(&mut self, position: Position, time_ns: u64, term: u64, what: What) {
        self.entries.push(Entry {
            position,
            time_ns,
            term,
            what,
        });
    }
}

fn word(header: &Header, body: &[u8]) -> Option<Administration> {
    if (header.kind, header.version) != (Administration::KIND, Administration::VERSION) {
        return None;
    }
    let own = body.get(..size_of::<Administration>())?;
    Some(bytemuck::pod_read_unaligned(own))
}

impl Deed {
    /// Written with the word in front of it, by what did it.
    fn is_forced(&self) -> bool {
        matches!(self, Deed::Members(Change::Alone(_)))
    }

    fn of(header: &Header, event: &[u8]) -> Option<Deed> {
        match header.kind {
            Membership::KIND => Change::read_from(event)
                .map(Deed::Members)
                .or_else(|| Gating::read_from(event).map(Deed::Gating)),
            VersionSwitch::KIND => {
                let own = event.get(HEADER_BYTES..HEADER_BYTES + size_of::<VersionSwitch>())?;
                let switch: VersionSwitch = bytemuck::pod_read_unaligned(own);
                Some(Deed::Version(switch.version))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::storage::Simulated;
    use lockstep_journaler::{
        Background, Cutter, Frame, FrameDraft, FrameKind, Journal, Options, Term,
    };
    use lockstep_replicator::NodeId;

    use super::*;
    use crate::event::{Event64, Kinds, Slot};

    crate::bodies! { Add, kind 1, version 1: { amount: u64 } }

    struct Log {
        disk: Simulated,
        journal: Journal<Simulated>,
        cutter: Cutter,
    }

    impl Log {
        fn new() -> Log {
            let disk = Simulated::new(1);
            let options = Options {
                background: Background::Stepped,
                ..Options::new(&Add::schema()).with_segment_bytes(64 << 10)
            };
            let (journal, _) = Journal::open(disk.clone(), &options).unwrap();
            let cutter = journal.cutter();
            Log {
                disk,
                journal,
                cutter,
            }
        }

        fn frame(&mut self, term: u64, flags: u8, events: &[Event64]) {
            let body: [&[u8]; 2] = [bytemuck::cast_slice(events), &[]];
            let draft = FrameDraft {
                time_ns: term,
                term: Term(term),
                schema_version: 1,
                kind: FrameKind::Events as u8,
                flags,
                ..FrameDraft::default()
            };
            let count = u32::try_from(events.len()).unwrap();
            let header = &self.cutter.seal(&draft, count, body);
            self.journal.write(&[Frame { header, body }]).unwrap();
            self.journal.sync().unwrap();
        }

        fn read(self) -> Vec<(u64, What)> {
            self.journal.close().unwrap();
            let (entries, ending) = history(&self.disk, Position(0)).unwrap();
            assert_eq!(ending.fault, None);
            entries
                .iter()
                .map(|one| (one.position.0, one.what))
                .collect()
        }
    }

    fn asked(action: Action) -> Administration {
        Administration {
            action: action as u8,
            identity: 2,
            node: 4,
            ..Administration::default()
        }
    }

    fn change(change: Change) -> Event64 {
        let mut event = Event64::event(&Membership::default());
        change.write_to(bytemuck::bytes_of_mut(&mut event));
        event
    }

    fn came(action: Action, outcome: Outcome) -> What {
        let asked = asked(action);
        What::Asked { asked, outcome }
    }

    #[test]
    fn hi1_what_came_of_a_word_is_what_the_log_says_behind_it() {
        let mut log = Log::new();
        let word = |action| Event64::event(&asked(action));
        let add = Event64::event(&Add { amount: 1 });
        log.frame(3, 0, &[]);
        log.frame(3, 0, &[add, word(Action::Add)]);
        log.frame(3, 0, &[change(Change::AddLearner(NodeId(4)))]);
        log.frame(3, 0, &[word(Action::Promote)]);
        log.frame(3, REFUSED, &[change(Change::Promote(NodeId(4)))]);
        log.frame(3, 0, &[word(Action::Transfer), add, word(Action::Remove)]);
        log.frame(5, 0, &[]);
        log.frame(5, 0, &[add, word(Action::Remove), add]);
        let switch = VersionSwitch {
            version: 2,
            spare: 0,
        };
        let switch = Event64::event(&switch);
        log.frame(5, 0, &[switch, word(Action::ForceSingle)]);
        log.frame(5, 0, &[change(Change::Alone(NodeId(4)))]);
        log.frame(5, 0, &[word(Action::SwitchVersion), switch]);
        log.frame(5, 0, &[word(Action::Transfer), word(Action::Gate)]);
        let at = |position| Position(position);
        let term = |is_first| What::Term { is_first };
        let unasked = What::Changed {
            deed: Deed::Version(2),
            is_taken: true,
        };
        let next = Outcome::Term {
            term: 5,
            position: at(8),
        };
        assert_eq!(
            log.read(),
            [
                (0, term(true)),
                (1, came(Action::Add, Outcome::Done { position: at(2) })),
                (
                    3,
                    came(Action::Promote, Outcome::Refused { position: at(4) })
                ),
                (5, came(Action::Transfer, next)),
                (7, came(Action::Remove, Outcome::NotDone)),
                (8, term(false)),
                (9, came(Action::Remove, Outcome::NotDone)),
                (11, unasked),
                (
                    12,
                    came(Action::ForceSingle, Outcome::Done { position: at(12) })
                ),
                (
                    14,
                    came(Action::SwitchVersion, Outcome::Done { position: at(15) })
                ),
                (16, came(Action::Transfer, Outcome::Open)),
                (17, came(Action::Gate, Outcome::Open)),
            ]
        );
    }

    #[test]
    fn the_history_of_an_engine_alone_is_empty() {
        let mut log = Log::new();
        log.frame(0, 0, &[Event64::event(&Add { amount: 1 })]);
        assert_eq!(log.read(), []);
    }
}

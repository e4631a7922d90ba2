//! A small application on every replica: registers, and clients whose requests are done once.
//!
//! A client session is opened by an event; its id is the position behind that event. Requests are numbered; the
//! last answers are part of the state, so that whoever asks twice gets the first answer.
//!
//! # Invariants
//!
//! * `MO1` The state is a function of the events and their positions.
//! * `MO2` A request of a session is done at most once; asked again it is answered as the first time.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::{Pod, Zeroable};

/// An event of the model: 64 bytes, with the header that events of the engine have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// Of the log.
    pub time: u64,
    /// The client session; 0 is nobody's.
    pub session: u64,
    /// The client's number of this request.
    pub request: u32,
    /// [`OPEN`], [`ADD`], or something else, which does nothing.
    pub kind: u16,
    /// 0.
    pub version: u16,
    /// Who asks.
    pub client: u64,
    /// Which register.
    pub register: u64,
    /// How much is added to it.
    pub amount: i64,
    /// 0.
    pub rest: [u64; 2],
}

lockstep_journaler::schema! {
    /// The layout of the model's events.
    pub EVENTS: "lockstep.simulation" version 1 for Event, kind by kind;
    header {
        time: time; session: plain; request: plain; kind: plain; version: plain;
        client: plain; register: plain; amount: plain; rest: plain;
    }
    1 = "open" as Event {}
    2 = "add" as Event {}
    3 = "quarantine" as Event {}
}

/// Bytes of an event.
pub const EVENT_BYTES: u32 = 64;

const _: () = assert!(size_of::<Event>() == EVENT_BYTES as usize);

/// Opens a session.
pub const OPEN: u16 = 1;
/// Adds to a register.
pub const ADD: u16 = 2;
/// Puts the event at the position in `register` into quarantine.
pub const MARK: u16 = 3;
/// The amount on which the logic panics, on every node.
pub const BROKEN: i64 = -1;
/// The amount on which the logic panics on one node only, the one with the number of the register, plus one:
/// its memory is broken, say. The others add it.
pub const BROKEN_ALONE: i64 = -2;
/// How many registers there are.
pub const REGISTERS: usize = 8;
/// How many answers are kept for each session.
pub const WINDOW: u32 = 4;

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Who asked.
    pub client: u64,
    /// In which session; the new one, if it was opened.
    pub session: u64,
    /// Which request.
    pub request: u32,
    /// The position of the event that this is the answer to; of a repeated one the last.
    pub position: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The session is open.
    Opened,
    /// Done, at this position; the register's value behind it.
    Done {
        /// Where it was done the first time.
        at: u64,
        /// The register's value then.
        value: i64,
    },
    /// Done long ago; the answer is gone.
    Gone,
    /// There is no such session.
    Unknown,
}

/// The state.
#[derive(Debug, Clone, Default)]
pub struct Model {
    registers: [i64; REGISTERS],
    sessions: BTreeMap<u64, Session>,
    hash: u64,
    done: u64,
    quarantined: BTreeSet<u64>,
    forgets_requests: bool,
}

#[derive(Debug, Clone, Default)]
struct Session {
    last: u32,
    answers: BTreeMap<u32, (u64, i64)>,
}

impl Model {
    /// Breaks `MO2`, for the simulator to notice.
    #[must_use]
    pub fn forgetting_requests(self) -> Model {
        Model {
            forgets_requests: true,
            ..self
        }
    }

    /// Whether the logic panics on this event, which it is to apply next, on every node.
    #[must_use]
    pub fn panics_on(&self, event: &Event) -> bool {
        event.amount == BROKEN && self.is_new(event)
    }

    /// Whether it panics on this event on this node, and on no other.
    #[must_use]
    pub fn panics_alone_on(&self, event: &Event, node: u16) -> bool {
        let is_of_node = event.register + 1 == u64::from(node);
        event.amount == BROKEN_ALONE && is_of_node && self.is_new(event)
    }

    /// Whether it is a request that was not done yet.
    fn is_new(&self, event: &Event) -> bool {
        let session = self.sessions.get(&event.session);
        event.kind == ADD && session.is_some_and(|session| event.request > session.last)
    }

    /// The events that are in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeSet<u64> {
        &self.quarantined
    }

    /// Applies one event at its position, and says what is to be answered. One on which the logic panics
    /// is passed over, and answered like any other.
    pub fn apply(&mut self, position: u64, event: &Event) -> Option<Reply> {
        let answer = match event.kind {
            OPEN => {
                self.sessions.insert(position + 1, Session::default());
                Some((position + 1, Answer::Opened))
            }
            ADD => Some((event.session, self.add(position, event))),
            _ => None,
        };
        // What is not the model's own is an event like any other that does nothing.
        let kind = if answer.is_some() { event.kind } else { 0 };
        for word in [
            position,
            event.session,
            u64::from(event.request),
            u64::from(kind),
            self.done,
        ] {
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        answer.map(|(session, answer)| Reply {
            client: event.client,
            session,
            request: event.request,
            position,
            answer,
        })
    }

    fn add(&mut self, position: u64, event: &Event) -> Answer {
        let Some(session) = self.sessions.get_mut(&event.session) else {
            return Answer::Unknown;
        };
        if event.request <= session.last && !self.forgets_requests {
            let kept = session.answers.get(&event.request);
            return kept.map_or(Answer::Gone, |&(at, value)| Answer::Done { at, value });
        }
        let value = if event.amount == BROKEN {
            self.quarantined.insert(position);
            i64::MIN
        } else {
            let at = usize::try_from(event.register).unwrap_or(0) % REGISTERS;
            let register = &mut self.registers[at];
            *register = register.wrapping_add(event.amount);
            *register
        };
        session.last = event.request;
        session.answers.insert(event.request, (position, value));
        session
            .answers
            .retain(|&request, _| request + WINDOW > event.request);
        self.done += 1;
        self.hash ^= value.cast_unsigned();
        Answer::Done {
            at: position,
            value,
        }
    }

    /// Of the whole history: two states of one hash came from the same events.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// All of it, for a snapshot.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = vec![self.hash, self.done, u64::from(self.forgets_requests)];
        words.extend(self.registers.map(i64::cast_unsigned));
        words.push(self.quarantined.len() as u64);
        words.extend(&self.quarantined);
        words.push(self.sessions.len() as u64);
        for (id, session) in &self.sessions {
            words.extend([*id, u64::from(session.last), session.answers.len() as u64]);
            for (request, (at, value)) in &session.answers {
                words.extend([u64::from(*request), *at, value.cast_unsigned()]);
            }
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The state in these bytes; `None` if they are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Model> {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut model = Model {
            hash: words.next()?,
            done: words.next()?,
            forgets_requests: words.next()? == 1,
            ..Model::default()
        };
        for register in &mut model.registers {
            *register = words.next()?.cast_signed();
        }
        for _ in 0..words.next()? {
            model.quarantined.insert(words.next()?);
        }
        for _ in 0..words.next()? {
            let (id, last) = (words.next()?, u32::try_from(words.next()?).ok()?);
            let mut session = Session {
                last,
                ..Session::default()
            };
            for _ in 0..words.next()? {
                let request = u32::try_from(words.next()?).ok()?;
                let answer = (words.next()?, words.next()?.cast_signed());
                session.answers.insert(request, answer);
            }
            model.sessions.insert(id, session);
        }
        (words.next().is_none() && rest.is_empty()).then_some(model)
    }

    /// How many requests were done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mo2_who_asks_twice_gets_the_first_answer() {
        let mut model = Model::default();
        let open = Event {
            kind: OPEN,
            ..Event::zeroed()
        };
        model.apply(5, &open);
        let add = Event {
            kind: ADD,
            session: 6,
            request: 1,
            amount: 10,
            ..Event::zeroed()
        };
        let first = model.apply(6, &add).unwrap();
        let again = model.apply(7, &add).unwrap();
        assert_eq!(first.answer, Answer::Done { at: 6, value: 10 });
        assert_eq!(again.answer, first.answer);
        assert_eq!(model.done(), 1);
        let loaded = Model::from_bytes(&model.to_bytes()).unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{model:?}"));
        let stranger = Event { session: 99, ..add };
        assert_eq!(model.apply(8, &stranger).unwrap().answer, Answer::Unknown);
    }
}

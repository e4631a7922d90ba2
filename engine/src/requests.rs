//! Exactly once: what each client session has had done, and the replies.
//!
//! A session is opened by an event; its number is that event's position plus one, so no
//! number is ever used twice. Each request of a session carries the number behind the one
//! before. A request that comes again gets its first answer. All of this is part of the
//! replicated state, so it survives restarts and changes of leader.
//!
//! | number of the request | answer |
//! |---|---|
//! | the last one + 1 | fresh: it is applied |
//! | among those whose replies are kept | repeated: the first answer |
//! | older | refused: the reply is forgotten |
//! | further ahead | refused: one before it is missing |
//!
//! # Invariants
//!
//! * `RQ1` A request is applied at most once: `last` rises by one with each that is.
//! * `RQ2` At most `sessions_max` sessions of `replies_max` replies each.
//! * `RQ4` A principal has at most so many sessions as the log says, those that have expired not counted.
//! * `RQ3` Time is the log's: a session has expired by the header of an event, never by a clock.

use std::collections::VecDeque;

use crate::det_map::DetMap;
use crate::principal::Principal;
use crate::state::{LoadError, State, StateReader, StateWriter};
use crate::system::{Parameters, code};

/// The sessions and what they had done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    sessions: DetMap<u64, Session>,
}

/// One client session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// Free for the client.
    pub tag: u64,
    /// The number of the last request that was applied or refused by the logic.
    pub last: u32,
    /// The log's time of its last request.
    pub last_ns: u64,
    /// Whose it is.
    pub principal: Principal,
    replies: VecDeque<Reply>,
}

/// A session that is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opening {
    /// Free for the client.
    pub tag: u64,
    /// Whose it is.
    pub principal: Principal,
    /// How many one principal may have; 0: as many as there may be.
    pub most: u32,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply {
    /// The request's number.
    pub request: u32,
    /// 0, or the code of the refusal.
    pub code: u16,
    /// The position of the event.
    pub position: u64,
}

/// What a request is to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is the next one of this principal's session.
    Fresh(Principal),
    /// It was answered before.
    Repeated(Reply),
    /// It cannot be taken, by this code.
    Refused(u16),
}

crate::snapshot!(Requests { sessions });

/// The version of a session's bytes, and that of one whose principal has a name (`PR2`).
const SESSION_VERSION: u32 = 1;
const SESSION_WITH_NAME: u32 = 2;

impl State for Session {
    fn save(&self, out: &mut StateWriter<'_>) {
        let has_name = !self.principal.is_nobody();
        let version = if has_name {
            SESSION_WITH_NAME
        } else {
            SESSION_VERSION
        };
        version.save(out);
        self.tag.save(out);
        self.last.save(out);
        self.last_ns.save(out);
        self.replies.save(out);
        if has_name {
            self.principal.save(out);
        }
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let found = u32::load(from)?;
        if !(SESSION_VERSION..=SESSION_WITH_NAME).contains(&found) {
            return Err(LoadError::Version {
                what: "Session",
                found,
                known: SESSION_WITH_NAME,
            });
        }
        let (tag, last, last_ns) = (State::load(from)?, State::load(from)?, State::load(from)?);
        let replies = State::load(from)?;
        let principal = match found {
            SESSION_WITH_NAME => Principal::load(from)?,
            _ => Principal::NOBODY,
        };
        Ok(Self {
            tag,
            last,
            last_ns,
            principal,
            replies,
        })
    }
}

impl State for Reply {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.request.save(out);
        self.code.save(out);
        self.position.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            request: State::load(from)?,
            code: State::load(from)?,
            position: State::load(from)?,
        })
    }
}

impl Requests {
    /// What this request is to its session.
    #[must_use]
    pub fn look(&self, session: u64, request: u32, now_ns: u64, rules: &Parameters) -> Look {
        let Some(session) = self.live(session, now_ns, rules) else {
            return Look::Refused(code::SESSION_UNKNOWN);
        };
        // RQ1: behind the last number that there is comes none.
        if session.last.checked_add(1) == Some(request) {
            return Look::Fresh(session.principal);
        }
        if request > session.last {
            return Look::Refused(code::REQUEST_GAP);
        }
        let kept = session
            .replies
            .iter()
            .find(|reply| reply.request == request);
        kept.map_or(Look::Refused(code::REQUEST_FORGOTTEN), |reply| {
            Look::Repeated(*reply)
        })
    }

    /// Keeps what came of a request that was fresh (`RQ1`).
    pub fn keep(&mut self, session: u64, reply: Reply, now_ns: u64, rules: &Parameters) {
        let Some(session) = self.sessions.get_mut(&session) else {
            return;
        };
        session.last = reply.request;
        session.last_ns = now_ns;
        let most = usize::try_from(rules.replies_max)
            .unwrap_or(usize::MAX)
            .max(1);
        while session.replies.len() >= most {
            session.replies.pop_front();
        }
        session.replies.push_back(reply);
    }

    /// Opens a session of a principal that may have so many (0: as many as there may be), after those that
    /// have expired are gone (`RQ2`, `RQ4`).
    ///
    /// # Errors
    ///
    /// The code of the refusal.
    pub fn open(
        &mut self,
        number: u64,
        of: Opening,
        now_ns: u64,
        rules: &Parameters,
    ) -> Result<(), u16> {
        self.expire(now_ns, rules);
        if self.sessions.len() as u64 >= u64::from(rules.sessions_max) {
            return Err(code::SESSIONS_FULL);
        }
        let Opening {
            tag,
            principal,
            most,
        } = of;
        if most != 0 && !principal.is_nobody() && self.count_of(principal) >= u64::from(most) {
            return Err(code::SESSIONS_OF_PRINCIPAL);
        }
        let replies = usize::try_from(rules.replies_max).unwrap_or(0).min(1024);
        let replies = VecDeque::with_capacity(replies);
        self.sessions.insert(
            number,
            Session {
                tag,
                last: 0,
                last_ns: now_ns,
                principal,
                replies,
            },
        );
        Ok(())
    }

    /// How many sessions this principal has.
    fn count_of(&self, principal: Principal) -> u64 {
        let all = self.sessions.values();
        all.filter(|one| one.principal == principal).count() as u64
    }

    /// Closes a session; what it was.
    pub fn close(&mut self, session: u64) -> Option<Session> {
        self.sessions.remove(&session)
    }

    /// Forgets the sessions that have expired (`RQ3`).
    pub fn expire(&mut self, now_ns: u64, rules: &Parameters) {
        let mut at = 0;
        // Ends: each turn removes one, whose place the last one takes, or goes to the next place.
        while let Some((number, session)) = self.sessions.nth(at) {
            if session.has_expired(now_ns, rules) {
                let number = *number;
                self.sessions.remove(&number);
            } else {
                at += 1;
            }
        }
    }

    /// A session, if it is open and has not expired.
    #[must_use]
    pub fn live(&self, session: u64, now_ns: u64, rules: &Parameters) -> Option<&Session> {
        self.sessions
            .get(&session)
            .filter(|session| !session.has_expired(now_ns, rules))
    }

    /// A session, if it is known, expired or not.
    #[must_use]
    pub fn session(&self, session: u64) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// The kept reply to a request.
    #[must_use]
    pub fn reply(&self, session: u64, request: u32) -> Option<Reply> {
        let session = self.sessions.get(&session)?;
        session
            .replies
            .iter()
            .find(|reply| reply.request == request)
            .copied()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

impl Session {
    fn has_expired(&self, now_ns: u64, rules: &Parameters) -> bool {
        now_ns.saturating_sub(self.last_ns) >= rules.session_expiry_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Parameters = Parameters {
        sessions_max: 2,
        replies_max: 2,
        session_expiry_ns: 100,
        beacon_every: 0,
    };

    fn reply(request: u32, position: u64) -> Reply {
        Reply {
            request,
            code: 0,
            position,
        }
    }

    #[test]
    fn rq1_each_row_of_the_table() {
        let mut requests = Requests::default();
        requests.open(1, Opening::default(), 0, &RULES).unwrap();
        for number in 1..=3 {
            assert_eq!(
                requests.look(1, number, 0, &RULES),
                Look::Fresh(Principal::NOBODY)
            );
            requests.keep(1, reply(number, u64::from(number) * 10), 0, &RULES);
        }
        assert_eq!(requests.look(1, 3, 0, &RULES), Look::Repeated(reply(3, 30)));
        assert_eq!(requests.look(1, 2, 0, &RULES), Look::Repeated(reply(2, 20)));
        assert_eq!(
            requests.look(1, 1, 0, &RULES),
            Look::Refused(code::REQUEST_FORGOTTEN)
        );
        assert_eq!(
            requests.look(1, 5, 0, &RULES),
            Look::Refused(code::REQUEST_GAP)
        );
        assert_eq!(
            requests.look(9, 1, 0, &RULES),
            Look::Refused(code::SESSION_UNKNOWN)
        );
    }

    #[test]
    fn rq1_numbers_do_not_begin_again() {
        let mut requests = Requests::default();
        requests.open(1, Opening::default(), 0, &RULES).unwrap();
        requests.keep(1, reply(u32::MAX - 1, 10), 0, &RULES);
        assert_eq!(
            requests.look(1, u32::MAX, 0, &RULES),
            Look::Fresh(Principal::NOBODY)
        );
        requests.keep(1, reply(u32::MAX, 20), 0, &RULES);
        for number in [0, 1] {
            let forgotten = Look::Refused(code::REQUEST_FORGOTTEN);
            assert_eq!(requests.look(1, number, 0, &RULES), forgotten);
        }
    }

    #[test]
    fn rq2_rq3_sessions_are_bounded_and_expire_by_the_log() {
        let mut requests = Requests::default();
        requests.open(1, Opening::default(), 0, &RULES).unwrap();
        requests.open(2, Opening::default(), 50, &RULES).unwrap();
        assert_eq!(
            requests.open(3, Opening::default(), 99, &RULES),
            Err(code::SESSIONS_FULL)
        );
        assert_eq!(
            requests.look(1, 1, 99, &RULES),
            Look::Fresh(Principal::NOBODY)
        );
        assert_eq!(
            requests.look(1, 1, 100, &RULES),
            Look::Refused(code::SESSION_UNKNOWN)
        );
        requests.open(4, Opening::default(), 120, &RULES).unwrap();
        assert_eq!(requests.len(), 2);
        assert!(requests.live(2, 120, &RULES).is_some());
        let bytes = crate::state::to_bytes(&requests);
        assert_eq!(
            crate::state::from_bytes::<Requests>(&bytes).unwrap(),
            requests
        );
    }

    #[test]
    fn rq4_a_principal_has_so_many_sessions_and_whoever_has_no_name_has_no_limit() {
        let rules = Parameters {
            sessions_max: 9,
            ..RULES
        };
        let of = |name: &str| Opening {
            tag: 7,
            principal: Principal::of(name),
            most: 2,
        };
        let mut requests = Requests::default();
        requests.open(1, of("desk"), 0, &rules).unwrap();
        requests.open(2, of("desk"), 50, &rules).unwrap();
        let full = Err(code::SESSIONS_OF_PRINCIPAL);
        assert_eq!(requests.open(3, of("desk"), 60, &rules), full);
        requests.open(4, of("other"), 60, &rules).unwrap();
        for number in 5..8 {
            requests.open(number, of(""), 60, &rules).unwrap();
        }
        let look = requests.look(4, 1, 60, &rules);
        assert_eq!(look, Look::Fresh(Principal::of("other")));
        let bytes = crate::state::to_bytes(&requests);
        let read: Requests = crate::state::from_bytes(&bytes).unwrap();
        assert_eq!(read, requests);
        // The first one has expired, or is closed.
        requests.open(8, of("desk"), 100, &rules).unwrap();
        assert_eq!(requests.open(9, of("desk"), 101, &rules), full);
        requests.close(8).unwrap();
        requests.open(9, of("desk"), 101, &rules).unwrap();
    }

    #[test]
    fn pr2_without_names_the_bytes_are_those_of_before() {
        let mut requests = Requests::default();
        let of = Opening {
            tag: 5,
            ..Opening::default()
        };
        requests.open(3, of, 9, &RULES).unwrap();
        requests.keep(3, reply(1, 4), 9, &RULES);
        // As `snapshot!` wrote them: version, one session, its number, version, and the four fields.
        let replies = (1_u64, (1_u32, 0_u16, 4_u64));
        let before = crate::state::to_bytes(&(
            (1_u32, 1_u64, 3_u64),
            (1_u32, 5_u64, 1_u32),
            (9_u64, replies),
        ));
        assert_eq!(crate::state::to_bytes(&requests), before);
    }
}

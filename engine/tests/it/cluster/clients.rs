//! Clients that deposit one cent after the other, and what they were told.

use std::collections::BTreeMap;

use lockstep_engine::cluster::{Asker, Done, Refused, request};
use lockstep_engine::prelude::*;
use lockstep_engine::system::{SessionOpen, code};

use super::world::{World, next_of};
use crate::bank::{Bomb, Deposit};

/// A client that has no answer for so long asks again.
const PATIENCE_NS: u64 = 400_000_000;

/// Whoever asks with this token hears nothing.
pub(super) const NOBODY: u64 = u64::MAX;

/// A client that deposits 1 on its own account, one request after the other.
#[derive(Default)]
pub(super) struct Client {
    pub(super) session: Option<u64>,
    pub(super) request: u32,
    /// What it waits for: since when, and at which node.
    pub(super) asked: Option<(u64, usize)>,
    pub(super) leader: usize,
    /// The position of each answer, by request.
    pub(super) answers: BTreeMap<u32, u64>,
}

/// What the clients heard in one turn.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) what: Vec<(u64, Result<Done, bool>)>,
    pub(super) outputs: Vec<Event64>,
}

impl Asker<Event64> for Heard {
    fn output(&mut self, _: u64, output: &Event64) {
        self.outputs.push(*output);
    }
    fn done(&mut self, token: u64, done: Done) {
        self.what.push((token, Ok(done)));
    }
    fn not_led(&mut self, token: u64) {
        self.what.push((token, Err(true)));
    }
    fn unknown(&mut self, token: u64) {
        self.what.push((token, Err(false)));
    }
}

/// Whether this request of a client is one on which the logic panics.
pub(super) fn is_bomb(every: u32, number: usize, request: u32) -> bool {
    let number = u32::try_from(number).unwrap();
    every != 0 && (request + number).is_multiple_of(every)
}

impl World {
    pub(super) fn hear(&mut self, at: usize, token: u64, what: Result<Done, bool>) {
        if token == NOBODY {
            return;
        }
        let number = usize::try_from(token >> 32).unwrap();
        let asked_for = u32::try_from(token & u64::from(u32::MAX)).unwrap();
        let client = &mut self.clients[number];
        let is_current =
            client.request == asked_for && client.asked.is_some_and(|(_, node)| node == at);
        let expected = match is_bomb(self.bomb_every, number, asked_for) {
            true => code::QUARANTINED,
            false => 0,
        };
        match what {
            Ok(done) if done.code == 0 && asked_for == 0 => {
                if client.session.is_none() {
                    client.session = Some(done.position.0 + 1);
                    (client.request, client.asked) = (1, None);
                }
            }
            Ok(done) if done.code == expected => {
                let position = done.first.unwrap_or(done.position).0;
                let first = client.answers.entry(asked_for).or_insert(position);
                assert_eq!(
                    *first, position,
                    "seed {}: a repeated request got another answer",
                    self.seed
                );
                if is_current {
                    (client.request, client.asked) = (asked_for + 1, None);
                }
            }
            Ok(done) => panic!(
                "seed {}: client {number}, request {asked_for}: {done:?}",
                self.seed
            ),
            Err(_) if is_current => {
                client.asked = None;
                client.leader = next_of(at);
            }
            Err(_) => {}
        }
    }

    pub(super) fn ask(&mut self, number: usize) {
        let now = self.now_ns;
        let client = &mut self.clients[number];
        if client
            .asked
            .is_some_and(|(since, _)| now - since > PATIENCE_NS)
        {
            client.asked = None;
            client.leader = next_of(client.leader);
        }
        if client.asked.is_some() || client.request > self.deposits_max {
            return;
        }
        let at = client.leader;
        let account = u64::try_from(number).unwrap();
        let event: Event64 = match client.session {
            None => Event64::event(&SessionOpen { tag: account }),
            Some(session) if is_bomb(self.bomb_every, number, client.request) => {
                let is_armed_in_validate = 0;
                let bomb = Bomb {
                    account,
                    is_armed_in_validate,
                };
                request(session, client.request, &bomb)
            }
            Some(session) => request(session, client.request, &Deposit { account, cents: 1 }),
        };
        let token = account << 32 | u64::from(client.request);
        let process = &mut self.processes[at];
        let Some(node) = process.node.as_mut().filter(|_| !process.is_paused) else {
            client.leader = next_of(at);
            return;
        };
        match node.let_in(token, &event) {
            Ok(_) => client.asked = Some((now, at)),
            Err(Refused::Busy) => {}
            Err(Refused::NotLeading { leader }) => {
                client.leader = leader.map_or(next_of(at), |leader| usize::from(leader.0) - 1);
            }
        }
    }
}

//! One connection: its socket, what was read of it, what is left to write.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::IpAddr;

use super::accounts::Account;
use super::sessions::Whose;
use super::{Admit, Asked, Gateway, Leadership, Principal};
use crate::client::codec::{PacketKind, Packets};
use crate::transport::{Stream, is_early};

/// Packets that one turn takes from one client, so that the others have their turn too.
const PACKETS_PER_TURN: usize = 1_024;

/// Sessions of which one connection remembers that it may use them; of more it asks again.
const SESSIONS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) packets: Packets,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) address: IpAddr,
    pub(super) principal: Option<Principal>,
    /// Of the principal.
    pub(super) account: Account,
    /// What is asked is answered no more; the connection ends when all is written.
    pub(super) is_ending: bool,
    /// Packets wait that no socket will report.
    pub(super) has_more: bool,
    /// What it asks next waits until it is settled who leads (`G8`), or whose a session is (`G10`).
    pub(super) is_held: bool,
    /// Sessions that it may use (`G10`).
    pub(super) sessions: BTreeSet<u64>,
    /// Until then it must have greeted, or be gone (`G5`).
    pub(super) deadline_ns: u64,
}

/// Whether only a leader can take what comes next.
fn asks_to_lead(packets: &Packets) -> bool {
    matches!(
        packets.next_head(),
        Some((
            PacketKind::Open | PacketKind::Request | PacketKind::Close,
            _
        ))
    )
}

enum Filled {
    Some,
    /// All that the socket had: what comes later it reports.
    Last,
    None,
    Ended,
}

impl Connected {
    pub(super) fn new(stream: Stream, address: IpAddr, deadline_ns: u64) -> Connected {
        Connected {
            stream,
            packets: Packets::default(),
            out: Vec::new(),
            written: 0,
            address,
            principal: None,
            account: None,
            is_ending: false,
            has_more: false,
            is_held: false,
            sessions: BTreeSet::new(),
            deadline_ns,
        }
    }

    pub(super) fn wants_write(&self) -> bool {
        self.stream.wants_write() || self.written < self.out.len()
    }

    /// `G10`
    pub(super) fn may_use(&mut self, session: u64) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.clear();
        }
        self.sessions.insert(session);
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        self.stream
            .flush()
            .or_else(|error| if is_early(&error) { Ok(()) } else { Err(error) })?;
        // Ends: each turn writes at least a byte.
        while self.written < self.out.len() {
            match self
                .stream
                .write(&[IoSlice::new(&self.out[self.written..])])
            {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if is_early(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > 64 << 10 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

impl Gateway {
    pub(super) fn read(&mut self, id: u64, ask: &mut impl FnMut(Asked<'_>) -> Admit) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut packets = std::mem::take(&mut client.packets);
        let mut left = PACKETS_PER_TURN;
        let mut is_alive = true;
        let (mut is_drained, mut is_held) = (false, false);
        let mut may_have_more = true;
        // Ends: each turn takes from `left`, or comes to the end of what is there.
        while is_alive && left > 0 {
            if self.leadership == Leadership::Soon && asks_to_lead(&packets) {
                is_held = true;
                break;
            }
            match self.whose(id, &packets, ask) {
                Whose::Fine => {}
                Whose::Asked => {
                    is_held = true;
                    break;
                }
                Whose::Anothers => break,
            }
            match packets.next() {
                Ok(Some(packet)) => {
                    left -= 1;
                    self.take_packet(id, &packet, ask);
                    is_alive = self
                        .clients
                        .get(&id)
                        .is_some_and(|client| !client.is_ending);
                }
                Ok(None) if !may_have_more => {
                    is_drained = true;
                    break;
                }
                Ok(None) => match self.fill(id, &mut packets) {
                    Filled::Some => {}
                    Filled::Last => may_have_more = false,
                    Filled::None => {
                        is_drained = true;
                        break;
                    }
                    Filled::Ended => {
                        self.remove(id);
                        return;
                    }
                },
                Err(_) => {
                    self.traffic.cut += 1;
                    self.remove(id);
                    return;
                }
            }
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.has_more = !is_drained && !is_held && is_alive && !client.is_ending;
            client.is_held = is_held;
            client.packets = packets;
        }
    }

    fn fill(&mut self, id: u64, packets: &mut Packets) -> Filled {
        let Some(client) = self.clients.get_mut(&id) else {
            return Filled::Ended;
        };
        let room = packets.room();
        let most = room.len();
        match client.stream.read(room) {
            Ok(0) => Filled::Ended,
            Ok(count) => {
                packets.filled(count);
                if count < most && client.stream.tells_its_end() {
                    Filled::Last
                } else {
                    Filled::Some
                }
            }
            Err(error) if is_early(&error) => Filled::None,
            Err(_) => Filled::Ended,
        }
    }
}

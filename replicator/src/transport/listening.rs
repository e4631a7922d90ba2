//! A port that rests where the system gives no more sockets.
//!
//! A listener whose `accept` fails for want of descriptors stays readable: who waits for it is woken at
//! once, for ever. So it is not waited for during a rest, and asked again behind it. Where a place is
//! kept, one of those who knock gets in nevertheless.
//!
//! # Invariants
//!
//! * `L1` Behind a failure to accept nobody is accepted, and the listener is not waited for, for as long
//!   as a rest takes.
//! * `L2` A failure is told once, until somebody has been accepted in the usual way again.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::Waiting;
use super::sys::listen;

/// How long a listener rests.
const REST_NS: u64 = 100_000_000;

/// A listener, and what it cannot do at the moment.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    /// A descriptor that is given up when there is no other.
    spare: Option<File>,
    keeps_spare: bool,
    rests_until_ns: u64,
    failures: u64,
    is_told: bool,
    notice: Option<String>,
}

/// Somebody who knocked.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: TcpStream,
    pub(crate) address: IpAddr,
    /// On the place that was kept: there is no other.
    pub(crate) is_last: bool,
}

impl Listening {
    /// Listens there, with or without a place for one more.
    pub(crate) fn at(address: SocketAddr, keeps_spare: bool) -> io::Result<Listening> {
        let mut listening = Listening {
            listener: listen(address)?,
            spare: None,
            keeps_spare,
            rests_until_ns: 0,
            failures: 0,
            is_told: false,
            notice: None,
        };
        listening.keep_place();
        Ok(listening)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Times that the system gave no socket.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// What an operator has to know, once.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }

    /// Keeps a place for one more, if it was given away and there is one.
    pub(crate) fn keep_place(&mut self) {
        if self.keeps_spare && self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }

    /// Its number among those that are waited for; `None` while it rests (`L1`).
    pub(crate) fn wait(&self, now_ns: u64, waiting: &mut Waiting) -> Option<usize> {
        (now_ns >= self.rests_until_ns).then(|| waiting.add(self.listener.as_fd(), true, false))
    }

    /// How long it rests from now on; nought is not at all.
    pub(crate) fn rests_for(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.rests_until_ns.saturating_sub(now_ns))
    }

    /// The next one who knocks.
    pub(crate) fn accept(&mut self, now_ns: u64) -> Option<Accepted> {
        if now_ns < self.rests_until_ns {
            return None;
        }
        match self.listener.accept() {
            Ok((socket, from)) => {
                self.is_told = false;
                Some(Accepted {
                    socket,
                    address: from.ip(),
                    is_last: false,
                })
            }
            Err(error) if is_nobody(&error) => None,
            Err(error) => self.accept_last(now_ns, &error),
        }
    }

    /// There is no socket: the place that was kept is given to who knocks, then it rests.
    fn accept_last(&mut self, now_ns: u64, error: &io::Error) -> Option<Accepted> {
        self.failures += 1;
        self.rests_until_ns = now_ns.saturating_add(REST_NS);
        if !self.is_told {
            self.is_told = true;
            let at = self.listener.local_addr();
            let at = at.map_or_else(|_| "a port".to_owned(), |at| at.to_string());
            self.notice = Some(format!(
                "{at}: nobody more can be accepted: {error}; raise the limit of open files (`ulimit -n`, \
                 LimitNOFILE), or lower `clients.connections_max`"
            ));
        }
        drop(self.spare.take()?);
        let (socket, from) = self.listener.accept().ok()?;
        Some(Accepted {
            socket,
            address: from.ip(),
            is_last: true,
        })
    }
}

/// Nobody knocks, or who did has gone away again.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

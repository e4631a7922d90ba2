//! The few calls that std has no safe face for: waiting on many sockets, and the options of one.

#![expect(
    unsafe_code,
    reason = "poll(2) and setsockopt(2) by number have no safe face in std"
)]

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Linux's `TCP_RTO_MIN_US`, from recent kernels on; distributions' headers lack it.
const TCP_RTO_MIN_US: libc::c_int = 45;

/// A lost segment is sent again after 5 ms at the earliest, not after 200: p99 of a ping-pong with 1 %
/// loss fell from 207 ms to 19.
const RTO_MIN_US: libc::c_int = 5_000;

/// What is waited for, and what came of it: the sockets of peers, those of clients, and whatever
/// else a thread sleeps on.
#[derive(Debug, Default)]
pub struct Waiting {
    fds: Vec<libc::pollfd>,
}

impl Waiting {
    /// Waits for nothing.
    pub fn clear(&mut self) {
        self.fds.clear();
    }

    /// Waits for this one too; its number in the questions that follow.
    pub fn add(&mut self, fd: BorrowedFd<'_>, read: bool, write: bool) -> usize {
        let mut events = 0;
        if read {
            events |= libc::POLLIN;
        }
        if write {
            events |= libc::POLLOUT;
        }
        self.fds.push(libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        });
        self.fds.len() - 1
    }

    /// Waits until one is ready, or that long. How many are.
    ///
    /// # Errors
    ///
    /// The system cannot wait.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let ready = self.poll(timeout);
        if ready >= 0 {
            return Ok(usize::try_from(ready).unwrap_or(0));
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(0);
        }
        Err(error)
    }

    #[cfg(target_os = "linux")]
    fn poll(&mut self, timeout: Duration) -> libc::c_int {
        // A day is long enough, and fits.
        let timeout = timeout.min(Duration::from_secs(86_400));
        // SAFETY: a `timespec` is two numbers, and on some systems padding: all zeros is one.
        let mut limit: libc::timespec = unsafe { std::mem::zeroed() };
        limit.tv_sec = libc::time_t::try_from(timeout.as_secs()).unwrap_or(0);
        limit.tv_nsec = libc::c_long::from(timeout.subsec_nanos().cast_signed());
        let count = self.fds.len() as libc::nfds_t;
        // SAFETY: `ppoll` wants (1) an array of `count` pollfds that it may write to: `fds` is one, and
        // nobody else has it while we hold `&mut self`; (2) a `timespec` to read: our own; (3) a set of
        // signals or null: null; (4) nothing of the descriptors: one that is closed is told as POLLNVAL.
        unsafe {
            libc::ppoll(
                self.fds.as_mut_ptr(),
                count,
                &raw const limit,
                std::ptr::null(),
            )
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn poll(&mut self, timeout: Duration) -> libc::c_int {
        let mut millis = timeout.as_millis();
        if !timeout.subsec_nanos().is_multiple_of(1_000_000) {
            millis += 1;
        }
        let millis = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
        let count = self.fds.len() as libc::nfds_t;
        // SAFETY: `poll` wants (1) an array of `count` pollfds that it may write to: `fds` is one, and
        // nobody else has it while we hold `&mut self`; (2) nothing of the descriptors: one that is
        // closed is told as POLLNVAL.
        unsafe { libc::poll(self.fds.as_mut_ptr(), count, millis) }
    }

    /// Whether a read would not wait: there are bytes, or the end, or an error.
    #[must_use]
    pub fn is_readable(&self, number: usize) -> bool {
        let found = libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        self.fds
            .get(number)
            .is_some_and(|fd| fd.revents & found != 0)
    }

    /// Whether a write would not wait.
    #[must_use]
    pub fn is_writable(&self, number: usize) -> bool {
        let found = libc::POLLOUT | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        self.fds
            .get(number)
            .is_some_and(|fd| fd.revents & found != 0)
    }
}

/// Begins to connect, without waiting for it: writable means connected, or failed.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Listens here. A port is taken again at once after a restart.
pub(crate) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets what we want of a socket: no waiting for more to send, early retransmission, and an end to
/// what nobody has acknowledged for `dead_after`.
pub(crate) fn tune(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let second = Duration::from_secs(1);
    // A side that has nothing to say does not notice that the other one gave the connection up while a
    // cable was out: it asks each second, not each 75 as the system would.
    let keepalive = TcpKeepalive::new()
        .with_time(dead_after.max(second))
        .with_interval(second);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(dead_after))?;
        retransmit_early(stream);
    }
    Ok(())
}

/// An older kernel says that it has no such option (`ENOPROTOOPT`), and goes on as it did.
#[cfg(target_os = "linux")]
fn retransmit_early(stream: &TcpStream) {
    let value = RTO_MIN_US;
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: `setsockopt` wants (1) a descriptor: an open one, since `stream` is borrowed; (2) a
    // pointer to as many bytes as the length says, which it only reads: a `c_int` of our own and its
    // size.
    let _refused_or_not = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MIN_US,
            (&raw const value).cast(),
            length,
        )
    };
}

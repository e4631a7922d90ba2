//! Ends the waiting of a thread that sleeps on its sockets.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Held by those who wake. A copy wakes the same thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<UnixStream>);

/// Held by the thread that sleeps: it waits for this to be readable.
#[derive(Debug)]
pub struct Sleeper(UnixStream);

/// A waker and its sleeper.
///
/// # Errors
///
/// The system has no more descriptors.
pub fn waker() -> io::Result<(Waker, Sleeper)> {
    let (waker, sleeper) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    sleeper.set_nonblocking(true)?;
    Ok((Waker(Arc::new(waker)), Sleeper(sleeper)))
}

impl Waker {
    /// Wakes the thread, or keeps it from falling asleep.
    pub fn wake(&self) {
        // Full means that it is awake already; gone, that nobody sleeps.
        let _ = (&*self.0).write(&[1]);
    }
}

impl Sleeper {
    /// Forgets how often it was woken: before looking whether there is work, or a wake is lost.
    pub fn clear(&mut self) {
        let mut bytes = [0; 256];
        // Ends: nothing is there, or the wakers are gone.
        while matches!(self.0.read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! Connections between nodes that can be cut: each pair of nodes talks through a proxy of its own.
//!
//! A cut link is silent, as a network is: bytes are taken and held back, and nothing is closed. When it
//! is whole again, what was held back is lost with its connection, and the nodes dial anew.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often a thread looks whether its link was cut.
const LOOK: Duration = Duration::from_millis(2);

/// A link from one node to another.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    /// Rises with each mending: connections from before end.
    age: Arc<AtomicU64>,
}

impl Link {
    /// A proxy in front of this address.
    pub(super) fn open(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Self {
            address: listener.local_addr()?,
            is_cut: Arc::default(),
            age: Arc::default(),
        };
        let own = link.clone();
        spawn("drill-link", move || own.accept(&listener, target))?;
        Ok(link)
    }

    pub(super) fn cut(&self) {
        // ORDERING: Relaxed, nothing is read by way of the flag.
        self.is_cut.store(true, Ordering::Relaxed);
    }

    pub(super) fn mend(&self) {
        // ORDERING: Relaxed, as in `cut`.
        if self.is_cut.swap(false, Ordering::Relaxed) {
            // ORDERING: Relaxed, a number that threads compare.
            self.age.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_cut(&self) -> bool {
        // ORDERING: Relaxed, as in `cut`.
        self.is_cut.load(Ordering::Relaxed)
    }

    fn accept(&self, listener: &TcpListener, target: SocketAddr) {
        // Ends: with the process.
        while let Ok((near, _)) = listener.accept() {
            let own = self.clone();
            // A thread that cannot be had is a connection that is lost.
            let _lost = spawn("drill-connection", move || own.carry(near, target));
        }
    }

    fn carry(&self, near: TcpStream, target: SocketAddr) {
        // ORDERING: Relaxed, as in `mend`.
        let age = self.age.load(Ordering::Relaxed);
        // Ends: the link is whole.
        while self.is_cut() {
            std::thread::park_timeout(LOOK);
        }
        let Ok(far) = TcpStream::connect(target) else {
            return;
        };
        let (Ok(near_two), Ok(far_two)) = (near.try_clone(), far.try_clone()) else {
            return;
        };
        let own = self.clone();
        let _lost = spawn("drill-connection", move || own.copy(far_two, near_two, age));
        self.copy(near, far, age);
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, age: u64) {
        let _delay = to.set_nodelay(true);
        let _limit = from.set_read_timeout(Some(Duration::from_millis(20)));
        let mut bytes = [0; 64 << 10];
        // Ends: one side closed, or the link was mended since.
        loop {
            // ORDERING: Relaxed, as in `mend`.
            if self.age.load(Ordering::Relaxed) != age {
                break;
            }
            if self.is_cut() {
                std::thread::park_timeout(LOOK);
                continue;
            }
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Ok(_) | Err(_) => break,
            }
        }
        let _closed = to.shutdown(std::net::Shutdown::Both);
        let _closed = from.shutdown(std::net::Shutdown::Both);
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)?;
    Ok(())
}

//! Connections between nodes that can be cut: each pair of nodes talks through a proxy of its own.
//!
//! A cut link is silent, as a network is: bytes are taken and held back, and nothing is closed. When it
//! is whole again, what was held back is lost with its connection, and the nodes dial anew. One direction
//! can be cut by itself, and each can be made longer: then bytes arrive a fixed time after they were sent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::processes::now;

/// How often a thread looks whether its link was cut.
const LOOK: Duration = Duration::from_millis(2);

/// A link from one node to another.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) address: SocketAddr,
    /// From the node that dials to the one that is dialed.
    there: Arc<AtomicBool>,
    /// From the one that is dialed.
    back: Arc<AtomicBool>,
    delay: Duration,
    /// Rises with each mending: connections from before end.
    age: Arc<AtomicU64>,
}

impl Link {
    /// A proxy in front of this address.
    pub(super) fn open(target: SocketAddr, delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Self {
            address: listener.local_addr()?,
            there: Arc::default(),
            back: Arc::default(),
            delay,
            age: Arc::default(),
        };
        let own = link.clone();
        spawn("drill-link", move || own.accept(&listener, target))?;
        Ok(link)
    }

    /// Cuts it in one direction, or in both.
    pub(super) fn cut(&self, there: bool, back: bool) {
        // ORDERING: Relaxed, nothing is read by way of the flags.
        self.there.store(there, Ordering::Relaxed);
        // ORDERING: Relaxed, as above.
        self.back.store(back, Ordering::Relaxed);
    }

    pub(super) fn mend(&self) {
        // ORDERING: Relaxed, as in `cut`.
        let there = self.there.swap(false, Ordering::Relaxed);
        // ORDERING: Relaxed, as in `cut`.
        let back = self.back.swap(false, Ordering::Relaxed);
        if there || back {
            // ORDERING: Relaxed, a number that threads compare.
            self.age.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_cut(&self) -> bool {
        // ORDERING: Relaxed, as in `cut`.
        self.there.load(Ordering::Relaxed) || self.back.load(Ordering::Relaxed)
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
        let _lost = spawn("drill-connection", move || {
            own.copy(far_two, near_two, age, &own.back);
        });
        self.copy(near, far, age, &self.there);
    }

    fn copy(&self, mut from: TcpStream, to: TcpStream, age: u64, is_cut: &AtomicBool) {
        let _delay = to.set_nodelay(true);
        let _limit = from.set_read_timeout(Some(Duration::from_millis(20)));
        let Ok(mut to) = Onwards::new(to, self.delay) else {
            return;
        };
        let mut bytes = [0; 64 << 10];
        // Ends: one side closed, or the link was mended since.
        loop {
            // ORDERING: Relaxed, as in `mend`.
            if self.age.load(Ordering::Relaxed) != age {
                break;
            }
            // ORDERING: Relaxed, as in `cut`.
            if is_cut.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                continue;
            }
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) if to.write(&bytes[..count]) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Ok(_) | Err(_) => break,
            }
        }
        to.close();
        let _closed = from.shutdown(std::net::Shutdown::Both);
    }
}

/// One direction's way on: at once, or by a thread that lets each piece wait.
#[derive(Debug)]
struct Onwards {
    stream: TcpStream,
    late: Option<mpsc::Sender<(Instant, Vec<u8>)>>,
    delay: Duration,
}

impl Onwards {
    fn new(stream: TcpStream, delay: Duration) -> anyhow::Result<Self> {
        if delay.is_zero() {
            let late = None;
            return Ok(Self {
                stream,
                late,
                delay,
            });
        }
        let (late, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
        let mut end = stream.try_clone()?;
        spawn("drill-delay", move || {
            // Ends: with the connection.
            for (due, piece) in pieces {
                std::thread::sleep(due.saturating_duration_since(now()));
                if end.write_all(&piece).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            stream,
            late: Some(late),
            delay,
        })
    }

    /// `false`: the connection is gone.
    fn write(&mut self, bytes: &[u8]) -> bool {
        match &self.late {
            Some(late) => late.send((now() + self.delay, bytes.to_vec())).is_ok(),
            None => self.stream.write_all(bytes).is_ok(),
        }
    }

    fn close(self) {
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends with a link between them.
    fn pair(delay: Duration) -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::open(listener.local_addr().unwrap(), delay).unwrap();
        let near = TcpStream::connect(link.address).unwrap();
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            let patience = Some(Duration::from_secs(30));
            end.set_read_timeout(patience).unwrap();
        }
        (link, near, far)
    }

    fn byte(from: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        matches!(from.read(&mut byte), Ok(1)).then_some(byte[0])
    }

    #[test]
    fn one_direction_is_cut_and_the_other_is_not() {
        let (link, mut near, mut far) = pair(Duration::ZERO);
        near.write_all(b"a").unwrap();
        assert_eq!(byte(&mut far), Some(b'a'));
        link.cut(true, false);
        // What the link had begun to read when it was cut may still arrive: one piece.
        near.write_all(b"b").unwrap();
        far.write_all(b"c").unwrap();
        assert_eq!(byte(&mut near), Some(b'c'), "the way back is whole");
        link.mend();
        // The connection from before ends: nobody takes what was lost for what is.
        let rest: Vec<u8> = std::iter::from_fn(|| byte(&mut far)).collect();
        assert!(rest.is_empty() || rest == b"b", "{rest:?}");
        assert_eq!(byte(&mut near), None);
    }

    #[test]
    fn what_is_delayed_arrives_no_earlier() {
        let delay = Duration::from_millis(30);
        let (_link, mut near, mut far) = pair(delay);
        let sent = now();
        near.write_all(b"ab").unwrap();
        assert_eq!((byte(&mut far), byte(&mut far)), (Some(b'a'), Some(b'b')));
        assert!(sent.elapsed() >= delay);
    }
}

//! The counters as Prometheus text over HTTP, on a cold thread of their own: whoever asks slowly, or
//! asks nonsense, keeps nobody waiting but those who ask.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_ringbuffer::Probe;

use crate::counters::Counters;
use crate::ledger::Ledger;
use crate::node::watch::Rows;
use crate::runtime::clock::Stopwatch;
use crate::shared::Shared;

/// How often it looks whether somebody asks.
const LOOK: Duration = Duration::from_millis(10);

/// How long one request may take to come, and its answer to go.
const PATIENCE: Duration = Duration::from_millis(500);

/// A request that is longer is none of ours.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// See the module.
pub(crate) struct Metrics {
    pub(crate) listener: TcpListener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) probe: Probe,
    pub(crate) ledger: Ledger,
    pub(crate) rows: Rows,
    pub(crate) is_over: Arc<AtomicBool>,
}

impl Metrics {
    pub(crate) fn run(mut self) {
        // ORDERING: Acquire, pairs with the Release of who closes. Ends: by this flag.
        while !self.is_over.load(Ordering::Acquire) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(stream) {
                        tracing::debug!(%error, "a scrape went away");
                    }
                }
                // Nobody asks; or the system has no descriptor to spare, which passes.
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }

    fn answer(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (status, kind, body) = match request(&mut stream)?.as_deref().map(path) {
            Some(Ok("/" | "/metrics")) => {
                let rows = self.rows.now(&self.probe, self.ledger, &self.shared);
                (
                    "200 OK",
                    "text/plain; version=0.0.4",
                    Counters::prometheus(&rows),
                )
            }
            Some(Ok(_)) => (
                "404 Not Found",
                "text/plain",
                "only /metrics is here\n".into(),
            ),
            Some(Err(status)) => (
                status,
                "text/plain",
                "GET /metrics is all there is\n".into(),
            ),
            None => {
                let text = format!("a request has {REQUEST_BYTES_MAX} bytes at most\n");
                ("431 Request Header Fields Too Large", "text/plain", text)
            }
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        // What the other still sends is read and dropped, so that the answer is not cut by a reset.
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = [0; 512];
        let watch = Stopwatch::start();
        // Ends: the other closes, or by time.
        while watch.elapsed() < PATIENCE && stream.read(&mut rest).is_ok_and(|read| read != 0) {}
        Ok(())
    }
}

/// The head of a request, up to its empty line or the other's end; `None` if it is too long.
fn request(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let watch = Stopwatch::start();
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    // Ends: with the head, by its length, or by time.
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let left = PATIENCE.checked_sub(watch.elapsed());
        let left = left.filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(ErrorKind::TimedOut)?))?;
        match stream.read(&mut piece)? {
            0 => break,
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    Ok(Some(head))
}

/// What is asked for, or the status by which it is refused.
fn path(head: &[u8]) -> Result<&str, &'static str> {
    const BAD: &str = "400 Bad Request";
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BAD)?;
    let mut words = line.trim_end().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    match (method, target, version, words.next()) {
        (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/1.") => {
            if method != "GET" {
                return Err("405 Method Not Allowed");
            }
            Ok(target.split('?').next().unwrap_or(target))
        }
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_request_line_is_taken_apart_or_refused() {
        assert_eq!(
            path(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            Ok("/metrics")
        );
        assert_eq!(path(b"GET /?name=a HTTP/1.0\r\n\r\n"), Ok("/"));
        assert_eq!(
            path(b"POST / HTTP/1.1\r\n\r\n"),
            Err("405 Method Not Allowed")
        );
        for nonsense in [
            &b""[..],
            b"\r\n\r\n",
            b"GET\r\n",
            b"GET / HTTP/2\r\n",
            b"GET / a HTTP/1.1\r\n",
            b"\xff\xfe / HTTP/1.1\r\n",
        ] {
            assert_eq!(path(nonsense), Err("400 Bad Request"), "{nonsense:?}");
        }
    }
}

//! A socket that never waits, plain or with TLS 1.3.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::Connection;
use rustls::pki_types::CertificateDer;

/// What TLS keeps of what was written and does not fit into the socket.
const TLS_BUFFER_BYTES: usize = 256 << 10;

/// A connected socket, or one that is about to be.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
}

impl Stream {
    /// Without TLS.
    pub(crate) fn plain(socket: TcpStream) -> Stream {
        Stream { socket, tls: None }
    }

    /// With TLS, whose handshake goes on with every read and write.
    pub(crate) fn tls(socket: TcpStream, mut tls: Connection) -> Stream {
        match &mut tls {
            Connection::Client(tls) => tls.set_buffer_limit(Some(TLS_BUFFER_BYTES)),
            Connection::Server(tls) => tls.set_buffer_limit(Some(TLS_BUFFER_BYTES)),
        }
        Stream {
            socket,
            tls: Some(Box::new(tls)),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether a read that did not fill its room has taken all there was: TLS may hold more of it back.
    pub(crate) fn tells_its_end(&self) -> bool {
        self.tls.is_none()
    }

    /// Whether TLS still greets; without TLS there is nothing to greet.
    pub(crate) fn is_greeting(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether TLS has bytes that the socket did not take yet.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// The certificate that the other side showed; `None` without TLS, or before it did.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        let shown = self.tls.as_ref()?.peer_certificates()?;
        shown.first().map(|first| first.clone().into_owned())
    }

    /// Reads what is there; 0 is the end, `WouldBlock` nothing.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(into);
        };
        // Ends: each turn takes bytes from the socket, which has an end or says `WouldBlock`.
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let taken = tls.read_tls(&mut self.socket);
            if matches!(taken, Ok(0)) {
                return Ok(0);
            }
            taken?;
            let processed = tls.process_new_packets();
            // Also after an error: the alert tells the other side why.
            let flushed = push(tls, &mut self.socket);
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            flushed?;
        }
    }

    /// Writes what fits; `WouldBlock` is nothing.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write_vectored(slices);
        };
        push(tls, &mut self.socket)?;
        if tls.wants_write() || tls.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = tls.writer().write_vectored(slices)?;
        push(tls, &mut self.socket)?;
        Ok(written)
    }

    /// Gives the socket what TLS holds back.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => push(tls, &mut self.socket),
            None => Ok(()),
        }
    }

    /// No more will be written.
    pub(crate) fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The other side sees the end in either case.
            let _ = push(tls, &mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

fn push(tls: &mut Connection, socket: &mut TcpStream) -> io::Result<()> {
    // Ends: each turn writes at least a byte of what is finite.
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an attempt only came too early.
pub(crate) fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_wait_is_told_from_what_failed() {
        assert!(is_early(&io::ErrorKind::WouldBlock.into()));
        assert!(!is_early(&io::ErrorKind::ConnectionReset.into()));
    }

    #[test]
    fn a_plain_stream_never_waits_and_ends_when_the_other_side_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (other, _) = listener.accept().unwrap();
        let mut stream = Stream::plain(socket);
        assert!(is_early(&stream.read(&mut [0; 8]).unwrap_err()));
        assert!(!stream.is_greeting() && !stream.wants_write());
        assert!(stream.certificate().is_none());
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
        assert_eq!(stream.write(&pieces).unwrap(), 3);
        stream.finish();
        let mut came = Vec::new();
        (&other).read_to_end(&mut came).unwrap();
        assert_eq!(came, b"abc");
        drop(other);
        // Wait for the end: the kernel may need a moment.
        loop {
            match stream.read(&mut [0; 8]) {
                Ok(0) => break,
                Ok(_) => panic!("nothing was sent"),
                Err(error) if is_early(&error) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

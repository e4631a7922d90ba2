//! What waits to be written to one connection: bounded, in order, never copied.
//!
//! # Invariants
//!
//! * `Q1` At most `bytes_max` bytes wait, or one message that is longer.
//! * `Q2` A message is written whole or the connection ends: what was begun is never given up.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use super::stream::{Stream, is_early};
use crate::wire::{Body, HEAD_BYTES, HELLO_BYTES, Message};

/// Slices that one call writes.
const SLICES: usize = 64;

/// Messages that wait.
#[derive(Debug)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
    /// Bytes of the first item that are written.
    written: usize,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Item {
    lead: [u8; HEAD_BYTES + HELLO_BYTES],
    lead_bytes: usize,
    bytes: usize,
    body: Body,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue {
            items: VecDeque::new(),
            written: 0,
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message, or gives it back: too much waits (`Q1`).
    pub(crate) fn push(&mut self, message: Message) -> Result<(), Message> {
        let bytes = message.encoded_bytes();
        if !self.is_empty() && self.bytes + bytes > self.bytes_max {
            return Err(message);
        }
        let mut lead = [0; HEAD_BYTES + HELLO_BYTES];
        lead[..HEAD_BYTES].copy_from_slice(&message.head.encode());
        let mut lead_bytes = HEAD_BYTES;
        if let Body::Hello(hello) = &message.body {
            lead[HEAD_BYTES..].copy_from_slice(&hello.encode());
            lead_bytes += HELLO_BYTES;
        }
        self.bytes += bytes;
        self.items.push_back(Item {
            lead,
            lead_bytes,
            bytes,
            body: message.body,
        });
        Ok(())
    }

    /// Writes until nothing waits, or the socket takes no more.
    pub(crate) fn write_to(&mut self, stream: &mut Stream) -> io::Result<()> {
        // Ends: each turn writes at least a byte of what is finite.
        while !self.items.is_empty() {
            let written = match self.write_once(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            self.drop_written(written);
        }
        Ok(())
    }

    fn write_once(&self, stream: &mut Stream) -> io::Result<usize> {
        let mut slices: [IoSlice<'_>; SLICES] = std::array::from_fn(|_| IoSlice::new(&[]));
        let mut count = 0;
        let mut skip = self.written;
        for item in &self.items {
            count = item.slices(&mut skip, &mut slices, count);
            if count == SLICES {
                break;
            }
        }
        stream.write(&slices[..count])
    }

    fn drop_written(&mut self, bytes: usize) {
        self.written += bytes;
        self.bytes -= bytes;
        // Ends: each turn takes an item away.
        while let Some(first) = self.items.front() {
            if self.written < first.bytes {
                return;
            }
            self.written -= first.bytes;
            self.items.pop_front();
        }
    }
}

impl Item {
    /// Puts its slices behind the first `count`, without the first `skip` bytes.
    fn slices<'a>(
        &'a self,
        skip: &mut usize,
        into: &mut [IoSlice<'a>; SLICES],
        count: usize,
    ) -> usize {
        let mut count = count;
        let mut put = |bytes: &'a [u8]| {
            let skipped = (*skip).min(bytes.len());
            *skip -= skipped;
            let bytes = &bytes[skipped..];
            if !bytes.is_empty() && count < SLICES {
                into[count] = IoSlice::new(bytes);
                count += 1;
            }
        };
        put(&self.lead[..self.lead_bytes]);
        match &self.body {
            Body::Empty | Body::Hello(_) => {}
            Body::Frames(frames) => frames.iter().for_each(|frame| put(frame.bytes())),
            Body::Bytes(bytes) => put(bytes),
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::ids::NodeId;
    use crate::wire::{Decoder, Head, Kind, Limits};

    fn piece(bytes: usize, fill: u8) -> Message {
        let head = Head::new(Kind::Piece, NodeId(1));
        Message::piece(head, 0, vec![fill; bytes])
    }

    #[test]
    fn q1_too_much_is_given_back_and_one_message_always_fits() {
        let mut queue = Queue::new(1_000);
        assert!(queue.push(piece(5_000, 1)).is_ok());
        assert_eq!(queue.push(piece(1, 2)), Err(piece(1, 2)));
        assert_eq!(queue.bytes(), 5_064);
    }

    #[test]
    fn q2_all_comes_whole_and_in_order_through_a_socket_that_takes_little() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let mut stream = Stream::plain(socket);
        let mut queue = Queue::new(usize::MAX);
        // More slices than one call takes, and more bytes than the kernel does.
        let all: Vec<Message> = (0..200).map(|at| piece(50_000, at)).collect();
        for message in &all {
            queue.push(message.clone()).unwrap();
        }
        let mut decoder = Decoder::new(Limits::for_events_of(64));
        let mut came = Vec::new();
        let mut bytes = vec![0; 100_000];
        while came.len() < all.len() {
            queue.write_to(&mut stream).unwrap();
            let count = other.read(&mut bytes).unwrap();
            decoder.push(&bytes[..count]);
            while let Some(message) = decoder.next().unwrap() {
                came.push(message);
            }
        }
        assert!(came == all);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}

//! From events to frames, and from frames to groups, where the journal stage runs alone.
//!
//! In a cluster `order` cuts the frames; here a [`Cutter`] does, and a
//! [`Batcher`] says when what has gathered is worth a write. By default that is
//! at once: the events that arrive during a sync are the next group, and a timer
//! would only add latency. Time is an argument: nobody here looks at a clock.

use std::time::Duration;

use crate::frame::{FrameDraft, FrameHeader};
use crate::position::{Position, Term};
use crate::segment::Tail;

/// Makes the headers of consecutive frames.
#[derive(Debug, Clone, Copy)]
pub struct Cutter {
    tail: Tail,
    schema_version: u16,
    event_size: u32,
}

impl Cutter {
    /// Goes on behind `tail`, with events of this schema version and size.
    #[must_use]
    pub fn new(tail: &Tail, schema_version: u16, event_size: u32) -> Cutter {
        Cutter {
            tail: *tail,
            schema_version,
            event_size,
        }
    }

    /// The sealed header of the next frame over these events, which may wrap; the time of the log
    /// never goes back, whatever the caller's clock does.
    ///
    /// # Panics
    ///
    /// If the bytes are no whole number of events, or more than 2³² of them.
    pub fn cut(&mut self, body: [&[u8]; 2], time_ns: u64) -> FrameHeader {
        let bytes = body[0].len() + body[1].len();
        let event_size = self.event_size as usize;
        assert!(
            bytes.is_multiple_of(event_size),
            "a frame holds whole events"
        );
        let count =
            u32::try_from(bytes / event_size).expect("a frame holds fewer than 2^32 events");
        let draft = FrameDraft {
            time_ns: time_ns.max(self.tail.time_ns),
            term: Term(self.tail.term),
            index: self.tail.index,
            commit: Position(0),
            schema_version: self.schema_version,
            kind: 0,
            flags: 0,
        };
        self.seal(&draft, count, body)
    }

    /// As [`cut`](Self::cut), with everything in the header chosen.
    pub fn seal(&mut self, draft: &FrameDraft, count: u32, body: [&[u8]; 2]) -> FrameHeader {
        let header = FrameHeader::seal(
            draft,
            self.tail.reached.position,
            count,
            body,
            self.tail.chain,
        );
        self.tail = self.tail.behind(&header);
        header
    }

    /// Behind the last frame that was cut.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }
}

/// Says when what waits is worth a group.
#[derive(Debug, Clone, Copy)]
pub struct Batcher {
    /// Wait for so many bytes; 0 writes whatever is there.
    pub min_batch_bytes: u64,
    /// But no longer than this.
    pub max_delay: Duration,
    waiting_since_ns: Option<u64>,
}

impl Batcher {
    /// Natural batching: whatever waits is written at once.
    #[must_use]
    pub fn natural() -> Batcher {
        Batcher::patient(0, Duration::ZERO)
    }

    /// Waits for `min_batch_bytes`, at most for `max_delay`.
    #[must_use]
    pub fn patient(min_batch_bytes: u64, max_delay: Duration) -> Batcher {
        Batcher {
            min_batch_bytes,
            max_delay,
            waiting_since_ns: None,
        }
    }

    /// Whether to write now, with so many bytes waiting at `now_ns`.
    pub fn is_due(&mut self, waiting_bytes: u64, now_ns: u64) -> bool {
        if waiting_bytes == 0 {
            self.waiting_since_ns = None;
            return false;
        }
        let since_ns = *self.waiting_since_ns.get_or_insert(now_ns);
        let has_waited = u128::from(now_ns.saturating_sub(since_ns)) >= self.max_delay.as_nanos();
        let is_due = waiting_bytes >= self.min_batch_bytes || has_waited;
        if is_due {
            self.waiting_since_ns = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_continue_one_another_and_time_never_goes_back() {
        let mut cutter = Cutter::new(&Tail::default(), 1, 8);
        let first = cutter.cut([&[1; 16], &[]], 100);
        let second = cutter.cut([&[2; 8], &[3; 8]], 50);
        assert_eq!((first.first_position, first.count), (0, 2));
        assert_eq!(
            (second.first_position, second.count, second.time_ns),
            (2, 2, 100)
        );
        assert_eq!(second.chain, first.header_crc());
    }

    #[test]
    fn natural_batching_never_waits_and_a_patient_one_has_a_limit() {
        assert!(Batcher::natural().is_due(1, 0));
        assert!(!Batcher::natural().is_due(0, 0));
        let mut patient = Batcher::patient(100, Duration::from_nanos(10));
        assert!(!patient.is_due(50, 1000));
        assert!(!patient.is_due(99, 1009));
        assert!(patient.is_due(99, 1010), "the delay is over");
        assert!(!patient.is_due(99, 1011), "it begins anew");
        assert!(patient.is_due(100, 1012), "there is enough");
    }
}

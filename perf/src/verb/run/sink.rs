//! The receiving end: counts outputs and takes the time when they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;
use lockstep_exchange::output::Output;
use lockstep_perf::machine::clock::{Clock, Ticks as _};
use lockstep_perf::measure::recorder::histogram;

use super::outputs::Writer;
use super::tally::Tally;

/// When each event in flight was due, by its position.
///
/// The loader writes, *egress* reads; a cell is used again only when as many events have come
/// behind as there are cells, which are more than fit into the rings.
#[derive(Debug)]
pub(crate) struct Stamps {
    cells: Box<[AtomicU64]>,
}

impl Stamps {
    /// For so many events in flight.
    pub(crate) fn new(in_flight: usize) -> Self {
        let cells = (2 * in_flight).next_power_of_two();
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    #[inline]
    fn cell(&self, position: u64) -> &AtomicU64 {
        let mask = self.cells.len() as u64 - 1;
        &self.cells[usize::try_from(position & mask).unwrap_or(0)]
    }

    #[inline]
    pub(crate) fn set(&self, position: u64, ticks: u64) {
        // ORDERING: Relaxed, the event is published behind it, and read behind that.
        self.cell(position).store(ticks, Ordering::Relaxed);
    }

    #[inline]
    fn get(&self, position: u64) -> u64 {
        // ORDERING: Relaxed, as in `set`.
        self.cell(position).load(Ordering::Relaxed)
    }
}

/// What was heard by the end.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) tally: Tally,
    pub(crate) latency: Histogram<u64>,
}

/// The closure's state; dropped with the engine, it tells what it has heard.
#[derive(Debug)]
pub(crate) struct Sink {
    tally: Tally,
    latency: Histogram<u64>,
    clock: Clock,
    stamps: Arc<Stamps>,
    /// Positions with these bits zero are timed.
    mask: u64,
    /// Outputs before it are those that a crash kept from a file: written, not counted.
    is_live: Arc<AtomicBool>,
    writer: Option<Writer>,
    tell: Sender<Heard>,
}

impl Sink {
    pub(crate) fn new(
        clock: Clock,
        stamps: Arc<Stamps>,
        mask: u64,
        is_live: Arc<AtomicBool>,
        writer: Option<Writer>,
        tell: Sender<Heard>,
    ) -> Self {
        Self {
            tally: Tally::default(),
            latency: histogram(),
            clock,
            stamps,
            mask,
            is_live,
            writer,
            tell,
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, output: &Output) {
        if let Some(writer) = &mut self.writer {
            writer.take(output);
        }
        // ORDERING: Relaxed; it is set before anything that counts is published.
        if !self.is_live.load(Ordering::Relaxed) {
            return;
        }
        self.tally.take(output);
        let header = &output.header;
        if header.index == 0 && header.position & self.mask == 0 {
            let due = self.stamps.get(header.position);
            let took = self.clock.ordered().saturating_sub(due);
            // A latency of an hour and more counts as an hour.
            self.latency
                .saturating_record(self.clock.to_ns(took).max(1));
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Whoever waits for it is gone only when the program ends.
        let _ = self.tell.send(Heard {
            tally: std::mem::take(&mut self.tally),
            latency: self.latency.clone(),
        });
    }
}

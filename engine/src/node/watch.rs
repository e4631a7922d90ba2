//! The cold thread: counters, ticks, and the end of an engine that stopped by itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_ringbuffer::{ClaimError, MultiProducer, Probe};

use crate::counters::{Counter, CounterFile, Counters};
use crate::event::Slot;
use crate::ledger::Ledger;
use crate::runtime::clock::{Clock, Stopwatch};
use crate::shared::Shared;
use crate::system::Tick;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks between two writings of the counters.
const LOOKS_PER_WRITE: u32 = 5;

/// How long it waits for somebody who asks over HTTP.
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Watch<E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) probe: Probe,
    pub(crate) ledger: Ledger,
    pub(crate) door: MultiProducer<E>,
    pub(crate) file: Option<CounterFile>,
    pub(crate) http: Option<TcpListener>,
    pub(crate) tick: Option<Duration>,
    pub(crate) is_over: Arc<AtomicBool>,
}

impl<E: Slot> Watch<E> {
    pub(crate) fn run(mut self) {
        let mut since_tick = Stopwatch::start();
        let mut looks = 0;
        // ORDERING: Acquire, pairs with the Release of who closes. Ends: by this flag.
        while !self.is_over.load(Ordering::Acquire) {
            self.look_for_faults();
            if self.tick.is_some_and(|tick| since_tick.elapsed() >= tick) {
                since_tick = Stopwatch::start();
                // A full ring has no need of a tick: its events carry the time.
                let _full = self
                    .door
                    .try_publish(|slot| *slot = E::event(&Tick::default()));
            }
            if looks % LOOKS_PER_WRITE == 0 {
                self.write();
            }
            looks += 1;
            self.answer();
            std::thread::park_timeout(self.tick.unwrap_or(LOOK).min(LOOK));
        }
        self.write();
    }

    /// A stage that failed says so to everybody.
    fn look_for_faults(&self) {
        if let Err(ClaimError::Poisoned { stage, at }) = self.door.check()
            && self.shared.fault().is_none()
        {
            self.shared.fail(format!(
                "stage {stage:?} failed at position {}",
                self.ledger.position(at)
            ));
        }
    }

    fn write(&mut self) {
        if self.file.is_none() {
            return;
        }
        let rows = self.rows();
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(Clock::System.now_ns().unwrap_or(0), &rows)
        {
            tracing::warn!(%error, "the counters cannot be written; they stay as they are");
            self.file = None;
        }
    }

    /// The names of everyone's counters.
    fn rows(&self) -> Vec<Counter> {
        let look = self.probe.look();
        let shared = &*self.shared;
        let row = |name: &str, value: u64| Counter {
            name: name.to_owned(),
            value,
        };
        let mut rows = vec![
            row("ring.published", self.ledger.position(look.published).0),
            row("ring.free_slots", look.remaining),
            row("ring.slots", look.capacity),
        ];
        for stage in &look.stages {
            rows.push(row(
                &format!("stage.{}.released", stage.name),
                self.ledger.position(stage.released).0,
            ));
            rows.push(row(
                &format!("stage.{}.taken", stage.name),
                self.ledger.position(stage.taken).0,
            ));
        }
        let marks = [
            ("journal.durable", &shared.durable),
            ("journal.syncs", &shared.syncs),
            ("journal.last_sync_ns", &shared.last_sync_ns),
            ("logic.applied", &shared.applied),
            ("logic.refused", &shared.refused),
            ("logic.repeated", &shared.repeated),
            ("logic.quarantined", &shared.quarantined),
            ("outputs.emitted", &shared.outputs),
            ("outputs.spilled", &shared.spilled),
            ("outputs.cut_consumers", &shared.cut_consumers),
            ("egress.answered", &shared.answered),
            ("shadow.position", &shared.shadow),
            ("snapshot.position", &shared.snapshot),
            ("retention.oldest", &shared.oldest),
            ("retention.freed_bytes", &shared.freed_bytes),
            ("retention.faults", &shared.retention_faults),
        ];
        rows.extend(marks.iter().map(|(name, mark)| row(name, mark.get())));
        rows
    }

    /// Whoever asks over HTTP gets the counters, whatever they ask for.
    fn answer(&self) {
        let Some(listener) = &self.http else { return };
        // Ends: accept does not wait.
        while let Ok((stream, _)) = listener.accept() {
            if let Err(error) = self.respond(stream) {
                tracing::debug!(%error, "a scrape went away");
            }
        }
    }

    fn respond(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut request = [0; 1024];
        let _read = stream.read(&mut request)?;
        let body = Counters::prometheus(&self.rows());
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
    }
}

//! The loader's side of a run: starts the engine, goes on where the log ends, sends, waits,
//! and says what came of it.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lockstep_engine::event::SYSTEM_KINDS;
use lockstep_engine::runtime::clock::Clock as LogClock;
use lockstep_engine::{Builder, Config, Engine, Error, Position, Producer};
use lockstep_exchange::event::Event;
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::load::LoadError;
use lockstep_journaler::storage::{Disk, Simulated, Storage};
use lockstep_journaler::{From, Reader};
use lockstep_perf::args::quantity::{nanos, show_count, show_rate};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_perf::machine::clock::{Clock, Ticks as _, ratio};
use lockstep_perf::machine::interrupt;

use super::engine::refused;
use super::outputs::{OutputFile, Written};
use super::sink::{Heard, Sink, Stamps};
use super::source::{Events, Load};
use super::summary::{Ended, Summary};
use super::tally::{Standing, Tally};
use super::{Args, held};
use crate::verb::journal::print;
use crate::verb::{Global, ear};

/// Events published at once, at most, in a ring that has room for some of them.
const BATCH: usize = 256;

/// As fast as it goes, one position of so many is timed.
const SAMPLED: u64 = 64;

/// Stamps set beyond a batch: events of the engine's own may come between.
const BEYOND: u64 = 8;

/// A full ring is looked at again at once so often, then behind a nap.
const YIELDS: u32 = 64;
const NAP: Duration = Duration::from_micros(50);

/// How often a wait for answers looks whether the disk is full.
const LOOK: Duration = Duration::from_millis(20);

/// How long the receiving end may take to tell, once the engine is closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pause of at least this length is slept, but for its end.
const SLEEP: Duration = Duration::from_micros(500);

/// An engine that runs, and what belongs to it.
struct Started {
    engine: Engine<Exchange>,
    heard: mpsc::Receiver<Heard>,
    stamps: Arc<Stamps>,
    written: Option<Written>,
}

pub(super) fn run(
    args: &Args,
    global: &Global,
    config: Config,
    directory: Option<&Path>,
) -> anyhow::Result<Exit> {
    let flags = &args.load_flags;
    let clock = Clock::calibrated();
    let mut events = Events::open(args.load(), flags)?;
    let wished = args.engine_flags.bounds.map(|flag| flag.0);
    let bounds = match directory {
        Some(directory) => held::agree(directory, wished)?,
        None => wished.unwrap_or_default(),
    };
    let outputs = flags.outputs.as_deref().map(OutputFile::open).transpose()?;
    ear::listen(args.log);
    let _flag = interrupt::flag();
    let how = format!(
        "journal {}, gate {}",
        word(&config.journal),
        word(&config.gate)
    );
    let mut started = start(bounds, config, directory, outputs, clock, flags.rate)?;
    let behind = match directory {
        Some(directory) => {
            let behind = match go_on(&started.engine, directory, &mut events, args) {
                Ok(behind) => behind,
                Err(error) => {
                    // What is to be said is why nothing was loaded.
                    let _ = started.engine.close();
                    return Err(error);
                }
            };
            if flags.append && behind == 0 {
                events = Events::open(args.load(), flags)?;
            }
            behind
        }
        None => 0,
    };
    let mut pump = Pump {
        producer: started.engine.producer(),
        engine: &started.engine,
        full_since: None,
        most: BATCH.min((started.engine.configuration().slots / 4).max(1)),
        clock,
        stamps: &started.stamps,
        expected: started.engine.position(),
        batch: Vec::with_capacity(BATCH),
        meter: Meter::new(clock),
    };
    let begun = clock.early();
    let mut ended = match flags.rate {
        None => pump.as_fast_as_it_goes(&mut events, started.written.as_ref()),
        Some(rate) => pump.paced(&mut events, rate, started.written.as_ref()),
    };
    if let Err(cause) = pump.wait_for_answers() {
        ended = cause;
    }
    let seconds = Duration::from_nanos(clock.to_ns(clock.early() - begun)).as_secs_f64();
    drop(pump);
    let standing = standing(&started.engine);
    if let Err(error) = started.engine.close()
        && !matches!(ended, Ended::Failed(_))
    {
        ended = Ended::Failed(error.to_string());
    }
    let (tally, latency) = match started.heard.recv_timeout(PATIENCE) {
        Ok(heard) => (heard.tally, heard.latency),
        Err(_) => (
            Tally::default(),
            lockstep_perf::measure::recorder::histogram(),
        ),
    };
    if let Some(fault) = started.written.as_mut().and_then(Written::finish) {
        ended = Ended::Failed(fault);
    }
    let summary = Summary {
        load: shown(args.load()),
        directory: directory.map(|directory| directory.display().to_string()),
        how,
        ended,
        behind,
        read: events.summary(),
        tally,
        standing,
        seconds,
        rate: flags.rate,
        latency,
    };
    print::result(
        global,
        || summary.json(),
        |out| out.write_all(summary.text(global.units.into()).as_bytes()),
    )?;
    Ok(match &summary.ended {
        Ended::Done => Exit::Done,
        Ended::Interrupted => Exit::Interrupted,
        Ended::BadRow(why) | Ended::Failed(why) => {
            return Err(Refusal::new(Exit::Failed, why.clone(), "").into());
        }
    })
}

/// A value of the configuration as its file would have it.
fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn shown(load: &Load) -> String {
    match load {
        Load::File(path) => path.display().to_string(),
        Load::Generator(flow) => format!(
            "generator:seed={},count={},instruments={}",
            flow.seed, flow.messages, flow.instruments
        ),
    }
}

fn start(
    bounds: Bounds,
    config: Config,
    directory: Option<&Path>,
    outputs: Option<OutputFile>,
    clock: Clock,
    rate: Option<u64>,
) -> anyhow::Result<Started> {
    let stamps = Arc::new(Stamps::new(config.slots + config.output_slots));
    let is_live = Arc::new(AtomicBool::new(false));
    let (tell, heard) = mpsc::channel();
    let last = outputs.as_ref().map(|file| (file.was_there, file.last));
    let (writer, written) = match outputs.map(OutputFile::writer).transpose()? {
        Some((writer, written)) => (Some(writer), Some(written)),
        None => (None, None),
    };
    let mask = if rate.is_some() { 0 } else { SAMPLED - 1 };
    let mut sink = Sink::new(
        clock,
        Arc::clone(&stamps),
        mask,
        Arc::clone(&is_live),
        writer,
        tell,
    );
    let fresh = move || Exchange::new(bounds);
    let take = move |output: &lockstep_exchange::output::Output| sink.take(output);
    let engine = match directory {
        Some(directory) => begin(
            Engine::open_with(directory, fresh).on_outputs(take),
            config,
            last,
        )?,
        None => begin(
            Engine::open_on(Simulated::new(0), fresh).on_outputs(take),
            config,
            last,
        )?,
    };
    // ORDERING: Relaxed; publishing, which comes behind it, orders it.
    is_live.store(true, Ordering::Relaxed);
    let position = engine.recovery().position;
    if let Some((was_there, last)) = last {
        match last {
            Some((at, _)) if at >= position => {
                let what = format!(
                    "the file of outputs goes to position {at}, the log ends in front of {position}"
                );
                let hint = "it is another log's, or the log has lost its end: name another file";
                return Err(Refusal::new(Exit::Corrupt, what, hint).into());
            }
            None if !was_there && position.0 > 1 => say(
                "outputs of what is in the log already are not in the new file; lockstep replay --outputs \
                 writes all",
            ),
            _ => {}
        }
    }
    Ok(Started {
        engine,
        heard,
        stamps,
        written,
    })
}

/// Starts the engine, and says what it found.
fn begin<S: Storage>(
    builder: Builder<Exchange, S>,
    config: Config,
    outputs: Option<(bool, Option<super::outputs::Last>)>,
) -> anyhow::Result<Engine<Exchange>> {
    let builder = builder.config(config).clock(LogClock::OfEvents);
    let builder = match outputs {
        Some((true, last)) => builder.outputs_after(last.unwrap_or((Position(0), 0))),
        _ => builder,
    };
    let engine = builder.start().map_err(refused)?;
    let recovery = engine.recovery();
    if recovery.position.0 > 0 {
        let from = match recovery.plan.snapshot {
            Some(snapshot) => format!("the snapshot at {}", show_count(snapshot.0)),
            None => "the beginning".to_owned(),
        };
        say(&format!(
            "recovered to position {} from {from} in {:.2} s; the journal {}",
            show_count(recovery.position.0),
            recovery.took.as_secs_f64(),
            recovery.journal
        ));
        for (at, why) in &recovery.plan.passed_over {
            say(&format!("the snapshot at {at} was passed over: {why}"));
        }
    }
    Ok(engine)
}

/// A line for the operator. Nobody may be reading; the work goes on.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Takes out of the load what is in the log: how many events they were.
fn go_on(
    engine: &Engine<Exchange>,
    directory: &Path,
    events: &mut Events,
    args: &Args,
) -> anyhow::Result<u64> {
    let end = engine.recovery().position;
    let Some(last) = last_event(directory, end)? else {
        return Ok(0);
    };
    // Ends: at the event that is the last in the log, or with the load.
    loop {
        match events.next() {
            Ok(Some(event)) if event == last => return Ok(events.taken),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => return Err(bad_row(&error).into()),
        }
        if interrupt::is_set() {
            return Err(Refusal::new(Exit::Interrupted, "interrupted", "").into());
        }
    }
    if args.load_flags.append {
        return Ok(0);
    }
    Err(Refusal::usage(
        format!(
            "{} has a log of {} positions, and its last event is not of {}",
            directory.display(),
            show_count(end.0),
            shown(args.load())
        ),
        "name another directory, or --append to load behind it",
    )
    .into())
}

fn bad_row(error: &LoadError) -> Refusal {
    Refusal::new(
        Exit::Failed,
        error.to_string(),
        "--on-bad skip goes on behind a row that cannot be read",
    )
}

/// The last event of the exchange's own in the log.
fn last_event(directory: &Path, end: Position) -> anyhow::Result<Option<Event>> {
    if end.0 == 0 {
        return Ok(None);
    }
    let mut reader = Reader::open(Disk::at(directory)?, From::Oldest)?;
    let oldest = match reader.next_frame()? {
        Some(frame) => frame.first_position(),
        None => return Ok(None),
    };
    let mut back = 64;
    // Ends: each turn looks at more, at last at all.
    loop {
        let from = Position(end.0.saturating_sub(back)).max(oldest);
        reader.seek(From::Position(from))?;
        let mut last = None;
        while let Some(frame) = reader.next_frame()? {
            for bytes in frame.event_bytes() {
                let event: Event = bytemuck::pod_read_unaligned(bytes);
                if event.header.kind != 0 && event.header.kind < SYSTEM_KINDS {
                    last = Some(event);
                }
            }
        }
        if last.is_some() || from == oldest {
            return Ok(last);
        }
        back = back.saturating_mul(64);
    }
}

/// The state behind everything that was sent, and behind what the engine added to it.
fn standing(engine: &Engine<Exchange>) -> Option<Standing> {
    let base = engine.recovery().position.0;
    let probe = engine.probe();
    let mut found = None;
    // Ends: a beacon or two may follow the last event, and then nothing does.
    for _ in 0..100 {
        let (position, standing) = engine
            .read(|exchange| Standing::of(Position(0), exchange))
            .ok()?;
        found = Some(Standing {
            position,
            ..standing
        });
        if base + probe.look().published.0 == position.0 {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    found
}

/// Sends events.
struct Pump<'a> {
    producer: Producer<Exchange>,
    engine: &'a Engine<Exchange>,
    /// Since when the disk has no room, in ticks.
    full_since: Option<u64>,
    /// Events published at once, at most.
    most: usize,
    clock: Clock,
    stamps: &'a Stamps,
    /// The position of the next event, if nobody comes between.
    expected: Position,
    batch: Vec<Event>,
    meter: Meter,
}

impl Pump<'_> {
    fn as_fast_as_it_goes(&mut self, events: &mut Events, written: Option<&Written>) -> Ended {
        // Ends: with the load, by a signal, or when something fails.
        loop {
            let over = self.fill(events, self.most);
            if !self.batch.is_empty() {
                let now = self.clock.early();
                if let Err(ended) = self.publish(|_| now) {
                    return ended;
                }
            }
            if let Some(ended) = over.or_else(|| self.look_around(written)) {
                return ended;
            }
        }
    }

    /// By a schedule that is never moved: event `i` is due at `begun + i / rate`.
    fn paced(&mut self, events: &mut Events, rate: u64, written: Option<&Written>) -> Ended {
        let begun = self.clock.early();
        let per_second = self.clock.to_ticks(1_000_000_000);
        let due = |number: u64| {
            let ticks = u128::from(number) * u128::from(per_second) / u128::from(rate.max(1));
            begun + u64::try_from(ticks).unwrap_or(u64::MAX - begun)
        };
        let mut sent = 0;
        // Ends: as above.
        loop {
            let over = self.fill(events, 1);
            if self.batch.is_empty() {
                return over.unwrap_or(Ended::Done);
            }
            self.wait_for(due(sent));
            let now = self.clock.early();
            let mut over = over;
            while over.is_none()
                && self.batch.len() < self.most
                && due(sent + self.batch.len() as u64) <= now
            {
                over = self.fill(events, self.batch.len() + 1);
            }
            let first = sent;
            sent += self.batch.len() as u64;
            if let Err(ended) = self.publish(|at| due(first + at)) {
                return ended;
            }
            if let Some(ended) = over.or_else(|| self.look_around(written)) {
                return ended;
            }
        }
    }

    fn wait_for(&self, due: u64) {
        // Ends: time passes; a signal is seen behind the next event, or by the sleep's end.
        loop {
            let now = self.clock.early();
            if now >= due || interrupt::is_set() {
                return;
            }
            let left = Duration::from_nanos(self.clock.to_ns(due - now));
            if left > SLEEP {
                std::thread::sleep(left.min(Duration::from_millis(50)) - SLEEP / 2);
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Fills the batch up to so many; how the load ended, if it did.
    #[inline]
    fn fill(&mut self, events: &mut Events, count: usize) -> Option<Ended> {
        while self.batch.len() < count {
            match events.next() {
                Ok(Some(event)) => self.batch.push(event),
                Ok(None) => return Some(Ended::Done),
                Err(error) => return Some(Ended::BadRow(error.to_string())),
            }
        }
        None
    }

    /// Publishes the batch; `due` says when each of it was due.
    #[inline]
    fn publish(&mut self, due: impl Fn(u64) -> u64) -> Result<(), Ended> {
        let count = self.batch.len() as u64;
        let stamp = |from: Position| {
            let mut ticks = 0;
            for at in 0..count {
                ticks = due(at);
                self.stamps.set(from.0 + at, ticks);
            }
            for at in count..count + BEYOND {
                self.stamps.set(from.0 + at, ticks);
            }
        };
        stamp(self.expected);
        let mut tries = 0;
        // Ends: there is room, or there will be none.
        let range = loop {
            match self.producer.try_publish_events(&self.batch) {
                Ok(range) => break range,
                Err(Error::Busy) => self.hold(&mut tries)?,
                Err(error) => return Err(Ended::Failed(error.to_string())),
            }
        };
        self.full_since = None;
        if range.start != self.expected {
            stamp(range.start);
        }
        self.expected = range.end;
        self.meter.add(count);
        self.batch.clear();
        Ok(())
    }

    /// The ring is full: waits a little, unless it will stay so.
    #[cold]
    fn hold(&mut self, tries: &mut u32) -> Result<(), Ended> {
        *tries += 1;
        if *tries <= YIELDS {
            std::thread::yield_now();
            return Ok(());
        }
        std::thread::sleep(NAP);
        if interrupt::is_set() {
            return Err(Ended::Interrupted);
        }
        self.is_there_room()
    }

    /// Waits until everything that was sent is answered.
    fn wait_for_answers(&mut self) -> Result<(), Ended> {
        let Some(last) = self.expected.0.checked_sub(1) else {
            return Ok(());
        };
        let ack = self.producer.ack_of(Position(last));
        // Ends: answered, stopped, or the disk stays full.
        loop {
            match ack.wait_for(LOOK) {
                Err(Error::TimedOut { .. }) => self.is_there_room()?,
                Err(error) => return Err(Ended::Failed(error.to_string())),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// A full disk is told at once, and waited for as long as somebody may take to make room.
    fn is_there_room(&mut self) -> Result<(), Ended> {
        if !self.engine.waits_for_room() {
            self.full_since = None;
            return Ok(());
        }
        let now = self.clock.early();
        let Some(since) = self.full_since else {
            self.full_since = Some(now);
            say("the disk is full: the load waits for room; what was answered is durable");
            return Ok(());
        };
        let patience = self.engine.configuration().drain();
        if now - since < self.clock.to_ticks(nanos(patience)) {
            return Ok(());
        }
        Err(Ended::Failed(format!(
            "the disk is full, and there was no room within {:.1?}: everything before position {} is durable and was \
             answered; make room (lockstep journal archive, retention apply), and the same command goes on behind it",
            patience,
            self.engine.position()
        )))
    }

    /// Whether anything asks for an end, and how far it is.
    #[inline]
    fn look_around(&mut self, written: Option<&Written>) -> Option<Ended> {
        self.meter.tell();
        if interrupt::is_set() {
            return Some(Ended::Interrupted);
        }
        written.and_then(Written::fault).map(Ended::Failed)
    }
}

/// How far the load is, on stderr: each second on a terminal, else each ten.
struct Meter {
    clock: Clock,
    is_terminal: bool,
    every: u64,
    told_at: u64,
    told: u64,
    events: u64,
}

impl Meter {
    fn new(clock: Clock) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let every = Duration::from_secs(if is_terminal { 1 } else { 10 });
        Self {
            clock,
            is_terminal,
            every: clock.to_ticks(nanos(every)),
            told_at: clock.early(),
            told: 0,
            events: 0,
        }
    }

    fn add(&mut self, count: u64) {
        self.events += count;
    }

    #[inline]
    fn tell(&mut self) {
        let now = self.clock.early();
        let since = now - self.told_at;
        if since < self.every {
            return;
        }
        let seconds = Duration::from_nanos(self.clock.to_ns(since)).as_secs_f64();
        let rate = ratio(self.events - self.told, 1) / seconds;
        let line = format!("{} events, {}", show_count(self.events), show_rate(rate));
        let (start, end) = if self.is_terminal {
            ("\r", "\x1b[K")
        } else {
            ("", "\n")
        };
        // Nobody may be reading; the work goes on.
        let _ = write!(io::stderr(), "{start}{line}{end}");
        (self.told_at, self.told) = (now, self.events);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.is_terminal && self.told > 0 {
            say("");
        }
    }
}

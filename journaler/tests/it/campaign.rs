//! Crash, recover, compare; from a seed.
//!
//! One seed is one life: a journal is opened, written, synced, cut back, closed,
//! its power is cut in the midst of something, or a call fails; then it is opened
//! again and compared with what a log in memory says. Checked after each opening:
//!
//! * `I1` what was acknowledged is there;
//! * `I2` what is there is dense and chained, and equal to what was submitted, frame by frame;
//! * `I3` nothing is there that was never submitted;
//! * `I4` without a fault in acknowledged data it opens;
//! * `I5` with one it is refused, or the fault is harmless: never shortened in silence;
//! * `I6` an opening that crashes, opened again, gives the same log; where only the process had died
//!   before, the same or less, down to what was acknowledged;
//! * `I7` it goes on after all that, and crashes again.

use std::time::Duration;

use lockstep_journaler::storage::{Fault, Simulated, Storage};
use lockstep_journaler::{From, Journal, Mode, Mutations, Options, Reached, Reader, Verdict};

use crate::support::{Log, Random, open, read_all, read_journal, small, write_group};

/// What a campaign did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) lives: u64,
    pub(crate) openings: u64,
    pub(crate) crashes: u64,
    /// Of the process alone.
    pub(crate) deaths: u64,
    pub(crate) torn_tails: u64,
    pub(crate) cuts: u64,
    pub(crate) poisoned: u64,
    pub(crate) refusals: u64,
    pub(crate) acknowledged: u64,
}

/// What went wrong, and in which life.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) seed: u64,
    pub(crate) what: String,
}

struct Life {
    disk: Simulated,
    options: Options,
    random: Random,
    /// What was submitted and may be there.
    log: Log,
    /// What was acknowledged and must be there.
    acknowledged: Reached,
    branch: u64,
    /// The machine went on when the process died: what was not synced is in the cache yet.
    has_cache: bool,
    tally: Tally,
}

type Checked<T = ()> = Result<T, String>;

/// Lives one life, with a journal broken in these ways.
pub(crate) fn live(seed: u64, mutations: Mutations, tally: &mut Tally) -> Result<(), Violation> {
    let mut random = Random(seed ^ 0x10c4_57e9);
    let mode = match random.below(5) {
        0 => Mode::Direct,
        1 => Mode::Async {
            max_unsynced_bytes: 8 << 10,
            interval: Duration::from_millis(2),
        },
        _ => Mode::Sync,
    };
    let options = Options {
        mode,
        mutations,
        ..small()
    };
    let mut life = Life {
        disk: Simulated::new(seed),
        options,
        random,
        log: Log::default(),
        acknowledged: Reached::default(),
        branch: 1,
        has_cache: false,
        tally: Tally::default(),
    };
    let outcome = life.run();
    tally.add(&life.tally);
    outcome.map_err(|what| Violation { seed, what })
}

impl Life {
    fn run(&mut self) -> Checked {
        self.tally.lives += 1;
        for _ in 0..2 + self.random.below(4) {
            if self.random.one_in(3) {
                self.open_in_a_crash()?;
            }
            self.era()?;
            self.has_cache = self.random.one_in(4) && !self.disk.is_off();
            if self.has_cache {
                // Only the process dies: what it wrote stays in the cache, also behind a failed sync.
                self.disk.cut_power_after(u64::MAX);
                self.tally.deaths += 1;
            } else {
                self.disk.crash();
                self.tally.crashes += 1;
            }
            self.disk.heal();
        }
        let journal = self.open()?;
        journal
            .close()
            .map_err(|error| format!("I4: closing failed: {error}"))?;
        match self.random.below(3) {
            0 => self.resurrect(),
            1 => self.rot(),
            _ => Ok(()),
        }
    }

    /// Opens, checks, and takes what is there for acknowledged: it is durable.
    fn open(&mut self) -> Checked<Journal<Simulated>> {
        self.tally.openings += 1;
        let (journal, recovered) =
            open(&self.disk, &self.options).map_err(|error| format!("I4: refused: {error}"))?;
        if matches!(recovered.verdict, Verdict::TornTail(_)) {
            self.tally.torn_tails += 1;
        }
        let found = read_journal(&journal).map_err(|error| format!("I2: not readable: {error}"))?;
        self.compare(&found)?;
        if found.reached() != recovered.reached {
            return Err(format!(
                "I2: recovered {:?}, read {:?}",
                recovered.reached,
                found.reached()
            ));
        }
        self.log = found;
        self.acknowledged = recovered.reached;
        Ok(journal)
    }

    fn compare(&self, found: &Log) -> Checked {
        if found.reached().frames < self.acknowledged.frames {
            return Err(format!(
                "I1: acknowledged {:?}, found {:?}",
                self.acknowledged,
                found.reached()
            ));
        }
        if found.frames.len() > self.log.frames.len() {
            return Err(format!(
                "I3: {} frames, submitted {}",
                found.frames.len(),
                self.log.frames.len()
            ));
        }
        match found
            .frames
            .iter()
            .zip(&self.log.frames)
            .position(|(found, sent)| found != sent)
        {
            Some(at) => Err(format!("I2: frame {at} is not the one that was submitted")),
            None => Ok(()),
        }
    }

    /// `I6`: on a fork of the disk the power goes again while it is opened; the log is the same.
    fn open_in_a_crash(&mut self) -> Checked {
        let fork = self.disk.fork();
        fork.cut_power_after(self.random.below(20));
        let _ = open(&fork, &self.options);
        fork.crash();
        self.tally.crashes += 1;
        self.tally.openings += 2;
        let straight = opened_log(&self.disk.fork(), &self.options)?;
        let detour = opened_log(&fork, &self.options)?;
        let is_less = straight.frames.starts_with(&detour.frames)
            && detour.reached().frames >= self.acknowledged.frames;
        // A crash takes what was in the cache alone, down to what was acknowledged.
        if straight.frames == detour.frames || (self.has_cache && is_less) {
            return Ok(());
        }
        Err(format!(
            "I6: {:?} at once, {:?} after a crash",
            straight.reached(),
            detour.reached()
        ))
    }

    /// From an opening to a cut of the power, a failed call, or a close.
    fn era(&mut self) -> Checked {
        self.disk.reseed(self.random.next());
        if self.random.one_in(8) {
            self.disk.cut_power_after(self.random.below(12));
            let _ = open(&self.disk, &self.options);
            if self.disk.is_off() {
                return Ok(());
            }
        }
        self.disk.heal();
        self.disk.cut_power_after(u64::MAX);
        let mut journal = self.open()?;
        self.plan_trouble();
        for _ in 0..60 {
            if !self.turn(&mut journal)? {
                return Ok(());
            }
        }
        if self.random.one_in(3) {
            return self.close(journal);
        }
        Ok(())
    }

    fn plan_trouble(&mut self) {
        const FAULTS: [Fault; 5] = [
            Fault::WriteError,
            Fault::ShortWrite,
            Fault::NoSpace,
            Fault::SyncError,
            Fault::DirectorySyncError,
        ];
        if self.random.one_in(4) {
            let fault = FAULTS[self.random.below(FAULTS.len() as u64) as usize];
            self.disk.inject(fault, "", self.random.below(30));
        } else {
            self.disk.cut_power_after(self.random.below(120));
        }
    }

    /// One thing that an owner does; `false` when this era is over.
    fn turn(&mut self, journal: &mut Journal<Simulated>) -> Checked<bool> {
        let is_well = match self.random.below(12) {
            0..=5 => {
                let counts: Vec<u32> = (0..1 + self.random.below(3))
                    .map(|_| self.random.below(16) as u32)
                    .collect();
                write_group(journal, &mut self.log, &counts, self.branch).is_ok()
            }
            6..=8 => journal.sync().is_ok(),
            9 => journal.sync_if_due().is_ok(),
            10 if self.random.one_in(6) => return self.cut_back(journal),
            _ => {
                journal.step_background();
                journal.poisoned().is_none()
            }
        };
        let durable = journal.progress().durable();
        if durable.frames < self.acknowledged.frames {
            return Err(format!("SH1: durable went back to {durable:?}"));
        }
        self.tally.acknowledged += durable.frames - self.acknowledged.frames;
        self.acknowledged = durable;
        if !is_well {
            self.tally.poisoned += 1;
        }
        Ok(is_well && !self.disk.is_off())
    }

    fn cut_back(&mut self, journal: &mut Journal<Simulated>) -> Checked<bool> {
        let keep = self.random.below(self.log.frames.len() as u64 + 1);
        let oldest = self.log.frames[..keep as usize].to_vec();
        let to = Log { frames: oldest }.reached();
        self.tally.cuts += 1;
        // From here on either log is right; what is acknowledged is what both have.
        self.acknowledged = self.acknowledged.min(to);
        self.branch += 1;
        match journal.cut_back(to) {
            Ok(()) => {
                self.log.frames.truncate(keep as usize);
                self.acknowledged = to;
                Ok(true)
            }
            Err(error) if journal.poisoned().is_some() => {
                drop(error);
                Ok(false)
            }
            Err(error) => Err(format!("a cut at {to:?} was refused: {error}")),
        }
    }

    fn close(&mut self, journal: Journal<Simulated>) -> Checked {
        self.acknowledged = match journal.close() {
            Ok(()) => self.log.reached(),
            Err(_) => return Ok(()),
        };
        Ok(())
    }

    /// `I5`: an acknowledged group is replaced by one of the same place in a history that was cut:
    /// the disk lost the zeros and the write. Everything in it holds, but for the chain behind it.
    fn resurrect(&mut self) -> Checked {
        let mut journal = self.open()?;
        let base = self.log.reached();
        let put = |life: &mut Life, journal: &mut Journal<Simulated>| {
            for _ in 0..2 {
                write_group(journal, &mut life.log, &[3], life.branch)
                    .map_err(|error| error.to_string())?;
                journal.sync().map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        };
        put(self, &mut journal)?;
        let place = self.place_of(base)?;
        let name = place.segment.file_name();
        let bytes = self
            .disk
            .durable_bytes(&name)
            .map_err(|error| error.to_string())?;
        let from = place.offset.0 as usize - 64;
        // Mark, header, three events.
        let old = bytes[from..from + 64 + 64 + 192].to_vec();
        journal.cut_back(base).map_err(|error| error.to_string())?;
        self.log.frames.truncate(base.frames as usize);
        self.branch += 1;
        put(self, &mut journal)?;
        if self.place_of(base)? != place {
            return Ok(());
        }
        drop(journal);
        self.disk.crash();
        self.disk
            .overwrite(&name, from as u64, &old)
            .map_err(|error| error.to_string())?;
        self.acknowledged = self.log.reached();
        let next = place.segment.next().file_name();
        let is_followed = self
            .disk
            .durable_bytes(&next)
            .is_ok_and(|bytes| bytes.starts_with(b"LOCKSEG1"));
        if !is_followed
            && let Ok((journal, _)) = open(&self.disk.fork(), &self.options)
            && let Err(error) = read_journal(&journal)
        {
            // Opening reads all of this segment: it would go on behind what nobody can read.
            return Err(format!("I5: a resurrected group was accepted: {error}"));
        }
        self.must_not_shorten("a resurrected group")
    }

    fn place_of(&self, frame: Reached) -> Checked<lockstep_journaler::segment::Place> {
        let reader = Reader::open(self.disk.clone(), From::Frame(frame.frames));
        let mut reader = reader.map_err(|error| error.to_string())?;
        let frame = reader.next_frame().map_err(|error| error.to_string())?;
        frame
            .map(|frame| frame.place())
            .ok_or_else(|| "the frame is not there".to_owned())
    }

    /// `I5`: one bit of a file flips, after a clean close.
    fn rot(&mut self) -> Checked {
        let entries = self.disk.list("").map_err(|error| error.to_string())?;
        let files: Vec<_> = entries.iter().filter(|entry| entry.length > 0).collect();
        let Some(file) = files.get(self.random.below(files.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        let at = self.random.below(file.length);
        let mask = 1 << self.random.below(8);
        self.disk
            .rot(&file.name, at, mask)
            .map_err(|error| error.to_string())?;
        let what = format!("a flipped bit {mask:#x} in {} at {at}", file.name);
        self.must_not_shorten(&what)
    }

    fn must_not_shorten(&mut self, what: &str) -> Checked {
        self.tally.openings += 1;
        let Ok((journal, _)) = open(&self.disk, &self.options) else {
            self.tally.refusals += 1;
            return Ok(());
        };
        match read_journal(&journal) {
            Err(_) => {
                self.tally.refusals += 1;
                Ok(())
            }
            Ok(found) => self
                .compare(&found)
                .map_err(|error| format!("I5: {what}: {error}")),
        }
    }
}

fn opened_log(disk: &Simulated, options: &Options) -> Checked<Log> {
    let (journal, _) = open(disk, options).map_err(|error| format!("I6: refused: {error}"))?;
    let reader = journal
        .reader(From::Oldest)
        .map_err(|error| format!("I6: {error}"))?;
    read_all(reader).map_err(|error| format!("I6: not readable: {error}"))
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.lives += other.lives;
        self.openings += other.openings;
        self.crashes += other.crashes;
        self.deaths += other.deaths;
        self.torn_tails += other.torn_tails;
        self.cuts += other.cuts;
        self.poisoned += other.poisoned;
        self.refusals += other.refusals;
        self.acknowledged += other.acknowledged;
    }
}

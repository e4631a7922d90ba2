//! Wishes and machine become one checked plan: which stages share which threads, where each
//! thread runs and how it waits. No `auto` is left in it.
//!
//! # Invariants
//!
//! * `P1` Every stage is on exactly one thread.
//! * `P2` No more threads spin for ever than there are usable CPUs, unless the user insists.
//! * `P3` No two threads that spin are pinned to the same CPU.

mod check;
mod pins;
mod place;

use std::collections::BTreeMap;

use lockstep_ringbuffer::{Memory, Wait};
use serde_json::{Value, json};

use self::check::{check_roles, check_sizes};
use self::pins::cpus;
use self::place::{groups, settled, wait_of, wants_one_thread};
use super::shape::Shape;
use super::wish::{Log, Pin, Place, Policy, Waits};
use crate::exit::Refusal;
use crate::machine::cpus::Machine;

/// Sizes of events that are built in.
pub const EVENT_SIZES: [usize; 8] = [16, 32, 64, 128, 256, 512, 1024, 4096];

/// Those of the engine's: a header, three words of ours, and others.
pub const ENGINE_EVENT_SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 4096];

/// Events that a stage of a plain ring takes in one turn, unless told.
const BATCH: usize = 256;

/// The strategy of threads that have to share CPUs.
const SHARING: Wait = Wait::Yield { spins: 100 };

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wishes {
    /// Stages and who follows whom.
    pub shape: Shape,
    /// Slots.
    pub ring: usize,
    /// Bytes of an event.
    pub event_size: usize,
    /// Events that a stage takes in one turn at most; none: 256, and with the engine what it
    /// chooses itself.
    pub batch: Option<usize>,
    /// Events published at once.
    pub claim: usize,
    /// How long each last stage works on an event, as logic would.
    pub work: std::time::Duration,
    /// How threads wait.
    pub waits: Waits,
    /// Which stages share a thread.
    pub place: Place,
    /// Where threads run.
    pub pin: Pin,
    /// Which CPUs `auto` takes.
    pub policy: Policy,
    /// Whether two threads that spin may share a core.
    pub allow_smt: bool,
    /// Whether a CPU that may not be used is left out instead of refused.
    pub pin_best_effort: bool,
    /// What lies below the rings.
    pub memory: Memory,
    /// What the engine keeps, and who waits for it.
    pub log: Log,
    /// Whether the way is split by stages.
    pub stages: bool,
    /// Whether to go on where CPUs are too few, or shared by hardware threads.
    pub insist: bool,
}

impl Wishes {
    /// The defaults: 64 Ki slots of 64 bytes.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            ring: 1 << 16,
            event_size: 64,
            batch: None,
            claim: 1,
            work: std::time::Duration::ZERO,
            waits: Waits::default(),
            place: Place::Auto,
            pin: Pin::Auto,
            policy: Policy::Near,
            allow_smt: false,
            pin_best_effort: false,
            memory: Memory::default(),
            log: Log::default(),
            stages: false,
            insist: false,
        }
    }
}

/// One thread of stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its stages, by index, in the order of their turns.
    pub stages: Vec<usize>,
    /// Where it runs.
    pub cpu: Option<u32>,
    /// How it waits.
    pub wait: Wait,
}

/// A plan that this machine can carry out.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Stages and who follows whom.
    pub shape: Shape,
    /// Slots.
    pub ring: usize,
    /// Bytes of an event.
    pub event_size: usize,
    /// Events that a stage takes in one turn at most; 0: the engine chooses, a quarter of its
    /// ring.
    pub batch: usize,
    /// Events published at once.
    pub claim: usize,
    /// How long each last stage works on an event.
    pub work: std::time::Duration,
    /// Where the generators run.
    pub producers: Vec<Option<u32>>,
    /// Whether generators give their CPU away while there is nothing to send.
    pub producers_yield: bool,
    /// The threads of the stages; none: the generator gives the stages their turns.
    pub threads: Vec<Thread>,
    /// What lies below the rings.
    pub memory: Memory,
    /// What the engine keeps, and who waits for it.
    pub log: Log,
    /// Whether the way is split by stages.
    pub stages: bool,
    /// What was given up on the way: a CPU that may not be used.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Checks the wishes against the machine and settles what was left open.
    ///
    /// # Errors
    ///
    /// What cannot be done, and what can.
    pub fn resolve(wishes: &Wishes, machine: &Machine) -> Result<Self, Refusal> {
        check_sizes(wishes)?;
        check_roles(wishes)?;
        let inline = wants_one_thread(wishes, machine);
        let groups = if inline {
            Vec::new()
        } else {
            groups(wishes, machine)?
        };
        let producers = wishes.shape.producers();
        let crowded = producers + groups.len() > machine.spinners_max();
        let mut warnings = Vec::new();
        let cpus = cpus(wishes, machine, producers, &groups, crowded, &mut warnings)?;
        let (producer_cpus, thread_cpus) = cpus.split_at(producers);
        let threads: Vec<Thread> = groups
            .into_iter()
            .zip(thread_cpus)
            .map(|(stages, &cpu)| {
                let wait = settled(wait_of(wishes, &stages)?, crowded);
                Ok(Thread { stages, cpu, wait })
            })
            .collect::<Result<_, Refusal>>()?;
        let producer_wait = settled(wishes.waits.of("producer"), crowded);
        let mut plan = Self {
            shape: wishes.shape,
            ring: wishes.ring,
            event_size: wishes.event_size,
            batch: batch(wishes),
            claim: wishes.claim,
            work: wishes.work,
            producers: producer_cpus.to_vec(),
            producers_yield: !producer_wait.spins_for_ever(),
            threads,
            memory: wishes.memory,
            log: wishes.log.clone(),
            stages: wishes.stages,
            warnings,
        };
        plan.check_spinners(wishes, machine)?;
        plan.check_shared_cpus()?;
        plan.check_siblings(wishes, machine)?;
        plan.check_engine(wishes)?;
        Ok(plan)
    }

    /// Threads that never give their CPU away, generators included.
    #[must_use]
    pub fn spinners(&self) -> usize {
        let stages = self
            .threads
            .iter()
            .filter(|thread| thread.wait.spins_for_ever());
        let generators = if self.producers_yield {
            0
        } else {
            self.producers.len()
        };
        stages.count() + generators
    }

    /// Every CPU that is pinned to, each once.
    #[must_use]
    pub fn pinned_cpus(&self) -> Vec<u32> {
        let all = self
            .producers
            .iter()
            .copied()
            .chain(self.threads.iter().map(|t| t.cpu));
        let mut cpus: Vec<u32> = all.flatten().collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    /// The CPUs of the generators, if they are pinned.
    #[must_use]
    pub fn generator_cpus(&self) -> Vec<u32> {
        self.producers.iter().copied().flatten().collect()
    }

    /// `stage0+stage1,stage2`; `inline` where the generator does it all.
    #[must_use]
    pub fn place(&self) -> String {
        if self.threads.is_empty() {
            return "inline".to_owned();
        }
        let groups = self.threads.iter().map(|thread| {
            let names: Vec<String> = thread
                .stages
                .iter()
                .map(|&i| self.shape.stage_name(i))
                .collect();
            names.join("+")
        });
        groups.collect::<Vec<_>>().join(",")
    }

    /// `producer=0 stage0+stage1=1`, or why there are no pins.
    #[must_use]
    pub fn pins(&self) -> String {
        if self.pinned_cpus().is_empty() {
            return "none".to_owned();
        }
        let show = |cpu: Option<u32>| cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string());
        let mut parts: Vec<String> = self
            .producers
            .iter()
            .enumerate()
            .map(|(index, &cpu)| match self.producers.len() {
                1 => format!("producer={}", show(cpu)),
                _ => format!("producer{index}={}", show(cpu)),
            })
            .collect();
        for (thread, group) in self.threads.iter().zip(self.place().split(',')) {
            parts.push(format!("{group}={}", show(thread.cpu)));
        }
        parts.join(" ")
    }

    /// How the stages' threads wait; one word if they agree.
    #[must_use]
    pub fn waits(&self) -> String {
        let waits: Vec<String> = self.threads.iter().map(|t| t.wait.to_string()).collect();
        match waits.as_slice() {
            [] => "none: one thread does everything".to_owned(),
            [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
            _ => waits.join(", "),
        }
    }

    /// For the result.
    #[must_use]
    pub fn config(&self) -> BTreeMap<String, Value> {
        let mut config = BTreeMap::from([
            ("topology".to_owned(), json!(self.shape.to_string())),
            ("ring".to_owned(), json!(self.ring)),
            ("event_size".to_owned(), json!(self.event_size)),
            ("batch".to_owned(), json!(self.batch)),
            ("claim".to_owned(), json!(self.claim)),
            (
                "work_ns".to_owned(),
                json!(super::quantity::nanos(self.work)),
            ),
            ("wait".to_owned(), json!(self.waits())),
            ("place".to_owned(), json!(self.place())),
            ("pin".to_owned(), json!(self.pins())),
            ("producers_yield".to_owned(), json!(self.producers_yield)),
            ("acknowledged".to_owned(), json!(self.acknowledged())),
        ]);
        if self.shape == Shape::Full {
            if self.batch == 0 {
                config.remove("batch");
            }
            for (key, value) in [
                ("journal", self.log.mode_name()),
                ("gate", self.log.gate_name()),
                ("journal_thread", self.log.thread_name()),
            ] {
                config.insert(key.to_owned(), json!(value));
            }
        }
        // What is not asked for is not said: results from before it could be are like these.
        if self.memory.huge_pages {
            config.insert("mem".to_owned(), json!("thp"));
        }
        if self.memory.lock {
            config.insert("mlock".to_owned(), json!(true));
        }
        config
    }

    /// Clock reads that splitting the way adds to each event: with the engine one at the door,
    /// two at the logic; else one at each stage but the last.
    #[must_use]
    pub fn stage_reads(&self) -> usize {
        match (self.stages, self.shape) {
            (false, _) | (_, Shape::Fanout(_)) => 0,
            (_, Shape::Full) => 3,
            (_, shape) => shape.stages() - 1,
        }
    }

    /// What an event has behind it when it counts as done.
    #[must_use]
    pub fn acknowledged(&self) -> &'static str {
        match self.shape {
            Shape::Full => self.log.acknowledged(),
            _ => "seen by the last stage; nothing is kept",
        }
    }
}

fn batch(wishes: &Wishes) -> usize {
    match (wishes.batch, wishes.shape) {
        (None, Shape::Full) => 0,
        (asked, _) => asked.unwrap_or(BATCH).min(wishes.ring),
    }
}

#[cfg(test)]
mod tests;

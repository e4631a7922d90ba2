//! Wishes and machine become one checked plan: which stages share which threads, where each
//! thread runs and how it waits. No `auto` is left in it.
//!
//! # Invariants
//!
//! * `P1` Every stage is on exactly one thread.
//! * `P2` No more threads spin for ever than there are usable CPUs, unless the user insists.
//! * `P3` No two threads that spin are pinned to the same CPU.

use std::collections::BTreeMap;

use lockstep_ringbuffer::Wait;
use serde_json::{Value, json};

use super::choose;
use super::quantity::show_short;
use super::shape::Shape;
use super::wish::{Log, Pin, Place, Policy, Waits};
use crate::exit::Refusal;
use crate::machine::cpu_list;
use crate::machine::cpus::{Distance, Machine};

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

    /// P2.
    fn check_spinners(&self, wishes: &Wishes, machine: &Machine) -> Result<(), Refusal> {
        let (spinning, usable) = (self.spinners(), machine.spinners_max());
        if spinning <= usable || wishes.insist {
            return Ok(());
        }
        let flag = if wishes.place == Place::Auto {
            "--wait"
        } else {
            "--place"
        };
        let list = cpu_list::show(&machine.allowed);
        Err(Refusal::usage(
            format!(
                "{flag} asks for {spinning} spinning threads, {usable} CPUs are usable ({list}). They would \
                 take turns and every number would be meaningless"
            ),
            "--place auto, --wait auto, --topology spsc, or --insist",
        ))
    }

    /// Two threads that spin on one core take each other's units: refused where the user
    /// named the CPUs, told where there was no other choice.
    fn check_siblings(&mut self, wishes: &Wishes, machine: &Machine) -> Result<(), Refusal> {
        if wishes.allow_smt || wishes.insist || wishes.policy == Policy::Smt {
            return Ok(());
        }
        let generators = self.producers.iter().enumerate().map(|(index, &cpu)| {
            (
                format!("producer{index}"),
                cpu.filter(|_| !self.producers_yield),
            )
        });
        let place = self.place();
        let threads = self.threads.iter().zip(place.split(',').map(str::to_owned));
        let threads = threads
            .map(|(thread, name)| (name, thread.cpu.filter(|_| thread.wait.spins_for_ever())));
        let mut spinners: Vec<(String, u32)> = Vec::new();
        for (name, cpu) in generators.chain(threads) {
            let Some(cpu) = cpu else { continue };
            let sibling = spinners.iter().find(|(_, other)| {
                machine.distance(*other, cpu) == Distance::SameCore && *other != cpu
            });
            if let Some((other, other_cpu)) = sibling {
                let what = format!(
                    "{other} (CPU {other_cpu}) and {name} (CPU {cpu}) share a core; both spin"
                );
                if matches!(wishes.pin, Pin::Auto) {
                    self.warnings
                        .push(format!("{what}: there are no more cores"));
                    return Ok(());
                }
                return Err(Refusal::usage(
                    format!("--pin: {what}"),
                    "a core each (lockstep doctor shows them), --wait spin-pause, or --allow-smt",
                ));
            }
            spinners.push((name, cpu));
        }
        Ok(())
    }

    /// What the engine can and cannot do.
    fn check_engine(&self, wishes: &Wishes) -> Result<(), Refusal> {
        if self.shape != Shape::Full {
            if wishes.log.directory.is_some() {
                return Err(Refusal::usage(
                    format!("--journal-dir: {} keeps nothing", self.shape),
                    "--topology full",
                ));
            }
            return Ok(());
        }
        if !ENGINE_EVENT_SIZES.contains(&self.event_size) {
            return Err(Refusal::usage(
                format!(
                    "--event-size {}: an event of the engine has a header of 24 bytes and 40 of ours",
                    self.event_size
                ),
                "--event-size 64, or a plain ring: --topology diamond",
            ));
        }
        if self.ring < 16 {
            return Err(Refusal::usage(
                format!("--ring {}: the engine wants 16 slots at least", self.ring),
                "--ring 1Ki",
            ));
        }
        let pinned = self
            .threads
            .iter()
            .filter(|thread| thread.cpu.is_some())
            .count();
        if pinned != 0 && pinned != self.threads.len() {
            return Err(Refusal::usage(
                format!(
                    "--pin names CPUs for {pinned} of {} threads of the engine",
                    self.threads.len()
                ),
                "one for each of them, or for none",
            ));
        }
        Ok(())
    }

    /// P3.
    fn check_shared_cpus(&self) -> Result<(), Refusal> {
        let mut taken: BTreeMap<u32, String> = BTreeMap::new();
        let generators = self.producers.iter().enumerate().map(|(index, &cpu)| {
            let name = format!("producer{index}");
            (name, cpu, !self.producers_yield)
        });
        let threads = self.threads.iter().zip(
            self.place()
                .split(',')
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        let threads = threads.map(|(t, name)| (name, t.cpu, t.wait.spins_for_ever()));
        for (name, cpu, spins) in generators.chain(threads) {
            let Some(cpu) = cpu.filter(|_| spins) else {
                continue;
            };
            if let Some(other) = taken.insert(cpu, name.clone()) {
                return Err(Refusal::usage(
                    format!("--pin names CPU {cpu} for {other} and for {name}; both spin"),
                    format!("a CPU each, or one thread: --place ...,{other}+{name}"),
                ));
            }
        }
        Ok(())
    }
}

fn check_sizes(wishes: &Wishes) -> Result<(), Refusal> {
    let ring = wishes.ring;
    if !ring.is_power_of_two() || ring < 2 {
        let above = ring.max(2).checked_next_power_of_two().unwrap_or(1 << 20);
        let below = (above / 2).max(2);
        return Err(Refusal::usage(
            format!("--ring {ring} is not a power of two"),
            format!(
                "{above} ({}) or {below} ({})",
                show_short(above as u64),
                show_short(below as u64)
            ),
        ));
    }
    if !EVENT_SIZES.contains(&wishes.event_size) {
        let sizes = EVENT_SIZES.map(|size| size.to_string()).join(", ");
        return Err(Refusal::usage(
            format!("--event-size {} is not built in", wishes.event_size),
            format!("one of {sizes} bytes"),
        ));
    }
    let bytes = ring.saturating_mul(wishes.event_size);
    if bytes > 8 << 30 {
        return Err(Refusal::usage(
            format!(
                "--ring {ring} of {} B is {} B",
                wishes.event_size,
                show_short(bytes as u64)
            ),
            "at most 8 GiB; events that lie so far back are in no cache anyway",
        ));
    }
    if wishes.claim == 0 || wishes.claim > ring / 2 {
        return Err(Refusal::usage(
            format!("--claim {} does not fit a ring of {ring}", wishes.claim),
            format!("1 to {}", ring / 2),
        ));
    }
    if wishes.batch == Some(0) {
        return Err(Refusal::usage(
            "--batch 0 takes nothing",
            "1 or more; 256 is the default",
        ));
    }
    Ok(())
}

fn batch(wishes: &Wishes) -> usize {
    match (wishes.batch, wishes.shape) {
        (None, Shape::Full) => 0,
        (asked, _) => asked.unwrap_or(BATCH).min(wishes.ring),
    }
}

/// On one CPU the generator does the stages' work between two sends.
fn wants_one_thread(wishes: &Wishes, machine: &Machine) -> bool {
    let one_cpu = machine.spinners_max() == 1;
    let free = wishes.place == Place::Auto && wishes.waits == Waits::default();
    // The engine has threads of its own always.
    let steps = wishes.shape != Shape::Full;
    one_cpu && free && steps && wishes.shape.producers() == 1
}

fn groups(wishes: &Wishes, machine: &Machine) -> Result<Vec<Vec<usize>>, Refusal> {
    match &wishes.place {
        Place::Groups(names) => named_groups(names, wishes.shape),
        Place::Auto => {
            let stages = wishes.shape.stages();
            let left = machine
                .spinners_max()
                .saturating_sub(wishes.shape.producers());
            Ok(split(stages, left.clamp(1, stages)))
        }
    }
}

/// `stages` in `threads` runs of nearly equal length: neighbours share a thread.
fn split(stages: usize, threads: usize) -> Vec<Vec<usize>> {
    (0..threads)
        .map(|thread| (thread * stages / threads..(thread + 1) * stages / threads).collect())
        .collect()
}

/// P1.
fn named_groups(names: &[Vec<String>], shape: Shape) -> Result<Vec<Vec<usize>>, Refusal> {
    let all: Vec<String> = (0..shape.stages()).map(|i| shape.stage_name(i)).collect();
    let mut seen = vec![false; all.len()];
    let mut groups = Vec::new();
    for group in names {
        let mut stages = Vec::new();
        for name in group {
            let Some(index) = all.iter().position(|known| known == name) else {
                return Err(Refusal::usage(
                    format!("--place names {name}, which {shape} has not"),
                    format!("its stages are {}", all.join(", ")),
                ));
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(Refusal::usage(
                    format!("--place names {name} twice"),
                    "each stage once",
                ));
            }
            stages.push(index);
        }
        groups.push(stages);
    }
    if let Some(missing) = seen.iter().position(|seen| !seen) {
        return Err(Refusal::usage(
            format!("--place leaves out {}", all[missing]),
            format!("each of {} once", all.join(", ")),
        ));
    }
    Ok(groups)
}

/// What the thread's stages were asked to do: those that were named, or what is for all.
fn wait_of(wishes: &Wishes, stages: &[usize]) -> Result<Wait, Refusal> {
    let names: Vec<String> = stages
        .iter()
        .map(|&index| wishes.shape.stage_name(index))
        .collect();
    let mut named = names.iter().filter_map(|name| wishes.waits.named(name));
    let Some(first) = named.next() else {
        return Ok(wishes.waits.of(&names[0]));
    };
    match named.find(|other| *other != first) {
        None => Ok(first),
        Some(other) => Err(Refusal::usage(
            format!(
                "--wait asks for {first} and for {other} on one thread, {}",
                names.join("+")
            ),
            "one strategy for stages that share a thread, or --place apart",
        )),
    }
}

/// Who is named in `--wait` is there.
fn check_roles(wishes: &Wishes) -> Result<(), Refusal> {
    let shape = wishes.shape;
    let stages = (0..shape.stages()).map(|index| shape.stage_name(index));
    let producers = (0..shape.producers()).map(|index| format!("producer{index}"));
    let all: Vec<String> = stages.chain(producers).collect();
    let is_there =
        |role: &String| all.contains(role) || all.iter().any(|one| Waits::kind(one) == role);
    match wishes.waits.roles.keys().find(|role| !is_there(role)) {
        None => Ok(()),
        Some(stranger) => Err(Refusal::usage(
            format!("--wait names {stranger}, which {shape} has not"),
            format!("its roles are {}", all.join(", ")),
        )),
    }
}

fn settled(wait: Wait, crowded: bool) -> Wait {
    match wait {
        Wait::Auto if crowded => SHARING,
        Wait::Auto => Wait::Spin,
        other => other,
    }
}

/// A CPU for each generator and then for each thread of stages.
fn cpus(
    wishes: &Wishes,
    machine: &Machine,
    producers: usize,
    groups: &[Vec<usize>],
    crowded: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<u32>>, Refusal> {
    let threads = producers + groups.len();
    let mut named: Vec<Option<u32>> = match &wishes.pin {
        Pin::None => return Ok(vec![None; threads]),
        Pin::Auto if crowded => return Ok(vec![None; threads]),
        Pin::Auto => {
            let chosen = choose::cpus(machine, threads, wishes.policy)?;
            return Ok((0..threads)
                .map(|index| chosen.get(index).copied())
                .collect());
        }
        Pin::List(list) => (0..threads).map(|index| list.get(index).copied()).collect(),
        Pin::Roles(roles) => roles_to_cpus(roles, wishes.shape, producers, groups)?,
    };
    for (index, slot) in named.iter_mut().enumerate() {
        let Some(cpu) = *slot else { continue };
        if !machine.allowed.contains(&cpu) && !machine.isolated().contains(&cpu) {
            let role = if index < producers {
                format!("producer{index}")
            } else {
                wishes.shape.stage_name(groups[index - producers][0])
            };
            let what = format!(
                "cannot pin {role} to CPU {cpu}: this process may use CPUs {}",
                cpu_list::show(&machine.allowed)
            );
            if wishes.pin_best_effort {
                warnings.push(format!("{what}; it is not pinned"));
                *slot = None;
                continue;
            }
            return Err(Refusal::environment(
                what,
                format!("--pin auto, or start with CPU {cpu} allowed (taskset, --cpuset-cpus)"),
            ));
        }
    }
    Ok(named)
}

fn roles_to_cpus(
    roles: &BTreeMap<String, Vec<u32>>,
    shape: Shape,
    producers: usize,
    groups: &[Vec<usize>],
) -> Result<Vec<Option<u32>>, Refusal> {
    let mut known: Vec<String> = (0..producers)
        .map(|index| format!("producer{index}"))
        .collect();
    known.extend((0..shape.stages()).map(|index| shape.stage_name(index)));
    known.push("producer".to_owned());
    if let Some(stranger) = roles.keys().find(|role| !known.contains(role)) {
        return Err(Refusal::usage(
            format!("--pin names {stranger}, which {shape} has not"),
            format!("its roles are {}", known.join(", ")),
        ));
    }
    let mut cpus: Vec<Option<u32>> = (0..producers)
        .map(|index| {
            let own = roles
                .get(&format!("producer{index}"))
                .and_then(|list| list.first());
            let shared = roles.get("producer").and_then(|list| list.get(index));
            own.or(shared).copied()
        })
        .collect();
    for stages in groups {
        let mut found: Vec<u32> = stages
            .iter()
            .filter_map(|&index| roles.get(&shape.stage_name(index))?.first().copied())
            .collect();
        found.dedup();
        if found.len() > 1 {
            let name = shape.stage_name(stages[0]);
            return Err(Refusal::usage(
                format!(
                    "--pin puts the thread of {name} on CPUs {}",
                    cpu_list::show(&found)
                ),
                "stages that share a thread share its CPU",
            ));
        }
        cpus.push(found.first().copied());
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpus::tests::{Captured, tree};

    fn machine(name: &str, sockets: u32, cores: u32, smt: bool, l3: u32) -> Machine {
        let captured = Captured::new(name, &tree(sockets, cores, smt, l3));
        Machine::read(captured.root(), None)
    }

    fn refuse(wishes: &Wishes, machine: &Machine) -> String {
        Plan::resolve(wishes, machine).unwrap_err().to_string()
    }

    #[test]
    fn two_cpus_run_the_diamond_on_one_thread_beside_the_generator() {
        let plan = Plan::resolve(
            &Wishes::new(Shape::Diamond),
            &machine("plan-two", 1, 2, false, 2),
        )
        .unwrap();
        assert_eq!(plan.place(), "stage0+stage1+stage2");
        assert_eq!(plan.pins(), "producer=0 stage0+stage1+stage2=1");
        assert_eq!(plan.waits(), "spin");
        assert_eq!(plan.spinners(), 2);
    }

    #[test]
    fn one_cpu_runs_everything_on_the_generator() {
        let one = machine("plan-one", 1, 1, false, 1);
        let plan = Plan::resolve(&Wishes::new(Shape::Diamond), &one).unwrap();
        assert!(plan.threads.is_empty());
        assert_eq!(plan.place(), "inline");
        // Two producers need two threads; they and the stage take turns and yield.
        let plan = Plan::resolve(&Wishes::new(Shape::Mpsc(2)), &one).unwrap();
        assert_eq!(plan.threads.len(), 1);
        assert_eq!(plan.spinners(), 0);
    }

    #[test]
    fn sixty_four_cpus_give_each_stage_a_core_of_one_l3() {
        let big = machine("plan-big", 2, 16, true, 8);
        let plan = Plan::resolve(&Wishes::new(Shape::Diamond), &big).unwrap();
        assert_eq!(plan.place(), "stage0,stage1,stage2");
        let cpus = plan.pinned_cpus();
        assert_eq!(cpus.len(), 4);
        for pair in cpus.windows(2) {
            assert_eq!(big.distance(pair[0], pair[1]), Distance::SameL3, "{cpus:?}");
        }
    }

    #[test]
    fn p2_too_many_spinners_are_refused_with_what_would_do() {
        let two = machine("plan-p2", 1, 2, false, 2);
        let mut wishes = Wishes::new(Shape::Pipeline(4));
        wishes.place = "stage0,stage1,stage2,stage3".parse().unwrap();
        wishes.waits = "spin".parse().unwrap();
        assert_eq!(
            refuse(&wishes, &two),
            "--place asks for 5 spinning threads, 2 CPUs are usable (0,1). They would take turns and \
             every number would be meaningless\n  hint: --place auto, --wait auto, --topology spsc, \
             or --insist"
        );
        wishes.insist = true;
        assert!(Plan::resolve(&wishes, &two).is_ok());
        wishes.insist = false;
        wishes.waits = Waits::default();
        let plan = Plan::resolve(&wishes, &two).unwrap();
        assert_eq!(plan.waits(), "yield:100", "auto counts CPUs");
    }

    #[test]
    fn p3_one_cpu_for_two_spinners_is_refused() {
        let eight = machine("plan-p3", 1, 8, false, 8);
        let mut wishes = Wishes::new(Shape::Pipeline(2));
        wishes.pin = Pin::parse("producer=0,stage0=3,stage1=3", &[]).unwrap();
        assert_eq!(
            refuse(&wishes, &eight),
            "--pin names CPU 3 for stage0 and for stage1; both spin\n  hint: a CPU each, or one \
             thread: --place ...,stage0+stage1"
        );
    }

    #[test]
    fn bad_sizes_and_places_say_what_would_do() {
        let two = machine("plan-bad", 1, 2, false, 2);
        let base = Wishes::new(Shape::Spsc);
        let cases: Vec<(Wishes, &str)> = vec![
            (
                Wishes {
                    ring: 60_000,
                    ..base.clone()
                },
                "--ring 60000 is not a power of two\n  hint: 65536 (64Ki) or 32768 (32Ki)",
            ),
            (
                Wishes {
                    event_size: 20,
                    ..base.clone()
                },
                "--event-size 20 is not built in\n  hint: one of 16, 32, 64, 128, 256, 512, 1024, 4096 bytes",
            ),
            (
                Wishes {
                    claim: 0,
                    ..base.clone()
                },
                "--claim 0 does not fit a ring of 65536\n  hint: 1 to 32768",
            ),
            (
                Wishes {
                    pin: Pin::List(vec![0, 7]),
                    ..base.clone()
                },
                "cannot pin stage0 to CPU 7: this process may use CPUs 0,1\n  hint: --pin auto, or \
                 start with CPU 7 allowed (taskset, --cpuset-cpus)",
            ),
            (
                Wishes {
                    place: "stage5".parse().unwrap(),
                    ..base.clone()
                },
                "--place names stage5, which spsc has not\n  hint: its stages are stage0",
            ),
            (
                Wishes {
                    waits: "logic=spin".parse().unwrap(),
                    ..base.clone()
                },
                "--wait names logic, which spsc has not\n  hint: its roles are stage0, producer0",
            ),
            (
                Wishes {
                    waits: "stage0=spin,stage1=park".parse().unwrap(),
                    place: "stage0+stage1".parse().unwrap(),
                    ..Wishes::new(Shape::Pipeline(2))
                },
                "--wait asks for spin and for park on one thread, stage0+stage1\n  hint: one strategy \
                 for stages that share a thread, or --place apart",
            ),
            (
                Wishes {
                    pin: Pin::parse("logic=1", &[]).unwrap(),
                    ..base.clone()
                },
                "--pin names logic, which spsc has not\n  hint: its roles are producer0, stage0, producer",
            ),
        ];
        for (wishes, expected) in cases {
            assert_eq!(refuse(&wishes, &two), expected);
        }
    }

    #[test]
    fn the_engines_threads_wait_each_in_its_own_way() {
        let eight = machine("plan-waits", 1, 8, false, 8);
        let mut wishes = Wishes::new(Shape::Full);
        wishes.place = "order+journal,logic+egress".parse().unwrap();
        wishes.waits = "journal=park,logic=spin,producer=yield".parse().unwrap();
        let plan = Plan::resolve(&wishes, &eight).unwrap();
        assert_eq!(plan.waits(), "park, spin");
        assert!(plan.producers_yield);
        assert_eq!(plan.spinners(), 1);
    }

    #[test]
    fn p1_every_stage_has_one_thread() {
        for stages in 1..10 {
            for threads in 1..=stages {
                let groups = split(stages, threads);
                let all: Vec<usize> = groups.concat();
                assert_eq!(all, (0..stages).collect::<Vec<_>>());
                assert!(groups.iter().all(|group| !group.is_empty()));
            }
        }
    }
}

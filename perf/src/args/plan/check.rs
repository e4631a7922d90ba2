//! What a plan is refused for: sizes, roles that nobody has, and threads that would take turns.

use std::collections::BTreeMap;

use super::{ENGINE_EVENT_SIZES, EVENT_SIZES, Plan, Wishes};
use crate::args::quantity::show_short;
use crate::args::shape::Shape;
use crate::args::wish::{Pin, Place, Policy, Waits};
use crate::exit::Refusal;
use crate::machine::cpu_list;
use crate::machine::cpus::{Distance, Machine};

impl Plan {
    /// P2.
    pub(super) fn check_spinners(&self, wishes: &Wishes, machine: &Machine) -> Result<(), Refusal> {
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
    pub(super) fn check_siblings(
        &mut self,
        wishes: &Wishes,
        machine: &Machine,
    ) -> Result<(), Refusal> {
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
    pub(super) fn check_engine(&self, wishes: &Wishes) -> Result<(), Refusal> {
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
    pub(super) fn check_shared_cpus(&self) -> Result<(), Refusal> {
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

pub(super) fn check_sizes(wishes: &Wishes) -> Result<(), Refusal> {
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

/// Who is named in `--wait` is there.
pub(super) fn check_roles(wishes: &Wishes) -> Result<(), Refusal> {
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

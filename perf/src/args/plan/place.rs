//! Which stages share a thread, and how each thread waits.

use lockstep_ringbuffer::Wait;

use super::{SHARING, Wishes};
use crate::args::shape::Shape;
use crate::args::wish::{Place, Waits};
use crate::exit::Refusal;
use crate::machine::cpus::Machine;

/// On one CPU the generator does the stages' work between two sends.
pub(super) fn wants_one_thread(wishes: &Wishes, machine: &Machine) -> bool {
    let one_cpu = machine.spinners_max() == 1;
    let free = wishes.place == Place::Auto && wishes.waits == Waits::default();
    // The engine has threads of its own always.
    let steps = wishes.shape != Shape::Full;
    one_cpu && free && steps && wishes.shape.producers() == 1
}

pub(super) fn groups(wishes: &Wishes, machine: &Machine) -> Result<Vec<Vec<usize>>, Refusal> {
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
pub(super) fn split(stages: usize, threads: usize) -> Vec<Vec<usize>> {
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
pub(super) fn wait_of(wishes: &Wishes, stages: &[usize]) -> Result<Wait, Refusal> {
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

pub(super) fn settled(wait: Wait, crowded: bool) -> Wait {
    match wait {
        Wait::Auto if crowded => SHARING,
        Wait::Auto => Wait::Spin,
        other => other,
    }
}

//! A CPU for each thread.

use std::collections::BTreeMap;

use super::Wishes;
use crate::args::choose;
use crate::args::shape::Shape;
use crate::args::wish::Pin;
use crate::exit::Refusal;
use crate::machine::cpu_list;
use crate::machine::cpus::Machine;

/// A CPU for each generator and then for each thread of stages.
pub(super) fn cpus(
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

//! Which CPUs `--pin auto` takes, by the policy.

use super::wish::Policy;
use crate::exit::Refusal;
use crate::machine::cpus::{Distance, Machine};

/// CPUs for so many threads. Isolated ones first, where there are enough of them; a core
/// each, while there are cores; fewer than asked for only where the machine has no more.
///
/// # Errors
///
/// A policy that this machine is too small for.
pub(super) fn cpus(machine: &Machine, threads: usize, policy: Policy) -> Result<Vec<u32>, Refusal> {
    let candidates = candidates(machine, threads, policy)?;
    let chosen = match policy {
        Policy::Far => far(machine, &candidates, threads),
        Policy::Smt => smt(machine, &candidates, threads),
        Policy::Near | Policy::L3 | Policy::Node(_) => near(machine, &candidates, threads),
    };
    let one_l3 = chosen.iter().all(|&cpu| {
        let distance = machine.distance(chosen[0], cpu);
        cpu == chosen[0] || matches!(distance, Distance::SameCore | Distance::SameL3)
    });
    if policy == Policy::L3 && !one_l3 {
        return Err(Refusal::environment(
            format!("--pin-policy l3: no last-level cache has {threads} usable CPUs behind it"),
            "--pin-policy near, or fewer threads: --place",
        ));
    }
    Ok(chosen)
}

/// The CPUs that may be taken: the highest first, since devices like to interrupt the lowest.
fn candidates(machine: &Machine, threads: usize, policy: Policy) -> Result<Vec<u32>, Refusal> {
    let mut all: Vec<u32> = machine.allowed.clone();
    if let Policy::Node(node) = policy {
        all.retain(|&cpu| machine.cpu(cpu).is_some_and(|cpu| cpu.node == Some(node)));
        if all.len() < threads {
            return Err(Refusal::environment(
                format!(
                    "--pin-policy node:{node}: {} of the usable CPUs are on that node, {threads} threads want one",
                    all.len()
                ),
                "another node (lockstep doctor shows them), or --pin-policy near",
            ));
        }
    }
    let is_isolated = |&cpu: &u32| machine.cpu(cpu).is_some_and(|cpu| cpu.isolated);
    let isolated: Vec<u32> = all.iter().copied().filter(is_isolated).collect();
    if isolated.len() >= threads {
        all = isolated;
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    Ok(all)
}

fn shares_a_core(machine: &Machine, chosen: &[u32], cpu: u32) -> bool {
    let mut others = chosen.iter();
    others.any(|&other| machine.distance(other, cpu) == Distance::SameCore)
}

fn near(machine: &Machine, candidates: &[u32], threads: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::new();
    for &first in candidates {
        let mut by_distance: Vec<(Distance, u32)> = candidates
            .iter()
            .map(|&cpu| (machine.distance(first, cpu), cpu))
            .collect();
        by_distance.sort_by_key(|(distance, _)| *distance);
        let (mut chosen, mut siblings): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for (_, cpu) in by_distance {
            if shares_a_core(machine, &chosen, cpu) {
                siblings.push(cpu);
            } else {
                chosen.push(cpu);
            }
        }
        chosen.extend(siblings);
        chosen.truncate(threads);
        let reach = |cpus: &[u32]| {
            let others = cpus.iter().skip(1);
            let distances = others.map(|&cpu| machine.distance(cpus[0], cpu));
            distances.max().unwrap_or(Distance::SameL3)
        };
        if best.is_empty() || reach(&chosen) < reach(&best) && chosen.len() >= best.len() {
            best = chosen;
        }
    }
    best.sort_unstable();
    best
}

/// Each next one as far from those before it as there is.
fn far(machine: &Machine, candidates: &[u32], threads: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = candidates.iter().copied().take(1).collect();
    // Ends: each turn takes one of the candidates that are left, or there are none.
    while chosen.len() < threads {
        let left = candidates
            .iter()
            .copied()
            .filter(|cpu| !chosen.contains(cpu));
        let nearest = |cpu: u32| {
            let distances = chosen.iter().map(|&other| machine.distance(other, cpu));
            distances.min().unwrap_or(Distance::Unknown)
        };
        let Some(next) = left.max_by_key(|&cpu| (nearest(cpu), cpu)) else {
            break;
        };
        chosen.push(next);
    }
    chosen
}

/// The hardware threads of one core behind one another, then those of the next.
fn smt(machine: &Machine, candidates: &[u32], threads: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::new();
    for &cpu in candidates {
        if chosen.contains(&cpu) {
            continue;
        }
        let same_core = candidates
            .iter()
            .copied()
            .filter(|&other| other == cpu || machine.distance(cpu, other) == Distance::SameCore);
        chosen.extend(same_core);
    }
    chosen.truncate(threads);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpus::tests::{Captured, tree};

    /// Two sockets of 16 cores with two hardware threads each, eight cores to a cache.
    fn big(name: &str) -> Machine {
        let captured = Captured::new(name, &tree(2, 16, true, 8));
        Machine::read(captured.root(), None)
    }

    fn distances(machine: &Machine, cpus: &[u32]) -> Vec<Distance> {
        let pairs = cpus.windows(2);
        pairs
            .map(|pair| machine.distance(pair[0], pair[1]))
            .collect()
    }

    #[test]
    fn each_policy_takes_what_it_says() {
        let big = big("choose-big");
        let of = |policy| cpus(&big, 4, policy).unwrap();
        for policy in [Policy::Near, Policy::L3] {
            assert_eq!(
                distances(&big, &of(policy)),
                [Distance::SameL3; 3],
                "{policy}"
            );
        }
        assert_eq!(
            big.distance(of(Policy::Far)[0], of(Policy::Far)[1]),
            Distance::CrossNode
        );
        let smt = distances(&big, &of(Policy::Smt));
        assert_eq!((smt[0], smt[2]), (Distance::SameCore, Distance::SameCore));
        for node in [0, 1] {
            let chosen = of(Policy::Node(node));
            let nodes = chosen.iter().map(|&cpu| big.cpu(cpu).unwrap().node);
            assert!(nodes.clone().all(|found| found == Some(node)), "{chosen:?}");
        }
    }

    #[test]
    fn a_machine_that_is_too_small_is_refused() {
        let big = big("choose-small");
        let refusal = cpus(&big, 60, Policy::L3).unwrap_err().to_string();
        assert!(
            refusal.contains("no last-level cache has 60 usable CPUs"),
            "{refusal}"
        );
        let refusal = cpus(&big, 4, Policy::Node(7)).unwrap_err().to_string();
        assert!(
            refusal.contains("0 of the usable CPUs are on that node"),
            "{refusal}"
        );
    }

    #[test]
    fn no_policy_takes_a_cpu_twice() {
        let big = big("choose-twice");
        for policy in [Policy::Near, Policy::Far, Policy::Smt, Policy::Node(1)] {
            let mut chosen = cpus(&big, 20, policy).unwrap();
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 20, "{policy}");
        }
    }
}

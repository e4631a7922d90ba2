//! Which stages share a thread: `order+journal,logic+egress`.
//!
//! The default is two threads, what comes before the logic beside what follows it, and one
//! thread where there is one CPU: it never has more threads than there are CPUs.

use lockstep_ringbuffer::{BuildError, Graph, StageId, Wait};

use crate::config::{Config, ConfigError};

/// Stages before the logic, on the first thread of the default.
const FRONT: [&str; 3] = ["order", "journal", "replicate"];

/// Puts the stages of these names, all of them, on threads.
pub(crate) fn place<E: Send + Sync + 'static>(
    graph: &mut Graph<E>,
    config: &Config,
    stages: &[(String, StageId)],
) -> Result<(), crate::error::Error> {
    let groups = if config.place.is_empty() {
        default_groups(stages)
    } else {
        parse(&config.place)
    };
    if !config.pin.is_empty() && config.pin.len() != groups.len() {
        return Err(ConfigError::Value {
            name: "pin",
            found: format!("{} CPUs", config.pin.len()),
            expected: "one CPU for each thread of place, in its order",
        }
        .into());
    }
    warn_of_crowding(groups.len(), config.wait);
    for (at, names) in groups.iter().enumerate() {
        let ids: Result<Vec<StageId>, BuildError> = names
            .iter()
            // A stage that the configuration leaves out has no place to be put in.
            .filter(|name| !(*name == "journal" || *name == "replicate") || is_there(stages, name))
            .map(|name| graph.find(name))
            .collect();
        let ids = ids?;
        if ids.is_empty() {
            continue;
        }
        let placement = graph.together(&ids);
        placement.wait(config.wait);
        if let Some(&cpu) = config.pin.get(at) {
            placement.pin(cpu);
        }
    }
    Ok(())
}

fn is_there(stages: &[(String, StageId)], name: &str) -> bool {
    stages.iter().any(|(own, _)| own == name)
}

fn parse(text: &str) -> Vec<Vec<String>> {
    text.split(',')
        .map(|group| {
            group
                .split('+')
                .map(|name| name.trim().to_owned())
                .collect()
        })
        .collect()
}

fn default_groups(stages: &[(String, StageId)]) -> Vec<Vec<String>> {
    let (front, back): (Vec<String>, Vec<String>) = stages
        .iter()
        .map(|(name, _)| name.clone())
        .partition(|name| FRONT.contains(&name.as_str()));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus == 1 {
        vec![[front, back].concat()]
    } else {
        vec![front, back]
    }
}

/// Spinning threads that would take turns on the CPUs: said once, at the start.
fn warn_of_crowding(threads: usize, wait: Wait) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if wait.spins_for_ever() && threads > cpus {
        tracing::warn!(threads, cpus, %wait, "more spinning threads than CPUs: they will take turns; use auto or park");
    }
}

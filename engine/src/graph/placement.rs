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
    if !config.waits.is_empty() && config.waits.len() != groups.len() {
        return Err(ConfigError::Value {
            name: "waits",
            found: format!("{} strategies", config.waits.len()),
            expected: "one strategy for each thread of place, in its order; wait is for all",
        }
        .into());
    }
    warn_of_crowding((0..groups.len()).map(|at| config.wait_at(at)));
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
        placement.wait(config.wait_at(at));
        if let Some(&cpu) = config.pin.get(at) {
            placement.pin(cpu);
        }
    }
    Ok(())
}

/// The CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// So many threads run stages.
pub(crate) fn threads(config: &Config) -> usize {
    match config.place.as_str() {
        "" => cpus().min(2),
        place => place.split(',').count(),
    }
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
    if cpus() == 1 {
        vec![[front, back].concat()]
    } else {
        vec![front, back]
    }
}

/// Spinning threads that would take turns on the CPUs: said once, at the start.
fn warn_of_crowding(waits: impl Iterator<Item = Wait>) {
    let cpus = cpus();
    let threads = waits.filter(|wait| wait.spins_for_ever()).count();
    if threads > cpus {
        tracing::warn!(
            threads,
            cpus,
            "more spinning threads than CPUs: they will take turns; use auto or park"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_ringbuffer::{Batch, Progress};

    /// A graph of four stages placed as `config` says: how each thread waits, in their order.
    fn waits(config: &Config) -> Result<Vec<String>, crate::error::Error> {
        let mut graph = Graph::new(16, || 0_u64).unwrap();
        let mut stages: Vec<(String, StageId)> = Vec::new();
        for name in ["order", "journal", "logic", "egress"] {
            let after: Vec<StageId> = stages.last().map(|(_, id)| *id).into_iter().collect();
            let id = graph.stage(name, &after, |_: Batch<'_, u64>| Progress::All);
            stages.push((name.to_owned(), id));
        }
        place(&mut graph, config, &stages)?;
        let (_producer, pipeline) = graph.build()?;
        let (runners, _running) = pipeline.into_runners();
        let shown = runners.iter().map(|runner| format!("{runner:?}"));
        let wait = |text: String| {
            let (_, after) = text
                .split_once("wait: ")
                .expect("a runner shows how it waits");
            after.split([',', ' ']).next().unwrap_or("").to_owned()
        };
        Ok(shown.map(wait).collect())
    }

    #[test]
    fn each_thread_waits_as_it_was_told() {
        let config = |wait: Wait, waits: &[Wait]| Config {
            place: "order+journal,logic+egress".to_owned(),
            wait,
            waits: waits.to_vec(),
            ..Config::default()
        };
        assert_eq!(waits(&config(Wait::Park, &[])).unwrap(), ["Park", "Park"]);
        let each = config(Wait::Auto, &[Wait::Park, Wait::Spin]);
        assert_eq!(waits(&each).unwrap(), ["Park", "Spin"]);
        let few = config(Wait::Auto, &[Wait::Park]);
        let refused = waits(&few).unwrap_err().to_string();
        assert!(refused.contains("waits = 1 strategies"), "{refused}");
    }
}

//! Whether a graph can be built, and if not, why: names, edges, lanes, placements, policies.

use crate::cpus;
use crate::cursor::Sequence;
use crate::error::BuildError;
use crate::fault::OnFault;
use crate::graph::{Graph, Kind, MAX_STAGES, Placement};
use crate::plan::{Plan, Refusal, Vertex};
use crate::poller::OnDrop;
use crate::sync::Arc;

/// The latest start of a ring: as many sequences again are left for its life.
const MAX_START: u64 = u64::MAX / 2;

pub(super) fn check_names<E>(graph: &Graph<E>) -> Result<(), BuildError> {
    if graph.nodes.is_empty() {
        return Err(BuildError::NoStage);
    }
    // Readers count as one more stage in the plan.
    let max = MAX_STAGES - usize::from(graph.seats > 0);
    if graph.nodes.len() > max {
        return Err(BuildError::TooManyStages {
            asked: graph.nodes.len(),
            max,
        });
    }
    if graph.start > MAX_START {
        return Err(BuildError::Start {
            asked: Sequence(graph.start),
            max: Sequence(MAX_START),
        });
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        if graph.nodes[..index]
            .iter()
            .any(|other| other.name == node.name)
        {
            return Err(BuildError::DuplicateName {
                name: node.name.to_string(),
            });
        }
        if node.after.contains(&index) {
            return Err(BuildError::FollowsItself {
                stage: node.name.to_string(),
            });
        }
    }
    Ok(())
}

pub(super) fn plan<E>(graph: &Graph<E>) -> Result<Plan, BuildError> {
    let vertex = |node: &crate::graph::Node<E>| Vertex {
        after: node.after.clone(),
        writes: matches!(node.kind, Kind::Stage { writes: true, .. }),
        may_leave: matches!(node.kind, Kind::Poller(OnDrop::Detach) | Kind::Hold(_)),
    };
    let mut vertices: Vec<Vertex> = graph.nodes.iter().map(vertex).collect();
    let stages = vertices.len();
    if graph.seats > 0 {
        if vertices.iter().all(|vertex| vertex.may_leave) {
            return Err(BuildError::ReadersAlone);
        }
        // The readers as one more stage, so that none can be parallel to a writer.
        vertices.push(Vertex {
            after: graph.readers_after.clone(),
            writes: false,
            may_leave: true,
        });
    }
    let name = |stage: usize| match graph.nodes.get(stage) {
        Some(node) => node.name.to_string(),
        None => "readers".to_owned(),
    };
    let mut plan = Plan::of(&vertices).map_err(|refusal| match refusal {
        Refusal::Cycle(stages) => BuildError::Cycle {
            stages: stages.into_iter().map(name).collect(),
        },
        Refusal::ParallelWriter { writer, other } => BuildError::ParallelWriter {
            writer: name(writer),
            other: name(other),
        },
    })?;
    plan.gating.retain(|&stage| stage < stages);
    plan.order.retain(|&stage| stage < stages);
    plan.ancestors.truncate(stages);
    plan.after.truncate(stages);
    Ok(plan)
}

pub(super) fn check_lanes<E>(graph: &Graph<E>) -> Result<(), BuildError> {
    match graph.lanes.iter().find(|lane| lane.owners != 1) {
        None => Ok(()),
        Some(lane) => Err(BuildError::LaneOwner {
            type_name: lane.type_name,
            owners: lane.owners,
        }),
    }
}

/// Nobody may follow whoever may leave.
pub(super) fn check_pollers<E>(graph: &Graph<E>) -> Result<(), BuildError> {
    let detaches = |stage: usize| matches!(graph.nodes[stage].kind, Kind::Poller(OnDrop::Detach));
    let followed = |node: &crate::graph::Node<E>| node.after.iter().copied().find(|&s| detaches(s));
    for node in &graph.nodes {
        if let Some(poller) = followed(node) {
            return Err(BuildError::DetachableFollowed {
                poller: graph.nodes[poller].name.to_string(),
                follower: node.name.to_string(),
            });
        }
    }
    Ok(())
}

/// The placements that were asked for, in running order, and the default for the others.
pub(super) fn placements<E>(graph: &Graph<E>, plan: &Plan) -> Result<Vec<Placement>, BuildError> {
    let mut is_placed = vec![false; graph.nodes.len()];
    let mut places = Vec::new();
    for place in &graph.places {
        for &stage in &place.stages {
            let name = || graph.nodes[stage].name.to_string();
            if !matches!(graph.nodes[stage].kind, Kind::Stage { .. }) {
                return Err(BuildError::NotPlaceable { stage: name() });
            }
            if std::mem::replace(&mut is_placed[stage], true) {
                return Err(BuildError::PlacedTwice { stage: name() });
            }
        }
        if let Some(cpu) = place.cpu {
            cpus::check(&thread_name(place, |stage| &graph.nodes[stage].name), cpu)?;
        }
        places.push(Placement {
            stages: in_running_order(&place.stages, plan),
            ..place.clone()
        });
    }
    places.retain(|place| !place.stages.is_empty());
    let rest: Vec<usize> = plan
        .order
        .iter()
        .copied()
        .filter(|&stage| !is_placed[stage] && matches!(graph.nodes[stage].kind, Kind::Stage { .. }))
        .collect();
    let threads = places.iter().filter(|place| !place.on_caller).count();
    let free = cpus::usable_count().saturating_sub(threads + 1).max(1);
    let share = rest.len().div_ceil(free).max(1);
    places.extend(
        rest.chunks(share)
            .map(|stages| Placement::of(stages.to_vec())),
    );
    Ok(places)
}

/// As listed, but those first that others follow.
fn in_running_order(listed: &[usize], plan: &Plan) -> Vec<usize> {
    let mut left = listed.to_vec();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_ready = |&stage: &usize| {
            let ancestors = plan.ancestors[stage];
            left.iter().all(|&other| ancestors & (1 << other) == 0)
        };
        let next = left.iter().position(is_ready).expect("G1: no circle");
        order.push(left.remove(next));
    }
    order
}

pub(super) fn check_policies<E>(graph: &Graph<E>, places: &[Placement]) -> Result<(), BuildError> {
    let capacity = crate::column::index(graph.slots.capacity());
    let batches = graph.nodes.iter().filter_map(|node| node.max_batch);
    let batches = batches.chain(places.iter().filter_map(|place| place.max_batch));
    for asked in batches {
        if asked == 0 || asked > capacity {
            return Err(BuildError::MaxBatch { asked, capacity });
        }
    }
    for node in &graph.nodes {
        let policy: OnFault = node.on_fault.unwrap_or(graph.on_fault);
        if let Kind::Stage { work, .. } = &node.kind
            && policy.skips()
            && !work.is_event_by_event()
        {
            return Err(BuildError::SkipNeedsEvents {
                stage: node.name.to_string(),
            });
        }
    }
    Ok(())
}

/// The name that was given, or those of the stages.
pub(super) fn thread_name<'n>(place: &Placement, name: impl Fn(usize) -> &'n str) -> Arc<str> {
    place.name.clone().unwrap_or_else(|| {
        let names: Vec<&str> = place.stages.iter().map(|&stage| name(stage)).collect();
        Arc::from(names.join("+"))
    })
}

//! Who follows whom: order, ancestors, circles, who may write, who holds the producer back.
//!
//! Pure functions over a table of edges; nothing here knows a ring.
//!
//! # Invariants
//!
//! * `G1` Stages follow one another without a circle.
//! * `G2` A stage that writes is before or behind every other.
//! * `G3` A stage's promise carries those of all its ancestors, so an edge that another
//!   path implies is left out, and the producer looks at sinks only.

/// What the plan has to know of a stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vertex {
    /// The stages that it follows.
    pub(crate) after: Vec<usize>,
    /// It writes events.
    pub(crate) writes: bool,
    /// It may leave while others go on, so nobody's promise may hang on it.
    pub(crate) may_leave: bool,
}

/// The graph, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The stages, each behind those that it follows; ties in the order of their making.
    pub(crate) order: Vec<usize>,
    /// For each stage, a bit for each of its ancestors.
    pub(crate) ancestors: Vec<u64>,
    /// For each stage, whom it really has to follow (G3).
    pub(crate) after: Vec<Vec<usize>>,
    /// Whom the producer has to look at: sinks, counted without those who may leave, and
    /// those who may leave.
    pub(crate) gating: Vec<usize>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Cycle(Vec<usize>),
    ParallelWriter { writer: usize, other: usize },
}

impl Plan {
    pub(crate) fn of(vertices: &[Vertex]) -> Result<Self, Refusal> {
        let order = order(vertices)?;
        let ancestors = ancestors(vertices, &order);
        check_writers(vertices, &ancestors)?;
        let after: Vec<_> = vertices
            .iter()
            .map(|vertex| reduced(&vertex.after, &ancestors))
            .collect();
        let is_followed = |stage: usize| {
            let mut followers = after.iter().enumerate();
            followers
                .any(|(follower, after)| !vertices[follower].may_leave && after.contains(&stage))
        };
        let gating = (0..vertices.len())
            .filter(|&stage| vertices[stage].may_leave || !is_followed(stage))
            .collect();
        Ok(Self {
            order,
            ancestors,
            after,
            gating,
        })
    }
}

fn order(vertices: &[Vertex]) -> Result<Vec<usize>, Refusal> {
    let mut order = Vec::with_capacity(vertices.len());
    let mut is_placed = vec![false; vertices.len()];
    while order.len() < vertices.len() {
        let next = (0..vertices.len()).find(|&stage| {
            !is_placed[stage]
                && vertices[stage]
                    .after
                    .iter()
                    .all(|&before| is_placed[before])
        });
        let Some(next) = next else {
            return Err(Refusal::Cycle(circle(vertices, &is_placed)));
        };
        is_placed[next] = true;
        order.push(next);
    }
    Ok(order)
}

/// A circle among the stages that could not be placed: each of them follows another one.
fn circle(vertices: &[Vertex], is_placed: &[bool]) -> Vec<usize> {
    let mut path: Vec<usize> = (0..vertices.len())
        .filter(|&s| !is_placed[s])
        .take(1)
        .collect();
    loop {
        let last = path[path.len() - 1];
        let before = vertices[last]
            .after
            .iter()
            .copied()
            .find(|&s| !is_placed[s]);
        let Some(before) = before else { return path };
        if let Some(start) = path.iter().position(|&stage| stage == before) {
            path.push(before);
            path.drain(..start);
            path.reverse();
            return path;
        }
        path.push(before);
    }
}

fn ancestors(vertices: &[Vertex], order: &[usize]) -> Vec<u64> {
    let mut ancestors = vec![0_u64; vertices.len()];
    for &stage in order {
        ancestors[stage] = vertices[stage]
            .after
            .iter()
            .fold(0, |bits, &before| bits | ancestors[before] | 1 << before);
    }
    ancestors
}

fn check_writers(vertices: &[Vertex], ancestors: &[u64]) -> Result<(), Refusal> {
    let is_before = |a: usize, b: usize| ancestors[b] & (1 << a) != 0;
    for writer in (0..vertices.len()).filter(|&stage| vertices[stage].writes) {
        let parallel = (0..vertices.len()).find(|&other| {
            other != writer && !is_before(other, writer) && !is_before(writer, other)
        });
        if let Some(other) = parallel {
            return Err(Refusal::ParallelWriter { writer, other });
        }
    }
    Ok(())
}

/// Leaves out whoever is an ancestor of another one, and repetitions.
fn reduced(after: &[usize], ancestors: &[u64]) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for &before in after {
        let is_implied = after
            .iter()
            .any(|&other| ancestors[other] & (1 << before) != 0);
        if !is_implied && !kept.contains(&before) {
            kept.push(before);
        }
    }
    kept
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(after: &[usize]) -> Vertex {
        Vertex {
            after: after.to_vec(),
            ..Vertex::default()
        }
    }

    fn writes(after: &[usize]) -> Vertex {
        Vertex {
            writes: true,
            ..reads(after)
        }
    }

    #[test]
    fn edges_that_a_path_implies_are_left_out_and_sinks_gate() {
        let plan = Plan::of(&[reads(&[]), reads(&[0]), reads(&[0, 1, 1])]).unwrap();
        assert_eq!(plan.after, [vec![], vec![0], vec![1]]);
        assert_eq!(plan.gating, [2]);
        assert_eq!(plan.ancestors, [0, 1, 3]);
    }

    #[test]
    fn a_circle_is_told_in_its_order() {
        let refusal = Plan::of(&[reads(&[]), reads(&[0, 3]), reads(&[1]), reads(&[2])]);
        assert_eq!(refusal, Err(Refusal::Cycle(vec![1, 2, 3, 1])));
        assert_eq!(Plan::of(&[reads(&[0])]), Err(Refusal::Cycle(vec![0, 0])));
    }

    #[test]
    fn a_writer_beside_anybody_is_refused() {
        let beside = Plan::of(&[reads(&[]), writes(&[])]);
        let parallel = Refusal::ParallelWriter {
            writer: 1,
            other: 0,
        };
        assert_eq!(beside, Err(parallel));
        assert!(Plan::of(&[writes(&[]), reads(&[0]), reads(&[0]), writes(&[1, 2])]).is_ok());
    }

    #[test]
    fn whoever_may_leave_gates_beside_what_it_follows() {
        let leaving = Vertex {
            may_leave: true,
            ..reads(&[0])
        };
        assert_eq!(Plan::of(&[reads(&[]), leaving]).unwrap().gating, [0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 8 } else { 256 }, ..ProptestConfig::default() })]

        /// Stages with random edges to earlier ones, renumbered backwards.
        #[test]
        fn the_order_respects_every_edge_and_reduction_keeps_reachability(
            bits in prop::collection::vec(any::<u64>(), 1..20)
        ) {
            let last = bits.len() - 1;
            let mut vertices = vec![Vertex::default(); bits.len()];
            for (stage, bits) in bits.iter().enumerate() {
                vertices[last - stage] = reads(
                    &(0..stage).filter(|&s| bits >> s & 1 == 1).map(|s| last - s).collect::<Vec<_>>()
                );
            }
            let plan = Plan::of(&vertices).unwrap();
            for (index, &stage) in plan.order.iter().enumerate() {
                for before in &vertices[stage].after {
                    prop_assert!(plan.order[..index].contains(before));
                }
            }
            let reduced: Vec<_> = plan.after.iter().map(|after| reads(after)).collect();
            prop_assert_eq!(&Plan::of(&reduced).unwrap().ancestors, &plan.ancestors);
        }
    }
}

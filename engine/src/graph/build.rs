//! The graph of one role: leading, on a single node.
//!
//! ```text
//!   door ─► order ─► journal ─┬─► logic ─► egress        gate = logic
//!             │  └► replicate ┘
//!             └► logic ─► egress ◄─ journal, replicate   gate = output
//! ```

use std::sync::Arc;

use bytemuck::Zeroable;
use lockstep_journaler::storage::Storage;
use lockstep_ringbuffer::{
    Gate, Graph, MultiProducer, OnDrop, OnFull, Pipeline, Poller, Producer, StageId,
};

use crate::config::{Config, GateAt};
use crate::error::{Error, Result};
use crate::event::Slot;
use crate::graph::placement;
use crate::ledger::Ledger;
use crate::log::Log;
use crate::logic::{EventOf, Logic, OutputOf};
use crate::shared::Shared;
use crate::stage::egress::Egress;
use crate::stage::journal::{Committer, Inline, Worker};
use crate::stage::logic::LogicStage;
use crate::stage::order::Order;

/// Adds a stage of the application's own behind these, and says which it is.
pub(crate) type Attach<E> = Box<dyn FnOnce(&mut Graph<E>, &[StageId]) -> StageId + Send>;

/// A stage to be attached: its name, what it follows, and how it is made.
pub(crate) struct Attached<E> {
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) attach: Attach<E>,
}

/// The parts of a graph, made before it.
pub(crate) struct Parts<L: Logic, S: Storage> {
    pub(crate) order: Order,
    pub(crate) log: Option<Log<S>>,
    pub(crate) replicate: Option<Attach<EventOf<L>>>,
    pub(crate) logic: LogicStage<L>,
    pub(crate) egress: Egress<OutputOf<L>>,
    pub(crate) attached: Vec<Attached<EventOf<L>>>,
    pub(crate) ledger: Ledger,
    pub(crate) shared: Arc<Shared>,
}

/// The two ends of a built graph.
pub(crate) type Built<E> = (MultiProducer<E>, Pipeline<E>);

/// Checks and builds the graph; nothing runs yet.
pub(crate) fn build<L: Logic, S: Storage>(
    config: &Config,
    on_full: OnFull,
    parts: Parts<L, S>,
) -> Result<Built<EventOf<L>>> {
    let mut graph = ring(config, config.slots, EventOf::<L>::zeroed)?;
    graph.on_full(on_full).wait(config.wait);
    let mut stages: Vec<(String, StageId)> = Vec::new();
    let order = graph.stage_mut("order", &[], parts.order);
    stages.push(("order".to_owned(), order));
    let mut promises = Vec::new();
    if let Some(log) = parts.log {
        let (ledger, shared, is_alone) = (parts.ledger, parts.shared, parts.replicate.is_none());
        let committer = move |gate| Committer::new(gate, log, ledger, shared, is_alone);
        let id = journal(&mut graph, config, order, committer)?;
        stages.push(("journal".to_owned(), id));
        promises.push(id);
    }
    if let Some(attach) = parts.replicate {
        let id = attach(&mut graph, &[order]);
        stages.push(("replicate".to_owned(), id));
        promises.push(id);
    }
    let gated = if promises.is_empty() {
        vec![order]
    } else {
        promises.clone()
    };
    let (before_logic, mut before_egress) = match config.gate {
        GateAt::Logic => (gated, Vec::new()),
        GateAt::Output => (vec![order], promises),
    };
    let logic = graph.stage("logic", &before_logic, parts.logic);
    stages.push(("logic".to_owned(), logic));
    before_egress.push(logic);
    let egress = graph.stage("egress", &before_egress, parts.egress);
    stages.push(("egress".to_owned(), egress));
    for Attached {
        name,
        after,
        attach,
    } in parts.attached
    {
        let after = after
            .iter()
            .map(|name| graph.find(name))
            .collect::<Result<Vec<_>, _>>()?;
        let id = attach(&mut graph, &after);
        stages.push((name, id));
    }
    if config.batch != 0 {
        for (_, id) in &stages {
            graph.max_batch(*id, config.batch);
        }
    }
    placement::place(&mut graph, config, &stages)?;
    // A claim whose producer gave it up is an event that means nothing.
    Ok(graph.build_multi(|event| *event = EventOf::<L>::zeroed())?)
}

fn journal<E: Slot, S: Storage>(
    graph: &mut Graph<E>,
    config: &Config,
    order: StageId,
    committer: impl FnOnce(Gate<E>) -> Committer<E, S>,
) -> Result<StageId> {
    let (cpus, threads) = (placement::cpus(), placement::threads(config));
    if !config.journal_thread.is_worker(cpus, threads) {
        return Ok(graph.late_stage("journal", &[order], |gate| Inline(committer(gate))));
    }
    let mut refused = None;
    let id = graph.late_stage("journal", &[order], |gate| {
        Worker::new(committer(gate)).unwrap_or_else(|source| {
            refused = Some(source);
            Worker::none()
        })
    });
    match refused {
        None => Ok(id),
        Some(source) => Err(Error::Beside {
            what: "the journal's disk thread",
            source,
        }),
    }
}

/// A graph without stages, on the memory that the configuration asks for.
pub(crate) fn ring<E: Slot>(
    config: &Config,
    slots: usize,
    slot: impl FnMut() -> E,
) -> Result<Graph<E>> {
    let graph = Graph::with_memory(slots, config.memory(), slot)?;
    if config.huge_pages && !graph.memory().huge_pages {
        tracing::warn!(
            bytes = graph.memory().bytes,
            "huge_pages = true, and the kernel grants none: the ring lies in pages of the usual size"
        );
    }
    Ok(graph)
}

/// The output ring: *logic* writes, *egress* reads.
pub(crate) fn output_ring<O: Slot>(config: &Config) -> Result<(Producer<O>, Poller<O>)> {
    let mut graph = ring(config, config.output_slots, O::zeroed)?;
    graph.on_full(OnFull::Reject);
    let id = graph.poller("egress", &[], OnDrop::Detach);
    let (producer, mut pipeline) = graph.build()?;
    let poller = pipeline.poller(id)?;
    Ok((producer, poller))
}

//! A whole cluster in one thread, broken from a seed.
//!
//! The code that runs in production runs here: order, consensus, journal, recovery, codec. Around it
//! stand a clock, a network and disks that do what real ones do at their worst, in an order that one
//! number decides. The same number does the same again.
//!
//! ```text
//!   seed ─► Plan: nodes, clients, sizes, faults
//!           │
//!           ▼            bytes, delayed, lost, doubled, flipped, cut
//!        ┌──────┐ ◄─────────────────────────────────────────────► ┌──────┐
//!        │ Node │      begin │ persist │ receive │ request        │ Node │ …
//!        └──┬───┘                                                 └──┬───┘
//!           ▼ simulated disk: unsynced bytes, torn, EIO, full, rot     ▼
//!        Checker, after every step: rows, *synced bytes*, states, replies
//!
//!   chaos: safety only ──► heal everything ──► liveness: one leader, equal logs, service
//! ```
//!
//! Faults, and who must survive them:
//!
//! | fault | survived by |
//! |---|---|
//! | a process is killed, a machine loses power, in the midst of a write too | recovery: whatever was synced is there |
//! | pauses, slow disks, clocks that jump and drift | nobody is acknowledged by a leader that was deposed |
//! | partitions (full, one-way, bridge), lost, doubled, late messages, flipped bits | the consensus, codec and chain |
//! | EIO on write or sync | the node stops, and its machine is started again |
//! | a full disk | the node waits |
//! | rot in a journal, a lost disk | the node does not start; another takes its place under a new id |
//! | two leaders that write alone, a majority whose one member forgets and meets the others, staged on purpose | all of the above, one behind the other |
//! | a majority that is lost, and an operator who forces one node to go on alone | that node, with all that it has; who was left behind is refused by its epoch |
//! | events on which the logic panics | a majority puts them into quarantine, and all go on |
//! | members added, promoted, replaced, removed, leadership handed over | all of the above at the same time |
//!
//! Begin with [`run_seed`]. An engine drives its own [`Node`] by [`run_seed_of`].

mod checker;
mod cluster;
mod disk;
mod failure;
pub mod model;
mod network;
mod node;
mod plan;
mod quarantining;
mod random;
mod tally;

pub use checker::Checker;
pub use disk::{DiskLog, OnDisk};
pub use failure::Failure;
pub use node::{Admitted, ModelNode, Node, Request, Setup};
pub use plan::Plan;
pub use random::Random;
pub use tally::Tally;

use crate::replica::Mutation;

/// Runs the model's cluster of one seed to its end.
///
/// # Errors
///
/// [`Failure`], which says the seed, the step and the rule.
pub fn run_seed(seed: u64) -> Result<Tally, Box<Failure>> {
    run_seed_of::<ModelNode>(&Plan::of_seed(seed))
}

/// As [`run_seed`], with the code changed on purpose.
///
/// # Errors
///
/// As [`run_seed`]: here an error is what is hoped for.
#[doc(hidden)]
pub fn run_mutated(seed: u64, mutation: Mutation) -> Result<Tally, Box<Failure>> {
    let mut plan = Plan::of_seed(seed);
    plan.mutation = Some(mutation);
    run_seed_of::<ModelNode>(&plan)
}

/// Runs a cluster of nodes of any kind by this plan. A panic of a node is a failure like any other.
///
/// # Errors
///
/// [`Failure`].
pub fn run_seed_of<N: Node>(plan: &Plan) -> Result<Tally, Box<Failure>> {
    let run = std::panic::AssertUnwindSafe(|| cluster::Cluster::<N>::new(plan)?.run());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Box::new(Failure::panicked(
            plan.seed,
            text.unwrap_or_default(),
        )))
    })
}

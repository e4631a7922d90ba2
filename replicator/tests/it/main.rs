//! Does the crate keep its promises through its face?
//!
//! * `replica` one node, or three, by hand: when an answer leaves, who is refused, what is cut back
//! * `simulation` whole clusters from fixed and fresh seeds
//! * `mutations` the same with failures planted on purpose, which must be found

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not see as such"
)]

mod mutations;
mod replica;
mod simulation;

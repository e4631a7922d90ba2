//! The stages, one promise each.
//!
//! ```text
//!  order ──► journal ──┐            every event has position and time / is durable here
//!    └─────► replicate ┴► logic     … is committed by the quorum / is in the state
//!                           └► egress      … and its outputs have left
//! ```

pub(crate) mod egress;
pub(crate) mod journal;
pub(crate) mod logic;
pub(crate) mod order;
pub(crate) mod verdicts;

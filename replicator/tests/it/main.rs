//! Does the crate keep its promises through its face?
//!
//! * `replica` one node, or three, by hand: when an answer leaves, who is refused, what is cut back
//! * `simulation` whole clusters from fixed and fresh seeds, and the mutations that must be found

mod replica;
mod simulation;

//! Does the crate keep its promises through its face?
//!
//! * `simulation` whole clusters from fixed and fresh seeds, and the mutations that must be found

mod simulation;

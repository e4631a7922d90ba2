//! Agreement between nodes.
//!
//! This crate will hold the consensus, the transport and the catch-up of lagging
//! nodes. It is empty until then: one node needs none of it, and nothing in the
//! workspace pretends otherwise.

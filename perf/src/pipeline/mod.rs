//! The topologies that the program measures, built on the ring.

pub mod event;
pub mod latency;
mod parts;
pub mod throughput;

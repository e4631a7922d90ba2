//! The topologies that the program measures: plain rings, and the engine.

pub mod event;
pub mod full;
pub mod latency;
pub mod memory;
mod order;
mod parts;
pub mod throughput;
pub mod toil;
mod watched;

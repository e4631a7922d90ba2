//! Measuring without lying: an open loop, intended times, and reasons to doubt the result.

pub mod arrivals;
pub mod compare;
pub mod generator;
pub mod harness;
pub mod paired;
pub mod ranking;
pub mod recorder;
pub mod statistics;
pub mod tail;
pub mod validity;
pub mod watch;

#[cfg(test)]
mod proof;
#[cfg(test)]
mod simulated;

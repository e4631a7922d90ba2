//! The program as its users meet it: one module for each verb, run as a process.

#![expect(
    clippy::unwrap_used,
    reason = "the whole binary is tests: a failure panics"
)]

mod faces;
mod flags;
mod journal;
mod json;
mod lockstep;
mod run;
mod schema;
#[cfg(target_os = "linux")]
mod stall;

//! What the engine has of the machine: its clock, and the signals that end it.

pub mod clock;
pub(crate) mod priority;
pub mod signals;

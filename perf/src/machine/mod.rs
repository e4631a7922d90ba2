//! What this machine is, and how much it interrupts.

pub mod clock;
pub mod cpu_list;
pub mod cpus;
pub mod floor;
pub mod pin;

//! What this machine is, and how much it interrupts.

pub mod c2c;
pub mod clock;
pub mod cpu_list;
pub mod cpus;
pub mod doctor;
pub mod floor;
pub mod interrupt;
pub mod pin;
pub mod realtime;
pub mod storage;
pub mod usage;

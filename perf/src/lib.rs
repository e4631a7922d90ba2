//! The harness of `lockstep`: what the program measures with, for your own logic too.
//!
//! [`Harness`] drives an open loop against whatever implements [`Target`]; a [`Recorder`] on
//! the receiving end keeps response, service and the slowest events; the [`Report`] has a
//! verdict with reasons. [`machine`] tells what the machine is and how much it interrupts.

pub mod args;
pub mod cluster_file;
pub mod exit;
pub mod machine;
pub mod measure;
pub mod pipeline;
pub mod report;

pub use measure::arrivals::Arrivals;
pub use measure::generator::Target;
pub use measure::harness::{Harness, HarnessError, Recorder, Report, Run, Session, Status};
pub use measure::recorder::Ticket;
pub use measure::validity::{Grade, Verdict};

//! The harness of `lockstep`: what the program measures with, for your own logic too.
//!
//! [`Harness`] drives an open loop against whatever implements [`Target`]; a [`Recorder`] on
//! the receiving end keeps response, service and the slowest events; the [`Report`] has a
//! verdict with reasons, and [`Report::document`] makes of it what `lockstep compare` and
//! `lockstep plot` read. [`machine`] tells what the machine is and how much it interrupts.
//!
//! ```
//! use std::sync::mpsc::{SyncSender, sync_channel};
//! use std::time::Duration;
//! use lockstep_perf::{Harness, Target, Ticket};
//!
//! /// Your own logic at the other end of a queue.
//! struct Queue(SyncSender<Ticket>);
//!
//! impl Target for Queue {
//!     fn offer(&mut self, ticket: Ticket) -> bool {
//!         self.0.try_send(ticket).is_ok() // full: the harness offers it again, and counts the wait
//!     }
//! }
//!
//! let harness = Harness::new("a queue").rate(20_000).runs(1).floor(Duration::ZERO);
//! let report = harness
//!     .warmup(Duration::from_millis(5))
//!     .duration(Duration::from_millis(20))
//!     .run(|session| {
//!         let (sender, receiver) = sync_channel(1024);
//!         let mut recorder = session.recorder();
//!         std::thread::spawn(move || receiver.iter().for_each(|ticket| recorder.done(ticket)));
//!         Ok(vec![Queue(sender)])
//!     })?;
//! println!("{}", report.text()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

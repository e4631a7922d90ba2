//! The journal by its face, on the simulated disk unless said otherwise.
//!
//! | file | asks |
//! |---|---|
//! | `support` | – what the others share: an event, a log to compare with |
//! | `journal` | does it write, sync, roll, remember, refuse |
//! | `reading` | does a reader find everything, and nothing that is not durable |
//! | `cutting` | is a log cut back to any frame, wherever it crashes |
//! | `schemas` | are events of another layout, and of another application, refused |
//! | `room` | are segments there when they are wanted, and what is done without room |
//! | `anew` | does a log that begins behind another node's snapshot do so whole, wherever power is cut |
//! | `recovery_table` | does every row of the decision table decide as it should |
//! | `corruption` | is any damage refused or harmless, every bit and every sector subset |
//! | `campaign`, `crash` | does anything acknowledged survive thousands of crashes; are broken journals noticed |
//! | `mend` | is a hole filled with a peer's frames, and with nothing else |
//! | `formats` | do yesterday's files open today; can a stranger read them |
//! | `scanner` | does the walk survive any bytes |
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail by panic, on small numbers"
)]

mod anew;
mod campaign;
mod corruption;
mod crash;
mod cutting;
mod formats;
mod journal;
mod mend;
mod reading;
mod recovery_table;
mod room;
mod scanner;
mod schemas;
mod support;

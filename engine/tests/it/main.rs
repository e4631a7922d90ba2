//! The engine through its face: one module for each question.
//!
//! | module | question |
//! |---|---|
//! | `walk` | does one event go from the door to the outputs, under either gate, wherever the stages run? |
//! | `recovery` | does what was acknowledged survive, one hundred times in a row? |
//! | `exactly_once` | is a request that comes again applied once, also behind a restart? |
//! | `faults` | does every bad disk, directory and configuration get a message, and lose nothing? |
//! | `gates` | is anything seen, by anybody, that is not durable or that no quorum has? |
//! | `back_pressure` | does a slow consumer, a full ring, a full disk hold the door, and lose nothing? |
//! | `shutdown` | does everything that was published pass, and does a failure end the engine? |
//! | `quarantine` | is the state as before the event that panicked, live and replayed? |
//! | `replay` | does every speed and stretch of a log give the same, and is a planted fault found? |
//! | `observing` | do others see positions and counts, and can they do any harm? |
//! | `retention` | does what nobody needs go, and what anybody needs stay? |
//! | `migration` | does a journal of version 1 run under the logic of version 2? |
//! | `generations` | does a journal go on under an engine with more kinds of its own, or fewer? |
//! | `cluster` | does what clients were told hold through crashes, partitions and changes of leader? |
//! | `time` | do timers ring by the time of the log, live and replayed? |
//! | `documents` | do the documents say what is so, of keys, defaults and tests? |
//! | `driver` | does a node with threads and sockets answer, end in order, and end by name? |
//! | `simulated` | does the whole node keep the rules of the replicator's simulator? |
//! | `stepped` | is the whole engine a function of the calls, and does it survive any crash of a simulated disk? |

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails panics, in its helpers too"
)]

mod back_pressure;
mod bank;
mod cluster;
mod documents;
mod driver;
mod exactly_once;
mod faults;
mod gates;
mod generations;
mod migration;
mod observing;
mod owners;
mod quarantine;
mod recovery;
mod replay;
mod retention;
mod shutdown;
mod simulated;
mod stepped;
mod time;
mod versions;
mod walk;

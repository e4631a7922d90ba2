//! What the crate promises, shown through its face. One file for each part of the
//! acceptance list (the table in `acceptance` maps every number to its test):
//!
//! | file | what belongs there |
//! |---|---|
//! | `sequences` | numbers, groups of them, who waits for whom |
//! | `producers` | claims, room, publication; every test for one producer and for many |
//! | `ring` | events through slots: in order, across the wrap, dropped, aligned |
//! | `batches` | what a stage is given: sizes, backlog, hooks, early release, fusing |
//! | `rewind` | events that are delivered again |
//! | `gates` | late release |
//! | `pollers` | pollers, readers, taps, probes |
//! | `waits` | wait strategies, deadlines, the price of being blocked |
//! | `graph` | edges, placements, writers, lanes |
//! | `shutdown` | drain, halt, faults, drops |
//! | `reference` | the defects of the reference crate, each by its number |
//! | `bad_input` | every refusal, word by word |
//! | `property` | random graphs against a model |
//! | `table` | the acceptance table itself |
//!
//! No test depends on how fast the machine is: what has to come is waited for with a limit
//! that only a hang reaches.

#![cfg(not(loom))]

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod common;
#[cfg(test)]
mod gates;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod pollers;
#[cfg(test)]
mod producers;
#[cfg(test)]
mod property;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod rewind;
#[cfg(test)]
mod ring;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod table;
#[cfg(test)]
mod waits;

//! Stages on threads: the graph that joins ring, journal and logic.
//!
//! This crate will hold the logic trait, recovery, snapshots and the placement of
//! stages on threads. It is empty until then; the ring
//! (`lockstep-ringbuffer`) and the journal (`lockstep-journaler`) are worth using
//! alone.

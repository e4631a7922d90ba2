//! The event: 64 bytes, as an order is.

use bytemuck::{Pod, Zeroable};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Event {
    pub(crate) time_ns: u64,
    pub(crate) value: u64,
    pub(crate) rest: [u64; 6],
}

lockstep_journaler::schema! {
    /// What a journal of the bench says of its events.
    pub(crate) EVENTS: "bench.event" version 1 for Event, one kind;
    header { time_ns: time; value: plain; rest: plain; }
    0 = "event" as Event {}
}

pub(crate) const EVENT_BYTES: usize = size_of::<Event>();

/// As many as the engine's ring has: groups are cut from it, and wrap in it.
pub(crate) const RING: usize = 1 << 16;

/// A ring full of events that no compression and no constant folding can shorten.
pub(crate) fn ring() -> Vec<Event> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let event = |at: usize, next: &mut dyn FnMut() -> u64| Event {
        time_ns: at as u64,
        value: at as u64,
        rest: [0; 6].map(|_: u64| next()),
    };
    (0..RING).map(|at| event(at, &mut next)).collect()
}

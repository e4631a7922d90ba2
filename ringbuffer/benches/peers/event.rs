//! What every contender carries: one cache line, written whole and summed by one field.

/// 64 bytes. Aligned to the line for everybody, which spares the rings of others a slot
/// that straddles two.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Event {
    /// A number, or the time at which the event was due.
    pub(crate) value: u64,
    words: [u64; 7],
}

const _: () = assert!(size_of::<Event>() == 64);

impl Event {
    #[inline(always)]
    pub(crate) fn of(value: u64) -> Self {
        Self {
            value,
            words: [value; 7],
        }
    }
}

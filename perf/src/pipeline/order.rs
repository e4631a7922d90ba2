//! Events of the sizes that the engine is measured with: the ticket, and words that are written
//! and read like any application's.

use bytemuck::{Pod, Zeroable};
use lockstep_engine::event::Header;
use lockstep_engine::prelude::{Body, Event64, Event128, Kinds, Slot};

use crate::measure::recorder::Ticket;

/// An event of one size.
pub(super) trait Order: Body + Kinds {
    /// With every byte written.
    fn of(ticket: Ticket, sent_unix_ns: u64) -> Self;

    /// What the logic is shown is the event itself.
    fn seen<'a>(view: Self::View<'a>) -> &'a Self;

    /// When it was to be sent, and was.
    fn ticket(&self) -> Ticket;

    /// When it was sent, in nanoseconds since 1970, where the way is split; else 0.
    fn sent_unix_ns(&self) -> u64;

    /// Reads every byte.
    fn sum(&self) -> u64;
}

/// Slots of more than 128 bytes, with so many words behind the header.
macro_rules! slots {
    ($($name:ident: $words:literal;)*) => {$(
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        pub(super) struct $name {
            header: Header,
            body: [u64; $words],
        }

        impl Slot for $name {}
    )*};
}

/// Events with so many words behind the three that are ours.
macro_rules! orders {
    ($($name:ident in $slot:ident: $words:literal;)*) => {$(
        #[derive(Body)]
        #[body(kind = 1, version = 1, name = "order", slot = $slot)]
        #[repr(C)]
        pub(super) struct $name {
            intended: u64,
            sent: u64,
            sent_unix_ns: u64,
            words: [u64; $words],
        }

        impl Order for $name {
            #[inline]
            fn of(ticket: Ticket, sent_unix_ns: u64) -> Self {
                let Ticket { intended, sent } = ticket;
                let words = [intended ^ sent.rotate_left(32); $words];
                Self { intended, sent, sent_unix_ns, words }
            }

            #[inline]
            fn seen<'a>(view: Self::View<'a>) -> &'a Self {
                view
            }

            #[inline]
            fn ticket(&self) -> Ticket {
                Ticket { intended: self.intended, sent: self.sent }
            }

            #[inline]
            fn sent_unix_ns(&self) -> u64 {
                self.sent_unix_ns
            }

            #[inline]
            fn sum(&self) -> u64 {
                let words = self.words.iter().fold(0, |sum, word| sum ^ word);
                words ^ self.intended ^ self.sent ^ self.sent_unix_ns
            }
        }
    )*};
}

slots! {
    Event256: 29;
    Event512: 61;
    Event1024: 125;
    Event4096: 509;
}

orders! {
    Order64 in Event64: 2;
    Order128 in Event128: 10;
    Order256 in Event256: 26;
    Order512 in Event512: 58;
    Order1024 in Event1024: 122;
    Order4096 in Event4096: 506;
}

/// Calls `$run` for an order of a size that the plan has checked.
macro_rules! for_order_size {
    ($size:expr, $run:ident($($argument:expr),*)) => {
        match $size {
            128 => $run::<$crate::pipeline::order::Order128>($($argument),*),
            256 => $run::<$crate::pipeline::order::Order256>($($argument),*),
            512 => $run::<$crate::pipeline::order::Order512>($($argument),*),
            1024 => $run::<$crate::pipeline::order::Order1024>($($argument),*),
            4096 => $run::<$crate::pipeline::order::Order4096>($($argument),*),
            _ => $run::<$crate::pipeline::order::Order64>($($argument),*),
        }
    };
}
pub(super) use for_order_size;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::plan::ENGINE_EVENT_SIZES;

    fn bytes<O: Order>() -> usize {
        // All of the slot is the order's: nothing is left that nobody writes.
        assert_eq!(size_of::<O>() + size_of::<Header>(), size_of::<O::Slot>());
        size_of::<O::Slot>()
    }

    #[test]
    fn each_size_is_the_one_it_says() {
        for size in ENGINE_EVENT_SIZES {
            assert_eq!(for_order_size!(size, bytes()), size);
        }
    }
}

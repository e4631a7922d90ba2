//! An event of a chosen size: the ticket, and words that are written and read like any
//! application's.

use crate::measure::recorder::Ticket;

/// `16 + 8 * WORDS` bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Event<const WORDS: usize> {
    /// When it was meant to be sent, and was.
    pub ticket: Ticket,
    /// The rest of it.
    pub body: [u64; WORDS],
}

impl<const WORDS: usize> Event<WORDS> {
    /// What a ring is filled with.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            ticket: Ticket {
                intended: 0,
                sent: 0,
            },
            body: [0; WORDS],
        }
    }

    /// Writes every byte.
    #[inline]
    pub fn fill(&mut self, ticket: Ticket) {
        self.ticket = ticket;
        self.body = [ticket.intended; WORDS];
    }

    /// Reads every byte.
    #[inline]
    #[must_use]
    pub fn sum(&self) -> u64 {
        let words = self.body.iter().fold(0_u64, |sum, word| sum ^ word);
        words ^ self.ticket.intended ^ self.ticket.sent
    }
}

/// Calls `$run::<WORDS>` for an event size that the plan has checked.
macro_rules! for_event_size {
    ($size:expr, $run:ident($($argument:expr),*)) => {
        match $size {
            16 => $run::<0>($($argument),*),
            32 => $run::<2>($($argument),*),
            128 => $run::<14>($($argument),*),
            256 => $run::<30>($($argument),*),
            512 => $run::<62>($($argument),*),
            1024 => $run::<126>($($argument),*),
            4096 => $run::<510>($($argument),*),
            _ => $run::<6>($($argument),*),
        }
    };
}
pub(crate) use for_event_size;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::plan::EVENT_SIZES;

    fn bytes<const WORDS: usize>() -> usize {
        size_of::<Event<WORDS>>()
    }

    #[test]
    fn each_size_is_the_one_it_says() {
        for size in EVENT_SIZES {
            assert_eq!(for_event_size!(size, bytes()), size);
        }
    }
}

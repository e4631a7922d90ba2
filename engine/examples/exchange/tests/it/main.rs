//! Does the exchange keep its promises through its face?
//!
//! | module | what belongs there |
//! |---|---|
//! | `model` | a naive book, slow and obvious, to compare with |
//! | `book` | the order book beside the model, and its rules one by one |
//! | `exchange` | random events, refusals, invariants, snapshots |
//! | `engine` | as the logic of an engine: journal, recovery, replay, compare |
//! | `allocation` | nothing is allocated once it runs |
//! | `load` | files become events, bad rows are told |
//! | `documents` | the tables in `docs/EXCHANGE.md` are true |

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]
#![expect(
    clippy::print_stdout,
    reason = "a test that is skipped, or that counted, says so"
)]

mod allocation;
mod book;
mod documents;
mod engine;
mod exchange;
mod load;
mod model;

/// Numbers that look random and repeat by seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap()
    }
}

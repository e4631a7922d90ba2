//! How far a thread has come: one cell, one writer, any number of readers.
//!
//! # Invariants
//!
//! * `S1` A cursor never goes back (a seat that is given up goes to the end of all
//!   numbers, and starts anew when it is taken again).
//! * `S2` Exactly one thread advances a given cursor at a time.
//! * `S3` Whatever its writer did before `advance(n)` is visible to a reader that has
//!   seen `n`, or more, from `get`.

#![expect(
    unsafe_code,
    reason = "handles reach their cursor by address, not through two pointers"
)]

use std::fmt;
use std::ops::{Add, Deref, Sub};
use std::ptr::NonNull;

use crate::orderings::{OWN, cursor_advance, cursor_get, finished_get, finished_set};
use crate::sync::{Arc, AtomicBool, AtomicU64};

/// How many events went before in this ring: `n` says that `0..n` are done and that
/// `n` is next.
///
/// Exclusive, so a fresh ring needs no "none", and a ring that resumes at `n` starts
/// with `n`. At a thousand million events a second a `u64` lasts 584 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Add<u64> for Sequence {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Sub for Sequence {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

/// A sequence that one thread advances and others follow.
///
/// Two cache lines of its own, since the prefetcher pulls them in pairs: following it
/// does not slow down whoever advances the cursor beside it.
///
/// ```text
///   0        8    9                                                      128
///   ├────────┼────┼───────────────────────────────────────────────────────┤
///   │ at u64 │fin.│ nothing: the rest of the pair of lines                │
/// ```
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Cursor {
    at: AtomicU64,
    /// The writer will never advance it again.
    finished: AtomicBool,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Cursor>() == 128 && align_of::<Cursor>() == 128);

/// Where a detached reader stands: it holds nobody back.
pub(crate) const NOWHERE: u64 = u64::MAX;

impl Cursor {
    /// A cursor in a ring that starts, or resumes, at `start`.
    pub(crate) fn starting_at(start: u64) -> Self {
        Self {
            at: AtomicU64::new(start),
            finished: AtomicBool::new(false),
        }
    }

    /// Everything before the returned number is done.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.at.load(cursor_get())
    }

    /// The number alone, for those who look but do not read slots behind it.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.at.load(OWN)
    }

    /// Promises everything before `to`. Only the cursor's own thread calls this (S2).
    #[inline(always)]
    pub(crate) fn advance(&self, to: u64) {
        // Not under loom: it remembers one last access of an atomic, and this load would
        // hide a reader's from it.
        debug_assert!(
            cfg!(loom) || self.at.load(OWN) <= to || self.at.load(OWN) == NOWHERE,
            "S1: a cursor never goes back"
        );
        self.at.store(to, cursor_advance());
    }

    /// Claims `[expected, to)` for one of many producers; the value found otherwise.
    ///
    /// ORDERING: Relaxed both ways: the slots are protected by the Acquire loads of
    /// sinks and stamps (R1, R2); the number itself only has to be claimed once, which
    /// any read-modify-write gives.
    #[inline(always)]
    pub(crate) fn claim(&self, expected: u64, to: u64) -> Result<(), u64> {
        self.at
            .compare_exchange_weak(expected, to, OWN, OWN)
            .map(drop)
    }

    /// Says that the number is final.
    pub(crate) fn finish(&self) {
        self.finished.store(true, finished_set());
    }

    /// Whether the number read after this is final.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(finished_get())
    }
}

/// One padded table of cursors for a whole graph; it is the metrics surface as well.
#[derive(Debug)]
pub(crate) struct CursorTable(Box<[Cursor]>);

impl CursorTable {
    pub(crate) fn new(starts: impl IntoIterator<Item = u64>) -> Arc<Self> {
        Arc::new(Self(starts.into_iter().map(Cursor::starting_at).collect()))
    }

    /// A handle on the cursor at `index`.
    ///
    /// # Panics
    ///
    /// If there is no such cursor: indexes come from the graph that made the table.
    pub(crate) fn cursor(self: &Arc<Self>, index: usize) -> CursorRef {
        CursorRef {
            cell: NonNull::from(&self.0[index]),
            _keep: Arc::clone(self),
        }
    }
}

/// A cursor by its address, and the table kept alive.
#[derive(Debug, Clone)]
pub(crate) struct CursorRef {
    cell: NonNull<Cursor>,
    _keep: Arc<CursorTable>,
}

// SAFETY: `cell` is what prevents the automatic impls; it is used as `&Cursor` only,
// and `Cursor` is `Sync` (two atomics).
unsafe impl Send for CursorRef {}
// SAFETY: as above: shared use is shared use of a `Sync` type.
unsafe impl Sync for CursorRef {}

impl Deref for CursorRef {
    type Target = Cursor;

    #[inline(always)]
    fn deref(&self) -> &Cursor {
        // SAFETY: `cell` points into the boxed slice of `_keep`, which neither moves nor
        // is freed while this handle holds its `Arc`; nobody makes a `&mut` of it.
        unsafe { self.cell.as_ref() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_starts_where_it_is_told_and_returns_what_it_was_given() {
        let cursor = Cursor::starting_at(7);
        assert_eq!(cursor.get(), 7);
        cursor.advance(9);
        assert_eq!((cursor.get(), cursor.peek()), (9, 9));
    }

    #[test]
    fn a_claim_has_one_winner_and_tells_the_loser_the_number() {
        let cursor = Cursor::starting_at(0);
        while cursor.claim(0, 4).is_err() {}
        assert_eq!(cursor.claim(0, 1), Err(4));
    }

    #[test]
    fn finished_is_said_once_and_stays() {
        let table = CursorTable::new([3, 4]);
        let cursor = table.cursor(1);
        assert!(!cursor.is_finished());
        cursor.finish();
        assert!(cursor.is_finished() && !table.cursor(0).is_finished());
        assert_eq!(cursor.get(), 4);
    }

    #[test]
    fn sequences_add_subtract_and_print() {
        assert_eq!(Sequence(3) + 4, Sequence(7));
        assert_eq!(Sequence(7) - Sequence(3), 4);
        assert_eq!(Sequence(12).to_string(), "12");
    }
}

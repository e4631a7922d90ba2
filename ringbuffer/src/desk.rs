//! Where a stage stands in the ring: what it follows, how far it may read, what it promised.
//!
//! # Invariants
//!
//! * `D1` `released ≤ taken ≤ bound ≤ min(released of what it follows)`.
//! * `D2` A source is read again only when what is known of it is used up: a stage that
//!   follows two promises polls the slower one alone.

use std::fmt;

use crate::batch::{Outlet, Span, StageCard};
use crate::column::{ColumnRef, index};
use crate::cursor::CursorRef;
use crate::stamps::Stamps;
use crate::sync::Arc;

/// What the stages of one runner tell each other without atomics.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    pub(crate) released: Vec<u64>,
    pub(crate) is_finished: Vec<bool>,
    /// A stage left a batch where it was: it wants another turn before anybody wakes it.
    pub(crate) is_impatient: bool,
}

/// Something a stage follows.
#[derive(Debug)]
pub(crate) enum Source {
    /// A producer, or a stage of another thread.
    Cursor {
        cursor: CursorRef,
        seen: u64,
        /// A runner moves it, and says so when it has moved for the last time.
        is_run: bool,
    },
    /// A stage of the same runner, by its place there: a register compare.
    Local { place: usize },
    /// Many producers: what is stamped without a hole.
    Stamps {
        stamps: Arc<Stamps>,
        claimed: CursorRef,
        seen: u64,
    },
}

impl Source {
    /// How far this source allows reading; looks again only if it allows nothing (D2).
    /// `enough`: as far as a stage wants to know.
    #[inline(always)]
    fn bound(&mut self, taken: u64, enough: u64, locals: &Locals) -> u64 {
        match self {
            Self::Cursor { cursor, seen, .. } => {
                if *seen <= taken {
                    *seen = cursor.get();
                }
                *seen
            }
            Self::Local { place } => locals.released[*place],
            Self::Stamps { stamps, seen, .. } => {
                // From where it looked last: each stamp is found set once, however small the
                // batches are.
                *seen = stamps.published_until((*seen).max(taken), enough.max(*seen));
                *seen
            }
        }
    }

    /// Whether its user drives it, and may never do so again.
    fn is_driven(&self) -> bool {
        match self {
            Self::Cursor { is_run, .. } => !is_run,
            Self::Local { .. } => false,
            Self::Stamps { .. } => true,
        }
    }

    /// What it was when it was looked at last.
    fn seen(&self, locals: &Locals) -> u64 {
        match self {
            Self::Cursor { seen, .. } | Self::Stamps { seen, .. } => *seen,
            Self::Local { place } => locals.released[*place],
        }
    }

    /// The number that it will never go beyond, if it has said so.
    fn last(&self, locals: &Locals) -> Option<u64> {
        match self {
            Self::Cursor { cursor, .. } => cursor.is_finished().then(|| cursor.get()),
            Self::Local { place } => locals.is_finished[*place].then(|| locals.released[*place]),
            Self::Stamps { claimed, .. } => claimed.is_finished().then(|| claimed.get()),
        }
    }
}

/// The place of one stage: everything it needs but its code.
pub(crate) struct Desk<E> {
    pub(crate) slots: ColumnRef<E>,
    pub(crate) card: StageCard,
    pub(crate) sources: Box<[Source]>,
    pub(crate) outlet: Outlet,
    pub(crate) bound: u64,
    pub(crate) max_batch: u64,
}

impl<E> fmt::Debug for Desk<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("stage", &self.card.index)
            .field("released", &self.outlet.released)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl<E> Desk<E> {
    /// Whether nothing can come behind `taken` any more.
    pub(crate) fn is_at_the_end(&self, taken: u64, locals: &Locals) -> bool {
        let mut last = u64::MAX;
        for source in &self.sources {
            match source.last(locals) {
                Some(number) => last = last.min(number),
                None => return false,
            }
        }
        taken == last
    }
}

impl<E: Send + Sync> Desk<E> {
    /// The next batch from `taken` on: its length and the whole backlog, or nothing.
    #[inline(always)]
    pub(crate) fn look(&mut self, taken: u64, locals: &Locals) -> Option<(usize, u64)> {
        let enough = taken + self.max_batch + 1;
        let mut bound = u64::MAX;
        for source in &mut self.sources {
            bound = bound.min(source.bound(taken, enough, locals));
        }
        self.bound = bound;
        if bound <= taken {
            return None;
        }
        let backlog = bound - taken;
        let count = backlog
            .min(self.max_batch)
            .min(self.slots.until_wrap(taken));
        Some((index(count), backlog))
    }

    #[inline(always)]
    pub(crate) fn parts(
        &mut self,
        taken: u64,
        (count, backlog): (usize, u64),
    ) -> (Span<'_, E>, &mut Outlet) {
        let span = Span {
            slots: &self.slots,
            card: &self.card,
            first: taken,
            count,
            backlog,
        };
        (span, &mut self.outlet)
    }

    /// In a pipeline that is poisoned, and where nothing was found behind `taken` since:
    /// whether nothing can come any more, but from producers and pollers, for whom nobody
    /// may wait.
    pub(crate) fn is_cut_off(&self, taken: u64, locals: &Locals) -> bool {
        self.sources.iter().any(|source| {
            source.last(locals) == Some(taken) || source.is_driven() && source.seen(locals) <= taken
        })
    }

    /// Whether anything is published behind `taken`, released or not.
    pub(crate) fn is_published(&self, published: &CursorRef, taken: u64) -> bool {
        published.peek() > taken
    }
}

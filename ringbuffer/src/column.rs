//! The fixed cells of a ring: one column of values, filled once, reused lap by lap.
//!
//! The slots of the events are a column, and so is every [`Lane`](crate::Lane). Nobody
//! owns a cell for long: whoever the cursors allow borrows a run of cells, contiguous up
//! to the end of the column, and gives it back by moving a cursor.
//!
//! # Invariants
//!
//! * `C1` Every cell holds a valid `T` from construction to drop.
//! * `C2` The capacity is a power of two; cell `sequence & mask` is within the column.
//! * `C3` Who borrows a run for writing is alone in it, who borrows for reading shares it
//!   with readers only. The cursors see to it; every caller names the rule that it uses.

#![expect(
    unsafe_code,
    reason = "cells are lent by sequence, which the compiler cannot follow"
)]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use crate::error::BuildError;
use crate::memory::{Block, Memory, MemoryReport};
use crate::sync::Arc;

/// The most slots a ring may have: stamps of 32 bits and byte counts stay far from their ends.
pub(crate) const MAX_CAPACITY: usize = 1 << 30;

/// `capacity` initialised cells.
struct Column<T> {
    /// The cells lie in `block`; this says so to the compiler.
    cells: PhantomData<T>,
    block: Block,
    capacity: usize,
    /// How many cells are initialised: `capacity`, but for a fill that panicked.
    filled: usize,
    /// What loom watches in the cells' place: it cannot see raw memory.
    #[cfg(loom)]
    watched: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: the cells are reached through raw memory, which no automatic impl looks at.
// Threads get `&T` of the same cell (so `T: Sync`) and `&mut T` in turns (so `T: Send`), by C3.
unsafe impl<T: Send + Sync> Sync for Column<T> {}
// SAFETY: as above; sending the column sends its cells.
unsafe impl<T: Send + Sync> Send for Column<T> {}

impl<T> Drop for Column<T> {
    fn drop(&mut self) {
        let cells = NonNull::slice_from_raw_parts(self.block.first::<T>(), self.filled);
        // SAFETY: `drop_in_place` wants valid values that nobody uses: the first `filled`
        // are (C1), and handles that could lend them keep this column alive.
        unsafe { cells.drop_in_place() };
    }
}

/// A handle on a column: address and mask by value, and the column kept alive.
pub(crate) struct ColumnRef<T> {
    first: NonNull<T>,
    mask: u64,
    column: Arc<Column<T>>,
}

// SAFETY: `first` prevents the automatic impls; it is an address within `column`, whose
// own impls say what may cross threads.
unsafe impl<T: Send + Sync> Send for ColumnRef<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for ColumnRef<T> {}

impl<T> Clone for ColumnRef<T> {
    fn clone(&self) -> Self {
        Self {
            first: self.first,
            mask: self.mask,
            column: Arc::clone(&self.column),
        }
    }
}

impl<T> fmt::Debug for ColumnRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column")
            .field("capacity", &self.column.capacity)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync> ColumnRef<T> {
    /// A column of `capacity` cells, each made by `fill`.
    pub(crate) fn new(
        capacity: usize,
        options: Memory,
        mut fill: impl FnMut() -> T,
    ) -> Result<Self, BuildError> {
        check_capacity(capacity)?;
        let mut column = Column::<T> {
            cells: PhantomData,
            block: Block::for_values::<T>(capacity, options)?,
            capacity,
            filled: 0,
            #[cfg(loom)]
            watched: (0..capacity)
                .map(|_| loom::cell::UnsafeCell::new(()))
                .collect(),
        };
        let first = column.block.first::<T>();
        for index in 0..capacity {
            let value = fill();
            // SAFETY: `add` wants the cell within the block: it holds `capacity` of them.
            let cell = unsafe { first.add(index) };
            // SAFETY: `write` wants an aligned cell of ours that holds no value yet: the
            // block is aligned for `T`, and `index` has not been filled.
            unsafe { cell.write(value) };
            column.filled = index + 1;
        }
        Ok(Self {
            first,
            mask: capacity as u64 - 1,
            column: Arc::new(column),
        })
    }
}

impl<T> ColumnRef<T> {
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    pub(crate) fn report(&self) -> MemoryReport {
        self.column.block.report()
    }

    /// How many cells follow one another from `sequence` to the end of the column.
    #[inline(always)]
    pub(crate) fn until_wrap(&self, sequence: u64) -> u64 {
        self.capacity() - (sequence & self.mask)
    }

    #[inline(always)]
    fn cell(&self, sequence: u64) -> NonNull<T> {
        let index = index(sequence & self.mask);
        // SAFETY: `add` wants the cell within the block: `mask` keeps it so (C2).
        unsafe { self.first.add(index) }
    }

    /// The cell of `sequence`, to be written.
    ///
    /// # Safety
    ///
    /// Nobody else may use this cell while the borrow lives (C3).
    #[inline(always)]
    pub(crate) unsafe fn cell_mut<'a>(&self, sequence: u64) -> &'a mut T {
        // SAFETY: `as_mut` wants (1) a valid, aligned value: C1, C2; (2) nobody else in
        // it, and it alive: the caller's promise, who also keeps a handle.
        unsafe { self.cell(sequence).as_mut() }
    }

    /// `count` cells from `sequence` on, to be read; they may not reach past the wrap.
    ///
    /// # Safety
    ///
    /// Nobody may write these cells while the borrow lives (C3), and
    /// `count <= until_wrap(sequence)`.
    #[inline(always)]
    pub(crate) unsafe fn run<'a>(&self, sequence: u64, count: usize) -> &'a [T] {
        debug_assert!(count as u64 <= self.until_wrap(sequence), "C2");
        let first = self.cell(sequence).as_ptr();
        // SAFETY: `from_raw_parts` wants (1) `count` valid values in one allocation: C1
        // and the caller's promise not to pass the wrap; (2) no writer: the caller's promise.
        unsafe { slice::from_raw_parts(first, count) }
    }

    /// `count` cells from `sequence` on, to be written; they may not reach past the wrap.
    ///
    /// # Safety
    ///
    /// Nobody else may use these cells while the borrow lives (C3), and
    /// `count <= until_wrap(sequence)`.
    #[inline(always)]
    pub(crate) unsafe fn run_mut<'a>(&self, sequence: u64, count: usize) -> &'a mut [T] {
        debug_assert!(count as u64 <= self.until_wrap(sequence), "C2");
        let first = self.cell(sequence).as_ptr();
        // SAFETY: `from_raw_parts_mut` wants (1) `count` valid values in one allocation:
        // C1 and the caller's promise; (2) nobody else in them: the caller's promise.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }

    /// Tells loom that `count` cells from `sequence` on are being read, until the guard drops.
    #[inline(always)]
    pub(crate) fn watch_read(&self, sequence: u64, count: usize) -> Watch {
        Watch::read(self, sequence, count)
    }

    /// Tells loom that `count` cells from `sequence` on are being written.
    #[inline(always)]
    pub(crate) fn watch_write(&self, sequence: u64, count: usize) -> Watch {
        Watch::write(self, sequence, count)
    }
}

/// A count of slots as an index. `MAX_CAPACITY` keeps it within 32 bits.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounded by MAX_CAPACITY, which fits a usize of 32 bits"
)]
pub(crate) fn index(count: u64) -> usize {
    count as usize
}

fn check_capacity(capacity: usize) -> Result<(), BuildError> {
    if capacity.is_power_of_two() && capacity <= MAX_CAPACITY {
        return Ok(());
    }
    Err(BuildError::Capacity {
        asked: capacity,
        max: MAX_CAPACITY,
        suggestion: capacity
            .checked_next_power_of_two()
            .map_or(MAX_CAPACITY, |next| next.min(MAX_CAPACITY)),
    })
}

/// Outside loom: nothing.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Watch;

impl Watch {
    /// The accesses are over.
    #[inline(always)]
    pub(crate) fn end(self) {}
}

#[cfg(not(loom))]
impl Watch {
    #[inline(always)]
    fn read<T>(_: &ColumnRef<T>, _: u64, _: usize) -> Self {
        Self
    }

    #[inline(always)]
    fn write<T>(_: &ColumnRef<T>, _: u64, _: usize) -> Self {
        Self
    }
}

/// Under loom: the accesses that are going on, so that a race between them is found.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Watch {
    _reads: Vec<loom::cell::ConstPtr<()>>,
    _writes: Vec<loom::cell::MutPtr<()>>,
}

#[cfg(loom)]
impl Watch {
    fn cells<T>(
        column: &ColumnRef<T>,
        sequence: u64,
        count: usize,
    ) -> impl Iterator<Item = &loom::cell::UnsafeCell<()>> {
        (0..count as u64)
            .map(move |offset| &column.column.watched[index((sequence + offset) & column.mask)])
    }

    fn read<T>(column: &ColumnRef<T>, sequence: u64, count: usize) -> Self {
        Self {
            _reads: Self::cells(column, sequence, count)
                .map(loom::cell::UnsafeCell::get)
                .collect(),
            _writes: Vec::new(),
        }
    }

    fn write<T>(column: &ColumnRef<T>, sequence: u64, count: usize) -> Self {
        Self {
            _reads: Vec::new(),
            _writes: Self::cells(column, sequence, count)
                .map(loom::cell::UnsafeCell::get_mut)
                .collect(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_capacity_that_is_no_power_of_two_names_the_next() {
        for (asked, next) in [(0, 1), (3, 4), (60_000, 65_536), (usize::MAX, MAX_CAPACITY)] {
            let error = ColumnRef::new(asked, Memory::default(), || 0_u8).unwrap_err();
            assert!(
                matches!(error, BuildError::Capacity { suggestion, .. } if suggestion == next),
                "{asked}: {error}"
            );
        }
    }

    #[test]
    fn every_cell_is_filled_and_dropped_once() {
        let count = Arc::new(());
        let column = ColumnRef::new(8, Memory::default(), || Arc::clone(&count)).unwrap();
        assert_eq!(Arc::strong_count(&count), 9);
        drop(column);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_fill_that_panics_drops_what_it_made() {
        let count = Arc::new(());
        let made = Cell::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            ColumnRef::new(8, Memory::default(), || {
                made.set(made.get() + 1);
                assert!(made.get() < 4, "planted");
                Arc::clone(&count)
            })
        }));
        assert!(result.is_err());
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn events_without_size_have_their_slots_too() {
        let column = ColumnRef::new(4, Memory::default(), || ()).unwrap();
        // SAFETY: nobody writes, and 4 <= until_wrap(0).
        assert_eq!(unsafe { column.run(0, 4) }.len(), 4);
    }

    #[test]
    fn a_run_ends_at_the_wrap() {
        let column = ColumnRef::new(8, Memory::default(), || 0_u64).unwrap();
        assert_eq!(column.until_wrap(0), 8);
        assert_eq!(column.until_wrap(5), 3);
        assert_eq!(column.until_wrap(16), 8);
    }
}

//! One block of memory for the slots of a ring: aligned, guarded, prefaulted.
//!
//! ```text
//!   ├─ guard 128 ─┼─ slot 0 ─┼─ slot 1 ─┼─ … ─┼─ slot n-1 ─┼─ guard 128 ─┤
//!   ▲ 128-aligned, or 2 MiB-aligned where huge pages are asked for
//! ```
//!
//! The guards keep neighbours of the heap off the first and the last line.

#![expect(
    unsafe_code,
    reason = "allocates aligned memory and advises the kernel"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::BuildError;

/// Bytes between the heap's neighbours and the slots: a pair of lines.
const GUARD_BYTES: usize = 128;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// How the slots of a ring are laid out in memory. The default: 128-aligned, in pages
/// of the usual size, filled when the graph is made so that nothing faults later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Align to 2 MiB and ask the kernel for transparent huge pages. A refusal is no
    /// error: [`MemoryReport::huge_pages`] tells what was granted.
    pub huge_pages: bool,
    /// Lock the slots into memory (`mlock`), so that they are never swapped out. A
    /// refusal is an error, since a user who asks for this relies on it.
    pub lock: bool,
}

/// What the kernel granted of a [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryReport {
    /// The size of the block with its guards.
    pub bytes: usize,
    /// Whether huge pages were asked for and the advice was accepted.
    pub huge_pages: bool,
    /// Whether the block is locked into memory.
    pub locked: bool,
}

/// An allocation, freed on drop. Its content is the owner's business.
#[derive(Debug)]
pub(crate) struct Block {
    base: NonNull<u8>,
    layout: Layout,
    report: MemoryReport,
}

// SAFETY: `base` prevents the automatic impls; a `Block` only owns the bytes and hands
// out their address, what lies in them is guarded by `Column`.
unsafe impl Send for Block {}
// SAFETY: as above; `&Block` gives no access to the bytes.
unsafe impl Sync for Block {}

impl Block {
    /// Room for `count` values of `T` between two guards.
    pub(crate) fn for_values<T>(count: usize, options: Memory) -> Result<Self, BuildError> {
        let layout = layout_for::<T>(count, options).ok_or(BuildError::NoMemory {
            capacity: count,
            slot_bytes: size_of::<T>(),
        })?;
        // SAFETY: `alloc_zeroed` wants a layout of non-zero size: it holds two guards.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(BuildError::NoMemory {
            capacity: count,
            slot_bytes: size_of::<T>(),
        })?;
        let mut block = Self {
            base,
            layout,
            report: MemoryReport {
                bytes: layout.size(),
                huge_pages: false,
                locked: false,
            },
        };
        block.report.huge_pages = options.huge_pages && block.advise_huge_pages();
        if options.lock {
            block.lock()?;
        }
        Ok(block)
    }

    /// Where the first value goes.
    pub(crate) fn first<T>(&self) -> NonNull<T> {
        let offset = guard_for::<T>();
        // SAFETY: `add` wants the result within the allocation: the layout begins with
        // this guard (`layout_for`).
        unsafe { self.base.add(offset) }.cast()
    }

    pub(crate) fn report(&self) -> MemoryReport {
        self.report
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn advise_huge_pages(&self) -> bool {
        // SAFETY: `madvise` wants an address aligned to a page and a range that is
        // mapped: the block is 2 MiB-aligned and ours. The advice changes no content.
        let refused = unsafe {
            libc::madvise(
                self.base.as_ptr().cast(),
                self.layout.size(),
                libc::MADV_HUGEPAGE,
            )
        };
        refused == 0
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn advise_huge_pages(&self) -> bool {
        false
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn lock(&mut self) -> Result<(), BuildError> {
        // SAFETY: `mlock` wants a mapped range: the block is ours. It changes no content.
        let refused = unsafe { libc::mlock(self.base.as_ptr().cast(), self.layout.size()) };
        if refused != 0 {
            return Err(BuildError::Lock {
                bytes: self.layout.size(),
                source: std::io::Error::last_os_error(),
            });
        }
        self.report.locked = true;
        Ok(())
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn lock(&mut self) -> Result<(), BuildError> {
        Err(BuildError::Lock {
            bytes: self.layout.size(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn unlock(&self) {
        // SAFETY: `munlock` wants the range that was locked: the same block.
        let _best_effort = unsafe { libc::munlock(self.base.as_ptr().cast(), self.layout.size()) };
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn unlock(&self) {}
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.report.locked {
            self.unlock();
        }
        // SAFETY: `dealloc` wants the pointer and the layout of the allocation: both are
        // kept from `for_values` and never changed.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// The guard, or more where `T` is aligned more strictly than a pair of lines.
fn guard_for<T>() -> usize {
    GUARD_BYTES.max(align_of::<T>())
}

fn layout_for<T>(count: usize, options: Memory) -> Option<Layout> {
    let values = count.checked_mul(size_of::<T>())?;
    let bytes = values.checked_add(2 * guard_for::<T>())?;
    if !options.huge_pages {
        return Layout::from_size_align(bytes, guard_for::<T>()).ok();
    }
    let whole_pages = bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
    Layout::from_size_align(whole_pages, HUGE_PAGE_BYTES.max(guard_for::<T>())).ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_slot_is_aligned_to_a_pair_of_lines() {
        let block = Block::for_values::<[u8; 64]>(8, Memory::default()).unwrap();
        assert_eq!(block.first::<[u8; 64]>().as_ptr() as usize % 128, 0);
        assert_eq!(block.report().bytes, 8 * 64 + 256);
    }

    #[test]
    fn a_strict_alignment_is_kept() {
        #[repr(align(4096))]
        struct Page(#[expect(dead_code, reason = "only its layout matters")] u8);
        let block = Block::for_values::<Page>(2, Memory::default()).unwrap();
        assert_eq!(block.first::<Page>().as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn huge_pages_round_up_and_tell_what_was_granted() {
        let options = Memory {
            huge_pages: true,
            lock: false,
        };
        let block = Block::for_values::<u64>(1024, options).unwrap();
        assert_eq!(block.report().bytes, HUGE_PAGE_BYTES);
        assert!(!block.report().locked);
    }

    #[test]
    fn what_cannot_be_allocated_is_an_error_with_its_size() {
        let error = Block::for_values::<[u8; 4096]>(usize::MAX / 4096, Memory::default());
        assert!(matches!(
            error,
            Err(BuildError::NoMemory {
                slot_bytes: 4096,
                ..
            })
        ));
    }

    #[test]
    fn a_locked_block_says_so_or_fails_with_the_cause() {
        let options = Memory {
            huge_pages: false,
            lock: true,
        };
        match Block::for_values::<u64>(64, options) {
            Ok(block) => assert!(block.report().locked),
            Err(error) => assert!(matches!(error, BuildError::Lock { .. })),
        }
    }
}

//! Bytes at an aligned address: what direct writes and typed events want.
//!
//! # Invariants
//!
//! * `B1` The first byte is at a multiple of 4096.
//! * `B2` The room only grows; bytes that were never written are zero.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// A growable run of aligned bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct AlignedBuffer {
    pages: Vec<Page>,
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl AlignedBuffer {
    /// With room for at least `bytes`, touched once so that no write faults later.
    pub(crate) fn with_room(bytes: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::default();
        buffer.grow(bytes);
        buffer
    }

    /// Makes room for at least `bytes`.
    pub(crate) fn grow(&mut self, bytes: usize) {
        let pages = bytes.div_ceil(size_of::<Page>());
        if pages > self.pages.len() {
            self.pages.resize(pages, Page([0; 4096]));
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.pages)
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_b2_it_is_aligned_and_grows_with_zeros() {
        let mut buffer = AlignedBuffer::with_room(5000);
        assert_eq!(
            (buffer.len(), buffer.as_ptr().align_offset(4096)),
            (8192, 0)
        );
        buffer[8191] = 1;
        buffer.grow(9000);
        assert_eq!((buffer.len(), buffer[8191], buffer[8192]), (12288, 1, 0));
    }
}

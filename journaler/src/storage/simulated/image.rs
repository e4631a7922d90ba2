//! The bytes of one simulated file, in pages that forks share until one writes.

use std::sync::Arc;

pub(super) const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A page that was never written is `None` and reads as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    length: u64,
}

impl Image {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Cuts, or makes longer; what lies behind a cut is gone for good.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.zero_from(length);
        }
        self.length = length;
    }

    /// What a crash kept of a write behind the end that it did not keep.
    pub(super) fn drop_behind_the_end(&mut self) {
        self.zero_from(self.length);
    }

    fn zero_from(&mut self, at: u64) {
        let (page, inside) = place(at);
        if inside > 0
            && let Some(Some(bytes)) = self.pages.get_mut(page)
        {
            Arc::make_mut(bytes)[inside..].fill(0);
        }
        self.pages.truncate(page + usize::from(inside > 0));
    }

    /// Fills as much of `into` as the file has behind `at`.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> usize {
        let left = self.length.saturating_sub(at);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        self.copy_out(&mut into[..count], at);
        count
    }

    /// Takes the whole pages before `end` as they are in another image of the same file.
    pub(super) fn share_pages(&mut self, of: &Image, end: u64) {
        let end = end.min(self.length).min(of.length);
        let (behind, _) = place(end);
        for (page, own) in self.pages.iter_mut().enumerate().take(behind) {
            *own = of.pages.get(page).cloned().flatten();
        }
        // Where this one has none, the other may have some.
        for page in self.pages.len()..behind.min(of.pages.len()) {
            self.pages.push(of.pages[page].clone());
        }
    }

    pub(super) fn sector(&self, sector: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        self.copy_out(&mut bytes, sector * SECTOR as u64);
        bytes
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes =
            vec![0; usize::try_from(self.length).expect("a simulated file fits memory")];
        self.copy_out(&mut bytes, 0);
        bytes
    }

    /// Puts bytes there, whatever the length says.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) {
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, inside) = place(at);
            let count = rest.len().min(PAGE - inside);
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let bytes = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[inside..inside + count].copy_from_slice(&rest[..count]);
            at += count as u64;
            rest = &rest[count..];
        }
    }

    /// Whether no page between was ever written.
    pub(super) fn is_blank(&self, at: u64, end: u64) -> bool {
        let (first, _) = place(at);
        let (last, inside) = place(end);
        let behind = last + usize::from(inside > 0);
        self.pages
            .get(first..behind.min(self.pages.len()))
            .unwrap_or(&[])
            .iter()
            .all(Option::is_none)
    }

    fn copy_out(&self, into: &mut [u8], at: u64) {
        let mut at = at;
        let mut rest = into;
        while !rest.is_empty() {
            let (page, inside) = place(at);
            let count = rest.len().min(PAGE - inside);
            let (now, later) = rest.split_at_mut(count);
            match self.pages.get(page) {
                Some(Some(bytes)) => now.copy_from_slice(&bytes[inside..inside + count]),
                Some(None) | None => now.fill(0),
            }
            at += count as u64;
            rest = later;
        }
    }
}

/// The page of an offset, and the place in it.
fn place(at: u64) -> (usize, usize) {
    let at = usize::try_from(at).expect("a simulated file fits memory");
    (at / PAGE, at % PAGE)
}

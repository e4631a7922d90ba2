//! From a key to a handle: open addressing, eight bytes a slot, of a fixed size.
//!
//! The map knows no keys. It keeps 32 bits of the key's hash beside the handle and asks
//! the caller, who looks where the handle points, whether that is the one. So a look-up
//! costs one cache line here and one at the thing that is about to be used anyway.
//! Removing shifts back what follows: no tombstones, so a map does not age.
//!
//! # Invariants
//!
//! * `M1` At most half of the slots are in use: a probe ends.
//! * `M2` From the home of an entry to the entry no slot is empty.
//! * `M3` Equal operations on equal maps give equal maps: no random seed.

/// No handle; no index.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    handle: u32,
}

const EMPTY: Slot = Slot {
    tag: 0,
    handle: NONE,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct IdMap {
    slots: Vec<Slot>,
    mask: u32,
}

/// The 32 bits of the hash by which a key is found.
#[inline]
pub(crate) const fn tag(owner: u32, id: u64) -> u32 {
    // A folded multiplication: every bit of the key reaches the low and the high half.
    let mixed = id ^ (owner as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let product = mixed as u128 * 0xd6e8_feb8_6659_fd93_u128;
    let folded = fold(product);
    low(folded) ^ low(folded >> 32)
}

#[expect(clippy::cast_possible_truncation, reason = "folding keeps both halves")]
const fn fold(product: u128) -> u64 {
    product as u64 ^ (product >> 64) as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the other half is folded in by the caller"
)]
const fn low(bits: u64) -> u32 {
    bits as u32
}

impl IdMap {
    /// A map that holds up to `entries` and never grows.
    pub(crate) fn new(entries: u32) -> Self {
        let slots = (u64::from(entries.max(4)) * 2).next_power_of_two();
        let mask = u32::try_from(slots - 1).expect("bounds of the capacity are far below 2^31");
        let count = usize::try_from(slots).expect("as above");
        Self {
            slots: vec![EMPTY; count],
            mask,
        }
    }

    /// The handle of the entry with this tag for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = tag & self.mask;
        loop {
            let slot = self.slots[at as usize];
            if slot.handle == NONE {
                return None;
            }
            if slot.tag == tag && is_it(slot.handle) {
                return Some(slot.handle);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds an entry. The caller keeps the count within the bound (`M1`) and the key new.
    #[inline]
    pub(crate) fn insert(&mut self, tag: u32, handle: u32) {
        let mut at = tag & self.mask;
        while self.slots[at as usize].handle != NONE {
            at = (at + 1) & self.mask;
        }
        self.slots[at as usize] = Slot { tag, handle };
    }

    /// Removes the entry of this tag and handle, which is there.
    #[inline]
    pub(crate) fn remove(&mut self, tag: u32, handle: u32) {
        let mut hole = tag & self.mask;
        while self.slots[hole as usize].handle != handle {
            assert!(
                self.slots[hole as usize].handle != NONE,
                "M2: the entry is on its way"
            );
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let slot = self.slots[at as usize];
            if slot.handle == NONE {
                break;
            }
            let from_home = at.wrapping_sub(slot.tag) & self.mask;
            let from_hole = at.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
                self.slots[hole as usize] = slot;
                hole = at;
            }
        }
        self.slots[hole as usize] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_as_an_ordered_map_does() {
        let mut map = IdMap::new(64);
        let mut keys = [0_u64; 64];
        let mut model: BTreeMap<u64, u32> = BTreeMap::new();
        let mut random = 1_u64;
        for _ in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let key = (random >> 33) % 100;
            // Few different tags: long runs of collisions.
            let tag = tag(0, key) & 0xf;
            let found = map.find(tag, |handle| keys[handle as usize] == key);
            assert_eq!(found, model.get(&key).copied());
            if let Some(handle) = found {
                map.remove(tag, handle);
                model.remove(&key);
            } else if model.len() < 64 {
                let free = (0..64_u32)
                    .find(|h| !model.values().any(|v| v == h))
                    .unwrap();
                keys[free as usize] = key;
                map.insert(tag, free);
                model.insert(key, free);
            }
        }
    }
}

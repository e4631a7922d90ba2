//! A map whose order is the same on every node, in every replay and behind every snapshot.
//!
//! Entries lie dense in one vector, in the order of their coming; a table of indexes finds
//! them by hash. Removing moves the last entry into the gap. The order is thus a function
//! of what was done, and saving the entries in their order and inserting them again gives
//! the same map.
//!
//! # Invariants
//!
//! * `DM1` Iteration follows `entries`, which only `insert`, `entry` and `remove` change.
//! * `DM2` Every entry's index is in the table once, in reach of its hash without a gap.
//! * `DM3` The hash function has no seed and no dependence on the platform.

use std::fmt;

/// Free for an index, in the table.
const FREE: u32 = u32::MAX;

/// A key with a hash of its own, the same everywhere (`DM3`).
pub trait Key: Eq {
    /// Spreads the key over 64 bits.
    fn hash64(&self) -> u64;
}

/// A map with a fixed order; see the module.
///
/// ```
/// use lockstep_engine::DetMap;
///
/// let mut balances: DetMap<u64, i64> = DetMap::new();
/// *balances.entry(7) += 100;
/// *balances.entry(3) += 5;
/// assert_eq!(balances.get(&7), Some(&100));
/// let order: Vec<u64> = balances.iter().map(|(account, _)| *account).collect();
/// assert_eq!(order, [7, 3]); // as they came
/// ```
#[derive(Clone)]
pub struct DetMap<K, V> {
    entries: Vec<(K, V)>,
    /// A power of two, at least 8/7 of the entries; empty before the first.
    table: Vec<u32>,
}

impl<K, V> Default for DetMap<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            table: Vec::new(),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for DetMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.entries.iter().map(|(key, value)| (key, value)))
            .finish()
    }
}

/// The same entries in the same order.
impl<K: PartialEq, V: PartialEq> PartialEq for DetMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<K: Eq, V: Eq> Eq for DetMap<K, V> {}

impl<K: Key, V> DetMap<K, V> {
    /// An empty map, without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty map that takes `capacity` entries before it asks for more memory.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut map = Self::default();
        map.reserve(capacity);
        map
    }

    /// Makes room for `capacity` entries in all.
    pub fn reserve(&mut self, capacity: usize) {
        self.entries
            .reserve(capacity.saturating_sub(self.entries.len()));
        let slots = capacity
            .saturating_mul(4)
            .div_ceil(3)
            .next_power_of_two()
            .max(8);
        if slots > self.table.len() {
            self.rebuild(slots);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    #[must_use]
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        let (_, index) = self.find(key)?;
        Some(&self.entries[index].1)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (_, index) = self.find(key)?;
        Some(&mut self.entries[index].1)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// Puts a value in, and gives back the one that it replaces, whose place it takes.
    ///
    /// # Panics
    ///
    /// For more than 4 billion entries.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some((_, index)) = self.find(&key) {
            return Some(std::mem::replace(&mut self.entries[index].1, value));
        }
        self.push(key, value);
        None
    }

    /// The value of a key; a default is put in where there is none.
    #[inline]
    pub fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let index = match self.find(&key) {
            Some((_, index)) => index,
            None => self.push(key, V::default()),
        };
        &mut self.entries[index].1
    }

    /// Takes an entry out; the last one moves into its place.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (slot, index) = self.find(key)?;
        let last = self.entries.len() - 1;
        let last_slot = self.slot_of(last);
        let (_, removed) = self.entries.swap_remove(index);
        if index != last {
            self.table[last_slot] = self.table[slot];
        }
        self.close_gap(slot);
        Some(removed)
    }

    /// Takes everything out and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.table.fill(FREE);
    }

    /// The entry at this place in the map's order (`DM1`).
    pub(crate) fn nth(&self, place: usize) -> Option<(&K, &V)> {
        self.entries.get(place).map(|(key, value)| (key, value))
    }

    /// Entries in the map's order (`DM1`).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Values in the map's order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Keys in the map's order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// The slot of the table and the index of the entry. Ends: a table is never full.
    #[inline]
    fn find(&self, key: &K) -> Option<(usize, usize)> {
        if self.table.is_empty() {
            return None;
        }
        let mask = self.table.len() - 1;
        let mut slot = home(key, mask);
        loop {
            let index = self.table[slot];
            if index == FREE {
                return None;
            }
            if self.entries[index as usize].0 == *key {
                return Some((slot, index as usize));
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The slot that holds this index (`DM2`).
    fn slot_of(&self, index: usize) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = home(&self.entries[index].0, mask);
        while self.table[slot] as usize != index {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn push(&mut self, key: K, value: V) -> usize {
        if (self.entries.len() + 1) * 4 > self.table.len() * 3 {
            self.rebuild((self.table.len() * 2).max(8));
        }
        let index = self.entries.len();
        self.place(
            &key,
            u32::try_from(index).expect("a map has at most 2^32 - 1 entries"),
        );
        self.entries.push((key, value));
        index
    }

    fn place(&mut self, key: &K, index: u32) {
        let mask = self.table.len() - 1;
        let mut slot = home(key, mask);
        while self.table[slot] != FREE {
            slot = (slot + 1) & mask;
        }
        self.table[slot] = index;
    }

    #[cold]
    fn rebuild(&mut self, slots: usize) {
        self.table.clear();
        self.table.resize(slots, FREE);
        let entries = std::mem::take(&mut self.entries);
        for (index, (key, _)) in (0_u32..).zip(&entries) {
            self.place(key, index);
        }
        self.entries = entries;
    }

    /// Moves those behind a freed slot up, so that no search stops short (`DM2`).
    fn close_gap(&mut self, freed: usize) {
        let mask = self.table.len() - 1;
        let mut gap = freed;
        let mut slot = (freed + 1) & mask;
        while self.table[slot] != FREE {
            let wanted = home(&self.entries[self.table[slot] as usize].0, mask);
            let is_in_reach = (slot.wrapping_sub(wanted) & mask) >= (slot.wrapping_sub(gap) & mask);
            if is_in_reach {
                self.table[gap] = self.table[slot];
                gap = slot;
            }
            slot = (slot + 1) & mask;
        }
        self.table[gap] = FREE;
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the mask takes the low bits anyway"
)]
fn home<K: Key>(key: &K, mask: usize) -> usize {
    key.hash64() as usize & mask
}

/// A finaliser after Stafford: every bit of the input changes half of the output's.
#[inline]
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

macro_rules! integer_keys {
    ($($type:ty),*) => {$(
        impl Key for $type {
            #[inline]
            fn hash64(&self) -> u64 {
                mix(u64::from(*self))
            }
        }
    )*};
}
integer_keys!(u8, u16, u32, u64);

impl Key for i64 {
    #[inline]
    fn hash64(&self) -> u64 {
        mix(self.cast_unsigned())
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    #[inline]
    fn hash64(&self) -> u64 {
        mix(self.0.hash64().rotate_left(32) ^ self.1.hash64())
    }
}

impl<const N: usize> Key for [u8; N] {
    fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self)
    }
}

impl Key for String {
    fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dm2_it_agrees_with_a_model(steps in proptest::collection::vec((0_u8..4, 0_u64..40), 0..400)) {
            let mut map: DetMap<u64, u64> = DetMap::new();
            let mut model: Vec<(u64, u64)> = Vec::new();
            for (round, (what, key)) in (0_u64..).zip(steps) {
                let at = model.iter().position(|(k, _)| *k == key);
                if what == 0 {
                    let expected = at.map(|at| model.swap_remove(at).1);
                    prop_assert_eq!(map.remove(&key), expected);
                } else {
                    let old = map.insert(key, round);
                    match at {
                        Some(at) => prop_assert_eq!(old, Some(std::mem::replace(&mut model[at].1, round))),
                        None => model.push((key, round)),
                    }
                }
                prop_assert_eq!(map.get(&key).is_some(), what != 0);
            }
            let shown: Vec<(u64, u64)> = map.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(shown, model);
        }
    }

    #[test]
    fn dm1_inserting_the_entries_in_order_gives_the_same_map() {
        let mut map = DetMap::new();
        for key in 0..1000_u64 {
            map.insert(key * 7, key);
        }
        for key in (0..1000_u64).step_by(3) {
            map.remove(&(key * 7));
        }
        let mut again = DetMap::with_capacity(map.len());
        for (key, value) in map.iter() {
            again.insert(*key, *value);
        }
        assert_eq!(map, again);
    }

    #[test]
    fn dm3_hashes_are_pinned() {
        assert_eq!(7_u64.hash64(), mix(7));
        assert_eq!(mix(1), 6_238_072_747_940_578_789);
        assert_ne!((1_u64, 2_u64).hash64(), (2_u64, 1_u64).hash64());
    }
}

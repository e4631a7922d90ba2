//! From a price to its level, and to the next better or worse one: a tree of 64 branches.
//!
//! ```text
//!   key = price as an unsigned number of the same order, cut in digits of 6 bits
//!
//!        height 2            bits: which of the 64 children there are
//!       ┌────────┐
//!       │ ·1··1· │           the next price above or below is one bit scan here,
//!       └──┬──┬──┘           at worst one on each floor on the way back
//!    ┌─────┘  └────┐
//! ┌──┴─────┐ ┌─────┴──┐
//! │ 11·1·· │ │ ····1· │     floor 0: handles of levels
//! └────────┘ └────────┘
//! ```
//!
//! The tree is as high as the prices in it differ: a book whose prices lie within 4,096
//! steps has two floors, and no price, however far away, costs more than eleven. So a
//! stranger's far order cannot make the others' slow, which a sorted array or a window of
//! prices would let it do. Nodes come from a pool that all books share.
//!
//! # Invariants
//!
//! * `L1` A bit is set exactly where a child is; no node but an empty root is without.
//! * `L2` The root has at least two children, or is on floor 0.
//! * `L3` All keys have `prefix` above the root's digits.

use crate::idmap::NONE;

const DIGIT_BITS: u32 = 6;
const FLOORS_MAX: usize = 11;

/// One node: which children, and their handles.
#[derive(Clone, Debug)]
struct Node {
    bits: u64,
    children: [u32; 64],
}

/// The nodes of all ladders of a store.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// The first free node; the next one is in its first child.
    free: u32,
}

impl Nodes {
    /// A pool that has room for `count` nodes before it allocates again.
    pub(crate) fn new(count: u32) -> Self {
        let mut pool = Self {
            nodes: Vec::with_capacity(count as usize),
            free: NONE,
        };
        let all: Vec<u32> = (0..count).map(|_| pool.take()).collect();
        for node in all.into_iter().rev() {
            pool.give(node);
        }
        pool
    }

    fn take(&mut self) -> u32 {
        let index = self.free;
        if index != NONE {
            let node = &mut self.nodes[index as usize];
            self.free = node.children[0];
            node.bits = 0;
            return index;
        }
        let index = u32::try_from(self.nodes.len()).expect("eleven nodes a level fit in 32 bits");
        self.nodes.push(Node {
            bits: 0,
            children: [NONE; 64],
        });
        index
    }

    fn give(&mut self, index: u32) {
        self.nodes[index as usize].children[0] = self.free;
        self.free = index;
    }

    #[inline]
    fn child(&self, node: u32, digit: u32) -> Option<u32> {
        let node = &self.nodes[node as usize];
        (node.bits >> digit & 1 == 1).then(|| node.children[digit as usize])
    }

    fn set(&mut self, node: u32, digit: u32, child: u32) {
        let node = &mut self.nodes[node as usize];
        node.bits |= 1 << digit;
        node.children[digit as usize] = child;
    }

    /// Clears a bit and says whether the node is empty now.
    fn clear(&mut self, node: u32, digit: u32) -> bool {
        let node = &mut self.nodes[node as usize];
        node.bits &= !(1 << digit);
        node.bits == 0
    }
}

/// A price as an unsigned number of the same order.
#[inline]
const fn key_of(price: i64) -> u64 {
    price.cast_unsigned() ^ (1 << 63)
}

#[inline]
const fn above(key: u64, floors: u32) -> u64 {
    // Eleven floors are 66 bits: more than a shift may be.
    if floors * DIGIT_BITS >= 64 {
        0
    } else {
        key >> (floors * DIGIT_BITS)
    }
}

#[inline]
const fn digit_of(key: u64, floor: u32) -> u32 {
    ((key >> (floor * DIGIT_BITS)) & 63) as u32
}

/// The levels of one side of one book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ladder {
    root: u32,
    floors: u32,
    prefix: u64,
}

/// In which direction the next level is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    Higher,
    Lower,
}

impl Ladder {
    pub(crate) const fn new() -> Self {
        Self {
            root: NONE,
            floors: 0,
            prefix: 0,
        }
    }

    /// The level at this price.
    #[inline]
    pub(crate) fn get(&self, nodes: &Nodes, price: i64) -> Option<u32> {
        let key = key_of(price);
        if self.root == NONE || above(key, self.floors) != self.prefix {
            return None;
        }
        let mut node = self.root;
        for floor in (0..self.floors).rev() {
            node = nodes.child(node, digit_of(key, floor))?;
        }
        Some(node)
    }

    /// Adds the level of a price that has none.
    pub(crate) fn insert(&mut self, nodes: &mut Nodes, price: i64, level: u32) {
        let key = key_of(price);
        if self.root == NONE {
            *self = Self {
                root: nodes.take(),
                floors: 1,
                prefix: above(key, 1),
            };
        }
        while above(key, self.floors) != self.prefix {
            let root = nodes.take();
            nodes.set(root, digit_of(self.prefix, 0), self.root);
            *self = Self {
                root,
                floors: self.floors + 1,
                prefix: above(self.prefix, 1),
            };
        }
        let mut node = self.root;
        for floor in (1..self.floors).rev() {
            let digit = digit_of(key, floor);
            node = nodes.child(node, digit).unwrap_or_else(|| {
                let child = nodes.take();
                nodes.set(node, digit, child);
                child
            });
        }
        nodes.set(node, digit_of(key, 0), level);
    }

    /// Takes out the level of a price that has one.
    pub(crate) fn remove(&mut self, nodes: &mut Nodes, price: i64) {
        let key = key_of(price);
        let path = self.path(nodes, key);
        for floor in 0..self.floors {
            let node = path[floor as usize];
            if !nodes.clear(node, digit_of(key, floor)) {
                self.lower_root(nodes);
                return;
            }
            nodes.give(node);
        }
        *self = Self::new();
    }

    /// The nodes on the way to a key, by floor.
    fn path(&self, nodes: &Nodes, key: u64) -> [u32; FLOORS_MAX] {
        let mut path = [NONE; FLOORS_MAX];
        let mut node = self.root;
        for floor in (0..self.floors).rev() {
            path[floor as usize] = node;
            node = nodes
                .child(node, digit_of(key, floor))
                .expect("L1: the key is in the ladder");
        }
        path
    }

    fn lower_root(&mut self, nodes: &mut Nodes) {
        while self.floors > 1 && nodes.nodes[self.root as usize].bits.count_ones() == 1 {
            let digit = nodes.nodes[self.root as usize].bits.trailing_zeros();
            let child = nodes.nodes[self.root as usize].children[digit as usize];
            nodes.give(self.root);
            let prefix = (self.prefix << DIGIT_BITS) | u64::from(digit);
            *self = Self {
                root: child,
                floors: self.floors - 1,
                prefix,
            };
        }
    }

    /// The level next to that of `price`, which has one.
    pub(crate) fn next(&self, nodes: &Nodes, price: i64, towards: Towards) -> Option<u32> {
        let key = key_of(price);
        let path = self.path(nodes, key);
        for floor in 0..self.floors {
            let node = path[floor as usize];
            let digit = digit_of(key, floor);
            let bits = nodes.nodes[node as usize].bits;
            let beyond = match towards {
                // Two shifts: digit 63 would be one of 64.
                Towards::Higher => bits & (!0 << digit << 1),
                Towards::Lower => bits & ((1 << digit) - 1),
            };
            if beyond != 0 {
                return Some(nearest(nodes, node, beyond, floor, towards));
            }
        }
        None
    }
}

/// From a node with these bits down to the nearest level.
fn nearest(nodes: &Nodes, node: u32, bits: u64, floor: u32, towards: Towards) -> u32 {
    let (mut node, mut bits) = (node, bits);
    for below in (0..=floor).rev() {
        let digit = match towards {
            Towards::Higher => bits.trailing_zeros(),
            Towards::Lower => 63 - bits.leading_zeros(),
        };
        node = nodes.nodes[node as usize].children[digit as usize];
        if below > 0 {
            bits = nodes.nodes[node as usize].bits;
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(prices: impl Iterator<Item = i64>) {
        let mut nodes = Nodes::new(4);
        let mut ladder = Ladder::new();
        let mut model = BTreeMap::new();
        for (number, price) in (0_u32..).zip(prices) {
            assert_eq!(ladder.get(&nodes, price), model.get(&price).copied());
            if model.remove(&price).is_some() {
                ladder.remove(&mut nodes, price);
            } else {
                ladder.insert(&mut nodes, price, number);
                model.insert(price, number);
                let higher = model.range(price + 1..).next().map(|(_, &level)| level);
                let lower = model.range(..price).next_back().map(|(_, &level)| level);
                assert_eq!(ladder.next(&nodes, price, Towards::Higher), higher);
                assert_eq!(ladder.next(&nodes, price, Towards::Lower), lower);
            }
        }
        let left: Vec<i64> = model.keys().copied().collect();
        for price in left {
            ladder.remove(&mut nodes, price);
        }
        assert_eq!(ladder.root, NONE);
    }

    fn random(seed: u64) -> impl Iterator<Item = i64> {
        let mut state = seed;
        std::iter::from_fn(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Some((state >> 1).cast_signed())
        })
    }

    #[test]
    fn behaves_as_an_ordered_map_does_within_a_narrow_band() {
        check(random(1).map(|n| n.rem_euclid(300) - 150).take(100_000));
    }

    #[test]
    fn behaves_as_an_ordered_map_does_over_all_prices() {
        check(
            random(2)
                .map(|n| (n.rem_euclid(7) - 3) << (n.rem_euclid(60)))
                .take(100_000),
        );
    }

    #[test]
    fn the_extremes_are_prices_too() {
        check([i64::MIN, i64::MAX - 1, 0, -1, 1, i64::MIN, 0].into_iter());
    }
}

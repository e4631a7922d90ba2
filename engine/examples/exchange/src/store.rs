//! Where orders live: one slab for all books, found by owner and number.
//!
//! Each order is one cache line. It hangs in the queue of its level (first come, first
//! served), in the list of its owner's orders (for mass cancels), in the map of numbers,
//! and, if it has an end, in the heap of timers. Everything refers to everything by
//! 32-bit handles; nothing is allocated after `new` but nodes of the ladders, beyond
//! their reserve.
//!
//! # Invariants
//!
//! * `O1` A live order is in exactly one level, one owner's list and the map.
//! * `O2` A level's quantity and count are the sums over its queue, and never zero.
//! * `O3` `timer` of an order is its place in the heap, or `NONE`.

use crate::event::{SelfTrade, Side, TimeInForce};
use crate::idmap::{IdMap, NONE, tag};
use crate::ladder::Nodes;
use crate::price::{Price, Quantity};

/// How much a store holds. It never grows: what exceeds it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Orders in the books at the same time; at most [`Capacity::ORDERS_MAX`].
    pub orders: u32,
    /// Owners have numbers below this; at most [`Capacity::OWNERS_MAX`].
    pub owners: u32,
}

impl Capacity {
    /// So many that the quantities of a level cannot overflow: 2^23 of 2^40.
    pub const ORDERS_MAX: u32 = 1 << 23;
    /// A table of four bytes for each is kept.
    pub const OWNERS_MAX: u32 = 1 << 24;
}

impl Default for Capacity {
    /// A million orders of up to 65,536 owners: about 110 MiB.
    fn default() -> Self {
        Self {
            orders: 1 << 20,
            owners: 1 << 16,
        }
    }
}

/// One live order.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) price: Price,
    /// What is open.
    pub(crate) quantity: Quantity,
    /// The level whose queue it is in.
    pub(crate) level: u32,
    /// The order behind it in the queue; of a free order the next free one.
    pub(crate) next: u32,
    /// The order before it in the queue.
    pub(crate) prev: u32,
    pub(crate) owner: u32,
    /// The owner's next older order.
    pub(crate) older: u32,
    /// The owner's next newer order.
    pub(crate) newer: u32,
    pub(crate) book: u32,
    /// The caller's own word; the exchange keeps the holding here.
    pub(crate) tag: u32,
    /// Its place in the heap of timers, or `NONE` (`O3`).
    pub(crate) timer: u32,
    pub(crate) side: Side,
    pub(crate) self_trade: SelfTrade,
    pub(crate) time_in_force: TimeInForce,
    pub(crate) post_only: bool,
}

const _: () = assert!(size_of::<Order>() == 64, "an order is one cache line");

/// One price of one side of one book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) price: Price,
    pub(crate) quantity: Quantity,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) orders: u32,
    /// The next free level.
    free: u32,
}

/// When an order ends. Ties are broken by arrival, so the order of expiry is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) expires: u64,
    pub(crate) arrival: u64,
    handle: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) orders: Vec<Order>,
    pub(crate) levels: Vec<Level>,
    pub(crate) nodes: Nodes,
    map: IdMap,
    /// The newest order of each owner.
    newest: Vec<u32>,
    timers: Vec<Timer>,
    /// How many timed orders there have been.
    pub(crate) arrivals: u64,
    free_order: u32,
    free_level: u32,
    live: u32,
    capacity: Capacity,
}

impl Store {
    pub(crate) fn new(capacity: Capacity) -> Self {
        assert!(
            capacity.orders <= Capacity::ORDERS_MAX && capacity.owners <= Capacity::OWNERS_MAX,
            "a capacity of {capacity:?} exceeds what sums and handles hold"
        );
        let orders = capacity.orders as usize;
        // Room for eight ladders of eleven floors, and a node for each eight levels: a
        // book of neighbouring prices uses one for 64.
        let nodes = Nodes::new(88 + capacity.orders / 8);
        let mut store = Self {
            orders: Vec::with_capacity(orders),
            levels: Vec::with_capacity(orders),
            nodes,
            map: IdMap::new(capacity.orders),
            newest: vec![NONE; capacity.owners as usize],
            timers: Vec::with_capacity(orders),
            arrivals: 0,
            free_order: NONE,
            free_level: NONE,
            live: 0,
            capacity,
        };
        store.prefault();
        store
    }

    /// Touches all of it, so that no page fault comes later.
    fn prefault(&mut self) {
        let count = self.capacity.orders;
        for next in (0..count).map(|index| if index + 1 < count { index + 1 } else { NONE }) {
            self.orders.push(Order { next, ..FREE });
            self.levels.push(Level {
                free: next,
                ..NO_LEVEL
            });
        }
        if count > 0 {
            self.free_order = 0;
            self.free_level = 0;
        }
        self.timers.resize(
            count as usize,
            Timer {
                expires: 0,
                arrival: 1,
                handle: 0,
            },
        );
        self.timers.clear();
    }

    pub(crate) const fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.free_order == NONE
    }

    #[inline]
    pub(crate) fn find(&self, owner: u32, id: u64) -> Option<u32> {
        self.map.find(tag(owner, id), |handle| {
            let order = &self.orders[handle as usize];
            order.id == id && order.owner == owner
        })
    }

    #[inline]
    pub(crate) fn order(&self, handle: u32) -> &Order {
        &self.orders[handle as usize]
    }

    /// Gives an order a place, a map entry and a link in its owner's list; not yet a level.
    ///
    /// The caller has checked that there is room, that the key is new and the owner in
    /// range.
    #[inline]
    pub(crate) fn add(&mut self, order: Order, expires: Option<u64>) -> u32 {
        let handle = self.free_order;
        let older = self.newest[order.owner as usize];
        let slot = &mut self.orders[handle as usize];
        self.free_order = slot.next;
        *slot = Order {
            older,
            newer: NONE,
            timer: NONE,
            ..order
        };
        if older != NONE {
            self.orders[older as usize].newer = handle;
        }
        self.newest[order.owner as usize] = handle;
        self.map.insert(tag(order.owner, order.id), handle);
        self.live += 1;
        if let Some(expires) = expires {
            self.arrivals += 1;
            self.start_timer(Timer {
                expires,
                arrival: self.arrivals,
                handle,
            });
        }
        handle
    }

    /// Frees an order that is in no level.
    #[inline]
    pub(crate) fn drop_order(&mut self, handle: u32) {
        let order = self.orders[handle as usize];
        self.map.remove(tag(order.owner, order.id), handle);
        if order.timer != NONE {
            self.stop_timer(order.timer);
        }
        if order.older != NONE {
            self.orders[order.older as usize].newer = order.newer;
        }
        if order.newer == NONE {
            self.newest[order.owner as usize] = order.older;
        } else {
            self.orders[order.newer as usize].older = order.older;
        }
        self.orders[handle as usize].next = self.free_order;
        self.free_order = handle;
        self.live -= 1;
    }

    /// Gives an order another number.
    pub(crate) fn rename(&mut self, handle: u32, id: u64) {
        let order = &mut self.orders[handle as usize];
        let (owner, old) = (order.owner, order.id);
        order.id = id;
        self.map.remove(tag(owner, old), handle);
        self.map.insert(tag(owner, id), handle);
    }

    /// The newest order of an owner, or `NONE`.
    pub(crate) fn newest(&self, owner: u32) -> u32 {
        self.newest.get(owner as usize).copied().unwrap_or(NONE)
    }

    /// A level without orders; the first one is appended at once (`O2`).
    pub(crate) fn add_level(&mut self, price: Price) -> u32 {
        // There are as many levels as orders, and each has at least one.
        let level = self.free_level;
        self.free_level = self.levels[level as usize].free;
        self.levels[level as usize] = Level { price, ..NO_LEVEL };
        level
    }

    pub(crate) fn drop_level(&mut self, level: u32) {
        self.levels[level as usize].free = self.free_level;
        self.free_level = level;
    }

    /// The order that ends first, if that is at `time` or before.
    pub(crate) fn expired(&self, time: u64) -> Option<u32> {
        self.timers
            .first()
            .filter(|timer| timer.expires <= time)
            .map(|timer| timer.handle)
    }

    /// When this order ends.
    pub(crate) fn timer(&self, order: &Order) -> Option<Timer> {
        self.timers.get(order.timer as usize).copied()
    }

    /// Starts a timer anew as it was in a snapshot.
    pub(crate) fn restore_timer(&mut self, handle: u32, expires: u64, arrival: u64) {
        self.start_timer(Timer {
            expires,
            arrival,
            handle,
        });
    }

    fn start_timer(&mut self, timer: Timer) {
        self.timers.push(timer);
        self.sift_up(self.timers.len() - 1);
    }

    fn stop_timer(&mut self, place: u32) {
        let place = place as usize;
        self.timers.swap_remove(place);
        if place < self.timers.len() {
            self.sift_up(place);
            let now_at = self.timers[place];
            // Whatever is in this place may be too late for it, if it did not go up.
            self.sift_down(place);
            debug_assert!(self.orders[now_at.handle as usize].timer != NONE, "O3");
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.timers[parent] <= self.timers[place] {
                break;
            }
            self.timers.swap(parent, place);
            self.note_place(place);
            place = parent;
        }
        self.note_place(place);
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            if left >= self.timers.len() {
                break;
            }
            let right = left + 1;
            let earlier = right < self.timers.len() && self.timers[right] < self.timers[left];
            let child = if earlier { right } else { left };
            if self.timers[place] <= self.timers[child] {
                break;
            }
            self.timers.swap(place, child);
            self.note_place(place);
            place = child;
        }
        self.note_place(place);
    }

    fn note_place(&mut self, place: usize) {
        let handle = self.timers[place].handle;
        self.orders[handle as usize].timer = u32::try_from(place).expect("at most one an order");
    }

    /// Looks whether lists, map and timers fit each other (`O1`, `O3`).
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let mut seen = 0_u32;
        for (owner, &newest) in (0_u32..).zip(&self.newest) {
            let (mut handle, mut newer) = (newest, NONE);
            while handle != NONE {
                let order = self.order(handle);
                if order.owner != owner || order.newer != newer {
                    return Err("O1: an owner's list is broken");
                }
                if self.find(owner, order.id) != Some(handle) {
                    return Err("O1: an order is not in the map");
                }
                seen += 1;
                (newer, handle) = (handle, order.older);
            }
        }
        if seen != self.live {
            return Err("O1: the owners' lists do not hold every live order");
        }
        for (place, timer) in self.timers.iter().enumerate() {
            if self.order(timer.handle).timer as usize != place {
                return Err("O3: a timer is not where its order says");
            }
            if place > 0 && self.timers[(place - 1) / 2] > *timer {
                return Err("O3: the heap of timers is out of order");
            }
        }
        Ok(())
    }
}

const FREE: Order = Order {
    id: 0,
    price: 0,
    quantity: 0,
    level: NONE,
    next: NONE,
    prev: NONE,
    owner: 0,
    older: NONE,
    newer: NONE,
    book: 0,
    tag: 0,
    timer: NONE,
    side: Side::Buy,
    self_trade: SelfTrade::Allow,
    time_in_force: TimeInForce::GoodTillCancel,
    post_only: false,
};

const NO_LEVEL: Level = Level {
    price: 0,
    quantity: 0,
    head: NONE,
    tail: NONE,
    orders: 0,
    free: NONE,
};

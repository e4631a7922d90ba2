//! Order flow made up from a seed, for machines without data.
//!
//! What it has of real flow: events come in clusters (a burst, then a pause, then single
//! ones); most orders rest near the best price and are canceled, mostly young; prices
//! wander; few symbols have most of the flow; some orders cross and trade; a few cancels
//! come too late and are refused. What it has not: any meaning. Only integers are used,
//! so a seed gives the same events everywhere.

use std::collections::VecDeque;

use super::{Feed, LoadError, Source};
use crate::event::{
    FLAG_POST_ONLY, FLAG_SELF_TRADE_SHIFT, InstrumentState, MassCancel, NewOrder, ReplaceOrder,
    SelfTrade, Side, Tick, TimeInForce,
};

/// What is made up. Everything else follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Equal seeds give equal flows.
    pub seed: u64,
    /// How many messages, besides those that open the market.
    pub messages: u64,
    /// How many instruments; the first has half of the flow, the second a quarter, …
    pub instruments: u32,
    /// About how many messages there are in a second of the flow's own time.
    pub messages_per_second: u64,
    /// About how many orders rest in all books together.
    pub resting: usize,
    /// When it begins, in nanoseconds since 1970.
    pub begins: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            seed: 42,
            messages: 1_000_000,
            instruments: 8,
            messages_per_second: 100_000,
            resting: 20_000,
            begins: 1_700_000_000_000_000_000,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Generator {
    flow: Flow,
    random: u64,
    time: u64,
    sent: u64,
    /// How many messages of the present burst are left.
    burst: u64,
    next_tick: u64,
    next_order: u64,
    middles: Vec<i64>,
    /// Orders that may still rest, oldest first.
    resting: VecDeque<Resting>,
    started: bool,
}

#[derive(Clone, Copy, Debug)]
struct Resting {
    order: u64,
    account: u32,
    instrument: u32,
    side: Side,
    quantity: u64,
}

/// A tick each 100 ms of the flow's time.
const TICK_NS: u64 = 100_000_000;

impl Generator {
    /// A flow from its beginning.
    #[must_use]
    pub fn new(flow: Flow) -> Self {
        let instruments = u64::from(flow.instruments.max(1));
        let middles = (0..instruments)
            .map(|n| 100_000 + 7_919 * n.cast_signed())
            .collect();
        Self {
            flow,
            random: flow.seed,
            time: flow.begins,
            sent: 0,
            burst: 0,
            next_tick: flow.begins + TICK_NS,
            next_order: 1,
            middles,
            resting: VecDeque::new(),
            started: false,
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap_or(0)
    }

    /// 0 with half of the chances, 1 with a quarter, …, never `count` or more.
    fn halving(&mut self, count: u32) -> u32 {
        (self.next() | 1 << 62).trailing_zeros() % count.max(1)
    }

    fn start(&mut self, feed: &mut Feed) {
        self.started = true;
        feed.open_accounts(self.time);
        for instrument in 0..self.flow.instruments.max(1) {
            let mut symbol = *b"SYM     ";
            for (to, from) in symbol[3..].iter_mut().zip(instrument.to_string().bytes()) {
                *to = from;
            }
            feed.add_instrument(self.time, instrument, symbol);
            feed.set_state(self.time, instrument, InstrumentState::Open);
        }
    }

    /// Moves the time on: within a burst by little, between bursts by what keeps the rate.
    fn pass_time(&mut self) {
        let mean = 1_000_000_000 / self.flow.messages_per_second.max(1);
        if self.burst == 0 {
            self.burst = if self.below(10) == 0 {
                10 + self.below(200)
            } else {
                1
            };
            // Bursts have some twelve messages on average, and take no time to speak of.
            self.time += self.below(24 * mean) + 1;
        } else {
            self.time += self.below(mean / 20 + 2);
        }
        self.burst -= 1;
    }

    fn message(&mut self, feed: &mut Feed) {
        let full = self.resting.len() >= self.flow.resting;
        let dice = self.below(1_000);
        // Fewer new orders than ends where the books are full, more where they are not.
        let new_below = if full { 440 } else { 560 };
        if self.resting.is_empty() || dice < new_below {
            self.new_order(feed);
        } else if dice < 900 {
            let gone = self.pick();
            feed.cancel(self.time, gone.account, gone.order);
        } else if dice < 999 {
            self.change(feed);
        } else {
            let account = 1 + self.below_u32(feed.options().accounts);
            let instrument = self.halving(self.flow.instruments);
            let scope = MassCancel::ONE_INSTRUMENT;
            let mass = MassCancel {
                account,
                instrument,
                scope,
                ..Default::default()
            };
            feed.push(self.time, &mass);
            self.resting
                .retain(|r| r.account != account || r.instrument != instrument);
        }
    }

    fn new_order(&mut self, feed: &mut Feed) {
        let instrument = self.halving(self.flow.instruments);
        if self.below(40) == 0 {
            let step = self.below(3).cast_signed() - 1;
            self.middles[instrument as usize] += step;
        }
        let side = if self.below(2) == 0 {
            Side::Buy
        } else {
            Side::Sell
        };
        let account = 1 + self.below_u32(feed.options().accounts);
        let order = self.next_order;
        self.next_order += 1;
        let quantity = 1 + self.below(10) * (1 + self.below(20));
        let dice = self.below(100);
        let (in_force, flags) = match dice {
            0..=4 => (TimeInForce::ImmediateOrCancel, 0),
            5 => (TimeInForce::FillOrKill, 0),
            6..=20 => (TimeInForce::GoodTillCancel, FLAG_POST_ONLY),
            21..=24 => (TimeInForce::GoodTillTime, 0),
            _ => (TimeInForce::GoodTillCancel, 0),
        };
        let aggressive = dice <= 5 || (25..=29).contains(&dice);
        let price = self.price(instrument, side, aggressive);
        let lifetime_ms = if in_force == TimeInForce::GoodTillTime {
            1 + self.below_u32(2_000)
        } else {
            0
        };
        let flags = flags | (SelfTrade::CancelOldest as u8) << FLAG_SELF_TRADE_SHIFT;
        let mut new = NewOrder::limit(side, in_force);
        if dice == 0 {
            new = NewOrder::market(side);
        } else {
            new.price = price;
        }
        feed.push(
            self.time,
            &NewOrder {
                quantity,
                order,
                instrument,
                account,
                flags,
                lifetime_ms,
                ..new
            },
        );
        if dice > 5 {
            let rests = Resting {
                order,
                account,
                instrument,
                side,
                quantity,
            };
            self.resting.push_back(rests);
            if self.resting.len() > 2 * self.flow.resting + 16 {
                self.resting.pop_front();
            }
        }
    }

    /// Near the middle mostly; an aggressive one beyond it.
    fn price(&mut self, instrument: u32, side: Side, aggressive: bool) -> i64 {
        let far = if self.below(16) == 0 {
            self.below(300)
        } else {
            0
        };
        let away = i64::from(self.halving(40)) + far.cast_signed() + 1;
        let away = if aggressive { -away } else { away };
        let middle = self.middles[instrument as usize];
        match side {
            Side::Buy => middle - away,
            Side::Sell => middle + away,
        }
    }

    /// Takes out an order, mostly a young one.
    fn pick(&mut self) -> Resting {
        let count = u64::try_from(self.resting.len()).unwrap_or(u64::MAX);
        let young = self.below(4) > 0;
        let age = if young {
            self.below(count.min(500))
        } else {
            self.below(count)
        };
        let at = usize::try_from(count - 1 - age).expect("an index of the queue");
        // The last one takes its place: the queue is only roughly in the order of age.
        self.resting
            .swap_remove_back(at)
            .expect("the caller has looked that there is one")
    }

    fn change(&mut self, feed: &mut Feed) {
        let old = self.pick();
        if self.below(2) == 0 && old.quantity > 1 {
            let by = 1 + self.below(old.quantity - 1);
            feed.reduce(self.time, old.account, old.order, by);
            self.resting.push_back(Resting {
                quantity: old.quantity - by,
                ..old
            });
            return;
        }
        let price = self.price(old.instrument, old.side, false);
        let new_order = self.next_order;
        self.next_order += 1;
        let replace = ReplaceOrder {
            order: old.order,
            new_order,
            price,
            quantity: old.quantity,
            account: old.account,
            spare: 0,
        };
        feed.push(self.time, &replace);
        self.resting.push_back(Resting {
            order: new_order,
            ..old
        });
    }
}

impl Source for Generator {
    fn read(&mut self, feed: &mut Feed) -> Result<bool, LoadError> {
        if !self.started {
            self.start(feed);
        }
        if self.sent == self.flow.messages {
            return Ok(false);
        }
        self.pass_time();
        feed.row();
        self.sent += 1;
        if self.time >= self.next_tick {
            self.next_tick = self.time + TICK_NS;
            feed.push(self.time, &Tick::default());
        } else {
            self.message(feed);
        }
        Ok(true)
    }
}

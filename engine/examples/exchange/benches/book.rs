//! How fast is the book alone: messages a second, and what each kind of message takes.
//!
//! ```text
//! cargo bench -p lockstep-exchange --bench book -- [--quick] [--depth ORDERS] [--json FILE]
//! ```
//!
//! The mix is 50 % new orders (so many trade at once that
//! the book keeps its size), 41 % cancels of live orders and 9 %
//! changes (half reduced, half replaced), over prices that wander. It is made before the
//! clock starts, from a seed, so that all rounds and all books get the same messages; the
//! books keep `--depth` live orders (20,000). Rounds of the books take turns.
//! `lobster` 0.7 has no changes: it gets a cancel and a new order for each, which the
//! count does not show, so its figure is messages of the mix, too.
//!
//! For the times of single messages each call is timed by itself; the median cost of the
//! timer, measured in the same run, is subtracted and reported. Classes are told apart by
//! what they do: a new order that rests, one that trades, and so on.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(
    clippy::unwrap_used,
    reason = "a bench may stop where something is wrong"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use hdrhistogram::Histogram;
use lockstep_exchange::book::{Capacity, OrderBook, Place, Report};
use lockstep_exchange::event::{
    AddAccount, AddInstrument, AdjustBalance, CancelOrder, Event, InstrumentState, NewOrder,
    ReduceOrder, ReplaceOrder, SetInstrumentState, Side, TimeInForce,
};
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::load::generator::{Flow, Generator};
use lockstep_exchange::load::{Loader, Options};
use lockstep_exchange::output::Discard;
use serde_json::json;

const OWNERS: u32 = 1_000;
const CAPACITY: Capacity = Capacity {
    orders: 1 << 18,
    owners: OWNERS,
};

#[derive(Clone, Copy)]
enum Message {
    New {
        owner: u32,
        id: u64,
        side: Side,
        price: i64,
        quantity: u64,
    },
    Cancel {
        owner: u32,
        id: u64,
    },
    Reduce {
        owner: u32,
        id: u64,
        by: u64,
    },
    Replace {
        owner: u32,
        id: u64,
        new_id: u64,
        price: i64,
        quantity: u64,
    },
}

const CLASSES: [&str; 6] = [
    "new, rests",
    "new, trades",
    "cancel",
    "reduce",
    "replace, rests",
    "replace, trades",
];

#[derive(Clone, Copy)]
struct Timed {
    message: Message,
    /// Which of [`CLASSES`] it turns out to be.
    class: usize,
    /// The quantity left of the order that is changed: for the book that cannot change.
    side: Side,
    left: u64,
    price: i64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Small numbers often, great ones seldom: one more with three chances of four.
    fn steps(&mut self) -> i64 {
        let bits = self.next() & self.next();
        i64::from((!bits).trailing_zeros() + (self.next() | 1 << 40).trailing_zeros())
            + if self.below(8) == 0 {
                i64::try_from(self.below(200)).unwrap()
            } else {
                0
            }
    }
}

/// The live orders while the mix is made: by what the book itself reports.
#[derive(Default)]
struct Live {
    ids: Vec<(u32, u64)>,
    place: BTreeMap<u64, usize>,
}

impl Live {
    fn add(&mut self, owner: u32, id: u64) {
        self.place.insert(id, self.ids.len());
        self.ids.push((owner, id));
    }

    fn remove(&mut self, id: u64) {
        if let Some(at) = self.place.remove(&id) {
            self.ids.swap_remove(at);
            if let Some(&(_, moved)) = self.ids.get(at) {
                self.place.insert(moved, at);
            }
        }
    }

    fn pick(&self, random: &mut Random) -> Option<(u32, u64)> {
        let count = u64::try_from(self.ids.len()).unwrap();
        if count == 0 {
            return None;
        }
        // Mostly young ones, as in life.
        let age = if random.below(4) > 0 {
            random.below(count.min(2_000))
        } else {
            random.below(count)
        };
        Some(self.ids[usize::try_from(count - 1 - age).unwrap()])
    }
}

/// The mix, and how many of its first messages only fill the book.
fn mix(count: usize, depth: u64, seed: u64) -> (Vec<Timed>, usize) {
    let mut random = Random(seed);
    let mut book = OrderBook::new(CAPACITY);
    let mut live = Live::default();
    let mut middle = 1_000_000_i64;
    let mut messages = Vec::new();
    let mut id = 0;
    let warm = usize::try_from(depth).unwrap();
    while messages.len() < warm + count {
        let warming = messages.len() < warm;
        let dice = if warming { 0 } else { random.below(100) };
        if random.below(2_000) == 0 {
            middle += i64::try_from(random.below(3)).unwrap() - 1;
        }
        let side = if random.below(2) == 0 {
            Side::Buy
        } else {
            Side::Sell
        };
        // Trades take what the surplus of new orders brings: the book keeps its size.
        let cross_one_in = if live.ids.len() > warm { 3 } else { 100 };
        let price_for = |random: &mut Random, side: Side| {
            let crosses = !warming && random.below(cross_one_in) == 0;
            let away = if crosses { -3 } else { 1 + random.steps() };
            if side == Side::Buy {
                middle - away
            } else {
                middle + away
            }
        };
        let message = if dice < 50 {
            id += 1;
            let owner = u32::try_from(random.below(u64::from(OWNERS))).unwrap();
            let price = price_for(&mut random, side);
            Message::New {
                owner,
                id,
                side,
                price,
                quantity: 1 + random.below(100),
            }
        } else {
            let Some((owner, old)) = live.pick(&mut random) else {
                continue;
            };
            let order = book.order(owner, old).unwrap();
            match dice {
                50..=90 => Message::Cancel { owner, id: old },
                91..=95 if order.quantity > 1 => Message::Reduce {
                    owner,
                    id: old,
                    by: 1 + random.below(order.quantity - 1),
                },
                _ => {
                    id += 1;
                    let price = price_for(&mut random, order.side);
                    let quantity = 1 + random.below(100);
                    Message::Replace {
                        owner,
                        id: old,
                        new_id: id,
                        price,
                        quantity,
                    }
                }
            }
        };
        messages.push(play(&mut book, &mut live, message));
    }
    (messages, warm)
}

/// Plays a message while the mix is made, and sees what it turns out to be.
fn play(book: &mut OrderBook, live: &mut Live, message: Message) -> Timed {
    let mut traded = false;
    let mut gone = Vec::new();
    let mut sink = |report: &Report| {
        if let Report::Executed(trade) = report {
            traded = true;
            if trade.maker.left == 0 {
                gone.push(trade.maker.id);
            }
        }
    };
    let of = |id: u64, owner: u32, book: &OrderBook| {
        book.order(owner, id)
            .map_or((Side::Buy, 0, 0), |o| (o.side, o.quantity, o.price))
    };
    let (base, (side, left, price)) = match message {
        Message::New {
            owner,
            id,
            side,
            price,
            quantity,
        } => {
            book.place(
                &Place::limit(id, side, price, quantity).owner(owner),
                &mut sink,
            )
            .unwrap();
            if book.order(owner, id).is_some() {
                live.add(owner, id);
            }
            (0, (side, quantity, price))
        }
        Message::Cancel { owner, id } => {
            let order = of(id, owner, book);
            book.cancel(owner, id, &mut sink).unwrap();
            live.remove(id);
            (2, order)
        }
        Message::Reduce { owner, id, by } => {
            book.reduce(owner, id, by, &mut sink).unwrap();
            (3, of(id, owner, book))
        }
        Message::Replace {
            owner,
            id,
            new_id,
            price,
            quantity,
        } => {
            let (side, ..) = of(id, owner, book);
            book.replace(owner, id, new_id, price, quantity, &mut sink)
                .unwrap();
            live.remove(id);
            if book.order(owner, new_id).is_some() {
                live.add(owner, new_id);
            }
            (4, (side, quantity, price))
        }
    };
    for id in gone {
        live.remove(id);
    }
    Timed {
        message,
        class: base + usize::from(traded),
        side,
        left,
        price,
    }
}

/// One of the things that are measured.
trait Subject {
    fn play(&mut self, timed: &Timed);
    /// Something that depends on all that was played.
    fn proof(&self) -> u64;
    /// How many orders are in the book, where it tells.
    fn live(&self) -> u32;
}

struct Ours {
    book: OrderBook,
    trades: u64,
}

impl Subject for Ours {
    #[inline]
    fn play(&mut self, timed: &Timed) {
        let trades = &mut self.trades;
        let mut sink =
            |report: &Report| *trades += u64::from(matches!(report, Report::Executed(_)));
        let book = &mut self.book;
        let done = match timed.message {
            Message::New {
                owner,
                id,
                side,
                price,
                quantity,
            } => book.place(
                &Place::limit(id, side, price, quantity).owner(owner),
                &mut sink,
            ),
            Message::Cancel { owner, id } => book.cancel(owner, id, &mut sink),
            Message::Reduce { owner, id, by } => book.reduce(owner, id, by, &mut sink),
            Message::Replace {
                owner,
                id,
                new_id,
                price,
                quantity,
            } => book.replace(owner, id, new_id, price, quantity, &mut sink),
        };
        done.unwrap();
    }

    fn proof(&self) -> u64 {
        self.trades
    }

    fn live(&self) -> u32 {
        self.book.len()
    }
}

/// The whole exchange: risk, book, settlement, outputs.
struct Whole {
    exchange: Exchange,
    out: Discard,
    position: u64,
}

impl Whole {
    fn new() -> Self {
        let mut exchange = Exchange::new(Bounds {
            orders: CAPACITY.orders,
            accounts: OWNERS,
            instruments: 1,
            holdings: OWNERS,
            sessions: 16,
        });
        let mut out = Discard::default();
        let open = InstrumentState::Open as u8;
        let mut events = vec![
            Event::new(
                1,
                0,
                0,
                &AddInstrument {
                    tick: 1,
                    lot: 1,
                    ..Default::default()
                },
            ),
            Event::new(
                1,
                0,
                0,
                &SetInstrumentState {
                    state: open,
                    ..Default::default()
                },
            ),
        ];
        for account in 0..OWNERS {
            let amount = 1 << 50;
            let money = AdjustBalance {
                amount,
                transaction: 1,
                account,
                ..Default::default()
            };
            events.push(Event::new(
                1,
                0,
                0,
                &AddAccount {
                    account,
                    ..Default::default()
                },
            ));
            events.push(Event::new(1, 0, 0, &money));
        }
        for event in &events {
            exchange.handle(event, 0, &mut out).unwrap();
        }
        Self {
            exchange,
            out,
            position: 0,
        }
    }
}

fn event_of(message: Message) -> Event {
    match message {
        Message::New {
            owner: account,
            id: order,
            side,
            price,
            quantity,
        } => {
            let limit = NewOrder::limit(side, TimeInForce::GoodTillCancel);
            Event::new(
                2,
                0,
                0,
                &NewOrder {
                    price,
                    quantity,
                    order,
                    account,
                    ..limit
                },
            )
        }
        Message::Cancel {
            owner: account,
            id: order,
        } => Event::new(
            2,
            0,
            0,
            &CancelOrder {
                order,
                account,
                ..Default::default()
            },
        ),
        Message::Reduce {
            owner: account,
            id: order,
            by,
        } => Event::new(
            2,
            0,
            0,
            &ReduceOrder {
                order,
                by,
                account,
                ..Default::default()
            },
        ),
        Message::Replace {
            owner: account,
            id: order,
            new_id: new_order,
            price,
            quantity,
        } => {
            let replace = ReplaceOrder {
                order,
                new_order,
                price,
                quantity,
                account,
                spare: 0,
            };
            Event::new(2, 0, 0, &replace)
        }
    }
}

impl Subject for Whole {
    #[inline]
    fn play(&mut self, timed: &Timed) {
        // Writing the event is part of it, as a gateway does it.
        let event = event_of(timed.message);
        self.exchange
            .handle(&event, self.position, &mut self.out)
            .unwrap();
        self.position += 1;
    }

    fn proof(&self) -> u64 {
        self.exchange.trades()
    }

    fn live(&self) -> u32 {
        self.exchange.live_orders()
    }
}

struct Lobster {
    book: lobster::OrderBook,
    trades: u64,
}

impl Lobster {
    fn limit(&mut self, id: u64, side: Side, price: i64, qty: u64) {
        let side = if side == Side::Buy {
            lobster::Side::Bid
        } else {
            lobster::Side::Ask
        };
        let price = u64::try_from(price).unwrap();
        let order = lobster::OrderType::Limit {
            id: u128::from(id),
            side,
            qty,
            price,
        };
        match self.book.execute(order) {
            lobster::OrderEvent::Filled { fills, .. }
            | lobster::OrderEvent::PartiallyFilled { fills, .. } => {
                self.trades += u64::try_from(fills.len()).unwrap();
            }
            _ => {}
        }
    }

    fn cancel(&mut self, id: u64) {
        black_box(
            self.book
                .execute(lobster::OrderType::Cancel { id: u128::from(id) }),
        );
    }
}

impl Subject for Lobster {
    #[inline]
    fn play(&mut self, timed: &Timed) {
        match timed.message {
            Message::New {
                id,
                side,
                price,
                quantity,
                ..
            } => self.limit(id, side, price, quantity),
            Message::Cancel { id, .. } => self.cancel(id),
            Message::Reduce { id, .. } => {
                self.cancel(id);
                self.limit(id, timed.side, timed.price, timed.left);
            }
            Message::Replace {
                id,
                new_id,
                price,
                quantity,
                ..
            } => {
                self.cancel(id);
                self.limit(new_id, timed.side, price, quantity);
            }
        }
    }

    fn proof(&self) -> u64 {
        self.trades
    }

    fn live(&self) -> u32 {
        0
    }
}

fn subject(name: &str) -> Box<dyn Runs> {
    match name {
        "lockstep book" => Box::new(Ours {
            book: OrderBook::new(CAPACITY),
            trades: 0,
        }),
        "lockstep exchange" => Box::new(Whole::new()),
        _ => Box::new(Lobster {
            book: lobster::OrderBook::new(CAPACITY.orders as usize, 16, false),
            trades: 0,
        }),
    }
}

/// A whole run, so that the call for each message is not a virtual one.
trait Runs {
    fn run(&mut self, messages: &[Timed]) -> f64;
    fn run_timed(&mut self, messages: &[Timed], floor: u64, classes: &mut [Histogram<u64>]);
    fn trades(&self) -> u64;
    fn orders(&self) -> u32;
}

impl<S: Subject> Runs for S {
    /// Messages a second, in millions.
    fn run(&mut self, messages: &[Timed]) -> f64 {
        let start = Instant::now();
        for timed in messages {
            self.play(timed);
        }
        let seconds = start.elapsed().as_secs_f64();
        f64::from(u32::try_from(messages.len()).unwrap()) / seconds / 1e6
    }

    fn run_timed(&mut self, messages: &[Timed], floor: u64, classes: &mut [Histogram<u64>]) {
        for timed in messages {
            let start = Instant::now();
            self.play(timed);
            let took = u64::try_from(start.elapsed().as_nanos()).unwrap();
            classes[timed.class].saturating_record(took.saturating_sub(floor).max(1));
        }
    }

    fn trades(&self) -> u64 {
        self.proof()
    }

    fn orders(&self) -> u32 {
        self.live()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000, 3).unwrap()
}

/// What two readings of the clock cost: median and p99.9.
fn timer() -> (u64, u64) {
    let mut cost = histogram();
    for _ in 0..1_000_000 {
        let start = Instant::now();
        let took = u64::try_from(black_box(start).elapsed().as_nanos()).unwrap();
        cost.saturating_record(took.max(1));
    }
    (cost.value_at_quantile(0.5), cost.value_at_quantile(0.999))
}

/// What the whole state costs: hash, snapshot, restore; and what making flow costs.
fn whole_state(warming: &[Timed], measured: &[Timed]) -> serde_json::Value {
    let mut whole = Whole::new();
    whole.run(warming);
    whole.run(measured);
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let hash = whole.exchange.state_hash();
    let hash_ms = milliseconds(start);
    let mut bytes = Vec::new();
    let start = Instant::now();
    whole.exchange.snapshot(&mut bytes);
    let snapshot_ms = milliseconds(start);
    let start = Instant::now();
    let restored = Exchange::restore(&bytes).unwrap();
    let restore_ms = milliseconds(start);
    assert_eq!(restored.state_hash(), hash);
    let (orders, size) = (whole.exchange.live_orders(), bytes.len());
    println!(
        "state of {orders} orders, {size} bytes: hash {hash_ms:.2} ms, snapshot {snapshot_ms:.2} \
         ms, restore with invariants {restore_ms:.2} ms"
    );
    let flow = Flow {
        messages: 1_000_000,
        ..Flow::default()
    };
    let start = Instant::now();
    let events = Loader::new(Generator::new(flow), Options::default()).count();
    let rate = f64::from(u32::try_from(events).unwrap()) / start.elapsed().as_secs_f64() / 1e6;
    println!("generator: {rate:.2} M events/s");
    json!({
        "orders": orders, "bytes": size, "hash_ms": hash_ms, "snapshot_ms": snapshot_ms,
        "restore_ms": restore_ms, "generator_million_per_s": rate,
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json_file = arguments
        .iter()
        .position(|a| a == "--json")
        .map(|at| &arguments[at + 1]);
    let (count, rounds) = if quick { (200_000, 3) } else { (2_000_000, 7) };
    let depth = arguments
        .iter()
        .position(|argument| argument == "--depth")
        .map_or(20_000, |at| arguments[at + 1].parse().unwrap());
    let (messages, warm) = mix(count, depth, 42);
    let (warming, measured) = messages.split_at(warm);
    let mut figures = Vec::new();
    let names = ["lockstep book", "lobster 0.7", "lockstep exchange"];
    let mut rates = vec![Vec::new(); names.len()];
    let mut trades = Vec::new();
    let mut live = (0, 0);
    for _ in 0..rounds {
        for (at, name) in names.iter().enumerate() {
            let mut subject = subject(name);
            subject.run(warming);
            let before = subject.orders();
            rates[at].push(subject.run(measured));
            if at == 0 {
                live = (before, subject.orders());
            }
            trades.push(subject.trades());
        }
    }
    // Where a change is a cancel and a new order, the place in the queue is lost: the
    // trades of that book are a few more or fewer, and say that it did the same work.
    let alike = |&count: &u64| count.abs_diff(trades[0]) * 50 < trades[0];
    assert!(
        trades.iter().all(alike) && trades[0] == trades[2],
        "the books differ: {trades:?}"
    );
    println!(
        "{count} messages, {rounds} rounds in turns, {} trades, book of {} orders at the start, {} at the end",
        trades[0], live.0, live.1
    );
    for (name, rates) in names.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (median, low, high) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
        println!("{name:<20} {median:>7.2} M messages/s (min {low:.2}, max {high:.2})");
        figures.push(json!({ "subject": name, "million_per_s": median, "min": low, "max": high }));
    }
    let (floor, floor_tail) = timer();
    println!("timer: median {floor} ns (subtracted), p99.9 {floor_tail} ns");
    let mut classes_json = Vec::new();
    for name in ["lockstep book", "lockstep exchange"] {
        let mut classes = vec![histogram(); CLASSES.len()];
        for _ in 0..rounds.min(3) {
            let mut subject = subject(name);
            subject.run(warming);
            subject.run_timed(measured, floor, &mut classes);
        }
        println!("{name}, ns:             count     p50     p99   p99.9  p99.99");
        for (class, times) in CLASSES.iter().zip(&classes) {
            let [p50, p99, p999, p9999] =
                [0.5, 0.99, 0.999, 0.9999].map(|quantile| times.value_at_quantile(quantile));
            println!(
                "  {class:<20} {:>12} {p50:>7} {p99:>7} {p999:>7} {p9999:>7}",
                times.len()
            );
            classes_json.push(json!({
                "subject": name, "class": class, "count": times.len(),
                "p50_ns": p50, "p99_ns": p99, "p99_9_ns": p999, "p99_99_ns": p9999,
            }));
        }
    }
    let state = whole_state(warming, measured);
    if let Some(file) = json_file {
        let all = json!({
            "bench": "book", "orders_before": live.0, "orders_after": live.1, "messages": count, "rounds": rounds, "throughput": figures,
            "timer_ns": floor, "timer_p99_9_ns": floor_tail, "classes": classes_json, "state": state,
        });
        std::fs::write(file, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }
}

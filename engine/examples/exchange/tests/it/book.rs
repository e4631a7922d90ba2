//! The order book beside the model, and its rules one by one.

use lockstep_exchange::book::{CancelReason, Capacity, OrderBook, Place, Refusal, Report, Reports};
use lockstep_exchange::event::{OrderType, SelfTrade, Side, TimeInForce};
use proptest::prelude::*;

use crate::Random;
use crate::model::ModelBook;

#[derive(Clone, Copy, Debug)]
enum Action {
    Place(Place),
    Cancel(u32, u64),
    Reduce(u32, u64, u64),
    Replace(u32, u64, u64, i64, u64),
    CancelAll(u32, Option<Side>),
    Expire(u64),
}

const OWNERS: u32 = 4;
const CAPACITY: Capacity = Capacity {
    orders: 4_096,
    owners: OWNERS,
};

fn compare(actions: &[Action], check_every: usize) {
    let mut book = OrderBook::new(CAPACITY);
    let mut model = ModelBook::default();
    let mut reports: Vec<Report> = Vec::new();
    for (step, action) in actions.iter().enumerate() {
        reports.clear();
        model.reports.clear();
        let mut sink = |report: &Report| reports.push(*report);
        match *action {
            Action::Place(place) => {
                assert_eq!(book.place(&place, &mut sink), model.place(&place), "{step}");
            }
            Action::Cancel(owner, id) => {
                assert_eq!(
                    book.cancel(owner, id, &mut sink),
                    model.cancel(owner, id),
                    "{step}"
                );
            }
            Action::Reduce(owner, id, by) => {
                let expected = model.reduce(owner, id, by);
                assert_eq!(book.reduce(owner, id, by, &mut sink), expected, "{step}");
            }
            Action::Replace(owner, id, new_id, price, quantity) => {
                let expected = model.replace(owner, id, new_id, price, quantity);
                let found = book.replace(owner, id, new_id, price, quantity, &mut sink);
                assert_eq!(found, expected, "{step}");
            }
            Action::CancelAll(owner, side) => {
                let expected = model.cancel_all(owner, side);
                assert_eq!(book.cancel_all(owner, side, &mut sink), expected, "{step}");
            }
            Action::Expire(time) => {
                assert_eq!(book.expire(time, &mut sink), model.expire(time), "{step}");
            }
        }
        assert_eq!(reports, model.reports, "step {step}, {action:?}");
        if step % check_every == 0 {
            same(&book, &model);
        }
    }
    same(&book, &model);
}

fn same(book: &OrderBook, model: &ModelBook) {
    assert_eq!(book.check(), Ok(()));
    for side in [Side::Buy, Side::Sell] {
        assert_eq!(book.depth(side).collect::<Vec<_>>(), model.depth(side));
        let queue: Vec<_> = book
            .orders(side)
            .map(|o| (o.owner, o.id, o.quantity))
            .collect();
        assert_eq!(queue, model.queue(side));
    }
}

/// An action of few owners, numbers and prices, so that things meet.
fn action(random: &mut Random, prices: u64, ids: u64) -> Action {
    let owner = random.below_u32(OWNERS);
    let id = random.below(ids);
    let price = 1_000 + i64::try_from(random.below(prices)).unwrap();
    let quantity = random.below(12);
    let side = if random.below(2) == 0 {
        Side::Buy
    } else {
        Side::Sell
    };
    match random.below(20) {
        0..=10 => {
            let self_trade = SelfTrade::from_byte(u8::try_from(random.below(4)).unwrap()).unwrap();
            let mut place = Place::limit(id, side, price, quantity).owner(owner);
            place.tag = random.below_u32(1_000);
            place.self_trade = self_trade;
            match random.below(10) {
                0 => place = place.ioc(),
                1 => place = place.fok(),
                2 => place = place.post_only(),
                3 => place = place.until(random.below(100)),
                4 => {
                    place.order_type = OrderType::Market;
                    place.time_in_force = TimeInForce::ImmediateOrCancel;
                }
                5 => {
                    place.order_type = OrderType::Market;
                    place.time_in_force = TimeInForce::FillOrKill;
                }
                _ => {}
            }
            Action::Place(place)
        }
        11..=13 => Action::Cancel(owner, id),
        14 => Action::Reduce(owner, id, random.below(8)),
        15..=17 => Action::Replace(owner, id, random.below(ids), price, quantity),
        18 if random.below(8) == 0 => {
            Action::CancelAll(owner, [None, Some(side)][usize::from(random.below(2) == 0)])
        }
        18 => Action::Cancel(owner, id),
        _ => Action::Expire(random.below(100)),
    }
}

#[test]
fn a_hundred_thousand_random_actions_go_as_in_the_model() {
    for (seed, prices, ids) in [(1, 6, 40), (2, 30, 200), (3, 400, 60), (4, 3, 20)] {
        let mut random = Random::new(seed);
        let actions: Vec<Action> = (0..25_000)
            .map(|_| action(&mut random, prices, ids))
            .collect();
        compare(&actions, 50);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_actions_go_as_in_the_model(
        seed in any::<u64>(), prices in 1_u64..50, ids in 1_u64..60, count in 1_usize..300,
    ) {
        let mut random = Random::new(seed);
        let actions: Vec<Action> = (0..count).map(|_| action(&mut random, prices, ids)).collect();
        compare(&actions, 1);
    }
}

fn quiet() -> impl Reports {
    |_: &Report| {}
}

fn executed(reports: &[Report]) -> Vec<(u64, i64, u64)> {
    let trade = |report: &Report| match report {
        Report::Executed(trade) => Some((trade.maker.id, trade.price, trade.quantity)),
        _ => None,
    };
    reports.iter().filter_map(trade).collect()
}

#[test]
fn at_one_price_who_came_first_trades_first() {
    let mut book = OrderBook::new(CAPACITY);
    let mut reports = Vec::new();
    for id in 1..=3 {
        book.place(&Place::limit(id, Side::Buy, 10, 2), &mut quiet())
            .unwrap();
    }
    let mut sink = |report: &Report| reports.push(*report);
    book.place(&Place::limit(9, Side::Sell, 10, 5).owner(1), &mut sink)
        .unwrap();
    assert_eq!(executed(&reports), [(1, 10, 2), (2, 10, 2), (3, 10, 1)]);
}

#[test]
fn a_fill_or_kill_that_finds_too_little_touches_nothing() {
    let mut book = OrderBook::new(CAPACITY);
    book.place(&Place::limit(1, Side::Sell, 10, 2), &mut quiet())
        .unwrap();
    book.place(&Place::limit(2, Side::Sell, 11, 2), &mut quiet())
        .unwrap();
    let mut reports = Vec::new();
    let mut sink = |report: &Report| reports.push(*report);
    book.place(&Place::limit(3, Side::Buy, 10, 3).owner(1).fok(), &mut sink)
        .unwrap();
    let [Report::Accepted(_), Report::Canceled(canceled)] = reports[..] else {
        panic!()
    };
    assert_eq!(canceled.reason, CancelReason::NotFilledWhole);
    assert_eq!(book.len(), 2);
}

#[test]
fn a_refused_action_reports_nothing_and_changes_nothing() {
    let mut book = OrderBook::new(Capacity {
        orders: 2,
        owners: 2,
    });
    book.place(&Place::limit(1, Side::Sell, 10, 2), &mut quiet())
        .unwrap();
    book.place(&Place::limit(2, Side::Buy, 8, 2), &mut quiet())
        .unwrap();
    let mut none = |report: &Report| panic!("{report:?}");
    let place = Place::limit(3, Side::Buy, 9, 1);
    let refusals = [
        book.place(&place, &mut none),
        book.place(&Place::limit(1, Side::Buy, 9, 1), &mut none),
        book.place(&Place::limit(3, Side::Buy, 9, 0), &mut none),
        book.place(&place.owner(2), &mut none),
        book.place(
            &Place::limit(3, Side::Buy, 10, 1).post_only().ioc(),
            &mut none,
        ),
        book.cancel(1, 1, &mut none),
        book.replace(0, 1, 2, 10, 1, &mut none),
    ];
    let expected = [
        Refusal::Full(2),
        Refusal::DuplicateOrder { owner: 0, id: 1 },
        Refusal::QuantityInvalid(0),
        Refusal::OwnerOutOfRange {
            owner: 2,
            owners: 2,
        },
        Refusal::WouldTrade(10),
        Refusal::UnknownOrder { owner: 1, id: 1 },
        Refusal::DuplicateOrder { owner: 0, id: 2 },
    ];
    assert_eq!(refusals, expected.map(Err));
    assert_eq!(book.check(), Ok(()));
    assert_eq!(book.len(), 2);
}

#[test]
fn a_full_book_still_takes_orders_that_do_not_rest() {
    let mut book = OrderBook::new(Capacity {
        orders: 1,
        owners: 2,
    });
    book.place(&Place::limit(1, Side::Sell, 10, 2), &mut quiet())
        .unwrap();
    book.place(&Place::market(2, Side::Buy, 1).owner(1), &mut quiet())
        .unwrap();
    assert_eq!(book.best(Side::Sell).map(|best| best.quantity), Some(1));
}

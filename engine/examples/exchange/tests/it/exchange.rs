//! Random events, refusals, invariants, snapshots.

use std::collections::BTreeMap;

use lockstep_exchange::event::{
    AddAccount, AddInstrument, AdjustBalance, CancelOrder, Event, FLAG_POST_ONLY,
    FLAG_SELF_TRADE_SHIFT, InstrumentState, MassCancel, NewOrder, ReduceOrder, ReplaceOrder,
    ResumeAccount, SessionClose, SessionOpen, SetInstrumentState, SetPriceCollar, SetRiskLimit,
    SuspendAccount, Tick,
};
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::output::{Discard, Output, OutputView};
use lockstep_exchange::reject::RejectCode;
use lockstep_exchange::state::RestoreError;

use crate::Random;

const ACCOUNTS: u32 = 6;
const INSTRUMENTS: u32 = 3;
const BOUNDS: Bounds = Bounds {
    orders: 200,
    accounts: 8,
    instruments: 4,
    holdings: 20,
    sessions: 4,
};

/// An event of few accounts, instruments, numbers and prices, so that things meet; at
/// times senseless, so that every rule has something to refuse.
pub(crate) fn random_event(random: &mut Random, time: u64) -> Event {
    let account = random.below_u32(ACCOUNTS + 1);
    let instrument = random.below_u32(INSTRUMENTS + 1);
    let session = if random.below(5) == 0 {
        random.below(6)
    } else {
        0
    };
    let request = random.below_u32(1_000_000);
    let order = random.below(30);
    let new = |body: &_| Event::new(time, session, request, body);
    let byte = |number: u64| u8::try_from(number).unwrap();
    let mut event = match random.below(100) {
        0..=54 => {
            let market = random.below(12) == 0;
            let in_force = [1, 1, 1, 1, 2, 3, 4, 5][usize::from(byte(random.below(8)))];
            new(&NewOrder {
                price: if market {
                    0
                } else {
                    95 + i64::try_from(random.below(10)).unwrap()
                },
                quantity: random.below(20),
                order,
                instrument,
                account,
                side: 1 + byte(random.below(2)),
                order_type: if market { 2 } else { 1 },
                time_in_force: if market { 3 } else { in_force },
                flags: (byte(random.below(4)) << FLAG_SELF_TRADE_SHIFT)
                    | if random.below(6) == 0 {
                        FLAG_POST_ONLY
                    } else {
                        0
                    },
                lifetime_ms: if in_force == 5 && !market {
                    1 + random.below_u32(50)
                } else {
                    0
                },
            })
        }
        55..=69 => Event::new(
            time,
            session,
            request,
            &CancelOrder {
                order,
                account,
                ..Default::default()
            },
        ),
        70..=77 => Event::new(
            time,
            session,
            request,
            &ReplaceOrder {
                order,
                new_order: random.below(30),
                price: 95 + i64::try_from(random.below(10)).unwrap(),
                quantity: random.below(20),
                account,
                spare: 0,
            },
        ),
        78..=82 => Event::new(
            time,
            session,
            request,
            &ReduceOrder {
                order,
                by: random.below(10),
                account,
                ..Default::default()
            },
        ),
        83 => Event::new(
            time,
            session,
            request,
            &MassCancel {
                account,
                instrument: if random.below(2) == 0 { instrument } else { 0 },
                side: byte(random.below(3)),
                scope: byte(random.below(2)),
                ..Default::default()
            },
        ),
        84 => Event::new(
            time,
            session,
            request,
            &AddAccount {
                account,
                ..Default::default()
            },
        ),
        85..=87 => Event::new(
            time,
            session,
            request,
            &AdjustBalance {
                amount: i64::try_from(random.below(4_000)).unwrap() - 1_500,
                transaction: time,
                account,
                ..Default::default()
            },
        ),
        88 if random.below(8) == 0 => Event::new(
            time,
            session,
            request,
            &SuspendAccount {
                account,
                ..Default::default()
            },
        ),
        88 => Event::new(
            time,
            session,
            request,
            &ResumeAccount {
                account,
                ..Default::default()
            },
        ),
        89 => Event::new(
            time,
            session,
            request,
            &SetRiskLimit {
                quantity_max: random.below(40),
                notional_max: i64::try_from(random.below(6_000)).unwrap() - 10,
                position_max: i64::try_from(random.below(300)).unwrap(),
                orders_per_second_max: random.below_u32(100),
                account,
                spare: 0,
            },
        ),
        90 => Event::new(
            time,
            session,
            request,
            &AddInstrument {
                symbol: *b"SYMBOL  ",
                tick: 1 + i64::try_from(random.below(2)).unwrap(),
                lot: 1,
                instrument,
                maker_fee_ppm: random.below_u32(2_000),
                taker_fee_ppm: random.below_u32(30_000),
                spare: 0,
            },
        ),
        91..=92 => Event::new(
            time,
            session,
            request,
            &SetInstrumentState {
                instrument,
                state: [1, 1, 1, 1, 1, 2, 3][usize::from(byte(random.below(7)))],
                ..Default::default()
            },
        ),
        93 => Event::new(
            time,
            session,
            request,
            &SetPriceCollar {
                low: 1 + i64::try_from(random.below(97)).unwrap(),
                high: 100 + i64::try_from(random.below(10)).unwrap(),
                instrument,
                ..Default::default()
            },
        ),
        94 => Event::new(
            time,
            random.below(6),
            request,
            &SessionOpen {
                account,
                cancel_on_close: byte(random.below(2)),
                ..Default::default()
            },
        ),
        95 => Event::new(time, random.below(6), request, &SessionClose::default()),
        _ => Event::new(time, 0, request, &Tick::default()),
    };
    if random.below(100) == 0 {
        // A damaged event: any byte of it, anything.
        let at = usize::from(byte(random.below(64)));
        bytemuck::bytes_of_mut(&mut event)[at] = byte(random.below(256));
    }
    event
}

fn seeded(exchange: &mut Exchange) {
    let mut transaction = 0;
    for account in 0..ACCOUNTS {
        for body in [
            Event::new(
                1,
                0,
                1,
                &AddAccount {
                    account,
                    ..Default::default()
                },
            ),
            Event::new(
                1,
                0,
                1,
                &AdjustBalance {
                    amount: 20_000,
                    transaction: 1,
                    account,
                    ..Default::default()
                },
            ),
        ] {
            exchange
                .handle(&body, transaction, &mut Discard::default())
                .unwrap();
            transaction += 1;
        }
    }
    for instrument in 0..INSTRUMENTS {
        for body in [
            Event::new(
                1,
                0,
                1,
                &AddInstrument {
                    tick: 1,
                    lot: 1,
                    instrument,
                    maker_fee_ppm: 100,
                    taker_fee_ppm: 2_500,
                    ..Default::default()
                },
            ),
            Event::new(
                1,
                0,
                1,
                &SetInstrumentState {
                    instrument,
                    state: InstrumentState::Open as u8,
                    ..Default::default()
                },
            ),
        ] {
            exchange
                .handle(&body, transaction, &mut Discard::default())
                .unwrap();
            transaction += 1;
        }
    }
}

/// How many random events in all: 200 000, or what `LOCKSTEP_EVENTS` says.
fn events_wanted() -> u64 {
    std::env::var("LOCKSTEP_EVENTS").map_or(200_000, |text| text.parse().unwrap())
}

/// The slice of a campaign: `LOCKSTEP_EVENTS=10000000 cargo test --release
/// -p lockstep-exchange --test it refusals_change_nothing -- --nocapture`
#[test]
fn random_events_keep_the_invariants_and_refusals_change_nothing() {
    let events = events_wanted();
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut exchange = Exchange::new(BOUNDS);
        if seed > 0 {
            seeded(&mut exchange);
        }
        let mut out: Vec<Output> = Vec::new();
        let mut hash = exchange.state_hash();
        for position in 0..events / 8 {
            let event = random_event(&mut random, 2 + position * 1_000_000);
            out.clear();
            let verdict = exchange.validate(&event);
            let handled = exchange.handle(&event, position, &mut out);
            assert_eq!(verdict, handled, "validate says what handle does");
            let after = exchange.state_hash();
            if let Err(reject) = verdict {
                assert_eq!(hash, after, "{reject} changed the state: {event:?}");
                let [output] = &out[..] else {
                    panic!("a refusal is one output")
                };
                let Some(OutputView::Rejected(rejected)) = output.view() else {
                    panic!()
                };
                assert_eq!(rejected.code, reject.code as u16);
                *codes.entry(rejected.code).or_default() += 1;
            } else {
                exchange.invariants().unwrap_or_else(|broken| {
                    panic!("seed {seed}, position {position}, {event:?}: {broken}")
                });
            }
            for (index, output) in out.iter().enumerate() {
                assert_eq!(output.header.index as usize, index);
                assert_eq!(output.header.position, position);
                assert!(output.view().is_some());
            }
            hash = after;
        }
        assert!(
            seed == 0 || exchange.trades() > 100,
            "{} trades",
            exchange.trades()
        );
    }
    let never: Vec<&str> = RejectCode::ALL
        .iter()
        .filter(|&&code| !codes.contains_key(&(code as u16)))
        .map(|code| code.name())
        .collect();
    // Reached by named tests below: the random events hardly come so far.
    const RARE: [&str; 4] = [
        "AmountTooLarge",
        "InstrumentOutOfRange",
        "InstrumentInvalid",
        "BookFull",
    ];
    assert!(
        events < 200_000 || never.iter().all(|name| RARE.contains(name)),
        "{never:?} of {codes:?}"
    );
    let refused: u64 = codes.values().sum();
    println!(
        "{events} events, {refused} refusals with {} codes: the hash stood still",
        codes.len()
    );
}

#[test]
fn a_million_events_give_one_hash_and_keep_the_invariants() {
    let run = |check_every: u64| {
        let mut random = Random::new(99);
        let mut exchange = Exchange::new(BOUNDS);
        seeded(&mut exchange);
        let mut out = Discard::default();
        for position in 0..1_000_000 {
            let event = random_event(&mut random, 2 + position * 100_000);
            let _ = exchange.handle(&event, position, &mut out);
            if position % check_every == 0 {
                exchange.invariants().unwrap();
            }
        }
        (exchange.state_hash(), exchange.trades(), out.outputs)
    };
    assert_eq!(run(1_000), run(500_000));
}

#[test]
fn a_restored_exchange_goes_on_as_the_saved_one() {
    for seed in 0..20 {
        let mut random = Random::new(1_000 + seed);
        let mut live = Exchange::new(BOUNDS);
        seeded(&mut live);
        for position in 0..2_000 {
            let event = random_event(&mut random, 2 + position * 1_000_000);
            let _ = live.handle(&event, position, &mut Discard::default());
        }
        let mut bytes = Vec::new();
        live.snapshot(&mut bytes);
        let mut restored = Exchange::restore(&bytes).unwrap();
        assert_eq!(restored.state_hash(), live.state_hash());
        let (mut of_live, mut of_restored) = (Vec::new(), Vec::new());
        for position in 2_000..6_000 {
            let event = random_event(&mut random, 2 + position * 1_000_000);
            let _ = live.handle(&event, position, &mut of_live);
            let _ = restored.handle(&event, position, &mut of_restored);
        }
        assert!(of_live == of_restored, "seed {seed}: the outputs differ");
        assert_eq!(restored.state_hash(), live.state_hash());
    }
}

#[test]
fn a_damaged_snapshot_is_refused_or_another_consistent_state() {
    let mut random = Random::new(5);
    let mut exchange = Exchange::new(BOUNDS);
    seeded(&mut exchange);
    for position in 0..3_000 {
        let event = random_event(&mut random, 2 + position * 1_000_000);
        let _ = exchange.handle(&event, position, &mut Discard::default());
    }
    let mut good = Vec::new();
    exchange.snapshot(&mut good);
    for length in 0..good.len() {
        assert!(
            Exchange::restore(&good[..length]).is_err(),
            "cut at {length}"
        );
    }
    let refused = Exchange::restore(b"LOCKEXCH\x09\0\0\0rest").unwrap_err();
    assert_eq!(refused, RestoreError::Version { found: 9 });
    // Every byte behind the bounds (a greater bound is as good as a smaller one).
    for at in 32..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << random.below(8);
        if let Ok(other) = Exchange::restore(&bad) {
            assert_eq!(other.invariants(), Ok(()));
            assert_ne!(other.state_hash(), exchange.state_hash());
        }
    }
}

/// Two accounts with money, one open instrument without fees.
fn small() -> Exchange {
    let mut exchange = Exchange::new(Bounds {
        orders: 2,
        ..Bounds::small()
    });
    seeded(&mut exchange);
    exchange
}

fn limit(account: u32, order: u64, side: u8, price: i64, quantity: u64) -> NewOrder {
    NewOrder {
        price,
        quantity,
        order,
        instrument: 0,
        account,
        side,
        order_type: 1,
        time_in_force: 1,
        ..Default::default()
    }
}

fn code_of(exchange: &mut Exchange, event: &Event) -> Option<RejectCode> {
    exchange
        .handle(event, 0, &mut Discard::default())
        .err()
        .map(|reject| reject.code)
}

#[test]
fn the_rules_that_random_events_do_not_reach() {
    let mut exchange = small();
    let pay = |amount, transaction| {
        Event::new(
            1,
            0,
            1,
            &AdjustBalance {
                amount,
                transaction,
                account: 0,
                ..Default::default()
            },
        )
    };
    for amount in [0, i64::MAX, i64::MIN] {
        let code = code_of(&mut exchange, &pay(amount, 9));
        assert!(matches!(
            code,
            Some(RejectCode::AmountTooLarge | RejectCode::BalanceTooSmall)
        ));
    }
    assert_eq!(
        code_of(&mut exchange, &pay(0, 9)),
        Some(RejectCode::AmountTooLarge)
    );
    let bad = AddInstrument {
        tick: 0,
        lot: 1,
        instrument: 9,
        ..Default::default()
    };
    let code = code_of(&mut exchange, &Event::new(1, 0, 1, &bad));
    assert_eq!(code, Some(RejectCode::InstrumentInvalid));
    let far = AddInstrument {
        tick: 1,
        lot: 1,
        instrument: 64,
        ..Default::default()
    };
    let code = code_of(&mut exchange, &Event::new(1, 0, 1, &far));
    assert_eq!(code, Some(RejectCode::InstrumentOutOfRange));
    for order in 0..2 {
        let event = Event::new(1, 0, 1, &limit(0, order, 1, 100, 1));
        assert_eq!(code_of(&mut exchange, &event), None);
    }
    let code = code_of(&mut exchange, &Event::new(1, 0, 1, &limit(0, 2, 1, 100, 1)));
    assert_eq!(code, Some(RejectCode::BookFull));
}

#[test]
fn a_buyer_cannot_spend_what_it_has_reserved_elsewhere() {
    let mut exchange = small();
    assert_eq!(
        code_of(
            &mut exchange,
            &Event::new(1, 0, 1, &limit(0, 1, 1, 100, 150))
        ),
        None
    );
    // 100 × 150 and the bound of the fee, 0.25 % of it.
    assert_eq!(exchange.balance(0).map(|b| b.reserved), Some(15_038));
    let code = code_of(
        &mut exchange,
        &Event::new(1, 0, 1, &limit(0, 2, 1, 100, 50)),
    );
    assert_eq!(code, Some(RejectCode::BalanceTooSmall));
    let cancel = CancelOrder {
        order: 1,
        account: 0,
        ..Default::default()
    };
    assert_eq!(code_of(&mut exchange, &Event::new(1, 0, 1, &cancel)), None);
    assert_eq!(exchange.balance(0).map(|b| b.reserved), Some(0));
}

#[test]
fn trades_settle_at_the_makers_price_with_fees() {
    let mut exchange = small();
    assert_eq!(
        code_of(
            &mut exchange,
            &Event::new(1, 0, 1, &limit(1, 1, 2, 90, 100))
        ),
        None
    );
    assert_eq!(
        code_of(
            &mut exchange,
            &Event::new(1, 0, 1, &limit(0, 1, 1, 95, 100))
        ),
        None
    );
    // 9,000 changes hands; maker's fee 0.01 % = 0, taker's 0.25 % = 22.
    assert_eq!(
        exchange.balance(1).map(|b| (b.cash, b.reserved)),
        Some((29_000, 0))
    );
    assert_eq!(
        exchange.balance(0).map(|b| (b.cash, b.reserved)),
        Some((10_978, 0))
    );
    assert_eq!(exchange.fees(), 22);
    assert_eq!(exchange.position(0, 0).map(|p| p.position), Some(100));
    assert_eq!(exchange.position(1, 0).map(|p| p.position), Some(-100));
    exchange.invariants().unwrap();
}

#[test]
fn a_session_acts_for_its_own_account_and_takes_its_orders_along() {
    let mut exchange = small();
    let open = SessionOpen {
        account: 3,
        cancel_on_close: 1,
        ..Default::default()
    };
    assert_eq!(code_of(&mut exchange, &Event::new(1, 77, 1, &open)), None);
    let foreign = Event::new(1, 77, 2, &limit(2, 1, 1, 90, 1));
    assert_eq!(
        code_of(&mut exchange, &foreign),
        Some(RejectCode::NotYourAccount)
    );
    assert_eq!(
        code_of(&mut exchange, &Event::new(1, 77, 3, &limit(3, 1, 1, 90, 1))),
        None
    );
    assert_eq!(exchange.live_orders(), 1);
    let close = Event::new(1, 77, 4, &SessionClose::default());
    assert_eq!(code_of(&mut exchange, &close), None);
    assert_eq!(exchange.live_orders(), 0);
    assert_eq!(
        code_of(&mut exchange, &close),
        Some(RejectCode::SessionUnknown)
    );
}

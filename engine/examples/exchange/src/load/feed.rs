//! Where a format writes what its rows mean.

use std::collections::VecDeque;

use super::{Options, Reason, Summary};
use crate::event::{
    AddAccount, AddInstrument, AdjustBalance, Body, CancelOrder, Event, InstrumentState, NewOrder,
    ReduceOrder, SetInstrumentState, Side, TimeInForce,
};
use crate::price::MONEY_MAX;

/// What a format writes its events into.
#[derive(Debug)]
pub struct Feed {
    pub(super) options: Options,
    pub(super) summary: Summary,
    pub(super) waiting: VecDeque<Event>,
    request: u32,
    takers: u64,
}

/// Orders of account 0 have numbers from here on; none of them rests.
const TAKER_ORDERS: u64 = 1 << 63;

impl Feed {
    pub(super) fn new(options: Options) -> Self {
        let summary = Summary::default();
        Self {
            options,
            summary,
            waiting: VecDeque::new(),
            request: 0,
            takers: 0,
        }
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn push<B: Body>(&mut self, time: u64, body: &B) {
        self.request = self.request.wrapping_add(1);
        self.waiting
            .push_back(Event::new(time, 0, self.request, body));
        self.summary.events += 1;
    }

    pub(crate) fn skip(&mut self, reason: Reason) {
        *self.summary.skipped.entry(reason).or_default() += 1;
    }

    pub(crate) const fn row(&mut self) {
        self.summary.rows += 1;
    }

    /// Opens the accounts, each with an equal share of all the money there may be.
    pub(crate) fn open_accounts(&mut self, time: u64) {
        let amount = MONEY_MAX / (i64::from(self.options.accounts) + 1);
        for account in 0..=self.options.accounts {
            self.push(
                time,
                &AddAccount {
                    account,
                    ..Default::default()
                },
            );
            let money = AdjustBalance {
                amount,
                transaction: 1,
                account,
                ..Default::default()
            };
            self.push(time, &money);
        }
    }

    pub(crate) fn add_instrument(&mut self, time: u64, instrument: u32, symbol: [u8; 8]) {
        let added = AddInstrument {
            symbol,
            tick: 1,
            lot: 1,
            instrument,
            ..Default::default()
        };
        self.push(time, &added);
    }

    pub(crate) fn set_state(&mut self, time: u64, instrument: u32, state: InstrumentState) {
        let state = state as u8;
        self.push(
            time,
            &SetInstrumentState {
                instrument,
                state,
                ..Default::default()
            },
        );
    }

    /// The account of an order that the file names by number.
    pub(crate) fn account_of(&self, order: u64) -> u32 {
        let mixed = (order ^ (order >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let account = mixed % u64::from(self.options.accounts.max(1));
        u32::try_from(account).expect("less than a 32-bit number of accounts") + 1
    }

    /// Takes what an execution took: an order of account 0 from the other side.
    pub(crate) fn take(
        &mut self,
        time: u64,
        instrument: u32,
        resting: Side,
        price: i64,
        quantity: u64,
    ) {
        self.takers += 1;
        let order = TAKER_ORDERS | self.takers;
        let ioc = NewOrder::limit(resting.opposite(), TimeInForce::ImmediateOrCancel);
        self.push(
            time,
            &NewOrder {
                price,
                quantity,
                order,
                instrument,
                account: 0,
                ..ioc
            },
        );
    }

    pub(crate) fn cancel(&mut self, time: u64, account: u32, order: u64) {
        self.push(
            time,
            &CancelOrder {
                order,
                account,
                ..Default::default()
            },
        );
    }

    pub(crate) fn reduce(&mut self, time: u64, account: u32, order: u64, by: u64) {
        self.push(
            time,
            &ReduceOrder {
                order,
                by,
                account,
                ..Default::default()
            },
        );
    }
}

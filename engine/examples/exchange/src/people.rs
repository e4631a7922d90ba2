//! People: accounts, balances, positions, limits, client sessions.
//!
//! Money is reserved when a buy order is taken, settled with each trade, released with
//! what ends unfilled. A buyer pays and gains position; a seller is paid and may go short
//! as far as its position limit lets it: positions of all accounts add up to nothing.
//!
//! ```text
//!   taken:     reserved += limit × quantity + fee bound       open += quantity
//!   trade:     reserved −= its share    cash −= price × quantity + fee    position += quantity
//!   canceled:  reserved −= its share                          open −= quantity
//! ```
//!
//! # Invariants
//!
//! * `P1` Σ cash + fees = deposited.
//! * `P2` 0 ≤ reserved ≤ cash of every account.
//! * `P3` reserved of an account = Σ reservation of its open buy orders.
//! * `P4` Σ position over the accounts of an instrument = 0.

use bytemuck::{Pod, Zeroable};

use crate::event::{SetRiskLimit, Side};
use crate::idmap::{IdMap, tag};
use crate::price::{
    MONEY_MAX, Money, NOTIONAL_MAX, POSITION_MAX, Price, QUANTITY_MAX, Quantity, fee_bound,
};

/// What an account may do.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// There is none of this number.
    Vacant = 0,
    /// It may trade.
    Active = 1,
    /// It may only cancel.
    Suspended = 2,
}

/// One account.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Account {
    pub(crate) cash: Money,
    pub(crate) reserved: Money,
    pub(crate) quantity_max: Quantity,
    pub(crate) notional_max: Money,
    pub(crate) position_max: i64,
    /// The last transaction that was applied to its balance.
    pub(crate) transaction: u64,
    /// 0: no limit.
    pub(crate) orders_per_second_max: u32,
    /// The second of the log's time in which it last sent an order, and how many since.
    pub(crate) second: u32,
    pub(crate) orders_in_second: u32,
    /// How many client sessions act for it.
    pub(crate) sessions: u16,
    pub(crate) state: u8,
    pub(crate) spare: u8,
}

const _: () = assert!(size_of::<Account>() == 64, "an account is one cache line");

const VACANT: Account = Account {
    cash: 0,
    reserved: 0,
    quantity_max: QUANTITY_MAX,
    notional_max: NOTIONAL_MAX,
    position_max: POSITION_MAX,
    transaction: 0,
    orders_per_second_max: 0,
    second: 0,
    orders_in_second: 0,
    sessions: 0,
    state: AccountState::Vacant as u8,
    spare: 0,
};

impl Account {
    #[inline]
    pub(crate) const fn free(&self) -> Money {
        self.cash - self.reserved
    }

    #[inline]
    pub(crate) const fn is_active(&self) -> bool {
        self.state == AccountState::Active as u8
    }
}

/// What an account has, and has open, in one instrument.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Holding {
    pub(crate) account: u32,
    pub(crate) instrument: u32,
    pub(crate) position: i64,
    pub(crate) open_buy: Quantity,
    pub(crate) open_sell: Quantity,
}

/// A client session and the account that it acts for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Session {
    pub(crate) session: u64,
    pub(crate) account: u32,
    pub(crate) cancel_on_close: u32,
}

/// One side's part in a trade, or in the end of an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) account: u32,
    pub(crate) holding: u32,
    pub(crate) side: Side,
    /// The order's own limit: what was reserved at.
    pub(crate) limit: Price,
    /// What was open before.
    pub(crate) before: Quantity,
    /// How much of it this is about.
    pub(crate) quantity: Quantity,
    /// The greater fee of the instrument: what was reserved with.
    pub(crate) fee_ppm_max: u32,
}

/// What has to be reserved for a buy order.
#[inline]
pub(crate) fn reservation(limit: Price, quantity: Quantity, fee_ppm_max: u32) -> Money {
    // The risk rules let no order in whose notional exceeds NOTIONAL_MAX.
    let notional = limit * quantity.cast_signed();
    notional + fee_bound(notional, fee_ppm_max)
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct People {
    accounts: Vec<Account>,
    holdings: Vec<Holding>,
    holding_map: IdMap,
    holdings_max: u32,
    sessions: Vec<Session>,
    session_map: IdMap,
    sessions_max: u32,
    pub(crate) fees: Money,
    pub(crate) deposited: Money,
}

impl People {
    pub(crate) fn new(accounts: u32, holdings: u32, sessions: u32) -> Self {
        Self {
            accounts: vec![VACANT; accounts as usize],
            holdings: Vec::with_capacity(holdings as usize),
            holding_map: IdMap::new(holdings),
            holdings_max: holdings,
            sessions: Vec::with_capacity(sessions as usize),
            session_map: IdMap::new(sessions),
            sessions_max: sessions,
            fees: 0,
            deposited: 0,
        }
    }

    pub(crate) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub(crate) fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(crate) fn account(&self, number: u32) -> Option<&Account> {
        self.accounts
            .get(number as usize)
            .filter(|account| account.state != AccountState::Vacant as u8)
    }

    pub(crate) fn account_mut(&mut self, number: u32) -> &mut Account {
        &mut self.accounts[number as usize]
    }

    pub(crate) fn add_account(&mut self, number: u32) {
        self.accounts[number as usize].state = AccountState::Active as u8;
    }

    /// Sets limits; 0 is the exchange's own bound.
    pub(crate) fn set_limits(&mut self, limit: &SetRiskLimit) {
        let account = self.account_mut(limit.account);
        account.quantity_max = if limit.quantity_max == 0 {
            QUANTITY_MAX
        } else {
            limit.quantity_max
        };
        account.notional_max = if limit.notional_max == 0 {
            NOTIONAL_MAX
        } else {
            limit.notional_max
        };
        account.position_max = if limit.position_max == 0 {
            POSITION_MAX
        } else {
            limit.position_max
        };
        account.orders_per_second_max = limit.orders_per_second_max;
    }

    /// Whether all money stays within its bound with this much more.
    pub(crate) fn can_deposit(&self, amount: Money) -> bool {
        self.deposited
            .checked_add(amount)
            .is_some_and(|sum| sum <= MONEY_MAX)
    }

    pub(crate) fn adjust(&mut self, number: u32, amount: Money, transaction: u64) {
        let account = self.account_mut(number);
        account.cash += amount;
        account.transaction = transaction;
        self.deposited += amount;
    }

    /// Counts an order in its second of the log's time.
    #[inline]
    pub(crate) fn note_order(&mut self, number: u32, time: u64) {
        let account = self.account_mut(number);
        let second = second_of(time);
        if account.second != second {
            account.second = second;
            account.orders_in_second = 0;
        }
        account.orders_in_second = account.orders_in_second.saturating_add(1);
    }

    /// How many orders the account has sent in the second of this time.
    #[inline]
    pub(crate) const fn orders_in_second(account: &Account, time: u64) -> u32 {
        if account.second == second_of(time) {
            account.orders_in_second
        } else {
            0
        }
    }

    #[inline]
    pub(crate) fn find_holding(&self, account: u32, instrument: u32) -> Option<u32> {
        self.holding_map
            .find(tag(account, u64::from(instrument)), |handle| {
                let holding = &self.holdings[handle as usize];
                holding.account == account && holding.instrument == instrument
            })
    }

    pub(crate) fn holding(&self, handle: u32) -> Option<&Holding> {
        self.holdings.get(handle as usize)
    }

    pub(crate) fn holdings_full(&self) -> bool {
        self.holdings.len() >= self.holdings_max as usize
    }

    /// The holding of an account in an instrument, added where there is none.
    ///
    /// The caller has checked that there is room.
    #[inline]
    pub(crate) fn holding_of(&mut self, account: u32, instrument: u32) -> u32 {
        if let Some(handle) = self.find_holding(account, instrument) {
            return handle;
        }
        self.push_holding(Holding {
            account,
            instrument,
            position: 0,
            open_buy: 0,
            open_sell: 0,
        })
    }

    pub(crate) fn push_holding(&mut self, holding: Holding) -> u32 {
        let handle = u32::try_from(self.holdings.len()).expect("holdings_max has 32 bits");
        self.holding_map
            .insert(tag(holding.account, u64::from(holding.instrument)), handle);
        self.holdings.push(holding);
        handle
    }

    pub(crate) fn holdings_max(&self) -> u32 {
        self.holdings_max
    }

    pub(crate) fn find_session(&self, session: u64) -> Option<&Session> {
        self.session_place(session)
            .map(|place| &self.sessions[place as usize])
    }

    fn session_place(&self, session: u64) -> Option<u32> {
        self.session_map.find(tag(0, session), |place| {
            self.sessions[place as usize].session == session
        })
    }

    pub(crate) fn sessions_full(&self) -> bool {
        self.sessions.len() >= self.sessions_max as usize
    }

    pub(crate) fn sessions_max(&self) -> u32 {
        self.sessions_max
    }

    pub(crate) fn open_session(&mut self, session: Session) {
        let place = u32::try_from(self.sessions.len()).expect("sessions_max has 32 bits");
        self.session_map.insert(tag(0, session.session), place);
        self.sessions.push(session);
        self.account_mut(session.account).sessions += 1;
    }

    /// Closes a session; the last one takes its place in the table.
    pub(crate) fn close_session(&mut self, session: u64) -> Option<Session> {
        let place = self.session_place(session)?;
        self.session_map.remove(tag(0, session), place);
        let closed = self.sessions.swap_remove(place as usize);
        if let Some(moved) = self.sessions.get(place as usize) {
            let moved = tag(0, moved.session);
            let was = u32::try_from(self.sessions.len()).expect("sessions_max has 32 bits");
            self.session_map.remove(moved, was);
            self.session_map.insert(moved, place);
        }
        self.account_mut(closed.account).sessions -= 1;
        Some(closed)
    }

    /// An order is taken: its money and quantity are set aside.
    #[inline]
    pub(crate) fn reserve(&mut self, part: &Part) {
        let holding = &mut self.holdings[part.holding as usize];
        match part.side {
            Side::Buy => {
                holding.open_buy += part.quantity;
                self.accounts[part.account as usize].reserved +=
                    reservation(part.limit, part.quantity, part.fee_ppm_max);
            }
            Side::Sell => holding.open_sell += part.quantity,
        }
    }

    /// Some of an order ends without a trade.
    #[inline]
    pub(crate) fn release(&mut self, part: &Part) {
        let holding = &mut self.holdings[part.holding as usize];
        match part.side {
            Side::Buy => {
                holding.open_buy -= part.quantity;
                self.accounts[part.account as usize].reserved -= share(part);
            }
            Side::Sell => holding.open_sell -= part.quantity,
        }
    }

    /// Some of an order trades at `price`.
    #[inline]
    pub(crate) fn settle(&mut self, part: &Part, price: Price, fee: Money) {
        let holding = &mut self.holdings[part.holding as usize];
        let account = &mut self.accounts[part.account as usize];
        let quantity = part.quantity.cast_signed();
        let notional = price * quantity;
        match part.side {
            Side::Buy => {
                holding.open_buy -= part.quantity;
                holding.position += quantity;
                account.reserved -= share(part);
                account.cash -= notional + fee;
            }
            Side::Sell => {
                holding.open_sell -= part.quantity;
                holding.position -= quantity;
                account.cash += notional - fee;
            }
        }
        self.fees += fee;
    }

    /// Puts an account back as it was in a snapshot.
    pub(crate) fn restore_account(&mut self, number: u32, account: Account) {
        self.accounts[number as usize] = Account {
            sessions: 0,
            ..account
        };
    }
}

/// What of the reservation belongs to this part: `P3` holds for every rest.
#[inline]
fn share(part: &Part) -> Money {
    let Part {
        limit,
        before,
        quantity,
        fee_ppm_max,
        ..
    } = *part;
    if fee_ppm_max == 0 {
        return limit * quantity.cast_signed();
    }
    reservation(limit, before, fee_ppm_max) - reservation(limit, before - quantity, fee_ppm_max)
}

/// The second of a time; the last one of the type, after the year 2106.
const fn second_of(time: u64) -> u32 {
    let second = time / 1_000_000_000;
    if second >= u32::MAX as u64 {
        u32::MAX
    } else {
        truncated(second)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the caller has compared with u32::MAX"
)]
const fn truncated(second: u64) -> u32 {
    second as u32
}

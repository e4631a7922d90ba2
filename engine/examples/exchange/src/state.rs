//! The state as a whole: its hash, its invariants, its snapshot.
//!
//! All three walk it in one defined order: accounts by number, holdings and sessions by
//! when they came, instruments by number, orders by owner and age, then, of each book,
//! the queues from the first that would trade. Handles and memory layout are not part of
//! it, so a restored exchange hashes as the one that was saved, whatever happened to both
//! before.
//!
//! ```text
//!   snapshot: magic 8 │ version u32 │ bounds 5×u32 │ ticked, trades, fees, deposited, arrivals
//!             │ accounts: count, (number u64, 64 B)… │ holdings: count, 32 B… │ sessions: count, 16 B…
//!             │ instruments: count, (number u64, 56 B)… │ orders: count, 56 B…
//!             │ queues: of each instrument, bids then asks: count, index into orders u64…
//! ```
//!
//! Little-endian, all counts and numbers `u64` where nothing else is said. Whoever stores
//! a snapshot adds a checksum; [`Exchange::restore`] refuses what is not consistent, but
//! cannot notice a plausible change.

use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::Xxh3;

use crate::book::Capacity;
use crate::event::{InstrumentState, SelfTrade, Side, TimeInForce};
use crate::exchange::{Bounds, Exchange};
use crate::idmap::NONE;
use crate::people::{Account, AccountState, Holding, Session, reservation};
use crate::price::{
    FEE_PPM_MAX, MONEY_MAX, NOTIONAL_MAX, POSITION_MAX, PRICE_MAX, QUANTITY_MAX, notional,
};
use crate::store::{Order, Timer};
use crate::stuff::Instrument;

const MAGIC: [u8; 8] = *b"LOCKEXCH";
/// The version of the snapshot's layout.
pub const SNAPSHOT_VERSION: u32 = 1;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "layouts are little-endian as in memory"
);

/// Why bytes are no snapshot of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// They do not begin as one.
    #[error("not a snapshot of an exchange: the first 8 bytes are not LOCKEXCH")]
    NotASnapshot,
    /// Another version.
    #[error(
        "the snapshot has layout version {found}, this program reads {SNAPSHOT_VERSION}: use the \
         version that wrote it, or replay the journal"
    )]
    Version {
        /// The version that it has.
        found: u32,
    },
    /// It ends too early, or goes on.
    #[error("the snapshot is damaged: it should {should} at byte {offset}; use an older one")]
    Length {
        /// "go on" or "end".
        should: &'static str,
        /// Where.
        offset: usize,
    },
    /// A part of it cannot be.
    #[error("the snapshot is damaged: {what}, in the bytes before {offset}; use an older one")]
    Inconsistent {
        /// What does not fit.
        what: &'static str,
        /// Where reading was.
        offset: usize,
    },
}

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state of the exchange is broken: {rule} ({subject})")]
pub struct Broken {
    /// The invariant, by number.
    pub rule: &'static str,
    /// The account or instrument where it does not hold.
    pub subject: u32,
}

/// An order as hash and snapshot know it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct SavedOrder {
    id: u64,
    price: i64,
    quantity: u64,
    /// 0 and 0: it has no end.
    expires: u64,
    arrival: u64,
    owner: u32,
    book: u32,
    holding: u32,
    side: u8,
    self_trade: u8,
    time_in_force: u8,
    post_only: u8,
}

/// Where a walk of the state goes: into a hash or into bytes.
trait Walker {
    fn bytes(&mut self, bytes: &[u8]);

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).expect("a count in memory fits in 64 bits"));
    }
}

impl Walker for Xxh3 {
    fn bytes(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Walker for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Exchange {
    /// A hash of the whole state: equal for equal states, on every machine.
    ///
    /// It walks everything: 50 to 130 ns for each live order, by whether they fit in the
    /// cache. It allocates nothing.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        self.walk_tables(&mut hash);
        self.walk_orders(&mut hash, |_, _| ());
        // In a queue an order goes by its name: its index in a snapshot would want a table.
        self.walk_queues(&mut hash, |hash, _, order| {
            hash.bytes(&order.owner.to_le_bytes());
            hash.number(order.id);
        });
        hash.digest()
    }

    /// The whole state as bytes, appended to `bytes`.
    pub fn snapshot(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
        self.walk_tables(bytes);
        let mut index_of = vec![NONE; self.deals.store.orders.len()];
        self.walk_orders(bytes, |handle, index| index_of[handle as usize] = index);
        self.walk_queues(bytes, |bytes, handle, _| {
            bytes.number(u64::from(index_of[handle as usize]));
        });
    }

    fn walk_tables(&self, walker: &mut impl Walker) {
        let Bounds {
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        } = self.bounds;
        walker.bytes(bytemuck::bytes_of(&[
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        ]));
        walker.number(self.ticked);
        walker.number(self.deals.trades);
        walker.number(self.people.fees.cast_unsigned());
        walker.number(self.people.deposited.cast_unsigned());
        walker.number(self.deals.store.arrivals);
        let accounts = || {
            self.people
                .accounts()
                .iter()
                .enumerate()
                .filter(|(_, a)| a.state != 0)
        };
        walker.count(accounts().count());
        for (number, account) in accounts() {
            walker.count(number);
            walker.bytes(bytemuck::bytes_of(account));
        }
        walker.count(self.people.holdings().len());
        walker.bytes(bytemuck::cast_slice(self.people.holdings()));
        walker.count(self.people.sessions().len());
        walker.bytes(bytemuck::cast_slice(self.people.sessions()));
        let instruments = || {
            self.stuff
                .all()
                .iter()
                .enumerate()
                .filter(|(_, i)| i.state != 0)
        };
        walker.count(instruments().count());
        for (number, instrument) in instruments() {
            walker.count(number);
            walker.bytes(bytemuck::bytes_of(instrument));
        }
    }

    /// All orders by owner and age; tells which handle is the how manieth.
    fn walk_orders(&self, walker: &mut impl Walker, mut tell: impl FnMut(u32, u32)) {
        let store = &self.deals.store;
        let mut index = 0_u32;
        walker.number(u64::from(store.live()));
        for owner in 0..self.bounds.accounts {
            // The list begins at its newest order; it is walked from the oldest.
            let mut handle = store.newest(owner);
            while handle != NONE && store.order(handle).older != NONE {
                handle = store.order(handle).older;
            }
            while handle != NONE {
                let order = store.order(handle);
                walker.bytes(bytemuck::bytes_of(&saved(order, store.timer(order))));
                tell(handle, index);
                index += 1;
                handle = order.newer;
            }
        }
    }

    /// The queues of all books; `name` writes an order of one.
    fn walk_queues<W: Walker>(&self, walker: &mut W, mut name: impl FnMut(&mut W, u32, &Order)) {
        let store = &self.deals.store;
        for (number, instrument) in self.stuff.all().iter().enumerate() {
            if instrument.state == 0 {
                continue;
            }
            let book = &self.deals.books[number];
            for side in [Side::Buy, Side::Sell] {
                walker.number(u64::from(book.half(side).orders));
                for (handle, order) in book.walk(store, side) {
                    name(walker, handle, order);
                }
            }
        }
    }

    /// The exchange that a snapshot was taken of: with an equal hash.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] for bytes that are no snapshot, or whose parts do not fit.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut reader = Reader { bytes, offset: 0 };
        if reader.bytes(8)? != MAGIC {
            return Err(RestoreError::NotASnapshot);
        }
        let found = reader.pod::<u32>()?;
        if found != SNAPSHOT_VERSION {
            return Err(RestoreError::Version { found });
        }
        let [orders, accounts, instruments, holdings, sessions] = reader.pod::<[u32; 5]>()?;
        let bounds = Bounds {
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        };
        reader.require(bounds.are_possible(), "the bounds are not possible")?;
        let mut exchange = Self::new(bounds);
        exchange.ticked = reader.pod()?;
        exchange.deals.trades = reader.pod()?;
        exchange.people.fees = reader.pod()?;
        exchange.people.deposited = reader.pod()?;
        exchange.deals.store.arrivals = reader.pod()?;
        let money = |money| (0..=MONEY_MAX).contains(&money);
        let sums = money(exchange.people.fees) && money(exchange.people.deposited);
        reader.require(sums, "fees or deposits are out of bounds")?;
        exchange.restore_people(&mut reader)?;
        exchange.restore_stuff(&mut reader)?;
        exchange.restore_orders(&mut reader)?;
        reader.end()?;
        exchange
            .invariants()
            .map_err(|broken| RestoreError::Inconsistent {
                what: broken.rule,
                offset: bytes.len(),
            })?;
        Ok(exchange)
    }

    fn restore_people(&mut self, reader: &mut Reader<'_>) -> Result<(), RestoreError> {
        let mut sessions = Vec::new();
        for _ in 0..reader.count(self.bounds.accounts)? {
            let number = reader.below(self.bounds.accounts, "an account is out of range")?;
            let account: Account = reader.pod()?;
            let vacant = self.people.account(number).is_none();
            reader.require(vacant && is_sane(&account), "an account cannot be so")?;
            self.people.restore_account(number, account);
            sessions.push((number, account.sessions));
        }
        for _ in 0..reader.count(self.bounds.holdings)? {
            let holding: Holding = reader.pod()?;
            let Holding {
                account,
                instrument,
                position,
                open_buy,
                open_sell,
            } = holding;
            let range = -POSITION_MAX..=POSITION_MAX;
            let open_max = 2 * POSITION_MAX.cast_unsigned();
            let sane = self.people.account(account).is_some()
                && instrument < self.bounds.instruments
                && range.contains(&position)
                && open_buy <= open_max
                && open_sell <= open_max
                && self.people.find_holding(account, instrument).is_none();
            reader.require(sane, "a holding cannot be so")?;
            self.people.push_holding(holding);
        }
        for _ in 0..reader.count(self.bounds.sessions)? {
            let session: Session = reader.pod()?;
            let sane = self
                .people
                .account(session.account)
                .is_some_and(|a| a.sessions < u16::MAX)
                && session.session != 0
                && session.cancel_on_close <= 1
                && self.people.find_session(session.session).is_none();
            reader.require(sane, "a session cannot be so")?;
            self.people.open_session(session);
        }
        let counted = |&(number, count): &(u32, u16)| {
            self.people
                .account(number)
                .is_some_and(|account| account.sessions == count)
        };
        reader.require(
            sessions.iter().all(counted),
            "an account counts other sessions",
        )
    }

    fn restore_stuff(&mut self, reader: &mut Reader<'_>) -> Result<(), RestoreError> {
        for _ in 0..reader.count(self.bounds.instruments)? {
            let number = reader.below(self.bounds.instruments, "an instrument is out of range")?;
            let instrument: Instrument = reader.pod()?;
            let sane = self.stuff.get(number).is_none()
                && InstrumentState::from_byte(instrument.state).is_some()
                && (1..=PRICE_MAX).contains(&instrument.tick)
                && (1..=QUANTITY_MAX).contains(&instrument.lot)
                && 1 <= instrument.low
                && instrument.low <= instrument.high
                && instrument.high <= PRICE_MAX
                && instrument.maker_fee_ppm <= FEE_PPM_MAX
                && instrument.taker_fee_ppm <= FEE_PPM_MAX
                && instrument.spare == [0; 7];
            reader.require(sane, "an instrument cannot be so")?;
            self.stuff.restore(number, instrument);
        }
        Ok(())
    }

    fn restore_orders(&mut self, reader: &mut Reader<'_>) -> Result<(), RestoreError> {
        let count = reader.count(self.bounds.orders)?;
        let mut waiting = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let saved: SavedOrder = reader.pod()?;
            let order = self.order_from(&saved);
            let order = order.ok_or(reader.wrong("an order cannot be so"))?;
            let handle = self.deals.store.add(order, None);
            if saved.arrival != 0 {
                self.deals
                    .store
                    .restore_timer(handle, saved.expires, saved.arrival);
            }
            waiting.push(handle);
        }
        for number in 0..self.bounds.instruments {
            if self.stuff.get(number).is_none() {
                continue;
            }
            for side in [Side::Buy, Side::Sell] {
                for _ in 0..reader.count(count)? {
                    let index = reader.below(count, "a queue holds an order that is not there")?;
                    let handle = std::mem::replace(&mut waiting[index as usize], NONE);
                    reader.require(handle != NONE, "an order is in two queues")?;
                    let order = self.deals.store.order(handle);
                    let fits = order.book == number && order.side == side;
                    reader.require(fits, "an order is in a wrong queue")?;
                    self.deals.books[number as usize].rest(&mut self.deals.store, handle);
                }
            }
        }
        let all = waiting.iter().all(|&handle| handle == NONE);
        reader.require(all, "an order is in no queue")
    }

    /// A saved order as the store keeps it, if it can be one of this exchange.
    fn order_from(&self, saved: &SavedOrder) -> Option<Order> {
        let side = Side::from_byte(saved.side)?;
        let holding = self.people.holding(saved.holding)?;
        let timed = saved.time_in_force == TimeInForce::GoodTillTime as u8;
        let sane = self.stuff.get(saved.book).is_some()
            && holding.account == saved.owner
            && holding.instrument == saved.book
            && (1..=PRICE_MAX).contains(&saved.price)
            && (1..=QUANTITY_MAX).contains(&saved.quantity)
            && notional(saved.price, saved.quantity).is_some()
            && saved.post_only <= 1
            && timed == (saved.arrival != 0)
            && saved.arrival <= self.deals.store.arrivals
            && (timed || saved.expires == 0)
            && self.deals.store.find(saved.owner, saved.id).is_none();
        sane.then_some(Order {
            id: saved.id,
            price: saved.price,
            quantity: saved.quantity,
            level: NONE,
            next: NONE,
            prev: NONE,
            owner: saved.owner,
            older: NONE,
            newer: NONE,
            book: saved.book,
            tag: saved.holding,
            timer: NONE,
            side,
            self_trade: SelfTrade::from_byte(saved.self_trade)?,
            time_in_force: TimeInForce::from_byte(saved.time_in_force)?,
            post_only: saved.post_only == 1,
        })
    }

    /// Walks everything and looks whether it fits: at beacons, in tests, after a restore.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold.
    pub fn invariants(&self) -> Result<(), Broken> {
        let broken = |rule| Broken { rule, subject: 0 };
        self.deals.store.check().map_err(broken)?;
        for (subject, book) in (0..).zip(&self.deals.books) {
            book.check(&self.deals.store)
                .map_err(|rule| Broken { rule, subject })?;
        }
        self.check_exposure()?;
        self.check_sums()
    }

    /// `P3`, and that holdings know what is open.
    fn check_exposure(&self) -> Result<(), Broken> {
        let mut reserved = vec![0_i64; self.people.accounts().len()];
        let mut open = vec![(0_u64, 0_u64); self.people.holdings().len()];
        for (subject, book) in (0..).zip(&self.deals.books) {
            let walk = |side| book.walk(&self.deals.store, side);
            for (_, order) in walk(Side::Buy).chain(walk(Side::Sell)) {
                let holding = self.people.holding(order.tag);
                let fits =
                    holding.is_some_and(|h| h.account == order.owner && h.instrument == subject);
                if !fits || self.people.account(order.owner).is_none() {
                    return Err(Broken {
                        rule: "every live order has an account",
                        subject,
                    });
                }
                let open = &mut open[order.tag as usize];
                match order.side {
                    Side::Buy => {
                        open.0 += order.quantity;
                        let fee = self.stuff.known(subject).fee_ppm_max();
                        let cost = reservation(order.price, order.quantity, fee);
                        let sum = &mut reserved[order.owner as usize];
                        *sum = sum.saturating_add(cost);
                    }
                    Side::Sell => open.1 += order.quantity,
                }
            }
        }
        for (holding, open) in self.people.holdings().iter().zip(open) {
            if (holding.open_buy, holding.open_sell) != open {
                let rule = "a holding's open quantity is the sum of its orders";
                return Err(Broken {
                    rule,
                    subject: holding.account,
                });
            }
        }
        for ((subject, account), reserved) in (0..).zip(self.people.accounts()).zip(reserved) {
            if account.reserved != reserved {
                let rule = "P3: reserved = sum of the reservations of open buy orders";
                return Err(Broken { rule, subject });
            }
            if account.reserved < 0 || account.reserved > account.cash {
                return Err(Broken {
                    rule: "P2: 0 <= reserved <= cash",
                    subject,
                });
            }
        }
        Ok(())
    }

    /// `P1` and `P4`.
    fn check_sums(&self) -> Result<(), Broken> {
        let cash: i128 = self
            .people
            .accounts()
            .iter()
            .map(|a| i128::from(a.cash))
            .sum();
        if cash + i128::from(self.people.fees) != i128::from(self.people.deposited) {
            return Err(Broken {
                rule: "P1: sum of cash + fees = deposited",
                subject: 0,
            });
        }
        let mut positions = vec![0_i128; self.stuff.all().len()];
        for holding in self.people.holdings() {
            positions[holding.instrument as usize] += i128::from(holding.position);
        }
        match (0_u32..).zip(positions).find(|&(_, sum)| sum != 0) {
            Some((subject, _)) => Err(Broken {
                rule: "P4: positions of an instrument add up to 0",
                subject,
            }),
            None => Ok(()),
        }
    }
}

fn is_sane(account: &Account) -> bool {
    let state = account.state;
    (state == AccountState::Active as u8 || state == AccountState::Suspended as u8)
        && (0..=MONEY_MAX).contains(&account.cash)
        && (0..=account.cash).contains(&account.reserved)
        && account.quantity_max <= QUANTITY_MAX
        && (0..=NOTIONAL_MAX).contains(&account.notional_max)
        && (0..=POSITION_MAX).contains(&account.position_max)
        && account.spare == 0
}

fn saved(order: &Order, timer: Option<Timer>) -> SavedOrder {
    SavedOrder {
        id: order.id,
        price: order.price,
        quantity: order.quantity,
        expires: timer.map_or(0, |timer| timer.expires),
        arrival: timer.map_or(0, |timer| timer.arrival),
        owner: order.owner,
        book: order.book,
        holding: order.tag,
        side: order.side as u8,
        self_trade: order.self_trade as u8,
        time_in_force: order.time_in_force as u8,
        post_only: u8::from(order.post_only),
    }
}

/// Reads a snapshot from its beginning.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let rest = &self.bytes[self.offset..];
        if rest.len() < count {
            return Err(RestoreError::Length {
                should: "go on",
                offset: self.bytes.len(),
            });
        }
        self.offset += count;
        Ok(&rest[..count])
    }

    fn pod<T: Pod>(&mut self) -> Result<T, RestoreError> {
        self.bytes(size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }

    /// A count of things that may be up to `max`.
    fn count(&mut self, max: u32) -> Result<u32, RestoreError> {
        let count = self.pod::<u64>()?;
        match u32::try_from(count) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(self.wrong("a table holds more than the bounds allow")),
        }
    }

    fn below(&mut self, bound: u32, what: &'static str) -> Result<u32, RestoreError> {
        let number = self.pod::<u64>()?;
        match u32::try_from(number) {
            Ok(number) if number < bound => Ok(number),
            _ => Err(self.wrong(what)),
        }
    }

    const fn wrong(&self, what: &'static str) -> RestoreError {
        RestoreError::Inconsistent {
            what,
            offset: self.offset,
        }
    }

    const fn require(&self, holds: bool, what: &'static str) -> Result<(), RestoreError> {
        if holds { Ok(()) } else { Err(self.wrong(what)) }
    }

    const fn end(&self) -> Result<(), RestoreError> {
        if self.offset == self.bytes.len() {
            return Ok(());
        }
        Err(RestoreError::Length {
            should: "end",
            offset: self.offset,
        })
    }
}

const _: () = assert!(size_of::<SavedOrder>() == 56, "as the picture says");
const _: () = assert!(size_of::<Instrument>() == 56, "as the picture says");
const _: () = assert!(
    Capacity::ORDERS_MAX < NONE,
    "no handle is the number for none"
);

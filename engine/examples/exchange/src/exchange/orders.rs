//! What orders do, and what is done to them.

use super::Exchange;
use super::settle::Settle;
use crate::book::{CancelReason, Place};
use crate::deals::Deals;
use crate::event::{
    CancelOrder, Header, Kind, MassCancel, NewOrder, OrderType, ReduceOrder, ReplaceOrder, Side,
};
use crate::output::{Accepted, Emitter, FLAG_PRIORITY_KEPT, OutputSink, Replaced, Restated};
use crate::people::Part;
use crate::price::Price;
use crate::risk::terms;
use crate::store::Order;

impl Exchange {
    /// The parts that a match works on: the books, and all that a trade settles.
    #[inline]
    pub(super) fn settling<'a, S: OutputSink>(
        &'a mut self,
        header: &Header,
        emit: Emitter<'a, S>,
        taker: Option<(u32, Price)>,
    ) -> (&'a mut Deals, Settle<'a, S>) {
        let Self {
            people,
            stuff,
            deals,
            pricing,
            ..
        } = self;
        let (instrument, limit) = taker.unwrap_or((0, 0));
        let settle = Settle {
            people,
            stuff,
            pricing: *pricing,
            emit,
            request: header.request,
            instrument,
            limit,
            trades: 0,
        };
        (deals, settle)
    }

    #[inline]
    pub(super) fn new_order<S: OutputSink>(
        &mut self,
        header: &Header,
        order: &NewOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let terms = terms(order).expect("validated: the terms are good");
        let instrument = self.stuff.known(order.instrument);
        let fee_ppm_max = instrument.fee_ppm_max();
        let limit = match terms.order_type {
            OrderType::Limit => order.price,
            OrderType::Market => self
                .rules()
                .market_limit(order.instrument, instrument, terms.side, order.quantity)
                .expect("validated: there is another side"),
        };
        let holding = self.people.holding_of(order.account, order.instrument);
        self.people.note_order(order.account, header.time);
        self.people.reserve(&Part {
            account: order.account,
            holding,
            side: terms.side,
            limit,
            before: order.quantity,
            quantity: order.quantity,
            fee_ppm_max,
        });
        emit.emit(
            0,
            &Accepted {
                order: order.order,
                price: limit,
                quantity: order.quantity,
                account: order.account,
                instrument: order.instrument,
                request: header.request,
                side: order.side,
                order_type: order.order_type,
                time_in_force: order.time_in_force,
                order_flags: order.flags,
            },
        );
        let place = Place {
            id: order.order,
            owner: order.account,
            side: terms.side,
            order_type: terms.order_type,
            price: limit,
            quantity: order.quantity,
            time_in_force: terms.time_in_force,
            post_only: terms.post_only,
            self_trade: terms.self_trade,
            expires: header
                .time
                .saturating_add(u64::from(order.lifetime_ms) * 1_000_000),
            tag: holding,
        };
        let (deals, mut settle) = self.settling(header, emit, Some((order.instrument, limit)));
        deals.place(order.instrument, &place, &mut settle);
        deals.trades += settle.trades;
    }

    #[inline]
    pub(super) fn cancel<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &CancelOrder,
        emit: Emitter<'_, S>,
    ) {
        let handle = self.found(body.account, body.order);
        let (deals, mut settle) = self.settling(header, emit, None);
        deals.cancel(handle, CancelReason::Requested, &mut settle);
    }

    pub(super) fn found(&self, account: u32, order: u64) -> u32 {
        self.deals
            .store
            .find(account, order)
            .expect("validated: the order is live")
    }

    pub(super) fn replace<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &ReplaceOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let handle = self.found(body.account, body.order);
        let old = *self.deals.store.order(handle);
        let fee_ppm_max = self.stuff.known(old.book).fee_ppm_max();
        let part = |limit, quantity| Part {
            account: old.owner,
            holding: old.tag,
            side: old.side,
            limit,
            before: quantity,
            quantity,
            fee_ppm_max,
        };
        self.people.note_order(old.owner, header.time);
        self.people.release(&part(old.price, old.quantity));
        self.people.reserve(&part(body.price, body.quantity));
        let kept = body.price == old.price && body.quantity <= old.quantity;
        emit.emit(
            if kept { FLAG_PRIORITY_KEPT } else { 0 },
            &Replaced {
                old_order: body.order,
                order: body.new_order,
                price: body.price,
                quantity: body.quantity,
                account: old.owner,
                instrument: old.book,
            },
        );
        if kept {
            self.deals.reduce(handle, old.quantity - body.quantity);
            self.deals.rename(handle, body.new_order);
            return;
        }
        self.deals
            .lift(handle, body.new_order, body.price, body.quantity);
        let (deals, mut settle) = self.settling(header, emit, Some((old.book, body.price)));
        deals.come_in_anew(handle, &mut settle);
        deals.trades += settle.trades;
    }

    pub(super) fn reduce<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &ReduceOrder,
        mut emit: Emitter<'_, S>,
    ) {
        let handle = self.found(body.account, body.order);
        let old = *self.deals.store.order(handle);
        if body.by >= old.quantity {
            let (deals, mut settle) = self.settling(header, emit, None);
            return deals.cancel(handle, CancelReason::Requested, &mut settle);
        }
        self.people.release(&Part {
            account: old.owner,
            holding: old.tag,
            side: old.side,
            limit: old.price,
            before: old.quantity,
            quantity: body.by,
            fee_ppm_max: self.stuff.known(old.book).fee_ppm_max(),
        });
        self.deals.reduce(handle, body.by);
        let restated = Restated {
            order: old.id,
            price: old.price,
            quantity: old.quantity - body.by,
            by: body.by,
            account: old.owner,
            instrument: old.book,
        };
        emit.emit(0, &restated);
    }

    pub(super) fn mass_cancel<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &MassCancel,
        emit: Emitter<'_, S>,
    ) {
        let side = Side::from_byte(body.side);
        let one = (body.scope == MassCancel::ONE_INSTRUMENT).then_some(body.instrument);
        let which = |order: &Order| {
            side.is_none_or(|side| side == order.side)
                && one.is_none_or(|instrument| instrument == order.book)
        };
        let (deals, mut settle) = self.settling(header, emit, None);
        let orders = deals.cancel_all(body.account, CancelReason::MassCancel, which, &mut settle);
        settle.emit_system(Kind::MassCancel, body.account, orders);
    }
}

//! What the books report is settled with the people, and written out.

use super::Pricing;
use crate::book::{Execution, Party, Report, Reports};
use crate::event::Kind;
use crate::output::{
    Canceled, Emitter, Executed, FLAG_FILLED, FLAG_MAKER, OutputSink, SystemEvent,
};
use crate::people::{Part, People};
use crate::price::{Price, fee};
use crate::stuff::Stuff;

/// Settles what the books report, and writes it out.
pub(super) struct Settle<'a, S> {
    pub(super) people: &'a mut People,
    pub(super) stuff: &'a Stuff,
    pub(super) pricing: Pricing,
    pub(super) emit: Emitter<'a, S>,
    pub(super) request: u32,
    /// The instrument and the limit of the order that comes in.
    pub(super) instrument: u32,
    pub(super) limit: Price,
    pub(super) trades: u64,
}

impl<S: OutputSink> Settle<'_, S> {
    #[inline]
    pub(super) fn executed(&mut self, trade: &Execution) {
        let instrument = self.stuff.known(self.instrument);
        let fees = [instrument.maker_fee_ppm, instrument.taker_fee_ppm];
        let fee_ppm_max = instrument.fee_ppm_max();
        let price = self.pricing.of(trade.price, instrument.tick);
        let notional = price * trade.quantity.cast_signed();
        let first = self.emit.index();
        let sides = [trade.taker_side.opposite(), trade.taker_side];
        let limits = [trade.price, self.limit];
        for (index, party) in [trade.maker, trade.taker].iter().enumerate() {
            let Party {
                id,
                owner,
                tag,
                left,
            } = *party;
            let side = sides[index];
            let part = Part {
                account: owner,
                holding: tag,
                side,
                limit: limits[index],
                before: left + trade.quantity,
                quantity: trade.quantity,
                fee_ppm_max,
            };
            self.people.settle(&part, price, fee(notional, fees[index]));
            let maker = if index == 0 { FLAG_MAKER } else { 0 };
            let filled = if left == 0 { FLAG_FILLED } else { 0 };
            let executed = Executed {
                order: id,
                price,
                quantity: trade.quantity,
                account: owner,
                instrument: self.instrument,
                match_index: first,
                side: side as u8,
                spare: [0; 3],
            };
            self.emit.emit(maker | filled, &executed);
        }
        self.trades += 1;
    }

    pub(super) fn emit_system(&mut self, kind: Kind, account: u32, orders: u64) {
        let event = SystemEvent {
            orders,
            account,
            request: self.request,
            event_kind: kind as u16,
            spare: [0; 3],
            spare_words: [0; 2],
        };
        self.emit.emit(0, &event);
    }
}

impl<S: OutputSink> Reports for Settle<'_, S> {
    #[inline]
    fn report(&mut self, report: &Report) {
        match report {
            Report::Executed(trade) => self.executed(trade),
            Report::Canceled(canceled) => {
                self.people.release(&Part {
                    account: canceled.owner,
                    holding: canceled.tag,
                    side: canceled.side,
                    limit: canceled.price,
                    before: canceled.quantity,
                    quantity: canceled.quantity,
                    fee_ppm_max: self.stuff.known(canceled.book).fee_ppm_max(),
                });
                let canceled = Canceled {
                    order: canceled.id,
                    price: canceled.price,
                    quantity: canceled.quantity,
                    account: canceled.owner,
                    instrument: canceled.book,
                    request: self.request,
                    reason: canceled.reason as u8,
                    side: canceled.side as u8,
                    spare: 0,
                };
                self.emit.emit(0, &canceled);
            }
            // The exchange writes these itself, before the books are touched.
            Report::Accepted(_) | Report::Reduced(_) | Report::Replaced(_) => {}
        }
    }
}

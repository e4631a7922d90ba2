//! Accounts, instruments, sessions and money.

use super::Exchange;
use crate::book::CancelReason;
use crate::event::{AdjustBalance, Header, InstrumentState, Kind, SessionOpen, SetInstrumentState};
use crate::output::{
    AccountChanged, BalanceChanged, Emitter, InstrumentChanged, OutputSink, SessionChanged,
};
use crate::people::Session;

impl Exchange {
    pub(super) fn adjust<S: OutputSink>(
        &mut self,
        body: &AdjustBalance,
        emit: &mut Emitter<'_, S>,
    ) {
        self.people
            .adjust(body.account, body.amount, body.transaction);
        let account = self.people.account_mut(body.account);
        let changed = BalanceChanged {
            balance: account.cash,
            reserved: account.reserved,
            amount: body.amount,
            transaction: body.transaction,
            account: body.account,
            spare: 0,
        };
        emit.emit(0, &changed);
    }

    pub(super) fn emit_account<S: OutputSink>(&self, number: u32, emit: &mut Emitter<'_, S>) {
        let account = &self.people.accounts()[number as usize];
        let changed = AccountChanged {
            quantity_max: account.quantity_max,
            notional_max: account.notional_max,
            position_max: account.position_max,
            orders_per_second_max: account.orders_per_second_max,
            account: number,
            state: account.state,
            spare: [0; 7],
        };
        emit.emit(0, &changed);
    }

    pub(super) fn emit_instrument<S: OutputSink>(&self, number: u32, emit: &mut Emitter<'_, S>) {
        let instrument = self.stuff.known(number);
        let changed = InstrumentChanged {
            symbol: instrument.symbol,
            low: instrument.low,
            high: instrument.high,
            tick: instrument.tick,
            instrument: number,
            state: instrument.state,
            spare: [0; 3],
        };
        emit.emit(0, &changed);
    }

    pub(super) fn instrument_state<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &SetInstrumentState,
        mut emit: Emitter<'_, S>,
    ) {
        let state = InstrumentState::from_byte(body.state).expect("validated: the state is known");
        self.stuff.set_state(body.instrument, state);
        self.emit_instrument(body.instrument, &mut emit);
        if state == InstrumentState::Closed {
            let (deals, mut settle) = self.settling(header, emit, None);
            let orders = deals.cancel_day(body.instrument, &mut settle);
            settle.emit_system(Kind::SetInstrumentState, 0, orders);
        }
    }

    pub(super) fn session_open<S: OutputSink>(
        &mut self,
        header: &Header,
        body: &SessionOpen,
        emit: &mut Emitter<'_, S>,
    ) {
        self.people.open_session(Session {
            session: header.session,
            account: body.account,
            cancel_on_close: u32::from(body.cancel_on_close),
        });
        emit.emit(0, &session_changed(header.session, body.account, true));
    }

    pub(super) fn session_close<S: OutputSink>(
        &mut self,
        header: &Header,
        mut emit: Emitter<'_, S>,
    ) {
        let closed = self.people.close_session(header.session);
        let closed = closed.expect("validated: the session is open");
        emit.emit(0, &session_changed(closed.session, closed.account, false));
        let last = self
            .people
            .account(closed.account)
            .is_some_and(|account| account.sessions == 0);
        if closed.cancel_on_close == 1 && last {
            let (deals, mut settle) = self.settling(header, emit, None);
            let reason = CancelReason::SessionClosed;
            let orders = deals.cancel_all(closed.account, reason, |_| true, &mut settle);
            settle.emit_system(Kind::SessionClose, closed.account, orders);
        }
    }
}

const fn session_changed(session: u64, account: u32, open: bool) -> SessionChanged {
    SessionChanged {
        session,
        account,
        open: open as u8,
        spare: [0; 3],
        spare_words: [0; 3],
    }
}

//! A refusal is an output.

use crate::event::{AddAccount, Event, ResumeAccount, SuspendAccount, View};
use crate::output::{Emitter, OutputSink, Rejected};
use crate::reject::Reject;

/// Writes a refusal as an output.
pub fn write_rejected(event: &Event, position: u64, reject: Reject, out: &mut impl OutputSink) {
    write_refusal(event, position, reject.code as u16, reject.detail, out);
}

/// The same with any code, those of the engine among them.
pub(crate) fn write_refusal(
    event: &Event,
    position: u64,
    code: u16,
    detail: i64,
    out: &mut impl OutputSink,
) {
    let (order, account) = named(event);
    let rejected = Rejected {
        session: event.header.session,
        detail,
        order,
        account,
        request: event.header.request,
        code,
        event_kind: event.header.kind,
        spare: 0,
    };
    Emitter::new(out, event.header.time, position).emit(0, &rejected);
}

/// The order and the account that an event names; zeros where it names none.
fn named(event: &Event) -> (u64, u32) {
    match event.view() {
        Some(View::NewOrder(body)) => (body.order, body.account),
        Some(View::CancelOrder(body)) => (body.order, body.account),
        Some(View::ReplaceOrder(body)) => (body.order, body.account),
        Some(View::ReduceOrder(body)) => (body.order, body.account),
        Some(View::MassCancel(body)) => (0, body.account),
        Some(View::AdjustBalance(body)) => (0, body.account),
        Some(View::SessionOpen(body)) => (0, body.account),
        Some(View::AddAccount(AddAccount { account, .. })) => (0, *account),
        Some(View::SuspendAccount(SuspendAccount { account, .. })) => (0, *account),
        Some(View::ResumeAccount(ResumeAccount { account, .. })) => (0, *account),
        Some(View::SetRiskLimit(body)) => (0, body.account),
        Some(
            View::AddInstrument(_)
            | View::SetInstrumentState(_)
            | View::SetPriceCollar(_)
            | View::SessionClose(_)
            | View::Tick(_),
        )
        | None => (0, 0),
    }
}

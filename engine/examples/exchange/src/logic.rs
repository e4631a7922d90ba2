//! The exchange as the logic of an engine: events and outputs as slots, kinds and schemas,
//! the state as bytes.
//!
//! ```no_run
//! use lockstep_engine::{Clock, Engine};
//! use lockstep_exchange::exchange::{Bounds, Exchange};
//! use lockstep_exchange::load::{self, Options};
//!
//! let engine = Engine::open_with("./exchange", || Exchange::new(Bounds::default()))
//!     .sessions_max(0)            // the exchange keeps its own
//!     .clock(Clock::OfEvents)     // recorded flow brings its time
//!     .on_outputs(|output| println!("{output:?}"))
//!     .start()?;
//! let mut producer = engine.producer();
//! let events = load::open("AAPL_message_10.csv".as_ref(), None, Options::default())?;
//! let events = events.collect::<Result<Vec<_>, _>>()?;
//! let end = producer.publish_events(&events)?.end;
//! producer.wait_until(end)?;
//! println!("{:?}", engine.read(Exchange::trades)?);
//! engine.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Session 0 is the operator, who may act for any account: whoever takes events from
//! clients gives each its session, and never passes a 0.
//!
//! # Invariants
//!
//! * `LG1` An event here is a slot of the engine byte for byte: nothing is converted.
//! * `LG2` A refusal leaves the state as it was; `refused` looks again only for the detail.

use std::borrow::Cow;

use lockstep_engine::event::{HEADER_BYTES, Kinds, SYSTEM_KINDS, Slot};
use lockstep_engine::logic::{Context, Logic, Reject};
use lockstep_engine::schema::{
    Field, Kind as SchemaKind, NamedValue, Schema, Shape, retyped, shape_of, with_values,
};
use lockstep_engine::system::schema_of;
use lockstep_engine::{LoadError, Outputs, State, StateReader, StateWriter};

use crate::event::{
    self, AddAccount, AddInstrument, AdjustBalance, CancelOrder, Event, Kind, MassCancel, NewOrder,
    ReduceOrder, ReplaceOrder, ResumeAccount, SessionClose, SessionOpen, SetInstrumentState,
    SetPriceCollar, SetRiskLimit, SuspendAccount, Tick,
};
use crate::exchange::{Exchange, Pricing, write_refusal};
use crate::output::{
    self, Accepted, AccountChanged, BalanceChanged, Canceled, Executed, InstrumentChanged, Output,
    OutputKind, OutputSink, Rejected, Replaced, Restated, SessionChanged, SystemEvent,
};

impl Slot for Event {}
impl Slot for Output {}

/// The events of an exchange, as the engine knows kinds.
#[derive(Debug)]
pub enum Events {}

/// Its outputs.
#[derive(Debug)]
pub enum Reports {}

const EVENT_VERSIONS: [(u16, u16); Kind::ALL.len()] = {
    let mut all = [(0, event::VERSION); Kind::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at].0 = Kind::ALL[at] as u16;
        at += 1;
    }
    all
};

const OUTPUT_VERSIONS: [(u16, u16); OutputKind::ALL.len()] = {
    let mut all = [(0, output::VERSION as u16); OutputKind::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at].0 = OutputKind::ALL[at] as u16;
        at += 1;
    }
    all
};

impl Kinds for Events {
    type Slot = Event;
    /// The event itself: [`Event::view`] shows what it is.
    type View<'a> = &'a Event;
    const VERSIONS: &'static [(u16, u16)] = &EVENT_VERSIONS;

    #[inline]
    fn view(slot: &Event) -> Option<&Event> {
        (slot.kind().is_some() && slot.header.version == event::VERSION).then_some(slot)
    }

    fn schema() -> Schema {
        schema_of::<Event>("exchange.events", u32::from(event::VERSION), event_kinds())
    }

    #[inline]
    fn version_of(kind: u16) -> Option<u16> {
        Kind::from_number(kind).map(|_| event::VERSION)
    }
}

impl Kinds for Reports {
    type Slot = Output;
    /// The output itself: [`Output::view`] shows what it is.
    type View<'a> = &'a Output;
    const VERSIONS: &'static [(u16, u16)] = &OUTPUT_VERSIONS;

    fn view(slot: &Output) -> Option<&Output> {
        OutputKind::from_number(slot.header.kind).map(|_| slot)
    }

    fn schema() -> Schema {
        schema_of::<Output>(
            "exchange.outputs",
            u32::from(output::VERSION),
            output_kinds(),
        )
    }
}

impl OutputSink for Outputs<'_, Reports> {
    #[inline]
    fn next_slot(&mut self) -> &mut Output {
        Outputs::next_slot(self)
    }
}

impl State for Exchange {
    fn save(&self, out: &mut StateWriter<'_>) {
        let mut bytes = Vec::new();
        self.snapshot(&mut bytes);
        out.length(bytes.len());
        out.bytes(&bytes);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let length = from.length(1, "Exchange")?;
        let bytes = from.bytes(length, "Exchange")?;
        Self::restore(bytes).map_err(|error| LoadError::Own {
            what: "Exchange",
            why: error.to_string(),
        })
    }
}

impl Logic for Exchange {
    type In = Events;
    type Out = Reports;

    #[inline]
    fn validate(&self, event: &Event, _: &Context) -> Result<(), Reject> {
        Exchange::validate(self, event)
            .map_err(|reject| Reject::new(reject.code as u16, reject.code.meaning()))
    }

    #[inline]
    fn apply(&mut self, event: &Event, context: &Context, out: &mut Outputs<'_, Reports>) {
        Exchange::apply(self, event, context.position().0, out);
    }

    #[cold]
    fn refused(
        &self,
        event: &Event,
        reject: Reject,
        context: &Context,
        out: &mut Outputs<'_, Reports>,
    ) {
        // LG2: what the engine refused by itself is not looked at: it may panic again.
        let detail = if reject.code < SYSTEM_KINDS {
            Exchange::validate(self, event).map_or_else(|reject| reject.detail, |()| 0)
        } else {
            0
        };
        write_refusal(event, context.position().0, reject.code, detail, out);
    }

    fn tick(&mut self, context: &Context, out: &mut Outputs<'_, Reports>) {
        self.time_passes(context.time(), context.position().0, out);
    }

    fn check(&self) -> Result<(), Cow<'static, str>> {
        self.invariants()
            .map_err(|broken| broken.to_string().into())
    }

    fn state_hash(&self) -> u64 {
        Exchange::state_hash(self)
    }
}

/// Another version of the exchange, with a fault of one tick: trades settle one tick below
/// the maker's price. It is there to be found by `lockstep replay --compare faulty-tick`.
#[derive(Clone, Debug)]
pub struct FaultyTick(Exchange);

impl From<Exchange> for FaultyTick {
    fn from(exchange: Exchange) -> Self {
        Self(exchange.with_pricing(Pricing::OneTickBelow))
    }
}

impl State for FaultyTick {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.0.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Exchange::load(from).map(Self::from)
    }
}

impl Logic for FaultyTick {
    type In = Events;
    type Out = Reports;

    fn validate(&self, event: &Event, context: &Context) -> Result<(), Reject> {
        Logic::validate(&self.0, event, context)
    }

    fn apply(&mut self, event: &Event, context: &Context, out: &mut Outputs<'_, Reports>) {
        Logic::apply(&mut self.0, event, context, out);
    }

    fn refused(
        &self,
        event: &Event,
        reject: Reject,
        context: &Context,
        out: &mut Outputs<'_, Reports>,
    ) {
        self.0.refused(event, reject, context, out);
    }

    fn tick(&mut self, context: &Context, out: &mut Outputs<'_, Reports>) {
        Logic::tick(&mut self.0, context, out);
    }

    fn check(&self) -> Result<(), Cow<'static, str>> {
        self.0.check()
    }

    fn state_hash(&self) -> u64 {
        Logic::state_hash(&self.0)
    }
}

/// How a field is shown.
#[derive(Clone, Copy)]
enum How {
    Plain,
    Chars,
    Padding,
    Named(&'static [NamedValue]),
    Bits(&'static [NamedValue]),
}

const fn named(number: i64, name: &'static str) -> NamedValue {
    NamedValue {
        number,
        name: Cow::Borrowed(name),
    }
}

static SIDES: [NamedValue; 3] = [named(0, "none"), named(1, "buy"), named(2, "sell")];
static TYPES: [NamedValue; 2] = [named(1, "limit"), named(2, "market")];
static IN_FORCE: [NamedValue; 5] = [
    named(1, "gtc"),
    named(2, "day"),
    named(3, "ioc"),
    named(4, "fok"),
    named(5, "gtt"),
];
static ORDER_FLAGS: [NamedValue; 3] = [
    named(1, "post_only"),
    named(16, "cancel_newest"),
    named(32, "cancel_oldest"),
];
static INSTRUMENT_STATES: [NamedValue; 3] =
    [named(1, "open"), named(2, "halted"), named(3, "closed")];
static ACCOUNT_STATES: [NamedValue; 2] = [named(1, "active"), named(2, "suspended")];
static SCOPES: [NamedValue; 2] = [named(0, "all"), named(1, "one")];
static REASONS: [NamedValue; 8] = [
    named(1, "requested"),
    named(2, "not_filled"),
    named(3, "not_filled_whole"),
    named(4, "self_trade"),
    named(5, "expired"),
    named(6, "mass_cancel"),
    named(7, "session_closed"),
    named(8, "instrument_closed"),
];

fn field(shape: Shape, name: &'static str, offset: usize, how: How) -> Field {
    let field = shape.field(name, HEADER_BYTES + offset);
    match how {
        How::Plain => field,
        How::Chars => retyped(field, "chars"),
        How::Padding => retyped(field, "padding"),
        How::Named(values) => with_values(field, "enumeration", values),
        How::Bits(values) => with_values(field, "flags", values),
    }
}

/// The fields of each body, in their order; a test looks that no byte is left out.
macro_rules! layouts {
    ($function:ident of $kinds:ident: $(
        $body:ident { $($field:ident: $how:expr),* $(,)? }
    )*) => {
        fn $function() -> Vec<SchemaKind> {
            vec![$(SchemaKind {
                number: u32::from($kinds::$body as u16),
                name: Cow::Borrowed(stringify!($body)),
                fields: Cow::Owned(vec![$(field(
                    shape_of::<$body, _>(|body| &body.$field),
                    stringify!($field),
                    std::mem::offset_of!($body, $field),
                    $how,
                ),)*]),
            },)*]
        }
    };
}

use How::{Bits, Chars, Named, Padding, Plain};

layouts! { event_kinds of Kind:
    NewOrder {
        price: Plain, quantity: Plain, order: Plain, instrument: Plain, account: Plain,
        side: Named(&SIDES), order_type: Named(&TYPES), time_in_force: Named(&IN_FORCE),
        flags: Bits(&ORDER_FLAGS), lifetime_ms: Plain,
    }
    CancelOrder { order: Plain, account: Plain, spare: Padding }
    ReplaceOrder {
        order: Plain, new_order: Plain, price: Plain, quantity: Plain, account: Plain,
        spare: Padding,
    }
    ReduceOrder { order: Plain, by: Plain, account: Plain, spare: Padding }
    MassCancel {
        account: Plain, instrument: Plain, side: Named(&SIDES), scope: Named(&SCOPES),
        spare: Padding, spare_words: Padding,
    }
    AddAccount { account: Plain, spare: Padding }
    AdjustBalance { amount: Plain, transaction: Plain, account: Plain, spare: Padding }
    SuspendAccount { account: Plain, spare: Padding }
    ResumeAccount { account: Plain, spare: Padding }
    SetRiskLimit {
        quantity_max: Plain, notional_max: Plain, position_max: Plain,
        orders_per_second_max: Plain, account: Plain, spare: Padding,
    }
    AddInstrument {
        symbol: Chars, tick: Plain, lot: Plain, instrument: Plain, maker_fee_ppm: Plain,
        taker_fee_ppm: Plain, spare: Padding,
    }
    SetInstrumentState {
        instrument: Plain, state: Named(&INSTRUMENT_STATES), spare: Padding, spare_words: Padding,
    }
    SetPriceCollar { low: Plain, high: Plain, instrument: Plain, spare: Padding }
    SessionOpen { account: Plain, cancel_on_close: Plain, spare: Padding, spare_words: Padding }
    SessionClose { spare: Padding }
    Tick { spare: Padding }
}

layouts! { output_kinds of OutputKind:
    Accepted {
        order: Plain, price: Plain, quantity: Plain, account: Plain, instrument: Plain,
        request: Plain, side: Named(&SIDES), order_type: Named(&TYPES),
        time_in_force: Named(&IN_FORCE), order_flags: Bits(&ORDER_FLAGS),
    }
    Rejected {
        session: Plain, detail: Plain, order: Plain, account: Plain, request: Plain, code: Plain,
        event_kind: Plain, spare: Padding,
    }
    Executed {
        order: Plain, price: Plain, quantity: Plain, account: Plain, instrument: Plain,
        match_index: Plain, side: Named(&SIDES), spare: Padding,
    }
    Canceled {
        order: Plain, price: Plain, quantity: Plain, account: Plain, instrument: Plain,
        request: Plain, reason: Named(&REASONS), side: Named(&SIDES), spare: Padding,
    }
    Replaced {
        old_order: Plain, order: Plain, price: Plain, quantity: Plain, account: Plain,
        instrument: Plain,
    }
    Restated {
        order: Plain, price: Plain, quantity: Plain, by: Plain, account: Plain, instrument: Plain,
    }
    AccountChanged {
        quantity_max: Plain, notional_max: Plain, position_max: Plain,
        orders_per_second_max: Plain, account: Plain, state: Named(&ACCOUNT_STATES),
        spare: Padding,
    }
    BalanceChanged {
        balance: Plain, reserved: Plain, amount: Plain, transaction: Plain, account: Plain,
        spare: Padding,
    }
    InstrumentChanged {
        symbol: Chars, low: Plain, high: Plain, tick: Plain, instrument: Plain,
        state: Named(&INSTRUMENT_STATES), spare: Padding,
    }
    SessionChanged { session: Plain, account: Plain, open: Plain, spare: Padding, spare_words: Padding }
    SystemEvent {
        orders: Plain, account: Plain, request: Plain, event_kind: Plain, spare: Padding,
        spare_words: Padding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Side, TimeInForce};

    #[test]
    fn the_schemas_cover_every_byte_of_every_kind() {
        for (schema, kinds) in [
            (Events::schema(), EVENT_VERSIONS.len()),
            (Reports::schema(), OUTPUT_VERSIONS.len()),
        ] {
            assert!(schema.kinds.len() >= kinds);
            for kind in schema.kinds.iter() {
                let bytes = |field: &Field| u32::from(field.element_size) * field.count;
                let own: u32 = kind.fields.iter().map(bytes).sum();
                assert_eq!(own, 40, "{}", kind.name);
            }
            let read = Schema::decode(&schema.encode().unwrap()).unwrap();
            assert_eq!(read, schema);
        }
    }

    #[test]
    fn an_event_is_shown_with_its_names() {
        let order = NewOrder {
            price: 101,
            quantity: 5,
            order: 9,
            account: 3,
            ..NewOrder::limit(Side::Sell, TimeInForce::GoodTillCancel)
        };
        let event = Event::new(7, 0, 1, &order);
        let shown: Vec<String> = Events::schema()
            .values(bytemuck::bytes_of(&event))
            .map(|(field, value)| format!("{}={value}", field.name))
            .collect();
        let shown = shown.join(" ");
        assert!(shown.contains("kind=1 version=1 price=101"), "{shown}");
        assert!(
            shown.contains("side=sell order_type=limit time_in_force=gtc"),
            "{shown}"
        );
    }

    #[test]
    fn every_kind_has_the_number_that_the_engine_asks_for() {
        for (kind, version) in EVENT_VERSIONS {
            assert_eq!(Events::version_of(kind), Some(version));
            assert!(kind != 0 && kind < SYSTEM_KINDS);
        }
        assert_eq!(Events::version_of(6), None);
    }
}

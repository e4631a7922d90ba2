//! `lockstep run --node FILE`: one node of a cluster, with the exchange as its logic.

use std::io::Write as _;
use std::path::Path;

use lockstep_engine::cluster::{Driver, DriverOptions};
use lockstep_engine::runtime::signals;
use lockstep_exchange::event::{
    AddAccount, AddInstrument, AdjustBalance, Event, InstrumentState, SetInstrumentState,
};
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_perf::cluster_file::NodeFile;
use lockstep_perf::exit::Exit;

use super::Global;

/// Accounts that a new exchange has: 0 to 63.
pub(crate) const ACCOUNTS: u32 = 64;

/// What each of them begins with.
const BALANCE: i64 = 1_000_000_000_000;

/// Instruments that a new exchange has, open from the beginning: 0 to 3.
pub(crate) const INSTRUMENTS: u32 = 4;

/// Runs the node until SIGTERM or SIGINT, or until it fails.
pub(crate) fn run(file: &Path, global: &Global) -> anyhow::Result<Exit> {
    let _ = global;
    // Somebody else's, if there is one already: a test's.
    let _set = tracing::subscriber::set_global_default(Stderr);
    signals::watch()?;
    let file = NodeFile::read(file)?;
    let options = file.options()?;
    let driver = Driver::open(&options, first_events(), fresh)?;
    tell(&options, &driver)?;
    driver.run(signals::is_asked_to_end)?;
    Ok(Exit::Done)
}

/// Tells an operator what happens in a node's life, a line for each event, on stderr.
struct Stderr;

/// The fields of an event, one behind the other.
#[derive(Default)]
struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        // Writing into a string does not fail.
        let _written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl tracing::Subscriber for Stderr {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level();
        // A closed stderr must not end a node.
        let _closed = writeln!(std::io::stderr().lock(), "{level:<5}{}", line.0);
    }
}

/// What is said at the start, in a line for each thing that an operator may ask.
fn tell(options: &DriverOptions, driver: &Driver<Exchange>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let replica = &options.node.replica;
    writeln!(
        out,
        "node      {} of cluster {}, voters {}, epoch {}",
        replica.node,
        replica.cluster,
        replica
            .founders
            .voters
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
        replica.epoch
    )?;
    writeln!(
        out,
        "listens   {} for nodes, {} for clients",
        options.listen,
        options
            .clients
            .addresses
            .get(&replica.node)
            .map_or("nowhere".to_owned(), ToString::to_string)
    )?;
    writeln!(out, "ack       {}", replica.policy.name())?;
    if let Some(node) = driver.node() {
        let recovery = node.recovery();
        writeln!(
            out,
            "recovered to position {}, state {:016x}; the journal {}",
            recovery.position, recovery.state_hash, recovery.journal
        )?;
    }
    out.flush()
}

/// An exchange without anything in it, the same on every node.
pub(crate) fn fresh() -> Exchange {
    Exchange::new(Bounds {
        orders: 1 << 18,
        accounts: 1 << 12,
        instruments: 1 << 8,
        holdings: 1 << 16,
        sessions: 1 << 12,
    })
}

/// What the log of a new exchange begins with: instruments that are open, and accounts with money.
fn first_events() -> Vec<Event> {
    let mut events = Vec::new();
    for instrument in 0..INSTRUMENTS {
        let mut symbol = *b"STUFF0  ";
        symbol[5] += instrument.to_le_bytes()[0];
        events.push(Event::new(
            0,
            0,
            0,
            &AddInstrument {
                symbol,
                tick: 1,
                lot: 1,
                instrument,
                ..AddInstrument::default()
            },
        ));
        events.push(Event::new(
            0,
            0,
            0,
            &SetInstrumentState {
                instrument,
                state: InstrumentState::Open as u8,
                ..SetInstrumentState::default()
            },
        ));
    }
    for account in 0..ACCOUNTS {
        events.push(Event::new(
            0,
            0,
            0,
            &AddAccount {
                account,
                ..AddAccount::default()
            },
        ));
        events.push(Event::new(
            0,
            0,
            0,
            &AdjustBalance {
                amount: BALANCE,
                transaction: 1,
                account,
                ..AdjustBalance::default()
            },
        ));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_exchange::event::{NewOrder, Side, TimeInForce};
    use lockstep_exchange::output::Output;

    #[test]
    fn a_new_exchange_takes_orders() {
        let mut exchange = fresh();
        let mut out: Vec<Output> = Vec::new();
        for (position, event) in (0..).zip(first_events()) {
            exchange.validate(&event).unwrap();
            exchange.apply(&event, position, &mut out);
        }
        let order = NewOrder {
            price: 100,
            quantity: 1,
            order: 1,
            instrument: INSTRUMENTS - 1,
            account: ACCOUNTS - 1,
            ..NewOrder::limit(Side::Sell, TimeInForce::GoodTillCancel)
        };
        exchange.validate(&Event::new(0, 0, 0, &order)).unwrap();
    }
}

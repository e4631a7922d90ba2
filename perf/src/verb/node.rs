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
use serde_json::json;

use super::ear::{self, Loud};
use super::run::engine::refused;
use super::run::held;
use super::{Format, Global};

/// Accounts that a new exchange has: 0 to 63.
pub(crate) const ACCOUNTS: u32 = 64;

/// What each of them begins with.
const BALANCE: i64 = 1_000_000_000_000;

/// Instruments that a new exchange has, open from the beginning: 0 to 3.
pub(crate) const INSTRUMENTS: u32 = 4;

/// What the exchange of every node holds.
const BOUNDS: Bounds = Bounds {
    orders: 1 << 18,
    accounts: 1 << 12,
    instruments: 1 << 8,
    holdings: 1 << 16,
    sessions: 1 << 12,
};

/// Runs the node until SIGTERM or SIGINT, or until it fails.
pub(crate) fn run(file: &Path, loud: Loud, global: &Global) -> anyhow::Result<Exit> {
    ear::listen(loud);
    signals::watch()?;
    let file = NodeFile::read(file)?;
    let options = file.options()?;
    let driver = Driver::open(&options, first_events(), fresh).map_err(refused)?;
    // Behind the opening: the directory is this node's, and it has written no event yet.
    held::put(&options.directory, BOUNDS)?;
    tell(&options, &driver, global.format)?;
    driver.run(signals::is_asked_to_end).map_err(refused)?;
    Ok(Exit::Done)
}

/// What is said at the start: a line for each thing that an operator may ask, or one object.
fn tell(options: &DriverOptions, driver: &Driver<Exchange>, format: Format) -> std::io::Result<()> {
    let replica = &options.node.replica;
    let voters: Vec<String> = replica
        .founders
        .voters
        .iter()
        .map(ToString::to_string)
        .collect();
    let clients = options.clients.addresses.get(&replica.node);
    let recovery = driver.node().map(|node| node.recovery());
    let mut out = std::io::stdout().lock();
    match format {
        Format::Quiet => {}
        Format::Json => {
            let told = json!({
                "verb": "run --node",
                "node": replica.node.0,
                "cluster": replica.cluster.to_string(),
                "voters": replica.founders.voters.iter().map(|voter| voter.0).collect::<Vec<_>>(),
                "epoch": replica.epoch.0,
                "listens": options.listen.to_string(),
                "clients": clients.map(ToString::to_string),
                "ack": replica.policy.name(),
                "passive": options.node.is_passive,
                "recovered": recovery.filter(|_| !options.node.is_passive).map(|recovery| json!({
                    "position": recovery.position.0,
                    "state_hash": format!("{:016x}", recovery.state_hash),
                    "journal": recovery.journal.to_string(),
                })),
            });
            writeln!(out, "{told}")?;
        }
        Format::Text => {
            writeln!(
                out,
                "node      {} of cluster {}, voters {}, epoch {}",
                replica.node,
                replica.cluster,
                voters.join(" "),
                replica.epoch
            )?;
            writeln!(
                out,
                "listens   {} for nodes, {} for clients",
                options.listen,
                clients.map_or("nowhere".to_owned(), ToString::to_string)
            )?;
            writeln!(out, "ack       {}", replica.policy.name())?;
            if let Some(recovery) = recovery.filter(|_| options.node.is_passive) {
                writeln!(
                    out,
                    "passive   journals and votes, without a logic; the journal {}",
                    recovery.journal
                )?;
            } else if let Some(recovery) = recovery {
                writeln!(
                    out,
                    "recovered to position {}, state {:016x}; the journal {}",
                    recovery.position, recovery.state_hash, recovery.journal
                )?;
            }
        }
    }
    out.flush()
}

/// An exchange without anything in it, the same on every node.
pub(crate) fn fresh() -> Exchange {
    Exchange::new(BOUNDS)
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

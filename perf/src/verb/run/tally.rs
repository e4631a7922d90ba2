//! What came out, counted: the part of a summary that `run` and `replay` have in common.

use std::collections::BTreeMap;

use lockstep_engine::Position;
use lockstep_engine::event::SYSTEM_KINDS;
use lockstep_exchange::exchange::Exchange;
use lockstep_exchange::output::{FLAG_MAKER, Output, OutputKind, OutputView};
use lockstep_exchange::reject::RejectCode;
use lockstep_perf::args::quantity::show_count;
use lockstep_perf::report::text::Table;
use serde_json::{Map, Value, json};

/// Codes below this have a cell of their own: all of the exchange's.
const CODES: usize = 64;

/// Counts of outputs.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Events of the exchange: each gives at least one output.
    pub(crate) events: u64,
    /// All outputs.
    pub(crate) outputs: u64,
    /// Trades.
    pub(crate) trades: u64,
    /// What was traded, all instruments together.
    pub(crate) volume: u64,
    rejects: [u64; CODES],
    other_rejects: BTreeMap<u16, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            events: 0,
            outputs: 0,
            trades: 0,
            volume: 0,
            rejects: [0; CODES],
            other_rejects: BTreeMap::new(),
        }
    }
}

const EXECUTED: u16 = OutputKind::Executed as u16;
const REJECTED: u16 = OutputKind::Rejected as u16;

impl Tally {
    /// Counts one output.
    #[inline]
    pub(crate) fn take(&mut self, output: &Output) {
        let header = &output.header;
        self.outputs += 1;
        self.events += u64::from(header.index == 0 && header.kind < SYSTEM_KINDS);
        if header.kind == EXECUTED {
            if header.flags & FLAG_MAKER != 0
                && let Some(OutputView::Executed(trade)) = output.view()
            {
                self.trades += 1;
                self.volume = self.volume.saturating_add(trade.quantity);
            }
        } else if header.kind == REJECTED
            && let Some(OutputView::Rejected(rejected)) = output.view()
        {
            match self.rejects.get_mut(usize::from(rejected.code)) {
                Some(count) => *count += 1,
                None => *self.other_rejects.entry(rejected.code).or_default() += 1,
            }
        }
    }

    /// Refusals by code, those that there were.
    fn rejects(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let own = (0_u16..).zip(self.rejects).filter(|(_, count)| *count > 0);
        own.chain(
            self.other_rejects
                .iter()
                .map(|(code, count)| (*code, *count)),
        )
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.rejects().map(|(_, count)| count).sum()
    }

    pub(crate) fn rows(&self, table: &mut Table) {
        let mut row = |name: &str, count: u64, note: String| {
            table.row([name.to_owned(), show_count(count), note]);
        };
        row("events", self.events, String::new());
        row("outputs", self.outputs, String::new());
        row(
            "trades",
            self.trades,
            format!("of {} units", show_count(self.volume)),
        );
        row("rejects", self.rejected(), String::new());
        for (code, count) in self.rejects() {
            row("", count, format!("code {code} {}", name_of(code)));
        }
    }

    pub(crate) fn json(&self, into: &mut Map<String, Value>) {
        let rejects: Vec<Value> = self
            .rejects()
            .map(|(code, count)| json!({ "code": code, "name": name_of(code), "count": count }))
            .collect();
        into.insert("events".into(), self.events.into());
        into.insert("outputs".into(), self.outputs.into());
        into.insert("trades".into(), self.trades.into());
        into.insert("volume".into(), self.volume.into());
        into.insert("rejected".into(), self.rejected().into());
        into.insert("rejects".into(), rejects.into());
    }
}

fn name_of(code: u16) -> &'static str {
    RejectCode::from_number(code).map_or_else(
        || lockstep_engine::system::code::meaning(code),
        RejectCode::name,
    )
}

/// The state behind the last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Everything before it is in the state.
    pub(crate) position: Position,
    /// Orders in the books.
    pub(crate) live_orders: u32,
    /// Trades since the log began.
    pub(crate) trades: u64,
    /// The hash of accounts, instruments and books, and of nothing that is the engine's.
    pub(crate) logic_hash: u64,
}

impl Standing {
    pub(crate) fn of(position: Position, exchange: &Exchange) -> Self {
        Self {
            position,
            live_orders: exchange.live_orders(),
            trades: exchange.trades(),
            logic_hash: exchange.state_hash(),
        }
    }

    pub(crate) fn rows(&self, table: &mut Table) {
        table.row(["live orders", &show_count(self.live_orders.into()), ""]);
        let since = format!("{} trades since the log began", show_count(self.trades));
        table.row(["position", &show_count(self.position.0), &since]);
        table.row(["logic_hash", &format!("{:016x}", self.logic_hash), ""]);
    }

    pub(crate) fn json(&self, into: &mut Map<String, Value>) {
        into.insert("live_orders".into(), self.live_orders.into());
        into.insert("trades_in_log".into(), self.trades.into());
        into.insert("position".into(), self.position.0.into());
        let hash = format!("{:016x}", self.logic_hash);
        into.insert("logic_hash".into(), hash.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_exchange::exchange::Bounds;
    use lockstep_exchange::load::generator::{Flow, Generator};
    use lockstep_exchange::load::{Loader, Options};

    #[test]
    fn what_is_counted_is_what_the_exchange_says() {
        let flow = Flow {
            messages: 20_000,
            resting: 500,
            ..Flow::default()
        };
        let mut exchange = Exchange::new(Bounds::small());
        let (mut tally, mut out) = (Tally::default(), Vec::new());
        let (mut events, mut refused) = (0, 0);
        for event in Loader::new(Generator::new(flow), Options::default()) {
            out.clear();
            refused += u64::from(exchange.handle(&event.unwrap(), events, &mut out).is_err());
            events += 1;
            out.iter().for_each(|output| tally.take(output));
        }
        assert_eq!((tally.events, tally.trades), (events, exchange.trades()));
        assert!(refused > 0);
        assert_eq!(tally.rejected(), refused);
    }
}

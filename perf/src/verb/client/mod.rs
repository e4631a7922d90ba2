//! `lockstep client`: trades with a cluster, or a node, over TCP, and says how long answers took.

mod load;
pub(crate) mod reach;

use std::io::Write as _;
use std::time::Duration;

use lockstep_engine::runtime::signals;
use lockstep_exchange::event::Event;
use lockstep_perf::args::quantity::{Units, count, duration, nanos, show_count, show_rate};
use lockstep_perf::exit::Exit;
use serde::Serialize;

use super::{Format, Global};
use load::{Outcome, Plan};
use reach::{ReachFlags, failed};

/// Arguments of `lockstep client`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep client --node node1.toml --orders 1000\n  \
                        lockstep client --node node1.toml --connections 8 --in-flight 256 --duration 10s\n  \
                        lockstep client --connect 127.0.0.1:7201,127.0.0.1:7202 --cluster demo --rate 500 --duration 30s\n\n\
                        Orders are answered exactly once: when a node dies, the client asks the next one\n\
                        with the same numbers, and goes on.\n\n\
                        Exit codes: 0 all answered · 1 nobody answered · 2 bad arguments · 4 some orders were never \
                        answered · 6 the nodes refuse this client · 130 interrupted"
)]
pub(crate) struct Args {
    #[command(flatten)]
    reach: ReachFlags,
    /// Orders, of all connections together; without --duration 1000
    #[arg(long, value_name = "N", value_parser = count)]
    orders: Option<u64>,
    /// For how long
    #[arg(long, value_name = "DUR", value_parser = duration)]
    duration: Option<Duration>,
    /// Connections, each with a client session of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Orders in flight on each connection; the nodes may allow fewer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Orders a second, of all connections together; without: each answer is followed by an order
    #[arg(long, value_name = "N/s", value_parser = lockstep_perf::args::quantity::rate)]
    rate: Option<u64>,
}

/// What is told, for programs.
#[derive(Debug, Serialize)]
struct Told {
    verb: &'static str,
    connections: u32,
    in_flight: u32,
    rate: Option<u64>,
    orders: u64,
    accepted: u64,
    refused: u64,
    refusals: Vec<Refusals>,
    repeated: u64,
    unanswered: u64,
    seconds: f64,
    orders_per_second: f64,
    response_ns: Percentiles,
    outage_ms: f64,
    busy: u64,
    lost_connections: u64,
    redirected: u64,
    sent_again: u64,
    position: u64,
    interrupted: bool,
}

#[derive(Debug, Serialize)]
struct Refusals {
    code: u16,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
}

/// Trades and tells.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    signals::watch()?;
    let event_size = u32::try_from(size_of::<Event>())?;
    let reach = args.reach.reach(event_size)?;
    let unlimited = if args.duration.is_some() {
        u64::MAX
    } else {
        1_000
    };
    let plan = Plan {
        clients: args.connections,
        in_flight: args.in_flight,
        orders: args.orders.unwrap_or(unlimited),
        duration: args.duration.unwrap_or(Duration::MAX),
        rate: args.rate.unwrap_or(0),
    };
    let outcome = load::run(&reach, &plan, signals::is_asked_to_end).map_err(failed)?;
    let told = Told::of(args, &outcome);
    let mut out = std::io::stdout().lock();
    match global.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?,
        Format::Text => out.write_all(told.text(global.units.into()).as_bytes())?,
        Format::Quiet => {}
    }
    Ok(if told.unanswered > 0 {
        Exit::Missed
    } else if told.interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

impl Told {
    fn of(args: &Args, outcome: &Outcome) -> Told {
        let at = |percent| outcome.response_ns.value_at_percentile(percent);
        let seconds = outcome.took.as_secs_f64();
        let answered = outcome.accepted + outcome.refused;
        Told {
            verb: "client",
            connections: args.connections,
            in_flight: args.in_flight,
            rate: args.rate,
            orders: outcome.asked,
            accepted: outcome.accepted,
            refused: outcome.refused,
            refusals: outcome
                .codes
                .iter()
                .map(|(code, count)| Refusals {
                    code: *code,
                    count: *count,
                })
                .collect(),
            repeated: outcome.repeated,
            unanswered: outcome.unanswered,
            seconds,
            #[expect(
                clippy::cast_precision_loss,
                reason = "a rate is told with three digits"
            )]
            orders_per_second: answered as f64 / seconds.max(1e-9),
            response_ns: Percentiles {
                p50: at(50.0),
                p90: at(90.0),
                p99: at(99.0),
                p99_9: at(99.9),
                max: outcome.response_ns.max(),
            },
            outage_ms: outcome.outage.as_secs_f64() * 1e3,
            busy: outcome.busy,
            lost_connections: outcome.lost_connections,
            redirected: outcome.redirected,
            sent_again: outcome.sent_again,
            position: outcome.position,
            interrupted: signals::is_asked_to_end(),
        }
    }

    fn text(&self, units: Units) -> String {
        let show = |ns| units.show(ns);
        let response = &self.response_ns;
        let mut text = format!(
            "orders    {} accepted, {} refused, {} unanswered, up to position {}\n\
             rate      {}, {:.2} s\n\
             response  p50 {}, p90 {}, p99 {}, p99.9 {}, max {}\n\
             outage    {} between two answers, at most\n\
             repeats   {} sent again, {} of them answered before; {} busy, {} connections lost, {} redirects\n",
            show_count(self.accepted),
            show_count(self.refused),
            show_count(self.unanswered),
            show_count(self.position),
            show_rate(self.orders_per_second),
            self.seconds,
            show(response.p50),
            show(response.p90),
            show(response.p99),
            show(response.p99_9),
            show(response.max),
            show(nanos(Duration::from_secs_f64(self.outage_ms / 1e3))),
            show_count(self.sent_again),
            show_count(self.repeated),
            show_count(self.busy),
            show_count(self.lost_connections),
            show_count(self.redirected),
        );
        for refusals in &self.refusals {
            text.push_str(&format!(
                "refused   {} by code {}\n",
                show_count(refusals.count),
                refusals.code
            ));
        }
        text
    }
}

//! An exchange: limit order books, accounts and pre-trade risk, fed by real order flow.
//!
//! ```text
//!    load/*  LOBSTER, ITCH, DBN, Bitstamp, generator
//!      │ events (64 B)
//!      ▼
//!   exchange ── risk ────────────────► refused, by number
//!      ├── people   accounts, balances, positions, sessions
//!      ├── stuff    instruments, ticks, collars, states
//!      └── deals    books, trades ── book ── matching ── store ── ladder, idmap
//!      │ outputs (64 B)
//!      ▼
//! ```
//!
//! [`book::OrderBook`] is worth using alone; [`exchange::Exchange`] is the logic that an
//! engine runs ([`logic`]): `validate`, then `apply`. Both are deterministic and allocate
//! nothing while they run.

pub mod book;
mod deals;
pub mod event;
pub mod exchange;
mod idmap;
mod ladder;
pub mod load;
pub mod logic;
mod matching;
pub mod output;
pub mod people;
mod place;
pub mod price;
pub mod reject;
mod report;
mod risk;
pub mod state;
mod store;
mod stuff;

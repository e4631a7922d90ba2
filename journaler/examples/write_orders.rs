//! Writes a journal of an event type of its own, and reads it back:
//! `cargo run --release -p lockstep-journaler --example write_orders -- DIR COUNT [--mode sync|direct|async] [--frame EVENTS]`.
//!
//! Afterwards `lockstep journal inspect DIR`, `dump DIR`, `seek DIR` and the others show the orders
//! with their field names, although the program has never seen this type.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a program for the terminal, with a clock of its own and made-up numbers"
)]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{Frame, From, Journal, Mode, Options};

/// An order as the log keeps it: 64 bytes, no padding.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Order {
    time_ns: u64,
    session: u32,
    request: u32,
    kind: u16,
    version: u16,
    side: u8,
    flags: u8,
    is_urgent: u8,
    reserved: u8,
    price: i64,
    quantity: u64,
    order_id: u64,
    symbol: [u8; 8],
    levels: [u16; 4],
}

lockstep_journaler::schema! {
    /// What this example writes.
    ORDERS: "example.orders" version 1 for Order, kind by kind;
    header { time_ns: time; session: plain; request: plain; kind: plain; version: plain; }
    1 = "new-order" as Order {
        side: enumeration { buy = 1, sell = 2 };
        flags: flags { post_only = 1, hidden = 2, reduce_only = 4 };
        is_urgent: boolean;
        reserved: padding;
        price: decimal(4);
        quantity: plain;
        order_id: plain;
        symbol: chars;
        levels: plain;
    }
    2 = "cancel" as Order {
        side: enumeration { buy = 1, sell = 2 };
        flags: flags { by_broker = 1 };
        is_urgent: boolean;
        reserved: padding;
        price: padding;
        quantity: padding;
        order_id: plain;
        symbol: chars;
        levels: padding;
    }
}

const SYMBOLS: [&[u8; 8]; 4] = [b"ACME\0\0\0\0", b"GLOBEX\0\0", b"INITECH\0", b"UMBRELLA"];
/// 2026-01-05T09:00:00Z, a Monday.
const OPENING_NS: u64 = 1_767_603_600_000_000_000;

fn order(number: u64) -> Order {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let is_cancel = number % 5 == 4;
    let common = Order {
        time_ns: OPENING_NS + number * 1_000,
        session: (mixed % 40) as u32,
        request: (number / 40) as u32,
        kind: 1 + u16::from(is_cancel),
        version: 1,
        side: 1 + (mixed >> 8 & 1) as u8,
        order_id: if is_cancel { number - 4 } else { number },
        symbol: *SYMBOLS[(mixed >> 16 & 3) as usize],
        ..Order::zeroed()
    };
    if is_cancel {
        return common;
    }
    Order {
        flags: (mixed >> 20 & 7) as u8,
        is_urgent: u8::from(mixed >> 24 & 63 == 0),
        price: 1_000_000 + (mixed >> 30 & 0xfff) as i64 * 25,
        quantity: 100 * (1 + (mixed >> 42 & 15)),
        levels: [1, 2, 3, (mixed >> 50) as u16 & 7],
        ..common
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let mode = match value("--mode").unwrap_or("sync") {
        "sync" => Some(Mode::Sync),
        "direct" => Some(Mode::Direct),
        "async" => Some(Mode::Async {
            max_unsynced_bytes: 8 << 20,
            interval: Duration::from_millis(10),
        }),
        _ => None,
    };
    let count = arguments.get(1).and_then(|count| count.parse::<u64>().ok());
    let frame = value("--frame").map_or(Some(1024), |events| events.parse::<usize>().ok());
    let (Some(mode), Some(count), Some(frame @ 1..=32_768)) = (mode, count, frame) else {
        eprintln!("usage: write_orders DIR COUNT [--mode sync|direct|async] [--frame 1..32768]");
        return ExitCode::from(2);
    };
    match write(&arguments[0], count, mode, frame) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

/// Groups of up to 4 MiB, as they are when the disk is the limit.
fn write(directory: &str, count: u64, mode: Mode, frame: usize) -> Result<(), Box<dyn Error>> {
    let options = Options::new(&ORDERS).with_mode(mode);
    let (mut journal, recovered) = Journal::open(Disk::create(directory)?, &options)?;
    let first = recovered.reached.position.0;
    println!(
        "{directory}: mode {}, from position {first}, {:?}",
        mode.name(),
        recovered.verdict
    );

    let per_group = usize::try_from(options.max_write_bytes)? / (64 * (frame + 1)) * frame - frame;
    let per_group = per_group.max(frame);
    let mut cutter = journal.cutter();
    let mut orders = vec![Order::zeroed(); per_group];
    let (mut headers, started) = (Vec::new(), Instant::now());
    let mut in_journal = Duration::ZERO;
    let mut done = 0;
    while done < count {
        let here = usize::try_from(count - done)?.min(per_group);
        for (at, slot) in orders[..here].iter_mut().enumerate() {
            *slot = order(first + done + at as u64);
        }
        let before = Instant::now();
        headers.clear();
        for events in orders[..here].chunks(frame) {
            let time_ns = events.last().map_or(0, |event| event.time_ns);
            headers.push(cutter.cut([bytemuck::cast_slice(events), &[]], time_ns));
        }
        let bodies = orders[..here].chunks(frame);
        let group: Vec<Frame<'_>> = headers
            .iter()
            .zip(bodies)
            .map(|(header, events)| Frame {
                header,
                body: [bytemuck::cast_slice(events), &[]],
            })
            .collect();
        journal.write(&group)?;
        journal.sync()?;
        in_journal += before.elapsed();
        done += here as u64;
    }
    let (counters, health) = (journal.counters(), journal.health());
    let rate = |events: u64, time: Duration| events as f64 / time.as_secs_f64() / 1e6;
    println!(
        "wrote {count} orders in {:.3} s: {:.2} M/s in all, {:.2} M/s in the journal, {:.0} MB/s",
        started.elapsed().as_secs_f64(),
        rate(count, started.elapsed()),
        rate(count, in_journal),
        counters.bytes as f64 / in_journal.as_secs_f64() / 1e6,
    );
    println!("{counters:?}\n{health:?}");
    journal.close()?;
    read(directory, first, count)
}

fn read(directory: &str, first: u64, count: u64) -> Result<(), Box<dyn Error>> {
    let mut reader = lockstep_journaler::Reader::open(
        Disk::at(directory)?,
        From::Position(lockstep_journaler::Position(first)),
    )?;
    let started = Instant::now();
    let (mut seen, mut sum) = (0, 0u64);
    while let Some(frame) = reader.next_frame()? {
        let orders = frame.events::<Order>()?;
        seen += orders.len() as u64;
        sum = sum.wrapping_add(orders[0].order_id);
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = seen as f64 / seconds / 1e6;
    println!("read {seen} orders in {seconds:.3} s: {rate:.1} M/s (sum {sum:x})");
    if seen == count {
        Ok(())
    } else {
        Err(format!("wrote {count}, read {seen}").into())
    }
}

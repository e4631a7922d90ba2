//! Files become the events that the table of each format says, bad rows are told, real
//! files (of `LOCKSTEP_DATA`) run through the exchange.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};

use lockstep_exchange::event::{Event, InstrumentState, Side, View};
use lockstep_exchange::exchange::{Bounds, Exchange};
use lockstep_exchange::load::bitstamp::Bitstamp;
use lockstep_exchange::load::generator::{Flow, Generator};
use lockstep_exchange::load::itch::Itch;
use lockstep_exchange::load::lobster::Lobster;
use lockstep_exchange::load::{
    Format, LoadError, Loader, OnBad, Options, Problem, Reason, Source, Summary, open, unpack,
};
use lockstep_exchange::output::Discard;

const SKIP: OnBad = OnBad::Skip;

fn options(on_bad: OnBad) -> Options {
    Options {
        on_bad,
        accounts: 1,
        ..Default::default()
    }
}

fn sample(name: &str) -> BufReader<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(name);
    BufReader::new(File::open(path).unwrap())
}

/// One line for each event that is about orders or states: short, and all that matters.
fn told(event: &Event) -> Option<String> {
    let name = |side: u8| {
        if side == Side::Buy as u8 {
            "buy"
        } else {
            "sell"
        }
    };
    Some(match event.view().unwrap() {
        View::NewOrder(b) => {
            let order = if b.account == 0 {
                "ioc".to_owned()
            } else {
                format!("#{}", b.order)
            };
            assert_eq!(b.time_in_force == 3, b.account == 0);
            format!(
                "{order} {} {} at {} in {}",
                name(b.side),
                b.quantity,
                b.price,
                b.instrument
            )
        }
        View::CancelOrder(b) => format!("cancel #{}", b.order),
        View::ReduceOrder(b) => format!("reduce #{} by {}", b.order, b.by),
        View::ReplaceOrder(b) => {
            format!(
                "replace #{} by #{}: {} at {}",
                b.order, b.new_order, b.quantity, b.price
            )
        }
        View::MassCancel(b) => format!("clear {}", b.instrument),
        View::SetInstrumentState(b) => format!("state {} {}", b.instrument, b.state),
        View::AddInstrument(b) => {
            format!(
                "instrument {} {}",
                b.instrument,
                String::from_utf8_lossy(&b.symbol).trim()
            )
        }
        _ => return None,
    })
}

fn read<S: Source>(source: S, on_bad: OnBad) -> (Vec<String>, Summary, Option<LoadError>) {
    let mut loader = Loader::new(source, options(on_bad));
    let (mut lines, mut error, mut time) = (Vec::new(), None, 0);
    for event in loader.by_ref() {
        match event {
            Ok(event) => {
                assert!(event.header.time >= time, "time goes on");
                time = event.header.time;
                lines.extend(told(&event));
            }
            Err(found) => error = Some(found),
        }
    }
    (lines, loader.summary().clone(), error)
}

#[test]
fn lobster_rows_become_events() {
    let (lines, summary, error) = read(Lobster::new(sample("lobster_message.csv")), SKIP);
    let expected = [
        "instrument 0 LOADED",
        "state 0 1",
        "#11 buy 100 at 1000000 in 0",
        "#12 sell 50 at 1000100 in 0",
        "reduce #11 by 40",
        "ioc buy 20 at 1000100 in 0",
        "cancel #11",
    ];
    assert_eq!(lines, expected);
    assert!(error.is_none());
    let reasons = [
        Reason::OrderBeforeFile,
        Reason::HiddenExecution,
        Reason::Halt,
    ];
    assert_eq!(summary.skipped, reasons.map(|reason| (reason, 1)).into());
    assert_eq!((summary.rows, summary.bad), (9, 1));
    let bad = "line 8: field 'order': expected a whole number, found 'x'";
    assert_eq!(summary.first_bad, [bad]);
}

#[test]
fn a_bad_row_stops_the_stream_where_that_is_asked_for() {
    let (lines, summary, error) = read(Lobster::new(sample("lobster_message.csv")), OnBad::Stop);
    assert_eq!(lines.len(), 6);
    assert_eq!(summary.rows, 8);
    let error = error.unwrap();
    assert!(
        error.to_string().starts_with("line 8: field 'order'"),
        "{error}"
    );
}

#[test]
fn lobster_begins_with_the_opening_book_where_it_is_given() {
    let messages = "1,1,11,100,1000000,1\n2,3,99,30,999900,1\n3,4,98,10,1000200,-1\n";
    let book = "1000200,40,1000000,100,1000300,7,999900,30,9999999999,0,-9999999999,0";
    let source = Lobster::new(messages.as_bytes())
        .opening_book(book)
        .unwrap();
    let (lines, summary, _) = read(source, OnBad::Stop);
    // The first message is in the row of the book: its 100 are not there at the opening.
    let amounts: Vec<&str> = lines[2..5]
        .iter()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        amounts,
        [
            "buy 30 at 999900 in 0",
            "sell 40 at 1000200 in 0",
            "sell 7 at 1000300 in 0"
        ]
    );
    assert_eq!(lines[5], "#11 buy 100 at 1000000 in 0");
    assert!(
        lines[6].starts_with("reduce #") && lines[6].ends_with(" by 30"),
        "{}",
        lines[6]
    );
    assert_eq!(lines[7], "ioc buy 10 at 1000200 in 0");
    assert_eq!(summary.skipped.len(), 0);
}

#[test]
fn bitstamp_rows_become_events() {
    let (lines, summary, _) = read(Bitstamp::new(sample("bitstamp_orders.csv")), SKIP);
    let expected = [
        "instrument 0 LOADED",
        "state 0 1",
        "#1 buy 200000000 at 23647 in 0",
        "#2 sell 100000000 at 23650 in 0",
        "reduce #1 by 21144331",
        "#3 buy 30000000 at 23660 in 0",
        "reduce #2 by 30000000",
        "cancel #1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(summary.skipped, [(Reason::OrderBeforeFile, 1)].into());
    let bad = "line 8: field 'price': '236.471': the number has more decimals than the scale holds";
    assert_eq!(summary.first_bad, [bad]);
}

#[test]
fn a_header_without_a_column_says_which() {
    let (lines, _, error) = read(Bitstamp::new("id,timestamp,price\n".as_bytes()), SKIP);
    assert!(lines.is_empty());
    assert_eq!(
        error.unwrap().to_string(),
        "line 0: the header has no column 'volume'"
    );
}

/// Messages as the specification of ITCH 5.0 lays them out, without prefix.
fn itch_messages() -> Vec<Vec<u8>> {
    let head = |kind: u8, locate: u16, time: u64| {
        let mut bytes = vec![kind];
        bytes.extend(locate.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&time.to_be_bytes()[2..]);
        bytes
    };
    let with = |mut head: Vec<u8>, parts: &[&[u8]]| {
        for part in parts {
            head.extend(*part);
        }
        head
    };
    let order = |number: u64| number.to_be_bytes();
    let size = |number: u32| number.to_be_bytes();
    vec![
        with(head(b'S', 0, 1), &[b"O"]),
        with(
            head(b'R', 3, 2),
            &[b"AAA     ", b"NN", &size(100), b"NNZ PNN2N", &size(0), b"N"],
        ),
        with(head(b'H', 3, 3), &[b"AAA     ", b"T ", b"    "]),
        with(
            head(b'A', 3, 4),
            &[&order(7), b"B", &size(100), b"AAA     ", &size(500_000)],
        ),
        with(
            head(b'F', 3, 5),
            &[
                &order(8),
                b"S",
                &size(60),
                b"AAA     ",
                &size(500_100),
                b"MMID",
            ],
        ),
        with(head(b'E', 3, 6), &[&order(8), &size(10), &order(900)]),
        with(
            head(b'C', 3, 7),
            &[&order(8), &size(5), &order(901), b"Y", &size(500_000)],
        ),
        with(head(b'X', 3, 8), &[&order(7), &size(30)]),
        with(
            head(b'U', 3, 9),
            &[&order(7), &order(17), &size(70), &size(499_900)],
        ),
        with(head(b'D', 3, 10), &[&order(17)]),
        with(head(b'D', 3, 11), &[&order(55)]),
        with(
            head(b'P', 3, 12),
            &[
                &order(0),
                b"B",
                &size(5),
                b"AAA     ",
                &size(500_050),
                &order(902),
            ],
        ),
        with(head(b'S', 0, 13), &[b"C"]),
    ]
}

const ITCH_EVENTS: [&str; 11] = [
    "instrument 3 AAA",
    "state 3 1",
    "#7 buy 100 at 500000 in 3",
    "#8 sell 60 at 500100 in 3",
    "ioc buy 10 at 500100 in 3",
    "ioc buy 5 at 500100 in 3",
    "reduce #7 by 30",
    "replace #7 by #17: 70 at 499900",
    "cancel #17",
    "state 3 3",
    "",
];

fn itch_file(real_prefix: bool) -> Vec<u8> {
    let mut file = Vec::new();
    for message in itch_messages() {
        let length = if real_prefix {
            u16::try_from(message.len()).unwrap()
        } else {
            0
        };
        file.extend(length.to_be_bytes());
        file.extend(message);
    }
    file
}

#[test]
fn itch_messages_become_events_with_either_prefix_packed_or_not() {
    let packed = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&itch_file(true)).unwrap();
        packer.finish().unwrap()
    };
    for file in [itch_file(true), itch_file(false), packed] {
        let reader = unpack(Cursor::new(file)).unwrap();
        let (lines, summary, error) = read(Itch::new(reader), OnBad::Stop);
        assert_eq!(lines, ITCH_EVENTS[..10]);
        assert!(error.is_none());
        let expected = [
            (Reason::OrderBeforeFile, 1),
            (Reason::TradeWithoutBook, 1),
            (Reason::NotAboutOrders, 1),
        ];
        assert_eq!(summary.skipped, expected.into());
        assert_eq!(summary.rows, 13);
    }
}

#[test]
fn an_itch_file_that_ends_anywhere_says_so_or_is_whole() {
    let file = itch_file(false);
    let ends: Vec<usize> = itch_messages()
        .iter()
        .scan(0, |end, message| {
            *end += message.len() + 2;
            Some(*end)
        })
        .collect();
    for length in 0..file.len() {
        let (_, _, error) = read(Itch::new(&file[..length]), SKIP);
        let whole = length == 0 || ends.contains(&length);
        assert_eq!(error.is_none(), whole, "{length}");
        if let Some(error) = error {
            assert!(
                matches!(error.problem, Problem::Truncated { .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn bad_itch_messages_are_told_by_offset() {
    let mut file = itch_file(true);
    let add_at = itch_messages()[..3]
        .iter()
        .map(|m| m.len() + 2)
        .sum::<usize>();
    file[add_at + 2 + 19] = b'?';
    let (lines, summary, _) = read(Itch::new(&file[..]), SKIP);
    assert_eq!(
        summary.first_bad,
        [format!("offset {add_at}: field 'side' cannot be '?'")]
    );
    assert_eq!(lines.len(), 6, "what follows is read: {lines:?}");
    let mut file = itch_file(false);
    file[add_at + 2] = b'z';
    let (_, _, error) = read(Itch::new(&file[..]), SKIP);
    let expected = format!("offset {add_at}: message type 0x7a is not one of ITCH 5.0");
    assert_eq!(error.unwrap().to_string(), expected);
}

#[test]
fn random_bytes_never_panic() {
    let mut random = crate::Random::new(8);
    for _ in 0..2_000 {
        let count = random.below(300);
        let bytes: Vec<u8> = (0..count)
            .map(|_| u8::try_from(random.below(256)).unwrap())
            .collect();
        let _ = read_any(Itch::new(&bytes[..]));
        let _ = read_any(Lobster::new(&bytes[..]));
        let _ = read_any(Bitstamp::new(&bytes[..]));
        let mut damaged = itch_file(random.below(2) == 0);
        let at = usize::try_from(random.below(u64::try_from(damaged.len()).unwrap())).unwrap();
        damaged[at] = u8::try_from(random.below(256)).unwrap();
        let _ = read_any(Itch::new(&damaged[..]));
    }
}

fn read_any<S: Source>(source: S) -> u64 {
    let mut loader = Loader::new(source, options(SKIP));
    let _ = loader.by_ref().filter(Result::is_ok).count();
    loader.summary().rows
}

#[cfg(feature = "dbn")]
mod dbn_format {
    use std::num::NonZeroU64;

    use dbn::encode::{DbnEncoder, EncodeRecord};
    use dbn::{FlagSet, MboMsg, MetadataBuilder, RecordHeader, SType, Schema, rtype};
    use lockstep_exchange::load::dbn::{Dbn, Trades};

    use super::*;

    type Short = (u8, u8, u64, i64, u32);

    /// Action, side, order, price in 1/10,000, size; the last group is a trade of 5 that
    /// takes from order 8.
    const RECORDS: [Short; 9] = [
        (b'A', b'B', 7, 1_000_000, 100),
        (b'A', b'A', 8, 1_000_100, 50),
        (b'M', b'B', 7, 1_000_000, 80),
        (b'M', b'B', 7, 999_900, 90),
        (b'C', b'B', 7, 999_900, 30),
        (b'T', b'B', 0, 1_000_100, 5),
        (b'F', b'A', 8, 1_000_100, 5),
        (b'C', b'A', 8, 1_000_100, 5),
        (b'R', b'N', 0, 0, 0),
    ];

    fn file(version: u8, zstd: bool) -> Vec<u8> {
        let metadata = MetadataBuilder::new()
            .version(version)
            .dataset("TEST.DATA".to_owned())
            .schema(Some(Schema::Mbo))
            .start(0)
            .end(NonZeroU64::new(1))
            .stype_in(Some(SType::InstrumentId))
            .stype_out(SType::InstrumentId)
            .build();
        let mut encoder = DbnEncoder::new(Vec::new(), &metadata).unwrap();
        for (number, (action, side, order_id, price, size)) in (1..).zip(RECORDS) {
            let message = MboMsg {
                hd: RecordHeader::new::<MboMsg>(rtype::MBO, 1, 4_711, number),
                order_id,
                price: price * 100_000,
                size,
                flags: FlagSet::default(),
                channel_id: 0,
                action: action.cast_signed(),
                side: side.cast_signed(),
                ts_recv: number,
                ts_in_delta: 0,
                sequence: 0,
            };
            encoder.encode_record(&message).unwrap();
        }
        let plain = encoder.get_ref().clone();
        if zstd { zstd_of(&plain) } else { plain }
    }

    /// A zstd frame of one raw block: what a decoder has to take, without an encoder.
    fn zstd_of(plain: &[u8]) -> Vec<u8> {
        let size = u32::try_from(plain.len()).unwrap();
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        frame.extend(size.to_le_bytes());
        frame.extend(&(size << 3 | 1).to_le_bytes()[..3]);
        frame.extend(plain);
        frame
    }

    #[test]
    fn records_become_events_in_every_version_packed_or_not() {
        for (version, zstd) in [(1, false), (2, false), (2, true), (3, false), (3, true)] {
            let source = Dbn::new(Cursor::new(file(version, zstd))).unwrap();
            let (lines, summary, error) = read(source, OnBad::Stop);
            let expected = [
                "instrument 0 4711",
                "state 0 1",
                "#7 buy 100 at 1000000 in 0",
                "#8 sell 50 at 1000100 in 0",
                "reduce #7 by 20",
                "replace #7 by #7: 90 at 999900",
                "reduce #7 by 30",
                "reduce #8 by 5",
                "clear 0",
            ];
            assert_eq!(lines, expected, "version {version}");
            assert!(error.is_none());
            assert_eq!(summary.skipped, [(Reason::BookFollows, 2)].into());
        }
    }

    #[test]
    fn trades_are_matched_where_that_is_asked_for() {
        let source = Dbn::new(Cursor::new(file(3, false)))
            .unwrap()
            .trades(Trades::Match);
        let (lines, summary, _) = read(source, OnBad::Stop);
        assert_eq!(lines[7..], ["ioc buy 5 at 1000100 in 0", "clear 0"]);
        // The fill, and the cancel that tells of it.
        assert_eq!(summary.skipped, [(Reason::BookFollows, 2)].into());
    }

    #[test]
    fn what_is_no_dbn_is_refused() {
        assert!(matches!(
            Dbn::new(Cursor::new(b"nothing".to_vec())),
            Err(Problem::Decoder(_))
        ));
        let whole = file(3, false);
        let source = Dbn::new(Cursor::new(whole[..whole.len() - 9].to_vec())).unwrap();
        let (lines, ..) = read(source, SKIP);
        assert_eq!(lines.len(), 8, "up to the record that is cut: {lines:?}");
    }

    #[test]
    fn a_price_finer_than_the_step_is_told() {
        let mut bytes = file(3, false);
        let first = bytes.len() - RECORDS.len() * size_of::<MboMsg>();
        bytes[first + 24] += 1;
        let (_, summary, _) = read(Dbn::new(Cursor::new(bytes)).unwrap(), SKIP);
        assert_eq!(
            summary.first_bad,
            ["record 1: field 'price' cannot be '100000000001'"]
        );
    }
}

#[test]
fn a_seed_gives_one_flow_that_trades_and_is_seldom_refused() {
    let flow = Flow {
        messages: 200_000,
        resting: 3_000,
        ..Flow::default()
    };
    let run = |flow: Flow| {
        let mut loader = Loader::new(Generator::new(flow), Options::default());
        run_through(&mut loader)
    };
    let (exchange, refused) = run(flow);
    let (again, refused_again) = run(flow);
    assert_eq!(exchange.state_hash(), again.state_hash());
    assert_eq!(refused, refused_again);
    let (other, _) = run(Flow { seed: 43, ..flow });
    assert_ne!(exchange.state_hash(), other.state_hash());
    assert!(exchange.trades() > 5_000, "{} trades", exchange.trades());
    assert!(refused < 40_000, "{refused} refused");
    assert!(
        exchange.live_orders() > 500,
        "{} live",
        exchange.live_orders()
    );
}

/// Runs a stream through an exchange; says how many events it refused.
fn run_through<S: Source>(loader: &mut Loader<S>) -> (Exchange, u64) {
    let bounds = Bounds {
        orders: 1 << 16,
        accounts: 64,
        instruments: 64,
        holdings: 4_096,
        sessions: 4,
    };
    let mut exchange = Exchange::new(bounds);
    let mut out = Discard::default();
    let mut refused = 0;
    for (position, event) in (0..).zip(loader) {
        let event = event.unwrap();
        refused += u64::from(exchange.handle(&event, position, &mut out).is_err());
    }
    exchange.invariants().unwrap();
    (exchange, refused)
}

/// The folder with files of others, or a loud word that there is none.
fn data(file: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("LOCKSTEP_DATA") else {
        println!("SKIPPED: {file} is not checked, since LOCKSTEP_DATA names no folder");
        return None;
    };
    let path = Path::new(&folder).join(file);
    assert!(
        path.exists(),
        "LOCKSTEP_DATA is set, but {} is missing",
        path.display()
    );
    Some(path)
}

const MESSAGES: &str = "lobster/AAPL_2012-06-21_34200000_57600000_message_10.csv";
const BOOKS: &str = "lobster/AAPL_2012-06-21_34200000_57600000_orderbook_10.csv";

#[test]
fn the_real_lobster_file_gives_the_best_prices_of_its_book() {
    let (Some(messages), Some(books)) = (data(MESSAGES), data(BOOKS)) else {
        return;
    };
    let books: Vec<String> = BufReader::new(File::open(books).unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    let source = Lobster::new(BufReader::new(File::open(messages).unwrap()));
    let source = source.opening_book(&books[0]).unwrap();
    let mut loader = Loader::new(source, Options::default());
    let mut exchange = Exchange::new(Bounds::small());
    let mut out = Discard::default();
    let (mut rows, mut refused) = (0, 0);
    let mut differing = Vec::new();
    let mut compare = |exchange: &Exchange, row: u64| {
        let book = &books[usize::try_from(row).unwrap() - 1];
        let expected: Vec<i64> = book
            .split(',')
            .take(4)
            .map(|n| n.parse().unwrap())
            .collect();
        let best = |side| exchange.depth(0, side).next().unwrap();
        let (ask, bid) = (best(Side::Sell), best(Side::Buy));
        let [asked, bidden] = [ask.quantity, bid.quantity].map(u64::cast_signed);
        if [ask.price, asked, bid.price, bidden] != expected[..] {
            differing.push(row);
        }
    };
    loop {
        let before = loader.summary().rows;
        let next = loader.next();
        // All events of the rows before are applied when the next row is read.
        if before > 0 && loader.summary().rows != before {
            compare(&exchange, before);
            rows = before;
        }
        let Some(event) = next else { break };
        refused += u64::from(exchange.handle(&event.unwrap(), rows, &mut out).is_err());
    }
    compare(&exchange, loader.summary().rows);
    println!(
        "{}; {} trades, {refused} refused",
        loader.summary(),
        exchange.trades()
    );
    println!("rows whose best prices differ: {differing:?}");
    assert_eq!(loader.summary().rows, books.len() as u64);
    assert_eq!(loader.summary().bad, 0);
    // The book of the file has bids below the best that no message brought (50 at 585.40
    // of order 13419503 the first of them). They are the best bids in some of the rows 441
    // to 487; all rows before and after are the same.
    assert!(
        differing.iter().all(|row| (441..=487).contains(row)),
        "{differing:?}"
    );
    assert_eq!(differing.len(), 41);
    assert!(exchange.trades() > 50);
}

#[test]
fn the_real_files_run_through_the_exchange() {
    let files = [
        ("itch/ex20101224.TEST_ITCH_50.gz", Format::Itch, 12_012),
        ("bitstamp/orders.csv.xz", Format::Bitstamp, 50_414),
        (MESSAGES, Format::Lobster, 999),
        #[cfg(feature = "dbn")]
        ("dbn/test_data.mbo.dbn", Format::Dbn, 2),
        #[cfg(feature = "dbn")]
        ("dbn/test_data.mbo.v2.dbn.zst", Format::Dbn, 2),
        #[cfg(feature = "dbn")]
        ("dbn/test_data.mbo.v3.dbn.zst", Format::Dbn, 2),
    ];
    for (file, format, rows) in files {
        let Some(path) = data(file) else { return };
        assert_eq!(Format::of(&path), Some(format));
        let mut loader = open(&path, None, Options::default()).unwrap();
        let (exchange, refused) = run_through(&mut loader);
        let (trades, live) = (exchange.trades(), exchange.live_orders());
        println!(
            "{file}: {}; {trades} trades, {refused} refused, {live} live",
            loader.summary()
        );
        assert_eq!(loader.summary().rows, rows, "{file}");
        assert_eq!(loader.summary().bad, 0, "{}", loader.summary());
    }
}

#[test]
fn a_file_that_cannot_be_loaded_says_why() {
    let missing = open("nowhere/x_message.csv".as_ref(), None, Options::default()).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("cannot load nowhere/x_message.csv: "),
        "{missing}"
    );
    let unknown = open("Cargo.toml".as_ref(), None, Options::default()).unwrap_err();
    assert!(matches!(unknown.problem, Problem::UnknownFormat));
    assert_eq!(InstrumentState::from_byte(3), Some(InstrumentState::Closed));
}

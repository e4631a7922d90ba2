//! All damage of a kind, not a sample of it.

use lockstep_journaler::scan::Fault;
use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{From, Options, ReadError, Reader, Verdict, Verify};

use crate::support::{Log, open, read_journal, small, write_durable, write_group};

/// Every subset of the sectors of the last group of three, on the disk at a crash: the first two
/// groups are there, the third wholly or not at all.
#[test]
fn every_sector_subset_of_the_last_group_is_kept_whole_or_cut() {
    let origin = Simulated::new(5);
    let mut log = Log::default();
    let (mut journal, _) = open(&origin, &small()).unwrap();
    write_durable(&mut journal, &mut log, 2, 8);
    let durable = log.reached();
    write_group(&mut journal, &mut log, &[20, 16], 0).unwrap();
    let sectors = origin.unsynced().len();
    assert!((5..=12).contains(&sectors), "{sectors} sectors");
    let mut torn = 0;
    for subset in 0u32..1 << sectors {
        let disk = origin.fork();
        let mut at = 0;
        disk.crash_keeping(|_| {
            at += 1;
            subset >> (at - 1) & 1 == 1
        });
        let (journal, recovered) =
            open(&disk, &small()).unwrap_or_else(|error| panic!("{subset:b}: {error}"));
        let is_whole = recovered.reached == log.reached();
        assert!(
            is_whole || recovered.reached == durable,
            "{subset:b}: {:?}",
            recovered.reached
        );
        let frames = recovered.reached.frames as usize;
        assert_eq!(
            read_journal(&journal).unwrap().frames,
            log.frames[..frames],
            "{subset:b}"
        );
        torn += u32::from(matches!(recovered.verdict, Verdict::TornTail(_)));
        if subset == (1 << sectors) - 1 {
            assert!(is_whole, "with all sectors the group is there");
        }
    }
    assert!(torn > 1, "{torn} torn tails in {} subsets", 1 << sectors);
}

/// A closed journal of three segments of 16 KiB, as small as they get.
fn smallest() -> (Simulated, Options, Log) {
    let options = Options {
        segment_bytes: 16 << 10,
        max_write_bytes: 1 << 10,
        verify: Verify::Full,
        ..small()
    };
    let disk = Simulated::new(6);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &options).unwrap();
    while journal.counters().rolls < 3 {
        write_group(&mut journal, &mut log, &[4, 0, 2], 0).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.close().unwrap();
    (disk, options, log)
}

#[derive(Debug, Default, Clone, Copy)]
struct Flips {
    refused: u64,
    harmless: u64,
}

/// Flips every `step`th bit of every file from the bit `first` on, one at a time: opened in full,
/// each flip is refused, or every frame is there.
fn flip(first: u64, step: usize) -> Flips {
    let (origin, options, log) = smallest();
    let mut flips = Flips::default();
    let mut names: Vec<String> = lockstep_journaler::directory::segments(&origin)
        .unwrap()
        .iter()
        .map(|id| id.file_name())
        .collect();
    names.push("journal.meta".to_owned());
    names.push("000000000000.idx".to_owned());
    for name in names {
        let bits = origin.durable_bytes(&name).unwrap().len() as u64 * 8;
        for bit in (first..bits).step_by(step) {
            let disk = origin.fork();
            disk.rot(&name, bit / 8, 1 << (bit % 8)).unwrap();
            match open(&disk, &options) {
                Err(_) => flips.refused += 1,
                Ok((journal, _)) => {
                    let found = read_journal(&journal)
                        .unwrap_or_else(|error| panic!("{name} bit {bit}: {error}"));
                    assert_eq!(
                        found.frames, log.frames,
                        "{name} bit {bit}: shortened in silence"
                    );
                    flips.harmless += 1;
                }
            }
        }
    }
    flips
}

/// A slice of `every_single_flipped_bit_is_refused_or_harmless`: a step that no structure shares.
#[test]
fn flipped_bits_are_refused_or_harmless() {
    let flips = flip(5, 61);
    assert!(flips.refused > 500 && flips.harmless > 100, "{flips:?}");
}

/// Every bit of every file. Minutes; see docs/TESTING.md.
#[test]
#[ignore = "exhaustive, minutes: cargo test --profile models -p lockstep-journaler --test it -- --ignored every_single"]
fn every_single_flipped_bit_is_refused_or_harmless() {
    const THREADS: usize = 4;
    let shares: Vec<Flips> = std::thread::scope(|scope| {
        let work: Vec<_> = (0..THREADS as u64)
            .map(|first| scope.spawn(move || flip(first, THREADS)))
            .collect();
        work.into_iter().map(|work| work.join().unwrap()).collect()
    });
    let refused: u64 = shares.iter().map(|share| share.refused).sum();
    let harmless: u64 = shares.iter().map(|share| share.harmless).sum();
    // The harness keeps what a test says to itself; `--nocapture` shows it.
    eprintln!("{refused} flips refused, {harmless} harmless");
    assert!(refused > 30_000 && harmless > 10_000, "{shares:?}");
}

/// `RD4`: zeros in the midst of a sealed segment, or at its end, are no end of the log.
#[test]
fn rd4_a_sealed_segment_that_ends_early_is_damage() {
    let (origin, _, log) = smallest();
    for zeros in [8192 + 640..8192 + 2_560, 8192 + 640..12_288] {
        let disk = origin.fork();
        let bytes = vec![0; (zeros.end - zeros.start) as usize];
        disk.overwrite("000000000001.seg", zeros.start, &bytes)
            .unwrap();
        let mut reader = Reader::open(disk, From::Oldest).unwrap();
        let mut read = 0;
        let error = loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    assert_eq!(*frame.header(), log.frames[read].0);
                    read += 1;
                }
                Ok(None) => panic!("{zeros:?}: ended after {read} frames"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("found zeros"), "{error}");
        assert!(read < log.frames.len());
    }
}

#[test]
fn damage_in_a_sealed_segment_is_named_by_the_reader() {
    let disk = Simulated::new(6);
    let mut log = Log::default();
    let (mut journal, _) = open(&disk, &small()).unwrap();
    write_durable(&mut journal, &mut log, 100, 8);
    journal.close().unwrap();
    disk.rot("000000000000.seg", 8192 + 640 + 64 + 64 + 3, 1)
        .unwrap();
    let (journal, _) = open(&disk, &small()).unwrap();
    let mut reader = journal.reader(From::Oldest).unwrap();
    assert!(reader.next_frame().unwrap().is_some());
    let error = reader.next_frame().unwrap_err();
    let ReadError::Damaged {
        place,
        position,
        fault,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((place.offset.0, position.0), (8192 + 640 + 64, 8));
    assert!(matches!(fault, Fault::BodyCrc { .. }));
    assert!(
        error
            .to_string()
            .contains("000000000000.seg at offset 8896"),
        "{error}"
    );
}

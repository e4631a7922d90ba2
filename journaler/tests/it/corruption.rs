//! All damage of a kind, not a sample of it.

use lockstep_journaler::scan::Fault;
use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{From, ReadError, Verdict, Verify};

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

/// Flips bits of a small closed journal of two segments: opened in full, each flip is refused, or
/// every frame is there. In the zeros behind the data one bit of each 64 bytes stands for its line.
#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let origin = Simulated::new(6);
    let mut log = Log::default();
    let (mut journal, _) = open(&origin, &small()).unwrap();
    while journal.counters().rolls < 2 {
        write_group(&mut journal, &mut log, &[20, 0, 12], 0).unwrap();
        journal.sync().unwrap();
        journal.step_background();
    }
    journal.close().unwrap();
    let full = lockstep_journaler::Options {
        verify: Verify::Full,
        ..small()
    };
    let (mut refused, mut harmless) = (0u32, 0u32);
    let mut names: Vec<String> = lockstep_journaler::directory::segments(&origin)
        .unwrap()
        .iter()
        .map(|id| id.file_name())
        .collect();
    names.push("journal.meta".to_owned());
    names.push("000000000000.idx".to_owned());
    for name in names {
        let bytes = origin.durable_bytes(&name).unwrap();
        for bit in chosen_bits(&bytes) {
            let disk = origin.fork();
            disk.rot(&name, bit / 8, 1 << (bit % 8)).unwrap();
            match open(&disk, &full) {
                Err(_) => refused += 1,
                Ok((journal, _)) => {
                    let found = read_journal(&journal)
                        .unwrap_or_else(|error| panic!("{name} bit {bit}: {error}"));
                    assert_eq!(
                        found.frames, log.frames,
                        "{name} bit {bit}: shortened in silence"
                    );
                    harmless += 1;
                }
            }
        }
    }
    assert!(
        refused > 1000 && harmless > 10,
        "{refused} refused, {harmless} harmless"
    );
}

/// All bits of lines of 64 bytes that hold something in small structures, three of others.
fn chosen_bits(bytes: &[u8]) -> Vec<u64> {
    let mut bits = Vec::new();
    for (at, line) in bytes.chunks(64).enumerate() {
        let base = at as u64 * 512;
        let is_mark_or_header = line.starts_with(b"LSM1") || line.starts_with(b"LSF1") || at < 4;
        if is_mark_or_header {
            // All bits of every fourth byte, and of each byte one.
            bits.extend(
                (0..512)
                    .filter(|bit| bit / 8 % 4 == 0 || bit % 8 == bit / 8 % 8)
                    .map(|bit| base + bit),
            );
        } else {
            bits.push(base + (at as u64 * 37) % 512);
        }
    }
    bits.retain(|bit| bit / 8 < bytes.len() as u64);
    bits
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

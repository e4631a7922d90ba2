//! The walk, over bytes that nobody wrote: it ends, it panics nowhere, and it hands out only what holds.

use std::sync::OnceLock;

use lockstep_journaler::frame::HEADER_BYTES;
use lockstep_journaler::scan::{Bytes, Step, Walk};
use lockstep_journaler::segment::SegmentHeader;
use lockstep_journaler::storage::{Mapped, Simulated, SimulatedFile};
use proptest::collection::vec;
use proptest::prelude::ProptestConfig;
use proptest::prelude::{any, prop_assert, proptest};

use crate::support::{Log, open, small, write_durable, write_group};

/// A segment as it is on the disk, with frames of several sizes.
fn segment() -> &'static [u8] {
    static SEGMENT: OnceLock<Vec<u8>> = OnceLock::new();
    SEGMENT.get_or_init(|| {
        let disk = Simulated::new(2);
        let mut log = Log::default();
        let (mut journal, _) = open(&disk, &small()).unwrap();
        write_durable(&mut journal, &mut log, 5, 3);
        write_group(&mut journal, &mut log, &[0, 1, 9], 0).unwrap();
        journal.sync().unwrap();
        disk.durable_bytes("000000000000.seg").unwrap()
    })
}

/// Walks to the end, and checks what the walk promises on the way.
fn walk(bytes: &[u8]) -> usize {
    let Ok(header) = SegmentHeader::decode(&bytes[..4096]) else {
        return 0;
    };
    let map = Mapped::copied(bytes.len(), |into| {
        into.copy_from_slice(bytes);
        Ok(())
    });
    let mut source: Bytes<SimulatedFile> = Bytes::Mapped(map.unwrap());
    let mut walk = Walk::new(&header);
    let (mut frames, mut steps) = (0, 0);
    loop {
        steps += 1;
        assert!(steps <= bytes.len() / HEADER_BYTES, "W1: the walk ends");
        match walk.step(&mut source) {
            Step::Mark { .. } => {}
            Step::Frame { at, header } => {
                let body = walk.body(at, &header, &mut source).unwrap();
                assert!(
                    header.is_sealed() && header.seals(body),
                    "RD1: what is handed out holds"
                );
                frames += 1;
            }
            Step::End { .. } | Step::Fault { .. } => return frames,
        }
    }
}

#[test]
fn the_segment_as_it_is_has_all_its_frames() {
    assert_eq!(walk(segment()), 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_segment_never_gives_what_does_not_hold(
        changes in vec((any::<u32>(), any::<u8>()), 1..40),
        is_near_start in any::<bool>(),
    ) {
        let mut bytes = segment().to_vec();
        let span = if is_near_start { 12_000 - 8192 } else { bytes.len() - 8192 };
        for (at, value) in changes {
            bytes[8192 + at as usize % span] = value;
        }
        prop_assert!(walk(&bytes) <= 8);
    }

    #[test]
    fn pieces_of_a_segment_moved_about_never_give_what_does_not_hold(
        moves in vec((any::<u16>(), any::<u16>(), 1u16..40), 1..10),
    ) {
        let mut bytes = segment().to_vec();
        let lines = (bytes.len() - 8192) / 64;
        for (from, to, count) in moves {
            let (from, to) = (from as usize % lines, to as usize % lines);
            let count = (count as usize).min(lines - from).min(lines - to);
            bytes.copy_within(8192 + from * 64..8192 + (from + count) * 64, 8192 + to * 64);
        }
        prop_assert!(walk(&bytes) <= 8);
    }
}

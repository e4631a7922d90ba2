//! The walk over a segment whose bytes the fuzzer chooses: `cargo +nightly fuzz run scan`.
//!
//! A valid header is put in front; `open` changes a real journal instead.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_journaler::SegmentId;
use lockstep_journaler::scan::{Bytes, Step, Walk};
use lockstep_journaler::schema::Schema;
use lockstep_journaler::segment::SegmentHeader;
use lockstep_journaler::storage::{Mapped, SimulatedFile};

fuzz_target!(|input: &[u8]| {
    let _ = Schema::decode(input);
    let _ = SegmentHeader::decode(input);
    let mut header = SegmentHeader::new([1; 16], [2; 16], SegmentId(3));
    header.segment_bytes = (8192 + input.len() as u64 + 8192).next_multiple_of(4096);
    header.event_size = 8 * (1 + u32::from(input.first().copied().unwrap_or(7)) % 32);
    header.schema_bytes = 128;
    let length = header.segment_bytes as usize;
    let map = Mapped::copied(length, |bytes| {
        bytes[..4096].copy_from_slice(&header.block());
        bytes[8192..8192 + input.len()].copy_from_slice(input);
        Ok(())
    });
    let mut bytes: Bytes<SimulatedFile> = Bytes::Mapped(map.expect("memory"));
    let mut walk = Walk::new(&header);
    for _ in 0..=length / 64 {
        match walk.step(&mut bytes) {
            Step::Mark { .. } => {}
            Step::Frame { at, header } => {
                let body = walk.body(at, &header, &mut bytes).expect("inside");
                assert!(header.seals(body));
            }
            Step::End { .. } | Step::Fault { .. } => return,
        }
    }
    panic!("W1: the walk ends");
});

//! Bytes from a peer, as the fuzzer likes them: `cargo +nightly fuzz run wire`.
//!
//! The first byte says how the rest is cut and whether heads get a CRC that holds, so that the fuzzer
//! comes behind it. Bytes are refused or become messages that encode to the same bytes; nothing
//! panics, and no length makes the decoder take more memory than was agreed on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_replicator::wire::{Decoder, HEAD_BYTES, Limits};

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if how & 1 == 1 && bytes.len() >= HEAD_BYTES {
        bytes[..3].copy_from_slice(b"LW\x01");
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..HEAD_BYTES]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let limits = Limits {
        event_size: 64,
        frame_bytes_max: 4 << 10,
        message_bytes_max: 16 << 10,
    };
    let mut decoder = Decoder::new(limits);
    let mut at = 0;
    for cut in bytes.chunks(usize::from(how >> 1) + 1) {
        decoder.push(cut);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    let mut again = Vec::new();
                    message.encode(&mut again);
                    assert_eq!(again, bytes[at..at + again.len()]);
                    at += again.len();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.buffer_bytes() <= 256 << 10);
    }
});

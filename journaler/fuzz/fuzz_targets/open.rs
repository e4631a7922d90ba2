//! Opening a journal with bytes changed as the fuzzer says: `cargo +nightly fuzz run open`.
//!
//! The input is a list of changes of 7 bytes: file, offset (4), how, value. The journal is refused,
//! or opens and gives frames that hold; it never panics.
#![no_main]

use std::sync::OnceLock;

use bytemuck::{Pod, Zeroable};
use libfuzzer_sys::fuzz_target;
use lockstep_journaler::storage::Simulated;
use lockstep_journaler::{Background, Frame, From, Journal, Options, Verify};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Event {
    words: [u64; 8],
}

lockstep_journaler::schema! {
    EVENTS: "fuzz.events" version 1 for Event, one kind;
    header { words: plain; }
    0 = "event" as Event {}
}

fn options() -> Options {
    Options {
        background: Background::Stepped,
        verify: Verify::Full,
        ..Options::new(&EVENTS).with_segment_bytes(32 << 10)
    }
}

/// Two segments, closed in order or not.
fn origin(is_closed: bool) -> &'static Simulated {
    static ORIGINS: OnceLock<[Simulated; 2]> = OnceLock::new();
    let origins = ORIGINS.get_or_init(|| {
        [false, true].map(|is_closed| {
            let disk = Simulated::new(1);
            let (mut journal, _) = Journal::open(disk.clone(), &options()).expect("fresh");
            let mut cutter = journal.cutter();
            for round in 0..60 {
                let events = [Event { words: [round; 8] }; 9];
                let body: [&[u8]; 2] = [bytemuck::cast_slice(&events), &[]];
                let header = cutter.cut(body, round);
                journal
                    .write(&[Frame {
                        header: &header,
                        body,
                    }])
                    .expect("room");
                journal.sync().expect("well");
                journal.step_background();
            }
            if is_closed {
                journal.close().expect("well");
            }
            disk
        })
    });
    &origins[usize::from(is_closed)]
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, changes)) = input.split_first() else {
        return;
    };
    let disk = origin(first & 1 == 1).fork();
    disk.crash_keeping(|_| true);
    for change in changes.chunks_exact(7).take(64) {
        let name = [
            "journal.meta",
            "000000000000.seg",
            "000000000001.seg",
            "000000000000.idx",
        ][usize::from(change[0] % 4)];
        let at = u32::from_le_bytes([change[1], change[2], change[3], change[4]]);
        let at = u64::from(at) % (33 << 10);
        let count = 1 << (change[5] % 12);
        let bytes = vec![change[6]; count];
        let _ = if count == 1 {
            disk.rot(name, at, change[6])
        } else {
            disk.overwrite(name, at, &bytes)
        };
    }
    let Ok((journal, _)) = Journal::open(disk, &options()) else {
        return;
    };
    let Ok(mut reader) = journal.reader(From::Oldest) else {
        return;
    };
    while let Ok(Some(frame)) = reader.next_frame() {
        assert!(frame.header().seals(frame.body()));
    }
});

//! Whatever is encoded comes back, however it is cut; whatever is changed is refused.

use lockstep_journaler::{FrameDraft, FrameHeader, Position, Term};
use proptest::prelude::*;

use super::*;
use crate::ids::{Epoch, NodeId};

const EVENT: u32 = 24;

fn limits() -> Limits {
    Limits {
        event_size: EVENT,
        frame_bytes_max: 1 << 12,
        message_bytes_max: 1 << 14,
    }
}

/// Frames behind `index`, with so many events each.
fn frames(index: u64, counts: &[u32]) -> Vec<SharedFrame> {
    let mut chain = 7;
    let mut position = 1_000;
    let mut frames = Vec::new();
    for (at, count) in counts.iter().enumerate() {
        let at = at as u64;
        let draft = FrameDraft {
            time_ns: 10 + at,
            term: Term(3),
            index: index + 1 + at,
            ..FrameDraft::default()
        };
        let fill = u8::try_from(at % 251).unwrap();
        let body = vec![fill; (*count * EVENT) as usize];
        let (front, back) = body.split_at(body.len() / 3);
        let body = [front, back];
        let header = FrameHeader::seal(&draft, Position(position), *count, body, chain);
        let frame = SharedFrame::new(header, body);
        position += u64::from(*count);
        chain = frame.header().header_crc();
        frames.push(frame);
    }
    frames
}

fn hello() -> Hello {
    Hello {
        cluster: "paris".parse().unwrap(),
        to: NodeId(2),
        connection: Connection::Control,
        fingerprint: 0x1234_5678_9abc_def0,
        boot: 99,
        own_kinds: 2,
        event_size: EVENT,
        frame_bytes_max: 1 << 12,
        message_bytes_max: 1 << 14,
        ring_slots: 4_096,
        logic_min: 1,
        logic_max: 3,
    }
}

#[test]
fn a_hello_from_before_generations_of_kinds_is_of_the_first() {
    let mut bytes = hello().encode();
    assert_eq!(Hello::decode(&bytes).unwrap(), hello());
    // A boot of 64 bits: nanoseconds since 1970.
    let boot = 1_764_079_200_000_000_000_u64;
    bytes[24..32].copy_from_slice(&boot.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Hello::decode(&bytes).unwrap().own_kinds, 1);
}

fn decode_all(decoder: &mut Decoder) -> Result<Vec<Message>, WireError> {
    let mut all = Vec::new();
    while let Some(message) = decoder.next()? {
        all.push(message);
    }
    Ok(all)
}

fn any_head() -> impl Strategy<Value = Head> {
    let kinds: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| !matches!(kind, Kind::Append | Kind::Hello | Kind::Piece))
        .collect();
    let words = proptest::array::uniform6(any::<u64>());
    (
        proptest::sample::select(kinds),
        1..=u16::MAX,
        any::<u32>(),
        words,
    )
        .prop_map(|(kind, from, epoch, words)| Head {
            kind,
            from: NodeId(from),
            shard: 0,
            epoch: Epoch(epoch),
            term: words[0],
            index: words[1],
            log_term: words[2],
            commit: words[3],
            a: words[4],
            b: words[5],
        })
}

fn any_message() -> impl Strategy<Value = Message> {
    let counts = proptest::collection::vec(0_u32..20, 0..6);
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        any_head().prop_map(Message::bare),
        (any_head(), 0..u64::MAX / 2, counts).prop_map(|(head, index, counts)| {
            Message::append(Head { index, ..head }, frames(index, &counts))
        }),
        (any_head(), any::<u64>(), bytes)
            .prop_map(|(head, offset, bytes)| Message::piece(head, offset, bytes)),
        any_head().prop_map(|head| Message::hello(head, hello())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn w4_what_is_encoded_comes_back_however_it_is_cut(
        messages in proptest::collection::vec(any_message(), 1..8),
        cuts in proptest::collection::vec(1_usize..200, 1..50),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            let before = bytes.len();
            message.encode(&mut bytes);
            prop_assert_eq!(bytes.len() - before, message.encoded_bytes());
        }
        let mut decoder = Decoder::new(limits());
        let mut came = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.push(now);
            came.extend(decode_all(&mut decoder).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(came, messages);
        prop_assert_eq!(decoder.waiting(), 0);
    }

    #[test]
    fn w2_a_flipped_bit_is_refused_or_waited_for_and_never_believed(
        message in any_message(),
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut decoder = Decoder::new(limits());
        decoder.push(&bytes);
        prop_assert!(decoder.next().is_err(), "byte {}", at);
        prop_assert!(decoder.next().is_err(), "nothing behind damage is believed");
    }

    #[test]
    fn any_bytes_at_all_are_refused_or_waited_for(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        seal in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if seal && bytes.len() >= HEAD_BYTES {
            // Heads that hold, of any kind, with any numbers.
            bytes[..3].copy_from_slice(b"LW\x01");
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..HEAD_BYTES]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let mut decoder = Decoder::new(limits());
        decoder.push(&bytes);
        let _ = decode_all(&mut decoder);
        prop_assert!(decoder.buffer_bytes() <= 2 << 16, "W1");
    }
}

#[test]
fn w4_split_at_every_byte() {
    let messages = [
        Message::hello(Head::new(Kind::Hello, NodeId(1)), hello()),
        Message::append(
            Head {
                index: 9,
                ..Head::new(Kind::Append, NodeId(1))
            },
            frames(9, &[2, 0, 1]),
        ),
        Message::bare(Head::new(Kind::Heartbeat, NodeId(1))),
    ];
    let mut bytes = Vec::new();
    for message in &messages {
        message.encode(&mut bytes);
    }
    for cut in 0..=bytes.len() {
        let mut decoder = Decoder::new(limits());
        decoder.push(&bytes[..cut]);
        let mut came = decode_all(&mut decoder).unwrap();
        decoder.push(&bytes[cut..]);
        came.extend(decode_all(&mut decoder).unwrap());
        assert_eq!(came, messages, "cut at {cut}");
    }
}

#[test]
fn w1_lengths_are_refused_before_memory_is_taken() {
    let head = Head {
        a: 1,
        b: u64::MAX,
        ..Head::new(Kind::Append, NodeId(1))
    };
    for (head, expected) in [
        (
            head,
            WireError::MessageLength {
                kind: Kind::Append,
                found: u64::MAX,
                limit: 1 << 14,
            },
        ),
        (
            Head {
                a: 3,
                b: 128,
                ..head
            },
            WireError::FrameCount {
                frames: 3,
                bytes: 128,
            },
        ),
        (
            Head {
                a: u64::MAX,
                ..head
            },
            WireError::FrameCount {
                frames: u64::MAX,
                bytes: u64::MAX,
            },
        ),
        (
            Head {
                a: 0,
                b: 64,
                ..head
            },
            WireError::FrameCount {
                frames: 0,
                bytes: 64,
            },
        ),
    ] {
        let mut decoder = Decoder::new(limits());
        decoder.push(&head.encode());
        assert_eq!(decoder.next(), Err(expected));
        assert!(decoder.buffer_bytes() <= 2 << 16);
    }
}

#[test]
fn w2_a_frame_longer_than_agreed_is_refused() {
    // 4,096 bytes are allowed: 170 events of 24.
    let message = |count| {
        Message::append(
            Head::new(Kind::Append, NodeId(1)),
            frames(0, std::slice::from_ref(&count)),
        )
    };
    let mut bytes = Vec::new();
    message(170).encode(&mut bytes);
    let mut decoder = Decoder::new(limits());
    decoder.push(&bytes);
    assert!(decoder.next().unwrap().is_some());
    bytes.clear();
    message(171).encode(&mut bytes);
    decoder.push(&bytes);
    assert!(matches!(
        decoder.next(),
        Err(WireError::FrameLength {
            found: 4_104,
            limit: 4_096,
            ..
        })
    ));
}

#[test]
fn w3_frames_that_do_not_go_on_are_refused() {
    let good = frames(4, &[1, 1, 1]);
    let head = Head {
        index: 4,
        ..Head::new(Kind::Append, NodeId(1))
    };
    let refused = |head: Head, frames: Vec<SharedFrame>| {
        let mut bytes = Vec::new();
        Message::append(head, frames).encode(&mut bytes);
        let mut decoder = Decoder::new(limits());
        decoder.push(&bytes);
        matches!(decoder.next(), Err(WireError::FrameOrder { .. }))
    };
    assert!(!refused(head, good.clone()));
    assert!(refused(Head { index: 3, ..head }, good.clone()), "index");
    assert!(
        refused(head, vec![good[0].clone(), good[2].clone()]),
        "a hole"
    );
    assert!(
        refused(head, vec![good[1].clone(), good[0].clone()]),
        "backwards"
    );
    let other = frames(5, &[1]);
    assert!(
        refused(head, vec![good[0].clone(), other[0].clone()]),
        "chain"
    );
}

#[test]
fn what_must_be_equal_is_compared_in_a_fixed_order() {
    let ours = hello();
    assert_eq!(ours.refuses(&hello()), None);
    let other = |change: fn(&mut Hello)| {
        let mut peer = hello();
        change(&mut peer);
        ours.refuses(&peer)
    };
    assert_eq!(
        other(|peer| peer.cluster = "rome".parse().unwrap()),
        Some(RefuseCode::Cluster)
    );
    assert_eq!(
        other(|peer| peer.frame_bytes_max = 1),
        Some(RefuseCode::Sizes)
    );
    assert_eq!(
        other(|peer| peer.fingerprint = 1),
        Some(RefuseCode::Fingerprint)
    );
    assert_eq!(
        other(|peer| {
            peer.logic_min = 4;
            peer.logic_max = 5;
        }),
        Some(RefuseCode::Logic)
    );
    assert_eq!(
        other(|peer| peer.own_kinds = 1),
        None,
        "nodes of two generations talk"
    );
    for code in 1..=11 {
        let code = RefuseCode::of_code(code).unwrap();
        assert!(!code.meaning().is_empty());
        assert_eq!(RefuseCode::of_code(code as u64), Some(code));
    }
    assert_eq!(RefuseCode::of_code(0), None);
    assert_eq!(RefuseCode::of_code(12), None);
}

#[test]
fn yesterdays_bytes_are_read_today() {
    let head = Head {
        kind: Kind::Vote,
        from: NodeId(0x0102),
        shard: 0,
        epoch: Epoch(5),
        term: 7,
        index: 0x1122_3344_5566_7788,
        log_term: 6,
        commit: 40,
        a: 1,
        b: 2,
    };
    let bytes = head.encode();
    assert_eq!(&bytes[..4], b"LW\x01\x04");
    assert_eq!(&bytes[8..16], &[2, 1, 0, 0, 5, 0, 0, 0]);
    assert_eq!(
        &bytes[16..32],
        &[
            7, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11
        ]
    );
    assert_eq!(Head::decode(&bytes), Ok(head));
    for kind in Kind::ALL {
        assert_eq!(Kind::of_code(*kind as u8), Some(*kind));
    }
}

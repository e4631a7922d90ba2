//! A client against nodes that the test plays, byte by byte.

use proptest::prelude::*;

use super::nodes::SILENT_TIMES;
use super::*;

fn options() -> MachineOptions {
    MachineOptions {
        cluster: "paris".parse().unwrap(),
        principal: "a".into(),
        token: String::new(),
        event_size: 8,
        window: 4,
        answer_within_ns: 1_000,
        retry_ns: 16,
    }
}

fn machine() -> Machine {
    let addresses = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()];
    Machine::new(options(), &addresses).unwrap()
}

/// What the machine wrote, as (kind, number, body).
fn sent(machine: &mut Machine) -> Vec<(PacketKind, u32, Vec<u8>)> {
    let mut packets = Packets::default();
    packets.push(machine.out());
    let count = machine.out().len();
    machine.written(count);
    let mut all = Vec::new();
    while let Some(packet) = packets.next().unwrap() {
        all.push((packet.kind, packet.number, packet.body.to_vec()));
    }
    all
}

fn give(machine: &mut Machine, now: u64, packet: Packet<'_>) -> Result<bool, ClientError> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes, &[]);
    machine.room()[..bytes.len()].copy_from_slice(&bytes);
    machine.filled(bytes.len(), now)
}

fn reply(session: u64, number: u32, position: u64) -> Vec<u8> {
    let head = ReplyHead {
        code: 0,
        is_repeated: false,
        is_cut: false,
        outputs: 0,
        output_size: 0,
    };
    let mut bytes = Vec::new();
    Packet::bare(PacketKind::Reply, number, session, position)
        .encode(&mut bytes, &[&head.encode()]);
    bytes
}

fn give_bytes(machine: &mut Machine, now: u64, bytes: &[u8]) -> bool {
    machine.room()[..bytes.len()].copy_from_slice(bytes);
    machine.filled(bytes.len(), now).unwrap()
}

fn make_ready(machine: &mut Machine, now: u64) {
    machine.connected(now);
    assert_eq!(sent(machine)[0].0, PacketKind::Hello);
    assert!(give(machine, now, Packet::bare(PacketKind::Welcome, 0, 1, 64)).unwrap());
    if machine.session().is_none() {
        assert_eq!(sent(machine)[0].0, PacketKind::Open);
        assert!(give(machine, now, Packet::bare(PacketKind::Opened, 1, 77, 76)).unwrap());
    }
    assert!(machine.is_ready());
}

#[test]
fn c2_replies_come_in_order_whatever_order_they_come_in() {
    let mut machine = machine();
    make_ready(&mut machine, 0);
    for slot in 1..=4_u8 {
        assert_eq!(machine.ask(&[slot; 8], 1), Ok(u32::from(slot)));
    }
    assert_eq!(machine.ask(&[5; 8], 1), Err(Full { in_flight: 4 }));
    assert!(!machine.turn(1));
    let numbers: Vec<u32> = sent(&mut machine).iter().map(|packet| packet.1).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for number in [2, 1, 4] {
        assert!(give_bytes(
            &mut machine,
            2,
            &reply(77, number, u64::from(number) + 100)
        ));
    }
    assert_eq!(machine.reply().unwrap().number, 1);
    assert_eq!(machine.reply().unwrap().number, 2);
    assert_eq!(machine.reply(), None);
    // A reply of another session, of a request long answered, or never asked, is nothing.
    for (session, number) in [(78, 3), (77, 1), (77, 900)] {
        assert!(give_bytes(&mut machine, 2, &reply(session, number, 1)));
    }
    assert_eq!(machine.reply(), None);
    assert!(give_bytes(&mut machine, 2, &reply(77, 3, 103)));
    assert_eq!(machine.reply().unwrap().position, 103);
    assert_eq!(machine.reply().unwrap().position, 104);
    assert_eq!(machine.in_flight(), 0);
}

#[test]
fn m4_a_session_whose_numbers_are_used_up_is_followed_by_another() {
    for is_connected in [true, false] {
        let mut machine = machine();
        make_ready(&mut machine, 0);
        machine.first = NUMBER_MAX - 1;
        assert_eq!(machine.ask(&[1; 8], 1), Ok(NUMBER_MAX - 1));
        assert_eq!(machine.ask(&[2; 8], 1), Ok(NUMBER_MAX));
        assert_eq!(machine.ask(&[3; 8], 1), Err(Full { in_flight: 2 }));
        machine.turn(1);
        sent(&mut machine);
        for number in [NUMBER_MAX - 1, NUMBER_MAX] {
            assert!(give_bytes(&mut machine, 2, &reply(77, number, 9)));
            assert_eq!(machine.reply().unwrap().number, number);
        }
        if !is_connected {
            machine.lost(3);
        }
        assert_eq!(machine.ask(&[3; 8], 3), Ok(1));
        assert_eq!(machine.session(), None);
        if is_connected {
            let kinds: Vec<PacketKind> = sent(&mut machine).iter().map(|one| one.0).collect();
            assert_eq!(kinds, [PacketKind::Close, PacketKind::Open]);
            assert!(!machine.turn(3));
            assert!(
                sent(&mut machine).is_empty(),
                "not in a session that is not open"
            );
        } else {
            machine.connected(4);
            let welcome = Packet::bare(PacketKind::Welcome, 0, 1, 64);
            assert!(give(&mut machine, 4, welcome).unwrap());
            assert_eq!(sent(&mut machine).last().unwrap().0, PacketKind::Open);
        }
        // What comes late of the old session is nothing to the new one.
        assert!(give_bytes(&mut machine, 5, &reply(77, 1, 9)));
        let opened = Packet::bare(PacketKind::Opened, 1, 99, 98);
        assert!(give(&mut machine, 5, opened).unwrap());
        assert_eq!(sent(&mut machine), [(PacketKind::Request, 1, vec![3; 8])]);
        assert!(give_bytes(&mut machine, 6, &reply(99, 1, 100)));
        let answer = machine.reply().unwrap();
        assert_eq!((answer.session, answer.number), (99, 1));
    }
}

#[test]
fn c1_after_a_lost_connection_the_same_numbers_are_asked_at_the_next_node() {
    let mut machine = machine();
    make_ready(&mut machine, 0);
    for slot in 1..=3_u8 {
        machine.ask(&[slot; 8], 1).unwrap();
    }
    machine.turn(1);
    sent(&mut machine);
    assert!(give_bytes(&mut machine, 2, &reply(77, 2, 9)));
    machine.lost(3);
    assert_eq!(machine.wants_connection(3), Some("b:1"));
    make_ready(&mut machine, 4);
    let again = sent(&mut machine);
    assert_eq!(
        again.iter().map(|packet| packet.1).collect::<Vec<_>>(),
        [1, 3],
        "2 has its answer"
    );
    assert_eq!(again[0].2, [1; 8]);
    assert_eq!(machine.counters().repeated, 2);
    assert_eq!(machine.session(), Some(77));
}

#[test]
fn a_silent_node_is_given_up_and_all_are_tried_before_it_waits() {
    let mut machine = machine();
    make_ready(&mut machine, 0);
    machine.ask(&[1; 8], 5).unwrap();
    assert!(!machine.turn(5));
    assert_eq!(machine.due_ns(), 1_005);
    assert!(!machine.turn(1_004));
    assert!(machine.turn(1_005), "no answer in time");
    assert_eq!(machine.wants_connection(1_005), Some("b:1"));
    machine.lost(1_005);
    assert_eq!(machine.wants_connection(1_005), Some("c:1"));
    machine.lost(1_005);
    assert_eq!(
        machine.wants_connection(1_005),
        None,
        "now it waits a little"
    );
    assert_eq!(
        machine.wants_connection(1_021),
        Some("b:1"),
        "a was silent, b only closed"
    );
}

#[test]
fn m3_a_silent_node_is_passed_over_though_others_name_it() {
    let mut machine = machine();
    make_ready(&mut machine, 0);
    machine.ask(&[1; 8], 0).unwrap();
    assert!(!machine.turn(0));
    assert!(machine.turn(1_000), "a hangs");
    assert_eq!(machine.wants_connection(1_000), Some("b:1"));
    machine.dialing(1_000);
    assert_eq!(machine.wants_connection(1_000), None, "one at a time");
    machine.connected(1_000);
    sent(&mut machine);
    let name = |machine: &mut Machine, now, address: &[u8]| {
        let welcome = Packet {
            body: address,
            ..Packet::bare(PacketKind::Welcome, 0, 2 | 1 << 16, 64)
        };
        assert!(!give(machine, now, welcome).unwrap());
    };
    // b has not noticed yet that a hangs.
    name(&mut machine, 1_001, b"a:1");
    assert_eq!(machine.address(), "c:1");
    let now = machine.due_ns().max(1_001);
    machine.dialing(now);
    assert_eq!(
        machine.due_ns(),
        now + 1_000,
        "nor for ever for a connection"
    );
    assert!(machine.turn(now + 1_000), "c is cut off");
    assert_eq!(machine.address(), "b:1", "the only one that speaks");
    // It speaks again, or enough time has passed: a is asked again.
    let late = now + 1_000 * SILENT_TIMES + 1_000;
    machine.connected(late);
    sent(&mut machine);
    name(&mut machine, late, b"a:1");
    assert_eq!(machine.address(), "a:1");
    // Where all were silent, they are asked in turn.
    for next in ["b:1", "c:1", "a:1", "b:1"] {
        let now = machine.due_ns().max(late);
        machine.dialing(now);
        assert!(machine.turn(now + 1_000));
        assert_eq!(machine.address(), next);
    }
}

#[test]
fn m2_busy_sends_that_one_and_all_behind_it_again() {
    let mut machine = machine();
    make_ready(&mut machine, 0);
    for slot in 1..=4_u8 {
        machine.ask(&[slot; 8], 1).unwrap();
    }
    machine.turn(1);
    sent(&mut machine);
    assert!(give_bytes(&mut machine, 2, &reply(77, 1, 9)));
    for number in [2, 3, 4] {
        let busy = Packet::bare(PacketKind::Busy, number, 77, 0);
        assert!(give(&mut machine, 2, busy).unwrap());
    }
    machine.turn(2);
    assert!(sent(&mut machine).is_empty(), "not at once");
    let due = machine.due_ns();
    assert!(due > 2);
    machine.turn(due);
    let numbers: Vec<u32> = sent(&mut machine).iter().map(|packet| packet.1).collect();
    assert_eq!(numbers, [2, 3, 4]);
}

#[test]
fn who_does_not_lead_names_the_leader_who_is_asked_at_once() {
    let mut machine = machine();
    machine.connected(0);
    sent(&mut machine);
    let welcome = Packet {
        body: b"c:1",
        ..Packet::bare(PacketKind::Welcome, 0, 1 | 3 << 16, 64)
    };
    assert!(!give(&mut machine, 0, welcome).unwrap());
    assert_eq!(machine.wants_connection(0), Some("c:1"));
    make_ready(&mut machine, 0);
    let not_leader = Packet {
        body: b"d:9",
        ..Packet::bare(PacketKind::NotLeader, 1, 77, 4)
    };
    assert!(!give(&mut machine, 1, not_leader).unwrap());
    assert_eq!(
        machine.wants_connection(1),
        Some("d:9"),
        "it was not in the list"
    );
    machine.lost(1);
    let next = machine.address().to_owned();
    assert!(["a:1", "b:1", "c:1"].contains(&next.as_str()));
    // Two that name each other are not asked in a tight loop.
    let mut waited = false;
    for _ in 0..20 {
        let other = if machine.address() == "a:1" {
            "b:1"
        } else {
            "a:1"
        };
        let now = machine.due_ns().max(1);
        waited |= now > 1;
        machine.connected(now);
        let name = Packet {
            body: other.as_bytes(),
            ..Packet::bare(PacketKind::NotLeader, 1, 77, 4)
        };
        assert!(!give(&mut machine, now, name).unwrap());
    }
    assert!(waited);
}

/// A client of three nodes, of which `c` leads from some time on. Before, each of them names whom `named` says;
/// behind it `a` and `b` name `c`. A question takes 100 µs. How late `c` is asked, and how many questions that took.
fn asked_behind(elected_ns: u64, named: impl Fn(&str) -> &'static str) -> (u64, u32) {
    let options = MachineOptions {
        answer_within_ns: 1_000_000_000,
        retry_ns: 10_000_000,
        ..options()
    };
    let addresses = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()];
    let mut machine = Machine::new(options, &addresses).unwrap();
    let (mut asks, mut now) = (0, 0);
    loop {
        now = machine.due_ns().max(now + 100_000);
        let address = machine.wants_connection(now).unwrap().to_owned();
        machine.dialing(now);
        machine.connected(now);
        sent(&mut machine);
        asks += 1;
        let is_elected = now >= elected_ns;
        if is_elected && address == "c:1" {
            return (now - elected_ns, asks);
        }
        let leader = if is_elected { "c:1" } else { named(&address) };
        let not_leader = Packet {
            body: leader.as_bytes(),
            ..Packet::bare(PacketKind::NotLeader, 1, 77, 0)
        };
        assert!(!give(&mut machine, now, not_leader).unwrap());
    }
}

#[test]
fn m5_who_is_elected_is_asked_within_an_eighth_of_the_outage() {
    for elected_ms in [0, 3, 15, 50, 120, 250, 333, 450, 700, 1_000, 2_000, 3_000] {
        let elected_ns = elected_ms * 1_000_000;
        let (late_ns, asks) = asked_behind(elected_ns, |_| "");
        let most_ns = (elected_ns / 8).max(10_000_000) * 9 / 8 + 300_000;
        assert!(late_ns <= most_ns, "{elected_ms} ms: {late_ns} ns late");
        assert!(asks <= 60, "{elected_ms} ms: {asks} asks");
    }
}

#[test]
fn m5_an_heir_that_does_not_lead_yet_is_asked_again_soon_and_not_in_a_tight_loop() {
    for elected_us in [150, 400, 700, 1_000, 2_000, 4_000, 8_000] {
        let elected_ns = elected_us * 1_000;
        let named = |address: &str| if address == "c:1" { "a:1" } else { "c:1" };
        let (late_ns, asks) = asked_behind(elected_ns, named);
        let most_ns = 2 * (elected_ns / 8).max(625_000) + 300_000;
        assert!(late_ns <= most_ns, "{elected_us} µs: {late_ns} ns late");
        assert!(asks <= 40, "{elected_us} µs: {asks} asks");
    }
}

#[test]
fn m5_an_outage_of_before_does_not_make_the_next_one_longer() {
    let mut machine = machine();
    machine.lost(0);
    make_ready(&mut machine, 100);
    machine.ask(&[1; 8], 200).unwrap();
    machine.turn(200);
    let later = 3 * super::nodes::RETRY_NS_MAX;
    machine.lost(later);
    for _ in 0..2 {
        assert_eq!(machine.due_ns(), later, "the others are asked at once");
        machine.dialing(later);
        machine.lost(later);
    }
    assert_eq!(machine.due_ns(), later + options().retry_ns);
}

#[test]
fn what_cannot_become_better_is_an_error() {
    let mut machine = machine();
    machine.connected(0);
    let refused = Packet {
        body: b"no",
        ..Packet::bare(PacketKind::Refused, 0, 0, 0xfe02)
    };
    let error = give(&mut machine, 0, refused).unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { code: 0xfe02, .. }),
        "{error}"
    );
    let mut machine = self::machine();
    make_ready(&mut machine, 0);
    machine.ask(&[0; 8], 0).unwrap();
    let head = ReplyHead {
        code: SESSION_UNKNOWN,
        is_repeated: false,
        is_cut: false,
        outputs: 0,
        output_size: 0,
    };
    let gone = Packet {
        body: &head.encode(),
        ..Packet::bare(PacketKind::Reply, 1, 77, 5)
    };
    let error = give(&mut machine, 0, gone).unwrap_err();
    assert!(matches!(
        error,
        ClientError::SessionGone {
            session: 77,
            number: 1
        }
    ));
    assert!(Machine::new(options(), &[]).is_err());
}

/// A cluster of one log that answers as the engine does: the number behind the last one is
/// applied, one that was applied before is answered again.
#[derive(Default)]
struct Log {
    last: u32,
    applied: Vec<(u32, Vec<u8>)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens between client and node, each request is applied once, in order, and
    /// answered once, in order.
    #[test]
    fn c1_c2_c3_each_request_is_applied_and_answered_once(
        faults in proptest::collection::vec(0_u8..10, 1..400),
    ) {
        let mut machine = machine();
        let mut log = Log::default();
        let mut now = 0;
        let mut asked = 0_u32;
        let mut answers = Vec::new();
        let mut blocked: Option<u32> = None;
        let mut faults = faults.into_iter().chain(std::iter::repeat(9));
        for _ in 0..5_000 {
            if answers.len() == 40 {
                break;
            }
            if asked < 40 && machine.ask(&asked.to_le_bytes().repeat(2), now).is_ok() {
                asked += 1;
            }
            now = now.max(machine.due_ns().min(now + 100));
            machine.turn(now);
            if machine.wants_connection(now).is_some() {
                machine.connected(now);
                blocked = None;
            }
            for (kind, number, body) in sent(&mut machine) {
                let fault = faults.next().unwrap();
                let mut out = Vec::new();
                match kind {
                    PacketKind::Hello => {
                        Packet::bare(PacketKind::Welcome, 0, 1, 64).encode(&mut out, &[]);
                    }
                    PacketKind::Open => {
                        Packet::bare(PacketKind::Opened, number, 77, 1).encode(&mut out, &[]);
                    }
                    _ if fault == 0 => {
                        // Lost before it was written.
                        machine.lost(now);
                        break;
                    }
                    _ if fault == 1 || blocked.is_some_and(|at| number > at) => {
                        blocked = Some(blocked.map_or(number, |at| at.min(number)));
                        Packet::bare(PacketKind::Busy, number, 77, 0).encode(&mut out, &[]);
                    }
                    _ => {
                        blocked = None;
                        if number == log.last + 1 {
                            log.last = number;
                            log.applied.push((number, body));
                        }
                        prop_assert!(number <= log.last, "a gap: {} after {}", number, log.last);
                        if fault == 2 {
                            // Written, and the answer is lost.
                            machine.lost(now);
                            break;
                        }
                        out = reply(77, number, u64::from(number));
                    }
                }
                prop_assert!(give_bytes(&mut machine, now, &out));
            }
            while let Some(reply) = machine.reply() {
                answers.push(reply.number);
            }
        }
        prop_assert_eq!(answers, (1..=40).collect::<Vec<u32>>());
        for (at, (number, body)) in log.applied.iter().enumerate() {
            prop_assert_eq!(*number as usize, at + 1);
            prop_assert_eq!(body, &u32::try_from(at).unwrap().to_le_bytes().repeat(2));
        }
        prop_assert_eq!(log.applied.len(), 40);
    }
}

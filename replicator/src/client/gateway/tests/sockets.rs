//! A port in a process that has no descriptors left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;

/// In the process that runs this test again with few files.
const FEW_FILES: &str = "LOCKSTEP_TEST_FEW_FILES";

#[test]
fn g7_without_sockets_the_port_rests_one_operator_comes_in_and_then_all_do() {
    if std::env::var_os(FEW_FILES).is_some() {
        return without_sockets();
    }
    // The limit is the whole process's: this one has other tests.
    let name = "client::gateway::tests::sockets::g7_without_sockets_the_port_rests_one_operator_comes_in_and_then_all_do";
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(FEW_FILES, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{complained}"
    );
}

fn without_sockets() {
    let mut gateway = gateway(GatewaySettings {
        greet_within: Duration::from_secs(5),
        ..settings()
    });
    let mut model = Model::with_room(10);
    // The kernel takes them in; nobody has accepted them yet.
    let address = gateway.address().unwrap();
    let knock = |kind| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut bytes = hello("raw");
        Packet::bare(kind, 1, 0, 0).encode(&mut bytes, &[b"status"]);
        socket.write_all(&bytes).unwrap();
        socket
    };
    let mut sockets = [
        knock(PacketKind::Open),
        knock(PacketKind::Admin),
        knock(PacketKind::Open),
    ];
    let mut files = Vec::new();
    // Ends: at the limit.
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    assert!(!files.is_empty());
    let heard = |socket: &mut TcpStream| {
        let mut bytes = [0; 4096];
        let count = socket.read(&mut bytes).unwrap_or(0);
        let (mut rest, mut kinds) = (&bytes[..count], Vec::new());
        while let Ok(Some((packet, length))) = Packet::decode(rest) {
            kinds.push(packet.kind);
            rest = &rest[length..];
        }
        kinds
    };
    let mut answers = |gateway: &mut Gateway, model: &mut Model, at: usize| {
        let (mut kinds, started) = (Vec::new(), Instant::now());
        while kinds.len() < 2 {
            assert!(
                started.elapsed() < LIMIT,
                "{at} was never answered: {kinds:?}"
            );
            turn(gateway, model, &mut []).unwrap();
            model.answer(gateway);
            kinds.extend(heard(&mut sockets[at]));
        }
        kinds
    };
    // The first gets the place that is kept, and is no operator.
    let refused = answers(&mut gateway, &mut model, 0);
    assert_eq!(refused, [PacketKind::Welcome, PacketKind::Refused]);
    let notice = gateway.take_notice().unwrap();
    assert!(notice.contains("open files"), "{notice}");
    // The port rests, and nobody looks at it without end.
    for _ in 0..100 {
        turn(&mut gateway, &mut model, &mut []).unwrap();
    }
    assert_eq!(gateway.traffic().without_socket, 1);
    let mut waiting = Waiting::default();
    let most = gateway.prepare(model.now_ns, &mut waiting);
    assert!(most > Duration::ZERO && most <= Duration::from_millis(100));
    // Behind the rest the place is an operator's. It is not told a second time.
    model.now_ns += 100_000_000;
    let answered = answers(&mut gateway, &mut model, 1);
    assert_eq!(answered, [PacketKind::Welcome, PacketKind::AdminAnswer]);
    assert_eq!(gateway.traffic().without_socket, 2);
    assert_eq!(gateway.take_notice(), None);
    assert_eq!(gateway.traffic().connections, 1);
    // There is room again: the others come in.
    files.clear();
    model.now_ns += 100_000_000;
    let opened = answers(&mut gateway, &mut model, 2);
    assert_eq!(opened, [PacketKind::Welcome, PacketKind::Opened]);
    // The operator had the place for as long as a greeting may take.
    model.now_ns += 5_000_000_000;
    turns_until(&mut gateway, &mut model, |gateway| gateway.last.is_none());
}

//! Connections that use a session which they did not open.

use super::*;

/// A client that has a session and one answer of it.
fn with_session(gateway: &mut Gateway, model: &mut Model) -> (Client, u64) {
    let mut clients = [client(&[gateway], &options())];
    clients[0].ask(&[1; 16]).unwrap();
    let mut answers = 0;
    until(gateway, model, &mut clients, |clients, _| {
        answers += usize::from(clients[0].reply().is_some());
        answers == 1
    })
    .unwrap();
    let [client] = clients;
    let session = client.session().unwrap();
    (client, session)
}

fn request(socket: &mut TcpStream, kind: PacketKind, session: u64, number: u32) {
    let body: &[u8] = match kind {
        PacketKind::Request => &[2; 16],
        _ => &[],
    };
    let mut bytes = Vec::new();
    Packet::bare(kind, number, session, 0).encode(&mut bytes, &[body]);
    socket.write_all(&bytes).unwrap();
}

/// The last packet before the connection ends, which leaves so many.
fn last_words(
    gateway: &mut Gateway,
    model: &mut Model,
    mut socket: TcpStream,
    left: usize,
) -> (PacketKind, u64) {
    turns_until(gateway, model, |gateway| gateway.clients.len() == left);
    let mut told = Vec::new();
    socket.read_to_end(&mut told).unwrap();
    let (_welcome, end) = Packet::decode(&told).unwrap().unwrap();
    let (packet, _) = Packet::decode(&told[end..]).unwrap().unwrap();
    (packet.kind, packet.b)
}

#[test]
fn g10_nothing_of_a_session_is_asked_for_who_may_not_use_it() {
    for kind in [PacketKind::Request, PacketKind::Close] {
        let mut gateway = gateway(settings());
        let mut model = Model::with_room(100);
        let (mut client, session) = with_session(&mut gateway, &mut model);
        let mut other = greeted(&mut gateway, &mut model);
        model.whose = Some(Admit::Busy);
        request(&mut other, kind, session, 1);
        turns_until(&mut gateway, &mut model, |gateway| {
            gateway.clients.values().any(|client| client.is_held)
        });
        // It waits, and does not keep the node awake meanwhile.
        let most = gateway.prepare(model.now_ns, &mut Waiting::default());
        assert!(most > Duration::ZERO);
        let (asked, of) = model.asked_whose.pop().unwrap();
        assert_eq!((of, model.asked_whose.len()), (session, 0));
        gateway.told_whose(asked, session, Err(code::SESSION));
        let told = last_words(&mut gateway, &mut model, other, 1);
        assert_eq!(told, (PacketKind::Refused, u64::from(code::SESSION)));
        // Nothing was written or answered, and whose it is goes on with the next number, asked no more.
        assert_eq!((model.log.len(), model.last[&session]), (1, 1));
        client.ask(&[3; 16]).unwrap();
        let mut answer = None;
        let mut clients = [client];
        until(&mut gateway, &mut model, &mut clients, |clients, _| {
            answer = clients[0].reply();
            answer.is_some()
        })
        .unwrap();
        assert_eq!(answer.map(|answer| answer.number), Some(2));
        assert!(model.asked_whose.is_empty());
    }
}

#[test]
fn g10_who_may_use_it_goes_on_without_asking_again() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(100);
    let (_client, session) = with_session(&mut gateway, &mut model);
    let mut back = greeted(&mut gateway, &mut model);
    model.whose = Some(Admit::Busy);
    for number in 1..=3 {
        request(&mut back, PacketKind::Request, session, number);
    }
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.clients.values().any(|client| client.is_held)
    });
    assert_eq!(model.log.len(), 1);
    let (asked, _) = model.asked_whose.pop().unwrap();
    gateway.told_whose(asked, session, Ok(()));
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.traffic().taken == 4
    });
    let numbers: Vec<u32> = model.log.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3], "the first one is a repetition");
    assert!(model.asked_whose.is_empty());
    // Under another leadership it is asked again.
    gateway.lead(Leadership::Soon);
    gateway.lead(Leadership::Here);
    request(&mut back, PacketKind::Request, session, 4);
    turns_until(&mut gateway, &mut model, |gateway| {
        gateway.clients.values().any(|client| client.is_held)
    });
    assert_eq!((model.asked_whose.len(), model.log.len()), (1, 3));
}

#[test]
fn g10_a_number_that_is_no_session_ends_the_connection_at_once() {
    let mut gateway = gateway(settings());
    let mut model = Model::with_room(100);
    let mut other = greeted(&mut gateway, &mut model);
    model.whose = Some(Admit::Refused(SESSION_UNKNOWN));
    request(&mut other, PacketKind::Request, 77, 1);
    let told = last_words(&mut gateway, &mut model, other, 0);
    assert_eq!(told, (PacketKind::Refused, u64::from(SESSION_UNKNOWN)));
    assert!(model.log.is_empty());
}

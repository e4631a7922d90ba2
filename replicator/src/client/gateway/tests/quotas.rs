//! What one principal may have in flight.

use std::time::Instant;

use super::*;

#[test]
fn g9_of_one_principal_no_more_is_in_flight_than_it_may_have() {
    let mut with_quota = settings();
    for name in ["desk", "other"] {
        with_quota.tokens.insert(name.into(), "secret".into());
    }
    with_quota.requests_per_principal = 3;
    let mut gateway = gateway(with_quota);
    let mut model = Model::with_room(100);
    let named = |name: &str| ClientOptions {
        principal: name.into(),
        token: "secret".into(),
        ..options()
    };
    let mut clients = [
        client(&[&gateway], &named("desk")),
        client(&[&gateway], &named("desk")),
        client(&[&gateway], &named("other")),
    ];
    until(&mut gateway, &mut model, &mut clients, |clients, _| {
        clients.iter().all(Client::is_ready)
    })
    .unwrap();
    // Alone a client keeps to it by its window.
    let [first, second, other] = &mut clients;
    for _ in 0..3 {
        first.ask(&[1; 16]).unwrap();
        other.ask(&[3; 16]).unwrap();
    }
    assert!(first.ask(&[1; 16]).is_err());
    let started = Instant::now();
    while model.log.len() < 6 {
        assert!(started.elapsed() < LIMIT, "it never came");
        turn(&mut gateway, &mut model, std::slice::from_mut(first)).unwrap();
        turn(&mut gateway, &mut model, std::slice::from_mut(other)).unwrap();
    }
    // Three are in flight of its name: the other client of the same name is refused, and nothing is written.
    second.ask(&[2; 16]).unwrap();
    let refused = loop {
        assert!(started.elapsed() < LIMIT, "it was never refused");
        match turn(&mut gateway, &mut model, std::slice::from_mut(second)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refused,
            ClientError::Refused {
                code: code::QUOTA,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(model.log.len(), 6);
    // What was answered is not in flight any more, and what went with its connection neither.
    model.answer(&mut gateway);
    let mut again = [client(&[&gateway], &named("desk"))];
    for _ in 0..2 {
        until(&mut gateway, &mut model, &mut again, |again, _| {
            again[0].is_ready()
        })
        .unwrap();
        for _ in 0..3 {
            again[0].ask(&[4; 16]).unwrap();
        }
        let before = model.log.len();
        while model.log.len() < before + 3 {
            assert!(started.elapsed() < LIMIT, "it never came");
            turn(&mut gateway, &mut model, &mut again).unwrap();
        }
        model.waiting.clear();
        again = [client(&[&gateway], &named("desk"))];
    }
}

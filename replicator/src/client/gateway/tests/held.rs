//! Clients of a node that is about to lead, or not.

use std::time::Instant;

use super::*;

#[test]
fn g8_who_asks_a_node_that_is_about_to_lead_waits_and_goes_on_or_elsewhere() {
    for comes_to_lead in [true, false] {
        let mut first = gateway(settings());
        let mut second = gateway(settings());
        first.lead(Leadership::Soon);
        let mut model = Model::with_room(100);
        let mut clients = [client(&[&first, &second], &options())];
        clients[0].ask(&[1; 16]).unwrap();
        let is_held = |gateway: &Gateway| gateway.clients.values().any(|client| client.is_held);
        let started = Instant::now();
        while !is_held(&first) {
            assert!(started.elapsed() < LIMIT, "it is never held");
            turn(&mut first, &mut model, &mut clients).unwrap();
        }
        // It waits without keeping the node awake, and nobody is asked.
        let mut waiting = Waiting::default();
        let most = first.prepare(model.now_ns, &mut waiting);
        assert!(most > Duration::ZERO);
        assert_eq!((model.position, clients[0].counters().redirected), (0, 0));
        assert_eq!((first.traffic().cut, first.traffic().redirected), (0, 0));
        let mut answer = None;
        if comes_to_lead {
            first.lead(Leadership::Here);
            until(&mut first, &mut model, &mut clients, |clients, _| {
                answer = clients[0].reply();
                answer.is_some()
            })
            .unwrap();
            assert_eq!(clients[0].counters().redirected, 0);
        } else {
            first.lead(Leadership::Elsewhere {
                leader: Some(NodeId(2)),
                address: second.address().unwrap().to_string(),
            });
            until(&mut second, &mut model, &mut clients, |clients, _| {
                waiting.clear();
                first.prepare(0, &mut waiting);
                waiting.wait(Duration::ZERO).unwrap();
                first.take(&waiting, |_| panic!("it does not lead"));
                answer = clients[0].reply();
                answer.is_some()
            })
            .unwrap();
            assert_eq!(clients[0].counters().redirected, 1);
        }
        assert_eq!(answer.map(|answer| answer.number), Some(1));
        assert_eq!(model.log.len(), 1, "applied once");
    }
}

#[test]
fn g8_one_that_leaves_while_it_waits_is_forgotten() {
    let mut gateway = gateway(settings());
    gateway.lead(Leadership::Soon);
    let mut model = Model::default();
    let mut clients = [client(&[&gateway], &options())];
    let started = Instant::now();
    while !gateway.clients.values().any(|client| client.is_held) {
        assert!(started.elapsed() < LIMIT, "it is never held");
        turn(&mut gateway, &mut model, &mut clients).unwrap();
    }
    drop(clients);
    gateway.lead(Leadership::Here);
    while !gateway.clients.is_empty() {
        assert!(started.elapsed() < LIMIT, "it is never forgotten");
        turn(&mut gateway, &mut model, &mut []).unwrap();
    }
}

//! Who comes, and whether that is believed (`G1`).

use super::{Gateway, Identity, Leadership, Principal};
use crate::client::code;
use crate::client::codec::{Greeting, Packet, PacketKind};
use crate::tls::{client_name, is_named};
use crate::transport::Security;

impl Gateway {
    /// The first packet: who is it, and is it believed (`G1`).
    pub(super) fn greet(&mut self, id: u64, packet: &Packet<'_>) {
        match self.judge(id, packet) {
            Ok(principal) => {
                let (leader, address) = match &self.leadership {
                    Leadership::Here | Leadership::Soon => (self.settings.node.0, ""),
                    Leadership::Elsewhere { leader, address } => {
                        (leader.map_or(0, |leader| leader.0), address.as_str())
                    }
                };
                let account = self.accounts.of(&principal);
                let window = self.accounts.window(account, self.settings.window_max);
                let nodes = u64::from(self.settings.node.0) | u64::from(leader) << 16;
                let welcome = Packet::bare(PacketKind::Welcome, 0, nodes, u64::from(window));
                let address = address.to_owned();
                let is_last = self.last == Some(id);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.principal = Some(principal);
                    client.account = account;
                    // G7
                    if !is_last {
                        client.deadline_ns = u64::MAX;
                    }
                }
                self.send(id, &welcome, &[address.as_bytes()]);
            }
            Err(code) => {
                self.refuse(id, 0, 0, code, code::meaning(code));
                self.end(id);
            }
        }
    }

    fn judge(&self, id: u64, packet: &Packet<'_>) -> Result<Principal, u16> {
        if packet.kind != PacketKind::Hello {
            return Err(code::NO_HELLO);
        }
        let greeting = Greeting::decode(packet.body).map_err(|_| code::MALFORMED)?;
        if greeting.cluster != self.settings.cluster.bytes() {
            return Err(code::CLUSTER);
        }
        if greeting.event_size != 0 && greeting.event_size != self.settings.event_size {
            return Err(code::EVENT_SIZE);
        }
        let tokens = &self.settings.tokens;
        let known = tokens
            .get(&greeting.principal)
            .is_some_and(|token| is_equal(token.as_bytes(), greeting.token.as_bytes()));
        if !tokens.is_empty() && !known {
            return Err(code::PRINCIPAL);
        }
        if let Security::Tls(_) = self.settings.security {
            let name = client_name(&self.settings.cluster, &greeting.principal);
            let shown = self
                .clients
                .get(&id)
                .and_then(|client| client.stream.certificate());
            if !shown.is_some_and(|shown| is_named(&shown, &name)) {
                return Err(code::PRINCIPAL);
            }
        }
        let identity = match self.settings.security {
            Security::Tls(_) => Identity::Certificate,
            Security::Loopback | Security::Plaintext if !tokens.is_empty() => Identity::Token,
            Security::Loopback | Security::Plaintext => Identity::Nobody,
        };
        let client = self.clients.get(&id).ok_or(code::NO_HELLO)?;
        Ok(Principal {
            name: greeting.principal,
            identity,
            address: client.address,
        })
    }
}

/// Compares without telling by its duration where the first difference is.
pub(super) fn is_equal(ours: &[u8], theirs: &[u8]) -> bool {
    let differences = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
    ours.len() == theirs.len() && differences == 0
}

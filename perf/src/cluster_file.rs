//! One node of a cluster as its file says it.
//!
//! ```toml
//! cluster = "paris"
//! node = 1
//! directory = "/var/lib/lockstep/1"
//! plaintext = true            # or [tls]; loopback only, unless it stands here
//! ack = "disks"               # what an acknowledgement means
//! tick_ms = 10
//! passive = false             # whether it starts without a logic
//!
//! [[peer]]                    # every node, this one too
//! node = 1
//! address = "127.0.0.1:7101"  # for nodes
//! client = "127.0.0.1:7201"   # for clients
//!
//! [clients]                   # who may come; whoever does, unless it is said
//! tokens = { desk = "a long secret" }
//! admins = ["desk"]
//!
//! [engine]                    # with the engine's own names
//! slots = 65536
//! ```
//!
//! A key that is not known is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::exit::{Refusal, one_line};
use anyhow::{Context as _, bail};
use lockstep_engine::Config;
use lockstep_engine::cluster::{ClientsOptions, DriverOptions, NodeOptions};
use lockstep_replicator::tls::{Tls, TlsFiles};
use lockstep_replicator::transport::Security;
use lockstep_replicator::{Ack, Epoch, NodeId, ReplicaOptions, Sites};
use serde::Deserialize;

/// Ticks without a leader before a follower asks to be one, at least: 10 of 10 ms.
const TICK_MS: u64 = 10;

/// Bytes of a client's name, and of its token, in its greeting.
const NAME_BYTES_MAX: usize = 32;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The cluster's name: 1 to 16 of a-z, 0-9 and `-`.
    pub cluster: String,
    /// Which node this is.
    pub node: u16,
    /// Raised by an operator who forces the cluster to go on.
    #[serde(default)]
    pub epoch: u32,
    /// Where its journal is; relative to the file.
    pub directory: PathBuf,
    /// What an acknowledgement means. Default `disks`.
    #[serde(default)]
    pub ack: Option<String>,
    /// Milliseconds between two ticks. Default 10.
    #[serde(default)]
    pub tick_ms: Option<u64>,
    /// Whether logic and outputs have a thread of their own, beside that of sockets and journal. Default:
    /// where there are more than two CPUs.
    #[serde(default)]
    pub logic_thread: Option<bool>,
    /// Whether it starts without a logic: it journals, acknowledges and votes, and answers nobody. Default no.
    #[serde(default)]
    pub passive: bool,
    /// Allows plain text, on loopback only where it is not said.
    #[serde(default)]
    pub plaintext: bool,
    /// Certificates.
    #[serde(default)]
    pub tls: Option<TlsTable>,
    /// Every node of the cluster.
    pub peer: Vec<PeerTable>,
    /// Who may come.
    #[serde(default)]
    pub clients: ClientsTable,
    /// Options of the engine.
    #[serde(default)]
    pub engine: Config,
}

/// Who may come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientsTable {
    /// Where this node listens for clients, if that is not where they reach it.
    pub listen: Option<SocketAddr>,
    /// Names and their tokens. Empty: whoever comes is believed.
    pub tokens: BTreeMap<String, String>,
    /// Names that may do what an operator may. Empty: every client that is believed.
    pub admins: BTreeSet<String>,
    /// Most clients at once. Default 1024.
    pub connections_max: Option<usize>,
    /// Most requests in flight of one name that was proved. Default 0: no limit.
    pub requests_per_principal: u32,
}

/// A node, and where it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTable {
    /// Which.
    pub node: u16,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where it listens for other nodes, if that is not where they reach it.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// At which site it is: another one's nodes can be waited for (`ack = "disks+dr"`).
    #[serde(default)]
    pub site: Option<String>,
    /// Whether it has a vote from the beginning. Default yes.
    #[serde(default = "yes")]
    pub founder: bool,
}

fn yes() -> bool {
    true
}

/// Certificates, relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsTable {
    /// The authority that both sides trust.
    pub authority: PathBuf,
    /// Of this node.
    pub certificate: PathBuf,
    /// Of this node.
    pub key: PathBuf,
    /// A revocation list.
    #[serde(default)]
    pub revoked: Option<PathBuf>,
}

impl NodeFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// The file, the line, and what was expected there.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Self::read_as_it_is(path).map_err(|error| usage(&error))
    }

    fn read_as_it_is(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the node file {}", path.display()))?;
        let mut file: Self =
            toml::from_str(&text).with_context(|| format!("the node file {}", path.display()))?;
        let beside = path.parent().unwrap_or(Path::new("."));
        file.directory = beside.join(&file.directory);
        if let Some(tls) = &mut file.tls {
            let TlsTable {
                authority,
                certificate,
                key,
                revoked,
            } = tls;
            for path in [authority, certificate, key].into_iter().chain(revoked) {
                *path = beside.join(&*path);
            }
        }
        Ok(file)
    }

    fn has_logic_thread(&self) -> bool {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.logic_thread.unwrap_or(cpus > 2)
    }

    /// As the node's program takes it.
    ///
    /// # Errors
    ///
    /// What does not fit together.
    pub fn options(&self) -> anyhow::Result<DriverOptions> {
        self.as_options().map_err(|error| usage(&error))
    }

    fn as_options(&self) -> anyhow::Result<DriverOptions> {
        let me = NodeId(self.node);
        let own = self.peer.iter().find(|peer| peer.node == self.node);
        let Some(own) = own else {
            bail!("node {me} is not among the [[peer]]s: every node stands there, this one too");
        };
        for (at, peer) in self.peer.iter().enumerate() {
            if self.peer[..at].iter().any(|other| other.node == peer.node) {
                bail!("[[peer]] node {} stands there twice", peer.node);
            }
        }
        self.check_clients()?;
        let founders = self.peer.iter().filter(|peer| peer.founder);
        let founders: Vec<NodeId> = founders.map(|peer| NodeId(peer.node)).collect();
        let mut replica = ReplicaOptions::new(self.cluster.parse()?, me, &founders);
        replica.epoch = Epoch(self.epoch);
        replica.sites = self.sites()?;
        if let Some(ack) = &self.ack {
            let ack = ack.parse::<Ack>()?;
            replica.policy = ack.policy;
            replica.sites.gates = ack.is_gated;
        }
        if let Some(why) = replica.sites.refuses(&replica.founders) {
            bail!("ack = {:?}: {why}", self.ack.as_deref().unwrap_or_default());
        }
        let tick_ms = self.tick_ms.unwrap_or(TICK_MS);
        if !(1..=10_000).contains(&tick_ms) {
            bail!("tick_ms = {tick_ms}: 1 to 10000 is possible");
        }
        replica.tick_ns = tick_ms * 1_000_000;
        // Each node its own election timeouts, and others at each start.
        replica.settings.seed = u64::from(std::process::id()) << 16 | u64::from(self.node);
        replica.boot = boot();
        let mut node = NodeOptions::new(replica);
        node.config = self.engine.clone();
        node.is_passive = self.passive;
        let others = self.peer.iter().filter(|peer| peer.node != self.node);
        let clients = self
            .peer
            .iter()
            .map(|peer| (NodeId(peer.node), peer.client));
        Ok(DriverOptions {
            node,
            directory: self.directory.clone(),
            listen: own.listen.unwrap_or(own.address),
            peers: others
                .map(|peer| (NodeId(peer.node), peer.address))
                .collect(),
            clients: ClientsOptions {
                addresses: clients.collect(),
                listen: self.clients.listen,
                tokens: self.clients.tokens.clone(),
                admins: self.clients.admins.clone(),
                connections_max: self.clients.connections_max.unwrap_or(0),
                requests_per_principal: self.clients.requests_per_principal,
            },
            security: self.security()?,
            has_back_thread: self.has_logic_thread(),
        })
    }

    /// Whoever is named here can come: names and tokens fit into a client's greeting.
    fn check_clients(&self) -> anyhow::Result<()> {
        let ClientsTable { tokens, admins, .. } = &self.clients;
        let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        for (name, token) in tokens {
            if !fits(name) || !fits(token) {
                bail!("clients.tokens, {name:?}: name and token have 1 to {NAME_BYTES_MAX} bytes");
            }
        }
        for admin in admins {
            if !tokens.is_empty() && !tokens.contains_key(admin) {
                bail!(
                    "clients.admins, {admin:?}: clients.tokens does not name it, so it cannot come"
                );
            }
        }
        Ok(())
    }

    fn sites(&self) -> anyhow::Result<Sites> {
        let mut sites = Vec::new();
        for peer in &self.peer {
            let Some(site) = &peer.site else { continue };
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
            if site.is_empty() || site.len() > 16 || !site.chars().all(is_name) {
                bail!(
                    "[[peer]] node {}, site = {site:?}: 1 to 16 letters, digits and `-`",
                    peer.node
                );
            }
            sites.push((NodeId(peer.node), site.clone()));
        }
        Ok(Sites::new(sites))
    }

    fn security(&self) -> anyhow::Result<Security> {
        match &self.tls {
            Some(_) if self.plaintext => {
                bail!("plaintext = true and [tls] contradict each other: leave one of them out")
            }
            Some(tls) => Ok(Security::Tls(Tls::read(&TlsFiles {
                authority: tls.authority.clone(),
                certificate: tls.certificate.clone(),
                key: tls.key.clone(),
                revoked: tls.revoked.clone(),
            })?)),
            None if self.plaintext => Ok(Security::Plaintext),
            None => Ok(Security::Loopback),
        }
    }
}

/// A file that makes no sense.
fn usage(error: &anyhow::Error) -> anyhow::Error {
    let hint = "docs/CLUSTER.md tells every key";
    Refusal::usage(one_line(error).trim_end(), hint).into()
}

/// Another number at each start of the machine: what was written before has survived since. 0 where the
/// system does not say; then every unclean end counts as a lost power.
fn boot() -> u64 {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Any mixing will do: two boots must differ.
    id.iter().fold(0, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3) ^ hash.rotate_left(17)
    })
}

#[cfg(test)]
mod tests {
    use lockstep_replicator::Policy;

    use super::*;

    const TEXT: &str = r#"
        cluster = "paris"
        node = 2
        directory = "two"
        ack = "disk+mem"
        peer = [
            { node = 1, address = "127.0.0.1:1", client = "127.0.0.1:2" },
            { node = 2, address = "127.0.0.1:3", client = "127.0.0.1:4" },
        ]
        [engine]
        slots = 1024
    "#;

    #[test]
    fn a_file_becomes_options() {
        let file: NodeFile = toml::from_str(TEXT).unwrap();
        let options = file.options().unwrap();
        assert_eq!(options.node.replica.policy, Policy::DiskAndMemory);
        assert_eq!(options.node.config.slots, 1024);
        assert_eq!(options.listen, "127.0.0.1:3".parse().unwrap());
        assert_eq!(options.peers.len(), 1);
        assert_eq!(options.clients.addresses.len(), 2);
        assert!(!options.node.is_passive);
        let text = TEXT.replace("node = 2\n", "node = 2\npassive = true\n");
        let file: NodeFile = toml::from_str(&text).unwrap();
        assert!(file.options().unwrap().node.is_passive);
        assert_eq!(options.node.replica.founders.voters.len(), 2);
        let text = TEXT
            .replace("disk+mem", "disks+dr")
            .replace("node = 1,", "node = 1, site = \"paris\",")
            .replace("node = 2, address", "node = 2, site = \"lyon\", address");
        let file: NodeFile = toml::from_str(&text).unwrap();
        let replica = file.options().unwrap().node.replica;
        assert!(replica.sites.gates && replica.policy == Policy::Disks);
        assert_eq!(replica.sites.of(NodeId(2)), Some("lyon"));
    }

    #[test]
    fn limits_of_a_principal_have_the_same_names_in_file_and_options() {
        let text = TEXT.replace(
            "[engine]",
            "[clients]\nrequests_per_principal = 7\n[engine]\nsessions_per_principal = 3",
        );
        let file: NodeFile = toml::from_str(&text).unwrap();
        let options = file.options().unwrap();
        assert_eq!(options.clients.requests_per_principal, 7);
        assert_eq!(options.node.config.sessions_per_principal, 3);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |from: &str, to: &str| {
            let text = TEXT.replace(from, to);
            match toml::from_str::<NodeFile>(&text) {
                Ok(file) => file.options().map(drop).unwrap_err().to_string(),
                Err(error) => error.to_string(),
            }
        };
        assert!(refused("node = 2\n", "node = 7\n").contains("not among"));
        assert!(refused("slots", "slotz").contains("slotz"));
        let clients = |clients: &str| refused("[engine]", &format!("{clients}\n[engine]"));
        let long = "x".repeat(33);
        assert!(
            clients(&format!("clients = {{ tokens = {{ a = \"{long}\" }} }}")).contains("\"a\"")
        );
        assert!(clients("clients = { tokens = { a = \"\" } }").contains("1 to 32"));
        let admins = "clients = { tokens = { a = \"b\" }, admins = [\"eve\"] }";
        assert!(clients(admins).contains("\"eve\""));
        assert!(refused("ack = \"disk+mem\"", "ack = \"maybe\"").contains("maybe"));
        assert!(refused("directory", "colour = 1\ndirectory").contains("colour"));
        assert!(refused("{ node = 1,", "{ node = 2,").contains("twice"));
        assert!(refused("disk+mem", "disks+dr").contains("has no site"));
        assert!(refused("node = 1,", "node = 1, site = \"a b\",").contains("site = \"a b\""));
    }
}

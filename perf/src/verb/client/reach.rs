//! How a client reaches a cluster: by a node's file, or by words on the command line.

use std::path::PathBuf;
use std::time::Duration;

use lockstep_perf::args::quantity::duration;
use lockstep_perf::cluster_file::NodeFile;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_replicator::IdError;
use lockstep_replicator::client::{ClientError, ClientOptions};
use lockstep_replicator::tls::TlsFiles;

/// Flags of everything that talks with a cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ReachFlags {
    /// The file of any node of the cluster: its name and where clients reach each node
    #[arg(long, value_name = "FILE", required_unless_present = "connect")]
    pub(crate) node: Option<PathBuf>,
    /// Where clients reach the nodes, instead of --node
    #[arg(
        long,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        conflicts_with = "node",
        requires = "cluster"
    )]
    pub(crate) connect: Vec<String>,
    /// The cluster's name, with --connect
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Who asks, as in the nodes' files and in the certificate
    #[arg(long, value_name = "NAME", default_value = "client")]
    pub(crate) principal: String,
    /// The secret of that name; better in LOCKSTEP_TOKEN than on a command line
    #[arg(long, value_name = "SECRET", default_value = "")]
    pub(crate) token: String,
    /// The authority that signed all certificates: TLS
    #[arg(long, value_name = "FILE", requires = "certificate", requires = "key")]
    pub(crate) authority: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, value_name = "FILE", requires = "authority")]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of the client's certificate
    #[arg(long, value_name = "FILE", requires = "authority")]
    pub(crate) key: Option<PathBuf>,
    /// Give up when nobody answers for so long; 10s unless told, to look at the state 2s
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) patience: Option<Duration>,
}

/// How long nobody may answer, unless told.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's error with its exit code.
pub(crate) fn failed(error: ClientError) -> anyhow::Error {
    let (exit, hint) = match &error {
        ClientError::Refused { .. } => (Exit::Refused, ""),
        ClientError::NoAddress | ClientError::Tls(_) => (Exit::Usage, ""),
        ClientError::NoAnswer { .. } => (Exit::Failed, "lockstep cluster status says who is there"),
        _ => (Exit::Failed, ""),
    };
    Refusal::new(exit, error.to_string(), hint).into()
}

/// A cluster that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Where clients reach the nodes.
    pub(crate) addresses: Vec<String>,
    /// Which node is at each of them, where a node's file says so.
    pub(crate) ids: Vec<Option<u16>>,
    /// As the client library takes it.
    pub(crate) options: ClientOptions,
    /// How long nobody may answer.
    pub(crate) patience: Duration,
}

impl ReachFlags {
    /// What the flags mean for events of this size.
    pub(crate) fn reach(&self, event_size: u32) -> anyhow::Result<Reach> {
        self.reach_within(event_size, PATIENCE)
    }

    /// The same, with another patience where none is told.
    pub(crate) fn reach_within(
        &self,
        event_size: u32,
        patience: Duration,
    ) -> anyhow::Result<Reach> {
        let (addresses, ids, cluster) = match &self.node {
            Some(file) => {
                let file = NodeFile::read(file)?;
                let addresses = file.peer.iter().map(|peer| peer.client.to_string());
                let ids = file.peer.iter().map(|peer| Some(peer.node)).collect();
                (addresses.collect(), ids, file.cluster)
            }
            None => (
                self.connect.clone(),
                vec![None; self.connect.len()],
                self.cluster.clone().unwrap_or_default(),
            ),
        };
        for address in &self.connect {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                let what = format!("--connect {address}: no address");
                return Err(Refusal::usage(what, "HOST:PORT, of the nodes' clients' ports").into());
            }
        }
        if addresses.is_empty() {
            let hint = "--node FILE, or --connect with --cluster";
            return Err(Refusal::usage("no address of a node", hint).into());
        }
        let cluster = cluster
            .parse()
            .map_err(|error: IdError| Refusal::usage(error.to_string(), ""))?;
        let tls = match (&self.authority, &self.certificate, &self.key) {
            (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles {
                authority: authority.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                revoked: None,
            }),
            _ => None,
        };
        let options = ClientOptions {
            principal: self.principal.clone(),
            token: self.token.clone(),
            tls,
            ..ClientOptions::new(cluster, event_size)
        };
        Ok(Reach {
            addresses,
            ids,
            options,
            patience: self.patience.unwrap_or(patience),
        })
    }
}

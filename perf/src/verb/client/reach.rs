//! How a client reaches a cluster: by a node's file, or by words on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use lockstep_perf::args::quantity::duration;
use lockstep_perf::cluster_file::NodeFile;
use lockstep_replicator::client::ClientOptions;
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
    /// Give up when nobody answers for so long
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = duration)]
    pub(crate) patience: Duration,
}

/// A cluster that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Where clients reach the nodes.
    pub(crate) addresses: Vec<String>,
    /// As the client library takes it.
    pub(crate) options: ClientOptions,
    /// How long nobody may answer.
    pub(crate) patience: Duration,
}

impl ReachFlags {
    /// What the flags mean for events of this size.
    pub(crate) fn reach(&self, event_size: u32) -> anyhow::Result<Reach> {
        let (addresses, cluster) = match &self.node {
            Some(file) => {
                let file = NodeFile::read(file)?;
                let addresses = file.peer.iter().map(|peer| peer.client.to_string());
                (addresses.collect(), file.cluster)
            }
            None => (
                self.connect.clone(),
                self.cluster.clone().unwrap_or_default(),
            ),
        };
        if addresses.is_empty() {
            bail!("no address of a node: give --node FILE, or --connect with --cluster");
        }
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
            ..ClientOptions::new(cluster.parse()?, event_size)
        };
        Ok(Reach {
            addresses,
            options,
            patience: self.patience,
        })
    }
}

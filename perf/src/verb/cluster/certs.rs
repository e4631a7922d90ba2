//! `lockstep cluster certs`: an authority of one cluster, and what it signs.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_replicator::tls::{client_name, cluster_name, node_name};
use lockstep_replicator::{ClusterId, NodeId};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::verb::{Format, Global};

/// Arguments of `lockstep cluster certs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Writes authority.pem, node-N.pem and node-N.key for each node, client-NAME.pem and\n\
                        client-NAME.key for each client. The authority's key is not kept: who can sign can\n\
                        write into the log. For more nodes later, make all anew."
)]
pub(super) struct Args {
    /// Where to; a folder that is new, or empty
    directory: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    name: ClusterId,
    /// Nodes, from 1 on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Clients
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "client"
    )]
    clients: Vec<String>,
}

/// Makes and writes them.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    if std::fs::read_dir(directory)?.next().is_some() {
        let what = format!("{} is not empty", directory.display());
        let hint = "give a new folder, so that no certificate is replaced unseen";
        return Err(Refusal::usage(what, hint).into());
    }
    let authority = Authority::new(&args.name)?;
    write(directory, "authority.pem", &authority.pem)?;
    for node in (1..=args.nodes).map(NodeId) {
        let names = vec![node_name(&args.name, node), cluster_name(&args.name)];
        authority.sign(directory, &format!("node-{node}"), names)?;
    }
    for client in &args.clients {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if client.is_empty() || client.len() > 32 || !client.bytes().all(is_name) {
            let what = format!("--clients `{client}` is no client's name");
            return Err(Refusal::usage(what, "1 to 32 of a-z, 0-9 and '-'").into());
        }
        let names = vec![client_name(&args.name, client)];
        authority.sign(directory, &format!("client-{client}"), names)?;
    }
    if !matches!(global.format, Format::Quiet) {
        let mut out = std::io::stdout().lock();
        let count = usize::from(args.nodes) + args.clients.len();
        match global.format {
            Format::Json => {
                let told = serde_json::json!({
                    "verb": "cluster certs", "directory": directory, "cluster": args.name.to_string(),
                    "nodes": args.nodes, "clients": args.clients,
                });
                writeln!(out, "{told}")?;
            }
            Format::Text | Format::Quiet => writeln!(
                out,
                "{}: authority.pem and {count} certificates for the cluster {}",
                directory.display(),
                args.name
            )?,
        }
    }
    Ok(Exit::Done)
}

/// Signs, and is gone with the process.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(cluster: &ClusterId) -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("authority of {cluster}.lockstep");
        parameters.distinguished_name.push(DnType::CommonName, name);
        let pem = parameters.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(parameters, key),
            pem,
        })
    }

    fn sign(&self, directory: &Path, file: &str, names: Vec<String>) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let common = names[0].clone();
        let mut parameters = CertificateParams::new(names)?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, common);
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        write(directory, &format!("{file}.pem"), &certificate.pem())?;
        write(directory, &format!("{file}.key"), &key.serialize_pem())
    }
}

/// Writes a new file that only its owner can read.
fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lockstep_replicator::tls::{Tls, TlsFiles};

    use super::*;

    #[test]
    fn what_is_written_can_be_used_and_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("certs");
        let args = Args {
            directory: directory.clone(),
            name: "paris".parse().unwrap(),
            nodes: 2,
            clients: vec!["ops".into()],
        };
        let global = Global::silent();
        run(&args, &global).unwrap();
        for name in ["node-1", "node-2", "client-ops"] {
            let files = TlsFiles {
                authority: directory.join("authority.pem"),
                certificate: directory.join(format!("{name}.pem")),
                key: directory.join(format!("{name}.key")),
                revoked: None,
            };
            Tls::read(&files).unwrap();
        }
        let again = run(&args, &global).unwrap_err().to_string();
        assert!(again.contains("not empty"), "{again}");
    }
}

//! Who may talk: certificates of one authority, with names that say which node of which cluster.
//!
//! Between nodes both sides show a certificate. Its name (the DNS entry of the subject's alternative
//! names) is all that counts: `node-3.paris.lockstep` is node 3 of the cluster `paris`, and
//! `client-gateway-a.paris.lockstep` is the client `gateway-a` of it. The authority is one that the
//! operator made for this cluster: nothing else is believed, and no certificate of the system's.
//!
//! TLS 1.3 only, by `rustls` with the primitives of `ring`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, InvalidDnsNameError, PrivateKeyDer, ServerName,
};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::ids::{ClusterId, NodeId};

/// Where a node, or a client, has its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the authority, PEM.
    pub authority: PathBuf,
    /// The own certificate, and what lies between it and the authority, PEM.
    pub certificate: PathBuf,
    /// The key of the own certificate, PEM.
    pub key: PathBuf,
    /// Certificates that are no longer believed, PEM.
    pub revoked: Option<PathBuf>,
}

/// Certificates that were read, ready for connections.
#[derive(Debug, Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Why the certificates cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read, or is not what it should be.
    #[error("{}: no {what} in PEM: {source}; `lockstep cluster certs DIR` makes some for tests", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// Why it has none.
        source: rustls::pki_types::pem::Error,
    },
    /// An empty file.
    #[error("{}: no {what} in it; `lockstep cluster certs DIR` makes some for tests", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// Certificates that do not fit together.
    #[error("{}: {source}: certificate and key must belong together, and the authority must have signed them", path.display())]
    Unfit {
        /// The certificate's file.
        path: PathBuf,
        /// What does not fit.
        source: rustls::Error,
    },
    /// Revocations that cannot be used.
    #[error("{}: revocations cannot be used: {why}", path.display())]
    Revoked {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The name of a node in its certificate.
#[must_use]
pub fn node_name(cluster: &ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.lockstep")
}

/// The second name in a node's certificate: by it a client knows that it talks with the cluster.
#[must_use]
pub fn cluster_name(cluster: &ClusterId) -> String {
    format!("{cluster}.lockstep")
}

/// The name of a client in its certificate.
#[must_use]
pub fn client_name(cluster: &ClusterId, principal: &str) -> String {
    format!("client-{principal}.{cluster}.lockstep")
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file.
    pub fn read(files: &TlsFiles) -> Result<Tls, TlsError> {
        let authority = certificates(&files.authority)?;
        let own = certificates(&files.certificate)?;
        let key = |path: &Path| {
            PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File {
                path: path.to_owned(),
                what: "private key",
                source,
            })
        };
        let unfit = |source| TlsError::Unfit {
            path: files.certificate.clone(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots.add(certificate).map_err(unfit)?;
        }
        let roots = Arc::new(roots);
        let revoked = match &files.revoked {
            Some(path) => revocations(path)?,
            None => Vec::new(),
        };
        let provider = Arc::new(ring::default_provider());
        let no_verifier = |error: VerifierBuilderError| TlsError::Revoked {
            path: files
                .revoked
                .clone()
                .unwrap_or_else(|| files.authority.clone()),
            why: error.to_string(),
        };
        // Both sides look at the list: a node that was taken over may be dialed as well as dial.
        let who_dials =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .with_crls(revoked.clone())
                .allow_unknown_revocation_status()
                .build()
                .map_err(no_verifier)?;
        let who_is_dialed =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .with_crls(revoked)
                .allow_unknown_revocation_status()
                .build()
                .map_err(no_verifier)?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(who_dials)
            .with_single_cert(own.clone(), key(&files.key)?)
            .map_err(unfit)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_webpki_verifier(who_is_dialed)
            .with_client_auth_cert(own, key(&files.key)?)
            .map_err(unfit)?;
        Ok(Tls {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// The side that was dialed.
    pub(crate) fn accept(&self) -> Result<Connection, rustls::Error> {
        rustls::ServerConnection::new(Arc::clone(&self.server)).map(Connection::Server)
    }

    /// The side that dials, and the name it insists on.
    pub(crate) fn dial(&self, name: &str) -> Result<Connection, rustls::Error> {
        let name = server_name(name)
            .map_err(|error| rustls::Error::General(format!("the name {name}: {error}")))?;
        ClientConnection::new(Arc::clone(&self.client), name).map(Connection::Client)
    }
}

/// Whether the certificate, which was believed already, has this name.
pub(crate) fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = server_name(name) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

fn server_name(name: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(name.to_owned())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::File {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(fail)?
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    if all.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(all)
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let fail = |source| TlsError::File {
        path: path.to_owned(),
        what: "revocation list",
        source,
    };
    CertificateRevocationListDer::pem_file_iter(path)
        .map_err(fail)?
        .collect::<Result<_, _>>()
        .map_err(fail)
}

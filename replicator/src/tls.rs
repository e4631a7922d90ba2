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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
        KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// An authority in a folder, and what it signs and takes back.
    struct Authority {
        directory: tempfile::TempDir,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Authority {
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let directory = tempfile::tempdir().unwrap();
            let pem = parameters.self_signed(&key).unwrap().pem();
            std::fs::write(directory.path().join("authority.pem"), pem).unwrap();
            let issuer = Issuer::new(parameters, key);
            Authority { directory, issuer }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn sign(&self, name: &str, serial: u64, last_year: i32) -> TlsFiles {
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
            parameters.serial_number = Some(SerialNumber::from(serial));
            parameters.not_after = date_time_ymd(last_year, 1, 1);
            let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
            TlsFiles {
                authority: self.directory.path().join("authority.pem"),
                certificate: self.write(&format!("{serial}.pem"), &certificate.pem()),
                key: self.write(&format!("{serial}.key"), &key.serialize_pem()),
                revoked: None,
            }
        }

        fn revoke(&self, serial: u64) -> PathBuf {
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 1),
                next_update: date_time_ymd(3000, 1, 1),
                crl_number: SerialNumber::from(1_u64),
                issuing_distribution_point: None,
                revoked_certs: vec![RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&self.issuer).unwrap();
            self.write("revoked.pem", &list.pem().unwrap())
        }
    }

    /// Bytes from one side to the other until both are done, or one of them refuses: its words.
    fn meet(mut dials: Connection, mut accepts: Connection) -> Result<(), String> {
        for _ in 0..10 {
            for (from, to) in [(0, 1), (1, 0)] {
                let mut bytes = Vec::new();
                let sides = [&mut dials, &mut accepts];
                while sides[from].wants_write() {
                    sides[from].write_tls(&mut bytes).unwrap();
                }
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    sides[to].read_tls(&mut rest).unwrap();
                    let taken = sides[to].process_new_packets();
                    taken.map_err(|error| error.to_string())?;
                }
            }
        }
        assert!(!dials.is_handshaking() && !accepts.is_handshaking());
        Ok(())
    }

    const NAME: &str = "node-1.paris.lockstep";

    fn met(dials: &TlsFiles, accepts: &TlsFiles) -> Result<(), String> {
        let (dials, accepts) = (Tls::read(dials).unwrap(), Tls::read(accepts).unwrap());
        meet(dials.dial(NAME).unwrap(), accepts.accept().unwrap())
    }

    #[test]
    fn a_certificate_that_is_foreign_expired_or_revoked_is_refused_by_name_on_both_sides() {
        let ours = Authority::new();
        let own = ours.sign(NAME, 1, 3000);
        let other = ours.sign(NAME, 2, 3000);
        met(&own, &other).unwrap();
        let with_list = TlsFiles {
            revoked: Some(ours.revoke(2)),
            ..own.clone()
        };
        met(&with_list, &own).unwrap();
        let theirs = Authority::new();
        let foreign = TlsFiles {
            authority: own.authority.clone(),
            ..theirs.sign(NAME, 3, 3000)
        };
        let expired = ours.sign(NAME, 4, 2021);
        for (bad, words) in [
            // An authority that calls itself as ours does.
            (&foreign, "BadSignature"),
            (&expired, "xpired"),
            (&other, "evoked"),
        ] {
            let accepted = met(bad, &with_list).unwrap_err();
            assert!(accepted.contains(words), "{words}: {accepted}");
            let dialed = met(&with_list, bad).unwrap_err();
            assert!(dialed.contains(words), "{words}: {dialed}");
        }
    }

    #[test]
    fn who_shows_no_certificate_is_refused_by_name() {
        let ours = Authority::new();
        let own = ours.sign(NAME, 1, 3000);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&own.authority).unwrap() {
            roots.add(certificate).unwrap();
        }
        let bare = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = server_name(NAME).unwrap();
        let dials = ClientConnection::new(Arc::new(bare), name).unwrap();
        let accepts = Tls::read(&own).unwrap().accept().unwrap();
        let refused = meet(Connection::Client(dials), accepts).unwrap_err();
        assert!(refused.contains("no certificates"), "{refused}");
    }
}

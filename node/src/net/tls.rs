//! Mutual TLS 1.3, always: this node's own identity, and what it demands of others.
//!
//! The authority's signature says that somebody belongs to the cluster; the [`Subject`] in the certificate says who it
//! is. Both are checked on every connection, in both directions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use driftless_proto::Serial;
use driftless_proto::frame::{ALPN_CLIENT, ALPN_PEER};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::NODE_SERVER_NAME;
use super::subject::{Holder, Subject, SubjectError};
use super::verified::{serial, since, until};
use crate::config::private::{Exposure, closing, exposed};
use crate::remedy::Remedy;

/// Where certificates and the private key are. All PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted: one, or two while the authority is being changed.
    pub ca: PathBuf,
    /// Certificate of this node, and after it those between it and an authority, if there are any.
    pub cert: PathBuf,
    /// Private key of this node; readable by its owner only.
    pub key: PathBuf,
}

/// Who this node is to others, checked and ready for use.
#[derive(Clone)]
pub struct TlsIdentity {
    files: TlsFiles,
    subject: Subject,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    since: SystemTime,
    until: SystemTime,
    serials: Vec<Serial>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// Why certificates cannot be used. Messages name the file and say what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file does not hold what it should.
    #[error("{path} does not hold a {what} in PEM form: {reason}")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What was found.
        reason: String,
    },
    /// Others can read the private key.
    #[error("{} holds a private key that other users can read (mode {mode:03o}); {}", .path.display(), closing(.path, *.is_roots))]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Whether it belongs to root.
        is_roots: bool,
    },
    /// Certificate and key do not belong together.
    #[error("the private key {key} does not fit the certificate {cert}")]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The certificate's days are over.
    #[error("the certificate {path} expired on {until}; {ISSUE_NEW}")]
    Expired {
        /// The file.
        path: PathBuf,
        /// Last moment of its validity.
        until: String,
    },
    /// The certificate's days have not begun.
    #[error("the certificate {path} is valid from {from} only; {CHECK_CLOCK}")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// First moment of its validity.
        from: String,
    },
    /// The certificate names nobody.
    #[error("the certificate {path} cannot be used: {reason}")]
    Subject {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        reason: SubjectError,
    },
    /// The certificate was made for somebody else.
    #[error("the certificate {path} belongs to {found}, this node is {expected}; {ISSUE_RIGHT}")]
    WrongSubject {
        /// The file.
        path: PathBuf,
        /// Who it names.
        found: String,
        /// Who this node is.
        expected: String,
    },
    /// The certificate was not issued by the given authority.
    #[error("the certificate {cert} was not issued by the authority in {ca}")]
    ForeignAuthority {
        /// The certificate's file.
        cert: PathBuf,
        /// The authority's file.
        ca: PathBuf,
    },
    /// The certificate comes from the authority and is of no use here.
    #[error("the certificate {cert} would be refused by other nodes: {reason}; {ISSUE_FIT}")]
    Unfit {
        /// The certificate's file.
        cert: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

const ISSUE_NEW: &str = "issue a new one with `driftless cert`";
const CHECK_CLOCK: &str = "check this machine's clock";
const ISSUE_RIGHT: &str = "issue the right one with `driftless cert node`";
const ISSUE_FIT: &str =
    "issue one with `driftless cert node`, or see Certificates from another authority in docs/configuration.md";

impl Remedy for TlsError {
    fn remedy(&self) -> Option<String> {
        match self {
            TlsError::KeyExposed { path, is_roots, .. } => Some(closing(path, *is_roots)),
            TlsError::Expired { .. } => Some(ISSUE_NEW.to_owned()),
            TlsError::NotYetValid { .. } => Some(CHECK_CLOCK.to_owned()),
            TlsError::WrongSubject { .. } => Some(ISSUE_RIGHT.to_owned()),
            TlsError::Unfit { .. } => Some(ISSUE_FIT.to_owned()),
            TlsError::Unreadable { .. }
            | TlsError::NotPem { .. }
            | TlsError::KeyMismatch { .. }
            | TlsError::Subject { .. }
            | TlsError::ForeignAuthority { .. }
            | TlsError::Setup(_) => None,
        }
    }
}

impl TlsIdentity {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn load(files: &TlsFiles, now: SystemTime) -> Result<TlsIdentity, TlsError> {
        refuse_exposed(&files.key)?;
        TlsIdentity::from_pem(files, &read(&files.ca)?, &read(&files.cert)?, &read(&files.key)?, now)
    }

    /// The same from PEM in memory; `files` are what errors call its parts.
    ///
    /// # Errors
    /// [`TlsError`] names the part and what is wrong with it.
    pub fn from_pem(
        files: &TlsFiles,
        ca: &[u8],
        cert: &[u8],
        key: &[u8],
        now: SystemTime,
    ) -> Result<TlsIdentity, TlsError> {
        let authorities = certificates(&files.ca, ca)?;
        let chain = certificates(&files.cert, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::NotPem {
            path: files.key.clone(),
            what: "private key",
            reason: error.to_string(),
        })?;
        let mut roots = RootCertStore::empty();
        let dates: Vec<_> = authorities.iter().map(|authority| check_dates(&files.ca, authority, now)).collect();
        // While the authority is being changed, the old one may expire beside the new one.
        let are_all_out = dates.iter().all(Result::is_err);
        for (authority, dates) in authorities.iter().zip(dates) {
            match dates {
                Err(error) if are_all_out => return Err(error),
                Err(_) => continue,
                Ok(()) => {}
            }
            roots.add(authority.clone()).map_err(|error| TlsError::NotPem {
                path: files.ca.clone(),
                what: "certificate of an authority",
                reason: error.to_string(),
            })?;
        }
        check_dates(&files.cert, &chain[0], now)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::KeyMismatch { key: files.key.clone(), cert: files.cert.clone() }
            }
            other => TlsError::Setup(other.to_string()),
        })?;
        let subject = Subject::of_certificate(&chain[0])
            .map_err(|reason| TlsError::Subject { path: files.cert.clone(), reason })?;
        let roots = Arc::new(roots);
        check_chain(files, &chain, &roots, subject.holder, now)?;
        let certificate = parse(&files.cert, &chain[0])?;
        let (since, until) = (since(&certificate), until(&certificate));
        let serials = chain.iter().map(|der| parse(&files.cert, der).map(|certificate| serial(&certificate)));
        let (files, serials) = (files.clone(), serials.collect::<Result<_, _>>()?);
        Ok(TlsIdentity { files, subject, roots, chain, since, until, serials, key: Arc::new(key) })
    }

    /// Whom the certificate names.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The first moment of the certificate.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// The last moment of the certificate.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// The numbers of the certificate and of those between it and an authority.
    pub(crate) fn serials(&self) -> &[Serial] {
        &self.serials
    }

    /// Refuses a certificate that was made for another cluster, role or name.
    ///
    /// # Errors
    /// [`TlsError::WrongSubject`].
    pub fn expect_node(&self, cluster: &str, name: &str) -> Result<(), TlsError> {
        let expected = Subject { cluster: cluster.to_owned(), holder: Holder::Node, name: name.to_owned() };
        if self.subject == expected {
            return Ok(());
        }
        Err(TlsError::WrongSubject {
            path: self.files.cert.clone(),
            found: self.subject.to_string(),
            expected: expected.to_string(),
        })
    }

    /// For accepting connections: both protocols, certificates of this cluster only.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(crate) fn server(&self) -> Result<QuicServerConfig, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let mut config = self.accepting(verifier)?;
        config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_CLIENT.to_vec()];
        QuicServerConfig::try_from(config).map_err(setup)
    }

    /// For the admin server: certificates of this cluster, or none.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(crate) fn admin(&self) -> Result<rustls::ServerConfig, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let mut config = self.accepting(verifier.allow_unauthenticated())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn accepting(&self, verifier: ClientCertVerifierBuilder) -> Result<rustls::ServerConfig, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_client_cert_verifier(verifier.build().map_err(setup)?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(setup)?;
        // A resumed session would let in somebody whose certificate has expired since it began.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }

    /// For connecting to other nodes.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(crate) fn dialer(&self) -> Result<QuicClientConfig, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(setup)?;
        config.alpn_protocols = vec![ALPN_PEER.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(setup)
    }
}

/// Keys of stateless resets, from the 64 bytes that the data directory keeps: after a restart, peers that still
/// believe in the old connection learn at once that it is gone.
pub(crate) struct ResetKey([u8; 32]);

impl ResetKey {
    /// Each shard has its own: else one would tell, of an id that it does not know, the token of a connection of another.
    pub(crate) fn of_shard(bytes: &[u8; 64], shard: u16) -> ResetKey {
        ResetKey(*blake3::Hasher::new().update(bytes).update(&shard.to_be_bytes()).finalize().as_bytes())
    }
}

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        let ours = blake3::keyed_hash(&self.0, data);
        // blake3::Hash compares in constant time.
        match <[u8; blake3::OUT_LEN]>::try_from(signature) {
            Ok(theirs) if ours == theirs => Ok(()),
            _ => Err(quinn::crypto::CryptoError),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn setup(error: impl ToString) -> TlsError {
    TlsError::Setup(error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), reason: error.to_string() })
}

fn refuse_exposed(path: &Path) -> Result<(), TlsError> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| TlsError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
    match exposed(&metadata) {
        None => Ok(()),
        Some(Exposure { mode, is_roots }) => Err(TlsError::KeyExposed { path: path.to_owned(), mode, is_roots }),
    }
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |reason: String| TlsError::NotPem { path: path.to_owned(), what: "certificate", reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| not_pem(error.to_string()))?;
    if chain.is_empty() { Err(not_pem("there is none in it".to_owned())) } else { Ok(chain) }
}

fn check_dates(path: &Path, der: &CertificateDer<'_>, now: SystemTime) -> Result<(), TlsError> {
    let certificate = parse(path, der)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired { path: path.to_owned(), until: validity.not_after.to_string() });
    }
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid { path: path.to_owned(), from: validity.not_before.to_string() });
    }
    Ok(())
}

/// Looks at the own chain as others will: a mix-up of files would otherwise show as every peer refusing this node.
fn check_chain(
    files: &TlsFiles,
    chain: &[CertificateDer<'_>],
    roots: &Arc<RootCertStore>,
    holder: Holder,
    now: SystemTime,
) -> Result<(), TlsError> {
    let judged = |error: rustls::Error| match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            TlsError::ForeignAuthority { cert: files.cert.clone(), ca: files.ca.clone() }
        }
        other => TlsError::Unfit { cert: files.cert.clone(), reason: other.to_string() },
    };
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    // At least one: `certificates` has made sure.
    let (own, between) = (&chain[0], &chain[1..]);
    let as_client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().map_err(setup)?;
    as_client.verify_client_cert(own, between, now).map_err(judged)?;
    if holder == Holder::Node {
        let as_server =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build().map_err(setup)?;
        let name = ServerName::try_from(NODE_SERVER_NAME).map_err(setup)?;
        as_server.verify_server_cert(own, between, &name, &[], now).map_err(judged)?;
    }
    Ok(())
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let unreadable = |reason: String| TlsError::NotPem { path: path.to_owned(), what: "certificate", reason };
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::{NASTY, check};

    #[test]
    fn what_to_do_is_where_the_message_ends_whatever_stands_in_it() {
        let (path, text) = (PathBuf::from(NASTY), NASTY.to_owned());
        let says_what_to_do = [
            TlsError::KeyExposed { path: path.clone(), mode: 0o644, is_roots: false },
            TlsError::KeyExposed { path: path.clone(), mode: 0o644, is_roots: true },
            TlsError::Expired { path: path.clone(), until: text.clone() },
            TlsError::NotYetValid { path: path.clone(), from: text.clone() },
            TlsError::WrongSubject { path: path.clone(), found: text.clone(), expected: text.clone() },
            TlsError::Unfit { cert: path.clone(), reason: text.clone() },
        ];
        for error in says_what_to_do {
            assert!(error.remedy().is_some(), "{error}");
            check(&error);
        }
        let unreadable = TlsError::Unreadable { path, reason: text };
        assert_eq!(unreadable.remedy(), None);
        check(&unreadable);
    }
}

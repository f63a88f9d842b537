//! Who a client is, and whom it trusts: a certificate with its private key, and the cluster's CA.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use crate::tls;

/// A client's certificate and key, and the CA of the cluster it will speak to.
///
/// `driftless cert client NAME` issues one. The CA is the cluster's alone: that it signed a node's certificate is the
/// proof that the node belongs to the cluster, so never put a public CA here.
#[derive(Clone)]
#[must_use = "an identity is given to `Client::builder().identity(…)`"]
pub struct Identity {
    config: Arc<rustls::ClientConfig>,
}

/// Why an [`Identity`] could not be made of what was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file of the private key can be read by others.
    #[error("{path} holds a private key that other users can read (mode {mode:03o}); run `chmod 600 {path}`")]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is no certificate in the PEM of the CA or of the client.
    #[error("no certificate in the PEM of the {whose}; it should hold a BEGIN CERTIFICATE section")]
    NoCertificate {
        /// `CA` or `client`.
        whose: &'static str,
    },
    /// There is no private key in the PEM.
    #[error("no private key in the PEM of the key; it should hold a BEGIN PRIVATE KEY section")]
    NoKey,
    /// The PEM is damaged.
    #[error("damaged PEM of the {whose}: {source}")]
    Damaged {
        /// `CA`, `client` or `key`.
        whose: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The parts do not fit: the key is not the certificate's, or one is of a kind that cannot be used.
    #[error("certificate and key cannot be used: {source}; are they from the same `driftless cert client` call?")]
    Unusable {
        /// What is wrong.
        source: rustls::Error,
    },
}

impl Identity {
    /// Reads the CA's certificate, the client's certificate and its private key from PEM files. The key must be readable by
    /// its owner alone, as a node's must: whoever has it is the client.
    ///
    /// # Errors
    /// [`IdentityError`] says which file is at fault, and how.
    pub fn from_pem_files(
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Identity, IdentityError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| IdentityError::Unreadable { path: path.to_owned(), source })
        };
        let (ca, cert, secret) = (read(ca.as_ref())?, read(cert.as_ref())?, read(key.as_ref())?);
        refuse_exposed(key.as_ref())?;
        Identity::from_pem(&ca, &cert, &secret)
    }

    /// The same from PEM in memory.
    ///
    /// # Errors
    /// [`IdentityError`] says which part is at fault, and how.
    pub fn from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let mut roots = rustls::RootCertStore::empty();
        for root in certificates("CA", ca)? {
            roots.add(root).map_err(|source| IdentityError::Unusable { source })?;
        }
        let chain = certificates("client", cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| match source {
            pem::Error::NoItemsFound => IdentityError::NoKey,
            source => IdentityError::Damaged { whose: "key", source },
        })?;
        let config = tls::client_config(roots, chain, key).map_err(|source| IdentityError::Unusable { source })?;
        Ok(Identity { config: Arc::new(config) })
    }

    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// Secrets do not print.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let metadata =
        std::fs::metadata(path).map_err(|source| IdentityError::Unreadable { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if is_private(mode, metadata.uid()) {
        Ok(())
    } else {
        Err(IdentityError::KeyExposed { path: path.to_owned(), mode })
    }
}

/// For its owner alone; or root's, as secrets are that are mounted for a group: who is not of that group cannot read it.
#[cfg(unix)]
fn is_private(mode: u32, owner: u32) -> bool {
    mode & 0o077 == 0 || owner == 0 && mode & 0o037 == 0
}

/// Who may read a file is not said by a mode here.
#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<(), IdentityError> {
    Ok(())
}

fn certificates(whose: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|source| IdentityError::Damaged { whose, source })?;
    if found.is_empty() { Err(IdentityError::NoCertificate { whose }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(matches!(Identity::from_pem(b"", b"", b""), Err(IdentityError::NoCertificate { whose: "CA" })));
        let missing = Identity::from_pem_files("no-such-ca.pem", "c.pem", "k.pem").expect_err("there is no such file");
        assert!(missing.to_string().starts_with("cannot read no-such-ca.pem: "), "{missing}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let params = rcgen::CertificateParams::new(vec![]).expect("no names");
        let (own, other) = (rcgen::KeyPair::generate().expect("key"), rcgen::KeyPair::generate().expect("key"));
        let cert = params.self_signed(&own).expect("signs").pem();
        let identity =
            |key: &rcgen::KeyPair| Identity::from_pem(cert.as_bytes(), cert.as_bytes(), key.serialize_pem().as_bytes());
        assert!(identity(&own).is_ok());
        assert!(matches!(identity(&other), Err(IdentityError::Unusable { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn a_secret_that_root_has_mounted_for_a_group_is_taken() {
        for (mode, owner, is_fine) in [(0o440, 0, true), (0o640, 0, true), (0o640, 1000, false), (0o444, 0, false)] {
            assert_eq!(is_private(mode, owner), is_fine, "{mode:o} of {owner}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let params = rcgen::CertificateParams::new(vec![]).expect("no names");
        let key = rcgen::KeyPair::generate().expect("key");
        let (cert_file, key_file) = (dir.path().join("c.pem"), dir.path().join("c.key"));
        std::fs::write(&cert_file, params.self_signed(&key).expect("signs").pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        for (mode, is_fine) in [(0o644, false), (0o660, false), (0o600, true), (0o400, true)] {
            std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).expect("changed");
            let identity = Identity::from_pem_files(&cert_file, &cert_file, &key_file);
            match identity {
                Ok(_) => assert!(is_fine, "{mode:o}"),
                Err(IdentityError::KeyExposed { mode: found, .. }) => assert!(!is_fine && found == mode, "{mode:o}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

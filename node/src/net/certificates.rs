//! Issuing certificates: one authority per cluster, Ed25519 throughout.
//!
//! The authority's private key is needed to issue and for nothing else: it does not belong on the nodes.

use std::time::{Duration, SystemTime};

use driftless_proto::Role;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::subject::{Holder, Subject};

/// Issues the certificates of one cluster.
pub struct CertificateAuthority {
    cluster: String,
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key: keep it readable by its owner only.
    pub key: String,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First moment.
    pub from: SystemTime,
    /// Last moment.
    pub until: SystemTime,
}

/// Why a certificate was not issued.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssueError {
    /// The name cannot stand in a certificate.
    #[error(
        "{0:?} cannot stand in a certificate, or name its files; use 1 to 64 letters, digits, '.', '_' and '-', with a \
         letter or digit first"
    )]
    Name(String),
    /// What was given is not an authority made by [`CertificateAuthority::create`].
    #[error("this is not the certificate of a Driftless authority: {0}")]
    NotAnAuthority(String),
    /// Certificate and key do not belong together.
    #[error("the authority's private key does not fit its certificate")]
    KeyMismatch,
    /// The library that writes certificates refused.
    #[error("cannot write the certificate: {0}")]
    Generate(String),
}

impl CertificateAuthority {
    /// A new authority for a cluster, valid for [`Validity::authority`].
    ///
    /// # Errors
    /// [`IssueError::Name`] if the cluster's name cannot stand in a certificate.
    pub fn create(cluster: &str) -> Result<CertificateAuthority, IssueError> {
        let subject = Subject { cluster: plain(cluster)?, holder: Holder::Authority, name: String::new() };
        let mut params = parameters(&subject, Validity::authority(SystemTime::now()))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok(CertificateAuthority { cluster: subject.cluster, certificate, key: pem, issuer: Issuer::new(params, key) })
    }

    /// An authority created before.
    ///
    /// # Errors
    /// [`IssueError`] if the two are not an authority's certificate and its key.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<CertificateAuthority, IssueError> {
        let not = |reason: String| IssueError::NotAnAuthority(reason);
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| not(e.to_string()))?;
        let subject = Subject::of_certificate(&der).map_err(|e| not(e.to_string()))?;
        if subject.holder != Holder::Authority {
            return Err(not(format!("it belongs to {subject}")));
        }
        let key = KeyPair::from_pem(key_pem).map_err(|e| not(format!("its private key cannot be read: {e}")))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| not(e.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(IssueError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(CertificateAuthority {
            cluster: subject.cluster,
            certificate: certificate_pem.to_owned(),
            key: key_pem.to_owned(),
            issuer,
        })
    }

    /// Name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The authority's certificate as PEM: every node and client needs it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key as PEM: its holder can admit anybody to the cluster.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// A certificate for the member of this name.
    ///
    /// # Errors
    /// [`IssueError::Name`] if the name cannot stand in a certificate.
    pub fn issue_node(&self, name: &str, validity: Validity) -> Result<Issued, IssueError> {
        self.issue(Holder::Node, name, validity)
    }

    /// A certificate for an application or a person, with what it may do where neither the cluster nor a node's access file says.
    ///
    /// # Errors
    /// [`IssueError::Name`] if the name cannot stand in a certificate.
    pub fn issue_client(&self, name: &str, role: Option<Role>, validity: Validity) -> Result<Issued, IssueError> {
        self.issue(Holder::Client(role), name, validity)
    }

    fn issue(&self, holder: Holder, name: &str, validity: Validity) -> Result<Issued, IssueError> {
        let subject = Subject { cluster: self.cluster.clone(), holder, name: plain(name)? };
        let mut params = parameters(&subject, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if holder == Holder::Node {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.push(SanType::DnsName(text(NODE_SERVER_NAME)?));
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Validity {
    /// From a day ago, so that clocks need not agree to the second, for as many days from now.
    pub fn days(now: SystemTime, days: u64) -> Validity {
        Validity { from: now - DAY, until: now + DAY * u32::try_from(days).unwrap_or(u32::MAX).min(DAYS_MAX) }
    }

    /// Ten years: replacing the authority means new certificates for everybody.
    pub fn authority(now: SystemTime) -> Validity {
        Validity::days(now, 3650)
    }

    /// A little over a year, for nodes and clients.
    pub fn holder(now: SystemTime) -> Validity {
        Validity::days(now, 398)
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> IssueError {
        IssueError::Generate(error.to_string())
    }
}

/// The DNS name in every node's certificate, asked for by clients and peers that connect; which node it is, the URI says.
pub const NODE_SERVER_NAME: &str = "driftless-node";

const DAY: Duration = Duration::from_secs(86_400);

/// A hundred years: beyond, dates run out of the formats that carry them.
const DAYS_MAX: u32 = 36_500;

fn plain(name: &str) -> Result<String, IssueError> {
    // `..` would name a directory, `-x` an option, `.x` a hidden file.
    let is_named = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if is_named && driftless_proto::access::is_name(name) {
        Ok(name.to_owned())
    } else {
        Err(IssueError::Name(name.to_owned()))
    }
}

fn text(ascii: &str) -> Result<Ia5String, IssueError> {
    Ia5String::try_from(ascii).map_err(|_| IssueError::Name(ascii.to_owned()))
}

fn parameters(subject: &Subject, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since_epoch(validity.from);
    params.not_after = epoch + since_epoch(validity.until);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, format!("Driftless {}", subject.cluster));
    params.distinguished_name.push(
        DnType::CommonName,
        match subject.holder {
            Holder::Authority => "authority".to_owned(),
            Holder::Node | Holder::Client(_) => subject.name.clone(),
        },
    );
    params.subject_alt_names = vec![SanType::URI(text(&subject.to_string())?)];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_being_written_down() {
        let made = CertificateAuthority::create("shop").expect("plain name");
        let read = CertificateAuthority::load(made.certificate_pem(), made.key_pem()).expect("its own PEM");
        assert_eq!(read.cluster(), "shop");
        let issued = read.issue_node("a", Validity::holder(SystemTime::now())).expect("plain name");
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
        assert_eq!(Subject::of_certificate(&der).expect("named").to_string(), "driftless://shop/node/a");
    }

    #[test]
    fn a_name_that_would_be_a_directory_an_option_or_a_hidden_file_is_refused() {
        let authority = CertificateAuthority::create("test").expect("plain name");
        for name in ["..", ".", "-rf", ".hidden", "_x", "a/b", ""] {
            let refused = authority.issue_client(name, None, Validity::days(SystemTime::now(), 1)).err();
            assert!(matches!(refused, Some(IssueError::Name(_))), "{name:?}: {refused:?}");
        }
        assert!(authority.issue_client("a.b-c_1", None, Validity::days(SystemTime::now(), 1)).is_ok());
    }

    #[test]
    fn only_an_authority_with_its_own_key_issues() {
        let ours = CertificateAuthority::create("shop").expect("plain name");
        let other = CertificateAuthority::create("shop").expect("plain name");
        let mixed = CertificateAuthority::load(ours.certificate_pem(), other.key_pem());
        assert_eq!(mixed.err(), Some(IssueError::KeyMismatch));
        let node = ours.issue_node("a", Validity::holder(SystemTime::now())).expect("plain name");
        let posing = CertificateAuthority::load(&node.certificate, &node.key);
        assert!(matches!(posing, Err(IssueError::NotAnAuthority(_))));
        assert!(matches!(CertificateAuthority::create("no spaces"), Err(IssueError::Name(_))));
    }
}

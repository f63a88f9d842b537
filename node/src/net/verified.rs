//! The certificate that somebody has shown, after the handshake has verified its chain.

use std::time::{Duration, SystemTime};

use driftless_proto::Serial;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::allowed::Allowed;
use super::subject::{Subject, SubjectError};

/// What is known of the other side of a connection by its certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verified {
    pub(crate) subject: Subject,
    /// Of the certificate and of those between it and an authority, in that order.
    serials: Vec<Serial>,
    /// The last second of the certificate.
    until: SystemTime,
}

impl Verified {
    /// Reads the chain that was shown; the certificate itself is the first in it.
    ///
    /// # Errors
    /// [`SubjectError`] if the certificate names nobody, or one of the chain cannot be read.
    pub(crate) fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Verified, SubjectError> {
        let leaf = chain.first().ok_or_else(|| SubjectError::Unreadable("there is none".to_owned()))?;
        let subject = Subject::of_certificate(leaf)?;
        let serials = chain.iter().map(|der| parse(der).map(|certificate| serial(&certificate)));
        let serials = serials.collect::<Result<Vec<Serial>, _>>()?;
        Ok(Verified { subject, serials, until: until(&parse(leaf)?) })
    }

    /// The number of the certificate itself.
    pub(crate) fn serial(&self) -> &Serial {
        &self.serials[0]
    }

    /// Whether it counts no more.
    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.until + Duration::from_secs(1) <= now
    }

    /// Why it is not let in, if it is not.
    pub(crate) fn denied_by(&self, allowed: &Allowed) -> Option<String> {
        allowed.denial(&self.subject, &self.serials)
    }
}

/// What a certificate says, for people.
pub struct Description {
    /// Whom it names, if it is of a cluster: one between a root and those that it has issued need not be.
    pub subject: Option<Subject>,
    /// What a deny list can name it by.
    pub serial: Serial,
    /// Its first moment.
    pub since: SystemTime,
    /// Its last moment.
    pub until: SystemTime,
}

impl Description {
    /// Of the first certificate in a text. Nothing is verified.
    ///
    /// # Errors
    /// [`SubjectError`] if there is none, or it says of a cluster what cannot be.
    pub fn of_pem(pem: &[u8]) -> Result<Description, SubjectError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| SubjectError::Unreadable(error.to_string()))?;
        Description::of(&der)
    }

    /// Of all of them, in their order.
    ///
    /// # Errors
    /// As [`Description::of_pem`], of the first that cannot be described.
    pub fn all_of_pem(pem: &[u8]) -> Result<Vec<Description>, SubjectError> {
        let all = CertificateDer::pem_slice_iter(pem);
        all.map(|der| Description::of(&der.map_err(|error| SubjectError::Unreadable(error.to_string()))?)).collect()
    }

    fn of(der: &CertificateDer<'_>) -> Result<Description, SubjectError> {
        let certificate = parse(der)?;
        let subject = match Subject::of_certificate(der) {
            Err(SubjectError::Missing) => None,
            found => Some(found?),
        };
        let (since, until) = (since(&certificate), until(&certificate));
        Ok(Description { subject, serial: serial(&certificate), since, until })
    }
}

/// The number of a certificate.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> Serial {
    Serial::of_bytes(certificate.raw_serial())
}

/// The first second of a certificate; the beginning of time for one that began before.
pub(super) fn since(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The last second of a certificate; the beginning of time for one that ended before.
pub(super) fn until(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn parse<'a>(der: &'a [u8]) -> Result<X509Certificate<'a>, SubjectError> {
    let parsed = X509Certificate::from_der(der).map_err(|error| SubjectError::Unreadable(error.to_string()));
    parsed.map(|(_, certificate)| certificate)
}

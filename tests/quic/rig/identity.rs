//! Certificates that are the same in every run: Ed25519 keys from their owners' names, valid for decades.

use driftless_node::net::certificates::NODE_SERVER_NAME;
use driftless_node::net::tls::{TlsFiles, TlsIdentity};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::start_of_time;

/// An authority, and what it issues.
pub(crate) struct Authority {
    cluster: &'static str,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// `seed` tells authorities of one cluster's name apart.
    pub(crate) fn new(cluster: &'static str, seed: &str) -> Authority {
        let mut params = parameters(&format!("driftless://{cluster}/ca"), "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = key_of(&format!("{cluster} authority {seed}"));
        let certificate = params.self_signed(&key).expect("can be signed").pem();
        Authority { cluster, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    pub(crate) fn node(&self, name: &str) -> Issued {
        self.issue("node", name)
    }

    pub(crate) fn client(&self, name: &str) -> Issued {
        self.issue("client", name)
    }

    /// What a node is started with.
    pub(crate) fn tls(&self, name: &str) -> TlsIdentity {
        let files = TlsFiles { ca: "ca.pem".into(), cert: "node.pem".into(), key: "node.key".into() };
        let Issued { certificate, key } = self.node(name);
        let (ca, certificate, key) = (self.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes());
        TlsIdentity::from_pem(&files, ca, certificate, key, start_of_time()).expect("fits")
    }

    fn issue(&self, role: &str, name: &str) -> Issued {
        let mut params = parameters(&format!("driftless://{}/{role}/{name}", self.cluster), name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == "node" {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.push(SanType::DnsName(text(NODE_SERVER_NAME)));
        }
        let key = key_of(&format!("{} {role} {name}", self.cluster));
        let certificate = params.signed_by(&key, &self.issuer).expect("can be signed").pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

fn parameters(uri: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(text(uri))];
    params
}

fn text(ascii: &str) -> Ia5String {
    Ia5String::try_from(ascii).expect("is ASCII")
}

/// An Ed25519 key in the form of PKCS #8, version 1: a fixed head and 32 bytes, here a hash of the name.
fn key_of(name: &str) -> KeyPair {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    for part in 0..4 {
        der.extend_from_slice(&xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), part).to_le_bytes());
    }
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519).expect("is a key")
}

//! What rigs say that speak the client protocol by hand, for what a well-behaved client does not do.

use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::client::{Get, Put, Request};
use driftless_proto::{BucketId, Key, ProtocolVersions, WriteId, greeting};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What the holder of a certificate and key (PEM) dials with.
pub fn config(ca: &str, certificate: &str, key: &str, alpn: &[u8], transport: TransportConfig) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("they fit");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    config.transport_config(Arc::new(transport));
    config
}

/// The first frame of a client.
pub fn greeting() -> Vec<u8> {
    greeting::encode(ProtocolVersions::OURS, &()).expect("is short")
}

/// A get in the default bucket.
pub fn get(key: &str) -> Request {
    let key = Key::new(key.to_owned()).expect("is short");
    Request::Get(Get { bucket: BucketId::DEFAULT, key, r: None, sloppy: None, explain: false, shown: Vec::new() })
}

/// A blind put in the default bucket.
pub fn put(key: &str, value: impl Into<Bytes>, write_id: WriteId) -> Request {
    Request::Put(Put {
        bucket: BucketId::DEFAULT,
        key: Key::new(key.to_owned()).expect("is short"),
        value: value.into(),
        context: None,
        w: None,
        sloppy: None,
        write_id,
    })
}

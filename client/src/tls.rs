//! TLS towards a node: what is offered, what is checked.
//!
//! ```text
//! offered    TLS 1.3 only, ALPN of the client conversation, the client's certificate
//! checked    by rustls: the chain to the cluster's CA and the DNS name that every node's certificate carries
//!            afterwards: the URI name says `node`, and names the member that was meant
//! ```

use std::sync::Arc;

use driftless_proto::frame::ALPN_CLIENT;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::error::ConnectFailure;

/// The DNS name in every node's certificate. Names of hosts mean nothing here: the CA signs for one cluster only, and
/// the URI name tells one node from another.
pub(crate) const SERVER_NAME: &str = "driftless-node";

pub(crate) fn client_config(
    roots: rustls::RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    // Named, never the process's default: an application may have installed another one, or none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    Ok(config)
}

/// The name of the node at the other end.
///
/// # Errors
/// [`ConnectFailure::NotANode`] or [`ConnectFailure::WrongNode`].
pub(crate) fn check_node(
    connection: &quinn::Connection,
    address: &str,
    expected: Option<&str>,
) -> Result<String, ConnectFailure> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let uri = chain.first().and_then(|cert| uri_name(cert)).unwrap_or_default();
    let Some(name) = node_name(&uri) else {
        return Err(ConnectFailure::NotANode { address: address.to_owned(), found: uri });
    };
    match expected {
        Some(expected) if expected != name => Err(ConnectFailure::WrongNode {
            address: address.to_owned(),
            expected: expected.to_owned(),
            found: name.to_owned(),
        }),
        _ => Ok(name.to_owned()),
    }
}

/// The first URI name of this cluster family in a certificate.
fn uri_name(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(cert).ok()?;
    cert.extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .find_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some((*uri).to_owned()),
            _ => None,
        })
}

/// `NAME` of `driftless://CLUSTER/node/NAME`.
fn node_name(uri: &str) -> Option<&str> {
    let mut parts = uri.strip_prefix(SCHEME)?.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(cluster), Some("node"), Some(name), None) if !cluster.is_empty() && !name.is_empty() => Some(name),
        _ => None,
    }
}

const SCHEME: &str = "driftless://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_have_node_names() {
        assert_eq!(node_name("driftless://shop/node/ada"), Some("ada"));
        for other in [
            "",
            "driftless://shop/client/ada",
            "driftless://shop/node/",
            "driftless:///node/ada",
            "driftless://shop/node/ada/x",
            "https://shop/node/ada",
        ] {
            assert_eq!(node_name(other), None, "{other}");
        }
    }
}

//! The admin pages for other machines.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{Cluster, block_on};
use driftless_node::config::Access;
use driftless_node::net::certificates::{CertificateAuthority, Issued, NODE_SERVER_NAME, Validity};
use driftless_proto::Role;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One node with this access file that shows its pages to other machines.
fn node_with(access: &str) -> Cluster {
    let mut cluster = Cluster::plan(&[1]);
    let mut settings = cluster.settings(0);
    settings.security.access = Access::parse(Path::new("access.toml"), access).expect("is fine");
    settings.security.admin_remote = Some(([127, 0, 0, 1], 0).into());
    cluster.start_with(0, settings);
    cluster
}

/// The status of an answer, or why there is none.
async fn ask(cluster: &Cluster, shown: Option<&Issued>, page: &str) -> Result<u16, String> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = cluster.authority.certificate_pem().as_bytes();
    roots.add(CertificateDer::from_pem_slice(authority).expect("a certificate")).expect("an authority");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("is known")
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("fits")
        }
    };
    let address = cluster.node(0).admin_remote_address().expect("listens");
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(NODE_SERVER_NAME).expect("a name");
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let request = format!("GET {page} HTTP/1.1\r\nHost: n1.example:7441\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // The other side closes without a word after its answer.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(answer)
}

fn client(cluster: &Cluster, name: &str, role: Option<Role>) -> Issued {
    cluster.authority.issue_client(name, role, Validity::holder(SystemTime::now())).expect("a plain name")
}

#[test]
fn a_prober_needs_no_certificate_and_a_scraper_one_that_may_read() {
    let cluster = node_with("[[client]]\nname = \"nobody\"\nrole = \"none\"\n[deny]\nclients = [\"thief\"]\n");
    block_on(async {
        for page in ["/health", "/ready"] {
            assert_eq!(ask(&cluster, None, page).await, Ok(200), "{page}");
        }
        for page in ["/", "/events", "/metrics", "/status", "/nowhere"] {
            assert_eq!(ask(&cluster, None, page).await, Ok(403), "{page}");
        }
        let scraper = client(&cluster, "prometheus", Some(Role::Reader));
        for page in ["/", "/metrics", "/status", "/ready"] {
            assert_eq!(ask(&cluster, Some(&scraper), page).await, Ok(200), "{page}");
        }
        for name in ["nobody", "thief"] {
            let refused = client(&cluster, name, Some(Role::Operator));
            assert_eq!(ask(&cluster, Some(&refused), "/metrics").await, Ok(403), "{name}");
        }
    });
    cluster.stop();
}

/// An answer without an end would outlive what let it in.
#[test]
fn the_stream_of_the_status_page_ends_with_the_certificate_that_opened_it() {
    let cluster = node_with("# nobody");
    let now = SystemTime::now();
    let brief = Validity { from: now - Duration::from_secs(60), until: now + Duration::from_secs(5) };
    let watcher = cluster.authority.issue_client("watcher", Some(Role::Reader), brief).expect("a plain name");
    // It is read to its end, which comes.
    assert_eq!(block_on(ask(&cluster, Some(&watcher), "/events")), Ok(200));
    cluster.stop();
}

#[test]
fn a_certificate_of_another_authority_gets_nothing() {
    let cluster = node_with("# nobody");
    let other = CertificateAuthority::create(common::CLUSTER).expect("a plain name");
    let stranger = other.issue_client("prometheus", None, Validity::holder(SystemTime::now())).expect("a plain name");
    block_on(async {
        assert!(ask(&cluster, Some(&stranger), "/metrics").await.is_err());
        assert!(ask(&cluster, Some(&stranger), "/ready").await.is_err());
    });
    cluster.stop();
}

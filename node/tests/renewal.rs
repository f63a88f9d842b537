//! Certificates, authorities, access file and context keys are changed while nodes run.
#![cfg(feature = "net")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use common::{Cluster, TestClient, block_on, endpoint, get, log, put, soon};
use driftless_node::config::{Access, context_key_file, parse_context_keys};
use driftless_node::net::certificates::{CertificateAuthority, Issued, NODE_SERVER_NAME, Validity};
use driftless_node::net::tls::{TlsError, TlsFiles, TlsIdentity};
use driftless_node::net::verified::Description;
use driftless_node::node::CredentialFiles;
use driftless_proto::client::{AaeCommand, Request, Response};
use driftless_proto::frame::ALPN_CLIENT;
use driftless_proto::{ContextError, Failure, ProtocolVersions, Refusal, Role, greeting};
use quinn::Connection;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

/// What one node reads, and may read again.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    /// Of a node with this certificate; one context key, nobody named in the access file.
    fn new(ca: &str, issued: &Issued) -> Files {
        let files = Files { folder: tempfile::tempdir().expect("a directory") };
        files.write("ca.pem", ca);
        files.write("context.key", &context_key_file([7; 32]));
        files.write("access.toml", "# nobody\n");
        files.show(issued);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// At once or not at all, as tools that deploy files do.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).expect("is written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("is ours");
        fs::rename(new, self.path(name)).expect("is on one disk");
    }

    fn show(&self, issued: &Issued) {
        self.write("node.pem", &issued.certificate);
        self.write("node.key", &issued.key);
    }

    fn tls(&self) -> TlsFiles {
        TlsFiles { ca: self.path("ca.pem"), cert: self.path("node.pem"), key: self.path("node.key") }
    }

    /// Starts a node of a cluster that reads these.
    fn start(&self, cluster: &mut Cluster, node: usize) {
        let mut settings = cluster.settings(node);
        settings.tls = TlsIdentity::load(&self.tls(), SystemTime::now()).expect("fits");
        settings.context_keys = parse_context_keys(
            &self.path("context.key"),
            &fs::read_to_string(self.path("context.key")).expect("is there"),
        )
        .expect("is fine");
        settings.security.access = Access::read(&self.path("access.toml")).expect("is fine");
        settings.security.files =
            Some(CredentialFiles::watch(self.tls(), self.path("context.key"), Some(self.path("access.toml"))));
        cluster.start_with(node, settings);
    }
}

fn holder() -> Validity {
    Validity::holder(SystemTime::now())
}

/// For so many seconds from now.
fn seconds(seconds: u64) -> Validity {
    Validity { until: SystemTime::now() + Duration::from_secs(seconds), ..holder() }
}

/// Nodes that run with files.
fn cluster(shards: &[u16]) -> (Cluster, Vec<Files>) {
    let mut cluster = Cluster::plan(shards);
    let files: Vec<Files> = (0..shards.len()).map(|node| files_of(&cluster, node, holder())).collect();
    for (node, files) in files.iter().enumerate() {
        files.start(&mut cluster, node);
    }
    (cluster, files)
}

fn files_of(cluster: &Cluster, node: usize, validity: Validity) -> Files {
    let issued = cluster.authority.issue_node(&cluster.members[node].name, validity).expect("a plain name");
    Files::new(cluster.authority.certificate_pem(), &issued)
}

fn client_of(authority: &CertificateAuthority, name: &str, role: Option<Role>) -> Issued {
    authority.issue_client(name, role, holder()).expect("a plain name")
}

async fn closed_because(connection: &Connection) -> String {
    tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.expect("is closed").to_string()
}

/// Whether a client with this certificate is let in now; the node has the last word in the handshake.
async fn is_let_in(cluster: &Cluster, node: usize, ca: &str, issued: &Issued) -> bool {
    let endpoint = endpoint(ca, issued, ALPN_CLIENT);
    let Ok(connection) = endpoint.connect(cluster.address(node), NODE_SERVER_NAME).expect("valid").await else {
        return false;
    };
    let Ok((mut send, mut receive)) = connection.open_bi().await else { return false };
    let greeting = greeting::encode(ProtocolVersions::OURS, &()).expect("fits");
    send.write_all(&greeting).await.is_ok() && receive.read_chunk(1, true).await.is_ok_and(|answer| answer.is_some())
}

async fn let_in_soon(cluster: &Cluster, node: usize, ca: &str, issued: &Issued, wanted: bool) {
    for _ in 0..400 {
        if is_let_in(cluster, node, ca, issued).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("let in is not {wanted}");
}

#[test]
fn a_client_that_is_denied_by_name_is_cut_off_and_let_in_no_more() {
    let (cluster, files) = cluster(&[2]);
    let ca = cluster.authority.certificate_pem();
    block_on(async {
        let issued = client_of(&cluster.authority, "mallory", Some(Role::Operator));
        let mut mallory = TestClient::connect(cluster.address(0), ca, &issued).await;
        let mut other = cluster.client(0).await;
        mallory.put("k", "v", None).await;
        files[0].write("access.toml", "[deny]\nclients = [\"mallory\"]\n");
        // Nobody tells the node: it looks.
        let reason = closed_because(&mallory.connection).await;
        assert!(reason.contains("driftless://test/client/mallory/operator is on this node's deny list"), "{reason}");
        let again = endpoint(ca, &issued, ALPN_CLIENT);
        if let Ok(connection) = again.connect(cluster.address(0), NODE_SERVER_NAME).expect("valid").await {
            assert!(closed_because(&connection).await.contains("deny list"));
        }
        assert_eq!(cluster.node(0).metrics().connections_revoked.get(), 1);
        assert_eq!(other.get("k").await.siblings.len(), 1, "nobody else is touched");
        // And back.
        files[0].write("access.toml", "# nobody\n");
        cluster.node(0).reread();
        let_in_soon(&cluster, 0, ca, &issued, true).await;
    });
    cluster.stop();
}

#[test]
fn a_certificate_that_is_denied_by_its_number_is_cut_off_and_another_of_the_same_name_is_not() {
    let (cluster, files) = cluster(&[1]);
    let ca = cluster.authority.certificate_pem();
    block_on(async {
        let (lost, next) = (client_of(&cluster.authority, "web", None), client_of(&cluster.authority, "web", None));
        let serial = Description::of_pem(lost.certificate.as_bytes()).expect("is readable").serial;
        let thief = TestClient::connect(cluster.address(0), ca, &lost).await;
        let mut owner = TestClient::connect(cluster.address(0), ca, &next).await;
        files[0].write("access.toml", &format!("[deny]\nserials = [\"{serial}\"]\n"));
        cluster.node(0).reread();
        let reason = closed_because(&thief.connection).await;
        assert!(reason.contains(&format!("serial number {serial} is on this node's deny list")), "{reason}");
        owner.put("k", "v", None).await;
        assert!(is_let_in(&cluster, 0, ca, &next).await && !is_let_in(&cluster, 0, ca, &lost).await);
    });
    cluster.stop();
}

#[test]
fn a_node_that_is_denied_is_cut_off_and_comes_back_when_it_is_not() {
    let (cluster, files) = cluster(&[2, 1]);
    cluster.wait_connected();
    block_on(async {
        let connected = |node: usize| cluster.node(node).status().peers[0].connected;
        files[0].write("access.toml", "[deny]\nnodes = [\"b\"]\n");
        cluster.node(0).reread();
        soon("the node is cut off", || !connected(0) && !connected(1)).await;
        soon("and refused when it calls, or is called", || log().contains("node/b is on this node's deny list")).await;
        assert!(!connected(0));
        files[0].write("access.toml", "# nobody\n");
        cluster.node(0).reread();
        soon("it is back", || connected(0) && connected(1)).await;
    });
    cluster.stop();
}

#[test]
fn a_clients_connection_ends_with_its_certificate() {
    let (cluster, _files) = cluster(&[1]);
    block_on(async {
        let issued = cluster.authority.issue_client("short", None, seconds(3)).expect("a plain name");
        let mut short = TestClient::connect(cluster.address(0), cluster.authority.certificate_pem(), &issued).await;
        let mut long = cluster.client(0).await;
        short.put("k", "v", None).await;
        let reason = closed_because(&short.connection).await;
        assert!(reason.contains("the certificate of this connection has expired"), "{reason}");
        assert_eq!(cluster.node(0).metrics().connections_expired.get(), 1);
        assert_eq!(long.get("k").await.siblings.len(), 1);
    });
    cluster.stop();
}

#[test]
fn a_peers_connection_ends_with_its_certificate_and_the_next_one_brings_it_back() {
    let mut cluster = Cluster::plan(&[1, 1]);
    let files = [files_of(&cluster, 0, holder()), files_of(&cluster, 1, seconds(6))];
    for (node, files) in files.iter().enumerate() {
        files.start(&mut cluster, node);
    }
    cluster.wait_connected();
    let until = cluster.node(1).metrics().certificate_until.get();
    block_on(async {
        let connected = || (0..2).all(|node| cluster.node(node).status().peers[0].connected);
        soon("the certificate has expired", || !connected()).await;
        assert_eq!(cluster.node(0).metrics().connections_expired.get(), 1);
        files[1].show(&cluster.authority.issue_node("b", holder()).expect("a plain name"));
        soon("the new one is read", || cluster.node(1).metrics().certificate_until.get() > until).await;
        soon("and shown, without a restart", connected).await;
    });
    cluster.stop();
}

#[test]
fn the_authority_is_changed_on_living_nodes() {
    let (mut cluster, files) = cluster(&[1, 2, 1]);
    cluster.wait_connected();
    let next = CertificateAuthority::create(common::CLUSTER).expect("a plain name");
    let (old_ca, new_ca) = (cluster.authority.certificate_pem().to_owned(), next.certificate_pem().to_owned());
    let both = format!("{old_ca}{new_ca}");
    let (old, new) = (client_of(&cluster.authority, "web", None), client_of(&next, "web", None));
    let all = || 0..3;
    block_on(async {
        let mut steady = cluster.client(0).await;
        let mut written = 0;
        let mut writes = async || {
            steady.put(&format!("k{written}"), "v", None).await;
            written += 1;
        };
        writes().await;
        // First everybody trusts both.
        files.iter().for_each(|files| files.write("ca.pem", &both));
        for node in all() {
            cluster.node(node).reread();
            let_in_soon(&cluster, node, &old_ca, &new, true).await;
            assert!(is_let_in(&cluster, node, &old_ca, &old).await, "and still the old one");
            writes().await;
        }
        // Then nodes get certificates of the new authority; clients that trust both follow.
        for node in all() {
            files[node].show(&next.issue_node(&cluster.members[node].name, holder()).expect("a plain name"));
            cluster.node(node).reread();
            let_in_soon(&cluster, node, &new_ca, &new, true).await;
            writes().await;
        }
        // Then nobody trusts the old one any more.
        files.iter().for_each(|files| files.write("ca.pem", &new_ca));
        for node in all() {
            cluster.node(node).reread();
            let_in_soon(&cluster, node, &new_ca, &old, false).await;
            assert!(is_let_in(&cluster, node, &new_ca, &new).await);
            writes().await;
        }
    });
    // No connection of before is needed: a node that comes back finds the others.
    cluster.stop_node(2);
    files[2].start(&mut cluster, 2);
    cluster.wait_connected();
    cluster.stop();
}

#[test]
fn files_that_do_not_fit_are_refused_together_and_once_and_the_node_goes_on_with_what_it_had() {
    let (cluster, files) = cluster(&[1]);
    let ca = cluster.authority.certificate_pem();
    block_on(async {
        let issued = cluster.client_identity();
        let metrics = cluster.node(0).metrics();
        let other = cluster.authority.issue_node("a", holder()).expect("a plain name");
        files[0].write("node.pem", &other.certificate);
        files[0].write("access.toml", "[deny]\nclients = [\"tester\"]\nwhat = 1\n");
        files[0].write("context.key", "nonsense\n");
        soon("all three are refused", || metrics.credentials_refused.get() == 3).await;
        assert!(log().contains("does not fit the certificate"));
        assert!(log().contains("line 3 of ") && log().contains("unknown field `what`"));
        assert!(is_let_in(&cluster, 0, ca, &issued).await);
        // They are looked at again and again, and not complained of again.
        files[0].write("node.key", &other.key);
        soon("what fits now is taken", || metrics.credentials_reread.get() == 1).await;
        assert_eq!(metrics.credentials_refused.get(), 3);
        assert!(is_let_in(&cluster, 0, ca, &issued).await);
    });
    cluster.stop();
}

#[test]
fn a_role_that_is_changed_counts_for_connections_that_are_open() {
    let (cluster, files) = cluster(&[2]);
    block_on(async {
        let mut client = cluster.client_as(0, "web", Some(Role::Reader)).await;
        let mut allowed = async |request: Request| {
            !matches!(client.ask(request).await, Response::Failed(Failure::Refused(Refusal::NotAllowed { .. })))
        };
        assert!(!allowed(put("k", "v", None)).await && allowed(get("k")).await);
        files[0].write("access.toml", "[[client]]\nname = \"web\"\nrole = \"operator\"\n");
        cluster.node(0).reread();
        while !allowed(Request::Aae(AaeCommand::Resume)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        files[0].write("access.toml", "default = \"none\"\n[[client]]\nname = \"web\"\nrole = \"writer\"\n");
        cluster.node(0).reread();
        while allowed(Request::Aae(AaeCommand::Resume)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(allowed(put("k", "v", None)).await);
    });
    cluster.stop();
}

#[test]
fn context_keys_are_rotated_on_a_living_node() {
    let (cluster, files) = cluster(&[2]);
    let line = |id: u8, byte: &str| format!("{id} {}\n", byte.repeat(32));
    let first = context_key_file([7; 32]);
    block_on(async {
        let mut client = cluster.client(0).await;
        let token = client.put("k", "v", None).await.context.expect("the only value");
        let sealed_with = |token: &driftless_proto::ContextToken| token.as_bytes()[1];
        assert_eq!(sealed_with(&token), 1);
        files[0].write("context.key", &(line(2, "ab") + &first));
        cluster.node(0).reread();
        let mut newer = token.clone();
        while sealed_with(&newer) != 2 {
            newer = client.get("k").await.context.expect("it has one");
        }
        // Of the old key too, as long as it is there.
        let token = client.put("k", "w", Some(token)).await.context.expect("the only value");
        files[0].write("context.key", &line(2, "ab"));
        cluster.node(0).reread();
        // A token of the first key, made up here: nodes make none any more.
        let old = driftless_testkit::context_keys().seal(
            driftless_proto::BucketId::DEFAULT,
            &driftless_proto::Key::new("k").expect("valid"),
            &driftless_proto::Context::default(),
        );
        loop {
            match client.ask(put("k", "x", Some(old.clone()))).await {
                Response::Failed(Failure::Refused(Refusal::BadContext(ContextError::UnknownKey(1)))) => break,
                Response::Stored(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                other => panic!("{other:?}"),
            }
        }
        client.put("k", "y", Some(token)).await;
    });
    cluster.stop();
}

/// An authority that has another one issue in its place, as companies have it: both of their keys and certificates.
struct Corporate {
    root: String,
    between: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Corporate {
    fn new() -> Corporate {
        let authority = |name: &str, depth: BasicConstraints| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(depth);
            (params, KeyPair::generate().expect("draws a key"))
        };
        let (root, root_key) = authority("root", BasicConstraints::Unconstrained);
        let (between, key) = authority("between", BasicConstraints::Constrained(0));
        let root_pem = root.self_signed(&root_key).expect("signs").pem();
        let between_pem = between.signed_by(&key, &Issuer::new(root, root_key)).expect("signs").pem();
        Corporate { root: root_pem, between: between_pem, issuer: Issuer::new(between, key) }
    }

    /// The certificate alone, without the one that it was issued with.
    fn leaf(&self, uri: &str) -> Issued {
        let mut params = CertificateParams::new(vec![NODE_SERVER_NAME.to_owned()]).expect("a DNS name");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("is ASCII")));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("draws a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs").pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    fn chain(&self, uri: &str) -> Issued {
        let Issued { certificate, key } = self.leaf(uri);
        Issued { certificate: certificate + &self.between, key }
    }
}

#[test]
fn certificates_from_an_authority_with_another_in_between_work_for_nodes_and_clients() {
    let corporate = Corporate::new();
    let mut cluster = Cluster::plan(&[1, 1]);
    let files =
        ["a", "b"].map(|name| Files::new(&corporate.root, &corporate.chain(&format!("driftless://test/node/{name}"))));
    for (node, files) in files.iter().enumerate() {
        files.start(&mut cluster, node);
    }
    cluster.wait_connected();
    block_on(async {
        let web = corporate.chain("driftless://test/client/web");
        let mut client = TestClient::connect(cluster.address(0), &corporate.root, &web).await;
        client.put("k", "v", None).await;
        assert!(!is_let_in(&cluster, 0, &corporate.root, &corporate.leaf("driftless://test/client/web")).await);
        // Without the one in between a node would be refused by all others: it does not start.
        files[0].show(&corporate.leaf("driftless://test/node/a"));
        let unfit = TlsIdentity::load(&files[0].tls(), SystemTime::now()).err().expect("the chain is broken");
        assert!(matches!(unfit, TlsError::ForeignAuthority { .. }), "{unfit}");
        // Denied is also what a denied authority has signed.
        let serial = Description::of_pem(corporate.between.as_bytes()).expect("is readable").serial;
        files[1].write("access.toml", &format!("[deny]\nserials = [\"{serial}\"]\n"));
        cluster.node(1).reread();
        soon("what it has signed is cut off", || !cluster.node(1).status().peers[0].connected).await;
    });
    cluster.stop();
}

#[test]
fn what_happens_is_written_down_without_keys() {
    let (cluster, files) = cluster(&[1]);
    block_on(async {
        let mut auditor = cluster.client_as(0, "auditor", Some(Role::Operator)).await;
        auditor.ask(Request::Aae(AaeCommand::Pause)).await;
        let mut reader = cluster.client_as(0, "nosy", Some(Role::Reader)).await;
        reader.ask(put("a-telling-key", "a-telling-value", None)).await;
        reader.connection.close(0_u32.into(), b"done");
        let line = |parts: &[&str]| {
            log().lines().any(|line| line.contains(" audit: ") && parts.iter().all(|part| line.contains(part)))
        };
        soon("connections", || {
            line(&["event=\"connected\"", "client/auditor/operator", "role=\"operator\"", "serial="])
        })
        .await;
        soon("orders", || line(&["event=\"ordered\"", "client/auditor/operator", "request=\"aae pause\""])).await;
        soon("what was not allowed", || {
            line(&[
                "event=\"not allowed\"",
                "client/nosy/reader",
                "request=\"put\"",
                "bucket=\"default\"",
                "needed=\"writer\"",
            ])
        })
        .await;
        soon("ends of connections", || line(&["event=\"disconnected\"", "client/nosy/reader"])).await;
        files[0].write("access.toml", "[deny]\nclients = [\"auditor\"]\n");
        cluster.node(0).reread();
        soon("what was read again", || {
            line(&["event=\"read again\"", "what=\"access file\"", "taken=true", "denied=1"])
        })
        .await;
        assert!(!log().contains("a-telling"), "no keys, no values");
    });
    cluster.stop();
}

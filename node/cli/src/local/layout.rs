//! The directory of a local cluster.
//!
//! ```text
//! DIR/            mode 0700
//!   cluster.toml  members and buckets; written last, so that it marks a complete directory
//!   ca.pem ca.key context.key client.pem client.key profile.toml
//!   dev.lock      the process of the `dev` that runs here
//!   nodes.json    [{"name", "pid", "state", "listen", "admin", "data_dir", "config"}], kept true
//!   n1/           node.toml node.pem node.key log.txt data/
//!   n2/ …
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use driftless_node::config::{NodeConfig, Profile, context_key_file, read_cluster};
use driftless_node::net::certificates::{CertificateAuthority, IssueError, Validity};
use driftless_proto::Role;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Result};
use crate::new_file::{self, PUBLIC, SECRET};
use crate::profile::DEV_PROFILE;

/// A node's UDP port and its admin port.
pub(crate) type PortPair = (u16, u16);

/// What a new cluster shall look like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Ports of each node.
    pub(crate) ports: Vec<PortPair>,
    /// Shards of each node.
    pub(crate) shards: u16,
}

/// The directory of a local cluster, complete.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Absolute.
    pub(crate) dir: PathBuf,
    /// Its nodes, in the order of the cluster file.
    pub(crate) nodes: Vec<NodeFiles>,
    /// Shards of each node.
    pub(crate) shards: u16,
}

/// One node's files and addresses.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    /// Its name.
    pub(crate) name: String,
    /// UDP.
    pub(crate) listen: SocketAddr,
    /// TCP.
    pub(crate) admin: SocketAddr,
    /// Its data.
    pub(crate) data_dir: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// What it says.
    pub(crate) log: PathBuf,
}

/// For `nodes.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeState {
    /// With this process.
    Running(u32),
    /// No process.
    Exited,
}

/// An entry of `nodes.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    /// The node's name.
    pub(crate) name: String,
    /// Its process; `null` if it has exited.
    pub(crate) pid: Option<u32>,
    /// `running` or `exited`.
    pub(crate) state: String,
    /// UDP.
    pub(crate) listen: SocketAddr,
    /// TCP.
    pub(crate) admin: SocketAddr,
    /// Its data.
    pub(crate) data_dir: PathBuf,
    /// Its configuration, for `driftless serve --config`.
    pub(crate) config: PathBuf,
}

impl Layout {
    /// Whether there is a cluster in this directory.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(CLUSTER_FILE).is_file()
    }

    /// Makes a new cluster in an empty or absent directory.
    pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<Layout> {
        make_dir(dir)?;
        let dir = fs::canonicalize(dir).map_err(|error| cannot("use", dir, &error))?;
        let mut entries = fs::read_dir(&dir).map_err(|error| cannot("read", &dir, &error))?;
        if entries.next().is_some() {
            return Err(Failure::failed(format_args!("{} is not empty and holds no dev cluster", dir.display()))
                .hint("give a new or empty directory, or empty this one if it is left from an interrupted start"));
        }
        let authority = CertificateAuthority::create(CLUSTER).map_err(issue)?;
        new_file::create(&dir.join("ca.pem"), authority.certificate_pem(), PUBLIC)?;
        new_file::create(&dir.join("ca.key"), authority.key_pem(), SECRET)?;
        new_file::create(&dir.join("context.key"), &context_key_file(rand::random()), SECRET)?;
        let validity = Validity::holder(SystemTime::now());
        let client = authority.issue_client("dev", Some(Role::Operator), validity).map_err(issue)?;
        new_file::create(&dir.join("client.pem"), &client.certificate, PUBLIC)?;
        new_file::create(&dir.join("client.key"), &client.key, SECRET)?;

        let mut members = String::new();
        let mut seeds = Vec::new();
        for (i, &(port, admin)) in plan.ports.iter().enumerate() {
            let name = format!("n{}", i + 1);
            let home = dir.join(&name);
            make_dir(&home)?;
            let node = authority.issue_node(&name, validity).map_err(issue)?;
            new_file::create(&home.join("node.pem"), &node.certificate, PUBLIC)?;
            new_file::create(&home.join("node.key"), &node.key, SECRET)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
            let config = format!(
                "name = \"{name}\"\nlisten = \"{address}\"\nadmin = \"{admin}\"\ncluster = \"../{CLUSTER_FILE}\"\ncontext_key = \"../context.key\"\n\n[tls]\nca = \"../ca.pem\"\n",
            );
            new_file::create(&home.join("node.toml"), &config, PUBLIC)?;
            members += &format!("\n[[member]]\nname = \"{name}\"\naddress = \"{address}\"\nshards = {}\n", plan.shards);
            seeds.push(address.to_string());
        }
        let profile = Profile { seeds, ca: "ca.pem".into(), cert: "client.pem".into(), key: "client.key".into() };
        let profile = toml::to_string(&profile)
            .map_err(|error| Failure::failed(format_args!("cannot write the profile: {error}")))?;
        let profile = format!("# For `driftless --profile {} …`\n{profile}", dir.display());
        new_file::create(&dir.join(DEV_PROFILE), &profile, PUBLIC)?;
        let cluster = format!(
            "# Shared by all nodes of this throw-away cluster. Add [[bucket]] tables while it is stopped.\ncluster = \"{CLUSTER}\"\n{members}",
        );
        new_file::create(&dir.join(CLUSTER_FILE), &cluster, PUBLIC)?;
        Layout::open(&dir)
    }

    /// Reads what [`Layout::create`] wrote, perhaps edited since.
    pub(crate) fn open(dir: &Path) -> Result<Layout> {
        let dir = fs::canonicalize(dir).map_err(|error| cannot("use", dir, &error))?;
        let topology = read_cluster(&dir.join(CLUSTER_FILE))?;
        let mut nodes = Vec::new();
        let mut shards = 1;
        // In the order of their names: the ring sorts by id.
        let mut members: Vec<_> = topology.ring().members().iter().collect();
        members.sort_by_key(|member| (member.name.len(), &member.name));
        for member in members {
            let home = dir.join(&member.name);
            let config = home.join("node.toml");
            let node = NodeConfig::read(&config, [], &[])?;
            let missing =
                |key: &str| Failure::usage(format_args!("{} must say {key} in a dev cluster", config.display()));
            shards = member.shards;
            nodes.push(NodeFiles {
                listen: node.listen.ok_or_else(|| missing("listen"))?,
                admin: node.admin.ok_or_else(|| missing("admin"))?,
                data_dir: node.data_dir,
                log: home.join("log.txt"),
                name: node.name,
                config,
            });
        }
        Ok(Layout { dir, nodes, shards })
    }

    /// Writes `nodes.json`, at once or not at all.
    pub(super) fn write_nodes(&self, states: &[NodeState]) -> Result {
        let entries: Vec<NodeEntry> = self
            .nodes
            .iter()
            .zip(states.iter().copied().chain(std::iter::repeat(NodeState::Exited)))
            .map(|(node, state)| NodeEntry {
                name: node.name.clone(),
                pid: match state {
                    NodeState::Running(pid) => Some(pid),
                    NodeState::Exited => None,
                },
                state: if state == NodeState::Exited { "exited" } else { "running" }.to_owned(),
                listen: node.listen,
                admin: node.admin,
                data_dir: node.data_dir.clone(),
                config: node.config.clone(),
            })
            .collect();
        let mut text = serde_json::to_string_pretty(&entries)
            .map_err(|error| Failure::failed(format_args!("cannot write {NODES_FILE}: {error}")))?;
        text.push('\n');
        new_file::replace(&self.dir.join(NODES_FILE), &text, PUBLIC)
    }
}

impl NodeFiles {
    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if tail.is_empty() {
            "  (nothing)".to_owned()
        } else {
            tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
        }
    }

    /// Keeps one older log beside the present one, so that a start finds at most twice [`LOG_BYTES_MAX`].
    pub(super) fn rotate_log(&self) {
        if fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            let _ = fs::rename(&self.log, self.log.with_extension("old.txt"));
        }
    }

    /// The process that holds, or was the last to hold, the lock of the data directory.
    pub(super) fn pid_of_lock(&self) -> Option<u32> {
        fs::read_to_string(self.data_dir.join("lock")).ok()?.trim().parse().ok()
    }
}

/// The entries of a dev cluster's `nodes.json`.
pub(crate) fn read_nodes(dir: &Path) -> std::result::Result<Vec<NodeEntry>, String> {
    let path = dir.join(NODES_FILE);
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is malformed: {error}", path.display()))
}

fn make_dir(dir: &Path) -> Result {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| cannot("make", dir, &error))
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot {verb} {}: {error}", path.display()))
}

fn issue(error: IssueError) -> Failure {
    Failure::failed(format_args!("cannot issue a certificate: {error}"))
}

const CLUSTER: &str = "dev";

pub(crate) const CLUSTER_FILE: &str = "cluster.toml";

const NODES_FILE: &str = "nodes.json";

/// An hour of a node that logs far too much.
const LOG_BYTES_MAX: u64 = 16 << 20;

const TAIL_LINES: usize = 15;

const TAIL_BYTES: usize = 16 << 10;

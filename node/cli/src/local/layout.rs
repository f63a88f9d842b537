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
//!   n4/           the same of a node that was added later: its node.toml says where it is, as cluster.toml does of the others
//!   n2/left       it is no member any more, and is not started
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use driftless_node::config::{NodeConfig, Profile, context_key_file, read_cluster};
use driftless_node::net::certificates::{CertificateAuthority, IssueError, Issued, Validity};
use driftless_proto::Role;
use driftless_ring::Member;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Result};
use crate::members::{by_name, members};
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
    /// Its nodes, in the order of their names; without those that have left.
    pub(crate) nodes: Vec<NodeFiles>,
    /// The port of each member by the cluster file, in the order of their names; also of those that have left.
    pub(crate) founders: Vec<u16>,
    /// Shards of each of those.
    pub(crate) shards: u16,
}

/// What a node that is added shall look like.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    /// Its name.
    pub(crate) name: String,
    /// Its ports.
    pub(crate) ports: PortPair,
    /// Its zone.
    pub(crate) zone: String,
    /// Its share of the data, relative to the others.
    pub(crate) weight: u32,
    /// Its shards.
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
    /// Its shards.
    pub(crate) shards: u16,
    /// Whether it was added later: the cluster file does not name it, and it may be no member yet.
    pub(crate) is_added: bool,
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
            let issued = authority.issue_node(&name, validity).map_err(issue)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            write_node(&home, &name, &issued, (port, admin), "")?;
            members += &format!("\n[[member]]\nname = \"{name}\"\naddress = \"{address}\"\nshards = {}\n", plan.shards);
            seeds.push(address.to_string());
        }
        let profile = Profile { seeds, ca: "ca.pem".into(), cert: "client.pem".into(), key: "client.key".into() };
        let profile = toml::to_string(&profile)
            .map_err(|error| Failure::failed(format_args!("cannot write the profile: {error}")))?;
        let profile = format!("# For `driftless --profile {} …`\n{profile}", dir.display());
        new_file::create(&dir.join(DEV_PROFILE), &profile, PUBLIC)?;
        let cluster = format!(
            "# Founds this throw-away cluster. Once its members have agreed they are changed by `driftless cluster`, and buckets by\n# `driftless bucket`; this file only says whom to call.\ncluster = \"{CLUSTER}\"\n{members}",
        );
        new_file::create(&dir.join(CLUSTER_FILE), &cluster, PUBLIC)?;
        Layout::open(&dir)
    }

    /// Reads what [`Layout::create`] and [`Layout::add`] wrote, perhaps edited since.
    pub(crate) fn open(dir: &Path) -> Result<Layout> {
        let dir = fs::canonicalize(dir).map_err(|error| cannot("use", dir, &error))?;
        let topology = read_cluster(&dir.join(CLUSTER_FILE))?;
        let members: Vec<Member> = members(&topology).collect();
        let shards = members.iter().map(|member| member.shards).next_back().unwrap_or(1);
        let founders = members.iter().map(|member| port_of(&member.address)).collect();
        let mut layout = Layout { dir, nodes: Vec::new(), founders, shards };
        for member in &members {
            let home = layout.dir.join(&member.name);
            // One that has left may have been put away.
            if home.exists() && !home.join(LEFT_FILE).exists() {
                layout.nodes.push(NodeFiles::read(&home, Some(member.shards))?);
            }
        }
        for name in layout.unknown_names()? {
            let home = layout.dir.join(&name);
            layout.nodes.push(NodeFiles::read(&home, None)?);
        }
        layout.nodes.sort_by(|a, b| by_name(&a.name, &b.name));
        Ok(layout)
    }

    /// Those of the cluster file that have not left. Who was added may be a member or not: only the others know.
    pub(crate) fn remaining_founders(&self) -> impl Iterator<Item = &NodeFiles> {
        self.nodes.iter().filter(|node| !node.is_added)
    }

    /// Names of nodes that have a directory, have not left, and are not in here.
    pub(super) fn unknown_names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir).map_err(|error| cannot("read", &self.dir, &error))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.') && !self.nodes.iter().any(|node| node.name == *name))
            .filter(|name| {
                let home = self.dir.join(name);
                home.join("node.toml").is_file() && !home.join(LEFT_FILE).exists()
            })
            .collect();
        names.sort_by(|a, b| by_name(a, b));
        Ok(names)
    }

    /// A node whose directory was made since this was read.
    pub(super) fn read_added(&self, name: &str) -> Result<NodeFiles> {
        NodeFiles::read(&self.dir.join(name), None)
    }

    /// Makes the directory of a node that may join. It is there at once or not at all: a `dev` that runs here starts what it finds.
    pub(crate) fn add(&self, addition: &Addition) -> Result<NodeFiles> {
        let Addition { name, ports, zone, weight, shards } = addition;
        let read = |name: &str| {
            let path = self.dir.join(name);
            fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))
        };
        let authority = CertificateAuthority::load(&read("ca.pem")?, &read("ca.key")?).map_err(issue)?;
        let issued = authority.issue_node(name, Validity::holder(SystemTime::now())).map_err(issue)?;
        let home = self.dir.join(name);
        if home.exists() {
            let has_left = home.join(LEFT_FILE).exists();
            let why = if has_left { "has left the cluster, and is still in" } else { "is there already, in" };
            let failure = Failure::failed(format_args!("{name} {why} {}", home.display()));
            return Err(if has_left {
                failure
                    .hint(format_args!("delete {} to add a new node of that name, or choose another", home.display()))
            } else {
                failure.hint("choose another name, or leave it out")
            });
        }
        let begun = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.dir);
        let begun = begun.map_err(|error| cannot("make a directory in", &self.dir, &error))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.0));
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let joins = format!(
            "# As what it calls the cluster, which does not know it yet.\naddress = \"{address}\"\nzone = {}\nweight = \
             {weight}\nshards = {shards}\n",
            quoted(zone)
        );
        write_node(begun.path(), name, &issued, *ports, &joins)?;
        fs::rename(begun.path(), &home).map_err(|error| cannot("make", &home, &error))?;
        // It has another name now.
        let _ = begun.keep();
        NodeFiles::read(&home, None)
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
    /// Reads a node's directory. How many shards it has the cluster file says, or it says so itself.
    fn read(home: &Path, shards: Option<u16>) -> Result<NodeFiles> {
        let config = home.join("node.toml");
        let text = fs::read_to_string(&config).map_err(|error| cannot("read", &config, &error))?;
        let node = NodeConfig::parse(&config, &text, [], &[])?;
        let missing = |key: &str| Failure::usage(format_args!("{} must say {key} in a dev cluster", config.display()));
        Ok(NodeFiles {
            listen: node.listen.ok_or_else(|| missing("listen"))?,
            admin: node.admin.ok_or_else(|| missing("admin"))?,
            data_dir: node.data_dir,
            log: home.join("log.txt"),
            name: node.name,
            config,
            shards: shards.unwrap_or(node.shards),
            is_added: shards.is_none(),
        })
    }

    /// That its process is gone, where it said why, and what brings it back: `dev` does not start it again while it runs itself.
    pub(crate) fn has_ended(&self, how: &str) -> String {
        let (name, log, config) = (&self.name, self.log.display(), self.config.display());
        format!("{name} {how}; its log is {log}. Start it again with `driftless serve --config {config}`")
    }

    /// Writes down that it is no member any more: it is not started again.
    pub(super) fn mark_left(&self) -> Result {
        let home = self.config.parent().unwrap_or(&self.config);
        new_file::replace(
            &home.join(LEFT_FILE),
            "This node is no member of the cluster any more: `driftless dev` does not start it again.\n",
            PUBLIC,
        )
    }

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

/// Writes the certificate, the key and the configuration of a node.
fn write_node(home: &Path, name: &str, issued: &Issued, (port, admin): PortPair, joins: &str) -> Result {
    new_file::create(&home.join("node.pem"), &issued.certificate, PUBLIC)?;
    new_file::create(&home.join("node.key"), &issued.key, SECRET)?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    let config = format!(
        "name = \"{name}\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\ncluster = \"../{CLUSTER_FILE}\"\ncontext_key = \"../context.key\"\n{joins}\n[tls]\nca = \"../ca.pem\"\n",
    );
    new_file::create(&home.join("node.toml"), &config, PUBLIC)
}

/// The entries of a dev cluster's `nodes.json`.
pub(crate) fn read_nodes(dir: &Path) -> std::result::Result<Vec<NodeEntry>, String> {
    let path = dir.join(NODES_FILE);
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is malformed: {error}", path.display()))
}

/// Of `host:port`, as the cluster file has checked that it is.
fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
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

const LEFT_FILE: &str = "left";

/// An hour of a node that logs far too much.
const LOG_BYTES_MAX: u64 = 16 << 20;

const TAIL_LINES: usize = 15;

const TAIL_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path) -> Layout {
        Layout::create(dir, &Plan { ports: vec![(7400, 7401), (7410, 7411)], shards: 2 }).expect("can be made")
    }

    fn addition(name: &str) -> Addition {
        Addition { name: name.to_owned(), ports: (7430, 7431), zone: "b \"c\"".to_owned(), weight: 2, shards: 3 }
    }

    #[test]
    fn a_node_that_was_added_is_found_again_and_one_that_has_left_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = layout(dir.path());
        assert_eq!(layout.unknown_names().expect("can be read"), Vec::<String>::new());
        let added = layout.add(&addition("n4")).expect("can be added");
        assert!(added.is_added && added.shards == 3 && added.listen.port() == 7430, "{added:?}");
        let text = fs::read_to_string(&added.config).expect("is there");
        assert!(text.contains("address = \"127.0.0.1:7430\"\nzone = 'b \"c\"'\nweight = 2\nshards = 3\n"), "{text}");
        assert_eq!(layout.unknown_names().expect("can be read"), ["n4"], "a dev that runs finds it");

        let names = |layout: &Layout| layout.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let opened = Layout::open(dir.path()).expect("can be read");
        assert_eq!(
            (names(&opened), opened.founders),
            (["n1", "n2", "n4"].map(str::to_owned).to_vec(), vec![7400, 7410])
        );
        assert_eq!(opened.nodes.iter().map(|node| node.shards).collect::<Vec<_>>(), [2, 2, 3]);

        opened.nodes[0].mark_left().expect("can be written");
        opened.nodes[2].mark_left().expect("can be written");
        let opened = Layout::open(dir.path()).expect("can be read");
        assert_eq!(names(&opened), ["n2"]);
        assert_eq!(opened.unknown_names().expect("can be read"), Vec::<String>::new());
        assert_eq!(opened.founders, [7400, 7410], "they are what the cluster was made with");
        let again = opened.add(&addition("n4")).expect_err("its directory is there").to_string();
        assert!(again.contains("has left the cluster") && again.contains("delete "), "{again}");
        fs::remove_dir_all(dir.path().join("n1")).expect("can be put away");
        assert_eq!(names(&Layout::open(dir.path()).expect("can be read")), ["n2"]);
    }

    /// Whoever came first in the list was taken for one, as many as there had been: of a cluster that n1 had left, n4 was, which had
    /// not joined. Nobody knew of it, so `dev` took it for one that has left, stopped it, and did not start it again.
    #[test]
    fn who_was_added_is_no_founder_also_when_a_founder_has_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = layout(dir.path());
        layout.add(&addition("n4")).expect("can be added");
        layout.nodes[0].mark_left().expect("can be written");
        let opened = Layout::open(dir.path()).expect("can be read");
        assert_eq!(opened.remaining_founders().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n2"]);
    }

    #[test]
    fn a_name_is_taken_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = layout(dir.path());
        let taken = layout.add(&addition("n2")).expect_err("is there").to_string();
        assert!(taken.contains("n2 is there already"), "{taken}");
        assert!(layout.add(&addition("no/name")).is_err(), "no certificate can name it");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("is there").filter_map(|entry| entry.ok()).collect();
        assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')), "{left:?}");
    }
}

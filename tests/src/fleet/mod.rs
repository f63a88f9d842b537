//! Nodes as processes of our own, started one by one, each with its files and perhaps its own disk: what
//! [`torment`](crate::torment) and [`crashes`](crate::crashes) strike, and `torment` and [`resize`](crate::resize) let come and go.
//!
//! ```text
//! fleet       certificates, cluster file, a client
//! node        one process and its home: start, kill, pause, log, metrics
//! disk        an ext4 file system in a file, whose copy is what a power cut leaves
//! power_cut   the power of some nodes goes
//! alarms      what no node should say or count
//! change      members come and go, as an operator has it
//! strike      who is struck in the middle of that
//! ```

mod alarms;
mod change;
mod disk;
mod node;
pub(crate) mod power_cut;
mod strike;

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) use self::alarms::{alarming_lines, alarms};
pub(crate) use self::change::{Change, LOOK_EVERY, Look, Operator, Taken, is_settled, moving_of};
pub(crate) use self::disk::Disk;
pub(crate) use self::node::Node;
pub(crate) use self::strike::{Role, Strikes, Struck};
use crate::processes::cluster::free_ports;
use driftless_client::{Client, Identity, IoRuntime, Profile};
use driftless_node::config::context_key_file;
use driftless_node::net::certificates::{CertificateAuthority, Issued, Validity};

/// All nodes. Dropped, it takes the processes and the mounts with it.
pub(crate) struct Fleet {
    dir: PathBuf,
    authority: CertificateAuthority,
    members: Vec<Member>,
    pub(crate) nodes: Vec<Node>,
}

/// What a node of a fleet is to be.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) shards: u16,
    /// What its file says beside names, addresses and certificates.
    pub(crate) settings: String,
}

impl Fleet {
    /// Makes the files of a cluster, and starts nothing. With disks, each node has an image of so many bytes.
    pub(crate) fn create(dir: &Path, members: &[Member], disk_bytes: Option<u64>) -> Fleet {
        Fleet::create_with_guests(dir, members, members.len(), "", disk_bytes)
    }

    /// The same with buckets, as `cluster.toml` has them, of a cluster that only the first so many nodes found. The others can
    /// join it.
    pub(crate) fn create_with_guests(
        dir: &Path,
        members: &[Member],
        founders: usize,
        buckets: &str,
        disk_bytes: Option<u64>,
    ) -> Fleet {
        let authority = CertificateAuthority::create(CLUSTER).expect("an authority can be made");
        let validity = Validity::holder(SystemTime::now());
        write(&dir.join("ca.pem"), authority.certificate_pem());
        write(&dir.join("context.key"), &context_key_file(rand::random()));
        let keep = |name: &str, issued: Issued| {
            write(&dir.join(format!("{name}.pem")), &issued.certificate);
            write(&dir.join(format!("{name}.key")), &issued.key);
        };
        keep("client", authority.issue_client("rig", None, validity).expect("a certificate can be issued"));
        let operator = authority.issue_client("operator", Some(driftless_proto::Role::Operator), validity);
        keep("operator", operator.expect("a certificate can be issued"));
        let base = free_ports(members.len() as u16);
        let mut cluster = format!("cluster = \"{CLUSTER}\"\n{buckets}");
        let mut fleet = Fleet { dir: dir.to_owned(), authority, members: members.to_vec(), nodes: Vec::new() };
        for (number, Member { shards, .. }) in (0..).zip(members) {
            let name = format!("n{}", number + 1);
            let home = dir.join(&name);
            fs::create_dir_all(home.join("disk")).expect("a directory can be made");
            let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (listen, admin) = (address(base + number * 10), address(base + number * 10 + 1));
            let is_founder = usize::from(number) < founders;
            if is_founder {
                cluster += &format!("\n[[member]]\nname = \"{name}\"\naddress = \"{listen}\"\nshards = {shards}\n");
            }
            let disk = disk_bytes.map(|bytes| {
                Disk::create(&home.join("disk.image"), &home.join("disk"), bytes).expect("disks were made before")
            });
            fleet.nodes.push(Node::new(name, home, listen, admin, disk));
            fleet.equip(number.into(), !is_founder);
        }
        write(&dir.join("cluster.toml"), &cluster);
        fleet
    }

    /// Makes a machine of another one's name: with another certificate, without data, and with a file that says where it is, so
    /// that it can join. It must not run.
    pub(crate) fn renew(&mut self, number: usize) {
        self.nodes[number].wipe();
        self.equip(number, true);
    }

    /// Writes a node's certificate and its file.
    fn equip(&self, number: usize, joins: bool) {
        let (Node { name, listen, admin, .. }, Member { shards, settings }) =
            (&self.nodes[number], &self.members[number]);
        let home = self.dir.join(name);
        let issued = self.authority.issue_node(name, Validity::holder(SystemTime::now()));
        let issued = issued.expect("a certificate can be issued");
        write(&home.join("node.pem"), &issued.certificate);
        write(&home.join("node.key"), &issued.key);
        let own = format!("name = \"{name}\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\ndata_dir = \"disk/data\"\n");
        let place = if joins { format!("address = \"{listen}\"\nshards = {shards}\n") } else { String::new() };
        write(&home.join("node.toml"), &format!("{own}{place}{NODE}{settings}"));
    }

    /// A client that knows all nodes that run.
    pub(crate) async fn client(&self, profile: Profile) -> Client {
        self.client_as("client", profile).await
    }

    /// One that may change who the members are.
    pub(crate) async fn operator(&self, profile: Profile) -> Client {
        self.client_as("operator", profile).await
    }

    async fn client_as(&self, who: &str, profile: Profile) -> Client {
        let of = |name: &str| self.dir.join(name);
        let identity = Identity::from_pem_files(of("ca.pem"), of(&format!("{who}.pem")), of(&format!("{who}.key")));
        let running = self.nodes.iter().filter(|node| node.pid().is_some());
        Client::builder()
            .seeds(running.map(|node| node.listen.to_string()))
            .identity(identity.expect("they were made for it"))
            .profile(profile)
            .io_runtime(IoRuntime::Own)
            .connect()
            .await
            .expect("a node answers")
    }

    /// Starts all and waits until each answers.
    pub(crate) fn start_all(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().for_each(Node::start);
        self.nodes.iter_mut().try_for_each(Node::wait_serving)
    }

    /// Where all its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of all nodes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }
}

/// Writes a file that nobody else may read.
fn write(path: &Path, text: &str) {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).expect("a file can be made");
    file.set_permissions(fs::Permissions::from_mode(0o600)).expect("it is ours");
    file.write_all(text.as_bytes()).expect("a file can be written");
}

const CLUSTER: &str = "rig";

/// Where a node finds what all share, seen from its home.
const NODE: &str = "\
cluster = \"../cluster.toml\"
context_key = \"../context.key\"

[tls]
ca = \"../ca.pem\"
";

//! The nodes of a cluster as processes of our own, started one by one, each with its files and perhaps its own disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use driftless_client::{Client, Identity, IoRuntime, Profile};
use driftless_node::config::context_key_file;
use driftless_node::net::certificates::{CertificateAuthority, Validity};
use rustix::process::Signal;

use super::disk::Disk;
use crate::processes::binary::driftless;
use crate::processes::cluster::{TICK, command, free_ports, send};

/// All nodes. Dropped, it takes the processes and the mounts with it.
#[derive(Debug)]
pub(super) struct Fleet {
    dir: PathBuf,
    pub(super) nodes: Vec<Node>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) disk: Option<Disk>,
    home: PathBuf,
    child: Option<Child>,
    /// Whether the child runs another program that runs the node.
    is_under: bool,
    /// Where in its log the present process began.
    log_from: u64,
}

impl Fleet {
    /// Makes the files of a cluster, and starts nothing. With disks, each node has an image of so many bytes.
    pub(super) fn create(dir: &Path, nodes: u16, disk_bytes: Option<u64>) -> Fleet {
        let authority = CertificateAuthority::create(CLUSTER).expect("an authority can be made");
        let validity = Validity::holder(SystemTime::now());
        write(&dir.join("ca.pem"), authority.certificate_pem());
        write(&dir.join("context.key"), &context_key_file(rand::random()));
        let client = authority.issue_client("torment", None, validity).expect("a certificate can be issued");
        write(&dir.join("client.pem"), &client.certificate);
        write(&dir.join("client.key"), &client.key);
        let base = free_ports(nodes);
        let mut cluster = format!("cluster = \"{CLUSTER}\"\n");
        let mut fleet = Fleet { dir: dir.to_owned(), nodes: Vec::new() };
        for number in 0..nodes {
            let name = format!("n{}", number + 1);
            let home = dir.join(&name);
            fs::create_dir_all(home.join("disk")).expect("a directory can be made");
            let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (listen, admin) = (address(base + number * 10), address(base + number * 10 + 1));
            let issued = authority.issue_node(&name, validity).expect("a certificate can be issued");
            write(&home.join("node.pem"), &issued.certificate);
            write(&home.join("node.key"), &issued.key);
            let own =
                format!("name = \"{name}\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\ndata_dir = \"disk/data\"\n");
            let hints = if number % 2 == 1 { FEW_HINTS } else { "" };
            write(&home.join("node.toml"), &(own + &NODE.replace("[aae]", &format!("{hints}\n[aae]"))));
            let shards = 1 + number % SHARDS_MAX;
            cluster += &format!("\n[[member]]\nname = \"{name}\"\naddress = \"{listen}\"\nshards = {shards}\n");
            let disk = disk_bytes.map(|bytes| {
                Disk::create(&home.join("disk.image"), &home.join("disk"), bytes).expect("disks were made before")
            });
            fleet.nodes.push(Node { name, listen, admin, disk, home, child: None, is_under: false, log_from: 0 });
        }
        write(&dir.join("cluster.toml"), &cluster);
        fleet
    }

    /// A client that knows all nodes.
    pub(super) async fn client(&self, profile: Profile) -> Client {
        let of = |name: &str| self.dir.join(name);
        let identity = Identity::from_pem_files(of("ca.pem"), of("client.pem"), of("client.key"));
        Client::builder()
            .seeds(self.nodes.iter().map(|node| node.listen.to_string()))
            .identity(identity.expect("they were made for it"))
            .profile(profile)
            .io_runtime(IoRuntime::Own)
            .connect()
            .await
            .expect("a node answers")
    }

    /// Starts all and waits until each answers.
    pub(super) fn start_all(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().for_each(Node::start);
        self.nodes.iter_mut().try_for_each(Node::wait_serving)
    }

    /// Names of all nodes.
    pub(super) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }
}

impl Node {
    /// Starts it; it may take a while until it serves.
    pub(super) fn start(&mut self) {
        self.start_under(&[]);
    }

    /// The same under a program that is given the command to run.
    pub(super) fn start_under(&mut self, program: &[&str]) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log can be written");
        self.log_from = log.metadata().map_or(0, |metadata| metadata.len());
        let line =
            [program, &[driftless().to_str().expect("is text"), "serve", "--init", "--exit-with-parent", "--config"]];
        let line = line.concat();
        let child = command(line[0])
            .args(&line[1..])
            .arg(self.home.join("node.toml"))
            // Held open by us: when we are gone, it goes.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("can be shared"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the binary runs"));
        self.is_under = !program.is_empty();
    }

    /// Waits until it has said that it is ready.
    pub(super) fn wait_serving(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.log().contains("ready: ") {
            if let Some(status) = self.ended() {
                return Err(format!("{} does not start ({status}):\n{}", self.name, self.log_tail()));
            }
            if Instant::now() > deadline {
                return Err(format!("{} is not ready after {START_PATIENCE:?}:\n{}", self.name, self.log_tail()));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_ended(END_PATIENCE);
    }

    /// Asks it to stop.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        match self.wait_ended(END_PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{} did not stop in order ({status}):\n{}", self.name, self.log_tail())),
            None => Err(format!("{} does not stop:\n{}", self.name, self.log_tail())),
        }
    }

    /// Stops it in its tracks, and waits until no thread of it runs.
    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
        let Some(pid) = self.pid() else { return };
        for _ in 0..100 {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let state = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let runs = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R'));
            if !threads.map(state).any(runs) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, if it has. Forgets it then.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be asked")?;
        self.child = None;
        Some(status)
    }

    /// Waits for its end.
    pub(super) fn wait_ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(TICK);
        }
        None
    }

    /// Its process, if it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let pid = self.child.as_ref().map(Child::id)?;
        if !self.is_under {
            return Some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Where its data is.
    pub(super) fn data(&self) -> PathBuf {
        self.home.join("disk").join("data")
    }

    /// All files of its data.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.data()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// What it has said since its last start.
    pub(super) fn log(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.log_from as usize..).unwrap_or_default()).into_owned()
    }

    /// The end of that.
    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Begins the log anew when it has become long, and keeps what was in it beside it.
    pub(super) fn trim_log(&mut self) {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // The node appends to the file that it has open.
            let _ = fs::copy(&path, path.with_extension("old.txt"));
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_len(0));
            self.log_from = 0;
        }
    }

    /// Where it says things.
    pub(super) fn log_path(&self) -> PathBuf {
        self.home.join("log.txt")
    }

    /// The text of its metrics.
    pub(super) fn metrics(&self) -> Option<String> {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.admin, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).ok()?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            send(pid, signal);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
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

const CLUSTER: &str = "torment";

/// Short segments, so that a run of minutes sees many of them written, merged and used again, on a disk that
/// is soon full; anti-entropy and handoff without long pauses, so that a round can wait for them.
const NODE: &str = "\
cluster = \"../cluster.toml\"
context_key = \"../context.key\"

[tls]
ca = \"../ca.pem\"

[limits]
handoff_delay = \"1s\"

[aae]
interval = \"3s\"

[store]
segment = \"1MiB\"
free_space_reserve = \"48MiB\"
";

/// For every second node: what it is to hold for others is soon too much.
const FEW_HINTS: &str = "hint_bytes_max = \"256KiB\"\nhint_target_bytes_max = \"128KiB\"\n";

/// Nodes have one to so many shards.
const SHARDS_MAX: u16 = 3;

/// What [`NODE`] keeps in reserve.
pub(super) const RESERVE: u64 = 48 << 20;

const LOG_BYTES_MAX: u64 = 8 << 20;

const START_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(30);

//! Five real processes, and what can be done to one of them.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Client, Identity, IoRuntime, Profile};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use super::binary::driftless;
use super::page::page;

/// A cluster in a temporary directory. Dropped, it takes its processes with it.
pub struct Cluster {
    dir: tempfile::TempDir,
    dev: Child,
    /// Nodes that were started again, which `dev` does not look after.
    revived: Vec<Child>,
    names: Vec<String>,
}

/// What `nodes.json` says of a node.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) pid: Option<u32>,
    pub(super) listen: String,
    admin: String,
    config: PathBuf,
}

impl Cluster {
    /// Starts a cluster of so many nodes and waits until they serve.
    pub fn start(nodes: u16) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// The same with settings in the environment of all nodes.
    pub fn start_with(nodes: u16, environment: &[(&str, &str)]) -> Cluster {
        for _ in 0..5 {
            // Somebody may take a port between looking and using it: then another try is made.
            if let Some(cluster) = Cluster::try_start(nodes, environment) {
                return cluster;
            }
        }
        panic!("no cluster starts");
    }

    fn try_start(nodes: u16, environment: &[(&str, &str)]) -> Option<Cluster> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let said = File::create(dir.path().join("dev.txt")).expect("can be written");
        let errors = said.try_clone().expect("can be shared");
        let dev = command(driftless())
            .args(["dev", "--nodes", &nodes.to_string(), "--base-port", &free_ports(nodes).to_string(), "--dir"])
            .arg(dir.path().join("cluster"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(errors)
            .spawn()
            .expect("the binary runs");
        let mut cluster = Cluster { dir, dev, revived: Vec::new(), names: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        while !cluster.said().contains("Process ids are in") {
            if cluster.dev.try_wait().expect("can be asked").is_some() {
                let said = cluster.said();
                assert!(said.contains("in use") || said.contains("cannot listen"), "dev ended:\n{said}");
                return None;
            }
            assert!(Instant::now() < deadline, "dev is not ready in time:\n{}", cluster.said());
            std::thread::sleep(TICK);
        }
        cluster.names = cluster.entries().into_iter().map(|entry| entry.name).collect();
        Some(cluster)
    }

    /// Names of the nodes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A file that `dev` has written beside the nodes' directories.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files().join(name)
    }

    /// Where each node is, and its admin server.
    pub fn addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let address = |text: &str| text.parse().expect("dev gives addresses");
        self.entries().iter().map(|entry| (address(&entry.listen), address(&entry.admin))).collect()
    }

    /// Status and body of a page of a node's admin server; nothing if it does not answer.
    pub fn page(&self, name: &str, path: &str) -> Option<(u16, String)> {
        page(self.entry(name).admin.parse().expect("dev gives addresses"), path)
    }

    /// Memory that each node's process takes up, in KiB; nothing for those that are gone.
    pub fn resident_kib(&self) -> Vec<u64> {
        let status = |entry: Entry| std::fs::read_to_string(format!("/proc/{}/status", entry.pid?)).ok();
        let resident = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.to_owned();
            line.split_whitespace().next()?.parse().ok()
        };
        self.entries().into_iter().filter_map(status).filter_map(resident).collect()
    }

    /// Names of nodes that do not run.
    pub fn gone(&self) -> Vec<String> {
        let runs = |entry: &Entry| entry.pid.is_some_and(is_alive);
        self.entries().into_iter().filter(|entry| !runs(entry)).map(|entry| entry.name).collect()
    }

    /// A client that knows all nodes.
    pub async fn client(&self) -> Client {
        let of = |name: &str| self.files().join(name);
        let identity = Identity::from_pem_files(of("ca.pem"), of("client.pem"), of("client.key"));
        Client::builder()
            .seeds(self.entries().into_iter().map(|entry| entry.listen))
            .identity(identity.expect("dev has made certificates"))
            .profile(Profile::new())
            .io_runtime(IoRuntime::Own)
            .connect()
            .await
            .expect("a node answers")
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, name: &str) {
        self.signal(name, Signal::KILL);
        self.wait_until(&format!("{name} is gone"), |cluster| cluster.entry(name).pid.is_none());
    }

    /// Asks a node to stop, and waits until it has.
    pub fn stop(&mut self, name: &str) {
        self.signal(name, Signal::TERM);
        self.wait_until(&format!("{name} has stopped"), |cluster| cluster.entry(name).pid.is_none());
    }

    /// Starts a node that is gone, as an operator would.
    pub fn restart(&mut self, name: &str) {
        self.restart_under(&[], name);
    }

    /// The same, under a program that is given the command to run.
    pub(super) fn restart_under(&mut self, program: &[&str], name: &str) {
        let config = self.entry(name).config;
        let mut line: Vec<&std::ffi::OsStr> = program.iter().map(std::ffi::OsStr::new).collect();
        line.extend([
            driftless().as_os_str(),
            "serve".as_ref(),
            "--init".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ]);
        let log = File::create(self.dir.path().join(format!("{name}.txt"))).expect("can be written");
        let child = command(line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("can be shared"))
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        self.revived.push(child);
        self.wait_until(&format!("{name} is back"), |cluster| cluster.entry(name).pid.is_some());
    }

    /// Stops a node in its tracks; it keeps its sockets and its memory.
    pub fn pause(&mut self, name: &str) {
        self.signal(name, Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self, name: &str) {
        self.signal(name, Signal::CONT);
    }

    pub(super) fn entry(&self, name: &str) -> Entry {
        self.entries().into_iter().find(|entry| entry.name == name).expect("is a node of this cluster")
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let text = std::fs::read_to_string(self.files().join("nodes.json")).expect("dev has written it");
        let Ok(Value::Array(nodes)) = serde_json::from_str(&text) else { panic!("nodes.json is a list: {text}") };
        let text = |node: &Value, field: &str| node[field].as_str().expect("is a text").to_owned();
        let entry = |node: &Value| Entry {
            name: text(node, "name"),
            pid: node["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
            listen: text(node, "listen"),
            admin: text(node, "admin"),
            config: text(node, "config").into(),
        };
        nodes.iter().map(entry).collect()
    }

    /// The ends of the nodes' logs, for a failure's message.
    pub fn logs(&self) -> String {
        let tail = |name: &String| {
            let places = [self.files().join(name).join("log.txt"), self.dir.path().join(format!("{name}.txt"))];
            let log: String = places.iter().filter_map(|place| std::fs::read_to_string(place).ok()).collect();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        self.names.iter().map(tail).collect()
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dev.txt")).unwrap_or_default()
    }

    fn signal(&self, name: &str, signal: Signal) {
        send(self.entry(name).pid.expect("the node runs"), signal);
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "in vain: {what}\n{}\n{}", self.said(), self.logs());
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pids = match self.files().join("nodes.json").is_file() {
            true => self.entries().into_iter().filter_map(|entry| entry.pid).collect(),
            false => Vec::new(),
        };
        for &pid in &pids {
            // One that is paused hears nothing else.
            send(pid, Signal::CONT);
        }
        send(self.dev.id(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        for &pid in &pids {
            send(pid, Signal::TERM);
        }
        let dev_runs = |dev: &mut Child| matches!(dev.try_wait(), Ok(None));
        while (dev_runs(&mut self.dev) || pids.iter().any(|&pid| is_alive(pid))) && Instant::now() < deadline {
            self.revived.iter_mut().for_each(|child| drop(child.try_wait()));
            std::thread::sleep(TICK);
        }
        pids.into_iter().filter(|&pid| is_alive(pid)).for_each(|pid| send(pid, Signal::KILL));
        for child in self.revived.iter_mut().chain([&mut self.dev]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `driftless bench` against a cluster.
pub(crate) fn bench_command(cluster: &Cluster) -> Command {
    let mut command = command(driftless());
    command.arg("--profile").arg(cluster.files()).arg("bench");
    command
}

/// A command without anything from the environment that could change what `driftless` does.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("DRIFTLESS_")) {
            command.env_remove(variable);
        }
    }
    command.env("DRIFTLESS_CONFIG", Path::new("/nonexistent/driftless/config.toml"));
    command
}

pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn is_alive(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// A port from which on all nodes find theirs free. Starts at a place of this process's own, away from where other test
/// programs look.
pub(crate) fn free_ports(nodes: u16) -> u16 {
    static TURN: AtomicU16 = AtomicU16::new(0);
    let place = (std::process::id() % 80) as u16 + TURN.fetch_add(1, Ordering::Relaxed);
    let free =
        |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 1)).is_ok();
    (0..80)
        .map(|step| 10_000 + (place + step) % 80 * 100)
        .find(|base| (0..nodes).all(|node| free(base + node * 10)))
        .expect("ports are free")
}

const PATIENCE: Duration = Duration::from_secs(90);
/// How often anything is looked at that is waited for.
pub(crate) const TICK: Duration = Duration::from_millis(20);

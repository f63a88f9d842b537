//! A `driftless dev` of real processes for a test, and the command line against it.
//!
//! Everything is bounded in time. When a [`Dev`] goes, its processes and its directory go.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

pub(crate) mod bad_machine;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// A cluster in a directory of its own.
pub(crate) struct Dev {
    child: Option<Child>,
    /// Starts the cluster, and its nodes with it.
    program: PathBuf,
    dir: tempfile::TempDir,
    base_port: u16,
    nodes: u16,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Dev {
    /// Starts three nodes on ports that are free.
    pub(crate) fn start() -> Dev {
        Dev::of(3, |_| {})
    }

    /// The same; `edit` may change the cluster's files before anything has been stored.
    pub(crate) fn prepare(edit: impl Fn(&Path)) -> Dev {
        Dev::of(3, edit)
    }

    /// The same of so many nodes.
    pub(crate) fn of(nodes: u16, edit: impl Fn(&Path)) -> Dev {
        Dev::begun_by(driftless().get_program().into(), nodes, edit)
    }

    /// Three nodes that another build of the program starts; all else is done by this one.
    pub(crate) fn of_release(program: PathBuf) -> Dev {
        Dev::begun_by(program, 3, |_| {})
    }

    fn begun_by(program: PathBuf, nodes: u16, edit: impl Fn(&Path)) -> Dev {
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut dev = Dev { child: None, program: program.clone(), dir, base_port: free_ports(nodes), nodes };
            // Somebody may take a port between looking and using it: then another try is made.
            if dev.try_up(true) {
                let edited = dev.edited(&edit);
                if edited {
                    // The members have agreed on what the file said before: they begin anew.
                    let data: Vec<PathBuf> = dev.nodes().iter().map(|node| text(node, "data_dir").into()).collect();
                    dev.down();
                    data.iter().for_each(|data| std::fs::remove_dir_all(data).expect("can be removed"));
                    dev.up();
                }
                return dev;
            }
        }
        panic!("no cluster starts");
    }

    fn edited(&self, edit: &impl Fn(&Path)) -> bool {
        let file = self.cluster().join("cluster.toml");
        let before = std::fs::read(&file).expect("dev has written it");
        edit(&file);
        before != std::fs::read(&file).expect("is still there")
    }

    /// Starts the cluster again in the same directory.
    pub(crate) fn up(&mut self) {
        assert!(self.try_up(false), "the cluster starts again");
    }

    fn try_up(&mut self, first: bool) -> bool {
        let log = File::create(self.dir.path().join("dev.txt")).expect("can be written");
        let mut command = program(&self.program);
        command.args(["dev", "--dir"]).arg(self.cluster());
        if first {
            command.args(["--base-port", &self.base_port.to_string(), "--nodes", &self.nodes.to_string()]);
        }
        let errors = log.try_clone().expect("can be shared");
        let mut child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("the binary runs");
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let said = self.said();
            if said.contains("Process ids are in") {
                self.child = Some(child);
                return true;
            }
            if let Some(status) = child.try_wait().expect("can be asked") {
                assert!(
                    first && (said.contains("in use") || said.contains("cannot listen")),
                    "dev ended ({status}):\n{said}"
                );
                return false;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("dev is not ready in time:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the cluster to stop, as Ctrl-C does.
    pub(crate) fn down(&mut self) {
        let mut child = self.child.take().expect("runs");
        signal(child.id(), Signal::TERM);
        let status = wait(&mut child, Duration::from_secs(40)).unwrap_or_else(|| panic!("dev stops:\n{}", self.said()));
        assert!(status.success(), "dev stops in order ({status}):\n{}", self.said());
        for (name, pid) in self.pids() {
            assert_eq!(pid, None, "{name} is not running any more");
        }
    }

    /// Ends `dev` itself as a crash would.
    pub(crate) fn crash(&mut self) {
        let mut child = self.child.take().expect("runs");
        let _ = child.kill();
        let _ = child.wait();
    }

    /// What `dev` has printed.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dev.txt")).unwrap_or_default()
    }

    /// The directory to use as `--profile`.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// A place for a test's own files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `nodes.json`.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.cluster().join("nodes.json")).expect("dev has written it");
        let Value::Array(nodes) = serde_json::from_str(&text).expect("is JSON") else { panic!("is a list: {text}") };
        nodes
    }

    /// Name and process of each node.
    pub(crate) fn pids(&self) -> Vec<(String, Option<u32>)> {
        let entry = |node: &Value| (text(node, "name"), node["pid"].as_u64().map(|pid| pid as u32));
        self.nodes().iter().map(entry).collect()
    }

    /// Addresses of the nodes.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes().iter().map(|node| text(node, "listen")).collect()
    }

    /// Ends one node as a crash would, and waits until `nodes.json` says so.
    pub(crate) fn kill(&self, name: &str) {
        self.end(name, Signal::KILL);
    }

    /// Has one node stop in order, and waits in the same way.
    pub(crate) fn stop(&self, name: &str) {
        self.end(name, Signal::TERM);
    }

    fn end(&self, name: &str, with: Signal) {
        let (_, pid) = self.pids().into_iter().find(|(node, _)| node == name).expect("is a node");
        signal(pid.expect("runs"), with);
        self.eventually(&format!("nodes.json says that {name} is gone"), || {
            self.pids().iter().any(|(node, pid)| node == name && pid.is_none())
        });
    }

    /// Ends all nodes at once, as a crash would.
    pub(crate) fn kill_all(&self) {
        let pids = self.pids();
        for (_, pid) in &pids {
            signal(pid.expect("runs"), Signal::KILL);
        }
        self.eventually("nodes.json says that all are gone", || self.pids().iter().all(|(_, pid)| pid.is_none()));
    }

    /// Starts one node by hand, as a person would.
    pub(crate) fn serve(&self, name: &str) -> Child {
        self.serve_with(name, &[])
    }

    /// The same with more flags.
    pub(crate) fn serve_with(&self, name: &str, flags: &[&str]) -> Child {
        let mut command = driftless();
        command.args(["serve", "--config", &self.text_of(name, "config")]).args(flags);
        self.started(name, command)
    }

    /// What `nodes.json` says of a node.
    pub(crate) fn text_of(&self, name: &str, field: &str) -> String {
        let node = self.nodes().into_iter().find(|node| text(node, "name") == name).expect("is a node");
        text(&node, field)
    }

    /// Runs what becomes the process of a node, and waits until that is known.
    pub(crate) fn started(&self, name: &str, command: Command) -> Child {
        let child = self.spawned(name, command);
        self.eventually(&format!("nodes.json says that {name} is back"), || {
            self.pids().iter().any(|(node, pid)| node == name && *pid == Some(child.id()))
        });
        child
    }

    /// The same without waiting.
    pub(crate) fn spawned(&self, name: &str, mut command: Command) -> Child {
        let log = File::create(self.file(&format!("{name}.txt"))).expect("can be written");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("can be shared"))
            .stderr(log)
            .spawn()
            .expect("the binary runs")
    }

    /// Waits for something, for a while.
    pub(crate) fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "in vain: {what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a command against the cluster.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let mut command = driftless();
        command.arg("--profile").arg(self.cluster()).args(args);
        finish(command, b"")
    }

    /// The same with something on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = driftless();
        command.arg("--profile").arg(self.cluster()).args(args);
        finish(command, input)
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
        String::from_utf8(done.stdout).expect("is text")
    }

    /// Runs a command that must succeed and print JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} prints JSON, not {text:?}: {error}"))
    }

    /// Runs a command that must fail with this code, and say all of this.
    pub(crate) fn fails(&self, code: i32, args: &[&str], says: &[&str]) {
        expect_failure(&self.run(args), code, &format!("{args:?}"), says);
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pids = if self.cluster().join("nodes.json").is_file() { self.pids() } else { Vec::new() };
        let _ = child.kill();
        let _ = child.wait();
        // Their standard input has closed with `dev`: they stop by themselves. Nodes that do not are ended.
        let deadline = Instant::now() + Duration::from_secs(10);
        for pid in pids.into_iter().filter_map(|(_, pid)| pid) {
            while is_alive(pid) {
                if Instant::now() > deadline {
                    signal(pid, Signal::KILL);
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The binary under test, without anything from the environment that could change what it does.
pub(crate) fn driftless() -> Command {
    program(env!("CARGO_BIN_EXE_driftless").as_ref())
}

/// The same of any build.
fn program(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("DRIFTLESS_")) {
            command.env_remove(variable);
        }
    }
    command.env("DRIFTLESS_CONFIG", "/nonexistent/driftless/config.toml");
    command
}

/// Runs a line of a shell, in which `driftless` is the binary under test. Both outputs are in `stdout`, as a terminal has them.
/// Profiles are those of a `config.toml` in the directory.
pub(crate) fn shell(line: &str, dir: &Path) -> Done {
    let binary = driftless();
    let beside = Path::new(binary.get_program()).parent().expect("is a file in a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(beside.to_owned()).chain(std::env::split_paths(&path)));
    let mut command = Command::new("sh");
    for (variable, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(dir);
    command.env("PATH", path.expect("has no colon in it")).env("DRIFTLESS_CONFIG", dir.join("config.toml"));
    finish(command, b"")
}

/// Runs a command to its end, which must come.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Done {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("is a pipe");
    let mut stdout = child.stdout.take().expect("is a pipe");
    let mut stderr = child.stderr.take().expect("is a pipe");
    let input = input.to_vec();
    // A command that does not read its input may be gone before all of it is written.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("can be read");
        bytes
    });
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("is text");
        text
    });
    let status = wait(&mut child, Duration::from_secs(100));
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    writer.join().expect("does not panic");
    let (stdout, stderr) = (reader.join().expect("does not panic"), errors.join().expect("does not panic"));
    let status = status.unwrap_or_else(|| panic!("{command:?} comes to an end: {stderr}"));
    Done { code: status.code(), stdout, stderr }
}

/// What is answered to a request for a page without TLS: head and body.
pub(crate) fn fetch(host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Checks code and message of a command that must not succeed.
pub(crate) fn expect_failure(done: &Done, code: i32, what: &str, says: &[&str]) {
    assert_eq!(done.code, Some(code), "{what}: {}", done.stderr);
    for part in says {
        assert!(done.stderr.contains(part), "{what} should say {part:?}, not:\n{}", done.stderr);
    }
}

/// A text field of a JSON object.
pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is a text in {value}")).to_owned()
}

/// The sample records: key and value.
pub(crate) fn sample() -> Vec<(String, String)> {
    include_str!("../../../data/debian-packages.jsonl")
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("is JSON");
            (text(&record, "key"), text(&record, "value"))
        })
        .collect()
}

/// Where the sample is.
pub(crate) fn sample_file() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/debian-packages.jsonl")
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

pub(crate) fn is_alive(pid: u32) -> bool {
    Pid::from_raw(pid as i32).is_some_and(|pid| test_kill_process(pid).is_ok())
}

pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("can be asked") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port from which on so many nodes, at most ten, find theirs free. Starts at a place of this process's own, so that tests that run
/// at the same time seldom meet.
pub(crate) fn free_ports(nodes: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % 4;
    let mut base = 20_000 + (std::process::id() % 100) as u16 * 200 + turn * 50;
    for _ in 0..200 {
        let free = |port: u16| {
            UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 1)).is_ok()
        };
        if (0..nodes).all(|node| free(base + 10 * node)) {
            return base;
        }
        base = if base > 50_000 { 20_000 } else { base + 90 };
    }
    panic!("no free ports");
}

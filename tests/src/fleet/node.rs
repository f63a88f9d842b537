//! One node as a process of our own, with its files and perhaps its own disk.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::disk::Disk;
use crate::processes::binary::driftless;
use crate::processes::cluster::{TICK, command, send};
use crate::processes::page::page;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) disk: Option<Disk>,
    home: PathBuf,
    child: Option<Child>,
    /// Whether the child runs another program that runs the node.
    is_under: bool,
    /// Where in its log the present process began.
    log_from: u64,
}

impl Node {
    /// One that has its files and is not started yet.
    pub(super) fn new(name: String, home: PathBuf, listen: SocketAddr, admin: SocketAddr, disk: Option<Disk>) -> Node {
        Node { name, listen, admin, disk, home, child: None, is_under: false, log_from: 0 }
    }

    /// Starts it; it may take a while until it serves.
    pub(crate) fn start(&mut self) {
        self.start_under(&[]);
    }

    /// The same under a program that is given the command to run.
    pub(crate) fn start_under(&mut self, program: &[&str]) {
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
    pub(crate) fn wait_serving(&mut self) -> Result<(), String> {
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
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_ended(END_PATIENCE);
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        match self.wait_ended(END_PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{} did not stop in order ({status}):\n{}", self.name, self.log_tail())),
            None => Err(format!("{} does not stop:\n{}", self.name, self.log_tail())),
        }
    }

    /// Stops it in its tracks, and waits until no thread of it runs.
    pub(crate) fn pause(&self) {
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
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, if it has. Forgets it then.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be asked")?;
        self.child = None;
        Some(status)
    }

    /// Waits for its end.
    pub(crate) fn wait_ended(&mut self, patience: Duration) -> Option<ExitStatus> {
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
    pub(crate) fn pid(&self) -> Option<u32> {
        let pid = self.child.as_ref().map(Child::id)?;
        if !self.is_under {
            return Some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Takes its data away: whoever starts it again has an empty disk. It must not run.
    pub(crate) fn wipe(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let _ = fs::remove_dir_all(self.data());
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("disk").join("data")
    }

    /// All files of its data.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
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
    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.log_from as usize..).unwrap_or_default()).into_owned()
    }

    /// The end of that.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Begins the log anew when it has become long, and keeps what was in it beside it.
    pub(crate) fn trim_log(&mut self) {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // The node appends to the file that it has open.
            let _ = fs::copy(&path, path.with_extension("old.txt"));
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_len(0));
            self.log_from = 0;
        }
    }

    /// Where it says things.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.home.join("log.txt")
    }

    /// The text of its metrics.
    pub(crate) fn metrics(&self) -> Option<String> {
        Some(page(self.admin, "/metrics")?.1)
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

const LOG_BYTES_MAX: u64 = 8 << 20;

const START_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(30);

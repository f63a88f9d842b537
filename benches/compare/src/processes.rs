//! Processes that end with us: whatever ends this program but `kill -9`, dropping a [`Process`] ends what it started, and nothing
//! else. And ports for them.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::workload::Random;

/// A process that we have started. Dropped, it is ended and waited for.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ending: Ending,
}

/// How a process is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// At once: its data is thrown away.
    Kill,
    /// Asked, and killed if that takes longer: it has children of its own to end.
    Ask(Duration),
}

impl Process {
    /// Starts it, with all that it prints in the file `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf, ending: Ending) -> Result<Process> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C reaches every process of the terminal's group; these are ended by us.
        command.process_group(0);
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { name: name.to_owned(), child, log, ending })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the end of its log, if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}; {}", self.name, last_lines(&self.log)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Ending::Ask(patience), Ok(None)) = (self.ending, self.child.try_wait()) {
            // Not yet waited for, so the number still belongs to it.
            if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let asked = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < patience {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // With what it has started in its group, as Redis does to write its file anew. Neither can fail but for what has ended already.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log, for an error.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() {
        format!("its log {} is empty", log.display())
    } else {
        format!("its log ended with\n  {}", last.join("\n  "))
    }
}

/// A program on the `PATH`, also in the directories of administrators, which a user's path may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(program, &path).or_else(|| find_in(program, OsStr::new("/usr/local/sbin:/usr/sbin:/sbin")))
}

fn find_in(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The first line that a program prints of its version.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().with_context(|| format!("{} does not say its version", program.display()))?;
    Ok(first.trim().to_owned())
}

/// The first of a block of ports on the loopback interface of which those at `offsets` are free, for TCP and for UDP. They lie below
/// those that the system gives out by itself; another program may still be quicker.
pub(crate) fn free_ports(offsets: &[u16]) -> Result<u16> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut random = Random::new(now.as_nanos() as u64 ^ u64::from(std::process::id()));
    let free = |port: u16| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    for _ in 0..1000 {
        let first = 20_000 + random.below(12_000) as u16;
        if offsets.iter().all(|offset| free(first + offset)) {
            return Ok(first);
        }
    }
    bail!("no free ports were found between 20000 and 32000");
}

const LAST_LINES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, dir: &Path, ending: Ending) -> Process {
        Process::start("it", Command::new("sh").args(["-c", script]), dir.join("log"), ending).expect("sh is there")
    }

    fn runs(pid: u32) -> bool {
        rustix::process::test_kill_process(Pid::from_raw(pid as i32).expect("a number")).is_ok()
    }

    #[test]
    fn dropping_a_process_ends_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for (script, ending) in [
            ("exec sleep 60", Ending::Kill),
            ("exec sleep 60", Ending::Ask(Duration::from_secs(30))),
            ("trap '' TERM; while :; do sleep 1; done", Ending::Ask(Duration::from_millis(100))),
        ] {
            let mut process = start(script, dir.path(), ending);
            process.check().expect("it runs");
            let (pid, dropped) = (process.pid(), Instant::now());
            drop(process);
            assert!(!runs(pid) && dropped.elapsed() < Duration::from_secs(10), "{script} {ending:?}");
        }
    }

    #[test]
    fn a_process_that_ended_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut process = start("echo no such disk; exit 3", dir.path(), Ending::Kill);
        let error = loop {
            if let Err(error) = process.check() {
                break error.to_string();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(error.contains("it ended: exit status: 3") && error.contains("no such disk"), "{error}");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-of-this-name"), None);
    }

    #[test]
    fn free_ports_can_be_bound() {
        let first = free_ports(&[0, 1, 10]).expect("there are some");
        for offset in [0, 1, 10] {
            TcpListener::bind((Ipv4Addr::LOCALHOST, first + offset)).expect("it was free");
        }
    }
}

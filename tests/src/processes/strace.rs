//! `strace` lets chosen system calls fail, wait, or not happen at all.

use std::process::{Child, Command, Stdio};

use super::cluster::{TICK, command};

/// Options that each use has in common. Only the chosen calls stop the process, so the rest keeps its speed; that
/// works for what is started under strace, not for what it is attached to.
pub(crate) const QUIETLY: [&str; 5] = ["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf"];

/// Calls that make data durable.
pub(crate) const SYNCS: &str = "fsync,fdatasync";

/// What a process is started under so that no sync happens, and each is said to have.
pub(crate) fn lying_syncs() -> Vec<String> {
    let own = ["-e", &format!("trace={SYNCS}"), "-e", &format!("inject={SYNCS}:retval=0"), "--"].map(str::to_owned);
    ["strace"].into_iter().chain(QUIETLY).map(str::to_owned).chain(own).collect()
}

/// What the machine lacks for it, if it lacks something.
pub(crate) fn missing() -> Option<String> {
    let [trace, inject] = [format!("trace={SYNCS}"), format!("inject={SYNCS}:delay_exit=1")];
    let tried = Command::new("strace").args(QUIETLY).args(["-e", &trace, "-e", &inject, "true"]).output();
    match tried {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(format!("strace cannot inject here: {}", String::from_utf8_lossy(&done.stderr))),
        Err(error) => Some(format!("strace does not run: {error}")),
    }
}

/// strace attached to a process that runs; detached when dropped.
pub(crate) struct Attached(Child);

impl Attached {
    /// Does something to calls of a process from now on, on these files only if any are named.
    pub(crate) fn to(pid: u32, calls: &str, injection: &str, files: &[String]) -> Attached {
        let mut strace = command("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{injection}")]);
        for file in files {
            strace.args(["-P", file]);
        }
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let attached = Attached(child.expect("strace ran before"));
        for _ in 0..500 {
            let traced = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let tracer = traced.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_none_or(|tracer| tracer.trim() != "0") {
                break;
            }
            std::thread::sleep(TICK);
        }
        attached
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        super::cluster::send(self.0.id(), rustix::process::Signal::TERM);
        for _ in 0..250 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(TICK);
        }
        // It waits for a process that does not come back from a call. What it traced goes on when it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

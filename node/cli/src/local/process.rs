//! One node's process. It holds the reading end of a pipe whose other end is ours: when we are gone, however that
//! happened, the pipe closes and the node stops (`serve --exit-with-parent`).

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::POLL_INTERVAL;
use super::layout::NodeFiles;
use crate::exit::{Failure, Result};

/// A process that we started, and have not seen the end of.
pub(super) struct NodeProcess {
    child: Child,
}

impl NodeProcess {
    /// Starts `driftless serve` for a node.
    pub(super) fn start(node: &NodeFiles) -> Result<NodeProcess> {
        let failed = |what: &str, error: std::io::Error| Failure::failed(format_args!("cannot {what}: {error}"));
        node.rotate_log();
        let program = std::env::current_exe().map_err(|error| failed("find this program's file", error))?;
        let log = File::options().create(true).append(true).open(&node.log);
        let log = log.map_err(|error| failed(&format!("open {}", node.log.display()), error))?;
        let errors = log.try_clone().map_err(|error| failed("share the log", error))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&node.config).args(["--init", "--exit-with-parent"]);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        // Ctrl-C reaches every process in the terminal's group; these are stopped by us, in order.
        command.process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(is_particular) {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().map_err(|error| failed(&format!("start node {}", node.name), error))?;
        Ok(NodeProcess { child })
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(status) => status.map(describe),
            Err(error) => Some(format!("cannot be watched any more ({error})")),
        }
    }

    /// Asks it to stop.
    pub(super) fn terminate(&mut self) {
        // Not yet waited for, so the number still belongs to it.
        if let (None, Some(pid)) = (self.exited(), raw(self.pid())) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the end of what was asked to stop, and kills it if that has not come by then. Whether it has.
    pub(super) fn wait(&mut self, deadline: Instant) -> bool {
        while self.exited().is_none() {
            if Instant::now() >= deadline {
                self.kill();
                return false;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Ends it at once, and waits for that.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a process with this number.
pub(super) fn is_alive(pid: u32) -> bool {
    raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Variables that would make all nodes the same one. Limits, anti-entropy, store and log settings are for all of them.
fn is_particular(variable: &str) -> bool {
    variable
        .strip_prefix("DRIFTLESS__")
        .is_some_and(|name| !["LIMITS__", "AAE__", "STORE__", "LOG__"].iter().any(|common| name.starts_with(common)))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

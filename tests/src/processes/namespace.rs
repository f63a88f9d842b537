//! A network of the test's own, in which it may cut wires.
//!
//! The test program runs itself again in a fresh network namespace, with the loopback interface and nothing else.
//! There, `ip rule` can lose what goes from one port to another: a cut in one direction between two processes, which
//! needs no packet filter. When the program ends, the namespace and all rules are gone.
//!
//! With disks, it gets mounts and process numbers of its own as well. It is the first process there: when it ends,
//! however it ends, the kernel kills all others, takes the mounts away and frees the loop devices under them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::binary::driftless;

/// Where the caller is.
pub enum Inside {
    /// In the namespace: cut what you like.
    Yes,
    /// Outside; the same arguments were run inside, and this is whether that succeeded.
    Ran(bool),
    /// Outside, and there is no way in, for this reason.
    Impossible(String),
}

/// Runs this program with these arguments in a namespace of its own, unless it is there already.
pub fn inside(arguments: &[&str]) -> Inside {
    enter(NETWORK, arguments)
}

/// The same, where it may mount file systems as well.
pub fn inside_with_disks(arguments: &[&str]) -> Inside {
    enter(NETWORK_AND_DISKS, arguments)
}

fn enter(own: &[&str], arguments: &[&str]) -> Inside {
    if std::env::var_os(MARK).is_some_and(|outside| outside != network()) {
        return Inside::Yes;
    }
    if let Err(reason) = try_rules(own) {
        return Inside::Impossible(reason);
    }
    // If it has to be built, then where there is a network.
    driftless();
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = in_namespace(own, SET_UP, &[&[program.to_str().expect("is text")], arguments].concat());
    let status = command.stdin(Stdio::piped()).spawn().and_then(|mut child| {
        // Open for as long as this process lives, so that the one inside can tell when it does not.
        let _alive = child.stdin.take();
        child.wait()
    });
    Inside::Ran(status.is_ok_and(|status| status.success()))
}

fn try_rules(own: &[&str]) -> Result<(), String> {
    let script = format!("{SET_UP} && ip rule add pref 10 ipproto udp sport 1 dport 2 blackhole && exec \"$@\"");
    match in_namespace(own, &script, &["true"]).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("no own network: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(format!("unshare does not run: {error}")),
    }
}

/// Which network this process is in.
fn network() -> PathBuf {
    std::fs::read_link("/proc/self/ns/net").unwrap_or_default()
}

fn in_namespace(own: &[&str], script: &str, then: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = if script.ends_with("\"$@\"") { script.to_owned() } else { format!("{script} && exec \"$@\"") };
    command.args(own).args(["--", "sh", "-c", &script, "sh"]).args(then).env(MARK, network());
    command
}

const NETWORK: &[&str] = &["--net"];
const NETWORK_AND_DISKS: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The rule for own addresses usually comes first of all; here those that cut come before it.
const SET_UP: &str = "ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0";

/// Holds the network of who made the namespace, so that it is not taken for one where it is not.
const MARK: &str = "RIG_INSIDE_NAMESPACE";

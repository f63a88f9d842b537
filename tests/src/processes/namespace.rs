//! A network of the test's own, in which it may cut wires.
//!
//! The test program runs itself again in a fresh network namespace, with the loopback interface and nothing else.
//! There, `ip rule` can lose what goes from one port to another: a cut in one direction between two processes, which
//! needs no packet filter. When the program ends, the namespace and all rules are gone.

use std::path::PathBuf;
use std::process::Command;

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
    if std::env::var_os(MARK).is_some_and(|outside| outside != network()) {
        return Inside::Yes;
    }
    if let Err(reason) = try_rules() {
        return Inside::Impossible(reason);
    }
    // If it has to be built, then where there is a network.
    driftless();
    let own = std::env::current_exe().expect("a running program has a path");
    let status = in_namespace(SET_UP, &[&[own.to_str().expect("is text")], arguments].concat()).status();
    Inside::Ran(status.is_ok_and(|status| status.success()))
}

fn try_rules() -> Result<(), String> {
    let script = format!("{SET_UP} && ip rule add pref 10 ipproto udp sport 1 dport 2 blackhole && exec \"$@\"");
    match in_namespace(&script, &["true"]).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("no own network: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(format!("unshare does not run: {error}")),
    }
}

/// Which network this process is in.
fn network() -> PathBuf {
    std::fs::read_link("/proc/self/ns/net").unwrap_or_default()
}

fn in_namespace(script: &str, then: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = if script.ends_with("\"$@\"") { script.to_owned() } else { format!("{script} && exec \"$@\"") };
    command.args(["--net", "--", "sh", "-c", &script, "sh"]).args(then).env(MARK, network());
    command
}

/// The rule for own addresses usually comes first of all; here those that cut come before it.
const SET_UP: &str = "ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0";

/// Holds the network of who made the namespace, so that it is not taken for one where it is not.
const MARK: &str = "RIG_INSIDE_NAMESPACE";

//! What is done to one node, and undone.

use std::process::Command;

use super::cluster::Cluster;

/// A fault of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `kill -9`, and started again.
    Kill,
    /// SIGSTOP, and SIGCONT: sockets stay, nothing answers.
    Pause,
    /// Every fsync takes 200 ms longer.
    SlowSync,
    /// What the node sends to its peers is lost, and it hears them; clients reach it. Needs [`inside`](super::inside).
    Mute,
    /// Nothing passes between the node and its peers; clients reach all. Needs [`inside`](super::inside).
    CutOff,
}

impl Fault {
    /// All of them, with the names that the command line knows.
    pub const ALL: [(&'static str, Fault); 5] = [
        ("kill", Fault::Kill),
        ("pause", Fault::Pause),
        ("slow-fsync", Fault::SlowSync),
        ("one-way", Fault::Mute),
        ("cut-off", Fault::CutOff),
    ];

    /// What the machine lacks for this fault, if it lacks something.
    pub fn missing(self) -> Option<String> {
        match self {
            Fault::SlowSync => {
                let tried = Command::new("strace")
                    .args(["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", TRACE, "-e", INJECT, "true"])
                    .output();
                match tried {
                    Ok(done) if done.status.success() => None,
                    Ok(done) => Some(format!("strace cannot inject here: {}", String::from_utf8_lossy(&done.stderr))),
                    Err(error) => Some(format!("strace does not run: {error}")),
                }
            }
            _ => None,
        }
    }

    pub(super) fn strike(self, cluster: &mut Cluster, node: &str) {
        match self {
            Fault::Kill => cluster.kill(node),
            Fault::Pause => cluster.pause(node),
            // Under strace from its start: attached later, strace would slow down all system calls, not only these.
            Fault::SlowSync => {
                cluster.stop(node);
                let strace =
                    ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", TRACE, "-e", INJECT, "--"];
                cluster.restart_under(&strace, node);
            }
            Fault::Mute => cut(cluster, node, false),
            Fault::CutOff => cut(cluster, node, true),
        }
    }

    pub(super) fn heal(self, cluster: &mut Cluster, node: &str) {
        match self {
            Fault::Kill => cluster.restart(node),
            Fault::Pause => cluster.resume(node),
            Fault::SlowSync => {
                cluster.stop(node);
                cluster.restart(node);
            }
            // Rules that are gone already are not missed.
            Fault::Mute | Fault::CutOff => while ip(&["rule", "del", "pref", CUTS]) {},
        }
    }

    /// Whether the node is replaced when the fault begins: what that costs is not the fault's.
    pub(super) fn prepares(self) -> bool {
        self == Fault::SlowSync
    }
}

/// Nodes speak to each other from the ports they listen on, so a rule on both ports is one direction of one pair.
fn cut(cluster: &Cluster, node: &str, both_ways: bool) {
    let port = |listen: &str| listen.rsplit(':').next().unwrap_or_default().to_owned();
    let own = port(&cluster.entry(node).listen);
    for other in cluster.entries().into_iter().filter(|entry| entry.name != node) {
        let other = port(&other.listen);
        for (from, to, wanted) in [(&own, &other, true), (&other, &own, both_ways)] {
            let rule = ["rule", "add", "pref", CUTS, "ipproto", "udp", "sport", from, "dport", to, "blackhole"];
            assert!(!wanted || ip(&rule), "a route can be closed in an own namespace");
        }
    }
}

pub(super) fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|done| done.status.success())
}

const TRACE: &str = "trace=fsync,fdatasync";
const INJECT: &str = "inject=fsync,fdatasync:delay_exit=200000";

/// Preference of the rules that cut, before the one that leads to this machine's own addresses.
const CUTS: &str = "10";

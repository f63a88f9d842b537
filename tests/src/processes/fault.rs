//! What is done to one node, and undone.

use super::cluster::Cluster;
use super::strace::{self, QUIETLY, SYNCS};
use super::wires;

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
            Fault::SlowSync => strace::missing(),
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
                let [trace, inject] = [format!("trace={SYNCS}"), format!("inject={SYNCS}:{SLOW}")];
                let strace = [&["strace"], &QUIETLY[..], &["-e", &trace, "-e", &inject, "--"]].concat();
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
            Fault::Mute | Fault::CutOff => wires::mend(),
        }
    }

    /// Whether the node is replaced when the fault begins: what that costs is not the fault's.
    pub(super) fn prepares(self) -> bool {
        self == Fault::SlowSync
    }
}

fn cut(cluster: &Cluster, node: &str, both_ways: bool) {
    let address = |listen: &str| listen.parse().expect("nodes listen at IP addresses");
    let own = address(&cluster.entry(node).listen);
    for other in cluster.entries().into_iter().filter(|entry| entry.name != node) {
        let other = address(&other.listen);
        wires::cut(own, other);
        if both_ways {
            wires::cut(other, own);
        }
    }
}

/// 200 ms more for each sync.
pub(crate) const SLOW: &str = "delay_exit=200000";

//! What no node should say or count: a bug, or damage that nobody did.

use super::node::Node;

/// Counters that must stay 0 and have not, and alarming lines of the log, since the node's last start.
pub(crate) fn alarms(node: &Node) -> Vec<String> {
    let Some(metrics) = node.metrics() else { return vec![format!("{} shows no metrics", node.name)] };
    let risen = |line: &&str| {
        MUST_STAY_0.iter().any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') && rest != " 0"))
    };
    let mut alarms: Vec<String> = metrics.lines().filter(risen).map(|line| format!("{}: {line}", node.name)).collect();
    alarms.extend(alarming_lines(node));
    alarms
}

/// Those lines alone: of a node that does not run, too.
pub(crate) fn alarming_lines(node: &Node) -> Vec<String> {
    let log = node.log();
    let alarming = log.lines().filter(|line| ALARMING.iter().any(|words| line.contains(words)));
    alarming.take(3).map(|line| format!("{}: {line}", node.name)).collect()
}

const MUST_STAY_0: [&str; 4] = [
    "driftless_actor_alarms_total",
    "driftless_aae_drift_total",
    "driftless_aae_keys_unrepaired_total",
    "driftless_protocol_violations_total",
];

const ALARMING: [&str; 6] = [
    "panicked",
    "is damaged",
    "differed in three successive rounds",
    "is not what its records come to",
    "both have ring version",
    "two processes run as this node",
];

//! The nodes that answer, what is the matter with them, and what they have agreed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use driftless_client::Profile;
use driftless_client::{Client, NoRetry};
use driftless_node::conditions::verdict::Verdict;
use driftless_node::store::directory::User;
use driftless_proto::client::Severity;
use driftless_proto::{ProtocolVersions, Topology};

use super::finding::{Area, Report};
use super::{Patient, record};
use crate::exit::Result;
use crate::global::GlobalArgs;
use crate::local::http;
use crate::members::members;
use crate::profile::Access;
use crate::session;
use crate::status::{self, Node};

const AREA: Area = Area::Cluster;

/// What came of asking.
enum Asked {
    Answered { topology: Arc<Topology>, nodes: Vec<Node> },
    Silence,
}

/// Asks the cluster that is meant, as far as there is one.
pub(super) fn look(global: &GlobalArgs, patient: Option<&Patient>, report: &mut Report) {
    release(patient, report);
    // A variable that is set for the commands of this shell says nothing of a node that is named on the command line.
    let is_named = if patient.is_some() { global.cluster.flags_name_one() } else { global.cluster.names_one() };
    let access = match patient {
        Some(patient) if !is_named => own_access(patient),
        _ => match global.cluster.access() {
            Ok(access) => Some(access),
            Err(failure) if is_named => {
                report.problem(AREA, "nodes", failure.message(), failure.hint_text().unwrap_or_default());
                return on_disk(patient, report);
            }
            Err(_) => None,
        },
    };
    let Some(access) = access else {
        let why = match patient {
            Some(_) => {
                "the node's certificate or cluster file cannot be used, and no other cluster was named (--profile, --endpoint)"
            }
            None => "no cluster was named (--profile, --endpoint)",
        };
        report.unchecked(AREA, "nodes", why);
        return on_disk(patient, report);
    };
    match ask(global, &access) {
        Ok(Asked::Answered { topology, nodes }) => {
            health(&topology, &nodes, report);
            releases(&nodes, report);
            clocks(&nodes, report);
            match patient.map(|patient| (patient, patient.founding.as_ref())) {
                Some((_, Some(file))) if file.cluster() != topology.cluster() => another(file, &topology, report),
                Some((patient, file)) => {
                    belongs(patient, &topology, report);
                    if let Some(file) = file {
                        record::compare(file, &topology, report);
                    }
                }
                None => {}
            }
        }
        Ok(Asked::Silence) => {
            let seeds = access.seeds.join(", ");
            if is_named || patient.is_some_and(Patient::runs) {
                let remedy = "start the nodes (`driftless serve --config FILE`), or name one that runs";
                report.problem(AREA, "nodes", format!("nobody answers at {seeds}"), remedy);
            } else {
                report.unchecked(AREA, "nodes", format!("nobody answers at {seeds}"));
            }
            on_disk(patient, report);
        }
        Err(failure) => {
            let remedy = failure.hint_text().unwrap_or("see docs/operations.md, Nodes do not connect");
            report.problem(AREA, "nodes", failure.message(), remedy);
            on_disk(patient, report);
        }
    }
}

/// Everything would differ between two clusters, and nothing of it would be to do.
fn another(file: &Topology, answered: &Topology, report: &mut Report) {
    let (own, other) = (file.cluster(), answered.cluster());
    let what = format!("the nodes that were asked are of cluster {other}, and this node's cluster file is of {own}");
    let remedy = "leave out --profile, --endpoint, --ca, --cert and --key to ask this node's cluster, or correct `cluster` in node.toml";
    report.problem(AREA, "cluster.toml", what, remedy);
}

/// What is installed here, and what the node here runs.
fn release(patient: Option<&Patient>, report: &mut Report) {
    let ours = format!("{}, protocol {}", env!("CARGO_PKG_VERSION"), ProtocolVersions::OURS);
    let admin = patient.filter(|patient| patient.runs()).and_then(|patient| patient.config.admin);
    let page = admin.and_then(|admin| http::get(admin, "/metrics", PATIENCE).ok());
    match page.and_then(|(_, metrics)| built(&metrics)) {
        Some(running) if running != ours => {
            let what = format!("the node here runs {running}, and this is {ours}");
            report.warning(
                AREA,
                "release",
                what,
                "restart the node to run what is installed (docs/operations.md, Upgrading)",
            );
        }
        Some(_) => report.ok(AREA, "release", format!("{ours}, and so is the node here")),
        None => report.ok(AREA, "release", ours),
    }
}

/// `driftless_build_info{version="0.1.0",protocol_version="2"} 1`, in the words for this release.
fn built(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("driftless_build_info{"))?;
    let label = |name: &str| Some(line.split_once(&format!("{name}=\""))?.1.split_once('"')?.0);
    Some(format!("{}, protocol {}", label("{version")?, label(",protocol_version")?))
}

/// The node's own certificate is good for both protocols; whom to ask stands in its cluster file.
fn own_access(patient: &Patient) -> Option<Access> {
    let founding = patient.founding.as_ref().filter(|_| patient.is_certified)?;
    let config = &patient.config;
    let mut seeds: Vec<String> = known(patient).into_iter().flat_map(|agreed| addresses(&agreed)).collect();
    seeds.extend(addresses(founding));
    seeds.extend(config.address.clone());
    let mut seen = Vec::new();
    seeds.retain(|seed| {
        !seen.contains(seed) && {
            seen.push(seed.clone());
            true
        }
    });
    let (ca, cert, key) = (config.tls_ca.clone(), config.tls_cert.clone(), config.tls_key.clone());
    Some(Access { seeds, ca, cert, key, endpoint: None, dev_dir: None })
}

fn addresses(topology: &Topology) -> Vec<String> {
    members(topology).map(|member| member.address).collect()
}

/// What the node has written down of what was agreed on, if anything was.
fn known(patient: &Patient) -> Option<Arc<Topology>> {
    let agreed = patient.agreed.as_ref()?;
    agreed.is_agreed().then(|| agreed.topology().clone())
}

/// Nobody answers: what the node knows itself.
fn on_disk(patient: Option<&Patient>, report: &mut Report) {
    let Some(patient) = patient else { return };
    match (known(patient), &patient.founding) {
        (Some(agreed), Some(file)) => {
            belongs(patient, &agreed, report);
            record::compare(file, &agreed, report);
        }
        (None, Some(_)) if patient.user == User::Unknown || patient.data.is_some() && patient.agreed.is_none() => {
            report.unchecked(AREA, "cluster.toml", "what was agreed on cannot be read from the data directory");
        }
        (None, Some(_)) => {
            report.unchecked(
                AREA,
                "cluster.toml",
                "nothing is known to have been agreed on yet, and until then the file counts",
            );
        }
        (_, None) => report.unchecked(AREA, "cluster.toml", "it cannot be used"),
    }
}

/// The others say that all is well with them, also while this node is none of them.
fn belongs(patient: &Patient, agreed: &Topology, report: &mut Report) {
    let name = &patient.config.name;
    if agreed.ring().member_by_name(name).is_some() {
        return;
    }
    let what = format!(
        "{name} is no member by version {} of the cluster: it holds nothing, and serves nobody",
        agreed.ring().version()
    );
    let remedy =
        format!("let it join (`driftless cluster join {name}`, docs/membership.md), or stop it if it has left");
    report.warning(AREA, "membership", what, remedy);
}

fn ask(global: &GlobalArgs, access: &Access) -> Result<Asked> {
    let conversation = async |client: &Client| {
        let topology = session::topology(client);
        let nodes = status::ask(client, &topology).await;
        Ok(Asked::Answered { topology, nodes })
    };
    let timeout = global.cluster.timeout.or(Some(PATIENCE));
    session::run_as(access, timeout, Profile::new().retry(NoRetry), conversation, |_| Some(Ok(Asked::Silence)))
}

/// A node that is up answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

fn health(topology: &Topology, nodes: &[Node], report: &mut Report) {
    let Verdict { well, sentence, remedy, .. } = status::verdict(topology, nodes);
    let troubles = status::troubles(nodes);
    let is_silent = nodes.iter().any(|node| node.status.is_err());
    if well {
        report.ok(AREA, "nodes", sentence);
    } else if is_silent {
        report.problem(AREA, "nodes", sentence, remedy.as_deref().unwrap_or("see `driftless status`"));
    } else if troubles.is_empty() {
        report.warning(AREA, "nodes", sentence, "look again in a minute (`driftless status`)");
    }
    for trouble in troubles {
        let condition = trouble.condition;
        let what = format!("{} (for {})", condition.what, ago(condition.for_ms));
        let what = format!("{}: {what}", trouble.node);
        match condition.severity {
            Severity::Critical => report.problem(AREA, "condition", what, &condition.remedy),
            Severity::Warning | Severity::Note => report.warning(AREA, "condition", what, &condition.remedy),
        }
    }
}

fn ago(ms: u64) -> impl std::fmt::Display {
    humantime::format_duration(Duration::from_secs(ms / 1000))
}

fn releases(nodes: &[Node], report: &mut Report) {
    let mut by_release: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for status in nodes.iter().filter_map(|node| node.status.as_ref().ok()) {
        by_release.entry(&status.version).or_default().push(&status.name);
    }
    let all: Vec<String> =
        by_release.iter().map(|(release, names)| format!("{release} on {}", names.join(", "))).collect();
    match by_release.len() {
        0 => {}
        1 => report.ok(AREA, "releases", all.join("")),
        _ => {
            let remedy = "go on with the upgrade, one node after the other (docs/operations.md, Upgrading)";
            report.warning(AREA, "releases", all.join("; "), remedy);
        }
    }
}

/// A clock that is too far off is a condition of its node; this is how far they are.
fn clocks(nodes: &[Node], report: &mut Report) {
    let answers = nodes.iter().filter_map(|node| node.status.as_ref().ok());
    let offsets: Vec<(&str, i64)> =
        answers.filter_map(|status| Some((status.name.as_str(), status.clock_offset_ms?))).collect();
    let Some((name, offset)) = offsets.iter().max_by_key(|(_, offset)| offset.abs()) else {
        return report.unchecked(AREA, "clocks", "no node hears another one to compare its clock with");
    };
    let side = if *offset < 0 { "behind" } else { "ahead of" };
    let what = format!("{name} is furthest, {} ms {side} the median of the others", offset.abs());
    if offset.abs() > CLOCK_WARN_MS {
        report.warning(AREA, "clocks", what, "have an NTP client set the clock of that machine");
    } else {
        report.ok(AREA, "clocks", what);
    }
}

/// What an NTP client keeps within with ease.
const CLOCK_WARN_MS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_testkit::TopologyBuilder;

    #[test]
    fn another_cluster_is_one_problem_and_not_compared() {
        let of =
            |name: &str| TopologyBuilder::of_members([driftless_ring::Member::new("a", "h:1")]).named(name).build();
        let mut report = Report::default();
        another(&of("shop"), &of("dev"), &mut report);
        let text = report.as_text();
        assert!(report.is_bad(false) && text.contains("cluster dev") && text.contains("of shop"), "{text}");
    }

    #[test]
    fn what_a_node_runs_stands_among_its_metrics() {
        let metrics =
            "# TYPE driftless_build info\ndriftless_build_info{version=\"0.2.0\",protocol_version=\"2 to 3\"} 1\n";
        assert_eq!(built(metrics).as_deref(), Some("0.2.0, protocol 2 to 3"));
        assert_eq!(built("# EOF"), None);
    }
}

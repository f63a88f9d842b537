//! `driftless status`: what every node says of itself, and what that means for the cluster.

use std::process::ExitCode;

use driftless_client::{Client, NoRetry, Profile};
use driftless_node::config::read_cluster;
use driftless_proto::Topology;
use driftless_proto::client::{Liveness, NodeStatus, PeerStatus};
use driftless_ring::Member;
use futures::future::join_all;
use serde_json::{Value, json};

use super::exit::{Exit, Result};
use super::global::GlobalArgs;
use super::local::CLUSTER_FILE;
use super::members::{ANSWER_MAX, members};
use super::output::{self, Format, Tone, grouped, paint, size};
use super::profile::Access;
use super::ring::owned_percent;
use super::session;

/// Exit code 0 whatever it shows, unless --check is given.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Exit code 1 if the cluster is not healthy
    #[arg(long)]
    check: bool,
}

/// One member, as it answered or did not.
struct Node {
    member: Member,
    owned_percent: f64,
    status: std::result::Result<NodeStatus, String>,
}

impl Node {
    /// In one word. A node that does not answer here is not called down while another node does not think so: the fault
    /// may be on the way to it.
    fn state(&self, nodes: &[Node]) -> &'static str {
        match (&self.status, self.opinion_of_others(nodes)) {
            (Ok(_), _) => "up",
            (Err(_), None | Some(Liveness::Down)) => "down",
            (Err(_), Some(Liveness::Alive | Liveness::Suspect)) => "suspect",
        }
    }

    /// The kindest opinion among the nodes that answer.
    fn opinion_of_others(&self, nodes: &[Node]) -> Option<Liveness> {
        let answers = nodes.iter().filter_map(|node| node.status.as_ref().ok());
        let peers = answers.flat_map(|status| &status.peers).filter(|peer| peer.name == self.member.name);
        peers.map(|peer| peer.liveness).min()
    }

    /// Its name, and what the other nodes think of it if that is something else.
    fn silent_name(&self, nodes: &[Node]) -> String {
        let name = &self.member.name;
        match self.opinion_of_others(nodes) {
            Some(Liveness::Alive) => format!("{name} – other nodes hear it"),
            Some(Liveness::Suspect) => format!("{name} – suspected by the others"),
            Some(Liveness::Down) | None => name.clone(),
        }
    }
}

/// Asks all members.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let conversation = async |client: &Client| {
        let topology = client.topology();
        let nodes = ask(client, &topology).await;
        print(global, args, &topology, &nodes)
    };
    // A node that cannot be reached now is down; asking again would only take longer to say so.
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |access| {
        let topology = topology_on_disk(access)?;
        let nodes: Vec<Node> = members(&topology)
            .map(|member| Node {
                owned_percent: owned_percent(&topology, member.id),
                member,
                status: Err("no answer".to_owned()),
            })
            .collect();
        Some(print(global, args, &topology, &nodes))
    })
}

fn print(global: &GlobalArgs, args: &Args, topology: &Topology, nodes: &[Node]) -> Result<ExitCode> {
    let (healthy, summary) = judge(topology, nodes);
    if global.format == Format::Json {
        output::json_line(&json!({
            "nodes": nodes.iter().map(|node| as_json(node, nodes)).collect::<Vec<_>>(),
            "healthy": healthy,
            "summary": summary,
        }))?;
    } else {
        output::line(output::tinted(&as_table(nodes), "state", |state| match state {
            "up" => Tone::Good,
            "suspect" => Tone::Warning,
            _ => Tone::Bad,
        }))?;
        output::line(format_args!("\n{}", paint(if healthy { Tone::Good } else { Tone::Warning }, summary)))?;
    }
    Ok(if args.check && !healthy { Exit::Failed.into() } else { ExitCode::SUCCESS })
}

/// The topology of a `dev` cluster none of whose nodes answers. `None` if one endpoint was named: the other nodes were not asked.
fn topology_on_disk(access: &Access) -> Option<Topology> {
    let dir = access.dev_dir.as_ref().filter(|_| access.endpoint.is_none())?;
    read_cluster(&dir.join(CLUSTER_FILE)).ok()
}

async fn ask(client: &Client, topology: &Topology) -> Vec<Node> {
    // The member is asked itself: --endpoint pins data, not this.
    join_all(members(topology).map(|member| async move {
        let answer = tokio::time::timeout(ANSWER_MAX, client.status(&member.name)).await;
        let status = match answer {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        Node { owned_percent: owned_percent(topology, member.id), member, status }
    }))
    .await
}

/// Whether all is well, and a sentence that says so or what is not.
fn judge(topology: &Topology, nodes: &[Node]) -> (bool, String) {
    let silent: Vec<&Node> = nodes.iter().filter(|node| node.status.is_err()).collect();
    let down: Vec<String> = silent.iter().map(|node| node.silent_name(nodes)).collect();
    if down.len() == nodes.len() {
        return (false, "No node answers: nothing can be read or written.".to_owned());
    }
    if !down.is_empty() {
        let is_up = |id| nodes.iter().any(|node| node.member.id == id && node.status.is_ok());
        let ring = topology.ring();
        let default = topology.bucket_named("default").map(|bucket| bucket.quorum);
        let needed = default.map_or(1, |quorum| quorum.r().max(quorum.w()));
        let class = default.map_or(0, driftless_proto::Quorum::n);
        let stuck = ring
            .all_partitions()
            .filter(|partition| partition.n == class)
            .filter(|&partition| ring.owners(partition).iter().filter(|&&id| is_up(id)).count() < usize::from(needed))
            .count();
        let verb = match (down.len(), silent.iter().all(|node| node.state(nodes) == "down")) {
            (1, true) => "is down",
            (_, true) => "are down",
            (1, false) => "does not answer",
            (_, false) => "do not answer",
        };
        let consequence = if stuck == 0 {
            "every partition still has a quorum of primaries.".to_owned()
        } else {
            format!("{stuck} of {} partitions have no quorum of primaries.", ring.partitions().get())
        };
        return (false, format!("{} of {} nodes {verb} ({}): {consequence}", down.len(), nodes.len(), down.join(", ")));
    }
    let answers = || nodes.iter().filter_map(|node| node.status.as_ref().ok());
    if let Some((status, peer)) =
        answers().find_map(|status| status.peers.iter().find(|peer| !peer.connected).map(|peer| (status, peer)))
    {
        return (
            false,
            format!(
                "{} has no connection to {}, though both are up: check the network between them.",
                status.name, peer.name
            ),
        );
    }
    if let Some((status, peer)) = answers()
        .find_map(|status| status.peers.iter().find(|peer| peer.liveness != Liveness::Alive).map(|peer| (status, peer)))
    {
        let thinks = if peer.liveness == Liveness::Down { "thinks that it is down" } else { "suspects it" };
        let text = format!(
            "{} answers, but {} {thinks}: it is very busy, or the network loses packets.",
            peer.name, status.name
        );
        return (false, text);
    }
    if let Some(status) = answers().find(|status| !status.takes_writes) {
        let text = format!(
            "{} takes no puts and deletes: its clock is {} the others'. Set it right (NTP).",
            status.name,
            apart(status.clock_offset_ms.unwrap_or(0)),
        );
        return (false, text);
    }
    let differs =
        |status: &&NodeStatus| status.clock_offset_ms.is_some_and(|ahead| ahead.unsigned_abs() > CLOCK_DIFFERS_MS);
    if let Some(status) = answers().find(differs) {
        let text = format!(
            "The clock of {} is {} the others', and too few are heard to tell whose is wrong: check them (NTP).",
            status.name,
            apart(status.clock_offset_ms.unwrap_or(0)),
        );
        return (false, text);
    }
    let mut versions: Vec<u64> = answers().map(|status| status.ring_version).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        return (false, "The nodes have different ring versions; they should agree within seconds.".to_owned());
    }
    if answers().any(|status| status.keys.is_none()) {
        return (
            true,
            format!("All {} nodes are up and connected; some still count their keys after a start.", nodes.len()),
        );
    }
    let hints: u64 = answers().filter_map(|status| status.hints).sum();
    if hints > 0 {
        let (keys, wait) = if hints == 1 { ("key", "waits") } else { ("keys", "wait") };
        return (
            true,
            format!(
                "All {} nodes are up and connected; {} {keys} {wait} to be handed over (driftless hints).",
                nodes.len(),
                grouped(hints)
            ),
        );
    }
    match nodes.len() {
        1 => (true, "The only node is up.".to_owned()),
        count => (true, format!("All {count} nodes are up and connected.")),
    }
}

/// How far a clock is from others.
fn apart(ahead_ms: i64) -> String {
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!("{:.1} s {side}", ahead_ms.unsigned_abs() as f64 / 1000.0)
}

fn as_json(node: &Node, nodes: &[Node]) -> Value {
    let status = node.status.as_ref().ok();
    json!({
        "name": node.member.name,
        "state": node.state(nodes),
        "address": node.member.address,
        "zone": node.member.zone,
        "owned_percent": node.owned_percent,
        "keys": status.and_then(|status| status.keys),
        "bytes": status.and_then(|status| status.bytes),
        "hints": status.and_then(|status| status.hints),
        "clock_offset_ms": status.and_then(|status| status.clock_offset_ms),
        "takes_writes": status.map(|status| status.takes_writes),
        "version": status.map(|status| &status.version),
        "ring_version": status.map(|status| status.ring_version),
        "uptime_ms": status.map(|status| status.uptime_ms),
        "peers": status.map(|status| {
            status.peers.iter().map(peer_as_json).collect::<Vec<_>>()
        }),
        "problem": node.status.as_ref().err(),
    })
}

fn peer_as_json(peer: &PeerStatus) -> Value {
    json!({ "name": peer.name, "connected": peer.connected, "liveness": peer.liveness })
}

fn as_table(nodes: &[Node]) -> String {
    let counted = |count: Option<u64>, show: fn(u64) -> String| count.map_or("counting".to_owned(), show);
    let rows = nodes.iter().map(|node| {
        let member = &node.member;
        let owned = format!("{:.1} %", node.owned_percent);
        match &node.status {
            Ok(status) => vec![
                member.name.clone(),
                "up".to_owned(),
                member.zone.clone(),
                owned,
                counted(status.keys, grouped),
                counted(status.bytes, size),
                counted(status.hints, grouped),
                status.version.clone(),
                format!("{}/{}", status.peers.iter().filter(|peer| peer.connected).count(), status.peers.len()),
            ],
            Err(_) => {
                let mut row = vec![member.name.clone(), node.state(nodes).to_owned(), member.zone.clone(), owned];
                row.extend(std::iter::repeat_n("-".to_owned(), 5));
                row
            }
        }
    });
    output::table(&["node", "state", "zone", "owned", "keys", "bytes", "hints", "version", "peers"], rows.collect())
}

/// From when on two clocks that differ are worth a word, as nodes have it by default.
const CLOCK_DIFFERS_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_testkit::TopologyBuilder;

    fn topology() -> Topology {
        let members = ["a", "b", "c"].map(|name| Member::new(name, format!("{name}:1")));
        TopologyBuilder::of_members(members).named("t").hash_seed(0).build()
    }

    fn node(topology: &Topology, name: &str, up: bool) -> Node {
        let status = NodeStatus {
            name: name.to_owned(),
            version: "1".to_owned(),
            ring_version: 1,
            uptime_ms: 5,
            keys: Some(7),
            bytes: Some(70),
            hints: Some(0),
            clock_offset_ms: Some(-3),
            takes_writes: true,
            peers: vec![PeerStatus { name: "x".to_owned(), connected: true, liveness: Liveness::Alive }],
        };
        let member = topology.ring().member_by_name(name).expect("is a member").clone();
        let status = if up { Ok(status) } else { Err("gone".to_owned()) };
        Node { owned_percent: owned_percent(topology, member.id), member, status }
    }

    #[test]
    fn health_is_one_sentence() {
        let topology = topology();
        let nodes = |ups: [bool; 3]| -> Vec<Node> {
            ["a", "b", "c"].into_iter().zip(ups).map(|(name, up)| node(&topology, name, up)).collect()
        };
        assert_eq!(judge(&topology, &nodes([true; 3])), (true, "All 3 nodes are up and connected.".to_owned()));
        let (healthy, summary) = judge(&topology, &nodes([true, true, false]));
        assert!(!healthy);
        assert_eq!(summary, "1 of 3 nodes is down (c): every partition still has a quorum of primaries.");
        let (_, summary) = judge(&topology, &nodes([true, false, false]));
        assert_eq!(summary, "2 of 3 nodes are down (b, c): 8 of 8 partitions have no quorum of primaries.");
        assert!(!judge(&topology, &nodes([false; 3])).0);
        let mut parted = nodes([true; 3]);
        parted[1].status.as_mut().expect("is up").peers[0].connected = false;
        assert!(judge(&topology, &parted).1.starts_with("b has no connection to x"));
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let topology = topology();
        let mut nodes = ["a", "b", "c"].map(|name| node(&topology, name, true));
        let status = nodes[1].status.as_mut().expect("is up");
        (status.clock_offset_ms, status.takes_writes) = (Some(-86_400_000), false);
        let (healthy, summary) = judge(&topology, &nodes);
        assert!(!healthy);
        assert_eq!(
            summary,
            "b takes no puts and deletes: its clock is 86400.0 s behind the others'. Set it right (NTP)."
        );
        nodes[1].status.as_mut().expect("is up").takes_writes = true;
        let (healthy, summary) = judge(&topology, &nodes);
        assert!(!healthy && summary.starts_with("The clock of b is 86400.0 s behind the others'"), "{summary}");
        let json = as_json(&nodes[1], &[]);
        assert_eq!((&json["clock_offset_ms"], &json["takes_writes"]), (&json!(-86_400_000), &json!(true)));
    }

    #[test]
    fn a_silent_node_is_down_only_if_nobody_hears_it() {
        let topology = topology();
        let mut nodes = [("a", true), ("b", true), ("c", false)].map(|(name, up)| node(&topology, name, up));
        let think = |nodes: &mut [Node], who: usize, liveness| {
            let peer = &mut nodes[who].status.as_mut().expect("is up").peers[0];
            (peer.name, peer.liveness) = ("c".to_owned(), liveness);
        };
        think(&mut nodes, 0, Liveness::Down);
        assert_eq!(nodes[2].state(&nodes), "down");
        think(&mut nodes, 1, Liveness::Suspect);
        assert_eq!(nodes[2].state(&nodes), "suspect");
        assert!(judge(&topology, &nodes).1.starts_with("1 of 3 nodes does not answer (c – suspected by the others)"));
        think(&mut nodes, 1, Liveness::Alive);
        assert_eq!(nodes[2].state(&nodes), "suspect");
        // And the other way round.
        nodes[2] = node(&topology, "c", true);
        assert_eq!(nodes[2].state(&nodes), "up");
        assert_eq!(
            judge(&topology, &nodes),
            (
                false,
                "c answers, but a thinks that it is down: it is very busy, or the network loses packets.".to_owned()
            )
        );
    }

    #[test]
    fn the_json_of_a_node_has_its_fixed_names() {
        let topology = topology();
        let up = as_json(&node(&topology, "a", true), &[]);
        assert_eq!(
            (&up["name"], &up["state"], &up["keys"], &up["bytes"]),
            (&json!("a"), &json!("up"), &json!(7), &json!(70))
        );
        assert_eq!(up["version"], json!("1"));
        let down = as_json(&node(&topology, "b", false), &[]);
        assert_eq!((&down["state"], &down["keys"]), (&json!("down"), &json!(null)));
        assert!((up["owned_percent"].as_f64().expect("a number") - 100.0 / 3.0).abs() < 0.01);
    }
}

//! `driftless status`: what every node says of itself, and what that means for the cluster.

mod watch;

pub(crate) use watch::parse_interval;

use std::process::ExitCode;
use std::time::Duration;

use driftless_client::{Client, ClusterState, MemberState, NoRetry, Profile};
use driftless_node::conditions::verdict::{self, Answer, Trouble, Verdict};
use driftless_node::config::read_cluster;
use driftless_proto::Topology;
use driftless_proto::client::{NodeStatus, PeerStatus, Severity};
use driftless_ring::Member;
use futures::future::join_all;
use serde_json::{Value, json};

use super::cluster;
use super::cluster::moving::{Progress, is_unfinished};
use super::cluster::standing::Phase;
use super::exit::{Exit, Result};
use super::global::GlobalArgs;
use super::local::CLUSTER_FILE;
use super::members::{ANSWER_MAX, members};
use super::output::{self, Format, Tone, grouped, paint, size, wrapped};
use super::profile::Access;
use super::ring::owned_percent;
use super::session;

/// Exit code 0 whatever it shows, unless --check is given.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Exit code 1 if the cluster is not healthy
    #[arg(long)]
    check: bool,
    /// Show it on the terminal until q is pressed, asked anew each second or so many; with --format json a line each time
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval, num_args = 0..=1, require_equals = true,
        default_missing_value = "1", conflicts_with = "check")]
    watch: Option<Duration>,
}

/// One member, as it answered or did not.
pub(crate) struct Node {
    member: Member,
    owned_percent: f64,
    pub(crate) status: std::result::Result<NodeStatus, String>,
}

impl Node {
    /// All members, when nobody answers.
    fn all_silent(topology: &Topology) -> Vec<Node> {
        let silent = |member: Member| Node {
            owned_percent: owned_percent(topology, member.id),
            member,
            status: Err("no answer".to_owned()),
        };
        members(topology).map(silent).collect()
    }

    fn answer(&self) -> Answer<'_> {
        Answer { member: &self.member, status: self.status.as_ref().ok() }
    }

    fn state(&self, nodes: &[Node]) -> &'static str {
        verdict::state(self.answer(), &answers(nodes))
    }
}

fn answers(nodes: &[Node]) -> Vec<Answer<'_>> {
    nodes.iter().map(Node::answer).collect()
}

/// Asks all members.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    if let Some(every) = args.watch {
        return watch::run(global, every);
    }
    let conversation = async |client: &Client| {
        let topology = session::topology(client);
        let nodes = ask(client, &topology).await;
        let state = change(client).await;
        print(global, args, &topology, &nodes, state.as_ref())
    };
    // A node that cannot be reached now is down; asking again would only take longer to say so.
    session::run_with(global, Profile::new().retry(NoRetry), conversation, |access| {
        let topology = topology_on_disk(access)?;
        Some(print(global, args, &topology, &Node::all_silent(&topology), None))
    })
}

fn print(
    global: &GlobalArgs,
    args: &Args,
    topology: &Topology,
    nodes: &[Node],
    state: Option<&ClusterState>,
) -> Result<ExitCode> {
    let moving = state.filter(|state| is_unfinished(state));
    let (healthy, summary) = summary(topology, nodes, moving);
    if global.format == Format::Json {
        output::json_line(&all_as_json(topology, nodes, moving))?;
    } else {
        output::line(output::tinted(&as_table(nodes, moving), "state", |state| match state {
            "up" => Tone::Good,
            "suspect" => Tone::Warning,
            _ => Tone::Bad,
        }))?;
        let tone = if healthy { Tone::Good } else { Tone::Warning };
        output::line(format_args!("\n{}", paint(tone, wrapped(&summary, 0))))?;
        let troubles = troubles(nodes);
        if troubles.len() > 1 || troubles.len() == 1 && nodes.iter().any(|node| node.status.is_err()) {
            output::line(format_args!("\n{}", as_list(&troubles)))?;
        }
    }
    Ok(if args.check && !healthy { Exit::Failed.into() } else { ExitCode::SUCCESS })
}

/// Whether all is well, and in words; what moves included.
fn summary(topology: &Topology, nodes: &[Node], moving: Option<&ClusterState>) -> (bool, String) {
    let (healthy, mut summary) = judge(topology, nodes);
    summary.extend(moving.map(|state| format!(" {}", moves(state))));
    (healthy, summary)
}

/// For programs.
fn all_as_json(topology: &Topology, nodes: &[Node], state: Option<&ClusterState>) -> Value {
    let moving = state.filter(|state| is_unfinished(state));
    let (healthy, summary) = summary(topology, nodes, moving);
    json!({
        "nodes": nodes.iter().map(|node| as_json(node, nodes, moving)).collect::<Vec<_>>(),
        "moving": moving.map(|state| Progress::of_all(state).as_json()),
        "healthy": healthy,
        "summary": summary,
    })
}

/// The topology of a `dev` cluster none of whose nodes answers. `None` if one endpoint was named: the other nodes were not asked.
fn topology_on_disk(access: &Access) -> Option<Topology> {
    let dir = access.dev_dir.as_ref().filter(|_| access.endpoint.is_none())?;
    read_cluster(&dir.join(CLUSTER_FILE)).ok()
}

/// What each member says of itself.
pub(crate) async fn ask(client: &Client, topology: &Topology) -> Vec<Node> {
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

/// How the members stand, if somebody says so: a cluster of an older release does not.
async fn change(client: &Client) -> Option<ClusterState> {
    tokio::time::timeout(ANSWER_MAX, cluster::state(client, None)).await.ok()?.ok()
}

/// What an unfinished version comes to: how far it is, and who leaves.
fn moves(state: &ClusterState) -> String {
    let mut said =
        format!("Version {} is under way: {} (driftless transfers).", state.version, Progress::of_all(state).words());
    for member in state.members.iter().filter(|member| !member.stays) {
        said += &format!(" {}: {}.", member.name, Phase::of(member, state).words(member));
    }
    said
}

fn member_of<'a>(node: &Node, state: &'a ClusterState) -> Option<&'a MemberState> {
    state.members.iter().find(|member| member.name == node.member.name)
}

/// Whether all is well, and a sentence that says so or what is not, with the cause first, and what to do.
fn judge(topology: &Topology, nodes: &[Node]) -> (bool, String) {
    let Verdict { well, mut sentence, remedy, more, .. } = verdict(topology, nodes);
    if let Some(remedy) = remedy {
        sentence += &format!(" To do: {remedy}.");
        // What the others say of those who are silent is no other matter.
        if more > 0 && nodes.iter().all(|node| node.status.is_ok()) {
            sentence += &format!(" ({more} more below)");
        }
    }
    (well, sentence)
}

/// The same in its parts; the sentence names the command that shows it one by one.
pub(crate) fn verdict(topology: &Topology, nodes: &[Node]) -> Verdict {
    let verdict = verdict::judge(topology, &answers(nodes), None);
    match verdict.see {
        Some(command) => {
            Verdict { sentence: format!("{} ({command}).", verdict.sentence.trim_end_matches('.')), ..verdict }
        }
        None => verdict,
    }
}

/// All that somebody should do something about, in order.
pub(crate) fn troubles(nodes: &[Node]) -> Vec<Trouble<'_>> {
    verdict::troubles(&answers(nodes))
}

/// A line for each: whose, what, since when, what to do.
fn as_list(troubles: &[Trouble<'_>]) -> String {
    let lines = troubles.iter().map(|Trouble { node, condition }| {
        let since = humantime::format_duration(Duration::from_secs(condition.for_ms / 1000));
        let tone = if condition.severity == Severity::Critical { Tone::Bad } else { Tone::Warning };
        let what = wrapped(&format!("{node}  {} (for {since})", condition.what), 4);
        let what = what.strip_prefix(node).unwrap_or_default();
        format!("{}{what}\n    {}", paint(tone, node), wrapped(&format!("to do: {}", condition.remedy), 4))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn as_json(node: &Node, nodes: &[Node], moving: Option<&ClusterState>) -> Value {
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
        "ready": status.map(|status| status.is_ready()),
        "conditions": status.map(|status| &status.conditions),
        "moving": moving.and_then(|state| member_of(node, state)).map(|member| Progress::of(member).as_json()),
        "problem": node.status.as_ref().err(),
    })
}

fn peer_as_json(peer: &PeerStatus) -> Value {
    json!({ "name": peer.name, "connected": peer.connected, "liveness": peer.liveness })
}

/// What a member moves stands there only while members move something.
fn as_table(nodes: &[Node], moving: Option<&ClusterState>) -> String {
    let counted = |count: Option<u64>, show: fn(u64) -> String| count.map_or("counting".to_owned(), show);
    let rows = nodes.iter().map(|node| {
        let member = &node.member;
        let owned = format!("{:.1} %", node.owned_percent);
        let mut row = match &node.status {
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
        };
        row.extend(moving.map(|state| match member_of(node, state) {
            Some(member) => Phase::of(member, state).words(member),
            None => "-".to_owned(),
        }));
        row
    });
    let mut header = vec!["node", "state", "zone", "owned", "keys", "bytes", "hints", "version", "peers"];
    header.extend(moving.map(|_| "moving"));
    output::table(&header, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_proto::client::{Condition, Liveness};
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
            conditions: Vec::new(),
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
        assert!(
            summary.starts_with(
                "1 of 3 nodes is down (c): every partition still has a quorum of primaries. To do: start it; or if"
            ),
            "{summary}"
        );
        assert!(summary.contains("`driftless cluster replace c --with NAME`"), "{summary}");
        let (_, summary) = judge(&topology, &nodes([true, false, false]));
        assert!(
            summary.starts_with("2 of 3 nodes are down (b, c): 8 of 8 partitions have no quorum of primaries. To do: "),
            "{summary}"
        );
        assert!(!judge(&topology, &nodes([false; 3])).0);
    }

    fn condition(name: &str, severity: Severity, what: &str) -> Condition {
        let peer = what.contains("connection").then(|| "c".to_owned());
        let (what, remedy) = (what.to_owned(), "mend it".to_owned());
        let explained = what.contains(": ");
        Condition { name: name.to_owned(), peer, severity, explained, for_ms: 61_000, what, remedy }
    }

    fn suffers(node: &mut Node, condition: Condition) -> &mut Node {
        node.status.as_mut().expect("is up").conditions.push(condition);
        node
    }

    /// The order went by the milliseconds for which each had known it, and changed from one `status` to the next.
    #[test]
    fn what_several_nodes_say_of_the_same_stands_in_their_order() {
        let topology = topology();
        let mut nodes = ["a", "b"].map(|name| node(&topology, name, true));
        for (node, for_ms) in nodes.iter_mut().zip([61_000, 62_000]) {
            let silent = condition("peer_silent", Severity::Warning, "c is silent: no answer");
            suffers(node, Condition { peer: Some("c".to_owned()), for_ms, ..silent });
        }
        suffers(&mut nodes[1], Condition { for_ms: 61_500, ..condition("disk_low", Severity::Warning, "low") });
        let names: Vec<_> = troubles(&nodes).iter().map(|one| (one.node, one.condition.name.clone())).collect();
        let expected = [("a", "peer_silent"), ("b", "peer_silent"), ("b", "disk_low")];
        assert_eq!(names, expected.map(|(node, name)| (node, name.to_owned())));
    }

    /// Differing cluster files, full disks and wrong clocks all read "check the network between them", or "all is well".
    #[test]
    fn what_a_node_says_is_the_matter_is_the_sentence_with_the_cause_first() {
        let topology = topology();
        let mut nodes = ["a", "b", "c"].map(|name| node(&topology, name, true));
        suffers(&mut nodes[0], condition("hints_held", Severity::Note, "3 keys wait"));
        assert!(judge(&topology, &nodes).0, "a note is no fault");
        suffers(&mut nodes[0], condition("peer_unreachable", Severity::Warning, "no connection to c"));
        suffers(&mut nodes[1], condition("peer_unreachable", Severity::Warning, "no connection to c: other file"));
        let (healthy, summary) = judge(&topology, &nodes);
        assert!(!healthy);
        assert_eq!(summary, "b: no connection to c: other file. To do: mend it. (1 more below)");
        suffers(&mut nodes[2], condition("no_quorum", Severity::Critical, "partition n3/0 has 1 reachable owners"));
        assert!(judge(&topology, &nodes).1.starts_with("b: no connection to c: other file."), "that follows from this");
        let status = nodes[1].status.as_mut().expect("is up");
        status.conditions.clear();
        assert!(judge(&topology, &nodes).1.starts_with("c: partition n3/0"), "nobody knows why");
        suffers(&mut nodes[2], condition("store_short", Severity::Critical, "the store is short: no room"));
        let json = as_json(&nodes[2], &nodes, None);
        assert_eq!((&json["ready"], &json["conditions"][1]["name"]), (&json!(false), &json!("store_short")));
        assert_eq!(json["conditions"][1]["severity"], json!("critical"));
        let list = as_list(&troubles(&nodes));
        let long = "see whether that node runs, and whether its address and the network between them are right";
        let mut far = condition("peer_unreachable", Severity::Warning, &long.replace("see", "one cannot see"));
        far.remedy = long.to_owned();
        let far = as_list(&[Trouble { node: "n1", condition: &far }]);
        assert!(far.lines().count() == 4 && far.lines().all(|line| line.chars().count() <= output::WIDTH), "{far}");
        assert!(list.contains("c  the store is short: no room (for 1m 1s)\n    to do: mend it"), "{list}");
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
    }

    #[test]
    fn the_json_of_a_node_has_its_fixed_names() {
        let topology = topology();
        let up = as_json(&node(&topology, "a", true), &[], None);
        assert_eq!(
            (&up["name"], &up["state"], &up["keys"], &up["bytes"]),
            (&json!("a"), &json!("up"), &json!(7), &json!(70))
        );
        assert_eq!(up["version"], json!("1"));
        let down = as_json(&node(&topology, "b", false), &[], None);
        assert_eq!((&down["state"], &down["keys"]), (&json!("down"), &json!(null)));
        assert!((up["owned_percent"].as_f64().expect("a number") - 100.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn what_moves_has_a_column_while_it_does() {
        use crate::cluster::standing::tests;
        use driftless_client::Moving;
        let topology = topology();
        let nodes = ["a", "b"].map(|name| node(&topology, name, true));
        let mut state = ClusterState { version: 8, unfinished: vec![7], ..tests::state() };
        for (member, name) in state.members.iter_mut().zip(["a", "b", "n9"]) {
            (member.name, member.ready) = (name.to_owned(), 8);
        }
        state.members[0].moving = Moving { taking: 64, taken: 12, keys: 3, bytes: 300, ..Moving::default() };
        state.members[2].stays = false;
        state.members[2].moving = Moving { giving: 16, given: 3, ..Moving::default() };
        let table = as_table(&nodes, Some(&state));
        let ends = ["PEERS  MOVING", "1/1    taking in 12 of 64", "1/1    ready"];
        assert!(table.lines().zip(ends).all(|(line, end)| line.ends_with(end)), "{table}");
        assert!(!as_table(&nodes, None).contains("MOVING"));
        assert_eq!(
            moves(&state),
            "Version 8 is under way: 12 of 64 partitions taken in, 3 of 16 handed over, 300 B (driftless transfers). n9: handing \
             over 3 of 16."
        );
        assert_eq!(as_json(&nodes[0], &nodes, Some(&state))["moving"]["taken"], json!(12));
    }
}

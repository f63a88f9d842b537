//! The whole cluster as this node sees it, as JSON for the status page: what every member says of itself, and what that means. The shape
//! stands in docs/operations.md.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftless_proto::client::NodeStatus;
use driftless_proto::figures::Figures;
use driftless_proto::membership::Moving;
use driftless_ring::{Member, NodeId, PartitionId};
use serde::Serialize;

use crate::conditions::verdict::{self, Answer, Trouble, Verdict};
use crate::configurations::Configurations;

/// Everything but the ring.
#[derive(Serialize)]
pub(super) struct Sight<'a> {
    cluster: &'a str,
    /// Who says all this.
    speaker: &'a str,
    /// When, in milliseconds since 1970.
    at_ms: u64,
    ring_version: u64,
    unfinished: Vec<u64>,
    verdict: Verdict,
    troubles: Vec<Trouble<'a>>,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    address: &'a str,
    zone: &'a str,
    weight: u32,
    /// Whether it is a member of the newest version.
    stays: bool,
    /// What it owns of the ring, in percent.
    owned_percent: f64,
    state: &'static str,
    /// `None` if it does not answer. What it thinks of each of the others is left out but of the speaker, or the page would be told as much
    /// as there are pairs of nodes.
    figures: Option<Cow<'a, Figures>>,
}

impl<'a> Sight<'a> {
    /// Puts together what members have said.
    pub(super) fn of(
        (cluster, speaker, at_ms): (&'a str, &'a str, u64),
        configurations: &Configurations,
        members: &'a [Member],
        said: &'a BTreeMap<NodeId, Arc<Figures>>,
    ) -> Sight<'a> {
        let topology = configurations.topology();
        let ring = topology.ring();
        let figures = |member: &Member| said.get(&member.id).map(|figures| &**figures);
        let answer = |member| Answer { member, status: figures(member).map(|figures| &figures.status) };
        let all: Vec<Answer<'_>> = members.iter().map(answer).collect();
        let unfinished: Vec<u64> = configurations.unfinished().collect();
        let moving = (!unfinished.is_empty()).then(|| {
            let mut sum = Moving::default();
            said.values().filter(|said| !said.unfinished.is_empty()).for_each(|said| sum += said.moving);
            sum
        });
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        ring.all_partitions()
            .flat_map(|partition| ring.owners(partition))
            .for_each(|id| *owned.entry(*id).or_default() += 1);
        let slots: usize = owned.values().sum();
        let owned_percent = |id: &NodeId| owned.get(id).map_or(0.0, |count| *count as f64 * 100.0 / slots as f64);
        // Members tell a node that is none nothing of themselves.
        let stranger = said.values().map(|figures| &figures.status).find(|status| status.name == speaker);
        let stranger = stranger.filter(|_| members.iter().all(|member| member.name != speaker));
        let (verdict, troubles) = match stranger {
            Some(status) => verdict::of_stranger(status),
            None => (verdict::judge(topology, &all, moving), first_of_all(verdict::troubles(&all))),
        };
        Sight {
            cluster,
            speaker,
            at_ms,
            ring_version: configurations.version(),
            unfinished,
            verdict,
            troubles,
            nodes: all
                .iter()
                .map(|one| Node {
                    name: &one.member.name,
                    address: &one.member.address,
                    zone: &one.member.zone,
                    weight: one.member.weight,
                    stays: ring.member(one.member.id).is_some(),
                    owned_percent: owned_percent(&one.member.id),
                    state: if stranger.is_some() { "not asked" } else { verdict::state(*one, &all) },
                    figures: figures(one.member).map(|figures| match one.member.name == speaker {
                        true => Cow::Borrowed(figures),
                        false => Cow::Owned(without_opinions(figures)),
                    }),
                })
                .collect(),
        }
    }
}

/// What a person reads before doing something: of so many different things all nodes that suffer from them.
fn first_of_all(mut troubles: Vec<Trouble<'_>>) -> Vec<Trouble<'_>> {
    let mut told = BTreeSet::new();
    troubles.retain(|Trouble { condition, .. }| {
        let what = (condition.name.clone(), condition.what.clone());
        told.contains(&what) || (told.len() < TROUBLES_MAX && told.insert(what))
    });
    troubles
}

fn without_opinions(figures: &Figures) -> Figures {
    let status = NodeStatus { peers: Vec::new(), ..figures.status.clone() };
    Figures { status, round_trips: Vec::new(), ..figures.clone() }
}

/// All members of versions that count, in the order of their names: n2 comes before n10.
pub(super) fn members(configurations: &Configurations) -> Vec<Member> {
    let mut members = configurations.members();
    members.sort_by(|one, other| (one.name.len(), &one.name).cmp(&(other.name.len(), &other.name)));
    members
}

/// Who owns what, of the class of the bucket `default`.
#[derive(Serialize)]
pub(super) struct Arcs {
    version: u64,
    /// Replicas of each partition.
    n: u8,
    members: Vec<String>,
    /// Of each partition its owners in their order, as places in `members`.
    owners: Vec<Vec<usize>>,
    /// Of each partition who gives it up or takes it in, in the same way; empty where nothing changes hands.
    changing: Vec<Vec<usize>>,
}

impl Arcs {
    pub(super) fn of(configurations: &Configurations) -> Arcs {
        let (topology, members) = (configurations.topology(), members(configurations));
        let n = topology.bucket_named("default").map_or(1, |bucket| bucket.quorum.n());
        let places = |nodes: &[NodeId]| -> Vec<usize> {
            nodes.iter().filter_map(|node| members.iter().position(|member| member.id == *node)).collect()
        };
        let partitions = || topology.ring().partitions().arcs().map(|arc| PartitionId { n, arc });
        let changing = |partition| {
            let newest = configurations.newest_owners(partition);
            let older: Vec<NodeId> =
                configurations.active(partition).skip(1).flat_map(|(_, owners)| owners).copied().collect();
            let gives = older.iter().filter(|node| !newest.contains(node));
            let takes = newest.iter().filter(|node| !older.is_empty() && !older.contains(node));
            let mut all: Vec<NodeId> = gives.chain(takes).copied().collect();
            all.sort_unstable();
            all.dedup();
            places(&all)
        };
        Arcs {
            version: configurations.version(),
            n,
            owners: partitions().map(|partition| places(configurations.newest_owners(partition))).collect(),
            changing: partitions().map(changing).collect(),
            members: members.iter().map(|member| member.name.clone()).collect(),
        }
    }
}

/// Different ones; the page puts equal ones of several nodes together.
const TROUBLES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use driftless_proto::client::{Condition, Liveness, PeerStatus, Severity};
    use driftless_proto::figures::RoundTrip;
    use driftless_testkit::TopologyBuilder;
    use serde_json::{Value, json};

    use super::*;

    fn figures(name: &str) -> Arc<Figures> {
        let condition = Condition {
            name: "disk_low".to_owned(),
            peer: None,
            severity: Severity::Warning,
            for_ms: 1000,
            explained: true,
            what: "the disk of the data fills up".to_owned(),
            remedy: "make room".to_owned(),
        };
        Arc::new(Figures {
            status: NodeStatus {
                name: name.to_owned(),
                version: "1".to_owned(),
                ring_version: 1,
                uptime_ms: 5,
                keys: Some(7),
                bytes: Some(70),
                hints: Some(0),
                clock_offset_ms: None,
                takes_writes: true,
                conditions: if name == "b" { vec![condition] } else { Vec::new() },
                peers: vec![PeerStatus { name: "c".to_owned(), connected: false, liveness: Liveness::Down }],
            },
            unfinished: Vec::new(),
            moving: Moving::default(),
            hints: Vec::new(),
            exchanges: Vec::new(),
            compared_ms: None,
            round_trips: vec![RoundTrip { peer: "c".to_owned(), microseconds: 9 }],
            requests: Vec::new(),
            under_way: 0,
            client_connections: 0,
            reads_found: 0,
            siblings_read: 0,
            writes_discarded: 0,
            fallback_coordinated: 0,
            hints_delivered: 0,
            keys_repaired: 0,
            disk: None,
            partitions_uncounted: 0,
            leaves_scrubbed: 0,
            damaged: 0,
            aae_paused: false,
        })
    }

    fn seen(up: &[&str]) -> Value {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b", "c"]).named("t").shared());
        let members = members(&configurations);
        let said = up.iter().map(|name| (NodeId::of_name(name), figures(name))).collect();
        serde_json::to_value(Sight::of(("t", "a", 17), &configurations, &members, &said)).expect("is JSON")
    }

    #[test]
    fn the_page_is_told_of_every_member_and_what_the_matter_is() {
        let seen = seen(&["a", "b"]);
        assert_eq!((&seen["cluster"], &seen["speaker"], &seen["at_ms"]), (&json!("t"), &json!("a"), &json!(17)));
        let nodes = seen["nodes"].as_array().expect("is one");
        let node = |name: &str| nodes.iter().find(|node| node["name"] == name).expect("is a member");
        assert_eq!((&node("a")["state"], &node("c")["state"]), (&json!("up"), &json!("down")));
        assert_eq!((&node("a")["figures"]["status"]["keys"], &node("c")["figures"]), (&json!(7), &Value::Null));
        let opinions = |name: &str| {
            ["peers", "round_trips"].map(|field| {
                let figures = &node(name)["figures"];
                let list = if field == "peers" { &figures["status"][field] } else { &figures[field] };
                list.as_array().map(Vec::len)
            })
        };
        assert_eq!((opinions("a"), opinions("b")), ([Some(1); 2], [Some(0); 2]), "those of the speaker alone");
        assert_eq!((&node("a")["stays"], &node("a")["zone"]), (&json!(true), &json!("")));
        assert_eq!((&seen["verdict"]["well"], &seen["verdict"]["severity"]), (&json!(false), &json!("warning")));
        assert_eq!((&seen["verdict"]["more"], &seen["unfinished"]), (&json!(1), &json!([])));
        assert!(seen["verdict"]["sentence"].as_str().is_some_and(|said| said.starts_with("1 of 3 nodes is down (c)")));
        let trouble = &seen["troubles"][0];
        assert_eq!(
            (&trouble["node"], &trouble["name"], &trouble["remedy"]),
            (&json!("b"), &json!("disk_low"), &json!("make room"))
        );
    }

    #[test]
    fn a_node_that_is_no_member_says_so_and_nothing_of_others() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b", "c"]).named("t").shared());
        let members = members(&configurations);
        let said = [(NodeId::of_name("d"), figures("d"))].into();
        let sight = Sight::of(("t", "d", 17), &configurations, &members, &said);
        let seen = serde_json::to_value(sight).expect("is JSON");
        let sentence = seen["verdict"]["sentence"].as_str().expect("is one");
        assert!(sentence.starts_with("d is no member of this cluster"), "{sentence}");
        assert!(seen["nodes"].as_array().is_some_and(|all| all.iter().all(|node| node["state"] == "not asked")));
    }

    #[test]
    fn what_all_nodes_suffer_alike_is_one_thing_of_those_that_are_told() {
        let said: Vec<_> = (0..100).map(|_| figures("b")).collect();
        let alike = said.iter().flat_map(|figures| &figures.status.conditions);
        let troubles: Vec<_> = alike.map(|condition| Trouble { node: "a", condition }).collect();
        assert_eq!(first_of_all(troubles).len(), 100);
        let different: Vec<Condition> = (0..100)
            .map(|i| Condition { what: format!("thing {i}"), ..said[0].status.conditions[0].clone() })
            .collect();
        let troubles = different.iter().map(|condition| Trouble { node: "a", condition }).collect();
        assert_eq!(first_of_all(troubles).len(), TROUBLES_MAX);
    }

    #[test]
    fn the_ring_is_told_as_the_owners_of_each_partition() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b", "c"]).named("t").shared());
        let arcs = serde_json::to_value(Arcs::of(&configurations)).expect("is JSON");
        let partitions = configurations.topology().ring().partitions().get() as usize;
        let owners = arcs["owners"].as_array().expect("is one");
        assert_eq!(
            (&arcs["version"], &arcs["n"], owners.len()),
            (&json!(configurations.version()), &json!(3), partitions)
        );
        assert!(owners.iter().all(|owners| owners.as_array().is_some_and(|owners| owners.len() == 3)));
        assert!(arcs["changing"].as_array().is_some_and(|all| all.iter().all(|nodes| *nodes == json!([]))));
        assert_eq!(arcs["members"].as_array().map(Vec::len), Some(3));
    }
}

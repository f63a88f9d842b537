//! The whole cluster as this node sees it, as JSON for the status page: what every member says of itself, and what that means. The shape
//! stands in docs/operations.md.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use driftless_proto::client::{Condition, NodeStatus, Severity};
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
    /// What this is shown by: a page that was loaded before the node became another release may not understand it.
    page: &'a str,
    ring_version: u64,
    unfinished: Vec<u64>,
    verdict: Verdict,
    troubles: Vec<Matter<'a>>,
    left_out: LeftOut,
    nodes: Vec<Node<'a>>,
}

/// One thing that is the matter, with all nodes that say so.
#[derive(Debug, Serialize)]
struct Matter<'a> {
    nodes: Vec<&'a str>,
    name: &'a str,
    peer: Option<&'a str>,
    severity: Severity,
    /// Of the node where it began first.
    for_ms: u64,
    what: &'a str,
    remedy: &'a str,
}

/// What else is the matter, beyond what is told one by one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
struct LeftOut {
    all: usize,
    critical: usize,
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
        shares: &Shares,
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
        // Members tell a node that is none nothing of themselves.
        let stranger = said.values().map(|figures| &figures.status).find(|status| status.name == speaker);
        let stranger = stranger.filter(|_| members.iter().all(|member| member.name != speaker));
        let (verdict, troubles) = match stranger {
            Some(status) => verdict::of_stranger(status),
            None => (verdict::judge(topology, &all, moving), verdict::troubles(&all)),
        };
        let (troubles, left_out) = worst_of(troubles);
        Sight {
            cluster,
            speaker,
            at_ms,
            page: super::page::id(),
            ring_version: configurations.version(),
            unfinished,
            verdict,
            troubles,
            left_out,
            nodes: all
                .iter()
                .map(|one| Node {
                    name: &one.member.name,
                    address: &one.member.address,
                    zone: &one.member.zone,
                    weight: one.member.weight,
                    stays: ring.member(one.member.id).is_some(),
                    owned_percent: shares.percent(one.member.id),
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

/// Equal ones of several nodes as one; of more different ones than anybody reads the worst, in their order.
fn worst_of<'a>(troubles: Vec<Trouble<'a>>) -> (Vec<Matter<'a>>, LeftOut) {
    let mut all: Vec<Matter<'a>> = Vec::new();
    let mut places = BTreeMap::new();
    for Trouble { node, condition } in troubles {
        let key =
            (&*condition.name, condition.peer.as_deref(), condition.severity, &*condition.what, &*condition.remedy);
        let place = *places.entry(key).or_insert(all.len());
        match all.get_mut(place) {
            Some(matter) => {
                matter.nodes.push(node);
                matter.for_ms = matter.for_ms.max(condition.for_ms);
            }
            None => {
                let (name, peer, severity, what, remedy) = key;
                all.push(Matter { nodes: vec![node], name, peer, severity, for_ms: condition.for_ms, what, remedy });
            }
        }
    }
    let mut by_severity: Vec<usize> = (0..all.len()).collect();
    by_severity.sort_by_key(|place| Reverse(all[*place].severity));
    let dropped = by_severity.split_off(all.len().min(TROUBLES_MAX));
    let critical = dropped.iter().filter(|place| all[**place].severity == Severity::Critical).count();
    let left_out = LeftOut { all: dropped.len(), critical };
    let mut is_kept = vec![true; all.len()];
    dropped.into_iter().for_each(|place| is_kept[place] = false);
    let mut is_kept = is_kept.into_iter();
    all.retain(|_| is_kept.next().unwrap_or(true));
    (all, left_out)
}

/// A node's figures without what it thinks of each of the others.
fn without_opinions(figures: &Figures) -> Figures {
    let own = |condition: &&Condition| condition.peer.is_none();
    let conditions = figures.status.conditions.iter().filter(own).cloned().collect();
    let status = NodeStatus { peers: Vec::new(), conditions, ..figures.status.clone() };
    Figures { status, round_trips: Vec::new(), ..figures.clone() }
}

/// All members of versions that count, in the order of their names: n2 comes before n10.
pub(super) fn members(configurations: &Configurations) -> Vec<Member> {
    let mut members = configurations.members();
    members.sort_by(|one, other| (one.name.len(), &one.name).cmp(&(other.name.len(), &other.name)));
    members
}

/// How much of the ring each member owns.
pub(super) struct Shares {
    owned: BTreeMap<NodeId, usize>,
    of: usize,
}

impl Shares {
    pub(super) fn of(configurations: &Configurations) -> Shares {
        let ring = configurations.topology().ring();
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        ring.all_partitions()
            .flat_map(|partition| ring.owners(partition))
            .for_each(|id| *owned.entry(*id).or_default() += 1);
        Shares { of: owned.values().sum(), owned }
    }

    fn percent(&self, id: NodeId) -> f64 {
        self.owned.get(&id).map_or(0.0, |count| *count as f64 * 100.0 / self.of as f64)
    }
}

/// Who owns what, of the class of the bucket `default`, no finer than it can be drawn.
#[derive(Serialize)]
pub(super) struct Arcs {
    version: u64,
    /// Replicas of each partition.
    n: u8,
    partitions: u32,
    members: Vec<String>,
    /// Of each partition its owners in their order, as places in `members`; beyond [`ARCS_MAX`], of one partition for each arc that is drawn.
    owners: Vec<Vec<usize>>,
    /// Places in `owners` where something changes hands.
    changing: Vec<usize>,
    /// How many partitions do.
    partitions_changing: usize,
}

impl Arcs {
    pub(super) fn of(configurations: &Configurations) -> Arcs {
        let (topology, members) = (configurations.topology(), members(configurations));
        let n = topology.bucket_named("default").map_or(1, |bucket| bucket.quorum.n());
        let places: BTreeMap<NodeId, usize> = members.iter().map(|member| member.id).zip(0..).collect();
        let all: Vec<PartitionId> = topology.ring().partitions().arcs().map(|arc| PartitionId { n, arc }).collect();
        let changes = |partition: &&PartitionId| {
            let newest = configurations.newest_owners(**partition);
            configurations.active(**partition).skip(1).any(|(_, older)| {
                older.iter().any(|node| !newest.contains(node)) || newest.iter().any(|node| !older.contains(node))
            })
        };
        let changing: Vec<usize> =
            all.chunks(drawn_as_one(all.len())).map(|arc| arc.iter().filter(changes).count()).collect();
        // Which partition stands for an arc goes round, so that no pattern of owners is taken for another one.
        let stands = |(at, arc): (usize, &[PartitionId])| arc[at % arc.len()];
        let owners = |partition| -> Vec<usize> {
            configurations.newest_owners(partition).iter().filter_map(|node| places.get(node).copied()).collect()
        };
        Arcs {
            version: configurations.version(),
            n,
            partitions: topology.ring().partitions().get(),
            owners: all.chunks(drawn_as_one(all.len())).enumerate().map(stands).map(owners).collect(),
            partitions_changing: changing.iter().sum(),
            changing: (0..).zip(changing).filter(|(_, count)| *count > 0).map(|(at, _)| at).collect(),
            members: members.iter().map(|member| member.name.clone()).collect(),
        }
    }
}

/// How many partitions make one arc of the picture. Both are powers of two.
fn drawn_as_one(partitions: usize) -> usize {
    partitions.div_ceil(ARCS_MAX).max(1)
}

/// An arc of the outermost ring is then about half a pixel of a screen wide, and the whole ring some 20 KB to send.
const ARCS_MAX: usize = 2048;

/// Different ones.
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
        let shares = Shares::of(&configurations);
        serde_json::to_value(Sight::of(("t", "a", 17), &configurations, &shares, &members, &said)).expect("is JSON")
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
            (&trouble["nodes"], &trouble["name"], &trouble["remedy"]),
            (&json!(["b"]), &json!("disk_low"), &json!("make room"))
        );
    }

    #[test]
    fn a_node_that_is_no_member_says_so_and_nothing_of_others() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b", "c"]).named("t").shared());
        let members = members(&configurations);
        let said = [(NodeId::of_name("d"), figures("d"))].into();
        let sight = Sight::of(("t", "d", 17), &configurations, &Shares::of(&configurations), &members, &said);
        let seen = serde_json::to_value(sight).expect("is JSON");
        let sentence = seen["verdict"]["sentence"].as_str().expect("is one");
        assert!(sentence.starts_with("d is no member of this cluster"), "{sentence}");
        assert!(seen["nodes"].as_array().is_some_and(|all| all.iter().all(|node| node["state"] == "not asked")));
    }

    fn condition(what: impl Into<String>, severity: Severity) -> Condition {
        let first = figures("b").status.conditions[0].clone();
        Condition { what: what.into(), severity, ..first }
    }

    #[test]
    fn what_nodes_suffer_alike_is_told_once_with_all_of_them() {
        let alike = [1, 3, 2].map(|for_ms| Condition { for_ms, ..condition("no room", Severity::Warning) });
        let nodes = ["a", "b", "c"].into_iter().zip(&alike);
        let (told, left_out) = worst_of(nodes.map(|(node, condition)| Trouble { node, condition }).collect());
        assert_eq!((told.len(), left_out), (1, LeftOut::default()));
        assert_eq!((&told[0].nodes[..], told[0].for_ms), (&["a", "b", "c"][..], 3));
    }

    #[test]
    fn of_more_than_are_told_the_worst_are_and_the_others_are_counted() {
        let mut all: Vec<Condition> = (0..60).map(|i| condition(format!("thing {i}"), Severity::Warning)).collect();
        all.extend((60..75).map(|i| condition(format!("thing {i}"), Severity::Critical)));
        let of = |all: &[Condition]| {
            let (told, left_out) = worst_of(all.iter().map(|condition| Trouble { node: "a", condition }).collect());
            (told.iter().map(|one| one.what.to_owned()).collect::<Vec<_>>(), left_out)
        };
        let (told, left_out) = of(&all);
        assert_eq!((told.len(), left_out), (50, LeftOut { all: 25, critical: 0 }));
        let expected: Vec<String> = (0..35).chain(60..75).map(|i| format!("thing {i}")).collect();
        assert_eq!(told, expected);
        all.extend((75..120).map(|i| condition(format!("thing {i}"), Severity::Critical)));
        assert_eq!(of(&all).1, LeftOut { all: 70, critical: 10 });
    }

    /// Half of fifty nodes that do not hear the other half had 625 reasons, each with its remedy, in what each said of itself.
    #[test]
    fn what_nodes_think_of_each_other_is_told_once_and_not_with_each_of_them() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b", "c"]).named("t").shared());
        let members = members(&configurations);
        let mut b = (*figures("b")).clone();
        let of_c = Condition {
            name: "peer_unreachable".to_owned(),
            peer: Some("c".to_owned()),
            ..condition("no connection to c", Severity::Warning)
        };
        b.status.conditions.push(of_c);
        let said = [(NodeId::of_name("a"), figures("a")), (NodeId::of_name("b"), Arc::new(b))].into();
        let sight = Sight::of(("t", "a", 17), &configurations, &Shares::of(&configurations), &members, &said);
        let seen = serde_json::to_string(&sight).expect("is JSON");
        assert_eq!(seen.matches("\"peer_unreachable\"").count(), 1, "{seen}");
        assert_eq!(seen.matches("\"disk_low\"").count(), 2, "its own are marked in its row");
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
        assert_eq!((&arcs["changing"], &arcs["partitions_changing"]), (&json!([]), &json!(0)));
        assert_eq!(arcs["members"].as_array().map(Vec::len), Some(3));
    }

    /// It was 700 KB, at the largest, and three bands of 65,536 arcs to draw.
    #[test]
    fn a_ring_of_more_partitions_than_can_be_drawn_is_told_as_some_that_stand_for_the_others() {
        let topology = TopologyBuilder::of(["a", "b", "c", "d"]).named("t").partitions(65_536).shared();
        let text = serde_json::to_string(&Arcs::of(&Configurations::of_file(topology))).expect("is JSON");
        let arcs: Value = serde_json::from_str(&text).expect("is JSON");
        let owners = arcs["owners"].as_array().expect("is one");
        assert_eq!((owners.len(), &arcs["partitions"]), (ARCS_MAX, &json!(65_536)));
        assert!(text.len() < 20_000, "{}", text.len());
        for member in 0..4 {
            let first = owners.iter().filter(|owners| owners[0] == member).count();
            assert!((ARCS_MAX / 5..ARCS_MAX / 3).contains(&first), "{first} of {ARCS_MAX} for one of four");
        }
    }
}

//! Whether all is well with a cluster, in one sentence, from what its members say of themselves; and if not, what to do.
//!
//! Who does not answer comes first, then what nodes say is the matter with them: the worst first, but a cause before what follows from it,
//! and of the two sides that miss a connection the one that knows why.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use driftless_proto::client::{Condition, Liveness, NodeStatus, Severity};
use driftless_proto::membership::Moving;
use driftless_proto::{Quorum, Topology};
use driftless_ring::Member;
use serde::Serialize;

use super::NO_QUORUM;

/// A member, as it answers or does not.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Who it is.
    pub member: &'a Member,
    /// What it says of itself.
    pub status: Option<&'a NodeStatus>,
}

/// Whether all is well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// Nothing is to be done.
    pub well: bool,
    /// `None` if there is nothing to say but that.
    pub severity: Option<Severity>,
    /// One sentence.
    pub sentence: String,
    /// What to do.
    pub remedy: Option<String>,
    /// The command that shows it one by one.
    #[serde(skip)]
    pub see: Option<&'static str>,
    /// What else is the matter, beyond that.
    pub more: usize,
}

/// What a node says is the matter with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Trouble<'a> {
    /// Whose.
    pub node: &'a str,
    /// What.
    #[serde(flatten)]
    pub condition: &'a Condition,
}

/// How a node is, in one word. One that does not answer here is not called down while another node does not think so: the fault may be on
/// the way to it.
pub fn state(one: Answer<'_>, all: &[Answer<'_>]) -> &'static str {
    match (one.status, opinion_of_others(&one.member.name, all)) {
        (Some(_), _) => "up",
        (None, None | Some(Liveness::Down)) => "down",
        (None, Some(Liveness::Alive | Liveness::Suspect)) => "suspect",
    }
}

/// All that somebody should do something about.
pub fn troubles<'a>(all: &[Answer<'a>]) -> Vec<Trouble<'a>> {
    let answers = all.iter().filter_map(|one| Some((one.member.name.as_str(), one.status?)));
    let said =
        answers.flat_map(|(node, status)| status.conditions.iter().map(move |condition| Trouble { node, condition }));
    let mut bad: Vec<Trouble<'a>> = said.filter(|trouble| trouble.condition.severity > Severity::Note).collect();
    // What several nodes say of the same stands together, in their order.
    let mut longest: BTreeMap<(&str, Option<&str>), u64> = BTreeMap::new();
    for Trouble { condition, .. } in &bad {
        let for_ms = longest.entry((&condition.name, condition.peer.as_deref())).or_default();
        *for_ms = condition.for_ms.max(*for_ms);
    }
    bad.sort_by_key(|Trouble { condition, .. }| {
        let subject = (condition.name.as_str(), condition.peer.as_deref());
        (rank(condition), !condition.explained, Reverse(longest.get(&subject).copied()), subject)
    });
    bad
}

/// The sentence about the members of the newest version; `moving` is what all of them take in and hand over for it, if it is not done with.
pub fn judge(topology: &Topology, all: &[Answer<'_>], moving: Option<Moving>) -> Verdict {
    let bad = troubles(all);
    let silent: Vec<Answer<'_>> = all.iter().copied().filter(|one| one.status.is_none()).collect();
    if !silent.is_empty() {
        return Verdict { more: bad.len(), ..silence(topology, all, &silent) };
    }
    if let Some((Trouble { node, condition }, others)) = bad.split_first() {
        let Condition { what, remedy, severity, .. } = condition;
        return Verdict {
            well: false,
            severity: Some(*severity),
            sentence: format!("{node}: {what}."),
            remedy: Some(remedy.clone()),
            see: None,
            more: others.len(),
        };
    }
    let answers = || all.iter().filter_map(|one| one.status);
    let notice = |well, sentence: String| {
        let severity = Some(if well { Severity::Note } else { Severity::Warning });
        Verdict { well, severity, sentence, remedy: None, see: None, more: 0 }
    };
    let mut versions: Vec<u64> = answers().map(|status| status.ring_version).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        return notice(false, "The nodes have different ring versions; they should agree within seconds.".to_owned());
    }
    let up = match all.len() {
        1 => "The only node is up".to_owned(),
        count => format!("All {count} nodes are up and connected"),
    };
    if let (Some(Moving { taking, taken, .. }), Some(version)) = (moving, versions.first()) {
        let sentence = format!(
            "{up}; version {version} of the members is under way, with {taken} of {taking} partitions taken in. Nothing is to be done."
        );
        return notice(true, sentence);
    }
    if answers().any(|status| status.keys.is_none()) {
        return notice(true, format!("{up}; some still count their keys after a start."));
    }
    let waiting = match answers().filter_map(|status| status.hints).sum::<u64>() {
        0 => return Verdict { severity: None, ..notice(true, format!("{up}.")) },
        1 => "1 key waits".to_owned(),
        hints => format!("{} keys wait", grouped(hints)),
    };
    Verdict { see: Some("driftless hints"), ..notice(true, format!("{up}; {waiting} to be handed over.")) }
}

/// About those who do not answer.
fn silence(topology: &Topology, all: &[Answer<'_>], silent: &[Answer<'_>]) -> Verdict {
    let named = |one: &Answer<'_>| {
        let name = &one.member.name;
        match opinion_of_others(name, all) {
            Some(Liveness::Alive) => format!("{name} – other nodes hear it"),
            Some(Liveness::Suspect) => format!("{name} – suspected by the others"),
            Some(Liveness::Down) | None => name.clone(),
        }
    };
    let is_up = |id| all.iter().any(|one| one.member.id == id && one.status.is_some());
    let ring = topology.ring();
    let default = topology.bucket_named("default").map(|bucket| bucket.quorum);
    let (class, needed) = default.map_or((0, 1), |quorum| (quorum.n(), most_needed(quorum)));
    let stuck = ring
        .all_partitions()
        .filter(|partition| partition.n == class)
        .filter(|&partition| ring.owners(partition).iter().filter(|&&id| is_up(id)).count() < usize::from(needed))
        .count();
    let are_down = silent.iter().all(|one| state(*one, all) == "down");
    let (verb, it) = match (silent.len(), are_down) {
        (1, true) => ("is down", "it"),
        (_, true) => ("are down", "them"),
        (1, false) => ("does not answer", "it"),
        (_, false) => ("do not answer", "them"),
    };
    let consequence = if stuck == 0 {
        "every partition still has a quorum of primaries.".to_owned()
    } else {
        format!("{stuck} of {} partitions have no quorum of primaries.", ring.partitions().get())
    };
    let names: Vec<String> = silent.iter().map(named).collect();
    let sentence = if silent.len() == all.len() {
        "No node answers: nothing can be read or written.".to_owned()
    } else {
        format!("{} of {} nodes {verb} ({}): {consequence}", silent.len(), all.len(), names.join(", "))
    };
    let first = &silent[0].member.name;
    let they = if silent.len() == 1 { "it" } else { "they" };
    let remedy = match are_down {
        _ if silent.len() == all.len() => format!("start {it}, or see whether {they} can be reached from here"),
        true => format!(
            "start {it}; or if {first} is lost, put another node in its place (`driftless cluster replace {first} --with NAME`), or go on \
             without it (`driftless cluster leave {first} --lost`)"
        ),
        false => format!("see whether {they} can be reached from here, and why {they} may be slow"),
    };
    Verdict {
        well: false,
        severity: Some(if stuck == 0 { Severity::Warning } else { Severity::Critical }),
        sentence,
        remedy: Some(remedy),
        see: None,
        more: 0,
    }
}

/// The kindest opinion of a node among the others that answer.
fn opinion_of_others(name: &str, all: &[Answer<'_>]) -> Option<Liveness> {
    let peers = all.iter().filter_map(|one| one.status).flat_map(|status| &status.peers);
    peers.filter(|peer| peer.name == name).map(|peer| peer.liveness).min()
}

/// The worst first; but why a connection is missing stands before the quorum that is missing for it.
fn rank(condition: &Condition) -> u8 {
    let is_quorum = condition.name == NO_QUORUM;
    match condition.severity {
        Severity::Critical if !is_quorum => 0,
        _ if condition.peer.is_some() && condition.explained => 1,
        Severity::Critical => 2,
        Severity::Warning | Severity::Note => 3,
    }
}

fn most_needed(quorum: Quorum) -> u8 {
    quorum.r().max(quorum.w())
}

/// `40,022`.
fn grouped(number: u64) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{},{rest:03}", grouped(thousands)),
    }
}

#[cfg(test)]
mod tests {
    use driftless_proto::client::PeerStatus;
    use driftless_testkit::TopologyBuilder;

    use super::*;

    struct Cluster {
        topology: Topology,
        /// In the order of their names.
        members: Vec<Member>,
        says: Vec<Option<NodeStatus>>,
    }

    impl Cluster {
        /// Three nodes, of which these are up.
        fn of(ups: [bool; 3]) -> Cluster {
            let members = ["a", "b", "c"].map(|name| Member::new(name, format!("{name}:1")));
            let topology = TopologyBuilder::of_members(members).named("t").hash_seed(0).build();
            let status = |member: &Member| NodeStatus {
                name: member.name.clone(),
                version: "1".to_owned(),
                ring_version: 1,
                uptime_ms: 5,
                keys: Some(7),
                bytes: Some(70),
                hints: Some(0),
                clock_offset_ms: None,
                takes_writes: true,
                conditions: Vec::new(),
                peers: Vec::new(),
            };
            let mut members = topology.ring().members().to_vec();
            members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let says = members.iter().zip(ups).map(|(member, up)| up.then(|| status(member))).collect();
            Cluster { topology, members, says }
        }

        fn status(&mut self, node: usize) -> &mut NodeStatus {
            self.says[node].as_mut().expect("is up")
        }

        fn suffers(&mut self, node: usize, name: &str, severity: Severity, what: &str) {
            let peer = what.contains("connection").then(|| "c".to_owned());
            let (name, what, remedy) = (name.to_owned(), what.to_owned(), "mend it".to_owned());
            let explained = what.contains(": ");
            self.status(node).conditions.push(Condition { name, peer, severity, for_ms: 1, explained, what, remedy });
        }

        fn answers(&self) -> Vec<Answer<'_>> {
            let members = self.members.iter();
            members.zip(&self.says).map(|(member, status)| Answer { member, status: status.as_ref() }).collect()
        }

        fn verdict(&self) -> Verdict {
            judge(&self.topology, &self.answers(), None)
        }
    }

    #[test]
    fn health_is_one_sentence_and_what_to_do() {
        let well = Cluster::of([true; 3]).verdict();
        assert_eq!((well.well, &well.sentence[..]), (true, "All 3 nodes are up and connected."));
        let one = Cluster::of([true, true, false]).verdict();
        assert_eq!((one.well, one.severity), (false, Some(Severity::Warning)));
        assert_eq!(one.sentence, "1 of 3 nodes is down (c): every partition still has a quorum of primaries.");
        assert!(one.remedy.expect("says what to do").starts_with("start it; or if c is lost, put another node in its"));
        let two = Cluster::of([true, false, false]).verdict();
        assert_eq!(two.severity, Some(Severity::Critical));
        assert_eq!(two.sentence, "2 of 3 nodes are down (b, c): 8 of 8 partitions have no quorum of primaries.");
    }

    #[test]
    fn the_cause_comes_before_what_follows_from_it() {
        let mut cluster = Cluster::of([true; 3]);
        cluster.suffers(0, "hints_held", Severity::Note, "3 keys wait");
        assert!(cluster.verdict().well, "a note is no fault");
        cluster.suffers(0, "peer_unreachable", Severity::Warning, "no connection to c");
        cluster.suffers(2, NO_QUORUM, Severity::Critical, "partition n3/0 has 1 reachable owners");
        assert!(cluster.verdict().sentence.starts_with("c: partition n3/0"), "nobody knows why");
        cluster.suffers(1, "peer_unreachable", Severity::Warning, "no connection to c: other file");
        let verdict = cluster.verdict();
        assert_eq!((&verdict.sentence[..], verdict.more), ("b: no connection to c: other file.", 2));
        assert_eq!(verdict.remedy.as_deref(), Some("mend it"));
        cluster.suffers(2, "store_short", Severity::Critical, "the store is short: no room");
        assert!(cluster.verdict().sentence.starts_with("c: the store is short"));
    }

    #[test]
    fn a_silent_node_is_down_only_if_nobody_hears_it() {
        let mut cluster = Cluster::of([true, true, false]);
        let state_of_c = |cluster: &Cluster| state(cluster.answers()[2], &cluster.answers());
        assert_eq!(state_of_c(&cluster), "down");
        for (node, liveness) in [Liveness::Down, Liveness::Suspect].into_iter().enumerate() {
            cluster.status(node).peers = vec![PeerStatus { name: "c".to_owned(), connected: false, liveness }];
        }
        assert_eq!(state_of_c(&cluster), "suspect");
        assert!(cluster.verdict().sentence.starts_with("1 of 3 nodes does not answer (c – suspected by the others)"));
    }

    #[test]
    fn what_passes_by_itself_is_said_and_is_no_fault() {
        let mut cluster = Cluster::of([true; 3]);
        cluster.status(0).hints = Some(1);
        assert!(cluster.verdict().sentence.ends_with("connected; 1 key waits to be handed over."));
        cluster.status(0).hints = Some(1_040_022);
        assert!(cluster.verdict().sentence.contains("; 1,040,022 keys wait"));
        cluster.status(1).keys = None;
        assert!(cluster.verdict().sentence.ends_with("some still count their keys after a start."));
        let moving = Moving { taking: 64, taken: 12, ..Moving::default() };
        let verdict = judge(&cluster.topology, &cluster.answers(), Some(moving));
        assert!(verdict.well && verdict.sentence.contains("version 1 of the members is under way, with 12 of 64"));
        cluster.status(1).ring_version = 2;
        assert!(!cluster.verdict().well);
    }
}

//! Whether all is well with a cluster, in one sentence, from what its members say of themselves; and if not, what to do.
//!
//! Who does not answer comes first, unless a node that answers knows why; then what nodes say is the matter with them: the worst first, but a
//! cause before what follows from it, and of the two sides that miss a connection the one that knows why.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use driftless_proto::Topology;
use driftless_proto::client::{Condition, Liveness, NodeStatus, Severity};
use driftless_proto::membership::Moving;
use driftless_ring::{Member, NodeId};
use serde::Serialize;

use super::{NO_QUORUM, STORE_REPLACED};

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

/// The sentence about the members of all versions that count; `moving` is what all of them take in and hand over, if the newest is not done
/// with.
pub fn judge(topology: &Topology, all: &[Answer<'_>], moving: Option<Moving>) -> Verdict {
    let bad = troubles(all);
    let silent: Vec<Answer<'_>> = all.iter().copied().filter(|one| one.status.is_none()).collect();
    if !silent.is_empty() {
        return match cause_of_silence(&bad, all, &silent) {
            Some(cause) => {
                let stuck = Stuck::count(topology, all).map(|stuck| format!(" {stuck}.")).unwrap_or_default();
                let verdict = of_trouble(cause, bad.len() - 1);
                let severity = if stuck.is_empty() { verdict.severity } else { Some(Severity::Critical) };
                Verdict { severity, sentence: verdict.sentence + &stuck, ..verdict }
            }
            None => silence(topology, all, &silent, &bad),
        };
    }
    if let Some((first, others)) = bad.split_first() {
        return of_trouble(first, others.len());
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
    if let (Some(Moving { taking, taken, giving, given, .. }), Some(version)) = (moving, versions.first()) {
        let how_far = match (taken < taking, given < giving) {
            (true, _) => format!(", with {taken} of {taking} partitions taken in"),
            (false, true) => format!(", with {given} of {giving} partitions handed over"),
            (false, false) => String::new(),
        };
        let sentence = format!("{up}; version {version} of the members is under way{how_far}. Nothing is to be done.");
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

/// The same about a node that is no member, to which members say nothing of themselves: of it alone.
pub fn of_stranger(status: &NodeStatus) -> (Verdict, Vec<Trouble<'_>>) {
    let name = status.name.as_str();
    let said = status.conditions.iter().map(|condition| Trouble { node: name, condition });
    let troubles: Vec<Trouble<'_>> = said.collect();
    let worst = troubles.iter().max_by_key(|trouble| trouble.condition.severity);
    let verdict = Verdict {
        well: false,
        severity: worst.map(|trouble| trouble.condition.severity).max(Some(Severity::Warning)),
        sentence: format!("{name} is no member of this cluster: how the others are is seen on their pages."),
        remedy: Some(format!("have it join (`driftless cluster join {name}` on any member), or stop it")),
        see: None,
        more: troubles.len(),
    };
    (verdict, troubles)
}

fn of_trouble(Trouble { node, condition }: &Trouble<'_>, more: usize) -> Verdict {
    let Condition { what, remedy, severity, .. } = condition;
    Verdict {
        well: false,
        severity: Some(*severity),
        sentence: format!("{node}: {what}."),
        remedy: Some(remedy.clone()),
        see: None,
        more,
    }
}

/// What explains that nodes do not answer: that the only one that does is cut off by a fault of its own, or that somebody knows of each
/// silent node why there is no connection to it.
fn cause_of_silence<'t, 'a>(
    bad: &'t [Trouble<'a>],
    all: &[Answer<'_>],
    silent: &[Answer<'_>],
) -> Option<&'t Trouble<'a>> {
    if silent.len() + 1 == all.len() {
        let is_own = |trouble: &&Trouble<'_>| {
            let Condition { severity, peer, name, .. } = trouble.condition;
            *severity == Severity::Critical && peer.is_none() && name != NO_QUORUM
        };
        if let Some(own) = bad.iter().find(is_own) {
            return Some(own);
        }
    }
    let explains = |trouble: &&Trouble<'_>, name: &str| {
        trouble.condition.explained && trouble.condition.peer.as_deref().is_some_and(|peer| peer == name)
    };
    let explained = silent.iter().map(|one| bad.iter().find(|trouble| explains(trouble, &one.member.name)));
    explained.collect::<Option<Vec<_>>>()?.into_iter().next()
}

/// Partitions of which too few owners read or write, of all.
struct Stuck {
    partitions: usize,
    of: usize,
}

impl Stuck {
    /// `None` if there are none. The bucket that asks for most counts, of each number of replicas.
    fn count(topology: &Topology, all: &[Answer<'_>]) -> Option<Stuck> {
        let ring = topology.ring();
        let able: BTreeMap<NodeId, (bool, bool)> = all.iter().map(|one| (one.member.id, able(*one, all))).collect();
        let mut stuck = Stuck { partitions: 0, of: 0 };
        for class in ring.classes() {
            let quorums = || topology.buckets().iter().map(|bucket| bucket.quorum).filter(|quorum| quorum.n() == class);
            let (Some(r), Some(w)) = (quorums().map(|q| q.r()).max(), quorums().map(|q| q.w()).max()) else { continue };
            for partition in ring.all_partitions().filter(|partition| partition.n == class) {
                let owners = ring.owners(partition).iter().filter_map(|owner| able.get(owner));
                let (reads, writes) = owners.fold((0, 0), |(reads, writes), (can_read, can_write)| {
                    (reads + u8::from(*can_read), writes + u8::from(*can_write))
                });
                stuck.of += 1;
                stuck.partitions += usize::from(reads < r || writes < w);
            }
        }
        (stuck.partitions > 0).then_some(stuck)
    }
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} partitions have no quorum of primaries", self.partitions, self.of)
    }
}

/// Whether a node can be read from, and written to. One that does not answer here is taken to be able while one that answers is connected to
/// it: it may be the way from here, or of an older release.
fn able(one: Answer<'_>, all: &[Answer<'_>]) -> (bool, bool) {
    match one.status {
        Some(status) => {
            let is_whole = status.conditions.iter().all(|condition| condition.name != STORE_REPLACED);
            (is_whole, status.takes_writes)
        }
        None => {
            let peers = all.iter().filter_map(|one| one.status).flat_map(|status| &status.peers);
            let is_heard = peers
                .filter(|peer| peer.name == one.member.name)
                .any(|peer| peer.connected && peer.liveness == Liveness::Alive);
            (is_heard, is_heard)
        }
    }
}

/// About those who do not answer.
fn silence(topology: &Topology, all: &[Answer<'_>], silent: &[Answer<'_>], bad: &[Trouble<'_>]) -> Verdict {
    let named = |one: &Answer<'_>| {
        let name = &one.member.name;
        match opinion_of_others(name, all) {
            Some(Liveness::Alive) => format!("{name} – other nodes hear it"),
            Some(Liveness::Suspect) => format!("{name} – suspected by the others"),
            Some(Liveness::Down) | None => name.clone(),
        }
    };
    let stuck = Stuck::count(topology, all);
    let are_down = silent.iter().all(|one| state(*one, all) == "down");
    let (verb, it) = match (silent.len(), are_down) {
        (1, true) => ("is down", "it"),
        (_, true) => ("are down", "them"),
        (1, false) => ("does not answer", "it"),
        (_, false) => ("do not answer", "them"),
    };
    let lacks_quorum = bad.iter().any(|trouble| trouble.condition.name == NO_QUORUM);
    let consequence = match &stuck {
        Some(stuck) => format!("{stuck}."),
        None if lacks_quorum => "some partitions have no quorum of primaries.".to_owned(),
        None => "every partition still has a quorum of primaries.".to_owned(),
    };
    let names: Vec<String> = silent.iter().map(named).collect();
    let sentence = if silent.len() == all.len() {
        "No node answers: nothing can be read or written.".to_owned()
    } else {
        format!("{} of {} nodes {verb} ({}): {consequence}", silent.len(), all.len(), names.join(", "))
    };
    let first = &silent[0].member.name;
    // Nobody is declared lost without a majority.
    let is_majority_up = 2 * (all.len() - silent.len()) > all.len();
    let they = if silent.len() == 1 { "it" } else { "they" };
    let remedy = match are_down {
        _ if silent.len() == all.len() => format!("start {it}, or see whether {they} can be reached from here"),
        true if !is_majority_up => format!("start {it}"),
        true => format!(
            "start {it}; or if {first} is lost, put another node in its place (`driftless cluster replace {first} --with NAME`), or go on \
             without it (`driftless cluster leave {first} --lost`)"
        ),
        false => format!("see whether {they} can be reached from here, and why {they} may be slow"),
    };
    let of_silence = if stuck.is_some() { Severity::Critical } else { Severity::Warning };
    Verdict {
        well: false,
        severity: bad.iter().map(|trouble| trouble.condition.severity).max().max(Some(of_silence)),
        sentence,
        remedy: Some(remedy),
        see: None,
        more: bad.len(),
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
    fn why_a_node_does_not_answer_comes_before_that_it_does_not() {
        let mut cluster = Cluster::of([true, true, false]);
        cluster.suffers(0, "peer_unreachable", Severity::Warning, "no connection to c: it goes by another file");
        let verdict = cluster.verdict();
        assert_eq!(verdict.sentence, "a: no connection to c: it goes by another file.");
        assert_eq!((verdict.remedy.as_deref(), verdict.severity), (Some("mend it"), Some(Severity::Warning)));
        let mut alone = Cluster::of([true, false, false]);
        alone.suffers(0, NO_QUORUM, Severity::Critical, "partition n3/0 has 1 reachable owners");
        assert_eq!(alone.verdict().remedy.as_deref(), Some("start them"), "nobody is declared lost by one of three");
        alone.suffers(0, "certificate_ends", Severity::Critical, "the certificate of this node has expired");
        let verdict = alone.verdict();
        assert!(verdict.sentence.starts_with("a: the certificate of this node has expired. 8 of 8 partitions have no"));
        assert_eq!(verdict.severity, Some(Severity::Critical));
    }

    #[test]
    fn who_is_silent_here_and_heard_by_others_is_no_lost_quorum_and_who_takes_no_writes_is() {
        let mut cluster = Cluster::of([true, false, false]);
        let heard = |name: &str| PeerStatus { name: name.to_owned(), connected: true, liveness: Liveness::Alive };
        cluster.status(0).peers = vec![heard("b"), heard("c")];
        let verdict = cluster.verdict();
        assert!(verdict.sentence.ends_with("every partition still has a quorum of primaries."), "{}", verdict.sentence);
        assert_eq!(verdict.severity, Some(Severity::Warning));
        let mut short = Cluster::of([true, true, false]);
        short.status(1).takes_writes = false;
        assert!(short.verdict().sentence.ends_with("8 of 8 partitions have no quorum of primaries."));
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
        let moving = Moving { taken: 64, giving: 9, given: 3, ..moving };
        let verdict = judge(&cluster.topology, &cluster.answers(), Some(moving));
        assert!(verdict.sentence.contains("under way, with 3 of 9 partitions handed over. Nothing"));
        let verdict = judge(&cluster.topology, &cluster.answers(), Some(Moving::default()));
        assert!(verdict.sentence.contains("is under way. Nothing"), "it moves nothing");
        cluster.status(1).ring_version = 2;
        assert!(!cluster.verdict().well);
    }
}

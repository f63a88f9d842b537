//! Whether a walk through a bucket can be relied on to meet every key.
//!
//! A page of a scan rests on r of the key's own replicas. A write that a sloppy quorum has taken may be on one of them and at a
//! fallback, until the fallback has handed it over; and a replica whose disk was replaced holds nothing until it is filled
//! again. So keys that were acknowledged may be missing, and nothing in a page tells. What the nodes say of themselves does:
//!
//! ```text
//! status   every node answers, and has counted what it holds for others
//! hints    nobody holds anything for anybody
//! aae      every node has compared all that it shares with each peer, since its start
//! ```
//! Members of the newest version are asked. Who is one no more, and has not handed over everything, may hold the only copy of what it
//! took as a fallback: so while members change there is a doubt as well.
//!
//! Asked before the walk and after it: a cluster that was in order both times was not out of order in between for longer than
//! the walk.

use std::time::{Duration, Instant};

use driftless_client::{AaeCommand, AaeStatus, Client, HintsFor, NodeStatus};
use driftless_node::conditions::MEMBERS_CHANGING;
use futures::future::join_all;
use serde_json::{Value, json};

use super::members::{ANSWER_MAX, members};
use super::output::{self, grouped};
use super::session;

/// What one node says of itself, or that it does not answer.
struct Node {
    name: String,
    said: Option<Said>,
}

struct Said {
    status: NodeStatus,
    hints: Vec<HintsFor>,
    aae: AaeStatus,
}

/// Why keys may be missing; nothing if they are not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Doubts(Vec<String>);

/// What all nodes say now, in view of the buckets with so many replicas.
pub(crate) async fn doubts(client: &Client, n: u8) -> Doubts {
    let topology = session::topology(client);
    let asked = members(&topology).map(|member| async move {
        let name = &member.name;
        let all = async {
            // A node that does not answer is a doubt: asking again would only take longer to say so.
            let status = client.status(name).await.ok()?;
            let hints = client.hints(name).await.ok()?;
            let aae = client.aae(name, AaeCommand::Status).await.ok()?;
            Some(Said { status, hints, aae })
        };
        let said = tokio::time::timeout(ANSWER_MAX, all).await.ok().flatten();
        Node { name: member.name, said }
    });
    Doubts::of(&join_all(asked).await, n, topology.ring().version().0)
}

/// The same, asked again until there are none or the time is over.
pub(crate) async fn doubts_after(client: &Client, n: u8, patience: Duration) -> Doubts {
    let started = Instant::now();
    let mut told = None;
    loop {
        let doubts = doubts(client, n).await;
        if doubts.is_empty() || started.elapsed() >= patience {
            return doubts;
        }
        if told.as_ref() != Some(&doubts.0.len()) {
            output::note(format_args!("waiting: {}", doubts.0.join("; ")));
            told = Some(doubts.0.len());
        }
        tokio::time::sleep(ASK_AGAIN.min(patience.saturating_sub(started.elapsed()))).await;
    }
}

impl Doubts {
    fn of(nodes: &[Node], n: u8, version: u64) -> Doubts {
        let mut doubts = Vec::new();
        let silent: Vec<&str> =
            nodes.iter().filter(|node| node.said.is_none()).map(|node| node.name.as_str()).collect();
        if !silent.is_empty() {
            let (verb, hold) = if silent.len() == 1 { ("does", "it holds") } else { ("do", "they hold") };
            doubts.push(format!(
                "{} {verb} not answer: start what is down, since only {hold} some copies",
                silent.join(", ")
            ));
        }
        let all = || nodes.iter().filter_map(|node| Some((node.name.as_str(), node.said.as_ref()?)));
        let counting: Vec<&str> = all().filter(|(_, said)| said.status.hints.is_none()).map(|(name, _)| name).collect();
        if !counting.is_empty() {
            doubts.push(format!(
                "{} {} since a start what is held for others",
                counting.join(", "),
                if counting.len() == 1 { "still counts" } else { "still count" }
            ));
        }
        if all().any(|(_, said)| said.status.conditions.iter().any(|condition| condition.name == MEMBERS_CHANGING)) {
            doubts.push(
                "members change, and what is still to be handed over was not looked at: wait until `driftless transfers` \
                 shows that nothing moves"
                    .to_owned(),
            );
        }
        let others: Vec<&str> =
            all().filter(|(_, said)| said.status.ring_version != version).map(|(name, _)| name).collect();
        if !others.is_empty() {
            let go = if others.len() == 1 { "goes" } else { "go" };
            doubts.push(format!(
                "{} {go} by another version of the members and buckets than version {version}, which was looked at",
                others.join(", ")
            ));
        }
        let keys: u64 = all().flat_map(|(_, said)| &said.hints).map(|hints| hints.keys).sum();
        if keys > 0 {
            doubts.push(format!(
                "{} {} to be handed to the nodes that own them: wait until `driftless hints` shows none",
                grouped(keys),
                if keys == 1 { "key waits" } else { "keys wait" }
            ));
        }
        let is_fresh = |said: &Said| {
            let mut shared = said.aae.partitions.iter().filter(|line| line.partition.n == n);
            shared.any(|line| line.last_full_round_ms.is_none())
        };
        let fresh: Vec<&str> = all().filter(|(_, said)| is_fresh(said)).map(|(name, _)| name).collect();
        let building = |said: &Said| said.aae.building > 0 && !is_fresh(said);
        let building: Vec<&str> = all().filter(|(_, said)| building(said)).map(|(name, _)| name).collect();
        if !building.is_empty() {
            doubts.push(format!(
                "{} {} through what is stored, and {} nothing until that is done: wait until `driftless status` shows how many keys there are",
                building.join(", "),
                if building.len() == 1 { "reads" } else { "read" },
                if building.len() == 1 { "compares" } else { "compare" }
            ));
        }
        if !fresh.is_empty() {
            doubts.push(format!(
                "{} {} not compared everything with the others since a start, and may be being filled again: wait until \
                 `driftless aae status` shows no \"never\"",
                fresh.join(", "),
                if fresh.len() == 1 { "has" } else { "have" }
            ));
        }
        Doubts(doubts)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The doubts of before a walk and of after it: the later ones, if there are any.
    pub(crate) fn and(mut self, later: Doubts) -> Doubts {
        if !later.is_empty() {
            return later;
        }
        if !self.is_empty() {
            self.0.push("that was so when it began, and is over now".to_owned());
        }
        self
    }

    /// Each of them, in words.
    pub(crate) fn into_reasons(self) -> Vec<String> {
        self.0
    }

    /// For programs.
    pub(crate) fn as_json(&self) -> Value {
        json!(self.0)
    }

    /// Says that keys may be missing from what was listed, and why.
    pub(crate) fn warn(&self, what: &str) {
        output::warning(format_args!("KEYS MAY BE MISSING from {what}, acknowledged ones among them:"));
        for doubt in &self.0 {
            output::note(format_args!("  - {doubt}"));
        }
    }
}

const ASK_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use driftless_client::AaePartition;
    use driftless_proto::client::{Condition, Severity};
    use driftless_ring::{ArcIndex, PartitionId};

    use super::*;

    fn node(name: &str) -> Node {
        let status = NodeStatus {
            name: name.to_owned(),
            version: "1".to_owned(),
            ring_version: 1,
            uptime_ms: 1,
            keys: Some(1),
            bytes: Some(1),
            hints: Some(0),
            clock_offset_ms: None,
            takes_writes: true,
            conditions: Vec::new(),
            peers: Vec::new(),
        };
        let line = AaePartition {
            peer: "z".to_owned(),
            partition: PartitionId { n: 3, arc: ArcIndex(0) },
            last_full_round_ms: Some(1),
            compared: 0,
            repaired: 0,
            unequal: false,
            in_progress: false,
            behind: 0,
            rate: 0.0,
        };
        let aae = AaeStatus { paused: false, drift: 0, building: 0, partitions: vec![line] };
        Node { name: name.to_owned(), said: Some(Said { status, hints: Vec::new(), aae }) }
    }

    fn edit(node: &mut Node) -> &mut Said {
        node.said.as_mut().expect("answers")
    }

    #[test]
    fn a_walk_is_doubted_while_anything_waits_to_be_where_it_belongs() {
        let nodes = || vec![node("a"), node("b")];
        assert!(Doubts::of(&nodes(), 3, 1).is_empty());

        let mut silent = nodes();
        silent[1].said = None;
        assert!(Doubts::of(&silent, 3, 1).0[0].starts_with("b does not answer"));

        let mut counting = nodes();
        edit(&mut counting[0]).status.hints = None;
        assert!(Doubts::of(&counting, 3, 1).0[0].starts_with("a still counts"));

        let mut owing = nodes();
        let hints = HintsFor {
            target: "b".to_owned(),
            keys: 386,
            bytes: 0,
            oldest_ms: None,
            delivered: 0,
            rate: 0.0,
            eta_ms: None,
        };
        edit(&mut owing[0]).hints = vec![hints];
        assert!(Doubts::of(&owing, 3, 1).0[0].starts_with("386 keys wait to be handed"));

        let mut changing = nodes();
        let condition = Condition {
            name: MEMBERS_CHANGING.to_owned(),
            peer: None,
            severity: Severity::Note,
            for_ms: 1,
            explained: true,
            what: String::new(),
            remedy: String::new(),
        };
        edit(&mut changing[1]).status.conditions = vec![condition];
        assert!(Doubts::of(&changing, 3, 1).0[0].starts_with("members change"));

        let mut ahead = nodes();
        edit(&mut ahead[1]).status.ring_version = 2;
        assert!(Doubts::of(&ahead, 3, 1).0[0].starts_with("b goes by another version"));

        let mut refilled = nodes();
        edit(&mut refilled[1]).aae.partitions[0].last_full_round_ms = None;
        assert!(Doubts::of(&refilled, 3, 1).0[0].starts_with("b has not compared everything"));
        assert!(Doubts::of(&refilled, 2, 1).is_empty(), "that is about buckets with three replicas");
    }
}

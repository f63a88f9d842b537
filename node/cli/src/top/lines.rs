//! From what nodes have counted to lines: the same for the command and for the view.

use std::cmp::Reverse;

use driftless_client::{BucketTop, HotKey, Seen, Top, TopKey};
use driftless_proto::{BucketDefinition, BucketId, Key, Topology};
use driftless_ring::NodeId;
use serde_json::{Value, json};

use crate::output::{grouped, json_bytes, rate, size};

/// What keys are ranked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum By {
    /// How often they are asked for
    #[default]
    Hot,
    /// The bytes of their values
    Large,
    /// How many siblings they have
    Siblings,
}

/// One key.
pub(crate) struct Line {
    /// Its name, or its token.
    pub(crate) key: String,
    pub(crate) bucket: String,
    pub(crate) partition: String,
    /// The primaries.
    pub(crate) owners: Vec<String>,
    name: TopKey,
    /// What it was asked for each second: at most so often, of that perhaps so much of other keys; reads, writes.
    asked: Option<[f64; 4]>,
    seen: Option<Seen>,
}

impl By {
    /// The one to turn to next.
    pub(crate) fn next(self) -> By {
        match self {
            By::Hot => By::Large,
            By::Large => By::Siblings,
            By::Siblings => By::Hot,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            By::Hot => "hot",
            By::Large => "large",
            By::Siblings => "siblings",
        }
    }

    /// What the lines are.
    pub(crate) fn sentence(self, top: &Top) -> String {
        let seconds = (top.span_ms as f64 / 1000.0).round();
        match self {
            By::Hot => format!("Asked for most in the last {seconds} s; a count is at most OVER BY too high."),
            By::Large => "The largest of those that were read or written in the last hour.".to_owned(),
            By::Siblings => "Those with siblings, as they were when last read or written in the last hour.".to_owned(),
        }
    }

    /// Instead of lines.
    pub(crate) fn nothing(self) -> &'static str {
        match self {
            By::Hot => "No key was asked for in the last minutes.",
            By::Large => "No key with a value was read or written in the last hour.",
            By::Siblings => "No key that was read or written in the last hour has siblings.",
        }
    }
}

/// The first of all buckets, or of one.
pub(crate) fn lines(top: &Top, topology: &Topology, by: By, only: Option<BucketId>, most: usize) -> Vec<Line> {
    // Ranked first: a line looks up partition and owners, and most keys get none.
    let mut ranked = Vec::new();
    for part in top.buckets.iter().filter(|part| only.is_none_or(|only| only == part.bucket)) {
        // One that was deleted meanwhile has no keys any more.
        let Some(bucket) = topology.bucket(part.bucket) else { continue };
        let BucketTop { hot, large, siblings, .. } = part;
        match by {
            By::Hot => ranked.extend(hot.iter().map(|hot| (hot.count(), bucket, part, &hot.key, hot.seen))),
            By::Large => {
                ranked.extend(large.iter().map(|key| (key.seen.bytes, bucket, part, &key.key, Some(key.seen))));
            }
            By::Siblings => ranked
                .extend(siblings.iter().map(|key| (key.seen.siblings.into(), bucket, part, &key.key, Some(key.seen)))),
        }
    }
    ranked.sort_by_key(|(measure, ..)| Reverse(*measure));
    ranked.truncate(most);
    let line = |(_, bucket, part, key, seen): (u64, &BucketDefinition, &BucketTop, &TopKey, Option<Seen>)| {
        let asked = part.hot.iter().find(|hot| hot.key.token == key.token);
        Line::new(topology, bucket, key, top.span_ms, asked, seen)
    };
    ranked.into_iter().map(line).collect()
}

impl Line {
    fn new(
        topology: &Topology,
        bucket: &BucketDefinition,
        key: &TopKey,
        span_ms: u64,
        asked: Option<&HotKey>,
        seen: Option<Seen>,
    ) -> Line {
        let partition = topology.ring().partition(bucket.quorum.n(), key.token);
        let name_of = |node: &NodeId| {
            topology.ring().member(*node).map_or_else(|| node.to_string(), |member| member.name.clone())
        };
        let per_second = |count: u64| count as f64 * 1000.0 / span_ms.max(1) as f64;
        Line {
            key: shown(key),
            bucket: bucket.name.to_string(),
            partition: partition.to_string(),
            owners: topology.preference(partition).primaries.iter().map(name_of).collect(),
            name: key.clone(),
            asked: asked.map(|asked| [asked.count(), asked.over, asked.reads, asked.writes].map(per_second)),
            seen,
        }
    }

    pub(crate) fn requests(&self) -> String {
        self.asked.map_or(NOTHING.to_owned(), |[requests, ..]| rate(requests))
    }

    pub(crate) fn over(&self) -> String {
        self.asked.map_or(NOTHING.to_owned(), |[_, over, ..]| rate(over))
    }

    pub(crate) fn reads(&self) -> String {
        self.asked.map_or(NOTHING.to_owned(), |[_, _, reads, _]| rate(reads))
    }

    pub(crate) fn writes(&self) -> String {
        self.asked.map_or(NOTHING.to_owned(), |[.., writes]| rate(writes))
    }

    pub(crate) fn bytes(&self) -> String {
        self.seen.map_or(NOTHING.to_owned(), |seen| size(seen.bytes))
    }

    pub(crate) fn siblings(&self) -> String {
        self.seen.map_or(NOTHING.to_owned(), |seen| grouped(seen.siblings.into()))
    }

    pub(super) fn as_json(&self) -> Value {
        let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
        let asked = |at: usize| self.asked.map(|asked| rounded(asked[at]));
        json!({
            "bucket": self.bucket,
            "key": self.name.name.as_ref().map(|name| json_bytes(name)),
            "key_cut": self.name.cut,
            "token": format!("{:016x}", self.name.token.0),
            "requests_per_s": asked(0),
            "over_by_per_s": asked(1),
            "reads_per_s": asked(2),
            "writes_per_s": asked(3),
            "bytes": self.seen.map(|seen| seen.bytes),
            "siblings": self.seen.map(|seen| seen.siblings),
            "seen_ms": self.seen.map(|seen| seen.ago_ms),
            "partition": self.partition,
            "owners": self.owners,
        })
    }
}

/// A name in one line, whatever bytes it has; without one the token, as `ring` prints it.
fn shown(key: &TopKey) -> String {
    let name = key.name.as_ref().and_then(|name| Key::new(name.clone()).ok());
    match name {
        Some(name) => format!("{name}{}", if key.cut { "…" } else { "" }),
        None => format!("{:016x}", key.token.0),
    }
}

const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use driftless_client::SeenKey;
    use driftless_ring::Token;
    use driftless_testkit::{TopologyBuilder, bucket};

    use super::*;

    fn key(token: u64, name: Option<&'static [u8]>, cut: bool) -> TopKey {
        TopKey { token: Token(token), name: name.map(Bytes::from_static), cut }
    }

    fn top() -> Top {
        let seen = |bytes, siblings| Seen { bytes, siblings, ago_ms: 10 };
        let hot = |key, reads, writes, over, seen| HotKey { key, reads, writes, over, seen };
        let part =
            |id, hot, large, siblings| BucketTop { bucket: BucketId(id), requests: 9, hot, floor: 0, large, siblings };
        let cart = key(1, Some(b"cart/7"), false);
        let odd = key(2, Some(b"\xff\n"), true);
        Top {
            watches: true,
            names: true,
            span_ms: 100_000,
            buckets: vec![
                part(
                    0,
                    vec![hot(cart.clone(), 120_000, 100, 500, Some(seen(100, 1))), hot(odd.clone(), 50, 0, 0, None)],
                    vec![SeenKey { key: cart.clone(), seen: seen(100, 1) }],
                    Vec::new(),
                ),
                part(
                    5,
                    vec![hot(key(u64::MAX, None, false), 70_000, 0, 0, None)],
                    vec![SeenKey { key: odd.clone(), seen: seen(9 << 20, 3) }],
                    vec![SeenKey { key: odd, seen: seen(9 << 20, 3) }],
                ),
                part(9, vec![hot(cart, u64::MAX, u64::MAX, 0, None)], Vec::new(), Vec::new()),
            ],
            uncounted: 0,
        }
    }

    #[test]
    fn keys_of_all_buckets_are_ranked_together() {
        let topology = TopologyBuilder::of(["n1", "n2", "n3"]).bucket(bucket(5, "carts", 3)).build();
        let shown = |by, only, most| -> Vec<String> {
            let lines = lines(&top(), &topology, by, only, most);
            let show = |line: &Line| {
                let (key, bucket) = (&line.key, &line.bucket);
                let parts = [line.requests(), line.over(), line.reads(), line.writes(), line.bytes(), line.siblings()];
                format!("{key} {bucket} {}", parts.join(" "))
            };
            lines.iter().map(show).collect()
        };
        // Bucket 9 is not there any more.
        assert_eq!(
            shown(By::Hot, None, 9),
            [
                "cart/7 default 1,206 5.0 1,200 1.0 100 B 1",
                "ffffffffffffffff carts 700 0 700 0 - -",
                "\\xff\\n… default 0.5 0 0.5 0 - -"
            ]
        );
        assert_eq!(shown(By::Hot, Some(BucketId(5)), 9).len(), 1);
        assert_eq!(shown(By::Hot, None, 1).len(), 1);
        let large = shown(By::Large, None, 9);
        assert_eq!(large, ["\\xff\\n… carts - - - - 9.0 MiB 3", "cart/7 default 1,206 5.0 1,200 1.0 100 B 1"]);
        assert_eq!(shown(By::Siblings, None, 9).len(), 1);
    }

    #[test]
    fn partition_and_owners_are_those_of_the_token() {
        let topology = TopologyBuilder::of(["n1", "n2", "n3"]).bucket(bucket(5, "carts", 3)).build();
        let line = &lines(&top(), &topology, By::Hot, Some(BucketId(5)), 9)[0];
        let partition = topology.ring().partition(3, Token(u64::MAX));
        assert_eq!(line.partition, partition.to_string());
        let mut owners = line.owners.clone();
        owners.sort_unstable();
        assert_eq!(owners, ["n1", "n2", "n3"]);
    }
}

//! The rules of the protocol, one test each, on engines joined by a wire that the test holds in its hands. Where the
//! protocol gives a figure in brackets, the test fails without the rule.

use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::{Delete, Deleted, Get, Put, Read, Request as Ask, Stored};
use driftless_proto::{
    BucketDefinition, BucketId, Conflict, ContextToken, Durability, Failure, Hlc, Key, Refusal, Siblings, Unknown,
    Version, VersionVector, WriteId,
};
use driftless_testkit::{TopologyBuilder, bucket};

use crate::config::AaeLimits;
use crate::peer::{Merge, ReplicaRequest, State};
use crate::replica::record::{self, RecordKey};
use crate::replica::store::StoreError;
use crate::store::memory::MemoryStore;
use crate::testkit::{EngineCluster, SharedStore};

use super::*;

mod bounded;
mod clocks;
mod damaged;
mod deleting;
mod durability;
mod explaining;
mod fetching;
mod healing;
mod hedging;
mod hinting;
mod large;
mod lying;
mod members;
mod reading;
mod refusing;
mod shards;
mod sloppy;
mod stamping;
mod starving;
mod states;
mod write_ids;
mod writing;

const SIBLINGS: BucketId = BucketId(0);
const LWW: BucketId = BucketId(1);
const STRICT: BucketId = BucketId(2);
const BUFFERED: BucketId = BucketId(3);

/// Three engines, or more, one to a node.
type Trio = EngineCluster;

impl Trio {
    fn new() -> Trio {
        Trio::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Trio {
        Trio::of(3, limits)
    }

    /// So many engines; keys still have three owners.
    fn of(nodes: usize, limits: Limits) -> Trio {
        Trio::built(nodes, limits, None, Planted::default())
    }

    /// Whose engines make a mistake.
    fn with_planted(nodes: usize, planted: Planted) -> Trio {
        Trio::built(nodes, Limits::default(), None, planted)
    }

    /// With a bucket of another n beside the others.
    fn built(nodes: usize, limits: Limits, other: Option<BucketDefinition>, planted: Planted) -> Trio {
        let topology = members(nodes).buckets(other).shared();
        Trio::launch(topology, without_rounds(limits), planted, |_| MemoryStore::new())
    }

    fn read(&mut self, i: usize, bucket: BucketId, r: u8) -> Read {
        let request = self.ask(i, get(bucket, Some(r)));
        self.settle();
        match self.reply(request) {
            Some(Response::Read(read)) => read.clone(),
            other => panic!("expected Read, got {other:?}"),
        }
    }

    fn put_and_settle(&mut self, i: usize, ask: Ask) -> Stored {
        let request = self.ask(i, ask);
        self.settle();
        self.stored(request)
    }

    /// What a node's store holds of the key, as applied.
    fn holds(&self, i: usize, bucket: BucketId) -> Siblings {
        let definition = self.topology.bucket(bucket).expect("exists");
        let place = self.topology.place(definition, &key());
        let record = RecordKey::new(place.partition.n, place.token, bucket, &key());
        let value = self.engines[i].store().get(record.as_bytes()).expect("readable");
        value.map_or_else(Siblings::new, |value| record::decode(value).expect("well formed"))
    }
}

/// So many of them, and a bucket of every kind whose keys have three owners.
fn members(nodes: usize) -> TopologyBuilder {
    let quiet = |bucket: BucketDefinition| BucketDefinition { read_all: 0, ..bucket };
    TopologyBuilder::of(["a", "b", "c", "d", "e"].into_iter().take(nodes)).hash_seed(0).buckets([
        quiet(BucketDefinition::built_in(3)),
        quiet(BucketDefinition { conflict: Conflict::Lww, ..bucket(LWW.0, "lww", 3) }),
        quiet(BucketDefinition { sloppy: false, ..bucket(STRICT.0, "strict", 3) }),
        quiet(BucketDefinition { durability: Durability::Buffered, ..bucket(BUFFERED.0, "buffered", 3) }),
    ])
}

/// What other rules leave behind would not stay so for long, and rounds would be between messages on the wire.
fn without_rounds(mut limits: Limits) -> Limits {
    if limits.aae == AaeLimits::default() {
        limits.aae.interval = Duration::from_secs(1_000_000);
    }
    limits
}

fn key() -> Key {
    Key::new("bat").expect("valid")
}

fn put(bucket: BucketId, value: &'static str, context: Option<ContextToken>) -> Ask {
    let write_id = WriteId(xxhash_rust::xxh3::xxh3_128(value.as_bytes()));
    put_with_id(bucket, value, context, write_id)
}

fn put_with_id(bucket: BucketId, value: &'static str, context: Option<ContextToken>, write_id: WriteId) -> Ask {
    Ask::Put(Put {
        bucket,
        key: key(),
        value: Bytes::from_static(value.as_bytes()),
        context,
        w: None,
        sloppy: None,
        write_id,
    })
}

fn get(bucket: BucketId, r: Option<u8>) -> Ask {
    Ask::Get(Get { bucket, key: key(), r, sloppy: None, explain: false, shown: Vec::new() })
}

fn delete(bucket: BucketId, context: Option<ContextToken>) -> Ask {
    Ask::Delete(Delete { bucket, key: key(), context, r: None, w: None, sloppy: None, write_id: WriteId(4711) })
}

fn values(read: &Read) -> Vec<&str> {
    read.siblings.iter().map(|sibling| std::str::from_utf8(&sibling.value).expect("text")).collect()
}

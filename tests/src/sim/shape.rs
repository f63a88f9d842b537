//! What a world's cluster looks like: its ring and buckets, what its nodes are called, their bounds and times.

use std::time::Duration;

use driftless_node::bounds::TurnBounds;
use driftless_node::config::{AaeLimits, Limits};
use driftless_node::liveness::detector::DetectorSettings;
use driftless_proto::{BucketDefinition, Conflict, Durability, Quorum, Topology};
use driftless_ring::Member;
use driftless_testkit::{TopologyBuilder, bucket};

use super::profile::{BUCKETS, Healing, Profile};

/// The shape of a simulated cluster: few partitions, so that keys share actors, and a bucket of every kind.
pub fn topology(shards: &[u16]) -> Topology {
    let one = Quorum::new(3, 1, 1).expect("r and w are at most n");
    let buckets: [BucketDefinition; BUCKETS] = [
        BucketDefinition::built_in(shards.len()),
        BucketDefinition { sloppy: false, ..bucket(1, "strict", 3) },
        BucketDefinition { conflict: Conflict::Lww, ..bucket(2, "lww", 3) },
        bucket(3, "single", 1),
        BucketDefinition { quorum: one, ..bucket(4, "loose", 3) },
        BucketDefinition { durability: Durability::Buffered, ..bucket(5, "buffered", 3) },
    ];
    let members = shards.iter().enumerate().map(|(node, shards)| member(node, *shards));
    TopologyBuilder::of_members(members).named("sim").partitions(4).buckets(buckets).build()
}

/// What one turn of an engine may cost: in some worlds so little that one input may be enough.
pub fn turn_bounds(profile: &Profile) -> TurnBounds {
    match profile.turn_bytes {
        None => TurnBounds::default(),
        Some(bytes) => TurnBounds { inputs: 4, bytes, step_records: 2, step_bytes: bytes / 4 },
    }
}

/// Bounds and times of the engines of a world.
pub fn limits(profile: &Profile) -> Limits {
    Limits {
        attempt_timeout: Duration::from_micros(profile.attempt_timeout),
        header_cache_bytes: profile.header_cache_bytes,
        write_ids_max: profile.write_ids_max,
        requests_max: profile.requests_max,
        deadline_max: Duration::from_secs(10),
        buffered_sync_interval: Duration::from_millis(100),
        handoff_delay: Duration::from_micros(profile.handoff_delay),
        turn: turn_bounds(profile),
        aae: AaeLimits {
            interval: match profile.healing {
                Healing::Reads => Duration::from_secs(1_000_000),
                Healing::Both | Healing::AntiEntropy => Duration::from_micros(profile.aae_interval),
            },
            confirm: Duration::from_micros(profile.aae_confirm),
            patience: Duration::from_millis(400),
            repair: Duration::from_millis(1_500),
            scrub_interval: Duration::from_millis(20),
            keys_max: profile.repaired_at_once,
            entries_max: profile.listed_at_once,
            ..AaeLimits::default()
        },
        // Without room for hints nobody stands in, so that what they would bring is not needed.
        hint_bytes_max: match profile.healing {
            Healing::AntiEntropy => 0,
            Healing::Both | Healing::Reads => profile.hint_bytes_max,
        },
        read_page_bytes: profile.read_page_bytes,
        window_bytes: profile.window_bytes,
        hint_target_bytes_max: profile.hint_target_bytes_max,
        replica_waiting_max: profile.replica_waiting_max,
        ..Limits::default()
    }
}

/// Times of the detectors: short, since faults last for less than a second.
pub fn detector_settings() -> DetectorSettings {
    DetectorSettings {
        probe_period: Duration::from_millis(200),
        probe_rtt: Duration::from_millis(90),
        suspect_to_down: Duration::from_millis(300),
        announce_period: Duration::from_millis(300),
        heard_for: Duration::from_millis(150),
    }
}

/// A node as the ring knows it.
pub fn member(node: usize, shards: u16) -> Member {
    Member { shards, ..Member::new(name_of(node), format!("{}.sim:1", name_of(node))) }
}

/// Names of nodes are their numbers.
pub fn name_of(node: usize) -> String {
    format!("n{node}")
}

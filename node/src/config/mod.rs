//! Every knob as a decision: what it means, its default, and what more or less of it costs.
//!
//! The machines need [`Limits`] and `member.rs`, which says what a member may be called and be, wherever it comes from. With the feature
//! `net` come the files that people write:
//!
//! ```text
//! cluster.rs      cluster.toml: the first members and buckets, the same on all nodes  -> Topology
//! node.rs         node.toml: one node, from defaults, file, environment and flags -> NodeConfig
//! knobs.rs        its keys: what each means, and when a running node takes another value
//! check.rs        all that is wrong with a file, of whatever kind
//! access.rs       the access file: roles, and who is not let in -> Access
//! context_key.rs  the keys that seal context tokens
//! private.rs      whether a file that holds a key is kept from others
//! profile.rs      where a cluster is and who we are to it, for the command line
//! units.rs        "64MiB", "10s"
//! table.rs        reading TOML so that unknown keys are errors
//! ```

use std::time::Duration;

use crate::bounds::TurnBounds;

#[cfg(feature = "net")]
mod access;
#[cfg(feature = "net")]
mod check;
#[cfg(feature = "net")]
mod cluster;
#[cfg(feature = "net")]
mod context_key;
#[cfg(feature = "net")]
mod error;
#[cfg(feature = "net")]
mod knobs;
pub(crate) mod member;
#[cfg(feature = "net")]
mod node;
#[cfg(feature = "net")]
pub(crate) mod private;
#[cfg(feature = "net")]
mod profile;
#[cfg(feature = "net")]
mod table;
#[cfg(feature = "net")]
pub mod units;

#[cfg(feature = "net")]
pub use access::Access;
#[cfg(feature = "net")]
pub use check::{FileKind, check};
#[cfg(feature = "net")]
pub use cluster::{bucket_id_of_name, parse_cluster, read_cluster};
#[cfg(feature = "net")]
pub use context_key::{check_private, context_key_file, parse_context_keys, read_context_keys};
#[cfg(feature = "net")]
pub use error::{ConfigError, closest, nearest, read_file};
#[cfg(feature = "net")]
pub use knobs::{KNOBS, Kind, Knob, SECTIONS, Takes};
pub use member::{WEIGHT_MAX, ZONE, is_plain_name, is_zone};
#[cfg(feature = "net")]
pub use node::{AuditConfig, Change, LogConfig, NodeConfig, Override, Source, StoreConfig, TraceConfig};
#[cfg(feature = "net")]
pub use profile::{Profile, SyntaxError, parse_profile, parse_profiles};

/// Bounds and times of the machines. The defaults suit a node with a few gigabytes of memory; tests and the simulator
/// make them small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest value accepted. Larger values hold memory on every replica while they are written.
    pub value_bytes_max: u64,
    /// Requests that one shard coordinates at once. Beyond it new ones are refused as `Overloaded`; a larger number
    /// lets latency grow before clients hear of it.
    pub requests_max: usize,
    /// Bytes of values that replicas have sent for the requests that one shard coordinates. From there on new gets are refused as
    /// `Overloaded`: reads of large values come faster than slow replicas let them go.
    pub coordinated_bytes_max: usize,
    /// Deadline of a request that names none or a longer one.
    pub deadline_max: Duration,
    /// How long a coordinator waits for a replica before it asks another one as well.
    pub attempt_timeout: Duration,
    /// Bytes of key headers (vectors and dots) kept in memory, per shard. A put of a cached key reads nothing from
    /// the store.
    pub header_cache_bytes: u64,
    /// Write ids that one shard remembers to recognise retries.
    pub write_ids_max: usize,
    /// For how long it does.
    pub write_ids_age: Duration,
    /// How far a node's clock may be from the median of the clocks that it hears, its own included, before it stamps nothing: one
    /// bad clock would drag the stamps of everything written after it into the future. Smaller notices sooner; below a second
    /// or two, clocks that NTP has only just begun to set are taken for wrong.
    pub clock_off_max: Duration,
    /// Within what time a `buffered` write is synced.
    pub buffered_sync_interval: Duration,
    /// What an `Overloaded` refusal asks clients to wait.
    pub retry_after: Duration,
    /// Most keys on one page of a scan.
    pub scan_limit_max: u32,
    /// Of anti-entropy.
    pub aae: AaeLimits,
    /// Answers that may wait for the disk, per shard. Beyond it merges are refused as `Overloaded`; merges that no client
    /// waits for are refused from half of it on.
    pub replica_waiting_max: usize,
    /// Bytes held for all nodes that cannot be reached, per shard. Beyond it this node stands in for nobody, and puts
    /// count on others.
    pub hint_bytes_max: u64,
    /// Bytes held for any one of them, so that one node that stays away leaves room for others.
    pub hint_target_bytes_max: u64,
    /// Most live siblings of one key that a coordinator leaves, tombstones included. Beyond it a put is refused.
    pub siblings_max: usize,
    /// Most bytes of them.
    pub sibling_bytes_max: usize,
    /// Most bytes of one key that a replica keeps, whatever merges bring together.
    pub state_bytes_max: usize,
    /// Bytes of values in one answer to a read, or one value: what is more comes in further pages. It must fit into a frame.
    pub read_page_bytes: usize,
    /// Bytes of states on their way to one peer, for the delivery of hints, and from one shard to all for anti-entropy. A state
    /// that is larger goes beside it, one at a time, so that it holds up none.
    pub window_bytes: usize,
    /// How long a node must have been back before it is given what was held for it. Shorter repairs sooner, and floods a
    /// node that is still starting.
    pub handoff_delay: Duration,
    /// From what time on a request is slow, and written down; `None` if none is.
    pub slow: Option<Duration>,
    /// Whether its key is named then.
    pub slow_keys: bool,
    /// What one turn of a shard may cost.
    pub turn: TurnBounds,
    /// Of counting which keys are hot.
    pub top: TopLimits,
}

/// What is counted of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopLimits {
    /// Whether it is counted at all which keys are asked for most, are large, or have many siblings. It costs a fraction of a microsecond a
    /// request and some megabytes, and who asks which key is hot asks when it is too late to begin counting.
    pub watch: bool,
    /// Whether names of keys are kept for that, and shown to operators. Names may say what nobody but the application is to know.
    pub keys: bool,
}

/// Bounds and times of anti-entropy, for each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AaeLimits {
    /// How often two replicas compare all partitions that they share. Less often saves the 26 bytes a partition that
    /// this costs when nothing differs, and lets a difference stay longer.
    pub interval: Duration,
    /// Bytes that one shard sends to its peers for repairs and exchanges, on average. More fills an empty replica sooner
    /// and leaves clients less. A repaired key counts for at least 2 KiB, since small ones cost time, not bytes.
    pub bytes_per_second: u64,
    /// Exchanges that one shard begins at once; it answers as many.
    pub exchanges_max: usize,
    /// How long a difference must last before it is looked at closely, unless whole partitions differ: what is only
    /// under way is no difference.
    pub confirm: Duration,
    /// How long a peer may take to answer before an exchange is given up.
    pub patience: Duration,
    /// How long the repairs of a thousand keys may take on either side before an exchange is given up. What was repaired
    /// until then stays so.
    pub repair: Duration,
    /// How often one leaf of a tree is recomputed from the records.
    pub scrub_interval: Duration,
    /// Keys that an exchange repairs at a time, and lists in a message; the second is the same on all nodes. No setting:
    /// the simulator makes them small.
    pub keys_max: usize,
    /// See `keys_max`.
    pub entries_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_bytes_max: driftless_proto::key::VALUE_BYTES_MAX as u64,
            requests_max: 16_384,
            coordinated_bytes_max: 128 << 20,
            deadline_max: Duration::from_secs(60),
            attempt_timeout: Duration::from_millis(250),
            header_cache_bytes: 64 << 20,
            write_ids_max: 1 << 17,
            write_ids_age: Duration::from_secs(300),
            clock_off_max: Duration::from_secs(60),
            buffered_sync_interval: Duration::from_millis(500),
            retry_after: Duration::from_millis(50),
            scan_limit_max: 4096,
            aae: AaeLimits::default(),
            replica_waiting_max: 16_384,
            hint_bytes_max: 8 << 30,
            hint_target_bytes_max: 4 << 30,
            siblings_max: driftless_proto::key::SIBLINGS_MAX,
            sibling_bytes_max: driftless_proto::key::SIBLING_BYTES_MAX,
            state_bytes_max: driftless_proto::key::STATE_BYTES_MAX,
            read_page_bytes: driftless_proto::key::SIBLING_BYTES_MAX,
            window_bytes: 1 << 20,
            handoff_delay: Duration::from_secs(3),
            slow: Some(Duration::from_secs(1)),
            slow_keys: false,
            turn: TurnBounds::default(),
            top: TopLimits::default(),
        }
    }
}

impl Limits {
    /// What an `Overloaded` refusal asks clients to wait, as it says it.
    pub fn retry_after_ms(&self) -> u32 {
        as_ms(self.retry_after)
    }

    /// Takes over what a running shard looks up each time that it needs it. The rest has been built into it when it began.
    pub fn take_changeable(&mut self, from: &Limits) {
        self.value_bytes_max = from.value_bytes_max;
        self.requests_max = from.requests_max;
        self.deadline_max = from.deadline_max;
        self.retry_after = from.retry_after;
        self.scan_limit_max = from.scan_limit_max;
        self.replica_waiting_max = from.replica_waiting_max;
        self.hint_bytes_max = from.hint_bytes_max;
        self.hint_target_bytes_max = from.hint_target_bytes_max;
        self.slow = from.slow;
        self.slow_keys = from.slow_keys;
        self.buffered_sync_interval = from.buffered_sync_interval;
        self.aae.interval = from.aae.interval;
        self.aae.bytes_per_second = from.aae.bytes_per_second;
        self.aae.confirm = from.aae.confirm;
        self.aae.patience = from.aae.patience;
        self.aae.repair = from.aae.repair;
        self.top = from.top.clone();
    }
}

/// As messages say a pause; one that is too long for them is their longest.
pub(crate) fn as_ms(pause: Duration) -> u32 {
    u32::try_from(pause.as_millis()).unwrap_or(u32::MAX)
}

impl Default for TopLimits {
    fn default() -> TopLimits {
        TopLimits { watch: true, keys: false }
    }
}

impl Default for AaeLimits {
    fn default() -> AaeLimits {
        AaeLimits {
            interval: Duration::from_secs(60),
            bytes_per_second: 16 << 20,
            exchanges_max: 2,
            confirm: Duration::from_secs(1),
            patience: Duration::from_secs(10),
            repair: Duration::from_secs(60),
            scrub_interval: Duration::from_millis(100),
            keys_max: driftless_antientropy::Settings::default().keys_max,
            entries_max: driftless_antientropy::Settings::default().entries_max,
        }
    }
}

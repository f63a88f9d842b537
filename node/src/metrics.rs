//! What a node counts. One instance per process, shared by its shards; counting is one relaxed atomic addition.

mod operation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

pub use operation::{Operation, OutcomeLabel};

/// Counters of the machines, and of the shell around them.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Client requests answered, by operation and outcome.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from a client request's arrival to its answer, by operation.
    pub latency: Family<OperationLabels, LatencySeconds>,
    /// Answers that are one of several to a read, because the key does not fit into one.
    pub read_pages: Counter,
    /// Siblings found by reads that found any: sum and count give the mean.
    pub siblings_read: Counter,
    /// Reads that found at least one value.
    pub reads_found: Counter,
    /// Acknowledgements by primaries that counted for a put.
    pub acks_primary: Counter,
    /// Acknowledgements by fallbacks that counted for a put.
    pub acks_fallback: Counter,
    /// Puts and deletes stamped by a fallback, because no primary could be counted on.
    pub fallback_coordinated: Counter,
    /// Requests to replicas made because another one was late, beyond what the client asked for.
    pub hedges: Counter,
    /// Writes that a primary missed, and of which this node keeps a hint.
    pub missed_writes: Counter,
    /// Hints found damaged, and given up.
    pub hints_damaged: Counter,
    /// Records found damaged, and set apart until they are restored.
    pub records_damaged: Counter,
    /// Records that are damaged now.
    pub records_damaged_now: Gauge,
    /// Damaged records replaced by what others held because an operator accepted the loss.
    pub losses_accepted: Counter,
    /// Records restored from other replicas.
    pub records_restored: Counter,
    /// Times that a connected peer could not be counted on any more: the detector or late answers spoke against it.
    pub peers_unresponsive: Counter,
    /// Signs of life that late peers were asked for.
    pub pings: Counter,
    /// Merged states sent to replicas that lacked something, found by a read.
    pub read_repairs: Counter,
    /// Records dropped because their partitions are others' now.
    pub records_dropped: Counter,
    /// Requests of peers that went by an older version of the ring, and were refused.
    pub stale_requests: Counter,
    /// Requests that began again because members changed.
    pub replans: Counter,
    /// Strict reads that had to write back before they answered.
    pub write_backs: Counter,
    /// Requests forwarded to a node that stores the key.
    pub forwards: Counter,
    /// Work dropped because its deadline had passed.
    pub expired: Counter,
    /// Requests refused because queues were full.
    pub overloaded: Counter,
    /// Requests to peers that were not sent because too much waited for that peer.
    pub unsent: Counter,
    /// Parts of traces that were recorded: each a request that this node coordinates, or does as a replica.
    pub traces: Counter,
    /// Those that were not, since too many were being recorded.
    pub traces_left_out: Counter,
    /// Requests of nodes that are no members, refused.
    pub candidates_refused: Counter,
    /// Writes recognised as retries of one already stamped.
    pub retries_recognised: Counter,
    /// Merges refused because more would be held of a key than a replica keeps.
    pub merges_too_large: Counter,
    /// Merges that changed nothing.
    pub merges_unchanged: Counter,
    /// Concurrent writes discarded in last-writer-wins buckets, per replica: an upper bound.
    pub lww_discarded: Counter,
    /// Actors retired because someone knew a dot of theirs that they had not stamped. Must stay 0.
    pub actor_alarms: Counter,
    /// Acknowledgements withheld because the state did not hold what they were for. Must stay 0.
    pub acks_unproven: Counter,
    /// Writes stamped ahead of the clock by more than clocks may differ, because of what is stored or was read: some clock
    /// was wrong once.
    pub stamps_ahead: Counter,
    /// Messages from peers that made no sense.
    pub protocol_violations: Counter,
    /// Batches applied to the store.
    pub batches: Counter,
    /// Key changes in them.
    pub batch_changes: Counter,
    /// Header cache: keys found.
    pub header_hits: Counter,
    /// Header cache: keys read from the store.
    pub header_misses: Counter,
    /// Copies held of partitions owned, tombstones not counted. Counted from the store after a start.
    pub keys: Gauge,
    /// Bytes of the values of those copies.
    pub value_bytes: Gauge,
    /// Partitions whose records are still to be read after the start: neither counted nor compared yet.
    pub partitions_uncounted: Gauge,
    /// Trees built from the records: one for each partition after a start, and one each time a partition outgrows its
    /// tree.
    pub trees_built: Counter,
    /// Leaves that were not what their records come to. Must stay 0.
    pub aae_drift: Counter,
    /// Rounds: all partitions shared with one shard of a peer compared.
    pub aae_rounds: Counter,
    /// Exchanges begun here that found everything that differed.
    pub aae_exchanges: Counter,
    /// Exchanges begun here that ended early.
    pub aae_exchanges_failed: Counter,
    /// Complete exchanges that found a key that differs.
    pub aae_exchanges_different: Counter,
    /// Keys compared one by one in exchanges begun here.
    pub aae_keys_compared: Counter,
    /// Keys whose state was sent to a peer that held another one.
    pub aae_keys_sent: Counter,
    /// Keys of this node that changed by what a peer sent for that reason.
    pub aae_keys_repaired: Counter,
    /// Bytes sent to peers for all of it.
    pub aae_bytes: Counter,
    /// Leaves that the scrub has looked at.
    pub leaves_scrubbed: Counter,
    /// Keys that differed in three successive rounds. Must stay 0.
    pub aae_keys_unrepaired: Counter,
    /// Seconds since the round that is longest ago, over all peers and partitions.
    pub aae_last_round_age: Gauge,
    /// Seconds between two rounds, as it is set.
    pub aae_interval: Gauge,
    /// States and markers stored for nodes that could not be reached, each change of one counted.
    pub hints_stored: Counter,
    /// Keys delivered to the nodes that they were held for.
    pub hints_delivered: Counter,
    /// Keys that the nodes they are held for did not take, and that were put off.
    pub hints_put_off: Counter,
    /// Hints not kept for lack of room.
    pub hints_refused: Counter,
    /// Keys held for other nodes. Counted from the store after a start.
    pub hint_keys: Gauge,
    /// Bytes that they take in the store.
    pub hint_bytes: Gauge,
    /// Shards whose hints are still to be counted after the start.
    pub hints_uncounted: Gauge,
    /// Requests being coordinated now.
    pub requests_open: Gauge,
    /// Bytes held of clients' requests and answers.
    pub client_bytes: Gauge,
    /// Client connections.
    pub client_connections: Gauge,
    /// Seconds of each sync of the store.
    pub sync_seconds: SyncSeconds,
    /// Connected peers.
    pub peers_connected: Gauge,
    /// Peers that the detector thinks alive.
    pub peers_alive: Gauge,
    /// Seconds by which the wall clock is ahead of the median of the other nodes'; 0 while none is heard.
    pub clock_offset: Gauge<f64, AtomicU64>,
    /// Whether that is too far to stamp: 1 while this node takes no writes.
    pub clock_off: Gauge,
    /// Whether the store is short of room, or of something else: 1 while it takes no writes.
    pub store_short: Gauge,
    /// 1 for each kind of what is the matter with the node now, 0 for those that are over.
    pub conditions: Family<ConditionLabels, Gauge>,
    /// Bytes that may still be written to the disk of the data.
    pub disk_free: Gauge,
    /// Bytes of the store's files.
    pub store_disk: Gauge,
    /// Bytes in them that are not void.
    pub store_live: Gauge,
    /// Keys in the store, hints included.
    pub store_keys: Gauge,
    /// Memory of the store's index.
    pub store_index: Gauge,
    /// Keys and ranges that the store read from the disk while shards did something else.
    pub store_fetches: Counter,
    /// Bytes that it has in all.
    pub disk_total: Gauge,
    /// Changes of the detector's mind, by what it thinks then.
    pub liveness_changes: Family<LivenessLabels, Counter>,
    /// Frames refused because they could not be read.
    pub frames_malformed: Counter,
    /// Connections refused: wrong cluster, certificate, protocol or incarnation.
    pub connections_refused: Counter,
    /// Handshakes that had to prove first that their address receives.
    pub handshakes_retried: Counter,
    /// Requests that the client's role does not allow.
    pub requests_not_allowed: Counter,
    /// Connections closed because their certificate had come onto the deny list.
    pub connections_revoked: Counter,
    /// Connections closed because the certificate that they were opened with had expired.
    pub connections_expired: Counter,
    /// Certificates, access files and context keys read again and taken.
    pub credentials_reread: Counter,
    /// Those that could not be used: the old ones stay.
    pub credentials_refused: Counter,
    /// Until when the node's own certificate counts, in seconds since 1970.
    pub certificate_until: Gauge,
    /// When the node began, in seconds since 1970.
    pub start_time: Gauge,
    /// Whether the node that ran here before did not stop in order.
    pub started_after_crash: Gauge,
    /// Audit events left out because there were too many of their kind.
    pub audit_left_out: Counter,
    /// Requests that were slow, by operation.
    pub slow_requests: Family<OperationLabels, Counter>,
}

/// Labels of [`Metrics::requests`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RequestLabels {
    /// What was asked.
    pub operation: Operation,
    /// How it ended.
    pub outcome: OutcomeLabel,
}

/// Labels of [`Metrics::latency`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct OperationLabels {
    /// What was asked.
    pub operation: Operation,
}

/// Labels of [`Metrics::conditions`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ConditionLabels {
    /// The kind.
    pub condition: &'static str,
}

/// Labels of [`Metrics::liveness_changes`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct LivenessLabels {
    /// What is thought of the peer now: `alive`, `suspect` or `down`.
    pub to: &'static str,
}

/// From 50 µs, doubling, to 26 s.
#[derive(Debug, Clone)]
pub struct LatencySeconds {
    histogram: Histogram,
    /// The same once more: the histogram tells nobody but the encoder.
    took: Arc<[AtomicU64; BUCKETS + 1]>,
}

/// From 50 µs, doubling, to 26 s.
#[derive(Debug)]
pub struct SyncSeconds(pub Histogram);

impl Metrics {
    /// Names every metric, for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        // Each by name: the compiler tells of one that is not registered.
        let Metrics {
            requests,
            latency,
            read_pages,
            siblings_read,
            reads_found,
            acks_primary,
            acks_fallback,
            fallback_coordinated,
            hedges,
            missed_writes,
            hints_damaged,
            records_damaged,
            records_damaged_now,
            losses_accepted,
            records_restored,
            peers_unresponsive,
            pings,
            read_repairs,
            records_dropped,
            stale_requests,
            replans,
            write_backs,
            forwards,
            expired,
            overloaded,
            unsent,
            traces,
            traces_left_out,
            candidates_refused,
            retries_recognised,
            merges_too_large,
            merges_unchanged,
            lww_discarded,
            actor_alarms,
            acks_unproven,
            stamps_ahead,
            protocol_violations,
            batches,
            batch_changes,
            header_hits,
            header_misses,
            keys,
            value_bytes,
            partitions_uncounted,
            trees_built,
            aae_drift,
            aae_rounds,
            aae_exchanges,
            aae_exchanges_failed,
            aae_exchanges_different,
            aae_keys_compared,
            aae_keys_sent,
            aae_keys_repaired,
            aae_bytes,
            leaves_scrubbed,
            aae_keys_unrepaired,
            aae_last_round_age,
            aae_interval,
            hints_stored,
            hints_delivered,
            hints_put_off,
            hints_refused,
            hint_keys,
            hint_bytes,
            hints_uncounted,
            requests_open,
            client_bytes,
            client_connections,
            sync_seconds,
            peers_connected,
            peers_alive,
            clock_offset,
            clock_off,
            store_short,
            conditions,
            disk_free,
            store_disk,
            store_live,
            store_keys,
            store_index,
            store_fetches,
            disk_total,
            liveness_changes,
            frames_malformed,
            connections_refused,
            handshakes_retried,
            requests_not_allowed,
            connections_revoked,
            connections_expired,
            credentials_reread,
            credentials_refused,
            certificate_until,
            start_time,
            started_after_crash,
            audit_left_out,
            slow_requests,
        } = self;
        registry.register("requests", "Client requests answered", requests.clone());
        registry.register(
            "slow_requests",
            "Requests that took `log.slow` or longer at their coordinator",
            slow_requests.clone(),
        );
        let latency = Family::<OperationLabels, LatencySeconds>::clone(latency);
        registry.register_with_unit("request", "Arrival to answer", Unit::Seconds, latency);
        let counters = [
            ("read_pages", "Answers that are one of several to a read", read_pages),
            ("siblings_read", "Siblings found by reads", siblings_read),
            ("reads_found", "Reads that found a value", reads_found),
            ("acks_primary", "Acknowledgements by primaries that counted for a put", acks_primary),
            ("acks_fallback", "Acknowledgements by fallbacks that counted for a put", acks_fallback),
            ("fallback_coordinated", "Writes stamped by a fallback", fallback_coordinated),
            ("hedges", "Requests made because a replica was late", hedges),
            ("missed_writes", "Writes that a primary missed and is given later", missed_writes),
            ("hints_damaged", "Hints found damaged, and given up", hints_damaged),
            ("records_damaged", "Records found damaged", records_damaged),
            ("records_restored", "Damaged records restored from other replicas", records_restored),
            ("losses_accepted", "Damaged records replaced though something may be lost", losses_accepted),
            ("peers_unresponsive", "Peers that could not be counted on any more", peers_unresponsive),
            ("pings", "Signs of life that late peers were asked for", pings),
            ("records_dropped", "Records dropped after their partitions were handed over", records_dropped),
            ("stale_requests", "Requests of peers by an older version of the ring, refused", stale_requests),
            ("replans", "Requests that began again because members changed", replans),
            ("read_repairs", "Merged states sent to replicas that lacked something", read_repairs),
            ("write_backs", "Strict reads that wrote back before they answered", write_backs),
            ("forwards", "Requests forwarded to a node that stores the key", forwards),
            ("expired", "Work dropped because its deadline had passed", expired),
            ("overloaded", "Requests refused because queues were full", overloaded),
            ("unsent", "Requests to peers not sent because too much waited for that peer", unsent),
            ("traces", "Parts of traces recorded", traces),
            ("traces_left_out", "Parts of traces not recorded because there were too many", traces_left_out),
            ("candidates_refused", "Requests of nodes that are no members, refused", candidates_refused),
            ("retries_recognised", "Writes recognised as retries", retries_recognised),
            ("merges_too_large", "Merges refused because a key would be too large", merges_too_large),
            ("merges_unchanged", "Merges that changed nothing", merges_unchanged),
            ("lww_discarded", "Concurrent writes discarded in LWW buckets", lww_discarded),
            (
                "actor_alarms",
                "Actors retired because a dot of theirs was known that they had not stamped",
                actor_alarms,
            ),
            ("acks_unproven", "Acknowledgements withheld because the state did not hold the write", acks_unproven),
            ("stamps_ahead", "Writes stamped far ahead of the clock, to be later than what they follow", stamps_ahead),
            ("protocol_violations", "Messages from peers that made no sense", protocol_violations),
            ("batches", "Batches applied to the store", batches),
            ("batch_changes", "Key changes applied to the store", batch_changes),
            ("header_cache_hits", "Headers found in the cache", header_hits),
            ("header_cache_misses", "Headers read from the store", header_misses),
            ("trees_built", "Trees built from the records", trees_built),
            ("aae_drift", "Leaves that were not what their records come to", aae_drift),
            ("aae_rounds", "Rounds of comparing all partitions shared with a peer", aae_rounds),
            ("aae_exchanges", "Exchanges that found all differences of a partition", aae_exchanges),
            ("aae_exchanges_failed", "Exchanges that ended early", aae_exchanges_failed),
            ("aae_exchanges_different", "Exchanges that found a difference", aae_exchanges_different),
            ("aae_keys_compared", "Keys compared one by one", aae_keys_compared),
            ("aae_keys_sent", "Keys sent to a peer that held another state", aae_keys_sent),
            ("aae_keys_repaired", "Keys changed by what a peer sent for that reason", aae_keys_repaired),
            ("aae_bytes", "Bytes sent by anti-entropy", aae_bytes),
            ("leaves_scrubbed", "Leaves of trees that the scrub has looked at", leaves_scrubbed),
            ("aae_keys_unrepaired", "Keys that differed in three successive rounds", aae_keys_unrepaired),
            ("hints_stored", "States and markers stored for nodes that could not be reached", hints_stored),
            ("hints_delivered", "Keys delivered to the nodes they were held for", hints_delivered),
            ("hints_put_off", "Keys put off because the nodes they are held for did not take them", hints_put_off),
            ("hints_refused", "Hints not kept for lack of room", hints_refused),
            ("frames_malformed", "Frames that could not be read", frames_malformed),
            ("connections_refused", "Connections refused", connections_refused),
            ("handshakes_retried", "Handshakes that had to prove their address first", handshakes_retried),
            ("requests_not_allowed", "Requests that the client's role does not allow", requests_not_allowed),
            ("connections_revoked", "Connections closed because of the deny list", connections_revoked),
            ("credentials_reread", "Certificates, access files and context keys read again", credentials_reread),
            ("credentials_refused", "Those that could not be used when read again", credentials_refused),
            ("audit_left_out", "Audit events left out because there were too many", audit_left_out),
            ("connections_expired", "Connections closed because their certificate had expired", connections_expired),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("keys", "Copies held of owned partitions", keys),
            ("value_bytes", "Bytes of the values of those copies", value_bytes),
            ("partitions_uncounted", "Partitions whose keys are still to be counted", partitions_uncounted),
            ("hint_keys", "Keys held for other nodes", hint_keys),
            ("hint_bytes", "Bytes that they take", hint_bytes),
            ("hints_uncounted", "Shards whose hints are still to be counted", hints_uncounted),
            (
                "aae_last_round_age_seconds",
                "Time since the round that is longest ago, over all peers and partitions",
                aae_last_round_age,
            ),
            ("records_damaged_now", "Records that are damaged and not restored yet", records_damaged_now),
            ("requests_open", "Requests being coordinated", requests_open),
            ("client_bytes", "Bytes held of the requests and answers of clients", client_bytes),
            ("client_connections", "Client connections", client_connections),
            ("peers_connected", "Connected peers", peers_connected),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let help = "By how much the clock is ahead of the median of the other nodes'";
        registry.register_with_unit("clock_offset", help, Unit::Seconds, clock_offset.clone());
        let help = "Whether the clock is too far from the other nodes' to take writes";
        let until = "Until when the node's certificate counts, since 1970";
        registry.register_with_unit("certificate_until", until, Unit::Seconds, certificate_until.clone());
        registry.register("clock_off", help, clock_off.clone());
        registry.register_with_unit("start_time", "When the node began, since 1970", Unit::Seconds, start_time.clone());
        let help = "Whether the node that ran here before did not stop in order";
        registry.register("started_after_crash", help, started_after_crash.clone());
        let help = "How far rounds of anti-entropy are apart";
        registry.register_with_unit("aae_interval", help, Unit::Seconds, aae_interval.clone());
        let help = "Whether the store is too short of something to take writes";
        registry.register("store_short", help, store_short.clone());
        registry.register("condition", "Whether this is the matter with the node", conditions.clone());
        let help = "What may still be written to the disk of the data";
        registry.register_with_unit("disk_free", help, Unit::Bytes, disk_free.clone());
        let help = "Bytes of the store's files, spare ones included";
        registry.register_with_unit("store_disk", help, Unit::Bytes, store_disk.clone());
        let help = "Bytes in the store's files that are not void";
        registry.register_with_unit("store_live", help, Unit::Bytes, store_live.clone());
        registry.register("store_keys", "Keys in the store, hints and tombstones included", store_keys.clone());
        let help = "Memory that the store's index takes";
        registry.register_with_unit("store_index", help, Unit::Bytes, store_index.clone());
        let help = "Keys and ranges that were not in memory, and were read while their shard did something else";
        registry.register("store_fetches", help, store_fetches.clone());
        registry.register_with_unit("disk_total", "What the disk of the data has", Unit::Bytes, disk_total.clone());
        registry.register("peers_alive", "Peers that the detector thinks alive", peers_alive.clone());
        let help = "Changes of what the detector thinks of a peer";
        registry.register("liveness_changes", help, liveness_changes.clone());
        registry.register_with_unit("sync", "Syncs of the store", Unit::Seconds, sync_seconds.0.clone());
    }
}

impl LatencySeconds {
    /// A request took so long.
    pub fn observe(&self, took: Duration) {
        self.histogram.observe(took.as_secs_f64());
        // Bounds are inclusive, as the histogram's are.
        let steps = took.as_micros().div_ceil(SHORTEST_US).max(1).next_power_of_two().ilog2() as usize;
        self.took[steps.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many took up to 50 µs, how many up to 100, and so on; the last ones longer than 26 s.
    pub fn took(&self) -> [u64; BUCKETS + 1] {
        std::array::from_fn(|bucket| self.took[bucket].load(Ordering::Relaxed))
    }
}

impl EncodeMetric for LatencySeconds {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.histogram.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.histogram.metric_type()
    }
}

impl TypedMetric for LatencySeconds {
    const TYPE: MetricType = MetricType::Histogram;
}

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(SHORTEST_US as f64 * 1e-6, 2.0, BUCKETS as u16))
}

impl Default for LatencySeconds {
    fn default() -> Self {
        LatencySeconds { histogram: durations(), took: Arc::default() }
    }
}

impl Default for SyncSeconds {
    fn default() -> Self {
        SyncSeconds(durations())
    }
}

/// Bounds of durations, each twice the one before.
const BUCKETS: usize = 20;

/// The first of them, in microseconds: what the fastest answers take.
const SHORTEST_US: u128 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_the_bounds_that_the_histogram_has() {
        let latency = LatencySeconds::default();
        for micros in [0, 50, 51, 100, 101, 26_214_400, 26_214_401, u64::MAX] {
            latency.observe(Duration::from_micros(micros));
        }
        let took = latency.took();
        assert_eq!((took[0], took[1], took[2], took[19], took[20]), (2, 2, 1, 1, 2));
        assert_eq!(took.iter().sum::<u64>(), 8);
    }
}

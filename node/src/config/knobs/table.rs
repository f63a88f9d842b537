//! The keys themselves, with the words that the page on configuration has for them.

use super::{Kind, Knob, Takes};
use crate::config::{AaeLimits, Limits, TopLimits, units};
use crate::net::limits::NetLimits;

/// Every key, in the order in which it is printed.
pub const KNOBS: &[Knob] = &[
    Knob {
        key: "name",
        about: "this node's name in the cluster file",
        meaning: "This node's name, as in its certificate: in the cluster file, or the one to join under.",
        kind: Kind::Name,
        takes: Takes::Never,
        default: String::new,
    },
    Knob {
        key: "data_dir",
        about: "where the data lives",
        meaning: "Where the data lives. One node, one directory: see the [warning](operations.md#copies-of-a-data-directory).",
        kind: Kind::Path,
        takes: Takes::Restart,
        default: || "data".to_owned(),
    },
    Knob {
        key: "listen",
        about: "UDP address; the member's address if empty",
        meaning: "`IP:port` (UDP) to listen on, if it is not the address that others use, as `\"0.0.0.0:7400\"`.",
        kind: Kind::Socket,
        takes: Takes::Restart,
        default: String::new,
    },
    Knob {
        key: "address",
        about: "where others reach this node, to join a cluster",
        meaning: "`host:port` at which others reach this node. Needed of a node that is to join a cluster which runs already: the \
              cluster file names the members that it asks, and not itself. Of a node that is in the cluster file, or has joined, \
              this, `zone`, `weight` and `shards` are not looked at.",
        kind: Kind::HostPort,
        takes: Takes::Joining,
        default: String::new,
    },
    Knob {
        key: "zone",
        about: "what it shares a fate with, to join",
        meaning: "What fails together with this node: a rack, a room; of a node that is to join. Later `driftless cluster set` changes \
              it.",
        kind: Kind::Text,
        takes: Takes::Joining,
        default: || "default".to_owned(),
    },
    Knob {
        key: "weight",
        about: "its share of the data, to join",
        meaning: "Its share of the data, relative to the other members; of a node that is to join. Later `driftless cluster set` changes \
              it.",
        kind: Kind::Count,
        takes: Takes::Joining,
        default: || "1".to_owned(),
    },
    Knob {
        key: "shards",
        about: "threads that own data, to join",
        meaning: "Threads that own a part of its data, each with a socket: shard *s* listens on the port *s* above; of a node that is to \
              join.",
        kind: Kind::Count,
        takes: Takes::Joining,
        default: || "1".to_owned(),
    },
    Knob {
        key: "admin",
        about: "TCP address of metrics and status, or \"off\"",
        meaning: "`IP:port` (TCP) of metrics and status, on loopback only; `\"off\"` for none.",
        kind: Kind::Socket,
        takes: Takes::Restart,
        default: || "127.0.0.1:7401".to_owned(),
    },
    Knob {
        key: "admin_remote",
        about: "TCP address of the same over TLS, for other machines; nowhere if empty",
        meaning: "`IP:port` (TCP) of metrics and status over TLS, for probers and scrapers on other machines: \
              [Ports](operations.md#ports).",
        kind: Kind::Socket,
        takes: Takes::Restart,
        default: String::new,
    },
    Knob {
        key: "cluster",
        about: "members and buckets, shared by all nodes",
        meaning: "The [cluster file](#clustertoml): of a cluster that runs already, whom to call.",
        kind: Kind::Path,
        takes: Takes::Restart,
        default: || "cluster.toml".to_owned(),
    },
    Knob {
        key: "context_key",
        about: "keys that seal context tokens",
        meaning: "The keys that seal context tokens, the same on all nodes.",
        kind: Kind::Path,
        takes: Takes::File,
        default: || "context.key".to_owned(),
    },
    Knob {
        key: "tls.ca",
        about: "certificate of the cluster's CA",
        meaning: "Certificate of the cluster's authority.",
        kind: Kind::Path,
        takes: Takes::File,
        default: || "ca.pem".to_owned(),
    },
    Knob {
        key: "tls.cert",
        about: "this node's certificate",
        meaning: "This node's certificate.",
        kind: Kind::Path,
        takes: Takes::File,
        default: || "node.pem".to_owned(),
    },
    Knob {
        key: "tls.key",
        about: "its private key",
        meaning: "This node's private key, readable by its owner only.",
        kind: Kind::Path,
        takes: Takes::File,
        default: || "node.key".to_owned(),
    },
    Knob {
        key: "access.file",
        about: "who may do what, and who is not let in",
        meaning: "The [access file](#access-file): who may do what on this node, and who is not let in, beside what the cluster [agrees on](#access-agreed).",
        kind: Kind::Path,
        takes: Takes::File,
        default: String::new,
    },
    Knob {
        key: "audit.file",
        about: "where it is written down who did what",
        meaning: "Where it is written down who connected, was refused and gave orders: see [Audit log](operations.md#audit-log). Without \
              it nothing is.",
        kind: Kind::Path,
        takes: Takes::Restart,
        default: String::new,
    },
    Knob {
        key: "audit.keys",
        about: "whether keys are named there",
        meaning: "Whether the audit log names keys. Values it never does.",
        kind: Kind::Switch,
        takes: Takes::Restart,
        default: || "false".to_owned(),
    },
    Knob {
        key: "limits.value_bytes_max",
        about: "longest value accepted",
        meaning: "Longest value accepted, at most 16MiB. Larger values hold memory on every replica while they are written. The client \
              crate has a limit of 4MiB of its own.",
        kind: Kind::Size,
        takes: Takes::Reload,
        default: || units::show_bytes(Limits::default().value_bytes_max),
    },
    Knob {
        key: "limits.memory",
        about: "what connections, requests and answers may hold",
        meaning: "What requests may take up of the node's memory: half of it requests and answers of clients, a quarter their \
              connections, an eighth what replicas send to coordinators, an eighth what is under way between nodes; at least 128MiB. \
              The store's memory (`[store]`) comes on top. What each certificate may have of it: [Bounds for \
              clients](threat-model.md#bounds-for-clients-with-a-certificate). Less refuses clients sooner.",
        kind: Kind::Size,
        takes: Takes::Restart,
        default: || units::show_bytes(NetLimits::default().memory as u64),
    },
    Knob {
        key: "limits.client_requests_max",
        about: "requests of clients under way at once",
        meaning: "Requests of clients that a node has under way at once, those with one certificate at most half of them; beyond it \
              their connections are read no further. It is what others have to wait behind, and bounds what can be done over a \
              distance: with replicas 50 ms away, 256 are 5,000 a second.",
        kind: Kind::Count,
        takes: Takes::Restart,
        default: || NetLimits::default().client_requests_max.to_string(),
    },
    Knob {
        key: "limits.requests_max",
        about: "requests that a shard coordinates at once",
        meaning: "Requests that one shard coordinates at once and that a client waits for; beyond it they are refused as overloaded. \
              More lets latency grow before clients hear of it.",
        kind: Kind::Count,
        takes: Takes::Reload,
        default: || Limits::default().requests_max.to_string(),
    },
    Knob {
        key: "limits.deadline_max",
        about: "longest deadline of a request",
        meaning: "Deadline of a request that names none or a longer one.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(Limits::default().deadline_max),
    },
    Knob {
        key: "limits.attempt_timeout",
        about: "wait for a replica before asking another one too",
        meaning: "The longest that a coordinator waits for a replica before it asks another one as well; a replica that is known to be \
              faster is waited for as long as it usually takes. Twice this time without an answer speaks against the peer: three \
              such in a row, and it is not counted on until it answers again.",
        kind: Kind::Time,
        takes: Takes::Restart,
        default: || units::show_duration(Limits::default().attempt_timeout),
    },
    Knob {
        key: "limits.header_cache_bytes",
        about: "memory for key headers, per shard",
        meaning: "Memory for the headers (versions) of keys, per shard. A put of a cached key reads nothing from disk.",
        kind: Kind::Size,
        takes: Takes::Restart,
        default: || units::show_bytes(Limits::default().header_cache_bytes),
    },
    Knob {
        key: "limits.write_ids_max",
        about: "write ids remembered to recognise retries",
        meaning: "Write ids that one shard remembers to recognise retries.",
        kind: Kind::Count,
        takes: Takes::Restart,
        default: || Limits::default().write_ids_max.to_string(),
    },
    Knob {
        key: "limits.write_ids_age",
        about: "for how long",
        meaning: "For how long write ids are remembered. A retry that comes later may become a sibling.",
        kind: Kind::Time,
        takes: Takes::Restart,
        default: || units::show_duration(Limits::default().write_ids_age),
    },
    Knob {
        key: "limits.clock_off_max",
        about: "how far from the other nodes' clocks a node still stamps",
        meaning: "How far a node's clock may be from the median of the nodes that it hears, its own included. A node that is further off \
              takes no puts and deletes until its clock is right again, since what is written after one of its stamps would be dated \
              in the future as well. Smaller notices sooner; below a few seconds, clocks that NTP is still setting count as wrong. \
              With a single other node in hearing nobody can tell whose clock is wrong: both warn, and go on. What is stored, or was \
              read, is never a reason to refuse.",
        kind: Kind::Time,
        takes: Takes::Restart,
        default: || units::show_duration(Limits::default().clock_off_max),
    },
    Knob {
        key: "limits.buffered_sync_interval",
        about: "within what time a buffered write is synced",
        meaning: "Within what time a write to a `buffered` bucket is synced.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(Limits::default().buffered_sync_interval),
    },
    Knob {
        key: "limits.retry_after",
        about: "what an overloaded node asks clients to wait",
        meaning: "What an overloaded node asks clients to wait.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(Limits::default().retry_after),
    },
    Knob {
        key: "limits.scan_limit_max",
        about: "most keys on a page of a scan",
        meaning: "Most keys on one page of a scan. A page often has fewer: a node walks through 500 records or 256 KiB at a time.",
        kind: Kind::Count,
        takes: Takes::Reload,
        default: || Limits::default().scan_limit_max.to_string(),
    },
    Knob {
        key: "limits.replica_waiting_max",
        about: "answers that may wait for the disk, per shard",
        meaning: "Answers that may wait for the disk, per shard. Beyond it writes of other coordinators are refused as overloaded; read \
              repair and the delivery of hints from half of it on.",
        kind: Kind::Count,
        takes: Takes::Reload,
        default: || Limits::default().replica_waiting_max.to_string(),
    },
    Knob {
        key: "limits.hint_bytes_max",
        about: "bytes held for unreachable nodes, per shard",
        meaning: "Bytes held for all unreachable nodes together, per shard. Once reached, the node refuses to stand in, and puts count \
              on others; what it holds it keeps. More survives longer outages and takes that much disk: a tenth of it is a good \
              bound.",
        kind: Kind::Size,
        takes: Takes::Reload,
        default: || units::show_bytes(Limits::default().hint_bytes_max),
    },
    Knob {
        key: "limits.hint_target_bytes_max",
        about: "bytes held for any one of them, per shard",
        meaning: "Bytes held for any one unreachable node, per shard, so that one that stays away leaves room for others.",
        kind: Kind::Size,
        takes: Takes::Reload,
        default: || units::show_bytes(Limits::default().hint_target_bytes_max),
    },
    Knob {
        key: "limits.handoff_delay",
        about: "how long a node is back before it is given its hints",
        meaning: "How long a node must have been back before it is given what was held for it. Shorter repairs sooner and burdens a node \
              that is still starting.",
        kind: Kind::Time,
        takes: Takes::Restart,
        default: || units::show_duration(Limits::default().handoff_delay),
    },
    Knob {
        key: "aae.interval",
        about: "how often two replicas compare what they share",
        meaning: "How often two replicas compare all partitions that they share. Longer lets a difference stay longer; a round in sync \
              costs 26 bytes a partition.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(AaeLimits::default().interval),
    },
    Knob {
        key: "aae.bytes_per_second",
        about: "what a shard sends for repairs, on average",
        meaning: "What is sent for repairs, and to new owners while members change, on average; a key counts for at least 2 KiB, because \
              small ones cost time and not bytes. More fills an empty node sooner and leaves clients less. When the slowest \
              hundredth of a shard's gets or puts takes more than twice what it usually does, a thirty-second part of this is left.",
        kind: Kind::Size,
        takes: Takes::Reload,
        default: || units::show_bytes(AaeLimits::default().bytes_per_second),
    },
    Knob {
        key: "aae.exchanges_max",
        about: "exchanges that a shard begins at once",
        meaning: "Partitions that are looked into at once, and as many for peers.",
        kind: Kind::Count,
        takes: Takes::Restart,
        default: || AaeLimits::default().exchanges_max.to_string(),
    },
    Knob {
        key: "aae.confirm",
        about: "how long a difference must last before it is repaired",
        meaning: "How long a difference must last before it is repaired, so that writes that are only under way are not. Not waited for \
              where one side lacks many keys.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(AaeLimits::default().confirm),
    },
    Knob {
        key: "aae.patience",
        about: "how long a peer may take to answer",
        meaning: "How long a peer may take to answer.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(AaeLimits::default().patience),
    },
    Knob {
        key: "aae.repair",
        about: "how long the repairs of a thousand keys may take",
        meaning: "How long the repairs of a thousand keys may take. What was repaired until then stays so.",
        kind: Kind::Time,
        takes: Takes::Reload,
        default: || units::show_duration(AaeLimits::default().repair),
    },
    Knob {
        key: "aae.scrub_interval",
        about: "how often a leaf of a tree is recomputed",
        meaning: "How often one leaf of a tree is recomputed from the records.",
        kind: Kind::Time,
        takes: Takes::Restart,
        default: || units::show_duration(AaeLimits::default().scrub_interval),
    },
    Knob {
        key: "top.watch",
        about: "count which keys are hot",
        meaning: "Whether this node counts which keys are asked for most, are large, or have many siblings, for [`driftless top`]\
              (operations.md#which-key-is-hot). It takes a fraction of a microsecond a request and at most 3.5 MiB a shard. Switched off, it \
              forgets what it has counted.",
        kind: Kind::Switch,
        takes: Takes::Reload,
        default: || TopLimits::default().watch.to_string(),
    },
    Knob {
        key: "top.keys",
        about: "name those keys to operators",
        meaning: "Whether it keeps the names of such keys, at most 64 bytes of each, and shows them to operators. Without it they are shown by \
              their tokens, which `driftless ring --key KEY` prints of a key that you suspect. Names may say what only the application is to \
              know.",
        kind: Kind::Switch,
        takes: Takes::Reload,
        default: || TopLimits::default().keys.to_string(),
    },
    Knob {
        key: "store.segment",
        about: "length of a segment of the log",
        meaning: "Length of a segment of the log, 1MiB to 1GiB. Longer ones are made once the log has some GiB (256 MiB at most), so \
              that they do not become too many to be kept open. May be changed between starts.",
        kind: Kind::Size,
        takes: Takes::Restart,
        default: || "16MiB".to_owned(),
    },
    Knob {
        key: "store.free_space_reserve",
        about: "free disk space below which writes are refused",
        meaning: "Free disk space below which writes are refused, so that reads, deletes and merging go on. A quarter of it is in a \
              file, which counts as free; so do spare segments beyond two.",
        kind: Kind::Size,
        takes: Takes::Restart,
        default: || "256MiB".to_owned(),
    },
    Knob {
        key: "log.format",
        about: "text or json",
        meaning: "`\"text\"`, or `\"json\"`: an object per line.",
        kind: Kind::LogFormat,
        takes: Takes::Restart,
        default: || "text".to_owned(),
    },
    Knob {
        key: "log.level",
        about: "error, warn, info, debug, trace, or directives",
        meaning: "`error`, `warn`, `info`, `debug`, `trace`, or directives: `\"info,driftless_node::net=debug\"`.",
        kind: Kind::Directives,
        takes: Takes::Reload,
        default: || "info".to_owned(),
    },
    Knob {
        key: "log.slow",
        about: "from what time on a request is logged as slow",
        meaning: "A get, put, delete or scan that takes at least that long at its coordinator is logged, with what `--explain` would have \
              said of it: see [Slow requests](operations.md#slow-requests). `\"off\"` logs none. The default is what no request takes \
              while all is well, on any disk and between any two continents; where a service promises less, half of that.",
        kind: Kind::TimeOrOff,
        takes: Takes::Reload,
        default: || Limits::default().slow.map_or_else(|| "off".to_owned(), units::show_duration),
    },
    Knob {
        key: "log.slow_keys",
        about: "whether keys are named there",
        meaning: "Whether the lines of slow requests name keys; else only their tokens. Values they never do.",
        kind: Kind::Switch,
        takes: Takes::Reload,
        default: || Limits::default().slow_keys.to_string(),
    },
    Knob {
        key: "trace.endpoint",
        about: "where a collector of OpenTelemetry listens",
        meaning: "Where a collector of OpenTelemetry takes [traces](operations.md#traces): `\"http://127.0.0.1:4318\"`. They are sent by OTLP \
              over HTTP without TLS, so it belongs on this machine. Without it they are in the log alone. It takes a build with the feature `otel`.",
        kind: Kind::Url,
        takes: Takes::Restart,
        default: String::new,
    },
    Knob {
        key: "trace.per_second",
        about: "parts of traces recorded a second",
        meaning: "How many parts of traces are recorded a second, in the log and for the collector. Requests beyond that are carried out, and \
              leave a gap in their trace. 0: none.",
        kind: Kind::Count,
        takes: Takes::Restart,
        default: || "100".to_owned(),
    },
    Knob {
        key: "trace.service_name",
        about: "what the node is called there",
        meaning: "The `service.name` of what is sent to the collector. Its `service.instance.id` is the node's name.",
        kind: Kind::Text,
        takes: Takes::Restart,
        default: || "driftless".to_owned(),
    },
];

//! Where fuzzing starts from: real inputs, made from real values, and some that are nearly so. They are committed
//! (`tests/fuzz/seeds`), so that a change of a format shows there; the bin `seeds` writes them anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless_node::liveness::clocks::{ClockSettings, Clocks};
use driftless_node::liveness::detector::{Detector, DetectorConfig, DetectorSettings, Output};
use driftless_node::net::certificates::{CertificateAuthority, Validity};
use driftless_node::peer::{Incarnation, Merge, Purpose};
use driftless_node::probe;
use driftless_node::replica::record::{self, HintKey, RecordKey};
use driftless_node::store::directory::{DataDirectory, Identity};
use driftless_node::time::{Instant, Now};
use driftless_proto::causality::ContextKey;
use driftless_proto::client::{Get, Put, Request, RequestFrame, Response, ResponseFrame, Scan};
use driftless_proto::{BucketId, Context, ContextKeys, Hlc, Key, ProtocolVersions, WriteId, frame, greeting};
use driftless_ring::{ArcIndex, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use super::engine::Rehearsal;
use super::wire::{SECRET, datagram_sender};
use super::{DECODERS, exchange, laws, samples};

/// Inputs of one decoder by name.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// Decoders whose seeds are what machines say to each other: those change with whatever the machines do, and old ones are
/// no worse for it.
pub const PERFORMED: &[&str] = &["datagrams", "engine", "exchange"];

/// The folder of a decoder's seeds.
pub fn folder(decoder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(decoder)
}

/// What is in a folder of seeds.
///
/// # Errors
/// Those of the file system.
pub fn read(folder: &Path) -> std::io::Result<Seeds> {
    let mut seeds = Seeds::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        seeds.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
    }
    Ok(seeds)
}

/// Whether a seed was found by somebody, and not made here.
pub fn is_found(name: &str) -> bool {
    name.starts_with("found-")
}

/// All inputs that are the same whenever they are made. Those of `certificates` are not: keys are random.
pub fn made() -> BTreeMap<&'static str, Seeds> {
    DECODERS.iter().map(|decoder| (decoder.name, of(decoder.name))).collect()
}

/// Certificates of a new authority.
pub fn certificates() -> Seeds {
    let authority = CertificateAuthority::create("test").expect("a plain name");
    let validity = Validity::days(SystemTime::now(), 30);
    let node = authority.issue_node("a", validity).expect("a plain name");
    let client = authority.issue_client("web.1", None, validity).expect("a plain name");
    let der = |pem: &str| {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(text).expect("the authority writes PEM")
    };
    [("authority", authority.certificate_pem()), ("node", &node.certificate), ("client", &client.certificate)]
        .map(|(name, pem)| (name.to_owned(), der(pem)))
        .into()
}

fn of(decoder: &str) -> Seeds {
    match decoder {
        "certificates" => Seeds::new(),
        "client_requests" => {
            hashed(samples::client_requests().into_iter().zip(1..).map(|(request, id)| {
                laws::encoded(&RequestFrame { id, ring_version: 1, deadline_ms: 10_000, request })
            }))
        }
        "client_responses" => hashed(
            samples::client_responses()
                .into_iter()
                .zip(1..)
                .map(|(response, id)| laws::encoded(&ResponseFrame { id, ring_version: 1, response })),
        ),
        "peer_messages" => hashed(samples::peer_messages().iter().map(laws::encoded)),
        "hello" => hashed(hellos()),
        "frames" => hashed(frames()),
        "datagrams" => hashed([datagrams()]),
        "context_tokens" => hashed(context_tokens()),
        "siblings" => hashed(siblings()),
        "records" => hashed(records()),
        "log_frames" => hashed(log_frames()),
        "watermark" => hashed(watermarks()),
        "directory" => hashed(directory()),
        "exchange" => hashed(exchanges()),
        "engine" => hashed(scenes().into_iter().map(Rehearsal::written)),
        "access_file" => texts(ACCESS_FILES),
        "cluster_file" => texts(CLUSTER_FILES),
        "node_file" => texts(NODE_FILES),
        "profiles" => texts(PROFILES),
        "context_keys" => texts(CONTEXT_KEYS),
        "record_lines" => texts(RECORD_LINES),
        "subjects" => texts(SUBJECTS),
        other => panic!("there are no seeds for {other}"),
    }
}

/// Named by what is in them.
fn hashed(inputs: impl IntoIterator<Item = Vec<u8>>) -> Seeds {
    inputs.into_iter().map(|bytes| (format!("{:016x}", xxh3_64(&bytes)), bytes)).collect()
}

fn texts(texts: &[(&str, &str)]) -> Seeds {
    texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// Of this release, of a later one with more to say, and of one with which nothing is shared.
fn hellos() -> [Vec<u8>; 3] {
    let topology = samples::topology();
    let peer = samples::members(&topology)[1];
    let hello = probe::our_hello(peer, Incarnation { starts: 1_795_154_400, nonce: 7 }, &topology);
    let newest = ProtocolVersions::OURS.highest().0;
    let of = |lowest, highest, more: &[u8]| {
        let versions = ProtocolVersions::new(lowest, highest).expect("a range");
        let mut frame = greeting::encode(versions, &hello).expect("is short");
        frame.extend_from_slice(more);
        frame.split_off(frame::LENGTH_BYTES)
    };
    [of(newest, newest, b""), of(newest, newest + 1, b"more"), of(newest + 1, newest + 1, b"")]
}

fn frames() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for request in samples::client_requests() {
        let frame = RequestFrame { id: 1, ring_version: 1, deadline_ms: 1, request };
        frame::encode(&frame, &mut stream).expect("short");
    }
    let with = |piece: u8, stream: &[u8]| [&[piece], stream].concat();
    vec![
        with(7, &stream),
        with(1, &stream[..40]),
        with(255, &[0; 9]),
        with(3, &(frame::FRAME_SHARED_MAX as u32 + 1).to_le_bytes()),
    ]
}

/// What one detector says to another in three seconds, of which it hears nothing: it asks, suspects, and gives up.
fn datagrams() -> Vec<u8> {
    let (node, members) = datagram_sender();
    let (first, mut now) = (members[0], Instant(7_000_000));
    let config = DetectorConfig {
        node,
        incarnation: Incarnation { starts: 5, nonce: 0 },
        members,
        settings: DetectorSettings::default(),
        seed: [2; 32],
        metrics: Arc::default(),
    };
    let mut detector = Detector::new(config, now);
    let clocks = Clocks::new(node, datagram_sender().1, ClockSettings { off_max: Duration::from_secs(60) });
    let (mut stream, mut last) = (Vec::new(), now);
    for _ in 0..30 {
        while let Some(output) = detector.poll_output() {
            if let Output::Send { to, bytes } = output
                && to == first
            {
                let wall = Hlc::from_millis(1_700_000_000_000 + now.0 / 1000);
                let bytes = clocks.seal(Now { instant: now, wall }, to, &bytes);
                let passed = now.since(last).as_millis() / 10;
                stream.extend([passed.min(255) as u8, bytes.len() as u8]);
                stream.extend(bytes);
                last = now;
            }
        }
        now = now + Duration::from_millis(100);
        detector.handle_timeout(now);
    }
    stream
}

fn context_tokens() -> Vec<Vec<u8>> {
    let keys = ContextKeys::new(vec![ContextKey { id: 1, secret: SECRET }]).expect("one key");
    let mut all = Vec::new();
    for state in samples::states() {
        let context = Context { vv: state.vv().clone(), written_at: state.written_at() };
        let token = keys.seal(samples::bucket(), &samples::key(), &context);
        let (body, _) = token.as_bytes().split_at(token.as_bytes().len() - 16);
        all.extend([body.to_vec(), token.as_bytes().to_vec(), token.to_string().into_bytes(), laws::encoded(&context)]);
    }
    all
}

fn siblings() -> Vec<Vec<u8>> {
    let states = samples::states();
    let mut all: Vec<Vec<u8>> = states.windows(3).map(|three| three.iter().flat_map(laws::encoded).collect()).collect();
    all.push([&states[5], &states[2], &states[1]].into_iter().flat_map(laws::encoded).collect());
    all
}

fn records() -> Vec<Vec<u8>> {
    let (topology, bucket, key) = (samples::topology(), samples::bucket(), samples::key());
    let place = topology.place(&topology.buckets()[0], &key);
    let record = RecordKey::new(3, place.token, bucket, &key);
    let hint = HintKey::new(NodeId::of_name("b"), &record);
    let stored = |key: &[u8], value: &[u8]| [&[key.len() as u8], key, value].concat();
    let mut all = vec![stored(hint.as_bytes(), &[129])];
    for state in samples::states() {
        let value = record::encode(bucket, &key, &state.header(), &state);
        all.extend([stored(record.as_bytes(), &value), stored(hint.as_bytes(), &value)]);
    }
    all
}

fn log_frames() -> Vec<Vec<u8>> {
    let whole = probe::written_frames(&[
        (b"key", Some(b"value")),
        (b"key", None),
        (b"other", Some(&[7; 300])),
        (b"k", Some(b"")),
    ]);
    let padded = [&whole[..], &[0; 64]].concat();
    let torn = whole[..whole.len() - 3].to_vec();
    let mut flipped = whole.clone();
    flipped[90] ^= 4;
    vec![whole, padded, torn, flipped]
}

fn watermarks() -> Vec<Vec<u8>> {
    let slot = |batch: u64, secret: u64| {
        let slot = [&b"DLSYNC02"[..], &batch.to_le_bytes(), &secret.to_le_bytes()].concat();
        let checksum = xxh3_64(&slot);
        [slot, checksum.to_le_bytes().to_vec()].concat()
    };
    let two = [slot(7, 3), vec![0; 480], slot(8, 3)].concat();
    vec![slot(0, 0), slot(u64::MAX, u64::MAX), two]
}

fn directory() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = Identity {
        cluster: "test".to_owned(),
        node: "a".to_owned(),
        created: "2026-11-20T06:00:00Z".to_owned(),
        created_s: 1_795_154_400,
        nonce: 7,
    };
    let directory = DataDirectory::open(folder.path().join("data"), &identity).expect("is new");
    directory.check_topology(&samples::topology()).expect("is new");
    let read = |name| std::fs::read_to_string(directory.path().join(name)).expect("was just written");
    // Each directory has a number of its own, and the seeds are always the same.
    let (drawn, fixed) = (format!("{:032x}", directory.store_id().0), format!("{:032x}", 7));
    let identity = read("identity.json");
    assert!(identity.contains(&drawn), "{drawn} is in {identity}");
    vec![identity.replace(&drawn, &fixed).into_bytes(), read("topology.json").into_bytes()]
}

fn exchanges() -> Vec<Vec<u8>> {
    let (requests, replies) = samples::conversation();
    let requests: Vec<_> = requests.iter().map(laws::encoded).collect();
    let replies: Vec<_> = replies.iter().map(laws::encoded).collect();
    // An unreadable message lets time pass: the pause before the lists.
    let paused: Vec<_> = replies.iter().flat_map(|reply| [reply.clone(), vec![255]]).collect();
    let refused = samples::exchange_refusals().into_iter().map(|reason| {
        let request = samples::conversation().0.swap_remove(0);
        exchange::joined(0, &[laws::encoded(&request.refuse(reason))])
    });
    let talks = [exchange::joined(0, &replies), exchange::joined(0, &paused), exchange::joined(1, &requests)];
    talks.into_iter().chain(refused).collect()
}

/// Scenes for `engine`, in which everything that a node does has a part.
pub fn scenes() -> Vec<Rehearsal> {
    let key = |at: u8| Key::new(vec![b'k', at]).expect("valid");
    let put = |bucket, at, context, id| {
        let value = bytes::Bytes::from(vec![b'v'; usize::from(at)]);
        Request::Put(Put { bucket, key: key(at), value, context, w: None, sloppy: None, write_id: WriteId(id) })
    };
    let get = |bucket, at, strict: bool| {
        let sloppy = Some(!strict);
        Request::Get(Get { bucket, key: key(at), r: None, sloppy, explain: strict, shown: Vec::new() })
    };
    let (usual, strict) = (BucketId(0), BucketId(2));
    let mut scenes = Vec::new();

    let mut scene = Rehearsal::default();
    for bucket in (0..5).map(BucketId) {
        scene.ask(put(bucket, 1, None, 1));
        let context = match scene.ask(get(bucket, 1, true)) {
            Some(Response::Read(read)) => read.context,
            _ => None,
        };
        scene.ask(put(bucket, 1, context.clone(), 2));
        scene.ask(put(bucket, 1, context, 2));
        // Nobody has read what this comes beside: where the last writer wins, that is discarded.
        scene.ask(put(bucket, 1, None, 3));
        for (at, siblings) in (1..9).zip(samples::states().into_iter().cycle()) {
            scene.plant(0, Merge { bucket, key: key(at), siblings, hint_for: None, purpose: Purpose::ReadRepair });
        }
    }
    scenes.push(scene);

    let mut scene = Rehearsal::default();
    for request in samples::client_requests() {
        scene.ask(request);
    }
    scenes.push(scene);

    // Hints: all but one are away, and come back.
    for stays in 1..4 {
        let mut scene = Rehearsal::default();
        let away = (1..4).filter(|peer| *peer != stays);
        away.clone().for_each(|peer| scene.connect(peer, false));
        (1..8).for_each(|at| drop(scene.ask(put(usual, at, None, u128::from(at)))));
        (1..3).for_each(|at| drop(scene.ask(get(usual, at, false))));
        away.for_each(|peer| scene.connect(peer, true));
        (0..6).for_each(|_| scene.pass(Duration::from_secs(1)));
        scenes.push(scene);
    }

    // Nobody is there.
    let mut scene = Rehearsal::default();
    (1..4).for_each(|peer| scene.connect(peer, false));
    scene.ask(put(usual, 1, None, 1));
    scene.ask(put(strict, 1, None, 2));
    for at in 1..12 {
        if let Request::Put(put) = put(usual, at, None, 3) {
            scene.ask(Request::Put(Put { w: Some(1), ..put }));
        }
    }
    scene.pass(Duration::from_secs(2));
    scenes.push(scene);

    // Pages of keys, and a round of anti-entropy.
    let mut scene = Rehearsal::default();
    (1..9).for_each(|at| drop(scene.ask(put(usual, at, None, u128::from(at)))));
    (0..8).for_each(|arc| {
        scene.ask(Request::Scan(Scan {
            bucket: usual,
            arc: ArcIndex(arc),
            after: None,
            limit: 2,
            r: None,
            prefix: bytes::Bytes::new(),
            ring_version: 1,
        }));
    });
    for at in 5..20 {
        for (peer, siblings) in (1..4).zip(samples::states().into_iter().skip(1)) {
            scene.plant(peer, Merge { bucket: usual, key: key(at), siblings, hint_for: None, purpose: Purpose::Write });
        }
    }
    (0..70).for_each(|_| scene.pass(Duration::from_secs(2)));
    scenes.push(scene);

    scenes
}

const CLUSTER_FILES: &[(&str, &str)] = &[
    ("small", "cluster = \"shop\"\n[[member]]\nname = \"a\"\naddress = \"127.0.0.1:7400\"\n"),
    (
        "everything",
        "cluster = \"shop\"\npartitions = 16\nhash_seed = 7\n\n[[member]]\nname = \"n1\"\naddress = \"10.0.0.1:7400\"\nzone = \"a\"\n\
         weight = 1\nshards = 2\n[[member]]\nname = \"n2\"\naddress = \"[::1]:7400\"\n[[member]]\nname = \"n3\"\naddress = \"n3.lan:1\"\n\
         weight = 1000000\n\n[[bucket]]\nname = \"carts\"\nid = 9\nn = 3\nr = 2\nw = 2\nsloppy = false\nconflict = \"lww\"\n\
         durability = \"buffered\"\nread_all = 100\n[[bucket]]\nname = \"default\"\nn = 1\n",
    ),
    (
        "wrong-quorum",
        "cluster = \"s\"\n[[member]]\nname = \"a\"\naddress = \"h:1\"\n[[bucket]]\nname = \"b\"\nn = 1\nr = 2\n",
    ),
    ("misspelt", "cluster = \"s\"\npartition = 3\n[[member]]\nname = \"a\"\nadress = \"h:1\"\n"),
];

const ACCESS_FILES: &[(&str, &str)] = &[
    (
        "everything",
        "default = \"none\"\n\n[[client]]\nname = \"web\"\nrole = \"writer\"\nbuckets = [\"default\"]\n[[client]]\nname = \"ops\"\n\
         role = \"operator\"\n\n[deny]\nclients = [\"mallory\"]\nnodes = [\"n3\"]\nserials = [\"5A:00:c3\", \"0\"]\n",
    ),
    ("twice", "[[client]]\nname = \"a\"\nrole = \"reader\"\n[[client]]\nname = \"a\"\nrole = \"operator\"\n"),
    ("unknown-bucket", "[[client]]\nname = \"a\"\nrole = \"reader\"\nbuckets = [\"defualt\"]\n"),
    ("wrong-serial", "[deny]\nserials = [\"serial=5A\", \"\"]\n"),
];

const NODE_FILES: &[(&str, &str)] = &[
    ("small", "name = \"n1\"\n"),
    (
        "everything",
        "name = \"n1\"\nlisten = \"0.0.0.0:7400\"\nadmin = \"off\"\ndata_dir = \"data\"\n[limits]\nvalue_bytes_max = \"4MiB\"\n\
         deadline_max = \"1m 30s\"\nrequests_max = 16_384\n[store]\nsegment = \"1.5MiB\"\n[aae]\ninterval = \"1h\"\n\
         exchanges_max = 2\n[log]\nformat = \"json\"\nlevel = \"info,driftless_node::net=debug\"\n[tls]\nca = \"/etc/ca.pem\"\n",
    ),
    ("wrong-unit", "name = \"n1\"\n[limits]\ndeadline_max = 10\n"),
    ("misspelt", "name = \"n1\"\nlsiten = \"0.0.0.0:7400\"\n"),
];

const PROFILES: &[(&str, &str)] = &[
    ("one", "seeds = [\"127.0.0.1:7400\"]\nca = \"ca.pem\"\ncert = \"/abs/c.pem\"\nkey = \"c.key\"\n"),
    (
        "several",
        "[profile.default]\nseeds = []\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[profile.\"x y\"]\nseeds = [\"h:1\", \"h:2\"]\nca = ''\ncert = \"\"\nkey = \"\"\n",
    ),
    ("unknown", "seeds = []\ncolour = 1\n"),
];

const CONTEXT_KEYS: &[(&str, &str)] = &[
    (
        "two",
        "# newest first\n2 abababababababababababababababababababababababababababababababab\n\n1\t0000000000000000000000000000000000000000000000000000000000000000\n",
    ),
    (
        "twice",
        "1 abababababababababababababababababababababababababababababababab\n1 abababababababababababababababababababababababababababababababab",
    ),
    ("short", "1 abab\n"),
];

const RECORD_LINES: &[(&str, &str)] = &[
    ("text", "{\"key\": \"bat\", \"value\": \"text\"}"),
    ("binary", "{\"key\": {\"base64\": \"/w==\"}, \"value\": {\"base64\": \"AAE=\"}}\n"),
    ("siblings", "{\"key\": \"k\", \"values\": [\"a\", \"\\u00e4\\ud83d\\ude00\", {\"base64\": \"\"}]}"),
    ("unknown", "{\"key\": \"a\", \"value\": \"\", \"ttl\": 5}"),
    ("number", "{\"key\": 7, \"value\": [1e999, -0.0, {}]}"),
    ("blank", " \t\r\n"),
];

const SUBJECTS: &[(&str, &str)] = &[
    ("node", "driftless://shop/node/a"),
    ("client", "driftless://shop/client/web.1"),
    ("authority", "driftless://shop/ca"),
    ("foreign", "https://shop/node/a"),
    ("deep", "driftless://shop/node/a/b"),
];

//! Every decoder of bytes that come from outside: from the network, a disk, or a person.
//!
//! ```text
//! seeds.rs ──▶ tests/fuzz/seeds/TARGET/*  ──┬─▶ tests/decoders.rs     each seed, and mutate.rs of it: `cargo test`
//! samples.rs   one of every variant         └─▶ tests/fuzz/targets/*  libFuzzer, guided by coverage: `.ci/fuzz`
//!                                                      │
//!                         wire.rs  exchange.rs  engine.rs  stored.rs  texts.rs     bytes in; a panic is a finding
//!                                                      laws.rs                    what must hold of whatever was decoded
//! ```
//! A function here takes any bytes, refuses them or decodes them, never panics and holds little memory ([`Decoder::memory_for`]);
//! what was decoded, encoded and decoded again is the same. docs/fuzzing.md says how to run it.

pub mod engine;
pub mod exchange;
mod laws;
pub mod members;
pub mod mutate;
mod observed;
pub mod samples;
pub mod seeds;
pub mod stored;
pub mod texts;
pub mod variants;
pub mod wire;

/// One decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Name of its target and of its folder of seeds.
    pub name: &'static str,
    /// Gives it bytes. Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// What it may hold at most, whatever the bytes say, beside [`MEMORY_PER_BYTE`] for each of them.
    pub memory: usize,
}

impl Decoder {
    /// The decoder with this name.
    pub fn of_name(name: &str) -> Option<&'static Decoder> {
        DECODERS.iter().find(|decoder| decoder.name == name)
    }

    /// The most that so many bytes may make it hold.
    pub fn memory_for(&self, bytes: usize) -> usize {
        self.memory + bytes * MEMORY_PER_BYTE
    }
}

/// A list of the smallest elements takes this much more in memory than on the wire, copies that the checks make included.
pub const MEMORY_PER_BYTE: usize = 512;

const MIB: usize = 1 << 20;

/// All of them.
pub const DECODERS: &[Decoder] = &[
    Decoder { name: "access_file", run: texts::access_file, memory: 4 * MIB },
    Decoder { name: "certificates", run: texts::certificates, memory: MIB },
    Decoder { name: "client_requests", run: wire::client_requests, memory: 8 * MIB },
    Decoder { name: "client_responses", run: wire::client_responses, memory: 8 * MIB },
    Decoder { name: "cluster_file", run: texts::cluster_file, memory: 64 * MIB },
    Decoder { name: "context_keys", run: texts::context_keys, memory: MIB },
    Decoder { name: "context_tokens", run: wire::context_tokens, memory: 8 * MIB },
    Decoder { name: "datagrams", run: wire::datagrams, memory: 8 * MIB },
    Decoder { name: "directory", run: stored::directory, memory: 4 * MIB },
    Decoder { name: "engine", run: engine::engine, memory: 32 * MIB },
    Decoder { name: "exchange", run: exchange::exchange, memory: 32 * MIB },
    Decoder { name: "frames", run: wire::frames, memory: MIB },
    Decoder { name: "hello", run: wire::hello, memory: 4 * MIB },
    Decoder { name: "log_frames", run: stored::log_frames, memory: MIB },
    Decoder { name: "node_file", run: texts::node_file, memory: 4 * MIB },
    Decoder { name: "peer_messages", run: wire::peer_messages, memory: 8 * MIB },
    Decoder { name: "profiles", run: texts::profiles, memory: 4 * MIB },
    Decoder { name: "record_lines", run: texts::record_lines, memory: 4 * MIB },
    Decoder { name: "records", run: stored::records, memory: 8 * MIB },
    Decoder { name: "siblings", run: laws::siblings, memory: 8 * MIB },
    Decoder { name: "subjects", run: texts::subjects, memory: MIB },
    Decoder { name: "watermark", run: stored::watermark, memory: MIB },
];

//! What happened: a hash of every event, and readable lines when somebody wants to see them.
//!
//! The hash does not depend on whether lines are kept, so a failing seed is found without them and run again with.

use std::fmt::Write as _;

use driftless_node::peer::WireMessage;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::schedule::Micros;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<Line>>,
    buffer: Vec<u8>,
}

/// One readable line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Micros,
    /// Who: a node, a client, the world.
    pub who: String,
    /// The key it is about; none for what concerns all keys.
    pub key: Option<String>,
    /// What.
    pub text: String,
}

impl Trace {
    /// An empty trace, that keeps lines or not.
    pub fn new(keep_lines: bool) -> Trace {
        Trace { lines: keep_lines.then(Vec::new), ..Trace::default() }
    }

    /// Notes an event: everything but `line` goes into the hash.
    pub fn note(&mut self, at: Micros, kind: &'static str, numbers: &[u64], bytes: &[u8], line: impl FnOnce() -> Line) {
        self.events += 1;
        self.buffer.clear();
        self.buffer.extend(at.to_le_bytes());
        self.buffer.extend(kind.as_bytes());
        for number in numbers {
            self.buffer.extend(number.to_le_bytes());
        }
        self.buffer.extend(bytes);
        self.hash = xxh3_64_with_seed(&self.buffer, self.hash);
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, ..line() });
        }
    }

    /// A message's bytes in one number, for what is noted of it.
    pub fn fingerprint(&mut self, message: &WireMessage) -> u64 {
        self.buffer.clear();
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(message, buffer).expect("a message can be written");
        xxh3_64(&self.buffer)
    }

    /// Whether lines are kept.
    pub fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines, as text: all, or only those about `key` and those that concern all keys.
    pub fn text(&self, key: Option<&str>) -> String {
        let mut text = String::new();
        for line in self.lines.iter().flatten() {
            if key.is_none() || line.key.is_none() || line.key.as_deref() == key {
                let at = line.at;
                writeln!(text, "{:>5}.{:03} ms  {:<8} {}", at / 1000, at % 1000, line.who, line.text)
                    .expect("a string takes all that is written");
            }
        }
        text
    }
}

impl Line {
    /// A line about one key.
    pub fn about(who: impl Into<String>, key: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), key: Some(key.into()), text: text.into() }
    }

    /// A line that concerns all keys.
    pub fn general(who: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), key: None, text: text.into() }
    }
}

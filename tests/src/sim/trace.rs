//! What happened: a hash of every event, and readable lines when somebody wants to see them.
//!
//! The hash does not depend on whether lines are kept, so a failing seed is found without them and run again with.

use std::fmt::{self, Write as _};

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
    at: Micros,
    who: String,
    about: About,
    text: String,
}

/// What a line is about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum About {
    /// One key.
    Key(String),
    /// All keys: faults, connections, syncs.
    Everything,
    /// What replicas of a partition have in common: of interest unless a key is followed.
    Exchange,
    /// What nodes do anyway.
    Routine,
    /// A promise that is broken here, for this key or in general.
    Broken(Option<String>),
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
        self.tell(at, line);
    }

    /// A line beside the events: it is not in the hash.
    pub fn tell(&mut self, at: Micros, line: impl FnOnce() -> Line) {
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

    /// All lines, as text.
    pub fn text(&self) -> String {
        self.lines.iter().flatten().map(Line::to_string).collect()
    }

    /// How a promise came to be broken, as text: what is about the key and what is about all, until then. Without a
    /// key, the last lines until then.
    pub fn story(&self, key: Option<&str>) -> String {
        let lines = self.lines.as_deref().unwrap_or_default();
        let is_broken = |line: &Line| match &line.about {
            About::Broken(of) => key.is_none() || of.is_none() || of.as_deref() == key,
            _ => false,
        };
        let end = lines.iter().position(is_broken).map_or(lines.len(), |at| at + 1);
        let told: Vec<&Line> = lines[..end].iter().filter(|line| line.is_told_with(key)).collect();
        let left_out = if key.is_some() { 0 } else { told.len().saturating_sub(LAST_LINES) };
        let mut text = if left_out > 0 { format!("    … {left_out} lines before\n") } else { String::new() };
        text.extend(told[left_out..].iter().map(|line| line.to_string()));
        if end < lines.len() {
            writeln!(text, "    … {} lines of all keys after that", lines.len() - end)
                .expect("a string takes all that is written");
        }
        text
    }
}

impl Line {
    /// A line about one key.
    pub fn about(who: impl Into<String>, key: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), about: About::Key(key.into()), text: text.into() }
    }

    /// A line that concerns all keys.
    pub fn general(who: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), about: About::Everything, text: text.into() }
    }

    /// A line about a comparison of replicas.
    pub fn exchange(who: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), about: About::Exchange, text: text.into() }
    }

    /// A line about what nodes do anyway.
    pub fn routine(who: impl Into<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: who.into(), about: About::Routine, text: text.into() }
    }

    /// A promise is found broken.
    pub fn broken(key: Option<String>, text: impl Into<String>) -> Line {
        Line { at: 0, who: "BROKEN".into(), about: About::Broken(key), text: text.into() }
    }

    fn is_told_with(&self, key: Option<&str>) -> bool {
        match &self.about {
            About::Everything => true,
            About::Key(of) => key.is_none_or(|key| key == of),
            About::Broken(of) => key.is_none() || of.is_none() || of.as_deref() == key,
            About::Exchange => key.is_none(),
            About::Routine => false,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { at, who, text, .. } = self;
        writeln!(f, "{:>5}.{:03} ms  {who:<7} {text}", at / 1000, at % 1000)
    }
}

/// Of a violation that is of no key in particular.
const LAST_LINES: usize = 400;

//! Every key of `node.toml`: what it means, what may stand there, and when a running node takes another value.
//!
//! This is where the meaning of a knob is written down. `driftless config explain` prints it, and the tables of docs/configuration.md say the
//! same, which a test compares.

mod table;

pub use table::KNOBS;

/// A key that exists.
#[derive(Debug)]
pub struct Knob {
    /// With its section, as `limits.requests_max`.
    pub key: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What it is for, and what more or less of it costs. As the page on configuration has it: code in backquotes, and links.
    pub meaning: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// When another value counts.
    pub takes: Takes,
    /// Text in the same form as in a file; an empty one means "none".
    default: fn() -> String,
}

/// What a value has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A member's name.
    Name,
    /// Text on one line.
    Text,
    /// A path.
    Path,
    /// An address of this machine.
    Socket,
    /// Where others reach something.
    HostPort,
    /// Bytes.
    Size,
    /// A span of time.
    Time,
    /// A span of time, or none.
    TimeOrOff,
    /// A number.
    Count,
    /// Yes or no.
    Switch,
    /// The format of the log.
    LogFormat,
    /// What is logged.
    Directives,
    /// Where a collector listens.
    Url,
}

/// When a running node goes by another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// On SIGHUP.
    Reload,
    /// At its next start.
    Restart,
    /// What the file holds: by itself. Another file: at the next start.
    File,
    /// Never again once the node has joined: then the record of the cluster counts.
    Joining,
    /// Never: another value makes another node.
    Never,
}

impl Knob {
    /// The key of this name.
    pub fn named(key: &str) -> Option<&'static Knob> {
        KNOBS.iter().find(|knob| knob.key == key)
    }

    /// What counts if nobody says anything; empty for none.
    pub fn default(&self) -> String {
        (self.default)()
    }

    /// Its section, if it is in one, and its name there.
    pub fn place(&self) -> (Option<&'static str>, &'static str) {
        match self.key.rsplit_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, self.key),
        }
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.replace('.', "__").to_ascii_uppercase())
    }

    /// Whether it has to be said.
    pub fn is_required(&self) -> bool {
        self.key == "name"
    }
}

impl Kind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Name => "1 to 64 letters, digits, '-', '_' and '.'",
            Kind::Text => "text on one line",
            Kind::Path => "a path; a relative one starts at the file that says it",
            Kind::Socket => "IP:port of this machine",
            Kind::HostPort => "host:port",
            Kind::Size => "a size with its unit, as \"64MiB\"",
            Kind::Time => "a time with its unit, as \"250ms\" or \"10s\"",
            Kind::TimeOrOff => "a time with its unit, as \"250ms\" or \"10s\", or \"off\"",
            Kind::Count => "a whole number",
            Kind::Switch => "true or false",
            Kind::LogFormat => "\"text\" or \"json\"",
            Kind::Url => "http://HOST:PORT",
            Kind::Directives => {
                "error, warn, info, debug or trace, or directives such as \"info,driftless_node::net=debug\""
            }
        }
    }
}

impl Takes {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Takes::Reload => "a running node takes it on SIGHUP",
            Takes::Restart => "at the next start of the node (docs/operations.md, Restarting a node)",
            Takes::File => {
                "a running node takes what the file holds by itself, or at once on SIGHUP; another path at its next start"
            }
            Takes::Joining => {
                "before the node joins; from then on the record of the cluster counts, which `driftless cluster set` changes"
            }
            Takes::Never => {
                "never: certificate, data directory and record carry it; a node of another name is another node"
            }
        }
    }

    /// For a column.
    pub fn word(self) -> &'static str {
        match self {
            Takes::Reload => "SIGHUP",
            Takes::Restart => "restart",
            Takes::File => "file",
            Takes::Joining => "joining",
            Takes::Never => "never",
        }
    }
}

/// What variables of a node begin with.
pub(super) const PREFIX: &str = "DRIFTLESS__";

/// The sections of the file.
pub const SECTIONS: [&str; 9] = ["tls", "access", "audit", "limits", "aae", "top", "store", "log", "trace"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The rows of the tables about `node.toml` by their keys: default, when it is taken, meaning.
    fn documented() -> BTreeMap<String, [String; 3]> {
        let page = include_str!("../../../docs/configuration.md");
        let (_, chapter) = page.split_once("\n## node.toml\n").expect("has the chapter");
        let (chapter, _) = chapter.split_once("\n## ").expect("is not the last one");
        let (mut documented, mut section) = (BTreeMap::new(), String::new());
        for line in chapter.lines() {
            if let Some((name, _)) = line.strip_prefix("**`[").and_then(|rest| rest.split_once("]`**")) {
                section = format!("{name}.");
            } else if let Some(row) = line.strip_prefix("| `").and_then(|row| row.strip_suffix(" |")) {
                let mut cells = row.splitn(4, " | ").map(str::to_owned);
                let mut cell = || cells.next().expect("a row has four cells");
                let key = cell();
                let before =
                    documented.insert(format!("{section}{}", key.trim_end_matches('`')), [cell(), cell(), cell()]);
                assert_eq!(before, None, "{key} stands there twice");
            }
        }
        documented
    }

    #[test]
    fn every_knob_is_documented_as_it_is_explained_and_every_documented_knob_exists() {
        let mut documented = documented();
        for knob in KNOBS {
            let Some([default, taken, meaning]) = documented.remove(knob.key) else {
                panic!("docs/configuration.md lacks {}", knob.key);
            };
            let is_none = knob.default().is_empty();
            assert!(is_none || default.trim_matches(['`', '"']) == knob.default(), "{} is {default} there", knob.key);
            assert_eq!((taken.as_str(), meaning.as_str()), (knob.takes.word(), knob.meaning), "{}", knob.key);
        }
        assert!(documented.is_empty(), "docs/configuration.md has {documented:?}, which no file can say");
    }

    #[test]
    fn sections_are_those_of_the_keys() {
        for knob in KNOBS {
            assert!(knob.place().0.is_none_or(|section| SECTIONS.contains(&section)), "{}", knob.key);
        }
    }
}

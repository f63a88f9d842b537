//! `node.toml`: what is particular to one node, from four places that override each other:
//!
//! ```text
//! default  <  file  <  environment DRIFTLESS__*  <  flag
//! ```
//! Every value keeps the place it came from, for messages and for `driftless serve --print-config`. The key
//! `limits.requests_max` is `requests_max` in the file's section `[limits]`, `DRIFTLESS__LIMITS__REQUESTS_MAX` in the
//! environment, and `--set limits.requests_max=…` on the command line. Two underscores, because Kubernetes puts variables such as
//! `DRIFTLESS_SERVICE_HOST` and `DRIFTLESS_PORT` into every pod beside a service of that name. Relative paths start at the file's
//! directory if they stand in the file or are defaults, else at the working directory.
//!
//! ```text
//! settings.rs   what stands for each key, and where it came from
//! reader.rs     each value parsed and checked -> NodeConfig
//! print.rs      the configuration as a file would say it
//! ```

mod print;
mod reader;
mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use driftless_ring::Member;

use self::reader::Reader;
use self::settings::Settings;
pub use self::settings::{Override, Source};
use super::Limits;
use super::error::{ConfigError, read_file};
use super::knobs::{KNOBS, Knob, Takes};

/// Everything one node is told, checked.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name: in the cluster file, or to join under.
    pub name: String,
    /// Where its data lives.
    pub data_dir: PathBuf,
    /// Where others reach it, if it is to join a cluster that runs.
    pub address: Option<String>,
    /// Its zone, then.
    pub zone: String,
    /// Its weight, then.
    pub weight: u32,
    /// Its shards, then.
    pub shards: u16,
    /// UDP address to listen on (shard 0); the address at which others reach it if absent.
    pub listen: Option<SocketAddr>,
    /// TCP address of the admin HTTP server; `None` if it is `off`.
    pub admin: Option<SocketAddr>,
    /// TCP address of the same for other machines, over TLS.
    pub admin_remote: Option<SocketAddr>,
    /// The cluster file.
    pub cluster: PathBuf,
    /// The file of the keys that seal context tokens.
    pub context_key: PathBuf,
    /// The cluster's CA.
    pub tls_ca: PathBuf,
    /// This node's certificate.
    pub tls_cert: PathBuf,
    /// Its private key.
    pub tls_key: PathBuf,
    /// Who may do what, if there is a file that says so.
    pub access: Option<PathBuf>,
    /// What is written down of who did what.
    pub audit: AuditConfig,
    /// Bounds and times of the machines.
    pub limits: Limits,
    /// Bytes that requests may take up in all.
    pub memory: usize,
    /// Requests of clients under way at once.
    pub client_requests_max: usize,
    /// Knobs of the store.
    pub store: StoreConfig,
    /// How to log.
    pub log: LogConfig,
    /// What is recorded of requests that carry a trace context.
    pub trace: TraceConfig,
    path: PathBuf,
    settings: Settings,
}

/// Knobs of the store on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// Length of a segment of the log.
    pub segment: u64,
    /// Free bytes of the disk below which writes are refused, so that reads, merging and deletes still work.
    pub free_space_reserve: u64,
}

/// How a node logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Lines of JSON instead of text.
    pub json: bool,
    /// Filter directives, such as `info` or `info,driftless_node::net=debug`.
    pub level: String,
}

/// What a node records of requests that carry a trace context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceConfig {
    /// Where a collector takes them, as `http://127.0.0.1:4318`; without one they are in the log alone.
    pub endpoint: Option<String>,
    /// What the node is called there.
    pub service_name: String,
    /// How many parts of them are recorded a second.
    pub per_second: u32,
}

impl TraceConfig {
    /// Why this build cannot do what is said, if so.
    pub fn refused(&self) -> Option<&'static str> {
        let is_wanted = self.endpoint.is_some() && !cfg!(feature = "otel");
        is_wanted.then_some(
            "trace.endpoint is set, and this build sends no traces: it was built without the feature `otel`; leave the key out, or \
             build it with `cargo build --release --features otel`",
        )
    }
}

/// What a node writes down of who connected, was refused, and gave orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditConfig {
    /// The file; without one nothing is written.
    pub file: Option<PathBuf>,
    /// Whether keys are named in it.
    pub keys: bool,
}

/// A key that another reading gives another value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key, as `limits.requests_max`.
    pub key: &'static str,
    /// What a node runs with.
    pub from: String,
    /// What its files say now.
    pub to: String,
    /// Whether it can be taken by a node that runs.
    pub is_taken: bool,
}

impl NodeConfig {
    /// Reads a node's file, applies the environment and then the flags.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the place and what to write instead.
    pub fn read(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[Override],
    ) -> Result<NodeConfig, ConfigError> {
        NodeConfig::parse(path, &read_file(path)?, environment, overrides)
    }

    /// Reads the text of a node's file; the path is for messages, and where relative paths start.
    ///
    /// # Errors
    /// As [`NodeConfig::read`].
    pub fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[Override],
    ) -> Result<NodeConfig, ConfigError> {
        let (settings, problems) = Settings::gather(path, text, environment, overrides);
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Reader::new(path, settings).read(),
        }
    }

    /// What the text of a node's file says, and all that is wrong with it and with what overrides it: of each key the first thing that is.
    /// What is wrong is read as if it were not there; there is no configuration if that does not help.
    pub fn gather(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[Override],
    ) -> (Option<NodeConfig>, Vec<ConfigError>) {
        let (settings, mut problems) = Settings::gather(path, text, environment, overrides);
        let mut reader = Reader::new(path, settings);
        loop {
            let problem = match reader.clone().read() {
                Ok(config) => return (Some(config), problems),
                Err(problem) => problem,
            };
            let key = match &problem {
                ConfigError::BadValue { key, .. } | ConfigError::Missing { key, .. } => Knob::named(key),
                _ => None,
            };
            problems.push(problem);
            let Some(knob) = key.filter(|_| problems.len() <= PROBLEMS_MAX) else { return (None, problems) };
            // A name is one whatever it says.
            let value = if knob.is_required() { "name".to_owned() } else { knob.default() };
            reader.set_default(knob, value);
        }
    }

    /// This configuration with what of another reading of its files a running node can take, and what of it is different.
    ///
    /// # Errors
    /// [`ConfigError`], if the two cannot be put together.
    pub fn reloaded(&self, read: &NodeConfig) -> Result<(NodeConfig, Vec<Change>), ConfigError> {
        let (mut settings, mut changes) = (self.settings.clone(), Vec::new());
        for knob in KNOBS {
            let (old, new) = (self.settings.value(knob.key), read.settings.value(knob.key));
            let is_taken = knob.takes == Takes::Reload;
            if old != new {
                changes.push(Change { key: knob.key, from: old.to_owned(), to: new.to_owned(), is_taken });
            }
            if is_taken {
                settings.take(knob, &read.settings);
            }
        }
        Ok((Reader::new(&self.path, settings).read()?, changes))
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What counts for a key, as a file would say it, and the place it came from.
    pub fn setting(&self, knob: &Knob) -> (&str, &Source) {
        (self.settings.value(knob.key), self.settings.source(knob.key))
    }

    /// This node as it would be a member, if the file says where others reach it.
    pub fn as_member(&self) -> Option<Member> {
        let mut member = Member::new(self.name.clone(), self.address.clone()?);
        (member.zone, member.weight, member.shards) = (self.zone.clone(), self.weight, self.shards);
        Some(member)
    }

    /// Every key with its effective value and the place it came from.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str, &Source)> + '_ {
        KNOBS.iter().map(|knob| {
            let (value, source) = self.setting(knob);
            (knob.key, value, source)
        })
    }
}

/// More than there are keys: what is wrong is found once for each.
const PROBLEMS_MAX: usize = 1_000;

#[cfg(test)]
mod tests;

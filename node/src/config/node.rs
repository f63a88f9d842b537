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

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_ring::Member;
use toml::Value;

use super::cluster::{is_reachable_address, shards_max};
use super::error::{ConfigError, closest, read_file};
use super::knobs::{KNOBS, Knob, PREFIX, SECTIONS, Takes};
use super::member::{WEIGHT_MAX, ZONE, is_zone};
use super::table::parse;
use super::{AaeLimits, Limits, units};
use crate::bounds::TurnBounds;
use crate::net::limits::MEMORY_MIN;

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
    path: PathBuf,
    settings: BTreeMap<&'static str, Sourced>,
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

/// What a node writes down of who connected, was refused, and gave orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditConfig {
    /// The file; without one nothing is written.
    pub file: Option<PathBuf>,
    /// Whether keys are named in it.
    pub keys: bool,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The node's file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(String),
}

/// A flag that overrides a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// The key, as `limits.requests_max`.
    pub key: String,
    /// Its new value.
    pub value: String,
    /// The flag as the person knows it, as `--listen`.
    pub flag: String,
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

#[derive(Clone, Debug)]
struct Sourced {
    value: String,
    source: Source,
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
        let (settings, problems) = settings(path, text, environment, overrides);
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Reader { path, settings }.read(),
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
        let (settings, mut problems) = settings(path, text, environment, overrides);
        let mut reader = Reader { path, settings };
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
            reader.settings.insert(knob.key, Sourced { value, source: Source::Default });
        }
    }

    /// This configuration with what of another reading of its files a running node can take, and what of it is different.
    ///
    /// # Errors
    /// [`ConfigError`], if the two cannot be put together.
    pub fn reloaded(&self, read: &NodeConfig) -> Result<(NodeConfig, Vec<Change>), ConfigError> {
        let (mut settings, mut changes) = (self.settings.clone(), Vec::new());
        for knob in KNOBS {
            let (old, new) = (&self.settings[knob.key], &read.settings[knob.key]);
            let is_taken = knob.takes == Takes::Reload;
            if old.value != new.value {
                changes.push(Change { key: knob.key, from: old.value.clone(), to: new.value.clone(), is_taken });
            }
            if is_taken {
                settings.insert(knob.key, new.clone());
            }
        }
        Ok((Reader { path: &self.path, settings }.read()?, changes))
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What counts for a key, as a file would say it, and the place it came from.
    pub fn setting(&self, knob: &Knob) -> (&str, &Source) {
        let setting = &self.settings[knob.key];
        (&setting.value, &setting.source)
    }

    /// This node as it would be a member, if the file says where others reach it.
    pub fn as_member(&self) -> Option<Member> {
        let mut member = Member::new(self.name.clone(), self.address.clone()?);
        (member.zone, member.weight, member.shards) = (self.zone.clone(), self.weight, self.shards);
        Some(member)
    }

    /// The effective configuration as a file would say it, each line with where its value came from.
    pub fn print(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        let width = KNOBS.iter().map(|knob| self.line(knob).len()).max().unwrap_or(0).min(60);
        for knob in KNOBS {
            let (knob_section, _) = knob.key.rsplit_once('.').unwrap_or(("", knob.key));
            if knob_section != section {
                section = knob_section;
                text += &format!("\n[{section}]\n");
            }
            let source = &self.settings[knob.key].source;
            text += &format!("{:width$}  # {source}: {}\n", self.line(knob), knob.about);
        }
        text
    }

    /// Every key with its effective value and the place it came from.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str, &Source)> + '_ {
        KNOBS.iter().map(|knob| {
            let (value, source) = self.setting(knob);
            (knob.key, value, source)
        })
    }

    fn line(&self, knob: &Knob) -> String {
        let name = knob.key.rsplit_once('.').map_or(knob.key, |(_, name)| name);
        let value = &self.settings[knob.key].value;
        if value.is_empty() && knob.default().is_empty() {
            return format!("# {name} =");
        }
        match value.parse::<i64>() {
            // "007" is a text, and 7 another one.
            Ok(number) if number.to_string() == *value => format!("{name} = {number}"),
            _ => format!("{name} = {}", Value::String(value.clone())),
        }
    }
}

#[derive(Clone)]
struct Reader<'a> {
    path: &'a Path,
    settings: BTreeMap<&'static str, Sourced>,
}

impl Reader<'_> {
    fn read(self) -> Result<NodeConfig, ConfigError> {
        let fixed = Limits::default();
        let limits = Limits {
            value_bytes_max: self.parsed("limits.value_bytes_max", |text| match units::bytes(text) {
                Ok(0) => Err("at least 1 byte".to_owned()),
                Ok(bytes) if bytes > VALUE_BYTES_CEILING => Err(format!(
                    "at most {}, what the siblings of a key may hold together",
                    units::show_bytes(VALUE_BYTES_CEILING)
                )),
                other => other,
            })?,
            requests_max: self.count("limits.requests_max", 1)? as usize,
            coordinated_bytes_max: fixed.coordinated_bytes_max,
            deadline_max: self.time("limits.deadline_max")?,
            attempt_timeout: self.time("limits.attempt_timeout")?,
            header_cache_bytes: self.parsed("limits.header_cache_bytes", units::bytes)?,
            write_ids_max: self.count("limits.write_ids_max", 1)? as usize,
            write_ids_age: self.time("limits.write_ids_age")?,
            clock_off_max: self.time("limits.clock_off_max")?,
            buffered_sync_interval: self.time("limits.buffered_sync_interval")?,
            retry_after: self.time("limits.retry_after")?,
            scan_limit_max: self.parsed("limits.scan_limit_max", |text| units::count(text, 1, 65_536))? as u32,
            replica_waiting_max: self.count("limits.replica_waiting_max", 2)? as usize,
            hint_bytes_max: self.parsed("limits.hint_bytes_max", units::bytes)?,
            hint_target_bytes_max: self.parsed("limits.hint_target_bytes_max", units::bytes)?,
            handoff_delay: self.time("limits.handoff_delay")?,
            aae: AaeLimits {
                interval: self.time("aae.interval")?,
                bytes_per_second: self.parsed("aae.bytes_per_second", |text| match units::bytes(text) {
                    Ok(0) => Err("at least 1 byte; to stop it for a while, `driftless aae pause`".to_owned()),
                    other => other,
                })?,
                exchanges_max: self.parsed("aae.exchanges_max", |text| units::count(text, 1, 64))? as usize,
                confirm: self.time("aae.confirm")?,
                patience: self.time("aae.patience")?,
                repair: self.time("aae.repair")?,
                scrub_interval: self.time("aae.scrub_interval")?,
                ..AaeLimits::default()
            },
            turn: TurnBounds::default(),
            // What all nodes, and the protocol, must agree on is no matter of taste.
            siblings_max: fixed.siblings_max,
            sibling_bytes_max: fixed.sibling_bytes_max,
            state_bytes_max: fixed.state_bytes_max,
            read_page_bytes: fixed.read_page_bytes,
            window_bytes: fixed.window_bytes,
        };
        let store = StoreConfig {
            segment: self.size("store.segment", SEGMENT_MIN, SEGMENT_MAX)?,
            free_space_reserve: self.parsed("store.free_space_reserve", units::bytes)?,
        };
        let json = self.parsed("log.format", |text| match text {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err("\"text\" or \"json\"".to_owned()),
        })?;
        let log = LogConfig { json, level: self.settings["log.level"].value.clone() };
        let name = self.settings["name"].value.clone();
        if name.is_empty() {
            return Err(ConfigError::Missing {
                key: "name".to_owned(),
                place: self.path.display().to_string(),
                advice: "write name = \"…\" as the cluster file's [[member]] has it".to_owned(),
            });
        }
        let memory = self.parsed("limits.memory", |text| match units::bytes(text)? {
            bytes if bytes < MEMORY_MIN as u64 => Err(format!(
                "at least {}, so that there is room for large values",
                units::show_bytes(MEMORY_MIN as u64)
            )),
            bytes => usize::try_from(bytes).map_err(|_| "less than this machine can address".to_owned()),
        })?;
        let client_requests_max = self.count("limits.client_requests_max", 16)? as usize;
        let address = self.reachable_address()?;
        Ok(NodeConfig {
            name,
            data_dir: self.file("data_dir")?,
            zone: self.parsed("zone", |text| if is_zone(text) { Ok(text.to_owned()) } else { Err(ZONE.to_owned()) })?,
            weight: self.parsed("weight", |text| units::count(text, 1, WEIGHT_MAX.into()))? as u32,
            shards: self.parsed("shards", |text| units::count(text, 1, shards_max(address.as_deref())))? as u16,
            address,
            listen: self.address("listen", "")?,
            admin: self.address("admin", "off")?,
            admin_remote: self.address("admin_remote", "")?,
            cluster: self.file("cluster")?,
            context_key: self.file("context_key")?,
            tls_ca: self.file("tls.ca")?,
            tls_cert: self.file("tls.cert")?,
            tls_key: self.file("tls.key")?,
            access: self.optional_file("access.file")?,
            audit: AuditConfig {
                file: self.optional_file("audit.file")?,
                keys: self.parsed("audit.keys", units::switch)?,
            },
            limits,
            memory,
            client_requests_max,
            store,
            log,
            path: self.path.to_owned(),
            settings: self.settings,
        })
    }

    fn parsed<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        let Sourced { value, source } = &self.settings[key];
        parse(value).map_err(|expected| ConfigError::BadValue {
            key: key.to_owned(),
            value: format!("{value:?}"),
            place: source.to_string(),
            expected,
        })
    }

    fn count(&self, key: &'static str, min: u64) -> Result<u64, ConfigError> {
        self.parsed(key, |text| units::count(text, min, u64::MAX))
    }

    fn size(&self, key: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
        self.parsed(key, |text| match units::bytes(text)? {
            bytes if bytes < least => Err(format!("at least {}", units::show_bytes(least))),
            bytes if bytes > most => Err(format!("at most {}", units::show_bytes(most))),
            bytes => Ok(bytes),
        })
    }

    fn time(&self, key: &'static str) -> Result<Duration, ConfigError> {
        self.parsed(key, |text| match units::duration(text) {
            Ok(Duration::ZERO) => Err("a time above zero".to_owned()),
            other => other,
        })
    }

    fn address(&self, key: &'static str, none: &str) -> Result<Option<SocketAddr>, ConfigError> {
        self.parsed(key, |text| {
            if text == none {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| "IP:port, as in \"127.0.0.1:7400\" or \"0.0.0.0:7400\"".to_owned())
        })
    }

    fn reachable_address(&self) -> Result<Option<String>, ConfigError> {
        self.parsed("address", |text| match text {
            "" => Ok(None),
            text if is_reachable_address(text) => Ok(Some(text.to_owned())),
            _ => Err("host:port at which others reach this node, as in \"10.0.0.4:7400\"".to_owned()),
        })
    }

    fn optional_file(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        if self.settings[key].value.is_empty() { Ok(None) } else { self.file(key).map(Some) }
    }

    fn file(&self, key: &'static str) -> Result<PathBuf, ConfigError> {
        self.parsed(key, |text| {
            let base = match &self.settings[key].source {
                Source::Default | Source::File(_) => self.path.parent().unwrap_or(Path::new("")),
                Source::Environment(_) | Source::Flag(_) => Path::new(""),
            };
            if text.is_empty() { Err("a path".to_owned()) } else { Ok(base.join(text)) }
        })
    }
}

/// What stands for each key, from all four places, and what cannot stand for any.
fn settings(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> (BTreeMap<&'static str, Sourced>, Vec<ConfigError>) {
    let default = |knob: &Knob| (knob.key, Sourced { value: knob.default(), source: Source::Default });
    let (mut settings, mut problems) = (KNOBS.iter().map(default).collect(), Vec::new());
    apply_file(&mut settings, &mut problems, path, text);
    apply_environment(&mut settings, &mut problems, environment);
    for change in overrides {
        match Knob::named(&change.key) {
            Some(knob) => {
                let source = Source::Flag(change.flag.clone());
                settings.insert(knob.key, Sourced { value: change.value.clone(), source });
            }
            None => problems.push(ConfigError::UnknownKey {
                key: change.key.clone(),
                place: format!("the flag {}", change.flag),
                closest: closest(&change.key, KNOBS.iter().map(|knob| knob.key)),
            }),
        }
    }
    (settings, problems)
}

fn apply_file(
    settings: &mut BTreeMap<&'static str, Sourced>,
    problems: &mut Vec<ConfigError>,
    path: &Path,
    text: &str,
) {
    let source = Source::File(path.to_owned());
    let table = match parse(path, text) {
        Ok(table) => table,
        Err(problem) => return problems.push(problem),
    };
    for (name, value) in table {
        match value {
            Value::Table(table) if is_section(&name) => {
                for (inner, value) in table {
                    problems.extend(set(settings, &format!("{name}.{inner}"), value, &source).err());
                }
            }
            value => problems.extend(set(settings, &name, value, &source).err()),
        }
    }
}

fn set(
    settings: &mut BTreeMap<&'static str, Sourced>,
    key: &str,
    value: Value,
    source: &Source,
) -> Result<(), ConfigError> {
    let Some(knob) = Knob::named(key) else {
        let candidates = KNOBS.iter().map(|knob| knob.key).chain(SECTIONS);
        let closest = closest(key, candidates);
        return Err(ConfigError::UnknownKey { key: key.to_owned(), place: source.to_string(), closest });
    };
    let text = match value {
        Value::String(text) => text,
        Value::Integer(number) => number.to_string(),
        Value::Boolean(on) => on.to_string(),
        other => {
            return Err(ConfigError::BadValue {
                key: key.to_owned(),
                value: other.to_string(),
                place: source.to_string(),
                expected: "a text in quotes or a whole number".to_owned(),
            });
        }
    };
    settings.insert(knob.key, Sourced { value: text, source: source.clone() });
    Ok(())
}

fn apply_environment(
    settings: &mut BTreeMap<&'static str, Sourced>,
    problems: &mut Vec<ConfigError>,
    environment: impl IntoIterator<Item = (String, String)>,
) {
    let unknown = |key, closest| ConfigError::UnknownKey { key, place: "the environment".to_owned(), closest };
    for (variable, value) in environment {
        if !variable.starts_with(PREFIX) {
            let meant = KNOBS.iter().find(|knob| single_underscored(knob.key) == variable);
            problems.extend(meant.map(|knob| unknown(variable, Some(knob.variable()))));
            continue;
        }
        match KNOBS.iter().find(|knob| knob.variable() == variable) {
            Some(knob) => {
                settings.insert(knob.key, Sourced { value, source: Source::Environment(variable) });
            }
            None => {
                let known: Vec<String> = KNOBS.iter().map(Knob::variable).collect();
                let closest = closest(&variable, known.iter().map(String::as_str));
                problems.push(unknown(variable, closest));
            }
        }
    }
}

/// What somebody writes who does not know of the second underscore.
fn single_underscored(key: &str) -> String {
    format!("DRIFTLESS_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn is_section(name: &str) -> bool {
    SECTIONS.contains(&name)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(variable) => write!(f, "environment {variable}"),
            Source::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// More than there are keys: what is wrong is found once for each.
const PROBLEMS_MAX: usize = 1_000;

/// A longer value could not be kept even as the only one of its key.
const VALUE_BYTES_CEILING: u64 = driftless_proto::key::SIBLING_BYTES_MAX as u64;

/// A shorter segment would be full after a few batches.
const SEGMENT_MIN: u64 = 1 << 20;

/// A longer one is too much to be read at once by a start.
const SEGMENT_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    struct File(tempfile::TempDir);

    fn file(text: &str) -> File {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("node.toml"), text).expect("writes");
        File(dir)
    }

    impl File {
        fn path(&self) -> PathBuf {
            self.0.path().join("node.toml")
        }

        fn read(&self, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<NodeConfig, String> {
            let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let flags: Vec<Override> = flags
                .iter()
                .map(|(key, value)| Override {
                    key: (*key).to_owned(),
                    value: (*value).to_owned(),
                    flag: format!("--{key}"),
                })
                .collect();
            NodeConfig::read(&self.path(), environment, &flags).map_err(|error| error.to_string())
        }
    }

    /// What Kubernetes puts into every pod beside a service named `driftless`.
    #[test]
    fn variables_of_a_kubernetes_service_stop_no_node() {
        let service = [
            ("DRIFTLESS_SERVICE_HOST", "10.0.0.1"),
            ("DRIFTLESS_SERVICE_PORT", "7400"),
            ("DRIFTLESS_PORT", "udp://10.0.0.1:7400"),
            ("DRIFTLESS_PORT_7400_UDP_ADDR", "10.0.0.1"),
        ];
        assert!(file("name = \"n1\"").read(&service, &[]).is_ok());
    }

    #[test]
    fn lengths_of_segments_that_the_log_cannot_use_are_refused() {
        let refused = |key: &str, value: &str| file("name = \"n1\"").read(&[], &[(key, value)]).expect_err("too small");
        assert!(refused("store.segment", "1KiB").contains("at least 1MiB"));
        assert!(refused("store.segment", "2GiB").contains("at most 1GiB"));
    }

    #[test]
    fn a_name_is_all_that_a_file_must_say() {
        let file = file("name = \"n1\"");
        let config = file.read(&[], &[]).expect("is fine");
        assert_eq!(config.name, "n1");
        assert_eq!(config.data_dir, file.0.path().join("data"));
        assert_eq!(config.listen, None);
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn later_places_override_earlier_ones() {
        let file = file("name = \"n1\"\nlisten = \"127.0.0.1:1\"\n[limits]\nrequests_max = 5\nretry_after = \"1s\"\n");
        let config = file
            .read(
                &[
                    ("DRIFTLESS__LISTEN", "127.0.0.1:2"),
                    ("DRIFTLESS__LIMITS__REQUESTS_MAX", "6"),
                    ("DRIFTLESS_PROFILE", "x"),
                    ("PATH", "y"),
                ],
                &[("listen", "127.0.0.1:3"), ("data_dir", "here")],
            )
            .expect("is fine");
        assert_eq!(config.listen, Some("127.0.0.1:3".parse().expect("an address")));
        assert_eq!(config.limits.requests_max, 6);
        assert_eq!(config.limits.retry_after, Duration::from_secs(1));
        assert_eq!(config.data_dir, Path::new("here"), "paths of flags start at the working directory");
        let source = |key| config.entries().find(|(k, ..)| *k == key).map(|(.., source)| source.clone());
        assert_eq!(source("listen"), Some(Source::Flag("--listen".to_owned())));
        assert_eq!(
            source("limits.requests_max"),
            Some(Source::Environment("DRIFTLESS__LIMITS__REQUESTS_MAX".to_owned()))
        );
        assert_eq!(source("limits.retry_after"), Some(Source::File(file.path())));
        assert_eq!(source("log.level"), Some(Source::Default));
    }

    #[test]
    fn what_is_printed_reads_as_the_same() {
        let first = file(
            "name = \"n1\"\n[limits]\nattempt_timeout = \"1s 5ms\"\nvalue_bytes_max = 1000\n[log]\nformat = \"json\"\n",
        );
        let config = first.read(&[], &[]).expect("is fine");
        assert!(config.print().contains("# default: "), "{}", config.print());
        let again = file(&config.print()).read(&[], &[]).expect("reads back");
        assert_eq!(again.limits, config.limits);
        assert_eq!(again.log, config.log);
    }

    #[test]
    fn every_knob_is_read() {
        let file = file("name = \"n1\"");
        let read = |flags: &[(&str, &str)]| {
            file.read(&[], flags).map(|mut config| {
                config.settings.clear();
                format!("{config:?}")
            })
        };
        let default = read(&[]).expect("is fine");
        for knob in KNOBS {
            let others = ["7", "77", "7s", "7MiB", "7GiB", "127.0.0.1:7", "json", "true"];
            let is_read = others.iter().any(|other| read(&[(knob.key, other)]).is_ok_and(|config| config != default));
            assert!(is_read, "{} changes nothing", knob.key);
        }
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let text =
            "lisen = \"x\"\nadmin = \"here\"\n[limits]\nretry_after = 50\nmemory = \"1MiB\"\n[log]\nformat = [1]\n";
        let environment = [("DRIFTLESS__AAE__INTERVALL".to_owned(), "1s".to_owned())];
        let (_, problems) = NodeConfig::gather(Path::new("node.toml"), text, environment, &[]);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let parts =
            ["\"lisen\"", "log.format", "INTERVALL", "limits.retry_after", "name is missing", "limits.memory", "admin"];
        for part in parts {
            assert_eq!(said.iter().filter(|problem| problem.contains(part)).count(), 1, "{part} in {said:#?}");
        }
        assert_eq!(said.len(), parts.len(), "{said:#?}");
        assert!(NodeConfig::gather(Path::new("node.toml"), "name = \"n1\"", [], &[]).1.is_empty());
        assert_eq!(NodeConfig::gather(Path::new("node.toml"), "name =", [], &[]).1.len(), 2, "no TOML, and so no name");
    }

    #[test]
    fn a_running_node_takes_what_it_can_and_is_told_of_the_rest_again_and_again() {
        let before = file("name = \"n1\"\n[limits]\nretry_after = \"50ms\"").read(&[], &[]).expect("is fine");
        let text = "name = \"n1\"\nadmin = \"off\"\n[limits]\nretry_after = \"70ms\"\n[log]\nlevel = \"debug\"";
        let read = file(text).read(&[], &[("limits.requests_max", "7")]).expect("is fine");
        let (now, changes) = before.reloaded(&read).expect("fit each other");
        let taken: Vec<_> = changes.iter().map(|change| (change.key, change.is_taken)).collect();
        let expected =
            [("admin", false), ("limits.requests_max", true), ("limits.retry_after", true), ("log.level", true)];
        assert_eq!(taken, expected);
        assert_eq!((now.limits.retry_after, now.limits.requests_max), (Duration::from_millis(70), 7));
        assert_eq!((now.admin, now.log.level.as_str()), (before.admin, "debug"));
        let (_, changes) = now.reloaded(&read).expect("fit each other");
        assert_eq!(changes.iter().map(|change| change.key).collect::<Vec<_>>(), ["admin"], "what waits for a start");
    }

    /// Else `config explain` would promise what SIGHUP does not keep, or a shard go by what nobody said.
    #[test]
    fn shards_take_those_limits_that_are_said_to_be_taken() {
        let before = file("name = \"n1\"").read(&[], &[]).expect("is fine");
        for knob in KNOBS.iter().filter(|knob| knob.key.starts_with("limits.") || knob.key.starts_with("aae.")) {
            let others = ["7", "77", "7s", "7MiB", "7GiB"];
            let read = others.iter().find_map(|other| file("name = \"n1\"").read(&[], &[(knob.key, other)]).ok());
            let read = read.unwrap_or_else(|| panic!("{} has another value", knob.key));
            let mut taken = before.limits.clone();
            taken.take_changeable(&read.limits);
            assert_eq!(taken != before.limits, knob.takes == Takes::Reload, "{}", knob.key);
        }
    }

    #[test]
    fn texts_that_look_like_numbers_or_like_nothing_are_printed_as_they_are() {
        let config = file("name = \"007\"\n[log]\nlevel = \"\"\n").read(&[], &[]).expect("is fine");
        let again = file(&config.print()).read(&[], &[]).expect("reads back");
        assert_eq!((again.name.as_str(), again.log.level.as_str()), ("007", ""), "{}", config.print());
    }

    #[test]
    fn mistakes_name_key_place_and_remedy() {
        let good = "name = \"n1\"\n";
        let cases: [(&str, &[&str]); 16] = [
            ("", &["name is missing", "node.toml"]),
            ("name = \"n1\"\nlisen = \"x\"", &["unknown key \"lisen\"", "node.toml", "did you mean \"listen\"?"]),
            ("name = \"n1\"\n[limits]\nrequest_max = 1", &["\"limits.request_max\"", "\"limits.requests_max\""]),
            ("name = \"n1\"\n[limit]\nrequests_max = 1", &["\"limit\"", "\"limits\""]),
            ("name = \"n1\"\nxyzzy = 1", &["unknown key \"xyzzy\"", "remove it"]),
            ("name = \"n1\"\nlisten = \"here\"", &["listen", "IP:port"]),
            ("name = \"n1\"\n[limits]\nretry_after = 50", &["limits.retry_after", "time with its unit"]),
            ("name = \"n1\"\n[limits]\nretry_after = \"0s\"", &["above zero"]),
            ("name = \"n1\"\n[limits]\nheader_cache_bytes = \"64 bananas\"", &["64 bananas", "64MiB"]),
            ("name = \"n1\"\n[limits]\nvalue_bytes_max = \"1GiB\"", &["at most 16MiB"]),
            ("name = \"n1\"\n[limits]\nrequests_max = 0", &["at least 1"]),
            ("name = \"n1\"\n[log]\nformat = \"xml\"", &["log.format", "\"text\" or \"json\""]),
            ("name = \"n1\"\nzone = \"a\\tb\"", &["zone", "1 to 64 bytes of text"]),
            ("name = \"n1\"\naddress = \"h:65535\"\nshards = 2", &["shards", "from 1 to 1"]),
            ("name = [1]", &["a text in quotes"]),
            ("name = ", &["not well-formed TOML"]),
        ];
        for (text, expected) in cases {
            let error = file(text).read(&[], &[]).expect_err(text);
            for part in expected {
                assert!(error.contains(part), "{error:?} should say {part:?}");
            }
        }
        let environment = file(good).read(&[("DRIFTLESS__LISTN", "x")], &[]).expect_err("unknown");
        assert!(environment.contains("did you mean \"DRIFTLESS__LISTEN\"?"), "{environment}");
        let single = file(good).read(&[("DRIFTLESS_LIMITS_RETRY_AFTER", "1s")], &[]).expect_err("would be overlooked");
        assert!(single.contains("did you mean \"DRIFTLESS__LIMITS__RETRY_AFTER\"?"), "{single}");
        let value = file(good).read(&[("DRIFTLESS__LIMITS__RETRY_AFTER", "soon")], &[]).expect_err("bad");
        assert!(value.contains("environment DRIFTLESS__LIMITS__RETRY_AFTER"), "{value}");
        let flag = file(good).read(&[], &[("limits.retry", "1s")]).expect_err("unknown");
        assert!(flag.contains("limits.retry_after"), "{flag}");
        let absent = NodeConfig::read(Path::new("/nonexistent/node.toml"), [], &[]).expect_err("absent").to_string();
        assert!(absent.contains("cannot read /nonexistent/node.toml"), "{absent}");
    }
}

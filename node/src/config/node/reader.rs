//! From what stands for each key to a configuration: each value parsed, and held against what the code can go by.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::cluster::{is_reachable_address, shards_max};
use super::super::error::ConfigError;
use super::super::knobs::Knob;
use super::super::member::{WEIGHT_MAX, ZONE, is_zone};
use super::super::{AaeLimits, Limits, TopLimits, units};
use super::settings::{Settings, Source};
use super::{AuditConfig, LogConfig, NodeConfig, StoreConfig, TraceConfig};
use crate::bounds::TurnBounds;
use crate::net::limits::MEMORY_MIN;

/// Settings that are to become a configuration.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    path: &'a Path,
    settings: Settings,
}

impl<'a> Reader<'a> {
    /// Relative paths begin where this file is.
    pub(super) fn new(path: &'a Path, settings: Settings) -> Reader<'a> {
        Reader { path, settings }
    }

    /// The value stands for the key as if nobody had said anything.
    pub(super) fn set_default(&mut self, knob: &Knob, value: String) {
        self.settings.set_default(knob, value);
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong.
    pub(super) fn read(self) -> Result<NodeConfig, ConfigError> {
        let limits = self.limits()?;
        let store = StoreConfig {
            segment: self.size("store.segment", SEGMENT_MIN, SEGMENT_MAX)?,
            free_space_reserve: self.parsed("store.free_space_reserve", units::bytes)?,
        };
        let json = self.parsed("log.format", |text| match text {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err("\"text\" or \"json\"".to_owned()),
        })?;
        let log = LogConfig { json, level: self.settings.value("log.level").to_owned() };
        let name = self.settings.value("name").to_owned();
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
            trace: TraceConfig {
                endpoint: self.parsed("trace.endpoint", endpoint)?,
                service_name: self.settings.value("trace.service_name").to_owned(),
                per_second: self.parsed("trace.per_second", |text| units::count(text, 0, u32::MAX.into()))? as u32,
            },
            path: self.path.to_owned(),
            settings: self.settings,
        })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let fixed = Limits::default();
        Ok(Limits {
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
            slow: self.parsed("log.slow", |text| match text {
                "off" => Ok(None),
                text => units::duration(text).map(Some).map_err(|expected| format!("{expected}, or \"off\"")),
            })?,
            slow_keys: self.parsed("log.slow_keys", units::switch)?,
            turn: TurnBounds::default(),
            top: TopLimits {
                watch: self.parsed("top.watch", units::switch)?,
                keys: self.parsed("top.keys", units::switch)?,
            },
            // What all nodes, and the protocol, must agree on is no matter of taste.
            siblings_max: fixed.siblings_max,
            sibling_bytes_max: fixed.sibling_bytes_max,
            state_bytes_max: fixed.state_bytes_max,
            read_page_bytes: fixed.read_page_bytes,
            window_bytes: fixed.window_bytes,
        })
    }

    fn parsed<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        let value = self.settings.value(key);
        parse(value).map_err(|expected| ConfigError::BadValue {
            key: key.to_owned(),
            value: format!("{value:?}"),
            place: self.settings.source(key).to_string(),
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
        if self.settings.value(key).is_empty() { Ok(None) } else { self.file(key).map(Some) }
    }

    fn file(&self, key: &'static str) -> Result<PathBuf, ConfigError> {
        self.parsed(key, |text| {
            let base = match self.settings.source(key) {
                Source::Default | Source::File(_) => self.path.parent().unwrap_or(Path::new("")),
                Source::Environment(_) | Source::Flag(_) => Path::new(""),
            };
            if text.is_empty() { Err("a path".to_owned()) } else { Ok(base.join(text)) }
        })
    }
}

/// A collector's, if one is named.
fn endpoint(text: &str) -> Result<Option<String>, String> {
    match text.strip_prefix("http://") {
        _ if text.is_empty() => Ok(None),
        Some(place) if !place.trim_matches('/').is_empty() => Ok(Some(text.trim_end_matches('/').to_owned())),
        _ if text.starts_with("https://") => {
            Err("http://HOST:PORT of a collector on this machine: TLS is its task".to_owned())
        }
        _ => Err("http://HOST:PORT, as in \"http://127.0.0.1:4318\"".to_owned()),
    }
}

/// A longer value could not be kept even as the only one of its key.
const VALUE_BYTES_CEILING: u64 = driftless_proto::key::SIBLING_BYTES_MAX as u64;

/// A shorter segment would be full after a few batches.
const SEGMENT_MIN: u64 = 1 << 20;

/// A longer one is too much to be read at once by a start.
const SEGMENT_MAX: u64 = 1 << 30;

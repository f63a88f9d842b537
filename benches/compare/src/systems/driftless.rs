//! Driftless: `driftless dev --nodes 3`, its bucket `default` (n = 3, r = w = 2, durability `sync`), and its client crate.
//!
//! A put replaces what it has seen, which it proves with a context. As a well-behaved application does, the load keeps the context
//! that each put gave it for the next put of that key; or, with `--read-before-put`, reads for it each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use driftless_client::{Bucket, Client, Context, Identity};
use serde::Deserialize;

use super::{Found, Meaning, Program, Session, System, ready};
use crate::processes::{Ending, Process, free_ports, last_lines};
use crate::workload::key;

pub(crate) struct Driftless {
    dev: [Process; 1],
    cluster: PathBuf,
    pids: Vec<u32>,
    bucket: Bucket,
    contexts: Option<Contexts>,
}

pub(crate) struct DriftlessSession {
    bucket: Bucket,
    contexts: Option<Contexts>,
}

/// What was last seen of each key; no lock is ever waited for, as no two clients put the same key at a time.
type Contexts = Arc<[Mutex<Option<Context>>]>;

/// Finds the binary that was named, or that of this repository, which is built.
pub(crate) fn program(named: Option<&Path>) -> Result<Program, String> {
    let path = match named {
        Some(path) if path.is_file() => path.to_owned(),
        Some(path) => return Err(format!("there is no file {}", path.display())),
        None => built()?,
    };
    Program::of(path).map_err(|error| format!("{error:#}"))
}

pub(crate) fn meaning(read_before_put: bool) -> Meaning {
    let before = if read_before_put { "the key was read before; then " } else { "" };
    Meaning {
        reached_by: "one connection to each node".to_owned(),
        put: format!(
            "{before}it is synced to the disks of 2 of the key's 3 owners, and under way to the third. Any node takes it, there is no leader; \
             writes that have not seen each other are both kept. QUIC with mutual TLS everywhere"
        ),
        get: "what 2 of the 3 owners hold, merged".to_owned(),
    }
}

fn built() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::repository().join("target"), PathBuf::from);
    let path = target.join("release/driftless");
    // Also if it is there: it may be of yesterday.
    crate::progress::note(format_args!("building {} …", path.display()));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--bin", "driftless"]).current_dir(crate::repository());
    cargo.env("CARGO_TARGET_DIR", &target);
    match cargo.status() {
        Ok(status) if status.success() && path.is_file() => Ok(path),
        Ok(status) => Err(format!("{} could not be built: {status}", path.display())),
        Err(error) => Err(format!("{} cannot be built, since cargo cannot be run: {error}", path.display())),
    }
}

pub(crate) async fn start(program: &Program, dir: &Path, keys: u64, read_before_put: bool) -> Result<Driftless> {
    // Node i listens on the port 10 * i after the first (UDP), and has its pages on the one after that (TCP).
    let port = free_ports(&[0, 1, 10, 11, 20, 21])?;
    let (cluster, log) = (dir.join("cluster"), dir.join("dev.log"));
    let mut command = Command::new(&program.path);
    command.args(["dev", "--nodes", "3", "--base-port", &port.to_string(), "--dir"]).arg(&cluster);
    let mut dev = [Process::start("driftless dev", &mut command, log.clone(), Ending::Ask(STOP_PATIENCE))?];

    let client = ready("driftless", &mut dev, &log, async || {
        // Written when all nodes have started.
        if !cluster.join("nodes.json").is_file() {
            return Ok(None);
        }
        let client = connect(&cluster).await?;
        for node in ["n1", "n2", "n3"] {
            let status = client.status(node).await?;
            if !status.takes_writes || !status.is_ready() || status.peers.iter().any(|peer| !peer.connected) {
                return Ok(None);
            }
        }
        Ok(Some(client))
    })
    .await?;
    let bucket = client.bucket("default");
    let contexts = (!read_before_put).then(|| (0..keys).map(|_| Mutex::new(None)).collect());
    Ok(Driftless { dev, pids: pids(&cluster)?, cluster, bucket, contexts })
}

async fn connect(cluster: &Path) -> Result<Client> {
    /// Of `profile.toml`; paths start at its directory.
    #[derive(Deserialize)]
    struct Profile {
        seeds: Vec<String>,
        ca: PathBuf,
        cert: PathBuf,
        key: PathBuf,
    }
    let text = fs::read_to_string(cluster.join("profile.toml")).context("cannot read profile.toml")?;
    let profile: Profile = toml::from_str(&text).context("profile.toml cannot be understood")?;
    let identity =
        Identity::from_pem_files(cluster.join(profile.ca), cluster.join(profile.cert), cluster.join(profile.key))?;
    Ok(Client::builder().seeds(profile.seeds).identity(identity).connect().await?)
}

/// Of the nodes; `dev` itself only watches them.
fn pids(cluster: &Path) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    struct Node {
        pid: Option<u32>,
    }
    let text = fs::read(cluster.join("nodes.json")).context("cannot read nodes.json")?;
    let nodes: Vec<Node> = serde_json::from_slice(&text).context("nodes.json cannot be understood")?;
    let pids: Vec<u32> = nodes.iter().filter_map(|node| node.pid).collect();
    ensure!(pids.len() == 3, "{} of 3 nodes run", pids.len());
    Ok(pids)
}

impl System for Driftless {
    type Session = DriftlessSession;

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    fn check(&mut self) -> Result<()> {
        self.dev[0].check()?;
        for (i, pid) in (1..).zip(&self.pids) {
            // `dev` goes on without it, and waits for it, so that its number is gone.
            let log = self.cluster.join(format!("n{i}/log.txt"));
            ensure!(Path::new(&format!("/proc/{pid}")).exists(), "driftless n{i} ended; {}", last_lines(&log));
        }
        Ok(())
    }

    async fn session(&self, _client: usize) -> Result<DriftlessSession> {
        Ok(DriftlessSession { bucket: self.bucket.clone(), contexts: self.contexts.clone() })
    }
}

impl Session for DriftlessSession {
    async fn put(&mut self, number: u64, value: Bytes) -> Result<(), String> {
        let Some(contexts) = &self.contexts else {
            let done = self.bucket.put_replacing(key(number), value).send().await;
            return done.map(|_| ()).map_err(|error| error.to_string());
        };
        let held = &contexts[number as usize];
        let context = held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let done = self.bucket.put(key(number), value).context(context).send().await;
        let stored = done.map_err(|error| error.to_string())?;
        let context = match stored.context() {
            Some(context) => Some(context),
            // The put before was stamped twice, and this one replaced one of the two: the next one replaces both.
            None => {
                let read = self.bucket.get(key(number)).send().await.map_err(|error| error.to_string())?;
                read.context().cloned()
            }
        };
        *held.lock().unwrap_or_else(PoisonError::into_inner) = context;
        Ok(())
    }

    async fn get(&mut self, number: u64) -> Result<Found, String> {
        let read = self.bucket.get(key(number)).send().await.map_err(|error| error.to_string())?;
        let mut values = read.values();
        let first = values.next().ok_or_else(|| "there is no value".to_owned())?;
        Ok(Found { length: first.len(), siblings: values.next().is_some() })
    }
}

/// Longer than `dev` itself waits for its nodes before it kills them.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_is_not_there_is_said() {
        let named = program(Some(Path::new("/not/there/driftless")));
        assert_eq!(named.expect_err("it is absent"), "there is no file /not/there/driftless");
    }
}

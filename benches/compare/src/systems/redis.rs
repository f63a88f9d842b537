//! Redis: a primary and two replicas, all with an append-only file that is synced before anything is answered. A put is `SET` and
//! `WAIT 1` in one pipeline: on the primary's disk, and received by a replica. A get asks the primary.
//!
//! What `WAIT` promises is that a replica has processed the write. A replica that syncs its file always, as these do, does so before it
//! says that (seen with strace, 7.0.15), but that is nowhere promised; `WAITAOF` promises it.
//!
//! `WAIT` holds up whatever comes after it on its connection, and covers only what was sent on it before. So each client of the load
//! puts on a connection of its own; gets share some, as the connections of the `redis` crate are meant to be.

use std::path::Path;
use std::process::Command;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, cmd, pipe};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Found, Meaning, Program, REQUEST_TIMEOUT, Session, System, ready};
use crate::processes::{Ending, Process, free_ports};
use crate::workload::key;

/// What a put waits for beyond the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// WAIT 1: that a replica has received it
    Received,
    /// WAITAOF 1 1: that a replica has it on its disk (Redis 7.2 and later)
    Synced,
}

pub(crate) struct Redis {
    servers: Vec<Process>,
    pids: Vec<u32>,
    primary: Client,
    shared: Vec<MultiplexedConnection>,
    wait: Wait,
}

pub(crate) struct RedisSession {
    own: MultiplexedConnection,
    shared: MultiplexedConnection,
    wait: Wait,
}

pub(crate) fn meaning(connections: u16, wait: Wait) -> Meaning {
    let replica = match wait {
        Wait::Received => {
            "it is synced to the primary's disk, and one of two replicas has received it (WAIT 1; its disk is not promised)"
        }
        Wait::Synced => "it is synced to the disks of the primary and of one of two replicas (WAITAOF 1 1)",
    };
    let shared = if connections == 1 { "1 that all".to_owned() } else { format!("{connections} that") };
    Meaning {
        reached_by: format!("a connection for each client that puts, {shared} gets share"),
        put: format!("{replica}. A failover may undo it. TCP without TLS"),
        get: "what the primary holds; nobody else is asked".to_owned(),
    }
}

/// Why a put cannot wait in that way, if so.
pub(crate) fn cannot_wait(program: &Program, wait: Wait) -> Option<String> {
    let known = release(&program.version).is_some_and(|release| release >= (7, 2));
    (wait == Wait::Synced && !known).then(|| format!("WAITAOF needs Redis 7.2; this is {}", program.version))
}

/// Of `Redis server v=7.0.15 sha=…`.
fn release(version: &str) -> Option<(u32, u32)> {
    let (_, numbers) = version.split_once("v=")?;
    let mut numbers = numbers.split(['.', ' ']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(crate) async fn start(program: &Program, dir: &Path, connections: usize, wait: Wait) -> Result<Redis> {
    let first = free_ports(&[0, 1, 2])?;
    let mut servers = Vec::new();
    for i in 0..3 {
        let name = if i == 0 { "primary".to_owned() } else { format!("replica{i}") };
        let data = dir.join(&name);
        std::fs::create_dir(&data)?;
        let mut command = Command::new(&program.path);
        command.args(["--bind", "127.0.0.1", "--port", &(first + i).to_string(), "--dir"]).arg(&data);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        // Replicas are there from the beginning; the primary need not wait for more of them.
        command.args(["--repl-diskless-sync-delay", "0"]);
        if i > 0 {
            command.args(["--replicaof", "127.0.0.1", &first.to_string()]);
        }
        let log = dir.join(format!("{name}.log"));
        servers.push(Process::start(&format!("redis {name}"), &mut command, log, Ending::Kill)?);
    }

    let clients = (0..3).map(|i| Ok(Client::open(info(first + i)?)?)).collect::<Result<Vec<Client>>>()?;
    ready("redis", &mut servers, &dir.join("primary.log"), async || {
        for (i, client) in clients.iter().enumerate() {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let info: String = cmd("INFO").query_async(&mut connection).await?;
            let shows = |line: &str| info.lines().any(|found| found.trim_end() == line);
            let linked = if i == 0 { "connected_slaves:2" } else { "master_link_status:up" };
            // After its first copy a replica writes its file anew.
            if !shows(linked) || !shows("aof_rewrite_in_progress:0") || !shows("aof_rewrite_scheduled:0") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    let primary = clients.into_iter().next().context("there are three")?;
    let mut shared = Vec::new();
    for _ in 0..connections {
        shared.push(connect(&primary).await?);
    }
    let pids = servers.iter().map(Process::pid).collect();
    Ok(Redis { servers, pids, primary, shared, wait })
}

fn info(port: u16) -> Result<ConnectionInfo> {
    // As the clients of the others do: nothing that was written waits for an acknowledgement of what was sent before.
    let settings = TcpSettings::default().set_nodelay(true);
    Ok(format!("redis://127.0.0.1:{port}/").into_connection_info()?.set_tcp_settings(settings))
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    // Half a second by default.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(REQUEST_TIMEOUT));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

impl System for Redis {
    type Session = RedisSession;

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    fn check(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Process::check)
    }

    async fn session(&self, client: usize) -> Result<RedisSession> {
        let own = connect(&self.primary).await?;
        Ok(RedisSession { own, shared: self.shared[client % self.shared.len()].clone(), wait: self.wait })
    }
}

impl Session for RedisSession {
    async fn put(&mut self, number: u64, value: Bytes) -> Result<(), String> {
        let mut pipeline = pipe();
        pipeline.cmd("SET").arg(key(number)).arg(&*value).ignore();
        let enough = match self.wait {
            Wait::Received => {
                let (replicas,): (u32,) =
                    pipeline.cmd("WAIT").arg(1).arg(WAIT_MS).query_async(&mut self.own).await.map_err(text)?;
                replicas >= 1
            }
            Wait::Synced => {
                pipeline.cmd("WAITAOF").arg(1).arg(1).arg(WAIT_MS);
                let ((local, replicas),): ((u32, u32),) = pipeline.query_async(&mut self.own).await.map_err(text)?;
                local >= 1 && replicas >= 1
            }
        };
        if enough { Ok(()) } else { Err(format!("no replica acknowledged within {WAIT_MS} ms")) }
    }

    async fn get(&mut self, number: u64) -> Result<Found, String> {
        let value: Option<Vec<u8>> = cmd("GET").arg(key(number)).query_async(&mut self.shared).await.map_err(text)?;
        value.map(|value| Found::one(value.len())).ok_or_else(|| "there is no value".to_owned())
    }
}

fn text(error: ::redis::RedisError) -> String {
    error.to_string()
}

/// Shorter than a request may take, so that it is Redis that says so.
const WAIT_MS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn waiting_for_a_replicas_disk_needs_a_release_that_can() {
        let program = |version: &str| Program { path: PathBuf::new(), version: version.to_owned() };
        let old = program("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64");
        let why = cannot_wait(&old, Wait::Synced).expect("it is too old");
        assert!(why.starts_with("WAITAOF needs Redis 7.2"), "{why}");
        assert_eq!(cannot_wait(&old, Wait::Received), None);
        assert_eq!(cannot_wait(&program("Redis server v=7.2.4 sha=00000000:0"), Wait::Synced), None);
        assert_eq!(cannot_wait(&program("Redis server v=8.0.0 sha=00000000:0"), Wait::Synced), None);
        assert!(cannot_wait(&program("something else"), Wait::Synced).is_some());
    }
}

//! The systems that are compared, each as three processes on this machine, and what the load does to them: a [`System`] makes
//! [`Session`]s, a session puts and gets. What is particular to one system is in its file, and nowhere else.

pub(crate) mod driftless;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod redis;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::processes::{self, Process};

/// Which system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    Driftless,
    Etcd,
    Redis,
}

impl Name {
    /// All, in the order of tables.
    pub(crate) const ALL: [Name; 3] = [Name::Driftless, Name::Etcd, Name::Redis];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Name::Driftless => "driftless",
            Name::Etcd => "etcd",
            Name::Redis => "redis",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Name::Driftless => "Driftless",
            Name::Etcd => "etcd",
            Name::Redis => "Redis",
        }
    }
}

/// Which members of etcd the load speaks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EtcdMembers {
    /// The leader, as it is at the start
    Leader,
    /// All of them, as the client does that is told all addresses
    All,
}

/// What is compared, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Meaning {
    /// How the load reaches it.
    pub(crate) reached_by: String,
    /// What is where when a put is acknowledged.
    pub(crate) put: String,
    pub(crate) get: String,
}

/// A system that runs. Dropped, its processes are ended.
pub(crate) trait System {
    type Session: Session;

    /// Of all processes that serve.
    fn pids(&self) -> &[u32];

    /// An error if one of its processes has ended.
    fn check(&mut self) -> Result<()>;

    /// What one client of the load uses, connected.
    async fn session(&self, client: usize) -> Result<Self::Session>;
}

/// One client's way to a system. An error says in words what happened; it is counted.
pub(crate) trait Session: Send + 'static {
    /// Writes over what the key holds. It is over when it is acknowledged.
    fn put(&mut self, key: u64, value: Bytes) -> impl Future<Output = Result<(), String>> + Send;

    /// That there is no value is an error.
    fn get(&mut self, key: u64) -> impl Future<Output = Result<Found, String>> + Send;
}

/// What a get has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Bytes of the value.
    pub(crate) length: usize,
    /// There is another beside it. Only Driftless keeps several, of writes that did not see each other.
    pub(crate) siblings: bool,
}

impl Found {
    pub(crate) fn one(length: usize) -> Found {
        Found { length, siblings: false }
    }
}

/// A system's program, as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Program {
    pub(crate) fn of(path: PathBuf) -> Result<Program> {
        let version = processes::version(&path)?;
        Ok(Program { path, version })
    }
}

/// Finds a program of the system's packages, or says why it is not there, and what to do.
pub(crate) fn installed(program: &str, package: &str) -> Result<Program, String> {
    let absent = || format!("there is no {program} on the PATH (Debian: apt install {package})");
    let path = processes::find(program).ok_or_else(absent)?;
    Program::of(path).map_err(|error| format!("{error:#}"))
}

/// Tries until it succeeds; gives up when a process has ended, or after [`START_PATIENCE`].
async fn ready<T>(
    what: &str,
    processes: &mut [Process],
    log: &Path,
    attempt: impl AsyncFn() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = None;
    loop {
        match attempt().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        for process in &mut *processes {
            process.check()?;
        }
        if began.elapsed() > START_PATIENCE {
            let why = last.map_or_else(String::new, |error| format!(" ({error:#})"));
            bail!("{what} was not ready within {} s{why}; {}", START_PATIENCE.as_secs(), processes::last_lines(log));
        }
        tokio::time::sleep(START_INTERVAL).await;
    }
}

/// How long one request may take before it is an error: as long as Driftless gives one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const START_PATIENCE: Duration = Duration::from_secs(60);

const START_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_said_with_what_to_do() {
        assert_eq!(
            installed("no-such-server", "no-such-package").expect_err("it is absent"),
            "there is no no-such-server on the PATH (Debian: apt install no-such-package)"
        );
    }
}

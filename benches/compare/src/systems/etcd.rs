//! etcd: three members. Its defaults are kept: a put is on the disks of a majority when it is acknowledged, a get is linearizable.
//!
//! The load speaks to the leader alone unless it is told otherwise: every request goes there anyway, and what another member must
//! pass on costs time and two processors more. If the leader changes while it is measured, requests are passed on from then on.
//!
//! Quotas alone differ: at the default of 2 GiB etcd would refuse writes during a longer run, since it keeps all revisions until
//! it is told to compact them. Nothing tells it to here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use etcd_client::{Client, ConnectOptions};

use super::{EtcdMembers, Found, Meaning, Program, REQUEST_TIMEOUT, Session, System, ready};
use crate::processes::{Ending, Process, free_ports};
use crate::workload::key;

pub(crate) struct Etcd {
    members: Vec<Process>,
    pids: Vec<u32>,
    /// Each is a connection to each member that is spoken to.
    clients: Vec<Client>,
}

pub(crate) struct EtcdSession {
    client: Client,
}

pub(crate) fn meaning(connections: u16, spoken_to: EtcdMembers) -> Meaning {
    let each = match spoken_to {
        EtcdMembers::Leader => "the leader",
        EtcdMembers::All => "each member",
    };
    Meaning {
        reached_by: format!("{connections} connection{} to {each}", if connections == 1 { "" } else { "s" }),
        put: "it is synced to the logs of 2 of 3 members, and applied. The leader gives all writes one order. TCP without TLS".to_owned(),
        get: "linearizable: the leader has made sure that a majority still follows it".to_owned(),
    }
}

pub(crate) async fn start(program: &Program, dir: &Path, connections: usize, spoken_to: EtcdMembers) -> Result<Etcd> {
    let offsets = [0, 1, 2, 3, 4, 5];
    let first = free_ports(&offsets)?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<String> = (0..3).map(|i| format!("m{i}={}", url(first + 3 + i))).collect();
    let cluster = cluster.join(",");
    let mut members = Vec::new();
    for i in 0..3 {
        let (client, peer, name) = (url(first + i), url(first + 3 + i), format!("m{i}"));
        let mut command = Command::new(&program.path);
        // It takes every option from a variable as well.
        for (variable, _) in
            std::env::vars_os().filter(|(variable, _)| variable.as_encoded_bytes().starts_with(b"ETCD"))
        {
            command.env_remove(variable);
        }
        command.arg("--data-dir").arg(dir.join(&name));
        command.args(["--name", &name, "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
        command.args(["--quota-backend-bytes", &QUOTA.to_string()]);
        members.push(Process::start(
            &format!("etcd {name}"),
            &mut command,
            dir.join(format!("{name}.log")),
            Ending::Kill,
        )?);
    }

    let endpoints: Vec<String> = (0..3).map(|i| url(first + i)).collect();
    let leader = ready("etcd", &mut members, &dir.join("m0.log"), async || leader(&endpoints).await).await?;
    let endpoints = match spoken_to {
        EtcdMembers::Leader => vec![leader],
        EtcdMembers::All => endpoints,
    };
    let mut clients = Vec::new();
    for _ in 0..connections {
        let options = ConnectOptions::new().with_timeout(REQUEST_TIMEOUT);
        clients.push(Client::connect(&endpoints, Some(options)).await?);
    }
    let pids = members.iter().map(Process::pid).collect();
    Ok(Etcd { members, pids, clients })
}

/// The endpoint of the leader, once all members know it.
async fn leader(endpoints: &[String]) -> Result<Option<String>> {
    let mut leader = None;
    for endpoint in endpoints {
        let options = ConnectOptions::new().with_connect_timeout(PROBE).with_timeout(PROBE);
        let status = Client::connect([endpoint], Some(options)).await?.status().await?;
        if status.leader() == 0 {
            return Ok(None);
        }
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            leader = Some(endpoint.clone());
        }
    }
    Ok(leader)
}

impl System for Etcd {
    type Session = EtcdSession;

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    fn check(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Process::check)
    }

    async fn session(&self, client: usize) -> Result<EtcdSession> {
        Ok(EtcdSession { client: self.clients[client % self.clients.len()].clone() })
    }
}

impl Session for EtcdSession {
    async fn put(&mut self, number: u64, value: Bytes) -> Result<(), String> {
        self.client.put(key(number), value, None).await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn get(&mut self, number: u64) -> Result<Found, String> {
        let found = self.client.get(key(number), None).await.map_err(|error| error.to_string())?;
        found.kvs().first().map(|pair| Found::one(pair.value().len())).ok_or_else(|| "there is no value".to_owned())
    }
}

/// What etcd advises as the most.
const QUOTA: u64 = 8 << 30;

const PROBE: Duration = Duration::from_secs(2);

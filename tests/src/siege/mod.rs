//! Whether anybody can take a node down: a cluster of real processes, those who try, and a client beside them.
//!
//! ```text
//! Cluster   three `driftless serve` with a small budget of memory
//! Good      clients that read and write, and one that connects anew again and again
//! Attack    strangers and clients with a certificate, one kind after the other
//! run       quiet ─▶ attack ─▶ quiet ─▶ next     memory of the nodes, latency, refusals: before and during
//! ```
//! What must hold: no node ends, none takes up more than before and its budget and [`SLACK`], no request of the good client fails
//! in the end, and at least 95 of 100 new connections are let in. How long the good client waits is shown. The attackers have the
//! lowest priority on this machine, as if they were on another one.

mod attack;
mod good;
mod guest;
mod options;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftless_client::Client;
use tokio::runtime::Handle;

use crate::processes::Cluster;
use crate::processes::page::page;

pub use attack::Attack;
pub use good::Seen;
pub use options::{Options, USAGE};

use attack::{LARGE_KEY, Target};
use good::Good;

/// How one attack went.
pub struct Outcome {
    attack: Attack,
    /// Mebibytes of the node that took up most: before, and at most while it went on.
    memory: (u64, u64),
    budget: u64,
    before: Seen,
    during: Seen,
    /// What the nodes counted meanwhile.
    counted: Counted,
    /// Nodes that had ended.
    gone: Vec<String>,
}

impl Outcome {
    /// Whether the nodes have met what the attack is about.
    fn has_bitten(&self) -> bool {
        match self.attack {
            Attack::HalfOpen => self.counted.retried > 0,
            Attack::Connections => self.counted.refused > 0,
            Attack::Admin => true,
            _ => self.counted.client_bytes > 0,
        }
    }

    /// What of it must not be.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if !self.gone.is_empty() {
            broken.push(format!("{} ended", self.gone.join(", ")));
        }
        let (before, most) = self.memory;
        if most > before + self.budget + SLACK {
            broken.push(format!("a node took up {most} MiB, from {before} with a budget of {}", self.budget));
        }
        if self.during.failed > 0 {
            let why = self.during.failures.first().map_or("", String::as_str);
            broken.push(format!(
                "{} requests of a client that did nothing wrong failed, one of them: {why}",
                self.during.failed
            ));
        }
        if !self.has_bitten() {
            broken.push("nothing was attacked: the nodes have counted none of it".to_owned());
        }
        let (tried, let_in) = self.during.connections;
        if let_in * 100 < tried * 95 {
            broken.push(format!("of {tried} new connections {let_in} were let in"));
        }
        broken
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, during) = (&self.before, &self.during);
        let connections = during.connections;
        write!(
            f,
            "{:<14} {:>5} → {:>5} MiB   p50 {:>6.1} → {:>7.1} ms   p99 {:>6.1} → {:>7.1} ms   {:>6} done, {} failed   {:>4} of {:>4} let in   {:>7} refused, {:>8} overloaded",
            self.attack.name(),
            self.memory.0,
            self.memory.1,
            before.percentile_ms(50.0),
            during.percentile_ms(50.0),
            before.percentile_ms(99.0),
            during.percentile_ms(99.0),
            during.latency.len(),
            during.failed,
            connections.1,
            connections.0,
            self.counted.refused,
            self.counted.overloaded,
        )?;
        for broken in self.broken() {
            write!(f, "\n  BROKEN: {broken}")?;
        }
        Ok(())
    }
}

/// Makes each attack against a cluster of its own, and tells how it went as soon as that is known.
pub async fn run(options: &Options, mut tell: impl FnMut(&Outcome)) -> Vec<Outcome> {
    let memory = format!("{}MiB", options.memory_mib);
    let settings = [("DRIFTLESS__LIMITS__MEMORY", memory.as_str())];
    let mut outcomes = Vec::new();
    let machine = attack::machine();
    for &attack in &options.attacks {
        let cluster = Cluster::start_with(NODES, &settings);
        let target = target(&cluster, machine.handle().clone());
        let client = cluster.client().await;
        client.bucket("default").put(LARGE_KEY, vec![7; 4 << 20]).await.expect("nobody is in the way yet");
        let outcome = one(&cluster, &client, &target, attack, options).await;
        tell(&outcome);
        outcomes.push(outcome);
    }
    machine.shutdown_background();
    outcomes
}

async fn one(cluster: &Cluster, client: &Client, target: &Target, attack: Attack, options: &Options) -> Outcome {
    let good = Good::begin(client, target);
    tokio::time::sleep(options.quiet).await;
    let before = good.end().await;
    let memory_before = largest(cluster);
    let counted = Counted::by(&target.admins);

    let good = Good::begin(client, target);
    let attackers = attack.begin(target);
    let (mut most, mut client_bytes) = (0, 0);
    let until = Instant::now() + options.attack;
    for round in 0.. {
        if Instant::now() >= until {
            break;
        }
        most = most.max(largest(cluster));
        if round % 10 == 5 {
            client_bytes = client_bytes.max(Counted::by(&target.admins).client_bytes);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let during = good.end().await;
    drop(attackers);
    // Their connections are given up, and the nodes have answered what was asked.
    tokio::time::sleep(options.quiet).await;
    let after = Counted::by(&target.admins);
    Outcome {
        attack,
        memory: (memory_before, most),
        budget: options.memory_mib,
        before,
        during,
        counted: Counted {
            refused: after.refused.saturating_sub(counted.refused),
            overloaded: after.overloaded.saturating_sub(counted.overloaded),
            retried: after.retried.saturating_sub(counted.retried),
            client_bytes,
        },
        gone: cluster.gone(),
    }
}

fn target(cluster: &Cluster, machine: Handle) -> Target {
    let read = |name: &str| Arc::new(std::fs::read_to_string(cluster.file(name)).expect("dev has written it"));
    let (nodes, admins) = cluster.addresses().into_iter().unzip();
    Target { authority: read("ca.pem"), authority_key: read("ca.key"), nodes, admins, machine }
}

/// Mebibytes of the node that takes up most.
fn largest(cluster: &Cluster) -> u64 {
    cluster.resident_kib().into_iter().max().unwrap_or(0) / 1024
}

/// What nodes have counted in all.
#[derive(Default)]
struct Counted {
    refused: u64,
    overloaded: u64,
    /// Handshakes that had to prove their address first.
    retried: u64,
    /// Held of requests and answers.
    client_bytes: u64,
}

impl Counted {
    fn by(admins: &[SocketAddr]) -> Counted {
        let mut counted = Counted::default();
        for text in admins.iter().filter_map(|admin| Some(page(*admin, "/metrics")?.1)) {
            let value = |name: &str| {
                let line = text.lines().find(|line| line.split(' ').next() == Some(name));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |value| value as u64)
            };
            counted.refused += value("driftless_connections_refused_total");
            counted.overloaded += value("driftless_overloaded_total");
            counted.retried += value("driftless_handshakes_retried_total");
            counted.client_bytes += value("driftless_client_bytes");
        }
        counted
    }
}

const NODES: u16 = 3;

/// Mebibytes that a node may take up beyond its budget: handshakes, the allocator, its store at work.
pub const SLACK: u64 = 64;

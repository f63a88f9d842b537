//! What strangers and clients do to a cluster to take it down. Each goes on until its task is ended.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use driftless_node::net::certificates::CertificateAuthority;
use driftless_proto::WriteId;
use driftless_proto::client::{AaeCommand, Request};
use driftless_proto::frame::FRAME_MAX;
use futures::future::join_all;
use rustix::process::setpriority_process;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use super::guest::{Guest, Raw};
use crate::by_hand::{get, put};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attack {
    /// First packets of handshakes that are never gone on with, some 700 kB a second at each node.
    HalfOpen,
    /// Connections to the admin port that send half a request.
    Admin,
    /// Small requests with large answers, each on a stream of its own; no answer is read.
    Unread,
    /// Gets of a large value; no answer is read.
    UnreadValues,
    /// Streams that announce a frame of the longest kind and send ten bytes.
    Announced,
    /// Puts of 4 MiB on twelve connections to each node.
    Uploads,
    /// As many connections as a node takes.
    Connections,
    /// Small puts on twelve connections to each node, a thousand at a time on each.
    Busy,
}

/// Whom it is made against.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) authority: Arc<String>,
    pub(super) authority_key: Arc<String>,
    pub(super) nodes: Vec<SocketAddr>,
    pub(super) admins: Vec<SocketAddr>,
    /// Where the attackers are.
    pub(super) machine: Handle,
}

impl Attack {
    /// All of them, with the names that people give them by.
    pub const ALL: [(&str, Attack); 8] = [
        ("half-open", Attack::HalfOpen),
        ("admin", Attack::Admin),
        ("unread", Attack::Unread),
        ("unread-values", Attack::UnreadValues),
        ("announced", Attack::Announced),
        ("uploads", Attack::Uploads),
        ("connections", Attack::Connections),
        ("busy", Attack::Busy),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Attack::ALL.into_iter().find(|(_, attack)| *attack == self).map_or("", |(name, _)| name)
    }

    /// Begins it. It ends when this is dropped.
    pub(super) fn begin(self, target: &Target) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let _entered = target.machine.enter();
        // Of several, since one alone may take half of anything.
        for guest in ["greedy", "grasping", "grabbing"].map(|name| target.guest(name)) {
            for (&node, &admin) in target.nodes.iter().zip(&target.admins) {
                let guest = guest.clone();
                match self {
                    Attack::HalfOpen => drop(tasks.spawn(half_open(guest, node))),
                    Attack::Admin => drop(tasks.spawn(half_a_request(admin))),
                    Attack::Unread => drop(tasks.spawn(unread(guest, node))),
                    Attack::UnreadValues => drop(tasks.spawn(unread_values(guest, node))),
                    Attack::Announced => drop(tasks.spawn(announced(guest, node))),
                    Attack::Connections => drop(tasks.spawn(connections(guest, node))),
                    Attack::Uploads => (0..4).for_each(|at| drop(tasks.spawn(uploads(guest.clone(), node, at)))),
                    Attack::Busy => (0..4).for_each(|_| drop(tasks.spawn(busy(guest.clone(), node)))),
                }
            }
        }
        tasks
    }
}

impl Target {
    /// A client of the cluster under this name.
    pub(super) fn guest(&self, name: &str) -> Guest {
        let authority = CertificateAuthority::load(&self.authority, &self.authority_key).expect("dev has made one");
        Guest::new(&authority, name)
    }
}

/// The attackers' machine: threads of their own, with the lowest priority. As if it were another one: what they do for themselves takes
/// no processor from the nodes that wants it, and what they make the nodes do does.
pub(super) fn machine() -> Runtime {
    let last = || {
        // Where that is not allowed, the attackers take part in what there is.
        let _ = setpriority_process(None, 19);
    };
    let built = Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(last).build();
    built.expect("a runtime can be made")
}

/// First packets come from an endpoint that calls where nobody answers, and go on from a socket that nobody reads. Only the first of
/// each call does: what would end the handshake, or repeat it, stays.
async fn half_open(guest: Guest, node: SocketAddr) {
    let trap = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let bait = trap.local_addr().expect("it is bound");
    let sender = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let (mut packet, mut begun) = (vec![0; 2048], HashSet::new());
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        pace.tick().await;
        let calling = guest.call(bait);
        while let Ok(Ok((length, _))) =
            tokio::time::timeout(Duration::from_millis(20), trap.recv_from(&mut packet)).await
        {
            if destination(&packet[..length]).is_some_and(|id| begun.insert(id.to_vec())) {
                let _ = sender.send_to(&packet[..length], node).await;
                break;
            }
        }
        drop(calling);
    }
}

/// The connection that a packet with a long header is for (RFC 8999, section 5.1).
fn destination(packet: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*packet.get(5)?);
    packet.get(6..6 + length)
}

async fn half_a_request(admin: SocketAddr) {
    loop {
        let connect = (0..100).map(|_| async {
            let mut stream =
                tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(admin)).await.ok()?.ok()?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127").await.ok()?;
            Some(stream)
        });
        let held = join_all(connect).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held);
    }
}

async fn unread(guest: Guest, node: SocketAddr) {
    loop {
        let Some(mut raw) = connect(&guest, node).await else { continue };
        while raw.send_alone(Request::Aae(AaeCommand::Status)).await.is_some() {}
    }
}

async fn unread_values(guest: Guest, node: SocketAddr) {
    loop {
        let Some(mut raw) = connect(&guest, node).await else { continue };
        loop {
            let frame = raw.frame(get(LARGE_KEY));
            if raw.send.write_all(&frame).await.is_err() {
                break;
            }
        }
    }
}

async fn announced(guest: Guest, node: SocketAddr) {
    let one = |guest: Guest| async move {
        let Some(raw) = connect(&guest, node).await else { return };
        let mut held = Vec::new();
        while let Ok(mut stream) = raw.connection.open_uni().await {
            let announced = (FRAME_MAX as u32).to_le_bytes();
            if stream.write_all(&announced).await.is_err() || stream.write_all(&[7; 10]).await.is_err() {
                return;
            }
            held.push(stream);
        }
    };
    loop {
        join_all((0..8).map(|_| one(guest.clone()))).await;
    }
}

async fn uploads(guest: Guest, node: SocketAddr, at: usize) {
    loop {
        let Some(mut raw) = connect(&guest, node).await else { continue };
        // The same keys again and again, until they hold as much as they may: the disk is not what is under siege.
        for number in 0.. {
            let key = format!("upload {at} {}", number % 4);
            if raw.send_alone(put(&key, vec![7; 4 << 20], WriteId(rand::random()))).await.is_none() {
                break;
            }
        }
    }
}

async fn connections(guest: Guest, node: SocketAddr) {
    let mut held = Vec::new();
    loop {
        match guest.connect(node).await {
            Some(raw) => held.push(raw),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        held.retain(|raw: &Raw| raw.connection.close_reason().is_none());
    }
}

async fn busy(guest: Guest, node: SocketAddr) {
    loop {
        let Some(mut raw) = connect(&guest, node).await else { continue };
        let keys: u64 = rand::random();
        for round in 0.. {
            let frame = |number| {
                raw.frame(put(&format!("busy {keys} {round} {number}"), vec![7; 100], WriteId(rand::random())))
            };
            let frames: Vec<u8> = (0..1_000).flat_map(frame).collect();
            if raw.send.write_all(&frames).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn connect(guest: &Guest, node: SocketAddr) -> Option<Raw> {
    let raw = guest.connect(node).await;
    if raw.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    raw
}

/// What [`Attack::UnreadValues`] asks for.
pub(super) const LARGE_KEY: &str = "large";

//! A power cut: what the device holds stays, what only the system's memory held is gone.
//!
//! `kill -9` takes nothing that a process has written, synced or not: the page cache outlives it. Here the processes
//! are stopped, the images beneath their mounted file systems copied, the processes killed, and the copies mounted in
//! place of the images.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use driftless_client::{Client, Profile};

use super::shape::members;
use crate::fleet::power_cut::cut;
use crate::fleet::{Disk, Fleet, Node};
use crate::processes::strace;

/// What [`prove`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Writes acknowledged before the cut.
    pub acknowledged: usize,
    /// Those of them that no replica has after it.
    pub lost: usize,
    /// Nodes that did not start again, with what they said.
    pub refused: Vec<String>,
}

/// What the machine lacks for [`prove`], if it lacks something.
pub fn missing(syncing: bool) -> Option<String> {
    Disk::missing().or_else(|| if syncing { None } else { strace::missing() })
}

/// Writes for a second to three nodes, cuts the power of all of them, starts them again and looks for what was
/// acknowledged. Where they are not `syncing`, no sync happens, and each is said to have.
///
/// # Panics
/// If the cluster does not start the first time.
pub fn prove(syncing: bool) -> Proof {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut fleet = Fleet::create(dir.path(), &members(3), Some(DISK_BYTES));
    fleet.start_all().expect("a new cluster starts");
    if !syncing {
        // Only what is written from now on is at stake, not the first files of the store.
        let strace = strace::lying_syncs();
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        for node in &mut fleet.nodes {
            node.stop().expect("a node stops when asked to");
            node.start_under(&strace);
        }
        fleet.nodes.iter_mut().try_for_each(Node::wait_serving).expect("they start under strace");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    let written = runtime.block_on(async {
        let client = fleet.client(Profile::new()).await;
        let written = write(&client, Duration::from_secs(1)).await;
        // No goodbyes: the nodes shall be cut in the middle of what they do.
        drop(client);
        written
    });
    cut(&mut fleet.nodes.iter_mut().collect::<Vec<_>>(), |_| false).expect("the disks stand still");
    let mut proof = Proof { acknowledged: written.len(), lost: 0, refused: Vec::new() };
    fleet.nodes.iter_mut().for_each(Node::start);
    proof.refused.extend(fleet.nodes.iter_mut().filter_map(|node| node.wait_serving().err()));
    if proof.refused.len() < 2 {
        proof.lost = runtime.block_on(async {
            let client = fleet.client(Profile::new()).await;
            let lost = lost(&client, &written).await;
            client.close().await;
            lost
        });
    }
    proof
}

async fn write(client: &Client, time: Duration) -> BTreeMap<String, String> {
    let until = Instant::now() + time;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let bucket = client.bucket("default");
        writers.spawn(async move {
            let mut written = Vec::new();
            for number in 0.. {
                if Instant::now() > until {
                    break;
                }
                let (key, value) = (format!("{writer}/{number}"), format!("{writer}.{number}"));
                if bucket.put(&key, &value).send().await.is_ok() {
                    written.push((key, value));
                }
            }
            written
        });
    }
    writers.join_all().await.into_iter().flatten().collect()
}

async fn lost(client: &Client, written: &BTreeMap<String, String>) -> usize {
    // Nodes find each other first.
    let until = Instant::now() + Duration::from_secs(20);
    let bucket = client.bucket("default");
    let mut lost = 0;
    for (key, value) in written {
        loop {
            match bucket.get(key).r(3).sloppy(false).send().await {
                Ok(read) => {
                    lost += usize::from(!read.values().any(|found| found == value.as_bytes()));
                    break;
                }
                Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
    }
    lost
}

const WRITERS: usize = 16;
const DISK_BYTES: u64 = 256 << 20;

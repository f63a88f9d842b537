//! What must come about by itself once all faults are healed, and what every replica holds then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use driftless_client::{AaeCommand, Client, Liveness};
use futures::stream::{self, StreamExt as _};

use super::check::Left;
use super::value::decode;

/// Waits until nobody writes hints or repairs any more: all nodes see each other, none holds anything for another, and
/// every two replicas have compared everything since the wait began and found it equal. How long that took, or what was
/// still not so.
pub(super) async fn converge(client: &Client, names: &[String]) -> Result<Duration, String> {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < CONVERGENCE_MAX {
        match unsettled(client, names, began).await {
            None => return Ok(began.elapsed()),
            Some(what) => last = what,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(format!("not converged after {} s: {last}", CONVERGENCE_MAX.as_secs()))
}

/// Waits until all nodes see each other and think each other alive.
pub(super) async fn gather(client: &Client, names: &[String]) -> Result<Duration, String> {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < GATHERING_MAX {
        match apart(client, names).await {
            None => return Ok(began.elapsed()),
            Some(what) => last = what,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nodes do not find each other within {} s: {last}", GATHERING_MAX.as_secs()))
}

async fn apart(client: &Client, names: &[String]) -> Option<String> {
    for name in names {
        match client.status(name).await {
            Err(error) => return Some(format!("{name}: {error}")),
            Ok(status) => {
                let missed = |peer: &&driftless_client::PeerStatus| !peer.connected || peer.liveness != Liveness::Alive;
                if let Some(peer) = status.peers.iter().find(missed) {
                    return Some(format!("{name} does not see {}: {peer:?}", peer.name));
                }
            }
        }
    }
    None
}

/// What is not as it shall be in the end; the first thing found.
async fn unsettled(client: &Client, names: &[String], since: Instant) -> Option<String> {
    if let Some(apart) = apart(client, names).await {
        return Some(apart);
    }
    for name in names {
        let status = match client.status(name).await {
            Ok(status) => status,
            Err(error) => return Some(format!("{name}: {error}")),
        };
        if status.hints != Some(0) {
            return Some(format!("{name} holds hints: {:?}", status.hints));
        }
        let aae = match client.aae(name, AaeCommand::Status).await {
            Ok(aae) => aae,
            Err(error) => return Some(format!("{name}: {error}")),
        };
        let waited = since.elapsed().as_millis() as u64;
        for pair in &aae.partitions {
            let compared = pair.last_full_round_ms.is_some_and(|age| age < waited);
            if !compared || pair.unequal || pair.in_progress || pair.behind > 0 {
                return Some(format!("{name} and {} in partition {}: {pair:?}", pair.peer, pair.partition));
            }
        }
    }
    None
}

/// Reads keys from every replica, once: a read repairs what it finds lacking, so nothing is read twice.
pub(super) async fn read_all(client: &Client, keys: Vec<String>) -> BTreeMap<String, Left> {
    let bucket = client.bucket("default");
    let reads = stream::iter(keys).map(|key| {
        let bucket = bucket.clone();
        async move {
            let mut left = Left::default();
            match bucket.get(&key).r(3).sloppy(false).explain().send().await {
                Err(error) => left.odd.push(format!("it cannot be read: {error}")),
                Ok(read) => {
                    for sibling in read.siblings() {
                        match decode(&sibling.value) {
                            Some((id, elements)) => {
                                left.shown.push(id);
                                left.elements.extend(elements);
                            }
                            None => left.odd.push("a value that no client has written".to_owned()),
                        }
                    }
                    let replicas = read.explanation().and_then(|explanation| explanation.read.as_ref());
                    let replicas = replicas.map(|phase| phase.replicas.as_slice());
                    let primaries =
                        replicas.unwrap_or_default().iter().filter(|replica| replica.stands_in_for.is_none());
                    left.replicas =
                        primaries.map(|replica| (replica.node.clone(), replica.state().map(str::to_owned))).collect();
                }
            }
            (key, left)
        }
    });
    reads.buffer_unordered(READS_AT_ONCE).collect().await
}

/// A disk that was lost is filled within a few seconds; each two replicas compare every three.
const CONVERGENCE_MAX: Duration = Duration::from_secs(120);

/// Connections are tried again every two seconds at the latest.
const GATHERING_MAX: Duration = Duration::from_secs(30);

const READS_AT_ONCE: usize = 64;

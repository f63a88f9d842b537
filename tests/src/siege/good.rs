//! What a client notices that does nothing wrong, and one that is just coming.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Client, Read};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::attack::Target;

/// Clients at work.
pub(super) struct Good {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Seen>,
}

/// What they have seen.
#[derive(Clone)]
pub struct Seen {
    /// Microseconds of requests that succeeded.
    pub latency: Histogram<u64>,
    /// Requests that failed in the end.
    pub failed: u64,
    /// What some of them said.
    pub failures: Vec<String>,
    /// New connections that were tried, and those that a node let in.
    pub connections: (u64, u64),
}

impl Default for Seen {
    fn default() -> Seen {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
        Seen { latency, failed: 0, failures: Vec::new(), connections: (0, 0) }
    }
}

impl Seen {
    /// Milliseconds within which so many of a hundred requests were answered.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }

    fn join(&mut self, other: &Seen) {
        self.latency += &other.latency;
        self.failed += other.failed;
        self.failures.extend(other.failures.iter().take(1).cloned());
        self.connections.0 += other.connections.0;
        self.connections.1 += other.connections.1;
    }
}

impl Good {
    /// Sets some clients to work that read and write small values, and one that connects anew again and again.
    pub(super) fn begin(client: &Client, target: &Target) -> Good {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            tasks.spawn(at_work(client.clone(), number, stop.clone()));
        }
        tasks.spawn(coming(target.clone(), stop.clone()));
        Good { stop, tasks }
    }

    /// Ends it; what they have seen.
    pub(super) async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        self.tasks.join_all().await.iter().for_each(|seen| all.join(seen));
        all
    }
}

async fn at_work(client: Client, number: usize, stop: Arc<AtomicBool>) -> Seen {
    let (mut seen, mut written) = (Seen::default(), HashSet::new());
    let bucket = client.bucket("default");
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("good {number} {}", round / 2 % 50);
        let began = Instant::now();
        let done = match round % 2 {
            0 => bucket.update(&key, |_| VALUE.to_vec()).await.map(drop).map_err(|error| error.to_string()),
            _ => match bucket.get(&key).await {
                Ok(read) => check(&read, written.contains(&key)),
                Err(error) => Err(error.to_string()),
            },
        };
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        match done {
            Ok(()) => {
                seen.latency.saturating_record(took);
                if round % 2 == 0 {
                    written.insert(key);
                }
            }
            Err(error) => {
                seen.failed += 1;
                seen.failures.push(error);
            }
        }
        // Not as fast as it can: what is looked for is how long it takes beside others, not how much there is room for.
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

/// What is read of a key that only this client writes, always the same.
fn check(read: &Read, is_written: bool) -> Result<(), String> {
    match read.values().next() {
        None if is_written => Err("an acknowledged value is gone".to_owned()),
        Some(value) if value.as_ref() != VALUE => Err("the value is another one".to_owned()),
        _ => Ok(()),
    }
}

async fn coming(target: Target, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let guest = target.guest("newcomer");
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let node = target.nodes[round % target.nodes.len()];
        seen.connections.0 += 1;
        if let Some(raw) = guest.connect(node).await {
            // A node that turns it away says so a moment after the handshake.
            let refused = tokio::time::timeout(Duration::from_millis(50), raw.connection.closed()).await.is_ok();
            seen.connections.1 += u64::from(!refused);
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

const VALUE: &[u8] = &[7; 1_000];

const CLIENTS: usize = 8;

const PAUSE: Duration = Duration::from_millis(10);

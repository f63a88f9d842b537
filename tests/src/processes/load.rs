//! Clients that write as fast as they are answered, and know what they were promised.
//!
//! Each *writer* puts one key after the other that nobody else writes: an acknowledged one must be on every replica in
//! the end. Each *collector* adds elements to sets that all collectors share, by reading all siblings, merging them and
//! writing that back: every acknowledged element must be in the union of what is found in the end.
//!
//! What failed is repeated, a put under its write id, until it is acknowledged or the load ends. What never was owes
//! nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Cause, Client, Outcome, PutError, RequestError, Scope, Sibling, WriteId};
use tokio::task::JoinSet;

use super::history::History;

/// Clients at work.
pub struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    clients: JoinSet<History>,
}

impl Load {
    /// Sets so many writers to work on a client, each of which rests after a put, and a few collectors.
    pub fn start(client: &Client, writers: usize, rest: Duration) -> Load {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let load = rand::random();
        let hand = || Hand { bucket: client.bucket("default"), load, began, stop: Arc::clone(&stop) };
        let mut clients = JoinSet::new();
        for writer in 0..writers {
            clients.spawn(hand().write(writer, rest));
        }
        for collector in 0..COLLECTORS {
            clients.spawn(hand().collect(collector));
        }
        Load { began, stop, clients }
    }

    /// How long it has been at work.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends it. Requests under way are waited for.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = History::default();
        for history in self.clients.join_all().await {
            all.join(history);
        }
        all
    }
}

/// One client.
struct Hand {
    bucket: Bucket,
    /// Tells the keys of this load from those of another one on the same cluster.
    load: u32,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Hand {
    async fn write(self, writer: usize, rest: Duration) -> History {
        let mut history = History::default();
        for number in 0.. {
            let key = format!("own/{:x}/{writer}/{number}", self.load);
            let (value, id) = (value_of(&key), WriteId(rand::random()));
            let asked = Instant::now();
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return history;
                }
                match self.bucket.put(&key, &value).write_id(id).send().await {
                    Ok(_) => break history.acknowledged.push((self.began.elapsed(), asked.elapsed())),
                    Err(error) if repeating_helps(&error) => {
                        history.surfaced.push((self.began.elapsed(), error.to_string()));
                    }
                    Err(error) => {
                        history.fatal.push((self.began.elapsed(), error.to_string()));
                        return history;
                    }
                }
            }
            history.keys.push(key);
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
        history
    }

    async fn collect(self, collector: usize) -> History {
        let mut history = History::default();
        for number in 0.. {
            let set = format!("set/{:x}/{}", self.load, number % SETS);
            let element = format!("{collector}.{number}");
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return history;
                }
                let added = element.clone();
                let add = self.bucket.update(&set, move |siblings| {
                    let mut elements = union(siblings);
                    elements.insert(added.clone());
                    elements.into_iter().collect::<Vec<_>>().join(" ")
                });
                match add.send().await {
                    Ok(_) => break,
                    Err(error) if error.request().is_some_and(request_may_succeed) => {
                        history.surfaced.push((self.began.elapsed(), error.to_string()));
                    }
                    Err(error) => {
                        history.fatal.push((self.began.elapsed(), error.to_string()));
                        return history;
                    }
                }
            }
            history.elements.entry(set).or_default().insert(element);
            tokio::time::sleep(BETWEEN_ELEMENTS).await;
        }
        history
    }
}

/// The value of a writer's key: of a usual size, and no other key's.
pub(super) fn value_of(key: &str) -> String {
    format!("{key} {}", "x".repeat(100))
}

/// The elements in all siblings of a set.
pub(super) fn union(siblings: &[Sibling]) -> BTreeSet<String> {
    let words = |sibling: &Sibling| String::from_utf8_lossy(&sibling.value).into_owned();
    siblings.iter().map(words).flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn repeating_helps(error: &PutError) -> bool {
    error.request().is_some_and(request_may_succeed)
}

/// Whether the same request may succeed later, and repeating it is safe.
fn request_may_succeed(error: &RequestError) -> bool {
    if error.outcome() == Outcome::Unknown {
        return true;
    }
    match error.cause() {
        Cause::NotConnected { .. } | Cause::TimedOut { .. } | Cause::Busy { .. } => true,
        Cause::Refused { refusal, .. } => refusal.scope() == Scope::Node,
        _ => false,
    }
}

/// Two write each set at any time, so that there are siblings to merge.
const COLLECTORS: usize = 8;
const SETS: usize = 4;

/// Sets grow with each element, and are read and written whole: a few hundred elements are enough to lose one.
const BETWEEN_ELEMENTS: Duration = Duration::from_millis(50);

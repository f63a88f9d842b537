//! Clients that write, each to keys of its own.
//!
//! | keys of a writer | values | how often |
//! |---|---|---|
//! | the first, of every eighth writer | 1 to 4 MiB, longer than a segment | one write in 100 of theirs |
//! | the next two | 32 to 300 KiB | one in 16 |
//! | all others | half 20 to 200 bytes, the rest up to 16 KiB | |
//!
//! One write in six is a delete, and each comes with the context that the one before gave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless_client::{Bucket, Client, NoRetry, Outcome, Profile, VALUE_BYTES_MAX};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::ledger::{Ending, Ledger};
use super::value::{BYTES_MIN, Key, encode};

/// Writers at work during one life of the node.
pub(super) struct Writers {
    tasks: JoinSet<()>,
    rests: Arc<AtomicBool>,
}

struct Writer {
    number: u16,
    bucket: Bucket,
    ledger: Arc<Mutex<Ledger>>,
    rests: Arc<AtomicBool>,
    rng: StdRng,
}

impl Writers {
    /// Sets them to work; within a runtime.
    pub(super) fn start(client: &Client, ledger: &Arc<Mutex<Ledger>>, seed: u64) -> Writers {
        let (mut tasks, rests) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for number in 0..WRITERS {
            let writer = Writer {
                number,
                bucket: client.bucket("default").with_profile(&profile()),
                ledger: Arc::clone(ledger),
                rests: Arc::clone(&rests),
                rng: StdRng::seed_from_u64(seed ^ (u64::from(number) << 48)),
            };
            tasks.spawn(writer.write());
        }
        Writers { tasks, rests }
    }

    /// Lets them end what is under way, and begin nothing more.
    pub(super) async fn rest(&mut self) {
        self.rests.store(true, Ordering::SeqCst);
        while self.tasks.join_next().await.is_some() {}
    }

    /// The node is gone, and with it what was under way.
    pub(super) async fn abandon(mut self) {
        // What it has acknowledged before may still be on its way to us.
        tokio::time::sleep(ON_ITS_WAY).await;
        self.tasks.shutdown().await;
    }
}

impl Writer {
    async fn write(mut self) {
        while !self.rests.load(Ordering::SeqCst) {
            let (key, bytes) = self.draw();
            let Some((id, context)) = lock(&self.ledger).begin(key, bytes) else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let name = key.to_string();
            let done = match bytes {
                Some(bytes) => {
                    let put = self.bucket.put(&name, encode(key, id, bytes)).context(context);
                    put.send().await.map(|stored| stored.context()).map_err(|e| (e.outcome(), e.to_string()))
                }
                None => {
                    let delete = self.bucket.delete(&name).context(context);
                    delete.send().await.map(|_| None).map_err(|e| (e.outcome(), e.to_string()))
                }
            };
            let failed = done.is_err();
            let ending = match done {
                Ok(context) => Ending::Acknowledged(context),
                Err((Outcome::Refused, why)) => Ending::Refused(why),
                Err((Outcome::Unknown, why)) => Ending::Unknown(why),
            };
            lock(&self.ledger).end(key, id, ending);
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A key, and how long its value is to be; `None`: it is deleted.
    fn draw(&mut self) -> (Key, Option<usize>) {
        let rng = &mut self.rng;
        let (place, bytes) = if self.number.is_multiple_of(8) && rng.random_ratio(1, 100) {
            (0, rng.random_range(1 << 20..=VALUE_BYTES_MAX))
        } else if rng.random_ratio(1, 16) {
            (rng.random_range(1..3), rng.random_range(32 << 10..300 << 10))
        } else {
            let bytes = if rng.random_bool(0.5) { BYTES_MIN..200 } else { 200..16 << 10 };
            (rng.random_range(3..KEYS_OF_A_WRITER), rng.random_range(bytes))
        };
        (Key { writer: self.number, place }, (!rng.random_ratio(1, 6)).then_some(bytes))
    }
}

/// For writes and for reads. Nothing is made again: what a crash has left open stays open.
pub(super) fn profile() -> Profile {
    Profile::new().sloppy(false).timeout(TIMEOUT).attempt_timeout(TIMEOUT).retry(NoRetry)
}

pub(super) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("nobody panics while writing it")
}

const WRITERS: u16 = 48;
const KEYS_OF_A_WRITER: u16 = 50;

/// More than any sync takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// After a failure.
const PAUSE: Duration = Duration::from_millis(5);

const ON_ITS_WAY: Duration = Duration::from_millis(3);

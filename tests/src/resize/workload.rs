//! Clients that read, write and delete, and write down everything they ask and are told.
//!
//! | | |
//! |---|---|
//! | who writes a key | the client whose number is the key's modulo the number of clients, one write after the other |
//! | which keys | four of five operations go to the few *hot* keys of each client, so that reads meet fresh writes |
//! | gets | 60 %, half of them of other clients' keys; in the sloppy bucket every second one is sloppy |
//! | puts, deletes | 32 %, 8 %; each with the context of the write before, or of a strict read; a put after a delete without one |
//! | after a write | of four, one is read at once by other connections, which know the ring for themselves |
//! | values | 100 bytes, 1,000 or 4,000, now and then 32 KiB |
//!
//! A request that fails is made again for [`PATIENCE`]; what has not succeeded then is a fault. Writes are not hedged, and
//! whether one was made more than once is noted: so each is stamped once unless it is said not to be, and what must be there is
//! known. Gets are made as any client makes them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, Client, Context, Profile, Read, WriteId};
use driftless_proto::observed::ReplicaPart;
use futures::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::history::{self, Ending, History, KeyNumber, Kind, Micros, Seq};
use super::tally::Tally;
use super::value::{decode, encode};
use crate::processes::NotedRetry;

/// Clients at work, or resting.
pub(super) struct Workload {
    shared: Arc<Shared>,
    hands: JoinSet<()>,
}

/// What all clients share with who judges them.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) history: History,
    pub(super) tally: Tally,
    clients: usize,
    rate: u32,
    rests: AtomicBool,
    ends: AtomicBool,
    /// Operations under way.
    open: AtomicUsize,
    /// Clients that have written all their keys once.
    loaded: AtomicUsize,
    /// Operations that never succeeded, and values that nobody has written.
    pub(super) faults: Mutex<Vec<String>>,
}

/// The two buckets.
#[derive(Clone)]
pub(super) struct Buckets {
    sloppy: Bucket,
    strict: Bucket,
}

impl Workload {
    /// Sets clients to work: first each writes all its keys. They share these connections, the next client the next of them.
    pub(super) fn start(connections: &[Client], keys: usize, clients: usize, rate: u32, seed: u64) -> Workload {
        let shared = Arc::new(Shared {
            history: History::new(keys),
            tally: Tally::new(),
            clients,
            rate,
            rests: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            loaded: AtomicUsize::new(0),
            faults: Mutex::default(),
        });
        let mut hands = JoinSet::new();
        for number in 0..clients {
            let hand = Hand {
                number,
                buckets: Buckets::of(&connections[number % connections.len()]),
                others: Buckets::of(&connections[(number + 1) % connections.len()]),
                shared: Arc::clone(&shared),
                rng: StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32)),
                known: BTreeMap::new(),
            };
            hands.spawn(hand.work());
        }
        Workload { shared, hands }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether every key has been written once.
    pub(super) fn is_loaded(&self) -> bool {
        self.shared.loaded.load(Ordering::SeqCst) == self.shared.clients
    }

    /// Lets all rest, once what is under way has ended: which it does, as each operation's time is bounded.
    pub(super) async fn rest(&self) {
        self.shared.rests.store(true, Ordering::SeqCst);
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets them go on.
    pub(super) fn go_on(&self) {
        self.shared.rests.store(false, Ordering::SeqCst);
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        while self.hands.join_next().await.is_some() {}
    }
}

impl Buckets {
    pub(super) fn of(client: &Client) -> Buckets {
        Buckets { sloppy: client.bucket("default"), strict: client.bucket(STRICT_BUCKET) }
    }

    fn of_key(&self, key: KeyNumber) -> &Bucket {
        if is_strict(key) { &self.strict } else { &self.sloppy }
    }
}

/// Whether everything that is written to this key is written with strict quorums.
pub(super) fn is_strict(key: KeyNumber) -> bool {
    // Of the hot keys of every client as well: two of three.
    key.wrapping_mul(2_654_435_761) >> 7 & 0xFF >= 85
}

/// Its name, as nodes and clients know it.
pub(super) fn name(key: KeyNumber) -> String {
    format!("key/{key:06}")
}

/// In which bucket it is, and its name.
pub(super) fn place(key: KeyNumber) -> String {
    format!("{} {}", if is_strict(key) { STRICT_BUCKET } else { "default" }, name(key))
}

/// Reads all keys with strict quorums when all has settled. What could not be read is a fault; of a cluster that does not serve
/// a few are enough.
pub(super) async fn read_all(client: &Client, shared: &Arc<Shared>) -> Vec<(KeyNumber, Option<history::Read>)> {
    let buckets = Buckets::of(client);
    let reads = stream::iter(0..shared.history.len()).map(|key| {
        let (buckets, shared) = (buckets.clone(), Arc::clone(shared));
        async move {
            if shared.faults.lock().expect("nobody panics while noting").len() >= FAULTS_ENOUGH {
                return (key, None);
            }
            let invoked = shared.history.now();
            let done = persist(&shared, || strict_get(buckets.of_key(key), key)).await;
            let read = match done {
                Ok(read) => Some(shared.shown(key, shared.clients, true, invoked, &read)),
                Err(why) => {
                    shared.fault(format!("{}: the last read never succeeded: {why}", place(key)));
                    None
                }
            };
            (key, read)
        }
    });
    reads.buffer_unordered(READS_AT_ONCE).collect().await
}

async fn strict_get(bucket: &Bucket, key: KeyNumber) -> Result<Read, driftless_client::GetError> {
    bucket.get(name(key)).profile(Profile::new().sloppy(false).timeout(TIMEOUT)).send().await
}

/// Does to some keys what no cluster may do: takes an acknowledged value away, and brings a deleted one back. Answers what it
/// did. For a look whether it is noticed.
pub(super) async fn plant(client: &Client, shared: &Shared) -> Vec<String> {
    let buckets = Buckets::of(client);
    let mut planted = Vec::new();
    for kind in [Kind::Put, Kind::Delete] {
        let is_it = |key: &KeyNumber| {
            let history = shared.history.key(*key);
            let newest = history.newest();
            history.last_acknowledged() == Some(newest) && history.write(newest).is_some_and(|write| write.kind == kind)
        };
        let Some(key) = (0..shared.history.len()).rev().find(is_it) else { continue };
        let (bucket, seq) = (buckets.of_key(key), shared.history.key(key).newest());
        let done = match kind {
            Kind::Put => bucket.delete(name(key)).send().await.map(drop).map_err(|error| error.to_string()),
            Kind::Delete => {
                let value = encode(key, seq - 1, 100);
                bucket.put(name(key), value).send().await.map(drop).map_err(|error| error.to_string())
            }
        };
        planted.extend(done.is_ok().then(|| format!("{}: {kind:?} #{seq} is undone", place(key))));
    }
    planted
}

/// What each replica of a key holds, for a story. A read repairs what it finds, so this is what was there before it only once.
pub(super) async fn explain(client: &Client, key: KeyNumber) -> String {
    let buckets = Buckets::of(client);
    let read = buckets.of_key(key).get(name(key)).r(3).sloppy(false).timeout(TIMEOUT).explain().send().await;
    match &read {
        Err(error) => format!("    its replicas do not say what they hold: {error}\n"),
        Ok(read) => {
            let phase = read.explanation().and_then(|explanation| explanation.read.as_ref());
            let replicas = phase.map(|phase| phase.replicas.as_slice()).unwrap_or_default();
            let line = |replica: &ReplicaPart| {
                format!("    {} holds {}\n", replica.node, replica.state().unwrap_or("nothing"))
            };
            replicas.iter().map(line).collect()
        }
    }
}

/// Makes attempts until one succeeds or their time is over, which is a fault.
async fn persist<T, E: Display, F: Future<Output = Result<T, E>>>(
    shared: &Shared,
    mut attempt: impl FnMut() -> F,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => {
                let error = error.to_string();
                shared.tally.failed(&error);
                if began.elapsed() >= PATIENCE {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Shared {
    /// What a read shows, with a note of what nobody has written.
    fn shown(&self, key: KeyNumber, client: usize, strict: bool, invoked: Micros, read: &Read) -> history::Read {
        let mut shown = Vec::new();
        for value in read.values() {
            match decode(key, value) {
                Some(seq) => shown.push(seq),
                None => {
                    let text = String::from_utf8_lossy(&value[..value.len().min(60)]).into_owned();
                    self.fault(format!("{}: a value that no client has written: {text:?}", place(key)));
                }
            }
        }
        shown.sort_unstable();
        history::Read { client, strict, invoked, returned: self.history.now(), shown }
    }

    fn fault(&self, text: String) {
        self.faults.lock().expect("nobody panics while noting").push(text);
    }
}

/// What a writer knows of a key of its own.
#[derive(Clone)]
enum Known {
    /// Nothing is there, as far as it goes: it was deleted, or never written.
    Absent,
    /// What its last write, or a strict read, gave.
    Present(Context),
    /// It has to look.
    Unclear,
}

/// One client.
struct Hand {
    number: usize,
    buckets: Buckets,
    /// Those of the next client.
    others: Buckets,
    shared: Arc<Shared>,
    rng: StdRng,
    known: BTreeMap<KeyNumber, Known>,
}

impl Hand {
    async fn work(mut self) {
        for key in (self.number..self.shared.history.len()).step_by(self.shared.clients) {
            if self.shared.ends.load(Ordering::SeqCst) {
                return;
            }
            let Some(_open) = self.open() else { continue };
            self.put(key).await;
        }
        self.shared.loaded.fetch_add(1, Ordering::SeqCst);
        let rest = Duration::from_secs(1).mul_f64(self.shared.clients as f64 / f64::from(self.shared.rate));
        while self.pause(rest).await {
            let Some(_open) = self.open() else { continue };
            let draw = self.rng.random_range(0..100);
            match self.draw_own() {
                Some(key) if draw < 40 => {
                    if draw < 32 || matches!(self.known.get(&key), Some(Known::Absent)) {
                        self.put(key).await;
                    } else {
                        self.delete(key).await;
                    }
                    if self.rng.random_ratio(1, 4) {
                        std::mem::swap(&mut self.buckets, &mut self.others);
                        self.get(key).await;
                        std::mem::swap(&mut self.buckets, &mut self.others);
                    }
                }
                Some(key) if draw < 70 => self.get(key).await,
                _ => {
                    let key = self.draw(|rng, clients| rng.random_range(0..clients));
                    self.get(key.unwrap_or(0)).await;
                }
            }
        }
    }

    /// Rests a while, and on for as long as all do; whether there is work to do then.
    async fn pause(&mut self, rest: Duration) -> bool {
        tokio::time::sleep(rest.mul_f64(self.rng.random_range(0.5..1.5))).await;
        while self.shared.rests.load(Ordering::SeqCst) && !self.shared.ends.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        !self.shared.ends.load(Ordering::SeqCst)
    }

    /// Begins an operation, which has ended when what is given is dropped; none does while all rest.
    fn open(&self) -> Option<Open> {
        self.shared.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.shared));
        (!self.shared.rests.load(Ordering::SeqCst)).then_some(open)
    }

    /// A key that it writes, if it has one.
    fn draw_own(&mut self) -> Option<KeyNumber> {
        let number = self.number;
        self.draw(|_, _| number)
    }

    /// A key of a client, which is drawn or not; hot ones more often.
    fn draw(&mut self, of: impl FnOnce(&mut StdRng, usize) -> usize) -> Option<KeyNumber> {
        let (keys, clients) = (self.shared.history.len(), self.shared.clients);
        let owner = of(&mut self.rng, clients.min(keys));
        let own = keys.checked_sub(owner + 1)? / clients + 1;
        let among = if self.rng.random_ratio(4, 5) { own.min(HOT_KEYS) } else { own };
        Some(owner + clients * self.rng.random_range(0..among))
    }

    async fn get(&mut self, key: KeyNumber) {
        let strict = is_strict(key) || self.rng.random_bool(0.5);
        let (began, at, invoked) = (self.shared.tally.now(), Instant::now(), self.shared.history.now());
        let bucket = self.buckets.of_key(key);
        let profile = Profile::new().sloppy(!strict).timeout(TIMEOUT);
        let done = persist(&self.shared, || bucket.get(name(key)).profile(profile.clone()).send()).await;
        match done {
            Ok(read) => {
                self.shared.tally.count(began, true, at.elapsed());
                let read = self.shared.shown(key, self.number, strict, invoked, &read);
                self.shared.history.read(key, read);
            }
            Err(why) => self.shared.fault(format!("{}: a get never succeeded: {why}", place(key))),
        }
    }

    /// What a write of this key goes on from; looks if that is not known.
    async fn known(&mut self, key: KeyNumber) -> Known {
        match self.known.get(&key) {
            None => return Known::Absent,
            Some(Known::Unclear) => {}
            Some(known) => return known.clone(),
        }
        let invoked = self.shared.history.now();
        match persist(&self.shared, || strict_get(self.buckets.of_key(key), key)).await {
            Ok(read) => {
                let shown = self.shared.shown(key, self.number, true, invoked, &read);
                self.shared.history.read(key, shown);
                read.context().map_or(Known::Absent, |context| Known::Present(context.clone()))
            }
            Err(why) => {
                self.shared.fault(format!("{}: a get never succeeded: {why}", place(key)));
                Known::Unclear
            }
        }
    }

    async fn put(&mut self, key: KeyNumber) {
        let context = match self.known(key).await {
            Known::Unclear => return,
            Known::Absent => None,
            Known::Present(context) => Some(context),
        };
        let bytes = match self.rng.random_range(0..1000) {
            0..350 => 100,
            350..850 => 1_000,
            850..998 => 4_000,
            _ => 32 << 10,
        };
        let seq = self.shared.history.begin(key, Kind::Put, self.number);
        let value = Bytes::from(encode(key, seq, bytes));
        let bucket = self.buckets.of_key(key);
        let done = self.write(key, seq, |id, profile| {
            let put = bucket.put(name(key), value.clone()).context(context.clone()).write_id(id).profile(profile);
            put.send()
        });
        let known = done.await.map(|stored| stored.context().map_or(Known::Unclear, Known::Present));
        self.known.insert(key, known.unwrap_or(Known::Unclear));
    }

    async fn delete(&mut self, key: KeyNumber) {
        // What it removes has to be said: a delete without a context that comes late removes what it finds then.
        let Known::Present(context) = self.known(key).await else { return };
        let seq = self.shared.history.begin(key, Kind::Delete, self.number);
        let bucket = self.buckets.of_key(key);
        let done = self.write(key, seq, |id, profile| {
            bucket.delete(name(key)).context(context.clone()).write_id(id).profile(profile).send()
        });
        let known = done.await.map_or(Known::Unclear, |_| Known::Absent);
        self.known.insert(key, known);
    }

    /// Makes a write, under one id, until it succeeds or its time is over, and notes how it ended.
    async fn write<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        key: KeyNumber,
        seq: Seq,
        mut attempt: impl FnMut(WriteId, Profile) -> F,
    ) -> Option<T> {
        let (began, at) = (self.shared.tally.now(), Instant::now());
        // Nobody else has a key and number like these.
        let id = WriteId((key as u128) << 64 | u128::from(seq));
        let again = Arc::new(AtomicBool::new(false));
        let mut attempts = 0;
        let profile = Profile::new().sloppy(!is_strict(key)).timeout(TIMEOUT).attempt_timeout(ATTEMPT_TIMEOUT);
        let profile = profile.retry(NotedRetry::new(false, &again));
        let done = persist(&self.shared, || {
            attempts += 1;
            attempt(id, profile.clone())
        });
        let done = done.await;
        let again = again.load(Ordering::SeqCst) || attempts > 1;
        match done {
            Ok(done) => {
                self.shared.history.end(key, Ending::Acknowledged, again);
                self.shared.tally.count(began, false, at.elapsed());
                Some(done)
            }
            Err(why) => {
                self.shared.history.end(key, Ending::Failed(why.as_str().into()), again);
                self.shared.fault(format!("{}: write #{seq} never succeeded: {why}", place(key)));
                None
            }
        }
    }
}

/// An operation under way.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The bucket beside the default one.
pub(super) const STRICT_BUCKET: &str = "strict";

/// Of each client. With 64 of these and some hundred operations a second, one is written again every few seconds.
const HOT_KEYS: usize = 8;

/// For how long an operation is tried.
const PATIENCE: Duration = Duration::from_secs(15);

/// Of one request of the client library, with its own attempts.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Since writes are not hedged this is how long one waits for a coordinator that was killed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// After a request that failed.
const PAUSE: Duration = Duration::from_millis(100);

const READS_AT_ONCE: usize = 64;

/// So many and the rest is not waited for, each for its quarter of a minute.
const FAULTS_ENOUGH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_have_keys_hot_ones_and_few_ones_as_well() {
        for keys in [0..10, 0..512, 0..20_000] {
            let all = keys.len();
            let strict = keys.filter(|key| is_strict(*key)).count();
            assert!(strict * 2 > all && strict < all, "{strict} of {all}");
        }
    }
}

//! Clients of six kinds, which write down everything they ask and are told.
//!
//! | client | keys | what it does |
//! |---|---|---|
//! | owner | its own | puts: the first of a key blind, then each with the context of the one before; reads when that is in doubt. Three keys in turn are written under one write id |
//! | collector | sets, shared | reads all siblings, adds an element to their union, puts that with the context |
//! | mixer | shared | gets, blind puts, puts with new and old contexts; deletes with contexts on a half of the keys, and blind ones on a quarter |
//! | carrier | large, shared | reads all siblings, puts a value of up to 4 MiB with the context |
//! | reader | all shared ones | gets |
//! | lister | | scans the bucket |
//!
//! Each operation draws whether its quorums are strict and whether the client may try again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, Context, NoRetry, Outcome, Profile, Sibling, Stored, WriteId};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::history::{Ending, History, Kind, Operation};
use super::tally::Tally;
use super::value::{Id, Size, decode, encode};
use crate::processes::NotedRetry;

/// Clients at work, or resting between rounds.
pub(super) struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

/// What all clients share with who judges them.
#[derive(Debug)]
pub(super) struct Shared {
    history: Mutex<History>,
    pub(super) tally: Tally,
    rests: AtomicBool,
    ends: AtomicBool,
    /// Operations under way.
    open: AtomicUsize,
    /// Counted up when a round begins, and contexts of the one before are forgotten.
    round: AtomicUsize,
    /// Values that nobody has written, as soon as they are seen.
    pub(super) odd: Mutex<Vec<String>>,
}

impl Workload {
    /// Sets clients to work.
    pub(super) fn start(client: &Client, seed: u64) -> Workload {
        let shared = Arc::new(Shared {
            history: Mutex::new(History::new(Instant::now())),
            tally: Tally::new(),
            rests: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            odd: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for number in 0..OWNERS + COLLECTORS + MIXERS + CARRIERS + LISTERS + READERS {
            let hand = Hand {
                number,
                bucket: client.bucket("default"),
                shared: Arc::clone(&shared),
                rng: StdRng::seed_from_u64(seed ^ ((number as u64) << 32)),
            };
            match number {
                _ if number < OWNERS => clients.spawn(hand.own()),
                _ if number < OWNERS + COLLECTORS => clients.spawn(hand.collect()),
                _ if number < OWNERS + COLLECTORS + MIXERS => clients.spawn(hand.mix()),
                _ if number < OWNERS + COLLECTORS + MIXERS + CARRIERS => clients.spawn(hand.carry()),
                _ if number < OWNERS + COLLECTORS + MIXERS + CARRIERS + LISTERS => clients.spawn(hand.list()),
                _ => clients.spawn(hand.read()),
            };
        }
        Workload { shared, clients }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Lets all rest, once what is under way has ended.
    pub(super) async fn rest(&self) {
        self.shared.rests.store(true, Ordering::SeqCst);
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Begins the next round.
    pub(super) fn go_on(&self) {
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        self.shared.rests.store(false, Ordering::SeqCst);
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
    }
}

impl Shared {
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while writing history")
    }
}

/// Whether the additions to this key are elements of a set.
pub(super) fn is_set(key: &str) -> bool {
    key.starts_with("set/")
}

/// One client.
struct Hand {
    number: usize,
    bucket: Bucket,
    shared: Arc<Shared>,
    rng: StdRng,
}

/// What a client knows of a key.
#[derive(Clone, Default)]
struct Known {
    seen: Vec<Id>,
    context: Option<Context>,
    /// All elements of the siblings.
    elements: Vec<Id>,
}

impl Hand {
    async fn own(mut self) {
        let mut contexts: BTreeMap<usize, Known> = BTreeMap::new();
        for turn in 0.. {
            let Some(()) = self.pause(OWNER_REST).await else { return };
            let place = turn % KEYS_OF_AN_OWNER;
            let key = format!("own/{}/{place}", self.number);
            let known = match contexts.remove(&place) {
                Some(known) => known,
                None if turn < KEYS_OF_AN_OWNER => Known::default(),
                None => match self.get(&key).await {
                    Some(known) => known,
                    None => continue,
                },
            };
            // What users do who name their writes by what they do rather than by what they write.
            let id = WriteId((self.number as u128) << 64 | (turn / KEYS_OF_A_WRITE_ID) as u128);
            if let Some((id, stored)) = self.put(&key, known, What { name: Some(id), ..What::USUAL }).await
                && let Some(context) = stored.context()
            {
                let known = Known { seen: vec![id], context: Some(context), elements: Vec::new() };
                contexts.insert(place, known);
            }
        }
    }

    async fn collect(mut self) {
        while let Some(()) = self.pause(COLLECTOR_REST).await {
            let key = format!("set/{}", self.rng.random_range(0..SETS));
            if let Some(known) = self.get(&key).await {
                self.put(&key, known, What { adds: true, ..What::USUAL }).await;
            }
        }
    }

    async fn mix(mut self) {
        let mut contexts: BTreeMap<String, Known> = BTreeMap::new();
        let mut round = 0;
        while let Some(()) = self.pause(MIXER_REST).await {
            if round != self.shared.round.load(Ordering::SeqCst) {
                round = self.shared.round.load(Ordering::SeqCst);
                contexts.clear();
            }
            let number = self.rng.random_range(0..SHARED_KEYS);
            let key = format!("shared/{number}");
            match self.rng.random_range(0..100) {
                0..12 => drop(self.put(&key, Known::default(), What::USUAL).await),
                12..24 if contexts.contains_key(&key) => {
                    let old = contexts[&key].clone();
                    self.put(&key, old, What::USUAL).await;
                }
                24..36 if number % 4 >= 2 => {
                    if let Some(known) = self.get(&key).await.filter(|known| !known.seen.is_empty()) {
                        self.delete(&key, Some(known)).await;
                    }
                }
                36..42 if number % 4 == 3 => self.delete(&key, None).await,
                _ => {
                    if let Some(known) = self.get(&key).await {
                        contexts.insert(key.clone(), known.clone());
                        self.put(&key, known, What::USUAL).await;
                    }
                }
            }
        }
    }

    async fn carry(mut self) {
        while let Some(()) = self.pause(CARRIER_REST).await {
            let key = format!("large/{}", self.rng.random_range(0..LARGE_KEYS));
            if let Some(known) = self.get(&key).await {
                self.put(&key, known, What { size: Size::Large, ..What::USUAL }).await;
            }
        }
    }

    async fn list(mut self) {
        while let Some(()) = self.pause(LISTER_REST).await {
            self.shared.open.fetch_add(1, Ordering::SeqCst);
            if !self.shared.rests.load(Ordering::SeqCst) {
                let missed = self.list_once().await;
                self.shared.odd.lock().expect("nobody panics while noting").extend(missed);
            }
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Walks through the bucket once. Answers which keys it should have been shown and was not: those that strict writes had
    /// put there before it began, and nobody deletes.
    async fn list_once(&self) -> Vec<String> {
        let began = Instant::now();
        let (due, since) = {
            let history = self.shared.history();
            (history.strictly_written(|key| !key.starts_with("shared/")), history.now())
        };
        let mut keys = self.bucket.scan().profile(Profile::new().timeout(TIMEOUT)).keys();
        let mut listed = BTreeSet::new();
        while let Some(key) = keys.next().await {
            match key {
                Ok(key) => drop(listed.insert(key.to_string())),
                Err(error) => {
                    let ending = if error.outcome() == Outcome::Refused { Ending::Refused } else { Ending::Unknown };
                    self.shared.tally.count(ending, true, began.elapsed(), Some(&error.to_string()));
                    return Vec::new();
                }
            }
        }
        self.shared.tally.scans.fetch_add(1, Ordering::Relaxed);
        let history = self.shared.history();
        let lost = history.disk_lost.is_some_and(|at| at >= since || due.iter().any(|(_, written)| *written <= at));
        let unknown =
            listed.iter().filter(|key| !history.knows(key)).map(|key| format!("a scan lists {key}, never written"));
        let missed = due.iter().filter(|(key, _)| !lost && !listed.contains(key));
        unknown.chain(missed.map(|(key, _)| format!("a scan does not list {key}"))).collect()
    }

    async fn read(mut self) {
        while let Some(()) = self.pause(READER_REST).await {
            let key = match self.rng.random_range(0..40) {
                39 => format!("large/{}", self.rng.random_range(0..LARGE_KEYS)),
                0..8 => format!("set/{}", self.rng.random_range(0..SETS)),
                8..24 => format!("shared/{}", self.rng.random_range(0..SHARED_KEYS)),
                _ => {
                    let (owner, place) = (self.rng.random_range(0..OWNERS), self.rng.random_range(0..KEYS_OF_AN_OWNER));
                    format!("own/{owner}/{place}")
                }
            };
            if self.shared.history().knows(&key) {
                self.get(&key).await;
            }
        }
    }

    /// Rests a while; `None` when the work is done.
    async fn pause(&mut self, rest: Duration) -> Option<()> {
        tokio::time::sleep(rest.mul_f64(self.rng.random_range(0.5..1.5))).await;
        loop {
            if self.shared.ends.load(Ordering::SeqCst) {
                return None;
            }
            if !self.shared.rests.load(Ordering::SeqCst) {
                return Some(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&mut self, key: &str) -> Option<Known> {
        let how = self.how();
        let open = self.open(key, Operation::new(self.number, Kind::Get, how.strict, Vec::new()))?;
        let read = self.bucket.get(key).profile(how.profile.clone()).send().await;
        match read {
            Ok(read) => {
                let (mut shown, mut elements) = (Vec::new(), Vec::new());
                for sibling in read.siblings() {
                    match decode(&sibling.value) {
                        Some((id, more)) => {
                            shown.push(id);
                            elements.extend(more);
                        }
                        None => self.odd(key, sibling),
                    }
                }
                elements.sort_unstable();
                elements.dedup();
                let seen = shown.clone();
                open.end(Ending::Ok, None, |operation| operation.shown = shown);
                Some(Known { seen, context: read.context().cloned(), elements })
            }
            Err(error) => {
                open.failed(error.outcome(), &error.to_string(), &how);
                None
            }
        }
    }

    async fn put(&mut self, key: &str, known: Known, what: What) -> Option<(Id, Stored)> {
        let how = self.how();
        let open = self.open(key, Operation::new(self.number, Kind::Put, how.strict, known.seen))?;
        let mut elements = Vec::new();
        if what.adds {
            let first = self.shared.history().first();
            elements.extend(known.elements.into_iter().filter(|element| *element >= first));
            elements.push(open.id);
        }
        let value = encode(open.id, &elements, what.size);
        let put = self.bucket.put(key, value).context(known.context).profile(how.profile.clone());
        let put = match what.name {
            Some(name) => put.write_id(name),
            None => put,
        };
        match put.send().await {
            Ok(stored) => {
                let id = open.id;
                open.end(Ending::Ok, Some(&how), |_| {});
                Some((id, stored))
            }
            Err(error) => {
                open.failed(error.outcome(), &error.to_string(), &how);
                None
            }
        }
    }

    async fn delete(&mut self, key: &str, known: Option<Known>) {
        let how = self.how();
        let kind = if known.is_some() { Kind::Delete } else { Kind::BlindDelete };
        let Known { seen, context, .. } = known.unwrap_or_default();
        let Some(open) = self.open(key, Operation::new(self.number, kind, how.strict, seen)) else { return };
        match self.bucket.delete(key).context(context).profile(how.profile.clone()).send().await {
            Ok(_) => open.end(Ending::Ok, Some(&how), |_| {}),
            Err(error) => open.failed(error.outcome(), &error.to_string(), &how),
        }
    }

    fn how(&mut self) -> How {
        let strict = self.rng.random_bool(0.5);
        let tries = Arc::new(AtomicBool::new(false));
        let profile = Profile::new().sloppy(!strict).timeout(TIMEOUT);
        let (profile, hedges) = match self.rng.random_range(0..3) {
            0 => (profile.retry(NoRetry), false),
            1 => (profile.retry(NotedRetry::new(false, &tries)), false),
            _ => (profile.retry(NotedRetry::new(true, &tries)), true),
        };
        How { strict, profile, hedges, again: tries }
    }

    /// Notes that an operation begins; none does any more when the round is over.
    fn open(&self, key: &str, operation: Operation) -> Option<Open> {
        self.shared.open.fetch_add(1, Ordering::SeqCst);
        if self.shared.rests.load(Ordering::SeqCst) {
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let kind = operation.kind;
        let id = self.shared.history().invoke(key, operation);
        Some(Open { shared: Arc::clone(&self.shared), key: key.to_owned(), id, kind, began: Instant::now() })
    }

    fn odd(&self, key: &str, sibling: &Sibling) {
        let text = String::from_utf8_lossy(&sibling.value);
        let text: String = text.chars().take(80).collect();
        let mut odd = self.shared.odd.lock().expect("nobody panics while noting");
        odd.push(format!("{key}: a value that no client has written: {text:?}"));
    }
}

/// What a put writes.
#[derive(Clone, Copy)]
struct What {
    /// An element as well, to a set.
    adds: bool,
    size: Size,
    /// The write's id; the client draws one if this is absent.
    name: Option<WriteId>,
}

impl What {
    const USUAL: What = What { adds: false, size: Size::Usual, name: None };
}

/// How an operation is made.
struct How {
    strict: bool,
    profile: Profile,
    hedges: bool,
    /// Whether another attempt was made.
    again: Arc<AtomicBool>,
}

/// An operation under way.
struct Open {
    shared: Arc<Shared>,
    key: String,
    id: Id,
    kind: Kind,
    began: Instant,
}

impl Open {
    fn end(self, ending: Ending, how: Option<&How>, note: impl FnOnce(&mut Operation)) {
        self.close(ending, how, None, note);
    }

    fn failed(self, outcome: Outcome, error: &str, how: &How) {
        // Reading changes nothing: no answer is as good as a refusal.
        let ending = if outcome == Outcome::Refused { Ending::Refused } else { Ending::Unknown };
        self.close(ending, Some(how), Some(error), |_| {});
    }

    fn close(self, ending: Ending, how: Option<&How>, error: Option<&str>, note: impl FnOnce(&mut Operation)) {
        let took = self.began.elapsed();
        // Where the client may hedge it does not tell whether it has.
        let twice = how.is_some_and(|how| how.hedges || how.again.load(Ordering::SeqCst));
        self.shared.tally.count(ending, self.kind == Kind::Get, took, error);
        self.shared.history().end(&self.key, self.id, |operation| {
            operation.ending = ending;
            operation.twice = twice;
            operation.error = error.map(Into::into);
            note(operation);
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

const OWNERS: usize = 10;
const COLLECTORS: usize = 6;
const MIXERS: usize = 10;
const CARRIERS: usize = 2;
const LISTERS: usize = 1;
const READERS: usize = 4;

const KEYS_OF_AN_OWNER: usize = 200;
const SETS: usize = 4;
const SHARED_KEYS: usize = 64;
const LARGE_KEYS: usize = 6;

/// So many keys in turn are written under one id.
const KEYS_OF_A_WRITE_ID: usize = 3;

/// Together some hundred operations a second: two cores carry five nodes, their clients and strace besides.
const OWNER_REST: Duration = Duration::from_millis(25);
const COLLECTOR_REST: Duration = Duration::from_millis(250);
const MIXER_REST: Duration = Duration::from_millis(60);
const CARRIER_REST: Duration = Duration::from_millis(1_500);
const LISTER_REST: Duration = Duration::from_secs(2);
const READER_REST: Duration = Duration::from_millis(40);

/// Of a request with all its attempts.
const TIMEOUT: Duration = Duration::from_secs(3);

//! What the clients of a node may take up, and each certificate of that: the one place where a client's memory is counted.
//!
//! | what | from when until when | of the node's memory |
//! |---|---|---|
//! | connections | admitted until closed: [`CONNECTION_BYTES`] each | an eighth |
//! | windows | as long as the connection: what QUIC may hold of it, unread or not acknowledged, beyond [`WINDOW_MIN`] | an eighth |
//! | bytes | a request from its first byte until nothing refers to it any more, an answer until QUIC has taken its last byte | a half |
//! | requests | read until answered | (a number of their own) |
//!
//! The last quarter is that of peers and coordinators ([`super::limits::NetLimits`]). Each is shared among certificates as
//! [`Budget`] says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Budget, Held, Share};
use crate::metrics::Metrics;

/// Those of a node, by what the certificate says.
pub(crate) struct Accounts {
    connections: Arc<Budget>,
    windows: Arc<Budget>,
    requests: Arc<Budget>,
    bytes: Arc<Budget>,
    by_name: Mutex<HashMap<String, Arc<Account>>>,
    next_number: AtomicU64,
}

/// What the clients with one certificate hold, on all shards.
pub(crate) struct Account {
    /// No other has it, and it is at least 1.
    pub(crate) number: u64,
    pub(crate) connections: Arc<Share>,
    pub(crate) windows: Arc<Share>,
    pub(crate) requests: Arc<Share>,
    pub(crate) bytes: Arc<Share>,
    /// Bytes of an answer to a read, as the last ones were.
    usual_read: AtomicUsize,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    _place: Held,
    _window: Held,
    /// Bytes that QUIC may hold of what it has received, and as many of what it has sent.
    pub(crate) window: usize,
}

impl Accounts {
    /// Of a node that has so much memory for its connections, and carries out so many requests at once.
    pub(crate) fn new(memory: usize, requests: usize) -> Accounts {
        Accounts {
            connections: Budget::new(memory / 8 / CONNECTION_BYTES),
            windows: Budget::new(memory / 8),
            requests: Budget::new(requests),
            bytes: Budget::new(memory / 2),
            by_name: Mutex::default(),
            next_number: AtomicU64::new(1),
        }
    }

    /// That of whoever the certificate names.
    pub(crate) fn of(&self, who: &str) -> Arc<Account> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = by_name.get(who) {
            return account.clone();
        }
        by_name.retain(|_, account| Arc::strong_count(account) > 1 || account.holds_something());
        let account = Arc::new(Account {
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            connections: Share::of(&self.connections),
            windows: Share::of(&self.windows),
            requests: Share::of(&self.requests),
            bytes: Share::of(&self.bytes),
            usual_read: AtomicUsize::new(0),
        });
        by_name.insert(who.to_owned(), account.clone());
        account
    }

    /// Shows how much is held.
    pub(crate) fn publish(&self, metrics: &Metrics) {
        let gauge = |budget: &Budget| i64::try_from(budget.held()).unwrap_or(i64::MAX);
        metrics.client_bytes.set(gauge(&self.bytes));
        metrics.client_connections.set(gauge(&self.connections));
    }
}

impl Account {
    /// What has outlived its connection still counts for whoever comes back.
    fn holds_something(&self) -> bool {
        [&self.connections, &self.windows, &self.requests, &self.bytes].iter().any(|share| share.held() > 0)
    }

    /// Returns once a request may be taken in: there is a place for it, and room for what it is likely to bring.
    pub(crate) async fn admits(&self) {
        self.requests.has_room(1).await;
        self.bytes.has_room(self.likely(0, true)).await;
    }

    /// Room for a request of so many bytes, if there is some. A read is counted with what reads have brought lately, so that not
    /// many more large values are read than can be answered with.
    pub(crate) fn request(&self, bytes: usize, is_read: bool) -> Option<[Held; 2]> {
        Some([self.requests.take(1)?, self.bytes.take(self.likely(bytes, is_read))?])
    }

    /// The same for one whose frame has arrived on a stream of its own, and has its room: it is not sent in vain for lack of a place.
    pub(crate) fn arrived(&self, bytes: usize) -> [Held; 2] {
        [self.requests.charge(1), self.bytes.charge(self.likely(bytes, false))]
    }

    fn likely(&self, bytes: usize, is_read: bool) -> usize {
        let read = if is_read { self.usual_read.load(Ordering::Relaxed) } else { 0 };
        // Never more than there is when nothing is under way.
        REQUEST_BYTES + bytes + read.min(self.bytes.max() / 8)
    }

    /// A read was answered with so many bytes.
    pub(crate) fn note_read(&self, bytes: usize) {
        let usual = self.usual_read.load(Ordering::Relaxed);
        // Threads that note at the same time may lose one: it is an estimate.
        self.usual_read.store(usual - usual / READS_AVERAGED + bytes / READS_AVERAGED, Ordering::Relaxed);
    }

    /// A place for one more connection. The more there are of this certificate, the less QUIC may hold of each.
    pub(crate) fn connect(&self) -> Option<Place> {
        let place = self.connections.take(1)?;
        let beyond = (self.windows.room() / WINDOWS_AHEAD).min(WINDOW_MAX - WINDOW_MIN);
        let held = self.windows.charge(2 * beyond);
        Some(Place { _place: place, _window: held, window: WINDOW_MIN + beyond })
    }
}

/// What a connection costs at least: its state, its handshake's remains and the smallest windows. Measured: docs/threat-model.md.
pub(crate) const CONNECTION_BYTES: usize = 128 << 10;

/// What a request takes while it is under way, beside its own bytes: what its machine and its shard keep of it.
const REQUEST_BYTES: usize = 4 << 10;

/// How many reads the estimate of the next one rests on.
const READS_AVERAGED: usize = 8;

/// What QUIC may hold of a connection before it is known whose it is, and of the last ones of a certificate with very many.
pub(crate) const WINDOW_MIN: usize = 32 << 10;

/// More gains nothing: 80 MB/s over a distance of 100 ms.
const WINDOW_MAX: usize = 8 << 20;

/// A connection leaves room for so many like it.
const WINDOWS_AHEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_wire_says_how_wide_windows_are() {
        let code = [("WINDOW_MIN", WINDOW_MIN as u64), ("WINDOW_MAX", WINDOW_MAX as u64)];
        let page = include_str!("../../../docs/wire-format.md");
        driftless_testkit::pages::assert_constants(page, "node/src/net/accounts.rs", &code);
    }

    #[test]
    fn one_certificate_leaves_half_of_the_places_to_others() {
        let accounts = Accounts::new(8 * 10 * CONNECTION_BYTES, 10);
        let connect = |who| std::iter::from_fn(|| accounts.of(who).connect()).collect::<Vec<_>>();
        let greedy = connect("greedy");
        assert_eq!(greedy.len(), 5);
        assert_eq!(connect("good").len(), 2, "and a third one would find some as well");
        drop(greedy);
        assert_eq!((accounts.connections.held(), accounts.windows.held()), (0, 0));
    }

    #[test]
    fn what_quic_may_hold_is_bounded_however_many_connect() {
        let memory = 1 << 30;
        let accounts = Accounts::new(memory, 10);
        let (mut places, mut windows) = (Vec::new(), 0);
        for number in 0.. {
            let Some(place) = accounts.of(&format!("client {}", number % 5)).connect() else { break };
            windows += 2 * place.window;
            places.push(place);
        }
        assert_eq!(places[0].window, WINDOW_MAX);
        let last = places.last().expect("there are some").window;
        assert!((WINDOW_MIN..WINDOW_MIN * 2).contains(&last), "{last}");
        assert!(windows <= memory / 8 + 2 * places.len() * WINDOW_MIN, "{windows}");
        assert!(places.len() > 800, "{}", places.len());
    }

    #[test]
    fn what_has_outlived_its_connection_still_counts_for_whoever_comes_back() {
        let accounts = Accounts::new(1 << 30, 10);
        let held = accounts.of("ada").bytes.take(5).expect("there is room");
        let bob = accounts.of("bob").number;
        assert_ne!(accounts.of("ada").number, bob);
        assert_eq!(accounts.of("ada").bytes.held(), 5);
        drop(held);
        accounts.of("eve");
        assert_eq!(accounts.by_name.lock().unwrap().keys().collect::<Vec<_>>(), ["eve"]);
    }

    #[test]
    fn reads_are_counted_with_what_reads_have_brought_lately() {
        let accounts = Accounts::new(64 << 20, 1_000);
        let ada = accounts.of("ada");
        let reads = || std::iter::from_fn(|| ada.request(0, true)).collect::<Vec<_>>();
        assert!(reads().len() > 400);
        (0..50).for_each(|_| ada.note_read(4 << 20));
        let large = reads();
        assert!((2..8).contains(&large.len()), "{}", large.len());
        assert!(ada.request(0, false).is_some(), "a write brings nothing");
        drop(large);
        (0..200).for_each(|_| ada.note_read(100));
        assert!(reads().len() > 400);
    }
}

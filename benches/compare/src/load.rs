//! The load: clients in a closed loop, each a task of the runtime with a session of its own and one request under way.
//!
//! ```text
//!        warm-up            measured time
//!  ├────────────────┼─────────────────────────────┤
//!            [──────────]                              ends in it: counts for the rate
//!                          [─────]                     for both
//!                                            [──────────]   begins in it: counts for the latency
//! ```
//! So a request that outlasts the measured time is waited for, and its latency counts. Errors count whenever they happen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::result::{Latency, Op};
use crate::systems::{Session, System};
use crate::usage::{self, Memory};
use crate::workload::{Random, Values, owned};

/// What is the same for every system.
pub(crate) struct Load {
    pub(crate) keys: u64,
    pub(crate) values: Values,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) ops_per_second: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) siblings: u64,
    pub(crate) server_cpu_us_per_op: Option<f64>,
    pub(crate) client_cpu_us_per_op: Option<f64>,
    pub(crate) memory: Memory,
}

/// The measured time.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// What one client counts.
struct Tally {
    /// Microseconds.
    latencies: Histogram<u64>,
    operations: u64,
    errors: u64,
    first_error: Option<(Instant, String)>,
    siblings: u64,
}

/// Writes every key once. An error ends it: what is compared must be there.
pub(crate) async fn preload(system: &impl System, load: &Load) -> Result<Duration> {
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..PRELOADERS.min(load.keys) {
        let mut session = system.session(worker as usize).await?;
        let (keys, values) = (load.keys, load.values.clone());
        workers.spawn(async move {
            let mut random = Random::new(worker);
            for key in (worker..keys).step_by(PRELOADERS as usize) {
                if let Err(error) = session.put(key, values.next(&mut random)).await {
                    bail!("a key could not be written beforehand: {error}");
                }
            }
            Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done.context("a task of the load panicked")??;
    }
    Ok(began.elapsed())
}

/// So many clients for the warm-up and the measured time.
pub(crate) async fn measure<S: System>(system: &S, op: Op, clients: u32, load: &Load) -> Result<Measured> {
    let mut sessions = Vec::new();
    for client in 0..clients {
        sessions.push(system.session(client as usize).await?);
    }
    let from = Instant::now() + load.warmup;
    let window = Window { from, until: from + load.time };
    let values = Arc::new(load.values.clone());
    let mut tasks = JoinSet::new();
    for (client, session) in (0..).zip(sessions) {
        let client = Client { number: client, clients: clients.into(), keys: load.keys, values: Arc::clone(&values) };
        tasks.spawn(client.run(session, op, window));
    }

    sleep_until(window.from.into()).await;
    let before = Sample::take(system.pids())?;
    sleep_until(window.until.into()).await;
    let after = Sample::take(system.pids())?;
    let memory = usage::memory(system.pids())?;

    let mut tally = Tally::new();
    while let Some(done) = tasks.join_next().await {
        tally.add(done.context("a task of the load panicked")?);
    }
    // Samples may be late by a turn of a busy runtime: what they show is that of their own time.
    let per_op = |used: Duration| {
        let per_second = used.as_secs_f64() / (after.at - before.at).as_secs_f64();
        (tally.operations > 0).then(|| per_second * load.time.as_secs_f64() * 1e6 / tally.operations as f64)
    };
    Ok(Measured {
        operations: tally.operations,
        ops_per_second: tally.operations as f64 / load.time.as_secs_f64(),
        latency: tally.latency(),
        errors: tally.errors,
        server_cpu_us_per_op: per_op(after.servers.saturating_sub(before.servers)),
        client_cpu_us_per_op: per_op(after.client.saturating_sub(before.client)),
        first_error: tally.first_error.map(|(_, error)| error),
        siblings: tally.siblings,
        memory,
    })
}

struct Client {
    number: u64,
    clients: u64,
    keys: u64,
    values: Arc<Values>,
}

impl Client {
    async fn run(self, mut session: impl Session, op: Op, window: Window) -> Tally {
        let mut tally = Tally::new();
        // Other keys in other cells, and the same for all systems.
        let mut random = Random::new((self.clients << 32) + (u64::from(op == Op::Put) << 24) + self.number + 1000);
        loop {
            let drawn = random.below(self.keys);
            let value = match op {
                Op::Put => Some(self.values.next(&mut random)),
                Op::Get => None,
            };
            let began = Instant::now();
            if began >= window.until {
                return tally;
            }
            let outcome = match value {
                Some(value) => session.put(owned(drawn, self.number, self.clients, self.keys), value).await,
                None => match session.get(drawn).await {
                    Ok(found) if found.length == self.values.size() => {
                        tally.siblings += u64::from(found.siblings && window.contains(Instant::now()));
                        Ok(())
                    }
                    Ok(found) => Err(format!("a value of {} bytes, and not of {}", found.length, self.values.size())),
                    Err(error) => Err(error),
                },
            };
            let failed = outcome.is_err();
            tally.count(window, began, Instant::now(), outcome);
            if failed {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

impl Window {
    fn contains(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            // It grows with what is recorded. Three digits, as in `driftless bench`.
            latencies: Histogram::new(3).expect("three digits are allowed"),
            operations: 0,
            errors: 0,
            first_error: None,
            siblings: 0,
        }
    }

    fn count(&mut self, window: Window, began: Instant, ended: Instant, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.operations += u64::from(window.contains(ended));
                if window.contains(began) {
                    self.latencies.record((ended - began).as_micros() as u64).expect("it grows as it must");
                }
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert((ended, error));
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.latencies.add(other.latencies).expect("it grows as it must");
        self.operations += other.operations;
        self.errors += other.errors;
        self.siblings += other.siblings;
        self.first_error = [self.first_error.take(), other.first_error].into_iter().flatten().min();
    }

    fn latency(&self) -> Option<Latency> {
        let ms = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!self.latencies.is_empty()).then(|| Latency {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p99_9_ms: ms(0.999),
            max_ms: self.latencies.max() as f64 / 1e3,
        })
    }
}

/// Processor time used until now.
struct Sample {
    at: Instant,
    servers: Duration,
    client: Duration,
}

impl Sample {
    fn take(pids: &[u32]) -> Result<Sample> {
        Ok(Sample { at: Instant::now(), servers: usage::cpu(pids)?, client: usage::own_cpu()? })
    }
}

/// Enough for any of the systems to write together what it can.
const PRELOADERS: u64 = 256;

/// A client whose requests fail at once would take the processor from the others.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::systems::Found;

    /// Answers after a millisecond; of the keys that it is asked for it refuses one.
    struct Slow {
        pids: Vec<u32>,
        puts: Arc<AtomicU64>,
        refused: u64,
        length: usize,
    }

    struct SlowSession {
        puts: Arc<AtomicU64>,
        refused: u64,
        length: usize,
    }

    impl System for Slow {
        type Session = SlowSession;

        fn pids(&self) -> &[u32] {
            &self.pids
        }

        fn check(&mut self) -> Result<()> {
            Ok(())
        }

        async fn session(&self, _client: usize) -> Result<SlowSession> {
            Ok(SlowSession { puts: Arc::clone(&self.puts), refused: self.refused, length: self.length })
        }
    }

    impl Session for SlowSession {
        async fn put(&mut self, key: u64, _value: Bytes) -> Result<(), String> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.puts.fetch_add(1, Ordering::Relaxed);
            if key == self.refused { Err("refused".to_owned()) } else { Ok(()) }
        }

        async fn get(&mut self, key: u64) -> Result<Found, String> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Found { length: self.length, siblings: key == 7 })
        }
    }

    fn slow(refused: u64) -> Slow {
        Slow { pids: vec![std::process::id()], puts: Arc::default(), refused, length: 100 }
    }

    fn load() -> Load {
        let time = Duration::from_millis(200);
        Load { keys: 300, values: Values::new(100), warmup: Duration::from_millis(20), time }
    }

    #[tokio::test]
    async fn every_key_is_written_beforehand_or_none_counts() {
        let system = slow(u64::MAX);
        preload(&system, &load()).await.expect("nothing is refused");
        assert_eq!(system.puts.load(Ordering::Relaxed), 300);
        assert!(preload(&slow(7), &load()).await.is_err());
    }

    #[tokio::test]
    async fn rate_latency_and_errors_are_of_what_was_done() {
        let measured = measure(&slow(u64::MAX), Op::Put, 4, &load()).await.expect("it runs");
        let latency = measured.latency.expect("there were some");
        assert!((40..=800).contains(&measured.operations), "{}", measured.operations);
        assert!(latency.p50_ms >= 1.0 && latency.p50_ms <= latency.p99_ms && latency.p99_9_ms <= latency.max_ms);
        assert_eq!((measured.errors, measured.first_error), (0, None));
    }

    #[tokio::test]
    async fn a_value_of_another_length_is_an_error_and_none_is_dropped() {
        let short = Slow { length: 99, ..slow(u64::MAX) };
        let measured = measure(&short, Op::Get, 4, &load()).await.expect("it runs");
        assert_eq!((measured.operations, measured.latency), (0, None));
        assert_eq!((measured.server_cpu_us_per_op, measured.client_cpu_us_per_op), (None, None));
        assert!(measured.errors > 0);
        assert_eq!(measured.first_error.as_deref(), Some("a value of 99 bytes, and not of 100"));
    }

    #[tokio::test]
    async fn siblings_are_no_error_and_are_counted() {
        let load = Load { keys: 8, ..load() };
        let measured = measure(&slow(u64::MAX), Op::Get, 4, &load).await.expect("it runs");
        assert_eq!(measured.errors, 0);
        assert!((1..measured.operations).contains(&measured.siblings), "{}", measured.siblings);
    }

    #[test]
    fn what_outlasts_the_measured_time_counts_for_the_latency() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let window = Window { from: at(100), until: at(200) };
        let mut tally = Tally::new();
        tally.count(window, at(10), at(20), Ok(()));
        tally.count(window, at(90), at(110), Ok(()));
        assert_eq!((tally.operations, tally.latencies.len()), (1, 0));
        tally.count(window, at(120), at(125), Ok(()));
        tally.count(window, at(190), at(900), Ok(()));
        assert_eq!((tally.operations, tally.latencies.len(), tally.latencies.max() / 1000), (2, 2, 710));
        tally.count(window, at(10), at(30), Err("early".to_owned()));
        tally.count(window, at(150), at(160), Err("late".to_owned()));
        assert_eq!((tally.errors, tally.first_error), (2, Some((at(30), "early".to_owned()))));
    }
}

//! The load: clients that make requests, in a closed or an open loop.
//!
//! Every client owns a slice of the keys, and overwrites with the contexts that it holds: puts replace each other
//! instead of piling up siblings, as the puts of a well-behaved application do. All clients are tasks of one thread that
//! also runs the connections, so that the generator takes as little as possible from the nodes beside it.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, Context, GetError, PutError};
use futures::future::join_all;

use super::PROGRESS_INTERVAL;
use super::cpu::{cpu, cpu_of};
use super::inserts::Inserts;
use super::keys::{Chooser, owned};
use super::pace::{Pacer, Punctuality};
use super::problem::Problem;
use super::random::Random;
use super::record::Record;
use super::result::{OpenLoop, Settings};
use super::workload::{Kind, Mix};
use crate::exit::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::output::{self, grouped};

pub(super) struct Load {
    bucket: Bucket,
    clients: u64,
    keys: u64,
    value_size: u64,
    mix: Mix,
    chooser: Chooser,
    /// Random bytes that values are cut from, so that making one costs nothing and none compresses.
    noise: Bytes,
    /// What the owner of each key last saw of it; empty if the load overwrites nothing.
    contexts: RefCell<Vec<Option<Context>>>,
    inserts: RefCell<Inserts>,
    record: RefCell<Record>,
    punctuality: Cell<Punctuality>,
    /// Requests that count and are over.
    answered: Cell<u64>,
    /// In an open loop: says when the next request is due.
    pacer: RefCell<Option<Rc<Pacer>>>,
    /// From when on requests count, and until when.
    from: Cell<Option<Instant>>,
    until: Cell<Option<Instant>>,
}

/// How long the load runs, and whose processor time is looked at.
pub(super) struct Times {
    pub(super) warmup: Duration,
    pub(super) time: Duration,
    /// Requests a second of an open loop.
    pub(super) rate: Option<f64>,
    /// Of the nodes, or why they are not known.
    pub(super) pids: std::result::Result<Vec<u32>, String>,
}

pub(super) struct Measured {
    pub(super) record: Record,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    pub(super) open_loop: Option<OpenLoop>,
    /// Of all nodes together, or why it is not known.
    pub(super) server_cpu: std::result::Result<Duration, String>,
    pub(super) client_cpu: Option<Duration>,
}

/// The measured time, when it is over.
struct Window {
    from: Instant,
    until: Instant,
    interrupted: bool,
    server_cpu: std::result::Result<Duration, String>,
    client_cpu: Option<Duration>,
}

impl Load {
    pub(super) fn new(bucket: Bucket, settings: &Settings, mix: Mix, time: Duration) -> Load {
        let mut random = Random::new(1);
        let noise: Vec<u8> = (0..settings.value_bytes.max(1) + NOISE_BYTES).map(|_| random.next() as u8).collect();
        let keys = u64::from(settings.keys);
        Load {
            bucket,
            clients: settings.clients.into(),
            keys,
            value_size: settings.value_bytes,
            mix,
            chooser: Chooser::new(settings.distribution, keys),
            noise: noise.into(),
            contexts: RefCell::new(if mix.needs_contexts() { vec![None; settings.keys as usize] } else { Vec::new() }),
            inserts: RefCell::new(Inserts::new(keys, keys)),
            record: RefCell::new(Record::new(time)),
            punctuality: Cell::default(),
            answered: Cell::new(0),
            pacer: RefCell::new(None),
            from: Cell::new(None),
            until: Cell::new(None),
        }
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    pub(super) fn value_size(&self) -> u64 {
        self.value_size
    }

    pub(super) fn needs_contexts(&self) -> bool {
        self.mix.needs_contexts()
    }

    pub(super) fn key(&self, number: u64) -> Bytes {
        key_name(number)
    }

    pub(super) fn value(&self, random: &mut Random) -> Bytes {
        let start = (random.next() % NOISE_BYTES) as usize;
        self.noise.slice(start..start + self.value_size as usize)
    }

    /// Keeps what was last seen of a key.
    pub(super) fn hold(&self, key: u64, context: Option<Context>) {
        if let Some(held) = self.contexts.borrow_mut().get_mut(key as usize) {
            *held = context;
        }
    }

    /// Inserts begin at this number.
    pub(super) fn insert_from(&mut self, first: u64) {
        self.inserts = RefCell::new(Inserts::new(self.keys, first));
    }

    /// Lets all clients go, for the warm-up and the measured time.
    pub(super) async fn measure(self, times: &Times, interrupts: &mut Interrupts) -> Result<Measured> {
        self.pace(times.rate)?;
        let mut clients = pin!(join_all((0..self.clients).map(|client| self.client(client))));
        let window = tokio::select! {
            window = self.clock(times, interrupts) => window,
            // They go on until the clock says that it is over.
            never = async { clients.as_mut().await; std::future::pending().await } => never,
        }?;
        // Who presses Ctrl-C does not wait for requests that nobody answers.
        let mut interrupted = window.interrupted;
        if !interrupted {
            tokio::select! {
                _ = clients.as_mut() => {}
                () = interrupts.next() => interrupted = true,
            }
        }
        let elapsed = window.until - window.from;
        if interrupted {
            output::note(format_args!("interrupted: this is of the first {:.1} s", elapsed.as_secs_f64()));
        }
        let open_loop = self.pacer().map(|pacer| {
            let Punctuality { late, begun, delay_max } = self.punctuality.get();
            let due = pacer.due_by(window.until).max(begun);
            let (not_begun, unfinished) = (due - begun, begun - self.answered.get());
            OpenLoop { due, late, delay_max_ms: delay_max.as_secs_f64() * 1e3, not_begun, unfinished }
        });
        let Window { server_cpu, client_cpu, .. } = window;
        let record = self.record.replace(Record::new(Duration::ZERO));
        Ok(Measured { record, elapsed, interrupted, open_loop, server_cpu, client_cpu })
    }

    async fn clock(&self, times: &Times, interrupts: &mut Interrupts) -> Result<Window> {
        if self.pass("warming up", times.warmup, interrupts).await {
            return Err(Failure::failed("interrupted before anything was measured"));
        }
        let (server, own) = (cpu_of(&times.pids), cpu(std::process::id()));
        // What is still due from the warm-up is left out: the measured time has a schedule of its own.
        self.pace(times.rate)?;
        let from = self.pacer().map_or_else(Instant::now, |pacer| pacer.began());
        self.from.set(Some(from));
        let interrupted = self.pass("measuring", times.time, interrupts).await;
        let until = Instant::now();
        self.until.set(Some(until));
        let (server_end, own_end) = (cpu_of(&times.pids), cpu(std::process::id()));
        self.record.borrow_mut().end_at(until - from);
        if let Some(pacer) = self.pacer() {
            // What was due a moment before the end finds a client now, if one is free.
            tokio::time::sleep(LAST_BEGIN).await;
            pacer.end();
        }
        let server_cpu = match (server, server_end) {
            (Ok(start), Ok(end)) => Ok(end.saturating_sub(start)),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        };
        let client_cpu = own_end.ok().zip(own.ok()).map(|(end, start)| end.saturating_sub(start));
        Ok(Window { from, until, interrupted, server_cpu, client_cpu })
    }

    /// Lets so much time pass, and says how it goes. Whether it was interrupted.
    async fn pass(&self, what: &str, time: Duration, interrupts: &mut Interrupts) -> bool {
        let started = Instant::now();
        loop {
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(PROGRESS_INTERVAL)) => {}
                () = interrupts.next() => return true,
            }
            let passed = started.elapsed().as_secs_f64();
            if started.elapsed() < time {
                let done = self.record.borrow().operations();
                let rate = if done > 0 {
                    format!(", {} ops/s", grouped((done as f64 / passed) as u64))
                } else {
                    String::new()
                };
                output::note(format_args!("{what}: {passed:.0} of {} s{rate}", time.as_secs_f64()));
            }
        }
    }

    /// Begins a schedule, and ends the one before. None in a closed loop.
    fn pace(&self, rate: Option<f64>) -> Result {
        let pacer = rate.map(Pacer::start).transpose()?.map(Rc::new);
        if let Some(before) = self.pacer.replace(pacer) {
            before.end();
        }
        Ok(())
    }

    fn pacer(&self) -> Option<Rc<Pacer>> {
        self.pacer.borrow().clone()
    }

    /// One client: one request after the other until the time is over.
    async fn client(&self, client: u64) {
        let mut random = Random::new(client + 1000);
        loop {
            let pacer = self.pacer();
            let due = match &pacer {
                Some(pacer) => pacer.next().await,
                None => Some(Instant::now()),
            };
            if self.until.get().is_some_and(|until| due.is_none_or(|due| due >= until)) {
                return;
            }
            // The schedule has ended, and the next has begun.
            let Some(due) = due else { continue };
            if pacer.is_some() && self.counts(due) {
                let mut punctuality = self.punctuality.get();
                punctuality.begin(due.elapsed());
                self.punctuality.set(punctuality);
            }
            let kind = self.mix.draw(&mut random);
            let (over, outcome) = self.request(kind, client, &mut random).await;
            // In a closed loop, what began before the measured time or ended after it would be counted for a part of its work
            // only. In an open loop all counts that was due within the measured time.
            if self.counts(due) && (pacer.is_some() || self.until.get().is_none()) {
                let from = self.from.get().unwrap_or(due);
                self.answered.set(self.answered.get() + 1);
                self.record.borrow_mut().count(kind, over - from, over - due, outcome);
            }
        }
    }

    fn counts(&self, due: Instant) -> bool {
        self.from.get().is_some_and(|from| from <= due) && self.until.get().is_none_or(|until| due < until)
    }

    /// When it was over, and how it ended.
    async fn request(
        &self,
        kind: Kind,
        client: u64,
        random: &mut Random,
    ) -> (Instant, std::result::Result<(), Problem>) {
        let readable = self.inserts.borrow().readable();
        let drawn = self.chooser.draw(readable, random);
        let own = || owned(drawn.min(self.keys - 1), client, self.clients, self.keys);
        match kind {
            Kind::Get => {
                let key = self.inserts.borrow().number(drawn);
                let outcome = self.get(key).await.map(|_| ());
                (Instant::now(), outcome)
            }
            Kind::Put => self.put(own(), random).await,
            Kind::Insert => {
                let key = self.inserts.borrow_mut().begin();
                let done = self.bucket.put(self.key(key), self.value(random)).send().await;
                let over = Instant::now();
                self.inserts.borrow_mut().end(key, done.is_ok());
                (over, done.map(|_| ()).map_err(|error| put_problem(&error)))
            }
            Kind::ReadModifyWrite => {
                let key = own();
                let outcome = match self.get(key).await {
                    Ok(context) => {
                        let put = self.bucket.put(self.key(key), self.value(random)).context(context).send().await;
                        put.map(|_| ()).map_err(|error| put_problem(&error))
                    }
                    Err(problem) => Err(problem),
                };
                (Instant::now(), outcome)
            }
        }
    }

    async fn put(&self, key: u64, random: &mut Random) -> (Instant, std::result::Result<(), Problem>) {
        let context = self.contexts.borrow_mut().get_mut(key as usize).and_then(Option::take);
        let done = self.bucket.put(self.key(key), self.value(random)).context(context.clone()).send().await;
        let over = Instant::now();
        match done {
            Ok(done) => {
                let context = match done.context() {
                    Some(context) => Some(context),
                    // It exists from an earlier run: what is there is taken over by the next put.
                    None => self.bucket.get(self.key(key)).send().await.ok().and_then(|read| read.context().cloned()),
                };
                self.hold(key, context);
                (over, Ok(()))
            }
            Err(error) => {
                self.hold(key, context);
                (over, Err(put_problem(&error)))
            }
        }
    }

    /// The context of a key that exists.
    async fn get(&self, key: u64) -> std::result::Result<Option<Context>, Problem> {
        match self.bucket.get(self.key(key)).send().await {
            Ok(read) if read.exists() => Ok(read.context().cloned()),
            Ok(_) => Err(Problem::not_found()),
            Err(error @ GetError::NotCertain { .. }) => Err(Problem::of(&error, None, None)),
            Err(error) => Err(Problem::of(&error, Some(error.outcome()), error.request())),
        }
    }
}

fn put_problem(error: &PutError) -> Problem {
    Problem::of(error, Some(error.outcome()), error.request())
}

pub(super) fn key_name(number: u64) -> Bytes {
    Bytes::from(format!("bench-{number:08}"))
}

/// Where values begin differs by this much.
const NOISE_BYTES: u64 = 64 << 10;

/// Longer than the scheduler of a busy machine lets a thread wait, short enough to let no queue of an overloaded cluster begin.
const LAST_BEGIN: Duration = Duration::from_millis(10);

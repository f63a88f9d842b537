//! `driftless bench`: a closed loop of clients against a running cluster.
//!
//! Every client owns a slice of the keys, and overwrites with the contexts that it holds: puts replace each other
//! instead of piling up siblings, as the puts of a well-behaved application do. All clients are tasks of one thread that
//! also runs the connections, so that the generator takes as little as possible from the nodes beside it.

mod cpu;
mod report;
mod tally;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, Context, GetError};
use driftless_node::config::units;
use futures::future::{Either, join_all, select};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::output::{self, Format, grouped, size, text_bytes};
use super::quorum::ReadWriteArgs;
use super::session::{self, BucketArg, IntoFailure};
use cpu::{cpu, cpu_of, pids};
use report::Report;
use tally::{NOT_FOUND, Problem, Tally};

/// What is measured: from the call of the client library to its answer, retries included. Exit code 1 if requests failed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_seconds)]
    warmup: f64,
    /// What to do
    #[arg(long, value_enum, default_value_t = Operation::Put)]
    op: Operation,
    /// Share of gets, with --op mixed
    #[arg(long, value_name = "0..1", default_value_t = 0.5, value_parser = parse_ratio)]
    read_ratio: f64,
    /// Length of each value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::bytes)]
    value_size: u64,
    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: ReadWriteArgs,
    /// Do not write the missing keys, and read the context of the others, before measuring: gets then meet keys that
    /// do not exist, and the first put of each key makes a sibling of what an earlier run left
    #[arg(long)]
    no_prefill: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Operation {
    /// Overwrite random keys
    Put,
    /// Read random keys
    Get,
    /// Both, by --read-ratio
    Mixed,
}

/// Runs the load and prints what was measured.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    let access = global.cluster.access()?;
    session::run(global, async |client| {
        let topology = session::topology(client);
        let bucket = session::existing_bucket(client, &args.bucket)?;
        let definition = topology.bucket_named(bucket.name()).expect("a bucket that exists is in the topology");
        let quorum = definition.quorum.with(args.quorum.read.r, args.quorum.write.w).map_err(Failure::usage)?;
        let load = Load::new(&bucket, args);
        let mut interrupts = Interrupts::listen()?;
        if !args.no_prefill {
            tokio::select! {
                prefilled = load.prefill() => prefilled?,
                () = interrupts.next() => return Err(Failure::failed("interrupted before anything was measured")),
            }
        }
        let pids = match &access.dev_dir {
            Some(dir) => pids(dir),
            None => {
                Err("--profile is not the directory of a dev cluster, so the nodes' processes are not known".to_owned())
            }
        };
        let measured = load.measure(&pids, &mut interrupts).await?;
        let report = Report {
            args,
            topology: &topology,
            quorum,
            durability: super::bucket::durability(definition.durability),
            sloppy: args.quorum.sloppiness.sloppy().unwrap_or(definition.sloppy),
            measured,
        };
        match global.format {
            Format::Json => output::json_line(&report.as_json())?,
            _ => report.print()?,
        }
        Ok(if report.has_failed() { Exit::Failed.into() } else { ExitCode::SUCCESS })
    })
}

struct Load<'a> {
    args: &'a Args,
    bucket: Bucket,
    keys: Vec<Bytes>,
    /// Random bytes that values are cut from, so that making one costs nothing and none compresses.
    noise: Bytes,
    /// What the owner of each key last saw of it.
    contexts: Vec<RefCell<Option<Context>>>,
    tally: RefCell<Tally>,
    /// Whether what starts now counts.
    measuring: Cell<bool>,
    finished: Cell<bool>,
}

struct Measured {
    tally: Tally,
    elapsed: Duration,
    /// Of all nodes together, or why it is not known.
    server_cpu: std::result::Result<Duration, String>,
    client_cpu: Option<Duration>,
}

impl<'a> Load<'a> {
    fn new(bucket: &Bucket, args: &'a Args) -> Load<'a> {
        let mut random = Random::new(1);
        let noise: Vec<u8> = (0..args.value_size.max(1) + NOISE_BYTES).map(|_| random.next() as u8).collect();
        Load {
            args,
            bucket: bucket.with_profile(&args.quorum.profile()),
            keys: (0..args.keys).map(|i| Bytes::from(format!("bench-{i:08}"))).collect(),
            noise: noise.into(),
            contexts: (0..args.keys).map(|_| RefCell::default()).collect(),
            tally: RefCell::new(Tally::new()),
            measuring: Cell::new(false),
            finished: Cell::new(false),
        }
    }

    /// Writes every key that does not exist, and takes over the context of every key that does.
    async fn prefill(&self) -> Result {
        output::note(format_args!(
            "prefilling: {} keys of {} …",
            grouped(self.keys.len() as u64),
            size(self.args.value_size)
        ));
        let started = Instant::now();
        let shown = Cell::new(started);
        let next = Cell::new(0_usize);
        let written = Cell::new(0_u64);
        let worker = async |seed: u64| -> Result {
            let mut random = Random::new(seed);
            loop {
                let i = next.get();
                let Some(key) = self.keys.get(i) else { return Ok(()) };
                next.set(i + 1);
                let failed = |failure: Failure| failure.about(format_args!("prefilling key {}", text_bytes(key)));
                let read = match self.bucket.get(key.clone()).await {
                    // While nodes are away it cannot be certain that a key does not exist. Then one more value is written.
                    Err(GetError::NotCertain { read }) => *read,
                    read => read.map_err(IntoFailure::into_failure).map_err(failed)?,
                };
                if !read.exists() || read.siblings().len() > 1 {
                    let mut put = self.bucket.put(key.clone(), self.value(&mut random));
                    if let Some(context) = read.context() {
                        put = put.context(context.clone());
                    }
                    let done = put.await.map_err(IntoFailure::into_failure).map_err(failed)?;
                    *self.contexts[i].borrow_mut() = done.context();
                    written.set(written.get() + 1);
                } else {
                    *self.contexts[i].borrow_mut() = read.context().cloned();
                }
                if shown.get().elapsed() > PROGRESS_INTERVAL {
                    shown.set(Instant::now());
                    output::note(format_args!("prefilling: {} %", i * 100 / self.keys.len()));
                }
            }
        };
        let workers = (0..PREFILL_CLIENTS).map(|i| worker(i + 7));
        join_all(workers).await.into_iter().collect::<Result<Vec<()>>>()?;
        output::note(format_args!(
            "prefilled: {} of {} keys were missing, in {:.1} s",
            grouped(written.get()),
            grouped(self.keys.len() as u64),
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    async fn measure(
        self,
        pids: &std::result::Result<Vec<u32>, String>,
        interrupts: &mut Interrupts,
    ) -> Result<Measured> {
        let clock = async {
            if self.pass("warming up", self.args.warmup, interrupts).await {
                return Err(Failure::failed("interrupted before anything was measured"));
            }
            let (server, own) = (cpu_of(pids), cpu(std::process::id()));
            let started = Instant::now();
            self.measuring.set(true);
            let interrupted = self.pass("measuring", self.args.seconds, interrupts).await;
            self.measuring.set(false);
            let elapsed = started.elapsed();
            let (server_end, own_end) = (cpu_of(pids), cpu(std::process::id()));
            self.finished.set(true);
            let server_cpu = match (server, server_end) {
                (Ok(start), Ok(end)) => Ok(end.saturating_sub(start)),
                (Err(reason), _) | (_, Err(reason)) => Err(reason),
            };
            let client_cpu = own_end.ok().zip(own.ok()).map(|(end, start)| end.saturating_sub(start));
            Ok((interrupted, elapsed, server_cpu, client_cpu))
        };
        let clients = join_all((0..self.args.clients).map(|client| self.client(client)));
        let (interrupted, elapsed, server_cpu, client_cpu) = match select(pin!(clock), pin!(clients)).await {
            Either::Left((Ok(ended), clients)) => {
                // Who presses Ctrl-C does not wait for requests that nobody answers.
                if !ended.0 {
                    clients.await;
                }
                ended
            }
            Either::Left((Err(failure), _)) => return Err(failure),
            // They go on until the clock says that it is over.
            Either::Right((_, clock)) => clock.await?,
        };
        if interrupted {
            output::note(format_args!("interrupted: this is of the first {:.1} s", elapsed.as_secs_f64()));
        }
        Ok(Measured { tally: self.tally.into_inner(), elapsed, server_cpu, client_cpu })
    }

    /// Lets so many seconds pass, and says how it goes. Whether it was interrupted.
    async fn pass(&self, what: &str, seconds: f64, interrupts: &mut Interrupts) -> bool {
        let started = Instant::now();
        let time = Duration::from_secs_f64(seconds);
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
                let done = self.tally.borrow().operations();
                let rate = if done > 0 {
                    format!(", {} ops/s", grouped((done as f64 / passed) as u64))
                } else {
                    String::new()
                };
                output::note(format_args!("{what}: {passed:.0} of {seconds} s{rate}"));
            }
        }
    }

    /// One client: one request after the other until the time is over.
    async fn client(&self, client: u32) {
        let clients = self.args.clients as usize;
        // Its slice: every key whose number leaves this remainder. With more clients than keys some share one.
        let first = client as usize % self.keys.len();
        let own = (self.keys.len() - first).div_ceil(clients).max(1);
        let mut random = Random::new(u64::from(client) + 1000);
        while !self.finished.get() {
            let key = first + (random.next() as usize % own) * clients;
            let get = match self.args.op {
                Operation::Put => false,
                Operation::Get => true,
                Operation::Mixed => (random.next() >> 11) as f64 / (1_u64 << 53) as f64 <= self.args.read_ratio,
            };
            let began = self.measuring.get();
            let started = Instant::now();
            let outcome = if get { self.get(key).await } else { self.put(key, &mut random).await };
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // What began before the measured time or ended after it would be counted for a part of its work only.
            if began && self.measuring.get() {
                self.tally.borrow_mut().count(get, nanos, outcome);
            }
        }
    }

    async fn put(&self, key: usize, random: &mut Random) -> std::result::Result<(), Problem> {
        let context = self.contexts[key].borrow_mut().take();
        let done = self.bucket.put(self.keys[key].clone(), self.value(random)).context(context.clone()).await;
        match done {
            Ok(done) => {
                let context = match done.context() {
                    Some(context) => Some(context),
                    // It exists from an earlier run: what is there is taken over by the next put.
                    None => self.bucket.get(self.keys[key].clone()).await.ok().and_then(|read| read.context().cloned()),
                };
                *self.contexts[key].borrow_mut() = context;
                Ok(())
            }
            Err(error) => {
                *self.contexts[key].borrow_mut() = context;
                Err(Problem::of(&error, Some(error.outcome()), error.request()))
            }
        }
    }

    async fn get(&self, key: usize) -> std::result::Result<(), Problem> {
        match self.bucket.get(self.keys[key].clone()).await {
            Ok(read) if read.exists() => Ok(()),
            Ok(_) => Err(Problem { outcome: None, kind: NOT_FOUND.to_owned(), text: "no such key".to_owned() }),
            Err(error @ GetError::NotCertain { .. }) => Err(Problem::of(&error, None, None)),
            Err(error) => Err(Problem::of(&error, Some(error.outcome()), error.request())),
        }
    }

    fn value(&self, random: &mut Random) -> Bytes {
        let start = (random.next() % NOISE_BYTES) as usize;
        self.noise.slice(start..start + self.args.value_size as usize)
    }
}

fn parse_seconds(text: &str) -> std::result::Result<f64, String> {
    match text.trim_end_matches('s').parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds".to_owned()),
    }
}

fn parse_ratio(text: &str) -> std::result::Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few instructions, and the same keys in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Where values begin differs by this much.
const NOISE_BYTES: u64 = 64 << 10;

/// Enough to fill every batch of every node.
const PREFILL_CLIENTS: u64 = 256;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

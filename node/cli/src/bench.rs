//! `driftless bench`: a closed loop of clients against a running cluster.
//!
//! Every client owns a slice of the keys, and overwrites with the contexts that it holds: puts replace each other
//! instead of piling up siblings, as the puts of a well-behaved application do. All clients are tasks of one thread that
//! also runs the connections, so that the generator takes as little as possible from the nodes beside it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, Cause, Context, GetError, Outcome, RequestError, Topology};
use driftless_node::config::units;
use futures::future::join_all;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::local::read_nodes;
use super::output::{self, Format, grouped, size, text_bytes};
use super::quorum::ReadWriteArgs;
use super::session::{self, BucketArg, IntoFailure};

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
        if !args.no_prefill {
            load.prefill().await?;
        }
        let pids = match &access.dev_dir {
            Some(dir) => pids(dir),
            None => {
                Err("--profile is not the directory of a dev cluster, so the nodes' processes are not known".to_owned())
            }
        };
        let measured = load.measure(&pids).await;
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

/// What happened within the measured time.
struct Tally {
    put: Histogram<u64>,
    get: Histogram<u64>,
    refused: u64,
    unknown: u64,
    failed: u64,
    kinds: BTreeMap<String, u64>,
    /// The first of each kind, in words.
    texts: BTreeMap<String, String>,
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

    async fn measure(self, pids: &std::result::Result<Vec<u32>, String>) -> Measured {
        let clients = (0..self.args.clients).map(|client| self.client(client));
        let clock = async {
            tokio::time::sleep(Duration::from_secs_f64(self.args.warmup)).await;
            let (server, own) = (cpu_of(pids), cpu(std::process::id()));
            let started = Instant::now();
            self.measuring.set(true);
            tokio::time::sleep(Duration::from_secs_f64(self.args.seconds)).await;
            self.measuring.set(false);
            let elapsed = started.elapsed();
            let (server_end, own_end) = (cpu_of(pids), cpu(std::process::id()));
            self.finished.set(true);
            let server_cpu = match (server, server_end) {
                (Ok(start), Ok(end)) => Ok(end.saturating_sub(start)),
                (Err(reason), _) | (_, Err(reason)) => Err(reason),
            };
            (elapsed, server_cpu, own_end.ok().zip(own.ok()).map(|(end, start)| end.saturating_sub(start)))
        };
        let (_, (elapsed, server_cpu, client_cpu)) = futures::future::join(join_all(clients), clock).await;
        Measured { tally: self.tally.into_inner(), elapsed, server_cpu, client_cpu }
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

/// A request that did not succeed.
struct Problem {
    /// Absent if it was answered, but not as it should have been.
    outcome: Option<Outcome>,
    kind: String,
    /// In words.
    text: String,
}

impl Problem {
    fn of<E: Debug + Display>(error: &E, outcome: Option<Outcome>, request: Option<&RequestError>) -> Problem {
        let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let kind = match request.map(RequestError::cause) {
            // The call itself was not in order, or its answer: it has a name of its own.
            None => name(format!("{error:?}")),
            Some(Cause::Refused { refusal, .. }) => name(format!("{refusal:?}")),
            Some(Cause::Unknown { unknown, .. }) => name(format!("{unknown:?}")),
            Some(cause) => name(format!("{cause:?}")),
        };
        Problem { outcome, kind, text: error.to_string() }
    }
}

impl Tally {
    fn new() -> Tally {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)
                .expect("1 is below the maximum, and 3 digits are offered")
        };
        Tally {
            put: histogram(),
            get: histogram(),
            refused: 0,
            unknown: 0,
            failed: 0,
            kinds: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }

    fn count(&mut self, get: bool, nanos: u64, outcome: std::result::Result<(), Problem>) {
        match outcome {
            Ok(()) => {
                let histogram = if get { &mut self.get } else { &mut self.put };
                histogram.saturating_record(nanos);
            }
            Err(problem) => {
                match problem.outcome {
                    Some(Outcome::Refused) => self.refused += 1,
                    Some(Outcome::Unknown) => self.unknown += 1,
                    None => self.failed += 1,
                }
                self.texts.entry(problem.kind.clone()).or_insert(problem.text);
                *self.kinds.entry(problem.kind).or_default() += 1;
            }
        }
    }

    fn operations(&self) -> u64 {
        self.put.len() + self.get.len()
    }
}

struct Report<'a> {
    args: &'a Args,
    topology: &'a Topology,
    quorum: driftless_proto::Quorum,
    durability: &'static str,
    sloppy: bool,
    measured: Measured,
}

impl Report<'_> {
    /// Whether requests failed, or none was answered within the measured time. That a key does not exist is none of the cluster's if nothing was to write it.
    fn has_failed(&self) -> bool {
        let expected = |kind: &str| kind == NOT_FOUND && self.args.no_prefill;
        let tally = &self.measured.tally;
        tally.kinds.keys().any(|kind| !expected(kind)) || (tally.operations() == 0 && tally.kinds.is_empty())
    }

    fn print(&self) -> Result {
        let Report { args, quorum, measured, .. } = self;
        let tally = &measured.tally;
        let what = match args.op {
            Operation::Put => "put".to_owned(),
            Operation::Get => "get".to_owned(),
            Operation::Mixed => format!("mixed ({:.0} % gets)", args.read_ratio * 100.0),
        };
        output::line(format_args!(
            "{what}: {} clients, {:.1} s after {:.1} s of warm-up, {} keys, values of {}",
            grouped(args.clients.into()),
            measured.elapsed.as_secs_f64(),
            args.warmup,
            grouped(args.keys.into()),
            size(args.value_size),
        ))?;
        output::line(format_args!(
            "bucket {}: n = {}, r = {}, w = {}, {}, durability = {}; {} nodes",
            args.bucket.bucket,
            quorum.n(),
            quorum.r(),
            quorum.w(),
            if self.sloppy { "sloppy" } else { "strict" },
            self.durability,
            self.topology.ring().members().len(),
        ))?;
        let mut rows = Vec::new();
        for (name, histogram) in [("put", &tally.put), ("get", &tally.get)] {
            if !histogram.is_empty() {
                let ms = |nanos: u64| format!("{:.3}", nanos as f64 / 1e6);
                rows.push(vec![
                    name.to_owned(),
                    grouped((histogram.len() as f64 / measured.elapsed.as_secs_f64()) as u64),
                    ms(histogram.value_at_quantile(0.5)),
                    ms(histogram.value_at_quantile(0.99)),
                    ms(histogram.value_at_quantile(0.999)),
                    ms(histogram.max()),
                ]);
            }
        }
        output::line("")?;
        output::line(output::table(&["", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows))?;
        output::line("")?;
        if tally.kinds.is_empty() && tally.operations() == 0 {
            output::line(
                "no request was answered within the measured time; measure for longer than --timeout to see why",
            )?;
        } else if tally.kinds.is_empty() {
            output::line("errors: none")?;
        } else {
            output::line(format_args!(
                "errors: {} refused, {} unknown, {} otherwise",
                grouped(tally.refused),
                grouped(tally.unknown),
                grouped(tally.failed),
            ))?;
            for (kind, count) in &tally.kinds {
                let text = tally.texts.get(kind).map_or("", String::as_str);
                output::line(format_args!("  {} {kind}, the first: {text}", grouped(*count)))?;
            }
        }
        match (&measured.server_cpu, self.per_operation(measured.server_cpu.as_ref().ok())) {
            (Err(reason), _) => output::line(format_args!("server CPU: not measured: {reason}"))?,
            (Ok(_), Some(micros)) => {
                output::line(format_args!("server CPU: {micros:.1} µs per operation, all nodes together"))?;
            }
            (Ok(_), None) => {}
        }
        if let Some(micros) = self.per_operation(measured.client_cpu.as_ref()) {
            output::line(format_args!("client CPU: {micros:.1} µs per operation"))?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let Report { args, quorum, measured, .. } = self;
        let tally = &measured.tally;
        let seconds = measured.elapsed.as_secs_f64();
        let operation = |histogram: &Histogram<u64>| {
            let ms = |nanos: u64| nanos as f64 / 1e6;
            json!({
                "operations": histogram.len(),
                "ops_per_second": histogram.len() as f64 / seconds,
                "mean_ms": histogram.mean() / 1e6,
                "p50_ms": ms(histogram.value_at_quantile(0.5)),
                "p99_ms": ms(histogram.value_at_quantile(0.99)),
                "p99_9_ms": ms(histogram.value_at_quantile(0.999)),
                "max_ms": ms(histogram.max()),
            })
        };
        let mut json = json!({
            "op": match args.op { Operation::Put => "put", Operation::Get => "get", Operation::Mixed => "mixed" },
            "clients": args.clients,
            "seconds": seconds,
            "value_bytes": args.value_size,
            "keys": args.keys,
            "bucket": args.bucket.bucket,
            "n": quorum.n(),
            "r": quorum.r(),
            "w": quorum.w(),
            "sloppy": self.sloppy,
            "durability": self.durability,
            "nodes": self.topology.ring().members().len(),
            "operations": tally.operations(),
            "ops_per_second": tally.operations() as f64 / seconds,
            "errors": { "refused": tally.refused, "unknown": tally.unknown, "failed": tally.failed, "kinds": tally.kinds },
            "server_cpu_us_per_op": self.per_operation(measured.server_cpu.as_ref().ok()),
            "client_cpu_us_per_op": self.per_operation(measured.client_cpu.as_ref()),
        });
        if let Err(reason) = &measured.server_cpu {
            json["server_cpu_reason"] = reason.as_str().into();
        }
        for (name, histogram) in [("put", &tally.put), ("get", &tally.get)] {
            if !histogram.is_empty() {
                json[name] = operation(histogram);
            }
        }
        json
    }

    fn per_operation(&self, cpu: Option<&Duration>) -> Option<f64> {
        let operations = self.measured.tally.operations();
        cpu.filter(|_| operations > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / operations as f64)
    }
}

fn pids(dir: &Path) -> std::result::Result<Vec<u32>, String> {
    let pids: Vec<u32> = read_nodes(dir)?.into_iter().filter_map(|node| node.pid).collect();
    if pids.is_empty() { Err("no node of the dev cluster runs".to_owned()) } else { Ok(pids) }
}

fn cpu_of(pids: &std::result::Result<Vec<u32>, String>) -> std::result::Result<Duration, String> {
    pids.as_ref().map_err(Clone::clone)?.iter().map(|&pid| cpu(pid)).sum()
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> std::result::Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let ticks = ticks(&stat).ok_or_else(|| format!("{path} cannot be understood"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// User and system time of a line of `/proc/PID/stat`: fields 14 and 15, counted after the name, which may hold
/// anything but is in parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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

/// A get that was answered, of a key that nobody has written.
const NOT_FOUND: &str = "NotFound";

/// Where values begin differs by this much.
const NOISE_BYTES: u64 = 64 << 10;

/// Longer requests than any timeout are counted as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// Enough to fill every batch of every node.
const PREFILL_CLIENTS: u64 = 256;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use driftless_client::PutError;

    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 31 11 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
        assert!(cpu(std::process::id()).is_ok());
    }

    #[test]
    fn problems_have_short_names() {
        let mut tally = Tally::new();
        tally.count(true, 5_000_000, Ok(()));
        let problem = |outcome, kind: &str| Problem { outcome, kind: kind.to_owned(), text: kind.to_owned() };
        tally.count(false, 5, Err(problem(Some(Outcome::Refused), "Overloaded")));
        tally.count(false, 5, Err(problem(None, NOT_FOUND)));
        assert_eq!((tally.operations(), tally.refused, tally.unknown, tally.failed), (1, 1, 0, 1));
        assert!(tally.get.max().abs_diff(5_000_000) < 10_000, "latencies keep their size");
        assert_eq!(tally.kinds.get("Overloaded"), Some(&1));
        let too_large = PutError::ValueTooLarge { bytes: 9, max: 8 };
        let problem = Problem::of(&too_large, Some(too_large.outcome()), too_large.request());
        assert_eq!((problem.kind.as_str(), problem.text), ("ValueTooLarge", too_large.to_string()));
    }
}

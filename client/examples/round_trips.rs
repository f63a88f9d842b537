//! What a get costs the client, by the runtime that it is made on, measured against a `driftless dev` cluster.
//!
//! ```text
//! round_trips GETS SECONDS [SETUP]    so many gets under way at once, for so long in each setup, or in one alone
//! ```
//! Setups take turns in five rounds, and the median of each figure is printed: the processor time of this process and its
//! context switches (Linux only), both for each get, and the latencies. Without arguments: one get at a time, a fifth of a second.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::error::Error;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, IoRuntime, PutEntry};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// A runtime of an application, and where the client runs.
struct Setup {
    name: &'static str,
    workers: usize,
    io: IoRuntime,
}

/// `workers: 0` is a current-thread runtime. With two workers it is what `#[tokio::main]` makes on two cores; `main` is its main function,
/// which is no task and has a thread of its own.
const SETUPS: [Setup; 7] = [
    Setup { name: "current-caller", workers: 0, io: IoRuntime::Caller },
    Setup { name: "current-shared", workers: 0, io: IoRuntime::Shared },
    Setup { name: "one-shared", workers: 1, io: IoRuntime::Shared },
    Setup { name: "two-shared", workers: 2, io: IoRuntime::Shared },
    Setup { name: "two-caller", workers: 2, io: IoRuntime::Caller },
    Setup { name: "main-shared", workers: 2, io: IoRuntime::Shared },
    Setup { name: "main-caller", workers: 2, io: IoRuntime::Caller },
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: f64| arguments.get(at).map_or(Ok(default), |text| text.parse::<f64>());
    let (gets, seconds) = (number(0, 1.0)? as usize, number(1, 0.2)?);
    let setups: Vec<&Setup> =
        SETUPS.iter().filter(|setup| arguments.get(2).is_none_or(|wanted| wanted == setup.name)).collect();
    Builder::new_current_thread().enable_all().build()?.block_on(fill())?;
    let mut rounds: Vec<Vec<Figures>> = setups.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (setup, figures) in setups.iter().zip(&mut rounds) {
            figures.push(setup.measure(gets, Duration::from_secs_f64(seconds))?);
        }
    }
    println!("{:<16}{:>10}{:>10}{:>10}{:>12}{:>12}", "", "gets/s", "p50 µs", "p99 µs", "CPU µs/get", "switches");
    for (setup, figures) in setups.iter().zip(&rounds) {
        let median = |at: usize| {
            let mut of: Vec<f64> = figures.iter().map(|figures| figures[at]).collect();
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        println!(
            "{:<16}{:>10.0}{:>10.1}{:>10.1}{:>12.2}{:>12.2}",
            setup.name,
            median(0),
            median(1),
            median(2),
            median(3),
            median(4)
        );
    }
    Ok(())
}

async fn fill() -> Result<(), Box<dyn Error>> {
    let client = common::builder()?.connect().await?;
    let bucket = client.bucket("default");
    let mut entries = Vec::new();
    for (key, read) in bucket.multi_get((0..KEYS).map(name)).await {
        entries.push(PutEntry::new(key, vec![b'x'; 1024]).context(read?.context()));
    }
    for (_, stored) in bucket.multi_put(entries).await {
        stored?;
    }
    client.close().await;
    Ok(())
}

/// Gets a second, p50 and p99 in µs, processor time for each in µs, context switches for each.
type Figures = [f64; 5];

impl Setup {
    fn runtime(&self) -> std::io::Result<Runtime> {
        match self.workers {
            0 => Builder::new_current_thread().enable_all().build(),
            workers => Builder::new_multi_thread().worker_threads(workers).enable_all().build(),
        }
    }

    fn measure(&self, gets: usize, time: Duration) -> Result<Figures, Box<dyn Error>> {
        let runtime = self.runtime()?;
        runtime.block_on(async {
            let client = common::builder()?.io_runtime(self.io).connect().await?;
            let bucket = client.bucket("default");
            let in_main = self.name.starts_with("main");
            load(&bucket, gets, time / 10, in_main).await?;
            let (used, began) = (used(), Instant::now());
            let mut times = load(&bucket, gets, time, in_main).await?;
            let (used, took) = (self::used() - used, began.elapsed());
            client.close().await;
            times.sort_unstable();
            let (count, at) = (times.len() as f64, |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6);
            Ok([
                count / took.as_secs_f64(),
                at(50),
                at(99),
                used.time.as_secs_f64() * 1e6 / count,
                used.switches as f64 / count,
            ])
        })
    }
}

/// So many that make one get after the other: tasks, or parts of this future.
async fn load(bucket: &Bucket, gets: usize, time: Duration, here: bool) -> Result<Vec<Duration>, Box<dyn Error>> {
    let until = Instant::now() + time;
    let reader = |task: usize| {
        let bucket = bucket.clone();
        async move {
            let mut times = Vec::new();
            for key in task.. {
                let asked = Instant::now();
                let done = bucket.get(name(key % KEYS)).send().await;
                times.push(asked.elapsed());
                if done.is_err() || Instant::now() >= until {
                    return done.map(|_| times);
                }
            }
            Ok(times)
        }
    };
    let readers = (0..gets).map(reader);
    let all_done = match here {
        true => futures::future::join_all(readers).await,
        false => readers.collect::<JoinSet<_>>().join_all().await,
    };
    let mut all = Vec::new();
    for done in all_done {
        all.extend(done?);
    }
    Ok(all)
}

fn name(key: usize) -> String {
    format!("round-trips/{key:08}")
}

/// What the threads of this process have used together.
struct Used {
    time: Duration,
    switches: u64,
}

/// Nothing where there is no such file.
fn used() -> Used {
    let mut used = Used { time: Duration::ZERO, switches: 0 };
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let nanoseconds = read("schedstat").split(' ').next().and_then(|field| field.parse().ok());
        used.time += Duration::from_nanos(nanoseconds.unwrap_or(0));
        let status = read("status");
        let switches =
            status.lines().filter_map(|line| line.split_once("_ctxt_switches:")?.1.trim().parse::<u64>().ok());
        used.switches += switches.sum::<u64>();
    }
    used
}

impl std::ops::Sub for Used {
    type Output = Used;

    fn sub(self, before: Used) -> Used {
        Used { time: self.time.saturating_sub(before.time), switches: self.switches.saturating_sub(before.switches) }
    }
}

const KEYS: usize = 1_000;

const ROUNDS: usize = 5;

//! What many do to one key, and what large values do to the neighbours, measured against a `driftless dev` cluster.
//!
//! ```text
//! crowd updates UPDATERS BYTES SECONDS [CLIENTS]    updaters of one key, spread over so many clients
//! crowd beside WRITERS BYTES SECONDS                gets of 100 bytes by a client of their own, first alone, then beside
//!                                                   writers of so many bytes each
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, Sibling};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
    let (Some(count), Some(bytes), Some(seconds)) = (number(1), number(2), number(3)) else {
        return Err("the head of this file tells the arguments".into());
    };
    let time = Duration::from_secs(seconds as u64);
    match arguments.first().map(String::as_str) {
        Some("updates") => updates(count, bytes, time, number(4).unwrap_or(1)).await,
        Some("beside") => beside(count, bytes, time).await,
        _ => Err("updates or beside?".into()),
    }
}

/// What happened to requests of one kind.
#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    errors: BTreeMap<String, usize>,
    rounds: u64,
    siblings: u32,
}

async fn updates(updaters: usize, bytes: usize, time: Duration, clients: usize) -> Result<(), Box<dyn Error>> {
    let key = format!("crowd/{}", rand::random::<u32>());
    let mut handles = Vec::new();
    for _ in 0..clients.clamp(1, updaters) {
        handles.push(common::builder()?.connect().await?);
    }
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for updater in 0..updaters {
        let (bucket, key) = (handles[updater % handles.len()].bucket("default"), key.clone());
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while Instant::now() < until {
                let asked = Instant::now();
                match bucket.update(&key, move |siblings| largest(siblings, updater as u8, bytes)).await {
                    Ok(done) => {
                        tally.times.push(asked.elapsed());
                        tally.rounds += u64::from(done.rounds());
                        tally.siblings = tally.siblings.max(done.siblings());
                    }
                    Err(error) => *tally.errors.entry(format!("{:?}: {error}", error.outcome())).or_default() += 1,
                }
            }
            tally
        });
    }
    let tally = Tally::of(tasks).await;
    println!("{updaters} updaters of {bytes} bytes, {clients} clients: {}", tally.said(time));
    match handles[0].bucket("default").get(&key).await {
        Ok(read) => println!("  siblings left: {}", read.siblings().len()),
        Err(error) => println!("  afterwards: {error}"),
    }
    close(handles).await;
    Ok(())
}

/// A merge that makes one value of several, of a given length.
fn largest(siblings: &[Sibling], own: u8, bytes: usize) -> Vec<u8> {
    let seen = siblings.iter().filter_map(|sibling| sibling.value.first()).max().copied().unwrap_or(0);
    vec![seen.max(own); bytes]
}

async fn beside(writers: usize, bytes: usize, time: Duration) -> Result<(), Box<dyn Error>> {
    let (neighbour, heavy) = (common::builder()?.connect().await?, common::builder()?.connect().await?);
    let small = neighbour.bucket("default");
    for number in 0..KEYS {
        small.put(format!("small/{number}"), vec![b'x'; 100]).await?;
    }
    let alone = gets(&small, time).await;
    println!("gets alone: {}", alone.said(time));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (bucket, stop) = (heavy.bucket("default"), Arc::clone(&stop));
        tasks.spawn(async move {
            let (mut tally, mut read) = (Tally::default(), None);
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let put = bucket.put(format!("large/{writer}"), vec![writer as u8; bytes]).context(read.take());
                match put.timeout(Duration::from_secs(60)).await {
                    Ok(done) => {
                        tally.times.push(asked.elapsed());
                        read = done.context();
                    }
                    Err(error) => *tally.errors.entry(format!("{:?}: {error}", error.outcome())).or_default() += 1,
                }
                if read.is_none() {
                    read = bucket.get(format!("large/{writer}")).await.ok().and_then(|read| read.context().cloned());
                }
            }
            tally
        });
    }
    let crowded = gets(&small, time).await;
    stop.store(true, Ordering::Relaxed);
    println!("gets beside {writers} puts of {bytes} bytes: {}", crowded.said(time));
    println!("the puts: {}", Tally::of(tasks).await.said(time));
    close(vec![neighbour, heavy]).await;
    Ok(())
}

/// Four readers, one get after the other each.
async fn gets(bucket: &Bucket, time: Duration) -> Tally {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for reader in 0..4 {
        let bucket = bucket.clone();
        tasks.spawn(async move {
            let mut tally = Tally::default();
            for number in (0..KEYS).cycle().skip(reader * 17) {
                let asked = Instant::now();
                if asked >= until {
                    break;
                }
                match bucket.get(format!("small/{number}")).await {
                    Ok(_) => tally.times.push(asked.elapsed()),
                    Err(error) => *tally.errors.entry(error.to_string()).or_default() += 1,
                }
            }
            tally
        });
    }
    Tally::of(tasks).await
}

async fn close(clients: Vec<Client>) {
    for client in clients {
        client.close().await;
    }
}

impl Tally {
    async fn of(tasks: JoinSet<Tally>) -> Tally {
        let mut all = Tally::default();
        for tally in tasks.join_all().await {
            all.times.extend(tally.times);
            all.rounds += tally.rounds;
            all.siblings = all.siblings.max(tally.siblings);
            for (error, count) in tally.errors {
                *all.errors.entry(error).or_default() += count;
            }
        }
        all.times.sort_unstable();
        all
    }

    fn said(&self, time: Duration) -> String {
        let quantile = |per_mille: usize| {
            let at = (self.times.len() * per_mille / 1000).min(self.times.len().saturating_sub(1));
            self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        let (done, failed) = (self.times.len(), self.errors.values().sum::<usize>());
        let mut said = format!(
            "{done} done ({:.0}/s), {failed} failed; p50 {:.2} ms, p99 {:.2} ms, longest {:.0} ms",
            done as f64 / time.as_secs_f64(),
            quantile(500),
            quantile(990),
            quantile(1000),
        );
        if self.rounds > 0 {
            said +=
                &format!("; {:.1} rounds each, at most {} siblings", self.rounds as f64 / done as f64, self.siblings);
        }
        for (error, count) in self.errors.iter().take(3) {
            said += &format!("\n  {count}x {error}");
        }
        said
    }
}

const KEYS: usize = 1_000;

//! Before the load: are the keys there? What is missing is written, and nothing else.
//!
//! A load that overwrites reads all keys, as it needs their contexts. Any other looks at some of them, evenly spread, the last
//! one included, and reads all only if one of those is missing.

use std::cell::Cell;
use std::time::Instant;

use driftless_client::GetError;
use futures::future::join_all;

use super::load::Load;
use super::random::Random;
use super::{PROGRESS_INTERVAL, inserts};
use crate::exit::{Failure, Result};
use crate::output::{self, grouped, size};
use crate::session::IntoFailure;

/// Writes every key that does not exist; holds the context of every key afterwards if the load needs it.
pub(super) async fn prefill(load: &Load) -> Result {
    let keys = load.keys();
    if !load.needs_contexts() {
        let sample = sample(keys);
        let missing = Cell::new(false);
        each(&sample, async |key, _| {
            let there = missing.get() || exists(load, key).await?;
            missing.set(missing.get() || !there);
            Ok(())
        })
        .await?;
        if !missing.get() {
            output::note(format_args!(
                "nothing to prefill: {} of {} keys were looked for, and all are there",
                grouped(sample.len() as u64),
                grouped(keys)
            ));
            return Ok(());
        }
    }
    output::note(format_args!("looking at {} keys, to prefill those that are missing …", grouped(keys)));
    let started = Instant::now();
    let shown = Cell::new(started);
    let written = Cell::new(0_u64);
    let all: Vec<u64> = (0..keys).collect();
    each(&all, async |key, random| {
        // Not in one sum: others write between its beginning and its end.
        let wrote = take_over(load, key, random).await?;
        written.set(written.get() + u64::from(wrote));
        if shown.get().elapsed() > PROGRESS_INTERVAL {
            shown.set(Instant::now());
            output::note(format_args!("prefilling: {} %, {} written", key * 100 / keys, grouped(written.get())));
        }
        Ok(())
    })
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    match written.get() {
        0 => output::note(format_args!("nothing to prefill: all {} keys are there ({seconds:.1} s)", grouped(keys))),
        written => output::note(format_args!(
            "prefilled: {} of {} keys were missing, values of {}, in {seconds:.1} s",
            grouped(written),
            grouped(keys),
            size(load.value_size()),
        )),
    }
    Ok(())
}

/// The number of the first key to insert: behind all that earlier runs have inserted.
pub(super) async fn first_insert(load: &Load, clients: u64) -> Result<u64> {
    let keys = load.keys();
    // As many may have been under way when an earlier run ended; they may be gaps.
    let window = clients.clamp(64, 1024);
    let first = inserts::first_free(keys, window, async |from| {
        let found = join_all((from..from + window).map(|key| exists(load, key))).await;
        found.into_iter().try_fold(false, |any, found| found.map(|found| any || found))
    })
    .await?;
    if first > keys {
        output::note(format_args!("inserts go on from {}: earlier runs have left keys", text(first)));
    }
    Ok(first)
}

/// So many keys at most, evenly spread, the first and the last included.
fn sample(keys: u64) -> Vec<u64> {
    let size = keys.min(SAMPLE);
    (0..size)
        .map(|i| if size == 1 { 0 } else { (u128::from(i) * u128::from(keys - 1) / u128::from(size - 1)) as u64 })
        .collect()
}

/// Does something for each key, for some at a time.
async fn each(keys: &[u64], act: impl AsyncFn(u64, &mut Random) -> Result) -> Result {
    let next = Cell::new(0_usize);
    let worker = async |seed: u64| -> Result {
        let mut random = Random::new(seed);
        loop {
            let Some(&key) = keys.get(next.get()) else { return Ok(()) };
            next.set(next.get() + 1);
            act(key, &mut random)
                .await
                .map_err(|failure: Failure| failure.about(format_args!("prefilling key {}", text(key))))?;
        }
    };
    let workers = (0..WORKERS).map(|i| worker(i + 7));
    join_all(workers).await.into_iter().collect::<Result<Vec<()>>>().map(|_| ())
}

/// Whether a key certainly exists.
async fn exists(load: &Load, key: u64) -> Result<bool> {
    match load.bucket().get(load.key(key)).await {
        Ok(read) => Ok(read.exists()),
        Err(GetError::NotCertain { .. }) => Ok(false),
        Err(error) => Err(error.into_failure()),
    }
}

/// Writes a key if it does not exist, or has siblings; keeps its context. Whether it was written.
async fn take_over(load: &Load, key: u64, random: &mut Random) -> Result<bool> {
    let read = match load.bucket().get(load.key(key)).await {
        // While nodes are away it cannot be certain that a key does not exist. Then one more value is written.
        Err(GetError::NotCertain { read }) => *read,
        read => read.map_err(IntoFailure::into_failure)?,
    };
    if read.exists() && read.siblings().len() <= 1 {
        load.hold(key, read.context().cloned());
        return Ok(false);
    }
    let mut put = load.bucket().put(load.key(key), load.value(random));
    if let Some(context) = read.context() {
        put = put.context(context.clone());
    }
    let done = put.await.map_err(IntoFailure::into_failure)?;
    load.hold(key, done.context());
    Ok(true)
}

fn text(key: u64) -> String {
    output::text_bytes(&super::load::key_name(key))
}

/// Enough to fill every batch of every node.
const WORKERS: u64 = 256;

/// Read in some milliseconds. An earlier run that was cut short, or had fewer keys, lacks all from some key on: one is enough to see it.
const SAMPLE: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_evenly_from_the_first_to_the_last_key() {
        assert_eq!((sample(1), sample(3)), (vec![0], vec![0, 1, 2]));
        let keys = sample(100_000);
        assert_eq!((keys.len(), keys[0], keys[999]), (1000, 0, 99_999));
        assert!(keys.windows(2).all(|pair| (99..=102).contains(&(pair[1] - pair[0]))));
        assert_eq!(sample(u64::from(u32::MAX)).last(), Some(&u64::from(u32::MAX - 1)));
    }
}

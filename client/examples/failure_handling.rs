//! What to do when a write fails: nothing happened, or it may have.
//!
//! Run it against a `driftless dev` cluster, and `kill -9` a node or two while it writes.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

mod common;

use std::time::Duration;

use driftless_client::{Bucket, DefaultRetry, Outcome, Profile, PutError, Refusal, WriteId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = common::builder()?.connect().await?;
    // Strict quorums and short waits for this bucket. The client repeats by itself what is safe to repeat.
    let patient = DefaultRetry::new().attempts_max(5);
    let profile = Profile::new().w(2).sloppy(false).timeout(Duration::from_secs(3)).retry(patient);
    let bucket = client.bucket("default").with_profile(&profile);
    for number in 0..60 {
        match store(&bucket, number).await {
            Ok(()) => println!("{number}: stored"),
            Err(error) => println!("{number}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    client.close().await;
    Ok(())
}

async fn store(bucket: &Bucket, number: u32) -> Result<(), PutError> {
    // One id for one write, however often it is sent: replicas that have it do not stamp it again.
    let id = WriteId::random();
    let key = format!("failure/{number}");
    let put = || bucket.put(&key, number.to_string()).write_id(id);
    let error = match put().await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match (error.outcome(), error.refusal()) {
        // Nothing happened, and the cluster says why. Writing to fallbacks is a choice: more available, less strict.
        (Outcome::Refused, Some(Refusal::NotEnoughReplicas { available, .. })) => {
            println!("{number}: only {available} replicas, storing at fallbacks too");
            put().sloppy(true).await.map(|_| ())
        }
        // Nothing happened: pass it on, or do something else.
        (Outcome::Refused, _) => Err(error),
        // It may have happened. The same write under the same id is safe to repeat, now or after a restart.
        (Outcome::Unknown, _) => {
            println!("{number}: {error}; once more");
            put().timeout(Duration::from_secs(10)).await.map(|_| ())
        }
        // Only these two exist today; a third would not be a success.
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        _ => Err(error),
    }
}

//! `driftless scan BUCKET`: pages through the keys, arc by arc of the ring.

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;

use super::completeness::{Doubts, doubts, doubts_after};
use super::exit::{Exit, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, json_bytes};
use super::partition::{Partition, parse_partition};
use super::profile::parse_duration;
use super::quorum::ReadQuorum;
use super::session::{self, BucketArg, IntoFailure};

/// Keys come in the order of the ring, which looks random; there is no ordered scan. Exit code 7 if keys may be missing.
#[derive(clap::Args, Debug)]
#[command(mut_arg("r", |arg| arg.help("Replicas that must answer for each page [default: as the bucket says]")))]
pub(crate) struct Args {
    /// The bucket
    #[arg(default_value = "default")]
    bucket: String,
    /// Stop after this many keys
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    limit: Option<u64>,
    /// Only this partition: the number of an arc, with or without its class, as 17 or n3/17
    #[arg(long, value_name = "P", value_parser = parse_partition)]
    partition: Option<Partition>,
    /// Only keys that begin with this. Nodes walk over the others all the same: it takes as long as a scan of everything
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prefix: Option<String>,
    #[command(flatten)]
    quorum: ReadQuorum,
    /// Wait so long at most until the replicas hold everything, as in 60s, and only then begin
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "limit")]
    wait: Option<Duration>,
}

fn parse_limit(text: &str) -> std::result::Result<u64, String> {
    let limit = text.parse().ok().filter(|&limit| limit > 0);
    limit.ok_or_else(|| "expected a number of keys, at least 1".to_owned())
}

/// Prints every key.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    session::run(global, async |client| {
        session::existing_bucket(client, &BucketArg { bucket: args.bucket.clone() })?;
        let topology = session::topology(client);
        let n = topology.bucket_named(&args.bucket).map_or(0, |bucket| bucket.quorum.n());
        // A user who wants some keys does not ask whether these are all.
        let before = match args.limit {
            None => doubts_after(client, n, args.wait.unwrap_or_default()).await,
            Some(_) => Doubts::default(),
        };
        let mut scan = client.bucket(&args.bucket).scan().profile(args.quorum.profile());
        if let Some(partition) = args.partition {
            scan = scan.arc(partition.of_bucket(&topology, n)?.arc);
        }
        if let Some(prefix) = &args.prefix {
            scan = scan.prefix(prefix);
        }
        let mut keys = scan.keys();
        let mut left = args.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(key) = keys.next().await
        {
            let key = key.map_err(IntoFailure::into_failure)?;
            match global.format {
                Format::Json => output::json_line(&json!({ "key": json_bytes(key.as_bytes()) }))?,
                _ => output::line(key)?,
            }
            left -= 1;
        }
        if args.limit.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        let doubts = before.and(doubts(client, n).await);
        if doubts.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        doubts.warn("this list");
        output::note("scan again then, or with --wait 60s");
        if global.format == Format::Json {
            output::json_line(&json!({ "complete": false, "doubts": doubts.as_json() }))?;
        }
        Ok(Exit::Incomplete.into())
    })
}

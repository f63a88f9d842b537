//! `driftless scan BUCKET`: pages through the keys, arc by arc of the ring.

use std::process::ExitCode;
use std::time::Duration;

use driftless_ring::ArcIndex;
use futures::StreamExt;
use serde_json::json;

use super::completeness::{Doubts, doubts, doubts_after};
use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::output::{self, Format, json_bytes};
use super::profile::parse_duration;
use super::quorum::ReadQuorum;
use super::session::{self, IntoFailure};

/// Keys come in the order of the ring, which looks random; there is no ordered scan. Exit code 7 if keys may be missing.
#[derive(clap::Args, Debug)]
#[command(mut_arg("r", |arg| arg.help("Replicas that must answer for each page [default: as the bucket says]")))]
pub(crate) struct Args {
    /// The bucket
    #[arg(default_value = "default")]
    bucket: String,
    /// Stop after this many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only this partition: the number of an arc, with or without its class, as 17 or n3/17
    #[arg(long, value_name = "P", value_parser = parse_partition)]
    partition: Option<Partition>,
    #[command(flatten)]
    quorum: ReadQuorum,
    /// Wait so long at most until the replicas hold everything, as in 60s, and only then begin
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "limit")]
    wait: Option<Duration>,
}

/// A partition as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Partition {
    /// Replication factor, if given.
    pub(crate) n: Option<u8>,
    /// Number of the arc.
    pub(crate) arc: u32,
}

/// Prints every key.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    super::session::run(global, async |client| {
        let topology = session::topology(client);
        let n = topology.bucket_named(&args.bucket).map_or(0, |bucket| bucket.quorum.n());
        // A user who wants some keys does not ask whether these are all.
        let before = match args.limit {
            None => doubts_after(client, n, args.wait.unwrap_or_default()).await,
            Some(_) => Doubts::default(),
        };
        if let (Some(partition), Some(bucket)) = (args.partition, topology.bucket_named(&args.bucket)) {
            partition.check(topology.ring().partitions().get(), Some(bucket.quorum.n()))?;
        }
        let mut scan = client.bucket(&args.bucket).scan().profile(args.quorum.profile());
        if let Some(partition) = args.partition {
            scan = scan.arc(ArcIndex(partition.arc));
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

impl Partition {
    /// Refuses what is not on the ring.
    pub(crate) fn check(self, partitions: u32, n: Option<u8>) -> Result {
        if self.arc >= partitions {
            return Err(Failure::usage(format_args!(
                "there is no partition {}; the ring has {partitions}, from 0 to {}",
                self.arc,
                partitions - 1
            )));
        }
        match (self.n, n) {
            (Some(asked), Some(has)) if asked != has => Err(Failure::usage(format_args!(
                "the bucket has n = {has}; its partitions are n{has}/0 to n{has}/{}",
                partitions - 1
            ))),
            _ => Ok(()),
        }
    }
}

/// For clap: `17` or `n3/17`.
pub(crate) fn parse_partition(text: &str) -> std::result::Result<Partition, String> {
    let parse = || match text.strip_prefix('n') {
        None => Some(Partition { n: None, arc: text.parse().ok()? }),
        Some(rest) => {
            let (n, arc) = rest.split_once('/')?;
            Some(Partition { n: Some(n.parse().ok()?), arc: arc.parse().ok()? })
        }
    };
    parse().ok_or_else(|| "expected the number of an arc, as 17 or n3/17".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_two_spellings() {
        assert_eq!(parse_partition("17"), Ok(Partition { n: None, arc: 17 }));
        assert_eq!(parse_partition("n3/17"), Ok(Partition { n: Some(3), arc: 17 }));
        for bad in ["", "n3", "n/1", "-1", "3/17", "n300/1"] {
            assert!(parse_partition(bad).is_err(), "{bad}");
        }
    }
}

//! `driftless bucket list | show | create | set | drop`.

mod change;

use driftless_client::{Client, ClusterCommand};
use driftless_proto::{BucketDefinition, Conflict, Durability, Topology};
use serde_json::{Value, json};

use super::cluster::{Watch, decide, print_decided};
use super::exit::Result;
use super::global::GlobalArgs;
use super::output::{self, Format};
use super::session;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// All buckets
    List,
    /// One bucket
    Show(ShowArgs),
    /// Make a bucket
    ///
    /// It is a version of the cluster, decided at once; nothing moves. n and the conflict policy are for ever.
    Create(change::CreateArgs),
    /// Change how a bucket is read and written from now on
    ///
    /// While not all nodes know of it yet, the larger of the old and the new r and w hold. What is stored stays as it is.
    Set(change::SetArgs),
    /// Remove a bucket and everything in it
    ///
    /// All nodes delete its keys. Its number is never used again, so that a node which was away does not bring them back.
    Drop(change::DropArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArgs {
    /// Its name
    bucket: String,
}

/// Prints definitions, or changes them.
pub(crate) fn run(global: &GlobalArgs, command: Command) -> Result {
    session::run(global, async |client| match command {
        Command::List => list(global, session::topology(client).buckets()),
        Command::Show(args) => show(global, change::existing(&session::topology(client), &args.bucket)?),
        Command::Create(args) => apply(global, client, |topology| args.command(topology)).await,
        Command::Set(args) => apply(global, client, |topology| args.command(topology)).await,
        Command::Drop(args) => apply(global, client, |topology| args.command(topology)).await,
    })
}

async fn apply(
    global: &GlobalArgs,
    client: &Client,
    command: impl FnOnce(&Topology) -> Result<ClusterCommand>,
) -> Result {
    let command = command(&session::topology(client))?;
    print_decided(global, &decide(client, command).await?, Watch::Nothing)
}

fn list(global: &GlobalArgs, buckets: &[BucketDefinition]) -> Result {
    if global.format == Format::Json {
        return output::json_line(&json!({ "buckets": buckets.iter().map(as_json).collect::<Vec<_>>() }));
    }
    let rows = buckets.iter().map(|bucket| {
        vec![
            bucket.name.to_string(),
            bucket.quorum.n().to_string(),
            bucket.quorum.r().to_string(),
            bucket.quorum.w().to_string(),
            bucket.sloppy.to_string(),
            conflict(bucket).to_owned(),
            durability(bucket.durability).to_owned(),
            format!("{} %", bucket.read_all),
        ]
    });
    output::line(output::table(
        &["bucket", "n", "r", "w", "sloppy", "conflict", "durability", "read all"],
        rows.collect(),
    ))
}

fn show(global: &GlobalArgs, bucket: &BucketDefinition) -> Result {
    if global.format == Format::Json {
        return output::json_line(&as_json(bucket));
    }
    let quorum = bucket.quorum;
    output::line(format_args!("{} (id {})", bucket.name, bucket.id.0))?;
    output::line(format_args!("  n = {}: replicas of each key", quorum.n()))?;
    output::line(format_args!("  r = {}: replicas that answer a read", quorum.r()))?;
    output::line(format_args!("  w = {}: replicas that acknowledge a write", quorum.w()))?;
    let overlap = if quorum.overlaps() {
        "r + w > n: with strict quorums every read sees every acknowledged write"
    } else {
        "r + w <= n: a read may miss the newest acknowledged write"
    };
    output::line(format_args!("  {overlap}"))?;
    let sloppy =
        if bucket.sloppy { "fallbacks for nodes that cannot be reached count" } else { "only primaries count" };
    output::line(format_args!("  sloppy = {}: {sloppy}", bucket.sloppy))?;
    let meaning = match bucket.conflict {
        Conflict::Siblings => "concurrent writes are kept until somebody merges them",
        Conflict::Lww => "the last writer wins; other concurrent writes are discarded",
    };
    output::line(format_args!("  conflict = {}: {meaning}", conflict(bucket)))?;
    let meaning = match bucket.durability {
        Durability::Sync => "acknowledged after fsync",
        Durability::Buffered => "acknowledged after the log write, synced within a second",
    };
    output::line(format_args!("  durability = {}: {meaning}", durability(bucket.durability)))?;
    output::line(format_args!(
        "  read_all = {} %: reads that ask all replicas, to repair what they find",
        bucket.read_all
    ))
}

fn as_json(bucket: &BucketDefinition) -> Value {
    json!({
        "name": bucket.name.as_str(),
        "id": bucket.id.0,
        "n": bucket.quorum.n(),
        "r": bucket.quorum.r(),
        "w": bucket.quorum.w(),
        "sloppy": bucket.sloppy,
        "conflict": conflict(bucket),
        "durability": durability(bucket.durability),
        "read_all": bucket.read_all,
    })
}

fn conflict(bucket: &BucketDefinition) -> &'static str {
    match bucket.conflict {
        Conflict::Siblings => "siblings",
        Conflict::Lww => "lww",
    }
}

/// As configuration spells it.
pub(super) fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Buffered => "buffered",
    }
}

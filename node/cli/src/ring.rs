//! `driftless ring`: who owns what.

use std::ffi::OsString;

use driftless_proto::Topology;
use driftless_ring::{NodeId, PartitionId};
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::key;
use super::members::members;
use super::output::{self, Format, json_bytes};
use super::partition::{Partition, parse_partition};
use super::session::{self, BucketArg};

/// Without options: a line per member. The private key of the client certificate is --client-key here.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Owners of a partition: the number of an arc, with or without its class, as 17 or n3/17
    #[arg(long, value_name = "P", value_parser = parse_partition)]
    partition: Option<Partition>,
    /// Where this key of the bucket lives
    #[arg(long, value_name = "KEY", conflicts_with = "partition")]
    key: Option<OsString>,
    /// KEY is base64: for keys that cannot be typed
    #[arg(long, requires = "key")]
    key_base64: bool,
    #[command(flatten)]
    bucket: BucketArg,
}

/// Prints a part of the ring.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Result {
    let of_text = if args.key_base64 { key::of_base64 } else { key::of_bytes };
    let key = args.key.map(of_text).transpose()?;
    session::run(global, async |client| {
        let topology = session::topology(client);
        let Some(bucket) = topology.bucket_named(&args.bucket.bucket) else {
            return Err(Failure::new(Exit::Refused, format_args!("there is no bucket \"{}\"", args.bucket.bucket))
                .hint("`driftless bucket list` shows those that exist"));
        };
        if let Some(key) = key {
            let place = topology.place(bucket, &key);
            let mut json = partition_json(&topology, place.partition);
            json["key"] = json_bytes(key.as_bytes());
            json["bucket"] = bucket.name.as_str().into();
            json["token"] = format!("{:016x}", place.token.0).into();
            if global.format == Format::Json {
                return output::json_line(&json);
            }
            output::line(format_args!("key {key} of bucket {}", bucket.name))?;
            output::line(format_args!("token {:016x}", place.token.0))?;
            return partition_text(&topology, place.partition);
        }
        if let Some(partition) = args.partition {
            let partition = partition.of(&topology, bucket.quorum.n())?;
            return match global.format {
                Format::Json => output::json_line(&partition_json(&topology, partition)),
                _ => partition_text(&topology, partition),
            };
        }
        overview(global, &topology)
    })
}

/// Share of the slots of the default bucket's class that a member owns, in percent.
pub(super) fn owned_percent(topology: &Topology, node: NodeId) -> f64 {
    let ring = topology.ring();
    let slots: usize = ring.all_partitions().map(|partition| usize::from(partition.n)).sum();
    ring.owned(node).count() as f64 * 100.0 / slots.max(1) as f64
}

fn overview(global: &GlobalArgs, topology: &Topology) -> Result {
    let ring = topology.ring();
    if global.format == Format::Json {
        let members: Vec<Value> = members(topology)
            .map(|member| {
                json!({
                    "name": member.name,
                    "id": member.id.to_string(),
                    "address": member.address,
                    "zone": member.zone,
                    "weight": member.weight,
                    "shards": member.shards,
                    "partitions": ring.owned(member.id).count(),
                    "owned_percent": owned_percent(topology, member.id),
                })
            })
            .collect();
        return output::json_line(&json!({
            "cluster": topology.cluster(),
            "version": ring.version().0,
            "digest": format!("{:032x}", ring.digest()),
            "partitions": ring.partitions().get(),
            "classes": ring.classes().collect::<Vec<_>>(),
            "members": members,
        }));
    }
    let classes: Vec<String> = ring.classes().map(|n| format!("n = {n}")).collect();
    output::line(format_args!(
        "cluster {}, ring version {}, {} partitions for each of: {}\n",
        topology.cluster(),
        ring.version(),
        ring.partitions().get(),
        classes.join(", ")
    ))?;
    let rows = members(topology).map(|member| {
        vec![
            member.name.clone(),
            member.address.clone(),
            member.zone.clone(),
            member.weight.to_string(),
            member.shards.to_string(),
            ring.owned(member.id).count().to_string(),
            format!("{:.1} %", owned_percent(topology, member.id)),
        ]
    });
    output::line(output::table(
        &["member", "address", "zone", "weight", "shards", "partitions", "owned"],
        rows.collect(),
    ))
}

fn partition_json(topology: &Topology, partition: PartitionId) -> Value {
    let preference = topology.preference(partition);
    let names = |ids: &[NodeId]| ids.iter().map(|&id| name(topology, id)).collect::<Vec<_>>();
    let fallbacks: serde_json::Map<String, Value> = preference
        .primaries
        .iter()
        .map(|&primary| (name(topology, primary), names(&preference.fallbacks_for(primary)).into()))
        .collect();
    json!({
        "partition": partition.to_string(),
        "ring_version": topology.ring().version().0,
        "primaries": names(&preference.primaries),
        "fallbacks": fallbacks,
    })
}

fn partition_text(topology: &Topology, partition: PartitionId) -> Result {
    let ring = topology.ring();
    let range = ring.partitions().range(partition.arc);
    let preference = topology.preference(partition);
    output::line(format_args!(
        "partition {partition}, tokens {:016x} to {:016x}, ring version {}\n",
        range.first.0,
        range.last.0,
        ring.version()
    ))?;
    let rows = preference.primaries.iter().map(|&primary| {
        let member = ring.member(primary);
        let fallbacks: Vec<String> = preference.fallbacks_for(primary).iter().map(|&id| name(topology, id)).collect();
        vec![
            name(topology, primary),
            member.map_or_else(String::new, |member| member.address.clone()),
            member.map_or_else(String::new, |member| member.zone.clone()),
            if fallbacks.is_empty() { "-".to_owned() } else { fallbacks.join(", ") },
        ]
    });
    output::line(output::table(&["primary", "address", "zone", "stands in for it, in order"], rows.collect()))
}

fn name(topology: &Topology, id: NodeId) -> String {
    topology.ring().member(id).map_or_else(|| id.to_string(), |member| member.name.clone())
}

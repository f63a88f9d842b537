//! What the data of a directory depends on, and what a change of it would cost.

use std::collections::BTreeMap;

use driftless_proto::{Conflict, Topology};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::FORMAT;

/// `topology.json`: that part of a topology which the data depends on. Kept in words of its own and not as the
/// topology itself, so that a release which knows more of topologies still reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Foundation {
    format: u32,
    pub(super) cluster: String,
    partitions: u32,
    hash_seed: u64,
    members: Vec<FoundationMember>,
    placements: Vec<FoundationPlacement>,
    buckets: Vec<FoundationBucket>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationMember {
    name: String,
    id: String,
    weight: u32,
    zone: String,
    shards: u16,
}

/// A digest of who owns what in one class: equal members must give an equal table, also in a later release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationPlacement {
    n: u8,
    digest: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FoundationBucket {
    name: String,
    id: u32,
    n: u8,
    conflict: Conflict,
}

impl Foundation {
    pub(super) fn of(topology: &Topology) -> Foundation {
        let ring = topology.ring();
        let members = ring.members().iter().map(|member| FoundationMember {
            name: member.name.clone(),
            id: member.id.to_string(),
            weight: member.weight,
            zone: member.zone.clone(),
            shards: member.shards,
        });
        let mut tables: BTreeMap<u8, Xxh3> = BTreeMap::new();
        for partition in ring.all_partitions() {
            let table = tables.entry(partition.n).or_default();
            for owner in ring.owners(partition) {
                table.update(&owner.0.to_le_bytes());
            }
        }
        let buckets = topology.buckets().iter().map(|bucket| FoundationBucket {
            name: bucket.name.to_string(),
            id: bucket.id.0,
            n: bucket.quorum.n(),
            conflict: bucket.conflict,
        });
        Foundation {
            format: FORMAT,
            cluster: topology.cluster().into(),
            partitions: ring.partitions().get(),
            hash_seed: ring.hash_seed(),
            members: members.collect(),
            placements: tables
                .iter()
                .map(|(&n, table)| FoundationPlacement { n, digest: format!("{:032x}", table.digest128()) })
                .collect(),
            buckets: buckets.collect(),
        }
    }

    /// Where `new` differs from this in a way that the data does not survive.
    pub(super) fn differences(&self, new: &Foundation) -> Vec<String> {
        let mut said = Vec::new();
        if self.partitions != new.partitions {
            said.push(format!("there are {} partitions and were {}", new.partitions, self.partitions));
        }
        if self.hash_seed != new.hash_seed {
            said.push(format!("the hash seed is {} and was {}", new.hash_seed, self.hash_seed));
        }
        self.member_differences(new, &mut said);
        self.bucket_differences(new, &mut said);
        if said.is_empty() {
            // Only then: any of the differences above moves partitions too.
            for old in &self.placements {
                if let Some(now) = new.placements.iter().find(|now| now.n == old.n)
                    && now.digest != old.digest
                {
                    said.push(format!(
                        "this release gives the partitions of n = {} to other members than the one that wrote the \
                         data did (this is a mistake in Driftless: please report it and go back to that release)",
                        old.n
                    ));
                }
            }
        }
        said
    }

    fn member_differences(&self, new: &Foundation, said: &mut Vec<String>) {
        for old in &self.members {
            let Some(now) = new.members.iter().find(|now| now.name == old.name) else {
                said.push(format!("member {:?} is missing", old.name));
                continue;
            };
            if now.id != old.id {
                said.push(format!("member {:?} has id {} and had {}", old.name, now.id, old.id));
            }
            if now.weight != old.weight {
                said.push(format!("member {:?} has weight {} and had {}", old.name, now.weight, old.weight));
            }
            if now.zone != old.zone {
                said.push(format!("member {:?} is in zone {:?} and was in {:?}", old.name, now.zone, old.zone));
            }
            if now.shards != old.shards {
                said.push(format!("member {:?} has {} shards and had {}", old.name, now.shards, old.shards));
            }
        }
        for now in &new.members {
            if !self.members.iter().any(|old| old.name == now.name) {
                said.push(format!("member {:?} is new", now.name));
            }
        }
    }

    fn bucket_differences(&self, new: &Foundation, said: &mut Vec<String>) {
        for old in &self.buckets {
            let Some(now) = new.buckets.iter().find(|now| now.name == old.name) else {
                said.push(format!("bucket {:?} is missing", old.name));
                continue;
            };
            if now.id != old.id {
                said.push(format!("bucket {:?} has id {} and had {}", old.name, now.id, old.id));
            }
            if now.n != old.n {
                said.push(format!("bucket {:?} has n = {} and had {}", old.name, now.n, old.n));
            }
            if now.conflict != old.conflict {
                let word = |conflict| match conflict {
                    Conflict::Siblings => "siblings",
                    Conflict::Lww => "lww",
                };
                let (now, was) = (word(now.conflict), word(old.conflict));
                said.push(format!("bucket {:?} has conflict = {now:?} and had {was:?}", old.name));
            }
        }
        for now in &new.buckets {
            let was = self.buckets.iter().find(|old| old.id == now.id && old.name != now.name);
            let is_new = !self.buckets.iter().any(|old| old.name == now.name);
            if let (Some(was), true) = (was, is_new) {
                said.push(format!("bucket {:?} has id {}, which is that of bucket {:?}", now.name, now.id, was.name));
            }
        }
    }
}

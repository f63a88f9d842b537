//! What the cluster has agreed on, beside what `cluster.toml` says.

use driftless_proto::{BucketDefinition, Topology};
use driftless_ring::{Member, RingVersion};

use super::finding::{Area, Report};
use crate::members::members;

/// Compares; a file that names whom nobody reaches any more is told of.
pub(super) fn compare(file: &Topology, agreed: &Topology, report: &mut Report) {
    let check = "cluster.toml";
    let version = agreed.ring().version();
    let differences = differences(file, agreed);
    if differences.is_empty() && version == FROM_THE_FILE {
        return report.ok(Area::Cluster, check, "nothing was agreed on yet, and the nodes go by the same file");
    }
    if differences.is_empty() {
        return report.ok(Area::Cluster, check, format!("it says what was agreed on (version {version})"));
    }
    let what = format!("version {version} was agreed on, and counts; in the file {}", differences.join("; "));
    let reached = |member: &Member| members(agreed).any(|other| other.address == member.address);
    let gone: Vec<String> = members(file).filter(|member| !reached(member)).map(|member| member.name).collect();
    if gone.is_empty() {
        return report.ok(Area::Cluster, check, format!("{what}. That is fine: it only says whom to call at a start"));
    }
    let remedy = format!(
        "put the present members there, with their addresses (`driftless ring`): a node that starts calls those of the file, and {} \
         will not answer",
        gone.join(", ")
    );
    report.warning(Area::Cluster, check, what, remedy);
}

/// What nodes go by before they have agreed on anything.
const FROM_THE_FILE: RingVersion = RingVersion(1);

/// What the file says otherwise, in words that go on after "in the file".
fn differences(file: &Topology, agreed: &Topology) -> Vec<String> {
    let mut found = Vec::new();
    for member in members(agreed) {
        match file.ring().member_by_name(&member.name) {
            None => found.push(format!("{} is missing", member.name)),
            Some(written) => {
                let parts = [
                    ("is at", written.address != member.address, &written.address, &member.address),
                    ("is in zone", written.zone != member.zone, &written.zone, &member.zone),
                    (
                        "has weight",
                        written.weight != member.weight,
                        &written.weight.to_string(),
                        &member.weight.to_string(),
                    ),
                    (
                        "has shards",
                        written.shards != member.shards,
                        &written.shards.to_string(),
                        &member.shards.to_string(),
                    ),
                ];
                let differing = parts.into_iter().filter(|(_, differs, ..)| *differs);
                found.extend(
                    differing.map(|(what, _, in_file, is)| format!("{} {what} {in_file}, not {is}", member.name)),
                );
            }
        }
    }
    let is_gone = |member: &Member| agreed.ring().member_by_name(&member.name).is_none();
    found.extend(members(file).filter(is_gone).map(|member| format!("{} is still a member", member.name)));
    found.extend(buckets(file, agreed));
    found
}

fn buckets(file: &Topology, agreed: &Topology) -> Vec<String> {
    let mut found = Vec::new();
    for bucket in agreed.buckets() {
        let written = file.buckets().iter().find(|written| written.id == bucket.id);
        match written {
            None => found.push(format!("bucket {} is missing", bucket.name)),
            Some(written) if written != bucket => {
                found.push(format!("bucket {} {}, not {}", bucket.name, settings(written), settings(bucket)));
            }
            Some(_) => {}
        }
    }
    let is_gone = |bucket: &&BucketDefinition| agreed.buckets().iter().all(|other| other.id != bucket.id);
    found.extend(file.buckets().iter().filter(is_gone).map(|bucket| format!("there is still bucket {}", bucket.name)));
    found
}

fn settings(bucket: &BucketDefinition) -> String {
    let BucketDefinition { quorum, sloppy, durability, read_all, .. } = bucket;
    let (n, r, w) = (quorum.n(), quorum.r(), quorum.w());
    let durability = format!("{durability:?}").to_lowercase();
    format!("has n = {n}, r = {r}, w = {w}, sloppy = {sloppy}, durability = {durability}, read_all = {read_all}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_testkit::TopologyBuilder;

    fn of(members: &[(&str, &str, u32)]) -> Topology {
        let members = members.iter().map(|(name, address, weight)| {
            let mut member = Member::new(*name, *address);
            member.weight = *weight;
            member
        });
        TopologyBuilder::of_members(members).named("t").hash_seed(0).build()
    }

    #[test]
    fn a_file_is_compared_with_what_was_agreed_on() {
        let agreed = of(&[("a", "h1:1", 1), ("b", "h2:1", 2), ("c", "h3:1", 1)]);
        assert!(differences(&agreed, &agreed).is_empty());
        let file = of(&[("a", "h1:1", 1), ("b", "h2:1", 1), ("d", "h4:1", 1)]);
        let found = differences(&file, &agreed);
        assert_eq!(found, ["b has weight 1, not 2", "c is missing", "d is still a member"]);
        let (mut harmless, mut stale) = (Report::default(), Report::default());
        compare(&of(&[("a", "h1:1", 1), ("b", "h2:1", 1)]), &agreed, &mut harmless);
        assert!(!harmless.is_bad(true), "{}", harmless.as_text());
        compare(&file, &agreed, &mut stale);
        assert!(stale.is_bad(true) && stale.as_text().contains("d will not answer"), "{}", stale.as_text());
    }
}

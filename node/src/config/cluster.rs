//! `cluster.toml`: the members and buckets that a cluster is founded with. Every node reads the same file and computes the same [`Topology`]
//! from it, ring version 1. Once they have agreed on it, it only names whom to call at a start, and the cluster.
//!
//! ```toml
//! cluster = "shop"            # name; the certificates carry it
//! partitions = 256            # arcs of the ring: a power of two, many times the number of members
//! hash_seed = 0               # seed of the tokens; for ever
//!
//! [[member]]
//! name = "n1"
//! address = "10.0.0.1:7400"   # UDP of shard 0; shard s listens on port + s
//! zone = "a"                  # what fails together; replicas are spread over zones
//! weight = 1                  # share of the data, relative to the others
//! shards = 1                  # threads with a socket each
//!
//! [[bucket]]
//! name = "carts"
//! n = 3                       # replicas; r and w default to a majority of it
//! conflict = "siblings"       # or "lww": the last writer wins, the others are discarded
//! durability = "sync"         # or "buffered": synced within a second
//! ```
//! A bucket's id follows from its name, or is given by `id`; so adding and reordering buckets never changes one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use driftless_proto::bucket::READ_ALL_DEFAULT;
use driftless_proto::{BucketDefinition, BucketId, BucketName, Conflict, Durability, Quorum, Topology};
use driftless_ring::{Member, Partitions, Ring, RingSpec};
use toml::Table;
use xxhash_rust::xxh3::xxh3_64;

use super::error::{ConfigError, read_file};
use super::member::{SHARDS_MAX, WEIGHT_MAX, ZONE, is_plain_name, is_zone};
use super::table::{Section, parse};

/// Reads a cluster file.
///
/// # Errors
/// [`ConfigError`] says what is wrong, where, and what to write instead.
pub fn read_cluster(path: &Path) -> Result<Topology, ConfigError> {
    parse_cluster(path, &read_file(path)?)
}

/// Reads the text of a cluster file; the path is for messages.
///
/// # Errors
/// As [`read_cluster`].
pub fn parse_cluster(path: &Path, text: &str) -> Result<Topology, ConfigError> {
    of_table(path, parse(path, text)?)
}

/// The same of a file that is TOML.
pub(super) fn of_table(path: &Path, table: Table) -> Result<Topology, ConfigError> {
    let mut top = Section::top(path, table);
    let cluster = top.required("cluster", "give the cluster a name, as in cluster = \"shop\"")?;
    if !is_plain_name(&cluster) {
        return Err(top.bad("cluster", &cluster.into(), PLAIN_NAME));
    }
    let partitions = top.number("partitions", 1, u64::from(Partitions::MAX))?.unwrap_or(PARTITIONS_DEFAULT);
    let hash_seed = top.number("hash_seed", 0, i64::MAX as u64)?.unwrap_or(0);
    let members = top.sections("member")?.into_iter().map(member).collect::<Result<Vec<_>, _>>()?;
    check_apart(path, &members)?;
    let buckets = top.sections("bucket")?;
    let count = members.len();
    let buckets = buckets.into_iter().map(|section| bucket(path, section, count)).collect::<Result<Vec<_>, _>>()?;
    top.finish()?;
    let buckets = with_built_in(path, buckets, count)?;

    let ring_error = |source| ConfigError::Ring { path: path.to_owned(), source };
    let spec = RingSpec {
        partitions: Partitions::new(partitions as u32).map_err(ring_error)?,
        hash_seed,
        members,
        classes: buckets.iter().map(|bucket| bucket.quorum.n()).collect::<BTreeSet<u8>>(),
    };
    let ring = Ring::first(spec).map_err(ring_error)?;
    Topology::new(cluster, ring, buckets).map_err(|source| ConfigError::Topology { path: path.to_owned(), source })
}

/// The id of a bucket that names none: a hash of its name, so that it does not depend on the order of the file.
pub fn bucket_id_of_name(name: &BucketName) -> BucketId {
    if name.as_str() == "default" {
        return BucketId::DEFAULT;
    }
    // 0 belongs to the default bucket.
    BucketId((xxh3_64(name.as_str().as_bytes()) as u32).max(1))
}

fn member(mut section: Section<'_>) -> Result<Member, ConfigError> {
    let name = section.required("name", "every [[member]] needs a name")?;
    if !is_plain_name(&name) {
        return Err(section.bad("name", &name.into(), PLAIN_NAME));
    }
    let address = section
        .required("address", "write the UDP address that peers and clients reach it at, as in \"10.0.0.1:7400\"")?;
    if host_and_port(&address).is_none() {
        return Err(section.bad(
            "address",
            &address.into(),
            "host:port, as in \"10.0.0.1:7400\" or \"[2001:db8::1]:7400\"",
        ));
    }
    if !is_reachable_address(&address) {
        let expected =
            "the address at which others reach this member; the one that it listens on is `listen` in its node.toml";
        return Err(section.bad("address", &address.into(), expected));
    }
    let shards_max = shards_max(Some(&address));
    let mut member = Member::new(name, address);
    member.zone = section.string("zone")?.unwrap_or_else(|| "default".to_owned());
    if !is_zone(&member.zone) {
        return Err(section.bad("zone", &member.zone.into(), ZONE));
    }
    member.weight = section.number("weight", 1, WEIGHT_MAX.into())?.unwrap_or(1) as u32;
    member.shards = section.number("shards", 1, shards_max)?.unwrap_or(1) as u16;
    section.finish()?;
    Ok(member)
}

/// The host without the brackets of an IPv6 address, and the port.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_fine = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']']) && !host.contains(char::is_whitespace),
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && is_fine)?;
    Some((bare.unwrap_or(host), port))
}

/// Whether others can reach a member there, as far as can be seen: `host:port`, and no address that stands for all of a machine's.
pub(super) fn is_reachable_address(address: &str) -> bool {
    let unusable = |host: IpAddr| host.is_unspecified() || host.is_multicast();
    host_and_port(address).is_some_and(|(host, _)| !host.parse().is_ok_and(unusable))
}

/// How many shards a member can have there: each has a port of its own, from that of the address on.
pub(super) fn shards_max(address: Option<&str>) -> u64 {
    let port = address.and_then(host_and_port).map_or(0, |(_, port)| port);
    SHARDS_MAX.min(u64::from(u16::MAX - port) + 1)
}

/// No two members may have a port in common.
fn check_apart(path: &Path, members: &[Member]) -> Result<(), ConfigError> {
    let ports = |member: &Member| {
        let (host, port) = host_and_port(&member.address)?;
        Some((host.to_ascii_lowercase(), port, port + (member.shards - 1)))
    };
    for (at, second) in members.iter().enumerate() {
        let Some((host, from, to)) = ports(second) else { continue };
        let shares = |first: &&Member| ports(first).is_some_and(|(other, a, b)| other == host && from <= b && a <= to);
        if let Some(first) = members[..at].iter().find(shares) {
            return Err(ConfigError::SharedPorts {
                path: path.to_owned(),
                first: first.name.clone(),
                second: second.name.clone(),
                host,
            });
        }
    }
    Ok(())
}

fn bucket(path: &Path, mut section: Section<'_>, members: usize) -> Result<BucketDefinition, ConfigError> {
    let name = section.required("name", "every [[bucket]] needs a name")?;
    let name = BucketName::new(name).map_err(|source| ConfigError::BucketName { path: path.to_owned(), source })?;
    let id = section.number("id", 0, u64::from(u32::MAX))?.map(|id| BucketId(id as u32));
    let is_default = name.as_str() == "default";
    if let Some(id) = id
        && is_default != (id == BucketId::DEFAULT)
    {
        return Err(section.bad(
            "id",
            &i64::from(id.0).into(),
            "1 or more; 0 is the id of the bucket \"default\" and of no other",
        ));
    }
    let n_default = BucketDefinition::built_in(members).quorum.n();
    // Out of bounds for u8 is out of bounds for a quorum; its own error says so best.
    let mut small = |key| -> Result<Option<u8>, ConfigError> {
        Ok(section.number(key, 0, i64::MAX as u64)?.map(|number| u8::try_from(number).unwrap_or(u8::MAX)))
    };
    let (n, r, w) = (small("n")?.unwrap_or(n_default), small("r")?, small("w")?);
    let quorum = Quorum::majority(n).and_then(|quorum| quorum.with(r, w));
    let quorum =
        quorum.map_err(|source| ConfigError::Quorum { path: path.to_owned(), bucket: name.to_string(), source })?;
    if usize::from(n) > members && members > 0 {
        return Err(ConfigError::TooFewMembers { path: path.to_owned(), bucket: name.to_string(), n, members });
    }
    let definition = BucketDefinition {
        id: id.unwrap_or_else(|| bucket_id_of_name(&name)),
        quorum,
        sloppy: section.switch("sloppy")?.unwrap_or(true),
        conflict: section
            .choice("conflict", &[("siblings", Conflict::Siblings), ("lww", Conflict::Lww)])?
            .unwrap_or_default(),
        durability: section
            .choice("durability", &[("sync", Durability::Sync), ("buffered", Durability::Buffered)])?
            .unwrap_or_default(),
        read_all: section.number("read_all", 0, 100)?.map_or(READ_ALL_DEFAULT, |percent| percent as u8),
        name,
    };
    section.finish()?;
    Ok(definition)
}

fn with_built_in(
    path: &Path,
    mut buckets: Vec<BucketDefinition>,
    members: usize,
) -> Result<Vec<BucketDefinition>, ConfigError> {
    for (i, bucket) in buckets.iter().enumerate() {
        let clash = buckets[..i].iter().find(|other| other.id == bucket.id && other.name != bucket.name);
        if let Some(other) = clash {
            return Err(ConfigError::BucketId {
                path: PathBuf::from(path),
                first: other.name.to_string(),
                second: bucket.name.to_string(),
                id: bucket.id.0,
            });
        }
    }
    if !buckets.iter().any(|bucket| bucket.id == BucketId::DEFAULT) {
        buckets.push(BucketDefinition::built_in(members));
    }
    Ok(buckets)
}

/// 85 partitions per member of a small cluster: fine enough to balance, coarse enough to track.
const PARTITIONS_DEFAULT: u64 = 256;

const PLAIN_NAME: &str = "1 to 64 letters, digits, '-', '_' and '.', starting with a letter or a digit";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Topology, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, text).expect("writes");
        read_cluster(&path).map_err(|error| error.to_string())
    }

    fn members(count: usize) -> String {
        (1..=count)
            .map(|i| format!("[[member]]\nname = \"n{i}\"\naddress = \"127.0.0.1:{}\"\n", 7390 + 10 * i))
            .collect()
    }

    #[test]
    fn a_minimal_file_makes_a_ring_and_the_default_bucket() {
        let topology = read(&format!("cluster = \"shop\"\n{}", members(3))).expect("is fine");
        assert_eq!(topology.cluster(), "shop");
        assert_eq!(topology.ring().partitions().get(), 256);
        assert_eq!(topology.ring().members().len(), 3);
        let bucket = topology.bucket_named("default").expect("always exists");
        assert_eq!((bucket.id, bucket.quorum), (BucketId::DEFAULT, Quorum::new(3, 2, 2).expect("valid")));
    }

    #[test]
    fn every_key_of_a_bucket_is_taken() {
        let text = format!(
            "cluster = \"shop\"\npartitions = 16\nhash_seed = 5\n{}[[bucket]]\nname = \"carts\"\nid = 9\nn = 2\nr = 1\nw = 2\nsloppy = false\nconflict = \"lww\"\ndurability = \"buffered\"\nread_all = 0\n[[bucket]]\nname = \"default\"\nr = 1\n",
            members(3)
        );
        let topology = read(&text).expect("is fine");
        let carts = topology.bucket_named("carts").expect("exists");
        assert_eq!(carts.id, BucketId(9));
        assert_eq!((carts.quorum.n(), carts.quorum.r(), carts.quorum.w()), (2, 1, 2));
        assert_eq!((carts.sloppy, carts.conflict, carts.durability), (false, Conflict::Lww, Durability::Buffered));
        assert_eq!(carts.read_all, 0);
        assert_eq!(topology.bucket(BucketId::DEFAULT).expect("exists").quorum.r(), 1);
        assert_eq!(topology.ring().hash_seed(), 5);
    }

    #[test]
    fn adding_a_bucket_never_changes_the_id_of_another() {
        let base = format!("cluster = \"shop\"\n{}", members(3));
        let one = read(&format!("{base}[[bucket]]\nname = \"carts\"\n")).expect("is fine");
        let two = read(&format!("{base}[[bucket]]\nname = \"a\"\n[[bucket]]\nname = \"carts\"\n")).expect("is fine");
        let id = |topology: &Topology| topology.bucket_named("carts").expect("exists").id;
        assert_eq!(id(&one), id(&two));
        assert_ne!(id(&one), BucketId::DEFAULT);
    }

    #[test]
    fn an_address_that_nobody_can_reach_or_that_two_have_is_refused() {
        let of = |addresses: &[(&str, u16)]| {
            let members = addresses.iter().enumerate().map(|(at, (address, shards))| {
                format!("[[member]]\nname = \"n{at}\"\naddress = \"{address}\"\nshards = {shards}\n")
            });
            read(&format!("cluster = \"c\"\n{}", members.collect::<String>()))
        };
        for address in ["0.0.0.0:7400", "[::]:7400", "224.0.0.1:7400"] {
            assert!(of(&[(address, 1)]).expect_err("reaches nobody").contains("`listen`"), "{address}");
        }
        for address in ["::1:7400", "[::1:7400", "[n1]:7400", "n1", "n 1:7400", ":7400", "n1:0", "n1:65536"] {
            assert!(of(&[(address, 1)]).expect_err("no address").contains("host:port"), "{address}");
        }
        assert!(of(&[("n1:7400", 4), ("N1:7403", 1)]).expect_err("one port").contains("n0 and n1"));
        assert!(of(&[("n1:7400", 3), ("n1:7403", 1), ("n2:7400", 1), ("[::1]:7400", 1)]).is_ok());
        assert!(of(&[("n1:65535", 2)]).expect_err("no port is left").contains("from 1 to 1"));
    }

    #[test]
    fn mistakes_are_named() {
        let three = members(3);
        let bucket = |rest: &str| format!("cluster = \"c\"\n{three}[[bucket]]\nname = \"b\"\n{rest}\n");
        let cases = [
            (format!("clutser = \"c\"\n{three}"), "cluster is missing"),
            (format!("cluster = \"c\"\npartitons = 8\n{three}"), "did you mean \"partitions\"?"),
            (format!("cluster = \"c\"\npartitions = 100\n{three}"), "power of two"),
            (
                format!("cluster = \"c\"\n{three}[[member]]\nname = \"n1\"\naddress = \"h:1\"\n"),
                "two members are called \"n1\"",
            ),
            ("cluster = \"c\"\n[[member]]\nname = \"x\"\naddress = \"nowhere\"\n".to_owned(), "host:port"),
            (
                "cluster = \"c\"\n[[member]]\nname = \"x\"\naddress = \"h:1\"\nzonne = \"a\"\n".to_owned(),
                "did you mean \"zone\"?",
            ),
            (
                "cluster = \"c\"\n[[member]]\nname = \"x\"\naddress = \"h:1\"\nzone = \"a\\tb\"\n".to_owned(),
                "1 to 64 bytes of text",
            ),
            ("cluster = \"c\"\n".to_owned(), "no members"),
            ("cluster = \"a b\"\n".to_owned(), "letters, digits"),
            ("cluster = [".to_owned(), "not well-formed TOML"),
            (bucket("n = 4"), "wants n = 4, but there are only 3 members"),
            (bucket("r = 4"), "r = 4 is not possible with n = 3"),
            (bucket("w = 0"), "w = 0 is not possible"),
            (bucket("n = 300"), "n = 255 is not possible"),
            (bucket("conflict = \"merge\""), "\"siblings\" or \"lww\""),
            (bucket("read_all = 101"), "from 0 to 100"),
            (bucket("id = 0"), "1 or more"),
            (bucket("sloppy = 1"), "true or false"),
            (bucket("[[bucket]]\nname = \"b\""), "defined twice"),
            (bucket("id = 5\n[[bucket]]\nname = \"d\"\nid = 5"), "same id 5"),
            (bucket("[[bucket]]\nname = \"B\""), "not a bucket name"),
        ];
        for (text, expected) in cases {
            let error = read(&text).expect_err(expected);
            assert!(error.contains(expected), "{error:?} should say {expected:?}");
        }
        let absent = read_cluster(Path::new("/nonexistent/cluster.toml")).expect_err("is absent").to_string();
        assert!(absent.contains("cannot read /nonexistent/cluster.toml"), "{absent}");
    }
}

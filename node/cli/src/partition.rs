//! Partitions as people write them: `17` or `n3/17`.

use driftless_proto::Topology;
use driftless_ring::{ArcIndex, PartitionId};

use super::exit::{Failure, Result};

/// The number of an arc, and the replication factor if it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Partition {
    n: Option<u8>,
    arc: u32,
}

impl Partition {
    /// The one that is meant; without a replication factor it is among those with this one.
    pub(crate) fn of(self, topology: &Topology, n: u8) -> Result<PartitionId> {
        let n = self.n.unwrap_or(n);
        let ring = topology.ring();
        let partitions = ring.partitions().get();
        if self.arc >= partitions {
            return Err(Failure::usage(format_args!(
                "there is no partition {}; the ring has {partitions}, from 0 to {}",
                self.arc,
                partitions - 1
            )));
        }
        if !ring.classes().any(|class| class == n) {
            return Err(Failure::usage(format_args!(
                "no bucket has n = {n}, so there is no partition n{n}/{}",
                self.arc
            ))
            .hint("driftless ring --key KEY names the partition of a key"));
        }
        Ok(PartitionId { n, arc: ArcIndex(self.arc) })
    }

    /// The same, of a bucket with this replication factor and no other.
    pub(crate) fn of_bucket(self, topology: &Topology, n: u8) -> Result<PartitionId> {
        match self.n {
            Some(asked) if asked != n => Err(Failure::usage(format_args!(
                "the bucket has n = {n}; its partitions are n{n}/0 to n{n}/{}",
                topology.ring().partitions().get() - 1
            ))),
            _ => self.of(topology, n),
        }
    }
}

/// For clap.
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
    use driftless_testkit::TopologyBuilder;

    use super::*;

    #[test]
    fn partitions_have_two_spellings() {
        assert_eq!(parse_partition("17"), Ok(Partition { n: None, arc: 17 }));
        assert_eq!(parse_partition("n3/17"), Ok(Partition { n: Some(3), arc: 17 }));
        for bad in ["", "n3", "n/1", "-1", "3/17", "n300/1"] {
            assert!(parse_partition(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_mean_the_same_partition_wherever_they_are_given() {
        let topology = TopologyBuilder::of(["a", "b", "c"]).build();
        let of = |text: &str| parse_partition(text).expect(text).of(&topology, 3);
        assert_eq!(of("7").expect("is there"), of("n3/7").expect("is there"));
        assert!(of("n9/7").expect_err("no bucket has n = 9").to_string().contains("no bucket has n = 9"));
        assert!(of("100000").expect_err("is not on the ring").to_string().contains("there is no partition 100000"));
        let other = parse_partition("n3/7").expect("parses").of_bucket(&topology, 2);
        assert!(other.expect_err("another bucket's").to_string().contains("the bucket has n = 2"));
    }
}

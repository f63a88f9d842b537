//! What requests do: one operation all the time, or the mixes of YCSB.
//!
//! ```text
//! a   50 % reads, 50 % updates               zipfian   sessions
//! b   95 % reads,  5 % updates               zipfian   tags of photos
//! c  100 % reads                             zipfian   profiles
//! d   95 % reads,  5 % inserts               latest    news
//! f   50 % reads, 50 % read-modify-writes    zipfian   a user's record
//! ```
//! There is no e: it scans in the order of keys, which this store does not have.

use serde::{Deserialize, Serialize};

use super::keys::Distribution;
use super::random::Random;

/// The mixes of YCSB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Workload {
    /// 50 % reads, 50 % updates
    A,
    /// 95 % reads, 5 % updates
    B,
    /// Reads alone
    C,
    /// 95 % reads, mostly of what was inserted last, 5 % inserts
    D,
    /// 50 % reads, 50 % read-modify-writes
    F,
}

/// What all requests do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    /// Overwrite keys
    Put,
    /// Read keys
    Get,
    /// Both, by --read-ratio
    Mixed,
}

/// What one request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Get,
    /// Overwrites a key that exists, with the context that its owner holds.
    Put,
    /// Writes a key that does not exist yet.
    Insert,
    /// A get, then a put with its context; the latency is that of both together.
    ReadModifyWrite,
}

/// The share of each kind.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Mix {
    /// Of gets; the others write.
    pub(super) reads: f64,
    pub(super) write: Kind,
}

impl Workload {
    pub(super) fn mix(self) -> Mix {
        let (reads, write) = match self {
            Workload::A => (0.5, Kind::Put),
            Workload::B => (0.95, Kind::Put),
            Workload::C => (1.0, Kind::Put),
            Workload::D => (0.95, Kind::Insert),
            Workload::F => (0.5, Kind::ReadModifyWrite),
        };
        Mix { reads, write }
    }

    pub(super) fn distribution(self) -> Distribution {
        match self {
            Workload::D => Distribution::Latest,
            _ => Distribution::Zipfian,
        }
    }
}

impl Operation {
    pub(super) fn mix(self, read_ratio: f64) -> Mix {
        let reads = match self {
            Operation::Put => 0.0,
            Operation::Get => 1.0,
            Operation::Mixed => read_ratio,
        };
        Mix { reads, write: Kind::Put }
    }
}

impl Mix {
    pub(super) fn draw(self, random: &mut Random) -> Kind {
        if random.unit() < self.reads { Kind::Get } else { self.write }
    }

    /// Whether it overwrites keys with contexts that it must hold before.
    pub(super) fn needs_contexts(self) -> bool {
        self.reads < 1.0 && self.write == Kind::Put
    }

    pub(super) fn inserts(self) -> bool {
        self.reads < 1.0 && self.write == Kind::Insert
    }
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Put, Kind::Get, Kind::Insert, Kind::ReadModifyWrite];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::ReadModifyWrite => "read-modify-write",
            other => other.field(),
        }
    }

    /// As results in JSON name it.
    pub(super) fn field(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Insert => "insert",
            Kind::ReadModifyWrite => "read_modify_write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixes_are_those_of_ycsb() {
        let shares = |workload: Workload| {
            let mut random = Random::new(3);
            let mix = workload.mix();
            let draws = 100_000;
            let gets = (0..draws).filter(|_| mix.draw(&mut random) == Kind::Get).count();
            (gets as f64 / f64::from(draws), mix.write, workload.distribution())
        };
        for (workload, reads, write, distribution) in [
            (Workload::A, 0.5, Kind::Put, Distribution::Zipfian),
            (Workload::B, 0.95, Kind::Put, Distribution::Zipfian),
            (Workload::C, 1.0, Kind::Put, Distribution::Zipfian),
            (Workload::D, 0.95, Kind::Insert, Distribution::Latest),
            (Workload::F, 0.5, Kind::ReadModifyWrite, Distribution::Zipfian),
        ] {
            let (drawn, kind, keys) = shares(workload);
            assert!((drawn - reads).abs() < 0.01, "{workload:?}: {drawn}");
            assert_eq!((kind, keys), (write, distribution), "{workload:?}");
        }
    }

    #[test]
    fn only_overwriting_needs_contexts_and_only_d_inserts() {
        let of = |workload: Workload| (workload.mix().needs_contexts(), workload.mix().inserts());
        assert_eq!([Workload::A, Workload::B].map(of), [(true, false); 2]);
        assert_eq!([Workload::C, Workload::F].map(of), [(false, false); 2]);
        assert_eq!(of(Workload::D), (false, true));
        assert!(Operation::Put.mix(0.5).needs_contexts() && !Operation::Get.mix(0.5).needs_contexts());
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| Operation::Mixed.mix(0.0).draw(&mut random) == Kind::Put));
        assert!((0..1000).all(|_| Operation::Mixed.mix(1.0).draw(&mut random) == Kind::Get));
    }
}

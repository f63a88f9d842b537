//! The members of a cluster, for commands that ask each of them.

use std::time::Duration;

use driftless_proto::Topology;
use driftless_ring::Member;

/// All of them, by their names: n2 comes before n10.
pub(crate) fn members(topology: &Topology) -> impl Iterator<Item = Member> {
    let mut members: Vec<Member> = topology.ring().members().to_vec();
    members.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    members.into_iter()
}

/// How long a member is waited for: a node that is up answers in milliseconds.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);

//! The members of a cluster, for commands that ask each of them.

use std::cmp::Ordering;
use std::time::Duration;

use driftless_node::config::{ZONE, is_plain_name, is_zone};
use driftless_proto::Topology;
use driftless_ring::Member;

use super::exit::{Failure, Result};

/// All of them, in the order of their names.
pub(crate) fn members(topology: &Topology) -> impl Iterator<Item = Member> {
    let mut members: Vec<Member> = topology.ring().members().to_vec();
    members.sort_by(|a, b| by_name(&a.name, &b.name));
    members.into_iter()
}

/// The order in which nodes are shown: n2 comes before n10.
pub(crate) fn by_name(one: &str, other: &str) -> Ordering {
    (one.len(), one).cmp(&(other.len(), other))
}

/// The names of all, or this one.
pub(crate) fn names(topology: &Topology, wanted: Option<&str>) -> Result<Vec<String>> {
    let all: Vec<String> = members(topology).map(|member| member.name).collect();
    match wanted {
        None => Ok(all),
        Some(wanted) if all.iter().any(|name| name == wanted) => Ok(vec![wanted.to_owned()]),
        Some(wanted) => Err(Failure::usage(format_args!("there is no node \"{wanted}\" in this cluster"))
            .hint(format_args!("it has {}", all.join(", ")))),
    }
}

/// For clap: what a node may be called. Other members would not listen to one that calls itself anything else.
pub(crate) fn parse_plain_name(text: &str) -> std::result::Result<String, String> {
    if is_plain_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or a digit".to_owned())
    }
}

/// For clap: what a zone may be.
pub(crate) fn parse_zone(text: &str) -> std::result::Result<String, String> {
    if is_zone(text) { Ok(text.to_owned()) } else { Err(format!("expected {ZONE}")) }
}

/// How long a member is waited for: a node that is up answers in milliseconds.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use driftless_testkit::TopologyBuilder;

    use super::*;

    #[test]
    fn a_node_that_is_not_there_is_named_and_so_are_those_that_are() {
        let topology = TopologyBuilder::of(["n10", "n2", "n1"]).build();
        assert_eq!(names(&topology, None).expect("all"), ["n1", "n2", "n10"]);
        assert_eq!(names(&topology, Some("n2")).expect("is there"), ["n2"]);
        let failure = names(&topology, Some("n9")).expect_err("is not there").to_string();
        assert_eq!(failure, "there is no node \"n9\" in this cluster\nhint: it has n1, n2, n10");
    }

    #[test]
    fn names_that_would_leave_the_directory_or_hide_in_it_are_refused() {
        for bad in ["", "..", "../n4", ".n4", "a/b", "rack 1", "-n", "_n", "größe"] {
            assert!(parse_plain_name(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_plain_name("n4.b-2_x").as_deref(), Ok("n4.b-2_x"));
    }

    #[test]
    fn a_zone_is_any_text_of_one_line() {
        for bad in ["", "a\nb", "a\tb", "\u{1b}[31m", &"z".repeat(65)] {
            assert!(parse_zone(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_zone("rack 1, größe").as_deref(), Ok("rack 1, größe"));
    }
}

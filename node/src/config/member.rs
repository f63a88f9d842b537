//! What a member may be called, and how much of it there may be: in a file that somebody writes, and in what other nodes say.

use driftless_ring::Member;

/// Names of clusters and members go into certificates, file names and labels: 1 to 64 of letters, digits, `-`, `_`, `.`.
pub fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// Zones are compared and shown, and nothing else: up to 64 bytes of anything that can be printed.
pub fn is_zone(zone: &str) -> bool {
    (1..=64).contains(&zone.len()) && !zone.chars().any(char::is_control)
}

/// Whether a node can be what another says of it. Without a zone are those that no file gives one.
pub(crate) fn is_possible(member: &Member) -> bool {
    let Member { name, address, zone, weight, shards, .. } = member;
    is_plain_name(name)
        && (zone.is_empty() || is_zone(zone))
        && (1..=256).contains(&address.len())
        && address.bytes().all(|byte| byte.is_ascii_graphic())
        && (1..=WEIGHT_MAX).contains(weight)
        && (1..=SHARDS_MAX).contains(&u64::from(*shards))
}

/// What a zone is, for those who have written another thing.
pub const ZONE: &str = "1 to 64 bytes of text without line breaks, tabs and the like";

/// Weights are relative; a million to one is more than any two machines differ.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// More threads than machines have today.
pub(crate) const SHARDS_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_allows_no_node_can_be() {
        let like = |edit: &dyn Fn(&mut Member)| {
            let mut member = Member::new("n4", "10.0.0.4:7400");
            edit(&mut member);
            is_possible(&member)
        };
        assert!(like(&|_| {}), "a member without a zone");
        assert!(like(&|member| member.zone = "rack 1, größe".into()));
        for bad in ["a\nb", "\t", "\u{1b}[31m"] {
            assert!(!like(&|member| member.zone = bad.into()), "{bad:?}");
        }
        assert!(!like(&|member| member.zone = "z".repeat(65)));
        assert!(!like(&|member| member.weight = 0) && !like(&|member| member.weight = WEIGHT_MAX + 1));
        assert!(!like(&|member| member.shards = 0) && !like(&|member| member.shards = SHARDS_MAX as u16 + 1));
        assert!(!like(&|member| member.address = "a b".into()) && !like(&|member| member.address = String::new()));
        assert!(!like(&|member| member.name = "../n4".into()));
    }
}

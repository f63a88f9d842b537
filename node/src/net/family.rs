//! Which addresses a node can reach from the one that it listens on, and in which order several of one name are tried.

use std::net::{IpAddr, SocketAddr};

/// More addresses than that, one name hardly has.
const ADDRESSES_MAX: usize = 8;

/// Whether a socket on `listen` reaches an address: one on all IPv6 addresses reaches IPv4 as well, since it is opened for both.
pub(crate) fn reaches(listen: IpAddr, address: IpAddr) -> bool {
    match listen {
        IpAddr::V4(_) => address.is_ipv4(),
        IpAddr::V6(own) => own.is_unspecified() || address.is_ipv6(),
    }
}

/// Those that can be reached, in the order in which to try them: both families in turn, beginning with that of the first
/// (RFC 8305, section 4).
pub(crate) fn in_order(listen: IpAddr, found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found = found.filter(|address| reaches(listen, address.ip()));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in found {
        let is_first = first.first().is_none_or(|other: &SocketAddr| other.is_ipv4() == address.is_ipv4());
        let family = if is_first { &mut first } else { &mut second };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let longest = first.len().max(second.len());
    let in_turn = (0..longest).flat_map(|at| [first.get(at), second.get(at)]).flatten().copied();
    in_turn.take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn ordered(listen: &str, found: &[&str]) -> Vec<SocketAddr> {
        in_order(listen.parse().expect("an address"), addresses(found).into_iter())
    }

    #[test]
    fn a_name_with_both_families_is_tried_in_both() {
        let found = ["[::1]:7400", "[2001:db8::1]:7400", "127.0.0.1:7400", "[::1]:7400"];
        assert_eq!(ordered("::", &found), addresses(&["[::1]:7400", "127.0.0.1:7400", "[2001:db8::1]:7400"]));
        assert_eq!(ordered("0.0.0.0", &found), addresses(&["127.0.0.1:7400"]));
        assert_eq!(ordered("::1", &found), addresses(&["[::1]:7400", "[2001:db8::1]:7400"]));
        assert!(ordered("10.0.0.1", &["[::1]:7400"]).is_empty());
    }

    #[test]
    fn so_many_and_no_more() {
        let many: Vec<String> = (1..50).map(|last| format!("10.0.0.{last}:7400")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(ordered("0.0.0.0", &many), addresses(&many[..ADDRESSES_MAX]));
    }
}

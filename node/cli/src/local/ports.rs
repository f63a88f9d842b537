//! Which ports a local cluster uses, and whether they are free.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::layout::{Layout, PortPair};
use crate::exit::{Failure, Result};

/// Ports at fixed distances from a base: UDP 7400, 7410, …; admin 7401, 7411, ….
pub(crate) fn spaced_ports(base: u16, nodes: usize) -> Result<Vec<PortPair>> {
    (0..nodes)
        .map(|i| {
            let port = usize::from(base) + i * usize::from(SPACING);
            match u16::try_from(port + 1) {
                Ok(admin) => Ok((port as u16, admin)),
                Err(_) => Err(Failure::usage(format_args!("{nodes} nodes from port {base} on run past port 65535"))
                    .hint("choose a smaller --base-port")),
            }
        })
        .collect()
}

/// Ports that nobody uses at the moment.
pub(crate) fn free_ports(nodes: usize) -> Result<Vec<PortPair>> {
    let failed = |error: io::Error| Failure::failed(format_args!("cannot find free ports: {error}"));
    // All sockets stay open until the end, so that no port is given out twice.
    let mut held = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..nodes {
        let udp = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
        let tcp = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        pairs.push((udp.local_addr().map_err(failed)?.port(), tcp.local_addr().map_err(failed)?.port()));
        held.push((udp, tcp));
    }
    Ok(pairs)
}

/// Ports for one more node: behind those of the others, at the usual distances.
pub(crate) fn next_ports(layout: &Layout) -> Result<PortPair> {
    let last = layout.nodes.iter().map(|node| node.listen.port()).max().unwrap_or_default();
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let behind = (last..=u16::MAX - SPACING).step_by(SPACING.into()).skip(1).take(TRIES);
    for port in behind {
        let all = (0..SPACING).all(|shard| UdpSocket::bind((ip, port + shard)).is_ok());
        if all && TcpListener::bind((ip, port + 1)).is_ok() {
            return Ok((port, port + 1));
        }
    }
    Err(Failure::failed(format_args!("no free ports were found behind {last}")))
}

/// Says which port is in use before a node has to.
pub(super) fn check_free(layout: &Layout) -> Result {
    for node in &layout.nodes {
        for shard in 0..node.shards {
            let address = SocketAddr::new(node.listen.ip(), node.listen.port() + shard);
            UdpSocket::bind(address).map_err(|error| in_use("UDP", address, &node.name, &error))?;
        }
        TcpListener::bind(node.admin).map_err(|error| in_use("TCP", node.admin, &node.name, &error))?;
    }
    Ok(())
}

fn in_use(protocol: &str, address: SocketAddr, node: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AddrInUse {
        Failure::failed(format_args!("{protocol} port {} ({address}, node {node}) is in use", address.port()))
            .hint("stop what uses it (another dev cluster?), or start a new cluster elsewhere with --base-port and another --dir")
    } else {
        Failure::failed(format_args!("cannot listen on {protocol} {address} (node {node}): {error}"))
    }
}

/// Room for ten shards between two nodes.
pub(crate) const SPACING: u16 = 10;

/// Places that are looked at for one more node.
const TRIES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ten_apart() {
        assert_eq!(spaced_ports(7400, 3).expect("fits"), [(7400, 7401), (7410, 7411), (7420, 7421)]);
        assert!(spaced_ports(65_530, 2).is_err());
    }

    #[test]
    fn free_ports_are_distinct() {
        let pairs = free_ports(5).expect("there are some");
        let udp: std::collections::BTreeSet<u16> = pairs.iter().map(|(udp, _)| *udp).collect();
        assert_eq!(udp.len(), 5);
    }
}

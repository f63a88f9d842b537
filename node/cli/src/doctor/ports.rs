//! Whether the ports of a node are free, or its own.
//!
//! A port is tried only while nobody uses the data directory: a node that starts at that moment would find it taken. Otherwise the
//! system's tables of sockets say whether somebody has it.

mod sockets;

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use driftless_node::net::udp_probe::probe;
use driftless_node::store::directory::User;
use driftless_ring::{Member, NodeId};
use serde_json::Value;

use self::sockets::{Kind, is_taken};
use super::Patient;
use super::finding::{Area, Report};
use crate::local::http;

const AREA: Area = Area::Ports;

/// Looks at those of each shard, and at the admin port.
pub(super) fn look(patient: Option<&Patient>, report: &mut Report) {
    let Some(patient) = patient else {
        return report.unchecked(AREA, "UDP", "they are not known: the node's file cannot be used");
    };
    match listens(patient) {
        Some((first, shards)) => udp(patient, first, shards, report),
        None => report.unchecked(
            AREA,
            "UDP",
            "where the node listens is not known: no file says its address, or it cannot be resolved",
        ),
    }
    if let Some(address) = patient.config.admin {
        tcp(patient, "admin", address, report);
    }
    if let Some(address) = patient.config.admin_remote {
        tcp(patient, "admin_remote", address, report);
    }
}

/// The node as a member: by what was agreed on, or else by its files.
pub(super) fn member(patient: &Patient) -> Option<Member> {
    let founding = patient.founding.as_ref()?;
    let name = &patient.config.name;
    let agreed = patient.agreed.as_ref().and_then(|agreed| agreed.member(NodeId::of_name(name)).cloned());
    agreed.or_else(|| founding.ring().member_by_name(name).cloned()).or_else(|| patient.config.as_member())
}

fn listens(patient: &Patient) -> Option<(SocketAddr, u16)> {
    let member = member(patient)?;
    let resolved = || member.address.to_socket_addrs().ok()?.next();
    Some((patient.config.listen.or_else(resolved)?, member.shards.max(1)))
}

fn udp(patient: &Patient, first: SocketAddr, shards: u16, report: &mut Report) {
    let range = if shards > 1 { format!("{first} and {} above", shards - 1) } else { first.to_string() };
    let ports = (0..shards).map_while(|shard| first.port().checked_add(shard));
    let addresses = ports.map(|port| SocketAddr::new(first.ip(), port));
    if patient.user == User::Nobody {
        for address in addresses {
            if let Err(error) = probe(address) {
                return refused("UDP", address, &error, report);
            }
        }
        return report.ok(AREA, "UDP", format!("{range}: free"));
    }
    let found: Option<Vec<bool>> = addresses.map(|address| is_taken(Kind::Udp, address)).collect();
    let Some(found) = found else { return report.unchecked(AREA, "UDP", UNSEEN) };
    match (patient.runs(), found.contains(&true), found.contains(&false)) {
        (true, true, false) => report.ok(AREA, "UDP", format!("{range}: held by the node that runs")),
        (true, ..) => {
            let what = format!("{range}: free, although a node uses the data directory");
            report.warning(
                AREA,
                "UDP",
                what,
                "see what it was started with: it listens elsewhere, or is still opening its data",
            );
        }
        (false, false, _) => report.ok(AREA, "UDP", format!("{range}: free")),
        (false, true, _) => report.unchecked(AREA, "UDP", format!("{range}: in use, and {UNKNOWN}")),
    }
}

fn tcp(patient: &Patient, check: &'static str, address: SocketAddr, report: &mut Report) {
    let own = &patient.config.name;
    if patient.user == User::Nobody {
        return match TcpListener::bind(address) {
            Ok(_) => report.ok(AREA, check, format!("{address}: free")),
            Err(error) if error.kind() != ErrorKind::AddrInUse => refused(check, address, &error, report),
            Err(error) => match holder(address) {
                Some(name) => held(&name, check, address, report),
                None => refused(check, address, &error, report),
            },
        };
    }
    match is_taken(Kind::Tcp, address) {
        None => report.unchecked(AREA, check, UNSEEN),
        Some(false) if patient.runs() => {
            let what = format!("{address}: free, although a node uses the data directory");
            report.warning(
                AREA,
                check,
                what,
                "see what it was started with: it has another one, or is still opening its data",
            );
        }
        Some(false) => report.ok(AREA, check, format!("{address}: free")),
        Some(true) if check == "admin_remote" && patient.runs() => {
            report.ok(AREA, check, format!("{address}: in use, by the node that runs as it seems"));
        }
        Some(true) => match holder(address) {
            Some(name) if name == *own && patient.runs() => {
                report.ok(AREA, check, format!("{address}: held by the node that runs"));
            }
            Some(name) if name != *own => held(&name, check, address, report),
            None if patient.runs() => refused(check, address, &Error::from(ErrorKind::AddrInUse), report),
            _ => report.unchecked(AREA, check, format!("{address}: in use, and {UNKNOWN}")),
        },
    }
}

/// A node answers there that is not the one on this data.
fn held(name: &str, check: &'static str, address: SocketAddr, report: &mut Report) {
    let what = format!("{address}: a node {name} has it that runs on other data");
    report.problem(AREA, check, what, format!("give one of the two another one: `{check}` in node.toml"));
}

const UNSEEN: &str = "the system does not say who has which port (/proc/net)";
const UNKNOWN: &str = "whether by this node is not known: the user of its data cannot be seen";

/// The name of the node whose admin port it is.
fn holder(address: SocketAddr) -> Option<String> {
    let (_, body) = http::get(address, "/status", PATIENCE).ok()?;
    let status: Value = serde_json::from_str(&body).ok()?;
    status["name"].as_str().map(str::to_owned)
}

const PATIENCE: Duration = Duration::from_secs(2);

fn refused(check: &'static str, address: SocketAddr, error: &Error, report: &mut Report) {
    let key = if check == "UDP" { "listen" } else { check };
    let (what, remedy) = match error.kind() {
        ErrorKind::AddrInUse => (
            "another program has it",
            format!("stop that program (`ss -lpnut` names it), or give the node another one: `{key}` in node.toml"),
        ),
        ErrorKind::AddrNotAvailable => {
            ("it is no address of this machine", format!("set `{key}` in node.toml to one that is"))
        }
        ErrorKind::PermissionDenied => ("this user may not have it", format!("give `{key}` a port from 1024 on")),
        _ => ("it cannot be had", format!("correct `{key}` in node.toml")),
    };
    report.problem(AREA, check, format!("{address}: {what} ({error})"), remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_changed_is_the_key_that_is_wrong() {
        for (check, key) in [("UDP", "`listen`"), ("admin", "`admin`"), ("admin_remote", "`admin_remote`")] {
            for kind in [ErrorKind::AddrInUse, ErrorKind::AddrNotAvailable, ErrorKind::PermissionDenied] {
                let mut report = Report::default();
                refused(check, SocketAddr::from(([192, 0, 2, 1], 7)), &Error::from(kind), &mut report);
                let remedy = report.as_json()["findings"][0]["remedy"].to_string();
                assert!(remedy.contains(key), "{check}, {kind}: {remedy}");
            }
        }
    }
}

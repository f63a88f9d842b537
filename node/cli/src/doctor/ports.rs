//! Whether the ports of a node are free, or its own.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use driftless_node::net::udp_probe::probe;
use driftless_node::node::agreed;
use driftless_ring::{Member, NodeId};
use serde_json::Value;

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
    let agreed = patient.data.as_ref().and_then(|data| {
        let founding = Arc::new(founding.clone());
        agreed::configurations(name, data.store, &founding, data.agreement.clone()).ok()
    });
    let agreed = agreed.and_then(|agreed| agreed.member(NodeId::of_name(name)).cloned());
    agreed.or_else(|| founding.ring().member_by_name(name).cloned()).or_else(|| patient.config.as_member())
}

fn listens(patient: &Patient) -> Option<(SocketAddr, u16)> {
    let member = member(patient)?;
    let resolved = || member.address.to_socket_addrs().ok()?.next();
    Some((patient.config.listen.or_else(resolved)?, member.shards.max(1)))
}

fn udp(patient: &Patient, first: SocketAddr, shards: u16, report: &mut Report) {
    let range = if shards > 1 { format!("{first} and {} above", shards - 1) } else { first.to_string() };
    let mut free = 0;
    for shard in 0..shards {
        let Some(port) = first.port().checked_add(shard) else { break };
        let address = SocketAddr::new(first.ip(), port);
        match probe(address) {
            Ok(_) => free += 1,
            Err(error) if error.kind() == ErrorKind::AddrInUse && patient.runs() => {}
            Err(error) => return refused("UDP", address, &error, report),
        }
    }
    match (patient.runs(), free) {
        (false, _) => report.ok(AREA, "UDP", format!("{range}: free")),
        (true, 0) => report.ok(AREA, "UDP", format!("{range}: held by the node that runs")),
        (true, _) => {
            let what = format!("{range}: free, although a node uses the data directory");
            report.warning(
                AREA,
                "UDP",
                what,
                "see what it was started with: it listens elsewhere, or is still opening its data",
            );
        }
    }
}

fn tcp(patient: &Patient, check: &'static str, address: SocketAddr, report: &mut Report) {
    match TcpListener::bind(address) {
        Ok(_) if patient.runs() => {
            let what = format!("{address}: free, although a node uses the data directory");
            report.warning(
                AREA,
                check,
                what,
                "see what it was started with: it has another one, or is still opening its data",
            );
        }
        Ok(_) => report.ok(AREA, check, format!("{address}: free")),
        Err(error) if error.kind() != ErrorKind::AddrInUse => refused(check, address, &error, report),
        Err(_) if check == "admin_remote" && patient.runs() => {
            report.ok(AREA, check, format!("{address}: in use, by the node that runs as it seems"));
        }
        Err(error) => match holder(address) {
            Some(name) if name == patient.config.name && patient.runs() => {
                report.ok(AREA, check, format!("{address}: held by the node that runs"));
            }
            Some(name) => {
                let what = format!("{address}: a node {name} has it that runs on other data");
                report.problem(AREA, check, what, format!("give one of the two another one: `{check}` in node.toml"));
            }
            None => refused(check, address, &error, report),
        },
    }
}

/// The name of the node whose admin port it is.
fn holder(address: SocketAddr) -> Option<String> {
    let (_, body) = http::get(address, "/status", PATIENCE).ok()?;
    let status: Value = serde_json::from_str(&body).ok()?;
    status["name"].as_str().map(str::to_owned)
}

const PATIENCE: Duration = Duration::from_secs(2);

fn refused(check: &'static str, address: SocketAddr, error: &Error, report: &mut Report) {
    let (what, remedy) = match error.kind() {
        ErrorKind::AddrInUse => {
            ("another program has it", "stop that program (`ss -lpnut` names it), or give the node another port")
        }
        ErrorKind::AddrNotAvailable => {
            ("it is no address of this machine", "set `listen` to one that is, as in \"0.0.0.0:7400\"")
        }
        ErrorKind::PermissionDenied => ("this user may not have it", "use a port from 1024 on"),
        _ => ("it cannot be had", "correct it in node.toml"),
    };
    report.problem(AREA, check, format!("{address}: {what} ({error})"), remedy);
}

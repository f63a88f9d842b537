//! What a node takes of its machine: room for datagrams, open files, and a clock that somebody sets.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use driftless_node::net::udp_probe::{UdpProbe, probe};
use driftless_node::store::directory::User;
use rustix::net::sockopt;

use super::Patient;
use super::finding::{Area, Report};
use crate::descriptors;
use crate::output::size;

const AREA: Area = Area::Machine;

/// Looks at the machine, and at the process of the node if there is one.
pub(super) fn look(patient: Option<&Patient>, report: &mut Report) {
    match probe(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) {
        Ok(found) => {
            buffers(found, report);
            offload(found, report);
        }
        Err(error) => report.unchecked(AREA, "UDP buffers", format!("no socket can be opened: {error}")),
    }
    packets(patient, report);
    let process = patient.and_then(|patient| match patient.user {
        User::Process(pid) => pid,
        User::Nobody | User::Unknown => None,
    });
    let files = patient.and_then(|patient| patient.data.as_ref()).map_or(0, |data| data.files);
    open_files(process, files, report);
    clock(report);
}

fn buffers(found: UdpProbe, report: &mut Report) {
    let UdpProbe { asked, receive, send, .. } = found;
    let shown = |bytes: usize| size(bytes as u64);
    let what = format!("{} to receive and {} to send, of {}", shown(receive), shown(send), shown(asked));
    if receive < asked || send < asked {
        let what = format!("{what}: bursts of many connections are lost, and sent again");
        let remedy = format!(
            "`sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked}`, the same in /etc/sysctl.d, and start the node again"
        );
        report.warning(AREA, "UDP buffers", what, remedy);
    } else {
        report.ok(AREA, "UDP buffers", what);
    }
}

/// Tried on loopback; a network card may do without.
fn offload(found: UdpProbe, report: &mut Report) {
    let UdpProbe { sent_at_once, received_at_once, .. } = found;
    let what = format!("{sent_at_once} packets are sent in a call, {received_at_once} received");
    if sent_at_once < 2 || received_at_once < 2 {
        let what = format!("{what}: each packet costs a call (GSO, GRO)");
        report.warning(AREA, "UDP offload", what, "use Linux 5.0 or newer, outside of sandboxes that hide it");
    } else {
        report.ok(AREA, "UDP offload", what);
    }
}

/// How long packets to the others may be, as far as this machine knows: by the interface that leads there, and by what routers have said.
/// What a way takes beyond that shows only to who sends something, as QUIC's own probes do.
fn packets(patient: Option<&Patient>, report: &mut Report) {
    let check = "MTU";
    let ways = patient.map(ways).unwrap_or_default();
    let (found, where_to) = if ways.is_empty() { (interfaces(), "") } else { (ways, "to ") };
    if found.is_empty() {
        return report.unchecked(AREA, check, "no interface is known; see `ip link`");
    }
    let what = said(&found, where_to);
    let small: Vec<&str> = found.iter().filter(|(_, mtu)| *mtu < MTU_MIN).map(|(name, _)| name.as_str()).collect();
    if small.is_empty() {
        return report.ok(AREA, check, what);
    }
    let what = format!("{what}: QUIC does not get through less than {MTU_MIN}");
    let small = small.join(", ");
    let remedy = match where_to {
        "" => format!("raise that of {small}, if it leads to other nodes or clients"),
        _ => format!("raise that of the interface, or of the tunnel, that leads to {small}"),
    };
    report.warning(AREA, check, what, remedy);
}

/// Those with the same number together.
fn said(found: &[(String, u32)], where_to: &str) -> String {
    let mut by_mtu: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for (name, mtu) in found {
        by_mtu.entry(*mtu).or_default().push(name);
    }
    let said = by_mtu.iter().map(|(mtu, names)| format!("{mtu} {where_to}{}", names.join(", ")));
    said.collect::<Vec<_>>().join("; ")
}

/// What the kernel would send to each of the other members in one packet; those whose address is not known are left out.
fn ways(patient: &Patient) -> Vec<(String, u32)> {
    let topology = patient.agreed.as_ref().map(|agreed| agreed.topology().as_ref()).or(patient.founding.as_ref());
    let others = topology.map(|topology| topology.ring().members()).unwrap_or_default();
    let others = others.iter().filter(|member| member.name != patient.config.name).take(WAYS_MAX);
    let mut ways: Vec<_> = others.filter_map(|member| Some((member.name.clone(), way(&member.address)?))).collect();
    ways.sort();
    ways
}

/// A socket that is connected has sent nothing yet, and knows its way.
fn way(address: &str) -> Option<u32> {
    let address = address.to_socket_addrs().ok()?.next()?;
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    if address.is_ipv4() { sockopt::ip_mtu(&socket).ok() } else { sockopt::ipv6_mtu(&socket).ok() }
}

/// Each name may have to be looked up.
const WAYS_MAX: usize = 32;

/// All that are up: which of them lead to the others is not known.
fn interfaces() -> Vec<(String, u32)> {
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let read = |path: &Path, name: &str| fs::read_to_string(path.join(name)).ok().map(|text| text.trim().to_owned());
    let of = |interface: fs::DirEntry| {
        let path = interface.path();
        let mtu: u32 = read(&path, "mtu")?.parse().ok()?;
        let is_up = read(&path, "operstate").is_some_and(|state| state != "down");
        is_up.then(|| (interface.file_name().to_string_lossy().into_owned(), mtu))
    };
    let mut found: Vec<(String, u32)> = interfaces.flatten().filter_map(of).collect();
    found.sort();
    found
}

/// Of IPv6, and enough for the 1,200 bytes that every path of QUIC must carry.
const MTU_MIN: u32 = 1_280;

/// Of the node if one runs, else of the shell that this was typed in.
fn open_files(process: Option<u32>, files: usize, report: &mut Report) {
    let check = "open files";
    let needed = descriptors::ADVISED.max(files as u64 * 5 / 4 + BESIDE_THE_STORE);
    let of_process = process.and_then(|pid| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        Some((soft_limit(&limits)?, format!("the limit of process {pid}")))
    });
    let here = || (descriptors::hard_limit(), "the hard limit here, which a node takes".to_owned());
    let (limit, whose) = of_process.unwrap_or_else(here);
    let what = format!("{} may be open ({whose}), and the store has {files}", shown(limit));
    match limit.filter(|limit| *limit < needed) {
        None => report.ok(AREA, check, what),
        Some(_) => {
            let remedy = format!("raise the limit to {needed} (docs/deploy.md, Open files), and start the node again");
            report.warning(AREA, check, what, remedy);
        }
    }
}

/// Sockets, logs, connections of the admin port: see docs/deploy.md, Open files.
const BESIDE_THE_STORE: u64 = 100;

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string())
}

/// `Max open files            1024                 524288               files`; within `None`: unlimited.
fn soft_limit(limits: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// What the kernel thinks of its clock only an unsafe call tells. So it is looked for who sets it: the client of the system leaves a file
/// once it has done so, of others it is seen that they run. How far the clock is from those of the other nodes, these say.
fn clock(report: &mut Report) {
    let place = Path::new("/run/systemd/timesync");
    let left =
        if place.join("synchronized").exists() { Some(Left::Set) } else { place.exists().then_some(Left::NotSet) };
    set_by(left, &running(), report);
}

/// What systemd-timesyncd has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Set,
    NotSet,
}

fn set_by(left: Option<Left>, running: &BTreeMap<u32, String>, report: &mut Report) {
    let check = "clock";
    let known = CLIENTS.iter().find(|(name, _)| running.values().any(|other| other == name));
    match (left, known) {
        (Some(Left::Set), _) => report.ok(AREA, check, "systemd-timesyncd sets it"),
        (_, Some((name, how))) => report.ok(AREA, check, format!("{name} runs, which sets it; whether it does: {how}")),
        (Some(Left::NotSet), None) => {
            let remedy = "see `timedatectl timesync-status`: whether it reaches a server";
            report.warning(AREA, check, "systemd-timesyncd was started and has not set it", remedy);
        }
        (None, None) if running.get(&1).is_some_and(|first| INITS.contains(&first.as_str())) => {
            let what = "nothing runs here that is known to set it";
            let remedy = "run an NTP client (docs/deploy.md, Time), unless the machine's host sets it";
            report.warning(AREA, check, what, remedy);
        }
        (None, None) => {
            let why = "nothing is seen here that sets it, as in a container, whose host has to: see `chronyc tracking`, or \
                       `timedatectl show -p NTPSynchronized`, there";
            report.unchecked(AREA, check, why);
        }
    }
}

/// Programs that set a clock, as the kernel calls them, and how each is asked.
const CLIENTS: [(&str, &str); 6] = [
    ("chronyd", "`chronyc tracking`"),
    ("ntpd", "`ntpq -p`"),
    ("ntpd-rs", "`ntp-ctl status`"),
    ("ntp-daemon", "`ntp-ctl status`"),
    ("ptp4l", "its log"),
    ("phc2sys", "its log"),
];

/// The first process of a whole machine, in which all others can be seen.
const INITS: [&str; 3] = ["systemd", "init", "openrc-init"];

/// The names of all processes that can be seen, by their numbers.
fn running() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = numbers.filter_map(|number| {
        let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
        Some((number, name.trim_end().to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_another_process_is_read_as_the_kernel_writes_it() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(Some(1024)));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files"), Some(None));
        assert_eq!(soft_limit("Max processes 5"), None);
    }

    #[test]
    fn the_way_to_an_address_is_as_long_as_its_interface_takes_and_those_alike_are_said_together() {
        let way = way("127.0.0.1:7400").expect("loopback is there");
        assert!(way >= MTU_MIN, "{way}");
        assert_eq!(super::way("not an address"), None);
        let found = [("n1", 1500), ("n2", 9000), ("n3", 1500)].map(|(name, mtu)| (name.to_owned(), mtu));
        assert_eq!(said(&found, "to "), "1500 to n1, n3; 9000 to n2");
        assert_eq!(said(&found[..1], ""), "1500 n1");
    }

    #[test]
    fn who_sets_the_clock_is_said_as_far_as_it_is_seen() {
        let of = |left, names: &[(u32, &str)]| {
            let mut report = Report::default();
            set_by(left, &names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect(), &mut report);
            report.as_text()
        };
        let has = |text: &str, parts: [&str; 2]| assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        has(&of(Some(Left::Set), &[]), ["ok", "systemd-timesyncd sets it"]);
        has(&of(None, &[(1, "systemd"), (70, "chronyd")]), ["ok", "chronyd runs"]);
        has(&of(Some(Left::NotSet), &[(1, "systemd"), (70, "chronyd")]), ["ok", "chronyd runs"]);
        has(&of(Some(Left::NotSet), &[(1, "systemd")]), ["warning", "timesync-status"]);
        has(&of(None, &[(1, "systemd"), (2, "kthreadd")]), ["warning", "nothing runs here"]);
        has(&of(None, &[(1, "driftless")]), ["not checked", "whose host has to"]);
        has(&of(None, &[]), ["not checked", "whose host has to"]);
        assert!(running().contains_key(&std::process::id()), "this one is seen");
    }

    #[test]
    fn buffers_that_are_not_granted_are_a_warning_and_what_to_set_is_said() {
        let mut report = Report::default();
        let full = UdpProbe { asked: 4096, receive: 4096, send: 4096, sent_at_once: 64, received_at_once: 64 };
        buffers(full, &mut report);
        offload(full, &mut report);
        assert!(!report.is_bad(true));
        buffers(UdpProbe { receive: 100, ..full }, &mut report);
        assert!(report.is_bad(true) && report.as_text().contains("net.core.rmem_max=4096"), "{}", report.as_text());
    }
}

//! What a node takes of its machine: room for datagrams, open files, and a clock that somebody sets.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use driftless_node::net::udp_probe::{UdpProbe, probe};
use driftless_node::store::directory::User;

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
    packets(report);
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

/// Which interface leads to the others is not known, so all that are up are told.
fn packets(report: &mut Report) {
    let check = "MTU";
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else {
        return report.unchecked(AREA, check, "there is no /sys/class/net; see `ip link`");
    };
    let read = |path: &Path, name: &str| fs::read_to_string(path.join(name)).ok().map(|text| text.trim().to_owned());
    let of = |interface: fs::DirEntry| {
        let path = interface.path();
        let mtu: u32 = read(&path, "mtu")?.parse().ok()?;
        let is_up = read(&path, "operstate").is_some_and(|state| state != "down");
        is_up.then(|| (interface.file_name().to_string_lossy().into_owned(), mtu))
    };
    let mut found: Vec<(String, u32)> = interfaces.flatten().filter_map(of).collect();
    found.sort();
    if found.is_empty() {
        return report.unchecked(AREA, check, "no interface is known; see `ip link`");
    }
    let what: Vec<String> = found.iter().map(|(name, mtu)| format!("{name} {mtu}")).collect();
    let small: Vec<&str> = found.iter().filter(|(_, mtu)| *mtu < MTU_MIN).map(|(name, _)| name.as_str()).collect();
    if small.is_empty() {
        report.ok(AREA, check, what.join(", "));
    } else {
        let what = format!("{}: QUIC does not get through less than {MTU_MIN}", what.join(", "));
        report.warning(
            AREA,
            check,
            what,
            format!("raise that of {}, if it leads to other nodes or clients", small.join(", ")),
        );
    }
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

/// What the kernel thinks of its clock only a privileged or unsafe call tells; so the client of the system is asked that leaves a file.
fn clock(report: &mut Report) {
    let place = Path::new("/run/systemd/timesync");
    if place.join("synchronized").exists() {
        report.ok(AREA, "clock", "systemd-timesyncd sets it");
    } else if place.exists() {
        let remedy = "see `timedatectl timesync-status`: whether it reaches a server";
        report.warning(AREA, "clock", "systemd-timesyncd runs and has not set it", remedy);
    } else {
        let why = "systemd-timesyncd does not run here, and others leave no trace: see `chronyc tracking`, or \
                   `timedatectl show -p NTPSynchronized`";
        report.unchecked(AREA, "clock", why);
    }
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

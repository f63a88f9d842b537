//! The data directory: whose it is, who uses it, and what kind of disk is below it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftless_node::conditions::DiskRoom;
use driftless_node::configurations::Configurations;
use driftless_node::node::agreed;
use driftless_node::store::directory::{Glance, OpenError, User, check_topology, disk_room, glance};
use driftless_proto::Topology;

use super::Patient;
use super::finding::{Area, Report};
use crate::output::size;
use crate::serve::{expected_identity, no_data};

const AREA: Area = Area::Data;

/// Looks at the directory of a node, and keeps what was seen for what comes after.
pub(super) fn look(patient: Option<&mut Patient>, report: &mut Report) {
    let Some(patient) = patient else {
        return report.unchecked(AREA, "directory", "it is not known which: the node's file cannot be used");
    };
    let path = patient.config.data_dir.clone();
    let Some(founding) = &patient.founding else {
        return report.unchecked(AREA, "directory", "it is not known of which cluster: cluster.toml cannot be used");
    };
    match glance(&path, &expected_identity(founding.cluster(), &patient.config.name)) {
        Ok(Some(seen)) => {
            owner(&path, report);
            report.ok(AREA, "directory", described(&path, &seen));
            patient.user = seen.user;
            patient.agreed = agreed(&patient.config.name, &path, &seen, founding, report);
            if let Some(agreed) = &patient.agreed {
                topology(&patient.config.name, &path, founding, agreed, report);
            }
            patient.data = Some(seen);
        }
        Ok(None) => {
            patient.user = User::Nobody;
            let absent = no_data(&path, &patient.config.name);
            report.warning(AREA, "directory", absent.message(), absent.hint_text().unwrap_or_default());
        }
        Err(OpenError::Io { source, path, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            let remedy = "run `driftless doctor` as the user that owns the data";
            report.problem(AREA, "directory", format!("cannot read {}: {source}", path.display()), remedy);
        }
        Err(error) => report.error(AREA, "directory", &error, ""),
    }
    let on = existing(&path);
    room(&on, patient.config.store.free_space_reserve, report);
    file_system(&on, report);
    syncs(&path, report);
}

/// What was written down there of what was agreed on: what a start could not use, it would refuse.
fn agreed(
    name: &str,
    path: &Path,
    seen: &Glance,
    founding: &Topology,
    report: &mut Report,
) -> Option<Arc<Configurations>> {
    let found = agreed::configurations(name, seen.store, &Arc::new(founding.clone()), seen.agreement.clone());
    match found {
        Ok(agreed) => Some(agreed),
        Err(error) => {
            let damaged = OpenError::Damaged { path: path.join("ring"), what: format!("cannot be used: {error}") };
            report.error(AREA, "ring", &damaged, "");
            None
        }
    }
}

/// What the cluster file says, beside what the data was written with: as at a start, while the node goes by the file alone.
fn topology(name: &str, path: &Path, founding: &Topology, agreed: &Configurations, report: &mut Report) {
    if agreed.is_agreed() || founding.ring().member_by_name(name).is_none() {
        return;
    }
    match check_topology(path, founding) {
        Ok(()) => report.ok(AREA, "topology", "the data fits what cluster.toml says"),
        Err(error) => report.error(AREA, "topology", &error, ""),
    }
}

fn described(path: &Path, seen: &Glance) -> String {
    let Glance { starts, created, user, .. } = seen;
    let user = match user {
        User::Nobody => "; no node runs on it".to_owned(),
        User::Process(Some(pid)) => format!("; in use by process {pid}"),
        User::Process(None) => "; in use".to_owned(),
        User::Unknown => String::new(),
    };
    let times = if *starts == 1 { "once".to_owned() } else { format!("{starts} times") };
    format!("{}: made {created}, started {times}{user}", path.display())
}

/// The user who runs this should be who runs the node.
fn owner(path: &Path, report: &mut Report) {
    let Ok(found) = fs::metadata(path) else { return };
    let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != own && own != 0 {
        let what = format!("{} belongs to user {owner}, and this is user {own}", path.display());
        report.warning(AREA, "owner", what, "run `driftless doctor`, and the node, as the user that owns the data");
    }
    if found.mode() & 0o077 != 0 {
        let what = format!("others may enter {} (mode {:o})", path.display(), found.mode() & 0o777);
        let remedy = "start the node as its owner, which takes that from them, or run `chmod 700` on it";
        report.warning(AREA, "owner", what, remedy);
    }
}

/// The directory, or what it would be made in.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn room(path: &Path, reserve: u64, report: &mut Report) {
    let Some(room @ DiskRoom { free, total }) = disk_room(path) else {
        return report.unchecked(AREA, "free space", "the system does not say how full the disk is");
    };
    let what = format!("{} of {} are free", size(free), size(total));
    let remedy = "make room, or give the node a larger disk";
    if free < reserve {
        let what = format!("{what}, and writes are refused below {} (store.free_space_reserve)", size(reserve));
        report.problem(AREA, "free space", what, remedy);
    } else if room.is_low(false) {
        report.warning(AREA, "free space", what, remedy);
    } else {
        report.ok(AREA, "free space", what);
    }
}

fn file_system(path: &Path, report: &mut Report) {
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounts,
        Err(error) => {
            return report.unchecked(AREA, "file system", format!("cannot read /proc/self/mountinfo: {error}"));
        }
    };
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(mount) = mount_of(&mounts, &path) else {
        return report.unchecked(AREA, "file system", "no mount point above the directory is known");
    };
    let Mount { kind, device, .. } = &mount;
    let turns = match rotates(device) {
        Some(true) => ", on what the system takes for a disk that turns",
        Some(false) => ", on a disk without moving parts",
        None => "",
    };
    match judged(kind) {
        None => report.ok(AREA, "file system", format!("{kind}{turns}")),
        Some(why) => {
            let remedy = "give the node a volume of its own with ext4 or XFS (docs/deploy.md, Disks)";
            report.warning(AREA, "file system", format!("{kind}: {why}"), remedy);
        }
    }
}

/// What speaks against a kind of file system.
fn judged(kind: &str) -> Option<&'static str> {
    match kind {
        "tmpfs" | "ramfs" => Some("it keeps nothing over a restart of the machine"),
        "overlay" | "aufs" => Some("the writable layer of a container goes with the container"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "glusterfs" | "lustre" | "afs" => {
            Some("network file systems have not been tried, and answer syncs as their server pleases")
        }
        _ if kind.starts_with("fuse") => Some("it is served by another process, and has not been tried"),
        _ => None,
    }
}

/// A line of `/proc/self/mountinfo`: `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    /// Major and minor number.
    device: String,
    kind: String,
}

/// The mount that a path is on: the last one of those with the longest name above it.
fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let parsed = mounts.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut words = front.split(' ').skip(2);
        let (device, point) = (words.next()?, words.nth(1)?);
        let point = PathBuf::from(point.replace("\\040", " "));
        let mount = Mount { device: device.to_owned(), kind: back.split(' ').next()?.to_owned() };
        path.starts_with(&point).then(|| (point.components().count(), mount))
    });
    parsed.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

/// Whether a device, or the disk that it is a part of, turns; `None` if the system does not say.
fn rotates(device: &str) -> Option<bool> {
    let place = Path::new("/sys/dev/block").join(device);
    let read = |path: PathBuf| fs::read_to_string(path).ok();
    let text = read(place.join("queue/rotational")).or_else(|| read(place.join("../queue/rotational")))?;
    Some(text.trim() == "1")
}

/// How long a write waits for the disk, as the log of a node writes: into blocks that are there already.
fn syncs(directory: &Path, report: &mut Report) {
    let check = "sync";
    match directory.try_exists() {
        Ok(true) => {}
        Ok(false) => return report.unchecked(AREA, check, "the directory is not there yet"),
        Err(error) => return report.unchecked(AREA, check, format!("cannot look at {}: {error}", directory.display())),
    }
    match measured(directory) {
        Err(error) => report.unchecked(AREA, check, format!("cannot write in {}: {error}", directory.display())),
        Ok(times) => {
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            let what = format!("{} in the median of {}, {} at worst", millis(median), times.len(), millis(worst));
            if median > SLOW {
                let what = format!("{what}: a write to a `sync` bucket waits that long");
                report.warning(
                    AREA,
                    check,
                    what,
                    "use a faster disk, or one that nobody else writes to (docs/deploy.md, Disks)",
                );
            } else {
                report.ok(AREA, check, what);
            }
        }
    }
}

fn measured(directory: &Path) -> std::io::Result<Vec<Duration>> {
    // Without a name: nothing is left of it, whatever happens.
    let file = tempfile::tempfile_in(directory)?;
    let block = [0x5a; BLOCK];
    for at in 0..SYNCS {
        file.write_all_at(&block, (at * BLOCK) as u64)?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS {
        let since = Instant::now();
        file.write_all_at(&block, (at * BLOCK) as u64)?;
        file.sync_data()?;
        times.push(since.elapsed());
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

/// Enough for a median, and no load.
const SYNCS: usize = 25;
const BLOCK: usize = 4096;

/// As long as anybody waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Twice what a disk that turns takes.
const SLOW: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_last_mount_with_the_longest_name_above_it() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      30 21 0:44 / /var/lib rw,relatime shared:5 - tmpfs tmpfs rw\n\
                      31 21 0:45 / /var/lib rw,relatime - nfs4 host:/x rw\n\
                      32 21 8:2 / /var/lib\\040x rw - xfs /dev/sda2 rw\nnonsense\n";
        let kind = |path: &str| mount_of(mounts, Path::new(path)).map(|mount| mount.kind);
        assert_eq!(kind("/var/lib/driftless").as_deref(), Some("nfs4"));
        assert_eq!(kind("/var/lib x/y").as_deref(), Some("xfs"));
        assert_eq!(kind("/var/library").as_deref(), Some("ext4"));
        assert_eq!(mount_of(mounts, Path::new("/a")).map(|mount| mount.device).as_deref(), Some("8:1"));
        assert!(judged("nfs4").is_some() && judged("fuse.sshfs").is_some() && judged("ext4").is_none());
    }

    #[test]
    fn syncs_are_measured_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let times = measured(folder.path()).expect("can be written to");
        assert!(!times.is_empty() && times.is_sorted());
        assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 0);
    }

    #[test]
    fn a_directory_that_is_to_be_made_is_on_the_disk_of_what_it_is_made_in() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(existing(&folder.path().join("a/b")), folder.path());
    }
}

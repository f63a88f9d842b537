//! How much processor time the nodes of a `dev` cluster and this process have used.

use std::path::Path;
use std::time::Duration;

use crate::local::read_nodes;

/// The processes of the nodes of the cluster in this directory.
pub(super) fn pids(dir: &Path) -> std::result::Result<Vec<u32>, String> {
    let pids: Vec<u32> = read_nodes(dir)?.into_iter().filter_map(|node| node.pid).collect();
    if pids.is_empty() { Err("no node of the dev cluster runs".to_owned()) } else { Ok(pids) }
}

/// CPU time that these processes have used together.
pub(super) fn cpu_of(pids: &std::result::Result<Vec<u32>, String>) -> std::result::Result<Duration, String> {
    pids.as_ref().map_err(Clone::clone)?.iter().map(|&pid| cpu(pid)).sum()
}

/// CPU time that a process has used.
pub(super) fn cpu(pid: u32) -> std::result::Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let ticks = ticks(&stat).ok_or_else(|| format!("{path} cannot be understood"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// User and system time of a line of `/proc/PID/stat`: fields 14 and 15, counted after the name, which may hold
/// anything but is in parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 31 11 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
        assert!(cpu(std::process::id()).is_ok());
    }
}

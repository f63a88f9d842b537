//! What processes use: processor time and memory, as Linux counts them in `/proc`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Memory of some processes together. What they share is counted for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// All that is resident, pages of mapped files included.
    pub(crate) resident_bytes: u64,
    /// What no file is behind: heap and stacks.
    pub(crate) anonymous_bytes: u64,
}

/// Processor time that these processes have used, with that of children which they have waited for: Redis rewrites its file in some.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut ticks = 0;
    for &pid in pids {
        let (own, children) = read(pid, "stat", ticks_of)?;
        ticks += own + children;
    }
    Ok(time(ticks))
}

/// Processor time of this process alone: its children are the servers.
pub(crate) fn own_cpu() -> Result<Duration> {
    Ok(time(read(std::process::id(), "stat", ticks_of)?.0))
}

pub(crate) fn memory(pids: &[u32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for &pid in pids {
        let memory = read(pid, "status", memory_of)?;
        sum.resident_bytes += memory.resident_bytes;
        sum.anonymous_bytes += memory.anonymous_bytes;
    }
    Ok(sum)
}

fn read<T>(pid: u32, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let path: PathBuf = ["/proc", &pid.to_string(), file].iter().collect();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} cannot be understood", path.display()))
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Of a line of `/proc/PID/stat`: user and system time of the process (fields 14 and 15) and of its children that were waited for
/// (16 and 17), counted after the name, which may hold anything but is in parentheses.
fn ticks_of(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    Some((next()? + next()?, next()? + next()?))
}

/// Of `/proc/PID/status`.
fn memory_of(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    Some(Memory { resident_bytes: bytes("VmRSS")?, anonymous_bytes: bytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 31 11 5 2 20 0 1 0 5 0 0";
        assert_eq!(ticks_of(stat), Some((42, 7)));
        assert_eq!(ticks_of("7 (a) S 1 7"), None);
        assert_eq!(ticks_of("nonsense"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\ta\nVmPeak:\t  900 kB\nVmRSS:\t     300 kB\nRssAnon:\t     200 kB\nRssFile:\t 100 kB\n";
        assert_eq!(memory_of(status), Some(Memory { resident_bytes: 300 << 10, anonymous_bytes: 200 << 10 }));
        assert_eq!(memory_of("Name:\ta\n"), None, "a process that has ended");
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let pids = [std::process::id()];
        assert!(cpu(&pids).is_ok() && own_cpu().is_ok());
        assert!(memory(&pids).is_ok_and(|memory| memory.resident_bytes >= memory.anonymous_bytes));
        assert!(cpu(&[u32::MAX]).is_err(), "no process has this number");
    }
}

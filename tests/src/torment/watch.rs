//! What nodes and the rig itself use of the machine, looked at in every calm: what only ever grows is found.

use std::fs;

use crate::fleet::{Fleet, Node};

/// What one process has at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Use {
    pub(super) resident_bytes: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    pub(super) disk_bytes: u64,
}

/// All looks at all processes. The last one is the rig.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The largest of any node, and the rig's, by round.
    looks: Vec<(Use, Use)>,
}

impl Watch {
    /// Looks at everybody.
    pub(super) fn look(&mut self, fleet: &Fleet) {
        let mut most = Use::default();
        for node in &fleet.nodes {
            let found = of_node(node);
            most.resident_bytes = most.resident_bytes.max(found.resident_bytes);
            most.descriptors = most.descriptors.max(found.descriptors);
            most.threads = most.threads.max(found.threads);
            most.disk_bytes = most.disk_bytes.max(found.disk_bytes);
        }
        self.looks.push((most, of_process(std::process::id())));
    }

    /// First and last look: at the largest node, and at the rig.
    pub(super) fn ends(&self) -> Option<[(Use, Use); 2]> {
        Some([*self.looks.first()?, *self.looks.last()?])
    }

    /// What grows without an end in sight.
    pub(super) fn growth(&self) -> Vec<String> {
        type Read = fn(&(Use, Use)) -> u64;
        let measures: [(&str, u64, Read); 6] = [
            ("memory of a node", 96 << 20, |look| look.0.resident_bytes),
            ("descriptors of a node", 64, |look| look.0.descriptors),
            ("threads of a node", 16, |look| look.0.threads),
            ("disk of a node", 160 << 20, |look| look.0.disk_bytes),
            ("memory of the rig", 96 << 20, |look| look.1.resident_bytes),
            ("descriptors of the rig", 64, |look| look.1.descriptors),
        ];
        let grown = |(what, slack, read): (&str, u64, Read)| {
            let values: Vec<u64> = self.looks.iter().map(read).collect();
            grows(&values, slack).map(|(from, to)| format!("{what} went from {from} to {to}"))
        };
        measures.into_iter().filter_map(grown).collect()
    }
}

/// Whether the last third lies above the middle one by more than that lies above the first, and more than the slack:
/// caches fill and stores settle, so growth that slows down is none.
fn grows(values: &[u64], slack: u64) -> Option<(u64, u64)> {
    let third = values.len() / 3;
    if third < 4 {
        return None;
    }
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let [first, middle, last] = [0, third, 2 * third].map(|from| median(&values[from..from + third]));
    let slows = last.saturating_sub(middle) * 4 < middle.saturating_sub(first) * 3;
    (last > first + slack && !slows).then_some((first, last))
}

fn of_node(node: &Node) -> Use {
    let mut found = node.pid().map(of_process).unwrap_or_default();
    let space = node.disk.as_ref().and_then(|disk| disk.space().ok());
    found.disk_bytes = space.map_or(0, |(free, all)| all - free);
    found
}

fn of_process(pid: u32) -> Use {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    Use { resident_bytes: number("VmRSS:") << 10, descriptors, threads: number("Threads:"), disk_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_steadily_is_found_and_what_settles_is_not() {
        let steady: Vec<u64> = (0..30).map(|look| 100 + look * 10).collect();
        assert_eq!(grows(&steady, 50), Some((150, 350)));
        assert_eq!(grows(&steady, 500), None, "within the slack");
        let settles: Vec<u64> = (0..30).map(|look| 100 + 1000 * look / (look + 5)).collect();
        assert_eq!(grows(&settles, 50), None);
        assert_eq!(grows(&[1, 100, 1000], 1), None, "too short to tell");
    }

    #[test]
    fn a_process_uses_something() {
        let own = of_process(std::process::id());
        assert!(own.resident_bytes > 1 << 20 && own.descriptors > 2 && own.threads > 0, "{own:?}");
    }
}

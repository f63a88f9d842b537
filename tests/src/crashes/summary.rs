//! What came of a campaign.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::campaign::BEFORE;
use super::ledger::Counts;
use super::segments::Segments;

/// Of a whole campaign.
#[derive(Debug)]
pub struct Summary {
    pub(super) seed: u64,
    pub(super) took: Duration,
    pub(super) met: Met,
    pub(super) writes: Counts,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) segments: Segments,
    /// Why power cuts were left out.
    pub(super) left_out: Option<String>,
    /// What should not be.
    pub broken: Vec<String>,
    /// What should have been met and was not, so that nothing being broken says little.
    pub missed: Vec<&'static str>,
    /// Where everything is kept to look into.
    pub kept: Option<PathBuf>,
}

/// What has happened to the node.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Met {
    pub(super) kills: u64,
    pub(super) kills_while_starting: u64,
    pub(super) kills_at_rest: u64,
    pub(super) power_cuts: u64,
    pub(super) power_cuts_while_starting: u64,
    pub(super) power_cuts_some_written: u64,
    pub(super) stops: u64,
    /// Starts that found what was not known to be synced, and synced it.
    pub(super) secured: u64,
    /// Keys read, each held against what may be there.
    pub(super) read: u64,
    /// Times that all keys were read, and listed.
    pub(super) full_checks: u64,
}

impl Summary {
    /// Whether nothing was lost, in a campaign that says something.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.missed.is_empty()
    }

    /// What a campaign must meet. Short ones, too: twenty kills are enough.
    pub(super) fn coverage(&self) -> Vec<&'static str> {
        let Counts { overwrites, deletes, huge, found, not_found, .. } = self.writes;
        let met = [
            ("segments used again", self.segments.used_again),
            ("overwrites", overwrites),
            ("deletes", deletes),
            ("values longer than a segment", huge),
            ("writes under way at a crash", found + not_found),
            ("starts that synced what was found", self.met.secured),
        ];
        met.into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
    }
}

impl Met {
    /// For a line of progress.
    pub(super) fn line(&self, writes: &Counts, segments: &Segments) -> String {
        format!(
            "{} kills (and {} while starting), {} power cuts (and {}); {} writes acknowledged, {} times a key was read; segments: {} \
             begun, {} used again",
            self.kills,
            self.kills_while_starting,
            self.power_cuts,
            self.power_cuts_while_starting,
            writes.acknowledged,
            self.read,
            segments.begun,
            segments.used_again
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (met, writes, segments) = (&self.met, &self.writes, &self.segments);
        writeln!(f, "\nseed {}, {:.0} s", self.seed, self.took.as_secs_f64())?;
        writeln!(
            f,
            "  kill -9      {} while it served ({} of them after clients had stopped), {} more while it started",
            met.kills, met.kills_at_rest, met.kills_while_starting
        )?;
        match &self.left_out {
            Some(reason) => writeln!(f, "  power cuts   left out: {reason}")?,
            None => writeln!(
                f,
                "  power cuts   {} while it served, {} more while it started; before {} of all a third of the files was written out",
                met.power_cuts, met.power_cuts_while_starting, met.power_cuts_some_written
            )?,
        }
        writeln!(f, "  stops        {} in order", met.stops)?;
        writeln!(
            f,
            "  writes       {} acknowledged ({} MiB; {} overwrites, {} deletes, {} longer than a segment), {} refused",
            writes.acknowledged,
            writes.bytes >> 20,
            writes.overwrites,
            writes.deletes,
            writes.huge,
            writes.refused
        )?;
        for (reason, count) in &self.reasons {
            writeln!(f, "               {count} {reason}")?;
        }
        writeln!(
            f,
            "  under way    when it went down: {} were there afterwards, {} not",
            writes.found, writes.not_found
        )?;
        writeln!(f, "  read         {} times a key; all keys, and their list, {} times", met.read, met.full_checks)?;
        writeln!(
            f,
            "  segments     {} begun, {} used again at least, {} at once at most; {} starts synced what they had found",
            segments.begun, segments.used_again, segments.most, met.secured
        )?;
        for broken in &self.broken {
            writeln!(f, "BROKEN: {broken}")?;
        }
        for missed in &self.missed {
            writeln!(f, "NOT MET: {missed}")?;
        }
        if let Some(kept) = &self.kept {
            let kept = kept.display();
            writeln!(f, "kept: {kept}; {kept}/n1/{BEFORE} is the store as the last strike has left it")?;
        }
        let verdict = match (self.broken.is_empty(), self.missed.is_empty()) {
            (false, _) => "something acknowledged is not there, or the node is not well",
            (true, false) => "nothing is lost, and too little was met to mean it",
            (true, true) => "nothing acknowledged is lost",
        };
        write!(f, "{verdict}")
    }
}

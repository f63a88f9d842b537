//! What a scenario came to, for people and for assertions.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::fault::Fault;
use super::history::{Bout, History};
use super::verify::Verdict;

/// The outcome of a scenario. Times count from the start of the load.
#[derive(Debug)]
pub struct Report {
    /// What was done.
    pub fault: Fault,
    /// When nothing was wrong.
    pub normal: Range<Duration>,
    /// While the fault lasted.
    pub struck: Range<Duration>,
    /// From when it was healed until the load ended.
    pub healed: Range<Duration>,
    /// What clients saw.
    pub history: History,
    /// What was found in the end.
    pub verdict: Verdict,
}

impl Report {
    /// Asserts what must hold on any machine.
    ///
    /// # Panics
    /// If anything acknowledged is lost, a replica is incomplete, a client met a failure for good, or hardly anything
    /// was acknowledged at all.
    pub fn assert_safe(&self) {
        let Verdict { handed_off, lost, incomplete, unread, .. } = &self.verdict;
        let few = |list: &[String]| list.iter().take(5).cloned().collect::<Vec<_>>().join("\n  ");
        assert!(self.history.fatal.is_empty(), "failures for good: {:?}\n{self}", self.history.fatal);
        assert!(lost.is_empty(), "{} acknowledged writes are lost:\n  {}\n{self}", lost.len(), few(lost));
        assert!(unread.is_empty(), "{} keys cannot be read:\n  {}\n{self}", unread.len(), few(unread));
        assert!(handed_off.is_some(), "hints remain, or nodes do not see each other\n{self}");
        assert!(
            incomplete.is_empty(),
            "{} keys are not on every replica:\n  {}\n{self}",
            incomplete.len(),
            few(incomplete)
        );
        for (part, what) in [(&self.normal, "before"), (&self.struck, "during"), (&self.healed, "after")] {
            // A cluster that refuses everything is safe as well.
            let acknowledged = self.history.bout(part.start, part.end, None).throughput;
            assert!(acknowledged > 1.0, "hardly anything was acknowledged {what} the fault\n{self}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = &self.history;
        let normal = history.bout(self.normal.start, self.normal.end, None);
        let line = |f: &mut fmt::Formatter<'_>, what: &str, bout: Bout, ratio: bool| {
            let factor = bout.p99.as_secs_f64() / normal.p99.as_secs_f64().max(1e-9);
            let factor = if ratio { format!("{factor:.1}") } else { String::new() };
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            writeln!(f, "| {what} | {:.0} | {:.2} | {:.2} | {factor} |", bout.throughput, ms(bout.p50), ms(bout.p99))
        };
        writeln!(f, "| {:?} | puts/s | p50 ms | p99 ms | p99 / normal |", self.fault)?;
        writeln!(f, "|---|---|---|---|---|")?;
        line(f, "normal", normal, false)?;
        for (what, part) in [("fault", &self.struck), ("healed", &self.healed)] {
            let (worst, _) = history.worst_second(part.start, part.end);
            line(f, &format!("{what}, its worst second"), history.bout(worst, worst + SECOND, None), true)?;
            line(f, &format!("{what}, outside that"), history.bout(part.start, part.end, Some(worst)), true)?;
        }
        let low = |part: &Range<Duration>| history.longest_low(part.start, part.end, normal.throughput);
        writeln!(
            f,
            "\nbelow half of the normal throughput for at most {:.1?} during the fault, {:.1?} after it",
            low(&self.struck),
            low(&self.healed)
        )?;
        let verdict = &self.verdict;
        writeln!(
            f,
            "errors that reached the application: {} (final: {})",
            history.surfaced.len(),
            history.fatal.len()
        )?;
        for (at, error) in history.surfaced.iter().chain(&history.fatal).take(5) {
            writeln!(f, "  at {at:.1?}: {error}")?;
        }
        match verdict.handed_off {
            Some(after) => writeln!(f, "all handed off {after:.1?} after the load ended")?,
            None => writeln!(f, "NOT all handed off")?,
        }
        writeln!(
            f,
            "{} keys read from every replica: {} lost, {} not on all, {} unreadable",
            verdict.read,
            verdict.lost.len(),
            verdict.incomplete.len(),
            verdict.unread.len()
        )
    }
}

const SECOND: Duration = Duration::from_secs(1);

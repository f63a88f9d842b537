//! How far a load is: a bar for people, a line every few seconds for logs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{self, grouped};

/// Progress through an input.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: Option<u64>,
    last: Instant,
}

impl Progress {
    /// Progress through this many bytes, if that is known.
    pub(crate) fn new(total: Option<u64>, what: &'static str) -> Progress {
        let bar = output::draws_progress().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = if total.is_some() {
                "{prefix} [{wide_bar}] {percent:>3} %  {msg}  {elapsed_precise}"
            } else {
                "{spinner} {prefix} {msg}  {elapsed_precise}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(what)
        });
        Progress { bar, what, total, last: Instant::now() }
    }

    /// Shows how far it is, now and then.
    pub(crate) fn show(&mut self, position: u64, lines: u64, loaded: u64, failed: u64) {
        if self.last.elapsed() < if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL } {
            return;
        }
        self.last = Instant::now();
        let records = format!("{} records, {} failed", grouped(loaded), grouped(failed));
        match (&self.bar, self.total) {
            (Some(bar), _) => {
                bar.set_position(position);
                bar.set_message(records);
            }
            (None, Some(total)) if total > 0 => {
                output::note(format_args!("{}: {} %, {records}", self.what, position * 100 / total));
            }
            (None, _) => output::note(format_args!("{}: line {}, {records}", self.what, grouped(lines))),
        }
    }

    /// Prints something without tearing the bar.
    pub(crate) fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const BAR_INTERVAL: Duration = Duration::from_millis(100);

const LINE_INTERVAL: Duration = Duration::from_secs(3);

//! How much is written of what may happen a thousand times a second: so many lines in a span of time, and how many were left out.

use std::time::Duration;

use crate::time::Instant;

/// Lines of one kind in the present span of time.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LogLines {
    written: usize,
    since: Instant,
    /// Lines that were not written since the last one that was.
    left_out: u64,
}

impl LogLines {
    /// Whether a line may be written, of so many in so much time: then how many were left out before it.
    pub(crate) fn take(&mut self, now: Instant, most: usize, span: Duration) -> Option<u64> {
        if now.since(self.since) >= span {
            (self.written, self.since) = (0, now);
        }
        if self.written >= most {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (span, most) = (Duration::from_secs(10), 500);
        let (mut lines, now) = (LogLines::default(), Instant::default() + span);
        assert!((0..most).all(|_| lines.take(now, most, span) == Some(0)));
        assert!((0..7).all(|_| lines.take(now, most, span).is_none()));
        assert_eq!(lines.take(now + span, most, span), Some(7));
        assert_eq!(lines.take(now + span, most, span), Some(0));
    }
}

//! For how long deliveries to a node keep anti-entropy with it waiting.

use std::time::Duration;

use crate::time::Instant;

/// What a node that comes back lacks is mostly what is held for it: exchanges that begin at once would send all of it
/// twice. But deliveries need not come to an end (writes may miss it all the time), nor be all that it lacks (its disk may
/// have been replaced). So their turn does, however many hints there are and however often the node is lost and comes back: of any
/// [`TURN`] and [`PAUSE`] together at least the second belongs to exchanges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precedence {
    turn: Duration,
    pause: Duration,
    since: Option<Instant>,
}

impl Precedence {
    /// For deliveries that wait so long until a node is taken to be stable.
    pub(super) fn new(delay: Duration) -> Precedence {
        Precedence { turn: delay.saturating_mul(TURN), pause: delay.saturating_mul(PAUSE), since: None }
    }

    /// Whether exchanges with a node that is given something now are to wait for that.
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        match self.since.map(|since| now.since(since)) {
            Some(past) if past < self.turn => true,
            Some(past) if past < self.turn.saturating_add(self.pause) => false,
            _ => {
                self.since = Some(now);
                true
            }
        }
    }
}

/// In delays: half a minute by default. Most of what is missed in a short absence is delivered by then.
const TURN: u32 = 10;

/// In delays: two minutes by default, so that each round of exchanges finds its time, and a node that is restarted some
/// minutes later is spared again.
const PAUSE: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_that_never_end_leave_four_fifths_of_the_time_to_exchanges() {
        let (mut precedence, mut waited) = (Precedence::new(Duration::from_secs(3)), 0);
        for second in 0..1_500 {
            waited += u32::from(precedence.holds(Instant(second * 1_000_000)));
        }
        assert_eq!(waited, 300);
    }
}

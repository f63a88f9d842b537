//! Turning somebody away: the code and the reason that both sides log, and logs that do not flood.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};

use crate::time::Instant;

/// Why a connection is closed. Sent as QUIC application close code, with the reason as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CloseReason {
    pub(crate) code: CloseCode,
    pub(crate) text: String,
}

/// Application close codes. Numbers are part of the protocol and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseCode {
    /// The node stops; nothing is wrong.
    Stopping = 0,
    /// The certificate does not allow this.
    Identity = 1,
    /// The other speaks another version of the protocol.
    ProtocolVersion = 2,
    /// Hello does not fit: cluster, node, topology.
    Hello = 3,
    /// The other is an older copy of a node, or one of two copies.
    Incarnation = 4,
    /// What arrived cannot be read.
    Malformed = 5,
    /// Too many connections.
    Full = 6,
    /// A newer connection of the same peer took over.
    Replaced = 7,
}

impl CloseReason {
    pub(crate) fn new(code: CloseCode, text: impl Into<String>) -> CloseReason {
        CloseReason { code, text: text.into() }
    }

    pub(crate) fn close(&self, connection: &Connection) {
        connection.close(VarInt::from_u32(self.code as u32), self.text.as_bytes());
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Remembers what was logged of whom, so that a peer that tries every second makes a line when its reason changes,
/// and otherwise one in ten seconds.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<HashMap<String, (String, Instant)>>);

impl RefusalLog {
    /// Whether to write a line about `who` being refused for `reason`.
    pub(crate) fn is_news(&self, who: &str, reason: &str, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, at)) = seen.get_mut(who) {
            if last == reason && now.since(*at) < REPEAT_AFTER {
                return false;
            }
            reason.clone_into(last);
            *at = now;
            return true;
        }
        if seen.len() >= REMEMBERED_MAX {
            seen.retain(|_, (_, at)| now.since(*at) < REPEAT_AFTER);
        }
        // Strangers with that many names in ten seconds get no line each.
        let room = seen.len() < REMEMBERED_MAX;
        if room {
            seen.insert(who.to_owned(), (reason.to_owned(), now));
        }
        room
    }
}

const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Enough for every node of a large cluster and some strangers.
const REMEMBERED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_logged_when_it_changes_or_after_a_while() {
        let log = RefusalLog::default();
        let now = Instant::default();
        assert!(log.is_news("b", "expired", now));
        assert!(!log.is_news("b", "expired", now + Duration::from_secs(9)));
        assert!(log.is_news("b", "expired", now + Duration::from_secs(10)));
        assert!(log.is_news("b", "foreign", now + Duration::from_secs(11)));
        assert!(log.is_news("c", "foreign", now));
    }

    #[test]
    fn the_memory_of_refusals_is_bounded() {
        let log = RefusalLog::default();
        let now = Instant::default();
        for i in 0..REMEMBERED_MAX {
            assert!(log.is_news(&i.to_string(), "x", now));
        }
        assert!(!log.is_news("one more", "x", now));
        assert!(log.is_news("one more", "x", now + REPEAT_AFTER));
    }
}

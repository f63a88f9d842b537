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
    /// The certificate is denied.
    Revoked = 8,
    /// The certificate that the connection was opened with has expired.
    Expired = 9,
    /// The other asks for more than it reads.
    Slow = 10,
    /// The other's data was declared lost.
    Lost = 11,
    /// There is a connection between the two already.
    Spare = 12,
    /// The two go by different histories of the members.
    Apart = 13,
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
/// and otherwise one in ten seconds. Whatever the names and reasons, there are so many lines in ten seconds and no more.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Said>);

#[derive(Default)]
struct Said {
    /// The last reason of whom, and when.
    last: HashMap<String, (String, Instant)>,
    /// Lines in this span of time, and when it began.
    lines: usize,
    since: Instant,
    /// Lines that were not written since the last one that was.
    suppressed: u64,
}

/// A line may be written; so many others were not since the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct News {
    pub(crate) suppressed: u64,
}

impl RefusalLog {
    /// Whether to write a line about `who` being refused for `reason`.
    pub(crate) fn news(&self, who: &str, reason: &str, now: Instant) -> Option<News> {
        let said = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.get(who).is_some_and(|(last, at)| last == reason && now.since(*at) < REPEAT_AFTER) {
            return None;
        }
        if now.since(said.since) >= REPEAT_AFTER {
            (said.lines, said.since) = (0, now);
            said.last.retain(|_, (_, at)| now.since(*at) < REPEAT_AFTER);
        }
        if said.lines >= LINES_MAX {
            said.suppressed += 1;
            return None;
        }
        said.lines += 1;
        said.last.insert(who.to_owned(), (reason.to_owned(), now));
        Some(News { suppressed: std::mem::take(&mut said.suppressed) })
    }
}

const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Enough for every node of a large cluster to say what is wrong with each other, and for nobody to fill a disk with.
const LINES_MAX: usize = 100;

/// What a stopping node tells when it closes connections.
pub(crate) const STOPPING: &str = "the node is shutting down";

#[cfg(test)]
mod tests {
    use super::*;

    /// The compiler asks for a code that is new.
    #[test]
    fn the_page_of_the_wire_has_every_code_with_its_number() {
        use CloseCode::*;
        let name = |code| match code {
            Stopping => "Stopping",
            Identity => "Identity",
            ProtocolVersion => "ProtocolVersion",
            Hello => "Hello",
            Incarnation => "Incarnation",
            Malformed => "Malformed",
            Full => "Full",
            Replaced => "Replaced",
            Revoked => "Revoked",
            Expired => "Expired",
            Slow => "Slow",
            Lost => "Lost",
            Spare => "Spare",
            Apart => "Apart",
        };
        let all = [
            Stopping,
            Identity,
            ProtocolVersion,
            Hello,
            Incarnation,
            Malformed,
            Full,
            Replaced,
            Revoked,
            Expired,
            Slow,
            Lost,
            Spare,
            Apart,
        ];
        let page = include_str!("../../../docs/wire-format.md");
        driftless_testkit::pages::assert_constants(
            page,
            "node/src/net/refusal.rs",
            &all.map(|code| (name(code), code as u64)),
        );
    }

    #[test]
    fn a_refusal_is_logged_when_it_changes_or_after_a_while() {
        let log = RefusalLog::default();
        let now = Instant::default();
        assert!(log.news("b", "expired", now).is_some());
        assert!(log.news("b", "expired", now + Duration::from_secs(9)).is_none());
        assert!(log.news("b", "expired", now + Duration::from_secs(10)).is_some());
        assert!(log.news("b", "foreign", now + Duration::from_secs(11)).is_some());
        assert!(log.news("c", "foreign", now + Duration::from_secs(11)).is_some());
    }

    #[test]
    fn lines_are_bounded_whatever_the_names_and_reasons_and_those_left_out_are_counted() {
        let log = RefusalLog::default();
        let now = Instant::default();
        // Two reasons in turn, which one address can cause; and many names.
        for i in 0..LINES_MAX {
            let (who, reason) = if i % 2 == 0 { ("b".to_owned(), ["x", "y"][i / 2 % 2]) } else { (i.to_string(), "x") };
            assert_eq!(log.news(&who, reason, now), Some(News { suppressed: 0 }), "{i}");
        }
        assert!((0..1000).all(|i| log.news("b", ["x", "y"][i % 2], now).is_none()));
        assert!(log.news("one more", "x", now).is_none());
        // Half of the thousand were what was said last anyway.
        assert_eq!(log.news("one more", "x", now + REPEAT_AFTER), Some(News { suppressed: 501 }));
        assert_eq!(log.news("another", "x", now + REPEAT_AFTER), Some(News { suppressed: 0 }));
        assert!(log.0.lock().unwrap().last.len() <= LINES_MAX);
    }
}

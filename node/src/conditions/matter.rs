//! The words for what can be the matter with a node.

use std::fmt;
use std::time::Duration;

use driftless_proto::Apart;
use driftless_proto::client::{Liveness, Severity};

use super::quorum::Obstacle;
use super::{DiskRoom, MEMBERS_CHANGING, NO_QUORUM, STORE_REPLACED};

/// Why a peer is not connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// What was seen, in words.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) remedy: &'static str,
    /// A process of that node has answered, and goes on: it is there, whatever keeps the two apart.
    pub(crate) is_there: bool,
}

/// Something that is the matter.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Matter {
    /// It is about to end.
    Stopping,
    /// An operator wants it to coordinate nothing new.
    Draining,
    /// Its clock is far from those of most others.
    ClockOff { ahead_ms: i64 },
    /// Its clock is far from another's, and nobody can tell whose is wrong.
    ClockDisputed { ahead_ms: i64 },
    /// Its store is short of something, in words.
    StoreShort(String),
    /// It is the other nodes' copies that are missing.
    NoQuorum(Obstacle),
    /// It goes by the cluster file alone, and hears too few others that do.
    FileAlone { needed: u8, known: u8 },
    /// Its store is not the one that the members have agreed on: what it holds is not known to be all that it must.
    StoreReplaced { version: u64, taken: u32, of: u32 },
    /// Its data directory was made anew, and is not yet what the others hold.
    Refilling { left: usize, of: usize },
    /// The same for a directory that nobody knows a predecessor of.
    NotCompared { left: usize, of: usize },
    /// No connection to a peer, or not all of them.
    PeerUnreachable { peer: String, problem: Option<Problem> },
    /// A peer is connected, and the detector does not hear it.
    PeerSilent { peer: String, liveness: Liveness },
    /// A peer goes by another history of the cluster, in words.
    HistoryDiffers { peer: String, what: String },
    /// An operator has paused anti-entropy.
    AntiEntropyPaused,
    /// Records that cannot be read.
    RecordsDamaged(u64),
    /// The own certificate ends before long, or has ended.
    CertificateEnds { left: Option<Duration> },
    /// The disk fills up.
    DiskLow(DiskRoom),
    /// It is no member.
    Candidate { name: String },
    /// Members are changing.
    MembersChanging { version: u64, taken: u32, of: u32 },
    /// Trees are being built, after a start or since partitions were doubled.
    Counting,
    /// Something is held for other nodes.
    HintsHeld { keys: u64 },
}

impl Matter {
    /// Its kind. Names are what alarms rest on, and are never reused.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Matter::Stopping => "stopping",
            Matter::Draining => "draining",
            Matter::ClockOff { .. } => "clock_off",
            Matter::ClockDisputed { .. } => "clock_disputed",
            Matter::StoreShort(_) => "store_short",
            Matter::NoQuorum(_) => NO_QUORUM,
            Matter::FileAlone { .. } => "file_alone",
            Matter::StoreReplaced { .. } => STORE_REPLACED,
            Matter::Refilling { .. } => "refilling",
            Matter::NotCompared { .. } => "not_compared",
            Matter::PeerUnreachable { .. } => "peer_unreachable",
            Matter::PeerSilent { .. } => "peer_silent",
            Matter::HistoryDiffers { .. } => "history_differs",
            Matter::AntiEntropyPaused => "anti_entropy_paused",
            Matter::RecordsDamaged(_) => "records_damaged",
            Matter::CertificateEnds { .. } => "certificate_ends",
            Matter::DiskLow(_) => "disk_low",
            Matter::Candidate { .. } => "candidate",
            Matter::MembersChanging { .. } => MEMBERS_CHANGING,
            Matter::Counting => "counting",
            Matter::HintsHeld { .. } => "hints_held",
        }
    }

    /// How bad it is.
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Matter::Stopping
            | Matter::Draining
            | Matter::ClockOff { .. }
            | Matter::StoreShort(_)
            | Matter::NoQuorum(_)
            | Matter::FileAlone { .. }
            | Matter::StoreReplaced { .. }
            | Matter::Refilling { .. }
            | Matter::CertificateEnds { left: None } => Severity::Critical,
            Matter::ClockDisputed { .. }
            | Matter::PeerUnreachable { .. }
            | Matter::PeerSilent { .. }
            | Matter::HistoryDiffers { .. }
            | Matter::AntiEntropyPaused
            | Matter::RecordsDamaged(_)
            | Matter::CertificateEnds { left: Some(_) }
            | Matter::DiskLow(_) => Severity::Warning,
            Matter::NotCompared { .. }
            | Matter::Candidate { .. }
            | Matter::MembersChanging { .. }
            | Matter::Counting
            | Matter::HintsHeld { .. } => Severity::Note,
        }
    }

    /// The member that it is about, if that is another.
    pub(crate) fn peer(&self) -> Option<&str> {
        match self {
            Matter::PeerUnreachable { peer, .. }
            | Matter::PeerSilent { peer, .. }
            | Matter::HistoryDiffers { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Whether it is known why, so that it is the cause of others: that nobody answers is none.
    pub(crate) fn is_explained(&self) -> bool {
        match self {
            Matter::PeerUnreachable { problem, .. } => {
                problem.as_ref().is_some_and(|problem| problem.remedy != NO_ANSWER)
            }
            Matter::PeerSilent { .. } | Matter::NoQuorum(_) | Matter::FileAlone { .. } => false,
            _ => true,
        }
    }

    /// For how long it has to stand before a line in the log says so. Every start has a moment without peers.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Matter::NoQuorum(_)
            | Matter::FileAlone { .. }
            | Matter::PeerUnreachable { .. }
            | Matter::PeerSilent { .. } => Duration::from_secs(5),
            _ => Duration::ZERO,
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Matter::Stopping => "start it again when it is wanted",
            Matter::Draining => {
                "stop it and start it again, or have it take requests again (`driftless drain NODE --undo`)"
            }
            Matter::ClockOff { .. } => "set the clock of this machine right (NTP)",
            Matter::ClockDisputed { .. } => "see whose clock is wrong, and set it right (NTP)",
            Matter::StoreShort(_) => {
                "make room on the disk of its data, or raise the limit that it names; it takes writes again by itself then"
            }
            Matter::NoQuorum(_) | Matter::FileAlone { .. } => {
                "bring the missing nodes back, or mend what keeps them apart"
            }
            Matter::StoreReplaced { .. } => {
                "leave it running beside the others until this is gone, and lose no other disk meanwhile; if the disk was only not \
                 mounted, stop the node, mount it, start again; if the node leaves the cluster, declare it lost instead \
                 (`driftless cluster leave NAME --lost`)"
            }
            Matter::Candidate { .. } => "have it join, or stop it",
            Matter::MembersChanging { .. } => {
                "nothing: it passes by itself while all members of both versions are up (`driftless status`)"
            }
            Matter::Refilling { .. } => {
                "leave it running beside all others until this is gone (`driftless aae status`; a node that is down or paused keeps \
                 it), and lose no other disk meanwhile; if the disk was only not mounted, stop the node, mount it, start again"
            }
            Matter::NotCompared { .. } | Matter::Counting => "nothing: it passes by itself",
            Matter::PeerUnreachable { problem: Some(problem), .. } => problem.remedy,
            Matter::PeerUnreachable { problem: None, .. } => NO_ANSWER,
            Matter::PeerSilent { .. } => "see whether that machine is overloaded, or the network loses packets",
            Matter::HistoryDiffers { .. } => TWO_HISTORIES,
            Matter::AntiEntropyPaused => "`driftless aae resume`",
            Matter::RecordsDamaged(_) => "see `driftless damaged list`, and look after the disk",
            Matter::CertificateEnds { .. } => {
                "issue a new one (`driftless cert node`), put it in its place, and send SIGHUP"
            }
            Matter::DiskLow(_) => "make room, or give the node a larger disk",
            Matter::HintsHeld { .. } => "nothing, if those nodes come back (`driftless hints`)",
        }
    }
}

/// What is the matter, and why.
impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matter::Stopping => f.write_str("the node is shutting down"),
            Matter::FileAlone { needed, known } => write!(
                f,
                "this node goes by its cluster file alone, and knows of {known} of the {needed} members that have to go by it before it serves \
                 clients: what the file says may be of long ago"
            ),
            Matter::Draining => {
                f.write_str("an operator drains this node: it coordinates no requests, and serves the other nodes")
            }
            Matter::ClockOff { ahead_ms } => {
                let apart = Apart::of(*ahead_ms);
                write!(f, "the clock of this node is {apart} those of most others, so it takes no puts and deletes")
            }
            Matter::ClockDisputed { ahead_ms } => {
                let apart = Apart::of(*ahead_ms);
                write!(f, "the clock of this node is {apart} the others', and too few are heard to tell whose is wrong")
            }
            Matter::StoreShort(what) => write!(f, "the store of this node is short, so it takes no writes: {what}"),
            Matter::NoQuorum(obstacle) => obstacle.fmt(f),
            Matter::StoreReplaced { version, taken, of } => write!(
                f,
                "the store of this node is not the one that version {version} names: it takes writes and answers no reads until it \
                 holds what it must ({taken} of {of} partitions)"
            ),
            Matter::Candidate { name } => {
                write!(f, "this node is no member: `driftless cluster join {name}` on any member makes it one")
            }
            Matter::MembersChanging { version, of: 0, .. } => {
                write!(f, "version {version} of the members is under way")
            }
            Matter::MembersChanging { version, taken, of } => {
                write!(f, "version {version} of the members is under way: {taken} of {of} partitions taken in")
            }
            Matter::Refilling { left, of } => write!(
                f,
                "the data directory of this node is new, and lacks what other nodes know it to have held or hold themselves: \
                 {left} of {of} comparisons with them are still to be made"
            ),
            Matter::NotCompared { left, of } => {
                write!(f, "the data directory is new: {left} of {of} comparisons with other nodes are still to be made")
            }
            Matter::PeerUnreachable { peer, problem: Some(problem) } => {
                write!(f, "no connection to {peer}: {}", problem.text)
            }
            Matter::PeerUnreachable { peer, problem: None } => write!(f, "no connection to {peer}"),
            Matter::PeerSilent { peer, liveness: Liveness::Down } => {
                write!(f, "{peer} is connected, and thought to be down: it answers no probe")
            }
            Matter::PeerSilent { peer, .. } => write!(f, "{peer} is connected, and suspected: it answers no probe"),
            Matter::HistoryDiffers { peer, what } => {
                write!(f, "{peer} goes by another history of the members than this node: {what}")
            }
            Matter::AntiEntropyPaused => f.write_str("anti-entropy is paused: what replicas differ in stays"),
            Matter::RecordsDamaged(1) => f.write_str("1 record of this node is damaged"),
            Matter::RecordsDamaged(count) => write!(f, "{count} records of this node are damaged"),
            Matter::CertificateEnds { left: None } => {
                f.write_str("the certificate of this node has expired: nobody lets it in any more")
            }
            Matter::CertificateEnds { left: Some(left) } => {
                let left = humantime::format_duration(rounded(*left));
                write!(f, "the certificate of this node expires in {left}")
            }
            Matter::DiskLow(DiskRoom { free, total }) => {
                let percent = free.saturating_mul(100) / (*total).max(1);
                let left = match free >> 20 {
                    mib @ 0..10_240 => format!("{mib} MiB"),
                    mib => format!("{} GiB", mib >> 10),
                };
                write!(f, "the disk of the data fills up: {left} ({percent} %) are free")
            }
            Matter::Counting => f.write_str("trees are being built"),
            Matter::HintsHeld { keys: 1 } => f.write_str("1 key waits to be handed over to another node"),
            Matter::HintsHeld { keys } => write!(f, "{keys} keys wait to be handed over to other nodes"),
        }
    }
}

/// In whole days if there are some, else in minutes.
fn rounded(time: Duration) -> Duration {
    let unit = if time >= DAY { DAY } else { Duration::from_secs(60) };
    Duration::from_secs(time.as_secs() / unit.as_secs() * unit.as_secs()).max(Duration::from_secs(60))
}

/// What to do about a peer that says nothing at all.
pub(crate) const NO_ANSWER: &str =
    "see whether that node runs, and whether its address and the network between them (UDP, firewalls) are right";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Of two nodes that go by different histories of the members.
pub(crate) const TWO_HISTORIES: &str = "only one of the two histories can go on: choose it before anything is wiped (docs/membership.md, \
     Without a majority), and start the nodes of the other one again with empty directories";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_days_or_minutes() {
        let said = |seconds| Matter::CertificateEnds { left: Some(Duration::from_secs(seconds)) }.to_string();
        assert!(said(12 * 86_400 + 7_261).ends_with("expires in 12days"), "{}", said(12 * 86_400 + 7_261));
        assert!(said(7_261).ends_with("expires in 2h 1m"), "{}", said(7_261));
        assert!(said(3).ends_with("expires in 1m"), "{}", said(3));
    }

    #[test]
    fn how_far_a_change_of_members_has_come_is_said() {
        let changing = |of| Matter::MembersChanging { version: 8, taken: 61, of }.to_string();
        assert_eq!(changing(192), "version 8 of the members is under way: 61 of 192 partitions taken in");
        assert_eq!(changing(0), "version 8 of the members is under way", "it takes nothing in itself");
        let replaced = Matter::StoreReplaced { version: 7, taken: 12, of: 64 };
        assert!(replaced.to_string().ends_with("answers no reads until it holds what it must (12 of 64 partitions)"));
        assert_eq!(replaced.severity(), Severity::Critical);
        let candidate = Matter::Candidate { name: "n4".to_owned() };
        assert!(candidate.to_string().contains("`driftless cluster join n4`"));
    }

    #[test]
    fn another_history_is_told_with_whose_it_is() {
        let what = "it is at version 8, and version 1000 of this node was forced on version 7".to_owned();
        let matter = Matter::HistoryDiffers { peer: "n3".to_owned(), what };
        assert!(
            matter
                .to_string()
                .starts_with("n3 goes by another history of the members than this node: it is at version 8")
        );
        assert_eq!((matter.peer(), matter.severity()), (Some("n3"), Severity::Warning));
        assert!(matter.remedy().contains("before anything is wiped"));
    }

    #[test]
    fn the_cause_comes_first_and_what_to_do_fits_it() {
        let problem =
            Problem { text: "it has another cluster file".to_owned(), remedy: "give both the same", is_there: true };
        let matter = Matter::PeerUnreachable { peer: "n3".to_owned(), problem: Some(problem) };
        assert_eq!(matter.to_string(), "no connection to n3: it has another cluster file");
        assert_eq!(matter.remedy(), "give both the same");
    }

    /// "7199999 ms" and "7200.0 s" stood where an operator looks whether it is the time zone.
    #[test]
    fn how_far_a_clock_is_off_is_said_as_people_say_it() {
        let said = |ahead_ms| Matter::ClockOff { ahead_ms }.to_string();
        for (ahead_ms, expected) in [
            (-86_400_000, "is 1day behind those of most others"),
            (7_199_996, "is 2h ahead of those"),
            (7_261_000, "is 2h 1m ahead of those"),
            (-90_499, "is 1m 30s behind those"),
            (59_949, "is 59.9 s ahead of those"),
        ] {
            assert!(said(ahead_ms).contains(expected), "{}", said(ahead_ms));
        }
        assert!(said(i64::MIN).contains("years"), "{}", said(i64::MIN));
    }
}

//! The first frame of either side of a connection, by which both find the version of the protocol that they go by.
//!
//! ```text
//! who opens it                            who takes it
//!   │── 3 to 4, and what it is ─────────────▶│ 3 is the highest that both speak
//!   │◀──────────── 3 to 3, and what it is ───│ none: the connection is closed, and the reason names both and who is to be updated
//!   │◀═════════════ version 3 ══════════════▶│
//! ```
//! The form of this frame is for ever: every release must read that of every other, or could not even say what is wrong. Its body,
//! behind the length that every frame begins with, and at most 64 KiB long:
//!
//! ```text
//! offset  bytes
//!      0      2  the lowest version that the speaker speaks, little endian
//!      2      2  the highest, little endian
//!      4      …  what else it says of itself: a node to a node its hello, a client and a node to each other nothing yet
//! ```
//! Who reads it takes what it knows of the rest and leaves what follows: a later release may add fields at the end, and only there. A
//! field changes or goes only once no release that reads it is spoken with, since nobody reads the rest of one with whom it shares no
//! version.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{self, FrameError};

/// Version of the messages between peers, and between client and node: what a connection goes by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProtocolVersion(pub u16);

/// The versions that one side speaks: all from the lowest to the highest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProtocolVersions {
    lowest: ProtocolVersion,
    highest: ProtocolVersion,
}

/// The version since which a node can be asked what it measures. Before it that would be taken for a broken frame, and end the connection.
pub const FIGURES: ProtocolVersion = ProtocolVersion(3);

/// The version since which partitions may have been doubled: before it nobody can read a ring of which that is true.
pub const DOUBLING: ProtocolVersion = ProtocolVersion(4);

/// The version since which requests have envelopes that say what else is to be known of them (`observed`).
pub const OBSERVED: ProtocolVersion = ProtocolVersion(4);

/// The version since which a node can be asked for its hot, large and divided keys.
pub const TOP: ProtocolVersion = ProtocolVersion(4);

/// The version since which members may agree on who may do what: before it nobody can read a record that says so.
pub const AGREED_ACCESS: ProtocolVersion = ProtocolVersion(5);
/// The version since which a cluster can be founded without some of those whom its file names.
pub const FOUNDING_WITHOUT: ProtocolVersion = ProtocolVersion(5);

/// Two sides share no version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NothingInCommon {
    ours: ProtocolVersions,
    theirs: ProtocolVersions,
}

impl ProtocolVersions {
    /// Those of this release. A change that an older release cannot read raises the highest; the lowest follows when nothing is left
    /// here that can speak it.
    pub const OURS: ProtocolVersions = ProtocolVersions { lowest: ProtocolVersion(2), highest: ProtocolVersion(5) };

    /// From one to another; `None` if the lowest is above the highest, which is no version at all.
    pub fn new(lowest: u16, highest: u16) -> Option<ProtocolVersions> {
        let versions = ProtocolVersions { lowest: ProtocolVersion(lowest), highest: ProtocolVersion(highest) };
        (lowest <= highest).then_some(versions)
    }

    /// The lowest.
    pub fn lowest(self) -> ProtocolVersion {
        self.lowest
    }

    /// The highest.
    pub fn highest(self) -> ProtocolVersion {
        self.highest
    }

    /// The version that these two sides go by: the highest that both speak. It is the same as either of them sees it.
    ///
    /// # Errors
    /// [`NothingInCommon`].
    pub fn in_common_with(self, theirs: ProtocolVersions) -> Result<ProtocolVersion, NothingInCommon> {
        let highest = self.highest.min(theirs.highest);
        let is_spoken = highest >= self.lowest.max(theirs.lowest);
        is_spoken.then_some(highest).ok_or(NothingInCommon { ours: self, theirs })
    }
}

impl NothingInCommon {
    /// What each of them speaks, and which one is to be updated, by these names. Both of them show it, so neither is "this one".
    pub fn between(self, us: &str, them: &str) -> String {
        let old = if self.ours.highest < self.theirs.lowest { us } else { them };
        format!("{us} speaks protocol version {}, and {them} {}: update {old}", self.ours, self.theirs)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProtocolVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProtocolVersions { lowest, highest } = self;
        if lowest == highest { write!(f, "{lowest}") } else { write!(f, "{lowest} to {highest}") }
    }
}

/// The whole frame of somebody who speaks these versions, and says this besides.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<M: Serialize>(versions: ProtocolVersions, rest: &M) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::new();
    let ProtocolVersions { lowest, highest } = versions;
    frame::encode(&(lowest.0.to_le_bytes(), highest.0.to_le_bytes(), rest), &mut out)?;
    Ok(out)
}

/// Reads the body of such a frame: the versions, and the bytes of the rest. Whoever shares none of them does not read on.
///
/// # Errors
/// [`FrameError::Malformed`] if it is too short to hold them, or they are none.
pub fn read(body: &[u8]) -> Result<(ProtocolVersions, &[u8]), FrameError> {
    let malformed = |text: String| Err(FrameError::Malformed(text));
    let Some((&[a, b, c, d], rest)) = body.split_first_chunk() else {
        return malformed(format!("a greeting of {} bytes names no versions", body.len()));
    };
    let (lowest, highest) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    match ProtocolVersions::new(lowest, highest) {
        Some(versions) => Ok((versions, rest)),
        None => malformed(format!("it claims to speak protocol versions from {lowest} to {highest}, which are none")),
    }
}

/// What the rest says, as far as this release knows it: what a later one has put behind that is left.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn read_rest<M: DeserializeOwned>(rest: &[u8]) -> Result<M, FrameError> {
    let taken = postcard::take_from_bytes(rest);
    taken.map(|(message, _)| message).map_err(|error| FrameError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LENGTH_BYTES;
    use proptest::prelude::*;

    fn versions(lowest: u16, highest: u16) -> ProtocolVersions {
        ProtocolVersions::new(lowest, highest).expect("a range")
    }

    #[test]
    fn both_go_by_the_highest_version_that_both_speak() {
        for (ours, theirs, expected) in [
            ((1, 1), (1, 1), Some(1)),
            ((1, 1), (1, 2), Some(1)),
            ((1, 2), (1, 1), Some(1)),
            ((1, 2), (1, 2), Some(2)),
            ((1, 4), (2, 3), Some(3)),
            ((1, 3), (3, 9), Some(3)),
            ((1, 2), (3, 4), None),
            ((3, 4), (1, 2), None),
            ((3, 3), (0, u16::MAX), Some(3)),
            ((3, 3), (0, 0), None),
            ((3, 3), (u16::MAX, u16::MAX), None),
        ] {
            let (ours, theirs) = (versions(ours.0, ours.1), versions(theirs.0, theirs.1));
            let common = |one: ProtocolVersions, other| one.in_common_with(other).ok().map(|version| version.0);
            assert_eq!(common(ours, theirs), expected, "{ours} and {theirs}");
            assert_eq!(common(theirs, ours), expected, "as the other sees it");
        }
    }

    #[test]
    fn who_shares_no_version_is_told_both_ranges_and_who_is_to_be_updated_alike_by_both() {
        let (old, new) = (versions(3, 3), versions(4, 6));
        let told =
            |ours: ProtocolVersions, theirs, us, them| ours.in_common_with(theirs).expect_err("none").between(us, them);
        assert_eq!(told(old, new, "n1", "n2"), "n1 speaks protocol version 3, and n2 4 to 6: update n1");
        assert_eq!(told(new, old, "n2", "n1"), "n2 speaks protocol version 4 to 6, and n1 3: update n1");
    }

    /// Whoever changes these bytes cuts this release off from all others.
    #[test]
    fn the_first_bytes_of_a_connection_are_these_for_ever() {
        let frame = encode(versions(3, 0x0102), &("ab", 7_u8)).expect("short");
        assert_eq!(frame, [8, 0, 0, 0, 3, 0, 2, 1, 2, b'a', b'b', 7]);
        assert_eq!(encode(versions(3, 3), &()).expect("short"), [4, 0, 0, 0, 3, 0, 3, 0]);
    }

    #[test]
    fn what_a_later_release_says_besides_is_left() {
        let later = encode(versions(3, 4), &("ab", 7_u8, "a field of tomorrow", [9_u8; 30])).expect("short");
        let (said, rest) = read(&later[LENGTH_BYTES..]).expect("can be read");
        assert_eq!(said, versions(3, 4));
        assert_eq!(read_rest(rest), Ok(("ab".to_owned(), 7_u8)));
        assert_eq!(read_rest(rest), Ok(()), "or nothing of it");
        assert!(read_rest::<(String, u8)>(&rest[..3]).is_err(), "it ends in the middle");
    }

    #[test]
    fn what_names_no_versions_is_no_greeting() {
        for body in [&[][..], &[3, 0, 3], &[4, 0, 3, 0], &[255, 255, 0, 0, 1, 2, 3]] {
            assert!(matches!(read(body), Err(FrameError::Malformed(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_version_for_both_and_spoken_by_both(a in any::<[u16; 2]>(), b in any::<[u16; 2]>()) {
            let range = |[x, y]: [u16; 2]| versions(x.min(y), x.max(y));
            let (one, other) = (range(a), range(b));
            let common = one.in_common_with(other).ok();
            prop_assert_eq!(common, other.in_common_with(one).ok());
            let speaks = |range: ProtocolVersions, version| (range.lowest()..=range.highest()).contains(&version);
            match common {
                Some(version) => prop_assert!(speaks(one, version) && speaks(other, version)),
                None => prop_assert!(one.highest() < other.lowest() || other.highest() < one.lowest()),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok((said, rest)) = read(&body) {
                prop_assert_eq!([&said.lowest().0.to_le_bytes()[..], &said.highest().0.to_le_bytes(), rest].concat(), body);
            }
        }
    }
}

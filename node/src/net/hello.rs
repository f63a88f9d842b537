//! Whether a peer's [`Hello`] fits: pure checks, made by both sides on both hellos.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use driftless_proto::greeting;
use driftless_proto::membership::StoreId;
use driftless_proto::{Hlc, ProtocolVersion, ProtocolVersions};
use driftless_ring::NodeId;

use super::refusal::{CloseCode, CloseReason};
use crate::configurations::Configurations;
use crate::peer::{Hello, Incarnation};
use crate::plausible;

/// What this node says on a new connection of one of its shards: of itself, and which life of the other it knows.
pub(crate) fn our_hello(
    node: NodeId,
    incarnation: Incarnation,
    knows: Option<Incarnation>,
    configurations: &Configurations,
    shard: u16,
    store: StoreId,
) -> Hello {
    let topology = configurations.topology();
    Hello {
        cluster: topology.cluster().to_owned(),
        node,
        incarnation,
        knows,
        ring_version: topology.ring().version().0,
        topology_digest: topology.digest(),
        shard,
        store,
    }
}

/// Finds the version of the protocol to go by with whoever has sent this first frame; what else it says is left unread. The names are
/// those by which a refusal calls the two.
pub(crate) fn version<'a>(body: &'a [u8], us: &str, them: &str) -> Result<(ProtocolVersion, &'a [u8]), CloseReason> {
    let (theirs, rest) = greeting::read(body)?;
    let found = ProtocolVersions::OURS.in_common_with(theirs);
    let version = found.map_err(|nothing| CloseReason::new(CloseCode::ProtocolVersion, nothing.between(us, them)))?;
    Ok((version, rest))
}

/// Reads a peer's first frame: the version to go by, and its hello.
pub(crate) fn read(body: &[u8], us: &str, them: &str) -> Result<(ProtocolVersion, Hello), CloseReason> {
    let (version, rest) = version(body, us, them)?;
    let unreadable = |error| CloseReason::new(CloseCode::Hello, format!("the hello cannot be read: {error}"));
    Ok((version, greeting::read_rest(rest).map_err(unreadable)?))
}

/// Checks the other side's hello against our own. `certified` is the node that its certificate names. One that is no member of any
/// version that counts here may be a member of a later one, or come to be one: it is let in, and may talk of that.
pub(crate) fn check(
    ours: &Hello,
    theirs: &Hello,
    certified: NodeId,
    configurations: &Configurations,
) -> Result<(), CloseReason> {
    let refuse = |text: String| Err(CloseReason::new(CloseCode::Hello, text));
    if theirs.cluster != ours.cluster {
        return refuse(format!("hello of cluster {:?}, this is {:?}", theirs.cluster, ours.cluster));
    }
    if theirs.node != certified {
        let text = format!("hello of node {}, but the certificate names {certified}", theirs.node);
        return Err(CloseReason::new(CloseCode::Identity, text));
    }
    if theirs.node == ours.node {
        return refuse("hello of this very node: two processes have one name".to_owned());
    }
    if configurations.is_lost_store(theirs.node, theirs.store) {
        let own = theirs.ring_version;
        return Err(match configurations.forced() {
            Some((on, forced)) if (on + 1..forced).contains(&own) => CloseReason::new(
                CloseCode::Apart,
                format!(
                    "one of the two is at version {own}, and version {forced} was forced on version {on}: these are two histories of the members"
                ),
            ),
            forced => {
                let version = configurations.version();
                let first = match forced {
                    Some(_) => ", by force: if it goes on with others, choose first which of them is to stand, else",
                    None => ":",
                };
                let text = format!(
                    "its store was declared lost in version {version} or before{first} wipe its directory and join it anew"
                );
                CloseReason::new(CloseCode::Lost, text)
            }
        });
    }
    let Some(member) = configurations.member(theirs.node) else { return Ok(()) };
    // A later version may give it more.
    if theirs.ring_version <= ours.ring_version && theirs.shard >= member.shards.max(1) {
        return refuse(format!("hello of shard {}, but {} has {}", theirs.shard, member.name, member.shards));
    }
    if configurations.member(ours.node).is_some()
        && theirs.ring_version == ours.ring_version
        && theirs.topology_digest != ours.topology_digest
    {
        let version = ours.ring_version;
        if version > FOUNDING {
            let text =
                format!("both have ring version {version}, and not the same: these are two histories of the members");
            return Err(CloseReason::new(CloseCode::Apart, text));
        }
        return refuse(format!(
            "both have ring version {version} but disagree on the topology: give all nodes the same cluster file"
        ));
    }
    Ok(())
}

/// The version that a file makes; later ones are decided.
const FOUNDING: u64 = 1;

/// The newest life seen of every node, shared by the shards: of two processes that claim to be one node, the older is
/// refused, and if neither is older both are, until the operator restarts the right one.
#[derive(Default)]
pub(crate) struct Incarnations(Mutex<HashMap<NodeId, Newest>>);

struct Newest {
    incarnation: Incarnation,
    /// Two processes claimed this number of starts.
    contested: bool,
}

/// What an admitted hello means for connections that the node already has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admitted {
    /// The life known already, or the first one seen.
    Same,
    /// A later life: connections of earlier ones are dead.
    Newer,
}

impl Incarnations {
    /// Admits a life that is not older than any seen, nor of a time that no clock shows: after that one, every true life of the node
    /// would be older.
    pub(crate) fn admit(&self, node: NodeId, theirs: Incarnation, wall: Hlc) -> Result<Admitted, CloseReason> {
        let refuse = |text: String| Err(CloseReason::new(CloseCode::Incarnation, text));
        if theirs.starts > plausible::latest_life(wall) + plausible::CLOCKS_APART_S {
            return refuse(format!(
                "life {} of this node begins more than ten years from now: its directory was made by a clock that was never set, \
                 or somebody pretends to be it; start it with an empty directory and a right clock",
                theirs.starts
            ));
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = seen.get_mut(&node) else {
            seen.insert(node, Newest { incarnation: theirs, contested: false });
            return Ok(Admitted::Same);
        };
        let known = newest.incarnation;
        if theirs.starts > known.starts {
            *newest = Newest { incarnation: theirs, contested: false };
            return Ok(Admitted::Newer);
        }
        if theirs.starts < known.starts {
            return refuse(format!(
                "an older copy of this node: life {} of it, and life {} was seen already",
                theirs.starts, known.starts
            ));
        }
        if theirs.nonce != known.nonce {
            newest.contested = true;
        }
        if newest.contested {
            return refuse(
                "two processes run as this node from copies of one data directory; stop the wrong one and restart the right one"
                    .to_owned(),
            );
        }
        Ok(Admitted::Same)
    }

    /// The newest life seen of a node.
    pub(crate) fn newest(&self, node: NodeId) -> Option<Incarnation> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&node).map(|newest| newest.incarnation)
    }

    /// Whether this life is still the one to talk to.
    pub(crate) fn is_current(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&node).is_none_or(|newest| newest.incarnation == incarnation && !newest.contested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use driftless_proto::frame::LENGTH_BYTES;
    use driftless_proto::membership::Record;
    use driftless_testkit::TopologyBuilder;

    const A: NodeId = NodeId(1);
    const NOW: Hlc = Hlc::from_millis(1_800_000_000_000);

    fn life(starts: u64, nonce: u64) -> Incarnation {
        Incarnation { starts, nonce }
    }

    /// What `a` and another node say to each other if `a` goes by these versions.
    fn between(configurations: &Configurations, other: &str, store: u128) -> (Hello, Hello) {
        let hello =
            |name: &str, store| our_hello(NodeId::of_name(name), life(3, 10), None, configurations, 0, StoreId(store));
        (hello("a", 1), hello(other, store))
    }

    #[test]
    fn a_hello_of_tomorrow_is_read_as_far_as_this_release_knows_it() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b"]).shared());
        let (ours, _) = between(&configurations, "b", 2);
        let newest = ProtocolVersions::OURS.highest();
        let told = |lowest, highest, rest: &(&Hello, &[u8])| {
            let versions = ProtocolVersions::new(lowest, highest).expect("a range");
            let frame = greeting::encode(versions, rest).expect("short");
            read(&frame[LENGTH_BYTES..], "a", "b")
        };
        for tail in [&[][..], b"fields of tomorrow", &[255; 1000]] {
            assert_eq!(told(newest.0, newest.0 + 1, &(&ours, tail)), Ok((newest, ours.clone())));
        }
        // One with whom nothing is shared may say whatever it likes.
        let refused = told(newest.0 + 1, newest.0 + 2, &(&ours, b"")).expect_err("it speaks later versions only");
        assert_eq!(refused.code, CloseCode::ProtocolVersion);
        let spoken = format!("and b {} to {}: update a", newest.0 + 1, newest.0 + 2);
        assert!(refused.text.ends_with(&spoken), "{refused}");
    }

    /// Byte for byte: whatever a later release makes of a hello, as long as it speaks version 2 it reads this.
    #[test]
    fn the_hello_of_version_2_is_read_for_ever() {
        #[rustfmt::skip]
        let body = [
            2, 0, 2, 0,
            2, b'a', b'b', // cluster
            7, // node
            3, 9, // incarnation
            1, 4, 8, // knows
            9, // ring version
            5, // digest of the topology
            1, // shard
            6, // store
        ];
        let life = |starts, nonce| Incarnation { starts, nonce };
        let hello = Hello {
            cluster: "ab".to_owned(),
            node: NodeId(7),
            incarnation: life(3, 9),
            knows: Some(life(4, 8)),
            ring_version: 9,
            topology_digest: 5,
            shard: 1,
            store: StoreId(6),
        };
        assert_eq!(read(&body, "a", "b"), Ok((ProtocolVersion(2), hello)));
    }

    #[test]
    fn members_fit_and_strangers_of_the_cluster_are_let_in_to_ask() {
        let configurations = Configurations::of_file(TopologyBuilder::of(["a", "b"]).shared());
        for other in ["b", "c"] {
            let (ours, theirs) = between(&configurations, other, 2);
            let other = NodeId::of_name(other);
            assert_eq!(check(&ours, &theirs, other, &configurations), Ok(()));
            assert!(check(&ours, &theirs, NodeId::of_name("d"), &configurations).is_err(), "another certificate");
            let elsewhere = Hello { topology_digest: 7, ..theirs.clone() };
            let is_member = configurations.member(other).is_some();
            assert_eq!(
                check(&ours, &elsewhere, other, &configurations).is_err(),
                is_member,
                "one version, two topologies"
            );
            let later = Hello { shard: 5, ring_version: 9, topology_digest: 7, ..theirs.clone() };
            assert_eq!(check(&ours, &later, other, &configurations), Ok(()), "it may know of more shards");
            let sooner = Hello { ring_version: 1, ..later };
            assert_eq!(check(&ours, &sooner, other, &configurations).is_err(), is_member);
        }
    }

    #[test]
    fn a_store_that_was_declared_lost_is_refused_and_a_new_one_of_that_name_is_not() {
        let topology = TopologyBuilder::of(["a"]).build();
        let a = NodeId::of_name("a");
        let lost = vec![(NodeId::of_name("b"), StoreId(2))];
        let stores = vec![(a, StoreId(1))];
        let record = Record::new(7, 0, topology, stores, vec![a], lost, Vec::new(), String::new(), String::new());
        let records = [Arc::new(record.expect("holds together"))];
        let configurations = Configurations::of_records(a, StoreId(1), &records, None, &BTreeMap::new());
        let told = |store| {
            let (ours, theirs) = between(&configurations, "b", store);
            check(&ours, &theirs, theirs.node, &configurations)
        };
        assert!(told(2).is_err_and(|reason| reason.code == CloseCode::Lost && reason.text.contains("join it anew")));
        assert_eq!(told(3), Ok(()));
    }

    #[test]
    fn two_contents_of_one_number_are_two_histories_unless_files_made_them() {
        let first = TopologyBuilder::of(["a", "b"]).build();
        let (a, b) = (NodeId::of_name("a"), NodeId::of_name("b"));
        let second = first.with_ring(first.ring().again(first.ring()).expect("has a number")).expect("fits");
        let told = |topology: driftless_proto::Topology| {
            let stores = vec![(a, StoreId(1)), (b, StoreId(2))];
            let words = String::new();
            let record = Record::new(7, 0, topology, stores, vec![a], Vec::new(), Vec::new(), words.clone(), words);
            let records = [Arc::new(record.expect("holds together"))];
            let configurations = Configurations::of_records(a, StoreId(1), &records, None, &BTreeMap::new());
            let (ours, theirs) = between(&configurations, "b", 2);
            let theirs = Hello { topology_digest: ours.topology_digest ^ 1, ..theirs };
            check(&ours, &theirs, b, &configurations).expect_err("they differ").code
        };
        assert_eq!((told(first), told(second)), (CloseCode::Hello, CloseCode::Apart));
    }

    #[test]
    fn who_was_declared_lost_by_force_and_has_gone_on_is_not_told_to_wipe_its_data() {
        let ring = TopologyBuilder::of(["a", "b"]).build();
        let (a, b) = (NodeId::of_name("a"), NodeId::of_name("b"));
        let topology = ring.with_ring(ring.ring().forced().expect("has a number")).expect("fits");
        let (stores, lost) = (vec![(a, StoreId(1)), (b, StoreId(2))], vec![(b, StoreId(2))]);
        let on = ring.ring().version().0;
        let record = Record::new(7, 0, topology, stores, vec![a], lost, Vec::new(), String::new(), String::new());
        let record = record.and_then(|record| record.forced(on)).expect("holds together");
        let version = record.version();
        let configurations = Configurations::of_records(a, StoreId(1), &[Arc::new(record)], None, &BTreeMap::new());
        let told = |ring_version| {
            let (ours, theirs) = between(&configurations, "b", 2);
            let theirs = Hello { ring_version, ..theirs };
            check(&ours, &theirs, b, &configurations).expect_err("it is refused").code
        };
        assert_eq!([on, version, version + 1].map(told), [CloseCode::Lost; 3]);
        assert_eq!([on + 1, version - 1].map(told), [CloseCode::Apart; 2]);
    }

    #[test]
    fn an_older_copy_is_refused() {
        let seen = Incarnations::default();
        assert_eq!(seen.admit(A, life(3, 10), NOW), Ok(Admitted::Same));
        assert_eq!(seen.admit(A, life(3, 10), NOW), Ok(Admitted::Same));
        assert!(seen.admit(A, life(2, 11), NOW).is_err());
        assert_eq!(seen.admit(A, life(4, 12), NOW), Ok(Admitted::Newer));
        assert!(!seen.is_current(A, life(3, 10)));
    }

    /// Somebody with the node's key said a life of the next century, and the node itself was refused as an older copy from then on.
    #[test]
    fn a_life_of_the_next_century_is_refused_and_does_not_lock_the_real_one_out() {
        let seen = Incarnations::default();
        assert_eq!(seen.admit(A, life(1_800_000_007, 10), NOW), Ok(Admitted::Same));
        for starts in [5_000_000_000, u64::MAX] {
            assert!(seen.admit(A, life(starts, 66), NOW).is_err_and(|reason| reason.text.contains("ten years")));
        }
        assert_eq!(seen.newest(A), Some(life(1_800_000_007, 10)));
        assert_eq!(seen.admit(A, life(1_800_000_008, 11), NOW), Ok(Admitted::Newer));
        // A directory that was made while the clock was a year ahead is admitted, also by a node whose own clock was never set.
        assert_eq!(seen.admit(A, life(1_831_000_000, 12), NOW), Ok(Admitted::Newer));
        let unset = Incarnations::default();
        assert_eq!(unset.admit(A, life(1_831_000_000, 12), Hlc::default()), Ok(Admitted::Same));
    }

    #[test]
    fn of_two_equal_copies_both_are_refused_until_one_restarts() {
        let seen = Incarnations::default();
        assert_eq!(seen.admit(A, life(3, 10), NOW), Ok(Admitted::Same));
        assert!(seen.admit(A, life(3, 11), NOW).is_err());
        assert!(!seen.is_current(A, life(3, 10)), "the first one is not to be trusted either");
        assert!(seen.admit(A, life(3, 10), NOW).is_err());
        assert_eq!(seen.admit(A, life(4, 12), NOW), Ok(Admitted::Newer));
    }
}

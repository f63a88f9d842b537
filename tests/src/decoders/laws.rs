//! What must hold of everything that was decoded, however it was made: the algebra, and the way through the wire.

use std::collections::BTreeSet;
use std::fmt::Debug;

use driftless_proto::causality::Payload;
use driftless_proto::{ActorId, Dot, Header, Key, Siblings, Topology, frame};
use driftless_ring::Token;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes a message. What is accepted is well formed: written again it is not longer, and reads as the same.
pub(super) fn arrives<M: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<M> {
    let message: M = frame::decode(bytes).ok()?;
    let written = encoded(&message);
    assert!(written.len() <= bytes.len(), "{} bytes made {}: {message:?}", bytes.len(), written.len());
    let again: M = frame::decode(&written).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    assert_eq!(encoded(&again), written, "{message:?} and {again:?}");
    Some(message)
}

/// A message as the body of a frame.
pub(super) fn encoded(message: &impl Serialize) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::encode(message, &mut frame).expect("a message of this size fits into a frame");
    frame.split_off(frame::LENGTH_BYTES)
}

/// The target `siblings`: three states after each other, against the naive rule of merging.
pub(super) fn siblings(bytes: &[u8]) {
    let Ok((a, rest)) = postcard::take_from_bytes::<Siblings>(bytes) else { return };
    of_siblings(&a);
    let Ok((b, rest)) = postcard::take_from_bytes::<Siblings>(rest) else { return };
    of_two(&a, &b);
    let Ok((c, _)) = postcard::take_from_bytes::<Siblings>(rest) else { return };
    assert_eq!(
        dots(&merged(&merged(&a, &b), &c)),
        dots(&merged(&a, &merged(&b, &c))),
        "associative: {a:?} {b:?} {c:?}"
    );
}

/// Of one state.
pub(super) fn of_siblings(state: &Siblings) {
    of_any(state);
    let header = state.header();
    of_any(&header);
    assert_eq!(header.value_bytes(), state.value_bytes());
    let mut same = state.clone();
    assert!(same.merge_header(&header), "every value of the own header is at hand");
    assert_eq!(&same, state);
}

/// Of a state without values.
pub(super) fn of_header(header: &Header) {
    of_any(header);
}

fn of_any<P: Payload + PartialEq + Debug>(state: &Siblings<P>) {
    assert_eq!(&merged(state, state), state, "idempotent");
    assert_eq!(&merged(state, &Siblings::new()), state, "nothing adds nothing");
    assert_eq!(&merged(&Siblings::new(), state), state, "nothing holds nothing back");
    assert!(state.includes(state));
    let parts = Siblings::from_parts(state.vv().clone(), state.live().to_vec());
    assert_eq!(parts.as_ref(), Ok(state));
    let mut last = state.clone();
    assert_eq!(last.keep_last() + last.live().len(), state.live().len());
    assert!(last.live().len() <= 1 && last.written_at() == state.written_at());
    // A new write with everything seen replaces everything, one with nothing seen no value.
    let Some((_, payload)) = state.live().first() else { return };
    let actor = (0..).map(ActorId).find(|actor| state.vv().counter(*actor) == 0).expect("some actor is unknown");
    let dot = Dot::new(actor, 1);
    let (mut informed, mut blind) = (state.clone(), state.clone());
    informed.event(state.vv(), dot, payload.clone());
    assert_eq!(informed.live().iter().map(|(dot, _)| *dot).collect::<Vec<_>>(), [dot]);
    blind.event(&Default::default(), dot, payload.clone());
    assert_eq!(blind.live().len(), state.values().count() + 1);
    assert_eq!(dots(&merged(&blind, &informed)), dots(&informed), "what was replaced stays replaced");
}

/// Of two states: merging is commutative, and keeps exactly what neither side has seen go. Payloads are not compared: two
/// states that give one dot to two writes cannot be honest, and are told apart by their headers.
pub(super) fn of_two<P: Payload + PartialEq + Debug>(a: &Siblings<P>, b: &Siblings<P>) {
    let both = merged(a, b);
    assert_eq!(dots(&both), dots(&merged(b, a)), "commutative: {a:?} {b:?}");
    let survives = |dot: &Dot| {
        let gone = |side: &Siblings<P>| side.covers(*dot) && side.get(*dot).is_none();
        !gone(a) && !gone(b)
    };
    let naive: BTreeSet<Dot> = dots(a).1.into_iter().chain(dots(b).1).filter(survives).collect();
    assert_eq!(dots(&both).1, naive, "{a:?} {b:?}");
    assert!(both.includes(a) && both.includes(b), "{a:?} {b:?}");
    assert_eq!(a.includes(b), dots(&both) == dots(a), "{a:?} {b:?}");
}

/// Of a topology: no lookup panics.
pub(super) fn of_topology(topology: &Topology) {
    let again: Topology = frame::decode(&encoded(topology)).expect("what was written can be read");
    assert_eq!(again.digest(), topology.digest());
    let key = Key::new("bat").expect("valid");
    for bucket in topology.buckets() {
        let place = topology.place(bucket, &key);
        let owners = topology.ring().owners(place.partition);
        assert_eq!(owners.len(), usize::from(bucket.quorum.n()));
        let preference = topology.preference(place.partition);
        assert_eq!(preference.primaries, owners);
        let fallbacks = preference.fallbacks_for(owners[0]);
        assert_eq!(fallbacks.len() + owners.len(), topology.ring().members().len());
        for owner in owners {
            assert!(topology.ring().owns(*owner, place.partition));
            let shards = topology.ring().member(*owner).expect("owners are members").shards;
            assert!(topology.shard_of(*owner, place.partition) < shards);
        }
        assert_eq!(topology.bucket(bucket.id), Some(bucket));
        assert_eq!(topology.bucket_named(bucket.name.as_str()), Some(bucket));
    }
    for class in topology.ring().classes() {
        for token in [0, 1, u64::MAX / 2, u64::MAX] {
            let partition = topology.ring().partition(class, Token(token));
            assert_eq!(topology.ring().owners(partition).len(), usize::from(class));
        }
    }
}

fn merged<P: Payload>(a: &Siblings<P>, b: &Siblings<P>) -> Siblings<P> {
    let mut out = a.clone();
    out.merge(b);
    out
}

fn dots<P: Payload>(state: &Siblings<P>) -> (Vec<(ActorId, u64)>, BTreeSet<Dot>) {
    (state.vv().iter().collect(), state.live().iter().map(|(dot, _)| *dot).collect())
}

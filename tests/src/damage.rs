//! Records altered behind a node's back, as a disk or a bug might: an older state in the place of the newest, or none.

use bytes::Bytes;
use driftless_node::replica::record;
use driftless_proto::{ActorId, Dot, Siblings, VersionVector};

/// The record as it may have been before one of its live writes; `None` if it was not there then.
///
/// # Panics
/// If this is no record of a store.
pub fn before_a_write(key: &[u8], value: Bytes) -> Option<Bytes> {
    let entry = record::decode_entry(key, &value).expect("a store holds what its node wrote");
    let siblings = record::decode(value).expect("a store holds what its node wrote");
    let older = forget(&siblings)?;
    Some(record::encode(entry.bucket, &entry.key, &older.header(), &older))
}

/// A state that merges with the given one to the given one, and is less.
fn forget(siblings: &Siblings) -> Option<Siblings> {
    let newest = siblings.live().iter().map(|(dot, _)| *dot).max_by_key(|dot| (dot.counter, dot.actor))?;
    let before = |(actor, counter): (ActorId, u64)| {
        let counter = if actor == newest.actor { newest.counter - 1 } else { counter };
        (counter > 0).then(|| Dot::new(actor, counter))
    };
    let vv: VersionVector = siblings.vv().iter().filter_map(before).collect();
    let live = siblings.live().iter().filter(|(dot, _)| vv.covers(*dot)).cloned().collect();
    if vv.is_empty() { None } else { Siblings::from_parts(vv, live).ok() }
}

#[cfg(test)]
mod tests {
    use driftless_proto::{Hlc, Version, WriteId};

    use super::*;

    fn write(siblings: &mut Siblings, context: &VersionVector, dot: Dot) {
        let version = Version { value: Some(Bytes::from_static(b"v")), write_id: WriteId(1), written_at: Hlc(1) };
        siblings.event(context, dot, version);
    }

    #[test]
    fn what_is_left_is_less_and_merges_to_what_was() {
        let mut siblings = Siblings::new();
        write(&mut siblings, &VersionVector::new(), Dot::new(ActorId(1), 3));
        assert_eq!(forget(&siblings).map(|older| older.live().len()), Some(0));
        let context = siblings.vv().clone();
        write(&mut siblings, &context, Dot::new(ActorId(2), 1));
        write(&mut siblings, &context, Dot::new(ActorId(1), 9));
        let older = forget(&siblings).expect("something is left");
        assert_ne!(older, siblings);
        for (mut a, b) in [(older.clone(), &siblings), (siblings.clone(), &older)] {
            a.merge(b);
            assert_eq!(a, siblings);
        }
    }
}

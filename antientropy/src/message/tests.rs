use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;

fn fingerprints(count: usize) -> Vec<Fingerprint> {
    (0..count as u64).map(|at| Fingerprint(at.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn largest_nodes() -> Nodes {
    let parents: Vec<u32> = (0..NODES_MAX as u32 / 16).map(|parent| parent * 64).collect();
    Nodes::new(14, 4, &parents, fingerprints(NODES_MAX))
}

fn largest_listing() -> Listing {
    let leaves = (0..LEAVES_MAX as u32).map(|leaf| {
        let first = u64::MAX / LEAVES_MAX as u64 * u64::from(leaf);
        let entries: Vec<_> = (0..3).map(|at| (Token(first + (at << 52)), Digest(at.into()))).collect();
        Leaf::new(leaf * 256, ExchangeId(1), &entries)
    });
    Listing::new(leaves.collect(), Token(u64::MAX))
}

/// One of each, at its largest.
fn requests() -> Vec<Request> {
    let partition = PartitionId { n: 3, arc: driftless_ring::ArcIndex(65_535) };
    let start = Start {
        format: FORMAT,
        partition,
        partitions: Partitions::new(65_536).unwrap(),
        bits: Bits::MAX,
        nodes: largest_nodes(),
    };
    let leaves = (0..LEAVES_MAX as u32).map(|leaf| leaf * 256).zip(fingerprints(LEAVES_MAX));
    let tokens = (0..DIFFER_MAX as u64).map(|at| at << 54);
    let asks = [
        Ask::Start(start),
        Ask::Compare(largest_nodes()),
        Ask::List(List::new(leaves.collect(), Some(Token(u64::MAX)))),
        Ask::Differ(Rising::new(tokens)),
        Ask::Done,
        Ask::Over,
    ];
    let request = |ask| Request { exchange: ExchangeId(u64::MAX), step: u32::MAX, ask };
    asks.map(request).into()
}

fn replies() -> Vec<Reply> {
    let compared =
        Compared { deeper: Some(largest_nodes()), rest: Rising::new((0..NODES_MAX as u64).map(|node| node * 64)) };
    let answers = [
        Answer::Compared(compared),
        Answer::Listed(largest_listing()),
        Answer::Noted,
        Answer::Refused(Refused::Coarser(Bits::MIN)),
    ];
    let reply = |answer| Reply { exchange: ExchangeId(1), step: 1, answer };
    answers.map(reply).into()
}

fn bytes_of<M: Serialize>(messages: Vec<M>) -> Vec<Vec<u8>> {
    messages.iter().map(|message| postcard::to_stdvec(message).unwrap()).collect()
}

fn survives<M: Serialize + DeserializeOwned>(bytes: &[u8]) {
    // What is accepted is well formed: it can be read and sent again.
    if let Ok(message) = postcard::from_bytes::<M>(bytes) {
        let again = postcard::to_stdvec(&message).unwrap();
        assert!(postcard::from_bytes::<M>(&again).is_ok());
    }
}

#[test]
fn the_largest_messages_arrive_and_share_a_stream() {
    for request in requests() {
        let bytes = postcard::to_stdvec(&request).unwrap();
        assert_eq!(postcard::from_bytes::<Request>(&bytes).unwrap(), request);
        assert_eq!(request.encoded_len(), bytes.len());
        assert!(bytes.len() < driftless_proto::frame::FRAME_SHARED_MAX, "{} bytes", bytes.len());
    }
    for reply in replies() {
        let bytes = postcard::to_stdvec(&reply).unwrap();
        assert_eq!(postcard::from_bytes::<Reply>(&bytes).unwrap(), reply);
        assert_eq!(reply.encoded_len(), bytes.len());
        assert!(bytes.len() < driftless_proto::frame::FRAME_SHARED_MAX, "{} bytes", bytes.len());
    }
}

#[test]
fn truncated_messages_are_refused() {
    for bytes in bytes_of(requests()) {
        for end in (0..bytes.len()).rev().take(100).chain(0..100.min(bytes.len())) {
            assert!(postcard::from_bytes::<Request>(&bytes[..end]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_panic_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survives::<Request>(&bytes);
        survives::<Reply>(&bytes);
        survives::<crate::Sums>(&bytes);
        survives::<crate::Unequal>(&bytes);
    }

    #[test]
    fn no_flipped_byte_panics_a_decoder(which in 0..9_usize, at in 0..64_usize, to in any::<u8>()) {
        let mut all = bytes_of(requests());
        all.extend(bytes_of(replies()));
        let mut bytes = all.swap_remove(which);
        let at = at % bytes.len();
        bytes[at] = to;
        survives::<Request>(&bytes);
        survives::<Reply>(&bytes);
    }
}

#[test]
fn lists_that_do_not_fit_together_are_refused() {
    let nodes = |layer, down, parents: &[u64], count| {
        Nodes::try_from(RawNodes {
            layer,
            down,
            parents: Rising::new(parents.iter().copied()),
            fingerprints: Fingerprints::new(fingerprints(count)),
        })
    };
    assert!(nodes(4, 2, &[3, 15], 8).is_ok());
    for (layer, down, parents, count) in [
        (4, 2, &[3, 16][..], 8), // there is no node 16 in layer 4
        (4, 2, &[3, 15], 7),     // a fingerprint is missing
        (4, 0, &[3, 15], 2),     // no step down
        (17, 2, &[3], 4),        // below the deepest leaves
        (255, 255, &[3], 1),     // far below
        (4, 2, &[], 0),          // nothing at all
        (0, 63, &[0], 4),        // shifts beyond all bits
    ] {
        assert_eq!(nodes(layer, down, parents, count), Err(Malformed), "{layer} {down} {parents:?} {count}");
    }
    let list = |leaves: &[u64], count| {
        List::try_from(RawList {
            leaves: Rising::new(leaves.iter().copied()),
            fingerprints: Fingerprints::new(fingerprints(count)),
            after: None,
        })
    };
    assert!(list(&[0, 262_143], 2).is_ok());
    assert_eq!(list(&[0, 262_144], 2), Err(Malformed));
    assert_eq!(list(&[0, 1], 1), Err(Malformed));
    assert_eq!(list(&[], 0), Err(Malformed));
    let leaf = |index| Leaf::new(index, ExchangeId(1), &[]);
    let listing = |leaves| Listing::try_from(RawListing { leaves, through: Token(0) });
    assert_eq!(listing(vec![leaf(1), leaf(1)]), Err(Malformed));
    assert_eq!(listing(vec![leaf(2), leaf(1)]), Err(Malformed));
}

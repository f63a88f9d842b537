//! The test vectors of the protocol, and the laws against a naive model with explicit histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::dot::ActorId;
use super::*;

const A: ActorId = ActorId(0xa);
const B: ActorId = ActorId(0xb);
const C: ActorId = ActorId(0xc);
const X: ActorId = ActorId(0xf);

fn version(text: &str) -> Version {
    Version { value: Some(Bytes::copy_from_slice(text.as_bytes())), write_id: WriteId(0), written_at: Hlc(0) }
}

/// A put whose counter is the actor's next one for this key, as the protocol's table counts.
fn put(state: &Siblings, context: &VersionVector, actor: ActorId, text: &str) -> Siblings {
    let counter = state.vv().counter(actor).max(context.counter(actor)) + 1;
    let mut out = state.clone();
    out.event(context, Dot::new(actor, counter), version(text));
    out
}

fn merged(a: &Siblings, b: &Siblings) -> Siblings {
    let mut out = a.clone();
    out.merge(b);
    out
}

/// The same with a tombstone.
fn delete(state: &Siblings, context: &VersionVector, actor: ActorId) -> Siblings {
    let counter = state.vv().counter(actor).max(context.counter(actor)) + 1;
    let mut out = state.clone();
    out.event(context, Dot::new(actor, counter), Version { value: None, ..version("") });
    out
}

fn state(vv: &[(ActorId, u64)], live: &[(ActorId, u64, &str)]) -> Siblings {
    let vv = vv.iter().map(|&(actor, counter)| Dot::new(actor, counter)).collect();
    let live = live.iter().map(|&(actor, counter, text)| (Dot::new(actor, counter), version(text))).collect();
    Siblings::from_parts(vv, live).expect("well formed")
}

#[test]
fn vector_new_and_update_by_the_same_and_another_actor() {
    let none = VersionVector::new();
    let a0 = put(&Siblings::new(), &none, A, "v1");
    assert_eq!(a0, state(&[(A, 1)], &[(A, 1, "v1")]));
    let a1 = put(&a0, a0.vv(), A, "v2");
    assert_eq!(a1, state(&[(A, 2)], &[(A, 2, "v2")]));
    let a2 = put(&a1, a1.vv(), B, "v3");
    assert_eq!(a2, state(&[(A, 2), (B, 1)], &[(B, 1, "v3")]));
}

#[test]
fn vector_stale_contexts_make_siblings() {
    let a0 = put(&Siblings::new(), &VersionVector::new(), A, "v1");
    let a1 = put(&a0, a0.vv(), A, "v2");
    assert_eq!(put(&a1, a0.vv(), B, "v4"), state(&[(A, 2), (B, 1)], &[(A, 2, "v2"), (B, 1, "v4")]));
    assert_eq!(put(&a1, a0.vv(), A, "v5"), state(&[(A, 3)], &[(A, 2, "v2"), (A, 3, "v5")]));
}

#[test]
fn vector_merge_with_older_concurrent_and_seen_but_absent() {
    let a0 = put(&Siblings::new(), &VersionVector::new(), A, "v1");
    let a1 = put(&a0, a0.vv(), A, "v2");
    assert_eq!(merged(&a0, &a1), a1);
    assert_eq!(merged(&a1, &a0), a1);
    let concurrent = merged(&put(&a1, a1.vv(), B, "v3"), &put(&a1, a1.vv(), C, "v3"));
    assert_eq!(concurrent, state(&[(A, 2), (B, 1), (C, 1)], &[(B, 1, "v3"), (C, 1, "v3")]));
    let seen = state(&[(X, 1)], &[]);
    assert_eq!(merged(&seen, &a0), state(&[(A, 1), (X, 1)], &[(A, 1, "v1")]));
}

#[test]
fn vector_two_blind_writers_and_the_first_returns() {
    let none = VersionVector::new();
    let first = put(&Siblings::new(), &none, A, "v1");
    let m1 = put(&first, &none, A, "v2");
    assert_eq!(m1, state(&[(A, 2)], &[(A, 1, "v1"), (A, 2, "v2")]));
    assert_eq!(put(&m1, first.vv(), A, "v3"), state(&[(A, 3)], &[(A, 2, "v2"), (A, 3, "v3")]));
}

#[test]
fn vector_recreation_after_forgetting_needs_partition_counters_or_a_new_actor() {
    let old = state(&[(A, 5)], &[(A, 5, "old")]);
    // The mistake that partition counters make impossible: with a counter per key, a recreated key starts at 1.
    assert_eq!(merged(&old, &state(&[(A, 1)], &[(A, 1, "NEW")])), old);
    let counted_on = state(&[(A, 6)], &[(A, 6, "NEW")]);
    assert_eq!(merged(&old, &counted_on), counted_on);
    let new_actor = state(&[(B, 1)], &[(B, 1, "NEW")]);
    assert_eq!(merged(&old, &new_actor), state(&[(A, 5), (B, 1)], &[(A, 5, "old"), (B, 1, "NEW")]));
}

#[test]
fn vector_a_reused_dot_diverges_but_its_value_hash_shows_it() {
    let (x, y) = (state(&[(A, 5)], &[(A, 5, "x")]), state(&[(A, 5)], &[(A, 5, "y")]));
    assert_ne!(merged(&x, &y), merged(&y, &x));
    assert_ne!(x.header(), y.header());
}

#[test]
fn dot_from_the_counter_not_from_the_context_keeps_two_equal_contexts_apart() {
    let base = put(&Siblings::new(), &VersionVector::new(), A, "v0");
    let one = put(&base, base.vv(), A, "v1");
    let two = put(&one, base.vv(), A, "v2");
    assert_eq!(two.live().len(), 2);
}

#[test]
fn two_clients_writing_a_thousand_times_never_hold_more_than_two_siblings() {
    let mut server = Siblings::new();
    let mut contexts = [VersionVector::new(), VersionVector::new()];
    for round in 0..1000 {
        let client = round % 2;
        contexts[1 - client] = server.vv().clone();
        server = put(&server, &contexts[client].clone(), A, "v");
        assert!(server.live().len() <= 2, "round {round}: {} siblings", server.live().len());
    }
}

/// An attack from outside: 64 deletes with one old context left 64 tombstones, and the key took no value any more.
#[test]
fn tombstones_of_one_actor_do_not_pile_up_whatever_contexts_they_come_with() {
    let mut server = put(&Siblings::new(), &VersionVector::new(), A, "v0");
    let old = server.vv().clone();
    for _ in 0..100 {
        server = delete(&put(&server, &VersionVector::new(), A, "v"), &old, A);
        assert!(server.live().iter().filter(|(_, version)| version.is_tombstone()).count() == 1, "{server:?}");
    }
    assert_eq!(server.values().count(), 100, "what a context has not seen survives it");
}

#[test]
fn a_write_takes_the_place_of_a_tombstone_that_it_has_not_seen_and_revives_nothing() {
    let old = put(&Siblings::new(), &VersionVector::new(), A, "v1");
    let deleted = delete(&old, old.vv(), B);
    let blind = put(&deleted, &VersionVector::new(), C, "v2");
    assert_eq!(blind, state(&[(A, 1), (B, 1), (C, 1)], &[(C, 1, "v2")]));
    for late in [&old, &deleted] {
        assert_eq!(merged(&blind, late), blind, "neither what was deleted comes back, nor its tombstone");
    }
}

#[test]
#[should_panic(expected = "was stamped before")]
fn a_dot_cannot_be_stamped_twice() {
    let mut one = state(&[(A, 5)], &[(A, 5, "x")]);
    one.event(&VersionVector::new(), Dot::new(A, 5), version("y"));
}

#[test]
fn malformed_siblings_are_refused() {
    let uncovered = RawSiblings { vv: VersionVector::new(), live: vec![(Dot::new(A, 1), version("v"))] };
    assert!(Siblings::try_from(uncovered).is_err());
    let vv: VersionVector = [Dot::new(A, 2)].into_iter().collect();
    let unsorted = vec![(Dot::new(A, 2), version("v")), (Dot::new(A, 1), version("v"))];
    assert!(Siblings::try_from(RawSiblings { vv, live: unsorted }).is_err());
}

#[test]
fn last_writer_wins_keeps_one_and_counts_the_rest() {
    let mut both = state(&[(A, 1), (B, 1)], &[(A, 1, "x"), (B, 1, "y")]);
    both.live[0].1.written_at = Hlc(9);
    assert_eq!(both.keep_last(), 1);
    assert_eq!(both.live()[0].0, Dot::new(A, 1));
    assert_eq!(both.vv().len(), 2, "what was discarded stays seen");
    assert_eq!(Siblings::<Version>::new().keep_last(), 0);
}

// --- the naive model --------------------------------------------------------------------------------------------

/// What a replica knows, told as history: every write it has heard of, and what each write had overwritten.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    heard: BTreeSet<Dot>,
    overwritten: BTreeSet<Dot>,
    /// Those of the writes heard of that were deletes.
    tombstones: BTreeSet<Dot>,
}

impl Model {
    fn live(&self) -> BTreeSet<Dot> {
        self.heard.difference(&self.overwritten).copied().collect()
    }

    fn merge(&mut self, other: &Model) {
        self.heard.extend(&other.heard);
        self.overwritten.extend(&other.overwritten);
        self.tombstones.extend(&other.tombstones);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Replica writes with the context that a reader took from replica `read`, or blindly.
    Put { replica: usize, read: Option<usize> },
    /// The same with a tombstone.
    Delete { replica: usize, read: Option<usize> },
    /// `to` merges what `from` holds.
    Sync { from: usize, to: usize },
    /// A reader looks at a replica and keeps the context for later.
    Read { replica: usize },
    /// Replica writes with a context kept earlier, possibly long ago.
    PutStale { replica: usize, kept: usize },
    /// The same with a tombstone.
    DeleteStale { replica: usize, kept: usize },
    /// The replica's actor writes other keys of the partition: its counter has a gap here.
    Elsewhere { replica: usize },
    /// Last-writer-wins discards all but one.
    Discard { replica: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let replica = 0..3_usize;
    let step = prop_oneof![
        (replica.clone(), proptest::option::of(replica.clone()))
            .prop_map(|(replica, read)| Step::Put { replica, read }),
        (replica.clone(), proptest::option::of(replica.clone()))
            .prop_map(|(replica, read)| Step::Delete { replica, read }),
        (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Sync { from, to }),
        replica.clone().prop_map(|replica| Step::Read { replica }),
        replica.clone().prop_map(|replica| Step::Elsewhere { replica }),
        replica.clone().prop_map(|replica| Step::Discard { replica }),
        (replica.clone(), 0..16_usize).prop_map(|(replica, kept)| Step::PutStale { replica, kept }),
        (replica, 0..16_usize).prop_map(|(replica, kept)| Step::DeleteStale { replica, kept }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Runs the steps on the real type and on the model side by side. Contexts are what the protocol hands out: the
/// vector of a read, and in the model the set of everything heard. A write overwrites what its context has heard of, and
/// every tombstone that its replica holds.
fn run(steps: &[Step]) -> (Vec<Siblings>, Vec<Model>) {
    let mut real = vec![Siblings::new(); 3];
    let mut model = vec![Model::default(); 3];
    let mut kept: Vec<(VersionVector, BTreeSet<Dot>)> = vec![Default::default()];
    let mut counters = BTreeMap::<usize, u64>::new();
    let mut clock = 0;
    let mut write = |real: &mut Vec<Siblings>,
                     model: &mut Vec<Model>,
                     counters: &mut BTreeMap<usize, u64>,
                     replica: usize,
                     seen: (VersionVector, BTreeSet<Dot>),
                     is_delete: bool| {
        let counter = counters.entry(replica).or_default();
        *counter += 1;
        clock += 1;
        let dot = Dot::new(ActorId(replica as u64), *counter);
        let value = (!is_delete).then(|| Bytes::from(dot.to_string()));
        real[replica].event(&seen.0, dot, Version { value, written_at: Hlc(clock), ..version("") });
        let model = &mut model[replica];
        model.heard.extend(seen.1.iter().chain([&dot]));
        model.overwritten.extend(seen.1.iter().chain(&model.tombstones));
        model.tombstones.extend(is_delete.then_some(dot));
    };
    for step in steps {
        match *step {
            Step::Put { replica, read } | Step::Delete { replica, read } => {
                let seen = read.map(|from| (real[from].vv().clone(), model[from].heard.clone())).unwrap_or_default();
                let is_delete = matches!(step, Step::Delete { .. });
                write(&mut real, &mut model, &mut counters, replica, seen, is_delete);
            }
            Step::PutStale { replica, kept: which } | Step::DeleteStale { replica, kept: which } => {
                let seen = kept[which % kept.len()].clone();
                let is_delete = matches!(step, Step::DeleteStale { .. });
                write(&mut real, &mut model, &mut counters, replica, seen, is_delete);
            }
            Step::Sync { from, to } => {
                let (siblings, history) = (real[from].clone(), model[from].clone());
                real[to].merge(&siblings);
                model[to].merge(&history);
            }
            Step::Elsewhere { replica } => *counters.entry(replica).or_default() += 1,
            Step::Discard { replica } => {
                let before = real[replica].live().to_vec();
                real[replica].keep_last();
                if let Some((last, _)) = before.iter().max_by_key(|(_, version)| version.written_at) {
                    model[replica].overwritten.extend(before.iter().map(|(dot, _)| *dot).filter(|dot| dot != last));
                }
            }
            Step::Read { replica } => kept.push((real[replica].vv().clone(), model[replica].heard.clone())),
        }
        for (siblings, history) in real.iter().zip(&model) {
            let live: BTreeSet<Dot> = siblings.live().iter().map(|(dot, _)| *dot).collect();
            assert_eq!(live, history.live(), "after {step:?} of {steps:?}");
            let vector: VersionVector = history.heard.iter().copied().collect();
            assert_eq!(siblings.vv(), &vector, "after {step:?} of {steps:?}");
        }
    }
    (real, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn siblings_are_what_explicit_histories_say(steps in steps()) {
        run(&steps);
    }

    #[test]
    fn merge_is_commutative_associative_idempotent(steps in steps()) {
        let (real, _) = run(&steps);
        let [a, b, c] = [&real[0], &real[1], &real[2]];
        prop_assert_eq!(merged(a, b), merged(b, a));
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        prop_assert_eq!(&merged(a, a), a);
        prop_assert!(merged(a, b).includes(a) && merged(a, b).includes(b));
    }

    #[test]
    fn includes_means_that_merging_changes_nothing(steps in steps()) {
        let (real, _) = run(&steps);
        for a in &real {
            for b in &real {
                prop_assert_eq!(a.includes(b), &merged(a, b) == a);
            }
        }
    }

    #[test]
    fn a_context_removes_exactly_the_values_it_has_seen(steps in steps()) {
        let (real, _) = run(&steps);
        let dot = Dot::new(ActorId(77), 1);
        let mut after = real[0].clone();
        after.event(real[1].vv(), dot, version("new"));
        let expected: Vec<Dot> = real[0].live().iter().filter(|(_, version)| !version.is_tombstone()).map(|(dot, _)| *dot)
            .filter(|dot| !real[1].vv().covers(*dot)).chain([dot]).collect();
        let got: Vec<Dot> = after.live().iter().map(|(dot, _)| *dot).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_replica_holds_two_tombstones_of_one_actor(steps in steps()) {
        let (real, _) = run(&steps);
        for siblings in &real {
            let tombstones = siblings.live().iter().filter(|(_, version)| version.is_tombstone());
            let mut actors: Vec<ActorId> = tombstones.map(|(dot, _)| dot.actor).collect();
            let all = actors.len();
            actors.dedup();
            prop_assert_eq!(actors.len(), all, "{:?}", siblings);
        }
    }

    #[test]
    fn the_parts_of_a_state_make_it_whole_in_any_order_and_each_can_stand_alone(steps in steps(), turn in any::<usize>()) {
        let (real, _) = run(&steps);
        let mut parts = real[0].by_actor();
        let split = parts.iter().position(|part| !part.has_values()).unwrap_or(parts.len());
        prop_assert!(parts.len() - split <= 1, "what only removes is one part, and the last");
        for part in &parts {
            prop_assert!(Siblings::from_parts(part.vv().clone(), part.live().to_vec()).is_ok());
            let mut again = merged(&real[0], part);
            prop_assert_eq!(&again, &real[0], "a part adds nothing to the whole");
            again.merge(&real[1]);
            prop_assert_eq!(again, merged(&real[0], &real[1]));
        }
        if !parts.is_empty() {
            let at = turn % parts.len();
            parts.rotate_left(at);
        }
        let (mut whole, mut onto_another) = (Siblings::new(), real[1].clone());
        for part in &parts {
            whole.merge(part);
            onto_another.merge(part);
        }
        prop_assert_eq!(&whole, &real[0]);
        prop_assert_eq!(onto_another, merged(&real[1], &real[0]));
    }

    #[test]
    fn headers_merge_as_their_siblings_do(steps in steps()) {
        let (real, _) = run(&steps);
        let mut header = real[0].header();
        header.merge(&real[1].header());
        prop_assert_eq!(header, merged(&real[0], &real[1]).header());
    }

    #[test]
    fn merging_a_header_is_merging_the_state_whenever_the_values_are_at_hand(steps in steps()) {
        let (real, _) = run(&steps);
        let whole = merged(&real[0], &real[1]);
        let mut merged = real[0].clone();
        if merged.merge_header(&real[1].header()) {
            prop_assert_eq!(merged, whole);
        } else {
            prop_assert_eq!(&merged, &real[0]);
            prop_assert!(whole.live().iter().any(|(dot, _)| real[0].get(*dot).is_none()));
        }
    }

    #[test]
    fn siblings_survive_the_wire(steps in steps()) {
        let (real, _) = run(&steps);
        let bytes = postcard::to_stdvec(&real[0]).expect("encodes");
        prop_assert_eq!(&postcard::from_bytes::<Siblings>(&bytes).expect("decodes"), &real[0]);
        let bytes = postcard::to_stdvec(&real[0].header()).expect("encodes");
        prop_assert_eq!(postcard::from_bytes::<Header>(&bytes).expect("decodes"), real[0].header());
    }

    #[test]
    fn arbitrary_bytes_never_make_malformed_siblings(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(siblings) = postcard::from_bytes::<Siblings>(&bytes) {
            prop_assert!(Siblings::from_parts(siblings.vv().clone(), siblings.live().to_vec()).is_ok());
        }
    }
}

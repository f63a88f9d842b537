//! Keys larger than what one coordinator admits: merges bring together what several have taken, and it must all be readable,
//! resolvable, and in nobody's way.

use std::collections::BTreeSet;

use driftless_proto::{ActorId, Dot, WriteId};

use super::*;
use crate::peer::{Purpose, time_to_carry};

/// A value of so many bytes, which begins with its number.
fn value(number: usize, bytes: usize) -> Bytes {
    let mut value = vec![b'.'; bytes.max(8)];
    value[..8].copy_from_slice(&(number as u64).to_be_bytes());
    value.into()
}

fn number_of(value: &Bytes) -> usize {
    u64::from_be_bytes(value[..8].try_into().expect("eight bytes")) as usize
}

fn put_value(bucket: BucketId, number: usize, bytes: usize, context: Option<ContextToken>) -> Ask {
    let (value, write_id) = (value(number, bytes), WriteId(number as u128 + 1));
    Ask::Put(Put { bucket, key: key(), value, context, w: None, sloppy: None, write_id })
}

/// Kilobytes stand for megabytes.
fn small() -> Limits {
    Limits { sibling_bytes_max: 16 << 10, read_page_bytes: 16 << 10, ..Limits::default() }
}

/// What a read in several answers has shown, as a client puts it together.
#[derive(Default)]
struct Reader {
    shown: Vec<(Dot, usize)>,
    pages: usize,
}

impl Reader {
    /// Asks for a further answer; its context once it is the last.
    fn turn(&mut self, trio: &mut Trio, i: usize, r: u8) -> Option<ContextToken> {
        let shown = self.shown.iter().map(|(dot, _)| *dot).collect();
        let get = Get { bucket: SIBLINGS, key: key(), r: Some(r), sloppy: None, explain: false, shown };
        let request = trio.ask(i, Ask::Get(get));
        trio.settle();
        let Some(Response::Read(read)) = trio.reply(request).cloned() else { panic!("{:?}", trio.reply(request)) };
        self.pages += 1;
        let page = read.page.expect("the key does not fit into one answer");
        assert_eq!(page.more, read.context.is_none(), "a context comes with the last answer, and with no other");
        let values = read.siblings.iter().map(|sibling| number_of(&sibling.value));
        self.shown.extend(page.dots.into_iter().zip(values));
        self.shown.retain(|(dot, _)| !page.gone.contains(dot));
        read.context
    }

    fn read(trio: &mut Trio, i: usize, r: u8) -> (BTreeSet<usize>, ContextToken, usize) {
        let mut reader = Reader::default();
        loop {
            if let Some(context) = reader.turn(trio, i, r) {
                return (reader.values(), context, reader.pages);
            }
        }
    }

    fn values(&self) -> BTreeSet<usize> {
        self.shown.iter().map(|(_, number)| *number).collect()
    }
}

impl Trio {
    /// Three siblings that everybody knows, and one more through each owner, none of which knows of the others'.
    fn outgrow(&mut self, bytes: usize) {
        for number in 0..3 {
            self.put_and_settle(0, put_value(SIBLINGS, number, bytes, None));
        }
        let asked: Vec<u64> = (0..3).map(|i| self.ask(i, put_value(SIBLINGS, 3 + i, bytes, None))).collect();
        self.settle();
        asked.into_iter().for_each(|request| assert!(self.stored(request).acks >= 2));
    }
}

#[test]
fn a_key_that_several_coordinators_have_filled_is_read_whole_and_resolved() {
    let mut trio = Trio::with_limits(small());
    trio.outgrow(4 << 10);
    for i in 0..3 {
        assert_eq!(trio.holds(i, SIBLINGS).value_bytes(), 6 * (4 << 10), "merges are never refused for such a size");
        let (values, _, pages) = Reader::read(&mut trio, i, 2);
        assert_eq!((values, pages), ((0..6).collect(), 2));
    }
    let more = trio.ask(1, put_value(SIBLINGS, 9, 10, None));
    trio.settle();
    assert!(matches!(trio.failure(more), Failure::Refused(Refusal::TooManySiblings { .. })), "it is full");
    let (_, context, _) = Reader::read(&mut trio, 2, 3);
    let stored = trio.put_and_settle(1, put_value(SIBLINGS, 7, 4 << 10, Some(context)));
    assert_eq!((stored.siblings, stored.context.is_some()), (1, true));
    for i in 0..3 {
        assert_eq!(trio.holds(i, SIBLINGS).live().len(), 1);
    }
}

#[test]
fn sixty_four_siblings_of_four_megabytes_from_three_coordinators_are_read_and_resolved() {
    let mut trio = Trio::with_limits(Limits { read_page_bytes: 64 << 20, ..Limits::default() });
    // What each of them has stamped while it knew of no other.
    for (i, numbers) in [0..22, 22..44, 44..64].into_iter().enumerate() {
        let dot = |number: usize| Dot::new(ActorId(i as u64 + 1), number as u64 + 1);
        let version = |number: usize| {
            let write_id = WriteId(number as u128);
            Version { value: Some(value(number, 4 << 20)), write_id, written_at: Hlc(5) }
        };
        let vv: VersionVector = numbers.clone().map(dot).collect();
        let live = numbers.map(|number| (dot(number), version(number))).collect();
        let siblings = Siblings::from_parts(vv, live).expect("well formed");
        let merge = Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose: Purpose::Write };
        trio.tell((i + 1) % 3, i, 4711 * 4, Request::Replica(ReplicaRequest::Merge(merge)));
    }
    trio.settle();
    let (values, context, pages) = Reader::read(&mut trio, 0, 3);
    assert_eq!((values, pages), ((0..64).collect(), 4));
    // The read has repaired every replica that lacked something.
    for i in 0..3 {
        assert_eq!(trio.holds(i, SIBLINGS).live().len(), 64);
    }
    let stored = trio.put_and_settle(1, put_value(SIBLINGS, 99, 4 << 20, Some(context)));
    assert_eq!((stored.siblings, stored.acks >= 2), (1, true));
    assert_eq!(trio.read(2, SIBLINGS, 3).siblings.len(), 1);
}

#[test]
fn what_comes_between_two_answers_is_shown_before_a_context_covers_it() {
    // Wherever its dot stands among the others.
    for through in 0..3 {
        let mut trio = Trio::with_limits(Limits { read_page_bytes: 8 << 10, ..Limits::default() });
        trio.outgrow(4 << 10);
        let mut reader = Reader::default();
        assert_eq!(reader.turn(&mut trio, 0, 2), None);
        trio.put_and_settle(through, put_value(SIBLINGS, 50, 100, None));
        let context = loop {
            if let Some(context) = reader.turn(&mut trio, (through + 1) % 3, 2) {
                break context;
            }
        };
        assert_eq!(reader.values(), (0..6).chain([50]).collect(), "through node {through}");
        let stored = trio.put_and_settle(0, put_value(SIBLINGS, 60, 10, Some(context)));
        assert_eq!(stored.siblings, 1);
    }
}

#[test]
fn what_is_overwritten_between_two_answers_makes_room_for_what_replaced_it() {
    let mut trio = Trio::with_limits(Limits { read_page_bytes: 8 << 10, ..Limits::default() });
    trio.outgrow(4 << 10);
    let (_, context, _) = Reader::read(&mut trio, 1, 2);
    let mut reader = Reader::default();
    assert_eq!(reader.turn(&mut trio, 0, 2), None);
    trio.put_and_settle(1, put_value(SIBLINGS, 70, 10, Some(context)));
    let context = reader.turn(&mut trio, 0, 2).expect("little is left");
    assert_eq!(reader.values(), [70].into(), "what the key holds now, and nothing that it does not");
    assert_eq!(trio.put_and_settle(2, put_value(SIBLINGS, 71, 10, Some(context))).siblings, 1);
}

#[test]
fn a_last_answer_from_who_knows_less_overwrites_nothing_that_it_does_not_know() {
    let mut trio = Trio::with_limits(Limits { read_page_bytes: 8 << 10, ..Limits::default() });
    for number in 0..3 {
        trio.put_and_settle(0, put_value(SIBLINGS, number, 4 << 10, None));
    }
    trio.cut_off(2);
    // Node 2 does not know of these.
    for number in 3..6 {
        trio.put_and_settle(0, put_value(SIBLINGS, number, 4 << 10, None));
    }
    let mut reader = Reader::default();
    while reader.values().intersection(&(3..6).collect()).next().is_none() {
        assert_eq!(reader.turn(&mut trio, 0, 2), None, "more than half of it is to be shown before one of these is");
    }
    let context = loop {
        if let Some(context) = reader.turn(&mut trio, 2, 1) {
            break context;
        }
    };
    assert_eq!(reader.values(), (0..3).collect(), "it is a read of what node 2 knows");
    let stored = trio.put_and_settle(0, put_value(SIBLINGS, 80, 10, Some(context)));
    assert_eq!(stored.siblings, 4, "what the context does not cover stays");
    let (values, ..) = Reader::read(&mut trio, 0, 2);
    assert_eq!(values, [3, 4, 5, 80].into());
}

#[test]
fn two_stamps_of_one_write_are_shown_once_whatever_page_they_are_on() {
    let mut trio = Trio::with_limits(Limits { read_page_bytes: 1, ..Limits::default() });
    let actors = [1, 2, 3, 4].map(ActorId);
    let vv: VersionVector = actors.iter().map(|actor| Dot::new(*actor, 1)).collect();
    let version = |number: usize| {
        let write_id = WriteId(number as u128);
        Version { value: Some(value(number, 10)), write_id, written_at: Hlc(5) }
    };
    let live = actors.into_iter().zip([7, 8, 7, 9]).map(|(actor, number)| (Dot::new(actor, 1), version(number)));
    let siblings = Siblings::from_parts(vv, live.collect()).expect("well formed");
    for i in 0..3 {
        let merge =
            Merge { bucket: SIBLINGS, key: key(), siblings: siblings.clone(), hint_for: None, purpose: Purpose::Write };
        trio.tell((i + 1) % 3, i, 4711 * 4, Request::Replica(ReplicaRequest::Merge(merge)));
    }
    trio.settle();
    let mut reader = Reader::default();
    while reader.turn(&mut trio, 0, 2).is_none() {}
    let shown: Vec<usize> = reader.shown.iter().map(|(_, number)| *number).collect();
    assert_eq!(shown, [7, 8, 9]);
}

#[test]
fn a_merge_beyond_what_a_replica_keeps_is_refused_and_loses_nothing() {
    let limits = Limits { state_bytes_max: 20 << 10, read_page_bytes: 8 << 10, aae: quick_aae(), ..Limits::default() };
    let mut trio = Trio::with_limits(limits);
    (0..3).for_each(|i| trio.cut_off(i));
    for number in 0..6 {
        let i = number / 2;
        trio.ask(i, Ask::Put(Put { w: Some(1), ..put_of(put_value(SIBLINGS, number, 6 << 10, None)) }));
        trio.sync(i);
    }
    (0..3).for_each(|i| trio.connect(i));
    // Rounds, hints and reads, none of which may bring more together than fits.
    for _ in 0..40 {
        trio.pass(Duration::from_millis(500));
        trio.settle();
    }
    for i in 0..3 {
        let held = trio.holds(i, SIBLINGS);
        assert!(held.value_bytes() <= 20 << 10, "node {i} holds {}", held.value_bytes());
        assert!(held.live().len() >= 2, "what was there is there");
    }
    let (values, context, _) = Reader::read(&mut trio, 0, 3);
    assert_eq!(values, (0..6).collect(), "a read brings all of it together");
    assert_eq!(trio.put_and_settle(1, put_value(SIBLINGS, 9, 10, Some(context))).siblings, 1);
    for _ in 0..40 {
        trio.pass(Duration::from_millis(500));
        trio.settle();
    }
    for i in 0..3 {
        assert_eq!(trio.holds(i, SIBLINGS).live().len(), 1, "and what resolves it reaches everybody");
    }
}

#[test]
fn a_large_state_is_given_the_time_to_carry_it() {
    let mut trio = Trio::of(5, Limits::default());
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
    let owners: Vec<usize> = {
        let partition = trio.topology.place(bucket, &key()).partition;
        trio.topology.ring().owners(partition).iter().map(|owner| trio.index(*owner)).collect()
    };
    let bytes = 4 << 20;
    trio.ask(owners[0], put_value(SIBLINGS, 1, bytes, None));
    trio.wire.clear();
    trio.sync(owners[0]);
    let usual = Duration::from_millis(500); // after which silence speaks against a peer
    trio.pass(usual);
    let hedged = |trio: &Trio| trio.engines[owners[0]].shard.metrics.hedges.get();
    assert_eq!(hedged(&trio), 0, "four megabytes are still on their way");
    let merges = |trio: &Trio| trio.wire.iter().filter(|(_, _, message)| message.large_values().len() == 1).count();
    assert_eq!(merges(&trio), 0);
    trio.pass(time_to_carry(bytes));
    assert_eq!((hedged(&trio), merges(&trio)), (1, 1), "a fallback is asked");
}

#[test]
fn a_reader_of_a_large_state_is_told_that_it_comes() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put_value(SIBLINGS, 1, 4 << 20, None));
    trio.tell(
        1,
        0,
        4711 * 4,
        Request::Replica(ReplicaRequest::Read(crate::peer::Read {
            bucket: SIBLINGS,
            key: key(),
            want: crate::peer::Want::Full,
            durable: false,
            counted_for: None,
        })),
    );
    let said: Vec<Body> = trio.wire.drain(..).map(|(_, _, message)| message.body).collect();
    assert!(
        matches!(
            &said[..],
            [Body::Reply(Reply::Coming { bytes: 4_194_304 }), Body::Reply(Reply::State(State::Full(_)))]
        ),
        "{} messages",
        said.len()
    );
}

#[test]
fn who_has_said_that_a_large_state_comes_is_given_the_time_to_carry_it() {
    let asked_of = |says_so: bool| {
        let mut trio = Trio::new();
        trio.put_and_settle(0, put(SIBLINGS, "v", None));
        trio.ask(0, get(SIBLINGS, None));
        let asked = std::mem::take(&mut trio.wire);
        for (_, peer, Message { id, .. }) in asked.into_iter().filter(|_| says_so) {
            let body = Body::Reply(Reply::Coming { bytes: 4 << 20 });
            trio.hand_over(trio.index(peer), 0, Message { id, ring_version: 1, body });
        }
        let usual = Duration::from_millis(250); // after which another replica is asked as well
        trio.pass(usual);
        trio.engines[0].shard.metrics.hedges.get()
    };
    assert_eq!((asked_of(true), asked_of(false)), (0, 1));
}

#[test]
fn a_request_that_was_not_sent_is_refused_in_the_peers_place_and_says_nothing_of_it() {
    let mut trio = Trio::of(5, Limits::default());
    let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
    let owners: Vec<usize> = {
        let partition = trio.topology.place(bucket, &key()).partition;
        trio.topology.ring().owners(partition).iter().map(|owner| trio.index(*owner)).collect()
    };
    let asked = trio.ask(owners[0], put(SIBLINGS, "v", None));
    let unsent: Vec<_> = trio.wire.drain(..).map(|(_, to, message)| (to, message.id)).collect();
    assert_eq!(unsent.len(), 2, "to the two other owners");
    for (to, id) in unsent {
        trio.engines[owners[0]].handle_unsent(trio.now, to, id);
        trio.turn(owners[0]);
    }
    trio.settle();
    assert_eq!(trio.stored(asked).acks, 2 + u8::from(trio.stored(asked).acks > 2), "fallbacks have taken it at once");
    assert_eq!(trio.engines[owners[0]].shard.metrics.peers_unresponsive.get(), 0);
}

fn quick_aae() -> AaeLimits {
    AaeLimits { interval: Duration::from_secs(2), confirm: Duration::ZERO, ..AaeLimits::default() }
}

fn put_of(ask: Ask) -> Put {
    match ask {
        Ask::Put(put) => put,
        other => panic!("no put: {other:?}"),
    }
}

#[test]
fn a_repair_larger_than_the_window_holds_up_no_other() {
    let limits = Limits { window_bytes: 1 << 10, aae: quick_aae(), ..Limits::default() };
    let patience = limits.aae.patience;
    let mut trio = Trio::with_limits(limits);
    let named = |number: usize| Key::new(format!("key {number}")).expect("valid");
    let size = |number: usize| if number == 7 { 8 << 10 } else { 100 };
    for number in 0..60 {
        let put = Put { key: named(number), ..put_of(put_value(SIBLINGS, number, size(number), None)) };
        trio.put_and_settle(0, Ask::Put(put));
    }
    trio.cut_off(1);
    trio.restart(1, 77, MemoryStore::new());
    let back = trio.id(1);
    [0, 2].into_iter().for_each(|i| trio.engines[i].handle_peer_up(trio.now, back));
    let is_here = |trio: &Trio, number: usize| {
        let bucket = trio.topology.bucket(SIBLINGS).expect("exists");
        let place = trio.topology.place(bucket, &named(number));
        let record = RecordKey::new(place.partition.n, place.token, SIBLINGS, &named(number));
        trio.engines[1].store().get(record.as_bytes()).expect("readable").is_some()
    };
    let others = |trio: &Trio| (0..60).filter(|number| *number != 7 && !is_here(trio, *number)).count();
    // The large state is lost on the way, whichever node sends it.
    let mut lost_at = None;
    while others(&trio) > 0 {
        trio.pass(Duration::from_millis(100));
        while let Some((from, to, message)) = trio.wire.pop_front() {
            match &message.body {
                Body::Request { request, .. } if request.value_bytes() >= 8 << 10 => {
                    lost_at.get_or_insert(trio.now.instant);
                }
                _ => {
                    let (from, to) = (trio.index(from), trio.index(to));
                    trio.hand_over(from, to, message);
                }
            }
        }
        (0..3).for_each(|i| trio.sync(i));
        let waited = lost_at.map(|at| trio.now.instant.since(at)).unwrap_or_default();
        assert!(waited < patience, "{} others wait until one is given up", others(&trio));
    }
    assert!(!is_here(&trio, 7));
    for _ in 0..600 {
        trio.pass(Duration::from_millis(100));
        trio.settle();
    }
    assert!(is_here(&trio, 7), "it is repaired in the end");
}

//! What a shard says of its keys: windows, buckets, names, and how much memory that takes.

use driftless_proto::top::{HotKey, NAME_BYTES, SeenKey};
use driftless_proto::{ActorId, Dot, Hlc, Version, VersionVector, WriteId};
use driftless_ring::NodeId;
use driftless_testkit::{TopologyBuilder, bucket};

use super::*;

const BUCKET: BucketId = BucketId(1);
const ALL: TopCommand = TopCommand { bucket: None, most: KEYS_MAX as u32 };

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn top(watch: bool, keys: bool) -> Top {
    Top::new(at(0), TopLimits { watch, keys })
}

/// Values of these lengths.
fn state(lengths: &[usize]) -> Siblings {
    let version =
        |len: &usize| Version { value: Some(vec![0; *len].into()), written_at: Hlc::default(), write_id: WriteId(0) };
    let live: Vec<_> = (1..).zip(lengths).map(|(at, len)| (Dot::new(ActorId(at), 1), version(len))).collect();
    let vv = live.iter().map(|(dot, _)| *dot).collect::<VersionVector>();
    Siblings::from_parts(vv, live).expect("each is covered")
}

fn hot(told: &driftless_proto::top::Top) -> Vec<(u64, u64, u64)> {
    told.buckets[0].hot.iter().map(|key| (key.key.token.0, key.reads, key.writes)).collect()
}

#[test]
fn reads_and_writes_are_counted_apart_and_the_hottest_comes_first() {
    let mut top = top(true, false);
    for (token, is_read) in [(1, true), (2, false), (2, false), (2, true), (3, true)] {
        top.asked(at(1), BUCKET, Token(token), is_read, b"k");
    }
    let told = top.told(at(6), &ALL);
    assert_eq!(hot(&told), [(2, 1, 2), (1, 1, 0), (3, 1, 0)]);
    assert_eq!((told.span_ms, told.buckets[0].requests, told.buckets[0].floor), (6_000, 5, 0));
    let first = top.told(at(6), &TopCommand { bucket: Some(BUCKET), most: 1 });
    assert_eq!((hot(&first), first.buckets[0].floor), (vec![(2, 1, 2)], 1));
    assert_eq!(top.told(at(6), &TopCommand { bucket: Some(BucketId(9)), most: 1 }).buckets, []);
}

#[test]
fn what_was_asked_two_minutes_ago_is_not_hot_any_more() {
    let mut top = top(true, false);
    top.asked(at(130), BUCKET, Token(1), true, b"k");
    top.asked(at(190), BUCKET, Token(2), true, b"k");
    let told = top.told(at(200), &ALL);
    assert_eq!((hot(&told), told.span_ms), (vec![(1, 1, 0), (2, 1, 0)], 80_000), "this window, and the one before");
    let told = top.told(at(239), &ALL);
    assert_eq!(told.span_ms, 119_000);
    let told = top.told(at(240), &ALL);
    assert_eq!((hot(&told), told.span_ms), (vec![(2, 1, 0)], 60_000), "the older one is over");
    assert_eq!(top.told(at(900), &ALL).buckets, [], "nothing is left of the bucket");
}

#[test]
fn what_is_large_or_divided_is_what_was_seen_last() {
    let mut top = top(true, false);
    for (token, lengths) in [(1, &[100, 50][..]), (2, &[400]), (3, &[7, 7, 7])] {
        top.asked(at(1), BUCKET, Token(token), true, b"k");
        top.saw(at(1), BUCKET, Token(token), &state(lengths), b"k");
    }
    let lists = |top: &mut Top| {
        let told = top.told(at(3), &ALL);
        let keys = |list: &[SeenKey], of: fn(&SeenKey) -> u64| -> Vec<(u64, u64)> {
            list.iter().map(|key| (key.key.token.0, of(key))).collect()
        };
        let bucket = &told.buckets[0];
        let large = keys(&bucket.large, |key| key.seen.bytes);
        (large, keys(&bucket.siblings, |key| key.seen.siblings.into()))
    };
    assert_eq!(lists(&mut top), (vec![(2, 400), (1, 150), (3, 21)], vec![(3, 3), (1, 2)]));
    let told = top.told(at(3), &ALL);
    let seen: Vec<_> = told.buckets[0].hot.iter().map(|key| key.seen.map(|seen| (seen.bytes, seen.ago_ms))).collect();
    assert_eq!(seen, [Some((150, 2_000)), Some((400, 2_000)), Some((21, 2_000))]);
    // One is merged, one deleted.
    top.saw(at(2), BUCKET, Token(3), &state(&[9]), b"k");
    top.saw(at(2), BUCKET, Token(2), &Siblings::default(), b"k");
    assert_eq!(lists(&mut top), (vec![(1, 150), (3, 9)], vec![(1, 2)]));
}

#[test]
fn names_are_kept_only_where_that_is_wanted_and_long_ones_are_cut() {
    let mut top = top(true, false);
    let long = [b'x'; NAME_BYTES + 1];
    let names = |top: &mut Top| -> Vec<(Option<usize>, bool)> {
        let told = top.told(at(3), &ALL);
        told.buckets[0]
            .hot
            .iter()
            .map(|HotKey { key, .. }| (key.name.as_ref().map(|name| name.len()), key.cut))
            .collect()
    };
    top.asked(at(1), BUCKET, Token(1), true, b"cart");
    top.asked(at(1), BUCKET, Token(1), true, b"cart");
    assert_eq!(names(&mut top), [(None, false)]);
    top.handle_limits(at(1), &TopLimits { watch: true, keys: true });
    assert_eq!(names(&mut top), [(None, false)], "it was not kept before");
    top.asked(at(2), BUCKET, Token(1), true, b"cart");
    top.asked(at(2), BUCKET, Token(2), true, &long);
    assert_eq!(names(&mut top), [(Some(4), false), (Some(NAME_BYTES), true)]);
    top.handle_limits(at(101), &TopLimits { watch: true, keys: false });
    assert_eq!(names(&mut top), [(None, false), (None, false)], "they are forgotten, counts are not");
}

#[test]
fn whoever_does_not_watch_counts_nothing_and_forgets() {
    let mut top = top(false, true);
    top.asked(at(1), BUCKET, Token(1), true, b"k");
    top.saw(at(1), BUCKET, Token(1), &state(&[9]), b"k");
    let told = top.told(at(2), &ALL);
    assert_eq!((told.watches, told.buckets.len()), (false, 0));
    top.handle_limits(at(90), &TopLimits { watch: true, keys: true });
    top.asked(at(100), BUCKET, Token(1), true, b"k");
    let told = top.told(at(101), &ALL);
    assert_eq!((told.watches, told.buckets.len(), told.span_ms), (true, 1, 11_000), "it began with the switch");
    top.handle_limits(at(101), &TopLimits { watch: false, keys: true });
    assert_eq!(top.told(at(102), &ALL).buckets, []);
}

#[test]
fn buckets_beyond_the_bound_are_said_not_to_be_counted_until_there_is_room() {
    let mut top = top(true, false);
    for bucket in 0..BUCKETS_MAX as u32 + 3 {
        top.asked(at(1), BucketId(bucket), Token(1), true, b"k");
        top.saw(at(1), BucketId(bucket), Token(1), &state(&[5]), b"k");
    }
    let told = top.told(at(2), &ALL);
    assert_eq!((told.buckets.len(), told.uncounted), (BUCKETS_MAX, 3));
    // Of one that is deleted nothing is left.
    let kept = TopologyBuilder::of(["a", "b", "c"]).bucket(bucket(5, "carts", 3)).build();
    top.handle_topology(at(2), NodeId(9), &kept);
    let told = top.told(at(2), &ALL);
    assert_eq!(told.buckets.iter().map(|bucket| bucket.bucket.0).collect::<Vec<_>>(), [0, 5]);
    top.asked(at(3), BucketId(70), Token(1), true, b"k");
    assert_eq!(top.told(at(3), &ALL).buckets.len(), 3, "there is room again");
}

/// What was large in one of them an hour ago kept others from being counted at all.
#[test]
fn a_bucket_that_is_asked_nothing_any_more_leaves_its_place_to_one_that_is() {
    let mut top = top(true, false);
    for bucket in 0..BUCKETS_MAX as u32 {
        top.asked(at(1), BucketId(bucket), Token(1), true, b"k");
        top.saw(at(1), BucketId(bucket), Token(1), &state(&[5]), b"k");
    }
    top.asked(at(70), BucketId(0), Token(1), true, b"k");
    top.asked(at(119), BucketId(99), Token(1), true, b"k");
    let told = top.told(at(119), &ALL);
    assert_eq!((told.buckets.len(), told.uncounted), (BUCKETS_MAX, 1), "they were asked a minute ago");
    top.asked(at(121), BucketId(99), Token(1), true, b"k");
    let told = top.told(at(121), &ALL);
    let asked: Vec<u32> = told.buckets.iter().filter(|one| one.requests > 0).map(|one| one.bucket.0).collect();
    assert_eq!((asked, told.buckets.len()), (vec![0, 99], BUCKETS_MAX));
}

/// All buckets at once, in the middle of a request.
#[test]
fn a_new_minute_allocates_nothing_and_who_is_quiet_gives_memory_back() {
    let mut top = top(true, false);
    for number in 0..2_000_u64 {
        let token = Token(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let now = at(if number < 1_000 { 1 } else { 61 });
        top.asked(now, BUCKET, token, true, b"k");
        top.saw(now, BUCKET, token, &state(&[9]), b"k");
    }
    let full = top.buckets[&BUCKET].bytes();
    top.asked(at(121), BUCKET, Token(1), true, b"k");
    assert_eq!(top.buckets[&BUCKET].bytes(), full);
    assert_eq!(top.told(at(121), &ALL).buckets[0].requests, 1_001, "and what has ended is forgotten");
    top.told(at(400), &ALL);
    top.told(at(600), &ALL);
    assert!(top.buckets[&BUCKET].bytes() < full / 4);
}

/// Its keys are divided among its shards only from then on.
#[test]
fn a_node_that_becomes_a_member_begins_to_count_anew() {
    let topology = TopologyBuilder::of(["a", "b", "c"]).build();
    let me = topology.ring().members()[0].id;
    let mut top = top(true, false);
    top.asked(at(1), BucketId::DEFAULT, Token(1), true, b"k");
    top.handle_topology(at(2), me, &topology);
    assert_eq!(top.told(at(2), &ALL).buckets, []);
    top.asked(at(2), BucketId::DEFAULT, Token(1), true, b"k");
    top.handle_topology(at(2), me, &topology);
    assert_eq!(top.told(at(2), &ALL).buckets.len(), 1, "another version that changes nothing of that");
}

#[test]
fn a_bucket_takes_no_more_memory_than_is_said() {
    const { assert!(BUCKET_BYTES_MAX * BUCKETS_MAX <= 3_584 << 10, "3.5 MiB a shard, as docs/configuration.md has it") };
    // Keys that nobody has seen before, for ever, with the longest of names.
    let mut top = top(true, true);
    for number in 0..50_000_u64 {
        let token = Token(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Half of them in each window.
        let now = at(if number < 25_000 { 1 } else { 61 });
        top.asked(now, BUCKET, token, true, &[7; 900]);
        top.saw(now, BUCKET, token, &state(&[1, number as usize % 100 + 1]), &[7; 900]);
    }
    let bytes = top.buckets[&BUCKET].bytes();
    assert!((BUCKET_BYTES_MAX / 2..=BUCKET_BYTES_MAX).contains(&bytes), "{bytes} B");
}

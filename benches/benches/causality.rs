//! What stamping, merging and sealing cost, by the number of actors that have ever written a key.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use driftless_antientropy::Digest;
use driftless_proto::causality::ContextKey;
use driftless_proto::{
    ActorId, BucketId, Context, ContextKeys, Dot, Hlc, Key, Siblings, Version, VersionVector, WriteId,
};

fn version(write: u64) -> Version {
    Version { value: Some(Bytes::from(vec![7; 1024])), write_id: WriteId(write.into()), written_at: Hlc(write) }
}

/// A key that `actors` replicas have written in turn, each having read the one before.
fn written_by(actors: u64) -> Siblings {
    let mut siblings = Siblings::new();
    for actor in 0..actors {
        let context = siblings.vv().clone();
        siblings.event(&context, Dot::new(ActorId(actor), 9), version(actor));
    }
    siblings
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("causality");
    // Nanoseconds each: a second is plenty.
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for actors in [1, 3, 10, 100] {
        let base = written_by(actors);
        let context = base.vv().clone();
        group.bench_function(BenchmarkId::new("event", actors), |b| {
            b.iter(|| {
                let mut next = base.clone();
                next.event(black_box(&context), Dot::new(ActorId(0), 10), version(10));
                next
            });
        });
        let mut newer = base.clone();
        newer.event(&context, Dot::new(ActorId(0), 10), version(10));
        let mut concurrent = base.clone();
        concurrent.event(&VersionVector::new(), Dot::new(ActorId(1_000), 1), version(11));
        for (name, other) in [("merge_newer", &newer), ("merge_concurrent", &concurrent), ("merge_equal", &base)] {
            group.bench_function(BenchmarkId::new(name, actors), |b| {
                b.iter(|| {
                    let mut merged = base.clone();
                    merged.merge(black_box(other));
                    merged
                });
            });
        }
        let key = Key::new("a key of ordinary length").expect("valid");
        let header = base.header();
        group.bench_function(BenchmarkId::new("digest", actors), |b| {
            b.iter(|| Digest::of(BucketId(0), black_box(&key), &header));
        });
        let keys = ContextKeys::new(vec![ContextKey { id: 1, secret: [7; 32] }]).expect("one key");
        let context = Context { vv: context, written_at: Hlc(9) };
        group.bench_function(BenchmarkId::new("seal_and_open_context", actors), |b| {
            b.iter(|| {
                let token = keys.seal(BucketId(0), &key, black_box(&context));
                keys.open(BucketId(0), &key, &token)
            });
        });
        group.bench_function(BenchmarkId::new("encode_and_decode", actors), |b| {
            b.iter(|| {
                let bytes = postcard::to_stdvec(black_box(&base)).expect("encodes");
                postcard::from_bytes::<Siblings>(&bytes)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

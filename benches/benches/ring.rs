//! What finding a key's replicas costs, and what a change of members does.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use driftless_ring::{Member, Partitions, Ring, RingSpec, Token};

fn spec(members: u32, partitions: u32) -> RingSpec {
    let member =
        |i: u32| Member::new(format!("node-{i}"), format!("node-{i}.test:7400")).in_zone(format!("zone-{}", i % 3));
    RingSpec {
        partitions: Partitions::new(partitions).expect("a power of two"),
        hash_seed: 0,
        members: (0..members).map(member).collect(),
        classes: [3].into(),
    }
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    // Most are nanoseconds: this is plenty.
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let ring = Ring::first(spec(10, 256)).expect("valid");
    group.bench_function("token", |b| b.iter(|| Token::of(0, 0, black_box(b"a key of ordinary length"))));
    group.bench_function("owners_of_key", |b| {
        b.iter(|| {
            let token = ring.token(0, black_box(b"a key of ordinary length"));
            ring.owners(ring.partition(3, token)).first().copied()
        });
    });
    for (members, partitions) in [(3, 256), (10, 256), (100, 1024), (100, 4096)] {
        let before = Ring::first(spec(members, partitions)).expect("valid");
        group.bench_function(BenchmarkId::new("first", format!("{members} members, q {partitions}")), |b| {
            b.iter(|| Ring::first(black_box(spec(members, partitions))));
        });
        group.bench_function(BenchmarkId::new("join", format!("{members} members, q {partitions}")), |b| {
            b.iter(|| before.next(black_box(spec(members + 1, partitions))));
        });
        let partition = before.partition(3, Token(1));
        let dead = before.owners(partition)[0];
        group.bench_function(BenchmarkId::new("fallbacks", format!("{members} members")), |b| {
            b.iter(|| before.preference(partition).fallbacks_for(black_box(dead)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

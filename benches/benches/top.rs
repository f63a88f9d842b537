//! What counting hot keys costs a request: where a few keys are asked for most, where none is asked for twice, and with names.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use driftless_node::config::TopLimits;
use driftless_node::time::Instant;
use driftless_node::top::Top;
use driftless_proto::BucketId;
use driftless_proto::top::{KEYS_MAX, TopCommand};
use driftless_ring::Token;

const KEY: &[u8] = b"a key of ordinary length";

/// Tokens of a million requests: of each two, one is for one of so many keys, the other for another one each time.
fn tokens(hot: u64) -> Vec<Token> {
    let mix = |number: u64| Token(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..1 << 20).map(|at| mix(if at % 2 == 0 { at / 2 % hot } else { hot + at })).collect()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("top");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    for (name, keys, tokens) in [
        ("half of it for 20 keys", false, tokens(20)),
        ("half of it for 20 keys, with names", true, tokens(20)),
        ("every key once", false, tokens(1 << 19)),
        ("every key once, with names", true, tokens(1 << 19)),
    ] {
        let mut top = Top::new(Instant(0), TopLimits { watch: true, keys });
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                at = (at + 1) % tokens.len();
                top.asked(Instant(1), BucketId(1), black_box(tokens[at]), true, black_box(KEY));
            });
        });
    }
    let mut top = Top::new(Instant(0), TopLimits { watch: true, keys: false });
    tokens(20).into_iter().for_each(|token| top.asked(Instant(1), BucketId(1), token, true, KEY));
    let command = TopCommand { bucket: None, most: KEYS_MAX as u32 };
    group.bench_function("telling", |b| b.iter(|| top.told(Instant(2), black_box(&command))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! What a node pays its disk: batches with their sync, hot reads, scans. Runs in the temporary directory, which should
//! be on the kind of disk that is of interest: `TMPDIR=… cargo bench -p driftless-benches --bench store`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use driftless_node::replica::store::{Batch, Store};
use driftless_node::store::log::{LogDatabase, LogOptions};

/// Enough that keys are spread, few enough that all are in memory.
const KEYS: u64 = 10_000;

const VALUE_BYTES: usize = 1024;

fn store(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("the temporary directory can be written to");
    let database = LogDatabase::open(folder.path(), LogOptions::default()).expect("an empty directory opens");
    let (mut store, syncer) = (database.store(0), database.syncer());
    let mut written = 0_u64;
    let mut batch_of = |len: u64| {
        let value = Bytes::from(vec![written as u8; VALUE_BYTES]);
        let changes = (0..len).map(|i| (key(written + i), Some(value.clone()))).collect();
        written += len;
        Batch { changes }
    };
    for _ in 0..KEYS / 64 + 1 {
        store.apply(batch_of(64)).expect("there is room");
    }
    syncer.sync().expect("the disk works");

    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    for len in [1, 64] {
        group.throughput(Throughput::Elements(len));
        group.bench_function(format!("batch of {len}, applied"), |bencher| {
            bencher.iter(|| store.apply(batch_of(len)).expect("there is room"));
        });
        group.bench_function(format!("batch of {len}, applied and synced"), |bencher| {
            bencher.iter(|| {
                store.apply(batch_of(len)).expect("there is room");
                syncer.sync().expect("the disk works");
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut read = 0;
    group.bench_function("get, hot", |bencher| {
        bencher.iter(|| {
            read += 1;
            black_box(store.get(&key(read)).expect("the disk works"))
        });
    });
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("scan of 10k keys", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let visit = &mut |_: &[u8], value: Bytes| {
                bytes += value.len();
                ControlFlow::Continue(())
            };
            store.scan(&b"\0"[..]..&b"\xff"[..], visit).expect("the disk works");
            bytes
        });
    });
    group.finish();
}

/// Random order, as hashed keys have.
fn key(i: u64) -> Bytes {
    Bytes::from(format!("{:016x}", (i % KEYS + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

criterion_group!(benches, store);
criterion_main!(benches);

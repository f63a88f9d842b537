//! What anti-entropy costs: keeping a tree, building one, and finding differences among a million keys. Before the
//! timings a table shows bytes and round trips of each exchange, which do not depend on the machine.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use driftless_antientropy::{
    Bits, Build, Digest, ExchangeId, Held, Initiator, InitiatorOutput, LeafMap, Line, Local, Micros, Outcome, Records,
    Report, Responder, ResponderOutput, Settings, Sums, Tree, Unreadable,
};
use driftless_ring::{ArcIndex, PartitionId, Partitions, Token, TokenRange};

const KEYS: u64 = 1_000_000;
const ARC: ArcIndex = ArcIndex(77);

/// One side's keys, in the order of tokens.
struct Replica {
    keys: Vec<(Token, Digest)>,
    tree: Tree,
}

impl Records for Replica {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let first = self.keys.partition_point(|key| key.0 < tokens.first);
        let mut within = self.keys[first..].iter().take_while(|key| key.0 <= tokens.last);
        let _ = within.try_for_each(|key| visit(key.0, key.1));
        Ok(())
    }
}

impl Replica {
    /// A million keys without `missing`; key 0 and every third after it, below `altered`, in another state.
    fn new(altered: u64, missing: impl Fn(u64) -> bool) -> Replica {
        let key = |number: u64| {
            let state = if number < altered && number.is_multiple_of(3) { !number } else { number };
            (Token(77 << 56 | mix(number) as u64 >> 8), Digest(mix(state)))
        };
        let mut keys: Vec<(Token, Digest)> = (0..KEYS).filter(|number| !missing(*number)).map(key).collect();
        keys.sort_unstable_by_key(|key| key.0);
        let tree = tree_of(&keys);
        Replica { keys, tree }
    }

    fn local(&self) -> Local<'_> {
        Local { tree: Some(&self.tree), records: self }
    }
}

/// Spreads numbers over 128 bits (two rounds of splitmix64).
fn mix(number: u64) -> u128 {
    let round = |seed: u64| {
        let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    u128::from(round(round(number) ^ 1)) << 64 | u128::from(round(number))
}

fn map() -> LeafMap {
    LeafMap::new(Partitions::new(256).expect("a power of two"), ARC)
}

fn tree_of(keys: &[(Token, Digest)]) -> Tree {
    let mut tree = Tree::new(map(), Bits::for_keys(keys.len() as u64));
    for &(token, digest) in keys {
        tree.update(token, None, Some(digest));
    }
    tree
}

/// Sums, and the exchange if they differ; repairs are held to be done at once and change nothing. `None`: in sync.
fn exchange(mine: &Replica, theirs: &Replica) -> (usize, Option<Report>) {
    let partition = PartitionId { n: 3, arc: ARC };
    let q = map().partitions();
    let sums = Sums::of(q, &[Line::of(partition, &mine.tree)]).next().expect("one line, one message");
    let unequal = sums.answer(q, |_| Held::Tree(&theirs.tree));
    let round = sums.encoded_len() + unequal.encoded_len();
    if unequal.partitions.is_empty() {
        return (round, None);
    }
    let (settings, mut now) = (Settings::default(), Micros(0));
    let bits = theirs.tree.bits();
    let mut initiator = Initiator::start(now, settings, ExchangeId(1), partition, bits, mine.local()).expect("a tree");
    let mut responder: Option<Responder> = None;
    loop {
        match initiator.poll_output() {
            Some(InitiatorOutput::Send(request)) => match &mut responder {
                Some(responder) => responder.handle_request(now, theirs.local(), request),
                none => *none = Responder::start(now, settings, theirs.local(), request).ok(),
            },
            Some(InitiatorOutput::Repair(differences)) => {
                black_box(differences);
                initiator.resume(now, mine.local());
            }
            Some(InitiatorOutput::Ended(report)) => return (round, Some(report)),
            None => match responder.as_mut().and_then(Responder::poll_output) {
                Some(ResponderOutput::Send(reply)) => initiator.handle_reply(now, mine.local(), reply),
                Some(ResponderOutput::Repair(_)) => responder.iter_mut().for_each(|responder| responder.resume(now)),
                Some(ResponderOutput::Ended) => responder = None,
                None => {
                    now = initiator.poll_timeout().expect("an exchange that has not ended waits for something");
                    initiator.handle_timeout(now, mine.local());
                }
            },
        }
    }
}

#[allow(clippy::print_stdout, reason = "the table is what this bench is for")]
fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    let base = Replica::new(0, |_| false);
    group.bench_function("leaf_update", |b| {
        let mut tree = base.tree.clone();
        let mut at = 0;
        b.iter(|| {
            at = (at + 7_919) % base.keys.len();
            let (token, digest) = base.keys[at];
            tree.update(black_box(token), Some(digest), Some(Digest(digest.0.rotate_left(1))));
        });
    });
    group.sample_size(10);
    group.bench_function("build_1M_keys", |b| {
        b.iter(|| {
            let mut build = Build::new(map(), Bits::for_keys(KEYS));
            while !build.step(black_box(&base), 10_000).expect("readable") {}
            build.finish()
        });
    });
    for bits in [10, 16, 18] {
        let bits = Bits::new(bits).expect("between 6 and 18");
        let mut tree = Tree::new(map(), bits);
        base.keys.iter().for_each(|key| tree.update(key.0, None, Some(key.1)));
        group.bench_function(BenchmarkId::new("inner_layers", bits.leaves()), |b| {
            b.iter_batched(|| (), |()| black_box(&tree).layers(bits), BatchSize::PerIteration);
        });
    }
    let per_key = base.tree.memory() as f64 / KEYS as f64;
    println!("\n1 M keys, 2^{} leaves, {per_key:.2} bytes of memory a key", base.tree.bits().get());
    println!("differences | found | leaves | keys compared |     bytes | round trips");
    for differences in [0, 1, 100, 10_000] {
        let mine = Replica::new(0, |number| number < differences && number % 3 == 1);
        let theirs = Replica::new(differences, |number| number < differences && number % 3 == 2);
        let (round, report) = exchange(&mine, &theirs);
        let empty = Report { outcome: Outcome::Complete, ..Report::default() };
        let Report { outcome, bytes_sent, bytes_received, round_trips, leaves, keys_compared, keys_differing } =
            report.unwrap_or(empty);
        assert_eq!((outcome, keys_differing), (Outcome::Complete, differences));
        let bytes = round as u64 + bytes_sent + bytes_received;
        println!(
            "{differences:11} | {keys_differing:5} | {leaves:6} | {keys_compared:13} | {bytes:9} | {:11}",
            round_trips + 1
        );
        group.bench_function(BenchmarkId::new("exchange_both_sides", differences), |b| {
            b.iter(|| exchange(black_box(&mine), &theirs));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

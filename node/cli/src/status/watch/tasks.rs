//! What is under way: what, where, why, how far, how fast, and for how long still. Rows are as many as nodes, and not as pairs of them.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_client::{Figures, HintsFor};

use super::machine::Watch;
use super::words::{NOTHING, counted, named, rate, span, span_of};
use crate::members::by_name;
use crate::output::{grouped, size};

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Task {
    pub(super) what: &'static str,
    pub(super) who: String,
    pub(super) why: String,
    pub(super) far: String,
    pub(super) rate: String,
    pub(super) left: String,
}

/// All of them, the largest first.
pub(super) fn tasks(watch: &Watch) -> Vec<Task> {
    let mut tasks = moves(watch);
    tasks.extend(deliveries(watch));
    tasks.extend(comparisons(watch));
    tasks.extend(watch.figures().flat_map(|(name, figures)| repairs(name, figures)));
    tasks.extend(scrub(watch));
    tasks
}

fn moves(watch: &Watch) -> Vec<Task> {
    let version = watch.topology().map_or(0, |topology| topology.ring().version().0);
    let why = format!("version {version} of the members");
    let moving = || watch.figures().filter(|(_, figures)| !figures.unfinished.is_empty());
    let taking = moving().filter(|(_, figures)| figures.moving.taken < figures.moving.taking).map(|(name, figures)| {
        let moving = figures.moving;
        let about = u128::from(moving.keys_left) * u128::from(moving.bytes) / u128::from(moving.keys.max(1));
        let left = u64::try_from(about).unwrap_or(u64::MAX);
        let of =
            if left > 0 { format!(" of about {}", size(moving.bytes.saturating_add(left))) } else { String::new() };
        Task {
            what: "takes in partitions",
            who: name.to_owned(),
            why: why.clone(),
            far: format!("{} of {}, {}{of}", moving.taken, moving.taking, size(moving.bytes)),
            rate: if moving.rate > 0 { format!("{}/s", size(moving.rate)) } else { NOTHING.to_owned() },
            left: match left.checked_div(moving.rate) {
                Some(seconds) if left > 0 => span(Duration::from_secs(seconds)),
                _ => NOTHING.to_owned(),
            },
        }
    });
    let mut tasks: Vec<Task> = taking.collect();
    let gives = |figures: &Figures| figures.moving.given < figures.moving.giving;
    let giving: Vec<_> = moving().filter(|(_, figures)| gives(figures)).collect();
    if !giving.is_empty() {
        let sum = |of: fn(&Figures) -> u32| giving.iter().map(|(_, figures)| u64::from(of(figures))).sum::<u64>();
        tasks.push(Task {
            what: "hands over partitions",
            who: named(giving.iter().map(|(name, _)| *name)),
            why,
            far: format!("{} of {}", sum(|one| one.moving.given), sum(|one| one.moving.giving)),
            rate: NOTHING.to_owned(),
            left: NOTHING.to_owned(),
        });
    }
    tasks
}

/// All that is held for the same node together; it is there when the last of them has handed over all.
fn deliveries(watch: &Watch) -> Vec<Task> {
    let mut targets: BTreeMap<&str, Vec<(&str, &HintsFor)>> = BTreeMap::new();
    for (name, figures) in watch.figures() {
        for hints in figures.hints.iter().filter(|hints| hints.keys > 0) {
            targets.entry(&hints.target).or_default().push((name, hints));
        }
    }
    let mut targets: Vec<_> = targets.into_iter().collect();
    targets.sort_by(|(one, _), (other, _)| by_name(one, other));
    let task = |(target, all): (&str, Vec<(&str, &HintsFor)>)| {
        let sum = |of: fn(&HintsFor) -> u64| all.iter().map(|(_, hints)| of(hints)).sum::<u64>();
        let (keys, bytes, delivered) = (sum(|one| one.keys), sum(|one| one.bytes), sum(|one| one.delivered));
        let fast: f64 = all.iter().map(|(_, hints)| hints.rate).sum();
        let longest = all.iter().try_fold(0, |longest: u64, (_, hints)| Some(longest.max(hints.eta_ms?)));
        let is_up = watch.is_up(target);
        let weight = if bytes > 0 { format!(" ({})", size(bytes)) } else { String::new() };
        Task {
            what: if is_up { "hands over hints" } else { "holds hints" },
            who: format!("{} → {target}", named(all.iter().map(|(name, _)| *name))),
            why: format!("{target} {}", if is_up { "was away, or late" } else { "is away: until it is back" }),
            far: format!("{} left{weight}, {} delivered", counted(keys, "key"), grouped(delivered)),
            rate: keys_a_second(fast),
            left: span_of(longest),
        }
    };
    targets.into_iter().map(task).collect()
}

/// How two nodes compare themselves; what either knows counts.
#[derive(Clone, Default)]
struct Pair {
    shared: u64,
    never: u64,
    unequal: u64,
    behind: u64,
    rate: f64,
}

fn comparisons(watch: &Watch) -> Vec<Task> {
    let mut pairs: BTreeMap<(&str, &str), Pair> = BTreeMap::new();
    for (name, figures) in watch.figures() {
        for one in figures.exchanges.iter().filter(|one| watch.is_up(&one.peer)) {
            let key = if by_name(name, &one.peer).is_lt() { (name, &one.peer[..]) } else { (&one.peer[..], name) };
            let pair = pairs.entry(key).or_default();
            pair.shared = pair.shared.max(one.shared);
            pair.never = pair.never.max(one.never);
            pair.unequal = pair.unequal.max(one.unequal);
            pair.behind = pair.behind.max(one.behind);
            pair.rate += one.rate;
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().filter(|(_, pair)| pair.unequal + pair.behind + pair.never > 0).collect();
    pairs.sort_by(|(one, a), (other, b)| {
        b.behind.cmp(&a.behind).then_with(|| by_name(one.0, other.0)).then_with(|| by_name(one.1, other.1))
    });
    let shown = if pairs.len() > PAIRS_MAX + 1 { PAIRS_MAX } else { pairs.len() };
    let mut tasks: Vec<Task> =
        pairs[..shown].iter().map(|((one, other), pair)| comparison(format!("{one} ⇄ {other}"), pair)).collect();
    let more = &pairs[shown..];
    if !more.is_empty() {
        let mut sum = Pair::default();
        for (_, pair) in more {
            sum.shared += pair.shared;
            sum.never += pair.never;
            sum.unequal += pair.unequal;
            sum.behind += pair.behind;
            sum.rate += pair.rate;
        }
        tasks.push(comparison(format!("{} more pairs", more.len()), &sum));
    }
    tasks
}

fn comparison(who: String, pair: &Pair) -> Task {
    let Pair { shared, never, unequal, behind, rate } = *pair;
    Task {
        what: if unequal + behind > 0 { "repairs replicas" } else { "compares replicas" },
        who,
        why: match unequal {
            0 if never > 0 => "not compared since a start".to_owned(),
            0 => "its turn".to_owned(),
            1 => "1 partition differs".to_owned(),
            many => format!("{} partitions differ", grouped(many)),
        },
        far: match behind {
            0 => format!("{} of {} partitions compared", grouped(shared.saturating_sub(never)), grouped(shared)),
            keys => format!("{} or more to repair", counted(keys, "key")),
        },
        rate: keys_a_second(rate),
        left: match Duration::try_from_secs_f64(behind as f64 / rate) {
            Ok(left) if behind > 0 => span(left),
            _ => NOTHING.to_owned(),
        },
    }
}

fn repairs(name: &str, figures: &Figures) -> Vec<Task> {
    let task = |what, why: &str, far| {
        let (rate, left) = (NOTHING.to_owned(), NOTHING.to_owned());
        Task { what, who: name.to_owned(), why: why.to_owned(), far, rate, left }
    };
    let mut tasks = Vec::new();
    if figures.partitions_uncounted > 0 {
        let far = format!("{} left", counted(figures.partitions_uncounted, "partition"));
        tasks.push(task("reads its records", "a start", far));
    }
    if figures.damaged > 0 {
        tasks.push(task("restores records", "they are damaged", format!("{} left", grouped(figures.damaged))));
    }
    tasks
}

/// It reads records again all the time, and is never done.
fn scrub(watch: &Watch) -> Option<Task> {
    let leaves: u64 = watch.figures().map(|(_, figures)| figures.leaves_scrubbed).sum();
    let fast = watch.load.recent(None).leaves_scrubbed;
    (fast > 0.0).then(|| Task {
        what: "scrubs records",
        who: "all".to_owned(),
        why: "all the time".to_owned(),
        far: format!("{} so far", counted(leaves, "piece")),
        rate: format!("{} pieces/s", rate(fast)),
        left: NOTHING.to_owned(),
    })
}

fn keys_a_second(number: f64) -> String {
    if number > 0.0 { format!("{} keys/s", rate(number)) } else { NOTHING.to_owned() }
}

/// Pairs of nodes that have a row of their own.
const PAIRS_MAX: usize = 6;

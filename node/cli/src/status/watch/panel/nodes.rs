//! A line for each member: whether it is up, what it has to do, and what it holds.

use std::time::Duration;

use driftless_client::{ExchangesWith, Figures, NodeStatus};

use crate::output::{Tone, grouped, size};
use crate::status::watch::content::{Cell, Content, Side, Space, Table};
use crate::status::watch::machine::{Node, Said, Watch};
use crate::status::watch::words::{NOTHING, age, offset, rate, short};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    if watch.nodes().is_empty() {
        return Content::sentence("No member is known yet.", space);
    }
    let mut table = Table::new(COLUMNS);
    for node in watch.nodes() {
        table.push(row(watch, node));
    }
    table.content(space)
}

fn row(watch: &Watch, node: &Node) -> Vec<Cell> {
    let load = watch.load.recent(Some(&node.member.name)).all();
    let of_status = |show: &dyn Fn(&NodeStatus) -> Cell| node.status().map_or_else(|| Cell::from(NOTHING), show);
    let of_figures = |show: &dyn Fn(&Figures) -> Cell| node.figures().map_or_else(|| Cell::from(NOTHING), show);
    let counted = |count: Option<u64>, show: fn(u64) -> String| count.map_or("counting".to_owned(), show).into();
    let ago = |ms| format!("{} ago", age(Duration::from_millis(ms)));
    vec![
        node.member.name.as_str().into(),
        state(watch, node),
        of_figures(&|_| rate(load.total()).into()),
        of_figures(&|_| short(load.within(0.5)).into()),
        of_figures(&|_| short(load.within(0.99)).into()),
        of_status(&|status| counted(status.hints, grouped)),
        of_status(&|status| clock(node, status)),
        of_figures(&repair),
        of_figures(&|figures| disk(node, figures)),
        of_figures(&|figures| grouped(figures.under_way).into()),
        of_status(&|status| counted(status.keys, grouped)),
        of_status(&|status| counted(status.bytes, size)),
        of_figures(&|figures| figures.compared_ms.map_or(NOTHING.to_owned(), ago).into()),
        of_status(&|status| {
            let connected = status.peers.iter().filter(|peer| peer.connected).count();
            format!("{connected}/{}", status.peers.len()).into()
        }),
        of_status(&|status| status.version.as_str().into()),
        of_status(&|status| age(Duration::from_millis(status.uptime_ms)).into()),
        node.member.zone.as_str().into(),
        format!("{:.1} %", node.owned_percent).into(),
        match &node.said {
            Said::Silence(silence) => silence.why.as_str().into(),
            Said::Status(_) => "is of an older release, which does not say what it measures".into(),
            Said::NothingYet | Said::Figures(_) => NOTHING.into(),
        },
    ]
}

/// The first ones are what has to be seen on a terminal of 80 columns.
const COLUMNS: [(&str, Side); 19] = [
    ("NODE", Side::Left),
    ("STATE", Side::Left),
    ("REQ/S", Side::Right),
    ("P50", Side::Right),
    ("P99", Side::Right),
    ("HINTS", Side::Right),
    ("CLOCK", Side::Right),
    ("REPAIR", Side::Left),
    ("DISK FREE", Side::Right),
    ("OPEN", Side::Right),
    ("KEYS", Side::Right),
    ("BYTES", Side::Right),
    ("COMPARED", Side::Right),
    ("PEERS", Side::Right),
    ("RELEASE", Side::Left),
    ("UP FOR", Side::Right),
    ("ZONE", Side::Left),
    ("OWNED", Side::Right),
    ("SAYS", Side::Left),
];

fn state(watch: &Watch, node: &Node) -> Cell {
    let state = watch.state(node);
    let conditions = node.status().into_iter().flat_map(|status| &status.conditions);
    let limit = conditions.map(|condition| condition.name.as_str()).find(|name| LIMITS.contains(name));
    let (mut text, tone) = match (state, limit) {
        ("up", None) => (state.to_owned(), Tone::Good),
        ("up", Some(limit)) => (limit.replace('_', " "), Tone::Warning),
        ("asking", _) => (state.to_owned(), Tone::Quiet),
        ("suspect", _) => (state.to_owned(), Tone::Warning),
        _ => (state.to_owned(), Tone::Bad),
    };
    if !node.stays {
        text += ", leaves";
    }
    Cell::toned(text, tone)
}

/// Conditions of a node that answers and does not do all that it should.
const LIMITS: [&str; 6] = ["draining", "stopping", "store_replaced", "refilling", "clock_off", "store_short"];

fn clock(node: &Node, status: &NodeStatus) -> Cell {
    let clock = status.clock_offset_ms.map_or(NOTHING.to_owned(), offset);
    match node.suffers(&["clock_off", "clock_disputed"]) {
        true => Cell::toned(format!("{clock} off"), Tone::Bad),
        false => clock.into(),
    }
}

/// How it stands with those that hold the same: the first that is true.
fn repair(figures: &Figures) -> Cell {
    let sum = |of: fn(&ExchangesWith) -> u64| figures.exchanges.iter().map(of).sum::<u64>();
    let (unequal, never) = (sum(|one| one.unequal), sum(|one| one.never));
    match figures {
        figures if figures.damaged > 0 => Cell::toned(format!("{} damaged", grouped(figures.damaged)), Tone::Bad),
        figures if figures.aae_paused => Cell::toned("paused", Tone::Warning),
        figures if figures.partitions_uncounted > 0 => "counts".into(),
        _ if unequal > 0 => Cell::toned(format!("{} differ", grouped(unequal)), Tone::Warning),
        _ if never > 0 => format!("{} to do", grouped(never)).into(),
        figures if figures.compared_ms.is_some() => "equal".into(),
        _ => NOTHING.into(),
    }
}

fn disk(node: &Node, figures: &Figures) -> Cell {
    let Some(disk) = figures.disk else { return NOTHING.into() };
    let percent = u128::from(disk.free) * 100 / u128::from(disk.total.max(1));
    let text = format!("{} {percent} %", size(disk.free));
    match node.suffers(&["disk_low", "store_short"]) {
        true => Cell::toned(format!("{text} low"), Tone::Bad),
        false => text.into(),
    }
}

//! What reads find and what becomes of writes, of each node and of all, since each has started.

use driftless_client::Figures;

use crate::output::{grouped, size};
use crate::status::watch::content::{Cell, Content, Side, Space, Table};
use crate::status::watch::machine::Watch;
use crate::status::watch::words::{NOTHING, rate};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let mut table = Table::new([
        ("NODE", Side::Left),
        ("SIBLINGS/READ", Side::Right),
        ("DISCARDED", Side::Right),
        ("DISCARDED/S", Side::Right),
        ("BY STAND-INS", Side::Right),
        ("HANDED OVER", Side::Right),
        ("REPAIRED", Side::Right),
        ("STORE", Side::Right),
        ("CLIENTS", Side::Right),
    ]);
    for (name, figures) in watch.figures() {
        table.push(row(watch, name, Some(name), &[figures]));
    }
    let all: Vec<&Figures> = watch.figures().map(|(_, figures)| figures).collect();
    match all.len() {
        0 => return Content::sentence("No node has said yet what it measures.", space),
        1 => {}
        _ => table.push(row(watch, "all", None, &all)),
    }
    table.content(space)
}

fn row(watch: &Watch, title: &str, node: Option<&str>, of: &[&Figures]) -> Vec<Cell> {
    let sum = |count: fn(&Figures) -> u64| of.iter().map(|figures| count(figures)).sum::<u64>();
    let (reads, siblings) = (sum(|one| one.reads_found), sum(|one| one.siblings_read));
    let recent = watch.load.recent(node);
    // What is found now says more than what was found since the start.
    let per_read = recent.siblings_per_read.or((reads > 0).then(|| siblings as f64 / reads as f64));
    vec![
        title.into(),
        per_read.map_or(NOTHING.to_owned(), |number| format!("{number:.2}")).into(),
        grouped(sum(|one| one.writes_discarded)).into(),
        rate(recent.writes_discarded).into(),
        grouped(sum(|one| one.fallback_coordinated)).into(),
        grouped(sum(|one| one.hints_delivered)).into(),
        grouped(sum(|one| one.keys_repaired)).into(),
        size(sum(|one| one.disk.map_or(0, |disk| disk.store))).into(),
        grouped(sum(|one| one.client_connections)).into(),
    ]
}

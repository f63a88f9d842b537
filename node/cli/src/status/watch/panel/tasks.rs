//! What is under way.

use crate::status::watch::content::{Content, Side, Space, Table};
use crate::status::watch::machine::Watch;
use crate::status::watch::tasks::{Task, tasks};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let tasks = tasks(watch);
    if tasks.is_empty() {
        return Content::sentence("Nothing changes hands, no hints wait, and no replicas are known to differ.", space);
    }
    let mut table = Table::new([
        ("WHAT", Side::Left),
        ("WHERE", Side::Left),
        ("LEFT", Side::Right),
        ("RATE", Side::Right),
        ("HOW FAR", Side::Left),
        ("WHY", Side::Left),
    ]);
    for Task { what, who, why, far, rate, left } in tasks {
        table.push(vec![what.into(), who.into(), left.into(), rate.into(), far.into(), why.into()]);
    }
    table.content(space)
}

//! The keys that are asked for most, are large, or have many siblings: of all buckets, or of one.

use ratatui::style::Style;

use crate::output::Tone;
use crate::status::watch::content::{Content, Row, Side, Space, Table, wrapped};
use crate::status::watch::machine::Watch;
use crate::status::watch::words::named;
use crate::top::{self, By, denied, lines};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let (said, not_yet) = watch.keys();
    let Some(topology) = watch.topology() else {
        return Content::sentence("No member is known yet.", space);
    };
    if said.is_empty() {
        return match not_yet.is_empty() {
            true => Content::sentence("No member is known yet.", space),
            false => Content::sentence(&format!("Asking {}.", named(not_yet)), space),
        };
    }
    if let Some(why) = denied(said.values()) {
        return Content::sentence(why, space);
    }
    let top = watch.top();
    let (by, bucket) = (watch.view.by, watch.view.bucket.and_then(|id| topology.bucket(id)));
    let lines = lines(top, topology, by, bucket.map(|bucket| bucket.id), LINES_MAX);
    let mut table = Table::new(COLUMNS);
    for line in &lines {
        table.push(vec![
            line.key.as_str().into(),
            line.requests().into(),
            line.over().into(),
            line.bytes().into(),
            line.siblings().into(),
            line.bucket.as_str().into(),
            line.owners.join(",").into(),
            line.reads().into(),
            line.writes().into(),
            line.partition.as_str().into(),
        ]);
    }
    let quiet = space.look.of(Tone::Quiet);
    let of = bucket.map_or("all buckets".to_owned(), |bucket| format!("bucket {}", bucket.name));
    let choices = [By::Hot, By::Large, By::Siblings]
        .map(|one| if one == by { format!("[{}]", one.word()) } else { one.word().to_owned() });
    // Whoever sees tokens wants to know at once how to see more; the rest is said below.
    let names = if top.watches && !top.names { "   names: keys = true in [top]" } else { "" };
    let choice = format!("t: {}   b: {of}{names}", choices.join(" "));
    let mut content = if lines.is_empty() { Content::default() } else { table.content(space) };
    let mut head: Vec<Row> = wrapped(&choice, space.width, 2, Style::default());
    head.append(&mut content.head);
    content.head = head;
    if top.watches {
        let sentence = if lines.is_empty() { by.nothing().to_owned() } else { by.sentence(top) };
        content.body.extend(wrapped(&sentence, space.width, 0, quiet));
    }
    let answers = said.iter().map(|(name, said)| (name.as_str(), said));
    for remark in top::remarks(answers, top) {
        content.body.extend(wrapped(&remark, space.width, 0, quiet));
    }
    content
}

/// The first ones are what has to be seen on a terminal of 80 columns.
const COLUMNS: [(&str, Side); 10] = [
    ("KEY", Side::Left),
    ("REQ/S", Side::Right),
    ("OVER BY", Side::Right),
    ("BYTES", Side::Right),
    ("SIBLINGS", Side::Right),
    ("BUCKET", Side::Left),
    ("OWNERS", Side::Left),
    ("READS/S", Side::Right),
    ("WRITES/S", Side::Right),
    ("PARTITION", Side::Left),
];

/// Enough to scroll.
const LINES_MAX: usize = 50;

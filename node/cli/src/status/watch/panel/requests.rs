//! What all nodes answer as coordinators, and how it was in the last minutes.

use ratatui::text::Line;

use crate::output::Tone;
use crate::status::watch::content::{Cell, Content, Row, Side, Space, Table};
use crate::status::watch::load::{OPERATIONS, Past, Rate};
use crate::status::watch::machine::Watch;
use crate::status::watch::words::{rate, short};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let recent = watch.load.recent(None);
    let all = recent.all();
    let history: Vec<Option<Past>> = watch.load.history().collect();
    let most = history.iter().flatten().map(|past| past.rate).fold(0.0, f64::max);
    let longest = history.iter().flatten().filter_map(|past| past.p99).max();
    let bars = |label: String, value: &dyn Fn(&Past) -> Option<u64>| Row::Bars {
        label: Line::from(label),
        values: history.iter().map(|past| value(past.as_ref()?)).collect(),
    };
    let mut body = vec![
        bars(format!("{}/s, most {}", rate(all.total()), rate(most)), &|past| Some(past.rate.round() as u64)),
        bars(format!("p99 {}, longest {}", short(all.within(0.99)), short(longest)), &|past| {
            past.p99.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        }),
    ];
    let mut table = Table::new([
        ("OPERATION", Side::Left),
        ("REQ/S", Side::Right),
        ("P50", Side::Right),
        ("P99", Side::Right),
        ("REFUSED/S", Side::Right),
        ("UNKNOWN/S", Side::Right),
    ]);
    for (at, (operation, one)) in OPERATIONS.iter().zip(&recent.operations).enumerate() {
        // Gets and puts have a line always, so that lines stay where they are.
        if at < 2 || one.total() > 0.0 {
            table.push(row(operation, one));
        }
    }
    let table = table.content(space);
    body.extend(table.head.into_iter().chain(table.body));
    Content { head: Vec::new(), body, columns: table.columns }
}

fn row(operation: &str, one: &Rate) -> Vec<Cell> {
    let failed = |number: f64| match number > 0.0 {
        true => Cell::toned(rate(number), Tone::Warning),
        false => rate(number).into(),
    };
    vec![
        operation.into(),
        rate(one.total()).into(),
        short(one.within(0.5)).into(),
        short(one.within(0.99)).into(),
        failed(one.refused),
        failed(one.unknown),
    ]
}

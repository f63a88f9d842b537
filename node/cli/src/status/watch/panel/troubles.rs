//! All that somebody should do something about. What several nodes say of the same stands there once.

use std::time::Duration;

use driftless_client::Severity;
use ratatui::style::Style;

use crate::members::by_name;
use crate::output::Tone;
use crate::status::watch::content::{Content, Space, wrapped};
use crate::status::watch::machine::Watch;
use crate::status::watch::words::{age, named};

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for trouble in watch.troubles() {
        let condition = trouble.condition;
        let same = |group: &&mut Group<'_>| (group.what, group.remedy) == (&condition.what, &condition.remedy);
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.nodes.push(trouble.node);
                group.for_ms = group.for_ms.max(condition.for_ms);
            }
            None => groups.push(Group {
                nodes: vec![trouble.node],
                severity: condition.severity,
                what: &condition.what,
                remedy: &condition.remedy,
                for_ms: condition.for_ms,
            }),
        }
    }
    if groups.is_empty() {
        return Content::sentence("No node says that anything is the matter with it.", space);
    }
    let mut body = Vec::new();
    for Group { mut nodes, severity, what, remedy, for_ms } in groups {
        nodes.sort_by(|one, other| by_name(one, other));
        let (word, tone) = match severity {
            Severity::Critical => ("critical", Tone::Bad),
            Severity::Warning | Severity::Note => ("warning", Tone::Warning),
        };
        let since = age(Duration::from_millis(for_ms));
        let text = format!("{word}: {}: {what} (for {since})", named(nodes));
        body.extend(wrapped(&text, space.width, 2, space.look.of(tone)));
        body.extend(wrapped(&format!("  to do: {remedy}"), space.width, 2, Style::default()));
    }
    Content { body, ..Content::default() }
}

struct Group<'a> {
    nodes: Vec<&'a str>,
    severity: Severity,
    what: &'a String,
    remedy: &'a String,
    for_ms: u64,
}

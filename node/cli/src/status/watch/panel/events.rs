//! What has begun and ended while the view was open, the newest first.

use ratatui::style::Style;

use crate::status::watch::content::{Content, Space, wrapped};
use crate::status::watch::machine::Watch;

pub(super) fn content(watch: &Watch, space: Space) -> Content {
    let mut body = Vec::new();
    for event in watch.news.events() {
        let text = format!("{}  {}", time_of_day(event.at), event.text);
        let style = event.tone.map_or(Style::default(), |tone| space.look.of(tone));
        body.extend(wrapped(&text, space.width, 2, style));
    }
    if body.is_empty() {
        return Content::sentence("Nothing has begun or ended since this was opened.", space);
    }
    Content { body, ..Content::default() }
}

/// `14:03:22Z`, as the logs of nodes have it.
pub(in super::super) fn time_of_day(at: std::time::SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.to_owned())
}

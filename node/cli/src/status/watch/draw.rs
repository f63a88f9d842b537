//! From what is known to the cells of a terminal: a function, and nothing else.
//!
//! ```text
//! whether all is well, and what to do       as many lines as it takes, at most a third
//! the panels, of which one is in front
//! the panel in front, and of the others     the one in front has its room first; who does not fit is turned to
//! as many as fit, in their order
//! keys; cluster, version, time
//! ```

use std::time::Duration;

use driftless_client::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Sparkline};

use super::content::{Columns, Content, Row, Space, lines};
use super::look::Look;
use super::machine::{Room, Scrolled, Watch};
use super::panel::{Panel, time_of_day};
use super::words::age;
use crate::output::Tone;

/// Draws it, and says how much did not fit.
pub(super) fn draw(frame: &mut Frame<'_>, watch: &Watch, now: Duration, look: Look) -> Room {
    let area = frame.area();
    let width = usize::from(area.width);
    let head = head(watch, look, width, usize::from(area.height));
    let [head_rows, body_rows] = {
        let head_rows = rows(head.len()).min(area.height);
        [head_rows, area.height.saturating_sub(head_rows + 2)]
    };
    frame.render_widget(Paragraph::new(head), Rect { height: head_rows, ..area });
    let tabs = Rect { y: area.y + head_rows, height: 1, ..area }.intersection(area);
    frame.render_widget(Paragraph::new(tab_bar(watch, look, width)), tabs);
    let body = Rect { y: area.y + head_rows + 1, height: body_rows, ..area }.intersection(area);
    let room = panels(frame, watch, body, look);
    if area.height > head_rows + 1 {
        let foot = Rect { y: area.bottom() - 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(foot_line(watch, now, look, width)), foot);
    }
    if watch.view.helps {
        help(frame, look);
    }
    room
}

/// One sentence, and what to do.
fn head(watch: &Watch, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let (sentence, tone, more) = match watch.verdict() {
        Some(verdict) => {
            let tone = match verdict.severity {
                None | Some(Severity::Note) => Tone::Good,
                Some(Severity::Warning) => Tone::Warning,
                Some(Severity::Critical) => Tone::Bad,
            };
            let mut sentence = verdict.sentence;
            if verdict.severity.is_none() {
                let mut letters = sentence.chars();
                let first: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
                sentence = format!("All is well: {first}{}", letters.as_str());
            }
            let more = match verdict.more {
                0 => String::new(),
                more => format!(" ({more} more: Tab, To do)"),
            };
            (sentence, tone, verdict.remedy.map(|remedy| format!("To do: {remedy}.{more}")))
        }
        None => (watch.instead_of_verdict(), Tone::Warning, None),
    };
    let mut head: Vec<Line<'static>> = lines(&sentence, width, 0)
        .into_iter()
        .map(|line| Line::styled(line, look.of(tone).add_modifier(Modifier::BOLD)))
        .collect();
    head.extend(more.into_iter().flat_map(|more| lines(&more, width, 0)).map(Line::raw));
    let most = (height / 3).max(1);
    if head.len() > most {
        head.truncate(most);
        // What is cut off stands in the panel.
        head[most - 1].push_span(" …");
        let last = head[most - 1].to_string();
        if Span::raw(last.as_str()).width() > width {
            let style = head[most - 1].style;
            let kept: String = last.chars().take(width.saturating_sub(1)).collect();
            head[most - 1] = Line::styled(format!("{}…", kept.trim_end_matches([' ', '…'])), style);
        }
    }
    head
}

fn tab_bar(watch: &Watch, look: Look, width: usize) -> Line<'static> {
    let front = watch.view.panel;
    let count = watch.troubles().len();
    let title = |panel: Panel| match panel {
        Panel::Troubles if count > 0 => format!("{} ({count})", panel.title()),
        _ => panel.title().to_owned(),
    };
    let mut spans = Vec::new();
    for panel in Panel::ALL {
        match panel == front {
            true => spans.push(Span::styled(format!("[{}]", title(panel)), look.of(Tone::Strong))),
            false => spans.push(Span::styled(format!(" {} ", title(panel)), look.of(Tone::Quiet))),
        }
    }
    let line = Line::from(spans);
    if line.width() <= width {
        return line;
    }
    let at = format!("[{}]", title(front));
    Line::from(vec![
        Span::styled(at, look.of(Tone::Strong)),
        Span::styled(format!(" {} of {}, Tab: next", front.place() + 1, Panel::ALL.len()), look.of(Tone::Quiet)),
    ])
}

/// The panel in front, and as many of the others as there is room for.
fn panels(frame: &mut Frame<'_>, watch: &Watch, area: Rect, look: Look) -> Room {
    let width = usize::from(area.width);
    let front = watch.view.panel;
    let contents = Panel::ALL.map(|panel| {
        let columns_from = watch.view.scrolled[panel.place()].columns;
        (panel, panel.content(watch, Space { width, columns_from, look }))
    });
    let mut left = usize::from(area.height);
    let mut heights = [0; Panel::ALL.len()];
    let in_turn = contents.iter().filter(|(panel, _)| *panel == front);
    let others = contents.iter().filter(|(panel, _)| *panel != front && !panel.is_idle(watch));
    for (panel, content) in in_turn.chain(others) {
        let wanted = TITLE_ROWS + content.height();
        // Less than its title and some lines is worth nothing, unless it is what is looked at.
        let least = if *panel == front { 0 } else { wanted.min(LEAST_ROWS) };
        if left >= least {
            heights[panel.place()] = wanted.min(left);
            left -= heights[panel.place()];
        }
    }
    let mut room = Room::default();
    let mut y = area.y;
    for (panel, content) in &contents {
        let height = rows(heights[panel.place()]);
        if height > 0 {
            let place = Rect { y, height, ..area };
            let is_in_front = *panel == front;
            let drawn =
                draw_panel(frame, *panel, content, watch.view.scrolled[panel.place()].rows, is_in_front, place, look);
            if is_in_front {
                room = drawn;
            }
            y += height;
        }
    }
    room
}

fn draw_panel(
    frame: &mut Frame<'_>,
    panel: Panel,
    content: &Content,
    rows_from: usize,
    is_in_front: bool,
    area: Rect,
    look: Look,
) -> Room {
    let inner = usize::from(area.height).saturating_sub(TITLE_ROWS);
    let head = content.head.len().min(inner);
    let page = inner - head;
    let furthest = content.body.len().saturating_sub(page);
    let from = rows_from.min(furthest);
    let until = (from + page).min(content.body.len());
    let mut title = panel.title().to_owned();
    if furthest > 0 {
        title += &format!(" · lines {}-{until} of {}", from + 1, content.body.len());
    }
    if let Some(Columns { from, shown, all, .. }) = content.columns.filter(|columns| columns.shown < columns.all) {
        title += &format!(" · columns {}-{} of {all} ←→", from + 1, from + shown);
    }
    let width = usize::from(area.width);
    // Which one is in front is to be seen without colours as well.
    let (line, tone) = if is_in_front { ('━', Tone::Strong) } else { ('─', Tone::Quiet) };
    let mut text = format!("{line}{line} {title} ");
    let rest = width.saturating_sub(Span::raw(text.as_str()).width());
    text.extend(std::iter::repeat_n(line, rest));
    frame.render_widget(Paragraph::new(Line::styled(text, look.of(tone))), Rect { height: 1.min(area.height), ..area });
    let seen = content.head[..head].iter().chain(&content.body[from..until]);
    for (at, row) in seen.enumerate() {
        let place = Rect { y: area.y + rows(TITLE_ROWS + at), height: 1, ..area };
        draw_row(frame, row, place);
    }
    let columns = content.columns.map_or(0, |columns| columns.furthest);
    Room { furthest: Scrolled { rows: furthest, columns }, page }
}

fn draw_row(frame: &mut Frame<'_>, row: &Row, area: Rect) {
    match row {
        Row::Text(line) => frame.render_widget(line, area),
        Row::Bars { label, values } => {
            frame.render_widget(label, area);
            let taken = rows(label.width().max(LABEL_CELLS) + 2);
            let bars = Rect { x: area.x.saturating_add(taken), width: area.width.saturating_sub(taken), ..area };
            let cells = usize::from(bars.width);
            let values = &values[values.len().saturating_sub(cells)..];
            let blank = std::iter::repeat_n(None, cells - values.len());
            let data: Vec<Option<u64>> = blank.chain(values.iter().copied()).collect();
            frame.render_widget(Sparkline::default().data(data), bars.intersection(area));
        }
    }
}

fn foot_line(watch: &Watch, now: Duration, look: Look, width: usize) -> Line<'static> {
    let stands = match (watch.view.paused, watch.topology()) {
        (Some(since), _) => format!("PAUSED for {}, p goes on", age(now.saturating_sub(since))),
        (None, Some(topology)) => {
            let version = topology.ring().version().0;
            format!("{} v{version} · {}", topology.cluster(), time_of_day(watch.wall(now)))
        }
        (None, None) => time_of_day(watch.wall(now)),
    };
    let every = match watch.view.paused {
        Some(_) => String::new(),
        None => format!("every {} s · ", watch.every.as_secs_f64()),
    };
    let needed =
        |keys: &str, every: &str| [keys, every, &stands].iter().map(|text| Span::raw(*text).width()).sum::<usize>() + 2;
    let choices = [(KEYS, every.as_str()), (KEYS, ""), ("q quit  ? help", ""), ("q", "")];
    let Some((keys, every)) = choices.into_iter().find(|(keys, every)| needed(keys, every) <= width) else {
        return Line::raw(stands);
    };
    let blank = " ".repeat(width + 2 - needed(keys, every));
    let stands = format!("{every}{stands}");
    let tone = if watch.view.paused.is_some() { Tone::Strong } else { Tone::Quiet };
    Line::from(vec![Span::styled(keys, look.of(Tone::Quiet)), blank.into(), Span::styled(stands, look.of(tone))])
}

fn help(frame: &mut Frame<'_>, look: Look) {
    let area = frame.area();
    let text: Vec<Line<'static>> = HELP.iter().flat_map(|line| lines_of_help(line, usize::from(area.width))).collect();
    let height = rows(text.len()).min(area.height);
    let place = Rect { height, ..area };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).style(look.of(Tone::Strong)), place);
}

fn lines_of_help(line: &str, width: usize) -> Vec<Line<'static>> {
    match line.is_empty() {
        true => vec![Line::raw("─".repeat(width))],
        false => lines(line, width, 2).into_iter().map(Line::raw).collect(),
    }
}

const KEYS: &str = "q quit  p pause  t keys  Tab panel  ↑↓←→ scroll  ? help";

const HELP: &[&str] = &[
    "q, Esc, Ctrl-C: leave",
    "p: pause (nobody is asked), and go on",
    "Tab, Shift-Tab: the next panel, the one before",
    "t: the keys that are asked for most; again, those that are large; again, those with siblings. b: of one bucket, and of the next",
    "Up, Down, PageUp, PageDown, Home, End: scroll the panel whose line is thick",
    "Left, Right: the columns for which there is no room",
    "",
    "REQ/S, P50, P99: what a node answered as coordinator, in the last 10 s. HINTS: keys that it holds for nodes that were away.",
    "CLOCK: by how much it is ahead of the others'. REPAIR: equal, or how many comparisons are to be made or have found a difference.",
    "Bars: one for each interval since this was opened, the newest at the right.",
    "More in docs/operations.md. Any key closes this.",
    "",
];

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The line above a panel.
const TITLE_ROWS: usize = 1;

/// Of a panel that is not in front.
const LEAST_ROWS: usize = 4;

/// So that bars below each other begin in the same place.
const LABEL_CELLS: usize = 26;

//! What a panel has to show, before it is known how much of it fits: rows, and tables of which as many columns are shown as there is room for.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::look::Look;
use crate::output::Tone;

/// How much room there is, and from where on it is filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Of cells.
    pub(super) width: usize,
    /// The columns of a table, behind the first one, that are left out.
    pub(super) columns_from: usize,
    pub(super) look: Look,
}

/// All of a panel.
#[derive(Default)]
pub(super) struct Content {
    /// Stay where they are when the others are scrolled.
    pub(super) head: Vec<Row>,
    pub(super) body: Vec<Row>,
    pub(super) columns: Option<Columns>,
}

/// Which columns are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Columns {
    /// The first one that is, of those behind the column that always is.
    pub(super) from: usize,
    /// How many of them are shown.
    pub(super) shown: usize,
    /// How many there are.
    pub(super) all: usize,
    /// The furthest that they can be scrolled, so that the last one is seen.
    pub(super) furthest: usize,
}

/// One line of cells.
pub(super) enum Row {
    Text(Line<'static>),
    /// A bar for each value, the last one at the right edge; none where nothing was measured.
    Bars {
        label: Line<'static>,
        values: Vec<Option<u64>>,
    },
}

impl Content {
    /// A sentence where there is nothing else.
    pub(super) fn sentence(text: &str, space: Space) -> Content {
        Content { body: wrapped(text, space.width, 0, Style::default()), ..Content::default() }
    }

    pub(super) fn height(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Rows of cells under titles.
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

/// Where a text stands in its column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A text, and what it means if that is worth a colour: what it says it says without.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), tone: None }
    }
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone: Some(tone) }
    }
}

impl Table {
    /// The first column is always shown; the more important one of the others comes first.
    pub(super) fn new(columns: impl IntoIterator<Item = (&'static str, Side)>) -> Table {
        Table { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    /// As much of it as there is room for.
    pub(super) fn content(self, space: Space) -> Content {
        let Space { width, columns_from, look } = space;
        let mut widths: Vec<usize> = self.columns.iter().map(|(title, _)| Span::raw(*title).width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(Span::raw(cell.text.as_str()).width());
            }
        }
        // A long name leaves room for what it stands for.
        widths[0] = widths[0].min(width / 2);
        let room = width.saturating_sub(widths[0]);
        let all = widths.len() - 1;
        let fit = |from: usize| {
            let mut used = 0;
            let fit = widths[1 + from..].iter().take_while(|width| {
                used += GAP + **width;
                used <= room
            });
            // One that fits nowhere is cut off.
            fit.count().max(usize::from(from < all))
        };
        let furthest = (0..=all).find(|from| from + fit(*from) >= all).unwrap_or(0);
        let from = columns_from.min(furthest);
        let shown = fit(from);
        if shown == 1 {
            widths[1 + from] = widths[1 + from].min(room.saturating_sub(GAP));
        }
        let places: Vec<usize> = std::iter::once(0).chain(1 + from..1 + from + shown).collect();
        let line = |cells: &[(&str, Style)]| {
            let mut spans = Vec::new();
            for (at, &place) in places.iter().enumerate() {
                let (text, style) = cells[place];
                let text = cut(text, widths[place]);
                let blank = " ".repeat(widths[place].saturating_sub(Span::raw(text.as_str()).width()));
                let gap = if at == 0 { "" } else { "  " };
                match self.columns[place].1 {
                    Side::Left => spans.extend([gap.into(), Span::styled(text, style), blank.into()]),
                    Side::Right => spans.extend([gap.into(), blank.into(), Span::styled(text, style)]),
                }
            }
            Row::Text(Line::from(spans))
        };
        let titles: Vec<(&str, Style)> = self.columns.iter().map(|(title, _)| (*title, look.of(Tone::Quiet))).collect();
        let style = |cell: &Cell| cell.tone.map(|tone| look.of(tone)).unwrap_or_default();
        let body = self.rows.iter().map(|row| {
            let cells: Vec<(&str, Style)> = row.iter().map(|cell| (cell.text.as_str(), style(cell))).collect();
            line(&cells)
        });
        Content {
            body: body.collect(),
            head: vec![line(&titles)],
            columns: Some(Columns { from, shown, all, furthest }),
        }
    }
}

/// A text in as many rows as it takes, all but the first indented.
pub(super) fn wrapped(text: &str, width: usize, indent: usize, style: Style) -> Vec<Row> {
    lines(text, width, indent).into_iter().map(|line| Row::Text(Line::styled(line, style))).collect()
}

/// The same as texts. A word that is longer than a line is broken.
pub(super) fn lines(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent.min(width / 2));
    // Commands are not broken at their hyphens.
    let options = textwrap::Options::new(width.max(1)).subsequent_indent(&indent);
    let options = options.word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(|line| line.into_owned()).collect()
}

/// As much of a text as fits into so many cells, with a sign if that is not all.
fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    format!("{}…", take(text, width.saturating_sub(1)))
}

/// The beginning of a text that takes no more cells than that, but one character if there is one.
fn take(text: &str, width: usize) -> String {
    let mut part = String::new();
    for c in text.chars() {
        part.push(c);
        if Span::raw(part.as_str()).width() > width {
            if part.chars().count() > 1 {
                part.pop();
            }
            break;
        }
    }
    part
}

/// Cells between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(row: &Row) -> String {
        match row {
            Row::Text(line) => line.to_string().trim_end().to_owned(),
            Row::Bars { .. } => unreachable!("there are none"),
        }
    }

    fn table(width: usize, columns_from: usize) -> (Vec<String>, Columns) {
        let mut table = Table::new([("NODE", Side::Left), ("STATE", Side::Left), ("KEYS", Side::Right)]);
        table.push(vec!["n1".into(), "up".into(), "1,234,567".into()]);
        table.push(vec!["a-node-with-a-long-name".into(), "down".into(), "-".into()]);
        let look = Look { has_colours: false };
        let content = table.content(Space { width, columns_from, look });
        let rows = content.head.iter().chain(&content.body).map(text).collect();
        (rows, content.columns.expect("it is a table"))
    }

    #[test]
    fn columns_that_do_not_fit_can_be_scrolled_to_and_names_stay() {
        let (rows, columns) = table(60, 0);
        assert_eq!(rows[1], "n1                       up     1,234,567");
        assert_eq!((columns.shown, columns.all, columns.furthest), (2, 2, 0));
        let (rows, columns) = table(30, 0);
        assert_eq!(rows, ["NODE             STATE", "n1               up", "a-node-with-a-…  down"]);
        assert_eq!((columns.shown, columns.furthest), (1, 1));
        let (rows, columns) = table(30, 9);
        assert_eq!((rows[1].as_str(), columns.from), ("n1               1,234,567", 1));
        let (rows, _) = table(10, 0);
        assert_eq!(rows[2], "a-no…  do…");
    }

    #[test]
    fn texts_are_wrapped_and_nothing_of_them_is_lost() {
        assert_eq!(lines("one two three", 8, 2), ["one two", "  three"]);
        assert_eq!(lines("abcdefghij k", 4, 0), ["abcd", "efgh", "ij k"]);
        for width in 1..20 {
            let wrapped = lines("größer → 1,234 abcdefghijklmnopqrstuvw", width, 3);
            let joined: String = wrapped.concat().replace(' ', "");
            assert_eq!(joined, "größer→1,234abcdefghijklmnopqrstuvw", "{width}: {wrapped:?}");
            assert!(wrapped.iter().all(|line| line.chars().count() <= width), "{width}: {wrapped:?}");
        }
    }
}

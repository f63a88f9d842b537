//! A story as a sequence diagram in plain text: lanes at the left, what is said at the right.
//!
//! ```text
//!   Ann      A       B
//!    ├──────▶│       │    a message
//!    │       ├────✗  │    one that is lost
//!    │       ├┄┄┄┄┄⋯ │    one that is held up …
//!    │       ├┄┄┄┄┄┄▶│    … and arrives late
//!    │       │◀─────▶│    a conversation of many messages
//!    │       │       ●    something about B
//! ```

use std::collections::BTreeSet;
use std::iter::repeat_n;

use super::story::{Change, Fate, Lane, Step, Story};

/// Draws a story.
pub fn draw(story: &Story) -> String {
    let mut drawing = Drawing::new(story);
    drawing.headline();
    story.steps.iter().for_each(|step| drawing.step(step));
    drawing.out
}

/// Breaks a text into lines of at most so many characters.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

struct Drawing {
    lanes: Vec<Lane>,
    down: BTreeSet<Lane>,
    out: String,
}

impl Drawing {
    fn new(story: &Story) -> Drawing {
        Drawing { lanes: story.lanes(), down: BTreeSet::new(), out: String::new() }
    }

    fn headline(&mut self) {
        let mut row = vec![' '; self.width()];
        for lane in &self.lanes {
            let name: Vec<char> = lane.name().chars().collect();
            let start = self.x(*lane) - name.len() / 2;
            row[start..start + name.len()].copy_from_slice(&name);
        }
        self.push(row, "");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Arrow { from, to, text, fate } => {
                let row = self.arrow(*from, *to, *fate);
                self.line(row, text);
            }
            Step::Note { at, text, change } => {
                match change {
                    Change::Nothing => {}
                    Change::Ends => self.down.extend([*at]),
                    Change::Begins => {
                        self.down.remove(at);
                    }
                }
                let mut row = self.row();
                row[self.x(*at)] = match change {
                    Change::Nothing => '●',
                    Change::Ends => '✗',
                    Change::Begins => '○',
                };
                self.line(row, text);
            }
            Step::Scene(text) => {
                for line in wrapped(text, WIDTH - 8) {
                    let rest = (WIDTH - 8).saturating_sub(line.chars().count());
                    self.out.push_str(&format!("── {line} {}\n", "─".repeat(rest + 3)));
                }
            }
        }
    }

    fn arrow(&self, from: Lane, to: Lane, fate: Fate) -> Vec<char> {
        let mut row = self.row();
        let (start, end) = (self.x(from), self.x(to));
        let right = start < end;
        let (low, high) = (start.min(end), start.max(end));
        let line = if matches!(fate, Fate::Held | Fate::Late) { '┄' } else { '─' };
        row[low + 1..high].fill(line);
        row[start] = if right { '├' } else { '┤' };
        let head = if right { end - 1 } else { end + 1 };
        match fate {
            Fate::Arrives | Fate::Late => row[head] = if right { '▶' } else { '◀' },
            Fate::Exchange => {
                (row[low], row[low + 1], row[high - 1]) = ('│', '◀', '▶');
            }
            Fate::Held | Fate::Lost => {
                row[head] = ' ';
                let before = if right { head - 1 } else { head + 1 };
                row[before] = if fate == Fate::Lost { '✗' } else { '⋯' };
            }
        }
        row
    }

    fn row(&self) -> Vec<char> {
        let mut row = vec![' '; self.width()];
        for lane in &self.lanes {
            row[self.x(*lane)] = if self.down.contains(lane) { ' ' } else { '│' };
        }
        row
    }

    /// A row with its text, and as many more as the text needs.
    fn line(&mut self, row: Vec<char>, text: &str) {
        let mut lines = wrapped(text, WIDTH - self.width() - GAP).into_iter();
        self.push(row, &lines.next().unwrap_or_default());
        for more in lines {
            let row = self.row();
            self.push(row, &format!("  {more}"));
        }
    }

    fn push(&mut self, row: Vec<char>, text: &str) {
        let line: String = row.into_iter().chain(repeat_n(' ', GAP)).chain(text.chars()).collect();
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn x(&self, lane: Lane) -> usize {
        let at = self.lanes.iter().position(|other| *other == lane).expect("all lanes that occur are known");
        MARGIN + at * LANE
    }

    fn width(&self) -> usize {
        MARGIN + self.lanes.len().saturating_sub(1) * LANE + 1
    }
}

/// Columns of a page.
pub const WIDTH: usize = 96;

/// Columns from one lane to the next.
const LANE: usize = 8;

/// Columns before the first lane: half of a name.
const MARGIN: usize = 2;

/// Columns between the last lane and the text.
const GAP: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Lane = Lane::Client(0);
    const A: Lane = Lane::Node(0);
    const B: Lane = Lane::Node(1);

    fn arrow(from: Lane, to: Lane, text: &str, fate: Fate) -> Step {
        Step::Arrow { from, to, text: text.to_owned(), fate }
    }

    fn note(at: Lane, text: &str, change: Change) -> Step {
        Step::Note { at, text: text.to_owned(), change }
    }

    #[test]
    fn every_kind_of_step_has_its_look() {
        let steps = vec![
            arrow(ANN, B, "there", Fate::Arrives),
            arrow(B, ANN, "and back", Fate::Arrives),
            arrow(A, B, "lost", Fate::Lost),
            arrow(B, ANN, "held up", Fate::Held),
            arrow(B, ANN, "arrives late", Fate::Late),
            arrow(A, B, "talk", Fate::Exchange),
            note(A, "a note", Change::Nothing),
            note(A, "dies", Change::Ends),
            arrow(ANN, B, "past a dead one", Fate::Arrives),
            note(A, "is back", Change::Begins),
        ];
        let drawn = draw(&Story { steps, checks: Vec::new() });
        let expected = [
            " Ann      A       B",
            "  ├──────────────▶│   there",
            "  │◀──────────────┤   and back",
            "  │       ├─────✗ │   lost",
            "  │ ⋯┄┄┄┄┄┄┄┄┄┄┄┄┄┤   held up",
            "  │◀┄┄┄┄┄┄┄┄┄┄┄┄┄┄┤   arrives late",
            "  │       │◀─────▶│   talk",
            "  │       ●       │   a note",
            "  │       ✗       │   dies",
            "  ├──────────────▶│   past a dead one",
            "  │       ○       │   is back",
        ];
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn long_texts_go_on_in_the_next_line_beside_the_lanes() {
        let long = "word ".repeat(30);
        let drawn = draw(&Story { steps: vec![arrow(A, B, &long, Fate::Arrives)], checks: Vec::new() });
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("  │       │     word"), "{}", lines[2]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }
}

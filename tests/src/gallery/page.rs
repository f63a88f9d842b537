//! What the scenarios have to say, for terminals and for `docs/anomalies.md`.
//!
//! The page's introduction is written by hand. Everything between a pair of marks is made here from a scenario and its
//! run, so that no diagram and no answer can drift from what the engines do:
//!
//! ```text
//! <!-- gallery: NAME -->
//! … made here …
//! <!-- end of NAME -->
//! ```

use std::fmt::Write as _;

use super::story::Story;
use super::{ALL, Scenario, mermaid, text};

/// A scenario and its run, for a terminal.
pub fn terminal(scenario: &Scenario, story: &Story) -> String {
    let Scenario { name, title, sources, .. } = scenario;
    let mut out = format!("{title} ({name})\n\n");
    paragraph(&mut out, "", scenario.story);
    write!(out, "\n{}\n", text::draw(story)).expect(TAKES_ALL);
    for check in &story.checks {
        let mark = if check.holds { "✓" } else { "✗ NOT SO:" };
        paragraph(&mut out, "", &format!("{mark} {}", check.claim));
    }
    out.push('\n');
    paragraph(&mut out, "Driftless: ", scenario.answer);
    paragraph(&mut out, "Others: ", scenario.others);
    for (title, url) in *sources {
        writeln!(out, "  - {title}: {url}").expect(TAKES_ALL);
    }
    paragraph(&mut out, "What you should do: ", scenario.advice);
    out
}

/// A scenario as a Mermaid diagram.
pub fn mermaid(story: &Story) -> String {
    mermaid::draw(story)
}

/// The page with everything between marks made anew.
///
/// # Errors
/// What is wrong with its marks.
pub fn renewed(page: &str) -> Result<String, String> {
    let mut page = replaced(page, "table", &table())?;
    for scenario in ALL {
        page = replaced(&page, scenario.name, &section(scenario, &scenario.run()))?;
    }
    Ok(page)
}

/// A scenario's part of the page.
fn section(scenario: &Scenario, story: &Story) -> String {
    let mut out = format!("## {}\n\n`{}`\n\n", scenario.title, scenario.name);
    flow(&mut out, scenario.story);
    write!(out, "\n```text\n{}```\n\n", text::draw(story)).expect(TAKES_ALL);
    flow(&mut out, &format!("**Driftless.** {}", scenario.answer));
    out.push('\n');
    flow(&mut out, &format!("**Others.** {}", scenario.others));
    out.push('\n');
    for (title, url) in scenario.sources {
        writeln!(out, "- [{title}]({url})").expect(TAKES_ALL);
    }
    out.push('\n');
    flow(&mut out, &format!("**What you should do.** {}", scenario.advice));
    let bugs: Vec<String> = scenario.broken_by.iter().map(|bug| format!("`{}`", bug.name())).collect();
    if !bugs.is_empty() {
        writeln!(out, "\nIts script notices the planted mistake {}.", bugs.join(", ")).expect(TAKES_ALL);
    }
    out
}

/// One line for each scenario.
fn table() -> String {
    let mut out = String::from("| | sloppy | strict | what to do |\n|---|---|---|---|\n");
    for Scenario { title, sloppy, strict, remedy, .. } in ALL {
        let anchor: String = title
            .to_lowercase()
            .chars()
            .filter_map(|char| match char {
                ' ' => Some('-'),
                char if char.is_alphanumeric() || char == '-' => Some(char),
                _ => None,
            })
            .collect();
        writeln!(out, "| [{title}](#{anchor}) | {sloppy} | {strict} | {remedy} |").expect(TAKES_ALL);
    }
    out
}

fn replaced(page: &str, name: &str, content: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- gallery: {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = page.split_once(&begin).ok_or_else(|| format!("there is no line {}", begin.trim()))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("there is no line {}", end.trim()))?;
    Ok(format!("{before}{begin}{content}{end}{after}"))
}

/// A paragraph of Markdown, in lines of the page's width. Leaves links whole.
fn flow(out: &mut String, text: &str) {
    for line in text::wrapped(text, PAGE_WIDTH) {
        writeln!(out, "{line}").expect(TAKES_ALL);
    }
}

/// A paragraph of plain text.
fn paragraph(out: &mut String, label: &str, text: &str) {
    for line in text::wrapped(&format!("{label}{text}"), text::WIDTH) {
        writeln!(out, "{line}").expect(TAKES_ALL);
    }
}

/// Columns of the other pages in `docs`.
const PAGE_WIDTH: usize = 120;

const TAKES_ALL: &str = "a string takes all that is written";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_marks_is_replaced() {
        let page = "a\n<!-- gallery: x -->\nold\n<!-- end of x -->\nb\n";
        let new = "a\n<!-- gallery: x -->\nnew\n<!-- end of x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").as_deref(), Ok(new));
        assert!(replaced(page, "y", "new\n").is_err());
    }
}

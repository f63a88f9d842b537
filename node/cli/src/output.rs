//! Printing: results to standard output, everything else to standard error; colours only for people.

use std::fmt;
use std::io::{self, IsTerminal, Write};

pub(crate) use driftless_node::jsonl::json_bytes;
use serde_json::Value;

use super::exit::{Failure, Result};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// The bytes of the value and nothing else (`get` only).
    Raw,
}

/// What a piece of text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    /// As hoped.
    Good,
    /// Worth a look.
    Warning,
    /// Not as hoped.
    Bad,
    /// A heading.
    Strong,
    /// Beside the point.
    Quiet,
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl fmt::Display) -> Result {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes bytes to standard output as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Writes a line of JSON to standard output.
pub(crate) fn json_line(value: &Value) -> Result {
    line(value)
}

/// Writes a line to standard error: progress, and what is not the result. Nobody listening is fine.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Reports a failure.
pub(crate) fn error(failure: &Failure, format: Format) {
    match format {
        Format::Json => note(failure.as_json()),
        Format::Text | Format::Raw => note(format_args!("{} {failure}", paint_for(&io::stderr(), Tone::Bad, "error:"))),
    }
}

/// Reports something that does not stop the command.
pub(crate) fn warning(text: impl fmt::Display) {
    note(format_args!("{} {text}", paint_for(&io::stderr(), Tone::Warning, "warning:")));
}

/// Colours text for standard output, if a person looks at it.
pub(crate) fn paint(tone: Tone, text: impl fmt::Display) -> String {
    paint_for(&io::stdout(), tone, text)
}

/// Whether nobody has said that there shall be none.
pub(crate) fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether progress can be drawn.
pub(crate) fn draws_progress() -> bool {
    io::stderr().is_terminal()
}

/// Bytes for people: text, or how many there are.
pub(crate) fn text_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes that are not text; see them with --format json or raw)", bytes.len()),
    }
}

/// A value for people. On a terminal its control characters are shown instead of obeyed: whoever wrote it must not move the
/// cursor, or hide what else is there, of whoever reads it.
pub(crate) fn value_text(value: &[u8]) -> String {
    let text = text_bytes(value);
    if io::stdout().is_terminal() { visible(&text) } else { text }
}

fn visible(text: &str) -> String {
    let is_harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A number with thousands separated.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Of something a second: `1,234`, below ten `1.2`.
pub(crate) fn rate(number: f64) -> String {
    if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { grouped(number.round() as u64) }
}

/// A plain table: columns aligned, no lines drawn.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A table with the words of one column painted, if a person looks at it.
pub(crate) fn tinted(table: &str, column: &str, tone: impl Fn(&str) -> Tone) -> String {
    tinted_by(table, column, |word| paint(tone(word), word))
}

fn tinted_by(table: &str, column: &str, painted: impl Fn(&str) -> String) -> String {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let start = format!(" {header} ").find(&format!(" {} ", column.to_uppercase()));
    let Some(start) = start.map(|start| header[..start].chars().count()) else { return table.to_owned() };
    let rows = lines.map(|line| {
        let Some((start, _)) = line.char_indices().nth(start) else { return line.to_owned() };
        let (before, rest) = line.split_at(start);
        let (word, after) = rest.split_at(rest.find("  ").unwrap_or(rest.len()));
        format!("{before}{}{after}", painted(word))
    });
    std::iter::once(header.to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Text in lines of [`WIDTH`], all of them but the first indented by so many columns.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines
}

/// What a terminal shows unless somebody has made it wider.
pub(crate) const WIDTH: usize = 80;

fn paint_for(stream: &impl IsTerminal, tone: Tone, text: impl fmt::Display) -> String {
    if !wants_colours() || !stream.is_terminal() {
        return text.to_string();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warning => "33",
        Tone::Bad => "31;1",
        Tone::Strong => "1",
        Tone::Quiet => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn written(result: io::Result<()>) -> Result {
    result.map_err(|error| Failure::of_output(&error, "to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_does_not_command_the_terminal_of_its_reader() {
        let nasty = "a\x1b[2Jb\rc\u{9b}31md\x07";
        assert_eq!(visible(nasty), "a\\u{1b}[2Jb\\rc\\u{9b}31md\\u{7}");
        assert_eq!(visible("grüße\n\tund mehr"), "grüße\n\tund mehr");
    }

    #[test]
    fn the_words_of_one_column_are_painted() {
        let rows = [["n1", "up", "zone up"], ["n2", "down", "-"]];
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        let painted = tinted_by(&table(&["node", "state", "zone"], rows), "state", |word| format!("<{word}>"));
        assert_eq!(painted, "NODE  STATE  ZONE\nn1    <up>     zone up\nn2    <down>   -");
        assert_eq!(tinted_by("A  B", "c", |_| unreachable!("there is no such column")), "A  B");
    }

    #[test]
    fn text_is_wrapped_at_the_width_of_a_terminal() {
        let text = "word ".repeat(40);
        let lines = format!("   {}", wrapped(text.trim_end(), 3));
        assert!(lines.lines().count() == 3 && lines.lines().all(|line| line.starts_with("   word")), "{lines}");
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH), "{lines}");
        let long = "x".repeat(100);
        assert_eq!(wrapped(&format!("a {long} b"), 2), format!("a\n  {long}\n  b"), "a long word stays one");
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(5_287), "5,287");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}

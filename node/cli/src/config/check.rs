//! `driftless config check`: all mistakes of some files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use driftless_node::config::{FileKind, NodeConfig, check, read_file};
use serde_json::json;

use crate::exit::{Exit, Result};
use crate::output::{self, Format, Tone, paint};
use crate::serve::log;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What they are for, if that is not seen by what stands in them
    #[arg(long = "as", value_name = "KIND", value_parser = kind_parser())]
    kind: Option<String>,
}

fn kind_parser() -> clap::builder::PossibleValuesParser {
    FileKind::ALL.map(FileKind::word).into()
}

/// A file, and what is wrong with it. It has no kind if it cannot be read.
struct Checked<'a> {
    path: &'a Path,
    kind: Option<FileKind>,
    problems: Vec<String>,
}

/// Checks each.
pub(super) fn run(args: &Args, format: Format) -> Result<ExitCode> {
    let kind = FileKind::ALL.into_iter().find(|kind| args.kind.as_deref() == Some(kind.word()));
    let checked: Vec<Checked<'_>> = args.files.iter().map(|path| checked(path, kind)).collect();
    let wrong = checked.iter().filter(|file| !file.problems.is_empty()).count();
    if format == Format::Json {
        let files = checked.iter().map(|file| {
            json!({ "file": file.path.display().to_string(), "kind": file.kind.map(FileKind::word), "problems": file.problems })
        });
        output::json_line(&json!({ "files": files.collect::<Vec<_>>(), "ok": wrong == 0 }))?;
    } else {
        for file in &checked {
            output::line(as_text(file))?;
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

fn checked(path: &Path, kind: Option<FileKind>) -> Checked<'_> {
    let text = match read_file(path) {
        Ok(text) => text,
        Err(error) => return Checked { path, kind: None, problems: vec![error.to_string()] },
    };
    let is_guessed = kind.is_none();
    let kind = kind.unwrap_or_else(|| FileKind::of(path, &text));
    let mut problems = check(kind, path, &text);
    if is_guessed {
        problems = problems.iter().map(|problem| without_source(problem)).collect();
    }
    if kind == FileKind::Node
        && let Some(config) = NodeConfig::gather(path, &text, [], &[]).0
    {
        problems.extend(log::filter(&config.log.level).err().map(|failure| failure.message().to_owned()));
    }
    Checked { path, kind: Some(kind), problems }
}

/// What is taken for another kind of file may be a key. The line stands before, by its number.
fn without_source(problem: &str) -> String {
    let is_source =
        |line: &&str| line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).starts_with([' ', '|']);
    let is_shown = |line: &&str| !(is_source(line) && line.contains('|'));
    problem.lines().filter(is_shown).collect::<Vec<_>>().join("\n")
}

fn as_text(file: &Checked<'_>) -> String {
    let kind = file.kind.map_or_else(String::new, |kind| format!(", as {}", kind.words()));
    let path = file.path.display();
    let verdict = match file.problems.len() {
        0 => return format!("{path}{kind}: {}", paint(Tone::Good, "ok")),
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let problems = file.problems.iter().map(|problem| format!("\n  {}", problem.trim_end().replace('\n', "\n    ")));
    format!("{path}{kind}: {}{}", paint(Tone::Bad, verdict), problems.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_shown_of_a_file_whose_kind_is_a_guess() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("secret");
        for text in ["  1 c0ffee\n", "\u{feff}1 c0ffee\n", "id hex\n1 c0ffee\n", "# keys\n\nk1 = c0ffee\n"] {
            std::fs::write(&path, text).expect("writes");
            let shown = as_text(&checked(&path, None));
            assert!(shown.contains("mistake") && !shown.contains("c0ffee") && !shown.contains("id hex"), "{shown}");
        }
        let shown = as_text(&checked(&path, Some(FileKind::Node)));
        assert!(shown.contains("k1 = c0ffee"), "who says what it is sees where: {shown}");
    }
}

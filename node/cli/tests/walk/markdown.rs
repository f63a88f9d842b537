//! What of a page of Markdown is code, and what of that is a shell's.

#![allow(dead_code, reason = "each crate that has it uses a part of it")]

use std::path::PathBuf;

/// A fenced block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// What stands behind the fence: `sh`, `console`, `toml`, ….
    pub(crate) language: String,
    /// The heading that it stands under.
    pub(crate) heading: String,
    pub(crate) lines: Vec<String>,
}

/// A command of a `console` block and what is shown below it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
}

impl Block {
    /// The commands behind `$ `. What stands before the first one has none.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = Vec::new();
        for line in &self.lines {
            match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => all.push(Shown { command: command.to_owned(), output: Vec::new() }),
                (None, Some(shown)) => shown.output.push(line.clone()),
                (None, None) => all.push(Shown { command: String::new(), output: vec![line.clone()] }),
            }
        }
        all
    }

    /// The lines of a shell: of a `console` block those behind `$ `, of a `sh` block all, without comments.
    pub(crate) fn commands(&self) -> Vec<String> {
        match self.language.as_str() {
            "console" => self.shown().into_iter().map(|shown| shown.command).filter(|line| !line.is_empty()).collect(),
            "sh" => {
                let text = self.lines.join("\n").replace("\\\n", " ");
                text.lines().map(|line| uncommented(line).to_owned()).filter(|line| !line.is_empty()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The text of a page, by its path in the repository.
pub(crate) fn page(path: &str) -> String {
    let file = repository().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{} can be read: {error}", file.display()))
}

/// Where the repository is.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// All blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut all = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    let mut heading = String::new();
    for line in page.lines() {
        let indent = line.len() - line.trim_start().len();
        let fence = line.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, Some(language)) => {
                let language = language.to_owned();
                Some((indent, Block { language, heading: heading.clone(), lines: Vec::new() }))
            }
            (Some((_, block)), Some(_)) => {
                all.push(block);
                None
            }
            (Some((indent, mut block)), None) => {
                block.lines.push(line.get(indent..).unwrap_or_default().to_owned());
                Some((indent, block))
            }
            (None, None) => {
                if line.starts_with('#') {
                    heading = line.trim_start_matches('#').trim().to_owned();
                }
                None
            }
        };
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    all
}

/// What stands between backticks in a page's prose.
pub(crate) fn spans(page: &str) -> Vec<String> {
    let mut inside = false;
    let prose = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn uncommented(line: &str) -> &str {
    if line.starts_with('#') { "" } else { line.split_once(" #").map_or(line, |(command, _)| command).trim_end() }
}

#[test]
fn blocks_spans_and_commands_are_found() {
    let page = "# One `a`\n\n```sh\nx \\\n  y  # why\n```\n\n1. `b c`\n\n   ```console\n   $ y\n   out\n     in\n   $ z\n   ```\n";
    let found = blocks(page);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].heading.as_str(), found[0].commands()), ("One `a`", vec!["x    y".to_owned()]));
    assert_eq!(found[1].commands(), ["y", "z"]);
    assert_eq!(found[1].shown()[0].output, ["out", "  in"]);
    assert_eq!(spans(page), ["a", "b c"]);
}

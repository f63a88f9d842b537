//! Whether the command lines that the pages show are understood: every flag, subcommand and combination of them.
//!
//! That they also print what is shown is tested by `tests/walk`, which runs them.

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

mod links;
#[path = "../tests/walk/markdown.rs"]
mod markdown;

use markdown::{blocks, page, repository, spans};

/// Every page of the repository.
fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(repository().join("docs")).expect("is there");
    let mut pages: Vec<String> = docs
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("is text"))
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.extend(["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(str::to_owned));
    pages.sort();
    pages
}

/// The commands of a shell's line that are `driftless`, each as words. `aliases` are what `alias d='driftless …'` has defined.
fn commands(line: &str, aliases: &mut Vec<(String, String)>) -> Vec<Vec<String>> {
    if let Some((name, meaning)) = line.strip_prefix("alias ").and_then(|alias| alias.split_once('=')) {
        aliases.push((name.to_owned(), meaning.trim_matches('\'').to_owned()));
        return Vec::new();
    }
    let mut found = Vec::new();
    for command in simple_commands(line) {
        let mut words: Vec<String> = command;
        if let Some((_, meaning)) = aliases.iter().find(|(name, _)| words.first() == Some(name)) {
            words.splice(..1, meaning.split(' ').map(str::to_owned));
        }
        let is_binary = |word: &String| word == "driftless" || word.ends_with("/driftless");
        // Behind `cargo run … --bin driftless --`, `runuser -u driftless --` and the like stands what is run.
        let begin = match words.iter().position(|word| word == "--") {
            Some(dashes) if words[..dashes].iter().any(is_binary) && !is_binary(&words[0]) => {
                let rest = &words[dashes + 1..];
                if rest.first().is_some_and(is_binary) { dashes + 2 } else { dashes + 1 }
            }
            _ if words.first().is_some_and(is_binary) => 1,
            _ => continue,
        };
        found.push(words[begin..].to_vec());
    }
    found
}

/// The commands of a line with `;`, `&&`, `|` and the like between them, as words, quotes taken off.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    // A blank at the end ends the last word.
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | ';' | '|' | '&' | '>') => {
                let commands = all.last_mut().expect("there is one from the start on");
                if !word.is_empty() {
                    commands.push(std::mem::take(&mut word));
                }
                if c == '>' {
                    commands.push(">".to_owned());
                } else if c != ' ' {
                    all.push(Vec::new());
                }
            }
            _ => word.push(c),
        }
    }
    for command in &mut all {
        while command.first().is_some_and(|word| KEYWORDS.contains(&word.as_str())) {
            command.remove(0);
        }
        // What goes into a file is no argument.
        if let Some(into) = command.iter().position(|word| word == ">") {
            command.truncate(into);
        }
    }
    all.retain(|command| !command.is_empty());
    all
}

/// What may stand before a command.
const KEYWORDS: [&str; 8] = ["do", "then", "until", "while", "if", "!", "sudo", "else"];

fn parse(words: &[String]) -> Result<(), clap::Error> {
    let given = words.iter().map(|word| if PLACEHOLDERS.contains(&word.as_str()) { CONTEXT } else { word.as_str() });
    Cli::try_parse_from(std::iter::once("driftless").chain(given)).map(drop)
}

/// What the pages write for a context token, which has to be one.
const PLACEHOLDERS: [&str; 2] = ["TOKEN", "STALE"];
const CONTEXT: &str = "AQEBwoObxNWcyZbUAQKBgLSb0Pj90AGLcqhTnT1YVfV3ZfSTHabk";

#[test]
fn every_documented_command_line_is_understood() {
    let mut count = 0;
    for name in pages() {
        let text = page(&name);
        let mut aliases = Vec::new();
        for line in blocks(&text).iter().flat_map(|block| block.commands()) {
            for words in commands(&line, &mut aliases) {
                count += 1;
                let parsed = parse(&words);
                assert!(parsed.is_ok(), "{name}: {line}\n{}", parsed.expect_err("has just been looked at"));
            }
        }
    }
    assert!(count > 50, "only {count} were found");
}

/// In prose a command may lack what it is given, as in `driftless get`, and values are named as alternatives.
#[test]
fn every_command_line_named_in_prose_is_understood() {
    let mut count = 0;
    for name in pages() {
        for span in spans(&page(&name)).iter().filter(|span| span.starts_with("driftless ")) {
            let alternatives = span.split(' ').map(|word| word.split_once('|').map_or(word, |(first, _)| first));
            let words: Vec<String> = alternatives.skip(1).map(str::to_owned).collect();
            count += 1;
            if let Err(error) = parse(&words) {
                let incomplete =
                    [ErrorKind::MissingRequiredArgument, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
                assert!(incomplete.contains(&error.kind()), "{name}: {span}\n{error}");
            }
        }
    }
    assert!(count > 20, "only {count} were found");
}

/// Pages of `docs/` by themselves; those above it by a page of `docs/book` that includes them.
#[test]
fn the_book_has_every_page() {
    let summary = page("docs/SUMMARY.md");
    let included = std::fs::read_dir(repository().join("docs/book")).expect("is there");
    let included: Vec<(String, String)> = included
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("is text"))
        .filter(|name| name.ends_with(".md"))
        .map(|name| (page(&format!("docs/book/{name}")), format!("book/{name}")))
        .collect();
    for name in pages().into_iter().filter(|name| name != "docs/SUMMARY.md") {
        let place = match name.strip_prefix("docs/") {
            Some(own) => own.to_owned(),
            None => {
                let found = included.iter().find(|(text, _)| text.contains(&format!("#include ../../{name}}}")));
                found.unwrap_or_else(|| panic!("no page of docs/book includes {name}")).1.clone()
            }
        };
        assert!(summary.contains(&format!("]({place})")), "docs/SUMMARY.md does not name {place}");
    }
    // Where the book has such a page, links of others are turned to by a preprocessor.
    let turned = page("docs/book/links.py");
    for (text, place) in included {
        let file = text.trim().strip_prefix("{{#include ../../").and_then(|rest| rest.strip_suffix("}}"));
        let file = file.unwrap_or_else(|| panic!("docs/{place} includes no file of the repository"));
        let line = format!("\"{file}\": \"docs/{place}\"");
        assert!(turned.contains(&line), "docs/book/links.py lacks {line}");
    }
}

#[test]
fn commands_are_found_in_what_shells_are_told() {
    let mut aliases = Vec::new();
    let mut all = |line: &str| commands(line, &mut aliases).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(all("cargo run --bin driftless -- demo"), ["demo"]);
    assert_eq!(all("runuser -u driftless -- driftless serve --config F &"), ["serve --config F"]);
    assert_eq!(all("for n in 1; do x; driftless status --check || exit 1; done"), ["status --check"]);
    assert_eq!(all("install driftless /usr/bin/driftless"), Vec::<String>::new());
    assert_eq!(all("driftless put t -- -5; until driftless get t; do true; done"), ["put t -- -5", "get t"]);
    assert_eq!(all("alias d='driftless --profile D'"), Vec::<String>::new());
    assert_eq!(all("d put k \"a b\" > file"), ["--profile D put k a b"]);
}

//! `driftless config explain`: what each key of a node's file is for.

use std::path::PathBuf;

use driftless_node::config::{KNOBS, Knob, NodeConfig, SECTIONS, Source, nearest};
use serde_json::{Value, json};

use crate::exit::{Failure, Result};
use crate::output::{self, Format, Tone, paint, wrapped};
use crate::serve::environment;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The key, as limits.requests_max, or a section
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Also say what counts for the node of this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Explains one key, or lists all of a section, or all.
pub(super) fn run(args: &Args, format: Format) -> Result {
    let config = args.config.as_ref().map(|path| NodeConfig::read(path, environment(), &[])).transpose()?;
    let config = config.as_ref();
    let (knobs, is_list) = match &args.key {
        None => (KNOBS.iter().collect(), true),
        Some(key) => match Knob::named(key) {
            Some(knob) => (vec![knob], false),
            None => (of_section(key).ok_or_else(|| unknown(key))?, true),
        },
    };
    match (format, is_list) {
        (Format::Json, false) => output::json_line(&as_json(knobs[0], config)),
        (Format::Json, true) => knobs.iter().try_for_each(|knob| output::json_line(&as_json(knob, config))),
        (_, false) => output::line(explained(knobs[0], config)),
        (_, true) => output::line(listed(&knobs, config)),
    }
}

fn of_section(name: &str) -> Option<Vec<&'static Knob>> {
    let name = name.trim_matches(['[', ']']);
    SECTIONS.contains(&name).then(|| KNOBS.iter().filter(|knob| knob.place().0 == Some(name)).collect())
}

fn unknown(key: &str) -> Failure {
    let failure = Failure::usage(format_args!("node.toml has no key \"{key}\""));
    // People write the name without its section, and with another one.
    let name = key.rsplit_once('.').map_or(key, |(_, name)| name);
    let mut near: Vec<&str> = KNOBS.iter().filter(|knob| knob.place().1 == name).map(|knob| knob.key).collect();
    near.extend(nearest(key, KNOBS.iter().map(|knob| knob.key).chain(SECTIONS)));
    let by_name = nearest(name, KNOBS.iter().map(|knob| knob.place().1));
    near.extend(
        by_name.iter().flat_map(|name| KNOBS.iter().filter(|knob| knob.place().1 == *name)).map(|knob| knob.key),
    );
    let mut said: Vec<&str> = Vec::new();
    for key in near {
        if !said.contains(&key) && said.len() < NEAREST_MAX {
            said.push(key);
        }
    }
    if said.is_empty() {
        return failure.hint(
            "`driftless config explain` lists those that exist; cluster.toml is explained in docs/configuration.md",
        );
    }
    failure.hint(format_args!("did you mean {}?", said.join(", or ")))
}

fn explained(knob: &Knob, config: Option<&NodeConfig>) -> String {
    let mut rows = vec![
        ("type", knob.kind.words().to_owned()),
        ("default", default(knob)),
        ("change", knob.takes.words().to_owned()),
    ];
    if let Some(config) = config {
        let (value, source) = config.setting(knob);
        rows.push(("value", format!("{}, from {}", shown(value), source_words(source, config))));
    }
    rows.push(("set by", set_by(knob)));
    let rows = rows.iter().map(|(name, text)| format!("  {name:INDENT$}{}\n", wrapped(text, INDENT + 2)));
    let meaning = wrapped(&plain(knob.meaning), 2);
    format!("{}\n  {meaning}\n\n{}", paint(Tone::Strong, knob.key), rows.collect::<String>().trim_end())
}

fn set_by(knob: &Knob) -> String {
    let place = match knob.place() {
        (Some(section), name) => format!("{name} in [{section}]"),
        (None, name) => format!("{name} at the top"),
    };
    format!("{place} of node.toml, {}, --set {}=…", knob.variable(), knob.key)
}

fn listed(knobs: &[&Knob], config: Option<&NodeConfig>) -> String {
    let rows = knobs.iter().map(|knob| {
        let mut row = vec![knob.key.to_owned()];
        match config {
            None => row.push(default(knob)),
            Some(config) => {
                let (value, source) = config.setting(knob);
                row.extend([shown(value), source_words(source, config)]);
            }
        }
        row.extend([knob.takes.word().to_owned(), knob.about.to_owned()]);
        row
    });
    let header: &[&str] = match config {
        None => &["key", "default", "change", "meaning"],
        Some(_) => &["key", "value", "from", "change", "meaning"],
    };
    let table = output::table(header, rows.collect());
    format!("{table}\n\n{}", wrapped(LEGEND, 0))
}

const LEGEND: &str = "change: SIGHUP = a running node takes it on SIGHUP; restart = at its next start; file = what the file holds, by itself; \
                      joining = until the node has joined; never = it is another node then. More of one: driftless config explain KEY";

fn as_json(knob: &Knob, config: Option<&NodeConfig>) -> Value {
    let setting = config.map(|config| (config.setting(knob), config));
    json!({
        "key": knob.key,
        "meaning": plain(knob.meaning),
        "type": knob.kind.words(),
        "default": Some(knob.default()).filter(|default| !default.is_empty()),
        "required": knob.is_required(),
        "change": knob.takes.word(),
        "change_means": knob.takes.words(),
        "variable": knob.variable(),
        "value": setting.map(|((value, _), _)| value).filter(|value| !value.is_empty()),
        "source": setting.map(|((_, source), config)| source_words(source, config)),
    })
}

fn default(knob: &Knob) -> String {
    if knob.is_required() { "required".to_owned() } else { shown(&knob.default()) }
}

fn shown(value: &str) -> String {
    if value.is_empty() { "none".to_owned() } else { value.to_owned() }
}

fn source_words(source: &Source, config: &NodeConfig) -> String {
    match source {
        Source::File(_) => config.path().display().to_string(),
        Source::Default | Source::Environment(_) | Source::Flag(_) => source.to_string(),
    }
}

/// Without what makes sense on a page only: emphasis, and links, which become the name of the page.
fn plain(meaning: &str) -> String {
    let mut text = String::new();
    let mut rest = meaning;
    while let Some((before, link)) = rest.split_once('[') {
        let parts = link.split_once("](").and_then(|(words, rest)| Some((words, rest.split_once(')')?)));
        let Some((words, (target, after))) = parts.filter(|(words, _)| !words.contains('[')) else {
            text += before;
            text.push('[');
            rest = link;
            continue;
        };
        let page = if target.starts_with('#') { "docs/configuration.md" } else { "docs/" };
        text += &format!("{before}{words} ({page}{target})");
        rest = after;
    }
    text += rest;
    text.replace("*s*", "s")
}

/// Of the names that are offered for one that does not exist.
const NEAREST_MAX: usize = 3;

/// The width of the names of what is told of a key.
const INDENT: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_the_names_of_pages() {
        assert_eq!(plain("see the [warning](operations.md#copies)."), "see the warning (docs/operations.md#copies).");
        assert_eq!(plain("The [file](#a) of `[store]` *s*"), "The file (docs/configuration.md#a) of `[store]` s");
        for knob in KNOBS {
            assert!(!plain(knob.meaning).contains("]("), "{}", plain(knob.meaning));
        }
    }

    #[test]
    fn who_misremembers_a_key_is_told_the_nearest() {
        let hint = |key| unknown(key).to_string();
        assert!(hint("request_max").contains("limits.requests_max"), "{}", hint("request_max"));
        assert!(hint("store.memory").contains("did you mean limits.memory"), "{}", hint("store.memory"));
        assert!(hint("limits.retry_afer").contains("did you mean limits.retry_after"), "{}", hint("limits.retry_afer"));
        assert!(hint("xyzzy").contains("lists those that exist"), "{}", hint("xyzzy"));
    }

    #[test]
    fn every_key_is_explained_within_the_width_of_a_terminal() {
        for knob in KNOBS {
            let text = explained(knob, None);
            let is_wide = |line: &str| line.chars().count() > output::WIDTH && line.trim().contains(' ');
            assert!(!text.lines().any(is_wide), "{text}");
            assert!(text.contains(&knob.variable()), "{text}");
        }
        assert_eq!(of_section("log").expect("is a section").len(), 4);
    }
}

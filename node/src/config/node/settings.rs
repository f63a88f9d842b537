//! What stands for each key, and the place that it came from: of the four places the last one that says something.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::super::error::{ConfigError, closest};
use super::super::knobs::{KNOBS, Knob, PREFIX, SECTIONS};
use super::super::table::parse;

/// Of every key its value, as a file would say it, and its source.
#[derive(Clone, Default, Debug)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

#[derive(Clone, Debug)]
struct Setting {
    value: String,
    source: Source,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The node's file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(String),
}

/// A flag that overrides a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// The key, as `limits.requests_max`.
    pub key: String,
    /// Its new value.
    pub value: String,
    /// The flag as the person knows it, as `--listen`.
    pub flag: String,
}

impl Settings {
    /// From all four places, and what cannot stand for any key.
    pub(super) fn gather(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[Override],
    ) -> (Settings, Vec<ConfigError>) {
        let default = |knob: &Knob| (knob.key, Setting { value: knob.default(), source: Source::Default });
        let (mut settings, mut problems) = (Settings(KNOBS.iter().map(default).collect()), Vec::new());
        settings.apply_file(&mut problems, path, text);
        settings.apply_environment(&mut problems, environment);
        settings.apply_flags(&mut problems, overrides);
        (settings, problems)
    }

    /// The value stands for the key as if nobody had said anything.
    pub(super) fn set_default(&mut self, knob: &Knob, value: String) {
        self.0.insert(knob.key, Setting { value, source: Source::Default });
    }

    /// What the other has of a key stands here as well.
    pub(super) fn take(&mut self, knob: &Knob, other: &Settings) {
        self.0.insert(knob.key, other.0[knob.key].clone());
    }

    /// Of a key that there is.
    pub(super) fn value(&self, key: &str) -> &str {
        &self.0[key].value
    }

    /// Of a key that there is.
    pub(super) fn source(&self, key: &str) -> &Source {
        &self.0[key].source
    }

    fn apply_file(&mut self, problems: &mut Vec<ConfigError>, path: &Path, text: &str) {
        let source = Source::File(path.to_owned());
        let table = match parse(path, text) {
            Ok(table) => table,
            Err(problem) => return problems.push(problem),
        };
        for (name, value) in table {
            match value {
                Value::Table(table) if is_section(&name) => {
                    for (inner, value) in table {
                        problems.extend(self.set(&format!("{name}.{inner}"), value, &source).err());
                    }
                }
                value => problems.extend(self.set(&name, value, &source).err()),
            }
        }
    }

    fn set(&mut self, key: &str, value: Value, source: &Source) -> Result<(), ConfigError> {
        let Some(knob) = Knob::named(key) else {
            let candidates = KNOBS.iter().map(|knob| knob.key).chain(SECTIONS);
            let closest = closest(key, candidates);
            return Err(ConfigError::UnknownKey { key: key.to_owned(), place: source.to_string(), closest });
        };
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Boolean(on) => on.to_string(),
            other => {
                return Err(ConfigError::BadValue {
                    key: key.to_owned(),
                    value: other.to_string(),
                    place: source.to_string(),
                    expected: "a text in quotes or a whole number".to_owned(),
                });
            }
        };
        self.0.insert(knob.key, Setting { value: text, source: source.clone() });
        Ok(())
    }

    fn apply_environment(
        &mut self,
        problems: &mut Vec<ConfigError>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) {
        let unknown = |key, closest| ConfigError::UnknownKey { key, place: "the environment".to_owned(), closest };
        for (variable, value) in environment {
            if !variable.starts_with(PREFIX) {
                let meant = KNOBS.iter().find(|knob| single_underscored(knob.key) == variable);
                problems.extend(meant.map(|knob| unknown(variable, Some(knob.variable()))));
                continue;
            }
            match KNOBS.iter().find(|knob| knob.variable() == variable) {
                Some(knob) => {
                    self.0.insert(knob.key, Setting { value, source: Source::Environment(variable) });
                }
                None => {
                    let known: Vec<String> = KNOBS.iter().map(Knob::variable).collect();
                    let closest = closest(&variable, known.iter().map(String::as_str));
                    problems.push(unknown(variable, closest));
                }
            }
        }
    }

    fn apply_flags(&mut self, problems: &mut Vec<ConfigError>, overrides: &[Override]) {
        for change in overrides {
            match Knob::named(&change.key) {
                Some(knob) => {
                    let source = Source::Flag(change.flag.clone());
                    self.0.insert(knob.key, Setting { value: change.value.clone(), source });
                }
                None => problems.push(ConfigError::UnknownKey {
                    key: change.key.clone(),
                    place: format!("the flag {}", change.flag),
                    closest: closest(&change.key, KNOBS.iter().map(|knob| knob.key)),
                }),
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(variable) => write!(f, "environment {variable}"),
            Source::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// What somebody writes who does not know of the second underscore.
fn single_underscored(key: &str) -> String {
    format!("DRIFTLESS_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn is_section(name: &str) -> bool {
    SECTIONS.contains(&name)
}

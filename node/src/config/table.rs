//! A table of a TOML file that is read key by key and then asked what was left over: unknown keys are errors.

use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, closest};

/// One table of a file and what has been asked of it.
pub(super) struct Section<'a> {
    path: &'a Path,
    /// Where in the file, for messages: empty for the top, else `member 2` and the like.
    name: String,
    table: Table,
    known: Vec<&'static str>,
}

/// Reads the text of a whole TOML file; the path is for messages.
pub(super) fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })
}

impl<'a> Section<'a> {
    /// The top of a file.
    pub(super) fn top(path: &'a Path, table: Table) -> Section<'a> {
        Section { path, name: String::new(), table, known: Vec::new() }
    }

    /// A text.
    pub(super) fn string(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.bad(key, &other, "a text in quotes")),
        }
    }

    /// A text without which nothing works.
    pub(super) fn required(&mut self, key: &'static str, advice: &str) -> Result<String, ConfigError> {
        self.string(key)?.ok_or_else(|| ConfigError::Missing {
            key: self.label(key),
            place: self.path.display().to_string(),
            advice: advice.to_owned(),
        })
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, min: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_integer().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.bad(key, &value, &format!("a whole number from {min} to {max}"))),
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Boolean(on)) => Ok(Some(on)),
            Some(other) => Err(self.bad(key, &other, "true or false")),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let found = value.as_str().and_then(|word| choices.iter().find(|(name, _)| *name == word));
        match found {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
                Err(self.bad(key, &value, &words.join(" or ")))
            }
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Result<Vec<Section<'a>>, ConfigError> {
        let expected = format!("one [[{key}]] table after the other");
        let array = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(array)) => array,
            Some(other) => return Err(self.bad(key, &other, &expected)),
        };
        let mut sections = Vec::with_capacity(array.len());
        for (i, value) in array.into_iter().enumerate() {
            let Value::Table(table) = value else {
                return Err(self.bad(key, &value, &expected));
            };
            sections.push(Section { path: self.path, name: format!("{key} {}", i + 1), table, known: Vec::new() });
        }
        Ok(sections)
    }

    /// A value that is of the right type and still wrong.
    pub(super) fn bad(&self, key: &str, value: &Value, expected: &str) -> ConfigError {
        ConfigError::BadValue {
            key: self.label(key),
            value: value.to_string(),
            place: self.path.display().to_string(),
            expected: expected.to_owned(),
        }
    }

    /// To be called when everything known has been asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some(key) = self.table.keys().next() else {
            return Ok(());
        };
        Err(ConfigError::UnknownKey {
            key: self.label(key),
            place: self.path.display().to_string(),
            closest: closest(key, self.known.iter().copied()),
        })
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn label(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{key} (of {})", self.name) }
    }
}

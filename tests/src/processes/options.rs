//! What the command lines of rigs have in common.

use std::str::FromStr;
use std::time::Duration;

/// For whom a summary is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// People.
    Text,
    /// Programs: one object. Progress goes to standard error.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!("there is no format {other:?}")),
        }
    }
}

/// The value of an option that wants a number.
pub(crate) fn number<T: FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option} needs a number, not {text:?}"))
}

/// The value of an option that wants minutes.
pub(crate) fn minutes(option: &str, text: &str) -> Result<Duration, String> {
    let minutes: f64 = number(option, text)?;
    if !(0.0..=100_000.0).contains(&minutes) {
        return Err(format!("{minutes} minutes are no time"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

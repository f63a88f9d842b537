//! What to do about an error, apart from what is wrong: for who shows the two in places of their own, as `driftless doctor` does.
//!
//! The message of an error ends with it, so that whoever prints the message alone says both. Nothing is cut out of a message by what looks
//! like the end of a sentence: names of files, and what the system said, may hold anything.

use std::fmt::Display;

/// An error that says what to do.
pub trait Remedy: Display {
    /// What to do, as the message ends; `None` if it says only what is wrong.
    fn remedy(&self) -> Option<String>;

    /// What is wrong: the message without that.
    fn what(&self) -> String {
        let message = self.to_string();
        let ending = self.remedy().unwrap_or_default();
        match message.strip_suffix(&ending) {
            Some(what) if !ending.is_empty() => what.trim_end_matches([' ', ';', '.']).to_owned(),
            _ => message,
        }
    }
}

/// For tests: the message is what is wrong, a separator and what to do, whatever its parts hold.
#[cfg(test)]
pub(crate) fn check(error: &dyn Remedy) {
    let (message, what) = (error.to_string(), error.what());
    match error.remedy() {
        None => assert_eq!(what, message),
        Some(remedy) => {
            let is_put_together = [";", "."].iter().any(|mark| message == format!("{what}{mark} {remedy}"));
            assert!(is_put_together, "{message:?} is not {what:?} and then {remedy:?}");
            assert!(remedy.starts_with(|c: char| c.is_ascii_alphabetic()), "{remedy:?}");
        }
    }
}

/// For tests: what may stand in a name, or be said by the system.
#[cfg(test)]
pub(crate) const NASTY: &str = "/a; run away. Or not/x";

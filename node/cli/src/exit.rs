//! How a command ends: exit codes that scripts can rely on, and messages that say what to do next.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    /// How it came about, for people and for programs.
    explanation: Option<(String, serde_json::Value)>,
}

/// What a command returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// The exit codes, as `--help` documents them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Whoever reads the results has seen enough: `driftless scan … | head` is no mistake.
    ReaderGone = 0,
    /// Something went wrong.
    Failed = 1,
    /// The command line or a configuration file was.
    Usage = 2,
    /// The cluster refused: nothing happened.
    Refused = 3,
    /// No or too few answers: it may have happened.
    Unknown = 4,
    /// There is no such key.
    NotFound = 5,
    /// None was found, but it may exist.
    NotCertain = 6,
    /// It was done, but keys may be missing from it.
    Incomplete = 7,
}

/// For the foot of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or a configuration file is wrong
  3  refused: nothing happened
  4  outcome unknown: it may have happened; repeat it with the id that the message tells
  5  not found
  6  not found, but it may exist: too few of the key's own replicas could be asked
  7  done, but keys may be missing: replicas do not hold everything yet (scan, dump, backup create), or a dump or backup is not whole
     (load, backup restore)";

impl Failure {
    /// With an exit code of its own.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { exit, message: message.to_string(), hint: None, explanation: None }
    }

    /// Something went wrong.
    pub(crate) fn failed(message: impl fmt::Display) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// The command line or a configuration file is wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// The same with what to do next.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Failure {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with how it came about, for people and for programs.
    pub(crate) fn explained(mut self, text: String, json: serde_json::Value) -> Failure {
        self.explanation = Some((text, json));
        self
    }

    /// The same with what to do next, unless it says that already.
    pub(crate) fn or_hint(self, hint: impl FnOnce() -> String) -> Failure {
        if self.hint.is_some() { self } else { self.hint(hint()) }
    }

    /// The same with what else is to be known.
    pub(crate) fn also(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{}; {what}", self.message);
        self
    }

    /// The same with what was being done.
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, if it says that.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl Failure {
    /// Nobody reads the results any more, or they cannot be written.
    pub(crate) fn of_output(error: &std::io::Error, what: &str) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(Exit::ReaderGone, "nobody reads the results"),
            _ => Failure::failed(format_args!("cannot write {what}: {error}")),
        }
    }

    /// For programs.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        let (code, message, hint) = (self.exit as u8, &self.message, &self.hint);
        let mut error = serde_json::json!({ "code": code, "message": message, "hint": hint });
        if let Some((_, explanation)) = &self.explanation {
            error["explanation"] = explanation.clone();
        }
        serde_json::json!({ "error": error })
    }
}

/// How a command ends that did its work, came to this, and then printed it: that the reader has gone takes the place of success
/// only.
pub(crate) fn after_printing(done: Result<Option<Exit>>, printed: Result) -> Result<ExitCode> {
    match (done?, printed) {
        (Some(exit), Err(failure)) if failure.exit == Exit::ReaderGone => Ok(exit.into()),
        (_, Err(failure)) => Err(failure),
        (exit, Ok(())) => Ok(exit.map_or(ExitCode::SUCCESS, ExitCode::from)),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        match &self.explanation {
            Some((text, _)) => write!(f, "\n\n{text}"),
            None => Ok(()),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<driftless_node::config::ConfigError> for Failure {
    fn from(error: driftless_node::config::ConfigError) -> Failure {
        Failure::usage(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_reader_that_has_seen_enough_is_no_mistake() {
        assert_eq!(Failure::of_output(&ErrorKind::BrokenPipe.into(), "the dump").exit(), Exit::ReaderGone);
        let failure = Failure::of_output(&Error::from(ErrorKind::StorageFull), "the dump");
        assert_eq!(failure.exit(), Exit::Failed);
        assert!(failure.message().starts_with("cannot write the dump"), "{failure}");
    }

    /// `load f | true` and `dump --format json -o f | true` ended with 0 whatever had failed.
    #[test]
    fn a_reader_that_is_gone_hides_no_failure() {
        let gone = || Err(Failure::of_output(&ErrorKind::BrokenPipe.into(), "it"));
        let full = || Err(Failure::of_output(&ErrorKind::StorageFull.into(), "it"));
        let code = |done, printed| match after_printing(done, printed) {
            Ok(code) => code,
            Err(failure) => failure.exit().into(),
        };
        assert_eq!(code(Ok(Some(Exit::Incomplete)), gone()), ExitCode::from(7));
        assert_eq!(code(Err(Failure::failed("so")), gone()), ExitCode::from(1));
        assert_eq!(code(Ok(None), gone()), ExitCode::SUCCESS);
        assert_eq!(code(Ok(None), full()), ExitCode::from(1));
        assert_eq!(code(Ok(Some(Exit::Incomplete)), Ok(())), ExitCode::from(7));
    }

    #[test]
    fn a_failure_is_an_object_for_programs() {
        let failure = Failure::usage("which?").hint("say it").or_hint(|| "or not".to_owned());
        assert_eq!(failure.as_json(), json!({ "error": { "code": 2, "message": "which?", "hint": "say it" } }));
        assert_eq!(Failure::failed("so").as_json()["error"]["hint"], json!(null));
    }
}

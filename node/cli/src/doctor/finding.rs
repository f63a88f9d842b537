//! What was found, each with what to do about it, and the sentence at the end.

use driftless_node::remedy::Remedy;
use serde_json::{Value, json};

use crate::output::{Tone, paint, wrapped};

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Area {
    Files,
    Data,
    Machine,
    Ports,
    Cluster,
}

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Severity {
    Ok,
    /// Somebody should see to it; the node works.
    Warning,
    /// The node does not start, or does not do what it should.
    Problem,
    /// It could not be seen.
    Unchecked,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    area: Area,
    check: &'static str,
    severity: Severity,
    what: String,
    remedy: Option<String>,
}

/// All of them, in the order in which they were found.
#[derive(Default, Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Area {
    const ALL: [Area; 5] = [Area::Files, Area::Data, Area::Machine, Area::Ports, Area::Cluster];

    fn word(self) -> &'static str {
        match self {
            Area::Files => "files",
            Area::Data => "data",
            Area::Machine => "machine",
            Area::Ports => "ports",
            Area::Cluster => "cluster",
        }
    }
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
            Severity::Unchecked => "not checked",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Severity::Ok => Tone::Good,
            Severity::Warning => Tone::Warning,
            Severity::Problem => Tone::Bad,
            Severity::Unchecked => Tone::Quiet,
        }
    }
}

impl Report {
    /// As it should be.
    pub(super) fn ok(&mut self, area: Area, check: &'static str, what: impl ToString) {
        self.add(area, check, Severity::Ok, what, None);
    }

    /// The node works, and somebody should see to it.
    pub(super) fn warning(&mut self, area: Area, check: &'static str, what: impl ToString, remedy: impl ToString) {
        self.add(area, check, Severity::Warning, what, Some(remedy.to_string()));
    }

    /// The node does not start, or does not do what it should.
    pub(super) fn problem(&mut self, area: Area, check: &'static str, what: impl ToString, remedy: impl ToString) {
        self.add(area, check, Severity::Problem, what, Some(remedy.to_string()));
    }

    /// The same of an error, with what it says to do, if it does.
    pub(super) fn error(&mut self, area: Area, check: &'static str, error: &impl Remedy, otherwise: &str) {
        let remedy = error.remedy().map_or_else(|| otherwise.to_owned(), |remedy| uncapitalized(&remedy));
        self.problem(area, check, error.what(), remedy);
    }

    /// It could not be seen, for this reason.
    pub(super) fn unchecked(&mut self, area: Area, check: &'static str, why: impl ToString) {
        self.add(area, check, Severity::Unchecked, why, None);
    }

    fn add(
        &mut self,
        area: Area,
        check: &'static str,
        severity: Severity,
        what: impl ToString,
        remedy: Option<String>,
    ) {
        let finding = Finding { area, check, severity, what: on_a_line(&what.to_string()), remedy };
        self.findings.push(finding);
    }

    /// Whether there is a problem; or, if that is asked for, a warning.
    pub(super) fn is_bad(&self, strict: bool) -> bool {
        self.count(Severity::Problem) > 0 || strict && self.count(Severity::Warning) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// For people: by what they are about, and then a sentence.
    pub(super) fn as_text(&self) -> String {
        let mut text = String::new();
        for area in Area::ALL {
            let mut findings = self.findings.iter().filter(|finding| finding.area == area).peekable();
            if findings.peek().is_some() {
                text += &format!("{}\n", paint(Tone::Strong, area.word()));
            }
            for Finding { check, severity, what, remedy, .. } in findings {
                let column = paint(severity.tone(), format_args!("{:WORD$}", severity.word()));
                text += &format!("  {column}  {}\n", wrapped(&format!("{check}: {what}"), INDENT));
                if let Some(remedy) = remedy {
                    text += &format!("{:INDENT$}{}\n", "", wrapped(&format!("to do: {remedy}"), INDENT));
                }
            }
        }
        let tone = if self.count(Severity::Problem) > 0 { Tone::Bad } else { Tone::Strong };
        format!("{text}\n{}", paint(tone, wrapped(&self.summary(), 0)))
    }

    /// For programs.
    pub(super) fn as_json(&self) -> Value {
        let findings = self.findings.iter().map(|Finding { area, check, severity, what, remedy }| {
            let severity = if *severity == Severity::Unchecked { "unchecked" } else { severity.word() };
            json!({ "area": area.word(), "check": check, "severity": severity, "what": what, "remedy": remedy })
        });
        json!({
            "findings": findings.collect::<Vec<_>>(),
            "problems": self.count(Severity::Problem),
            "warnings": self.count(Severity::Warning),
            "unchecked": self.count(Severity::Unchecked),
            "summary": self.summary(),
        })
    }

    /// How it is, and what to do first.
    fn summary(&self) -> String {
        let counted = |severity, one: &str| match self.count(severity) {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {one}s")),
        };
        let bad = [counted(Severity::Problem, "problem"), counted(Severity::Warning, "warning")];
        let bad: Vec<String> = bad.into_iter().flatten().collect();
        let unchecked = self.findings.iter().filter(|finding| finding.severity == Severity::Unchecked);
        let unchecked: Vec<&str> = unchecked.map(|finding| finding.check).collect();
        let left =
            if unchecked.is_empty() { String::new() } else { format!(" (not checked: {})", unchecked.join(", ")) };
        let worst = [Severity::Problem, Severity::Warning];
        let first = worst.iter().find_map(|worst| self.findings.iter().find(|finding| finding.severity == *worst));
        match first {
            None => format!("All is well, as far as could be seen{left}."),
            Some(Finding { check, remedy, .. }) => {
                let remedy = remedy.as_deref().unwrap_or_default().trim_end_matches('.');
                format!("{}{left}. To do first, of {check}: {remedy}.", bad.join(" and "))
            }
        }
    }
}

/// What begins a sentence there stands behind "to do:" here.
fn uncapitalized(remedy: &str) -> String {
    let mut chars = remedy.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A mistake in a file is shown with the line that it is in; where it is and what it is stand in the first line and in the last.
fn on_a_line(what: &str) -> String {
    let mut lines = what.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next_back() {
        None => first,
        Some(last) => format!("{}: {last}", first.trim_end_matches(':')),
    }
}

/// The width of the words for how it is, and where what was found begins.
const WORD: usize = 11;
const INDENT: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::WIDTH;
    use driftless_node::config::ConfigError;
    use driftless_node::store::directory::OpenError;

    #[test]
    fn the_last_sentence_says_what_to_do_first() {
        let mut report = Report::default();
        report.ok(Area::Files, "node.toml", "is fine");
        assert_eq!(report.summary(), "All is well, as far as could be seen.");
        report.unchecked(Area::Cluster, "nodes", "no cluster was named");
        assert!(
            !report.is_bad(true) && report.summary().ends_with("seen (not checked: nodes)."),
            "{}",
            report.summary()
        );
        report.warning(Area::Machine, "clock", "nobody sets it", "run an NTP client");
        assert!(report.is_bad(true) && !report.is_bad(false));
        let exposed = ConfigError::Exposed { path: "k".into(), mode: 0o644, is_roots: false };
        report.error(Area::Data, "directory", &exposed, "-");
        report.problem(Area::Ports, "admin", "is taken", "stop it");
        assert_eq!(
            report.summary(),
            "2 problems and 1 warning (not checked: nodes). To do first, of directory: run `chmod 600 k`."
        );
        assert!(report.is_bad(false));
    }

    #[test]
    fn what_an_error_says_to_do_stands_apart_from_what_is_wrong() {
        let mut report = Report::default();
        let path = || "/a; b. c".into();
        report.error(Area::Data, "directory", &OpenError::OtherFormat { path: path(), found: 9 }, "-");
        report.error(Area::Files, "context key", &ConfigError::NoKey { path: path() }, "copy it");
        let json = report.as_json();
        let told = |at: usize, part: &str| json["findings"][at][part].as_str().expect("is text").to_owned();
        assert!(told(0, "what").starts_with("the data directory /a; b. c has format 9"), "{json}");
        assert_eq!(told(0, "remedy"), "start the release that has written it");
        assert!(told(1, "what").starts_with("/a; b. c holds no key"), "{json}");
        assert_eq!(told(1, "remedy"), "copy it");
    }

    #[test]
    fn a_mistake_in_a_file_is_told_on_a_line() {
        let toml = "TOML parse error at line 1, column 3\n  |\n1 | x=\n  |   ^\nstring values must be quoted\n";
        assert_eq!(on_a_line(toml), "TOML parse error at line 1, column 3: string values must be quoted");
        assert_eq!(on_a_line("one"), "one");
    }

    #[test]
    fn findings_stand_by_what_they_are_about_with_what_to_do_below() {
        let mut report = Report::default();
        report.warning(Area::Machine, "open files", "word ".repeat(30).trim_end(), "raise it");
        report.ok(Area::Files, "node.toml", "is fine");
        let text = report.as_text();
        assert!(
            text.starts_with("files\n  ok           node.toml: is fine\nmachine\n  warning      open files: word"),
            "{text}"
        );
        assert!(text.contains("\n               to do: raise it\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let json = report.as_json();
        assert_eq!((&json["findings"][0]["severity"], &json["warnings"]), (&json!("warning"), &json!(1)));
    }
}

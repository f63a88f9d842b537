//! The dashboard and the alert rules of docs/monitoring, held against what a node registers: each metric, each label and, where a label
//! has few, each value. What the rules do is tried by `promtool`, where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::tests::exposition;

const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yml");
const ALERTS_TRIED: &str = include_str!("../../../docs/monitoring/alerts-test.yml");
const DASHBOARD: &str = include_str!("../../../docs/monitoring/dashboard.json");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// What Prometheus itself puts on every sample.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

/// The samples that a node shows: by name their labels, and by those the values seen.
struct Known(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Known {
    fn new() -> Known {
        let mut known: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for line in exposition().lines().filter(|line| !line.starts_with('#')) {
            let (sample, _) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let of_name = known.entry(name.to_owned()).or_default();
            for (label, value) in labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('=')) {
                of_name.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
        let conditions = conditions().into_iter().map(|(name, _)| name).collect();
        let labels = known.get_mut("driftless_condition").expect("is registered");
        labels.insert("condition".to_owned(), conditions);
        Known(known)
    }

    /// What is wrong with an expression, or with whatever else names metrics.
    fn mistakes(&self, text: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut labels: BTreeSet<&str> = OF_THE_SCRAPE.into();
        for Selector { name, matchers } in selectors(text) {
            let Some(known) = self.0.get(name) else {
                mistakes.push(format!("no node registers {name}"));
                continue;
            };
            labels.extend(known.keys().map(String::as_str));
            for (label, values) in matchers.iter().filter(|(label, _)| !OF_THE_SCRAPE.contains(label)) {
                let Some(seen) = known.get(*label) else {
                    mistakes.push(format!("{name} has no label {label}"));
                    continue;
                };
                // Where a label may be anything, such as the name of a node, any value will do.
                let unknown = values.split('|').filter(|value| ENUMERATED.contains(label) && !seen.contains(*value));
                mistakes.extend(unknown.map(|value| format!("{name} is never shown with {label}={value:?}")));
            }
        }
        let grouped =
            text.split("by (").skip(1).filter_map(|rest| rest.split_once(')')).flat_map(|(by, _)| by.split(", "));
        let shown = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(shown, _)| shown.trim());
        let shown = shown.filter(|shown| !shown.starts_with('$'));
        mistakes.extend(
            grouped
                .chain(shown)
                .filter(|label| !labels.contains(label))
                .map(|label| format!("nothing there has a label {label}")),
        );
        mistakes
    }
}

/// Labels of which all values are known.
const ENUMERATED: [&str; 4] = ["operation", "outcome", "condition", "to"];

/// A metric, and what its labels are asked to be.
struct Selector<'a> {
    name: &'a str,
    matchers: Vec<(&'a str, &'a str)>,
}

fn selectors(text: &str) -> Vec<Selector<'_>> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found = text.match_indices("driftless_").map(|(at, _)| {
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()));
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
        let matchers = inner.split(',').filter_map(|matcher| {
            let (label, value) = matcher.trim().split_once(['=', '!'])?;
            Some((label, value.trim_start_matches(['=', '~']).trim_matches(['"', '\\'])))
        });
        Selector { name, matchers: matchers.collect() }
    });
    found.collect()
}

/// The table of docs/operations.md: each condition, and whether somebody has to be told of it.
fn conditions() -> Vec<(String, bool)> {
    let (_, section) = OPERATIONS.split_once("\n### Conditions\n").expect("has the section");
    let (section, _) = section.split_once("\n## ").expect("is not the last one");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, rest)| (name.to_owned(), !rest.starts_with("note"))).collect()
}

/// The rules as they are written, each from its name to the next one's.
fn alerts() -> Vec<(&'static str, &'static str)> {
    ALERTS.split("- alert: ").skip(1).map(|rule| rule.split_once('\n').expect("a rule has more than a name")).collect()
}

#[test]
fn the_dashboard_asks_for_what_nodes_show() {
    let known = Known::new();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("is JSON");
    let mut asked = 0;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("has panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("has an id")), "two panels have an id: {panel}");
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let text = |field: &str| target[field].as_str().expect("is text").to_owned();
            let (title, query) = (&panel["title"], text("expr") + " " + &text("legendFormat"));
            assert_eq!(known.mistakes(&query), Vec::<String>::new(), "{title}: {query}");
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked} were found");
}

#[test]
fn the_alerts_rest_on_what_nodes_show() {
    let known = Known::new();
    let alerts = alerts();
    for (name, rule) in &alerts {
        assert_eq!(known.mistakes(rule), Vec::<String>::new(), "{name}");
        assert!(ALERTS_TRIED.contains(&format!("- alertname: {name}\n")), "alerts-test.yml does not try {name}");
        let runbook =
            rule.split("runbook: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("names a section");
        assert!(has_section(runbook), "{name}: there is no {runbook}");
    }
    assert!(alerts.len() > 20, "only {} were found", alerts.len());
    assert_eq!(known.mistakes(ALERTS_TRIED), Vec::<String>::new());
    let told: BTreeSet<String> = selectors(ALERTS)
        .iter()
        .flat_map(|selector| selector.matchers.clone())
        .filter(|(label, _)| *label == "condition")
        .flat_map(|(_, values)| values.split('|').map(str::to_owned))
        .collect();
    let worth_telling = conditions().into_iter().filter(|(_, worth)| *worth).map(|(name, _)| name).collect();
    assert_eq!(told, worth_telling, "each condition that is no note has an alert");
}

/// Whether a page of docs/ has the heading that a link means.
fn has_section(link: &str) -> bool {
    let Some((page, anchor)) = link.split_once('#') else { return false };
    let page = docs().join(page);
    let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect::<String>()
    };
    headings.map(slug).any(|slug| slug == anchor)
}

fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}

#[test]
fn the_alerts_fire_when_they_should() {
    let folder = docs().join("monitoring");
    match Command::new("promtool").args(["test", "rules", "alerts-test.yml"]).current_dir(folder).output() {
        Ok(done) => assert!(
            done.status.success(),
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ),
        // Not by a macro, of which nobody would see anything where the test succeeds.
        Err(error) => writeln!(
            std::io::stderr(),
            "skipped: the alert rules are not tried, since promtool cannot be run ({error}); it is in Debian's package prometheus"
        )
        .expect("can be written"),
    }
}

#[test]
fn mistakes_are_found() {
    let known = Known::new();
    for (text, mistake) in [
        ("driftless_request_total", "no node registers driftless_request_total"),
        ("driftless_requests_total{outcom=\"ok\"}", "driftless_requests_total has no label outcom"),
        (
            "driftless_requests_total{outcome=~\"ok|lost\"}",
            "driftless_requests_total is never shown with outcome=\"lost\"",
        ),
        ("driftless_condition{condition=\"late\"} == 1", "driftless_condition is never shown with condition=\"late\""),
        ("sum by (peer) (driftless_keys)", "nothing there has a label peer"),
        ("driftless_keys {{peer}}", "nothing there has a label peer"),
    ] {
        assert_eq!(known.mistakes(text), [mistake], "{text}");
    }
    let fine = "sum by (le) (driftless_request_seconds_bucket{job=\"x\", operation!=\"put\"}) {{ operation }}";
    assert_eq!(known.mistakes(fine), Vec::<String>::new());
    assert!(has_section("operations.md#is-it-well") && !has_section("operations.md#is-it-ill"));
}

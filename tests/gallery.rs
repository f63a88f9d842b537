//! The anomaly gallery: every scenario is as it claims, notices when the rule behind it is taken out, and stands in
//! `docs/anomalies.md` as it happens.
//!
//! `DRIFTLESS_BLESS=1` writes the page anew.

use std::path::Path;

use driftless_tests::gallery::{ALL, page, text};

#[test]
fn every_scenario_is_as_it_claims() {
    for scenario in ALL {
        let story = scenario.run();
        assert!(!story.checks.is_empty(), "{} claims nothing", scenario.name);
        assert!(story.holds(), "{}", page::terminal(scenario, &story));
    }
}

#[test]
fn a_scenario_notices_when_its_rule_is_taken_out() {
    let pairs = ALL.iter().flat_map(|scenario| scenario.broken_by.iter().map(move |bug| (scenario, *bug)));
    let blind = pairs.filter(|(scenario, bug)| scenario.run_with(Some(*bug)).holds());
    let blind: Vec<String> = blind.map(|(scenario, bug)| format!("{} to {}", scenario.name, bug.name())).collect();
    assert!(blind.is_empty(), "blind: {}", blind.join(", "));
}

#[test]
fn the_same_scenario_gives_the_same_diagram() {
    for scenario in ALL {
        assert_eq!(text::draw(&scenario.run()), text::draw(&scenario.run()), "{}", scenario.name);
    }
}

#[test]
fn diagrams_fit_a_page() {
    for scenario in ALL {
        let drawn = text::draw(&scenario.run());
        let widest = drawn.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let lines = drawn.lines().count();
        assert!(widest <= 100 && lines <= 40, "{}: {lines} lines of up to {widest} columns", scenario.name);
    }
}

#[test]
fn the_page_shows_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/anomalies.md");
    let written = std::fs::read_to_string(&path).expect("docs/anomalies.md can be read");
    let renewed = page::renewed(&written).expect("the marks of docs/anomalies.md are in order");
    if std::env::var_os("DRIFTLESS_BLESS").is_some() {
        std::fs::write(&path, &renewed).expect("docs/anomalies.md can be written");
    } else {
        assert!(written == renewed, "docs/anomalies.md is not what the gallery makes: run this with DRIFTLESS_BLESS=1");
    }
}

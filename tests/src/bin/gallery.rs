//! Plays the anomalies of quorum systems on the real engines, and draws what happens.
//!
//! ```sh
//! cargo run --release -p driftless-tests --bin gallery                                     # what there is
//! cargo run --release -p driftless-tests --bin gallery -- sloppy-quorum                    # one of them
//! cargo run --release -p driftless-tests --bin gallery -- sloppy-quorum --format mermaid   # for pages that render it
//! cargo run --release -p driftless-tests --bin gallery -- all --format json                # for programs
//! ```
//! Exit code 1 if something that a scenario claims is not so.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::process::ExitCode;

use driftless_tests::gallery::{ALL, Scenario, page};
use serde_json::Value;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.scenarios.is_empty() {
        list();
        return ExitCode::SUCCESS;
    }
    let mut jsons = Vec::new();
    let mut broken = 0;
    for (at, scenario) in options.scenarios.iter().enumerate() {
        let story = scenario.run();
        broken += usize::from(!story.holds());
        match options.format {
            Format::Text if at > 0 => print!("\n{}\n\n{}", "═".repeat(96), page::terminal(scenario, &story)),
            Format::Text => print!("{}", page::terminal(scenario, &story)),
            Format::Mermaid => print!("%% {}\n{}", scenario.title, page::mermaid(&story)),
            Format::Json => jsons.push(scenario.to_json(&story)),
        }
    }
    if let Format::Json = options.format {
        println!("{:#}", Value::from(jsons));
    }
    if broken > 0 {
        eprintln!("{broken} of {} scenarios are not as claimed", options.scenarios.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn list() {
    let width = ALL.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for Scenario { name, title, .. } in ALL {
        println!("{name:width$}  {title}");
    }
    println!("\nPlay one by its name, or `all`; they are explained in docs/anomalies.md.");
}

struct Options {
    scenarios: Vec<&'static Scenario>,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    Mermaid,
    Json,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { scenarios: Vec::new(), format: Format::Text };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "all" => options.scenarios.extend(ALL),
                "--format" => {
                    options.format = match arguments.next().as_deref() {
                        Some("text") => Format::Text,
                        Some("mermaid") => Format::Mermaid,
                        Some("json") => Format::Json,
                        other => return Err(format!("--format {}?", other.unwrap_or_default())),
                    }
                }
                name => match Scenario::of_name(name) {
                    Some(scenario) => options.scenarios.push(scenario),
                    None => return Err(format!("no scenario is called {name:?}")),
                },
            }
        }
        Ok(options)
    }
}

const USAGE: &str = "usage: gallery [NAME… | all] [--format text|mermaid|json]";

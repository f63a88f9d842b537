//! Lets a cluster of real processes grow and shrink under load, and judges what its clients were told.
//!
//! ```text
//! cargo run --release -p driftless-tests --bin resize
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

use driftless_tests::processes::Format;
use driftless_tests::resize::{Options, USAGE, run};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let summary = run(&options);
    match options.format {
        Format::Text => println!("{summary}"),
        Format::Json => println!("{}", summary.json()),
    }
    if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

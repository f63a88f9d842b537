//! Torments a cluster of real processes, and judges what its clients were promised.
//!
//! ```text
//! cargo run --release -p driftless-tests --bin torment -- --minutes 10
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

use driftless_tests::processes::{Format, Inside, inside_with_disks};
use driftless_tests::torment::{Options, USAGE, list, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(arguments.iter().cloned()) {
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
    // Both programs hear Ctrl-C. The one inside ends its run and sums it up; the one outside waits for that.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let outside = match inside_with_disks(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Inside::Yes => None,
        Inside::Ran(succeeded) => return if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        Inside::Impossible(reason) => Some(reason),
    };
    if options.lists {
        print!("{}", list(&options, outside.as_deref()));
        return ExitCode::SUCCESS;
    }
    let summary = run(&options, outside.as_deref());
    match options.format {
        Format::Text => println!("{summary}"),
        Format::Json => println!("{}", summary.json()),
    }
    if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Kills one node and cuts its power again and again, and looks whether everything is there that it has acknowledged.
//!
//! ```text
//! cargo run --release -p driftless-tests --bin crashes -- --kills 1000 --power-cuts 100
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

use driftless_tests::crashes::{Options, USAGE, run};
use driftless_tests::processes::{Inside, inside_with_disks};

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
    let summary = run(&options, outside.as_deref());
    println!("{summary}");
    if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Attacks a cluster of real processes as strangers and clients could, and shows what that costs.
//!
//! ```text
//! cargo run --release -p driftless-tests --bin siege -- --minutes 1
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

use driftless_tests::siege::{Options, USAGE, run};

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
    println!(
        "{} attacks on three nodes with limits.memory = {} MiB, {} s each; before → during",
        options.attacks.len(),
        options.memory_mib,
        options.attack.as_secs()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcomes = runtime.expect("a runtime can be made").block_on(run(&options, |outcome| println!("{outcome}")));
    let broken = outcomes.iter().filter(|outcome| !outcome.broken().is_empty()).count();
    match broken {
        0 => println!("every node stood, within its budget, and served whoever did nothing wrong"),
        _ => println!("{broken} of {} attacks broke something", outcomes.len()),
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Measures what faults of one node do to clients of a cluster of five real processes.
//!
//! ```text
//! cargo run --release -p driftless-tests --bin faults -- --scenario kill|pause|slow-fsync|one-way|cut-off|all --seconds 15
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;
use std::time::Duration;

use driftless_tests::processes::{Cluster, Fault, Inside, Plan, inside, run};

const USAGE: &str =
    "usage: faults [--scenario kill|pause|slow-fsync|one-way|cut-off|all] [--seconds 15] [--writers 64]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (faults, plan) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if faults.iter().any(|fault| matches!(fault, Fault::Mute | Fault::CutOff)) {
        match inside(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
            Inside::Yes => {}
            Inside::Ran(true) => return ExitCode::SUCCESS,
            Inside::Ran(false) => return ExitCode::FAILURE,
            Inside::Impossible(reason) => {
                eprintln!("wires cannot be cut here: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    let mut held = true;
    for fault in faults {
        if let Some(missing) = fault.missing() {
            println!("{fault:?} skipped: {missing}\n");
            continue;
        }
        let report = runtime.block_on(async { run(&mut Cluster::start(5), fault, &plan).await });
        println!("{report}");
        held &= report.verdict.holds() && report.history.fatal.is_empty();
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<(Vec<Fault>, Plan), String> {
    let second = Duration::from_secs(1);
    let mut faults = vec![Fault::Kill, Fault::Pause, Fault::SlowSync];
    let mut plan = Plan {
        warm_up: second * 3,
        before: second * 10,
        fault: second * 15,
        after: second * 10,
        writers: 64,
        rest: Duration::ZERO,
    };
    for pair in arguments.chunks(2) {
        let [option, value] = pair else {
            return Err(format!("{} needs a value", pair[0]));
        };
        let number = || value.parse::<u32>().map_err(|_| format!("{option} needs a number, not {value:?}"));
        match option.as_str() {
            "--scenario" if value == "all" => faults = Fault::ALL.map(|(_, fault)| fault).into(),
            "--scenario" => {
                let known = Fault::ALL.into_iter().find(|(name, _)| name == value);
                faults = vec![known.ok_or_else(|| format!("there is no scenario {value:?}"))?.1];
            }
            "--seconds" => plan.fault = second * number()?,
            "--writers" => plan.writers = number()? as usize,
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    Ok((faults, plan))
}

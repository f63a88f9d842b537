//! `driftless config`: what the keys of a node's file mean, and what is wrong with files.

mod check;
mod explain;

use std::process::ExitCode;

use super::exit::Result;
use super::output::Format;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// What a key of node.toml means and costs, what may stand there, and when a running node takes another value
    ///
    /// Without KEY: a line for each. With --config also what counts for that node, and where it came from: file, environment or default.
    Explain(explain::Args),
    /// Name all mistakes of files, of whatever kind: node.toml, cluster.toml, access file, profiles, context key
    ///
    /// What a file is for is seen by what stands in it, unless --as says it. Only the files are looked at: what they name, whether it is
    /// there and fits, is for `driftless doctor`. Exit code 1 if there is a mistake.
    Check(check::Args),
}

/// Explains or checks.
pub(crate) fn run(command: &Command, format: Format) -> Result<ExitCode> {
    match command {
        Command::Explain(args) => explain::run(args, format).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(args, format),
    }
}

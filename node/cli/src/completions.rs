//! `driftless completions SHELL`.

use clap_complete::Shell;

use super::exit::Result;
use super::output;

/// For example: driftless completions bash > ~/.local/share/bash-completion/completions/driftless
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for this command line.
pub(crate) fn run(args: &Args, command_line: &mut clap::Command) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command_line, "driftless", &mut script);
    output::raw(&script)
}

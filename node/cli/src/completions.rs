//! `driftless completions SHELL`.

use clap::CommandFactory;
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

/// Prints the script.
pub(crate) fn run(args: &Args) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "driftless", &mut script);
    output::raw(&script)
}

//! The `driftless` command. Everything it does is in [`cli`], one file per subcommand.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

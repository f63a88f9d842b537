//! The `driftless` command. Everything it does is in [`cli`], one file per subcommand.

mod cli;

/// A request allocates a few dozen small things; the system's allocator took a quarter of a node's time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}

//! The `driftless` command. Everything it does is in [`cli`], one file per subcommand.

mod cli;

/// Gets are two fifths faster with it than with the system's allocator, puts an eighth slower (docs/decisions.md, Build).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}

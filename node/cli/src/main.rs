//! The `driftless` command: one file per subcommand, and what they share.
//!
//! ```text
//! a cluster on this machine   dev  demo                       local/    files, ports and processes
//! a node                      serve  cert                     descriptors.rs  how many files may be open
//! data                        put  get  delete  scan  load  dump
//! looking                     aae  bucket  hints  ring  status
//! measuring                   bench
//!                             global.rs   what every subcommand takes
//!                             profile.rs  which cluster is meant, and who we are to it
//!                             session.rs  a connected client; failures as exit codes
//!                             quorum.rs   how many replicas must take part
//!                             members.rs  whom to ask about the whole cluster, and how long to wait
//!                             new_file.rs  a file that takes its name when it is whole
//!                             interrupt.rs  Ctrl-C, for commands that have something to put away
//!                             partition.rs  partitions as people write them
//!                             completeness.rs  whether a walk through a bucket meets every key
//!                             key.rs      keys as they are given, and as they are printed to be typed
//!                             output.rs   text, JSON, colours
//!                             exit.rs     exit codes
//! ```
//! Results go to standard output, everything else to standard error.

#![allow(clippy::disallowed_methods, reason = "the command line is the edge: it reads clocks, waits and draws secrets")]

mod aae;
mod audit;
mod bench;
mod bucket;
mod cert;
mod completeness;
mod completions;
mod damaged;
mod delete;
mod demo;
mod descriptors;
mod dev;
mod dump;
mod exit;
mod get;
mod global;
mod hints;
mod interrupt;
mod key;
mod load;
mod local;
mod members;
mod new_file;
mod output;
mod partition;
mod profile;
mod put;
mod quorum;
mod ring;
mod scan;
mod serve;
mod session;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::{EXIT_CODES, Exit, Failure, Result};
use global::{GlobalArgs, WithKey};
use output::Format;
use profile::ClusterArgs;

/// Gets are two fifths faster with it than with the system's allocator, puts an eighth slower (docs/decisions.md, Build).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A leaderless key-value store: peers own arcs of a ring, any replica takes a write, concurrent writes become siblings.
#[derive(Parser, Debug)]
#[command(name = "driftless", version, after_help = EXIT_CODES, arg_required_else_help = true, args_override_self = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Private key of the client certificate
    #[arg(long = "key", id = "key-before", value_name = "FILE", help_heading = "Cluster")]
    key: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole cluster on this machine until Ctrl-C
    ///
    /// Ports are 7400, 7410, … (UDP) and 7401, 7411, … (TCP, for metrics and status), all on the loopback interface.
    Dev(dev::Args),
    /// The tour: what this store does, shown and checked on a throw-away cluster
    ///
    /// Uses a temporary directory and free ports, and leaves nothing behind. Exit code 0 only if every check held.
    Demo(demo::Args),
    /// Run one node
    ///
    /// Every key of the configuration can also be set by an environment variable: limits.requests_max by
    /// DRIFTLESS_LIMITS_REQUESTS_MAX. --ca, --cert and --key override `[tls]`.
    Serve(WithKey<serve::Args>),
    /// Issue certificates
    #[command(subcommand)]
    Cert(cert::Command),
    /// Write a value
    ///
    /// Without --context or --replace the value becomes a sibling of whatever is there.
    Put(WithKey<put::Args>),
    /// Read a key
    ///
    /// Exit code 5 if there is no such key.
    Get(WithKey<get::Args>),
    /// Delete a key
    ///
    /// Without --context a node reads the key first and deletes what it saw. Exit code 5 if there was nothing.
    Delete(WithKey<delete::Args>),
    /// Write many records from a file of JSON lines
    ///
    /// A line is {"key": …, "value": …}, or has "values": […] for siblings; bytes are {"base64": "…"}. One that cannot
    /// be read or stored is reported with its number, and the load goes on. Exit code 1 if there was one.
    Load(WithKey<load::Args>),
    /// Write all records of a bucket as JSON lines, as `load` reads them
    ///
    /// Keys are read one by one while others may write: this is no snapshot. Exit code 7 if keys may be missing.
    Dump(WithKey<dump::Args>),
    /// List the keys of a bucket, partition by partition
    ///
    /// Keys come in the order of the ring, which looks random; there is no ordered scan. Exit code 7 if keys may be missing.
    Scan(WithKey<scan::Args>),
    /// Look at the buckets
    #[command(subcommand)]
    Bucket(bucket::Command),
    /// Who owns what; for a key: its token, partition, primaries and fallbacks
    ///
    /// Without options: a line per member. The private key of the client certificate is --client-key here.
    Ring(ring::Args),
    /// A line per node, then a sentence on the cluster's health
    ///
    /// Exit code 0 whatever it shows, unless --check is given.
    Status(WithKey<status::Args>),
    /// What nodes hold for others that could not be reached
    ///
    /// Hints are delivered by themselves once their target is back; there is nothing to type.
    Hints(WithKey<hints::Args>),
    /// Records that are not what was written, and how to give up what they held
    ///
    /// They are restored from the other owners by themselves, unless too few of those are sound.
    #[command(subcommand)]
    Damaged(damaged::Command),
    /// Anti-entropy: how far replicas are compared and repaired, and what it shall do
    ///
    /// It always runs by itself; there is nothing that must be scheduled.
    #[command(subcommand)]
    Aae(aae::Command),
    /// Measure a running cluster with a closed loop of clients
    ///
    /// What is measured: from the call of the client library to its answer, retries included.
    Bench(WithKey<bench::Args>),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output and is no failure; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let format = cli.format;
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            if failure.exit() != Exit::ReaderGone {
                output::error(&failure, format);
            }
            failure.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { mut cluster, key, format, command } = cli;
    cluster.client_key = cluster.client_key.or(key);
    let global = GlobalArgs { cluster, format };
    if format == Format::Raw && !matches!(command, Command::Get(_)) {
        return Err(Failure::usage("--format raw is for `get` only").hint("use --format text or --format json"));
    }
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Dev(args) => dev::run(&args).map(done),
        Command::Demo(args) => demo::run(&args),
        Command::Serve(with) => serve::run(&with.args, &global.with_key(with.key).cluster).map(done),
        Command::Cert(command) => cert::run(&command, format).map(done),
        Command::Put(with) => put::run(&global.with_key(with.key), with.args).map(done),
        Command::Get(with) => get::run(&global.with_key(with.key), with.args),
        Command::Delete(with) => delete::run(&global.with_key(with.key), with.args),
        Command::Load(with) => load::run(&global.with_key(with.key), &with.args),
        Command::Dump(with) => dump::run(&global.with_key(with.key), &with.args),
        Command::Scan(with) => scan::run(&global.with_key(with.key), &with.args),
        Command::Bucket(command) => bucket::run(&global, command).map(done),
        Command::Ring(args) => ring::run(&global, args).map(done),
        Command::Status(with) => status::run(&global.with_key(with.key), &with.args),
        Command::Hints(with) => hints::run(&global.with_key(with.key), &with.args).map(done),
        Command::Damaged(command) => damaged::run(&global, command),
        Command::Aae(command) => aae::run(&global, &command),
        Command::Bench(with) => bench::run(&global.with_key(with.key), &with.args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()).map(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> std::result::Result<Cli, String> {
        Cli::try_parse_from(std::iter::once("driftless").chain(words.split(' '))).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_cluster_may_be_named_before_or_after_the_subcommand() {
        for words in ["--profile D get k", "get --profile D k", "get k --profile D --format json"] {
            assert_eq!(parse(words).expect(words).cluster.profile.as_deref(), Some("D"));
        }
    }

    #[test]
    fn key_is_a_file_except_for_ring() {
        let cli = parse("--ca a --cert b --key c get k").expect("parses");
        assert_eq!(cli.key, Some("c".into()));
        assert!(matches!(parse("get k --key c").expect("parses").command, Command::Get(WithKey { key: Some(_), .. })));
        assert!(matches!(parse("ring --key bat").expect("parses").command, Command::Ring(_)));
        assert_eq!(parse("ring --key bat --client-key c").expect("parses").cluster.client_key, Some("c".into()));
    }

    #[test]
    fn impossible_requests_are_usage_errors() {
        for words in [
            "get",
            "get k -r 0",
            "get k -r x",
            "put",
            "put k v -w 0",
            "get k --format yaml",
            "frob",
            "bench --op frob",
            "get k --timeout 5",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("4  outcome unknown"), "{help}");
    }
}

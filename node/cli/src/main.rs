//! The `driftless` command: one file, or folder, per subcommand, and what they share.
//!
//! ```text
//! a cluster on this machine   dev  demo            local/           files, ports and processes
//! a node                      serve  cert  config  descriptors.rs   how many files may be open
//! data                        put  get  delete  scan  load  dump  backup
//! looking                     aae  doctor  hints  ring  status  transfers
//! changing                    access  bucket  cluster  drain
//! measuring                   bench
//!                             global.rs         what every subcommand takes that speaks to a cluster
//!                             profile.rs        which cluster is meant, and who we are to it
//!                             session.rs        a connected client; failures as exit codes
//!                             key.rs            keys as they are given, and as they are printed to be typed
//!                             partition.rs      partitions as people write them
//!                             quorum.rs         how many replicas must take part
//!                             members.rs        whom to ask about the whole cluster, and how long to wait
//!                             completeness.rs   whether a walk through a bucket meets every key
//!                             new_file.rs       a file that takes its name when it is whole
//!                             interrupt.rs      Ctrl-C, for commands that have something to put away
//!                             output.rs         text, JSON, colours
//!                             exit.rs           exit codes
//! ```
//! Results go to standard output, everything else to standard error.

#![allow(clippy::disallowed_methods, reason = "the command line is the edge: it reads clocks, waits and draws secrets")]

mod aae;
mod access;
mod audit;
mod backup;
mod bench;
mod bucket;
mod cert;
mod cluster;
mod completeness;
mod completions;
mod config;
mod damaged;
mod delete;
mod demo;
mod descriptors;
mod dev;
mod doctor;
#[cfg(test)]
mod documented;
mod drain;
mod dump;
mod exit;
mod explanation;
mod get;
mod global;
mod hints;
mod interrupt;
mod key;
mod load;
mod local;
mod man;
mod members;
mod new_file;
#[cfg(feature = "otel")]
mod otel;
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
mod top;
mod trace;
mod transfers;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::{EXIT_CODES, Exit, Failure, Result};
use global::{Flags, Group, OnCluster, OnClusterByKey, WithOutput};
use output::Format;

/// Gets are two fifths faster with it than with the system's allocator, puts an eighth slower (docs/decisions.md, Build).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A leaderless key-value store: peers own arcs of a ring, any replica takes a write, concurrent writes become siblings.
#[derive(Parser, Debug)]
#[command(name = "driftless", version, after_help = EXIT_CODES, arg_required_else_help = true, args_override_self = true, max_term_width = 110)]
// Each subcommand to which they mean something has them as well.
#[command(mut_args(|arg| arg.global(false)))]
pub(crate) struct Cli {
    #[command(flatten)]
    before: Flags,
    /// Private key of the client certificate
    #[arg(long = "key", id = "key-before", value_name = "FILE", help_heading = "Cluster")]
    key: Option<PathBuf>,
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
    /// At its first start, which takes --init, a node that the cluster file names founds the cluster with the others there. One that
    /// it does not name, and whose own file has its `address`, calls those and holds nothing until `driftless cluster join` and `commit`
    /// let it in. Once members have agreed, every node goes by what its data directory says of that, and the file only says whom to
    /// call.
    ///
    /// Every key of the configuration can also be set by an environment variable: limits.requests_max by
    /// DRIFTLESS__LIMITS__REQUESTS_MAX. --ca, --cert and --key override `[tls]`.
    Serve(serve::Args),
    /// Issue certificates
    Cert(WithOutput<Group<cert::Command>>),
    /// Explain the keys of node.toml, and check files before a node reads them
    Config(WithOutput<Group<config::Command>>),
    /// Write a value
    ///
    /// Without --context or --replace the value becomes a sibling of whatever is there.
    Put(OnCluster<put::Args>),
    /// Read a key
    ///
    /// Exit code 5 if there is no such key.
    Get(OnCluster<get::Args>),
    /// Delete a key
    ///
    /// Without --context a node reads the key first and deletes what it saw. Exit code 5 if there was nothing.
    Delete(OnCluster<delete::Args>),
    /// Write many records from a file of JSON lines
    ///
    /// A line is {"key": …, "value": …}, or has "values": […] for siblings; bytes are {"base64": "…"}. One that cannot
    /// be read or stored is reported with its number, and the load goes on. Exit code 1 if there was one.
    Load(OnCluster<load::Args>),
    /// Write all records of a bucket as JSON lines, as `load` reads them
    ///
    /// Keys are read one by one while others may write: this is no snapshot. Exit code 7 if keys may be missing.
    Dump(OnCluster<dump::Args>),
    /// A whole cluster in a directory, and back into this cluster or another one
    ///
    /// Not the values alone, as `dump` writes them, but all that is known of each key: so what is restored takes nothing back that was
    /// written or deleted since.
    Backup(OnCluster<Group<backup::Command>>),
    /// List the keys of a bucket, partition by partition
    ///
    /// Keys come in the order of the ring, which looks random; there is no ordered scan. Exit code 7 if keys may be missing.
    Scan(OnCluster<scan::Args>),
    /// Look at the buckets, make, change and remove them
    ///
    /// Whoever changes one needs a certificate of an operator.
    Bucket(OnCluster<Group<bucket::Command>>),
    /// Who may do what, on all nodes at once: roles by name, and who is not let in
    ///
    /// Each change is a version of the cluster, decided at once; nothing moves, and within a moment it holds on every node, also for
    /// connections that are open. A client has the role of its grant; without one, that of a node's own access file; else that of its
    /// certificate; else the default agreed on here; else the file's. Whoever is denied here or by a node's file is not let in.
    ///
    /// Whoever changes something needs a certificate of an operator. See docs/operations.md.
    Access(OnCluster<Group<access::Command>>),
    /// Who the members are: let nodes join, leave and take the place of others, while everything is served
    ///
    /// Changes are staged (which costs nothing), planned (which says what would move) and committed by the plan's name. Whoever
    /// changes something needs a certificate of an operator. See docs/membership.md.
    Cluster(OnCluster<Group<cluster::Command>>),
    /// What moves since the last change of members: how far it has come, and when it is done
    Transfers(OnCluster<transfers::Args>),
    /// Who owns what; for a key: its token, partition, primaries and fallbacks
    ///
    /// Without options: a line per member. The private key of the client certificate is --client-key here.
    Ring(OnClusterByKey<ring::Args>),
    /// A line per node, then a sentence on the cluster's health
    ///
    /// Exit code 0 whatever it shows, unless --check is given.
    Status(OnCluster<status::Args>),
    /// Look for what is, or will be, the matter with a node, its machine and its cluster, and say what to do
    ///
    /// The node's file and what it names, certificates, the data directory and its disk, what the machine grants, ports, and the nodes
    /// that answer: those of the cluster file, asked with the node's own certificate, or those that --profile or --endpoint name. Works
    /// while nothing runs as well, and changes nothing. What cannot be seen is told with the reason. Exit code 1 if there is a
    /// problem; with --strict, or a warning.
    Doctor(OnCluster<doctor::Args>),
    /// Which keys are asked for most, which are large, and which have many siblings
    ///
    /// As nodes have counted in the last one to two minutes: each count says by how much it may be too high. Names of keys are shown where
    /// `[top] keys` is true, tokens elsewhere. Takes a certificate of an operator.
    Top(OnCluster<top::Args>),
    /// What nodes hold for others that could not be reached
    ///
    /// Hints are delivered by themselves once their target is back; there is nothing to type.
    Hints(OnCluster<hints::Args>),
    /// Records that are not what was written, and how to give up what they held
    ///
    /// They are restored from the other owners by themselves, unless too few of those are sound.
    Damaged(OnCluster<Group<damaged::Command>>),
    /// Anti-entropy: how far replicas are compared and repaired, and what it shall do
    ///
    /// It always runs by itself; there is nothing that must be scheduled.
    Aae(OnCluster<Group<aae::Command>>),
    /// Have a node that is about to be stopped coordinate nothing new
    ///
    /// Clients go to the next node at once, without an error; the node goes on serving the other nodes as a replica. A node that is started
    /// again is not drained. Takes a certificate of an operator.
    Drain(OnCluster<drain::Args>),
    /// Measure a running cluster: a closed loop of clients, or an open loop at a rate
    ///
    /// What is measured: from the call of the client library to its answer, retries included; with --rate from when the
    /// request was due.
    Bench(OnCluster<bench::Args>),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the manual pages: one for each subcommand
    Man(man::Args),
}

fn main() -> ExitCode {
    let format = if asks_for_json(std::env::args_os()) { Format::Json } else { Format::Text };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && format == Format::Json => {
            let text = error.render().to_string();
            let message = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ");
            let words: Vec<&str> = message.split_whitespace().collect();
            output::error(&Failure::usage(words.join(" ")), format);
            return Exit::Usage.into();
        }
        Err(error) => {
            // Help goes to standard output and is no failure; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
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

/// Whether errors are to be JSON: also those of a command line that cannot be understood.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = words.take_while(|word| word != "--").collect();
    words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
}

fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { mut before, key, command } = cli;
    before.cluster.client_key = before.cluster.client_key.or(key);
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Dev(args) => before.refuse_all("dev").and_then(|()| dev::run(&args)).map(done),
        Command::Demo(args) => before.refuse_all("demo").and_then(|()| demo::run(&args)),
        Command::Serve(args) => before.refuse_all("serve").and_then(|()| serve::run(&args)).map(done),
        Command::Completions(args) => {
            before.refuse_all("completions").and_then(|()| completions::run(&args, &mut Cli::command())).map(done)
        }
        Command::Man(args) => before.refuse_all("man").and_then(|()| man::run(&args, Cli::command())).map(done),
        Command::Cert(with) => before
            .refuse_cluster("cert")
            .and_then(|()| with.over(before))
            .and_then(|(format, args)| cert::run(&args.command, format))
            .map(done),
        Command::Config(with) => before
            .refuse_cluster("config")
            .and_then(|()| with.over(before))
            .and_then(|(format, args)| config::run(&args.command, format)),
        Command::Put(on) => on.over(before).and_then(|(global, args)| put::run(&global, args)).map(done),
        Command::Get(on) => {
            let (global, args) = on.over_with_raw(before);
            get::run(&global, args)
        }
        Command::Delete(on) => on.over(before).and_then(|(global, args)| delete::run(&global, args)),
        Command::Load(on) => on.over(before).and_then(|(global, args)| load::run(&global, &args)),
        Command::Dump(on) => on.over(before).and_then(|(global, args)| dump::run(&global, &args)),
        Command::Backup(on) => on.over(before).and_then(|(global, args)| backup::run(&global, &args.command)),
        Command::Scan(on) => on.over(before).and_then(|(global, args)| scan::run(&global, &args)),
        Command::Bucket(on) => on.over(before).and_then(|(global, args)| bucket::run(&global, args.command)).map(done),
        Command::Access(on) => on.over(before).and_then(|(global, args)| access::run(&global, args.command)).map(done),
        Command::Cluster(on) => {
            on.over(before).and_then(|(global, args)| cluster::run(&global, args.command)).map(done)
        }
        Command::Transfers(on) => on.over(before).and_then(|(global, args)| transfers::run(&global, &args)),
        Command::Ring(on) => on.over(before).and_then(|(global, args)| ring::run(&global, args)).map(done),
        Command::Status(on) => on.over(before).and_then(|(global, args)| status::run(&global, &args)),
        Command::Doctor(on) => on.over(before).and_then(|(global, args)| doctor::run(&global, &args)),
        Command::Top(on) => on.over(before).and_then(|(global, args)| top::run(&global, &args)).map(done),
        Command::Hints(on) => on.over(before).and_then(|(global, args)| hints::run(&global, &args)).map(done),
        Command::Damaged(on) => on.over(before).and_then(|(global, args)| damaged::run(&global, args.command)),
        Command::Aae(on) => on.over(before).and_then(|(global, args)| aae::run(&global, &args.command)),
        Command::Drain(on) => on.over(before).and_then(|(global, args)| drain::run(&global, &args)).map(done),
        Command::Bench(on) => on.over(before).and_then(|(global, args)| bench::run(&global, &args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::global::GlobalArgs;

    fn parse(words: &str) -> std::result::Result<Cli, String> {
        Cli::try_parse_from(std::iter::once("driftless").chain(words.split(' '))).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    fn global_of(words: &str) -> GlobalArgs {
        let Cli { mut before, key, command } = parse(words).expect(words);
        before.cluster.client_key = before.cluster.client_key.or(key);
        match command {
            Command::Get(on) => on.over_with_raw(before).0,
            Command::Ring(on) => on.over(before).expect(words).0,
            Command::Bucket(on) => on.over(before).expect(words).0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_cluster_may_be_named_before_or_after_the_subcommand() {
        for words in [
            "--profile D get k",
            "get --profile D k",
            "get k --profile D --format json",
            "--profile D bucket list",
            "bucket --profile D list",
            "bucket list --profile D",
            "--profile other get k --profile D",
        ] {
            assert_eq!(global_of(words).cluster.profile.as_deref(), Some("D"), "{words}");
        }
        for words in ["--format json get k", "get k --format json", "bucket list --format json"] {
            assert_eq!(global_of(words).format, Format::Json, "{words}");
        }
    }

    #[test]
    fn flags_are_refused_where_they_mean_nothing() {
        for words in ["dev --profile D", "demo --endpoint h:1", "completions bash --timeout 1s", "dev --format json"] {
            assert!(parse(words).is_err(), "{words}");
        }
        for words in
            ["--profile D dev", "--format json demo", "--timeout 1s completions bash", "--ca f cert ca --cluster c"]
        {
            let failure = run(parse(words).expect(words)).expect_err(words);
            assert!(failure.message().contains("means nothing to"), "{words}: {failure}");
        }
        let failure = run(parse("put k v --format raw").expect("parses")).expect_err("is for get only").to_string();
        assert!(failure.contains("`get` only"), "{failure}");
    }

    #[test]
    fn key_is_a_file_except_for_ring() {
        for words in
            ["--ca a --cert b --key c get k", "get k --key c", "bucket list --key c", "ring --key bat --client-key c"]
        {
            assert_eq!(global_of(words).cluster.client_key, Some("c".into()), "{words}");
        }
        assert_eq!(global_of("ring --key bat").cluster.client_key, None);
    }

    #[test]
    fn errors_are_json_if_that_is_asked_for_in_whatever_way() {
        let asks = |words: &str| asks_for_json(words.split(' ').map(OsString::from));
        assert!(asks("driftless --format json get") && asks("driftless get k --format=json"));
        assert!(!asks("driftless get k --format text") && !asks("driftless put k -- --format json"));
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
            "bench --workload e",
            "bench --workload a --op get",
            "bench --rate 0",
            "bench --compare a.json",
            "bench --compare a.json b.json --plot c.svg",
            "get k --timeout 5",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn new_nodes_have_plain_names_and_zones_fit_on_a_line() {
        let error = parse("dev add ../n4").expect_err("leaves the directory");
        assert!(error.contains("invalid value '../n4'") && error.contains("expected 1 to 64 letters"), "{error}");
        for words in ["dev add n4 --zone \t", "cluster join n4 --zone \t", "cluster set n1 --zone \t"] {
            let words: Vec<&str> = words.split(' ').collect();
            let error = Cli::try_parse_from(["driftless"].iter().chain(&words)).expect_err("no zone").to_string();
            assert!(error.contains("expected 1 to 64 bytes of text"), "{words:?}: {error}");
        }
        parse("cluster set n1 --zone rack/1").expect("is a zone");
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("4  outcome unknown"), "{help}");
    }
}

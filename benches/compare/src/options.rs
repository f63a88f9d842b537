//! The command line.

use std::path::PathBuf;

use crate::result::Op;
use crate::systems::redis::Wait;
use crate::systems::{EtcdMembers, Name};

/// Driftless beside etcd and Redis, on this machine, under one load.
///
/// Each system runs as three processes on loopback ports, with its data in a temporary directory on the disk, and takes the same
/// puts and gets from clients in this process, one request after the other each. Systems take turns in several rounds. At the end
/// there is a table of medians, and of ratios. What is not installed is left out, and said (Debian: apt install etcd-server
/// redis-server). Leave the machine alone meanwhile.
#[derive(clap::Parser, Debug)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// The systems to compare [default: all that are installed]
    #[arg(long, value_name = "SYSTEM,…", value_delimiter = ',')]
    pub(crate) only: Vec<Name>,
    /// The binary of Driftless [default: target/release/driftless of this repository, built first]
    #[arg(long, value_name = "FILE")]
    pub(crate) driftless: Option<PathBuf>,
    /// How often each system is started anew and measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// What is measured
    #[arg(long, value_name = "OP,…", value_delimiter = ',', default_values_t = [Op::Put, Op::Get])]
    pub(crate) op: Vec<Op>,
    /// Numbers of clients; each has one request under way
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 64, 256],
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) clients: Vec<u32>,
    /// How long each number of clients is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = time)]
    pub(crate) seconds: f64,
    /// How long they run before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = time)]
    pub(crate) warmup: f64,
    /// How many keys there are; all are written before anything is measured
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) keys: u32,
    /// Bytes of a value; at most 1 MiB, as etcd takes no more than 1.5
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) value_size: u32,
    /// Which members of etcd the load speaks to
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = EtcdMembers::Leader)]
    pub(crate) etcd_members: EtcdMembers,
    /// Connections of the load to each of those
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) etcd_connections: u16,
    /// Connections that gets of Redis share; its puts have one for each client, as WAIT holds up its connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) redis_connections: u16,
    /// What a put of Redis waits for beyond the primary's disk
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Wait::Received)]
    pub(crate) redis_wait: Wait,
    /// Driftless reads each key before it puts it (`put_replacing`), as an application does that keeps no contexts
    #[arg(long)]
    pub(crate) read_before_put: bool,
    /// Where the temporary directory is made [default: target of this repository]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Go on where DIR is in memory (tmpfs): puts are then of no disk
    #[arg(long)]
    pub(crate) in_memory: bool,
    /// Leave the temporary directory, with the logs of all processes
    #[arg(long)]
    pub(crate) keep: bool,
    /// All results, as JSON [default: compare-TIME.json in DIR]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What is printed at the end
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// Markdown
    Table,
    /// What is in the file of --output
    Json,
}

fn time(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 3600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_options_hold_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let options =
            Options::try_parse_from(["compare", "--only", "etcd,driftless", "--clients", "8,32", "--op", "get"]);
        let options = options.expect("they are right");
        assert_eq!(options.only, [Name::Etcd, Name::Driftless]);
        assert_eq!((options.clients, options.op), (vec![8, 32], vec![Op::Get]));
        for wrong in [["--seconds", "0"], ["--clients", "0"], ["--only", "mongo"], ["--value-size", "2000000"]] {
            assert!(Options::try_parse_from(["compare"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}

//! Arguments that every subcommand takes that speaks to a cluster, before or after its name.

use std::path::PathBuf;

use super::exit::{Failure, Result};
use super::key;
use super::output::Format;
use super::profile::ClusterArgs;

/// What a subcommand that talks to a cluster is given.
#[derive(Debug)]
pub(crate) struct GlobalArgs {
    /// Which cluster.
    pub(crate) cluster: ClusterArgs,
    /// How to print.
    pub(crate) format: Format,
}

/// The flags behind it.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How results are printed.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArgs {
    /// How results, and errors, are printed [default: text]
    #[arg(long, global = true, value_enum)]
    pub(crate) format: Option<Format>,
}

/// The arguments of a subcommand that talks to a cluster.
#[derive(clap::Args, Debug)]
pub(crate) struct OnCluster<A: clap::Args> {
    #[command(flatten)]
    pub(crate) args: A,
    #[command(flatten)]
    pub(crate) flags: Flags,
    /// Private key of the client certificate
    #[arg(long = "key", id = "key-file", global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) key: Option<PathBuf>,
}

/// The same where `--key` is something else.
#[derive(clap::Args, Debug)]
pub(crate) struct OnClusterByKey<A: clap::Args> {
    #[command(flatten)]
    pub(crate) args: A,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// The arguments of a subcommand that talks to no cluster, and prints for programs as well.
#[derive(clap::Args, Debug)]
pub(crate) struct WithOutput<A: clap::Args> {
    #[command(flatten)]
    pub(crate) args: A,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A subcommand that has subcommands.
#[derive(clap::Args, Debug)]
pub(crate) struct Group<C: clap::Subcommand> {
    #[command(subcommand)]
    pub(crate) command: C,
}

impl Flags {
    /// These, and where they say nothing what stands before the subcommand.
    pub(crate) fn over(self, before: Flags) -> GlobalArgs {
        let format = self.output.format.or(before.output.format).unwrap_or_default();
        GlobalArgs { cluster: self.cluster.over(before.cluster), format }
    }

    /// Refuses those that mean nothing to a subcommand.
    pub(crate) fn refuse_cluster(&self, command: &str) -> Result {
        let meaningless = |flag| {
            Err(Failure::usage(format_args!("{flag} means nothing to `driftless {command}`")).hint("leave it out"))
        };
        self.cluster.given().map_or(Ok(()), meaningless)
    }

    /// The same of a subcommand that prints for people alone.
    pub(crate) fn refuse_all(&self, command: &str) -> Result {
        self.refuse_cluster(command)?;
        match self.output.format {
            Some(_) => {
                Err(Failure::usage(format_args!("--format means nothing to `driftless {command}`"))
                    .hint("leave it out"))
            }
            None => Ok(()),
        }
    }
}

impl GlobalArgs {
    /// What says which cluster is meant and who we are to it, for commands that are printed to be typed: it stands before the
    /// subcommand.
    pub(crate) fn cluster_flags(&self) -> String {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let ClusterArgs { profile, endpoint, ca, cert, client_key, timeout: _ } = &self.cluster;
        [
            ("--profile", profile.clone()),
            ("--endpoint", endpoint.clone()),
            ("--ca", path(ca)),
            ("--cert", path(cert)),
            ("--key", path(client_key)),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some(format!(" {flag} {}", key::word(&value?))))
        .collect()
    }
}

impl<A: clap::Args> OnCluster<A> {
    /// The arguments for all subcommands, and its own.
    pub(crate) fn over(self, before: Flags) -> Result<(GlobalArgs, A)> {
        let (global, args) = self.over_with_raw(before);
        unless_raw(global.format).map(|_| (global, args))
    }

    /// The same for the one that can print raw bytes.
    pub(crate) fn over_with_raw(self, before: Flags) -> (GlobalArgs, A) {
        let OnCluster { args, mut flags, key } = self;
        flags.cluster.client_key = key.or(flags.cluster.client_key);
        (flags.over(before), args)
    }
}

impl<A: clap::Args> OnClusterByKey<A> {
    /// The arguments for all subcommands, and its own.
    pub(crate) fn over(self, before: Flags) -> Result<(GlobalArgs, A)> {
        let global = self.flags.over(before);
        unless_raw(global.format).map(|_| (global, self.args))
    }
}

impl<A: clap::Args> WithOutput<A> {
    /// How to print, and its own arguments.
    pub(crate) fn over(self, before: Flags) -> Result<(Format, A)> {
        let format = self.output.format.or(before.output.format).unwrap_or_default();
        unless_raw(format).map(|format| (format, self.args))
    }
}

fn unless_raw(format: Format) -> Result<Format> {
    match format {
        Format::Raw => Err(Failure::usage("--format raw is for `get` only").hint("use --format text or --format json")),
        format => Ok(format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_reaches_the_same_cluster() {
        let cluster = ClusterArgs {
            profile: Some("my shop".to_owned()),
            endpoint: Some("h:1".to_owned()),
            ca: Some("ca.pem".into()),
            cert: Some("c.pem".into()),
            client_key: Some("it's.key".into()),
            timeout: None,
        };
        let flags = GlobalArgs { cluster, format: Format::Text }.cluster_flags();
        assert_eq!(flags, r" --profile 'my shop' --endpoint h:1 --ca ca.pem --cert c.pem --key 'it'\''s.key'");
        let none = GlobalArgs { cluster: ClusterArgs::default(), format: Format::Text };
        assert_eq!(none.cluster_flags(), "");
    }
}

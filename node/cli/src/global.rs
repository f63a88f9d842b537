//! Arguments that every subcommand takes, before or after its name.

use std::path::PathBuf;

use super::output::Format;
use super::profile::ClusterArgs;

/// What every subcommand that talks to a cluster is given.
#[derive(Debug)]
pub(crate) struct GlobalArgs {
    /// Which cluster.
    pub(crate) cluster: ClusterArgs,
    /// How to print.
    pub(crate) format: Format,
}

/// The arguments of a subcommand, and `--key`, which `ring` uses for something else.
#[derive(clap::Args, Debug)]
pub(crate) struct WithKey<A: clap::Args> {
    #[command(flatten)]
    pub(crate) args: A,
    /// Private key of the client certificate
    #[arg(long = "key", id = "key-file", value_name = "FILE", help_heading = "Cluster")]
    pub(crate) key: Option<PathBuf>,
}

impl GlobalArgs {
    /// `--profile`, for commands that are printed to be typed.
    pub(crate) fn profile_flag(&self) -> String {
        match &self.cluster.profile {
            Some(profile) if std::env::var_os("DRIFTLESS_PROFILE").is_none() => format!(" --profile {profile}"),
            _ => String::new(),
        }
    }

    /// The same with a private key, if one was given after the subcommand.
    pub(crate) fn with_key(&self, key: Option<PathBuf>) -> GlobalArgs {
        let mut cluster = self.cluster.clone();
        cluster.client_key = key.or(cluster.client_key);
        GlobalArgs { cluster, format: self.format }
    }
}

//! Where the examples find a cluster: in the directory of one that `driftless dev --dir DIR` runs.
//!
//! ```sh
//! driftless dev --dir DIR &
//! DRIFTLESS_PROFILE=DIR cargo run -p driftless-client --example quickstart
//! ```
//! It is the variable that the command line takes its cluster from, so it cannot mean anything to a node. Of what `dev` writes
//! there, its `profile.toml` names the seeds and the PEM files. A cluster that is still being started is waited for.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_client::{Client, ClientBuilder, Identity};
use serde::Deserialize;

/// Paths start at the directory.
#[derive(Deserialize)]
struct Profile {
    seeds: Vec<String>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

pub(crate) fn builder() -> Result<ClientBuilder, Box<dyn Error>> {
    let Some(dir) = std::env::var_os("DRIFTLESS_PROFILE") else {
        return Err("set DRIFTLESS_PROFILE to the directory of a cluster that `driftless dev --dir DIR` runs".into());
    };
    let (dir, file) = (Path::new(&dir), Path::new(&dir).join("profile.toml"));
    let text = std::fs::read_to_string(&file).map_err(|error| {
        format!("cannot read {}: {error}; does `driftless dev --dir DIR` run there?", file.display())
    })?;
    let profile: Profile = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let identity = Identity::from_pem_files(dir.join(profile.ca), dir.join(profile.cert), dir.join(profile.key))?;
    Ok(Client::builder().seeds(profile.seeds).identity(identity).wait_for_cluster(PATIENCE))
}

/// Three processes start within a few seconds, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

//! Where the examples find a cluster: `driftless dev` prints what to put into these variables.
//!
//! ```text
//! DRIFTLESS_SEEDS   host:port[,host:port…]      127.0.0.1:7400 if not set
//! DRIFTLESS_CA, DRIFTLESS_CERT, DRIFTLESS_KEY   PEM files
//! ```

use std::error::Error;

use driftless_client::{Client, ClientBuilder, Identity};

pub(crate) fn builder() -> Result<ClientBuilder, Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("set {name} to the path of a PEM file"));
    let seeds = std::env::var("DRIFTLESS_SEEDS").unwrap_or_else(|_| "127.0.0.1:7400".into());
    let identity =
        Identity::from_pem_files(variable("DRIFTLESS_CA")?, variable("DRIFTLESS_CERT")?, variable("DRIFTLESS_KEY")?)?;
    Ok(Client::builder().seeds(seeds.split(',')).identity(identity))
}
